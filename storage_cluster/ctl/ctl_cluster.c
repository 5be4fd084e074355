/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl_cluster.c: a cluster of storage nodes on this machine, for trying out:
 *
 *   auroractl cluster start --dir D [--nodes N] [--port P]
 *   auroractl cluster stop | restart | status --dir D
 *
 * D holds all there is:
 *
 *   cluster        what this is, number of nodes, first port; locked (flock) by
 *                  the command at work
 *   nodeI.conf     options of node I (aurora_storaged --config); made once, then
 *                  the user's
 *   nodeI/ nodeI.pid nodeI.log nodeI.http    data, process, messages, HTTP socket
 *
 * Node I listens on 127.0.0.1, port P + 2 (I - 1), and for consensus on the
 * next one.  The first makes a cluster, the others join it, so the commands for
 * clusters (node, ring) work.  The nodes run on when the command ends.
 *
 * Invariants:
 *  1. start and stop may be repeated: what is already so stays so.
 *  2. Only processes are signalled that hold D/nodeI and were started with
 *     D/nodeI.conf: a number in a file that is left over is never trusted.
 *  3. A directory that is not empty and not a cluster's is not touched.
 */
#include "ctl/ctl.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ctl/ctl_local.h"
#include "daemon/au_files.h"

#define FILE_TITLE "aurora cluster 1\n"

static int
fail(const char *format,...)
{
	va_list		args;

	fprintf(stderr, "auroractl: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
	return 1;
}

/* ---- D/cluster -------------------------------------------------------- */

static bool
dir_is_empty(const char *dir)
{
	DIR		   *d = opendir(dir);
	struct dirent *e;
	bool		empty = true;

	if (d == NULL)
		return errno == ENOENT;
	while (empty && (e = readdir(d)) != NULL)
		empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
	closedir(d);
	return empty;
}

/*
 * Opens and locks D/cluster and reads it.  1: a message was printed; 0: done,
 * or, if there is none, c->lock_fd is -1.
 */
static int
open_cluster(LocalCluster *c)
{
	char		path[LOCAL_PATH_MAX];
	char		text[256] = "";
	ssize_t		n;

	local_path(c, path, "cluster");
	c->lock_fd = open(path, O_RDWR | O_CLOEXEC);
	if (c->lock_fd < 0)
	{
		if (errno != ENOENT && errno != ENOTDIR)
			return fail("could not open \"%s\": %s", path, strerror(errno));
		return dir_is_empty(c->dir) ? 0 :
			fail("\"%s\" is not empty, and no cluster that \"auroractl cluster start\" made; give another --dir",
				 c->dir);
	}
	if (flock(c->lock_fd, LOCK_EX | LOCK_NB) != 0)
		return fail("another auroractl is at work on \"%s\"; try again when it is through", c->dir);
	n = pread(c->lock_fd, text, sizeof(text) - 1, 0);
	if (n < 0 || strncmp(text, FILE_TITLE, strlen(FILE_TITLE)) != 0 ||
		sscanf(text + strlen(FILE_TITLE), "nodes = %d\nport = %d\n", &c->nodes, &c->port) != 2 ||
		c->nodes < 1 || c->nodes > LOCAL_NODES_MAX || c->port < 1)
		return fail("\"%s\" is damaged, or of another version of auroractl", path);
	return 0;
}

static int
make_cluster(LocalCluster *c)
{
	char		text[256];
	char		err[256];
	int			len;

	if (!au_make_dir(c->dir, err, sizeof(err)))
		return fail("%s", err);
	len = snprintf(text, sizeof(text), FILE_TITLE "nodes = %d\nport = %d\n", c->nodes, c->port);
	if (!au_write_file(c->dir, "cluster", text, (size_t) len, err, sizeof(err)))
		return fail("%s", err);
	return open_cluster(c);
}

/* ---- start ------------------------------------------------------------ */

/* What node i says of itself; NULL: nothing, or nothing that makes sense. */
static json_t *
status_of(const LocalCluster *c, int i)
{
	char		http[LOCAL_PATH_MAX];
	CtlTarget	target = {.http_socket = http};

	local_node_path(c, http, i, ".http");
	return ctl_get_status(&target);
}

static bool
port_is_free(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,.sin_port = htons((uint16_t) port)};
	int			fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int			one = 1;
	bool		ok;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ok = fd >= 0 && bind(fd, (struct sockaddr *) &a, sizeof(a)) == 0;
	if (fd >= 0)
		close(fd);
	return ok;
}

