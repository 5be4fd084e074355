/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_status.c: the node's figures as JSON (GET /status, STATUS) and in
 * Prometheus' text format (GET /metrics).  One table names the counters of a
 * volume for both.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/au_daemon.h"
#include "daemon/au_files.h"
#include "daemon/au_gossip_host.h"
#include "daemon/au_meta.h"
#include "daemon/au_status_kv.h"
#include "daemon/au_text.h"

typedef struct VolumeFigures
{
	AuVolumeStats v;
	AuPageStoreStats s;
	AuPageStoreFiles files;
	const AuHist *latency;		/* the node's stages */
	AuHist		materialise;
	AuHist		compaction;
	uint64_t	log_bytes;
	uint64_t	log_free;
	const char *log_kind;
	const char *log_dir;
	const char *damage;			/* the first found, "" for none */
} VolumeFigures;

typedef struct Figure
{
	const char *name;			/* JSON; the metric is aurora_storaged_<name> */
	size_t		offset;
	bool		counter;		/* else a gauge */
	const char *help;
} Figure;

#define V(field) offsetof(VolumeFigures, v) + offsetof(AuVolumeStats, field)
#define S(field) offsetof(VolumeFigures, s) + offsetof(AuPageStoreStats, field)
#define F(field) offsetof(VolumeFigures, files) + offsetof(AuPageStoreFiles, field)

static const Figure figures[] = {
	{"landing_bytes", offsetof(VolumeFigures, log_bytes), false, "bytes of the landing log on disk"},
	{"landing_free_bytes", offsetof(VolumeFigures, log_free), false, "free bytes where the landing log is"},
	{"store_bytes", S(disk_bytes), false, "bytes of page versions in files"},
	{"store_memory_bytes", S(memory_bytes), false, "bytes of RocksDB's memtables and table readers"},
	{"pending_bytes", S(pending_bytes), false, "bytes of gathered changes in memory"},
	{"relations", S(relations), false, "relations known, dropped ones within the retention included"},
	{"waiting_reads", V(waiting), false, "reads waiting for log to be applied"},
	{"running_reads", V(reading), false, "reads of pages under way"},
	{"slices", V(slices), false, "slices kept, of 256"},
	{"slices_incoming", V(slices_incoming), false, "slices on their way to this node"},
	{"slices_missing", V(slices_missing), false, "slices that are to come after these"},
	{"slices_dropping", V(slices_dropping), false, "slices of other nodes that are being deleted"},
	{"drops_waiting", S(gc_waiting), false, "drops and truncations whose space is not given back yet"},
	{"holds", V(holds), false, "connections that hold an old LSN"},
	{"holds_broken", V(holds_broken), true, "holds broken because they kept too much log"},
	{"appends", V(appends), true, "appends of log"},
	{"peer_bytes", V(peer_bytes), true, "bytes of log taken from other nodes"},
	{"moved_bytes", V(moved_bytes), true, "bytes of page versions taken from other nodes since the store was opened"},
	{"exported_bytes", V(exported_bytes), true, "bytes of page versions given to other nodes"},
	{"moved_answers", V(moved_answers), true, "reads of slices that are not on this node"},
	{"append_bytes", V(append_bytes), true, "bytes of log stored"},
	{"syncs", V(syncs), true, "syncs of the landing log"},
	{"sync_us", V(sync_us), true, "microseconds spent in syncs"},
	{"sync_us_max", V(sync_us_max), false, "longest sync in microseconds"},
	{"records", V(records), true, "WAL records looked at"},
	{"page_records", S(records), true, "WAL records that changed pages or sizes"},
	{"patches", S(patches), true, "page changes taken"},
	{"patch_bytes", S(patch_bytes), true, "bytes of page changes"},
	{"reads", V(reads), true, "read requests answered"},
	{"pages_read", V(pages), true, "pages asked for"},
	{"read_us", V(read_us), true, "microseconds spent reading"},
	{"read_waits", V(waits), true, "reads that had to wait for log to be applied"},
	{"read_wait_us", V(wait_us), true, "microseconds they waited"},
	{"reads_expired", V(expired), true, "reads that waited in vain"},
	{"items_applied", S(items_applied), true, "page changes applied for reads and images"},
	{"bundles_read", S(bundles_read), true, "bundles read from RocksDB"},
	{"images", S(images), true, "pages materialised"},
	{"corrupt", S(corrupt), true, "damaged versions found, none of them served"},
	{"store_writes", V(store_writes), true, "generations of changes written"},
	{"store_reopens", V(store_reopens), true, "times the page store was reopened after trouble"},
	{"reclaimed_relations", S(gc_relations), true, "dropped relations removed"},
	{"expired_versions", S(gc_versions), true, "page versions below the horizon left out by compactions"},
	{"scrub_passes", S(scrub_passes), true, "times the scrubber looked at every stored version"},
	{"scrub_versions", S(scrub_versions), true, "versions the scrubber looked at"},
	{"scrub_percent", S(scrub_percent), false, "how far the scrubber's walk is"},
	{"scrub_damaged", S(scrub_damaged), false, "damaged places that the scrubber found and that are still there"},
	{"scrub_cuts", S(scrub_cuts), true, "long chains of changes the scrubber found and had cut"},
	{"scrub_compactions", S(scrub_compactions), true, "ranges compacted because of what lay about in them"},
	{"repair_damages", V(mend_damages), true, "times damage was found that other nodes can repair"},
	{"repairs", V(mends), true, "page stores made anew from other nodes"},
	{"repair_bytes", V(mend_bytes), false, "bytes taken from other nodes for the repair under way"},
	{"sync_slices", V(sync_slices), true, "slices compared with another node's"},
	{"sync_passes", V(sync_passes), true, "times all slices were compared"},
	{"sync_skipped", V(sync_skipped), true, "slices that could not be compared, and were passed over"},
	{"sync_pages", V(sync_pages), true, "pages read for comparing, for other nodes, too"},
	{"sync_differences", V(sync_differences), true, "pages found not to be the same on another node"},
	{"sync_unresolved", V(sync_unresolved), true, "... of which no majority said what is right"},
	{"reclaimed_versions", S(gc_keys), true, "versions of truncated blocks removed"},
	{"cache_hits", F(cache_hits), true, "blocks of files found in the block cache"},
	{"cache_misses", F(cache_misses), true, "blocks of files that had to be read"},
	{"compaction_read_bytes", F(compaction_read_bytes), true, "bytes that compactions read"},
	{"compaction_write_bytes", F(compaction_write_bytes), true, "bytes that compactions wrote"},
	{"flush_bytes", F(flush_bytes), true, "bytes of memtables written to files"},
	{"stall_us", F(stall_us), true, "microseconds that writes waited for flushes and compactions"},
};

