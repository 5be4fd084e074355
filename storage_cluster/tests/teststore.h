/* SPDX-License-Identifier: Apache-2.0 */
/*
 * teststore.h: a page store as tests open and write it: buffers so small that
 * whatever depends on a full one happens soon.  Include after cmocka.h.
 */
#ifndef AU_TEST_TESTSTORE_H
#define AU_TEST_TESTSTORE_H

#include "store/au_pagestore.h"

/* Fails the test if it can't be opened. */
static inline AuPageStore *
teststore_open(const char *dir, uint64_t system_identifier, AuLsn start, uint64_t retention)
{
	AuPageStoreOptions opt = {
		.dir = dir,.system_identifier = system_identifier,.start_lsn = start,
		.pending_bytes = 64 * 1024,.write_buffer_bytes = 256 * 1024,
		.retention_bytes = retention
	};
	AuPageStore *ps;
	char		err[512];

	if (au_pagestore_open(&ps, &opt, err, sizeof(err)) != AU_OK)
		fail_msg("open: %s", err);
	return ps;
}

/* Freeze what is in memory as of `applied` and write it. */
static inline void
teststore_write(AuPageStore *ps, AuLsn applied, bool persist)
{
	char		err[512];
	AuStatus	status;

	assert_true(au_pagestore_freeze(ps, applied, applied));
	status = au_pagestore_write(ps, persist, err, sizeof(err));
	if (status != AU_OK)
		fail_msg("write: %s", err);
	au_pagestore_written(ps, status);
}

#endif							/* AU_TEST_TESTSTORE_H */
