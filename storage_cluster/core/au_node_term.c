/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_term.c: the making of volumes, and TERM: the right to append to a
 * volume that this node keeps alone, without a vote.  Only tools (bench/walfeed.c)
 * and tests send TERM; the log shipper uses VOTE and ELECT, au_node_vote.c.
 *
 * A TERM is decided when everything received is durable (so that what the old
 * writer sent is either acknowledged or gone) and no cut is under way:
 *
 *   arrives ──▶ unknown volume ──▶ create, or refuse
 *          └──▶ wait for the sync ──▶ refuse (timeline, restored copy, ...)
 *                                ├──▶ cut off a dead timeline's end ──▶ again
 *                                └──▶ persist term + 1, then grant
 */
#include "core/au_node_int.h"

#include <assert.h>
#include <inttypes.h>

bool
au_t_create(AuNode *n, AuConn *c, const AuVolumeMeta *meta, bool may_create)
{
	void	   *handle = NULL;
	char		err[512];
	AuStatus	status;

	if (!may_create)
		au_n_error(n, c, c->ask_id, AU_REFUSED,
				   "If storage lost this volume, restore the node's directory from a backup. If it never had it, check aurora.storage_nodes.",
				   "volume %" PRIu64 " is not on this node", c->system_identifier);
	else if (n->nvols == AU_NODE_VOLUMES_MAX)
		au_n_error(n, c, c->ask_id, AU_REFUSED, "Run another aurora_storaged for this server.",
				   "this node has %d volumes, which is its limit", AU_NODE_VOLUMES_MAX);
	else if (meta->start_lsn == 0 || meta->timeline == 0 ||
			 !au_segment_size_valid(meta->segment_size))
		au_n_error(n, c, c->ask_id, AU_INVALID, NULL,
				   "no usable start (LSN %X/%X, timeline %u, segment size %u) for a new volume",
				   AU_LSN_ARGS(meta->start_lsn), meta->timeline, meta->segment_size);
	else
	{
		status = n->host.volume_create(n->host.ctx, meta, &handle, err, sizeof(err));
		if (status == AU_OK)
			status = au_node_add_volume(n, meta, handle, err, sizeof(err));
		if (status == AU_OK)
		{
			au_n_log(n, AU_LOG_INFO, "created volume %" PRIu64 ", whose log begins at %X/%X",
					 meta->system_identifier, AU_LSN_ARGS(meta->start_lsn));
			return true;
		}
		au_n_error(n, c, c->ask_id, status, NULL, "could not create volume %" PRIu64 ": %s",
				   c->system_identifier, err);
	}
	return false;
}

bool
au_t_fits(AuNode *n, AuConn *c, const AuVolume *v, uint32_t segment_size, uint32_t timeline)
{
	if (v->failed)
		au_n_error(n, c, c->ask_id, AU_CORRUPT, "See the node's log.",
				   "volume %" PRIu64 " takes no more log: %s", v->meta.system_identifier, v->problem);
	else if (segment_size != v->meta.segment_size)
		au_n_error(n, c, c->ask_id, AU_REFUSED, NULL,
				   "the server's WAL segments have %u bytes, the volume's %u",
				   segment_size, v->meta.segment_size);
	else if (timeline < v->meta.timeline)
		au_n_error(n, c, c->ask_id, AU_REFUSED,
				   "Another server of this cluster was promoted and has written since; this one must not write any more.",
				   "the server is on timeline %u, storage on timeline %u already",
				   timeline, v->meta.timeline);
	else
		return true;
	return false;
}

/* Answers with an error and returns true if the term cannot be granted. */
static bool
refused(AuNode *n, AuConn *c, AuVolume *v)
{
	const AuMsgTerm *m = &c->ask.term;
	AuLsn		durable = au_v_durable(v);

	if (!au_t_fits(n, c, v, m->wal_segment_size, m->timeline))
		return true;
	if (v->meta.group.n > 1)
		au_n_error(n, c, c->ask_id, AU_REFUSED,
				   "List all of them in aurora.storage_nodes.",
				   "the volume is kept by %u nodes; one of them alone cannot let a writer in",
				   v->meta.group.n);
	else if (m->local_end < durable &&
			 !(m->timeline > v->meta.timeline && m->switch_lsn < durable))
		au_n_error(n, c, c->ask_id, AU_REFUSED,
				   "Start the server whose data directory is current. To keep this older copy, give it an empty storage directory of its own and load its tables from a dump.",
				   "the server's WAL ends at %X/%X, before what storage has acknowledged (%X/%X): it was restored from an older copy, or lost WAL in a crash",
				   AU_LSN_ARGS(m->local_end), AU_LSN_ARGS(durable));
	else
		return false;
	return true;
}

/*
 * A new timeline that left the old one below what we hold: the end of the old
 * one goes, if no page has seen it.  Returns true if an answer was sent.
 */
