/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_ship_state.h: what the shipper, the supervisor and the SQL functions
 * share behind aurora_ship.h.
 *
 * One struct in shared memory.  Each field has one writer process: the
 * supervisor writes the daemon_* fields, the shipper everything else; only
 * the throttle counters have many.  Readers copy under the spinlock, but for
 * the positions, which are atomics because every change looks at them.
 */
#ifndef AURORA_SHIP_STATE_H
#define AURORA_SHIP_STATE_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/spin.h"

#include "ship/aurora_ship.h"

typedef struct AuroraShipShared
{
	slock_t		mutex;			/* protects st */
	AuroraShipStatus st;		/* but for what is below */

	pg_atomic_uint64 sent_lsn;
	pg_atomic_uint64 durable_lsn;	/* 0: not known, nobody is held back */
	pg_atomic_uint64 applied_lsn;

	/* Somebody waits until storage has log up to here / has applied it; set
	 * by aurora_ship_want().  The shipper then doesn't gather log. */
	pg_atomic_uint64 wanted_lsn;
	pg_atomic_uint64 wanted_applied;
	pg_atomic_uint32 shipper_procno;	/* whose latch to set; or none */

	pg_atomic_uint64 throttle_waits;
	pg_atomic_uint64 throttle_us;
	pg_atomic_uint64 throttle_logged;	/* TimestampTz of the last message */

	/* Signalled when a position or the state has changed. */
	ConditionVariable progress;
} AuroraShipShared;

/* NULL when the library was not preloaded. */
extern AuroraShipShared *aurora_ship;

/* Why something does not go on: texts for the log, the views and errors. */
typedef struct AuroraShipFailure
{
	char		message[512];
	char		hint[512];		/* "" = none */
} AuroraShipFailure;

typedef enum AuroraTrouble
{
	AURORA_TROUBLE_NONE,
	AURORA_TROUBLE_LOST,		/* not reachable, closed, timed out: try again */
	AURORA_TROUBLE_FULL,		/* storage cannot take more: try again later */
	AURORA_TROUBLE_FENCED,		/* another writer has the volume */
	AURORA_TROUBLE_REFUSED		/* somebody must do something first */
} AuroraTrouble;

/* Put a failure into words; returns kind. */
extern AuroraTrouble aurora_trouble(AuroraShipFailure *failure,
									AuroraTrouble kind,
									const char *hint, const char *fmt,...)
			__attribute__((format(printf, 4, 5)));

/* Only the shipper: new state; failure may be NULL (clears last_error when
 * the new state is STREAMING). */
extern void aurora_ship_set_state(AuroraShipState state,
								  const AuroraShipFailure *failure);
/* Only the shipper: its latch is the one to set (or it ends). */
extern void aurora_ship_listen(bool on);
/* Only the shipper: publish positions and wake who waits for them. */
extern void aurora_ship_publish(XLogRecPtr sent, XLogRecPtr durable,
								XLogRecPtr applied);
/* Only the supervisor: pid of the daemon (0 = none) and, if error is not
 * NULL, why it does not run. */
extern void aurora_ship_set_daemon(pid_t pid, bool started, const char *error);

extern const char *aurora_ship_state_name(AuroraShipState state);

/*
 * Wait until storage has applied the log up to lsn, at most timeout_ms
 * (negative: for ever).  False: time is up.  Cancellable.
 */
extern bool aurora_ship_wait_applied(XLogRecPtr lsn, int64 timeout_ms);

/*
 * The marker file "aurora_volume" in the data directory: storage has made
 * this server's volume, so a storage node that does not know the volume has
 * lost it, or is the wrong one.
 */
#define AURORA_VOLUME_MARKER "aurora_volume"
extern bool aurora_ship_marker_exists(void);
extern void aurora_ship_marker_write(XLogRecPtr start_lsn);

/* Absolute path of what the user gave relative to the data directory, or of
 * a file below it; palloc'd. */
extern char *aurora_ship_path(const char *given, const char *fallback);

#endif							/* AURORA_SHIP_STATE_H */
