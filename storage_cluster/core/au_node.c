/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node.c: connections, frames, and the order of work; au_node.h has the
 * contract.
 *
 * A connection:
 *
 *   opened ──HELLO──▶ known ──TERM──▶ writer (its volume points to it)
 *      │                │               │
 *      └──── error ─────┴───────────────┴──▶ closing ──▶ closed (freed)
 *
 * A closing connection's input is ignored; it is freed when the host says it
 * is closed.  A paused one is not read from until au_node_run finds the
 * reason gone.
 */
#include "core/au_node_int.h"

#include "common/au_wire_kv.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define ANSWER_CAP 4096			/* longest answer but PAGES, RELS, STATUS */

void
au_n_log(AuNode *n, AuLogLevel level, const char *fmt,...)
{
	char		text[1024];
	va_list		args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	n->host.log(n->host.ctx, level, text);
}

void
au_n_fatal(AuNode *n, const char *fmt,...)
{
	char		text[1024];
	va_list		args;

	if (n->dead)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	n->dead = true;
	n->host.fatal(n->host.ctx, text);
}

AuNode *
au_node_new(const AuNodeHost *host, const AuNodeOptions *options)
{
	AuNode	   *n = host->alloc(host->ctx, sizeof(*n));

	if (n == NULL)
		return NULL;
	memset(n, 0, sizeof(*n));
	n->host = *host;
	n->opt = *options;
	if (n->opt.keep_bytes == 0)
		n->opt.keep_bytes = AU_NODE_KEEP_BYTES;
	if (n->opt.persist_bytes == 0)
		n->opt.persist_bytes = AU_NODE_PERSIST_BYTES;
	n->out_max = options->out_bytes_max != 0 && options->out_bytes_max < AU_NODE_OUT_MAX ?
		options->out_bytes_max : AU_NODE_OUT_MAX;
	n->conn_out_max = n->out_max / 4 < AU_NODE_CONN_OUT_MAX ? n->out_max / 4 : AU_NODE_CONN_OUT_MAX;
	n->slice = host->alloc(host->ctx, AU_NODE_SLICE_BYTES);
	if (n->slice == NULL)
	{
		au_node_free(n);
		return NULL;
	}
	return n;
}

void
au_node_free(AuNode *n)
{
	AuNodeHost	host = n->host;

	au_j_free(n);
	while (n->conns != NULL)
		au_node_conn_closed(n, n->conns);
	au_x_free(n);
	for (uint32_t i = 0; i < n->nvols; i++)
	{
		(void) au_d_end_slices(n->vols[i], NULL);
		au_v_free(n->vols[i]);
	}
	au_k_free(n);
	if (n->slice != NULL)
		host.release(host.ctx, n->slice);
	if (n->view != NULL)
		host.release(host.ctx, n->view);
	if (n->gossip != NULL)
		host.release(host.ctx, n->gossip);
	host.release(host.ctx, n);
}

AuVolume *
au_n_volume(AuNode *n, uint64_t system_identifier)
{
	for (uint32_t i = 0; i < n->nvols; i++)
		if (n->vols[i]->meta.system_identifier == system_identifier)
			return n->vols[i];
	return NULL;
}

AuVolume *
au_n_volume_of(AuNode *n, void *handle)
{
	for (uint32_t i = 0; i < n->nvols; i++)
		if (n->vols[i]->handle == handle)
			return n->vols[i];
	return NULL;
}

static void
enter_volume(AuNode *n, AuVolume *v)
{
	n->vols[n->nvols++] = v;
	for (AuConn *c = n->conns; c != NULL; c = c->next)
		if (c->hello && c->system_identifier == v->meta.system_identifier)
			c->vol = v;
}

AuStatus
au_node_add_damaged(AuNode *n, const AuVolumeMeta *meta, void *handle, const char *why)
{
	AuVolume   *v;

	if (n->host.mend_begin == NULL || n->nvols == AU_NODE_VOLUMES_MAX ||
		au_n_volume(n, meta->system_identifier) != NULL)
		return AU_REFUSED;
	v = au_v_new(n, meta, handle);
	if (v == NULL)
		return AU_NOMEM;
	au_v_start_closed(v, why);
	enter_volume(n, v);
	return AU_OK;
}

