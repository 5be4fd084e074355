/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_landing_power.c: the landing log and the power, on both disks of
 * memdisk.h: ordinary (sectors, sizes and names survive or not, in any order)
 * and persistent memory (8 bytes or a cache line survive or not).
 *
 * A script of appends, syncs, trims, truncations and reopenings runs until the
 * power fails before its n-th change of the disk, for every n, and for each
 * way to choose what survives.  What recovery finds must be what was
 * acknowledged, and at most what was under way besides; and after it the log
 * must go on.  Random lives do the same with longer scripts and cuts in
 * recovery.
 *
 * The bytes of the log differ with each truncation, so that bytes of a cut-off
 * past cannot pass for the right ones.
 *
 * Mistakes are planted (MemBug), and each must be found.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/au_crc32c.h"
#include "store/au_landing.h"
#include "tests/memdisk.h"

#define SYSID 0x1234567890ABCDEFull
#define START ((AuLsn) 0x5000028)
#define LOG_MAX (4u << 20)
#define SEGMENT 4096u
#define RECENT 64

static char err[512];

/* What the log should hold. */
typedef struct Model
{
	const AuLandingIo *io;
	MemBug		bug;			/* planted once the log is open */
	AuLanding  *l;
	uint8_t		life;			/* changes with each truncation */
	uint8_t    *life_of;		/* by position: which life wrote it */
	AuLsn		end;			/* highest byte ever handed over since the cut */
	AuLsn		must;			/* acknowledged */
	AuLsn		cutting;		/* 0, or a truncation is under way, from `end` */
	AuLsn		trimmed;		/* may be missing below */
	size_t		recent[RECENT]; /* lengths of the last appends, by number */
	unsigned	nrecent;
	char		wrong[256];		/* the first thing that was wrong, "" if none */
} Model;

static Model model;

static bool
wrong(const char *fmt,...) __attribute__((format(printf, 1, 2)));

static bool
wrong(const char *fmt,...)
{
	va_list		args;

	if (model.wrong[0] == '\0')
	{
		va_start(args, fmt);
		vsnprintf(model.wrong, sizeof(model.wrong), fmt, args);
		va_end(args);
	}
	return false;
}

static uint8_t
byte_at(AuLsn lsn, uint8_t life)
{
	uint64_t	x = (lsn * 31 + life) * 0x9E3779B97F4A7C15ull;

	return (uint8_t) (x >> 56);
}

static bool
is_pmem(void)
{
	return model.io == &memdisk_pmem_io;
}

static AuStatus
open_log(void)
{
	AuLandingOptions opt = {
		.dir = "memory",.system_identifier = SYSID,.start_lsn = START,
		.segment_bytes = SEGMENT,.io = model.io
	};

	return au_landing_open(&model.l, &opt, err, sizeof(err));
}

static void
begin(const AuLandingIo *io, uint64_t seed, MemBug bug, MemCut cut)
{
	static uint8_t *life_of;

	if (life_of == NULL)
		life_of = malloc(LOG_MAX);
	if (life_of == NULL)
		abort();
	memdisk_format(seed);
	memdisk.cut = cut;
	model = (Model) {
		.io = io,.bug = bug,.life = 1,.life_of = life_of,.end = START,.must = START,.trimmed = START
	};
}

/* ---- steps ------------------------------------------------------------ */

static bool
append(size_t len)
{
	static uint8_t bytes[AU_LANDING_APPEND_MAX];
	AuLsn		lsn = au_landing_end(model.l);
	AuStatus	status;

	if (lsn - START + len > LOG_MAX)
		return true;
	for (size_t i = 0; i < len; i++)
		bytes[i] = byte_at(lsn + i, model.life);
	status = au_landing_append(model.l, 3, model.life, lsn, bytes, len, err, sizeof(err));
	/* Also what failed may be found: it was handed over. */
	memset(model.life_of + (lsn - START), model.life, len);
	if (lsn + len > model.end)
		model.end = lsn + len;
	model.recent[model.nrecent++ % RECENT] = len;
	return status == AU_OK || memdisk.off || wrong("append: %s", err);
}

