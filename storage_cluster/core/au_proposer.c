/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_proposer.c: the writer's connections and the way of the log to a quorum;
 * see au_proposer.h.  au_proposer_elect.c wins the term.
 *
 *            window_start        commit            window_end
 *   ──────────────┼────────────────┼───────────────────┼──▶
 *   node 1                              durable  sent
 *   node 2                      durable        sent
 *   node 3 BEHIND  (asks the others; streams again when its end is in here)
 */
#include "core/au_proposer_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/au_plant.h"

#define FRAME_BYTES (AU_WIRE_APPEND_MAX + 256)

uint64_t
au_pr_now(const AuProposer *p)
{
	return p->host.now_us(p->host.ctx);
}

void
au_pr_log(AuProposer *p, bool warning, const char *fmt,...)
{
	char		text[AU_WIRE_TEXT_MAX];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	p->host.log(p->host.ctx, warning, text);
}

void
au_pr_end(AuProposer *p, AuProposerKind kind, const char *hint, const char *fmt,...)
{
	va_list		args;

	if (p->state == AU_PROPOSER_ENDED)
		return;
	p->state = AU_PROPOSER_ENDED;
	p->kind = kind;
	va_start(args, fmt);
	vsnprintf(p->text, sizeof(p->text), fmt, args);
	va_end(args);
	snprintf(p->hint, sizeof(p->hint), "%s", hint != NULL ? hint : "");
}

/* ---- connections ------------------------------------------------------ */

static uint32_t
campaigners(const AuProposer *p)
{
	uint32_t	count = 0;

	for (uint32_t i = 0; i < p->opt.nodes; i++)
		count += p->nodes[i].voted || p->nodes[i].state == AU_PNODE_VOTING;
	return count;
}

/* The connection is gone, by whoever's will. */
static void
forget_connection(AuProposer *p, uint32_t i)
{
	AuPNode    *n = &p->nodes[i];

	n->state = AU_PNODE_DOWN;
	n->greeted = false;
	n->asked_id = 0;
	n->in_len = 0;
	n->out_bytes = 0;
	n->answer_due = 0;
	n->retry_us = n->retry_us == 0 ? AU_PROPOSER_RETRY_MIN_US :
		n->retry_us * 2 > AU_PROPOSER_RETRY_MAX_US ? AU_PROPOSER_RETRY_MAX_US : n->retry_us * 2;
	n->retry_at = au_pr_now(p) + n->retry_us;
	if (p->state == AU_PROPOSER_VOTING && campaigners(p) < au_pr_votes_to_win(p))
	{
		p->state = AU_PROPOSER_CONNECTING;
		p->campaign_at = n->retry_at;
	}
}

void
au_pr_drop(AuProposer *p, uint32_t i, AuStatus status, const char *hint, const char *fmt,...)
{
	AuPNode    *n = &p->nodes[i];
	char		text[sizeof(n->problem)];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (strcmp(text, n->problem) != 0)
		au_pr_log(p, true, "storage node \"%s\": %s", p->opt.addresses[i], text);
	memcpy(n->problem, text, sizeof(text));
	n->problem_status = status;
	snprintf(n->hint, sizeof(n->hint), "%s", hint != NULL ? hint : "");
	if (n->state == AU_PNODE_DOWN)
		return;
	p->host.disconnect(p->host.ctx, i);
	forget_connection(p, i);
}

void
au_pr_send(AuProposer *p, uint32_t i, const AuWriter *w, uint64_t us)
{
	AuPNode    *n = &p->nodes[i];

	assert(!w->overflow && n->state != AU_PNODE_DOWN);
	n->out_bytes += w->len;
	if (n->answer_due == 0)
		n->answer_due = au_pr_now(p) + us;
	p->host.send(p->host.ctx, i, w->data, w->len);
}

void
au_proposer_sent(AuProposer *p, uint32_t i, size_t bytes)
{
	assert(bytes <= p->nodes[i].out_bytes);
	p->nodes[i].out_bytes -= bytes;
}

