/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_usage.c: aurora_storaged and auroractl with wrong addresses, words,
 * options and directories: each ends by itself, with the exit code that
 * scripts look at (2: wrong usage, 1: it could not be done), and a message
 * that names what is wrong.  (What a running cluster refuses: t/040, t/051.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/wait.h>

#include "tests/testnode.h"

#define DAEMON "aurora_storaged"
#define CTL "auroractl"

typedef struct Case
{
	const char *program;
	const char *arguments;		/* to a shell, in the test's directory */
	int			code;
	const char *says;
} Case;

/* The output of a command that runs for 20 s at most; its exit code. */
static int
run(const char *program, const char *arguments, char *out, size_t outlen)
{
	char		command[6000];
	size_t		len = 0;
	size_t		n;
	FILE	   *f;
	int			st;

	snprintf(command, sizeof(command), "cd %s && exec timeout 20 %s %s </dev/null 2>&1", tn.root,
			 daemon_path(program), arguments);
	f = popen(command, "r");
	assert_non_null(f);
	while (len < outlen - 1 && (n = fread(out + len, 1, outlen - 1 - len, f)) > 0)
		len += n;
	out[len] = '\0';
	st = pclose(f);
	assert_true(WIFEXITED(st));
	return WEXITSTATUS(st);
}

static void
run_all(const Case *c, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		char		out[8000];
		int			code = run(c[i].program, c[i].arguments, out, sizeof(out));

		if (code != c[i].code || strstr(out, c[i].says) == NULL)
			fail_msg("%s %s: exit code %d, not %d, or does not say \"%s\":\n%s", c[i].program,
					 c[i].arguments, code, c[i].code, c[i].says, out);
	}
}

#define RUN_ALL(cases) run_all(cases, sizeof(cases) / sizeof((cases)[0]))

static void
test_addresses(void **state)
{
	static const Case cases[] = {
		{DAEMON, "--dir n --listen 127.0.0.1", 1, "\"127.0.0.1\" is not of the form HOST:PORT"},
		{DAEMON, "--dir n --listen 127.0.0.1:70000", 1, "\"127.0.0.1:70000\" is not of the form HOST:PORT, with a port from 1 to 65535"},
		{DAEMON, "--dir n --listen 127.0.0.1:0", 1, "with a port from 1 to 65535"},
		{DAEMON, "--dir n --listen 127.0.0.1:+5", 1, "with a port from 1 to 65535"},
		{DAEMON, "--dir n --listen 127.0.0.1:7015x", 1, "with a port from 1 to 65535"},
		{DAEMON, "--dir n --listen a..b:7015", 1, "could not resolve \"a..b:7015\""},
		{DAEMON, "--dir n --socket s --http 127.0.0.1:99999", 1, "with a port from 1 to 65535"},
		{DAEMON, "--dir n --socket s --cluster-init", 1, "give --listen a host and a port"},
		{DAEMON, "--dir n --socket s --advertise h:70000 --cluster-init", 1, "give --advertise HOST:PORT"},
		{DAEMON, "--dir n --socket s --advertise 127.0.0.1:65535 --cluster-init", 1, "there is no port after that of \"127.0.0.1:65535\""},
		{DAEMON, "--dir n --socket s --advertise 127.0.0.1:5 --meta-listen 127.0.0.1:65536 --cluster-init", 1, "--meta-listen \"127.0.0.1:65536\" is not of the form"},
		{DAEMON, "--dir n --listen 127.0.0.1:5 --join nobody", 2, "option \"join\" is not of the form HOST:PORT"},
		{DAEMON, "--dir n --socket none/s", 1, "could not bind socket \"none/s\": its directory is not there, or may not be written to"},
		{CTL, "--node 127.0.0.1 node list", 1, "\"127.0.0.1\" is not of the form HOST:PORT"},
		{CTL, "--node 127.0.0.1:65536 node list", 1, "with a port from 1 to 65535"},
		{CTL, "--node a..b:7015 ring show", 1, "could not resolve \"a..b:7015\""},
		{CTL, "--node 127.0.0.1:1 status", 1, "could not connect to \"127.0.0.1:1\": Connection refused"},
		{CTL, "--socket none/s status", 1, "could not connect to \"none/s\": No such file or directory"},
		{CTL, "--http 127.0.0.1:1 status", 1, "Check that aurora_storaged runs there and was started with --http"},
	};

	(void) state;
	RUN_ALL(cases);
}