static bool
sync_log(void)
{
	if (au_landing_sync(model.l, err, sizeof(err)) == AU_OK)
		model.must = au_landing_durable(model.l);
	return memdisk.off || model.must == au_landing_end(model.l) || wrong("sync: %s", err);
}

static bool
truncate_log(AuLsn lsn)
{
	AuLsn		end = au_landing_end(model.l);

	if (lsn < au_landing_start(model.l))
		lsn = au_landing_start(model.l);
	if (lsn >= end)
		return true;
	model.cutting = lsn;
	if (au_landing_truncate(model.l, lsn, err, sizeof(err)) != AU_OK)
		return memdisk.off || wrong("truncate: %s", err);
	if (au_landing_end(model.l) != lsn || au_landing_durable(model.l) != lsn)
		return wrong("truncated to %llX, but it ends at %llX", (unsigned long long) lsn,
					 (unsigned long long) au_landing_end(model.l));
	model.cutting = 0;
	model.must = model.end = lsn;
	model.life++;
	return true;
}

static bool
trim_log(AuLsn lsn)
{
	if (lsn > model.trimmed)
		model.trimmed = lsn;
	return au_landing_trim(model.l, lsn, err, sizeof(err)) == AU_OK ||
		memdisk.off || wrong("trim: %s", err);
}

/* ---- checks ----------------------------------------------------------- */

static bool
check_bytes(void)
{
	uint8_t		buf[3000];
	AuLsn		lsn = au_landing_start(model.l);

	while (lsn < au_landing_end(model.l))
	{
		size_t		got;

		if (au_landing_read(model.l, lsn, buf, sizeof(buf), &got, err, sizeof(err)) != AU_OK)
			return wrong("read: %s", err);
		for (size_t i = 0; i < got; i++)
			if (buf[i] != byte_at(lsn + i, model.life_of[lsn + i - START]))
				return wrong("wrong byte at %llX", (unsigned long long) (lsn + i));
		lsn += got;
	}
	return true;
}

/*
 * Persistent memory: an entry that a power cut left visible (its first word is
 * there) is whole.  The CRC would notice otherwise; it is to be the second
 * guard, not the first.
 */
static bool
check_whole(const MemBytes *b)
{
	uint64_t	off = 32;

	while (off + 40 <= b->len)
	{
		const uint8_t *p = b->p + off;
		uint32_t	len = au_get_u32(p + 4);
		uint32_t	crc;

		if (au_get_u64(p) == 0)
			return true;
		if (au_get_u32(p) != 0x454C5541u || len > b->len - off - 40)
			return wrong("half of an entry's first word survived");
		crc = au_crc32c(au_crc32c(0, p, 36), p + 40, len);
		if (crc != au_get_u32(p + 36))
			return wrong("an entry was visible before it was persistent");
		off = (off + 40 + len + 7) & ~(uint64_t) 7;
	}
	return true;
}

static bool
check_survivors(void)
{
	for (int i = 0; i < memdisk.n_names; i++)
	{
		const MemName *n = &memdisk.names[i];

		if (n->now != NULL && strstr(n->name, ".log") != NULL && n->now->now.len > 32 &&
			au_get_u64(n->now->now.p) != 0 && !check_whole(&n->now->now))
			return false;
	}
	return true;
}

/* After a power cut: opened, and nothing missing, wrong or too much. */
static bool
check_recovered(void)
{
	AuLsn		end;

	if (open_log() != AU_OK)
	{
		model.l = NULL;
		return wrong("not opened: %s", err);
	}
	end = au_landing_end(model.l);
	if (model.cutting != 0)
	{
		/* It had begun, and then it is done; or it had not. */
		if (end != model.cutting && end < model.must)
			return wrong("truncation half done");
		if (end == model.cutting)
			model.life++;
		model.cutting = 0;
	}
	else if (end < model.must)
		return wrong("acknowledged up to %llX, found up to %llX",
					 (unsigned long long) model.must, (unsigned long long) end);
	if (end > model.end)
		return wrong("more than was ever there");
	if (au_landing_durable(model.l) != end)
		return wrong("what was found is not durable");
	if (au_landing_start(model.l) > model.trimmed)
		return wrong("the beginning is lost");
	model.must = model.end = end;
	return check_bytes();
}

