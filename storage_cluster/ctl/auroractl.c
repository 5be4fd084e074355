/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auroractl.c: the command line for storage nodes.
 *
 * Exit status: 0 all is well; 1 the node could not be asked, or a check found
 * problems; 2 wrong usage.
 */
#include "ctl/ctl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/au_config.h"

static void
print_help(void)
{
	printf("auroractl shows and checks Aurora's storage nodes.\n\n"
		   "Usage:\n"
		   "  auroractl TARGET status [--json]\n"
		   "  auroractl TARGET node list\n"
		   "  auroractl TARGET node drain NUMBER [--wait]\n"
		   "  auroractl TARGET node remove NUMBER [--force]\n"
		   "  auroractl TARGET node weight NUMBER WEIGHT [--wait]\n"
		   "  auroractl TARGET ring show\n"
		   "  auroractl TARGET group add|remove VOLUME NODE\n"
		   "  auroractl TARGET group replace VOLUME NODE BY-NODE\n"
		   "  auroractl TARGET kv get KEY [-r N] [-n N] [--sloppy] [--json]\n"
		   "  auroractl TARGET kv put KEY VALUE|--file FILE [--context C] [-w N] [-n N] [--sloppy]\n"
		   "  auroractl TARGET kv del KEY [--context C] [-w N] [-n N] [--sloppy]\n"
		   "  auroractl TARGET kv list [PREFIX] [--after KEY] [--limit N]\n"
		   "  auroractl check --dir DIR [--log-dir DIR]\n"
		   "  auroractl cluster start --dir DIR [--nodes N] [--port P]\n"
		   "  auroractl cluster stop|restart|status --dir DIR\n\n"
		   "Targets:\n"
		   "  --socket PATH        the node's socket (embedded: DATA/aurora/storaged.sock)\n"
		   "  --node HOST:PORT     the node's address, as servers use it\n"
		   "  --http HOST:PORT     the node's HTTP address\n"
		   "  --http-socket PATH   the node's HTTP socket\n\n"
		   "Commands:\n"
		   "  status               state, positions, sizes; --json: as the node gives it\n"
		   "  node list            the nodes of the cluster that the node is in\n"
		   "  node drain           have a node give all its slices to others\n"
		   "  node remove          take a drained node out; --force: one that is down and\n"
		   "                       will not come back; its slices are copied from others\n"
		   "  node weight          a node's share, in relation to the others'; 100 is ordinary\n"
		   "  ring show            who has how many slices, and what is moving\n"
		   "                       (a node joins a cluster when it is started with --join)\n"
		   "  group                which nodes keep the log of a volume (see status)\n"
		   "  kv                   the cluster's key-value interface; without --context, put and\n"
		   "                       del replace what is there at the moment; see docs/keyvalue.md\n"
		   "  check                verify every file of a stopped node\n"
		   "  cluster              nodes on this machine, for trying out; everything in DIR;\n"
		   "                       restart: one after the other, as each has caught up\n\n"
		   "  --version, --help\n");
}

static int
usage(const char *message, const char *argument)
{
	fprintf(stderr, "auroractl: %s%s%s%s; see auroractl --help\n", message,
			argument ? " \"" : "", argument ? argument : "", argument ? "\"" : "");
	return 2;
}

static int
run_status(const CtlTarget *target, bool as_json)
{
	json_t	   *status = ctl_get_status(target);

	if (status == NULL)
		return 1;
	if (as_json)
	{
		json_dumpf(status, stdout, JSON_INDENT(2));
		printf("\n");
	}
	else
		ctl_print_status(status);
	json_decref(status);
	return 0;
}

#define WORDS_MAX 5

typedef struct Arguments
{
	CtlTarget	target;
	const char *dir;
	const char *log_dir;
	bool		as_json;
	bool		force;
	bool		wait;
	CtlKv		kv;
	int			nwords;
	const char *words[WORDS_MAX];
} Arguments;

