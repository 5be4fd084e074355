/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_check.c: what must hold, always (numbers as in docs/architecture.md).
 *
 *  1. What a client was told is committed is held by a quorum of disks, at
 *     every moment, whatever was lost meanwhile.  (A disk that lost log, and
 *     has no vote until it has that again, counts as one that holds it.)
 *  2. Two writers never get different bytes of one position acknowledged.
 *  3. Pages show only what was committed, and exactly that: the page of an
 *     answer is the replay of the committed log up to the answer's position.
 *  4. After the faults stop, everything comes back within a bound, and all
 *     nodes hold the same log and the same pages; but for one that keeps the log
 *     alone, or whose vote is needed, and whose disk was spoiled: it stays down.
 *     Gossip of each node holds the others for what they are; before, what a
 *     node is held for only moves up (sim_node.c).
 *     With repair: no page version is damaged then, none is lost, none is there
 *     that is not committed; and the digests of all nodes are the same.
 *  5. Log that is read from a disk is what was written to it (sim_disk.c).
 */
#include "sim/sim.h"

#include <stdlib.h>

static AuLsn
truth_end(const Sim *s)
{
	return SIM_BASE + s->truth_len;
}

static AuStatus
take(void *ctx, const AuWalRecord *rec)
{
	return sim_store_apply(&((Sim *) ctx)->model, rec);
}

void
sim_check_committed(Sim *s, const SimWriter *w, AuLsn commit)
{
	size_t		upto = (size_t) (commit - SIM_BASE);
	size_t		from = w->acked > SIM_BASE ? (size_t) (w->acked - SIM_BASE) : 0;
	size_t		overlap = upto < s->truth_len ? upto : s->truth_len;

	if (commit > w->flushed)
	{
		sim_fail(s, "writer %d was told that %X/%X is durable, but has written only up to %X/%X",
				 w->index, AU_LSN_ARGS(commit), AU_LSN_ARGS(w->flushed));
		return;
	}
	if (overlap > from && memcmp(s->truth + from, w->wal.buf + from, overlap - from) != 0)
	{
		sim_fail(s, "two writers: other bytes below %X/%X were acknowledged to writer %d before",
				 AU_LSN_ARGS(commit), w->index);
		return;
	}
	sim_trace(s, 0xacc, commit);
	if (upto <= s->truth_len)
		return;
	if (upto > s->truth_cap)
	{
		s->truth_cap = upto * 2;
		s->truth = realloc(s->truth, s->truth_cap);
		if (s->truth == NULL)
			abort();
	}
	memcpy(s->truth + s->truth_len, w->wal.buf + s->truth_len, upto - s->truth_len);
	if (s->decode == NULL)
	{
		s->decode = au_waldecode_new(take, s);
		if (s->decode == NULL)
			abort();
		au_waldecode_start(s->decode, SIM_BASE, WALMAKE_SEGMENT);
	}
	if (au_waldecode_feed(s->decode, s->truth + s->truth_len, upto - s->truth_len) != AU_OK)
		sim_fail(s, "the committed log is no WAL: %s", au_waldecode_error(s->decode));
	s->truth_len = upto;
	s->figures.acked_records = s->model.n;
}

void
sim_check_page(Sim *s, int node, uint32_t blk, AuLsn as_of, AuStatus status, const uint8_t *page)
{
	uint8_t		expected[AU_PAGE_SIZE];
	AuStatus	want;

	sim_trace(s, blk, as_of);
	/* What is wrong and cannot be seen is shown until it is compared; an answer
	 * may be late. */
	if (s->nodes[node].wrong_at != 0 && s->now < s->nodes[node].wrong_at + 5000000)
		return;
	if (as_of > truth_end(s))
	{
		/*
		 * A writer that was promised a quorum may have told nodes before it
		 * told its clients; only the next moment shows.
		 */
		if (as_of > s->visible)
			sim_fail(s, "node %d shows pages as of %X/%X, but only %X/%X is held by a quorum", node,
					 AU_LSN_ARGS(as_of), AU_LSN_ARGS(s->visible));
		return;
	}
	want = sim_store_read(&s->model, blk, as_of, expected);
	if (status != want)
		sim_fail(s, "node %d, block %u as of %X/%X: %s, expected %s", node, blk, AU_LSN_ARGS(as_of),
				 au_status_name(status), au_status_name(want));
	else if (status == AU_OK && memcmp(page, expected, AU_PAGE_SIZE) != 0)
		sim_fail(s, "node %d, block %u as of %X/%X: wrong bytes", node, blk, AU_LSN_ARGS(as_of));
}

