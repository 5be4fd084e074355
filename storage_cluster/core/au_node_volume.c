/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_volume.c: the way of the log through a volume.
 *
 *   APPEND ─▶ landing log ─▶ sync ─▶ durable ─▶ decode, apply ─▶ applied
 *             received              (APPEND_OK)                     │
 *                                                       freeze, write (RocksDB)
 *                                                                   ▼
 *             trim landing log ◀──────────────────────────────── persisted
 *
 * One sync covers all appends made before it; while it runs, further ones
 * gather for the next.
 *
 * The page store:
 *
 *   OK ──full, or time to persist──▶ WRITING ──ok──▶ OK
 *   WRITING ──failed──▶ STALLED ──reopened (every AU_NODE_RETRY_US)──▶ OK
 *
 * What was in memory is then decoded again from the landing log, beginning at
 * the restart position that the reopened store reports.
 */
#include "core/au_node_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "core/au_plant.h"

/* A damaged store is opened again and again at growing pauses. */
#define PAUSE_MAX_US ((uint64_t) 64 * 1000000)
#define RETRY_TEXT "it is tried again every 2 s"

static uint64_t
now_us(const AuVolume *v)
{
	return v->node->host.now_us(v->node->host.ctx);
}

AuLsn
au_v_received(const AuVolume *v)
{
	return v->node->host.log_end(v->node->host.ctx, v->handle);
}

AuLsn
au_v_durable(const AuVolume *v)
{
	return v->node->host.log_durable(v->node->host.ctx, v->handle);
}

bool
au_v_alone(const AuVolume *v)
{
	const AuGroup *g = &v->meta.group;

	return v->node->opt.alone &&
		(g->n == 0 || (g->n == 1 && g->members[0].node_id == v->node->opt.node_id));
}

/* ---- birth and death -------------------------------------------------- */

static AuStatus
take_record(void *ctx, const AuWalRecord *rec)
{
	AuVolume   *v = ctx;
	uint64_t	start = now_us(v);
	AuStatus	status = v->node->host.store_apply(v->node->host.ctx, v->handle, rec);

	v->apply_us += now_us(v) - start;
	v->apply_status = status;
	if (status == AU_OK)
		v->handed_on = rec->end;
	v->stats.records++;
	return status;
}

AuVolume *
au_v_new(AuNode *n, const AuVolumeMeta *meta, void *handle)
{
	const AuNodeHost *h = &n->host;
	AuVolume   *v = h->alloc(h->ctx, sizeof(*v));

	if (v == NULL)
		return NULL;
	memset(v, 0, sizeof(*v));
	v->node = n;
	v->handle = handle;
	v->meta = *meta;
	v->acks = h->alloc(h->ctx, AU_NODE_ACKS_MAX * sizeof(*v->acks));
	v->decode = au_waldecode_new(take_record, v);
	if (v->acks == NULL || v->decode == NULL)
	{
		au_v_free(v);
		return NULL;
	}
	return v;
}

void
au_v_free(AuVolume *v)
{
	const AuNodeHost *h = &v->node->host;

	assert(v->reading.count == 0);
	au_waldecode_free(v->decode);
	if (v->acks != NULL)
		h->release(h->ctx, v->acks);
	if (v->heap != NULL)
		h->release(h->ctx, v->heap);
	if (v->chunk != NULL)
		h->release(h->ctx, v->chunk);
	h->release(h->ctx, v);
}

