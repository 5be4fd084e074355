/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_daemon.c: the real aurora_storaged over its socket: makes a volume,
 * ships log, reads pages back at several LSNs, is killed with -9 in the
 * middle and brought back, refuses what it must.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/au_page.h"
#include "tests/testnode.h"

#define SYSID 7123456789012345678ULL
#define REL 16384u
#define BLOCKS 40
#define BASE ((AuLsn) 0x1000000)

/* ---- log and model ---------------------------------------------------- */

typedef struct Version
{
	uint32_t	blk;
	AuLsn		lsn;
	uint8_t		page[AU_PAGE_SIZE];
} Version;

static Version *versions;
static int	nversions;
static int	versions_cap;

static const Version *
newest_of(uint32_t blk, AuLsn lsn)
{
	for (int i = nversions - 1; i >= 0; i--)
		if (versions[i].blk == blk && versions[i].lsn <= lsn)
			return &versions[i];
	return NULL;
}

/* One more record in the log, one more version in the model. */
static void
add_record(void)
{
	uint8_t		memory[AU_OPS_MAX];
	uint8_t		bytes[3000];
	uint32_t	blk = testnode_rnd(BLOCKS);
	const Version *old = newest_of(blk, AU_LSN_MAX);
	AuOps		ops;
	Version    *v;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t) testnode_rnd(256);
	au_ops_start(&ops, memory, sizeof(memory));
	if (old == NULL || testnode_rnd(40) == 0)
		au_ops_init(&ops, 4000);	/* patched below: not the hole */
	au_ops_patch(&ops, (uint16_t) (5000 + testnode_rnd(100)),
				 (uint16_t) (1 + testnode_rnd(testnode_rnd(20) ? 100 : 3000)), bytes);
	assert_false(ops.overflow);
	walmake_ours(&tn.wal, REL, blk, ops.data, (uint16_t) ops.len);
	if (nversions == versions_cap)
	{
		versions_cap = versions_cap * 2 + 1024;
		versions = realloc(versions, (size_t) versions_cap * sizeof(*versions));
		assert_non_null(versions);
	}
	old = newest_of(blk, AU_LSN_MAX);
	v = &versions[nversions++];
	if (old != NULL)
		memcpy(v->page, old->page, AU_PAGE_SIZE);
	else
		memset(v->page, 0, AU_PAGE_SIZE);
	v->blk = blk;
	v->lsn = tn.wal.last_end;
	assert_int_equal(au_page_apply(v->page, ops.data, ops.len, NULL), AU_OK);
	au_page_set_lsn(v->page, v->lsn);
}

static void
make_log(int n)
{
	testnode_start_log(BASE);
	nversions = 0;
	for (int i = 0; i < n; i++)
		add_record();
}

/* ---- talking ---------------------------------------------------------- */

static void
stop_node(int sig)
{
	int			st = testnode_end(sig);

	if (sig == SIGTERM && !(WIFEXITED(st) && WEXITSTATUS(st) == 0))
		fail_msg("clean stop ended with status %x", (unsigned) st);
}

static void
expect_error(Client *c, AuStatus status, const char *part)
{
	AuFrame		f;
	AuMsgError	e;

	assert_true(client_receive(c, &f, 60000));
	assert_int_equal(f.type, AU_MSG_ERROR);
	assert_true(au_dec_error(&f, &e));
	if (e.status != status || strstr(e.message, part) == NULL)
		fail_msg("got error %s \"%s\", expected %s \"%s\"", au_status_name(e.status), e.message,
				 au_status_name(status), part);
}

/* Ship up to `to` and wait for the acknowledgement. */
static void
ship(Client *c, const AuMsgTermOk *t, AuLsn from, AuLsn to)
{
	AuLsn		durable = from;

	while (from < to)
	{
		uint32_t	n = 1 + testnode_rnd(60000);

		n = n > to - from ? (uint32_t) (to - from) : n;
		assert_true(testnode_append(c, t->term, from, n));
		from += n;
	}
	while (durable < to)
	{
		AuFrame		f;
		AuMsgAppendOk ok;

		assert_true(client_receive(c, &f, 60000));
		assert_int_equal(f.type, AU_MSG_APPEND_OK);
		assert_true(au_dec_append_ok(&f, &ok));
		assert_true(ok.durable_lsn >= durable && ok.received_lsn >= ok.durable_lsn);
		durable = ok.durable_lsn;
	}
}