AuStatus
au_node_add_volume(AuNode *n, const AuVolumeMeta *meta, void *handle, char *err, size_t errlen)
{
	AuVolume   *v;
	AuStatus	status;

	err[0] = '\0';
	if (n->nvols == AU_NODE_VOLUMES_MAX)
	{
		snprintf(err, errlen, "this node has %d volumes already", AU_NODE_VOLUMES_MAX);
		return AU_FULL;
	}
	if (au_n_volume(n, meta->system_identifier) != NULL)
	{
		snprintf(err, errlen, "two directories hold volume %" PRIu64, meta->system_identifier);
		return AU_INVALID;
	}
	v = au_v_new(n, meta, handle);
	if (v == NULL)
	{
		snprintf(err, errlen, "out of memory");
		return AU_NOMEM;
	}
	status = au_v_start(v, err, errlen);
	if (status != AU_OK)
	{
		au_v_free(v);
		return status;
	}
	enter_volume(n, v);
	return AU_OK;
}

/* ---- answers ---------------------------------------------------------- */

bool
au_n_reserve(AuNode *n, AuConn *c, AuWriter *w, size_t cap)
{
	uint8_t    *memory = c->closing ? NULL : n->host.send_alloc(n->host.ctx, cap);

	if (memory == NULL)
	{
		au_n_close(n, c);
		return false;
	}
	au_writer_start(w, memory, cap);
	return true;
}

void
au_n_send(AuNode *n, AuConn *c, AuWriter *w, bool encoded)
{
	/* capacities are computed from the encoders' own limits */
	assert(encoded && !w->overflow);
	(void) encoded;
	if (c->out_bytes == 0)
		c->out_since = c->send_since = n->host.now_us(n->host.ctx);
	c->out_bytes += w->len;
	n->out_bytes += w->len;
	n->host.send_give(n->host.ctx, c->handle, w->data, w->len);
}

void
au_n_error(AuNode *n, AuConn *c, uint64_t id, AuStatus status, const char *hint,
		   const char *fmt,...)
{
	char		text[AU_WIRE_TEXT_MAX];
	va_list		args;
	AuWriter	w;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	n->stats.errors++;
	if (au_n_reserve(n, c, &w, ANSWER_CAP))
		au_n_send(n, c, &w, au_enc_error(&w, id, status, text, hint));
}

void
au_n_close(AuNode *n, AuConn *c)
{
	if (c->closing)
		return;
	c->closing = true;
	n->host.close(n->host.ctx, c->handle);
}

/* ---- connections ------------------------------------------------------ */

AuConn *
au_node_conn_opened(AuNode *n, void *handle)
{
	AuConn	   *c;

	if (n->stopping || n->dead)
		return NULL;
	c = n->host.alloc(n->host.ctx, sizeof(*c));
	if (c == NULL)
		return NULL;
	memset(c, 0, sizeof(*c));
	c->handle = handle;
	c->next = n->conns;
	if (n->conns != NULL)
		n->conns->prev = c;
	n->conns = c;
	n->stats.connections++;
	n->stats.connections_total++;
	return c;
}

AuConn *
au_n_connect(AuNode *n, uint64_t system_identifier, AuVolume *v, uint64_t node_id,
			 const char *address, const AuOutgoing *use, void *ctx)
{
	AuMsgHello	hello = {.system_identifier = system_identifier,.role = AU_ROLE_NODE};
	AuConn	   *c = au_node_conn_opened(n, NULL);
	AuWriter	w;

	if (c == NULL)
		return NULL;
	c->hello = true;
	c->vol = v;
	snprintf(c->name, sizeof(c->name), "node %" PRIX64, node_id);
	snprintf(hello.name, sizeof(hello.name), "node %" PRIX64, n->opt.node_id);
	c->handle = n->host.peer_open(n->host.ctx, address, c);
	if (c->handle == NULL)
	{
		c->closing = true;
		au_node_conn_closed(n, c);
		return NULL;
	}
	c->outgoing = use;
	c->outgoing_ctx = ctx;
	if (au_n_reserve(n, c, &w, AU_WIRE_HEADER + 128))
		au_n_send(n, c, &w, au_enc_hello(&w, 1, &hello));
	return c;
}

