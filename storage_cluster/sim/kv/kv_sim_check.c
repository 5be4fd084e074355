/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kv_sim_check.c: the simulator's clients, and what must hold (kv_sim.h).
 */
#include "sim/kv/kv_sim.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#define PATIENCE_US 4000000

/* ---- what was written ------------------------------------------------- */

static uint32_t
key_number(const uint8_t *key, size_t klen)
{
	for (uint32_t i = 0; i < SIM_KEYS; i++)
		if (strlen(sim_key(i)) == klen && memcmp(sim_key(i), key, klen) == 0)
			return i;
	abort();
}

/* A store made a dot. */
void
sim_wrote(Sim *s, const AuKvExec *x, const AuKvOp *op)
{
	SimWrite   *w = &s->writes[s->nwrites];

	if (s->nwrites == SIM_WRITES_MAX)
	{
		sim_fail(s, "too many writes");
		return;
	}
	memset(w, 0, sizeof(*w));
	w->dot.actor = x->actor;
	w->dot.counter = op->counter;
	w->key = key_number(op->key, op->klen);
	w->id = (op->flags & AU_KV_TOMBSTONE) != 0 ? 0 : au_get_u64(op->in);
	w->past = op->past;
	w->at = s->now;
	for (uint32_t i = 0; i < s->nwrites; i++)
		if (s->writes[i].key == w->key && au_kv_vector_get(&w->past, s->writes[i].dot.actor) >= s->writes[i].dot.counter)
			s->writes[i].superseded = true;
	s->nwrites++;
	s->figures.puts++;
}

/* A client was told: W replicas have it (w = 0: with those that stand in). */
static void
acknowledged(Sim *s, SimWrite *y, uint32_t w)
{
	y->acked = s->now;
	y->w = w;
	s->figures.acked++;
	for (uint32_t i = 0; i < s->nwrites; i++)
	{
		SimWrite   *o = &s->writes[i];

		if (o->key != y->key || au_kv_vector_get(&y->past, o->dot.actor) < o->dot.counter)
			continue;
		for (uint32_t k = 0; k <= w; k++)
			if (o->superseded_at[k] == 0)
				o->superseded_at[k] = s->now;
	}
}

static bool
same_vector(const AuKvVector *a, const AuKvVector *b)
{
	return a->n == b->n && memcmp(a->entry, b->entry, a->n * sizeof(a->entry[0])) == 0;
}

static void
told_put(Sim *s, SimClient *c)
{
	for (uint32_t i = 0; i < s->nwrites; i++)
	{
		SimWrite   *w = &s->writes[i];

		if (w->key == c->key && w->acked == 0 && w->at >= c->asked &&
			(c->del ? w->id == 0 && same_vector(&w->past, &c->past) : w->id == c->id))
		{
			acknowledged(s, w, c->sloppy ? 0 : c->w);
			return;
		}
	}
	sim_fail(s, "a write was acknowledged that no store made (key %s, value %" PRIu64 ")",
			 sim_key(c->key), c->del ? 0 : c->id);
}

/* ---- what was read ---------------------------------------------------- */

static SimWrite *
write_of(Sim *s, uint32_t key, uint64_t id)
{
	for (uint32_t i = 0; i < s->nwrites; i++)
		if (s->writes[i].key == key && s->writes[i].id == id)
			return &s->writes[i];
	return NULL;
}

static bool
covers(const SimWrite *a, const SimWrite *b)
{
	return au_kv_vector_get(&a->past, b->dot.actor) >= b->dot.counter;
}

