/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_vote.c: who may write a volume that several nodes keep: VOTE and
 * ELECT, this node's part of the election that core/au_proposer.c drives.
 *
 *   VOTE  ──▶ newer than all promised? ──▶ persist the promise ──▶ granted,
 *                                          with what this node's log is
 *   ELECT ──▶ cut off what differs from the elected log, durably
 *         ──▶ persist the elected history ──▶ the writer may append
 *
 * The order in ELECT matters.  Were the history persisted first, a crash
 * before the cut would leave old bytes under the new term's name, and a later
 * election could choose them.  The other way round a crash leaves a shorter
 * log under its old, true history.
 *
 * Both wait until everything received is durable, so that what the node
 * reports, and cuts, is all it has.
 *
 * Follows the election of Raft (Ongaro and Ousterhout 2014, section 5), with
 * the log as a byte stream; docs/decisions/0006-log-quorum.md has the proof.
 */
#include "core/au_node_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "core/au_plant.h"

/* Nothing is on its way to the disk that the decision would have to know. */
static bool
settled(const AuVolume *v)
{
	return !v->syncing && v->cut == 0 && au_v_received(v) == au_v_durable(v);
}

/* What a node that nobody has named a group to takes part in: itself. */
static AuGroup
own_group(const AuNode *n, const AuVolume *v)
{
	AuGroup		g = v->meta.group;

	if (g.n == 0)
	{
		g.n = g.write_quorum = 1;
		g.members[0].node_id = n->opt.node_id;
	}
	return g;
}

/* false: an error was answered */
static bool
group_fits(AuNode *n, AuConn *c, const AuVolume *v, const AuGroup *g)
{
	char		members[AU_WIRE_TEXT_MAX / 2] = "";
	AuGroup		own = own_group(n, v);

	if (au_group_may_follow(&own, g) || (AU_PLANTED(AU_PLANT_OLD_EPOCH) && g->epoch < own.epoch) ||
		(AU_PLANTED(AU_PLANT_TWO_AT_ONCE) && g->epoch > own.epoch))
		return true;
	if (g->epoch < own.epoch)
	{
		au_n_error(n, c, c->ask_id, AU_MOVED,
				   "The server learns the new group from the cluster's view, and goes on by itself.",
				   "the volume's log group has changed since: the server knows epoch %u of it, this node epoch %u",
				   g->epoch, own.epoch);
		return false;
	}
	for (uint32_t i = 0, len = 0; i < v->meta.group.n && len < sizeof(members) - 200; i++)
		len += (uint32_t) snprintf(members + len, sizeof(members) - len, "%s%s (node %" PRIX64 ")",
								   i > 0 ? ", " : "", v->meta.group.members[i].address,
								   v->meta.group.members[i].node_id);
	au_n_error(n, c, c->ask_id, AU_REFUSED,
			   "Set aurora.storage_nodes to the nodes that keep the volume, and aurora.write_quorum to its quorum. In a cluster, a log group changes by one node at a time.",
			   "the volume is kept by other nodes than the server asks for: %s, quorum %u, epoch %u",
			   v->meta.group.n == 0 ? "this one alone" : members, own.write_quorum, own.epoch);
	return false;
}

static void
answer_vote(AuNode *n, AuConn *c, const AuVolume *v, bool granted)
{
	AuMsgVoteOk ok = {
		.granted = granted,.term = v->meta.term,.timeline = v->meta.timeline,
		.start_lsn = v->meta.start_lsn,.durable_lsn = au_v_durable(v),
		.commit_lsn = v->commit,.history = v->meta.history
	};
	AuWriter	w;

	if (au_n_reserve(n, c, &w, AU_WIRE_HEADER + 64 + AU_HISTORY_MAX * 20))
		au_n_send(n, c, &w, au_enc_vote_ok(&w, c->ask_id, &ok));
}

/* Persist; false: an error was answered. */
static bool
save(AuNode *n, AuConn *c, AuVolume *v, const AuVolumeMeta *meta)
{
	char		err[512];
	AuStatus	status = n->host.volume_save(n->host.ctx, v->handle, meta, err, sizeof(err));

	if (status != AU_OK)
	{
		au_n_error(n, c, c->ask_id, status, "Make room on the storage node's disk.",
				   "could not persist term %" PRIu64 ": %s", meta->term, err);
		return false;
	}
	v->meta = *meta;
	return true;
}

/* The writer of an older term is told at its next append. */
static void
fence(AuNode *n, AuConn *c, AuVolume *v)
{
	if (v->writer != NULL && v->writer != c)
		au_n_log(n, AU_LOG_WARNING, "volume %" PRIu64 ": writer \"%s\" is fenced off by \"%s\", term %" PRIu64,
				 v->meta.system_identifier, v->writer->name, c->name, v->meta.term);
	v->writer = NULL;
	v->ack_count = 0;
}

/*
 * It may have acknowledged more than it has.  So its vote would be false, and
 * to those who were elected with its vote, or could be, it is no help; a writer
 * that is elected without it has found all that a quorum held.
 */
static void
lost(AuNode *n, AuConn *c, const AuVolume *v)
{
	au_n_error(n, c, c->ask_id, AU_LOST,
			   "It gets its log from the other nodes by itself, as soon as a server is elected by them.",
			   "the node's landing log was damaged: it has no vote before a server gets term %" PRIu64 " or a later one without it, and its log is here again",
			   v->meta.lost_before);
}