/* All that is to be started can be: say so before the first is. */
static int
check_ports(const LocalCluster *c)
{
	for (int i = 1; i <= c->nodes; i++)
		for (int port = local_port(c, i); port <= local_port(c, i) + 1; port++)
			if (local_pid(c, i) == 0 && !port_is_free(port))
				return fail("port %d of 127.0.0.1, which node %d needs, is in use by another program; "
							"stop that%s", port, i,
							c->lock_fd < 0 ? ", or give another --port" : "");
	return 0;
}

static void
print_last_line(const char *path)
{
	FILE	   *f = fopen(path, "r");
	char		line[1024];
	char		last[1024] = "";

	if (f == NULL)
		return;
	while (fgets(line, sizeof(line), f) != NULL)
		memcpy(last, line, sizeof(last));
	fclose(f);
	fprintf(stderr, "  %s%s", last, strchr(last, '\n') != NULL ? "" : "\n");
}

/* Has it a number in the cluster?  The next one joins after that, so that the
 * numbers are those of the directories. */
static bool
is_member(const LocalCluster *c, int i)
{
	json_t	   *status = status_of(c, i);
	bool		yes = json_integer_value(json_object_get(json_object_get(status, "cluster"), "number")) > 0;

	json_decref(status);
	return yes;
}

/* Waits until it answers on its HTTP socket, and is a member; false: it ended,
 * or takes too long. */
static bool
wait_ready(const LocalCluster *c, int i, pid_t pid)
{
	struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};

	for (int k = 0; k < LOCAL_START_S * 50; k++)
	{
		int			status;

		if (local_answers(c, i) && is_member(c, i))
			return true;
		if (waitpid(pid, &status, WNOHANG) == pid)
			return false;
		nanosleep(&pause, NULL);
	}
	return false;
}

static int
start_node(const LocalCluster *c, int i)
{
	char		log[LOCAL_PATH_MAX];
	char		err[LOCAL_PATH_MAX + 256];
	pid_t		pid = local_pid(c, i);

	if (pid > 0)
	{
		printf("node %d already runs, process %d\n", i, (int) pid);
		return 0;
	}
	if (!local_write_config(c, i, err, sizeof(err)))
		return fail("%s", err);
	pid = local_launch(c, i, err, sizeof(err));
	if (pid < 0)
		return fail("%s", err);
	if (!wait_ready(c, i, pid))
	{
		local_node_path(c, log, i, ".log");
		fail("node %d did not start; its log \"%s\" ends with", i, log);
		print_last_line(log);
		return 1;
	}
	printf("node %d started, process %d\n", i, (int) pid);
	return 0;
}

static void
print_settings(const LocalCluster *c)
{
	printf("\nIn postgresql.conf:\n"
		   "  shared_preload_libraries = 'aurora'\n"
		   "  synchronous_standby_names = 'aurora'\n"
		   "  aurora.storage_nodes = '");
	for (int i = 1; i <= c->nodes; i++)
		printf("%s127.0.0.1:%d", i > 1 ? "," : "", local_port(c, i));
	printf("'\n\nThe cluster: auroractl --node 127.0.0.1:%d node list\n", c->port);
}

static int
cluster_start(LocalCluster *c, int nodes, int port)
{
	char		path[LOCAL_PATH_MAX];

	if (c->lock_fd >= 0 && ((nodes != 0 && nodes != c->nodes) || (port != 0 && port != c->port)))
		return fail("the cluster in \"%s\" was made with %d nodes from port %d on; "
					"leave --nodes and --port out, or give another --dir",
					c->dir, c->nodes, c->port);
	if (c->lock_fd < 0)
	{
		c->nodes = nodes != 0 ? nodes : LOCAL_NODES_DEFAULT;
		c->port = port != 0 ? port : LOCAL_PORT_DEFAULT;
	}
	local_node_path(c, path, c->nodes, ".http");
	if (strlen(path) >= sizeof(((struct sockaddr_un *) 0)->sun_path))
		return fail("the path of a socket, \"%s\", would be longer than %zu bytes; give a shorter --dir",
					path, sizeof(((struct sockaddr_un *) 0)->sun_path) - 1);
	if (local_port(c, c->nodes) + 1 > 65535)
		return fail("there is no port %d; give a smaller --port", local_port(c, c->nodes) + 1);
	if (check_ports(c) != 0)
		return 1;
	if (c->lock_fd < 0 && make_cluster(c) != 0)
		return 1;
	for (int i = 1; i <= c->nodes; i++)
		if (start_node(c, i) != 0)
			return 1;
	print_settings(c);
	return 0;
}