void
au_proposer_connected(AuProposer *p, uint32_t i)
{
	AuPNode    *n = &p->nodes[i];
	AuMsgHello	m = {.system_identifier = p->opt.system_identifier,.role = AU_ROLE_WRITER};
	AuWriter	w;

	assert(n->state == AU_PNODE_CONNECTING);
	memcpy(m.name, p->opt.name, sizeof(m.name));
	n->state = AU_PNODE_HELLO;
	n->answer_due = 0;
	au_writer_start(&w, p->frame, FRAME_BYTES);
	if (!au_enc_hello(&w, ++n->last_id, &m))
		assert(false);
	au_pr_send(p, i, &w, AU_PROPOSER_ANSWER_US);
}

void
au_proposer_closed(AuProposer *p, uint32_t i, const char *why)
{
	AuPNode    *n = &p->nodes[i];

	assert(n->state != AU_PNODE_DOWN);
	n->moved = false;
	/* What the node said before it closed is the better reason. */
	if (n->problem[0] == '\0' || n->greeted)
	{
		if (n->state == AU_PNODE_STREAM || n->state == AU_PNODE_BEHIND)
			au_pr_log(p, true, "storage node \"%s\": %s", p->opt.addresses[i], why);
		snprintf(n->problem, sizeof(n->problem), "%s", why);
		n->problem_status = AU_IO;
		n->hint[0] = '\0';
	}
	forget_connection(p, i);
}

/* ---- committing ------------------------------------------------------- */

/* What the quorum-th best node has. */
static AuLsn
quorum_of(const AuProposer *p, bool applied)
{
	AuLsn		sorted[AU_GROUP_MAX];
	uint32_t	count = 0;

	for (uint32_t i = 0; i < p->opt.nodes; i++)
	{
		AuLsn		lsn = !p->nodes[i].verified ? 0 :
			applied ? p->nodes[i].applied : p->nodes[i].durable;
		uint32_t	at = count++;

		while (at > 0 && sorted[at - 1] < lsn)
		{
			sorted[at] = sorted[at - 1];
			at--;
		}
		sorted[at] = lsn;
	}
	if (AU_PLANTED(AU_PLANT_QUORUM) && p->opt.write_quorum > 1)
		return sorted[p->opt.write_quorum - 2];
	return sorted[p->opt.write_quorum - 1];
}

static void
see_durable(AuProposer *p)
{
	AuLsn		held = quorum_of(p, false);

	/*
	 * A node whose log ends before our own term begins may still have an older
	 * last term, which a later election would weigh: it does not count.
	 */
	if (held < p->elected_end)
		return;
	p->settled = p->group.epoch;
	if (held > p->commit)
		p->commit = held;
	p->told = p->commit;
	held = quorum_of(p, true);
	if (held > p->commit)
		held = p->commit;
	if (held > p->applied)
		p->applied = held;
}

/*
 * Is all that lies between this node's end and the window's still in it?  Then
 * the log goes on from a little before the node's end, which it compares.
 */
static void
choose_stream(AuProposer *p, uint32_t i, AuLsn end)
{
	AuPNode    *n = &p->nodes[i];
	AuLsn		from;

	if (end < p->window_start)
	{
		n->state = AU_PNODE_BEHIND;
		snprintf(n->problem, sizeof(n->problem), "is behind, gets log from other nodes");
		n->problem_status = AU_OK;
		return;
	}
	from = end > AU_PROPOSER_OVERLAP ? end - AU_PROPOSER_OVERLAP : 0;
	n->sent = from > p->window_start ? from : p->window_start;
	n->verified = false;
	n->verify_id = 0;
	n->verify_until = end;
	n->state = AU_PNODE_STREAM;
	if (n->full)
		return;					/* until it takes log again */
	n->problem[0] = '\0';
	n->problem_status = AU_OK;
}

/* ---- answers ---------------------------------------------------------- */