/* Take up decoding where the store says, after a start or a reopening. */
AuStatus
au_v_start(AuVolume *v, char *err, size_t errlen)
{
	const AuNodeHost *h = &v->node->host;
	AuLsn		applied,
				restart;
	AuLsn		start = h->log_start(h->ctx, v->handle);
	AuLsn		end = h->log_end(h->ctx, v->handle);

	h->store_positions(h->ctx, v->handle, &applied, &restart);
	/* One that began with another node's pages may have less log than pages: it
	 * has voted for no log, or its log begins where the pages need it (one that
	 * is trimmed begins far below).  One that lost its log has to get it. */
	if (restart < start ||
		(applied > end && start != restart && v->meta.lost_before == 0 &&
		 (v->meta.group.n == 0 || v->meta.history.n > 0)))
	{
		snprintf(err, errlen,
				 "volume %" PRIu64 ": the landing log holds %X/%X to %X/%X, but pages are applied up to %X/%X and need it from %X/%X: files of the log are missing; restore the node's directory from a backup",
				 v->meta.system_identifier, AU_LSN_ARGS(start), AU_LSN_ARGS(end),
				 AU_LSN_ARGS(applied), AU_LSN_ARGS(restart));
		return AU_CORRUPT;
	}
	au_waldecode_start(v->decode, restart, v->meta.segment_size);
	v->next_feed = restart;
	/* What was applied before is in, although the decoder begins below. */
	v->applied = applied;
	v->handed_on = applied;
	/* Only what a quorum holds is ever applied. */
	if (applied > v->commit)
		v->commit = applied;
	/* One that never voted took nothing else from others, either. */
	if (v->meta.term == 0 && v->meta.history.n == 0 && v->meta.group.n > 0 && end > v->commit)
		v->commit = end;
	v->persist_at = now_us(v);
	au_o_refresh(v);
	return AU_OK;
}

void
au_v_start_closed(AuVolume *v, const char *why)
{
	v->store_state = AU_STORE_STALLED;
	v->store_closed = true;
	/* Log that was trimmed had been applied, so a quorum held it; one that never
	 * voted took nothing else, see au_v_start. */
	v->commit = v->meta.term == 0 && v->meta.history.n == 0 && v->meta.group.n > 0 ?
		au_v_received(v) : v->node->host.log_start(v->node->host.ctx, v->handle);
	v->retry_at = now_us(v) + AU_NODE_RETRY_US;	/* a cluster's view may help */
	v->persist_at = now_us(v);
	snprintf(v->problem, sizeof(v->problem), "%s", why);
	au_md_damaged(v, why);
}

/* ---- appending -------------------------------------------------------- */

static void
send_positions(AuVolume *v, AuConn *c, uint64_t id, AuLsn received, AuLsn durable)
{
	AuMsgAppendOk ok = {
		.term = v->meta.term,.received_lsn = received,.durable_lsn = durable,
		.applied_lsn = v->applied
	};
	AuWriter	w;

	if (au_n_reserve(v->node, c, &w, AU_WIRE_HEADER + 64))
		au_n_send(v->node, c, &w, au_enc_append_ok(&w, id, &ok));
}

static void
send_ack(AuVolume *v, AuConn *c, uint64_t id)
{
	send_positions(v, c, id, au_v_received(v), au_v_durable(v));
}

/* Acknowledge the newest append that is durable, and with it those before. */
static void
send_acks(AuVolume *v)
{
	AuLsn		durable = au_v_durable(v);
	uint64_t	id = 0,
				now = 0;
	bool		any = false;

	while (v->ack_count > 0 && v->acks[v->ack_head].end <= durable)
	{
		id = v->acks[v->ack_head].id;
		if (!any)
			now = now_us(v);
		au_hist_add(&v->latency[AU_STAGE_APPEND], now - v->acks[v->ack_head].since_us);
		any = true;
		v->ack_head = (v->ack_head + 1) % AU_NODE_ACKS_MAX;
		v->ack_count--;
	}
	if (any && v->writer != NULL)
		send_ack(v, v->writer, id);
}