/*
 * The log goes on: as many bytes as an append that was lost had, in a new
 * life, so that what followed that append would fit if it was still there.
 */
static bool
check_goes_on(void)
{
	AuLsn		end = au_landing_end(model.l);
	AuLsn		at = model.end;
	size_t		len = 100;

	for (unsigned i = 0; i < model.nrecent && i < RECENT; i++)
	{
		len = model.recent[(model.nrecent - 1 - i) % RECENT];
		at -= len;
		if (at <= end)
			break;
	}
	model.life++;
	if (!append(len) || !sync_log() || !append(7))
		return false;
	end = au_landing_end(model.l);
	au_landing_close(model.l);
	model.l = NULL;
	if (open_log() != AU_OK)
		return wrong("opened again: %s", err);
	if (au_landing_end(model.l) != end)
		return wrong("a past that was cut off came back");
	return check_bytes();
}

/* ---- the script ------------------------------------------------------- */

/* 'a' append, 's' sync, 't' trim to, 'c' cut at (from the end), 'o' reopen */
typedef struct Step
{
	char		what;
	size_t		n;
} Step;

static const Step script[] = {
	{'a', 100}, {'s', 0}, {'a', 1}, {'a', 700}, {'a', 61}, {'s', 0},
	{'a', 300}, {'a', 300}, {'a', 300}, {'o', 0},
	{'a', 1500}, {'a', 900}, {'a', 40}, {'s', 0},	/* a new segment */
	{'c', 20}, {'a', 100}, {'a', 100}, {'s', 0},	/* in an entry */
	{'c', 100}, {'a', 90}, {'a', 100}, {'a', 100},	/* between entries, ... */
	{'c', 250}, {'a', 64}, {'s', 0},	/* ... not synced */
	{'a', 600}, {'s', 0}, {'a', 600}, {'s', 0}, {'a', 600}, {'s', 0},
	{'c', 1800}, {'a', 600}, {'a', 600}, {'s', 0},	/* marks above the cut */
	{'a', 6000}, {'a', 3}, {'s', 0},	/* longer than a segment */
	{'t', 3000}, {'a', 2500}, {'a', 1300}, {'a', 200}, {'s', 0},
	{'c', 5000}, {'a', 800}, {'s', 0}, {'o', 0},	/* segments go */
	{'t', 100}, {'a', 2000}, {'a', 2000}, {'a', 2000}, {'a', 33}, {'s', 0}
};

static bool
run_step(Step s)
{
	AuLsn		end = au_landing_end(model.l);

	switch (s.what)
	{
		case 'a':
			return append(s.n);
		case 's':
			return sync_log();
		case 't':
			return trim_log(end - s.n);
		case 'c':
			return truncate_log(end - s.n);
		default:
			/* a process that dies loses nothing that was written */
			au_landing_close(model.l);
			model.l = NULL;
			return open_log() == AU_OK ? au_landing_end(model.l) == end || wrong("lost by reopening") :
				memdisk.off || wrong("reopen: %s", err);
	}
}

/* Runs the script until the power fails before change `calls`; true in *whole
 * if it came to its end. */
static bool
run_script(int calls, bool *whole)
{
	bool		ok = true;

	memdisk.calls_left = calls;
	if (open_log() != AU_OK)
	{
		model.l = NULL;
		*whole = false;
		return memdisk.off || wrong("first opening: %s", err);
	}
	memdisk.bug = model.bug;
	for (size_t i = 0; i < sizeof(script) / sizeof(script[0]) && ok && !memdisk.off; i++)
		ok = run_step(script[i]);
	*whole = !memdisk.off;
	if (model.l != NULL)
		au_landing_close(model.l);
	model.l = NULL;
	return ok;
}