bool
au_t_decide_vote(AuNode *n, AuConn *c)
{
	const AuMsgVote *m = &c->ask.vote;
	AuVolume   *v;
	AuVolumeMeta meta;

	if (c->closing)
		return true;
	if (au_group_find(&m->group, n->opt.node_id) < 0)
	{
		au_n_error(n, c, c->ask_id, AU_INVALID, NULL,
				   "VOTE for a group that this node is not in");
		return true;
	}
	if (c->vol == NULL)
		c->vol = au_n_volume(n, c->system_identifier);
	if (c->vol == NULL && n->in_cluster && m->group.epoch == 0)
	{
		/* made here, it would be one that the cluster knows nothing of */
		au_n_error(n, c, c->ask_id, AU_MOVED,
				   "The server asks the cluster for the volume's log group, and goes on by itself.",
				   "this node is in a cluster, which has to name the nodes that keep the volume's log first");
		return true;
	}
	if (c->vol == NULL)
	{
		meta = (AuVolumeMeta)
		{
			.system_identifier = c->system_identifier,.start_lsn = m->start_lsn,
			.timeline = m->timeline,.segment_size = m->wal_segment_size,.group = m->group
		};
		if (!au_t_create(n, c, &meta, m->may_create))
			return true;
	}
	v = c->vol;
	if (!settled(v))
		return false;
	/* What it held alone counted; with the group that this vote may bring it
	 * would not be told so. */
	if (au_v_alone(v) && v->commit < au_v_durable(v))
		v->commit = au_v_durable(v);
	if (!au_t_fits(n, c, v, m->wal_segment_size, m->timeline) ||
		!group_fits(n, c, v, &m->group))
		return true;
	if (v->meta.lost_before != 0 && !AU_PLANTED(AU_PLANT_LOST_VOTES))
	{
		lost(n, c, v);
		return true;
	}
	meta = v->meta;
	if (m->term == meta.term && m->writer_id == meta.voted_for &&
		m->group.epoch == meta.group.epoch)
	{
		answer_vote(n, c, v, true);
		return true;
	}
	if (m->term <= meta.term)
	{
		answer_vote(n, c, v, false);
		return true;
	}
	meta.term = m->term;
	meta.voted_for = m->writer_id;
	meta.group = m->group;		/* addresses may be new */
	if (!save(n, c, v, &meta))
		return true;
	fence(n, c, v);
	answer_vote(n, c, v, true);
	return true;
}

/* What the elected log does not have goes.  false: it is under way. */
static bool
cut_off(AuNode *n, AuVolume *v, const AuMsgElect *m)
{
	AuLsn		end = au_v_durable(v);
	AuLsn		common = au_history_common(&v->meta.history, end, &m->history,
										   v->commit < end ? v->commit : end);

	if (common == end)
		return true;
	/* Nothing above commit is ever decoded, so no page has seen it. */
	assert(v->next_feed <= common && v->applied <= common);
	au_n_log(n, AU_LOG_INFO, "volume %" PRIu64 ": cutting off log from %X/%X to %X/%X, which term %" PRIu64 " does not have",
			 v->meta.system_identifier, AU_LSN_ARGS(common), AU_LSN_ARGS(end), m->term);
	v->cut = common;
	return false;
}

bool
au_t_decide_elect(AuNode *n, AuConn *c)
{
	const AuMsgElect *m = &c->ask.elect;
	AuVolume   *v = c->vol;
	AuVolumeMeta meta;
	AuMsgElectOk ok;
	AuWriter	w;

	if (c->closing)
		return true;
	if (v == NULL)
	{
		au_n_error(n, c, c->ask_id, AU_REFUSED,
				   "The node lost its data, or is another one: replace it, see docs/operation.md.",
				   "volume %" PRIu64 " is not on this node", c->system_identifier);
		return true;
	}
	if (au_group_find(&m->group, n->opt.node_id) < 0)
	{
		au_n_error(n, c, c->ask_id, AU_INVALID, NULL,
				   "ELECT for a group that this node is not in");
		return true;
	}
	if (!group_fits(n, c, v, &m->group))
		return true;
	meta = v->meta;
	if ((m->term < meta.term || (m->term == meta.term && m->writer_id != meta.voted_for)) &&
		!AU_PLANTED(AU_PLANT_STALE_TERM))
	{
		au_n_error(n, c, c->ask_id, AU_FENCED, NULL,
				   "term %" PRIu64 " is over: another writer was promised term %" PRIu64,
				   m->term, meta.term);
		return true;
	}
	if (m->term < meta.lost_before)
	{
		lost(n, c, v);
		return true;
	}
	if (!settled(v))
		return false;
	if (!au_t_fits(n, c, v, meta.segment_size, m->timeline))
		return true;
	if (!cut_off(n, v, m))
		return false;
	meta.term = m->term;
	meta.voted_for = m->writer_id;
	meta.timeline = m->timeline;
	meta.history = m->history;
	meta.group = m->group;
	if (!save(n, c, v, &meta))
		return true;
	fence(n, c, v);
	v->writer = c;
	c->append_failed = false;
	v->fed_at = n->host.now_us(n->host.ctx);
	v->wanted = 0;
	if (m->commit_lsn > v->commit)
		v->commit = m->commit_lsn;
	ok = (AuMsgElectOk)
	{
		.term = meta.term,.received_lsn = au_v_durable(v),.applied_lsn = v->applied
	};
	au_n_log(n, AU_LOG_INFO, "volume %" PRIu64 ": term %" PRIu64 " on timeline %u, writer \"%s\", log goes on at %X/%X",
			 meta.system_identifier, meta.term, meta.timeline, c->name, AU_LSN_ARGS(ok.received_lsn));
	if (au_n_reserve(n, c, &w, AU_WIRE_HEADER + 64))
		au_n_send(n, c, &w, au_enc_elect_ok(&w, c->ask_id, &ok));
	return true;
}
