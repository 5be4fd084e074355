/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wireclient.h: a blocking client of a storage node for tests, and starting
 * and stopping of a daemon.
 */
#ifndef AU_TEST_WIRECLIENT_H
#define AU_TEST_WIRECLIENT_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/au_wire.h"

#define CLIENT_BUF (AU_WIRE_PAYLOAD_MAX + 64)

typedef struct Client
{
	int			fd;
	uint64_t	id;
	uint8_t    *in;
	size_t		in_len;
	size_t		used;			/* of the last frame, dropped at the next receive */
	uint8_t    *out;
} Client;

/* false: nobody listens */
static inline bool
client_connect(Client *c, const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	memset(c, 0, sizeof(*c));
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.100s", path);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(c->fd, (struct sockaddr *) &addr, sizeof(addr)) != 0)
	{
		close(c->fd);
		return false;
	}
	c->in = malloc(CLIENT_BUF);
	c->out = malloc(CLIENT_BUF);
	return c->in != NULL && c->out != NULL;
}

static inline void
client_close(Client *c)
{
	close(c->fd);
	free(c->in);
	free(c->out);
}

static inline bool
client_send_raw(Client *c, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;

	while (len > 0)
	{
		ssize_t		n = send(c->fd, p, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		p += n;
		len -= (size_t) n;
	}
	return true;
}

/* Next frame within timeout_ms; false: none, or the connection is gone. */
static inline bool
client_receive(Client *c, AuFrame *f, int timeout_ms)
{
	memmove(c->in, c->in + c->used, c->in_len - c->used);
	c->in_len -= c->used;
	c->used = 0;
	for (;;)
	{
		struct pollfd p = {.fd = c->fd,.events = POLLIN};
		size_t		used;
		AuStatus	status = au_frame_parse(c->in, c->in_len, f, &used);
		ssize_t		n;

		if (status == AU_OK)
		{
			c->used = used;
			return true;
		}
		if (status != AU_NEED_MORE || poll(&p, 1, timeout_ms) <= 0)
			return false;
		n = recv(c->fd, c->in + c->in_len, CLIENT_BUF - c->in_len, 0);
		if (n <= 0)
			return false;
		c->in_len += (size_t) n;
	}
}

/* Send an encoded message: CLIENT_SEND(c, au_enc_hello, &m); its id is c->id */
#define CLIENT_SEND(c, enc, ...) \
	({ \
		AuWriter w_; \
		au_writer_start(&w_, (c)->out, CLIENT_BUF); \
		enc(&w_, ++(c)->id, __VA_ARGS__) && client_send_raw((c), w_.data, w_.len); \
	})

/* ---- the daemon ------------------------------------------------------- */

static inline const char *
daemon_path(const char *name)
{
	static char path[4096 + 64];
	ssize_t		n = readlink("/proc/self/exe", path, 4096);
	char	   *slash;

	path[n > 0 ? n : 0] = '\0';
	slash = strrchr(path, '/');
	if (slash != NULL)
		*slash = '\0';
	slash = strrchr(path, '/');
	snprintf(slash != NULL ? slash : path, 64, "/%s", name);
	return path;
}

/* Start with the given arguments (NULL-terminated, without argv[0]); output
 * goes to `log`. */
static inline pid_t
daemon_start(char *const *args, const char *log)
{
	pid_t		pid = fork();

	if (pid == 0)
	{
		const char *argv[32] = {daemon_path("aurora_storaged")};
		int			n = 1;
		int			fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

		prctl(PR_SET_PDEATHSIG, SIGKILL);	/* a failed test leaves nothing behind */
		dup2(fd, 2);
		dup2(fd, 1);
		while (*args != NULL && n < 31)
			argv[n++] = *args++;
		execv(argv[0], (char *const *) argv);
		_exit(127);
	}
	return pid;
}

static inline bool
daemon_wait_socket(const char *path)
{
	for (int i = 0; i < 1200; i++)
	{
		Client		c;

		if (client_connect(&c, path))
		{
			client_close(&c);
			return true;
		}
		usleep(50 * 1000);
	}
	return false;
}

/* Signal, wait; returns waitpid's status. */
static inline int
daemon_end(pid_t pid, int sig)
{
	int			st = -1;

	kill(pid, sig);
	waitpid(pid, &st, 0);
	return st;
}

#endif							/* AU_TEST_WIRECLIENT_H */
