/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_relog.h: a volume's log is exchanged for an empty one that begins where a
 * page store made anew needs it, together with that store.
 *
 *   log, pages, pages.new ──begin──▶ log.new, REBUILT ──roll──▶ log, pages
 *
 * begin: an empty log beside the old one, then the file REBUILT, which is the
 * point of no return.  roll: renames, each made durable; REBUILT goes last.
 *
 * Invariants:
 *  1. At each moment a start finds either the old log and the old pages, or
 *     REBUILT, and then everything that roll needs.
 *  2. roll does what is not done yet, any number of times.
 *  3. VOLUME (terms, votes, the group) is not touched.
 *
 * err is always terminated after a failure.  Owner's thread.
 */
#ifndef AU_RELOG_H
#define AU_RELOG_H

#include "store/au_landing.h"

#define AU_RELOG_FILE "REBUILT"
#define AU_RELOG_MAGIC "AURORARB"
#define AU_RELOG_VERSION 1
#define AU_RELOG_LEN 24

typedef struct AuRelog
{
	const char *dir;			/* the volume's */
	AuLandingOptions log;		/* as the log is opened */
} AuRelog;

/* pages.new is complete and closed, everything is open still.  Not AU_OK:
 * nothing has happened. */
AuStatus	au_relog_begin(const AuRelog *r, AuLsn start, char *err, size_t errlen);
/* Log and pages are closed: at a start, and after begin.  Without REBUILT: what
 * a begin that was stopped has left goes. */
AuStatus	au_relog_roll(const AuRelog *r, char *err, size_t errlen);

#endif							/* AU_RELOG_H */