static bool
start_cut(AuNode *n, AuConn *c, AuVolume *v)
{
	const AuMsgTerm *m = &c->ask.term;
	const AuNodeHost *h = &n->host;
	AuLsn		restart = au_waldecode_restart_lsn(v->decode);
	AuLsn		seen;

	if (v->store_closed || v->importing)
		return false;			/* later */
	seen = h->store_last_change(h->ctx, v->handle);
	if (seen > m->switch_lsn || m->switch_lsn < h->log_start(h->ctx, v->handle))
	{
		au_n_error(n, c, c->ask_id, AU_REFUSED,
				   "Use a server that has the whole log of the old timeline, or restore storage to a point before the switch.",
				   "timeline %u left the old one at %X/%X, but pages here were changed up to %X/%X",
				   m->timeline, AU_LSN_ARGS(m->switch_lsn), AU_LSN_ARGS(seen));
		return true;
	}
	if (v->store_state != AU_STORE_OK || v->next_feed < v->applied ||
		!h->store_rewind(h->ctx, v->handle, m->switch_lsn))
		return false;			/* a write is under way: later */
	if (v->applied > m->switch_lsn)
	{
		/* A timeline begins with a record of its own. */
		v->applied = m->switch_lsn;
		restart = m->switch_lsn;
	}
	if (!h->store_freeze(h->ctx, v->handle, v->applied, restart))
		return false;
	au_n_log(n, AU_LOG_INFO, "volume %" PRIu64 ": cutting off timeline %u from %X/%X on",
			 v->meta.system_identifier, v->meta.timeline, AU_LSN_ARGS(m->switch_lsn));
	v->cut = m->switch_lsn;
	v->store_state = AU_STORE_WRITING;
	v->write_persists = true;
	v->write_since = h->now_us(h->ctx);
	h->store_write_start(h->ctx, v->handle, true);
	return false;
}

static void
grant(AuNode *n, AuConn *c, AuVolume *v)
{
	const AuMsgTerm *m = &c->ask.term;
	AuVolumeMeta meta = v->meta;
	AuMsgTermOk ok;
	AuWriter	w;
	char		err[512];
	AuStatus	status;

	meta.term++;
	meta.voted_for = m->writer_id;
	meta.timeline = m->timeline;
	au_history_forget(&meta.history, au_v_received(v));	/* alone: all of it counts */
	if (!au_history_push(&meta.history, meta.term, au_v_received(v), m->timeline))
		assert(false);
	status = n->host.volume_save(n->host.ctx, v->handle, &meta, err, sizeof(err));
	if (status != AU_OK)
	{
		au_n_error(n, c, c->ask_id, status, "Make room on the storage node's disk.",
				   "could not persist term %" PRIu64 ": %s", meta.term, err);
		return;
	}
	v->meta = meta;
	if (v->writer != NULL && v->writer != c)
		au_n_log(n, AU_LOG_WARNING, "volume %" PRIu64 ": writer \"%s\" is fenced off by \"%s\"",
				 meta.system_identifier, v->writer->name, c->name);
	v->writer = c;
	v->tell_fed = 0;
	v->ack_count = 0;
	c->append_failed = false;
	ok = (AuMsgTermOk)
	{
		.term = meta.term,.received_lsn = au_v_received(v),
		.durable_lsn = au_v_durable(v),.applied_lsn = v->applied
	};
	au_n_log(n, AU_LOG_INFO, "volume %" PRIu64 ": granted term %" PRIu64 " on timeline %u to \"%s\", log goes on at %X/%X",
			 meta.system_identifier, meta.term, meta.timeline, c->name,
			 AU_LSN_ARGS(ok.received_lsn));
	if (au_n_reserve(n, c, &w, AU_WIRE_HEADER + 64))
		au_n_send(n, c, &w, au_enc_term_ok(&w, c->ask_id, &ok));
}

bool
au_t_decide(AuNode *n, AuConn *c)
{
	const AuMsgTerm *m = &c->ask.term;
	AuVolume   *v;

	assert(c->asking == AU_MSG_TERM);
	if (c->closing)
		return true;
	if (c->vol == NULL)
	{
		AuVolumeMeta meta = {
			.system_identifier = c->system_identifier,.start_lsn = m->start_lsn,
			.timeline = m->timeline,.segment_size = m->wal_segment_size
		};

		if (!au_t_create(n, c, &meta, m->may_create))
			return true;
	}
	v = c->vol;
	assert(v != NULL);
	if (v->syncing || v->cut != 0 || au_v_received(v) != au_v_durable(v))
		return false;
	if (refused(n, c, v))
		return true;
	if (m->timeline > v->meta.timeline && m->switch_lsn < au_v_received(v))
		return start_cut(n, c, v);
	grant(n, c, v);
	return true;
}
