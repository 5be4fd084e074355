/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_meta_raft.c: consensus by libraft: its life, and the state machine that
 * it drives, which is the view.
 *
 * What is to be known about libraft (0.15):
 *  - its addresses are IPv4 and a port; who is called what is part of its log;
 *  - memory of entries and snapshots is its own (raft_malloc); a snapshot that
 *    it gives us to restore is ours to free;
 *  - open segments are allocated in full, two ahead: so they are small here;
 *  - raft_close ends the requests under way (RAFT_SHUTDOWN), then calls back;
 *    only then io and transport may be closed, from within that call.
 */
#include "daemon/au_meta_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/au_files.h"

#define SEGMENT_BYTES ((size_t) 1 << 20)
#define SNAPSHOT_THRESHOLD 64	/* entries; a view has at most 64 kB */
#define SNAPSHOT_TRAILING 128
#define ELECTION_MS 1000
#define HEARTBEAT_MS 150
#define CONNECT_RETRY_MS 300

bool
meta_raft_leads(const AuMeta *m)
{
	return m->raft_open && !m->raft_closing && m->raft.state == RAFT_LEADER;
}

bool
meta_raft_buffer(const AuViewCommand *c, struct raft_buffer *out)
{
	uint8_t		bytes[AU_VIEW_COMMAND_MAX];
	size_t		len = au_view_command_encode(c, bytes, sizeof(bytes));

	/* whole words: libraft's format wants it; the length is in the command */
	out->len = (len + 7) / 8 * 8;
	out->base = raft_calloc(1, out->len);
	if (out->base == NULL)
		return false;
	memcpy(out->base, bytes, len);
	return true;
}

bool
meta_raft_view_buffer(const AuView *v, struct raft_buffer *out)
{
	out->base = raft_malloc(AU_VIEW_ENCODED_MAX);
	if (out->base == NULL)
		return false;
	memset(out->base, 0, AU_VIEW_ENCODED_MAX);
	out->len = (au_view_encode(v, out->base, AU_VIEW_ENCODED_MAX) + 7) / 8 * 8;
	return true;
}

/* ---- the state machine ------------------------------------------------ */

bool
meta_recovering(const AuMeta *m)
{
	return m->recovered_from != 0 &&
		m->log_view.epoch < m->recovered_from + AU_VIEW_RECOVER_EPOCHS;
}

/* Views and commands begin alike; 0: it is too short for what it says. */
static size_t
length_of(const struct raft_buffer *buf)
{
	size_t		len;

	if (buf->len < 12)
		return 0;
	len = 12 + (size_t) au_get_u32((const uint8_t *) buf->base + 8) + 4;
	return len <= buf->len ? len : 0;
}

/* Something in the log that is neither a command nor a view. */
static void
not_known(const AuMeta *m)
{
	/* of a newer version: whoever goes on without it sees another view */
	au_log(m->d, AU_LOG_ERROR,
		   "stopped: the cluster's log has a command this version does not know; install the version of the other nodes");
	_Exit(3);
}

/* The view from which a recovered cluster goes on. */
static bool
apply_recovered(AuMeta *m, const uint8_t *bytes, size_t len)
{
	AuView	   *v = malloc(sizeof(*v));
	bool		known;

	if (v == NULL)
	{
		au_log(m->d, AU_LOG_ERROR, "stopped: out of memory for the cluster's view");
		_Exit(3);
	}
	known = au_view_decode(v, bytes, len);
	if (known && au_view_apply_recovered(&m->log_view, v))
		meta_take_view(m, &m->log_view);
	free(v);
	return known;
}

static int
fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
	AuMeta	   *m = fsm->data;
	MetaResult *r = &m->result;
	AuViewCommand c;
	const AuViewNode *n;
	size_t		len = length_of(buf);
	bool		follows;
	bool		changed = false;

	memset(r, 0, sizeof(*r));
	*result = r;
	if (len > 0 && apply_recovered(m, buf->base, len))
		return 0;
	if (len == 0 || !au_view_command_decode(&c, buf->base, len))
		not_known(m);
	/* The end of a log with which consensus is made anew may be what no majority
	 * ever took: only what follows on the view we know counts. */
	follows = !meta_recovering(m) || memcmp(&m->log_view, &m->view, sizeof(m->view)) == 0;
	r->status = au_view_apply(&m->log_view, &c, &changed, r->message, sizeof(r->message));
	r->epoch = m->log_view.epoch;
	n = c.type == AU_VIEW_JOIN ? au_view_node_by_id(&m->log_view, c.node.node_id) : NULL;
	r->number = n != NULL ? n->number : c.number;
	if (changed && follows)
		meta_take_view(m, &m->log_view);
	return 0;
}

static int
fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n)
{
	AuMeta	   *m = fsm->data;

	*bufs = raft_malloc(sizeof(**bufs));
	if (*bufs == NULL || !meta_raft_view_buffer(&m->log_view, *bufs))
	{
		raft_free(*bufs);
		return RAFT_NOMEM;
	}
	*n = 1;
	return 0;
}

