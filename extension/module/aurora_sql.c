/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_sql.c: functions behind the views and helpers of schema aurora; the
 * SQL script says what each is for.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "catalog/pg_control.h"
#include "catalog/pg_type.h"
#include "commands/tablecmds.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/smgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/pg_lsn.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "am/aurora_am.h"
#include "cache/aurora_pagecache.h"
#include "client/aurora_client.h"
#include "client/aurora_nodes.h"
#include "module/aurora_module.h"
#include "module/aurora_verify.h"
#include "ship/aurora_ship_state.h"

/* The views would rather show nothing than wait. */
#define STATUS_TIMEOUT_MS 2000

PG_FUNCTION_INFO_V1(aurora_sql_check_preloaded);
PG_FUNCTION_INFO_V1(aurora_sql_cache_stats);
PG_FUNCTION_INFO_V1(aurora_sql_fetch_latency);
PG_FUNCTION_INFO_V1(aurora_sql_shipper_status);
PG_FUNCTION_INFO_V1(aurora_sql_storage_status);
PG_FUNCTION_INFO_V1(aurora_sql_storage_nodes);
PG_FUNCTION_INFO_V1(aurora_sql_storage_address);
PG_FUNCTION_INFO_V1(aurora_sql_relation_size);
PG_FUNCTION_INFO_V1(aurora_sql_wait_for_applied);
PG_FUNCTION_INFO_V1(aurora_sql_sync);
PG_FUNCTION_INFO_V1(aurora_sql_read_page);
PG_FUNCTION_INFO_V1(aurora_sql_evict);

/* A row of the function's result type. */
static Datum
make_row(FunctionCallInfo fcinfo, int n, const Datum *values, const bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (desc->natts != n)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("function %s has %d result columns, the library expects %d",
						format_procedure(fcinfo->flinfo->fn_oid), desc->natts, n),
				 errhint("Run ALTER EXTENSION aurora UPDATE.")));
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
											 (Datum *) values, (bool *) nulls));
}

/* CREATE EXTENSION without shared_preload_libraries ends here. */
Datum
aurora_sql_check_preloaded(PG_FUNCTION_ARGS)
{
	aurora_require_preloaded();
	PG_RETURN_VOID();
}

Datum
aurora_sql_cache_stats(PG_FUNCTION_ARGS)
{
	AuroraCacheStats st;
	Datum		values[9];
	bool		nulls[9] = {false};
	int			i = 0;

	aurora_require_preloaded();
	aurora_cache_stats(&st);
	values[i++] = Int64GetDatum((int64) st.hits);
	values[i++] = Int64GetDatum((int64) st.misses);
	values[i++] = Int64GetDatum((int64) st.fetched_pages);
	values[i++] = Int64GetDatum((int64) st.prefetched);
	values[i++] = Int64GetDatum((int64) st.stale_retries);
	values[i++] = Float8GetDatum(st.read_waits_us / 1000.0);
	values[i++] = Int64GetDatum((int64) st.size_hits);
	values[i++] = Int64GetDatum((int64) st.size_misses);
	values[i++] = Int64GetDatum((int64) st.extends);
	return make_row(fcinfo, i, values, nulls);
}