static bool
append_allowed(AuVolume *v, AuConn *c, uint64_t id, const AuMsgAppend *m)
{
	AuNode	   *n = v->node;
	AuLsn		received = au_v_received(v);

	if (v->writer != c || m->term != v->meta.term)
		au_n_error(n, c, id, AU_FENCED,
				   "Only one server may write a volume; make sure that the other one is meant to.",
				   "term %" PRIu64 " is over: another writer was granted term %" PRIu64,
				   m->term, v->meta.term);
	else if (m->timeline != v->meta.timeline)
		au_n_error(n, c, id, AU_INVALID, NULL, "APPEND on timeline %u, but the term is for timeline %u",
				   m->timeline, v->meta.timeline);
	else if (v->failed)
		au_n_error(n, c, id, AU_CORRUPT, "See the node's log.", "%s", v->problem);
	else if (v->store_state == AU_STORE_STALLED && au_v_lags(v, received))
	{
		c->append_failed = true;
		au_n_error(n, c, id, AU_FULL, "Make room on the storage node's disk.", "%s", v->problem);
	}
	else if (m->length > 0 && m->lsn > received && c->append_failed)
		au_n_error(n, c, id, AU_FULL, "Make room on the storage node's disk.",
				   "an append before this one could not be stored");
	else if (m->length > 0 && m->lsn > received)
		au_n_error(n, c, id, AU_INVALID, NULL, "APPEND at %X/%X leaves a gap: the log ends at %X/%X",
				   AU_LSN_ARGS(m->lsn), AU_LSN_ARGS(received));
	else
		return true;
	return false;
}

AuStatus
au_v_log_append(AuVolume *v, uint64_t term, uint32_t timeline,
				const uint8_t *bytes, size_t len, char *err, size_t errlen)
{
	const AuNodeHost *h = &v->node->host;
	AuLsn		received = au_v_received(v);
	AuStatus	status = h->log_append(h->ctx, v->handle, term, timeline, received,
									   bytes, len, err, errlen);

	if (status == AU_OK)
	{
		v->stats.append_bytes += len;
		v->log_full = false;
		v->fed_at = now_us(v);
		return AU_OK;
	}
	if (status == AU_CORRUPT)
	{
		au_n_fatal(v->node, "volume %" PRIu64 ": %s", v->meta.system_identifier, err);
		return status;
	}
	if (!v->log_full)
		au_n_log(v->node, AU_LOG_ERROR, "volume %" PRIu64 ": log at %X/%X was not stored: %s",
				 v->meta.system_identifier, AU_LSN_ARGS(received), err);
	v->log_full = true;
	snprintf(v->full_why, sizeof(v->full_why), "%s", err);
	return status;
}

/* Log that comes again is the same as before, or somebody else's. */
static bool
same_log(AuVolume *v, AuLsn lsn, const uint8_t *bytes, size_t len)
{
	const AuNodeHost *h = &v->node->host;
	AuLsn		start = h->log_start(h->ctx, v->handle);
	size_t		done = start > lsn ? (size_t) (start - lsn) : 0;
	char		err[512];
	size_t		got;

	while (done < len)
	{
		size_t		want = len - done < AU_NODE_SLICE_BYTES ? len - done : AU_NODE_SLICE_BYTES;

		if (h->log_read(h->ctx, v->handle, lsn + done, v->node->slice, want, &got,
						err, sizeof(err)) != AU_OK || got == 0)
		{
			au_n_fatal(v->node, "volume %" PRIu64 ": could not read the landing log at %X/%X: %s",
					   v->meta.system_identifier, AU_LSN_ARGS(lsn + done), err);
			return false;
		}
		if (memcmp(v->node->slice, bytes + done, got) != 0)
			return false;
		done += got;
	}
	return true;
}

/* false: answered with an error */
static bool
store_log(AuVolume *v, AuConn *c, uint64_t id, const AuMsgAppend *m)
{
	AuLsn		received = au_v_received(v);
	size_t		skip = received - m->lsn < m->length ? (size_t) (received - m->lsn) : m->length;
	char		err[512];

	if (!same_log(v, m->lsn, m->bytes, skip))
	{
		if (v->node->dead)
			return false;
		v->writer = NULL;
		au_n_error(v->node, c, id, AU_REFUSED,
				   "Start the server whose data directory is current. A copy of it that went its own way cannot write to the same volume.",
				   "the server's WAL from %X/%X on differs from what the volume holds",
				   AU_LSN_ARGS(m->lsn));
		return false;
	}
	if (skip == m->length ||
		au_v_log_append(v, m->term, m->timeline, m->bytes + skip, m->length - skip,
						err, sizeof(err)) == AU_OK)
		return true;
	if (v->node->dead)
		return false;
	c->append_failed = true;
	au_n_error(v->node, c, id, AU_FULL,
			   "Make room on the storage node's disk; the writer then goes on by itself.",
			   "%s", err);
	return false;
}

