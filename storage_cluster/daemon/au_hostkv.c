/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_hostkv.c: the key-value interface in the daemon: its store, the threads
 * that work on it, and what the node itself keeps in it.
 *
 * Operations wait in two queues, for those that read and those that write; a
 * worker thread takes all that wait (AU_KVSTORE_BATCH of those that write), so
 * one sync serves many.  One worker of each kind at most.
 *
 * DIR/kv is made when somebody uses the interface, or the node is in a cluster.
 * If it cannot be opened the node does without: log and pages are served, each
 * key-value request gets the error, and it is tried again every REOPEN_MS.
 *
 * Manifest: in a cluster each node keeps "aurora/node/NUMBER": its version,
 * addresses, options, and volumes with positions, as JSON; written anew every
 * MANIFEST_MS.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "daemon/au_daemon.h"
#include "daemon/au_files.h"

#include "core/au_node_kv.h"
#include "store/au_kvstore.h"

#define MANIFEST_MS 60000
#define MANIFEST_FIRST_MS 2000
#define REOPEN_MS 10000
#define ASK_GET 1				/* ids of our own questions */
#define ASK_PUT 2

typedef struct AuHostKv
{
	AuDaemon   *daemon;
	AuKvStore  *store;			/* NULL: not opened */
	char		problem[600];	/* why it could not be; "": it was not tried */
	uint64_t	opened_ms;		/* when it was tried */
	uv_work_t	work[2];		/* reading, writing */
	bool		busy[2];
	AuKvOp	   *waiting[2];		/* oldest first */
	AuKvOp	   *running[2];
	AuKvOp	   *refused;		/* for want of room on the disk */
	char		err[512];
	bool		ok;
	uv_timer_t	timer;			/* manifest */
} AuHostKv;

/* ---- operations ------------------------------------------------------- */

static void start_work(AuHostKv *h, int kind);

static void
append(AuKvOp **list, AuKvOp *op)
{
	while (*list != NULL)
		list = &(*list)->next;
	op->next = NULL;
	*list = op;
}

static void
read_work(uv_work_t *work)
{
	AuHostKv   *h = work->data;

	au_kvstore_read(h->store, h->running[0]);
}

static void
write_work(uv_work_t *work)
{
	AuHostKv   *h = work->data;

	h->ok = h->running[1] == NULL || au_kvstore_write(h->store, h->running[1], h->err, sizeof(h->err));
}

static void
give_back(AuHostKv *h, AuKvOp *list)
{
	while (list != NULL)
	{
		AuKvOp	   *op = list;

		list = op->next;
		au_node_kv_done(h->daemon->node, op);
	}
}

static void
work_done(uv_work_t *work, int cancelled)
{
	AuHostKv   *h = work->data;
	int			kind = work == &h->work[1];
	AuKvOp	   *done = h->running[kind];
	AuKvOp	   *refused = kind == 1 ? h->refused : NULL;

	(void) cancelled;
	h->daemon->work--;
	h->busy[kind] = false;
	h->running[kind] = NULL;
	if (kind == 1)
	{
		h->refused = NULL;
		if (!h->ok)
			au_log(h->daemon, AU_LOG_ERROR, "%s", h->err);
	}
	give_back(h, done);
	give_back(h, refused);
	start_work(h, kind);
	au_wake(h->daemon);
}

/* What makes the store grow needs room on the disk. */
static bool
has_room(AuDaemon *d, const AuKvOp *op)
{
	char		err[512];

	if (op->type != AU_KV_OP_UPDATE && op->type != AU_KV_OP_MERGE)
		return true;
	return au_disk_room(d, op->in_len, err, sizeof(err)) &&
		au_disk_free(d->config.dir) > d->config.disk_reserve_mb * 1024 * 1024;
}

static void
start_work(AuHostKv *h, int kind)
{
	uint32_t	n = 0;

	if (h->busy[kind] || h->waiting[kind] == NULL)
		return;
	while (h->waiting[kind] != NULL && (kind == 0 || n < AU_KVSTORE_BATCH))
	{
		AuKvOp	   *op = h->waiting[kind];

		h->waiting[kind] = op->next;
		n++;
		if (kind == 0 || has_room(h->daemon, op))
			append(&h->running[kind], op);
		else
		{
			op->status = AU_FULL;
			append(&h->refused, op);
		}
	}
	h->busy[kind] = true;
	h->daemon->work++;
	h->work[kind].data = h;
	uv_queue_work(h->daemon->loop, &h->work[kind], kind == 0 ? read_work : write_work, work_done);
}

