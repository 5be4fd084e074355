/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auroractl.c: the command line for storage nodes.
 *
 * Exit status: 0 all is well; 1 the node could not be asked, or a check found
 * problems; 2 wrong usage.
 */
#include "ctl/ctl.h"

#include <curl/curl.h>
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
		   "  auroractl check --dir DIR [--log-dir DIR]\n"
		   "  auroractl cluster start --dir DIR [--nodes N] [--port P]\n"
		   "  auroractl cluster stop|restart|status --dir DIR\n\n"
		   "Targets:\n"
		   "  --socket PATH        the node's socket (embedded: DATA/aurora/storaged.sock)\n"
		   "  --http HOST:PORT     the node's HTTP address\n"
		   "  --http-socket PATH   the node's HTTP socket\n\n"
		   "Commands:\n"
		   "  status               state, positions, sizes; --json: as the node gives it\n"
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
	char	   *text;
	json_error_t error;
	json_t	   *status;

	curl_global_init(CURL_GLOBAL_DEFAULT);
	text = ctl_fetch_status(target);
	curl_global_cleanup();
	if (text == NULL)
		return 1;
	status = json_loads(text, 0, &error);
	if (status == NULL)
	{
		fprintf(stderr, "auroractl: the node's answer is no JSON: %s\n", error.text);
		free(text);
		return 1;
	}
	if (as_json)
	{
		json_dumpf(status, stdout, JSON_INDENT(2));
		printf("\n");
	}
	else
		ctl_print_status(status);
	json_decref(status);
	free(text);
	return 0;
}

int
main(int argc, char **argv)
{
	CtlTarget	target = {0};
	const char *command = NULL;
	const char *dir = NULL;
	const char *log_dir = NULL;
	bool		as_json = false;
	int			targets;

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
			as_json = true;
		else if (strcmp(arg, "--socket") == 0)
			value = &target.socket;
		else if (strcmp(arg, "--http") == 0)
			value = &target.http;
		else if (strcmp(arg, "--http-socket") == 0)
			value = &target.http_socket;
		else if (strcmp(arg, "--dir") == 0)
			value = &dir;
		else if (strcmp(arg, "--log-dir") == 0)
			value = &log_dir;
		else if (arg[0] == '-')
			return usage("unknown option", arg);
		else if (command != NULL)
			return usage("more than one command:", arg);
		else
			command = arg;
		if (value != NULL)
		{
			if (i + 1 >= argc)
				return usage("a value is missing after", arg);
			*value = argv[++i];
		}
	}
	targets = (target.socket != NULL) + (target.http != NULL) + (target.http_socket != NULL);
	if (command == NULL)
		return usage("no command", NULL);
	if (strcmp(command, "status") == 0)
		return targets == 1 ? run_status(&target, as_json) :
			usage("give one of --socket, --http and --http-socket", NULL);
	if (strcmp(command, "check") == 0)
		return dir != NULL && targets == 0 ? ctl_check(dir, log_dir != NULL ? log_dir : "") :
			usage("check needs --dir (and --log-dir) only", NULL);
	return usage("unknown command", command);
}