void
au_v_append(AuVolume *v, AuConn *c, uint64_t id, const AuMsgAppend *m)
{
	AuLsn		end = m->lsn + m->length;

	if (AU_PLANTED(AU_PLANT_BEHIND_COUNTS) && v->mend.behind && end > au_v_received(v))
	{
		send_positions(v, c, id, end, end);
		return;
	}
	if (!append_allowed(v, c, id, m))
		return;
	v->stats.appends++;
	if (m->commit_lsn > v->commit)
		v->commit = m->commit_lsn;
	if (m->length == 0)
	{
		v->wanted = m->lsn;
		send_ack(v, c, id);
		v->tell_fed = m->lsn > v->next_feed ? m->lsn : 0;
		v->tell_id = id;
		return;
	}
	if (!store_log(v, c, id, m))
		return;
	c->append_failed = false;
	assert(v->ack_count < AU_NODE_ACKS_MAX);	/* see au_v_writer_must_wait */
	v->acks[(v->ack_head + v->ack_count) % AU_NODE_ACKS_MAX] = (AuAck)
	{
		id, end, now_us(v)
	};
	v->ack_count++;
	if (end <= au_v_durable(v))
		send_acks(v);
}

bool
au_v_writer_must_wait(const AuVolume *v)
{
	AuLsn		durable = au_v_durable(v);

	return v->ack_count >= AU_NODE_ACKS_MAX ||
		au_v_received(v) - durable > AU_NODE_UNSYNCED_MAX ||
		(v->store_state != AU_STORE_STALLED && !v->failed && au_v_lags(v, durable));
}

bool
au_v_lags(const AuVolume *v, AuLsn lsn)
{
	/* A page store that is made anew begins where others are. */
	AuLsn		from = v->mend.stage >= AU_MEND_COPIES && v->mend.upto > v->applied ?
		v->mend.upto : v->applied;

	return lsn > from && lsn - from > AU_NODE_APPLY_LAG_MAX;
}

static void
sync_ended(AuVolume *v, AuStatus status, const char *err)
{
	uint64_t	took;

	assert(v->syncing);
	v->syncing = false;
	if (status != AU_OK)
	{
		/* What the kernel had may be gone, and a second try would lie. */
		au_n_fatal(v->node, "volume %" PRIu64 ": %s; what was not acknowledged is sent again after a restart",
				   v->meta.system_identifier, err);
		return;
	}
	took = now_us(v) - v->sync_since;
	au_hist_add(&v->latency[AU_STAGE_PERSIST], took);
	v->stats.syncs++;
	v->stats.sync_us += took;
	if (took > v->stats.sync_us_max)
		v->stats.sync_us_max = took;
	send_acks(v);
}

/* On persistent memory the acknowledgement leaves from within this call. */
static void
sync_if_needed(AuVolume *v)
{
	const AuNodeHost *h = &v->node->host;
	AuStatus	status = AU_OK;
	char		err[512];

	if (v->syncing || au_v_received(v) == au_v_durable(v))
		return;
	v->syncing = true;
	v->sync_since = now_us(v);
	if (h->log_sync_start(h->ctx, v->handle, &status, err, sizeof(err)))
		sync_ended(v, status, err);
}

void
au_node_synced(AuNode *n, void *handle, AuStatus status, const char *err)
{
	AuVolume   *v = au_n_volume_of(n, handle);

	if (v != NULL && !n->dead)
		sync_ended(v, status, err);
}

/* ---- applying --------------------------------------------------------- */