void
au_node_conn_closed(AuNode *n, AuConn *c)
{
	au_r_forget_conn(c);
	au_h_forget_conn(c);
	au_c_forget_conn(n, c);
	au_g_forget_conn(n, c);
	au_m_forget_conn(c);
	au_p_forget_conn(n, c);
	au_x_forget_conn(c);
	au_k_forget_conn(n, c);
	for (uint32_t i = 0; i < n->nvols; i++)
		if (n->vols[i]->writer == c)
		{
			n->vols[i]->writer = NULL;
			n->vols[i]->ack_count = 0;
		}
	n->nasking -= c->asking != 0;
	if (c->outgoing != NULL)
		c->outgoing->closed(n, c);
	n->npaused -= c->paused;
	n->out_bytes -= c->out_bytes;
	if (c->prev != NULL)
		c->prev->next = c->next;
	else
		n->conns = c->next;
	if (c->next != NULL)
		c->next->prev = c->prev;
	n->stats.connections--;
	n->host.release(n->host.ctx, c);
}

void
au_node_conn_sent(AuNode *n, AuConn *c, size_t bytes)
{
	assert(bytes <= c->out_bytes);
	c->out_bytes -= bytes;
	n->out_bytes -= bytes;
	c->out_since = n->host.now_us(n->host.ctx);
	if (c->out_bytes == 0 && c->vol != NULL)
		au_hist_add(&c->vol->latency[AU_STAGE_SEND], c->out_since - c->send_since);
}

bool
au_n_out_full(const AuNode *n)
{
	return n->out_bytes + n->shared_bytes >= n->out_max;
}

/* Those who take nothing must not keep everybody else from being served. */
static void
close_stuck(AuNode *n, uint64_t now, uint64_t *wait)
{
	for (AuConn *c = n->conns; c != NULL; c = c->next)
	{
		uint64_t	age = now - c->out_since;

		if (c->out_bytes == 0 || c->closing)
			continue;
		if (age < AU_NODE_OUT_STUCK_US)
		{
			if (AU_NODE_OUT_STUCK_US - age < *wait)
				*wait = AU_NODE_OUT_STUCK_US - age;
			continue;
		}
		au_n_log(n, AU_LOG_WARNING,
				 "closed the connection of %s: it took none of %zu bytes of answers for %d ms, and no more fit in memory",
				 c->name, c->out_bytes, (int) (AU_NODE_OUT_STUCK_US / 1000));
		au_n_close(n, c);
	}
}

/* Too much of ours waits for this connection, or of its for us.  Writers are
 * answered in few bytes, and an administrator wants to know what is wrong. */
static bool
must_pause(const AuNode *n, const AuConn *c)
{
	return c->out_bytes >= n->conn_out_max ||
		(c->role == AU_ROLE_READER && c->share == NULL && au_n_out_full(n)) ||
		c->nwaits >= AU_NODE_CONN_WAITS_MAX ||
		c->wait_blocks >= AU_NODE_CONN_WAIT_BLOCKS_MAX || c->asking != 0 ||
		(c->vol != NULL && c->vol->writer == c && au_v_writer_must_wait(c->vol));
}

static void
pause_conn(AuNode *n, AuConn *c)
{
	c->paused = true;
	n->npaused++;
	n->host.set_reading(n->host.ctx, c->handle, false);
}

static void
resume_paused(AuNode *n)
{
	for (AuConn *c = n->conns; c != NULL && n->npaused > 0; c = c->next)
	{
		if (!c->paused || c->closing || must_pause(n, c))
			continue;
		c->paused = false;
		n->npaused--;
		n->host.set_reading(n->host.ctx, c->handle, true);
	}
}

