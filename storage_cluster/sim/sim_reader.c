/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_reader.c: backends that read pages, from any node, at any position that
 * a client may know of.
 */
#include "sim/sim.h"

#include <stdlib.h>

static void
ask(Sim *s, SimReader *r)
{
	uint8_t		buf[512];
	AuMsgHello	hello = {.system_identifier = SIM_SYSID,.role = AU_ROLE_READER};
	AuMsgGetPages get = {.rel = {1663, 5, SIM_REL, 0},.nblocks = 1};
	AuLsn		end = SIM_BASE + s->truth_len;
	AuWriter	w;

	if (s->truth_len == 0)
		return;
	r->blk = (uint32_t) sim_below(s, SIM_BLOCKS);
	get.blocks[0] = sim_block(s, r->blk);
	r->not_before = sim_one_in(s, 2) ? end : SIM_BASE + sim_below(s, s->truth_len);
	r->read_lsn = sim_one_in(s, 4) ? SIM_BASE + 100 + sim_below(s, s->truth_len) : 0;
	if (r->read_lsn > end)
		r->read_lsn = end;
	get.not_before = r->read_lsn != 0 ? 0 : r->not_before;
	get.read_lsn = r->read_lsn;
	au_writer_start(&w, buf, sizeof(buf));
	if (r->in_cap == 0)
	{
		r->in_cap = 64 << 10;
		r->in = malloc(r->in_cap);
		if (r->in == NULL)
			abort();
	}
	if (!au_enc_hello(&w, 1, &hello) || !au_enc_get_pages(&w, 2, &get))
		abort();
	r->asked_at = s->now;
	r->in_len = 0;
	sim_net_send(s, r->link, 0, w.data, w.len);
}

void
sim_reader_tick(Sim *s, int index)
{
	SimReader  *r = &s->readers[index];

	if (r->link != NULL && s->now > r->asked_at + 3000000)
	{
		sim_net_close(s, r->link, 0);
		r->link = NULL;
		r->ask_at = s->now + 1000;
	}
	if (r->link != NULL || s->now < r->ask_at)
		return;
	r->node = (int) sim_below(s, s->nnodes);
	r->ask_at = s->now + sim_below(s, 20000);
	if (s->truth_len == 0)
		return;
	r->link = sim_net_open(s, SIM_WHO_READER + index, r->node, NULL);
	if (r->link == NULL)
		abort();
	ask(s, r);
}

void
sim_reader_closed(Sim *s, int index)
{
	s->readers[index].link = NULL;
	s->readers[index].ask_at = s->now + 1000;
}

/* Bytes for the reader: a whole answer is checked. */
void
sim_reader_input(Sim *s, int index, const uint8_t *bytes, size_t len)
{
	SimReader  *r = &s->readers[index];
	AuFrame		f;
	size_t		used;

	if (r->link == NULL)
		return;
	if (r->in_len + len > r->in_cap)
		abort();
	memcpy(r->in + r->in_len, bytes, len);
	r->in_len += len;
	for (;;)
	{
		AuStatus	status = au_frame_parse(r->in, r->in_len, &f, &used);
		AuMsgPages	m;

		if (status == AU_NEED_MORE)
			return;
		if (status != AU_OK)
			break;				/* a flipped bit, found */
		if (f.type == AU_MSG_PAGES)
		{
			if (!au_dec_pages(&f, &m) || m.nblocks != 1)
				sim_fail(s, "node %d answered with a malformed PAGES", r->node);
			else if (r->read_lsn == 0 && m.as_of < r->not_before)
				sim_fail(s, "node %d answered as of %X/%X, asked not before %X/%X", r->node,
						 AU_LSN_ARGS(m.as_of), AU_LSN_ARGS(r->not_before));
			else
			{
				s->figures.reads++;
				sim_check_page(s, r->node, r->blk, r->read_lsn != 0 ? r->read_lsn : m.as_of,
							   m.status[0], m.page[0]);
			}
			break;
		}
		if (f.type == AU_MSG_ERROR)
			break;
		r->in_len -= used;
		memmove(r->in, r->in + used, r->in_len);
	}
	sim_net_close(s, r->link, 0);
	sim_reader_closed(s, index);
}
