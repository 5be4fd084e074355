/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_wal_format.c: main data of our WAL records, every combination of
 * flags, every wrong length; record kinds; status names.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/au_wal_format.h"

static const AuRecMain full = {
	.flags = AU_REC_FLAGS_KNOWN,
	.conflict_xid = 0x01020304,
	.vm_clear_blocks = 0x05,
	.truncate_rel = {.spc = 1663,.db = 5,.rel = 16384,.fork = 0},
	.truncate_nblocks = 0xA0B0C0D0,
};

static void
test_round_trip(void **state)
{
	(void) state;
	for (unsigned int flags = 0; flags <= AU_REC_FLAGS_KNOWN; flags++)
	{
		uint8_t		buf[AU_REC_MAIN_MAX + 1];
		AuRecMain	in = full;
		AuRecMain	out;
		size_t		len;

		in.flags = (uint8_t) flags;
		memset(buf, 0xEE, sizeof(buf));
		len = au_rec_main_encode(buf, &in);
		assert_true(len <= AU_REC_MAIN_MAX);
		assert_int_equal(buf[len], 0xEE);
		assert_int_equal(au_rec_main_decode(buf, len, &out), AU_OK);
		assert_int_equal(out.flags, flags);
		assert_int_equal(out.conflict_xid,
						 flags & AU_REC_CONFLICT ? in.conflict_xid : 0);
		assert_int_equal(out.vm_clear_blocks,
						 flags & AU_REC_VM_CLEAR ? in.vm_clear_blocks : 0);
		assert_int_equal(out.truncate_rel.rel,
						 flags & AU_REC_TRUNCATE ? in.truncate_rel.rel : 0);
		assert_int_equal(out.truncate_nblocks,
						 flags & AU_REC_TRUNCATE ? in.truncate_nblocks : 0);

		assert_int_equal(len == 0, flags == 0);
		for (size_t wrong = 1; len > 0 && wrong <= sizeof(buf); wrong++)
		{
			if (wrong != len)
				assert_int_equal(au_rec_main_decode(buf, wrong, &out), AU_CORRUPT);
		}
	}
}

/* The bytes themselves are a contract. */
static void
test_layout(void **state)
{
	static const uint8_t want[AU_REC_MAIN_MAX] = {
		1, 7,
		0x04, 0x03, 0x02, 0x01,
		0x05,
		0x7F, 0x06, 0, 0, 5, 0, 0, 0, 0, 0x40, 0, 0, 0xD0, 0xC0, 0xB0, 0xA0,
	};
	uint8_t		buf[AU_REC_MAIN_MAX];

	(void) state;
	assert_int_equal(au_rec_main_encode(buf, &full), sizeof(want));
	assert_memory_equal(buf, want, sizeof(want));
}

static void
test_refused(void **state)
{
	uint8_t		buf[AU_REC_MAIN_MAX];
	size_t		len = au_rec_main_encode(buf, &full);
	AuRecMain	out;

	(void) state;
	buf[1] = 0x08;
	assert_int_equal(au_rec_main_decode(buf, len, &out), AU_CORRUPT);
	assert_int_equal(au_rec_main_decode(buf, 2, &out), AU_CORRUPT);
	buf[0] = AU_REC_VERSION + 1;
	assert_int_equal(au_rec_main_decode(buf, len, &out), AU_UNSUPPORTED);
	assert_int_equal(au_rec_main_decode(buf, 1, &out), AU_UNSUPPORTED);
	buf[0] = 0;
	assert_int_equal(au_rec_main_decode(buf, len, &out), AU_CORRUPT);
}

/* Nothing flagged: no bytes, or the two that say so. */
static void
test_nothing_flagged(void **state)
{
	static const uint8_t zero[] = {AU_REC_VERSION, 0};
	AuRecMain	out = full;

	(void) state;
	assert_int_equal(au_rec_main_decode(NULL, 0, &out), AU_OK);
	assert_int_equal(out.flags, 0);
	assert_int_equal(out.conflict_xid, 0);
	assert_int_equal(au_rec_main_decode(zero, sizeof(zero), &out), AU_OK);
	assert_int_equal(out.flags, 0);
}

static void
test_kind_names(void **state)
{
	(void) state;
#define AU_X(name, code) \
	assert_string_equal(au_record_kind_name(code), #name); \
	assert_string_equal(au_record_kind_name((code) | 0x0F), #name);
	AU_RECORD_KINDS(AU_X)
#undef AU_X
	assert_null(au_record_kind_name(0xF0));
}

static void
test_status_names(void **state)
{
	(void) state;
	for (int s = AU_OK; s <= AU_MOVED; s++)
		assert_string_not_equal(au_status_name((AuStatus) s), "unknown status");
	assert_string_equal(au_status_name((AuStatus) 999), "unknown status");
	assert_string_equal(au_status_name(AU_FENCED), "fenced");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_nothing_flagged),
		cmocka_unit_test(test_kind_names),
		cmocka_unit_test(test_status_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