static void
volume_failed(AuVolume *v, const char *why)
{
	v->failed = true;
	/* The decoder stopped in mid-slice; what it handed on before is in. */
	if (v->handed_on > v->applied)
		v->applied = v->handed_on;
	snprintf(v->problem, sizeof(v->problem), "%s", why);
	au_n_log(v->node, AU_LOG_ERROR, "volume %" PRIu64 " takes no more log: %s",
			 v->meta.system_identifier, v->problem);
	au_r_fail_all(v, AU_CORRUPT, v->problem);
}

static bool
start_write(AuVolume *v, bool persist)
{
	const AuNodeHost *h = &v->node->host;
	AuLsn		restart = au_waldecode_restart_lsn(v->decode);

	assert(v->store_state == AU_STORE_OK);
	/* While what was applied before is decoded again the decoder is behind. */
	if (v->importing || v->next_feed < v->applied || restart > v->applied ||
		!h->store_freeze(h->ctx, v->handle, v->applied, restart))
		return false;
	v->store_state = AU_STORE_WRITING;
	v->write_persists = persist;
	v->write_since = now_us(v);
	h->store_write_start(h->ctx, v->handle, persist);
	return true;
}

bool
au_v_write(AuVolume *v, bool persist)
{
	return v->store_state == AU_STORE_OK && v->cut == 0 && !v->failed && start_write(v, persist);
}

/* The writer wanted to know when pages are so far.  (The position it named may
 * lie within a record: then applied stays below.) */
static void
tell_writer(AuVolume *v)
{
	if (v->tell_fed == 0 || v->next_feed < v->tell_fed)
		return;
	v->tell_fed = 0;
	if (v->writer != NULL)
		send_ack(v, v->writer, v->tell_id);
}

static AuStatus
decode_piece(AuVolume *v, size_t len)
{
	uint64_t	start = now_us(v);
	uint64_t	took;
	AuStatus	status;

	v->apply_status = AU_OK;
	v->apply_us = 0;
	status = au_waldecode_feed(v->decode, v->node->slice, len);
	took = now_us(v) - start;
	au_hist_add(&v->latency[AU_STAGE_APPLY], v->apply_us);
	au_hist_add(&v->latency[AU_STAGE_DECODE], took - v->apply_us);
	return status;
}

bool
au_v_log_damaged(AuVolume *v, const char *why)
{
	if (!au_volume_may_lose_log(&v->meta, v->node->opt.node_id))
		return false;
	au_n_fatal(v->node, "volume %" PRIu64 ": %s; when this node starts again it gets that log from the others",
			   v->meta.system_identifier, why);
	return true;
}

/* Apply one piece.  true: there is more to apply now. */
static bool
apply_piece(AuVolume *v)
{
	AuNode	   *n = v->node;
	const AuNodeHost *h = &n->host;
	AuLsn		limit = au_v_durable(v);
	char		err[512];
	size_t		got = 0;
	AuStatus	status;

	if (!au_v_alone(v) && v->commit < limit && !AU_PLANTED(AU_PLANT_APPLY_EARLY))
		limit = v->commit;
	if (v->failed || v->cut != 0 || v->store_state == AU_STORE_STALLED ||
		n->stopping || v->next_feed >= limit)
		return false;
	if (h->store_full(h->ctx, v->handle) &&
		(v->store_state != AU_STORE_OK || !start_write(v, false)))
		return false;			/* the write's end wakes us */
	status = h->log_read(h->ctx, v->handle, v->next_feed, n->slice,
						 limit - v->next_feed < AU_NODE_SLICE_BYTES ?
						 (size_t) (limit - v->next_feed) : AU_NODE_SLICE_BYTES,
						 &got, err, sizeof(err));
	if (status != AU_OK || got == 0)
	{
		if (status != AU_CORRUPT || !au_v_log_damaged(v, err))
			volume_failed(v, status != AU_OK ? err : "the landing log ends too early");
		return false;
	}
	status = decode_piece(v, got);
	if (v->apply_status != AU_OK)
	{
		au_n_fatal(n, "volume %" PRIu64 ": could not apply the log: %s",
				   v->meta.system_identifier, h->store_error(h->ctx, v->handle));
		return false;
	}
	if (status != AU_OK)
	{
		volume_failed(v, status == AU_NOMEM ? "out of memory" : au_waldecode_error(v->decode));
		return false;
	}
	v->next_feed += got;
	if (au_waldecode_position(v->decode) > v->applied)
	{
		v->applied = au_waldecode_position(v->decode);
		au_h_break(v);
		h->store_set_applied(h->ctx, v->handle, v->applied);
	}
	tell_writer(v);
	return v->next_feed < limit;
}

