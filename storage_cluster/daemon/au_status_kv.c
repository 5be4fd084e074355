/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_status_kv.c: the key-value interface's figures, one table for JSON and for
 * Prometheus.
 */
#include "daemon/au_status_kv.h"

#include <stddef.h>

/* ---- figures ---------------------------------------------------------- */

typedef struct KvFigures
{
	AuKvStats	st;
	uint64_t	keys;
	uint64_t	requests;		/* those of st that are no uint64_t */
	uint64_t	slices_owned;
	uint64_t	slices_complete;
} KvFigures;

typedef struct Figure
{
	const char *name;			/* in JSON; in Prometheus "kv_" is in front */
	size_t		offset;			/* of a uint64_t in KvFigures */
	bool		counter;
	const char *help;
} Figure;

#define F(field) offsetof(KvFigures, field)

static const Figure figures[] = {
	{"keys", F(keys), false, "keys in this node's store, an estimate"},
	{"slices_owned", F(slices_owned), false, "slices of keys that this node owns"},
	{"slices_complete", F(slices_complete), false, "... of which it has fetched everything: it counts for R and W"},
	{"requests", F(requests), false, "requests and background tasks under way"},
	{"gets", F(st.gets), true, "GETs of clients"},
	{"puts", F(st.puts), true, "PUTs and DELs of clients"},
	{"lists", F(st.lists), true, "LISTs of clients"},
	{"failed", F(st.failed), true, "requests answered with an error"},
	{"conflicts", F(st.conflicts), true, "GETs that gave more than one value"},
	{"repairs", F(st.repairs), true, "records given to a replica that was behind or damaged"},
	{"hints", F(st.hints), true, "records given to a node that stands in for an owner"},
	{"delivered", F(st.delivered), true, "records that were owed, or foreign, and have been delivered"},
	{"fetched", F(st.fetched), true, "records fetched with slices"},
	{"collected", F(st.collected), true, "tombstones removed everywhere"},
	{"damaged", F(st.damaged), true, "records found damaged"},
};

#define NFIGURES (sizeof(figures) / sizeof(figures[0]))

static const char *const request_names[AU_KV_REQUESTS] = {"get", "put", "list"};

static bool
get_figures(AuDaemon *d, KvFigures *f)
{
	if (!au_kv_figures(d, &f->st, &f->keys))
		return false;
	f->requests = f->st.tasks;
	f->slices_owned = f->st.slices_owned;
	f->slices_complete = f->st.slices_complete;
	return true;
}

static uint64_t
value_of(const KvFigures *f, const Figure *fig)
{
	uint64_t	v;

	memcpy(&v, (const char *) f + fig->offset, sizeof(v));
	return v;
}

/* ---- what is shown ------------------------------------------------------ */

json_t *
au_kv_json(AuDaemon *d)
{
	KvFigures	f;
	json_t	   *o;
	json_t	   *latency;

	if (au_kv_problem(d)[0] != '\0')
		return json_pack("{s:s}", "problem", au_kv_problem(d));
	if (!get_figures(d, &f))
		return json_null();
	o = json_object();
	for (size_t i = 0; i < NFIGURES; i++)
		json_object_set_new(o, figures[i].name, json_integer((json_int_t) value_of(&f, &figures[i])));
	json_object_set_new(o, "owes", json_boolean(f.st.owes));
	latency = json_object();
	for (int i = 0; i < AU_KV_REQUESTS; i++)
		json_object_set_new(latency, request_names[i], au_latency_json(&f.st.latency[i]));
	json_object_set_new(o, "latency", latency);
	return o;
}

void
au_kv_metrics(AuDaemon *d, AuText *t)
{
	bool		problem = au_kv_problem(d)[0] != '\0';
	KvFigures	f;
	char		text[64];

	if (!problem && !get_figures(d, &f))
		return;
	au_text_value(t, "kv_up", false, "1 if the key-value store is open, 0 if it cannot be opened", !problem);
	if (problem)
		return;
	for (size_t i = 0; i < NFIGURES; i++)
	{
		snprintf(text, sizeof(text), "kv_%s", figures[i].name);
		au_text_value(t, text, figures[i].counter, figures[i].help, value_of(&f, &figures[i]));
	}
	au_text_value(t, "kv_owes", false, "1 if some node is owed records, as far as known", f.st.owes);
	au_text_add(t, "# HELP aurora_storaged_kv_request_seconds how long clients' requests take that are answered without an error\n"
				"# TYPE aurora_storaged_kv_request_seconds histogram\n");
	for (int i = 0; i < AU_KV_REQUESTS; i++)
	{
		snprintf(text, sizeof(text), "request=\"%s\"", request_names[i]);
		au_text_histogram(t, "kv_request", text, &f.st.latency[i]);
	}
}
