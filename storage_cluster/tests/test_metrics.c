/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_metrics.c: what a running daemon tells of itself: /metrics in the form
 * that Prometheus reads, histograms that add up, the figures of what was done;
 * and every metric that docs/grafana-aurora.json shows is there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>

#include "common/au_page.h"
#include "common/au_wire_kv.h"
#include "tests/testnode.h"

#define SYSID 7123456789012345681ULL
#define REL 16391u
#define DASHBOARD "../docs/grafana-aurora.json"

static char http[256];
static char text[1 << 20];		/* the last answer */

/* GET path over the HTTP socket; the body stands in text. */
static void
get(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char		request[200];
	size_t		len = 0;
	ssize_t		n;
	char	   *body;
	int			fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.100s", http);
	assert_int_equal(connect(fd, (struct sockaddr *) &addr, sizeof(addr)), 0);
	snprintf(request, sizeof(request), "GET %s HTTP/1.0\r\n\r\n", path);
	assert_int_equal(write(fd, request, strlen(request)), (ssize_t) strlen(request));
	while ((n = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t) n;
	close(fd);
	text[len] = '\0';
	assert_memory_equal(text, "HTTP/1.", 7);
	assert_memory_equal(text + 9, "200", 3);
	body = strstr(text, "\r\n\r\n");
	assert_non_null(body);
	memmove(text, body + 4, strlen(body + 4) + 1);
}

/* Log with a few hundred pages, shipped, applied and read. */
static void
work(void)
{
	AuMsgHelloOk hello;
	AuMsgTermOk t;
	AuMsgAppendOk ok = {0};
	AuMsgGetPages m = {.rel = {1663, 5, REL, 0},.nblocks = 64};
	AuFrame		f;
	Client		w,
				r;

	testnode_start_log(0x1000000);
	for (uint32_t i = 0; i < 400; i++)
	{
		uint8_t		memory[AU_OPS_MAX];
		AuOps		ops;

		au_ops_start(&ops, memory, sizeof(memory));
		au_ops_init(&ops, 0);
		walmake_ours(&tn.wal, REL, i % 100, ops.data, (uint16_t) ops.len);
	}
	testnode_hello(&w, AU_ROLE_WRITER, SYSID, &hello);
	testnode_term(&w, &t);
	assert_true(testnode_append(&w, t.term, tn.wal_start,
								(uint32_t) (walmake_pos(&tn.wal) - tn.wal_start)));
	testnode_expect(&w, &f, AU_MSG_APPEND_OK, "APPEND");
	assert_true(au_dec_append_ok(&f, &ok));
	testnode_hello(&r, AU_ROLE_READER, SYSID, &hello);
	m.not_before = walmake_pos(&tn.wal);
	for (uint32_t i = 0; i < 64; i++)
		m.blocks[i] = i;
	for (int i = 0; i < 10; i++)
	{
		assert_true(CLIENT_SEND(&r, au_enc_get_pages, &m));
		testnode_expect(&r, &f, AU_MSG_PAGES, "GET_PAGES");
		m.nblocks = i % 2 == 0 ? 1 : 64;
	}
	client_close(&r);
	client_close(&w);
}

/* Three writes, of which two do not know of each other, five reads, a list, and
 * what is refused. */
static void
use_kv(void)
{
	AuKvText	key = {1, (const uint8_t *) "k"};
	AuMsgKvPut	put = {.key = key,.len = 1,.value = (const uint8_t *) "v"};
	AuMsgKvGet	get = {.key = key};
	AuMsgKvList list = {.limit = 10};
	AuMsgHelloOk hello;
	AuFrame		f;
	Client		c;

	testnode_hello(&c, AU_ROLE_READER, SYSID, &hello);
	for (int i = 0; i < 3; i++)
	{
		put.key.bytes = (const uint8_t *) (i == 0 ? "a" : "k");
		assert_true(CLIENT_SEND(&c, au_enc_kv_put, &put));
		testnode_expect(&c, &f, AU_MSG_KV_PUT_OK, "PUT");
	}
	for (int i = 0; i < 5; i++)
	{
		assert_true(CLIENT_SEND(&c, au_enc_kv_get, &get));
		testnode_expect(&c, &f, AU_MSG_KV_GET_OK, "GET");
	}
	assert_true(CLIENT_SEND(&c, au_enc_kv_list, &list));
	testnode_expect(&c, &f, AU_MSG_KV_LIST_OK, "LIST");
	get.r = 3;					/* of one replica */
	assert_true(CLIENT_SEND(&c, au_enc_kv_get, &get));
	testnode_expect(&c, &f, AU_MSG_ERROR, "GET of three");
	client_close(&c);
}

/* ---- the format ------------------------------------------------------- */

static bool
name_char(char c)
{
	return isalnum((unsigned char) c) || c == '_' || c == ':';
}

/* Is `name` the family of a "# TYPE" line (with the suffixes of its type)? */
static bool
declared(const char *name, size_t len)
{
	static const char *const suffixes[] = {"", "_bucket", "_sum", "_count"};
	char		want[200];

	for (int i = 0; i < 4; i++)
	{
		size_t		s = strlen(suffixes[i]);

		if (len <= s || memcmp(name + len - s, suffixes[i], s) != 0)
			continue;
		snprintf(want, sizeof(want), "# TYPE %.*s %s", (int) (len - s), name,
				 i > 0 ? "histogram\n" : "");
		if (strstr(text, want) != NULL)
			return true;
	}
	return false;
}

/* Each line is a comment or "name{labels} value", each family is declared
 * once and before its samples, counters end in _total. */
static void
check_lines(void)
{
	int			samples = 0;

	for (const char *p = text; *p != '\0'; p = strchr(p, '\n') + 1)
	{
		size_t		n = 0;
		char	   *end;

		assert_non_null(strchr(p, '\n'));
		if (strncmp(p, "# HELP aurora_storaged_", 23) == 0)
			continue;
		if (strncmp(p, "# TYPE aurora_storaged_", 23) == 0)
		{
			char		line[200];
			size_t		len = strcspn(p, "\n");
			bool		total = memmem(p, len, "_total ", 7) != NULL;

			assert_int_equal(memmem(p, len, " counter", 8) != NULL, total);
			snprintf(line, sizeof(line), "%.*s\n", (int) len, p);
			assert_null(strstr(p + 1, line));
			continue;
		}
		while (name_char(p[n]))
			n++;
		if (n == 0 || !declared(p, n))
			fail_msg("no # TYPE before: %.*s", (int) strcspn(p, "\n"), p);
		if (p[n] == '{')
			n += strcspn(p + n, "}\n") + 1;
		assert_int_equal(p[n], ' ');
		strtod(p + n + 1, &end);
		assert_int_equal(*end, '\n');
		samples++;
	}
	assert_true(samples > 100);
}

/* The value of the line that begins with `prefix`; fails if there is none. */
static double
value_of(const char *prefix)
{
	const char *p = strstr(text, prefix);

	if (p == NULL)
		fail_msg("there is no %s", prefix);
	return strtod(p + strlen(prefix), NULL);
}

/* Buckets of a histogram never fall, the last is the count; returns it. */
static double
check_histogram_of(const char *name, const char *labels)
{
	char		prefix[400];
	double		last = 0,
				bound = 0;
	int			n = 0;
	const char *p;

	snprintf(prefix, sizeof(prefix), "aurora_storaged_%s_seconds_bucket{%s,le=\"", name, labels);
	for (p = strstr(text, prefix); p != NULL && strncmp(p, prefix, strlen(prefix)) == 0;
		 p = strchr(p, '\n') + 1)
	{
		char	   *end;
		double		le = strtod(p + strlen(prefix), &end);
		double		v = strtod(end + 3, NULL);

		assert_true(le > bound && v >= last);
		bound = le;
		last = v;
		n++;
	}
	assert_true(n > 10);
	snprintf(prefix, sizeof(prefix), "aurora_storaged_%s_seconds_count{%s} ", name, labels);
	assert_true(value_of(prefix) == last);
	snprintf(prefix, sizeof(prefix), "aurora_storaged_%s_seconds_sum{%s} ", name, labels);
	assert_true(value_of(prefix) >= 0);
	return last;
}

static double
check_histogram(const char *stage)
{
	char		labels[200];

	snprintf(labels, sizeof(labels), "volume=\"%llu\",stage=\"%s\"", (unsigned long long) SYSID, stage);
	return check_histogram_of("stage", labels);
}

static void
check_kv(void)
{
	assert_true(value_of("\naurora_storaged_kv_up ") == 1);
	assert_true(value_of("\naurora_storaged_kv_puts_total ") == 3);
	assert_true(value_of("\naurora_storaged_kv_gets_total ") == 6);
	assert_true(value_of("\naurora_storaged_kv_lists_total ") == 1);
	assert_true(value_of("\naurora_storaged_kv_failed_total ") == 1);
	assert_true(value_of("\naurora_storaged_kv_conflicts_total ") == 5);
	assert_true(value_of("\naurora_storaged_kv_slices_complete ") == 256);
	assert_true(value_of("\naurora_storaged_kv_requests ") == 0);
	assert_true(value_of("\naurora_storaged_kv_hints_total ") == 0);
	assert_true(value_of("\naurora_storaged_kv_repairs_total ") == 0);
	assert_true(check_histogram_of("kv_request", "request=\"put\"") == 3);
	assert_true(check_histogram_of("kv_request", "request=\"get\"") == 5);	/* answered */
	assert_true(check_histogram_of("kv_request", "request=\"list\"") == 1);
}

/* Each name aurora_storaged_... of the dashboard has a sample. */
static void
check_dashboard(void)
{
	static char dashboard[1 << 18];
	FILE	   *f = fopen(DASHBOARD, "r");
	size_t		len;
	int			n = 0;

	assert_non_null(f);
	len = fread(dashboard, 1, sizeof(dashboard) - 1, f);
	fclose(f);
	assert_true(len > 1000 && len < sizeof(dashboard) - 1);
	for (const char *p = dashboard; (p = strstr(p, "aurora_storaged_")) != NULL;)
	{
		char		line[200];
		size_t		k = 0;

		while (name_char(p[k]))
			k++;
		snprintf(line, sizeof(line), "\n%.*s", (int) k, p);
		/* with labels or without */
		strcat(line, "{");
		if (strstr(text, line) == NULL)
		{
			line[strlen(line) - 1] = ' ';
			if (strstr(text, line) == NULL)
				fail_msg("the dashboard shows %.*s, which is not exported", (int) k, p);
		}
		p += k;
		n++;
	}
	assert_true(n > 30);
}

static void
test_metrics(void **state)
{
	char		line[200];

	(void) state;
	work();
	use_kv();
	usleep(300000);				/* younger snapshots are good enough for the node */
	get("/metrics");
	check_lines();
	check_dashboard();
	check_kv();
	assert_true(check_histogram("append") == 1);
	assert_true(check_histogram("persist") >= 1);
	assert_true(check_histogram("decode") >= 1);
	assert_true(check_histogram("decode") == check_histogram("apply"));
	assert_true(check_histogram("read") == 10);
	assert_true(check_histogram("read_execute") == 10);
	assert_true(check_histogram("send") > 10);
	assert_true(check_histogram("apply_turn") >= 1);
	(void) check_histogram("gc");
	assert_true(check_histogram_of("loop", "part=\"turn\"") > 10);
	(void) check_histogram_of("loop", "part=\"snapshot\"");
	(void) check_histogram("read_wait");
	(void) check_histogram("write");
	(void) check_histogram("materialise");
	(void) check_histogram("compaction");
	snprintf(line, sizeof(line), "\naurora_storaged_pages_read_total{volume=\"%llu\"} ",
			 (unsigned long long) SYSID);
	assert_true(value_of(line) == 64 + 5 * 1 + 4 * 64);
	snprintf(line, sizeof(line), "\naurora_storaged_up{volume=\"%llu\"} ",
			 (unsigned long long) SYSID);
	assert_true(value_of(line) == 1);

	/* the same, for auroractl and the view aurora.storage_latency */
	get("/status");
	assert_non_null(strstr(text, "\"latency\":{\"append\":{\"count\":1,\"sum_us\":"));
	assert_non_null(strstr(text, "\"compaction\":{\"count\":"));
	assert_non_null(strstr(text, "\"p99_us\":"));
	assert_non_null(strstr(text, "\"puts\":3"));
	assert_non_null(strstr(text, "\"put\":{\"count\":3,"));
	assert_int_equal(testnode_end(SIGTERM), 0);
}

static int
setup(void **state)
{
	(void) state;
	if (testnode_setup("metrics", "") != 0)
		return -1;
	snprintf(http, sizeof(http), "%s/http", tn.root);
	testnode_start("--http-socket", http);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_metrics),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, setup, testnode_fixture_teardown);
}