/* ---- persisting ------------------------------------------------------- */

/*
 * Owners of a slice may all be away, and be none of those that keep the log: what
 * none of them has is kept until one is back, or others own the slice, however
 * much it is.  Otherwise changes that were acknowledged would be nowhere.
 */
static AuLsn
owners_have(AuVolume *v, AuLsn wanted)
{
	uint32_t	slice = 0;
	AuLsn		have = au_g_owners_have(v, &slice);
	bool		held = have < wanted && !AU_PLANTED(AU_PLANT_TRIM_EARLY);

	if (held && !v->trim_held)
		au_n_log(v->node, AU_LOG_WARNING, "volume %" PRIu64 ": the landing log is kept from %X/%X on, for none of the nodes that own slice %u is known to have more of it",
				 v->meta.system_identifier, AU_LSN_ARGS(have), slice);
	v->trim_held = held;
	return held ? have : wanted;
}

/* Cut the landing log below what is in files. */
static void
trim(AuVolume *v, uint64_t now)
{
	const AuNodeHost *h = &v->node->host;
	AuLsn		applied,
				restart,
				needed,
				keep;
	char		err[512];

	h->store_persisted(h->ctx, v->handle, &applied, &restart);
	if (au_md_keeps_log(v, &needed) && needed < restart)
		restart = needed;
	/* A server that comes back is compared with it; others of the group may
	 * have missed it. */
	keep = v->meta.group.n > 1 || v->meta.group.epoch > 0 ||
		(v->node->view != NULL && v->node->view->nnodes > 1) ?
		v->node->opt.keep_bytes : AU_VOLUME_COMPARE_BYTES;
	restart = restart < keep ? 0 : restart - keep;
	if (v->syncing || restart <= v->trimmed || now < v->trim_at)
		return;
	restart = owners_have(v, restart);
	if (v->trim_held)
		v->trim_at = now + AU_NODE_RETRY_US;
	if (restart <= v->trimmed)
		return;
	v->trimmed = restart;
	if (h->log_trim(h->ctx, v->handle, restart, err, sizeof(err)) != AU_OK)
		au_n_log(v->node, AU_LOG_WARNING, "volume %" PRIu64 ": could not trim the landing log: %s",
				 v->meta.system_identifier, err);
}

/* true: there is more to remove now. */
static bool
gc_step(AuVolume *v)
{
	const AuNodeHost *h = &v->node->host;
	uint64_t	start = now_us(v);
	bool		more = h->store_gc_step(h->ctx, v->handle);

	if (more)
		au_hist_add(&v->latency[AU_STAGE_GC], now_us(v) - start);
	return more;
}

/* Opening it again helps for a while only: what failed will fail again. */
static uint64_t
damaged_pause(AuVolume *v)
{
	uint64_t	pause = AU_NODE_RETRY_US << v->corrupt_writes;

	if (pause >= PAUSE_MAX_US)
		return PAUSE_MAX_US;
	v->corrupt_writes++;
	return pause;
}

void
au_node_written(AuNode *n, void *handle, AuStatus status, const char *err)
{
	AuVolume   *v = au_n_volume_of(n, handle);

	if (v == NULL || n->dead)
		return;
	assert(v->store_state == AU_STORE_WRITING);
	au_hist_add(&v->latency[AU_STAGE_WRITE], now_us(v) - v->write_since);
	if (status == AU_OK)
	{
		v->store_state = AU_STORE_OK;
		v->stats.store_writes++;
		if (v->write_persists)
			v->persist_at = now_us(v);
		/* With log enough the next one begins at once: these come first. */
		if (v->cut == 0 && !v->failed)
			(void) gc_step(v);
		(void) au_o_run(v, now_us(v));
		return;
	}
	au_v_stall(v, status, err);
}