static void
handle_hello(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuMsgHello	m;
	AuMsgHelloOk ok = {.node_id = n->opt.node_id};
	AuWriter	w;

	if (c->hello || !au_dec_hello(f, &m) || m.role < AU_ROLE_READER || m.role > AU_ROLE_NODE)
	{
		au_n_error(n, c, f->id, AU_INVALID, NULL,
				   c->hello ? "HELLO was said already" : "malformed HELLO");
		au_n_close(n, c);
		return;
	}
	if (n->opt.single_volume != 0 && m.role != AU_ROLE_ADMIN &&
		m.system_identifier != n->opt.single_volume)
	{
		au_n_error(n, c, f->id, AU_REFUSED,
				   "Each server needs an aurora_storaged of its own in embedded mode: check aurora.storage_directory and aurora.storage_nodes.",
				   "this aurora_storaged serves only the server with system identifier %" PRIu64
				   ", not %" PRIu64, n->opt.single_volume, m.system_identifier);
		au_n_close(n, c);
		return;
	}
	c->hello = true;
	c->role = m.role;
	c->system_identifier = m.system_identifier;
	memcpy(c->name, m.name, sizeof(c->name));
	c->vol = au_n_volume(n, m.system_identifier);
	ok.ring_epoch = n->view != NULL ? n->view->epoch : 0;
	if (c->vol != NULL)
	{
		ok.volume_known = 1;
		ok.start_lsn = c->vol->meta.start_lsn;
		ok.durable_lsn = au_v_durable(c->vol);
		ok.applied_lsn = c->vol->applied;
		ok.term = c->vol->meta.term;
		ok.group = c->vol->meta.group;
	}
	if (au_n_reserve(n, c, &w, ANSWER_CAP))
		au_n_send(n, c, &w, au_enc_hello_ok(&w, f->id, &ok));
}

static bool
decide(AuNode *n, AuConn *c)
{
	bool		decided = c->asking == AU_MSG_TERM ? au_t_decide(n, c) :
		c->asking == AU_MSG_VOTE ? au_t_decide_vote(n, c) : au_t_decide_elect(n, c);

	if (decided)
	{
		c->asking = 0;
		n->nasking--;
	}
	return decided;
}

static void
handle_ask(AuNode *n, AuConn *c, const AuFrame *f)
{
	if (c->role != AU_ROLE_WRITER ||
		!(f->type == AU_MSG_TERM ? au_dec_term(f, &c->ask.term) :
		  f->type == AU_MSG_VOTE ? au_dec_vote(f, &c->ask.vote) :
		  au_dec_elect(f, &c->ask.elect)))
	{
		au_n_error(n, c, f->id, AU_INVALID, NULL, c->role != AU_ROLE_WRITER ?
				   "only a writer may ask for a term" : "malformed TERM, VOTE or ELECT");
		return;
	}
	c->ask_id = f->id;
	c->asking = f->type;
	n->nasking++;
	(void) decide(n, c);
}

static void
handle_append(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuMsgAppend m;

	if (c->role != AU_ROLE_WRITER || !au_dec_append(f, &m) || m.length > AU_WIRE_APPEND_MAX)
		au_n_error(n, c, f->id, AU_INVALID, NULL, c->role != AU_ROLE_WRITER ?
				   "only a writer may append" : "malformed APPEND");
	else if (c->vol == NULL)
		au_n_error(n, c, f->id, AU_REFUSED, NULL,
				   "volume %" PRIu64 " is not on this node", c->system_identifier);
	else
		au_v_append(c->vol, c, f->id, &m);
}

static void
handle_status(AuNode *n, AuConn *c, const AuFrame *f)
{
	size_t		len;
	const char *json = n->host.status_json(n->host.ctx, &len);
	AuWriter	w;

	if (au_n_reserve(n, c, &w, len + ANSWER_CAP))
		au_n_send(n, c, &w, au_enc_text(&w, AU_MSG_STATUS_OK, f->id, json, len));
}

