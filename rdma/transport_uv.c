/* SPDX-License-Identifier: Apache-2.0 */
/*
 * transport_uv.c: Unix and TCP streams on libuv; transport.h has the contract.
 *
 * A link:
 *
 *   connecting ──▶ open ──au_link_close──▶ lingering ──▶ closing ──▶ freed
 *                    └── end of stream, error ──────────────┘
 *
 * lingering: the output queue drains, bounded by a timer.  closing: libuv
 * closes the two handles; when both are closed the link is freed.
 */
#include "rdma/transport.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/au_base.h"

#define BACKLOG 256

struct AuListener
{
	union
	{
		uv_handle_t handle;
		uv_stream_t stream;
		uv_pipe_t	pipe;
		uv_tcp_t	tcp;
	}			u;
	uv_loop_t  *loop;
	AuTransportEvents events;
	void	   *ctx;
	char		path[sizeof(((struct sockaddr_un *) 0)->sun_path)];
};

struct AuLink
{
	union
	{
		uv_handle_t handle;
		uv_stream_t stream;
		uv_pipe_t	pipe;
		uv_tcp_t	tcp;
	}			u;
	uv_timer_t	linger;
	uv_connect_t connect;
	AuTransportEvents events;
	void	   *ctx;
	void	   *user;
	bool		open;			/* `opened` was reported */
	bool		reading;
	bool		draining;		/* au_link_close was called */
	bool		closing;
	int			handles_open;
	size_t		unsent;
	uint8_t    *in;
	size_t		in_start;
	size_t		in_len;			/* bytes at in + in_start */
	size_t		in_cap;
	size_t		need;			/* bytes wanted before the next offer */
	char		why[128];
};

/* Precedes the bytes of a send buffer. */
typedef struct SendReq
{
	uv_write_t	req;
	AuLink	   *link;
	size_t		len;
	uint8_t		bytes[];
} SendReq;

void *
au_link_user(const AuLink *link)
{
	return link->user;
}

long
au_link_peer_pid(const AuLink *link)
{
	struct ucred peer;
	socklen_t	len = sizeof(peer);
	uv_os_fd_t	fd;

	if (link->u.handle.type != UV_NAMED_PIPE || uv_fileno(&link->u.handle, &fd) != 0 ||
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0 || peer.uid != geteuid())
		return -1;
	return peer.pid;
}

/* ---- closing ---------------------------------------------------------- */

static void
on_handle_closed(uv_handle_t *handle)
{
	AuLink	   *link = handle->data;

	if (--link->handles_open > 0)
		return;
	link->events.closed(link->ctx, link, link->why);
	free(link->in);
	free(link);
}

static void
close_now(AuLink *link, const char *why)
{
	if (link->closing)
		return;
	link->closing = true;
	link->reading = false;
	snprintf(link->why, sizeof(link->why), "%s", why);
	uv_close(&link->u.handle, on_handle_closed);
	uv_close((uv_handle_t *) &link->linger, on_handle_closed);
}

static void
on_linger(uv_timer_t *timer)
{
	close_now(timer->data, "the peer did not take what was sent");
}

void
au_link_close(AuLink *link)
{
	if (link->closing || link->draining)
		return;
	link->draining = true;
	au_link_set_reading(link, false);
	if (link->unsent == 0)
		close_now(link, "");
	else
		uv_timer_start(&link->linger, on_linger, AU_LINK_LINGER_MS, 0);
}

/* ---- sending ---------------------------------------------------------- */

uint8_t *
au_link_buffer(size_t cap)
{
	SendReq    *r = malloc(sizeof(*r) + cap);

	return r != NULL ? r->bytes : NULL;
}

void
au_link_buffer_free(uint8_t *buffer)
{
	free(buffer - offsetof(SendReq, bytes));
}

static void
on_written(uv_write_t *req, int status)
{
	SendReq    *r = (SendReq *) ((char *) req - offsetof(SendReq, req));
	AuLink	   *link = r->link;
	size_t		len = r->len;

	free(r);
	link->unsent -= len;
	if (link->closing)
		return;
	if (status < 0)
	{
		close_now(link, uv_strerror(status));
		return;
	}
	link->events.sent(link->ctx, link, len);
	if (link->draining && link->unsent == 0)
		close_now(link, "");
}