/* How far a node that has no vote had log before it lost that. */
static AuLsn
lost_upto(const SimNode *n)
{
	return n->meta.lost_before != 0 ? n->lost_end : 0;
}

/* Does this disk hold the committed log up to lsn? */
static bool
holds(const Sim *s, const SimNode *n, AuLsn lsn, bool all)
{
	AuLsn		from = all ? n->log_start : lsn > 256 ? lsn - 256 : 0;

	if (!n->exists || n->log_durable < lsn)
		return false;
	if (from < n->log_start)
		from = n->log_start;
	return from >= lsn ||
		memcmp(n->log + (from - n->log_base), s->truth + (from - SIM_BASE), (size_t) (lsn - from)) == 0;
}

static void
check_held(Sim *s, bool all)
{
	AuLsn		end = truth_end(s);
	const AuGroup *g = sim_group(s, s->groups.checked);
	uint32_t	holders = 0;

	if (s->truth_len == 0)
		return;
	for (uint32_t i = 0; i < s->nnodes; i++)
		holders += sim_group_has(g, &s->nodes[i]) &&
			(lost_upto(&s->nodes[i]) >= end || holds(s, &s->nodes[i], end, all));
	if (holders < g->write_quorum)
		sim_fail(s, "log up to %X/%X was acknowledged, but only %u of %u nodes hold it, quorum %u",
				 AU_LSN_ARGS(end), holders, g->n, g->write_quorum);
}

/* The highest position that a quorum of a group's disks holds in the same bytes. */
static AuLsn
held_by_disks(const Sim *s, const AuGroup *g)
{
	AuLsn		sorted[SIM_NODES_MAX] = {0};
	uint32_t	count = 0;

	for (uint32_t i = 0; i < s->nnodes; i++)
	{
		const SimNode *n = &s->nodes[i];
		AuLsn		lsn = !n->exists || !sim_group_has(g, n) ? 0 :
			lost_upto(n) > n->log_durable ? lost_upto(n) : n->log_durable;
		uint32_t	at = count++;

		while (at > 0 && sorted[at - 1] < lsn)
		{
			sorted[at] = sorted[at - 1];
			at--;
		}
		sorted[at] = lsn;
	}
	return sorted[g->write_quorum - 1];
}

void
sim_check_tick(Sim *s)
{
	for (uint32_t epoch = s->groups.checked; epoch <= s->groups.epoch; epoch++)
	{
		AuLsn		held = held_by_disks(s, sim_group(s, epoch));

		if (held > s->visible)
			s->visible = held;
	}
	for (uint32_t i = 0; i < s->nnodes; i++)
		if (s->nodes[i].exists && s->nodes[i].applied > s->visible)
			sim_fail(s, "node %u has applied %X/%X, but no quorum holds more than %X/%X", i,
					 AU_LSN_ARGS(s->nodes[i].applied), AU_LSN_ARGS(s->visible));
	check_held(s, false);
}