static AuRelId
rel_id(void)
{
	return (AuRelId) {1663, 5, REL, 0};
}

/* Every block of the relation, newest (read_lsn 0) or as of an LSN. */
static void
compare_pages(Client *c, AuLsn not_before, AuLsn read_lsn)
{
	static AuMsgPages pages;
	AuMsgGetPages m = {.rel = rel_id(),.not_before = not_before,.read_lsn = read_lsn,.nblocks = BLOCKS};
	AuFrame		f;

	for (uint32_t b = 0; b < BLOCKS; b++)
		m.blocks[b] = b;
	assert_true(CLIENT_SEND(c, au_enc_get_pages, &m));
	testnode_expect(c, &f, AU_MSG_PAGES, "GET_PAGES");
	assert_true(au_dec_pages(&f, &pages));
	assert_true(pages.as_of >= not_before);
	assert_int_equal(pages.nblocks, BLOCKS);
	for (uint32_t b = 0; b < BLOCKS; b++)
	{
		const Version *v = newest_of(b, read_lsn ? read_lsn : pages.as_of);

		assert_int_equal(pages.status[b], v != NULL ? AU_OK : AU_NOT_FOUND);
		if (v != NULL && memcmp(pages.page[b], v->page, AU_PAGE_SIZE) != 0)
			fail_msg("block %u as of %X/%X differs", b, AU_LSN_ARGS(read_lsn ? read_lsn : pages.as_of));
	}
}

static void
compare_some_history(Client *c, AuLsn upto)
{
	for (int i = 0; i < 10; i++)
	{
		AuLsn		lsn = versions[testnode_rnd((uint32_t) nversions)].lsn;

		if (lsn <= upto)
			compare_pages(c, 0, lsn);
	}
}

/* ---- tests ------------------------------------------------------------ */

static void
test_ship_and_read(void **state)
{
	Client		w,
				r;
	AuMsgHelloOk hello;
	AuMsgTermOk term;
	AuMsgTerm	no_create;
	AuMsgGetSize size_req = {.rel = rel_id()};
	AuMsgSize	size;
	AuMsgListRels list_req = {.db = 5};
	AuMsgRels	rels;
	AuFrame		f;
	AuLsn		end;

	(void) state;
	make_log(3000);
	testnode_start("--single-volume", "7123456789012345678");
	end = walmake_pos(&tn.wal);

	testnode_hello(&r, AU_ROLE_READER, SYSID, &hello);
	assert_int_equal(hello.volume_known, 0);
	assert_true(CLIENT_SEND(&r, au_enc_get_size, &size_req));
	expect_error(&r, AU_REFUSED, "is not on this node");

	testnode_hello(&w, AU_ROLE_WRITER, SYSID, &hello);
	no_create = testnode_usual_term();
	no_create.may_create = 0;
	assert_true(CLIENT_SEND(&w, au_enc_term, &no_create));
	expect_error(&w, AU_REFUSED, "is not on this node");
	testnode_term(&w, &term);
	assert_int_equal(term.term, 1);
	assert_int_equal(term.received_lsn, tn.wal_start);
	ship(&w, &term, tn.wal_start, end);
	compare_pages(&r, end, 0);
	compare_some_history(&r, end);

	size_req.not_before = end;
	assert_true(CLIENT_SEND(&r, au_enc_get_size, &size_req));
	assert_true(client_receive(&r, &f, 60000));
	assert_true(au_dec_size(&f, &size));
	assert_int_equal(size.nblocks, BLOCKS);
	assert_true(CLIENT_SEND(&r, au_enc_list_rels, &list_req));
	assert_true(client_receive(&r, &f, 60000));
	assert_true(au_dec_rels(&f, &rels));
	assert_int_equal(rels.count, 1);
	assert_int_equal(au_get_u32(rels.entries + 8), REL);
	{
		AuWriter	out;

		au_writer_start(&out, r.out, CLIENT_BUF);
		assert_true(au_enc_empty(&out, AU_MSG_STATUS, 99) && au_enc_empty(&out, AU_MSG_PING, 100));
		assert_true(client_send_raw(&r, out.data, out.len));
		assert_true(client_receive(&r, &f, 60000));
		assert_int_equal(f.type, AU_MSG_STATUS_OK);
		assert_non_null(memmem(f.payload, f.length, "7123456789012345678", 19));
		assert_true(client_receive(&r, &f, 60000));
		assert_int_equal(f.type, AU_MSG_PONG);
	}
	client_close(&w);
	client_close(&r);
	stop_node(SIGTERM);

	/* a clean restart has it all, without the landing log's help */
	testnode_start(NULL, NULL);
	testnode_hello(&r, AU_ROLE_READER, SYSID, &hello);
	assert_int_equal(hello.volume_known, 1);
	assert_int_equal(hello.durable_lsn, end);
	compare_pages(&r, end, 0);
	compare_some_history(&r, end);
	client_close(&r);
	stop_node(SIGTERM);
}