static void
elected(AuProposer *p, uint32_t i, const AuMsgElectOk *m)
{
	AuPNode    *n = &p->nodes[i];

	if (n->state != AU_PNODE_ELECTING || m->term != p->term)
	{
		au_pr_drop(p, i, AU_INVALID, NULL, "answered an election that was not asked for");
		return;
	}
	if (m->received_lsn < n->durable)
	{
		au_pr_drop(p, i, AU_CORRUPT,
				   "Its disk does not keep what was synced, or its directory was put back from a copy: replace the node.",
				   "lost log that it had acknowledged, from %X/%X to %X/%X",
				   AU_LSN_ARGS(m->received_lsn), AU_LSN_ARGS(n->durable));
		return;
	}
	n->verified = false;
	choose_stream(p, i, m->received_lsn);
	n->durable = m->received_lsn;
	n->applied = m->applied_lsn;
	n->commit_told = p->commit;
	n->fenced = false;
	/* A full disk lets us in and then takes nothing: pauses go on growing. */
	if (!n->full)
		n->retry_us = 0;
	n->told_at = 0;				/* a heartbeat is due */
	n->asked = 0;
}

static void
appended(AuProposer *p, uint32_t i, uint64_t id, const AuMsgAppendOk *m)
{
	AuPNode    *n = &p->nodes[i];

	if (m->term < p->term)
		return;					/* it was asked before we sought this term */
	if (m->term != p->term || m->durable_lsn < n->durable || id > n->last_id)
	{
		au_pr_drop(p, i, AU_INVALID, NULL, "sent positions that cannot be");
		return;
	}
	if (id > n->acked_id)
		n->acked_id = id;
	if (n->verify_id != 0 && id >= n->verify_id)
	{
		n->verified = true;
		p->continues = p->continues || n->verify_until >= p->elected_end;
	}
	n->answer_due = n->acked_id == n->last_id ? 0 : au_pr_now(p) + AU_PROPOSER_ANSWER_US;
	if (n->full && (m->durable_lsn > n->durable || m->durable_lsn >= p->window_end))
	{
		n->full = false;
		n->retry_us = 0;
		n->problem[0] = '\0';
		n->problem_status = AU_OK;
	}
	n->durable = m->durable_lsn;
	n->applied = m->applied_lsn;
	if (n->state == AU_PNODE_BEHIND && m->received_lsn >= p->window_start)
	{
		au_pr_log(p, false, "storage node \"%s\" has caught up", p->opt.addresses[i]);
		choose_stream(p, i, m->received_lsn);
	}
	see_durable(p);
}

/*
 * Who still holds a quorum is the writer, and takes the node back with a newer
 * term; who has lost it must not ask again: two copies of one server would
 * take turns.
 */
void
au_pr_fenced(AuProposer *p, uint32_t i, const char *what)
{
	uint32_t	fenced = 0;

	p->nodes[i].fenced = true;
	for (uint32_t j = 0; j < p->opt.nodes; j++)
		fenced += p->nodes[j].fenced;
	au_pr_end(p, p->group.n - fenced >= p->opt.write_quorum ? AU_PROPOSER_AGAIN : AU_PROPOSER_FENCED,
			  "Only one server may write a volume; make sure that the other one is meant to.",
			  "storage node \"%s\": %s", p->opt.addresses[i], what);
}

/*
 * It lost log that it had acknowledged, and takes part again when a writer was
 * elected without it: we are, if the others suffice.  What it said is no sign
 * of a disk that lies.
 */
static void
lost_log(AuProposer *p, uint32_t i)
{
	uint32_t	others = 0;

	p->nodes[i].durable = p->nodes[i].applied = 0;
	for (uint32_t j = 0; j < p->opt.nodes; j++)
		others += j != i && p->nodes[j].state == AU_PNODE_STREAM && p->nodes[j].verified;
	if (p->state == AU_PROPOSER_LEADING && others >= au_pr_votes_to_win(p))
		au_pr_end(p, AU_PROPOSER_AGAIN, NULL,
				  "storage node \"%s\" lost log, and needs a term that was won without it", p->opt.addresses[i]);
}

