/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl_fetch.c: asks a node for its status, over HTTP (libcurl) or over the
 * socket that servers use (STATUS message).  Both wait CTL_TIMEOUT_S at most.
 */
#include "ctl/ctl.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/au_wire.h"

#define STATUS_MAX ((size_t) AU_WIRE_PAYLOAD_MAX)

typedef struct Body
{
	char	   *data;
	size_t		len;
} Body;

static size_t
on_body(char *data, size_t size, size_t n, void *ctx)
{
	Body	   *b = ctx;
	size_t		len = size * n;
	char	   *bigger;

	if (b->len + len > STATUS_MAX)
		return 0;
	bigger = realloc(b->data, b->len + len + 1);
	if (bigger == NULL)
		return 0;
	b->data = bigger;
	memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = '\0';
	return len;
}

static char *
fetch_http(const CtlTarget *t)
{
	CURL	   *curl = curl_easy_init();
	Body		body = {0};
	char		url[512];
	char		detail[CURL_ERROR_SIZE] = "";
	const char *where = t->http != NULL ? t->http : t->http_socket;
	CURLcode	rc;
	long		code = 0;

	if (curl == NULL)
	{
		fprintf(stderr, "auroractl: out of memory\n");
		return NULL;
	}
	snprintf(url, sizeof(url), "http://%s/status", t->http != NULL ? t->http : "localhost");
	curl_easy_setopt(curl, CURLOPT_URL, url);
	if (t->http_socket != NULL)
		curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, t->http_socket);
	curl_easy_setopt(curl, CURLOPT_PROXY, "");	/* a node is asked directly */
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long) CTL_TIMEOUT_S);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &body);
	rc = curl_easy_perform(curl);
	if (rc == CURLE_OK)
		curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &code);
	curl_easy_cleanup(curl);
	if (rc == CURLE_OK && code == 200 && body.data != NULL)
		return body.data;
	if (rc != CURLE_OK)
		fprintf(stderr, "auroractl: could not ask the node at \"%s\": %s\n"
				"Check that aurora_storaged runs there and was started with --http or --http-socket.\n",
				where, detail[0] ? detail : curl_easy_strerror(rc));
	else
		fprintf(stderr, "auroractl: the node at \"%s\" answered with HTTP status %ld: %s\n",
				where, code, body.data != NULL ? body.data : "");
	free(body.data);
	return NULL;
}

/* ---- Aurora's protocol ------------------------------------------------ */

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

static char *
ask(int fd, const char *path, uint8_t *buf, size_t cap)
{
	time_t		deadline = time(NULL) + CTL_TIMEOUT_S;
	AuMsgHello	hello = {.role = AU_ROLE_ADMIN,.name = "auroractl"};
	AuWriter	w;
	AuFrame		f;
	bool		ok;

	au_writer_start(&w, buf, cap);
	ok = au_enc_hello(&w, 1, &hello);
	if (!ok || !send_all(fd, w.data, w.len, deadline))
	{
		fprintf(stderr, "auroractl: could not send to \"%s\": %s\n", path, strerror(errno));
		return NULL;
	}
	if (!receive(fd, path, AU_MSG_HELLO_OK, buf, cap, &f, deadline))
		return NULL;
	au_writer_start(&w, buf, cap);
	ok = au_enc_empty(&w, AU_MSG_STATUS, 2);
	if (!ok || !send_all(fd, w.data, w.len, deadline))
	{
		fprintf(stderr, "auroractl: could not send to \"%s\": %s\n", path, strerror(errno));
		return NULL;
	}
	if (!receive(fd, path, AU_MSG_STATUS_OK, buf, cap, &f, deadline))
		return NULL;
	return strndup((const char *) f.payload, f.length);
}

static char *
fetch_socket(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	size_t		cap = AU_WIRE_PAYLOAD_MAX + AU_WIRE_HEADER;
	uint8_t    *buf;
	char	   *text = NULL;
	int			fd;

	if (strlen(path) >= sizeof(addr.sun_path))
	{
		fprintf(stderr, "auroractl: socket path \"%s\" is too long\n", path);
		return NULL;
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *) &addr, sizeof(addr)) != 0)
	{
		fprintf(stderr, "auroractl: could not connect to \"%s\": %s\n"
				"Check that aurora_storaged runs and listens there.\n", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	buf = malloc(cap);
	if (buf != NULL)
		text = ask(fd, path, buf, cap);
	free(buf);
	close(fd);
	return text;
}

char *
ctl_fetch_status(const CtlTarget *t)
{
	return t->socket != NULL ? fetch_socket(t->socket) : fetch_http(t);
}