void
au_v_stall(AuVolume *v, AuStatus status, const char *why)
{
	v->store_state = AU_STORE_STALLED;
	snprintf(v->problem, sizeof(v->problem), "%s", why);
	if (status == AU_CORRUPT)
	{
		uint64_t	pause = damaged_pause(v);

		v->retry_at = now_us(v) + pause;
		au_n_log(v->node, AU_LOG_ERROR,
				 "volume %" PRIu64 ": %s; the page store is opened again in %" PRIu64 " s",
				 v->meta.system_identifier, why, pause / 1000000);
		au_md_damaged(v, why);
		return;
	}
	v->retry_at = now_us(v) + AU_NODE_RETRY_US;
	au_n_log(v->node, AU_LOG_ERROR, "volume %" PRIu64 ": %s; " RETRY_TEXT,
			 v->meta.system_identifier, why);
}

/* Give the store another chance. */
static void
reopen(AuVolume *v)
{
	AuNode	   *n = v->node;
	const AuNodeHost *h = &n->host;
	char		err[512];
	AuStatus	status;

	/* Reads under way hold on to the store: let them end, start none. */
	v->draining = v->reading.count > 0;
	v->draining = au_d_end_slices(v, NULL) || v->draining;
	if (v->draining || !au_md_may_switch(v))
		return;
	status = h->store_reopen(h->ctx, v->handle, err, sizeof(err));
	if (status != AU_FULL)
		v->store_closed = true;
	if (status == AU_CORRUPT)
		au_md_damaged(v, err);
	v->retry_at = now_us(v) + (status == AU_CORRUPT ? damaged_pause(v) : AU_NODE_RETRY_US);
	if (status == AU_OK)
		status = au_v_start(v, err, sizeof(err));
	if (status == AU_CORRUPT)
		au_md_not_opened(v, err);
	if (status != AU_OK)
	{
		snprintf(v->problem, sizeof(v->problem), "%s", err);
		return;
	}
	v->store_state = AU_STORE_OK;
	v->store_closed = false;
	v->problem[0] = '\0';
	v->cut = 0;
	v->stats.store_reopens++;
	au_md_reopened(v);
	/* Positions of a connection never go back; a new one starts afresh. */
	if (v->writer != NULL)
		au_n_close(n, v->writer);
	au_o_reopened(v);
	au_n_log(n, AU_LOG_INFO, "volume %" PRIu64 ": the page store is open again; log is applied again from %X/%X",
			 v->meta.system_identifier, AU_LSN_ARGS(v->next_feed));
}

/* Finish cutting log off: the store knows the lower position now. */
static void
finish_cut(AuVolume *v)
{
	const AuNodeHost *h = &v->node->host;
	char		err[512];

	if (h->log_truncate(h->ctx, v->handle, v->cut, err, sizeof(err)) != AU_OK)
	{
		au_n_fatal(v->node, "volume %" PRIu64 ": %s", v->meta.system_identifier, err);
		return;
	}
	if (v->next_feed > v->cut)
	{
		au_waldecode_start(v->decode, v->cut, v->meta.segment_size);
		v->next_feed = v->cut;
		v->handed_on = v->cut;
	}
	v->cut = 0;
}

static void
persist_if_due(AuVolume *v, uint64_t now, uint64_t *wait)
{
	const AuNodeHost *h = &v->node->host;
	AuLsn		applied,
				restart;
	uint64_t	every = v->log_full ? AU_NODE_RETRY_US : AU_NODE_PERSIST_US;
	uint64_t	age = now - v->persist_at;

	h->store_persisted(h->ctx, v->handle, &applied, &restart);
	if (v->applied <= applied)
		return;
	if (v->applied - applied < v->node->opt.persist_bytes && age < every && !v->node->stopping)
	{
		*wait = every - age < *wait ? every - age : *wait;
		return;
	}
	(void) start_write(v, true);
}

