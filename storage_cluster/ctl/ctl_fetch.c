/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl_fetch.c: asks a node for its status, over HTTP (libcurl) or in Aurora's
 * protocol (STATUS message).  Both wait CTL_TIMEOUT_S at most.
 */
#include "ctl/ctl.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static char *
fetch_wire(const CtlTarget *t)
{
	CtlWire    *wire = ctl_wire_open(t);
	uint8_t		frame[AU_WIRE_HEADER];
	char	   *text = NULL;
	AuWriter	w;
	AuFrame		f;

	if (wire == NULL)
		return NULL;
	au_writer_start(&w, frame, sizeof(frame));
	if (au_enc_empty(&w, AU_MSG_STATUS, CTL_WIRE_ID) &&
		ctl_wire_ask(wire, w.data, w.len, AU_MSG_STATUS_OK, &f))
		text = strndup((const char *) f.payload, f.length);
	ctl_wire_close(wire);
	return text;
}

static char *
fetch_status(const CtlTarget *t)
{
	return t->socket != NULL || t->node != NULL ? fetch_wire(t) : fetch_http(t);
}

json_t *
ctl_get_status(const CtlTarget *t)
{
	json_error_t error;
	json_t	   *status;
	char	   *text;

	curl_global_init(CURL_GLOBAL_DEFAULT);
	text = fetch_status(t);
	curl_global_cleanup();
	if (text == NULL)
		return NULL;
	status = json_loads(text, 0, &error);
	if (status == NULL)
		fprintf(stderr, "auroractl: the node's answer is no JSON: %s\n", error.text);
	free(text);
	return status;
}