static void
host_submit(void *ctx, AuKvOp *op)
{
	AuHostKv   *h = ctx;
	int			kind = op->type >= AU_KV_OP_FIRST_WRITE;

	append(&h->waiting[kind], op);
	start_work(h, kind);
}

/* ---- the node's manifest ------------------------------------------------ */

static json_t *
volumes_json(AuDaemon *d)
{
	json_t	   *volumes = json_array();
	AuVolumeStats v;
	void	   *handle;

	for (uint32_t i = 0; au_node_volume_stats(d->node, i, &v, &handle); i++)
	{
		json_t	   *o = json_object();
		char		text[32];

		snprintf(text, sizeof(text), "%" PRIu64, v.meta.system_identifier);
		json_object_set_new(o, "system_identifier", json_string(text));
		snprintf(text, sizeof(text), "%X/%X", AU_LSN_ARGS(v.durable));
		json_object_set_new(o, "durable_lsn", json_string(text));
		snprintf(text, sizeof(text), "%X/%X", AU_LSN_ARGS(v.applied));
		json_object_set_new(o, "applied_lsn", json_string(text));
		json_object_set_new(o, "timeline", json_integer(v.meta.timeline));
		json_array_append_new(volumes, o);
	}
	return volumes;
}

static char *
manifest(AuDaemon *d, const AuViewNode *self)
{
	json_t	   *o = json_object();
	char		text[32];
	char	   *out;

	snprintf(text, sizeof(text), "%016" PRIX64, self->node_id);
	json_object_set_new(o, "number", json_integer(self->number));
	json_object_set_new(o, "node_id", json_string(text));
	json_object_set_new(o, "version", json_string(AU_VERSION));
	json_object_set_new(o, "address", json_string(self->address));
	json_object_set_new(o, "zone", json_string(self->zone));
	json_object_set_new(o, "memory_mb", json_integer((json_int_t) d->config.memory_mb));
	json_object_set_new(o, "retention_mb", json_integer((json_int_t) d->config.retention_mb));
	json_object_set_new(o, "retention_seconds", json_integer((json_int_t) d->config.retention_seconds));
	json_object_set_new(o, "volumes", volumes_json(d));
	out = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	return out;
}

static const AuViewNode *
self_of(AuDaemon *d)
{
	const AuView *v = au_node_view(d->node);

	return v != NULL ? au_view_node_by_id(v, d->node_id) : NULL;
}

static AuKvText
manifest_key(char *text, size_t cap, const AuViewNode *self)
{
	int			n = snprintf(text, cap, AU_KV_RESERVED "node/%u", self->number);

	return (AuKvText) {(uint16_t) n, (const uint8_t *) text};
}

/* Read first: a write without the context would be a sibling of the last. */
static void
on_manifest(uv_timer_t *timer)
{
	AuHostKv   *h = timer->data;
	const AuViewNode *self = self_of(h->daemon);
	AuMsgKvGet	m = {0};
	uint8_t		frame[256];
	char		key[64];
	AuWriter	w;

	if (self == NULL || h->store == NULL || h->daemon->stopping)
		return;
	m.key = manifest_key(key, sizeof(key), self);
	au_writer_start(&w, frame, sizeof(frame));
	if (au_enc_kv_get(&w, ASK_GET, &m))
		au_node_kv_ask(h->daemon->node, frame, w.len);
	au_wake(h->daemon);
}

static void
put_manifest(AuHostKv *h, const AuMsgKvGetOk *got)
{
	const AuViewNode *self = self_of(h->daemon);
	char	   *text = self != NULL ? manifest(h->daemon, self) : NULL;
	AuMsgKvPut	m = {.flags = AU_KV_INTERNAL,.context = got->context};
	size_t		cap = AU_KV_CLIENT_FRAME_MAX;
	uint8_t    *frame = malloc(cap);
	char		key[64];
	AuWriter	w;

	if (text != NULL && frame != NULL && strlen(text) <= AU_KV_VALUE_MAX)
	{
		m.key = manifest_key(key, sizeof(key), self);
		m.value = (const uint8_t *) text;
		m.len = (uint32_t) strlen(text);
		au_writer_start(&w, frame, cap);
		if (au_enc_kv_put(&w, ASK_PUT, &m))
			au_node_kv_ask(h->daemon->node, frame, w.len);
	}
	free(frame);
	free(text);
}