static void
check_values(Sim *s, SimClient *c, SimWrite **got, uint32_t n)
{
	/* so many at least must have acknowledged for the read to know */
	uint32_t	enough = c->final ? 0 : s->replicas + 1 - c->r;

	for (uint32_t i = 0; i < n; i++)
	{
		uint64_t	at = got[i]->superseded_at[enough];

		if (at != 0 && at < c->asked)
			sim_fail(s, "key %s: value %" PRIu64 " was replaced or deleted at %.3f and read at %.3f",
					 sim_key(c->key), got[i]->id, (double) at / 1e6, (double) s->now / 1e6);
		for (uint32_t k = 0; k < n; k++)
			if (k != i && covers(got[i], got[k]))
				sim_fail(s, "key %s: value %" PRIu64 " was written knowing value %" PRIu64 ", both were read",
						 sim_key(c->key), got[i]->id, got[k]->id);
	}
	for (uint32_t i = 0; i < s->nwrites; i++)
	{
		SimWrite   *w = &s->writes[i];
		bool		found = w->superseded;

		if (w->key != c->key || w->id == 0 || w->acked == 0 || w->acked >= c->asked || w->w < enough)
			continue;
		for (uint32_t k = 0; k < n; k++)
			found = found || got[k] == w;
		if (!found)
			sim_fail(s, "key %s: value %" PRIu64 " was acknowledged at %.3f, and not read at %.3f",
					 sim_key(c->key), w->id, (double) w->acked / 1e6, (double) s->now / 1e6);
	}
}

static void
told_get(Sim *s, SimClient *c, const AuMsgKvGetOk *m)
{
	SimWrite   *got[AU_KV_MERGED_MAX];

	s->figures.read++;
	s->figures.conflicts += m->n > 1;
	for (uint32_t i = 0; i < m->n; i++)
	{
		got[i] = m->value[i].len == 8 ? write_of(s, c->key, au_get_u64(m->value[i].bytes)) : NULL;
		if (got[i] == NULL)
		{
			sim_fail(s, "key %s: a value that nobody wrote was read", sim_key(c->key));
			return;
		}
	}
	check_values(s, c, got, m->n);
}

/* ---- clients ---------------------------------------------------------- */

void
sim_client_told(Sim *s, uint32_t i, const AuFrame *f)
{
	SimClient  *c = &s->clients[i];
	AuMsgKvGetOk get;
	AuMsgKvPutOk put;
	AuMsgError	e;
	AuKvText	context = {0, NULL};

	if (!c->busy || f->id != c->request)
		return;
	c->busy = false;
	c->next_at = s->now + sim_below(s, 60000);
	if (f->type == AU_MSG_KV_GET_OK && au_dec_kv_get_ok(f, &get))
	{
		told_get(s, c, &get);
		context = get.context;
	}
	else if (f->type == AU_MSG_KV_PUT_OK && au_dec_kv_put_ok(f, &put))
	{
		told_put(s, c);
		/* of what is there now: what it holds besides was not read */
		return;
	}
	else
	{
		if (f->type == AU_MSG_ERROR && au_dec_error(f, &e) && s->opt.verbose)
			printf("%8.3f client %u: %s\n", (double) s->now / 1e6, i, e.message);
		if (c->final)
			sim_fail(s, "key %s cannot be read when all is quiet: %s", sim_key(c->key), e.message);
		return;
	}
	c->context[c->key].len = context.len;
	if (context.len > 0)
		memcpy(c->context[c->key].bytes, context.bytes, context.len);
}

static void
ask(Sim *s, uint32_t i, uint32_t node)
{
	SimClient  *c = &s->clients[i];
	AuKvText	key = {(uint16_t) strlen(sim_key(c->key)), (const uint8_t *) sim_key(c->key)};
	size_t		cap = AU_KV_CLIENT_FRAME_MAX;
	uint8_t    *memory = malloc(cap);
	uint8_t		value[8];
	AuWriter	w;
	bool		ok;

	au_writer_start(&w, memory, cap);
	if (c->type == AU_MSG_KV_GET)
	{
		AuMsgKvGet	m = {.r = (uint8_t) c->r,.timeout_ms = 2000,.key = key};

		s->figures.gets++;
		ok = au_enc_kv_get(&w, c->request, &m);
	}
	else
	{
		AuMsgKvPut	m = {.w = (uint8_t) c->w,.timeout_ms = 2000,.key = key,.value = value};
		bool		blind = sim_one_in(s, 4);

		au_put_u64(value, c->id);
		m.len = c->del ? 0 : 8;
		m.flags = (c->del ? AU_KV_DELETE : 0) | (c->sloppy ? AU_KV_SLOPPY : 0);
		m.context.len = blind ? 0 : (uint16_t) c->context[c->key].len;
		m.context.bytes = c->context[c->key].bytes;
		(void) au_kv_context_decode(&c->past, key.bytes, key.len, m.context.bytes, m.context.len);
		ok = au_enc_kv_put(&w, c->request, &m);
	}
	assert(ok);
	(void) ok;
	sim_send(s, 100 + (int) i, (int) node, false, 100 + i, memory, w.len);
}

