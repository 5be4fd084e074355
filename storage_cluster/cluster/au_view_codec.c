/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_view_codec.c: the bytes of views and of commands.
 *
 *   0   u32 magic    "AUVW" a view, "AUVC" a command
 *   4   u16 version
 *   6   u16 0
 *   8   u32 length   of the body
 *   12  body
 *   end u32 crc      CRC-32C of all before
 *
 * A view has the lowest version that can tell it, so that nodes of an older
 * release read it as long as nothing is in it that they do not know.
 * docs/formats.md has the bodies.  A decoder takes only what its encoder
 * writes: what is decoded and encoded again are the same bytes.
 */
#include "cluster/au_view.h"

#include "common/au_crc32c.h"
#include "common/au_wire.h"

#define VIEW_MAGIC 0x57565541u		/* "AUVW" in memory */
#define COMMAND_MAGIC 0x43565541u	/* "AUVC" */
#define COMMAND_VERSION 1
#define VIEW_PLAIN 1			/* version of a view in which nobody mends */
#define VIEW_MENDS 2			/* its nodes have what they mend */
#define HEADER 12

#define NODE_MAX (4 + 8 + 3 * (2 + AU_ADDRESS_MAX) + 2 + AU_ZONE_MAX + 2 + 3 + 2 + 8)
#define VOLUME_MAX (8 + 4 + 1 + 1 + 1 + 4 + AU_GROUP_MAX * 4)
#define SLICE_MAX (1 + 1 + 2 * AU_RF_MAX * 4 + 1 + 8)

_Static_assert(HEADER + 23 + AU_VIEW_NODES_MAX * NODE_MAX + AU_VIEW_VOLUMES_MAX * VOLUME_MAX +
			   AU_SLICES * SLICE_MAX + 4 <= AU_VIEW_ENCODED_MAX, "the largest view fits");
_Static_assert(HEADER + 41 + NODE_MAX + AU_SLICES / 8 + 4 <= AU_VIEW_COMMAND_MAX,
			   "the largest command fits");
_Static_assert(AU_VIEW_ENCODED_MAX <= AU_WIRE_PAYLOAD_MAX, "a view fits into a frame");

static void
begin(AuWriter *w, uint8_t *buf, size_t cap, uint32_t magic, uint16_t version)
{
	au_writer_start(w, buf, cap);
	au_w_u32(w, magic);
	au_w_u16(w, version);
	au_w_u16(w, 0);
	au_w_u32(w, 0);
}

static size_t
end(AuWriter *w)
{
	if (!w->overflow)
	{
		au_put_u32(w->data + 8, (uint32_t) (w->len - HEADER));
		au_w_u32(w, au_crc32c(0, w->data, w->len));
	}
	return w->overflow ? 0 : w->len;
}

/* Returns the version.  The reader is bad unless all is as `end` left it. */
static uint16_t
open_body(AuReader *r, const uint8_t *buf, size_t len, uint32_t magic, uint16_t newest)
{
	uint16_t	version = len < HEADER + 4 ? 0 : au_get_u16(buf + 4);

	au_reader_start(r, buf, len);
	if (version == 0 || version > newest || au_get_u32(buf) != magic ||
		au_get_u16(buf + 6) != 0 || au_get_u32(buf + 8) != len - HEADER - 4 ||
		au_get_u32(buf + len - 4) != au_crc32c(0, buf, len - 4))
		r->bad = true;
	else
		au_reader_start(r, buf + HEADER, len - HEADER - 4);
	return version;
}

static void
write_node(AuWriter *w, const AuViewNode *n)
{
	au_w_u32(w, n->number);
	au_w_u64(w, n->node_id);
	au_w_text(w, n->address);
	au_w_text(w, n->meta_address);
	au_w_text(w, n->http);
	au_w_text(w, n->zone);
	au_w_u16(w, n->weight);
	au_w_u8(w, n->state);
	au_w_u8(w, n->up);
	au_w_u8(w, n->voter);
}

static void
read_node(AuReader *r, AuViewNode *n)
{
	n->number = au_r_u32(r);
	n->node_id = au_r_u64(r);
	au_r_text(r, n->address, sizeof(n->address));
	au_r_text(r, n->meta_address, sizeof(n->meta_address));
	au_r_text(r, n->http, sizeof(n->http));
	au_r_text(r, n->zone, sizeof(n->zone));
	n->weight = au_r_u16(r);
	n->state = au_r_u8(r);
	n->up = au_r_u8(r);
	n->voter = au_r_u8(r);
}

static void
write_numbers(AuWriter *w, const uint32_t *list, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		au_w_u32(w, list[i]);
}

/* n was read from the input; more than max is bad. */
static void
read_numbers(AuReader *r, uint32_t *list, uint8_t *n, uint32_t max)
{
	if (*n > max)
	{
		*n = 0;
		r->bad = true;
	}
	for (uint32_t i = 0; i < *n; i++)
		list[i] = au_r_u32(r);
}