/* Killed in mid-stream again and again: what was acknowledged is there, and
 * pages are right at every LSN. */
static void
test_kill(void **state)
{
	AuLsn		acked = walmake_pos(&tn.wal);

	(void) state;
	for (int round = 0; round < 12; round++)
	{
		Client		w,
					r;
		AuMsgHelloOk hello;
		AuMsgTermOk term;
		AuFrame		f;
		AuLsn		from,
					end;

		testnode_start(NULL, NULL);
		testnode_hello(&w, AU_ROLE_WRITER, SYSID, &hello);
		testnode_term(&w, &term);
		if (term.received_lsn < acked)
			fail_msg("round %d: acknowledged %X/%X, but the log ends at %X/%X", round,
					 AU_LSN_ARGS(acked), AU_LSN_ARGS(term.received_lsn));
		testnode_hello(&r, AU_ROLE_READER, SYSID, &hello);
		from = term.received_lsn;
		compare_pages(&r, from > tn.wal_start ? from & ~(AuLsn) 7 : 0, 0);
		for (int i = 0; i < 400; i++)
			add_record();
		end = walmake_pos(&tn.wal);
		while (from < end)
		{
			uint32_t	n = 1 + testnode_rnd(20000);

			n = n > end - from ? (uint32_t) (end - from) : n;
			assert_true(testnode_append(&w, term.term, from, n));
			from += n;
			while (client_receive(&w, &f, 0))
			{
				AuMsgAppendOk ok;

				assert_true(au_dec_append_ok(&f, &ok));
				acked = ok.durable_lsn;
			}
			if (testnode_rnd(40) == 0)
				break;
		}
		usleep(testnode_rnd(20000));
		stop_node(SIGKILL);
		client_close(&w);
		client_close(&r);
	}
	{
		Client		w,
					r;
		AuMsgHelloOk hello;
		AuMsgTermOk term;
		AuLsn		end = walmake_pos(&tn.wal);

		testnode_start(NULL, NULL);
		testnode_hello(&w, AU_ROLE_WRITER, SYSID, &hello);
		testnode_term(&w, &term);
		assert_int_equal(term.term, 1 + 12 + 1);
		ship(&w, &term, term.received_lsn, end);
		testnode_hello(&r, AU_ROLE_READER, SYSID, &hello);
		compare_pages(&r, end, 0);
		for (int i = 0; i < 10; i++)
			compare_some_history(&r, end);
		client_close(&w);
		client_close(&r);
		stop_node(SIGTERM);
	}
}

static void
test_check_and_versions(void **state)
{
	char		command[9000];

	(void) state;
	snprintf(command, sizeof(command), "%s check --dir %s >/dev/null", daemon_path("auroractl"), tn.dir);
	assert_int_equal(system(command), 0);
	snprintf(command, sizeof(command), "%s --version >/dev/null && %s --help >/dev/null",
			 daemon_path("auroractl"), daemon_path("auroractl"));
	assert_int_equal(system(command), 0);
}