static void
refused(AuProposer *p, uint32_t i, const AuMsgError *e)
{
	AuPNode    *n = &p->nodes[i];
	AuProposerNodeState was = n->state;

	/* On a full disk a node cannot persist what it is asked to promise, either. */
	n->full = e->status == AU_FULL || e->status == AU_NOMEM ||
		(n->full && e->status == AU_IO);
	n->moved = e->status == AU_MOVED;
	p->moved = p->moved || n->moved;
	au_pr_drop(p, i, (AuStatus) e->status, e->hint, "%s", e->message);
	if (e->status == AU_LOST)
		lost_log(p, i);
	/* Log that differs, a timeline that is over, another group: not to be
	 * mended by asking again. */
	if (e->status == AU_REFUSED && (was == AU_PNODE_STREAM || was == AU_PNODE_VOTING))
		au_pr_end(p, AU_PROPOSER_REFUSED, e->hint, "storage node \"%s\": %s", p->opt.addresses[i], e->message);
	if (e->status == AU_FENCED && p->state == AU_PROPOSER_LEADING)
		au_pr_fenced(p, i, e->message);
}

/* What a place is known to hold is of another node's, or nobody's. */
static void
forget_node(AuPNode *n)
{
	n->node_id = 0;
	n->durable = n->applied = 0;
	n->verified = n->voted = n->fenced = false;
}

/*
 * In a list a place is whoever answers there.  What a place has voted and
 * acknowledged is its node's: it goes with the node to where that answers now,
 * lest one node counts as two.  false: it answers at another place already.
 */
static bool
takes_place(AuProposer *p, uint32_t i, uint64_t node_id)
{
	AuPNode    *n = &p->nodes[i];

	if (n->node_id != 0 && n->node_id != node_id)
		forget_node(n);
	/* Before the group is known the campaign looks for it, and says it better. */
	for (uint32_t j = 0; j < p->opt.nodes && p->group.n > 0; j++)
	{
		AuPNode    *o = &p->nodes[j];

		if (j == i || o->node_id != node_id)
			continue;
		if (o->greeted)
		{
			au_pr_drop(p, i, AU_REFUSED, "Name each node once in aurora.storage_nodes.",
					   "\"%s\" and \"%s\" are the same storage node",
					   p->opt.addresses[j], p->opt.addresses[i]);
			return false;
		}
		n->durable = o->durable;
		n->fenced = o->fenced;
		forget_node(o);
	}
	return true;
}

static void
greeted(AuProposer *p, uint32_t i, const AuMsgHelloOk *m)
{
	AuPNode    *n = &p->nodes[i];

	if (n->member_id == 0 && !takes_place(p, i, m->node_id))
		return;
	n->greeted = true;
	n->greeted_at = au_pr_now(p);
	n->node_id = m->node_id;
	n->volume_known = m->volume_known;
	n->start_lsn = m->start_lsn;
	n->greeted_durable = m->durable_lsn;
	n->greeted_applied = m->applied_lsn;
	n->group = m->group;
	/* What a node alone calls its group is itself. */
	if (n->volume_known && n->group.n == 0)
	{
		n->group.n = n->group.write_quorum = 1;
		n->group.members[0].node_id = n->node_id;
	}
	n->promised = m->term;
	n->state = AU_PNODE_GREETED;
	if (n->member_id != 0 && n->member_id != n->node_id)
		au_pr_drop(p, i, AU_REFUSED,
				   "If the node got a new directory, have the cluster replace the one it was, see docs/operation.md.",
				   "is node %" PRIX64 ", but %" PRIX64 " is to keep this server's log",
				   n->node_id, n->member_id);
	else
		au_pr_greeted(p, i);
}