#define NFIGURES (sizeof(figures) / sizeof(figures[0]))

static bool
get_figures(AuDaemon *d, uint32_t index, VolumeFigures *f)
{
	void	   *handle;
	AuHostVolume *v;

	memset(f, 0, sizeof(*f));
	if (!au_node_volume_stats(d->node, index, &f->v, &handle))
		return false;
	v = handle;
	f->latency = au_node_volume_latency(d->node, index);
	f->log_bytes = au_landing_bytes(v->landing);
	f->log_free = au_disk_free(v->log_dir);
	f->log_kind = au_landing_kind(v->landing);
	f->log_dir = v->log_dir;
	f->damage = "";
	if (v->store != NULL)
	{
		au_pagestore_stats(v->store, &f->s);
		f->damage = au_pagestore_scrub_problem(v->store);
		au_pagestore_files(v->store, &f->files);
		au_pagestore_latency(v->store, &f->materialise, &f->compaction);
	}
	return true;
}

static uint64_t
figure_value(const VolumeFigures *f, const Figure *fig)
{
	uint64_t	v;

	memcpy(&v, (const char *) f + fig->offset, sizeof(v));
	return v;
}

static uint64_t
resident_bytes(void)
{
	FILE	   *f = fopen("/proc/self/statm", "r");
	unsigned long long total = 0,
				resident = 0;

	if (f == NULL)
		return 0;
	if (fscanf(f, "%llu %llu", &total, &resident) != 2)
		resident = 0;
	fclose(f);
	return resident * (uint64_t) sysconf(_SC_PAGESIZE);
}

/* ---- stages ----------------------------------------------------------- */

/* The node's, then the page store's. */
#define STAGES (AU_STAGE_COUNT + 2)

static const char *const stage_names[STAGES] = {
#define STAGE_NAME(id, name, help) name,
	AU_STAGES(STAGE_NAME)
#undef STAGE_NAME
	"materialise", "compaction"
};

