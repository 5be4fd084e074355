/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_http.c: GET /status, /metrics, /health.
 *
 * libmicrohttpd runs in a thread of its own and touches nothing of the node:
 * it answers from a snapshot.  If the snapshot is older than AU_SNAPSHOT_MS,
 * the loop thread is asked for a new one; a loop that does not answer within
 * two seconds is reported as such.
 */
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "daemon/au_daemon.h"

#define HTTP_CONNECTIONS_MAX 64
#define HTTP_TIMEOUT_S 30
#define SNAPSHOT_WAIT_S 2

typedef struct Http
{
	struct MHD_Daemon *daemons[2];
	int			n;
	char		path[sizeof(((struct sockaddr_un *) 0)->sun_path)];
} Http;

void
au_snapshot_make(AuDaemon *d)
{
	AuSnapshot *s = &d->snapshot;
	bool		healthy = false;
	uint64_t	start = uv_hrtime();
	char	   *json = au_status_json(d, &healthy);
	char	   *metrics = au_status_metrics(d);

	pthread_mutex_lock(&s->lock);
	if (json != NULL && metrics != NULL)
	{
		free(s->json);
		free(s->metrics);
		s->json = json;
		s->metrics = metrics;
		s->healthy = healthy;
		s->made_ms = uv_hrtime() / 1000000;
	}
	else
	{
		free(json);
		free(metrics);
	}
	au_hist_add(&d->snapshots, (uv_hrtime() - start) / 1000);
	s->serial++;
	pthread_cond_broadcast(&s->made);
	pthread_mutex_unlock(&s->lock);
}

/* A copy of what was asked for, no older than AU_SNAPSHOT_MS; NULL: the loop
 * does not answer. */
static char *
snapshot_get(AuDaemon *d, bool metrics, bool *healthy)
{
	AuSnapshot *s = &d->snapshot;
	struct timespec limit;
	uint64_t	serial;
	char	   *copy = NULL;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += SNAPSHOT_WAIT_S;
	pthread_mutex_lock(&s->lock);
	serial = s->serial;
	if (uv_hrtime() / 1000000 - s->made_ms > AU_SNAPSHOT_MS && !s->stopped)
	{
		uv_async_send(&d->want_snapshot);
		while (s->serial == serial && !s->stopped)
			if (pthread_cond_timedwait(&s->made, &s->lock, &limit) == ETIMEDOUT)
				break;
	}
	if (uv_hrtime() / 1000000 - s->made_ms < SNAPSHOT_WAIT_S * 1000 && s->json != NULL)
	{
		copy = strdup(metrics ? s->metrics : s->json);
		*healthy = s->healthy;
	}
	pthread_mutex_unlock(&s->lock);
	return copy;
}

static enum MHD_Result
answer(struct MHD_Connection *c, unsigned int code, const char *type, const char *text)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(strlen(text), (void *) text,
															 MHD_RESPMEM_MUST_COPY);
	enum MHD_Result rc;

	if (r == NULL)
		return MHD_NO;
	MHD_add_response_header(r, "Content-Type", type);
	MHD_add_response_header(r, "Cache-Control", "no-store");
	rc = MHD_queue_response(c, code, r);
	MHD_destroy_response(r);
	return rc;
}

static enum MHD_Result
on_request(void *ctx, struct MHD_Connection *c, const char *url, const char *method,
		   const char *version, const char *upload, size_t *upload_len, void **state)
{
	AuDaemon   *d = ctx;
	bool		metrics = strcmp(url, "/metrics") == 0;
	bool		health = strcmp(url, "/health") == 0;
	bool		healthy = false;
	char	   *text;
	enum MHD_Result rc;

	(void) version;
	(void) upload;
	(void) state;
	if (*upload_len != 0)
	{
		*upload_len = 0;		/* nobody wants it */
		return MHD_YES;
	}
	if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
		return answer(c, MHD_HTTP_METHOD_NOT_ALLOWED, "text/plain", "only GET\n");
	if (!metrics && !health && strcmp(url, "/status") != 0 && strcmp(url, "/") != 0)
		return answer(c, MHD_HTTP_NOT_FOUND, "text/plain", "there are /status, /metrics and /health\n");
	text = snapshot_get(d, metrics, &healthy);
	if (text == NULL)
		return answer(c, MHD_HTTP_SERVICE_UNAVAILABLE, "text/plain", "the node does not answer\n");
	if (health)
		rc = answer(c, healthy ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, "text/plain",
					healthy ? "ok\n" : "not ok, see /status\n");
	else
		rc = answer(c, MHD_HTTP_OK, metrics ? "text/plain; version=0.0.4" : "application/json", text);
	free(text);
	return rc;
}

