/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_meta_listen.c: the port on which other nodes' consensus reaches this one.
 *
 * libraft believes whoever connects to it, crashes on messages that are none,
 * and knows nothing of clusters.  So its transport keeps the part that connects
 * and gets another one that listens:
 *
 *   accepted ──greeting of a node of the view──▶ admitted ══ messages, checked ══▶ libraft
 *      │                                            │       (a pair of sockets)
 *      └── anything else, or too long ──▶ closed ◀──┴── a message that is none
 *
 * Invariants:
 *  1. libraft hears only those nodes that the view has, of our cluster, by
 *     number and node id: a node with a new directory is another one.
 *  2. It reads only whole messages that au_raft_frame_check found good, and none
 *     that claims to lead in a term in which this node leads.
 *  3. At most STRANGERS_MAX connections have not been admitted, each for
 *     GREETING_MS at most, with AU_RAFT_HELLO_MAX bytes; a node has one
 *     connection, the newest; of an admitted one one message is in memory.
 *  4. libraft's end of a pair is libraft's; the rest is ours, and is closed before
 *     au_meta_stopped says so.
 */
#include "daemon/au_meta_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cluster/au_raft_frame.h"

#define STRANGERS_MAX 64
#define GREETING_MS 5000
#define BUFFER_MIN 4096

_Static_assert((int) AU_RAFT_APPEND == (int) RAFT_IO_APPEND_ENTRIES &&
			   (int) AU_RAFT_TIMEOUT_NOW == (int) RAFT_IO_TIMEOUT_NOW, "libraft's types of messages");

struct MetaPeer
{
	AuMeta	   *meta;
	MetaPeer   *prev,
			   *next;
	uint32_t	number;			/* 0: not admitted yet */
	bool		closing;
	int			handles;		/* open, or being closed */
	uint64_t	deadline;		/* ms; for the greeting */
	uv_tcp_t	in;
	uv_pipe_t	out;			/* our end of the pair */
	bool		out_open;
	uv_write_t	write;
	size_t		writing;		/* bytes from buffer; 0: none */
	uint8_t    *buffer;
	size_t		len;
	size_t		cap;
};

/* ---- end of a connection ---------------------------------------------- */

static void
forget(MetaPeer *p)
{
	AuMeta	   *m = p->meta;

	if (p->prev != NULL)
		p->prev->next = p->next;
	else
		m->peers = p->next;
	if (p->next != NULL)
		p->next->prev = p->prev;
	free(p->buffer);
	free(p);
	au_wake(m->d);
}

static void
on_handle_closed(uv_handle_t *handle)
{
	MetaPeer   *p = handle->data;

	if (--p->handles == 0)
		forget(p);
}

static void
close_peer(MetaPeer *p)
{
	if (p->closing)
		return;
	p->closing = true;
	uv_close((uv_handle_t *) &p->in, on_handle_closed);
	if (p->out_open)
		uv_close((uv_handle_t *) &p->out, on_handle_closed);
}

/* Not more often than somebody may want to read it. */
static void
complain(AuMeta *m, const MetaPeer *p, const char *what)
{
	struct sockaddr_storage from;
	int			len = sizeof(from);
	char		host[64] = "?";

	m->strangers++;
	if (meta_now() < m->next_stranger)
		return;
	m->next_stranger = meta_now() + META_COMPLAIN_MS;
	if (uv_tcp_getpeername(&p->in, (struct sockaddr *) &from, &len) == 0 && from.ss_family == AF_INET)
		uv_ip4_name((const struct sockaddr_in *) &from, host, sizeof(host));
	au_log(m->d, AU_LOG_WARNING, "closed a connection from %s to the port for consensus, \"%s\": %s",
		   host, m->meta_bind, what);
}

/* ---- admitted: messages ----------------------------------------------- */

static void on_bytes(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf);

static void
make_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	MetaPeer   *p = handle->data;

	(void) suggested;
	if (p->len == p->cap)
	{
		size_t		cap = p->cap == 0 ? BUFFER_MIN : p->cap * 2;
		uint8_t    *bigger = realloc(p->buffer, cap);

		if (bigger != NULL)
		{
			p->buffer = bigger;
			p->cap = cap;
		}
	}
	*buf = uv_buf_init((char *) p->buffer + p->len, (unsigned) (p->cap - p->len));
}

/* libraft never writes to those who connect: its end was closed. */
static void
on_out_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	(void) buf;
	if (n != 0)
		close_peer(stream->data);
}

static void
no_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	static char byte;

	(void) handle;
	(void) suggested;
	*buf = uv_buf_init(&byte, 1);
}