static const AuHist *
stage_latency(const VolumeFigures *f, int stage)
{
	if (stage < AU_STAGE_COUNT)
		return &f->latency[stage];
	return stage == AU_STAGE_COUNT ? &f->materialise : &f->compaction;
}

/* ---- JSON ------------------------------------------------------------- */

static void
set_lsn(json_t *o, const char *key, AuLsn lsn)
{
	char		text[32];

	snprintf(text, sizeof(text), "%X/%X", AU_LSN_ARGS(lsn));
	json_object_set_new(o, key, json_string(text));
}

json_t *
au_latency_json(const AuHist *h)
{
	json_t	   *o = json_object();

	json_object_set_new(o, "count", json_integer((json_int_t) h->count));
	json_object_set_new(o, "sum_us", json_integer((json_int_t) h->sum_us));
	json_object_set_new(o, "p50_us", json_integer((json_int_t) au_hist_quantile_us(h, 500)));
	json_object_set_new(o, "p90_us", json_integer((json_int_t) au_hist_quantile_us(h, 900)));
	json_object_set_new(o, "p99_us", json_integer((json_int_t) au_hist_quantile_us(h, 990)));
	json_object_set_new(o, "max_us", json_integer((json_int_t) h->max_us));
	return o;
}

static json_t *
latencies_json(const VolumeFigures *f)
{
	json_t	   *o = json_object();

	for (int i = 0; i < STAGES; i++)
		json_object_set_new(o, stage_names[i], au_latency_json(stage_latency(f, i)));
	return o;
}

static json_t *
volume_json(const VolumeFigures *f)
{
	json_t	   *o = json_object();
	char		text[32];

	snprintf(text, sizeof(text), "%" PRIu64, f->v.meta.system_identifier);
	json_object_set_new(o, "system_identifier", json_string(text));
	json_object_set_new(o, "state", json_string(f->v.state));
	if (f->v.problem[0] != '\0')
		json_object_set_new(o, "problem", json_string(f->v.problem));
	json_object_set_new(o, "timeline", json_integer(f->v.meta.timeline));
	json_object_set_new(o, "term", json_integer((json_int_t) f->v.meta.term));
	json_object_set_new(o, "writer", json_string(f->v.writer));
	set_lsn(o, "start_lsn", f->v.meta.start_lsn);
	set_lsn(o, "received_lsn", f->v.received);
	set_lsn(o, "durable_lsn", f->v.durable);
	set_lsn(o, "commit_lsn", f->v.commit);
	set_lsn(o, "applied_lsn", f->v.applied);
	set_lsn(o, "persisted_lsn", f->v.persisted);
	set_lsn(o, "horizon_lsn", f->v.horizon);
	if (f->v.hold != 0)
		set_lsn(o, "hold_lsn", f->v.hold);
	json_object_set_new(o, "landing_kind", json_string(f->log_kind));
	json_object_set_new(o, "landing_directory", json_string(f->log_dir));
	if (f->damage[0] != '\0')
		json_object_set_new(o, "damage", json_string(f->damage));
	if (f->v.mend_why[0] != '\0')
		json_object_set_new(o, "repairing", json_string(f->v.mend_why));
	if (f->v.mend_waits[0] != '\0')
		json_object_set_new(o, "repair_waits", json_string(f->v.mend_waits));
	for (size_t i = 0; i < NFIGURES; i++)
		json_object_set_new(o, figures[i].name,
							json_integer((json_int_t) figure_value(f, &figures[i])));
	json_object_set_new(o, "latency", latencies_json(f));
	return o;
}