static int
listen_fd(int family, const struct sockaddr *addr, socklen_t len)
{
	int			fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int			one = 1;

	if (fd < 0)
		return -1;
	if (family != AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, addr, len) == 0 && listen(fd, HTTP_CONNECTIONS_MAX) == 0)
		return fd;
	close(fd);
	return -1;
}

static bool
serve(AuDaemon *d, Http *h, int fd, const char *where, char *err, size_t errlen)
{
	struct MHD_Daemon *m;

	if (fd < 0)
	{
		snprintf(err, errlen, "could not listen for HTTP on \"%s\": %s", where, strerror(errno));
		return false;
	}
	m = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL, 0, NULL, NULL,
						 on_request, d, MHD_OPTION_LISTEN_SOCKET, fd,
						 MHD_OPTION_CONNECTION_LIMIT, (unsigned int) HTTP_CONNECTIONS_MAX,
						 MHD_OPTION_CONNECTION_TIMEOUT, (unsigned int) HTTP_TIMEOUT_S,
						 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) 32768, MHD_OPTION_END);
	if (m == NULL)
	{
		snprintf(err, errlen, "could not start the HTTP server on \"%s\"", where);
		close(fd);
		return false;
	}
	h->daemons[h->n++] = m;
	return true;
}

static bool
serve_unix(AuDaemon *d, Http *h, char *err, size_t errlen)
{
	const char *path = d->config.http_socket;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct stat st;

	if (strlen(path) >= sizeof(addr.sun_path))
	{
		snprintf(err, errlen, "socket path \"%s\" is longer than the system's %zu bytes",
				 path, sizeof(addr.sun_path) - 1);
		return false;
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	/* we hold the directory's lock, so a socket there is a dead one's */
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(path);
	if (!serve(d, h, listen_fd(AF_UNIX, (struct sockaddr *) &addr, sizeof(addr)), path, err, errlen))
		return false;
	memcpy(h->path, path, strlen(path) + 1);
	return true;
}

static bool
serve_tcp(AuDaemon *d, Http *h, char *err, size_t errlen)
{
	const char *address = d->config.http;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,.ai_flags = AI_PASSIVE};
	struct addrinfo *list = NULL;
	char		host[256];
	const char *port;
	bool		ok;
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
	ok = serve(d, h, listen_fd(list->ai_family, list->ai_addr, list->ai_addrlen), address, err, errlen);
	freeaddrinfo(list);
	return ok;
}

bool
au_http_start(AuDaemon *d, char *err, size_t errlen)
{
	Http	   *h = calloc(1, sizeof(*h));

	d->http = h;
	if (h == NULL)
	{
		snprintf(err, errlen, "out of memory");
		return false;
	}
	return (d->config.http_socket[0] == '\0' || serve_unix(d, h, err, errlen)) &&
		(d->config.http[0] == '\0' || serve_tcp(d, h, err, errlen));
}

void
au_http_stop(AuDaemon *d)
{
	Http	   *h = d->http;

	if (h == NULL)
		return;
	pthread_mutex_lock(&d->snapshot.lock);
	d->snapshot.stopped = true;
	pthread_cond_broadcast(&d->snapshot.made);
	pthread_mutex_unlock(&d->snapshot.lock);
	for (int i = 0; i < h->n; i++)
		MHD_stop_daemon(h->daemons[i]);
	if (h->path[0] != '\0')
		unlink(h->path);
	free(h);
	d->http = NULL;
}