/* Two writers, stale copies, dead timelines, gaps. */
static void
test_refusals(void **state)
{
	Client		a,
				b,
				other;
	AuMsgHelloOk hello;
	AuMsgTermOk ta,
				tb;
	AuMsgTerm	m;
	AuLsn		end;

	(void) state;
	testnode_start("--disk-reserve-mb", "1");
	testnode_hello(&a, AU_ROLE_WRITER, SYSID, &hello);
	testnode_term(&a, &ta);
	end = ta.received_lsn;

	m = testnode_usual_term();
	m.local_end = end - 8;
	testnode_hello(&b, AU_ROLE_WRITER, SYSID, &hello);
	assert_true(CLIENT_SEND(&b, au_enc_term, &m));
	expect_error(&b, AU_REFUSED, "before what storage has acknowledged");
	m = testnode_usual_term();
	m.wal_segment_size = WALMAKE_SEGMENT * 2;
	assert_true(CLIENT_SEND(&b, au_enc_term, &m));
	expect_error(&b, AU_REFUSED, "segments");
	m = testnode_usual_term();
	m.timeline = 2;
	m.switch_lsn = tn.wal_start + 64;
	assert_true(CLIENT_SEND(&b, au_enc_term, &m));
	expect_error(&b, AU_REFUSED, "left the old one");

	/* the first still writes */
	add_record();
	ship(&a, &ta, end, walmake_pos(&tn.wal));
	end = walmake_pos(&tn.wal);
	assert_true(testnode_append(&a, ta.term, end + 8, 0));	/* positions only */
	{
		AuFrame		f;

		assert_true(client_receive(&a, &f, 60000));
		assert_int_equal(f.type, AU_MSG_APPEND_OK);
	}
	testnode_term(&b, &tb);
	assert_int_equal(tb.term, ta.term + 1);
	add_record();
	assert_true(testnode_append(&a, ta.term, end, (uint32_t) (walmake_pos(&tn.wal) - end)));
	expect_error(&a, AU_FENCED, "another writer");
	assert_true(testnode_append(&b, tb.term, end + 8, (uint32_t) (walmake_pos(&tn.wal) - end - 8)));
	expect_error(&b, AU_INVALID, "gap");
	ship(&b, &tb, end, walmake_pos(&tn.wal));

	testnode_hello(&other, AU_ROLE_READER, SYSID + 1, &hello);
	assert_int_equal(hello.volume_known, 0);
	client_close(&other);
	client_close(&a);
	client_close(&b);
	stop_node(SIGTERM);

	testnode_start("--single-volume", "7123456789012345678");
	{
		AuMsgHello	h = {.system_identifier = SYSID + 1,.role = AU_ROLE_WRITER};

		assert_true(client_connect(&other, tn.sock));
		assert_true(CLIENT_SEND(&other, au_enc_hello, &h));
		expect_error(&other, AU_REFUSED, "serves only");
		client_close(&other);
	}
	stop_node(SIGTERM);
}

/* A read that is ahead of the log waits for it. */
static void
test_waiting_read(void **state)
{
	Client		w,
				r;
	AuMsgHelloOk hello;
	AuMsgTermOk term;
	AuMsgGetSize m = {.rel = rel_id()};
	AuMsgSize	size;
	AuFrame		f;
	AuLsn		from,
				end;

	(void) state;
	testnode_start(NULL, NULL);
	testnode_hello(&w, AU_ROLE_WRITER, SYSID, &hello);
	testnode_term(&w, &term);
	from = term.received_lsn;
	for (int i = 0; i < 50; i++)
		add_record();
	end = walmake_pos(&tn.wal);
	testnode_hello(&r, AU_ROLE_READER, SYSID, &hello);
	m.not_before = end;
	assert_true(CLIENT_SEND(&r, au_enc_get_size, &m));
	assert_false(client_receive(&r, &f, 300));
	ship(&w, &term, from, end);
	assert_true(client_receive(&r, &f, 60000));
	assert_int_equal(f.type, AU_MSG_SIZE);
	assert_true(au_dec_size(&f, &size));
	assert_true(size.as_of >= end);
	/* older than what is kept */
	m.not_before = 0;
	m.read_lsn = 1;
	assert_true(CLIENT_SEND(&r, au_enc_get_size, &m));
	expect_error(&r, AU_GONE, "older than what storage keeps");
	client_close(&w);
	client_close(&r);
	stop_node(SIGTERM);
}

