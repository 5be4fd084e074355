/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walfeed.c: gives captured WAL to a storage node as fast as the node takes
 * it, as the shipper would: HELLO, TERM, APPENDs with a bounded number of
 * bytes on the way.  It ends when the node has applied all of it.
 *
 *   walfeed [-c START_LSN] [-e END_LSN] SOCKET SEGMENT...
 *
 * -c makes the volume, its log begins at START_LSN (where a WAL record
 * begins); without it the node must have the volume, and feeding goes on where
 * its log ends.  -e: feed up to there; default: to the end of the last file.
 * LSNs are as PostgreSQL writes them.  Segments are whole files in the order of
 * their names; system identifier, timeline and segment size come from the
 * first one's header.
 *
 * Prints one line of JSON: bytes fed, seconds until durable, seconds until
 * applied.  The processor time of the node is for the caller to look at.
 */
#include <inttypes.h>
#include <time.h>

#include "storage_cluster/tests/wireclient.h"

#define ON_THE_WAY_MAX (8u * AU_WIRE_APPEND_MAX)
#define ANSWER_MS 120000
#define POLL_US 2000

typedef struct Feed
{
	Client		node;
	char	  **files;
	int			nfiles;
	uint64_t	sysid;
	uint32_t	timeline;
	uint32_t	segment_size;
	AuLsn		base;			/* of the first file */
	AuLsn		end;
	AuMsgTermOk term;
	AuLsn		received,
				durable,
				applied;
} Feed;

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "walfeed: %s: %s\n", what, why);
	exit(1);
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static AuLsn
parse_lsn(const char *text)
{
	unsigned	hi,
				lo;

	if (sscanf(text, "%X/%X", &hi, &lo) != 2)
		die(text, "not an LSN");
	return (AuLsn) hi << 32 | lo;
}

/* The next frame must be of that type. */
static void
expect(Feed *f, AuFrame *frame, uint16_t type, const char *what)
{
	AuMsgError	e;

	if (!client_receive(&f->node, frame, ANSWER_MS))
		die(what, "no answer");
	if (frame->type == AU_MSG_ERROR && au_dec_error(frame, &e))
		die(what, e.message);
	if (frame->type != type)
		die(what, "unexpected answer");
}

static void
read_first_header(Feed *f)
{
	uint8_t		h[40];
	FILE	   *file = fopen(f->files[0], "rb");

	if (file == NULL || fread(h, 1, sizeof(h), file) != sizeof(h))
		die(f->files[0], "could not read it");
	fclose(file);
	f->timeline = au_get_u32(h + 4);
	f->base = au_get_u64(h + 8);
	f->sysid = au_get_u64(h + 24);
	f->segment_size = au_get_u32(h + 32);
	if (f->segment_size == 0 || f->base % f->segment_size != 0)
		die(f->files[0], "is no WAL segment");
	if (f->end == 0)
		f->end = f->base + (AuLsn) f->segment_size * (AuLsn) f->nfiles;
	if (f->end > f->base + (AuLsn) f->segment_size * (AuLsn) f->nfiles)
		die(f->files[0], "the files end before the end wanted");
}

static void
become_writer(Feed *f, const char *socket_path, AuLsn create_at)
{
	AuMsgHello	hello = {.system_identifier = f->sysid,.role = AU_ROLE_WRITER,.name = "walfeed"};
	AuMsgTerm	term = {.writer_id = (uint64_t) getpid() << 32 | (uint32_t) time(NULL),
		.timeline = f->timeline,.start_lsn = create_at,.local_end = f->end,
	.wal_segment_size = f->segment_size,.may_create = create_at != 0};
	AuFrame		frame;

	if (!client_connect(&f->node, socket_path))
		die(socket_path, "nobody listens");
	CLIENT_SEND(&f->node, au_enc_hello, &hello);
	expect(f, &frame, AU_MSG_HELLO_OK, "HELLO");
	CLIENT_SEND(&f->node, au_enc_term, &term);
	expect(f, &frame, AU_MSG_TERM_OK, "TERM");
	if (!au_dec_term_ok(&frame, &f->term))
		die("TERM", "malformed answer");
	f->received = f->term.received_lsn;
	f->durable = f->term.durable_lsn;
	f->applied = f->term.applied_lsn;
	if (f->received < f->base)
		die("TERM", "the node's log ends before the first file");
}