static int
run(const Arguments *a)
{
	const CtlTarget *t = &a->target;
	int			targets = (t->socket != NULL) + (t->node != NULL) + (t->http != NULL) +
		(t->http_socket != NULL);
	const char *command = a->words[0];

	if (a->nwords == 0)
		return usage("no command", NULL);
	if (strcmp(command, "check") == 0)
		return a->dir != NULL && targets == 0 && a->nwords == 1 ?
			ctl_check(a->dir, a->log_dir != NULL ? a->log_dir : "") :
			usage("check needs --dir (and --log-dir) only", NULL);
	if (strcmp(command, "status") != 0 && strcmp(command, "node") != 0 && strcmp(command, "ring") != 0 &&
		strcmp(command, "group") != 0 && strcmp(command, "kv") != 0)
		return usage("unknown command", command);
	if (targets != 1)
		return usage("give one of --socket, --node, --http and --http-socket", NULL);
	if (strcmp(command, "node") == 0)
		return ctl_node(t, a->nwords - 1, (const char **) a->words + 1, a->force, a->wait);
	if (strcmp(command, "group") == 0)
		return ctl_group(t, a->nwords - 1, (const char **) a->words + 1);
	if (strcmp(command, "ring") == 0)
		return ctl_ring(t, a->nwords - 1, (const char **) a->words + 1);
	if (strcmp(command, "kv") == 0)
		return ctl_kv(t, a->nwords - 1, (const char **) a->words + 1, &a->kv);
	return a->nwords == 1 ? run_status(t, a->as_json) : usage("more than one command:", a->words[1]);
}

int
main(int argc, char **argv)
{
	Arguments	a = {0};

	if (argc > 1 && strcmp(argv[1], "cluster") == 0)
		return ctl_cluster(argc - 2, argv + 2);
	for (int i = 1; i < argc; i++)
	{
		const char *arg = argv[i];
		const char **value = NULL;

		if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)
		{
			print_help();
			return 0;
		}
		if (strcmp(arg, "--version") == 0 || strcmp(arg, "-V") == 0)
		{
			printf("auroractl %s (protocol %d)\n", AU_VERSION, AU_WIRE_VERSION);
			return 0;
		}
		if (strcmp(arg, "--json") == 0)
			a.as_json = a.kv.as_json = true;
		else if (strcmp(arg, "--sloppy") == 0)
			a.kv.sloppy = true;
		else if (strcmp(arg, "--context") == 0)
			value = &a.kv.context;
		else if (strcmp(arg, "--file") == 0)
			value = &a.kv.file;
		else if (strcmp(arg, "--limit") == 0)
			value = &a.kv.limit;
		else if (strcmp(arg, "--after") == 0)
			value = &a.kv.after;
		else if (strcmp(arg, "-n") == 0)
			value = &a.kv.n;
		else if (strcmp(arg, "-r") == 0)
			value = &a.kv.r;
		else if (strcmp(arg, "-w") == 0)
			value = &a.kv.w;
		else if (strcmp(arg, "--socket") == 0)
			value = &a.target.socket;
		else if (strcmp(arg, "--force") == 0)
			a.force = true;
		else if (strcmp(arg, "--wait") == 0)
			a.wait = true;
		else if (strcmp(arg, "--node") == 0)
			value = &a.target.node;
		else if (strcmp(arg, "--http") == 0)
			value = &a.target.http;
		else if (strcmp(arg, "--http-socket") == 0)
			value = &a.target.http_socket;
		else if (strcmp(arg, "--dir") == 0)
			value = &a.dir;
		else if (strcmp(arg, "--log-dir") == 0)
			value = &a.log_dir;
		else if (arg[0] == '-')
			return usage("unknown option", arg);
		else if (a.nwords == WORDS_MAX)
			return usage("too many words:", arg);
		else
			a.words[a.nwords++] = arg;
		if (value != NULL)
		{
			if (i + 1 >= argc)
				return usage("a value is missing after", arg);
			*value = argv[++i];
		}
	}
	return run(&a);
}
