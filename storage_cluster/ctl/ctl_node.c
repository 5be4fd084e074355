/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl_node.c: the nodes of a cluster: shown, drained, removed; where the slices
 * are, and who keeps whose log.  Shown is what the asked node's status says; commands go to it in
 * Aurora's protocol, also if it was asked over HTTP (its address is in its
 * status).
 */
#include "ctl/ctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/au_wire_cluster.h"
#include "cluster/au_view.h"

#define BAR 40					/* characters of a full bar */

/* ---- the cluster's part of the status --------------------------------- */

/* The cluster of a status that was fetched; NULL: a message was printed. */
static json_t *
get_cluster(const CtlTarget *t, json_t **status)
{
	json_t	   *cluster;

	*status = ctl_get_status(t);
	if (*status == NULL)
		return NULL;
	cluster = json_object_get(*status, "cluster");
	if (cluster == NULL)
	{
		fprintf(stderr, "auroractl: this node is in no cluster\n"
				"Start the first node of a cluster with --cluster-init, others with --join.\n");
		json_decref(*status);
	}
	return cluster;
}

static json_t *
find_node(json_t *cluster, int64_t number)
{
	json_t	   *n;
	size_t		i;

	json_array_foreach(json_object_get(cluster, "nodes"), i, n)
		if (ctl_number_of(n, "number") == number)
			return n;
	return NULL;
}

static void
print_nodes(json_t *cluster)
{
	int64_t		leader = ctl_number_of(cluster, "leader");
	json_t	   *n;
	size_t		i;

	printf("  %4s  %-24s %-9s %-5s %-8s %-12s %6s %7s\n", "node", "address", "state", "", "role",
		   "zone", "weight", "slices");
	json_array_foreach(json_object_get(cluster, "nodes"), i, n)
	{
		bool		voter = json_is_true(json_object_get(n, "voter"));
		char		incoming[32] = "";

		if (ctl_number_of(n, "slices_incoming") > 0)
			snprintf(incoming, sizeof(incoming), " +%" PRId64, ctl_number_of(n, "slices_incoming"));
		printf("  %4" PRId64 "  %-24s %-9s %-5s %-8s %-12s %6" PRId64 " %7" PRId64 "%s%s\n",
			   ctl_number_of(n, "number"), ctl_text_of(n, "address"), ctl_text_of(n, "state"),
			   json_is_true(json_object_get(n, "up")) ? "up" : "DOWN",
			   ctl_number_of(n, "number") == leader ? "leader" : voter ? "voter" : "-",
			   ctl_text_of(n, "zone")[0] ? ctl_text_of(n, "zone") : "-",
			   ctl_number_of(n, "weight"), ctl_number_of(n, "slices_owned"), incoming,
			   json_is_true(json_object_get(n, "mending")) ? " (being repaired)" : "");
	}
}

static void
print_groups(json_t *cluster)
{
	json_t	   *v;
	size_t		i;

	json_array_foreach(json_object_get(cluster, "volumes"), i, v)
	{
		json_t	   *number;
		size_t		j;

		printf("  log of volume %s: nodes", ctl_text_of(v, "system_identifier"));
		json_array_foreach(json_object_get(v, "group"), j, number)
			printf("%s %" PRId64, j > 0 ? "," : "", (int64_t) json_integer_value(number));
		printf("; quorum %" PRId64 ", group epoch %" PRId64 "%s", ctl_number_of(v, "write_quorum"),
			   ctl_number_of(v, "group_epoch"),
			   json_is_true(json_object_get(v, "settled")) ? "" : ", no writer has taken it yet");
		if (ctl_number_of(v, "leaving") > 0)
			printf("; node %" PRId64 " leaves next", ctl_number_of(v, "leaving"));
		printf("\n");
	}
}

