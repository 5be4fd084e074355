/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_ask.c: questions to other nodes; see au_ask.h.
 *
 *   connecting ──opened──▶ asked ──answer──▶ done ──link and timer closed──▶ freed
 *        └──────── closed, timeout ───────────┘
 */
#include "daemon/au_ask.h"

#include <stdio.h>
#include <stdlib.h>

struct AuAsk
{
	AuDaemon   *daemon;
	AuAsk	   *prev,
			   *next;
	AuLink	   *link;			/* NULL: closed */
	uv_timer_t	timer;
	bool		timer_open;
	uint64_t	node_id;		/* who has to be there; 0: anybody */
	AuAskDone	done;			/* NULL: was called */
	void	   *ctx;
	size_t		len;
	uint8_t		frame[];
};

static void
forget_if_closed(AuAsk *a)
{
	AuDaemon   *d = a->daemon;

	if (a->link != NULL || a->timer_open)
		return;
	if (a->prev != NULL)
		a->prev->next = a->next;
	else
		d->asks = a->next;
	if (a->next != NULL)
		a->next->prev = a->prev;
	d->nasks--;
	free(a);
	au_wake(d);
}

static void
on_timer_closed(uv_handle_t *handle)
{
	AuAsk	   *a = handle->data;

	a->timer_open = false;
	forget_if_closed(a);
}

static void
finish(AuAsk *a, const AuFrame *answer, const char *why)
{
	AuAskDone	done = a->done;

	if (done == NULL)
		return;
	a->done = NULL;
	done(a->ctx, answer, why);
	uv_close((uv_handle_t *) &a->timer, on_timer_closed);
	if (a->link != NULL)
		au_link_close(a->link);
}

static void
on_timeout(uv_timer_t *timer)
{
	finish(timer->data, NULL, "it did not answer in time");
}

static void *
on_opened(void *ctx, AuLink *link)
{
	AuAsk	   *a = ctx;
	AuMsgHello	hello = {.role = AU_ROLE_NODE};
	size_t		cap = AU_WIRE_HEADER + 128 + a->len;
	uint8_t    *buffer = au_link_buffer(cap);
	AuWriter	w;

	if (buffer == NULL)
	{
		au_link_close(link);
		return a;
	}
	snprintf(hello.name, sizeof(hello.name), "node %llX", (unsigned long long) a->daemon->node_id);
	au_writer_start(&w, buffer, cap);
	(void) au_enc_hello(&w, 1, &hello);
	au_w_bytes(&w, a->frame, a->len);
	au_link_send(link, buffer, w.len);
	return a;
}

/* What comes before the answer: HELLO_OK of whom we mean. */
static void
greeted(AuAsk *a, const AuFrame *f)
{
	AuMsgHelloOk ok;

	if (!au_dec_hello_ok(f, &ok))
		finish(a, NULL, "it does not want to talk to this node");
	else if (a->node_id != 0 && ok.node_id != a->node_id)
		finish(a, NULL, "another node answers at its address");
}

static size_t
on_received(void *ctx, AuLink *link, const uint8_t *bytes, size_t len, size_t *need)
{
	AuAsk	   *a = ctx;
	size_t		used = 0;

	(void) link;
	*need = AU_WIRE_HEADER;
	while (used < len && a->done != NULL)
	{
		AuFrame		f;
		size_t		n;
		AuStatus	status = au_frame_parse(bytes + used, len - used, &f, &n);

		if (status == AU_NEED_MORE)
		{
			*need = n > AU_WIRE_HEADER ? n : AU_WIRE_HEADER;
			return used;
		}
		if (status != AU_OK)
			finish(a, NULL, "what it answered is no message of Aurora's protocol");
		else if (f.id == AU_ASK_ID)
			finish(a, &f, "");
		else
			greeted(a, &f);
		used += n;
	}
	return len;
}

static void
on_sent(void *ctx, AuLink *link, size_t bytes)
{
	(void) ctx;
	(void) link;
	(void) bytes;
}

static void
on_closed(void *ctx, AuLink *link, const char *why)
{
	AuAsk	   *a = ctx;

	(void) link;
	a->link = NULL;
	if (a->done != NULL)
		finish(a, NULL, why[0] != '\0' ? why : "it closed the connection");
	forget_if_closed(a);
}

bool
au_ask(AuDaemon *d, const char *address, uint64_t node_id, uint32_t timeout_ms,
	   const uint8_t *frame, size_t len, AuAskDone done, void *ctx)
{
	static const AuTransportEvents events = {on_opened, on_received, on_sent, on_closed};
	AuAsk	   *a;
	char		err[256];

	if (d->nasks >= AU_ASKS_MAX || (a = calloc(1, sizeof(*a) + len)) == NULL)
		return false;
	a->daemon = d;
	a->node_id = node_id;
	a->done = done;
	a->ctx = ctx;
	a->len = len;
	memcpy(a->frame, frame, len);
	if (!au_transport_tcp.connect(d->loop, address, &events, a, &a->link, err, sizeof(err)))
	{
		au_log(d, AU_LOG_DEBUG, "could not connect to node \"%s\": %s", address, err);
		free(a);
		return false;
	}
	uv_timer_init(d->loop, &a->timer);
	a->timer.data = a;
	a->timer_open = true;
	uv_timer_start(&a->timer, on_timeout, timeout_ms, 0);
	a->next = d->asks;
	if (d->asks != NULL)
		d->asks->prev = a;
	d->asks = a;
	d->nasks++;
	return true;
}

void
au_asks_stop(AuDaemon *d)
{
	AuAsk	   *next;

	for (AuAsk *a = d->asks; a != NULL; a = next)
	{
		next = a->next;
		finish(a, NULL, "this node stops");
	}
}