/* One row for each kind of wait for storage. */
Datum
aurora_sql_fetch_latency(PG_FUNCTION_ARGS)
{
	static const char *const kinds[AURORA_FETCH_KINDS] = {
		[AURORA_FETCH_PAGE] = "page",
		[AURORA_FETCH_AHEAD] = "ahead",
		[AURORA_FETCH_SIZE] = "size"
	};
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	aurora_require_preloaded();
	InitMaterializedSRF(fcinfo, 0);
	for (int k = 0; k < AURORA_FETCH_KINDS; k++)
	{
		AuroraLatency l;
		Datum		values[7];
		bool		nulls[7] = {false};

		aurora_latency((AuroraFetchKind) k, &l);
		values[0] = CStringGetTextDatum(kinds[k]);
		values[1] = Int64GetDatum((int64) l.count);
		values[2] = Float8GetDatum(l.sum_us / 1000.0);
		values[3] = Float8GetDatum(l.p50_us);
		values[4] = Float8GetDatum(l.p90_us);
		values[5] = Float8GetDatum(l.p99_us);
		values[6] = Int64GetDatum((int64) l.max_us);
		nulls[3] = nulls[4] = nulls[5] = nulls[6] = l.count == 0;
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* Columns that are null while there is nothing to show. */
static void
put_lsn(Datum *values, bool *nulls, int i, XLogRecPtr lsn)
{
	values[i] = LSNGetDatum(lsn);
	nulls[i] = lsn == InvalidXLogRecPtr;
}

static void
put_text(Datum *values, bool *nulls, int i, const char *text)
{
	nulls[i] = text[0] == '\0';
	values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(text);
}

static void
put_int(Datum *values, bool *nulls, int i, int value)
{
	values[i] = Int32GetDatum(value);
	nulls[i] = value == 0;
}

Datum
aurora_sql_shipper_status(PG_FUNCTION_ARGS)
{
	AuroraShipStatus st;
	Datum		values[19];
	bool		nulls[19] = {false};
	int			i = 0;

	aurora_ship_status(&st);
	put_text(values, nulls, i++, aurora_ship_state_name(st.state));
	put_int(values, nulls, i++, st.pid);
	put_int(values, nulls, i++, st.daemon_pid);
	values[i++] = Int64GetDatum((int64) st.term);
	values[i++] = Int64GetDatum((int64) st.timeline);
	put_lsn(values, nulls, i++, st.start_lsn);
	put_lsn(values, nulls, i++, st.sent_lsn);
	put_lsn(values, nulls, i++, st.durable_lsn);
	put_lsn(values, nulls, i++, st.applied_lsn);
	values[i++] = Int64GetDatum((int64) st.bytes_sent);
	values[i++] = Int64GetDatum((int64) st.appends);
	values[i++] = Int64GetDatum((int64) st.sessions);
	values[i++] = Int64GetDatum((int64) st.reconnects);
	values[i++] = Int64GetDatum((int64) st.daemon_starts);
	values[i++] = Int64GetDatum((int64) st.throttle_waits);
	values[i++] = Float8GetDatum(st.throttle_us / 1000.0);
	nulls[i] = st.last_ack == 0;
	values[i++] = TimestampTzGetDatum(st.last_ack);
	put_text(values, nulls, i++, st.last_error);
	put_text(values, nulls, i++, st.daemon_error);
	return make_row(fcinfo, i, values, nulls);
}

/* What this server knows of its storage nodes, without asking them. */
Datum
aurora_sql_storage_nodes(PG_FUNCTION_ARGS)
{
	static const char *const shipping[] = {
		[AURORA_NODE_UNKNOWN] = "unknown",
		[AURORA_NODE_STREAM] = "stream",
		[AURORA_NODE_BEHIND] = "behind",
		[AURORA_NODE_DOWN] = "down",
		[AURORA_NODE_FOLLOWS] = "follows"
	};
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	aurora_require_preloaded();
	InitMaterializedSRF(fcinfo, 0);
	(void) aurora_nodes_look();
	for (int k = 0; k < aurora_nodes_count(); k++)
	{
		AuroraNodeFigures f;
		Datum		values[13];
		bool		nulls[13] = {false};
		int			i = 0;

		if (!aurora_node_used(k))
			continue;
		aurora_node_figures(k, &f);
		values[i++] = Int32GetDatum(k + 1);
		put_text(values, nulls, i++, aurora_node_address(k));
		put_text(values, nulls, i++, f.node_id != 0 ?
				 psprintf("%016" INT64_MODIFIER "X", f.node_id) : "");
		put_text(values, nulls, i++, shipping[f.shipping]);
		put_text(values, nulls, i++, f.problem);
		put_lsn(values, nulls, i++, f.sent);
		put_lsn(values, nulls, i++, f.durable);
		put_lsn(values, nulls, i++, f.applied);
		values[i++] = Int64GetDatum((int64) f.reads);
		values[i++] = Int64GetDatum((int64) f.errors);
		nulls[i] = f.latency_us == 0;
		values[i++] = Float8GetDatum(f.latency_us / 1000.0);
		values[i++] = Int64GetDatum((int64) f.hedges);
		values[i++] = Int64GetDatum((int64) f.hedge_wins);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* Status of a storage node as jsonb; null if it does not answer, or with
 * missing_ok if there is no such node (any more). */
Datum
aurora_sql_storage_status(PG_FUNCTION_ARGS)
{
	int			number = PG_GETARG_INT32(0);
	bool		missing_ok = PG_GETARG_BOOL(1);
	char	   *json;

	aurora_require_preloaded();
	(void) aurora_nodes_look();
	if (number < 0 || number > aurora_nodes_count() ||
		(number > 0 && !aurora_node_used(number - 1)))
	{
		if (missing_ok)
			PG_RETURN_NULL();
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no storage node number %d", number),
				 errhint("View aurora.nodes has their numbers.")));
	}
	json = aurora_client_status_json(number - 1, STATUS_TIMEOUT_MS);
	if (json == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(json)));
}

Datum
aurora_sql_storage_address(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(aurora_client_target()));
}

/* Bytes of the main fork; null for a relation that is gone. */
Datum
aurora_sql_relation_size(PG_FUNCTION_ARGS)
{
	Relation	rel = try_relation_open(PG_GETARG_OID(0), AccessShareLock);
	int64		size;

	if (rel == NULL)
		PG_RETURN_NULL();
	if (aurora_is_aurora_rel(rel))
		size = (int64) aurora_nblocks(rel) * BLCKSZ;
	else if (RELKIND_HAS_STORAGE(rel->rd_rel->relkind))
		size = (int64) RelationGetNumberOfBlocks(rel) * BLCKSZ;
	else
		size = 0;
	relation_close(rel, AccessShareLock);
	PG_RETURN_INT64(size);
}

static int64
interval_ms(const Interval *span)
{
	return span->time / 1000 +
		((int64) span->day + (int64) span->month * DAYS_PER_MONTH) *
		SECS_PER_DAY * INT64CONST(1000);
}