size_t
au_view_encode(const AuView *v, uint8_t *buf, size_t cap)
{
	uint16_t	version = VIEW_PLAIN;
	AuWriter	w;

	for (int i = 0; i < v->nnodes; i++)
		if (v->nodes[i].mending != 0)
			version = VIEW_MENDS;
	begin(&w, buf, cap, VIEW_MAGIC, version);
	au_w_u64(&w, v->cluster_id);
	au_w_u64(&w, v->epoch);
	au_w_u32(&w, v->next_number);
	au_w_u8(&w, v->rf);
	au_w_u8(&w, v->nnodes);
	au_w_u8(&w, v->nvolumes);
	for (int i = 0; i < v->nnodes; i++)
	{
		write_node(&w, &v->nodes[i]);
		if (version < VIEW_MENDS)
			continue;
		au_w_u16(&w, v->nodes[i].mending);
		au_w_u64(&w, v->nodes[i].mending_since);
	}
	for (int i = 0; i < v->nvolumes; i++)
	{
		const AuViewVolume *vol = &v->volumes[i];

		au_w_u64(&w, vol->system_identifier);
		au_w_u32(&w, vol->group_epoch);
		au_w_u8(&w, vol->settled);
		au_w_u8(&w, vol->ngroup);
		au_w_u8(&w, vol->write_quorum);
		au_w_u32(&w, vol->leaving);
		write_numbers(&w, vol->group, vol->ngroup);
	}
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		const AuSlice *s = &v->slices[i];

		au_w_u8(&w, s->nowners);
		au_w_u8(&w, s->ntarget);
		au_w_u8(&w, s->ready);
		au_w_u64(&w, s->since);
		write_numbers(&w, s->owner, s->nowners);
		write_numbers(&w, s->target, s->ntarget);
	}
	return end(&w);
}

bool
au_view_decode(AuView *v, const uint8_t *buf, size_t len)
{
	AuReader	r;
	char		why[128];
	uint16_t	version;
	bool		mends = false;

	memset(v, 0, sizeof(*v));
	version = open_body(&r, buf, len, VIEW_MAGIC, VIEW_MENDS);
	v->cluster_id = au_r_u64(&r);
	v->epoch = au_r_u64(&r);
	v->next_number = au_r_u32(&r);
	v->rf = au_r_u8(&r);
	v->nnodes = au_r_u8(&r);
	v->nvolumes = au_r_u8(&r);
	if (v->nnodes > AU_VIEW_NODES_MAX || v->nvolumes > AU_VIEW_VOLUMES_MAX)
		return false;
	for (int i = 0; i < v->nnodes; i++)
	{
		read_node(&r, &v->nodes[i]);
		if (version < VIEW_MENDS)
			continue;
		v->nodes[i].mending = au_r_u16(&r);
		v->nodes[i].mending_since = au_r_u64(&r);
		mends = mends || v->nodes[i].mending != 0;
	}
	for (int i = 0; i < v->nvolumes; i++)
	{
		AuViewVolume *vol = &v->volumes[i];

		vol->system_identifier = au_r_u64(&r);
		vol->group_epoch = au_r_u32(&r);
		vol->settled = au_r_u8(&r);
		vol->ngroup = au_r_u8(&r);
		vol->write_quorum = au_r_u8(&r);
		vol->leaving = au_r_u32(&r);
		read_numbers(&r, vol->group, &vol->ngroup, AU_GROUP_MAX);
	}
	for (uint32_t i = 0; i < AU_SLICES; i++)
	{
		AuSlice    *s = &v->slices[i];

		s->nowners = au_r_u8(&r);
		s->ntarget = au_r_u8(&r);
		s->ready = au_r_u8(&r);
		s->since = au_r_u64(&r);
		read_numbers(&r, s->owner, &s->nowners, AU_RF_MAX);
		read_numbers(&r, s->target, &s->ntarget, AU_RF_MAX);
	}
	return au_reader_done(&r) && mends == (version == VIEW_MENDS) &&
		au_view_valid(v, why, sizeof(why));
}

size_t
au_view_command_encode(const AuViewCommand *c, uint8_t *buf, size_t cap)
{
	AuWriter	w;

	begin(&w, buf, cap, COMMAND_MAGIC, COMMAND_VERSION);
	au_w_u8(&w, c->type);
	au_w_u8(&w, c->rf);
	au_w_u8(&w, c->up);
	au_w_u8(&w, c->ngroup);
	au_w_u8(&w, c->write_quorum);
	au_w_u32(&w, c->number);
	au_w_u32(&w, c->with);
	au_w_u32(&w, c->group_epoch);
	au_w_u64(&w, c->cluster_id);
	au_w_u64(&w, c->system_identifier);
	au_w_u64(&w, c->epoch);
	write_node(&w, &c->node);
	for (uint32_t i = 0; i < AU_SLICES / 64; i++)
		au_w_u64(&w, c->slices.bits[i]);
	return end(&w);
}

bool
au_view_command_decode(AuViewCommand *c, const uint8_t *buf, size_t len)
{
	AuReader	r;

	memset(c, 0, sizeof(*c));
	(void) open_body(&r, buf, len, COMMAND_MAGIC, COMMAND_VERSION);
	c->type = au_r_u8(&r);
	c->rf = au_r_u8(&r);
	c->up = au_r_u8(&r);
	c->ngroup = au_r_u8(&r);
	c->write_quorum = au_r_u8(&r);
	c->number = au_r_u32(&r);
	c->with = au_r_u32(&r);
	c->group_epoch = au_r_u32(&r);
	c->cluster_id = au_r_u64(&r);
	c->system_identifier = au_r_u64(&r);
	c->epoch = au_r_u64(&r);
	read_node(&r, &c->node);
	for (uint32_t i = 0; i < AU_SLICES / 64; i++)
		c->slices.bits[i] = au_r_u64(&r);
	return au_reader_done(&r) && c->type >= AU_VIEW_INIT && c->type <= AU_VIEW_MENDING;
}
