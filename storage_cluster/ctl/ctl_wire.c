/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl_wire.c: a conversation with a node in Aurora's protocol, over its Unix
 * socket or TCP; nothing takes longer than CTL_TIMEOUT_S.  What fails is
 * printed.
 */
#include "ctl/ctl.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_CAP ((size_t) AU_WIRE_PAYLOAD_MAX + AU_WIRE_HEADER)

struct CtlWire
{
	int			fd;
	const char *where;
	uint8_t    *buf;			/* BUFFER_CAP: the last answer */
};

static bool
wait_for(int fd, short events, time_t deadline)
{
	struct pollfd p = {.fd = fd,.events = events};
	time_t		left = deadline - time(NULL);

	if (left > 0 && poll(&p, 1, (int) left * 1000) > 0)
		return true;
	errno = ETIMEDOUT;
	return false;
}

static bool
send_all(int fd, const uint8_t *p, size_t len, time_t deadline)
{
	while (len > 0)
	{
		ssize_t		n;

		if (!wait_for(fd, POLLOUT, deadline))
			return false;
		n = send(fd, p, len, MSG_NOSIGNAL);
		if (n <= 0)
			return false;
		p += n;
		len -= (size_t) n;
	}
	return true;
}

/* Next frame of type `want` at buf; anything else is an error, which is
 * printed. */
static bool
receive(int fd, const char *path, uint16_t want, uint8_t *buf, size_t cap, AuFrame *f,
		time_t deadline)
{
	size_t		len = 0;

	for (;;)
	{
		size_t		used;
		AuStatus	status = au_frame_parse(buf, len, f, &used);
		ssize_t		n;

		if (status == AU_OK)
			break;
		if (status != AU_NEED_MORE)
		{
			fprintf(stderr, "auroractl: what listens on \"%s\" does not speak this version of Aurora's protocol%s\n",
					path, len >= 4 && memcmp(buf, "HTTP", 4) == 0 ? "; is it the HTTP socket? Then use --http-socket" : "");
			return false;
		}
		n = len < cap && wait_for(fd, POLLIN, deadline) ? recv(fd, buf + len, cap - len, 0) : -1;
		if (n <= 0)
		{
			fprintf(stderr, "auroractl: no answer from the node on \"%s\": %s\n", path,
					n == 0 ? "it closed the connection" : strerror(errno));
			return false;
		}
		len += (size_t) n;
	}
	if (f->type == AU_MSG_ERROR)
	{
		AuMsgError	e;

		if (au_dec_error(f, &e))
			fprintf(stderr, "auroractl: the node on \"%s\" said: %s\n%s%s", path, e.message,
					e.hint, e.hint[0] ? "\n" : "");
		return false;
	}
	if (f->type != want)
		fprintf(stderr, "auroractl: the node on \"%s\" sent an unexpected message of type %u\n",
				path, f->type);
	return f->type == want;
}

static void
cannot_connect(const char *where)
{
	fprintf(stderr, "auroractl: could not connect to \"%s\": %s\n"
			"Check that aurora_storaged runs and listens there.\n", where, strerror(errno));
}

static int
connect_unix(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int			fd;

	if (strlen(path) >= sizeof(addr.sun_path))
	{
		errno = ENAMETOOLONG;
		cannot_connect(path);
		return -1;
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *) &addr, sizeof(addr)) != 0)
	{
		cannot_connect(path);
		close(fd);
		return -1;
	}
	return fd;
}

/* Within CTL_TIMEOUT_S also when nothing answers at all. */
static bool
connect_in_time(int fd, const struct addrinfo *a)
{
	int			error = 0;
	socklen_t	len = sizeof(error);

	if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
		return true;
	if (errno != EINPROGRESS || !wait_for(fd, POLLOUT, time(NULL) + CTL_TIMEOUT_S))
		return false;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error != 0)
		errno = error;
	return error == 0;
}

/* A name may have several addresses: the first that answers.  "localhost" may be
 * ::1 first, and the node listen on 127.0.0.1 only. */
static int
connect_one_of(const struct addrinfo *list)
{
	int			fd = -1;

	for (const struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next)
	{
		fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (fd >= 0 && !connect_in_time(fd, a))
		{
			int			saved = errno;

			close(fd);
			errno = saved;
			fd = -1;
		}
	}
	return fd;
}

static int
connect_tcp(const char *address)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *list;
	char		host[256];
	const char *port;
	int			fd;
	int			rc;

	if (!au_split_address(address, host, sizeof(host), &port))
	{
		fprintf(stderr, "auroractl: \"%s\" is not of the form HOST:PORT, with a port from 1 to 65535\n", address);
		return -1;
	}
	rc = getaddrinfo(host[0] ? host : NULL, port, &hints, &list);
	if (rc != 0)
	{
		fprintf(stderr, "auroractl: could not resolve \"%s\": %s\n", address, gai_strerror(rc));
		return -1;
	}
	fd = connect_one_of(list);
	if (fd < 0)
		cannot_connect(address);
	freeaddrinfo(list);
	return fd;
}

CtlWire *
ctl_wire_open(const CtlTarget *t)
{
	AuMsgHello	hello = {.role = AU_ROLE_ADMIN,.name = "auroractl"};
	uint8_t		frame[256];
	CtlWire    *c = calloc(1, sizeof(*c));
	uint8_t    *buf = malloc(BUFFER_CAP);
	AuWriter	w;
	AuFrame		f;

	if (c == NULL || buf == NULL)
	{
		fprintf(stderr, "auroractl: out of memory\n");
		free(c);
		free(buf);
		return NULL;
	}
	c->buf = buf;
	c->where = t->socket != NULL ? t->socket : t->node;
	c->fd = t->socket != NULL ? connect_unix(t->socket) : connect_tcp(t->node);
	au_writer_start(&w, frame, sizeof(frame));
	if (c->fd >= 0 && au_enc_hello(&w, 1, &hello) &&
		ctl_wire_ask(c, w.data, w.len, AU_MSG_HELLO_OK, &f))
		return c;
	ctl_wire_close(c);
	return NULL;
}

bool
ctl_wire_ask(CtlWire *c, const uint8_t *frame, size_t len, uint16_t want, AuFrame *answer)
{
	time_t		deadline = time(NULL) + CTL_TIMEOUT_S;

	if (!send_all(c->fd, frame, len, deadline))
	{
		fprintf(stderr, "auroractl: could not send to \"%s\": %s\n", c->where, strerror(errno));
		return false;
	}
	return receive(c->fd, c->where, want, c->buf, BUFFER_CAP, answer, deadline);
}

void
ctl_wire_close(CtlWire *c)
{
	if (c->fd >= 0)
		close(c->fd);
	free(c->buf);
	free(c);
}
