/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walcut.c: feeds WAL segment files to the decoder and prints a line a
 * record, in a form that walcut_vs_waldump.sh makes of pg_waldump's output,
 * too.
 *
 *	walcut [-c chunk_bytes] [-r] FILE...
 *
 * The files are consecutive segments.  Like pg_waldump it begins with the
 * first record that begins in them, and ends where the log does (with the
 * decoder's reason on standard error).  -c: size of the pieces fed.  -r:
 * after each piece the decoder is thrown away and a new one started at its
 * restart LSN, as after a crash.
 *
 * Exit status: 0, or 1 if a record's end does not lead to the next record, or
 * the decoder's position, restart LSN and records contradict each other.
 */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "core/au_waldecode.h"

#define WAL_PAGE 8192u
#define PG_EPOCH_S 946684800	/* 2000-01-01 in Unix time */

typedef struct Cut
{
	uint32_t	segment_size;
	AuLsn		end;			/* of the last record printed */
	AuLsn		last;			/* its start */
	bool		bad;
	uint64_t	ours;
	uint64_t	handed_on;
} Cut;

static const char *const rmgr_names[] = {
	"XLOG", "Transaction", "Storage", "CLOG", "Database", "Tablespace",
	"MultiXact", "RelMap", "Standby", "Heap2", "Heap", "Btree", "Hash", "Gin",
	"Gist", "Sequence", "SPGist", "BRIN", "CommitTs", "ReplicationOrigin",
	"Generic", "LogicalMessage",
};

static const char *const fork_names[] = {"main", "fsm", "vm", "init"};

static void
complain(Cut *cut, const char *what, AuLsn lsn)
{
	fprintf(stderr, "walcut: %X/%X: %s\n", AU_LSN_ARGS(lsn), what);
	cut->bad = true;
}

/* Where a record that follows `end` begins. */
static AuLsn
next_start(const Cut *cut, AuLsn end)
{
	if (end % cut->segment_size == 0)
		return end + 40;
	if (end % WAL_PAGE == 0)
		return end + 24;
	return end;
}

static void
print_xact(const AuWalRecord *rec)
{
	time_t		s = (time_t) (rec->xact_time / 1000000) + PG_EPOCH_S;
	char		text[64];
	struct tm	tm;

	strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", gmtime_r(&s, &tm));
	printf(" %s %s.%06d", rec->is_commit ? "COMMIT" : "ABORT", text,
		   (int) (rec->xact_time % 1000000));
}

static AuStatus
print_record(void *ctx, const AuWalRecord *rec)
{
	Cut		   *cut = ctx;
	bool		overwrite = rec->rmid == 0 && rec->info == 0xD0;

	/* With -r a record may come again. */
	if (rec->lsn <= cut->last)
		return AU_OK;
	if (cut->end != 0 && !overwrite && rec->lsn != next_start(cut, cut->end))
		complain(cut, "record does not begin where the last one ended", rec->lsn);
	cut->last = rec->lsn;
	cut->end = rec->end;

	printf("%X/%08X %X/%08X ", AU_LSN_ARGS(rec->lsn), AU_LSN_ARGS(rec->prev));
	if (rec->rmid < sizeof(rmgr_names) / sizeof(rmgr_names[0]))
		printf("%s", rmgr_names[rec->rmid]);
	else
		printf("custom%03d", rec->rmid);
	printf(" %" PRIu32 " %" PRIu32, rec->total_len, rec->xid);

	if (rec->kind == AU_WAL_XACT_END || rec->kind == AU_WAL_DROP_RELS)
		print_xact(rec);
	for (int i = 0; i < rec->ndrop && rec->kind != AU_WAL_NEW_REL; i++)
	{
		printf("%s%" PRIu32 "/%" PRIu32,
			   i > 0 ? " " : rec->kind == AU_WAL_DROP_DB ? " dir " : " rels ",
			   rec->drop[i].spc, rec->drop[i].db);
		if (rec->kind == AU_WAL_DROP_RELS)
			printf("/%" PRIu32, rec->drop[i].rel);
	}
	for (int i = 0; i < rec->nblocks; i++)
	{
		const AuWalBlock *b = &rec->blocks[i];

		printf(" #%d %" PRIu32 "/%" PRIu32 "/%" PRIu32 " %s %" PRIu32 "%s",
			   b->id, b->page.rel.spc, b->page.rel.db, b->page.rel.rel,
			   b->page.rel.fork < 4 ? fork_names[b->page.rel.fork] : "?",
			   b->page.blk, b->has_image ? " FPW" : "");
	}
	putchar('\n');
	return AU_OK;
}

static AuStatus
count_record(void *ctx, const AuWalRecord *rec)
{
	Cut		   *cut = ctx;

	if (rec->kind == AU_WAL_OTHER)
		complain(cut, "a record of no interest was handed on", rec->lsn);
	if (rec->kind == AU_WAL_OURS)
		cut->ours++;
	cut->handed_on++;
	return AU_OK;
}

/* The whole log in memory. */
static uint8_t *
read_files(char **names, int n, size_t *len)
{
	uint8_t    *log = NULL;

	*len = 0;
	for (int i = 0; i < n; i++)
	{
		FILE	   *f = fopen(names[i], "rb");
		uint8_t    *p;
		long		size;

		if (f == NULL || fseek(f, 0, SEEK_END) != 0 || (size = ftell(f)) < 0 ||
			(p = realloc(log, *len + (size_t) size)) == NULL)
		{
			perror(names[i]);
			exit(1);
		}
		log = p;
		rewind(f);
		if (fread(log + *len, 1, (size_t) size, f) != (size_t) size)
		{
			perror(names[i]);
			exit(1);
		}
		*len += (size_t) size;
		fclose(f);
	}
	return log;
}

/* Offset of the first record that begins in the log. */
static size_t
first_record(const uint8_t *log, size_t len)
{
	for (size_t page = 0; page + WAL_PAGE <= len; page += WAL_PAGE)
	{
		uint16_t	info = au_get_u16(log + page + 2);
		size_t		header = (info & 2) ? 40 : 24;
		size_t		rest = (info & 1) ? au_get_u32(log + page + 16) : 0;

		if (header + rest < WAL_PAGE)
			return page + header + ((rest + 7) & ~(size_t) 7);
	}
	return len;
}

static AuWalDecode *
start_decoder(Cut *cut, AuLsn lsn)
{
	AuWalDecode *d = au_waldecode_new(count_record, cut);

	if (d == NULL)
	{
		fputs("walcut: out of memory\n", stderr);
		exit(1);
	}
	au_waldecode_set_trace(d, print_record, cut);
	au_waldecode_start(d, lsn, cut->segment_size);
	return d;
}

static void
cut_log(Cut *cut, const uint8_t *log, size_t len, size_t chunk, bool restarts)
{
	AuLsn		base = au_get_u64(log + 8);
	size_t		off = first_record(log, len);
	AuWalDecode *d = start_decoder(cut, base + off);
	AuStatus	status = AU_OK;

	while (off < len && status == AU_OK)
	{
		size_t		n = len - off < chunk ? len - off : chunk;

		status = au_waldecode_feed(d, log + off, n);
		off += n;
		if (status == AU_OK && au_waldecode_position(d) != base + off)
			complain(cut, "position is not where feeding ended", base + off);
		if (status == AU_OK && au_waldecode_restart_lsn(d) > base + off)
			complain(cut, "restart LSN is beyond the position", base + off);
		if (status == AU_OK && restarts)
		{
			size_t		next = (size_t) (au_waldecode_restart_lsn(d) - base);

			/* To get on at all the next piece must be longer. */
			chunk = (next == off - n) ? 2 * chunk : chunk;
			off = next;
			au_waldecode_free(d);
			d = start_decoder(cut, base + off);
		}
	}
	if (status != AU_OK)
		fprintf(stderr, "walcut: %s\n", au_waldecode_error(d));
	au_waldecode_free(d);
}

int
main(int argc, char **argv)
{
	Cut			cut = {0};
	size_t		chunk = 1u << 20;
	bool		restarts = false;
	uint8_t    *log;
	size_t		len;
	int			opt;

	while ((opt = getopt(argc, argv, "c:r")) != -1)
	{
		if (opt == 'c')
			chunk = strtoul(optarg, NULL, 10);
		else if (opt == 'r')
			restarts = true;
		else
			return 2;
	}
	if (optind == argc || chunk == 0)
	{
		fputs("usage: walcut [-c chunk_bytes] [-r] FILE...\n", stderr);
		return 2;
	}
	log = read_files(argv + optind, argc - optind, &len);
	if (len < WAL_PAGE)
	{
		fputs("walcut: no whole page\n", stderr);
		return 2;
	}
	cut.segment_size = au_get_u32(log + 32);
	cut_log(&cut, log, len, chunk, restarts);
	fprintf(stderr, "walcut: %" PRIu64 " records handed on, %" PRIu64 " ours\n",
			cut.handed_on, cut.ours);
	free(log);
	return cut.bad ? 1 : 0;
}