/* What is not our protocol is told so, and others do not notice. */
static void
test_bad_messages(void **state)
{
	Client		good,
				c;
	AuMsgHelloOk hello;
	AuFrame		f;
	uint8_t		big[AU_WIRE_HEADER] = {0};
	AuMsgGetSize m = {.rel = rel_id()};

	(void) state;
	testnode_start(NULL, NULL);
	testnode_hello(&good, AU_ROLE_READER, SYSID, &hello);

	assert_true(client_connect(&c, tn.sock));
	assert_true(client_send_raw(&c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27));
	expect_error(&c, AU_CORRUPT, "no message");
	assert_false(client_receive(&c, &f, 2000));
	client_close(&c);

	assert_true(client_connect(&c, tn.sock));
	au_put_u32(big, AU_WIRE_MAGIC);
	au_put_u16(big + 4, AU_WIRE_VERSION + 1);
	assert_true(client_send_raw(&c, big, sizeof(big)));
	expect_error(&c, AU_UNSUPPORTED, "protocol version");
	client_close(&c);

	assert_true(client_connect(&c, tn.sock));
	assert_true(CLIENT_SEND(&c, au_enc_get_size, &m));
	expect_error(&c, AU_INVALID, "HELLO");
	client_close(&c);

	/* a reader announcing a frame of megabytes */
	testnode_hello(&c, AU_ROLE_READER, SYSID, &hello);
	au_put_u16(big + 4, AU_WIRE_VERSION);
	au_put_u32(big + 16, 4u << 20);
	assert_true(client_send_raw(&c, big, sizeof(big)));
	expect_error(&c, AU_CORRUPT, "too long");
	client_close(&c);

	for (int i = 0; i < 200; i++)
	{
		uint8_t		noise[64];

		for (size_t k = 0; k < sizeof(noise); k++)
			noise[k] = (uint8_t) testnode_rnd(256);
		if (client_connect(&c, tn.sock))
		{
			(void) client_send_raw(&c, noise, 1 + testnode_rnd(sizeof(noise)));
			client_close(&c);
		}
	}
	assert_true(CLIENT_SEND(&good, au_enc_get_size, &m));
	assert_true(client_receive(&good, &f, 60000));
	assert_int_equal(f.type, AU_MSG_SIZE);
	client_close(&good);
	stop_node(SIGTERM);
}

/* Raw GET over the HTTP socket; the answer, terminated. */
static void
http_get(const char *path, const char *url, char *out, size_t cap)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char		request[200];
	size_t		len = 0;
	ssize_t		n;
	int			fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.100s", path);
	assert_int_equal(connect(fd, (struct sockaddr *) &addr, sizeof(addr)), 0);
	snprintf(request, sizeof(request), "GET %s HTTP/1.0\r\nHost: x\r\n\r\n", url);
	assert_int_equal(write(fd, request, strlen(request)), strlen(request));
	while (len + 1 < cap && (n = read(fd, out + len, cap - 1 - len)) > 0)
		len += (size_t) n;
	out[len] = '\0';
	close(fd);
}

static void
test_status(void **state)
{
	static char text[65536];
	static char command[9000];
	char		http[300];
	Client		w;
	AuMsgHelloOk hello;
	AuMsgTermOk term;

	(void) state;
	snprintf(http, sizeof(http), "%s/http", tn.root);
	testnode_start("--http-socket", http);
	testnode_hello(&w, AU_ROLE_WRITER, SYSID, &hello);
	testnode_term(&w, &term);
	usleep(300 * 1000);			/* a snapshot may be 200 ms old */
	http_get(http, "/status", text, sizeof(text));
	assert_non_null(strstr(text, "200 OK"));
	assert_non_null(strstr(text, "\"system_identifier\":\"7123456789012345678\""));
	assert_non_null(strstr(text, "\"writer\":\"test\""));
	http_get(http, "/metrics", text, sizeof(text));
	assert_non_null(strstr(text, "aurora_storaged_up{volume=\"7123456789012345678\"} 1\n"));
	assert_non_null(strstr(text, "# TYPE aurora_storaged_syncs_total counter\n"));
	http_get(http, "/health", text, sizeof(text));
	assert_non_null(strstr(text, "\r\n\r\nok\n"));
	http_get(http, "/nonsense", text, sizeof(text));
	assert_non_null(strstr(text, "404"));
	snprintf(command, sizeof(command), "%s --http-socket %s status | grep -q 'term .* writer test'",
			 daemon_path("auroractl"), http);
	assert_int_equal(system(command), 0);
	snprintf(command, sizeof(command), "%s --socket %s status --json | grep -q '\"state\": \"ok\"'",
			 daemon_path("auroractl"), tn.sock);
	assert_int_equal(system(command), 0);
	snprintf(command, sizeof(command), "%s --http-socket %s.no status 2>&1 | grep -q 'could not ask'",
			 daemon_path("auroractl"), http);
	assert_int_equal(system(command), 0);
	client_close(&w);
	stop_node(SIGTERM);
}