static void
handle_frame(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuWriter	w;

	n->stats.frames++;
	if (c->outgoing != NULL)
	{
		c->outgoing->answer(n, c, f);
		return;
	}
	if (!c->hello && f->type != AU_MSG_HELLO && f->type != AU_MSG_PING)
	{
		au_n_error(n, c, f->id, AU_INVALID, NULL, "the first message must be HELLO");
		au_n_close(n, c);
		return;
	}
	switch (f->type)
	{
		case AU_MSG_HELLO:
			handle_hello(n, c, f);
			break;
		case AU_MSG_TERM:
		case AU_MSG_VOTE:
		case AU_MSG_ELECT:
			handle_ask(n, c, f);
			break;
		case AU_MSG_GET_LOG:
			au_p_get_log(n, c, f);
			break;
		case AU_MSG_DIGEST:
			au_d_digest(n, c, f);
			break;
		case AU_MSG_APPEND:
			handle_append(n, c, f);
			break;
		case AU_MSG_GET_PAGES:
			au_r_get_pages(n, c, f);
			break;
		case AU_MSG_GET_SIZE:
			au_r_get_size(n, c, f);
			break;
		case AU_MSG_LIST_RELS:
			au_r_list_rels(n, c, f);
			break;
		case AU_MSG_HOLD_LSN:
			au_h_hold(n, c, f);
			break;
		case AU_MSG_EXPORT:
			au_x_export(n, c, f);
			break;
		case AU_MSG_GET_VIEW:
			au_c_get_view(n, c, f);
			break;
		case AU_MSG_CLUSTER:
			au_c_command(n, c, f);
			break;
		case AU_MSG_GOSSIP:
			au_g_request(n, c, f);
			break;
		case AU_MSG_SHARE:
			au_m_share(n, c, f);
			break;
		case AU_MSG_STATUS:
			handle_status(n, c, f);
			break;
		case AU_MSG_PING:
			if (au_n_reserve(n, c, &w, ANSWER_CAP))
				au_n_send(n, c, &w, au_enc_empty(&w, AU_MSG_PONG, f->id));
			break;
		case AU_MSG_KV_GET:
		case AU_MSG_KV_PUT:
		case AU_MSG_KV_LIST:
		case AU_MSG_KV_READ:
		case AU_MSG_KV_STORE:
		case AU_MSG_KV_SCAN:
		case AU_MSG_KV_PURGE:
			au_k_question(n, c, f);
			break;
		default:
			au_n_error(n, c, f->id, AU_UNSUPPORTED,
					   "Compute and storage may be of different versions of Aurora.",
					   "unknown message type %u", f->type);
			break;
	}
}

/* The stream is no longer to be understood: say why, close. */
static void
bad_stream(AuNode *n, AuConn *c, AuStatus status, const uint8_t *buf, size_t len)
{
	if (status == AU_UNSUPPORTED && len >= 6)
		au_n_error(n, c, 0, AU_UNSUPPORTED,
				   "Install the same version of Aurora on compute and storage.",
				   "this node speaks protocol version %d, the message is of version %u",
				   AU_WIRE_VERSION, au_get_u16(buf + 4));
	else
		au_n_error(n, c, 0, AU_CORRUPT, NULL, "what arrived is no message of Aurora's protocol, or too long");
	/* strangers (port scanners) must not fill the log */
	au_n_log(n, c->hello ? AU_LOG_WARNING : AU_LOG_DEBUG,
			 "closed the connection of %s: unusable message (%s)",
			 c->name[0] ? c->name : "an unknown client", au_status_name(status));
	au_n_close(n, c);
}

size_t
au_node_input(AuNode *n, AuConn *c, const uint8_t *buf, size_t len, size_t *need)
{
	size_t		done = 0;

	*need = AU_WIRE_HEADER;
	while (!c->closing && !c->paused && !n->dead && done < len)
	{
		AuFrame		f;
		size_t		used;
		AuStatus	status;

		/* what others were answered since counts, too */
		if (must_pause(n, c))
		{
			pause_conn(n, c);
			break;
		}
		status = au_frame_parse(buf + done, len - done, &f, &used);
		if (status == AU_NEED_MORE)
		{
			*need = used > AU_WIRE_HEADER ? used : AU_WIRE_HEADER;
			if (c->role != AU_ROLE_WRITER && c->outgoing == NULL &&
				used > (c->role == AU_ROLE_NODE ? AU_NODE_PEER_FRAME_MAX : AU_NODE_READER_FRAME_MAX))
				bad_stream(n, c, AU_INVALID, buf + done, len - done);
			break;
		}
		if (status != AU_OK)
		{
			bad_stream(n, c, status, buf + done, len - done);
			break;
		}
		handle_frame(n, c, &f);
		done += used;
		if (!c->closing && must_pause(n, c))
			pause_conn(n, c);
	}
	return c->closing ? len : done;
}

/* ---- the order of work ------------------------------------------------ */

static void
decide_terms(AuNode *n)
{
	AuConn	   *next;

	for (AuConn *c = n->conns; c != NULL && n->nasking > 0; c = next)
	{
		next = c->next;
		if (c->asking != 0)
			(void) decide(n, c);
	}
}