/* One run; false: something was wrong, model.wrong says what. */
static bool
one_cut(const AuLandingIo *io, uint64_t seed, MemBug bug, MemCut cut, int calls, bool *whole)
{
	bool		ok;

	begin(io, seed, bug, cut);
	ok = run_script(calls, whole);
	memdisk_power_cut(is_pmem());
	ok = ok && (!is_pmem() || check_survivors());
	if (ok && seed % 2)
	{
		/* the power fails in recovery, too */
		memdisk.calls_left = (int) (memdisk_random() % 12);
		if (open_log() == AU_OK)
			au_landing_close(model.l);
		model.l = NULL;
		memdisk_power_cut(is_pmem());
	}
	ok = ok && check_recovered() && check_goes_on();
	if (model.l != NULL)
		au_landing_close(model.l);
	return ok;
}

/* Every place and every way; returns how many went wrong, at most `enough`. */
static int
cut_everywhere(const AuLandingIo *io, MemBug bug, int seeds, int enough, int *places)
{
	int			failures = 0;
	bool		whole = false;

	for (*places = 0; !whole && failures < enough; (*places)++)
	{
		for (int s = 0; s < seeds + 4 && failures < enough; s++)
		{
			/* without chance only once, and once with a cut in recovery */
			MemCut		cut = s < 2 ? MEM_CUT_LOSE : s < 4 ? MEM_CUT_KEEP :
				s % 3 == 0 ? MEM_CUT_LINES : MEM_CUT_RANDOM;

			if (one_cut(io, (uint64_t) (*places * 100 + s), bug, cut, *places, &whole))
				continue;
			failures++;
			if (bug == MEM_BUG_NONE)
				print_error("%s, power cut before change %d, way %d: %s\n", io->kind,
							*places, s, model.wrong);
		}
	}
	return failures;
}

static int
seeds_wanted(int usual)
{
	const char *n = getenv("AU_TEST_SEEDS");

	return n != NULL ? atoi(n) : usual;
}

static void
everywhere(const AuLandingIo *io)
{
	int			places;

	assert_int_equal(cut_everywhere(io, MEM_BUG_NONE, seeds_wanted(12), 5, &places), 0);
	print_message("%s: the power failed before each of %d changes\n", io->kind, places);
	assert_true(places > 100);
}

static void
test_files_everywhere(void **state)
{
	(void) state;
	everywhere(&memdisk_io);
}

static void
test_pmem_everywhere(void **state)
{
	(void) state;
	everywhere(&memdisk_pmem_io);
}

/* ---- what must be noticed --------------------------------------------- */

/* A damaged byte in what the last sync before a power cut covered, everything
 * that was not synced being lost. */
static AuStatus
damage_last_group(const AuLandingIo *io, MemBug bug)
{
	AuStatus	status;

	begin(io, 1, bug, MEM_CUT_LOSE);
	assert_int_equal(open_log(), AU_OK);
	memdisk.bug = bug;
	for (int i = 0; i < 3; i++)
		assert_true(append(200) && sync_log());
	au_landing_close(model.l);
	memdisk_power_cut(is_pmem());
	for (int i = 0; i < memdisk.n_names; i++)
		if (strstr(memdisk.names[i].name, ".log") != NULL)
			memdisk.names[i].now->now.p[32 + 2 * 240 + 50] ^= 1;
	status = open_log();
	if (status == AU_OK)
	{
		assert_true(au_landing_end(model.l) == START + 400);
		au_landing_close(model.l);
	}
	return status;
}

static void
test_damage_of_last_group(void **state)
{
	(void) state;
	assert_int_equal(damage_last_group(&memdisk_pmem_io, MEM_BUG_NONE), AU_CORRUPT);
	/* the gap that au_landing.h owns up to */
	assert_int_equal(damage_last_group(&memdisk_io, MEM_BUG_NONE), AU_OK);
}