/* ---- stop ------------------------------------------------------------- */

/* Its process, which now ends; 0: it does not run; -1: a message was printed. */
static pid_t
begin_stop(const LocalCluster *c, int i)
{
	pid_t		pid = local_pid(c, i);

	if (pid > 0 && kill(pid, SIGTERM) != 0)
	{
		fail("could not stop node %d, process %d: %s", i, (int) pid, strerror(errno));
		return -1;
	}
	return pid;
}

static int
end_stop(const LocalCluster *c, int i, pid_t pid)
{
	struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};

	if (pid < 0)
		return 1;
	for (int k = 0; pid > 0 && local_pid(c, i) == pid; k++)
	{
		if (k == LOCAL_STOP_S * 20)
			return fail("node %d, process %d, does not stop within %d s; being killed would lose nothing",
						i, (int) pid, LOCAL_STOP_S);
		nanosleep(&pause, NULL);
	}
	printf("node %d %s\n", i, pid > 0 ? "stopped" : "does not run");
	return 0;
}

static int
cluster_stop(const LocalCluster *c)
{
	pid_t		pid[LOCAL_NODES_MAX + 1];
	int			rc = 0;

	for (int i = 1; i <= c->nodes; i++)
		pid[i] = begin_stop(c, i);
	for (int i = 1; i <= c->nodes; i++)
		rc |= end_stop(c, i, pid[i]);
	return rc;
}

/* ---- status ----------------------------------------------------------- */

static const char *
text_of(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s != NULL ? s : "-";
}

/* Does it answer? */
static bool
print_node(const LocalCluster *c, int i, pid_t pid)
{
	json_t	   *status = status_of(c, i);
	json_t	   *volume;
	size_t		k;
	bool		answers = status != NULL;

	printf("%4d  127.0.0.1:%-6d %7d  %s\n", i, local_port(c, i), (int) pid,
		   answers ? "up" : "does not answer");
	json_array_foreach(json_object_get(status, "volumes"), k, volume)
		printf("      volume %s: %s, durable %s, applied %s\n",
			   text_of(volume, "system_identifier"), text_of(volume, "state"),
			   text_of(volume, "durable_lsn"), text_of(volume, "applied_lsn"));
	json_decref(status);
	return answers;
}

/* 1: not all nodes are up, or one does not answer. */
static int
cluster_status(const LocalCluster *c)
{
	int			rc = 0;

	printf("cluster in %s\nnode  address           process\n", c->dir);
	for (int i = 1; i <= c->nodes; i++)
	{
		pid_t		pid = local_pid(c, i);

		if (pid <= 0)
			printf("%4d  127.0.0.1:%-6d %7s  down\n", i, local_port(c, i), "-");
		if (pid <= 0 || !print_node(c, i, pid))
			rc = 1;
	}
	return rc;
}

/* ---- restart, one after the other -------------------------------------- */

static uint64_t
durable_of(json_t *volume)
{
	unsigned	high;
	unsigned	low;

	if (sscanf(text_of(volume, "durable_lsn"), "%X/%X", &high, &low) != 2)
		return 0;
	return (uint64_t) high << 32 | low;
}

/* Do slices come to the node, which others could lose? */
static bool
has_its_slices(json_t *ours)
{
	json_t	   *v;
	size_t		i;

	json_array_foreach(json_object_get(ours, "volumes"), i, v)
		if (json_integer_value(json_object_get(v, "slices_missing")) > 0 ||
			json_integer_value(json_object_get(v, "slices_incoming")) > 0 ||
			json_object_get(v, "repairing") != NULL)
			return false;
	return true;
}

/* Has node `ours` all the log that `theirs`, asked before it, had? */
static bool
has_log_of(json_t *ours, json_t *theirs)
{
	json_t	   *a;
	json_t	   *b;
	size_t		i;
	size_t		k;

	json_array_foreach(json_object_get(theirs, "volumes"), i, a)
		json_array_foreach(json_object_get(ours, "volumes"), k, b)
			if (strcmp(text_of(a, "system_identifier"), text_of(b, "system_identifier")) == 0 &&
				durable_of(b) < durable_of(a))
				return false;
	return true;
}

