/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_ship_state.c: shared state of log shipping, the throttle, and the
 * registration of the background workers.
 *
 * Invariants:
 *  1. durable_lsn in shared memory is never above what a storage node has
 *     acknowledged.  Before the first acknowledgement since the server's start
 *     it is 0, and nobody is held back (nothing can be read from storage then
 *     either).
 *  2. durable_lsn never goes back; sent_lsn and applied_lsn may, when the
 *     connection or the node has to begin again.
 *  3. A backend waits here without holding locks, and can be cancelled.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "client/aurora_client.h"
#include "module/aurora_guc.h"
#include "ship/aurora_ship.h"
#include "ship/aurora_ship_state.h"

/* How long CREATE TABLE waits for a shipper that is starting. */
#define READY_WAIT_MS 10000
/* One message about held back writers in this time. */
#define THROTTLE_LOG_INTERVAL_MS 30000

/* aurora_ship->shipper_procno when there is none. */
#define NO_SHIPPER PG_UINT32_MAX

AuroraShipShared *aurora_ship = NULL;
pg_atomic_uint64 *aurora_ship_durable = NULL;

Size
aurora_ship_shmem_size(void)
{
	return MAXALIGN(sizeof(AuroraShipShared));
}

/* Caller holds AddinShmemInitLock. */
void
aurora_ship_shmem_init(void)
{
	bool		found;

	aurora_ship = ShmemInitStruct("aurora log shipping",
								  aurora_ship_shmem_size(), &found);
	aurora_ship_durable = &aurora_ship->durable_lsn;
	if (found)
		return;
	memset(aurora_ship, 0, sizeof(*aurora_ship));
	SpinLockInit(&aurora_ship->mutex);
	pg_atomic_init_u64(&aurora_ship->sent_lsn, 0);
	pg_atomic_init_u64(&aurora_ship->durable_lsn, 0);
	pg_atomic_init_u64(&aurora_ship->applied_lsn, 0);
	pg_atomic_init_u64(&aurora_ship->wanted_lsn, 0);
	pg_atomic_init_u64(&aurora_ship->wanted_applied, 0);
	pg_atomic_init_u32(&aurora_ship->shipper_procno, NO_SHIPPER);
	pg_atomic_init_u64(&aurora_ship->throttle_waits, 0);
	pg_atomic_init_u64(&aurora_ship->throttle_us, 0);
	pg_atomic_init_u64(&aurora_ship->throttle_logged, 0);
	ConditionVariableInit(&aurora_ship->progress);
}

/*
 * The supervisor starts with the postmaster, so that storage is there when
 * recovery ends.  The shipper starts when the server may write: a standby
 * ships nothing, its primary does.
 */
