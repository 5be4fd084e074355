/* SPDX-License-Identifier: Apache-2.0 */
/*
 * viewmake.h: commands and small clusters for tests of views and the ring.
 */
#ifndef VIEWMAKE_H
#define VIEWMAKE_H

#include <stdio.h>

#include "cluster/au_view.h"

static inline AuViewCommand
view_init(uint8_t rf)
{
	return (AuViewCommand)
	{
		.type = AU_VIEW_INIT,.cluster_id = 0xc1,.rf = rf
	};
}

/* Node `id` of a world in which all is derived from it. */
static inline AuViewCommand
view_join(uint64_t id, const char *zone)
{
	AuViewCommand c = {.type = AU_VIEW_JOIN};

	c.node.node_id = au_mix64(id + 1) | 1;
	c.node.weight = 100;
	snprintf(c.node.address, sizeof(c.node.address), "host%u:7100", (unsigned) id);
	snprintf(c.node.meta_address, sizeof(c.node.meta_address), "host%u:7101", (unsigned) id);
	snprintf(c.node.zone, sizeof(c.node.zone), "%s", zone);
	return c;
}

static inline AuViewCommand
view_about(AuViewCommandType type, uint32_t number)
{
	return (AuViewCommand)
	{
		.type = (uint8_t) type,.number = number
	};
}

/* The node says that it has all that is on its way to it. */
static inline AuViewCommand
view_ready(const AuView *v, uint32_t number)
{
	AuViewCommand c = view_about(AU_VIEW_SLICES_READY, number);
	AuSliceSet	owned;

	c.epoch = v->epoch;
	au_view_owned(v, number, &owned, &c.slices);
	return c;
}

#endif							/* VIEWMAKE_H */