/* No room: the writer is told, and goes on when there is room again. */
static void
test_no_room(void **state)
{
	Client		w,
				r;
	AuMsgHelloOk hello;
	AuMsgTermOk term;
	AuLsn		from;

	(void) state;
	testnode_start("--disk-reserve-mb", "16777216");
	testnode_hello(&w, AU_ROLE_WRITER, SYSID, &hello);
	testnode_term(&w, &term);
	from = term.received_lsn;
	add_record();
	assert_true(testnode_append(&w, term.term, from, (uint32_t) (walmake_pos(&tn.wal) - from)));
	expect_error(&w, AU_FULL, "");
	/* reads go on */
	testnode_hello(&r, AU_ROLE_READER, SYSID, &hello);
	compare_pages(&r, 0, from & ~(AuLsn) 7);
	client_close(&w);
	client_close(&r);
	stop_node(SIGTERM);

	testnode_start(NULL, NULL);
	testnode_hello(&w, AU_ROLE_WRITER, SYSID, &hello);
	testnode_term(&w, &term);
	assert_int_equal(term.received_lsn, from);
	ship(&w, &term, from, walmake_pos(&tn.wal));
	client_close(&w);
	stop_node(SIGTERM);
}

static bool
log_says(const char *part)
{
	char		command[1024];

	snprintf(command, sizeof(command), "tail -3 '%s' | grep -qF '%s'", tn.log, part);
	return system(command) == 0;
}

/* Start on files as they are now: it must not come up, and say why. */
static void
expect_no_start(const char *part)
{
	char	   *args[] = {"--dir", tn.dir, "--socket", tn.sock, NULL};
	int			st;

	tn.pid = daemon_start(args, tn.log);
	assert_int_equal(waitpid(tn.pid, &st, 0), tn.pid);
	tn.pid = 0;
	assert_true(WIFEXITED(st) && WEXITSTATUS(st) == 1);
	if (!log_says(part))
		fail_msg("the log does not say \"%s\"", part);
}

/* Change one byte of a file and put it back afterwards. */
static uint8_t
change_byte(const char *name, long offset, uint8_t value)
{
	char		path[600];
	FILE	   *f;
	int			old;

	snprintf(path, sizeof(path), "%s/%s", tn.dir, name);
	f = fopen(path, "r+b");
	assert_non_null(f);
	fseek(f, offset, SEEK_SET);
	old = fgetc(f);
	fseek(f, offset, SEEK_SET);
	fputc(value, f);
	fclose(f);
	return (uint8_t) old;
}

static void
test_damaged_files(void **state)
{
	const char *volume = "volumes/7123456789012345678/VOLUME";
	uint8_t		old;

	(void) state;
	old = change_byte(volume, 30, 99);
	expect_no_start("it is damaged; put back the directory from a backup");
	change_byte(volume, 30, old);
	old = change_byte(volume, 8, 200);
	expect_no_start("another version of aurora_storaged");
	change_byte(volume, 8, old);
	old = change_byte("NODE", 14, 0);
	change_byte("NODE", 14, (uint8_t) (old ^ 1));
	expect_no_start("restore it from a backup");
	change_byte("NODE", 14, old);
	/* all is as it was */
	testnode_start(NULL, NULL);
	stop_node(SIGTERM);
}

/* Does RocksDB say in its options file that the last level is compressed so? */
static bool
cold_is(const char *kind)
{
	char		command[1024];

	snprintf(command, sizeof(command),
			 "grep -qF bottommost_compression=%s \"$(ls -t '%s'/volumes/*/pages/OPTIONS-* | head -1)\"",
			 kind, tn.dir);
	return system(command) == 0;
}

/* The options that say how page stores are made have to reach them. */
static void
test_store_options(void **state)
{
	(void) state;
	testnode_start("--cold-compression", "zstd");
	assert_true(cold_is("kZSTD"));
	stop_node(SIGTERM);
	testnode_start("--cold-compression", "lz4");
	assert_false(cold_is("kZSTD"));
	stop_node(SIGTERM);
	testnode_start(NULL, NULL);
	assert_false(cold_is("kZSTD"));
	stop_node(SIGTERM);
}

/* ---- set-up ----------------------------------------------------------- */

static int
setup(void **state)
{
	(void) state;
	tn.rng = 12345;
	return testnode_setup("daemon", "");
}

static int
teardown(void **state)
{
	(void) state;
	testnode_teardown();
	free(versions);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ship_and_read),
		cmocka_unit_test(test_kill),
		cmocka_unit_test(test_check_and_versions),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_waiting_read),
		cmocka_unit_test(test_bad_messages),
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_damaged_files),
		cmocka_unit_test(test_store_options),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, setup, teardown);
}
