/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_session.c: connections: between the transport's links and the node's
 * core.
 *
 * The node may switch a session's reading on again while it runs; input that
 * is buffered already must then be offered, but not from within the node.  So
 * such sessions are put on a list ("kicked"), which the loop works off.
 */
#include "daemon/au_daemon.h"
#include "daemon/au_share.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct AuSession
{
	AuDaemon   *daemon;
	AuLink	   *link;
	AuConn	   *conn;			/* NULL: turned away */
	bool		kicked;
	struct AuSession *next_kicked;
	char		address[AU_ADDRESS_MAX];	/* of another node that we connected to, else "" */
} AuSession;

/* Too many: say so and close. */
static void
turn_away(AuSession *s)
{
	uint8_t    *buffer = au_link_buffer(1024);
	AuWriter	w;

	s->daemon->sessions_refused++;
	if (buffer != NULL)
	{
		au_writer_start(&w, buffer, 1024);
		if (au_enc_error(&w, 0, AU_FULL, "too many connections",
						 "This node serves at most 1024 connections at a time; use a connection pooler."))
			au_link_send(s->link, buffer, w.len);
		else
			au_link_send(s->link, buffer, 0);
	}
	au_link_close(s->link);
}

static void *
on_opened(void *ctx, AuLink *link)
{
	AuDaemon   *d = ctx;
	AuSession  *s = calloc(1, sizeof(*s));

	if (s == NULL)
	{
		au_link_close(link);
		return NULL;
	}
	s->daemon = d;
	s->link = link;
	d->sessions++;
	if (d->sessions <= AU_CONNECTIONS_MAX)
		s->conn = au_node_conn_opened(d->node, s);
	if (s->conn == NULL)
		turn_away(s);
	return s;
}

static size_t
on_received(void *ctx, AuLink *link, const uint8_t *bytes, size_t len, size_t *need)
{
	AuSession  *s = au_link_user(link);

	(void) ctx;
	if (s == NULL || s->conn == NULL)
		return len;
	return au_node_input(s->daemon->node, s->conn, bytes, len, need);
}

static void
on_sent(void *ctx, AuLink *link, size_t bytes)
{
	AuSession  *s = au_link_user(link);

	(void) ctx;
	if (s != NULL && s->conn != NULL)
		au_node_conn_sent(s->daemon->node, s->conn, bytes);
}

static void
unkick(AuDaemon *d, AuSession *s)
{
	AuSession **slot = &d->kicked;

	while (*slot != NULL && *slot != s)
		slot = &(*slot)->next_kicked;
	if (*slot != NULL)
		*slot = s->next_kicked;
}

static void
on_closed(void *ctx, AuLink *link, const char *why)
{
	AuDaemon   *d = ctx;
	AuSession  *s = au_link_user(link);

	if (s == NULL)
		return;
	if (why[0] != '\0')
		au_log(d, AU_LOG_DEBUG, "a connection was lost: %s", why);
	if (s->kicked)
		unkick(d, s);
	if (s->conn != NULL)
		au_node_conn_closed(d->node, s->conn);
	d->sessions--;
	free(s);
	/* this comes after the loop's check phase: have it come round again */
	au_wake(d);
}

/* ---- to other nodes: the node has the connection before there is one --- */

static AuTrouble *
trouble_of(AuDaemon *d, const char *address)
{
	AuTrouble  *oldest = &d->troubles[0];

	for (AuTrouble *t = d->troubles; t < d->troubles + AU_TROUBLES_MAX; t++)
	{
		if (strcmp(t->address, address) == 0)
			return t;
		if (t->told_ms < oldest->told_ms)
			oldest = t;
	}
	memset(oldest, 0, sizeof(*oldest));
	snprintf(oldest->address, sizeof(oldest->address), "%s", address);
	return oldest;
}

/* Whoever is down is tried again and again: the same is told once a minute. */
static void
tell_trouble(AuDaemon *d, const char *address, const char *why)
{
	AuTrouble  *t = trouble_of(d, address);
	uint64_t	now = uv_now(d->loop);
	char		text[sizeof(t->why)];
	char		times[64] = "";

	snprintf(text, sizeof(text), "%s", why);
	if (strcmp(t->why, text) == 0 && now - t->told_ms < AU_TROUBLE_AGAIN_MS)
	{
		t->untold++;
		au_log(d, AU_LOG_DEBUG, "connection to node \"%s\": %s", address, why);
		return;
	}
	if (t->untold > 0 && strcmp(t->why, text) == 0)
		snprintf(times, sizeof(times), " (%" PRIu64 " times more since this was told)", t->untold);
	memcpy(t->why, text, sizeof(t->why));
	t->told_ms = now;
	t->untold = 0;
	au_log(d, AU_LOG_INFO, "connection to node \"%s\": %s%s", address, why, times);
}