void
ctl_print_cluster(json_t *cluster)
{
	int64_t		moving = ctl_number_of(cluster, "slices_moving");
	int64_t		leader = ctl_number_of(cluster, "leader");

	printf("\ncluster %s\n", ctl_text_of(cluster, "cluster_id"));
	if (strcmp(ctl_text_of(cluster, "state"), "removed") == 0)
		printf("  this node was REMOVED from it; give it an empty directory to join again\n");
	else if (strcmp(ctl_text_of(cluster, "state"), "joining") == 0)
		printf("  this node is not in it yet\n");
	else
		printf("  this node is node %" PRId64 "\n", ctl_number_of(cluster, "number"));
	printf("  view %" PRId64 ", ", ctl_number_of(cluster, "epoch"));
	if (leader > 0)
		printf("led by node %" PRId64, leader);
	else
		printf("NO LEADER to be seen from here");
	printf("; %" PRId64 " slices on %" PRId64 " nodes each, %" PRId64 " moving\n",
		   ctl_number_of(cluster, "slices"), ctl_number_of(cluster, "replicas"), moving);
	print_nodes(cluster);
	print_groups(cluster);
}

/* ---- the ring --------------------------------------------------------- */

static int
bar_length(double slices, double most)
{
	return most > 0 ? (int) (slices / most * BAR + 0.5) : 0;
}

static void
print_bar(json_t *n, double most)
{
	double		share = json_number_value(json_object_get(n, "slices_share"));
	int			owned = bar_length((double) ctl_number_of(n, "slices_owned"), most);
	int			incoming = bar_length((double) (ctl_number_of(n, "slices_owned") +
												ctl_number_of(n, "slices_incoming")), most);
	int			fair = bar_length(share, most);

	printf("  %4" PRId64 " %-8.8s ", ctl_number_of(n, "number"), ctl_text_of(n, "zone"));
	for (int i = 0; i < BAR + 1; i++)
		putchar(i == fair && fair > 0 ? '|' : i < owned ? '#' : i < incoming ? '+' : ' ');
	printf(" %4" PRId64 " %5" PRId64 " %7.1f  %s%s\n", ctl_number_of(n, "slices_owned"),
		   ctl_number_of(n, "slices_incoming"), share, ctl_text_of(n, "state"),
		   json_is_true(json_object_get(n, "up")) ? "" : ", DOWN");
}

static void
print_ring(json_t *cluster)
{
	double		most = 0;
	json_t	   *n;
	size_t		i;

	json_array_foreach(json_object_get(cluster, "nodes"), i, n)
	{
		double		here = (double) (ctl_number_of(n, "slices_owned") + ctl_number_of(n, "slices_incoming"));
		double		share = json_number_value(json_object_get(n, "slices_share"));

		most = here > most ? here : most;
		most = share > most ? share : most;
	}
	printf("view %" PRId64 ": %" PRId64 " slices, %" PRId64 " replicas of each, %" PRId64 " slices moving\n\n",
		   ctl_number_of(cluster, "epoch"), ctl_number_of(cluster, "slices"),
		   ctl_number_of(cluster, "replicas"), ctl_number_of(cluster, "slices_moving"));
	printf("  %4s %-8s %-*s %5s %5s %7s\n", "node", "zone", BAR + 1,
		   "# owned  + on the way  | fair share", "owned", "new", "share");
	json_array_foreach(json_object_get(cluster, "nodes"), i, n)
		print_bar(n, most);
}

/* How far the node is with the slices that come to it: it has to be asked. */
static void
print_progress(json_t *node)
{
	CtlTarget	there = {.node = ctl_text_of(node, "address")};
	json_t	   *status = ctl_get_status(&there);
	json_t	   *v;
	size_t		i;

	json_array_foreach(json_object_get(status, "volumes"), i, v)
		printf("  node %" PRId64 ", volume %s: %" PRId64 " slices here, %" PRId64 " coming, %" PRId64
			   " to come after these; %" PRId64 " MB have come\n", ctl_number_of(node, "number"),
			   ctl_text_of(v, "system_identifier"), ctl_number_of(v, "slices"),
			   ctl_number_of(v, "slices_incoming"), ctl_number_of(v, "slices_missing"),
			   ctl_number_of(v, "moved_bytes") >> 20);
	json_decref(status);
}