/* Each planted mistake is found, on each disk where it is one. */
static void
test_planted_mistakes(void **state)
{
	static const struct
	{
		MemBug		bug;
		const char *name;
		bool		files;
		bool		pmem;
	}			planted[] = {
		{MEM_BUG_NO_SYNC, "no sync", true, true},
		{MEM_BUG_NO_ORDER, "no drain before the first word", false, true},
		{MEM_BUG_NO_DIR_SYNC, "no sync of the directory", true, true},
		{MEM_BUG_NO_TRUNCATE, "what is cut off stays", true, true},
	};
	int			places;

	(void) state;
	for (size_t i = 0; i < sizeof(planted) / sizeof(planted[0]); i++)
	{
		if (planted[i].files && cut_everywhere(&memdisk_io, planted[i].bug, 6, 1, &places) == 0)
			fail_msg("on files \"%s\" was not noticed", planted[i].name);
		if (planted[i].pmem && cut_everywhere(&memdisk_pmem_io, planted[i].bug, 6, 1, &places) == 0)
			fail_msg("on persistent memory \"%s\" was not noticed", planted[i].name);
		print_message("%s: %s\n", planted[i].name, model.wrong);
	}
	/* test_damage_of_last_group would notice this one */
	assert_int_equal(damage_last_group(&memdisk_pmem_io, MEM_BUG_NO_MARK_SYNC), AU_OK);
	memdisk_format(1);
}

/* ---- random lives ----------------------------------------------------- */

static bool
random_step(void)
{
	unsigned int dice = (unsigned int) (memdisk_random() % 100);
	AuLsn		start = au_landing_start(model.l);
	AuLsn		end = au_landing_end(model.l);

	if (dice < 65)
		return append((size_t) (memdisk_random() % (dice < 5 ? 9000 : 900)) + 1);
	if (dice < 85)
		return sync_log();
	if (dice < 93)
		return truncate_log(start + memdisk_random() % (end - start + 1));
	if (dice < 98)
		return trim_log(start + memdisk_random() % (end - start + 1));
	return check_bytes();
}

static void
random_life(const AuLandingIo *io, uint64_t seed)
{
	begin(io, seed, MEM_BUG_NONE, MEM_CUT_RANDOM);
	for (int life = 0; life < 12; life++)
	{
		int			steps = (int) (memdisk_random() % 80);
		bool		ok = true;

		memdisk.cut = memdisk_random() % 3 ? MEM_CUT_RANDOM : MEM_CUT_LINES;
		memdisk.calls_left = (int) (memdisk_random() % 12);
		if (memdisk_random() % 2 && open_log() == AU_OK)
			au_landing_close(model.l);
		memdisk_power_cut(is_pmem());
		ok = check_recovered();
		memdisk.calls_left = memdisk_random() % 2 ? (int) (memdisk_random() % 200) : -1;
		while (ok && steps-- > 0 && !memdisk.off)
			ok = random_step();
		if (!ok)
			fail_msg("%s, seed %llu, life %d: %s", io->kind, (unsigned long long) seed, life,
					 model.wrong);
		au_landing_close(model.l);
		memdisk_power_cut(is_pmem());
	}
}

static void
test_random_lives(void **state)
{
	uint64_t	seeds = (uint64_t) seeds_wanted(150);

	(void) state;
	for (uint64_t seed = 1; seed <= seeds; seed++)
	{
		random_life(&memdisk_io, seed);
		random_life(&memdisk_pmem_io, seed);
	}
}

/* The very first opening, interrupted at every call. */
static void
test_birth_cut_short(void **state)
{
	(void) state;
	for (uint64_t i = 0; i < 2 * 16 * 40; i++)
	{
		begin(i % 2 ? &memdisk_pmem_io : &memdisk_io, i, MEM_BUG_NONE, MEM_CUT_RANDOM);
		memdisk.calls_left = (int) (i / 80);
		if (open_log() == AU_OK)
			au_landing_close(model.l);
		memdisk_power_cut(is_pmem());
		if (open_log() != AU_OK)
			fail_msg("%s, change %d: %s", model.io->kind, (int) (i / 80), err);
		assert_true(au_landing_end(model.l) == START);
		au_landing_close(model.l);
	}
	memdisk_format(1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files_everywhere),
		cmocka_unit_test(test_pmem_everywhere),
		cmocka_unit_test(test_damage_of_last_group),
		cmocka_unit_test(test_planted_mistakes),
		cmocka_unit_test(test_random_lives),
		cmocka_unit_test(test_birth_cut_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