void
au_link_send(AuLink *link, uint8_t *buffer, size_t len)
{
	SendReq    *r = (SendReq *) (buffer - offsetof(SendReq, bytes));
	uv_buf_t	buf = uv_buf_init((char *) buffer, (unsigned int) len);
	int			n = 0;
	int			rc;

	assert(len <= AU_LINK_BUFFER_MAX);
	if (link->closing || link->draining || len == 0)
	{
		free(r);
		return;
	}
	if (link->unsent == 0)
	{
		n = uv_try_write(&link->u.stream, &buf, 1);
		n = n < 0 ? 0 : n;		/* a real error comes again below */
		if ((size_t) n == len)
		{
			free(r);
			link->events.sent(link->ctx, link, len);
			return;
		}
	}
	buf = uv_buf_init((char *) buffer + n, (unsigned int) (len - n));
	r->link = link;
	r->len = len;
	link->unsent += len;
	rc = uv_write(&r->req, &link->u.stream, &buf, 1, on_written);
	if (rc < 0)
	{
		link->unsent -= len;
		free(r);
		close_now(link, uv_strerror(rc));
	}
}

/* ---- receiving -------------------------------------------------------- */

void
au_link_offer(AuLink *link)
{
	while (link->open && link->reading && !link->closing && link->in_len > 0 &&
		   link->in_len >= link->need)
	{
		size_t		need = 1;
		size_t		used = link->events.received(link->ctx, link, link->in + link->in_start,
												 link->in_len, &need);

		assert(used <= link->in_len);
		link->in_start += used;
		link->in_len -= used;
		link->need = link->reading ? need : 1;
		if (used == 0)
			break;
	}
	if (link->in_len == 0)
	{
		link->in_start = 0;
		if (link->in_cap > AU_LINK_BUFFER_MIN)
		{
			free(link->in);
			link->in = NULL;
			link->in_cap = 0;
		}
	}
}

/* Room behind what is buffered, for what the receiver still needs. */
static void
on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	AuLink	   *link = handle->data;
	size_t		want = link->in_len + AU_LINK_BUFFER_MIN / 2;

	(void) suggested;
	if (want < link->need)
		want = link->need;
	if (want < AU_LINK_BUFFER_MIN)
		want = AU_LINK_BUFFER_MIN;
	if (want > AU_LINK_BUFFER_MAX)
		want = AU_LINK_BUFFER_MAX;
	if (link->in_start + want > link->in_cap)
	{
		if (want > link->in_cap)
		{
			uint8_t    *bigger = malloc(want);

			if (bigger == NULL)
			{
				*buf = uv_buf_init(NULL, 0);	/* reported as UV_ENOBUFS */
				return;
			}
			if (link->in_len > 0)
				memcpy(bigger, link->in + link->in_start, link->in_len);
			free(link->in);
			link->in = bigger;
			link->in_cap = want;
		}
		else if (link->in_len > 0)
			memmove(link->in, link->in + link->in_start, link->in_len);
		link->in_start = 0;
	}
	*buf = uv_buf_init((char *) link->in + link->in_start + link->in_len,
					   (unsigned int) (link->in_cap - link->in_start - link->in_len));
}

static void
on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	AuLink	   *link = stream->data;

	(void) buf;
	if (n == 0)
		return;
	if (n < 0)
	{
		close_now(link, n == UV_EOF ? "" : uv_strerror((int) n));
		return;
	}
	link->in_len += (size_t) n;
	au_link_offer(link);
}

void
au_link_set_reading(AuLink *link, bool on)
{
	int			rc;

	if (link->closing || on == link->reading || (on && link->draining))
		return;
	link->reading = on;
	if (!on)
	{
		uv_read_stop(&link->u.stream);
		return;
	}
	link->need = 1;
	rc = uv_read_start(&link->u.stream, on_alloc, on_read);
	if (rc < 0)
		close_now(link, uv_strerror(rc));
}

/* ---- opening ---------------------------------------------------------- */