static void
print_moving(json_t *cluster)
{
	json_t	   *n;
	size_t		i;

	if (ctl_number_of(cluster, "slices_moving") > 0)
		printf("\n");
	json_array_foreach(json_object_get(cluster, "nodes"), i, n)
		if (ctl_number_of(n, "slices_incoming") > 0 && json_is_true(json_object_get(n, "up")))
			print_progress(n);
}

int
ctl_ring(const CtlTarget *t, int nwords, const char **words)
{
	json_t	   *status;
	json_t	   *cluster;

	if (nwords != 1 || strcmp(words[0], "show") != 0)
	{
		fprintf(stderr, "auroractl: ring needs \"show\"; see auroractl --help\n");
		return 2;
	}
	cluster = get_cluster(t, &status);
	if (cluster == NULL)
		return 1;
	print_ring(cluster);
	print_moving(cluster);
	json_decref(status);
	return 0;
}

/* ---- commands --------------------------------------------------------- */

static bool
send_command(const CtlTarget *t, const AuViewCommand *c, uint64_t *epoch)
{
	uint8_t		bytes[AU_VIEW_COMMAND_MAX];
	uint8_t		frame[AU_VIEW_COMMAND_MAX + 64];
	AuMsgCluster m = {.bytes = bytes};
	AuMsgClusterOk ok = {0};
	CtlWire    *wire = ctl_wire_open(t);
	AuWriter	w;
	AuFrame		f;
	bool		done;

	if (wire == NULL)
		return false;
	m.length = (uint32_t) au_view_command_encode(c, bytes, sizeof(bytes));
	au_writer_start(&w, frame, sizeof(frame));
	done = au_enc_cluster(&w, CTL_WIRE_ID, &m) &&
		ctl_wire_ask(wire, w.data, w.len, AU_MSG_CLUSTER_OK, &f) && au_dec_cluster_ok(&f, &ok);
	ctl_wire_close(wire);
	*epoch = ok.epoch;
	return done;
}

/* Until no slice moves in a view that has the command; prints how far it is. */
static int
wait_for_slices(const CtlTarget *t, uint64_t epoch)
{
	int64_t		before = -1;

	for (;;)
	{
		json_t	   *status;
		json_t	   *cluster = get_cluster(t, &status);
		int64_t		moving;
		bool		there;

		if (cluster == NULL)
			return 1;
		moving = ctl_number_of(cluster, "slices_moving");
		there = (uint64_t) ctl_number_of(cluster, "epoch") >= epoch;
		json_decref(status);
		if (there && moving != before)
			printf("%" PRId64 " slices moving\n", moving);
		fflush(stdout);
		if (there && moving == 0)
			return 0;
		before = there ? moving : before;
		sleep(1);
	}
}

static bool
parse(const char *text, long max, uint32_t *out)
{
	char	   *end;
	long		v = strtol(text, &end, 10);

	*out = (uint32_t) v;
	return end != text && *end == '\0' && v >= 1 && v <= max;
}

static int
usage(const char *message)
{
	fprintf(stderr, "auroractl: %s; see auroractl --help\n", message);
	return 2;
}

/* How redundant the data is while and after the node is drained. */
static void
warn_of_drain(json_t *cluster, uint32_t number)
{
	int64_t		left = 0;
	json_t	   *n;
	size_t		i;

	json_array_foreach(json_object_get(cluster, "nodes"), i, n)
		left += ctl_number_of(n, "number") != (int64_t) number &&
			strcmp(ctl_text_of(n, "state"), "draining") != 0;
	if (left < ctl_number_of(cluster, "replicas"))
		printf("Only %" PRId64 " nodes are left for %" PRId64 " replicas of each page: join another one.\n",
			   left, ctl_number_of(cluster, "replicas"));
}

