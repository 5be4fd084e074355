/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_ship.h: the log shipper and the embedded daemon's supervisor, and
 * what backends see of them.
 */
#ifndef AURORA_SHIP_H
#define AURORA_SHIP_H

#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "module/aurora_guc.h"
#include "port/atomics.h"

typedef enum AuroraShipState
{
	AURORA_SHIP_STOPPED,
	AURORA_SHIP_CONNECTING,		/* to the server or to storage */
	AURORA_SHIP_STREAMING,
	AURORA_SHIP_REFUSED,		/* storage will not have us; see last_error */
	AURORA_SHIP_WAITING			/* storage cannot take more (disk full) */
} AuroraShipState;

typedef struct AuroraShipStatus
{
	AuroraShipState state;
	pid_t		pid;
	pid_t		daemon_pid;		/* embedded aurora_storaged, 0 if none */
	uint64		term;
	uint32		timeline;
	XLogRecPtr	start_lsn;		/* where the volume's log begins */
	XLogRecPtr	sent_lsn;
	XLogRecPtr	durable_lsn;
	XLogRecPtr	applied_lsn;
	uint64		bytes_sent;
	uint64		appends;
	uint64		sessions;		/* times streaming was started */
	uint64		reconnects;		/* times it was cut off */
	uint64		daemon_starts;
	uint64		throttle_waits;
	uint64		throttle_us;
	TimestampTz last_ack;
	char		last_error[512];	/* why not STREAMING */
	char		last_hint[512];		/* what to do about it, or "" */
	char		daemon_error[512];	/* why the embedded daemon last ended */
} AuroraShipStatus;

extern void aurora_ship_register_workers(void);	/* from _PG_init */
extern Size aurora_ship_shmem_size(void);
extern void aurora_ship_shmem_init(void);
extern void aurora_ship_status(AuroraShipStatus *out);

/* Writers wait here while more than aurora.max_ship_lag of log is not yet
 * durable on storage.  Cheap when not; cancellable; call without locks, before
 * a change. */
extern void aurora_ship_throttle_slow(void);
extern pg_atomic_uint64 *aurora_ship_durable;	/* NULL: not preloaded */

/* How far this backend's own last record may be ahead of storage.  Its own, and
 * not the server's, because that costs no lock; a backend that writes knows
 * a fresh position, and one that begins to write learns it with its first
 * record, so the bound is missed by one record for each backend. */
static inline bool
aurora_ship_too_far_ahead(void)
{
	XLogRecPtr	durable = pg_atomic_read_u64(aurora_ship_durable);

	return durable != InvalidXLogRecPtr && ProcLastRecPtr > durable &&
		ProcLastRecPtr - durable > (uint64) aurora_max_ship_lag_mb * 1024 * 1024;
}

static inline void
aurora_ship_throttle(void)
{
	if (unlikely(aurora_max_ship_lag_mb > 0 && aurora_ship_durable != NULL &&
				 aurora_ship_too_far_ahead()))
		aurora_ship_throttle_slow();
}

/* Somebody is going to wait until storage has log up to lsn (applied: until it
 * has applied it): the shipper shall not gather log before it sends it.  WAL
 * up to lsn has been flushed.  Does not wait. */
extern void aurora_ship_want(XLogRecPtr lsn, bool applied);

/* Raises an error with hint unless the slot exists and storage has the volume:
 * no aurora table can be made before the log is kept.  Waits a moment for a
 * shipper that is just starting. */
extern void aurora_ship_require_ready(void);

/* main functions of the background workers (names known to the postmaster) */
extern PGDLLEXPORT void aurora_shipper_main(Datum arg);
extern PGDLLEXPORT void aurora_supervisor_main(Datum arg);
extern PGDLLEXPORT void aurora_watcher_main(Datum arg);

#endif							/* AURORA_SHIP_H */
