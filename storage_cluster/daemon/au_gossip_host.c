/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_gossip_host.c: see au_gossip_host.h.
 */
#include "daemon/au_gossip_host.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

#include "daemon/au_meta.h"

/* ---- what is made of opinions ----------------------------------------- */

/* No more than a hint: the leader of consensus tries the node itself. */
static void
opinion(void *ctx, const AuGossipMember *m, uint8_t was)
{
	AuDaemon   *d = ctx;
	const AuViewNode *n = au_view_node_by_id(au_meta_view(d->meta), m->r.node_id);

	(void) was;
	if (n != NULL && m->r.state != AU_GOSSIP_ALIVE)
		au_meta_suspect(d->meta, n->number);
}

static void
newer_view(void *ctx, uint64_t epoch, const char *address)
{
	au_meta_heard(((AuDaemon *) ctx)->meta, epoch, address);
}

static void
disk(void *ctx, uint64_t *used, uint64_t *limit)
{
	AuDaemon   *d = ctx;

	*used = au_disk_used(d);
	*limit = d->config.disk_limit_mb * 1024 * 1024;
}

bool
au_gossip_host_start(AuDaemon *d, char *err, size_t errlen)
{
	AuNodeGossipHost host = {d, opinion, newer_view, disk};
	AuGossipOptions opt = {0};
	struct timespec now;

	if (d->meta == NULL)
		return true;
	clock_gettime(CLOCK_REALTIME, &now);
	opt.address = au_meta_address(d->meta);
	opt.start = (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
	if (getrandom(&opt.seed, sizeof(opt.seed), 0) != (ssize_t) sizeof(opt.seed) ||
		au_node_gossip_start(d->node, &host, &opt) != AU_OK)
	{
		snprintf(err, errlen, "out of memory, or of random numbers");
		return false;
	}
	if (d->config.join[0] != '\0')
		(void) au_node_gossip_seed(d->node, d->config.join);
	return true;
}

/* ---- figures ---------------------------------------------------------- */

typedef struct Figure
{
	const char *name;
	const char *help;
	size_t		offset;			/* in AuGossipFigures */
} Figure;

#define FIGURE(name, help) {#name, help, offsetof(AuGossipFigures, name)}

static const Figure figures[] = {
	FIGURE(periods, "periods of gossip, in each of which one member is probed"),
	FIGURE(probes_failed, "probes that were answered neither directly nor through others"),
	FIGURE(proxied, "members that were reached through others only"),
	FIGURE(suspicions, "members that came to be suspected"),
	FIGURE(deaths, "members that came to be held for dead"),
	FIGURE(refuted, "suspected or dead members that came back"),
	FIGURE(objections, "times this node had to object that it is alive"),
	FIGURE(stalls, "times this node itself stood still"),
	FIGURE(sent, "messages of gossip sent"),
	FIGURE(strangers, "messages of gossip from another cluster"),
	FIGURE(twins, "messages of another node with this node's id"),
	FIGURE(dropped, "members there was no room for"),
};

static uint64_t
figure_value(const AuGossip *g, const Figure *f)
{
	return *(const uint64_t *) ((const char *) &g->figures + f->offset);
}

static void
set_hex(json_t *o, const char *name, uint64_t id)
{
	char		text[32];

	snprintf(text, sizeof(text), "%016" PRIX64, id);
	json_object_set_new(o, name, json_string(text));
}

static void
set_lsn(json_t *o, const char *name, AuLsn lsn)
{
	char		text[32];

	snprintf(text, sizeof(text), "%X/%X", AU_LSN_ARGS(lsn));
	json_object_set_new(o, name, json_string(text));
}

static json_t *
volumes_json(const AuGossipMarks *m)
{
	json_t	   *list = json_array();

	for (int i = 0; i < m->nvolumes; i++)
	{
		json_t	   *o = json_object();
		char		text[32];

		snprintf(text, sizeof(text), "%" PRIu64, m->volumes[i].system_identifier);
		json_object_set_new(o, "system_identifier", json_string(text));
		set_lsn(o, "received_lsn", m->volumes[i].received);
		set_lsn(o, "durable_lsn", m->volumes[i].durable);
		set_lsn(o, "applied_lsn", m->volumes[i].applied);
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *
member_json(const AuDaemon *d, const AuGossipMember *m, uint64_t now)
{
	const AuViewNode *n = au_view_node_by_id(au_meta_view(d->meta), m->r.node_id);
	json_t	   *o = json_object();

	set_hex(o, "node_id", m->r.node_id);
	json_object_set_new(o, "number", json_integer(n != NULL ? n->number : 0));
	json_object_set_new(o, "address", json_string(m->r.address));
	json_object_set_new(o, "state", json_string(au_gossip_state_name(m->r.state)));
	json_object_set_new(o, "state_s", json_real((double) (now - m->since_us) / 1e6));
	json_object_set_new(o, "incarnation", json_integer((json_int_t) m->r.incarnation));
	json_object_set_new(o, "suspicions", json_integer(m->suspicions));
	if (m->heard_us != 0)
		json_object_set_new(o, "heard_s", json_real((double) (now - m->heard_us) / 1e6));
	if (m->marks.heartbeat != 0)
	{
		json_object_set_new(o, "marks_s", json_real((double) (now - m->marks_us) / 1e6));
		json_object_set_new(o, "view_epoch", json_integer((json_int_t) m->marks.view_epoch));
		json_object_set_new(o, "reads", json_integer(m->marks.reads));
		json_object_set_new(o, "disk_used_bytes", json_integer((json_int_t) m->marks.disk_used));
		json_object_set_new(o, "disk_limit_bytes", json_integer((json_int_t) m->marks.disk_limit));
		json_object_set_new(o, "volumes", volumes_json(&m->marks));
	}
	return o;
}

json_t *
au_gossip_json(const AuDaemon *d)
{
	const AuGossip *g = au_node_gossip(d->node);
	const AuHist *h = &g->figures.round_trip;
	uint64_t	now = uv_hrtime() / 1000;
	json_t	   *o = json_object();
	json_t	   *members = json_array();

	json_object_set_new(o, "address", json_string(g->self.address));
	json_object_set_new(o, "incarnation", json_integer((json_int_t) g->self.incarnation));
	json_object_set_new(o, "suspicion_s", json_real((double) au_gossip_suspicion_us(g) / 1e6));
	for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++)
		json_object_set_new(o, figures[i].name, json_integer((json_int_t) figure_value(g, &figures[i])));
	json_object_set_new(o, "round_trip_p50_us", json_integer((json_int_t) au_hist_quantile_us(h, 500)));
	json_object_set_new(o, "round_trip_p99_us", json_integer((json_int_t) au_hist_quantile_us(h, 990)));
	json_object_set_new(o, "round_trip_max_us", json_integer((json_int_t) h->max_us));
	for (uint32_t i = 0; i < g->nmembers; i++)
		json_array_append_new(members, member_json(d, &g->members[i], now));
	json_object_set_new(o, "members", members);
	return o;
}

void
au_gossip_metrics(const AuDaemon *d, AuText *t)
{
	const AuGossip *g = au_node_gossip(d->node);
	char		name[64];

	if (g == NULL)
		return;
	au_text_metric(t, "gossip_members", false, "other nodes that gossip knows, by what it holds them for");
	for (uint8_t state = AU_GOSSIP_ALIVE; state <= AU_GOSSIP_DEAD; state++)
	{
		uint32_t	count = 0;

		for (uint32_t i = 0; i < g->nmembers; i++)
			count += g->members[i].r.state == state;
		au_text_add(t, "aurora_storaged_gossip_members{state=\"%s\"} %u\n", au_gossip_state_name(state), count);
	}
	for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++)
	{
		snprintf(name, sizeof(name), "gossip_%s", figures[i].name);
		au_text_value(t, name, true, figures[i].help, figure_value(g, &figures[i]));
	}
	au_text_add(t, "# HELP aurora_storaged_gossip_round_trip_seconds how long direct probes took that were answered\n"
				"# TYPE aurora_storaged_gossip_round_trip_seconds histogram\n");
	au_text_histogram(t, "gossip_round_trip", "", &g->figures.round_trip);
}