static void
test_options(void **state)
{
	static const Case cases[] = {
		{DAEMON, "", 2, "option --dir is required"},
		{DAEMON, "--dir n", 2, "give --socket or --listen"},
		{DAEMON, "--dir", 2, "option \"--dir\" needs a value"},
		{DAEMON, "--frob", 2, "unknown option \"--frob\""},
		{DAEMON, "--dir n --socket s more", 2, "unknown option \"more\""},
		{DAEMON, "--dir n --socket s --memory 31", 2, "at least 32, not \"31\""},
		{DAEMON, "--dir n --socket s --memory 99999999999999", 2, "must be a number of megabytes"},
		{DAEMON, "--dir n --socket s --memory -5", 2, "not \"-5\""},
		{DAEMON, "--dir n --socket s --weight 10001", 2, "from 1 to 10000"},
		{DAEMON, "--dir n --socket s --replicas 0", 2, "from 1 to 5"},
		{DAEMON, "--dir n --socket s --landing disk", 2, "must be auto, pmem or file"},
		{DAEMON, "--dir n --socket s --cluster-init --join a:1", 2, "give --cluster-init to the first node"},
		{DAEMON, "--dir n --socket s --log-dir none", 1, "could not use --log-dir \"none\""},
		{DAEMON, "--dir none/n --socket s", 1, "could not make directory \"none/n\": No such file or directory"},
		{DAEMON, "--config none", 2, "could not open configuration file \"none\""},
		{DAEMON, "--config wrong.conf", 2, "\"wrong.conf\", line 2: unknown option \"frob\""},
		{CTL, "", 2, "no command"},
		{CTL, "frob", 2, "unknown command \"frob\""},
		{CTL, "status", 2, "give one of --socket, --node, --http and --http-socket"},
		{CTL, "--node", 2, "a value is missing after \"--node\""},
		{CTL, "--node 127.0.0.1:1 status --frob", 2, "unknown option \"--frob\""},
		{CTL, "--node 127.0.0.1:1 node drain x", 2, "node needs list, drain NUMBER"},
		{CTL, "--node 127.0.0.1:1 node drain 1 --force", 2, "--force is for node remove"},
		{CTL, "--node 127.0.0.1:1 node weight 1 10001", 2, "a number from 1 to 10000"},
		{CTL, "--node 127.0.0.1:1 group add x 1", 2, "group needs add VOLUME NODE"},
		{CTL, "--node 127.0.0.1:1 ring", 2, "ring needs"},
		{CTL, "check", 2, "check needs --dir"},
		{CTL, "check --dir none", 2, "\"none\" is no directory of an aurora_storaged"},
		{CTL, "check --dir wrong.conf", 2, "\"wrong.conf\" is no directory of an aurora_storaged"},
	};

	(void) state;
	RUN_ALL(cases);
}

/* What is wrong without asking a node is said without asking one. */
static void
test_keys(void **state)
{
	static const Case cases[] = {
		{CTL, "--node 127.0.0.1:1 kv", 2, "there are kv get, put, del and list"},
		{CTL, "--node 127.0.0.1:1 kv frob", 2, "there are kv get, put, del and list"},
		{CTL, "--node 127.0.0.1:1 kv get", 2, "give a key of 1 to 1024 bytes"},
		{CTL, "--node 127.0.0.1:1 kv get a b", 2, "too many words after kv get"},
		{CTL, "--node 127.0.0.1:1 kv put a", 2, "kv put needs a value, or --file"},
		{CTL, "--node 127.0.0.1:1 kv get a -r 6", 2, "at most 5"},
		/* (65,537 bytes, of which 16 bits would leave one) */
		{CTL, "--node 127.0.0.1:1 kv list $(printf '%065537d' 0)", 2, "has at most 1024 bytes"},
		{CTL, "--node 127.0.0.1:1 kv list --after $(printf '%065537d' 0)", 2, "has at most 1024 bytes"},
		{CTL, "--http 127.0.0.1:1 kv get a", 2, "kv needs --socket or --node"},
		{CTL, "--node 127.0.0.1:1 kv get a", 1, "Connection refused"},
	};

	(void) state;
	RUN_ALL(cases);
}

static int
setup(void **state)
{
	char		path[300];
	FILE	   *f;

	(void) state;
	if (testnode_setup("usage", "") != 0)
		return -1;
	snprintf(path, sizeof(path), "%s/wrong.conf", tn.root);
	f = fopen(path, "w");
	if (f == NULL)
		return -1;
	fprintf(f, "# a comment\nfrob = 1\n");
	return fclose(f);
}

static int
teardown(void **state)
{
	(void) state;
	testnode_teardown();
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_keys),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