void
sim_client_step(Sim *s, uint32_t i)
{
	static const uint32_t numbers[3][2] = {{2, 2}, {1, 3}, {3, 1}};
	SimClient  *c = &s->clients[i];
	uint32_t	node = (uint32_t) sim_below(s, SIM_NODES);
	const uint32_t *rw = numbers[s->opt.seed % 4 < 2 ? 0 : s->opt.seed % 4 - 1];

	if (c->busy && s->now - c->asked > PATIENCE_US)
	{
		c->busy = false;
		if (c->final)
			sim_fail(s, "key %s: no answer when all is quiet", sim_key(c->key));
	}
	if (c->busy || s->now < c->next_at || !s->nodes[node].up || s->nodes[node].epoch == 0 ||
		s->nodes[node].gone)
		return;
	c->busy = true;
	c->asked = s->now;
	c->request = ++s->next_id;
	c->id = c->request;
	c->r = c->final ? s->replicas : rw[0];
	c->w = rw[1];
	if (!c->final)
	{
		c->key = (uint32_t) sim_below(s, SIM_KEYS);
		c->type = sim_one_in(s, 2) ? AU_MSG_KV_GET : AU_MSG_KV_PUT;
		c->del = sim_one_in(s, 3);
		c->sloppy = s->opt.seed % 3 == 0 && sim_one_in(s, 2);
	}
	ask(s, i, node);
}

/* ---- when all is quiet -------------------------------------------------- */

static bool
owns(const Sim *s, uint32_t slice, uint32_t number)
{
	const AuSlice *sl = &s->view.slices[slice];

	for (uint32_t i = 0; i < sl->nowners; i++)
		if (sl->owner[i] == number)
			return true;
	return false;
}

static void
check_key(Sim *s, uint32_t key)
{
	const char *k = sim_key(key);
	uint32_t	slice = au_kv_slice(k, strlen(k));
	const SimEntry *first = NULL;
	AuKvRecord	r;
	bool		any = false;

	for (uint32_t i = 0; i < SIM_NODES; i++)
	{
		SimNode    *n = &s->nodes[i];
		const SimEntry *e = sim_record(n, key);

		if (n->number == 0 || n->gone)
			continue;
		if (!owns(s, slice, n->number))
		{
			if (e != NULL)
				sim_fail(s, "key %s: node %u has a foreign record still", k, n->number);
			continue;
		}
		if (any && ((e == NULL) != (first == NULL) ||
					(e != NULL && (e->len != first->len || memcmp(e->value, first->value, e->len) != 0))))
			sim_fail(s, "key %s: the owners' records differ (node %u)", k, n->number);
		any = true;
		first = e;
	}
	if (first != NULL && !au_kv_record_decode(&r, k, strlen(k), first->value, first->len))
		sim_fail(s, "key %s: the record is damaged", k);
	else if (first != NULL && au_kv_deleted(&r))
		sim_fail(s, "key %s: its tombstone is still there", k);
}

void
sim_check_end(Sim *s)
{
	for (uint32_t key = 0; key < SIM_KEYS; key++)
		check_key(s, key);
	for (uint32_t i = 0; i < SIM_NODES; i++)
	{
		SimNode    *n = &s->nodes[i];
		AuKvStats	st;

		if (n->number == 0 || n->gone)
			continue;
		au_kv_stats(n->kv, &st);
		if (st.slices_complete != st.slices_owned)
			sim_fail(s, "node %u has %u of its %u slices", n->number, st.slices_complete, st.slices_owned);
		for (uint32_t k = 0; k < n->nmap; k++)
			if (n->map[k].key[0] == 'o')
			{
				sim_fail(s, "node %u owes a record still", n->number);
				break;
			}
	}
}