/* false: not an answer to what was asked */
static bool
dispatch(AuProposer *p, uint32_t i, const AuFrame *f)
{
	AuPNode    *n = &p->nodes[i];
	union
	{
		AuMsgHelloOk hello;
		AuMsgVoteOk vote;
		AuMsgElectOk elect;
		AuMsgAppendOk append;
		AuMsgError	error;
	}			m;

	/* Answers to an older campaign of ours. */
	if ((f->type == AU_MSG_VOTE_OK || f->type == AU_MSG_ELECT_OK) && f->id < n->asked_id)
		return true;
	if (f->type != AU_MSG_APPEND_OK)
		n->answer_due = 0;
	if (f->type == AU_MSG_ERROR && au_dec_error(f, &m.error))
		refused(p, i, &m.error);
	else if (f->type == AU_MSG_HELLO_OK && n->state == AU_PNODE_HELLO && au_dec_hello_ok(f, &m.hello))
		greeted(p, i, &m.hello);
	else if (f->type == AU_MSG_VOTE_OK && n->state == AU_PNODE_VOTING && au_dec_vote_ok(f, &m.vote))
		au_pr_voted(p, i, &m.vote);
	else if (f->type == AU_MSG_ELECT_OK && au_dec_elect_ok(f, &m.elect))
		elected(p, i, &m.elect);
	else if (f->type == AU_MSG_APPEND_OK && n->greeted && au_dec_append_ok(f, &m.append) &&
			 (n->state >= AU_PNODE_STREAM || m.append.term < p->term))
		appended(p, i, f->id, &m.append);
	else
		return false;
	return true;
}

void
au_proposer_input(AuProposer *p, uint32_t i, const uint8_t *bytes, size_t len)
{
	AuPNode    *n = &p->nodes[i];

	while (len > 0 && n->state != AU_PNODE_DOWN && p->state != AU_PROPOSER_ENDED)
	{
		size_t		take = sizeof(n->in) - n->in_len < len ? sizeof(n->in) - n->in_len : len;
		size_t		done = 0;
		AuStatus	status = AU_OK;

		memcpy(n->in + n->in_len, bytes, take);
		n->in_len += take;
		bytes += take;
		len -= take;
		while (n->state != AU_PNODE_DOWN && p->state != AU_PROPOSER_ENDED)
		{
			AuFrame		f;
			size_t		used;

			status = au_frame_parse(n->in + done, n->in_len - done, &f, &used);
			if (status == AU_NEED_MORE && used <= sizeof(n->in))
				break;
			if (status == AU_UNSUPPORTED)
			{
				au_pr_drop(p, i, AU_UNSUPPORTED,
						   "Install the same version of Aurora on the server and on all storage nodes.",
						   "speaks version %u of Aurora's protocol, the server version %d",
						   au_get_u16(n->in + done + 4), AU_WIRE_VERSION);
				return;
			}
			if (status != AU_OK || !dispatch(p, i, &f))
			{
				au_pr_drop(p, i, AU_UNSUPPORTED,
						   "Check that compute and storage run the same version of Aurora, and that the address is that of aurora_storaged.",
						   "sent something that is not the expected protocol");
				return;
			}
			done += used;
		}
		if (n->state == AU_PNODE_DOWN)
			return;
		n->in_len -= done;
		memmove(n->in, n->in + done, n->in_len);
	}
}

/* ---- the log ---------------------------------------------------------- */

AuLsn
au_proposer_next(const AuProposer *p)
{
	return p->window_end;
}

/*
 * Make room for more log.  What is committed may go; at first only what all
 * streaming nodes were sent, and no more than half of the window, so that a
 * node that comes back soon finds its place.
 */
static void
shrink_window(AuProposer *p, size_t need)
{
	AuLsn		half = p->window_end - p->opt.window_bytes / 2;
	AuLsn		keep = p->commit;

	/* Until the server is known to continue the elected log, what is to be
	 * compared stays. */
	if (au_proposer_room(p) >= need || !p->continues)
		return;
	for (uint32_t i = 0; i < p->opt.nodes; i++)
		if (p->nodes[i].state == AU_PNODE_STREAM && p->nodes[i].sent < keep)
			keep = p->nodes[i].sent;
	if (keep > p->window_start)
		p->window_start = keep < half ? keep : half > p->window_start ? half : p->window_start;
	if (au_proposer_room(p) >= need || p->commit <= p->window_start)
		return;
	/* A slow node must not hold up the others. */
	p->window_start = p->commit;
	for (uint32_t i = 0; i < p->opt.nodes; i++)
	{
		AuPNode    *n = &p->nodes[i];

		if (n->state == AU_PNODE_STREAM && n->sent < p->window_start)
		{
			n->state = AU_PNODE_BEHIND;
			snprintf(n->problem, sizeof(n->problem), "was too slow, gets log from other nodes");
			au_pr_log(p, true, "storage node \"%s\" %s", p->opt.addresses[i], n->problem);
		}
	}
}