/* true: there is more to apply now. */
static bool
apply_pieces(AuVolume *v, uint64_t now)
{
	AuLsn		before = v->next_feed;
	bool		more = apply_piece(v);

	for (int i = 1; more && i < AU_NODE_SLICE_PIECES && now_us(v) - now < AU_NODE_SLICE_US; i++)
		more = apply_piece(v);
	if (v->next_feed != before)
		au_hist_add(&v->latency[AU_STAGE_TURN], now_us(v) - now);
	return more;
}

/* Log that was lost is here again: the node has its vote back. */
static void
see_log_whole(AuVolume *v, uint64_t now, uint64_t *wait)
{
	AuVolumeMeta meta = v->meta;
	char		err[512];

	if (meta.lost_before == 0 || v->cut != 0 ||
		!au_volume_log_whole(&meta, au_p_counts(v), au_v_durable(v), v->applied))
		return;
	if (now < v->whole_at)
	{
		*wait = v->whole_at - now < *wait ? v->whole_at - now : *wait;
		return;
	}
	v->whole_at = now + AU_NODE_RETRY_US;
	meta.lost_before = 0;
	if (v->node->host.volume_save(v->node->host.ctx, v->handle, &meta, err, sizeof(err)) != AU_OK)
		return;
	v->meta = meta;
	au_n_log(v->node, AU_LOG_INFO, "volume %" PRIu64 ": the log that was lost is here again, up to %X/%X: this node takes part as before",
			 meta.system_identifier, AU_LSN_ARGS(au_v_durable(v)));
}

uint64_t
au_v_run(AuVolume *v)
{
	uint64_t	now = now_us(v);
	uint64_t	wait = UINT64_MAX;
	bool		more;

	if (v->store_state == AU_STORE_STALLED)
	{
		if (now < v->retry_at)
			wait = v->retry_at - now;
		else
			reopen(v);
	}
	if (v->cut != 0 && (v->store_state == AU_STORE_OK || v->store_closed) && !v->syncing)
		finish_cut(v);
	if (v->node->dead)
		return UINT64_MAX;
	sync_if_needed(v);
	if (v->node->dead)
		return UINT64_MAX;
	now = now_us(v);
	see_log_whole(v, now, &wait);
	more = apply_pieces(v, now);
	if (v->store_state == AU_STORE_OK && v->cut == 0 && !v->failed)
	{
		persist_if_due(v, now, &wait);
		trim(v, now);
		more = gc_step(v) || more;
	}
	return more ? 0 : wait;
}

/* Everything that is applied is in files, or cannot be for now. */
bool
au_v_stopped(const AuVolume *v)
{
	AuLsn		applied,
				restart;

	if (v->syncing || v->store_state == AU_STORE_WRITING || v->reading.count > 0 ||
		v->importing || v->node->digesting || v->mend.taking)
		return false;
	v->node->host.store_persisted(v->node->host.ctx, v->handle, &applied, &restart);
	return v->failed || v->store_state == AU_STORE_STALLED || v->applied <= applied ||
		v->next_feed < v->applied;
}

void
au_v_state(const AuVolume *v, const char **state, const char **problem)
{
	*problem = v->problem;
	if (v->failed)
		*state = "failed";
	else if (v->store_state == AU_STORE_STALLED)
	{
		*state = "store stalled";
		if (v->mend.waits[0] != '\0')
			*problem = v->mend.waits;
	}
	else if (v->log_full)
	{
		*state = "disk full";
		*problem = v->full_why;
	}
	else if (v->meta.lost_before != 0)
	{
		*state = "log lost";
		*problem = "its landing log was damaged and is fetched from the other nodes; until it is here this one has no vote";
	}
	else if (au_p_log_gone(v) != NULL)
	{
		*state = "left behind";
		*problem = v->mend.waits[0] != '\0' ? v->mend.waits : au_p_log_gone(v);
	}
	else if (v->mend.waits[0] != '\0')
	{
		*state = "damaged";
		*problem = v->mend.waits;
	}
	else
		*state = "ok";
}