static int
fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
	AuMeta	   *m = fsm->data;
	AuView	   *v = malloc(sizeof(*v));
	size_t		len = length_of(buf);
	int			rc = 0;

	if (v == NULL)
		return RAFT_NOMEM;
	if (len == 0 || !au_view_decode(v, buf->base, len))
	{
		au_log(m->d, AU_LOG_ERROR, "a snapshot of the cluster's view is damaged, or of another version");
		rc = RAFT_CORRUPT;
	}
	else if (m->view.cluster_id != 0 && v->cluster_id != m->view.cluster_id)
	{
		au_log(m->d, AU_LOG_ERROR, "the directory \"%s/meta/%u\" is another cluster's: it is not where this node's VIEW belongs",
			   m->d->config.dir, m->number);
		rc = RAFT_CORRUPT;
	}
	else
	{
		m->log_view = *v;
		meta_take_view(m, v);
		raft_free(buf->base);
	}
	free(v);
	return rc;
}

/* ---- life ------------------------------------------------------------- */

static bool
failed(const AuMeta *m, int rc, char *err, size_t errlen)
{
	const char *detail = m->transport.errmsg[0] ? m->transport.errmsg :
		m->io.errmsg[0] ? m->io.errmsg : m->raft.errmsg;

	/* libraft often has no more to say than "I/O error" */
	snprintf(err, errlen, "could not start the cluster's consensus: %s%s%s; see that the address \"%s\" is free (--meta-listen), and the directory \"%s/meta\" can be written",
			 raft_strerror(rc), detail[0] ? ": " : "", detail, m->meta_bind, m->d->config.dir);
	return false;
}

static void
fill_fsm(AuMeta *m)
{
	m->fsm.version = 1;
	m->fsm.data = m;
	m->fsm.apply = fsm_apply;
	m->fsm.snapshot = fsm_snapshot;
	m->fsm.restore = fsm_restore;
}

/* This node is the only one that votes: in a new cluster, or since the others
 * are lost. */
static int
begin_alone(AuMeta *m)
{
	struct raft_configuration conf;
	int			rc;

	raft_configuration_init(&conf);
	rc = raft_configuration_add(&conf, m->number, m->meta_address, RAFT_VOTER);
	if (rc == 0)
		rc = m->creates ? raft_bootstrap(&m->raft, &conf) : raft_recover(&m->raft, &conf);
	raft_configuration_close(&conf);
	return m->creates && rc == RAFT_CANTBOOTSTRAP ? 0 : rc;	/* it was done before */
}

bool
meta_raft_start(AuMeta *m, char *err, size_t errlen)
{
	char		dir[4200];
	int			rc;

	snprintf(dir, sizeof(dir), "%s/meta", m->d->config.dir);
	if (!au_make_dir(dir, err, errlen))
		return false;
	snprintf(dir, sizeof(dir), "%s/meta/%u", m->d->config.dir, m->number);
	if (!au_make_dir(dir, err, errlen))
		return false;
	fill_fsm(m);
	rc = raft_uv_tcp_init(&m->transport, m->d->loop);
	if (rc != 0)
		return failed(m, rc, err, errlen);
	meta_listen_wrap(m);
	rc = raft_uv_init(&m->io, m->d->loop, dir, &m->transport);
	if (rc != 0)
	{
		raft_uv_tcp_close(&m->transport);
		return failed(m, rc, err, errlen);
	}
	raft_uv_set_segment_size(&m->io, SEGMENT_BYTES);
	raft_uv_set_connect_retry_delay(&m->io, CONNECT_RETRY_MS);
	rc = raft_init(&m->raft, &m->io, &m->fsm, m->number, m->meta_address);
	if (rc != 0)
	{
		failed(m, rc, err, errlen);
		raft_uv_close(&m->io);
		raft_uv_tcp_close(&m->transport);
		return false;
	}
	m->raft.data = m->change.data = m->transfer.data = m->barrier.data = m->create.data = m;
	m->raft_open = true;
	raft_set_election_timeout(&m->raft, ELECTION_MS);
	raft_set_heartbeat_timeout(&m->raft, HEARTBEAT_MS);
	raft_set_snapshot_threshold(&m->raft, SNAPSHOT_THRESHOLD);
	raft_set_snapshot_trailing(&m->raft, SNAPSHOT_TRAILING);
	raft_set_pre_vote(&m->raft, true);
	rc = m->creates || m->recovers ? begin_alone(m) : 0;
	if (rc == 0)
		rc = raft_start(&m->raft);
	if (rc != 0)
	{
		failed(m, rc, err, errlen);
		meta_raft_close(m);
		return false;
	}
	return true;
}

static void
on_raft_closed(struct raft *raft)
{
	AuMeta	   *m = raft->data;

	raft_uv_close(&m->io);
	raft_uv_tcp_close(&m->transport);
	m->raft_open = false;
	m->raft_closing = false;
	au_wake(m->d);
}

void
meta_raft_close(AuMeta *m)
{
	if (!m->raft_open || m->raft_closing)
		return;
	m->raft_closing = true;
	raft_close(&m->raft, on_raft_closed);
}