size_t
au_proposer_room(const AuProposer *p)
{
	if (!p->led || p->state == AU_PROPOSER_ENDED)
		return 0;
	return p->opt.window_bytes - (size_t) (p->window_end - p->window_start);
}

void
au_proposer_log(AuProposer *p, const uint8_t *bytes, size_t len)
{
	assert(len <= au_proposer_room(p));
	while (len > 0)
	{
		size_t		at = (size_t) (p->window_end % p->opt.window_bytes);
		size_t		n = p->opt.window_bytes - at < len ? p->opt.window_bytes - at : len;

		memcpy(p->window + at, bytes, n);
		p->window_end += n;
		bytes += n;
		len -= n;
	}
}

/* One APPEND: log from n->sent, or none, to tell the commit position. */
static void
send_append(AuProposer *p, AuPNode *n, uint32_t i, size_t len)
{
	AuMsgAppend m = {
		.term = p->term,.timeline = p->opt.timeline,.lsn = n->sent,
		.commit_lsn = p->commit,.length = (uint32_t) len
	};
	AuWriter	w;

	m.bytes = p->window + n->sent % p->opt.window_bytes;
	au_writer_start(&w, p->frame, FRAME_BYTES);
	if (!au_enc_append(&w, ++n->last_id, &m))
		assert(false);
	n->sent += len;
	if (len == 0)
		n->asked = n->sent;
	n->commit_told = p->commit;
	n->told_at = au_pr_now(p);
	if (n->state == AU_PNODE_STREAM && n->verify_id == 0 && n->sent >= n->verify_until)
		n->verify_id = n->last_id;
	au_pr_send(p, i, &w, AU_PROPOSER_ANSWER_US);
}

/*
 * Does the node not know yet what is committed?  (A lone one knows by itself.)
 * The next log tells it on its way; if none follows soon, a message of its own
 * does.
 */
static bool
must_tell(const AuProposer *p, const AuPNode *n)
{
	return n->commit_told < p->commit && p->group.n > 1;
}

static void
send_log(AuProposer *p, uint32_t i, uint64_t now)
{
	AuPNode    *n = &p->nodes[i];

	/*
	 * Until a node that holds the whole elected log has seen that this server
	 * continues it, nodes get only what they hold already: else one that is
	 * behind would take a copy's bytes for those of the elected log.
	 */
	AuLsn		limit = p->continues || n->verify_until > p->window_end ? p->window_end : n->verify_until;

	while (n->state == AU_PNODE_STREAM && n->sent < limit &&
		   n->out_bytes < AU_PROPOSER_OUT_MAX)
	{
		size_t		len = (size_t) (limit - n->sent);
		size_t		straight = p->opt.window_bytes - (size_t) (n->sent % p->opt.window_bytes);

		if (len > straight)
			len = straight;
		if (len > AU_WIRE_APPEND_MAX)
			len = AU_WIRE_APPEND_MAX;
		send_append(p, n, i, len);
	}
	if (n->state < AU_PNODE_STREAM || n->out_bytes > 0)
		return;
	if ((must_tell(p, n) && now - n->told_at >= AU_PROPOSER_TELL_US) ||
		(p->want_applied && n->applied < n->durable && n->asked < n->sent) ||
		now - n->told_at >= AU_PROPOSER_HEARTBEAT_US)
	{
		/* A node that is behind is told up to where others have it. */
		if (n->state == AU_PNODE_BEHIND)
			n->sent = p->window_start;
		send_append(p, n, i, 0);
	}
}

/* ---- time ------------------------------------------------------------- */

static uint64_t
earlier(uint64_t wait, uint64_t now, uint64_t at)
{
	uint64_t	us = at > now ? at - now : 0;

	return us < wait ? us : wait;
}

