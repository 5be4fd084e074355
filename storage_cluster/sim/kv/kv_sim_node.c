/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kv_sim_node.c: the simulator's nodes, their disks, and the network.
 *
 * An operation happens at the moment its time has come, all of a node's writes
 * that wait together; a node that dies before has not done them.
 */
#include "sim/kv/kv_sim.h"

#include <assert.h>
#include <stdlib.h>

#include "common/au_heap.h"

/* ---- the map ---------------------------------------------------------- */

static int
compare(const uint8_t *a, size_t alen, const uint8_t *b, size_t blen)
{
	int			c = memcmp(a, b, alen < blen ? alen : blen);

	return c != 0 ? c : alen < blen ? -1 : alen > blen;
}

/* First entry not below the key. */
static uint32_t
place(const SimNode *n, const uint8_t *key, size_t klen)
{
	uint32_t	lo = 0,
				hi = n->nmap;

	while (lo < hi)
	{
		uint32_t	mid = (lo + hi) / 2;

		if (compare(n->map[mid].key, n->map[mid].klen, key, klen) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool
is_at(const SimNode *n, uint32_t i, const uint8_t *key, size_t klen)
{
	return i < n->nmap && compare(n->map[i].key, n->map[i].klen, key, klen) == 0;
}

static uint8_t *
copy_of(const uint8_t *p, size_t len)
{
	uint8_t    *copy = malloc(len + 1);

	assert(copy != NULL);
	memcpy(copy, p, len);
	return copy;
}

static AuStatus
map_get(void *ctx, const uint8_t *key, size_t klen, uint8_t **value, size_t *len)
{
	SimNode    *n = ctx;
	uint32_t	i = place(n, key, klen);

	if (!is_at(n, i, key, klen))
		return AU_NOT_FOUND;
	*value = copy_of(n->map[i].value, n->map[i].len);
	*len = n->map[i].len;
	return AU_OK;
}

static void
map_del(void *ctx, const uint8_t *key, size_t klen)
{
	SimNode    *n = ctx;
	uint32_t	i = place(n, key, klen);

	if (!is_at(n, i, key, klen))
		return;
	free(n->map[i].key);
	free(n->map[i].value);
	n->nmap--;
	memmove(&n->map[i], &n->map[i + 1], (n->nmap - i) * sizeof(n->map[0]));
}

static void
map_put(void *ctx, const uint8_t *key, size_t klen, const uint8_t *value, size_t len)
{
	SimNode    *n = ctx;
	uint32_t	i = place(n, key, klen);

	if (!is_at(n, i, key, klen))
	{
		if (n->nmap == n->cap)
		{
			n->cap = n->cap == 0 ? 64 : n->cap * 2;
			n->map = realloc(n->map, n->cap * sizeof(n->map[0]));
			assert(n->map != NULL);
		}
		memmove(&n->map[i + 1], &n->map[i], (n->nmap - i) * sizeof(n->map[0]));
		n->nmap++;
		n->map[i].key = copy_of(key, klen);
		n->map[i].klen = klen;
		n->map[i].value = NULL;
	}
	free(n->map[i].value);
	n->map[i].value = copy_of(value, len);
	n->map[i].len = len;
}

/* What fn does to the map must not disturb: it sees a copy of the keys. */
static AuStatus
map_scan(void *ctx, const uint8_t *from, size_t flen,
		 bool (*fn) (void *fnctx, const uint8_t *key, size_t klen, const uint8_t *value, size_t len),
		 void *fnctx)
{
	SimNode    *n = ctx;
	uint8_t		at[AU_KV_KEY_MAX + 8];
	size_t		alen = flen;
	bool		first = true;

	memcpy(at, from, flen);
	for (;;)
	{
		uint32_t	i = place(n, at, alen);
		SimEntry	e;
		bool		more;

		if (!first && is_at(n, i, at, alen))
			i++;
		if (i >= n->nmap)
			return AU_OK;
		e = n->map[i];
		alen = e.klen;
		memcpy(at, e.key, alen);
		e.value = copy_of(e.value, e.len);
		more = fn(fnctx, at, alen, e.value, e.len);
		free(e.value);
		if (!more)
			return AU_OK;
		first = false;
	}
}

const char *
sim_key(uint32_t key)
{
	static const char *const keys[SIM_KEYS] = {"a", "b", "c", "d", "ee", "ff", "gg", "hh"};

	return keys[key];
}

const SimEntry *
sim_record(const SimNode *n, uint32_t key)
{
	const char *k = sim_key(key);
	uint8_t		raw[16];
	uint32_t	i;

	raw[0] = 'r';
	raw[1] = (uint8_t) au_kv_slice(k, strlen(k));
	memcpy(raw + 2, k, strlen(k));
	i = place(n, raw, strlen(k) + 2);
	return is_at(n, i, raw, strlen(k) + 2) ? &n->map[i] : NULL;
}

/* ---- operations ------------------------------------------------------- */

static void
host_submit(void *ctx, AuKvOp *op)
{
	SimNode    *n = ctx;
	Sim		   *s = n->sim;
	bool		write = op->type >= AU_KV_OP_FIRST_WRITE;
	AuKvOp	  **list = write ? &n->writes : &n->reads;
	uint64_t	slow = s->quiet || !sim_one_in(s, 40) ? 2000 : 80000;

	if (*list == NULL)
	{
		if (write)
			n->writes_at = s->now + 500 + sim_below(s, slow * 2);
		else
			n->reads_at = s->now + sim_below(s, slow);
	}
	while (*list != NULL)
		list = &(*list)->next;
	op->next = NULL;
	*list = op;
}

static void
do_ops(Sim *s, SimNode *n, bool write)
{
	AuKvMap		map = {n, au_heap_alloc, au_heap_release, map_get, map_put, map_del, map_scan};
	AuKvOp	   *list = write ? n->writes : n->reads;
	/* the disk says no to a whole batch, which may be on it all the same */
	bool		fails = write && !s->quiet && sim_one_in(s, 150);
	bool		lost = fails && sim_one_in(s, 2);

	s->figures.failed_writes += fails;
	if (write)
		n->writes = NULL;
	else
		n->reads = NULL;
	for (AuKvOp *op = list; op != NULL; op = op->next)
	{
		if (!lost)
			au_kv_exec(write ? &n->exec : NULL, &map, op);
		if (!lost && op->type == AU_KV_OP_UPDATE && op->status == AU_OK)
			sim_wrote(s, &n->exec, op);
		if (fails)
		{
			op->status = AU_IO;
			op->serial_now = n->exec.serial;
		}
	}
	while (list != NULL)
	{
		AuKvOp	   *op = list;

		list = op->next;
		sim_trace(s, 1000 + op->type, (uint64_t) n->index << 32 | op->status);
		au_kv_done(n->kv, op);
	}
}

static void
drop_ops(AuKvOp *op)
{
	while (op != NULL)
	{
		AuKvOp	   *next = op->next;

		free(op->in);
		free(op);
		op = next;
	}
}

/* ---- the network ------------------------------------------------------ */

void
sim_send(Sim *s, int from, int to, bool answer, uint64_t client, uint8_t *bytes, size_t len)
{
	bool		between = from < 100 && to < 100;
	/* a stream gives nothing twice; the nodes' own questions may well be */
	int			copies = between && !s->quiet && au_get_u16(bytes + 6) >= AU_MSG_KV_READ &&
		sim_one_in(s, 200) ? 2 : 1;

	for (int i = 0; i < copies; i++)
	{
		SimMessage *m;

		if (between && (s->nodes[from].cut[to] || (!s->quiet && sim_one_in(s, s->loss))))
			continue;
		m = malloc(sizeof(*m));
		assert(m != NULL);
		m->from = from;
		m->to = to;
		m->answer = answer;
		m->client = client;
		m->life = to < 100 ? s->nodes[to].life : 0;
		m->bytes = copy_of(bytes, len);
		m->len = len;
		m->at = s->now + 200 + sim_below(s, between && !s->quiet && sim_one_in(s, 30) ? 1500000 : 3000);
		m->next = s->messages;
		s->messages = m;
	}
	free(bytes);
}

static void
receive(Sim *s, const SimMessage *m)
{
	AuFrame		f;
	size_t		used;

	if (au_frame_parse(m->bytes, m->len, &f, &used) != AU_OK || used != m->len)
	{
		sim_fail(s, "a frame cannot be read");
		return;
	}
	sim_trace(s, f.type, (uint64_t) m->from << 32 | (uint64_t) m->to);
	if (m->to >= 100)
		sim_client_told(s, (uint32_t) m->to - 100, &f);
	else if (!s->nodes[m->to].up || s->nodes[m->to].life != m->life)
		return;
	else if (m->answer)
		au_kv_told(s->nodes[m->to].kv, s->nodes[m->from].number, &f);
	else
		au_kv_question(s->nodes[m->to].kv, (void *) (uintptr_t) (m->client + 1),
					   m->from >= 100 ? AU_ROLE_READER : AU_ROLE_NODE, &f);
}

void
sim_deliver(Sim *s)
{
	SimMessage **slot = &s->messages;
	SimMessage *due = NULL;

	while (*slot != NULL)
	{
		SimMessage *m = *slot;

		if (m->at > s->now)
			slot = &m->next;
		else
		{
			*slot = m->next;
			m->next = due;
			due = m;
		}
	}
	while (due != NULL)
	{
		SimMessage *next = due->next;

		receive(s, due);
		free(due->bytes);
		free(due);
		due = next;
	}
}

static uint64_t
host_now(void *ctx)
{
	return ((SimNode *) ctx)->sim->now;
}

static void
host_log(void *ctx, AuLogLevel level, const char *message)
{
	SimNode    *n = ctx;

	(void) level;
	if (n->sim->opt.verbose)
		printf("%8.3f node %u: %s\n", (double) n->sim->now / 1e6, n->number, message);
}

static uint8_t *
host_buffer(void *ctx, size_t cap)
{
	return au_heap_alloc(ctx, cap);
}

static bool
host_send(void *ctx, uint32_t number, uint8_t *buffer, size_t len)
{
	SimNode    *n = ctx;

	for (uint32_t i = 0; i < SIM_NODES; i++)
		if (n->sim->nodes[i].number == number && n->linked[i])
		{
			sim_send(n->sim, (int) n->index, (int) i, false, n->index, buffer, len);
			return true;
		}
	free(buffer);
	return false;
}

/* client: 1 + index of a node, or of a client from 100 on */
static void
host_answer(void *ctx, void *client, uint8_t *buffer, size_t len)
{
	SimNode    *n = ctx;
	int			to = (int) (uintptr_t) client - 1;

	sim_send(n->sim, (int) n->index, to, true, 0, buffer, len);
}

void
sim_fill_host(Sim *s)
{
	s->host.now_us = host_now;
	s->host.alloc = au_heap_alloc;
	s->host.release = au_heap_release;
	s->host.log = host_log;
	s->host.submit = host_submit;
	s->host.buffer = host_buffer;
	s->host.send = host_send;
	s->host.answer = host_answer;
}

/* ---- nodes ------------------------------------------------------------ */

void
sim_link(Sim *s, uint32_t a, uint32_t b, bool up)
{
	SimNode    *n = &s->nodes[a];

	if (!n->up || n->linked[b] == up)
		return;
	n->linked[b] = up;
	if (s->nodes[b].number != 0)
		au_kv_peer(n->kv, s->nodes[b].number, up);
}

void
sim_node_start(Sim *s, uint32_t i)
{
	SimNode    *n = &s->nodes[i];
	AuKvMap		map = {n, au_heap_alloc, au_heap_release, map_get, map_put, map_del, map_scan};
	AuKvOptions opt = {.cluster = true,.tick_us = 20000 + sim_below(s, 60000)};
	AuKvHost	host = s->host;
	uint8_t    *state;
	size_t		len;

	host.ctx = n;
	n->sim = s;
	n->index = i;
	n->life++;
	if (au_kv_exec_open(&n->exec, &map, sim_random(s) | 1, &state, &len) != AU_OK)
		abort();
	n->kv = au_kv_new(&host, &opt, &n->exec, state, len);
	free(state);
	n->up = true;
	n->epoch = 0;
	n->view_at = s->now + sim_below(s, 100000);
	memset(n->linked, 0, sizeof(n->linked));
}

void
sim_node_stop(Sim *s, uint32_t i)
{
	SimNode    *n = &s->nodes[i];

	n->up = false;
	n->life++;
	au_kv_free(n->kv);
	n->kv = NULL;
	drop_ops(n->reads);
	drop_ops(n->writes);
	n->reads = n->writes = NULL;
	for (uint32_t k = 0; k < SIM_NODES; k++)
		sim_link(s, k, i, false);
}

static void
look_at_view(Sim *s, SimNode *n)
{
	AuViewCommand c = {.type = AU_VIEW_SLICES_READY,.number = n->number,.epoch = n->epoch};
	AuSliceSet	owned;
	bool		changed;
	char		err[256];

	if (n->epoch < s->view.epoch && s->now >= n->view_at)
	{
		n->epoch = s->view.epoch;
		n->view_at = UINT64_MAX;
		au_kv_set_view(n->kv, &s->view, n->number);
		for (uint32_t k = 0; k < SIM_NODES; k++)
			if (n->linked[k] && s->nodes[k].number != 0)
				au_kv_peer(n->kv, s->nodes[k].number, true);
	}
	else if (n->epoch < s->view.epoch && n->view_at == UINT64_MAX)
		n->view_at = s->now + sim_below(s, sim_one_in(s, 4) ? 400000 : 20000);
	if (n->epoch != s->view.epoch || !sim_one_in(s, 50))
		return;
	au_view_owned(&s->view, n->number, &owned, &c.slices);
	for (uint32_t i = 0; i < AU_SLICES; i++)
		if (au_slices_has(&c.slices, i))
		{
			if (au_view_apply(&s->view, &c, &changed, err, sizeof(err)) != AU_OK)
				sim_fail(s, "the view does not take the slices: %s", err);
			return;
		}
}

void
sim_node_step(Sim *s, uint32_t i)
{
	SimNode    *n = &s->nodes[i];

	if (!n->up || n->gone)
		return;
	if (n->number != 0)
		look_at_view(s, n);
	for (uint32_t k = 0; k < SIM_NODES; k++)
		if (k != i && s->nodes[k].up && !n->linked[k] && !n->cut[k] && !s->nodes[k].cut[i] && sim_one_in(s, 20))
			sim_link(s, i, k, true);
	if (n->writes != NULL && s->now >= n->writes_at)
		do_ops(s, n, true);
	if (n->reads != NULL && s->now >= n->reads_at)
		do_ops(s, n, false);
	(void) au_kv_run(n->kv);
}

void
sim_node_free(Sim *s, uint32_t i)
{
	SimNode    *n = &s->nodes[i];

	if (n->up)
		sim_node_stop(s, i);
	for (uint32_t k = 0; k < n->nmap; k++)
	{
		free(n->map[k].key);
		free(n->map[k].value);
	}
	free(n->map);
}