char *
au_status_json(AuDaemon *d, bool *healthy)
{
	json_t	   *root = json_object();
	json_t	   *volumes = json_array();
	AuNodeStats n;
	VolumeFigures f;
	const char *state = "ok";
	uint64_t	cache,
				pending,
				memtables;
	char		text[32];
	char	   *out;

	au_node_stats(d->node, &n);
	for (uint32_t i = 0; get_figures(d, i, &f); i++)
	{
		if (strcmp(f.v.state, "ok") != 0)
			state = f.v.state;
		json_array_append_new(volumes, volume_json(&f));
	}
	*healthy = strcmp(state, "ok") == 0;
	snprintf(text, sizeof(text), "%016" PRIX64, n.node_id);
	json_object_set_new(root, "node_id", json_string(text));
	json_object_set_new(root, "version", json_string(AU_VERSION));
	json_object_set_new(root, "protocol", json_integer(AU_WIRE_VERSION));
	json_object_set_new(root, "state", json_string(state));
	json_object_set_new(root, "pid", json_integer(getpid()));
	json_object_set_new(root, "directory", json_string(d->config.dir));
	json_object_set_new(root, "uptime_s",
						json_integer((json_int_t) ((uv_hrtime() / 1000000 - d->started_ms) / 1000)));
	json_object_set_new(root, "connections", json_integer(n.connections));
	json_object_set_new(root, "connections_total", json_integer((json_int_t) n.connections_total));
	json_object_set_new(root, "connections_refused", json_integer((json_int_t) d->sessions_refused));
	json_object_set_new(root, "frames", json_integer((json_int_t) n.frames));
	json_object_set_new(root, "errors", json_integer((json_int_t) n.errors));
	json_object_set_new(root, "unsent_bytes", json_integer((json_int_t) n.out_bytes));
	json_object_set_new(root, "reads_on_loop", json_integer((json_int_t) au_readers_inline(d->readers)));
	json_object_set_new(root, "shared_bytes", json_integer((json_int_t) n.shared_bytes));
	json_object_set_new(root, "resident_bytes", json_integer((json_int_t) resident_bytes()));
	json_object_set_new(root, "memory_limit_bytes",
						json_integer((json_int_t) (d->config.memory_mb * 1024 * 1024)));
	au_store_memory_usage(d->memory, &cache, &pending, &memtables);
	json_object_set_new(root, "cache_bytes", json_integer((json_int_t) cache));
	json_object_set_new(root, "pending_bytes", json_integer((json_int_t) pending));
	json_object_set_new(root, "memtable_bytes", json_integer((json_int_t) memtables));
	json_object_set_new(root, "disk_used_bytes", json_integer((json_int_t) au_disk_used(d)));
	json_object_set_new(root, "disk_limit_bytes",
						json_integer((json_int_t) (d->config.disk_limit_mb * 1024 * 1024)));
	json_object_set_new(root, "disk_free_bytes",
						json_integer((json_int_t) au_disk_free(d->config.dir)));
	json_object_set_new(root, "loop", json_pack("{s:o,s:o}", "turn", au_latency_json(&d->turns),
												"snapshot", au_latency_json(&d->snapshots)));
	json_object_set_new(root, "volumes", volumes);
	if (d->meta != NULL)
		json_object_set_new(root, "cluster", au_meta_json(d->meta));
	if (au_node_gossip(d->node) != NULL)
		json_object_set_new(root, "gossip", au_gossip_json(d));
	json_object_set_new(root, "kv", au_kv_json(d));
	out = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	return out;
}

/* ---- Prometheus ------------------------------------------------------- */

static void
add_volume_value(AuText *t, const char *name, bool counter, const VolumeFigures *f, uint64_t value)
{
	au_text_add(t, "aurora_storaged_%s%s{volume=\"%" PRIu64 "\"} %" PRIu64 "\n", name,
			 counter ? "_total" : "", f->v.meta.system_identifier, value);
}

static void
add_positions(AuText *t, const VolumeFigures *f)
{
	static const char *const names[] = {"received", "durable", "applied", "persisted", "horizon"};
	AuLsn		lsns[] = {f->v.received, f->v.durable, f->v.applied, f->v.persisted, f->v.horizon};

	for (int i = 0; i < 5; i++)
		au_text_add(t, "aurora_storaged_lsn{volume=\"%" PRIu64 "\",position=\"%s\"} %" PRIu64 "\n",
				 f->v.meta.system_identifier, names[i], lsns[i]);
}

static void
add_latency(AuText *t, const VolumeFigures *f, int stage)
{
	char		labels[128];

	snprintf(labels, sizeof(labels), "volume=\"%" PRIu64 "\",stage=\"%s\"",
			 f->v.meta.system_identifier, stage_names[stage]);
	au_text_histogram(t, "stage", labels, stage_latency(f, stage));
}