void
aurora_ship_register_workers(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	strlcpy(worker.bgw_name, "aurora shipper", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "aurora shipper", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "aurora", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "aurora_shipper_main", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	RegisterBackgroundWorker(&worker);

	memset(&worker, 0, sizeof(worker));
	strlcpy(worker.bgw_library_name, "aurora", BGW_MAXLEN);
	if (aurora_storage_nodes[0] != '\0')
	{
		strlcpy(worker.bgw_name, "aurora watcher", BGW_MAXLEN);
		strlcpy(worker.bgw_function_name, "aurora_watcher_main", BGW_MAXLEN);
	}
	else
	{
		strlcpy(worker.bgw_name, "aurora storage supervisor", BGW_MAXLEN);
		strlcpy(worker.bgw_function_name, "aurora_supervisor_main", BGW_MAXLEN);
	}
	strlcpy(worker.bgw_type, worker.bgw_name, BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_PostmasterStart;
	worker.bgw_restart_time = 1;
	RegisterBackgroundWorker(&worker);
}

const char *
aurora_ship_state_name(AuroraShipState state)
{
	switch (state)
	{
		case AURORA_SHIP_STOPPED:
			return "stopped";
		case AURORA_SHIP_CONNECTING:
			return "connecting";
		case AURORA_SHIP_STREAMING:
			return "streaming";
		case AURORA_SHIP_REFUSED:
			return "refused";
		case AURORA_SHIP_WAITING:
			return "waiting";
	}
	return "unknown";
}

void
aurora_ship_status(AuroraShipStatus *out)
{
	if (aurora_ship == NULL)
	{
		memset(out, 0, sizeof(*out));
		return;
	}
	SpinLockAcquire(&aurora_ship->mutex);
	*out = aurora_ship->st;
	SpinLockRelease(&aurora_ship->mutex);
	out->sent_lsn = pg_atomic_read_u64(&aurora_ship->sent_lsn);
	out->durable_lsn = pg_atomic_read_u64(&aurora_ship->durable_lsn);
	out->applied_lsn = pg_atomic_read_u64(&aurora_ship->applied_lsn);
	out->throttle_waits = pg_atomic_read_u64(&aurora_ship->throttle_waits);
	out->throttle_us = pg_atomic_read_u64(&aurora_ship->throttle_us);
}

AuroraTrouble
aurora_trouble(AuroraShipFailure *failure, AuroraTrouble kind,
			   const char *hint, const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	vsnprintf(failure->message, sizeof(failure->message), fmt, args);
	va_end(args);
	strlcpy(failure->hint, hint ? hint : "", sizeof(failure->hint));
	return kind;
}

void
aurora_ship_set_state(AuroraShipState state, const AuroraShipFailure *failure)
{
	SpinLockAcquire(&aurora_ship->mutex);
	aurora_ship->st.state = state;
	aurora_ship->st.pid = state == AURORA_SHIP_STOPPED ? 0 : MyProcPid;
	if (failure != NULL)
	{
		strlcpy(aurora_ship->st.last_error, failure->message,
				sizeof(aurora_ship->st.last_error));
		strlcpy(aurora_ship->st.last_hint, failure->hint,
				sizeof(aurora_ship->st.last_hint));
	}
	else if (state == AURORA_SHIP_STREAMING)
	{
		aurora_ship->st.last_error[0] = '\0';
		aurora_ship->st.last_hint[0] = '\0';
	}
	SpinLockRelease(&aurora_ship->mutex);
	ConditionVariableBroadcast(&aurora_ship->progress);
}

void
aurora_ship_listen(bool on)
{
	pg_atomic_write_u32(&aurora_ship->shipper_procno,
						on ? (uint32) MyProc->pgprocno : NO_SHIPPER);
}

static void
raise_to(pg_atomic_uint64 *p, uint64 lsn)
{
	uint64		cur = pg_atomic_read_u64(p);

	while (cur < lsn && !pg_atomic_compare_exchange_u64(p, &cur, lsn))
		;
}

void
aurora_ship_want(XLogRecPtr lsn, bool applied)
{
	uint32		procno;

	if (aurora_ship == NULL ||
		pg_atomic_read_u64(applied ? &aurora_ship->applied_lsn :
						   &aurora_ship->sent_lsn) >= lsn)
		return;
	raise_to(&aurora_ship->wanted_lsn, lsn);
	if (applied)
		raise_to(&aurora_ship->wanted_applied, lsn);
	procno = pg_atomic_read_u32(&aurora_ship->shipper_procno);

	/* Of a shipper that has just ended: its latch is another's, who copes. */
	if (procno != NO_SHIPPER)
		SetLatch(&ProcGlobal->allProcs[procno].procLatch);
}

void
aurora_ship_publish(XLogRecPtr sent, XLogRecPtr durable, XLogRecPtr applied)
{
	pg_atomic_write_u64(&aurora_ship->sent_lsn, sent);
	pg_atomic_write_u64(&aurora_ship->durable_lsn, durable);
	pg_atomic_write_u64(&aurora_ship->applied_lsn, applied);

	/* A sleeper is on the list before it looks at the positions. */
	pg_memory_barrier();
	ConditionVariableBroadcast(&aurora_ship->progress);
}

void
aurora_ship_set_daemon(pid_t pid, bool started, const char *error)
{
	SpinLockAcquire(&aurora_ship->mutex);
	aurora_ship->st.daemon_pid = pid;
	if (started)
		aurora_ship->st.daemon_starts++;
	if (error != NULL)
		strlcpy(aurora_ship->st.daemon_error, error,
				sizeof(aurora_ship->st.daemon_error));
	SpinLockRelease(&aurora_ship->mutex);
}

/* Whose turn it is to write the message about held back writers. */
static bool
throttle_log_turn(void)
{
	TimestampTz now = GetCurrentTimestamp();
	uint64		last = pg_atomic_read_u64(&aurora_ship->throttle_logged);

	if (!TimestampDifferenceExceeds((TimestampTz) last, now,
									THROTTLE_LOG_INTERVAL_MS))
		return false;
	return pg_atomic_compare_exchange_u64(&aurora_ship->throttle_logged, &last,
										  (uint64) now);
}

void
aurora_ship_throttle_slow(void)
{
	Assert(CritSectionCount == 0 && InterruptHoldoffCount == 0);

	pg_atomic_fetch_add_u64(&aurora_ship->throttle_waits, 1);
	ConditionVariablePrepareToSleep(&aurora_ship->progress);
	while (aurora_ship_too_far_ahead())
	{
		instr_time	start;
		instr_time	waited;

		if (throttle_log_turn())
			ereport(LOG,
					(errmsg("writers of aurora tables wait: more than %d MB of log is not yet durable on storage node \"%s\"",
							aurora_max_ship_lag_mb, aurora_client_target()),
					 errhint("Look at view aurora.shipper for what holds the log back; aurora.max_ship_lag sets the limit.")));

		/* The time-out is there to count the time and repeat the message. */
		INSTR_TIME_SET_CURRENT(start);
		(void) ConditionVariableTimedSleep(&aurora_ship->progress, 1000,
										   PG_WAIT_EXTENSION);
		INSTR_TIME_SET_CURRENT(waited);
		INSTR_TIME_SUBTRACT(waited, start);
		pg_atomic_fetch_add_u64(&aurora_ship->throttle_us,
								INSTR_TIME_GET_MICROSEC(waited));
	}
	ConditionVariableCancelSleep();
}

/* What was not even written yet nobody can hurry: an LSN that never comes
 * (callers take it from anybody) would keep the shipper in a hurry for ever. */
static void
want_applied(XLogRecPtr lsn)
{
	if (!RecoveryInProgress())
		aurora_ship_want(Min(lsn, GetFlushRecPtr(NULL)), true);
}

bool
aurora_ship_wait_applied(XLogRecPtr lsn, int64 timeout_ms)
{
	TimestampTz start = GetCurrentTimestamp();
	bool		done;

	if (aurora_ship == NULL)
		return false;
	ConditionVariablePrepareToSleep(&aurora_ship->progress);
	for (;;)
	{
		long		slice = 10000;

		done = pg_atomic_read_u64(&aurora_ship->applied_lsn) >= lsn;
		if (done)
			break;
		want_applied(lsn);
		if (timeout_ms >= 0)
		{
			int64		left = timeout_ms -
				(GetCurrentTimestamp() - start) / 1000;

			if (left <= 0)
				break;
			slice = Min(left, slice);
		}
		(void) ConditionVariableTimedSleep(&aurora_ship->progress, slice,
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return done;
}

/* Raise the error that explains why log is not being shipped. */
static void
not_ready_error(const AuroraShipStatus *st)
{
	const char *why = st->last_error;
	const char *hint = "";

	switch (st->state)
	{
		case AURORA_SHIP_STOPPED:
			why = "The log shipper is not running.";
			hint = "Look into the server's log for messages of \"aurora shipper\". It needs wal_level = replica or higher, and max_wal_senders, max_replication_slots and max_worker_processes with room for it.";
			break;
		case AURORA_SHIP_WAITING:
			hint = "Free disk space for the storage node; it goes on by itself.";
			break;
		case AURORA_SHIP_REFUSED:
			hint = "The server's log says what to do; view aurora.shipper shows the state.";
			break;
		case AURORA_SHIP_CONNECTING:
		case AURORA_SHIP_STREAMING:
			if (aurora_storage_nodes[0] != '\0')
				hint = "Check that aurora_storaged runs at the address in aurora.storage_nodes.";
			else
			{
				if (st->daemon_pid == 0 && st->daemon_error[0] != '\0')
					why = st->daemon_error;
				hint = "The embedded aurora_storaged writes its log to \"storaged.log\" in aurora.storage_directory (by default \"aurora\" in the data directory).";
			}
			break;
	}
	if (st->last_hint[0] != '\0')
		hint = st->last_hint;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("log shipping to storage node \"%s\" is not ready",
					aurora_client_target()),
			 why[0] != '\0' ? errdetail("State %s: %s",
										aurora_ship_state_name(st->state), why) :
			 errdetail("State: %s.", aurora_ship_state_name(st->state)),
			 errhint("%s", hint)));
}

void
aurora_ship_require_ready(void)
{
	TimestampTz start = GetCurrentTimestamp();
	AuroraShipStatus st;

	if (aurora_ship == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("aurora is not preloaded"),
				 errhint("Add aurora to shared_preload_libraries and restart the server.")));

	ConditionVariablePrepareToSleep(&aurora_ship->progress);
	for (;;)
	{
		long		left;

		aurora_ship_status(&st);
		if (st.state == AURORA_SHIP_STREAMING)
			break;
		left = READY_WAIT_MS -
			TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());
		if (left <= 0 || st.state == AURORA_SHIP_REFUSED)
			break;
		(void) ConditionVariableTimedSleep(&aurora_ship->progress, left,
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	if (st.state != AURORA_SHIP_STREAMING)
		not_ready_error(&st);
}

bool
aurora_ship_marker_exists(void)
{
	struct stat sb;

	if (stat(AURORA_VOLUME_MARKER, &sb) == 0)
		return true;
	if (errno != ENOENT)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat file \"%s\": %m", AURORA_VOLUME_MARKER)));
	return false;
}

/* Durable when it returns: no table may be made before. */
void
aurora_ship_marker_write(XLogRecPtr start_lsn)
{
	const char *tmp = AURORA_VOLUME_MARKER ".tmp";
	FILE	   *file = AllocateFile(tmp, PG_BINARY_W);

	if (file == NULL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", tmp)));
	if (fprintf(file,
				"# A storage node holds table pages of this server. Do not remove\n"
				"# this file while there are aurora tables.\n"
				"system_identifier = " UINT64_FORMAT "\n"
				"start_lsn = %X/%X\n",
				GetSystemIdentifier(), LSN_FORMAT_ARGS(start_lsn)) < 0 ||
		FreeFile(file) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", tmp)));
	(void) durable_rename(tmp, AURORA_VOLUME_MARKER, ERROR);
}

char *
aurora_ship_path(const char *given, const char *fallback)
{
	const char *path = given[0] != '\0' ? given : fallback;

	if (is_absolute_path(path))
		return pstrdup(path);
	return psprintf("%s/%s", DataDir, path);
}
