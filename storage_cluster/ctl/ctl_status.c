/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl_status.c: the status document for people.
 */
#include "ctl/ctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cluster/au_view.h"

const char *
ctl_text_of(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s != NULL ? s : "";
}

int64_t
ctl_number_of(json_t *o, const char *key)
{
	return (int64_t) json_integer_value(json_object_get(o, key));
}

/* "12.3 MB" */
static const char *
size_text(int64_t bytes, char *buf, size_t cap)
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
	double		v = (double) bytes;
	int			u = 0;

	while (v >= 10000 && u < 4)
	{
		v /= 1024;
		u++;
	}
	snprintf(buf, cap, u == 0 || v >= 100 ? "%.0f %s" : "%.1f %s", v, units[u]);
	return buf;
}

static void
print_line(const char *label, const char *value)
{
	printf("  %-20s %s\n", label, value);
}

static void
print_size(json_t *o, const char *label, const char *key)
{
	char		buf[32];

	print_line(label, size_text(ctl_number_of(o, key), buf, sizeof(buf)));
}

static double
average(json_t *o, const char *sum, const char *count)
{
	int64_t		n = ctl_number_of(o, count);

	return n > 0 ? (double) ctl_number_of(o, sum) / (double) n / 1000 : 0;
}

/* Distance between two positions given as text; 0 if they make no sense. */
static int64_t
lag(json_t *o, const char *ahead, const char *behind)
{
	unsigned	ah,
				al,
				bh,
				bl;

	if (sscanf(ctl_text_of(o, ahead), "%X/%X", &ah, &al) != 2 ||
		sscanf(ctl_text_of(o, behind), "%X/%X", &bh, &bl) != 2)
		return 0;
	return (int64_t) (((uint64_t) ah << 32 | al) - ((uint64_t) bh << 32 | bl));
}

/* "850 us", "12.3 ms", "4.5 s" */
static const char *
time_text(int64_t us, char *buf, size_t cap)
{
	if (us < 10000)
		snprintf(buf, cap, "%" PRId64 " us", us);
	else if (us < 10000000)
		snprintf(buf, cap, "%.1f ms", (double) us / 1000);
	else
		snprintf(buf, cap, "%.1f s", (double) us / 1000000);
	return buf;
}

static void
print_latency(json_t *latency)
{
	const char *stage;
	json_t	   *s;

	if (json_object_size(latency) == 0)
		return;
	printf("  %-14s %12s %10s %10s %10s %10s\n", "stage", "count", "p50", "p90", "p99", "longest");
	json_object_foreach(latency, stage, s)
	{
		char		t[4][32];

		if (ctl_number_of(s, "count") == 0)
			continue;
		printf("  %-14s %12" PRId64 " %10s %10s %10s %10s\n", stage, ctl_number_of(s, "count"),
			   time_text(ctl_number_of(s, "p50_us"), t[0], sizeof(t[0])),
			   time_text(ctl_number_of(s, "p90_us"), t[1], sizeof(t[1])),
			   time_text(ctl_number_of(s, "p99_us"), t[2], sizeof(t[2])),
			   time_text(ctl_number_of(s, "max_us"), t[3], sizeof(t[3])));
	}
}

/* Only a node of a cluster keeps less than all. */
static void
print_slices(json_t *v)
{
	char		line[256];
	char		moved[32];

	if (ctl_number_of(v, "slices") == AU_SLICES && ctl_number_of(v, "slices_dropping") == 0)
		return;
	snprintf(line, sizeof(line), "%" PRId64 " of %d here, %" PRId64 " coming, %" PRId64 " to come after these, %" PRId64 " being deleted; %s have come",
			 ctl_number_of(v, "slices"), AU_SLICES, ctl_number_of(v, "slices_incoming"),
			 ctl_number_of(v, "slices_missing"), ctl_number_of(v, "slices_dropping"),
			 size_text(ctl_number_of(v, "moved_bytes"), moved, sizeof(moved)));
	print_line("slices", line);
}