/* Waits until node i has the log that the others have; the next one must not
 * be stopped before. */
static int
wait_caught_up(const LocalCluster *c, int i)
{
	struct timespec pause = {.tv_nsec = 200 * 1000 * 1000};

	for (int k = 0; k < LOCAL_CATCH_UP_S * 5; k++)
	{
		bool		all = true;

		for (int j = 1; j <= c->nodes && all; j++)
		{
			json_t	   *theirs = j != i && local_pid(c, j) > 0 ? status_of(c, j) : NULL;
			json_t	   *ours = status_of(c, i);

			all = ours != NULL && has_log_of(ours, theirs) && has_its_slices(ours);
			json_decref(theirs);
			json_decref(ours);
		}
		if (all)
			return 0;
		nanosleep(&pause, NULL);
	}
	return fail("node %d has not caught up with the others within %d s, so no further node is restarted; "
				"see aurora.nodes on the server", i, LOCAL_CATCH_UP_S);
}

static int
cluster_restart(const LocalCluster *c)
{
	/* All must run, or stopping one more may be one too many. */
	for (int i = 1; i <= c->nodes; i++)
		if (local_pid(c, i) == 0)
			return fail("node %d does not run; start it first, with \"auroractl cluster start\"", i);
	for (int i = 1; i <= c->nodes; i++)
		if (wait_caught_up(c, i) != 0 || end_stop(c, i, begin_stop(c, i)) != 0 ||
			start_node(c, i) != 0 || wait_caught_up(c, i) != 0)
			return 1;
	return 0;
}

/* ---- the command ------------------------------------------------------ */

static int
usage(const char *message)
{
	fprintf(stderr, "auroractl: %s\n"
			"Usage: auroractl cluster start --dir DIR [--nodes N] [--port P]\n"
			"       auroractl cluster stop|restart|status --dir DIR\n", message);
	return 2;
}

/* A number from 1 to max; 0: it is none. */
static int
number(const char *text, int max)
{
	char	   *end;
	long		v = strtol(text, &end, 10);

	return *text != '\0' && *end == '\0' && v >= 1 && v <= max ? (int) v : 0;
}

static int
run_command(LocalCluster *c, const char *verb, int nodes, int port)
{
	if (strcmp(verb, "start") == 0)
		return cluster_start(c, nodes, port);
	if (strcmp(verb, "stop") != 0 && strcmp(verb, "restart") != 0 && strcmp(verb, "status") != 0)
		return usage("say start, stop, restart or status");
	if (nodes != 0 || port != 0)
		return usage("--nodes and --port are for start");
	if (c->lock_fd < 0)
		return fail("there is no cluster in \"%s\"", c->dir);
	return strcmp(verb, "stop") == 0 ? cluster_stop(c) :
		strcmp(verb, "restart") == 0 ? cluster_restart(c) : cluster_status(c);
}

int
ctl_cluster(int argc, char **argv)
{
	const char *verb = argc > 0 ? argv[0] : "";
	const char *dir = NULL;
	LocalCluster c = {.lock_fd = -1};
	int			nodes = 0;
	int			port = 0;
	int			rc;

	for (int i = 1; i < argc; i += 2)
	{
		if (i + 1 >= argc)
			return usage("a value is missing at the end");
		if (strcmp(argv[i], "--dir") == 0)
			dir = argv[i + 1];
		else if (strcmp(argv[i], "--nodes") == 0)
		{
			nodes = number(argv[i + 1], LOCAL_NODES_MAX);
			if (nodes == 0)
				return usage("--nodes must be from 1 to 7");
		}
		else if (strcmp(argv[i], "--port") == 0)
		{
			port = number(argv[i + 1], 65535);
			if (port == 0)
				return usage("--port must be from 1 to 65535");
		}
		else
			return usage("unknown option");
	}
	if (dir == NULL)
		return usage("--dir is missing");
	if (!local_absolute(dir, c.dir, sizeof(c.dir)))
		return fail("the path \"%s\" is too long", dir);
	rc = open_cluster(&c);
	if (rc == 0)
		rc = run_command(&c, verb, nodes, port);
	if (c.lock_fd >= 0)
		close(c.lock_fd);
	return rc;
}