static void
host_told(void *ctx, const AuFrame *f)
{
	AuHostKv   *h = ctx;
	AuMsgKvGetOk got;
	AuMsgError	e;

	if (f->type == AU_MSG_KV_GET_OK && f->id == ASK_GET && au_dec_kv_get_ok(f, &got))
		put_manifest(h, &got);
	else if (f->type == AU_MSG_ERROR && au_dec_error(f, &e))
		au_log(h->daemon, AU_LOG_INFO, "could not keep this node's manifest: %s", e.message);
}

/* ---- life ------------------------------------------------------------- */

static bool
open_store(AuHostKv *h, char *err, size_t errlen)
{
	AuDaemon   *d = h->daemon;
	AuKvOptions opt = {.cluster = d->config.cluster_init || d->config.join[0] != '\0' || d->meta != NULL};
	char		dir[4400];
	uint64_t	fresh = 0;
	AuKvExec	x;
	uint8_t    *state = NULL;
	size_t		len;
	AuStatus	status;

	snprintf(dir, sizeof(dir), "%.4200s/kv", d->config.dir);
	if (!au_make_dir(dir, err, errlen) || (h->store = au_kvstore_open(dir, d->memory, err, errlen)) == NULL)
		return false;
	if (getrandom(&fresh, sizeof(fresh), 0) != sizeof(fresh) || fresh == 0)
		fresh = d->node_id ^ uv_hrtime();
	status = au_kvstore_begin(h->store, fresh, &x, &state, &len, err, errlen);
	if (status == AU_OK)
		status = au_node_kv_start(d->node, &opt, &x, state, len);
	free(state);
	if (status == AU_OK)
		return true;
	if (status == AU_NOMEM)
		snprintf(err, errlen, "could not use the key-value store: out of memory");
	au_kvstore_close(h->store);
	h->store = NULL;
	return false;
}

static bool
host_open(void *ctx, char *err, size_t errlen)
{
	AuHostKv   *h = ctx;
	uint64_t	now = uv_hrtime() / 1000000;

	if (h->problem[0] == '\0' || now - h->opened_ms >= REOPEN_MS)
	{
		h->opened_ms = now;
		h->problem[0] = '\0';
		if (open_store(h, h->problem, sizeof(h->problem)))
			return true;
		au_log(h->daemon, AU_LOG_ERROR, "%s; this node does without it (docs/keyvalue.md, \"A damaged store\")",
			   h->problem);
	}
	snprintf(err, errlen, "%s", h->problem);
	return false;
}

bool
au_kv_prepare(AuDaemon *d, char *err, size_t errlen)
{
	AuHostKv   *h = calloc(1, sizeof(*h));
	AuNodeKvHost host = {.ctx = h,.submit = host_submit,.open = host_open,.told = host_told};
	char		dir[4400];
	struct stat st;

	d->kv = h;
	if (h == NULL || au_node_kv_host(d->node, &host) != AU_OK)
	{
		snprintf(err, errlen, "out of memory");
		return false;
	}
	h->daemon = d;
	uv_timer_init(d->loop, &h->timer);
	h->timer.data = h;
	uv_timer_start(&h->timer, on_manifest, MANIFEST_FIRST_MS, MANIFEST_MS);
	snprintf(dir, sizeof(dir), "%.4200s/kv", d->config.dir);
	if (stat(dir, &st) == 0)
		(void) host_open(h, err, errlen);
	return true;
}

void
au_kv_end(AuDaemon *d)
{
	AuHostKv   *h = d->kv;

	if (h == NULL)
		return;
	if (h->store != NULL)
		au_kvstore_close(h->store);
	h->store = NULL;
}

uint64_t
au_kv_disk_bytes(AuDaemon *d)
{
	AuHostKv   *h = d->kv;

	return h != NULL && h->store != NULL ? au_kvstore_disk_bytes(h->store) : 0;
}

const char *
au_kv_problem(AuDaemon *d)
{
	AuHostKv   *h = d->kv;

	return h != NULL ? h->problem : "";
}

bool
au_kv_figures(AuDaemon *d, AuKvStats *stats, uint64_t *keys)
{
	AuHostKv   *h = d->kv;

	if (h == NULL || h->store == NULL || au_node_kv(d->node) == NULL)
		return false;
	au_kv_stats(au_node_kv(d->node), stats);
	*keys = au_kvstore_keys(h->store);
	return true;
}