static AuLink *
link_new(uv_loop_t *loop, bool tcp, const AuTransportEvents *events, void *ctx)
{
	AuLink	   *link = calloc(1, sizeof(*link));

	if (link == NULL)
		return NULL;
	if (tcp)
		uv_tcp_init(loop, &link->u.tcp);
	else
		uv_pipe_init(loop, &link->u.pipe, 0);
	uv_timer_init(loop, &link->linger);
	link->handles_open = 2;
	link->u.handle.data = link;
	link->linger.data = link;
	link->events = *events;
	link->ctx = ctx;
	return link;
}

static void
link_opened(AuLink *link)
{
	if (link->u.handle.type == UV_TCP)
	{
		uv_tcp_nodelay(&link->u.tcp, 1);
		uv_tcp_keepalive(&link->u.tcp, 1, 60);
	}
	link->open = true;
	link->user = link->events.opened(link->ctx, link);
	au_link_set_reading(link, true);
}

static void
on_connection(uv_stream_t *server, int status)
{
	AuListener *l = server->data;
	AuLink	   *link;

	if (status < 0)
		return;					/* the client is gone again */
	link = link_new(l->loop, server->type == UV_TCP, &l->events, l->ctx);
	if (link == NULL)
		return;					/* it waits in the backlog */
	if (uv_accept(server, &link->u.stream) < 0)
		close_now(link, "could not accept");
	else
		link_opened(link);
}

static void
on_connect(uv_connect_t *req, int status)
{
	AuLink	   *link = req->data;

	if (link->closing)
		return;
	if (status < 0)
		close_now(link, uv_strerror(status));
	else
		link_opened(link);
}

static AuListener *
listener_new(uv_loop_t *loop, const AuTransportEvents *events, void *ctx)
{
	AuListener *l = calloc(1, sizeof(*l));

	if (l != NULL)
	{
		l->loop = loop;
		l->events = *events;
		l->ctx = ctx;
	}
	return l;
}

static void
on_listener_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void
au_listener_close(AuListener *l)
{
	if (l == NULL)
		return;
	if (l->path[0] != '\0')
		unlink(l->path);
	uv_close(&l->u.handle, on_listener_closed);
}

static bool
start_listening(AuListener *l, const char *address, AuListener **out, char *err, size_t errlen)
{
	int			rc = uv_listen(&l->u.stream, BACKLOG, on_connection);

	if (rc < 0)
	{
		snprintf(err, errlen, "could not listen on \"%s\": %s", address, uv_strerror(rc));
		au_listener_close(l);
		return false;
	}
	*out = l;
	return true;
}

/* ---- Unix sockets ----------------------------------------------------- */

/* A socket file that nobody listens on is left over from a crash. */
static bool
remove_stale_socket(const char *path, char *err, size_t errlen)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct stat st;
	int			fd;
	bool		alive;

	if (lstat(path, &st) != 0)
		return true;
	if (!S_ISSOCK(st.st_mode))
	{
		snprintf(err, errlen, "\"%s\" exists and is no socket", path);
		return false;
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
	{
		snprintf(err, errlen, "could not make a socket: %s", strerror(errno));
		return false;
	}
	alive = connect(fd, (struct sockaddr *) &addr, sizeof(addr)) == 0 || errno != ECONNREFUSED;
	close(fd);
	if (alive)
	{
		snprintf(err, errlen, "another process listens on socket \"%s\"", path);
		return false;
	}
	if (unlink(path) != 0 && errno != ENOENT)
	{
		snprintf(err, errlen, "could not remove the old socket \"%s\": %s", path, strerror(errno));
		return false;
	}
	return true;
}

static bool
path_fits(const char *path, char *err, size_t errlen)
{
	size_t		max = sizeof(((struct sockaddr_un *) 0)->sun_path);

	if (strlen(path) < max)
		return true;
	snprintf(err, errlen, "socket path \"%s\" is longer than the system's %zu bytes",
			 path, max - 1);
	return false;
}