const char *
sim_check_quiet(Sim *s)
{
	static char text[256];
	AuLsn		end = truth_end(s);
	AuLsn		pages = s->model.n > 0 ? s->model.records[s->model.n - 1].end : 0;
	const SimWriter *leader = NULL;

	for (int i = 0; i < SIM_WRITERS_MAX; i++)
		if (s->writers[i].exists && !s->writers[i].stopped)
			leader = &s->writers[i];
	if (leader == NULL)
		return "no writer is left";
	if (leader->acked < leader->flushed)
	{
		snprintf(text, sizeof(text), "writer %d has %X/%X acknowledged of %X/%X", leader->index,
				 AU_LSN_ARGS(leader->acked), AU_LSN_ARGS(leader->flushed));
		return text;
	}
	if (s->groups.on && !s->groups.settled)
	{
		snprintf(text, sizeof(text), "log group %u is not settled", s->groups.epoch);
		return text;
	}
	for (uint32_t i = 0; i < s->nnodes; i++)
	{
		const SimNode *n = &s->nodes[i];
		const char *wrong = n->up ? sim_node_opinions(n) : NULL;

		if (wrong != NULL)
			return wrong;
		if (n->lost || !sim_counts(s, n))
			continue;
		if ((wrong = sim_repair_missing(n)) != NULL)
			return wrong;
		if (n->meta.lost_before != 0)
		{
			snprintf(text, sizeof(text), "node %u still lacks log that it lost", i);
			return text;
		}
		if (!n->up || n->log_durable < end || n->applied < pages)
		{
			snprintf(text, sizeof(text), "node %u %s, has log up to %X/%X, pages up to %X/%X of %X/%X", i,
					 n->up ? "is up" : "is down", AU_LSN_ARGS(n->log_durable), AU_LSN_ARGS(n->applied),
					 AU_LSN_ARGS(end));
			return text;
		}
		if (s->views.on && (wrong = sim_view_missing(n)) != NULL)
			return wrong;
	}
	return NULL;
}

/* Each committed version is there, as it is, and no other. */
static void
check_versions(Sim *s, const SimNode *n)
{
	const SimStore *a = &n->store;
	const SimStore *b = &s->model;
	size_t		k = 0;

	for (size_t i = 0; i < a->n || k < b->n; i++, k++)
	{
		while (k < b->n && !sim_slices_kept(n, b->records[k].blk))
			k++;
		if (i == a->n && k == b->n)
			break;
		if (i >= a->n || k >= b->n || a->records[i].end != b->records[k].end ||
			a->records[i].blk != b->records[k].blk || a->records[i].len != b->records[k].len ||
			a->records[i].rot || memcmp(a->bytes + a->records[i].ops, b->bytes + b->records[k].ops,
											   b->records[k].len) != 0)
		{
			sim_fail(s, "node %d has other page versions than were committed: %zu, not %zu, the first at %X/%X",
					 n->index, a->n, b->n, AU_LSN_ARGS(k < b->n ? b->records[k].end : a->records[i].end));
			return;
		}
	}
	if (s->repair && sim_repair_root(n, a, truth_end(s)) != sim_repair_root(n, b, truth_end(s)))
		sim_fail(s, "node %d has another digest", n->index);
}

void
sim_check_end(Sim *s)
{
	uint8_t		page[AU_PAGE_SIZE];

	check_held(s, true);
	if (s->views.on)
		sim_view_check_end(s);
	for (uint32_t i = 0; i < s->nnodes; i++)
	{
		SimNode    *n = &s->nodes[i];

		/* damage that nobody has come across is found in opening, or does no harm */
		if (n->damaged && !n->lost && n->up)
		{
			sim_node_crash(n);
			(void) sim_disk_open(n);
		}
		if (n->lost || n->meta.lost_before != 0 || !sim_counts(s, n))
			continue;
		if (!holds(s, n, truth_end(s), true))
			sim_fail(s, "node %u holds other log than was committed", i);
		for (uint32_t blk = 0; blk < SIM_BLOCKS && n->up; blk++)
		{
			AuStatus	status = sim_store_read(&n->store, blk, truth_end(s), page);

			if (sim_slices_kept(n, blk))
				sim_check_page(s, (int) i, blk, truth_end(s), status, page);
		}
		if (n->up)
			check_versions(s, n);
	}
}