static void
on_written(uv_write_t *req, int status)
{
	MetaPeer   *p = req->data;

	p->len -= p->writing;
	memmove(p->buffer, p->buffer + p->writing, p->len);
	p->writing = 0;
	if (p->closing)
		return;
	if (status != 0 || uv_read_start((uv_stream_t *) &p->in, make_room, on_bytes) != 0)
		close_peer(p);
}

/* Two leaders in one term: one of them has forgotten what it voted for. */
static bool
contradicts(const AuMeta *m, const AuRaftFrame *f)
{
	return (f->type == AU_RAFT_APPEND || f->type == AU_RAFT_SNAPSHOT) &&
		m->raft.state == RAFT_LEADER && f->term == m->raft.current_term;
}

/* All whole messages go on; until they have gone nothing is read. */
static void
pass_on(MetaPeer *p)
{
	size_t		good = 0;
	uv_buf_t	out;

	for (;;)
	{
		AuRaftFrame f;
		size_t		used;
		AuStatus	status = au_raft_frame_check(p->buffer + good, p->len - good, &f, &used);

		if (status == AU_NEED_MORE)
			break;
		if (status != AU_OK || contradicts(p->meta, &f))
		{
			complain(p->meta, p, status != AU_OK ? "what it sent is no message of consensus" :
					 "it leads in a term in which this node leads; it has lost its memory");
			close_peer(p);
			return;
		}
		good += used;
	}
	if (good == 0)
		return;
	p->writing = good;
	p->write.data = p;
	out = uv_buf_init((char *) p->buffer, (unsigned) good);
	(void) uv_read_stop((uv_stream_t *) &p->in);
	if (uv_write(&p->write, (uv_stream_t *) &p->out, &out, 1, on_written) != 0)
	{
		p->writing = 0;
		close_peer(p);
	}
}

/* ---- the greeting ----------------------------------------------------- */

/* NULL: it is one of us. */
static const char *
why_not(const AuMeta *m, const AuRaftHello *h)
{
	const AuViewNode *n = au_view_node(&m->view, h->number);

	if (m->view.cluster_id == 0 || h->cluster_id != m->view.cluster_id)
		return "it is not of this cluster";
	if (n == NULL)
		return "it is no node of the cluster, or none any more, or so new that this node has not heard of it";
	if (n->node_id != h->node_id)
		return "it has the number of another node; was its directory emptied?";
	return h->number == m->number ? "it claims to be this very node" : NULL;
}

static void
on_theirs_closed(uv_handle_t *handle)
{
	raft_free(handle);
}

/* A pair of sockets, one end libraft's.  NULL: no. */
static uv_pipe_t *
make_pair(MetaPeer *p)
{
	uv_pipe_t  *theirs = raft_malloc(sizeof(*theirs));
	int			fd[2];

	if (theirs == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd) != 0)
	{
		raft_free(theirs);
		return NULL;
	}
	uv_pipe_init(p->meta->d->loop, theirs, 0);
	uv_pipe_init(p->meta->d->loop, &p->out, 0);
	p->out.data = p;
	p->out_open = true;
	p->handles++;
	if (uv_pipe_open(&p->out, fd[0]) != 0)
	{
		close(fd[0]);
		close(fd[1]);
	}
	else if (uv_pipe_open(theirs, fd[1]) != 0)
		close(fd[1]);
	else if (uv_read_start((uv_stream_t *) &p->out, no_room, on_out_read) == 0)
		return theirs;
	uv_close((uv_handle_t *) theirs, on_theirs_closed);
	return NULL;
}

/* The newest connection of a node is the one: the other end of an older one is
 * gone, and we were not told. */
static void
admit(MetaPeer *p, const AuRaftHello *h)
{
	AuMeta	   *m = p->meta;
	uv_pipe_t  *theirs = make_pair(p);

	if (theirs == NULL)
	{
		close_peer(p);
		return;
	}
	for (MetaPeer *o = m->peers; o != NULL; o = o->next)
		if (o->number == h->number)
			close_peer(o);
	p->number = h->number;
	m->accept(&m->transport, h->number, h->address, (uv_stream_t *) theirs);
}

static void
on_bytes(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	MetaPeer   *p = stream->data;
	AuRaftHello h;
	AuStatus	status;
	const char *why;
	size_t		used;

	(void) buf;
	if (n < 0)
		close_peer(p);
	if (n <= 0)
		return;
	p->len += (size_t) n;
	if (p->number == 0)
	{
		status = au_raft_hello_parse(p->buffer, p->len, &h, &used);
		if (status == AU_NEED_MORE)
			return;
		why = status != AU_OK ? "it does not speak as a node of a cluster does" : why_not(p->meta, &h);
		if (why != NULL)
		{
			if (status == AU_OK && h.cluster_id == p->meta->view.cluster_id)
				p->meta->next_poll = 0; /* perhaps we are behind */
			complain(p->meta, p, why);
			close_peer(p);
			return;
		}
		p->len -= used;
		memmove(p->buffer, p->buffer + used, p->len);
		admit(p, &h);
	}
	if (!p->closing)
		pass_on(p);
}