static bool
unix_listen(uv_loop_t *loop, const char *path, const AuTransportEvents *events, void *ctx,
			AuListener **out, char *err, size_t errlen)
{
	AuListener *l;
	mode_t		old_umask;
	int			rc;

	if (!path_fits(path, err, errlen) || !remove_stale_socket(path, err, errlen))
		return false;
	l = listener_new(loop, events, ctx);
	if (l == NULL)
	{
		snprintf(err, errlen, "out of memory");
		return false;
	}
	uv_pipe_init(loop, &l->u.pipe, 0);
	l->u.handle.data = l;
	old_umask = umask(0177);
	rc = uv_pipe_bind(&l->u.pipe, path);
	umask(old_umask);
	if (rc < 0)
	{
		/* (libuv says so of a directory that is not there, too.) */
		snprintf(err, errlen, "could not bind socket \"%s\": %s", path,
				 rc == UV_EACCES ? "its directory is not there, or may not be written to" : uv_strerror(rc));
		au_listener_close(l);
		return false;
	}
	snprintf(l->path, sizeof(l->path), "%s", path);
	return start_listening(l, path, out, err, errlen);
}

static bool
unix_connect(uv_loop_t *loop, const char *path, const AuTransportEvents *events, void *ctx,
			 AuLink **out, char *err, size_t errlen)
{
	AuLink	   *link;

	if (!path_fits(path, err, errlen))
		return false;
	link = link_new(loop, false, events, ctx);
	if (link == NULL)
	{
		snprintf(err, errlen, "out of memory");
		return false;
	}
	link->connect.data = link;
	uv_pipe_connect(&link->connect, &link->u.pipe, path, on_connect);
	*out = link;
	return true;
}

/* ---- TCP -------------------------------------------------------------- */

/* host:port, [v6]:port, :port */
static bool
resolve(const char *address, bool passive, struct sockaddr_storage *out, char *err, size_t errlen)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,.ai_flags = passive ? AI_PASSIVE : 0};
	struct addrinfo *list = NULL;
	char		host[256];
	const char *port;
	int			rc;

	if (!au_split_address(address, host, sizeof(host), &port))
	{
		snprintf(err, errlen, "\"%s\" is not of the form HOST:PORT, with a port from 1 to 65535", address);
		return false;
	}
	rc = getaddrinfo(host[0] ? host : NULL, port, &hints, &list);
	if (rc != 0)
	{
		snprintf(err, errlen, "could not resolve \"%s\": %s", address, gai_strerror(rc));
		return false;
	}
	memcpy(out, list->ai_addr, list->ai_addrlen);
	freeaddrinfo(list);
	return true;
}

static bool
tcp_listen(uv_loop_t *loop, const char *address, const AuTransportEvents *events, void *ctx,
		   AuListener **out, char *err, size_t errlen)
{
	struct sockaddr_storage addr;
	AuListener *l;
	int			rc;

	if (!resolve(address, true, &addr, err, errlen))
		return false;
	l = listener_new(loop, events, ctx);
	if (l == NULL)
	{
		snprintf(err, errlen, "out of memory");
		return false;
	}
	uv_tcp_init(loop, &l->u.tcp);
	l->u.handle.data = l;
	rc = uv_tcp_bind(&l->u.tcp, (struct sockaddr *) &addr, 0);
	if (rc < 0)
	{
		snprintf(err, errlen, "could not bind \"%s\": %s", address, uv_strerror(rc));
		au_listener_close(l);
		return false;
	}
	return start_listening(l, address, out, err, errlen);
}

static bool
tcp_connect(uv_loop_t *loop, const char *address, const AuTransportEvents *events, void *ctx,
			AuLink **out, char *err, size_t errlen)
{
	struct sockaddr_storage addr;
	AuLink	   *link;
	int			rc;

	if (!resolve(address, false, &addr, err, errlen))
		return false;
	link = link_new(loop, true, events, ctx);
	if (link == NULL)
	{
		snprintf(err, errlen, "out of memory");
		return false;
	}
	link->connect.data = link;
	rc = uv_tcp_connect(&link->connect, &link->u.tcp, (struct sockaddr *) &addr, on_connect);
	if (rc < 0)
		close_now(link, uv_strerror(rc));
	*out = link;
	return true;
}

const AuTransport au_transport_unix = {"unix", unix_listen, unix_connect};
const AuTransport au_transport_tcp = {"tcp", tcp_listen, tcp_connect};