/* wait_for_applied(lsn pg_lsn, timeout interval): null waits for ever */
Datum
aurora_sql_wait_for_applied(PG_FUNCTION_ARGS)
{
	aurora_require_preloaded();
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_BOOL(aurora_ship_wait_applied(PG_GETARG_LSN(0),
											PG_ARGISNULL(1) ? -1 :
											Max(interval_ms(PG_GETARG_INTERVAL_P(1)), 0)));
}

/*
 * sync(timeout interval): everything that was logged before is applied on
 * storage when it returns.  A record of no effect marks the place, because
 * the insert position itself may lie behind a page header that is not there
 * before the next record.
 */
Datum
aurora_sql_sync(PG_FUNCTION_ARGS)
{
	int64		timeout_ms = PG_ARGISNULL(0) ? -1 :
	Max(interval_ms(PG_GETARG_INTERVAL_P(0)), 0);
	char		nothing = 0;
	XLogRecPtr	lsn;

	aurora_require_preloaded();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("recovery is in progress"),
				 errhint("aurora.sync() works on the primary only.")));
	XLogBeginInsert();
	XLogSetRecordFlags(XLOG_MARK_UNIMPORTANT);
	XLogRegisterData(&nothing, sizeof(nothing));
	lsn = XLogInsert(RM_XLOG_ID, XLOG_NOOP);
	XLogFlush(lsn);
	if (!aurora_ship_wait_applied(lsn, timeout_ms))
	{
		AuroraShipStatus st;

		aurora_ship_status(&st);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("storage node \"%s\" has not applied log up to %X/%X in time",
						aurora_client_target(), LSN_FORMAT_ARGS(lsn)),
				 errdetail("State of the shipper: %s; applied up to %X/%X.",
						   aurora_ship_state_name(st.state),
						   LSN_FORMAT_ARGS(st.applied_lsn)),
				 errhint("See views aurora.shipper and aurora.nodes.")));
	}
	PG_RETURN_LSN(lsn);
}

/* A remote relation, for functions about pages on storage. */
static Relation
open_remote(Oid relid, LOCKMODE lockmode)
{
	Relation	rel = aurora_sql_open(relid, lockmode);

	if (!aurora_rel_is_remote(rel))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is temporary or unlogged: its pages are local",
						RelationGetRelationName(rel))));
	return rel;
}

/* read_page(rel regclass, blkno bigint, lsn pg_lsn): the page on storage, not
 * the cached one; null if there is no version of it. */
Datum
aurora_sql_read_page(PG_FUNCTION_ARGS)
{
	int64		blkno;
	BlockNumber blk;
	XLogRecPtr	as_of = InvalidXLogRecPtr;
	XLogRecPtr	not_before;
	Relation	rel;
	bytea	   *result;
	uint8		status;

	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to read raw pages")));
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	blkno = PG_GETARG_INT64(1);
	if (blkno < 0 || blkno > MaxBlockNumber)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid block number " INT64_FORMAT, blkno)));
	blk = (BlockNumber) blkno;
	if (!PG_ARGISNULL(2))
		as_of = PG_GETARG_LSN(2);

	rel = open_remote(PG_GETARG_OID(0), AccessShareLock);
	not_before = as_of != InvalidXLogRecPtr ? as_of :
		aurora_last_written_get(&rel->rd_node, blk);
	if (!RecoveryInProgress())
	{
		if (as_of != InvalidXLogRecPtr && as_of > GetXLogInsertRecPtr())
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("LSN %X/%X has not been written yet",
							LSN_FORMAT_ARGS(as_of))));
		XLogFlush(not_before);
	}
	result = palloc(VARHDRSZ + BLCKSZ);
	SET_VARSIZE(result, VARHDRSZ + BLCKSZ);
	aurora_client_get_pages(&rel->rd_node, &blk, 1, not_before, as_of,
							VARDATA(result), &status);
	relation_close(rel, AccessShareLock);
	if (status != AU_OK)
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(result);
}

/*
 * evict(rel regclass): drop the table's cached pages; returns how many there
 * were.  Loses nothing: the pages are never dirty, and the log that made them
 * is on its way to storage.  The exclusive lock keeps away who might have
 * them pinned.
 */
Datum
aurora_sql_evict(PG_FUNCTION_ARGS)
{
	Relation	rel = open_remote(PG_GETARG_OID(0), AccessExclusiveLock);
	ForkNumber	fork = MAIN_FORKNUM;
	BlockNumber first = 0;
	BlockNumber nblocks;
	int64		count = 0;

	CheckTableNotInUse(rel, "EVICT");
	nblocks = aurora_nblocks(rel);
	for (BlockNumber blk = 0; blk < nblocks; blk++)
	{
		Buffer		buffer = aurora_find_cached(&rel->rd_node, blk);

		CHECK_FOR_INTERRUPTS();
		if (BufferIsValid(buffer))
		{
			count++;
			ReleaseBuffer(buffer);
		}
	}
	DropRelFileNodeBuffers(RelationGetSmgr(rel), &fork, 1, &first);
	relation_close(rel, NoLock);
	PG_RETURN_INT64(count);
}