/* ---- listening -------------------------------------------------------- */

static void
close_oldest_stranger(AuMeta *m)
{
	MetaPeer   *oldest = NULL;
	int			count = 0;

	/* new ones are put in front */
	for (MetaPeer *p = m->peers; p != NULL; p = p->next)
		if (p->number == 0 && !p->closing)
		{
			oldest = p;
			count++;
		}
	if (count > STRANGERS_MAX)
		close_peer(oldest);
}

static void
on_connection(uv_stream_t *stream, int status)
{
	AuMeta	   *m = stream->data;
	MetaPeer   *p;

	if (status != 0 || m->accept == NULL || (p = calloc(1, sizeof(*p))) == NULL)
		return;					/* it stays in the kernel's queue, or goes */
	p->meta = m;
	p->handles = 1;
	p->deadline = meta_now() + GREETING_MS;
	p->next = m->peers;
	if (m->peers != NULL)
		m->peers->prev = p;
	m->peers = p;
	uv_tcp_init(m->d->loop, &p->in);
	p->in.data = p;
	if (uv_accept(stream, (uv_stream_t *) &p->in) != 0 ||
		uv_read_start((uv_stream_t *) &p->in, make_room, on_bytes) != 0)
		close_peer(p);
	close_oldest_stranger(m);
}

void
meta_listen_tick(AuMeta *m, uint64_t now)
{
	for (MetaPeer *p = m->peers; p != NULL; p = p->next)
		if (p->number == 0 && !p->closing && now >= p->deadline)
		{
			complain(m, p, "it did not say who it is");
			close_peer(p);
		}
}

static AuMeta *
meta_of(struct raft_uv_transport *t)
{
	return (AuMeta *) ((char *) t - offsetof(AuMeta, transport));
}

static int
start_listening(struct raft_uv_transport *t, raft_uv_accept_cb cb)
{
	AuMeta	   *m = meta_of(t);
	char		host[AU_ADDRESS_MAX];
	const char *port;
	struct sockaddr_in address;
	int			rc = UV_EINVAL;

	uv_tcp_init(m->d->loop, &m->listener);
	m->listener.data = m;
	m->listener_open = true;
	m->accept = cb;
	if (au_split_address(m->meta_bind, host, sizeof(host), &port))
		rc = uv_ip4_addr(host, atoi(port), &address);
	if (rc == 0)
		rc = uv_tcp_bind(&m->listener, (const struct sockaddr *) &address, 0);
	if (rc == 0)
		rc = uv_listen((uv_stream_t *) &m->listener, STRANGERS_MAX, on_connection);
	if (rc != 0)
		snprintf(t->errmsg, sizeof(t->errmsg), "listen: %s", uv_strerror(rc));
	return rc == 0 ? 0 : RAFT_IOERR;
}

static void
on_listener_closed(uv_handle_t *handle)
{
	AuMeta	   *m = handle->data;

	m->listener_open = false;
	au_wake(m->d);
}

static void
stop_listening(struct raft_uv_transport *t, raft_uv_transport_close_cb cb)
{
	AuMeta	   *m = meta_of(t);

	m->accept = NULL;
	if (m->listener_open && !uv_is_closing((uv_handle_t *) &m->listener))
		uv_close((uv_handle_t *) &m->listener, on_listener_closed);
	for (MetaPeer *p = m->peers; p != NULL; p = p->next)
		close_peer(p);
	m->their_close(t, cb);
}

/* libraft keeps the address it is given, and says it when it connects. */
static int
set_greeting(struct raft_uv_transport *t, raft_id id, const char *address)
{
	AuMeta	   *m = meta_of(t);

	(void) address;
	return m->their_init(t, id, m->greeting);
}

void
meta_listen_greeting(AuMeta *m)
{
	(void) au_raft_hello_text(m->greeting, sizeof(m->greeting), m->meta_address,
							  m->view.cluster_id, m->d->node_id);
}

void
meta_listen_wrap(AuMeta *m)
{
	m->their_init = m->transport.init;
	m->their_close = m->transport.close;
	m->transport.init = set_greeting;
	m->transport.listen = start_listening;
	m->transport.close = stop_listening;
	meta_listen_greeting(m);
}