static void
print_volume(json_t *v)
{
	char		line[4600];
	char		a[32],
				b[32];

	printf("\nvolume %s\n", ctl_text_of(v, "system_identifier"));
	print_line("state", ctl_text_of(v, "state"));
	if (json_object_get(v, "problem") != NULL)
		print_line("problem", ctl_text_of(v, "problem"));
	snprintf(line, sizeof(line), "%" PRId64 " on timeline %" PRId64 ", writer %s",
			 ctl_number_of(v, "term"), ctl_number_of(v, "timeline"),
			 ctl_text_of(v, "writer")[0] ? ctl_text_of(v, "writer") : "not connected");
	print_line("term", line);
	print_line("log begins", ctl_text_of(v, "start_lsn"));
	print_line("received", ctl_text_of(v, "received_lsn"));
	print_line("durable", ctl_text_of(v, "durable_lsn"));
	snprintf(line, sizeof(line), "%s (%s behind)", ctl_text_of(v, "applied_lsn"),
			 size_text(lag(v, "durable_lsn", "applied_lsn"), a, sizeof(a)));
	print_line("applied", line);
	snprintf(line, sizeof(line), "%s (%s behind)", ctl_text_of(v, "persisted_lsn"),
			 size_text(lag(v, "durable_lsn", "persisted_lsn"), a, sizeof(a)));
	print_line("in files", line);
	print_line("readable since", ctl_text_of(v, "horizon_lsn"));
	if (ctl_number_of(v, "holds") > 0 || ctl_number_of(v, "holds_broken") > 0)
	{
		snprintf(line, sizeof(line), "%" PRId64 ", the lowest at %s; broken: %" PRId64,
				 ctl_number_of(v, "holds"),
				 ctl_text_of(v, "hold_lsn")[0] ? ctl_text_of(v, "hold_lsn") : "-",
				 ctl_number_of(v, "holds_broken"));
		print_line("holds", line);
	}
	snprintf(line, sizeof(line), "%s on %s (%s free), %s",
			 size_text(ctl_number_of(v, "landing_bytes"), a, sizeof(a)), ctl_text_of(v, "landing_kind"),
			 size_text(ctl_number_of(v, "landing_free_bytes"), b, sizeof(b)),
			 ctl_text_of(v, "landing_directory"));
	print_line("landing log", line);
	snprintf(line, sizeof(line), "%s, %s in memory",
			 size_text(ctl_number_of(v, "store_bytes"), a, sizeof(a)),
			 size_text(ctl_number_of(v, "pending_bytes") + ctl_number_of(v, "store_memory_bytes"), b, sizeof(b)));
	print_line("page versions", line);
	print_slices(v);
	snprintf(line, sizeof(line), "%" PRId64 " (%" PRId64 " drops wait for the retention)",
			 ctl_number_of(v, "relations"), ctl_number_of(v, "drops_waiting"));
	print_line("relations", line);
	snprintf(line, sizeof(line), "%" PRId64 " walks, this one at %" PRId64 " %%, damaged places: %" PRId64,
			 ctl_number_of(v, "scrub_passes"), ctl_number_of(v, "scrub_percent"),
			 ctl_number_of(v, "scrub_damaged"));
	print_line("scrubber", line);
	if (json_object_get(v, "damage") != NULL)
		print_line("damage", ctl_text_of(v, "damage"));
	snprintf(line, sizeof(line), "%" PRId64 " slices compared with other nodes, %" PRId64 " times all; %" PRId64 " passed over; %" PRId64 " pages differed, %" PRId64 " of them unresolved",
			 ctl_number_of(v, "sync_slices"), ctl_number_of(v, "sync_passes"),
			 ctl_number_of(v, "sync_skipped"),
			 ctl_number_of(v, "sync_differences"), ctl_number_of(v, "sync_unresolved"));
	print_line("replicas", line);
	if (json_object_get(v, "repairing") != NULL)
	{
		snprintf(line, sizeof(line), "%" PRId64 " MB taken from other nodes; damaged: %s",
				 ctl_number_of(v, "repair_bytes") >> 20, ctl_text_of(v, "repairing"));
		print_line("repairing", line);
		if (json_object_get(v, "repair_waits") != NULL)
			print_line("repair waits", ctl_text_of(v, "repair_waits"));
	}
	if (ctl_number_of(v, "repairs") > 0)
	{
		snprintf(line, sizeof(line), "%" PRId64, ctl_number_of(v, "repairs"));
		print_line("repairs", line);
	}
	snprintf(line, sizeof(line), "%" PRId64 " (%s), %" PRId64 " syncs of %.2f ms, at most %.2f ms",
			 ctl_number_of(v, "appends"), size_text(ctl_number_of(v, "append_bytes"), a, sizeof(a)),
			 ctl_number_of(v, "syncs"), average(v, "sync_us", "syncs"),
			 (double) ctl_number_of(v, "sync_us_max") / 1000);
	print_line("appends", line);
	snprintf(line, sizeof(line), "%" PRId64 ", of ours %" PRId64 " with %" PRId64 " page changes (%s)",
			 ctl_number_of(v, "records"), ctl_number_of(v, "page_records"), ctl_number_of(v, "patches"),
			 size_text(ctl_number_of(v, "patch_bytes"), a, sizeof(a)));
	print_line("records", line);
	snprintf(line, sizeof(line), "%" PRId64 " (%" PRId64 " pages), %.3f ms on average",
			 ctl_number_of(v, "reads"), ctl_number_of(v, "pages_read"), average(v, "read_us", "reads"));
	print_line("reads", line);
	snprintf(line, sizeof(line), "%" PRId64 " (%.3f ms on average), %" PRId64 " in vain, %" PRId64 " now",
			 ctl_number_of(v, "read_waits"), average(v, "read_wait_us", "read_waits"),
			 ctl_number_of(v, "reads_expired"), ctl_number_of(v, "waiting_reads"));
	print_line("reads that waited", line);
	print_latency(json_object_get(v, "latency"));
	if (ctl_number_of(v, "corrupt") > 0)
	{
		snprintf(line, sizeof(line), "%" PRId64 " (see the node's log)", ctl_number_of(v, "corrupt"));
		print_line("damaged versions", line);
	}
}