static void *
on_peer_opened(void *ctx, AuLink *link)
{
	(void) link;
	return ctx;
}

static size_t
on_peer_received(void *ctx, AuLink *link, const uint8_t *bytes, size_t len, size_t *need)
{
	AuSession  *s = ctx;

	(void) link;
	return au_node_input(s->daemon->node, s->conn, bytes, len, need);
}

static void
on_peer_sent(void *ctx, AuLink *link, size_t bytes)
{
	AuSession  *s = ctx;

	(void) link;
	au_node_conn_sent(s->daemon->node, s->conn, bytes);
}

static void
on_peer_closed(void *ctx, AuLink *link, const char *why)
{
	AuSession  *s = ctx;
	AuDaemon   *d = s->daemon;

	(void) link;
	if (why[0] != '\0')
		tell_trouble(d, s->address, why);
	if (s->kicked)
		unkick(d, s);
	au_node_conn_closed(d->node, s->conn);
	free(s);
	au_wake(d);
}

static void *
host_peer_open(void *ctx, const char *address, AuConn *conn)
{
	static const AuTransportEvents events = {
		on_peer_opened, on_peer_received, on_peer_sent, on_peer_closed
	};
	const AuTransport *transport = address[0] == '/' ? &au_transport_unix : &au_transport_tcp;
	AuDaemon   *d = ctx;
	AuSession  *s = calloc(1, sizeof(*s));
	char		err[256];

	if (s == NULL)
		return NULL;
	s->daemon = d;
	s->conn = conn;
	snprintf(s->address, sizeof(s->address), "%s", address);
	if (transport->connect(d->loop, address, &events, s, &s->link, err, sizeof(err)))
		return s;
	tell_trouble(d, address, err);
	free(s);
	return NULL;
}

bool
au_sessions_listen(AuDaemon *d, char *err, size_t errlen)
{
	static const AuTransportEvents events = {on_opened, on_received, on_sent, on_closed};

	if (d->config.socket[0] != '\0')
	{
		if (!au_transport_unix.listen(d->loop, d->config.socket, &events, d,
									  &d->listeners[d->nlisteners], err, errlen))
			return false;
		d->nlisteners++;
	}
	if (d->config.listen[0] != '\0')
	{
		if (!au_transport_tcp.listen(d->loop, d->config.listen, &events, d,
									 &d->listeners[d->nlisteners], err, errlen))
			return false;
		d->nlisteners++;
	}
	return true;
}

void
au_sessions_offer(AuDaemon *d)
{
	AuSession  *s = d->kicked;

	/* those that are kicked meanwhile come next time */
	d->kicked = NULL;
	while (s != NULL)
	{
		AuSession  *next = s->next_kicked;

		s->kicked = false;
		au_link_offer(s->link);
		s = next;
	}
}

/* ---- host ------------------------------------------------------------- */

static uint8_t *
host_send_alloc(void *ctx, size_t cap)
{
	(void) ctx;
	return au_link_buffer(cap);
}

static void
host_send_give(void *ctx, void *conn, uint8_t *memory, size_t len)
{
	(void) ctx;
	au_link_send(((AuSession *) conn)->link, memory, len);
}

static void
host_send_drop(void *ctx, uint8_t *memory)
{
	(void) ctx;
	au_link_buffer_free(memory);
}

static void
host_set_reading(void *ctx, void *conn, bool on)
{
	AuDaemon   *d = ctx;
	AuSession  *s = conn;

	au_link_set_reading(s->link, on);
	if (on && !s->kicked)
	{
		s->kicked = true;
		s->next_kicked = d->kicked;
		d->kicked = s;
	}
}

static void
host_close(void *ctx, void *conn)
{
	(void) ctx;
	au_link_close(((AuSession *) conn)->link);
}

static void *
host_share_open(void *ctx, void *conn, uint32_t fd, uint32_t pages)
{
	long		pid = au_link_peer_pid(((AuSession *) conn)->link);

	(void) ctx;
	return pid > 0 ? au_share_open(pid, fd, pages) : NULL;
}

static void
host_share_close(void *ctx, void *share)
{
	(void) ctx;
	au_share_close(share);
}

void
au_sessions_fill_host(AuNodeHost *h)
{
	h->share_open = host_share_open;
	h->share_close = host_share_close;
	h->send_alloc = host_send_alloc;
	h->send_give = host_send_give;
	h->send_drop = host_send_drop;
	h->set_reading = host_set_reading;
	h->close = host_close;
	h->peer_open = host_peer_open;
}
