/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_kept.c: answers that are taken later, and the memory shared with a node
 * into which their pages may go; see aurora_conn.h and aurora_share.h.
 */
#include "postgres.h"

#include <sys/socket.h>
#include <unistd.h>

#include "utils/memutils.h"
#include "utils/resowner.h"

#include "client/aurora_conn_int.h"

/* Bigger buffers of kept answers are given back when none is kept. */
#define SPARE_BUFFER_BYTES (64 * 1024)

Kept		aurora_kept[AURORA_CONN_KEPT_MAX];
int			aurora_nkept = 0;

/* Also without a connection. */
void
aurora_kept_drop_share(void)
{
	Conn	   *c = aurora_conn_now;

	if (c->share_fd >= 0)
		close(c->share_fd);
	c->share_fd = -1;
	aurora_share_leave(c->share);
	c->share = NULL;
	c->share_usable = c->share_tried = false;
}

Kept *
aurora_kept_find(uint64 id)
{
	if (aurora_nkept > 0)
		for (int i = 0; i < lengthof(aurora_kept); i++)
			if (aurora_kept[i].id == id)
				return &aurora_kept[i];
	return NULL;
}

/*
 * The frame at the start of the input answers a request whose answer is kept:
 * the input buffer changes hands, and what follows the frame goes to the
 * buffer that was spare.
 */
void
aurora_kept_take_in(Kept *k, const AuFrame *frame, size_t used)
{
	Conn	   *c = aurora_conn_now;
	size_t		rest = c->in_len - used;
	size_t		cap = Max(rest, AURORA_CONN_FIRST_BUFFER);
	uint8	   *other = k->memory;

	k->memory = NULL;
	if (other != NULL && k->cap < cap)
	{
		pfree(other);
		other = NULL;
	}
	if (other == NULL)
		other = MemoryContextAlloc(TopMemoryContext, cap);
	else
		cap = k->cap;
	memcpy(other, c->in + used, rest);
	k->frame = *frame;
	k->memory = c->in;
	k->cap = c->in_cap;
	k->state = KEPT_HERE;
	c->in = other;
	c->in_cap = cap;
	c->in_len = rest;
}

/* ---- answers that are taken later ---- */

/* Give back the memory of big answers when none is kept any more. */
static void
release_spare(void)
{
	if (aurora_nkept > 0)
		return;
	for (int i = 0; i < lengthof(aurora_kept); i++)
		if (aurora_kept[i].memory != NULL && aurora_kept[i].cap > SPARE_BUFFER_BYTES)
		{
			pfree(aurora_kept[i].memory);
			aurora_kept[i].memory = NULL;
			aurora_kept[i].cap = 0;
		}
	for (int i = 0; i < AURORA_CONNS_MAX; i++)
		if (aurora_conns[i].in_cap > SPARE_BUFFER_BYTES && aurora_conns[i].in_len == 0)
		{
			pfree(aurora_conns[i].in);
			aurora_conns[i].in = NULL;
			aurora_conns[i].in_cap = 0;
			aurora_conns[i].in_done = 0;
		}
}

static void
forget(Kept *k)
{
	/* what is still to come keeps its slot: the node may just be writing */
	if (k->share != NULL && k->state == KEPT_HERE)
		aurora_share_done(k->share, k->id);
	aurora_share_leave(k->share);
	k->share = NULL;
	k->id = 0;
	k->owner = NULL;
	aurora_nkept--;
}

/* What a resource owner asked for ends with it, also in an abort. */
static void
release_owner(ResourceReleasePhase phase, bool isCommit, bool isTopLevel,
			  void *arg)
{
	if (aurora_nkept == 0 || phase != RESOURCE_RELEASE_BEFORE_LOCKS)
		return;
	for (int i = 0; i < lengthof(aurora_kept); i++)
		if (aurora_kept[i].id != 0 && aurora_kept[i].owner == CurrentResourceOwner)
			forget(&aurora_kept[i]);
	release_spare();
}

bool
aurora_conn_keep(uint64 id, int npages, uint32 *place)
{
	static bool registered = false;

	Assert(id != 0 && aurora_kept_find(id) == NULL);
	if (!registered)
		RegisterResourceReleaseCallback(release_owner, NULL);
	registered = true;
	*place = 0;
	for (int i = 0; i < lengthof(aurora_kept); i++)
		if (aurora_kept[i].id == 0)
		{
			aurora_kept[i].id = id;
			aurora_kept[i].conn = aurora_conn_now;
			aurora_kept[i].owner = CurrentResourceOwner;
			aurora_kept[i].state = KEPT_AWAITED;
			aurora_nkept++;
			if (aurora_conn_now->share_usable && npages <= AURORA_SHARE_SLOT_PAGES &&
				(aurora_kept[i].slot = aurora_share_take(aurora_conn_now->share, id)) >= 0)
			{
				aurora_kept[i].share = aurora_conn_now->share;
				aurora_share_use(aurora_conn_now->share);
				*place = aurora_kept[i].slot * AURORA_SHARE_SLOT_PAGES + 1;
			}
			return true;
		}
	return false;
}

