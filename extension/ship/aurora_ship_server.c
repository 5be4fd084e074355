/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_ship_server.c: what the shipper needs of its own server besides the
 * stream: a way to connect, the replication slot, WAL that is still there.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/timeline.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "postmaster/postmaster.h"
#include "replication/slot.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
#include "utils/wait_event.h"

#include "module/aurora_guc.h"
#include "ship/aurora_ship_server.h"

/* How long a walsender of ours that was cut off may take to go. */
#define SLOT_WAIT_MS 5000

void
aurora_ship_check_interrupts(void)
{
	if (ProcDiePending)
		proc_exit(1);			/* asked to stop: nothing to report */
	CHECK_FOR_INTERRUPTS();
}

void
aurora_ship_pause(long ms, bool until_reload)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);

	while (!(until_reload && ConfigReloadPending))
	{
		long		left = -1;
		int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

		if (ms >= 0)
		{
			left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
			if (left <= 0)
				break;
			events |= WL_TIMEOUT;
		}
		(void) WaitLatch(MyLatch, events, left, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		aurora_ship_check_interrupts();
	}
}

/* Append key='value' to a connection string. */
static void
conninfo_add(StringInfo buf, const char *key, const char *value)
{
	appendStringInfo(buf, "%s%s='", buf->len > 0 ? " " : "", key);
	for (; *value; value++)
	{
		if (*value == '\'' || *value == '\\')
			appendStringInfoChar(buf, '\\');
		appendStringInfoChar(buf, *value);
	}
	appendStringInfoChar(buf, '\'');
}

char *
aurora_server_conninfo(const char *superuser)
{
	StringInfoData buf;
	char	   *raw = pstrdup(Unix_socket_directories ? Unix_socket_directories : "");
	List	   *dirs = NIL;
	char		port[12];

	if (aurora_shipper_conninfo[0] != '\0')
		return pstrdup(aurora_shipper_conninfo);

	initStringInfo(&buf);
	if (SplitDirectoriesString(raw, ',', &dirs) && dirs != NIL)
	{
		char	   *dir = linitial(dirs);

		/* '@' begins an abstract socket */
		conninfo_add(&buf, "host",
					 dir[0] == '@' ? dir : aurora_ship_path(dir, dir));
	}
	else
		conninfo_add(&buf, "host", "localhost");
	snprintf(port, sizeof(port), "%d", PostPortNumber);
	conninfo_add(&buf, "port", port);
	conninfo_add(&buf, "user", superuser);
	/* explicit, because PGAPPNAME in the postmaster's environment would win */
	conninfo_add(&buf, "application_name", "aurora");
	return buf.data;
}

typedef enum SlotCondition
{
	SLOT_MISSING,
	SLOT_USABLE,
	SLOT_LOST,					/* does not hold WAL (any more) */
	SLOT_LOGICAL
} SlotCondition;

static SlotCondition
slot_look(pid_t *active_pid)
{
	ReplicationSlot *slot = SearchNamedReplicationSlot(aurora_slot_name, true);
	SlotCondition result;

	*active_pid = 0;
	if (slot == NULL)
		return SLOT_MISSING;
	SpinLockAcquire(&slot->mutex);
	*active_pid = slot->active_pid;
	if (!SlotIsPhysical(slot))
		result = SLOT_LOGICAL;
	else if (slot->data.restart_lsn == InvalidXLogRecPtr)
		result = SLOT_LOST;
	else
		result = SLOT_USABLE;
	SpinLockRelease(&slot->mutex);
	return result;
}

static void
slot_create(void)
{
	ReplicationSlotCreate(aurora_slot_name, false, RS_PERSISTENT, false);
	ReplicationSlotReserveWal();
	ReplicationSlotMarkDirty();
	ReplicationSlotSave();
	ReplicationSlotRelease();
	ereport(LOG,
			(errmsg("created replication slot \"%s\" for log shipping",
					aurora_slot_name)));
}

AuroraTrouble
aurora_slot_ensure(AuroraShipFailure *failure)
{
	TimestampTz start = GetCurrentTimestamp();
	pid_t		active_pid;

	for (;;)
	{
		switch (slot_look(&active_pid))
		{
			case SLOT_MISSING:
				slot_create();
				return AURORA_TROUBLE_NONE;
			case SLOT_LOGICAL:
				return aurora_trouble(failure, AURORA_TROUBLE_REFUSED,
									  "Drop it, or choose another name with aurora.slot_name.",
									  "replication slot \"%s\" is a logical slot",
									  aurora_slot_name);
			case SLOT_LOST:
				if (active_pid != 0)
					break;
				ereport(LOG,
						(errmsg("replication slot \"%s\" does not hold WAL any more and is created again",
								aurora_slot_name)));
				ReplicationSlotDrop(aurora_slot_name, true);
				continue;
			case SLOT_USABLE:
				if (active_pid == 0)
					return AURORA_TROUBLE_NONE;
				break;
		}
		if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(), SLOT_WAIT_MS))
			return aurora_trouble(failure, AURORA_TROUBLE_LOST,
								  "Only the log shipper may use this slot; see pg_stat_replication.",
								  "replication slot \"%s\" is in use by process %d",
								  aurora_slot_name, (int) active_pid);
		aurora_ship_pause(10, false);
	}
}

static bool
segment_exists(XLogSegNo segno, List *history)
{
	ListCell   *lc;

	foreach(lc, history)
	{
		TimeLineHistoryEntry *entry = lfirst(lc);
		char		path[MAXPGPATH];
		struct stat sb;

		XLogFilePath(path, entry->tli, segno, wal_segment_size);
		if (stat(path, &sb) == 0)
			return true;
	}
	return false;
}

XLogRecPtr
aurora_wal_start(List *history)
{
	XLogRecPtr	end = GetFlushRecPtr(NULL);
	XLogSegNo	segno;
	XLogRecPtr	start;

	XLByteToSeg(end, segno, wal_segment_size);
	while (segno > 1 && segment_exists(segno - 1, history))
		segno--;
	XLogSegNoOffsetToRecPtr(segno, 0, wal_segment_size, start);
	return start;
}

char *
aurora_superuser_name(void)
{
	MemoryContext cxt = CurrentMemoryContext;
	char	   *name;

	StartTransactionCommand();
	name = MemoryContextStrdup(cxt, GetUserNameFromId(BOOTSTRAP_SUPERUSERID, false));
	CommitTransactionCommand();
	return name;
}