static uint64_t
run_node(AuProposer *p, uint32_t i, uint64_t now)
{
	AuPNode    *n = &p->nodes[i];

	if (!n->used)
		return UINT64_MAX;
	if (n->state == AU_PNODE_DOWN && now >= n->retry_at)
	{
		n->state = AU_PNODE_CONNECTING;
		n->answer_due = now + AU_PROPOSER_ANSWER_US;
		n->acked_id = n->last_id;
		p->host.connect(p->host.ctx, i);
	}
	else if (n->state != AU_PNODE_DOWN && n->answer_due != 0 && now >= n->answer_due)
		au_pr_drop(p, i, AU_IO, NULL, "did not answer in time");
	if (p->state == AU_PROPOSER_LEADING && n->state >= AU_PNODE_STREAM)
	{
		send_log(p, i, now);
		if (n->state >= AU_PNODE_STREAM)
			return earlier(must_tell(p, n) && n->out_bytes == 0 ? AU_PROPOSER_TELL_US :
						   AU_PROPOSER_HEARTBEAT_US, now,
						   n->answer_due != 0 ? n->answer_due : UINT64_MAX);
	}
	if (n->state == AU_PNODE_DOWN)
		return earlier(UINT64_MAX, now, n->retry_at);
	if (n->state == AU_PNODE_GREETED && p->next.n > 0)
		return au_pr_learner_run(p, i, now);
	return n->answer_due != 0 ? earlier(UINT64_MAX, now, n->answer_due) : UINT64_MAX;
}

/*
 * Without a quorum that streams, a node that is behind may wait for log that
 * only a lost node has; the server has it, too, but not in the window.  And
 * the node whose log was elected may be lost before it was compared.  A new
 * campaign chooses another window, or another log.
 */
static void
see_stuck(AuProposer *p, uint64_t now)
{
	uint32_t	streams = 0;
	bool		behind = false;

	for (uint32_t i = 0; i < p->opt.nodes; i++)
	{
		streams += p->nodes[i].state == AU_PNODE_STREAM;
		behind = behind || p->nodes[i].state == AU_PNODE_BEHIND;
	}
	if ((streams >= p->opt.write_quorum || !behind) && (p->continues || streams == 0))
		p->stuck_since = 0;
	else if (p->stuck_since == 0)
		p->stuck_since = now;
	else if (now - p->stuck_since >= AU_PROPOSER_STUCK_US)
		au_pr_end(p, AU_PROPOSER_AGAIN, NULL, "too few storage nodes have caught up");
}

uint64_t
au_proposer_run(AuProposer *p)
{
	uint64_t	now = au_pr_now(p);
	uint64_t	wait = UINT64_MAX;

	if (p->started == 0)
		p->started = now;
	if (p->next.n > 0)
		au_pr_group_run(p, now);
	for (uint32_t i = 0; i < p->opt.nodes && p->state != AU_PROPOSER_ENDED; i++)
	{
		uint64_t	w = run_node(p, i, now);

		wait = w < wait ? w : wait;
	}
	if (p->state == AU_PROPOSER_CONNECTING)
	{
		uint64_t	w = au_pr_campaign(p, now);

		wait = w < wait ? w : wait;
	}
	if (p->state == AU_PROPOSER_LEADING)
		see_stuck(p, now);
	if (p->state == AU_PROPOSER_LEADING)
		shrink_window(p, AU_WIRE_APPEND_MAX < p->opt.window_bytes / 4 ?
					  AU_WIRE_APPEND_MAX : p->opt.window_bytes / 4);
	return p->state == AU_PROPOSER_ENDED ? UINT64_MAX : wait;
}

/* ---- birth, death, figures -------------------------------------------- */