/* done: what is printed if it was taken. */
static int
run_command(const CtlTarget *t, AuViewCommand *c, const char *done, bool wait)
{
	json_t	   *status;
	json_t	   *cluster = get_cluster(t, &status);
	CtlTarget	here = *t;
	char		address[AU_ADDRESS_MAX] = "";
	uint64_t	epoch;

	if (cluster == NULL)
		return 1;
	if (c->type == AU_VIEW_DRAIN)
		warn_of_drain(cluster, c->number);
	snprintf(address, sizeof(address), "%s",
			 ctl_text_of(find_node(cluster, ctl_number_of(cluster, "number")), "address"));
	json_decref(status);
	if (t->socket == NULL && t->node == NULL)
	{
		here.http = here.http_socket = NULL;
		here.node = address;
	}
	if (here.node != NULL && here.node[0] == '\0')
	{
		fprintf(stderr, "auroractl: this node is no member of a cluster now; ask another one\n");
		return 1;
	}
	if (!send_command(&here, c, &epoch))
		return 1;
	printf("%s (view %" PRIu64 ")\n", done, epoch);
	return wait ? wait_for_slices(t, epoch) : 0;
}

int
ctl_node(const CtlTarget *t, int nwords, const char **words, bool force, bool wait)
{
	AuViewCommand c = {.up = force};
	const char *what = nwords > 0 ? words[0] : "";
	char		done[128];
	uint32_t	weight;

	if (strcmp(what, "list") == 0 && nwords == 1)
	{
		json_t	   *status;
		json_t	   *cluster = get_cluster(t, &status);

		if (cluster == NULL)
			return 1;
		print_nodes(cluster);
		json_decref(status);
		return 0;
	}
	if (force && strcmp(what, "remove") != 0)
		return usage("--force is for node remove");
	if (nwords < 2 || !parse(words[1], INT32_MAX, &c.number))
		return usage("node needs list, drain NUMBER, remove NUMBER or weight NUMBER WEIGHT");
	if (strcmp(what, "weight") == 0)
	{
		if (nwords != 3 || !parse(words[2], 10000, &weight))
			return usage("a node's weight is a number from 1 to 10000");
		c.type = AU_VIEW_WEIGHT;
		c.node.weight = (uint16_t) weight;
		snprintf(done, sizeof(done), "node %u has weight %u", c.number, weight);
		return run_command(t, &c, done, wait);
	}
	if (strcmp(what, "drain") == 0 && nwords == 2)
	{
		c.type = AU_VIEW_DRAIN;
		snprintf(done, sizeof(done), "node %u gives its slices to others now; remove it when it has none",
				 c.number);
		return run_command(t, &c, done, wait);
	}
	if (strcmp(what, "remove") == 0 && nwords == 2)
	{
		c.type = AU_VIEW_REMOVE;
		snprintf(done, sizeof(done), "node %u is no longer in the cluster", c.number);
		return run_command(t, &c, done, wait);
	}
	return usage("node needs list, drain NUMBER, remove NUMBER or weight NUMBER WEIGHT");
}

int
ctl_group(const CtlTarget *t, int nwords, const char **words)
{
	static const char message[] =
		"group needs add VOLUME NODE, remove VOLUME NODE or replace VOLUME NODE BY-NODE";
	AuViewCommand c = {.type = AU_VIEW_GROUP_REPLACE};
	const char *what = nwords > 0 ? words[0] : "";
	bool		add = strcmp(what, "add") == 0;
	bool		replace = strcmp(what, "replace") == 0;
	char	   *end;

	if ((!add && !replace && strcmp(what, "remove") != 0) || nwords != (replace ? 4 : 3) ||
		!parse(words[2], INT32_MAX, add ? &c.with : &c.number) ||
		(replace && !parse(words[3], INT32_MAX, &c.with)))
		return usage(message);
	c.system_identifier = strtoull(words[1], &end, 10);
	if (*end != '\0' || c.system_identifier == 0)
		return usage(message);
	return run_command(t, &c, replace ?
					   "the log gets its new node now, and loses the other one when the writer has taken that" :
					   "the change holds when the volume's writer has taken it", false);
}