bool
aurora_conn_kept(uint64 id)
{
	return id != 0 && aurora_kept_find(id) != NULL;
}

bool
aurora_conn_take(uint64 id, AuFrame *frame, int64 deadline_ms)
{
	Kept	   *k = aurora_kept_find(id);

	if (k == NULL || k->state == KEPT_LOST)
		return false;
	if (k->state == KEPT_AWAITED)
	{
		aurora_conn_now = k->conn;
		if (!aurora_frames_await(id, frame, deadline_ms))
			return false;
	}
	Assert(k->id == id && k->state == KEPT_HERE);
	*frame = k->frame;
	return true;
}

const uint8 *
aurora_conn_placed(uint64 id)
{
	Kept	   *k = aurora_kept_find(id);

	return k == NULL || k->share == NULL ? NULL :
		aurora_share_memory(k->share, k->slot);
}

void
aurora_conn_forget(uint64 id)
{
	Kept	   *k = id != 0 ? aurora_kept_find(id) : NULL;

	if (k != NULL)
		forget(k);
}

/* ---- memory shared with the node ---- */

bool
aurora_conn_share(int64 deadline_ms)
{
	Conn	   *c = aurora_conn_now;
	AuMsgShare	offer;
	AuMsgShareOk ok;
	uint8		memory[64];
	AuWriter	w;
	AuFrame		frame;
	uint64		id = aurora_conn_next_id();

	if (c->share_tried || c->address[0] != '/')
		return true;
	c->share_tried = true;
	/* the connection's end takes care of it if an error is raised in here */
	c->share = aurora_share_new(&c->share_fd);
	if (c->share == NULL)
	{
		c->share_fd = -1;
		return true;
	}
	offer.fd = c->share_fd;
	offer.pages = AURORA_SHARE_SLOTS * AURORA_SHARE_SLOT_PAGES;
	au_writer_start(&w, memory, sizeof(memory));
	if (!au_enc_share(&w, id, &offer))
		elog(ERROR, "SHARE does not fit %zu bytes", sizeof(memory));
	if (!aurora_conn_send(w.data, w.len, deadline_ms) ||
		!aurora_conn_receive(id, &frame, deadline_ms))
		return false;
	close(c->share_fd);
	c->share_fd = -1;
	c->share_usable = au_dec_share_ok(&frame, &ok) && ok.pages == offer.pages;
	if (!c->share_usable)
	{
		aurora_share_leave(c->share);
		c->share = NULL;
	}
	return true;
}

/* Nobody waits for an answer to this, so it must go out at once or not at all:
 * then the connection does it. */
static void
withdraw_share(void)
{
	AuMsgShare	none = {0};
	uint8		memory[64];
	AuWriter	w;

	au_writer_start(&w, memory, sizeof(memory));
	if (!au_enc_share(&w, 0, &none) || aurora_conn_now->halfway ||
		send(aurora_conn_now->fd, w.data, w.len, MSG_NOSIGNAL) != (ssize_t) w.len)
		aurora_conn_close();
	else
		aurora_kept_drop_share();
}

void
aurora_conn_forget_memory(void)
{
	Conn	   *current = aurora_conn_now;

	release_spare();
	if (aurora_nkept > 0)
		return;
	for (int i = 0; i < AURORA_CONNS_MAX; i++)
	{
		aurora_conn_now = &aurora_conns[i];
		if (aurora_conn_now->share != NULL)
			withdraw_share();
		aurora_conn_now->share_tried = false;
	}
	aurora_conn_now = current;
}

/* Answers still to come that nobody waits for. */
int
aurora_kept_abandoned(void)
{
	int			n = aurora_conn_now->unanswered;

	if (n > 0 && aurora_nkept > 0)
		for (int i = 0; i < lengthof(aurora_kept); i++)
			if (aurora_kept[i].id != 0 && aurora_kept[i].conn == aurora_conn_now &&
				aurora_kept[i].state == KEPT_AWAITED)
				n--;
	return n;
}