/* What this node holds the others for: an opinion, the view decides. */
static void
print_gossip(json_t *g)
{
	json_t	   *members = json_object_get(g, "members");
	json_t	   *m;
	size_t		alive = 0;
	size_t		i;

	json_array_foreach(members, i, m)
		alive += strcmp(ctl_text_of(m, "state"), "alive") == 0;
	printf("\ngossip: %zu of %zu other nodes alive, %" PRId64 " times one was suspected, %" PRId64
		   " times one was held for dead;\n  round trip %.1f ms at the median, %.1f ms for 99 of 100\n",
		   alive, json_array_size(members), ctl_number_of(g, "suspicions"), ctl_number_of(g, "deaths"),
		   (double) ctl_number_of(g, "round_trip_p50_us") / 1e3,
		   (double) ctl_number_of(g, "round_trip_p99_us") / 1e3);
	json_array_foreach(members, i, m)
		if (strcmp(ctl_text_of(m, "state"), "alive") != 0)
			printf("  %s at %s: %s for %.0f s\n", ctl_text_of(m, "node_id"), ctl_text_of(m, "address"),
				   ctl_text_of(m, "state"), json_number_value(json_object_get(m, "state_s")));
}

void
ctl_print_status(json_t *s)
{
	json_t	   *volumes = json_object_get(s, "volumes");
	json_t	   *v;
	size_t		i;
	char		line[256];
	char		a[32],
				b[32];
	int64_t		up = ctl_number_of(s, "uptime_s");

	printf("node %s\n", ctl_text_of(s, "node_id"));
	print_line("state", ctl_text_of(s, "state"));
	snprintf(line, sizeof(line), "%s (protocol %" PRId64 "), process %" PRId64,
			 ctl_text_of(s, "version"), ctl_number_of(s, "protocol"), ctl_number_of(s, "pid"));
	print_line("version", line);
	print_line("directory", ctl_text_of(s, "directory"));
	snprintf(line, sizeof(line), "%" PRId64 " d %02" PRId64 ":%02" PRId64 ":%02" PRId64,
			 up / 86400, up / 3600 % 24, up / 60 % 60, up % 60);
	print_line("up", line);
	snprintf(line, sizeof(line), "%" PRId64 " (%" PRId64 " since start, %" PRId64 " turned away)",
			 ctl_number_of(s, "connections"), ctl_number_of(s, "connections_total"),
			 ctl_number_of(s, "connections_refused"));
	print_line("connections", line);
	snprintf(line, sizeof(line), "%s resident, configured %s",
			 size_text(ctl_number_of(s, "resident_bytes"), a, sizeof(a)),
			 size_text(ctl_number_of(s, "memory_limit_bytes"), b, sizeof(b)));
	print_line("memory", line);
	if (ctl_number_of(s, "disk_limit_bytes") > 0)
		snprintf(line, sizeof(line), "%s of at most %s",
				 size_text(ctl_number_of(s, "disk_used_bytes"), a, sizeof(a)),
				 size_text(ctl_number_of(s, "disk_limit_bytes"), b, sizeof(b)));
	else
		snprintf(line, sizeof(line), "%s",
				 size_text(ctl_number_of(s, "disk_used_bytes"), a, sizeof(a)));
	print_line("disk used", line);
	print_size(s, "disk free", "disk_free_bytes");
	if (json_object_get(json_object_get(s, "kv"), "problem") != NULL)
		print_line("key-value", ctl_text_of(json_object_get(s, "kv"), "problem"));
	if (json_object_get(s, "cluster") != NULL)
		ctl_print_cluster(json_object_get(s, "cluster"));
	if (json_object_get(s, "gossip") != NULL)
		print_gossip(json_object_get(s, "gossip"));
	if (json_array_size(volumes) == 0)
		printf("\nno volumes: no server has connected yet\n");
	json_array_foreach(volumes, i, v)
		print_volume(v);
}