static void
take_answer(Feed *f)
{
	AuFrame		frame;
	AuMsgAppendOk ok;

	expect(f, &frame, AU_MSG_APPEND_OK, "APPEND");
	if (!au_dec_append_ok(&frame, &ok))
		die("APPEND", "malformed answer");
	f->durable = ok.durable_lsn;
	f->applied = ok.applied_lsn;
}

static void
append(Feed *f, const uint8_t *bytes, uint32_t n)
{
	AuMsgAppend m = {.term = f->term.term,.timeline = f->timeline,.lsn = f->received,
	.commit_lsn = f->durable,.length = n,.bytes = bytes};

	if (!CLIENT_SEND(&f->node, au_enc_append, &m))
		die("APPEND", "the connection is gone");
	f->received += n;
}

/* What of one segment the node does not have yet. */
static void
feed_segment(Feed *f, int i, uint8_t *buf)
{
	AuLsn		lsn = f->base + (AuLsn) i * f->segment_size;
	AuLsn		stop = lsn + f->segment_size < f->end ? lsn + f->segment_size : f->end;
	FILE	   *file;

	if (f->received >= stop)
		return;
	file = fopen(f->files[i], "rb");
	if (file == NULL || fseek(file, (long) (f->received - lsn), SEEK_SET) != 0)
		die(f->files[i], strerror(errno));
	while (f->received < stop)
	{
		uint32_t	n = AU_WIRE_APPEND_MAX;

		if (n > stop - f->received)
			n = (uint32_t) (stop - f->received);
		if (fread(buf, 1, n, file) != n)
			die(f->files[i], "is shorter than a segment");
		append(f, buf, n);
		while (f->received - f->durable > ON_THE_WAY_MAX)
			take_answer(f);
	}
	fclose(file);
}

/* The end is to be the end of a record: a node applies whole records. */
static void
wait_applied(Feed *f)
{
	double		limit = now() + 600;

	while (f->applied < f->end)
	{
		if (now() > limit)
			die("waiting", "the log was not applied within 10 minutes");
		usleep(POLL_US);
		append(f, NULL, 0);
		take_answer(f);
	}
}

int
main(int argc, char **argv)
{
	Feed		f = {0};
	AuLsn		create_at = 0,
				from;
	uint8_t    *buf = malloc(AU_WIRE_APPEND_MAX);
	double		start,
				durable;
	int			opt;

	while ((opt = getopt(argc, argv, "c:e:")) != -1)
	{
		if (opt == 'c')
			create_at = parse_lsn(optarg);
		else if (opt == 'e')
			f.end = parse_lsn(optarg);
		else
			return 2;
	}
	if (argc - optind < 2 || buf == NULL)
	{
		fputs("usage: walfeed [-c START_LSN] [-e END_LSN] SOCKET SEGMENT...\n", stderr);
		return 2;
	}
	f.files = argv + optind + 1;
	f.nfiles = argc - optind - 1;
	read_first_header(&f);
	become_writer(&f, argv[optind], create_at);
	from = f.received;
	start = now();
	for (int i = 0; i < f.nfiles; i++)
		feed_segment(&f, i, buf);
	while (f.durable < f.received)
		take_answer(&f);
	durable = now();
	wait_applied(&f);
	printf("{\"from\": \"%X/%X\", \"to\": \"%X/%X\", \"bytes\": %" PRIu64
		   ", \"durable_s\": %.4f, \"applied_s\": %.4f}\n",
		   AU_LSN_ARGS(from), AU_LSN_ARGS(f.end), f.end - from,
		   durable - start, now() - start);
	client_close(&f.node);
	free(buf);
	return 0;
}