char *
au_status_metrics(AuDaemon *d)
{
	AuText		t = {0};
	AuNodeStats n;
	VolumeFigures f[AU_NODE_VOLUMES_MAX];
	uint32_t	count = 0;
	uint64_t	cache,
				pending,
				memtables;

	au_node_stats(d->node, &n);
	au_store_memory_usage(d->memory, &cache, &pending, &memtables);
	while (count < AU_NODE_VOLUMES_MAX && get_figures(d, count, &f[count]))
		count++;
	au_text_value(&t, "uptime_seconds", false, "seconds since start",
					(uv_hrtime() / 1000000 - d->started_ms) / 1000);
	au_text_value(&t, "connections", false, "open connections", n.connections);
	au_text_value(&t, "connections_opened", true, "connections accepted", n.connections_total);
	au_text_value(&t, "messages", true, "messages received", n.frames);
	au_text_value(&t, "errors", true, "requests answered with an error", n.errors);
	au_text_value(&t, "unsent_bytes", false, "bytes of answers not sent yet", n.out_bytes);
	au_text_value(&t, "reads_on_loop", true, "short requests read from files without handing them to a thread",
					au_readers_inline(d->readers));
	au_text_value(&t, "shared_bytes", false, "bytes of memory that readers share for their pages", n.shared_bytes);
	au_text_value(&t, "resident_bytes", false, "resident memory of the process", resident_bytes());
	au_text_value(&t, "cache_bytes", false, "block cache of page versions, indexes and filters", cache);
	au_text_value(&t, "memtable_bytes", false, "RocksDB's memtables of all volumes", memtables);
	au_text_value(&t, "memory_limit_bytes", false, "the setting --memory",
					d->config.memory_mb * 1024 * 1024);
	au_text_value(&t, "disk_used_bytes", false, "bytes of log and page versions, with what log taken will need",
					au_disk_used(d));
	au_text_value(&t, "disk_limit_bytes", false, "the setting --disk-limit; 0: none",
					d->config.disk_limit_mb * 1024 * 1024);
	au_text_value(&t, "disk_free_bytes", false, "free bytes where the node's directory is",
					au_disk_free(d->config.dir));
	au_text_metric(&t, "up", false, "1 if the volume takes log and applies it");
	for (uint32_t i = 0; i < count; i++)
		add_volume_value(&t, "up", false, &f[i], strcmp(f[i].v.state, "ok") == 0);
	au_text_metric(&t, "term", false, "term of the writer");
	for (uint32_t i = 0; i < count; i++)
		add_volume_value(&t, "term", false, &f[i], f[i].v.meta.term);
	au_text_metric(&t, "landing_info", false, "1; the label tells what the landing log is kept on");
	for (uint32_t i = 0; i < count; i++)
		au_text_add(&t, "aurora_storaged_landing_info{volume=\"%" PRIu64 "\",kind=\"%s\"} 1\n",
				 f[i].v.meta.system_identifier, f[i].log_kind);
	au_text_metric(&t, "lsn", false, "positions in the log");
	for (uint32_t i = 0; i < count; i++)
		add_positions(&t, &f[i]);
	for (size_t k = 0; k < NFIGURES; k++)
	{
		au_text_metric(&t, figures[k].name, figures[k].counter, figures[k].help);
		for (uint32_t i = 0; i < count; i++)
			add_volume_value(&t, figures[k].name, figures[k].counter, &f[i],
							 figure_value(&f[i], &figures[k]));
	}
	au_text_add(&t, "# HELP aurora_storaged_stage_seconds how long each stage of the node takes\n"
			 "# TYPE aurora_storaged_stage_seconds histogram\n");
	for (uint32_t i = 0; i < count; i++)
		for (int k = 0; k < STAGES; k++)
			add_latency(&t, &f[i], k);
	au_text_add(&t, "# HELP aurora_storaged_loop_seconds turns of the thread that takes all messages, without waiting; snapshots it makes for status and metrics\n"
				"# TYPE aurora_storaged_loop_seconds histogram\n");
	au_text_histogram(&t, "loop", "part=\"turn\"", &d->turns);
	au_text_histogram(&t, "loop", "part=\"snapshot\"", &d->snapshots);
	au_kv_metrics(d, &t);
	au_gossip_metrics(d, &t);
	if (d->meta != NULL)
		au_meta_metrics(d->meta, &t);
	if (t.failed)
	{
		free(t.data);
		return NULL;
	}
	return t.data;
}
