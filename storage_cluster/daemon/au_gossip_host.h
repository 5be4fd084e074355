/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_gossip_host.h: gossip of a daemon that is in a cluster: where it begins,
 * what is made of what it says, and its figures.  The gossip itself is the
 * core's (core/au_node_gossip.h).
 *
 *   somebody does not answer, or seems dead ─▶ the leader looks itself
 *   somebody has a newer view               ─▶ it is asked for
 */
#ifndef AU_GOSSIP_HOST_H
#define AU_GOSSIP_HOST_H

#include <jansson.h>

#include "core/au_node_gossip.h"
#include "daemon/au_daemon.h"
#include "daemon/au_text.h"

/* After au_meta_start; nothing happens if the node is in no cluster. */
bool		au_gossip_host_start(AuDaemon *d, char *err, size_t errlen);
/* For /status, a new reference; only if the node gossips. */
json_t	   *au_gossip_json(const AuDaemon *d);
void		au_gossip_metrics(const AuDaemon *d, AuText *t);

#endif							/* AU_GOSSIP_HOST_H */