AuProposer *
au_proposer_new(const AuProposerHost *host, const AuProposerOptions *options)
{
	AuProposer *p;

	if (options->group.n > 0)
		assert(au_group_valid(&options->group) && options->group.epoch > 0);
	else
		assert(options->nodes >= 1 && options->nodes <= AU_GROUP_MAX &&
			   options->write_quorum <= options->nodes &&
			   options->write_quorum * 2u > options->nodes);
	assert(options->window_bytes >= 4 * AU_PROPOSER_OVERLAP);
	p = host->alloc(host->ctx, sizeof(*p));
	if (p == NULL)
		return NULL;
	memset(p, 0, sizeof(*p));
	p->host = *host;
	p->opt = *options;
	p->window = host->alloc(host->ctx, options->window_bytes);
	p->frame = host->alloc(host->ctx, FRAME_BYTES);
	if (p->window == NULL || p->frame == NULL)
	{
		au_proposer_free(p);
		return NULL;
	}
	au_pr_group_start(p);
	return p;
}

void
au_proposer_free(AuProposer *p)
{
	for (uint32_t i = 0; i < p->opt.nodes; i++)
		if (p->nodes[i].state != AU_PNODE_DOWN)
			p->host.disconnect(p->host.ctx, i);
	if (p->window != NULL)
		p->host.release(p->host.ctx, p->window);
	if (p->frame != NULL)
		p->host.release(p->host.ctx, p->frame);
	p->host.release(p->host.ctx, p);
}

AuProposerState
au_proposer_state(const AuProposer *p)
{
	return p->state;
}

/* Why nothing can be committed, from the node that can tell most. */
static AuProposerKind
trouble_of(AuProposer *p, const AuPNode *n, const char *address)
{
	if (n == NULL)
		return AU_PROPOSER_LOST;
	snprintf(p->text, sizeof(p->text), "storage node \"%s\": %s", address, n->problem);
	snprintf(p->hint, sizeof(p->hint), "%s", n->hint);
	if (n->full)
		return AU_PROPOSER_FULL;
	return n->problem_status == AU_OK || n->problem_status == AU_IO ||
		n->problem_status == AU_FENCED || n->problem_status == AU_LOST ? AU_PROPOSER_LOST : AU_PROPOSER_REFUSED;
}

AuProposerKind
au_proposer_trouble(AuProposer *p, const char **text, const char **hint)
{
	uint32_t	worst = p->opt.nodes;
	uint32_t	well = 0;

	*text = p->text;
	*hint = p->hint;
	if (p->state == AU_PROPOSER_ENDED)
		return p->kind;
	p->text[0] = p->hint[0] = '\0';
	for (uint32_t i = 0; i < p->opt.nodes; i++)
	{
		const AuPNode *n = &p->nodes[i];

		well += n->state == AU_PNODE_STREAM && !n->full;
		/* A refusal tells more than a lost connection. */
		if (n->problem[0] != '\0' &&
			(worst == p->opt.nodes || p->nodes[worst].problem_status == AU_IO ||
			 p->nodes[worst].problem_status == AU_OK))
			worst = i;
	}
	if (well >= p->opt.write_quorum)
		return AU_PROPOSER_OK;
	if (p->moved && p->state != AU_PROPOSER_LEADING)
	{
		snprintf(p->text, sizeof(p->text), "the volume's log group has changed, and the view that names the new one is not here yet");
		return AU_PROPOSER_MOVED;
	}
	return worst == p->opt.nodes ? AU_PROPOSER_LOST :
		trouble_of(p, &p->nodes[worst], p->opt.addresses[worst]);
}

void
au_proposer_want_applied(AuProposer *p, bool on)
{
	p->want_applied = on;
}

uint64_t
au_proposer_term(const AuProposer *p)
{
	return p->term;
}

AuLsn
au_proposer_start_lsn(const AuProposer *p)
{
	return p->start_lsn;
}

AuLsn
au_proposer_commit(const AuProposer *p)
{
	return p->told;
}

AuLsn
au_proposer_applied(const AuProposer *p)
{
	return p->applied;
}

void
au_proposer_node(const AuProposer *p, uint32_t i, AuProposerNode *out)
{
	const AuPNode *n = &p->nodes[i];

	out->used = n->used;
	out->state = n->state;
	out->node_id = n->node_id;
	out->member_id = n->member_id;
	out->sent = n->sent;
	out->durable = n->durable;
	out->applied = n->applied;
	snprintf(out->problem, sizeof(out->problem), "%s", n->problem);
}