/* What others of a cluster wait for, and what it asks of this node. */
static uint64_t
run_cluster(AuNode *n, uint64_t wait)
{
	uint64_t	now = n->host.now_us(n->host.ctx);
	uint64_t	w = au_k_run(n, now);

	wait = w < wait ? w : wait;
	if (n->nlog_waits > 0)
	{
		w = au_p_wake(n, now);
		wait = w < wait ? w : wait;
	}
	if (n->nexports > 0)
	{
		w = au_x_run(n, now);
		wait = w < wait ? w : wait;
	}
	if (n->view == NULL || n->host.store_slices == NULL || n->dead || n->stopping)
		return wait;
	w = au_j_run(n, now);
	wait = w < wait ? w : wait;
	w = au_o_ready(n, now);
	return w < wait ? w : wait;
}

uint64_t
au_node_run(AuNode *n)
{
	uint64_t	gossip;
	uint64_t	wait = UINT64_MAX;
	bool		stopped = true;

	if (n->dead)
		return UINT64_MAX;
	if (n->nasking > 0)
		decide_terms(n);
	for (uint32_t i = 0; i < n->nvols && !n->dead; i++)
	{
		AuVolume   *v = n->vols[i];
		uint64_t	w = au_v_run(v);

		wait = w < wait ? w : wait;
		if (au_r_wake(v))
			wait = 0;
		w = au_p_run(v, n->host.now_us(n->host.ctx));
		wait = w < wait ? w : wait;
		w = au_md_run(v, n->host.now_us(n->host.ctx));
		wait = w < wait ? w : wait;
		w = au_s_run(v, n->host.now_us(n->host.ctx));
		wait = w < wait ? w : wait;
		w = au_o_run(v, n->host.now_us(n->host.ctx));
		wait = w < wait ? w : wait;
		w = au_r_expire(v, n->host.now_us(n->host.ctx));
		wait = w < wait ? w : wait;
		stopped = stopped && au_v_stopped(v);
	}
	if (!n->dead)
	{
		uint64_t	w = au_d_run(n, n->host.now_us(n->host.ctx));

		wait = w < wait ? w : wait;
	}
	gossip = au_g_run(n, n->host.now_us(n->host.ctx));
	wait = gossip < wait ? gossip : wait;
	wait = run_cluster(n, wait);
	if (au_n_out_full(n))
		close_stuck(n, n->host.now_us(n->host.ctx), &wait);
	if (n->npaused > 0)
		resume_paused(n);
	n->stopped = n->stopping && stopped;
	return n->dead ? UINT64_MAX : wait;
}

void
au_node_stop(AuNode *n)
{
	n->stopping = true;
	for (AuConn *c = n->conns; c != NULL; c = c->next)
		au_n_close(n, c);
}

bool
au_node_stopped(const AuNode *n)
{
	return n->stopped || n->dead;
}

void
au_node_stats(const AuNode *n, AuNodeStats *out)
{
	*out = n->stats;
	out->node_id = n->opt.node_id;
	out->volumes = n->nvols;
	out->out_bytes = n->out_bytes;
	out->shared_bytes = n->shared_bytes;
}

bool
au_node_volume_stats(const AuNode *n, uint32_t index, AuVolumeStats *out, void **handle)
{
	const AuVolume *v;
	AuLsn		restart;

	if (index >= n->nvols)
		return false;
	v = n->vols[index];
	*out = v->stats;
	*handle = v->handle;
	out->meta = v->meta;
	out->writer = v->writer != NULL ? v->writer->name : "";
	out->received = au_v_received(v);
	out->durable = au_v_durable(v);
	out->commit = au_v_alone(v) ? out->durable : v->commit;
	out->applied = v->applied;
	n->host.store_persisted(n->host.ctx, v->handle, &out->persisted, &restart);
	out->horizon = n->host.store_horizon(n->host.ctx, v->handle);
	out->waiting = v->waiting.count;
	out->reading = v->reading.count;
	out->hold = v->hold;
	out->holds = v->nholds;
	au_o_figures(v, out);
	out->mend_bytes = v->mend.stage == AU_MEND_WELL ? 0 : v->mend.bytes;
	out->mend_why = v->mend.why;
	out->mend_waits = v->mend.waits;
	au_v_state(v, &out->state, &out->problem);
	return true;
}

const AuHist *
au_node_volume_latency(const AuNode *n, uint32_t index)
{
	return index < n->nvols ? n->vols[index]->latency : NULL;
}
