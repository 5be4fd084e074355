/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_vacuum.c: VACUUM of one aurora table, from the outside.
 *
 * The work is heap's lazy vacuum in three steps (README.maintenance): the scan
 * with its rounds of reaping, truncation, statistics.  This file fixes the
 * cutoffs before, updates pg_class and the cumulative statistics after, and
 * writes the report.  TOAST tables come here as tables of their own.
 *
 * Invariants:
 *  1. The table's size is taken after the cutoffs: pages added later hold no
 *     xid before oldest_xmin.
 *  2. relfrozenxid and relminmxid advance only if every page that might hold
 *     an older xid was looked at.
 *  3. No snapshot that the server still honours loses a row:
 *     old_snapshot_threshold never moves the cutoffs of an aurora table.
 */
#include "postgres.h"

#include "access/multixact.h"
#include "access/transam.h"
#include "commands/dbcommands.h"
#include "commands/progress.h"
#include "executor/instrument.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/autovacuum.h"
#include "storage/procarray.h"
#include "utils/backend_progress.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_rusage.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "am/aurora_vacuum_private.h"

/* Where the meters stood at the start. */
typedef struct ReportBase
{
	PGRUsage	rusage;
	TimestampTz start;
	WalUsage	wal;
	BufferUsage buffers;
	PgStat_Counter read_time;
	PgStat_Counter write_time;
	BlockNumber rel_pages;
	char	  **index_names;	/* indexes are closed when we report */
	bool		frozenxid_updated;
	bool		minmulti_updated;
} ReportBase;

static void
error_context(void *arg)
{
	AuroraVacuum *v = arg;
	const VacuumPlace *place = &v->place;

	switch (place->phase)
	{
		case VACUUM_PHASE_NONE:
			break;
		case VACUUM_PHASE_SCAN:
		case VACUUM_PHASE_REAP:
			{
				bool		scan = place->phase == VACUUM_PHASE_SCAN;

				if (BlockNumberIsValid(place->blk) &&
					OffsetNumberIsValid(place->off))
					errcontext(scan ? "while scanning block %u offset %u of relation \"%s.%s\"" :
							   "while vacuuming block %u offset %u of relation \"%s.%s\"",
							   place->blk, place->off, v->nspname, v->relname);
				else if (BlockNumberIsValid(place->blk))
					errcontext(scan ? "while scanning block %u of relation \"%s.%s\"" :
							   "while vacuuming block %u of relation \"%s.%s\"",
							   place->blk, v->nspname, v->relname);
				else
					errcontext(scan ? "while scanning relation \"%s.%s\"" :
							   "while vacuuming relation \"%s.%s\"",
							   v->nspname, v->relname);
			}
			break;
		case VACUUM_PHASE_INDEX:
			errcontext("while vacuuming index \"%s\" of relation \"%s.%s\"",
					   place->index_name, v->nspname, v->relname);
			break;
		case VACUUM_PHASE_INDEX_CLEANUP:
			errcontext("while cleaning up index \"%s\" of relation \"%s.%s\"",
					   place->index_name, v->nspname, v->relname);
			break;
		case VACUUM_PHASE_TRUNCATE:
			if (BlockNumberIsValid(place->blk))
				errcontext("while truncating relation \"%s.%s\" to %u blocks",
						   v->nspname, v->relname, place->blk);
			break;
	}
}

/* ---- set-up ----------------------------------------------------------- */

void
aurora_vacuum_clamp_cutoffs(Relation rel, TransactionId *oldest_xmin,
							TransactionId *freeze_limit)
{
	TransactionId safe;

	if (!OldSnapshotThresholdActive())
		return;
	safe = GetOldestNonRemovableTransactionId(rel);
	if (TransactionIdPrecedes(safe, *oldest_xmin))
		*oldest_xmin = safe;
	if (TransactionIdPrecedes(*oldest_xmin, *freeze_limit))
		*freeze_limit = *oldest_xmin;
}

/*
 * Fix the cutoffs and with them whether this VACUUM is aggressive.
 * (PostgreSQL 16 renamed the function to vacuum_get_cutoffs.)
 */
static void
set_cutoffs(AuroraVacuum *v, VacuumParams *params)
{
	MultiXactId oldest_multi;

	v->aggressive = vacuum_set_xid_limits(v->rel,
										  params->freeze_min_age,
										  params->freeze_table_age,
										  params->multixact_freeze_min_age,
										  params->multixact_freeze_table_age,
										  &v->oldest_xmin, &oldest_multi,
										  &v->freeze_limit, &v->multi_cutoff);
	aurora_vacuum_clamp_cutoffs(v->rel, &v->oldest_xmin, &v->freeze_limit);

	v->vistest = GlobalVisTestFor(v->rel);
	v->relfrozenxid = v->rel->rd_rel->relfrozenxid;
	v->relminmxid = v->rel->rd_rel->relminmxid;
	v->new_frozenxid = v->oldest_xmin;
	v->new_minmxid = oldest_multi;

	v->skip_with_vm = (params->options & VACOPT_DISABLE_PAGE_SKIPPING) == 0;
	if (!v->skip_with_vm)
		v->aggressive = true;
}

static void
set_index_options(AuroraVacuum *v, VacuumParams *params)
{
	bool		on = params->index_cleanup != VACOPTVALUE_DISABLED;

	Assert(params->index_cleanup != VACOPTVALUE_UNSPECIFIED);
	Assert(params->truncate != VACOPTVALUE_UNSPECIFIED);
	v->do_index_vacuuming = on;
	v->do_index_cleanup = on;
	v->may_bypass_indexes = params->index_cleanup == VACOPTVALUE_AUTO;
	v->do_truncate = params->truncate != VACOPTVALUE_DISABLED;
}

static AuroraVacuum *
vacuum_begin(Relation rel, VacuumParams *params, BufferAccessStrategy bstrategy)
{
	AuroraVacuum *v = palloc0(sizeof(AuroraVacuum));

	v->rel = rel;
	v->nspname = get_namespace_name(RelationGetNamespace(rel));
	v->relname = pstrdup(RelationGetRelationName(rel));
	v->bstrategy = bstrategy;
	v->verbose = (params->options & VACOPT_VERBOSE) != 0;
	v->old_live_tuples = rel->rd_rel->reltuples;
	vacuum_enter(v, VACUUM_PHASE_NONE, InvalidBlockNumber);
	set_cutoffs(v, params);
	set_index_options(v, params);
	return v;
}

/* ---- results ---------------------------------------------------------- */

static void
update_index_stats(AuroraVacuum *v)
{
	for (int i = 0; i < v->nindexes; i++)
	{
		IndexBulkDeleteResult *stats = v->index_stats[i];

		if (stats == NULL || stats->estimated_count)
			continue;
		vac_update_relstats(v->indexes[i], stats->num_pages,
							stats->num_index_tuples, 0, false,
							InvalidTransactionId, InvalidMultiXactId,
							NULL, NULL, false);
	}
}

static void
update_table_stats(AuroraVacuum *v, ReportBase *base)
{
	BlockNumber all_visible;

	/* xids on pages that were skipped are not known */
	if (v->skipped_allvisible)
	{
		Assert(!v->aggressive);
		v->new_frozenxid = InvalidTransactionId;
		v->new_minmxid = InvalidMultiXactId;
	}
	visibilitymap_count(v->rel, &all_visible, NULL);
	vac_update_relstats(v->rel, v->rel_pages, v->new_live_tuples,
						Min(all_visible, v->rel_pages), v->nindexes > 0,
						v->new_frozenxid, v->new_minmxid,
						&base->frozenxid_updated, &base->minmulti_updated,
						false);
	pgstat_report_vacuum(RelationGetRelid(v->rel), v->rel->rd_rel->relisshared,
						 Max(v->new_live_tuples, 0),
						 v->recently_dead_tuples + v->missed_dead_tuples);
}

/* ---- the report ------------------------------------------------------- */

static void
report_begin(AuroraVacuum *v, ReportBase *base)
{
	pg_rusage_init(&base->rusage);
	base->start = GetCurrentTimestamp();
	base->read_time = pgStatBlockReadTime;
	base->write_time = pgStatBlockWriteTime;
	base->index_names = palloc(sizeof(char *) * Max(v->nindexes, 1));
	for (int i = 0; i < v->nindexes; i++)
		base->index_names[i] = pstrdup(RelationGetRelationName(v->indexes[i]));
}

static double
percent_of(double part, double whole)
{
	return whole == 0 ? 100.0 : 100.0 * part / whole;
}

static void
report_headline(AuroraVacuum *v, VacuumParams *params, StringInfo buf)
{
	const char *what;

	if (v->verbose)
		what = "finished vacuuming";
	else if (params->is_wraparound)
		what = v->aggressive ?
			"automatic aggressive vacuum to prevent wraparound of table" :
			"automatic vacuum to prevent wraparound of table";
	else
		what = v->aggressive ? "automatic aggressive vacuum of table" :
			"automatic vacuum of table";
	appendStringInfo(buf, "%s \"%s.%s.%s\": index scans: %d\n", what,
					 get_database_name(MyDatabaseId), v->nspname, v->relname,
					 v->num_index_scans);
}

static void
report_pages_and_tuples(AuroraVacuum *v, ReportBase *base, StringInfo buf)
{
	appendStringInfo(buf, "pages: %u removed, %u remain, %u scanned (%.2f%% of total)\n",
					 v->removed_pages, v->rel_pages, v->scanned_pages,
					 percent_of(v->scanned_pages, base->rel_pages));
	appendStringInfo(buf, "tuples: %lld removed, %lld remain, %lld are dead but not yet removable\n",
					 (long long) v->tuples_deleted,
					 (long long) v->new_rel_tuples,
					 (long long) v->recently_dead_tuples);
	if (v->missed_dead_tuples > 0)
		appendStringInfo(buf, "tuples missed: %lld dead from %u pages not removed due to cleanup lock contention\n",
						 (long long) v->missed_dead_tuples, v->missed_pages);
	appendStringInfo(buf, "removable cutoff: %u, which was %d XIDs old when operation ended\n",
					 v->oldest_xmin,
					 (int32) (ReadNextTransactionId() - v->oldest_xmin));
	if (base->frozenxid_updated)
		appendStringInfo(buf, "new relfrozenxid: %u, which is %d XIDs ahead of previous value\n",
						 v->new_frozenxid,
						 (int32) (v->new_frozenxid - v->relfrozenxid));
	if (base->minmulti_updated)
		appendStringInfo(buf, "new relminmxid: %u, which is %d MXIDs ahead of previous value\n",
						 v->new_minmxid,
						 (int32) (v->new_minmxid - v->relminmxid));
}

static void
report_indexes(AuroraVacuum *v, ReportBase *base, StringInfo buf)
{
	const char *scan;

	if (!v->do_index_vacuuming)
		scan = v->failsafe ? "bypassed by failsafe" : "bypassed";
	else if (v->num_index_scans == 0)
		scan = "not needed";
	else
		scan = "needed";
	appendStringInfo(buf, "index scan %s: %u pages from table (%.2f%% of total) %s %lld dead item identifiers%s\n",
					 scan, v->lpdead_pages,
					 percent_of(v->lpdead_pages, base->rel_pages),
					 v->do_index_vacuuming ? "had" : "have",
					 (long long) v->lpdead_items,
					 v->do_index_vacuuming ? " removed" : "");
	for (int i = 0; i < v->nindexes; i++)
	{
		IndexBulkDeleteResult *stats = v->index_stats[i];

		if (stats != NULL)
			appendStringInfo(buf, "index \"%s\": pages: %u in total, %u newly deleted, %u currently deleted, %u reusable\n",
							 base->index_names[i], stats->num_pages,
							 stats->pages_newly_deleted, stats->pages_deleted,
							 stats->pages_free);
	}
}

/* Pages fetched from storage count as buffer misses; remote pages are never
 * dirty, what they cost is in the WAL figure. */
static void
report_resources(ReportBase *base, TimestampTz end, StringInfo buf)
{
	WalUsage	wal = {0};
	BufferUsage buffers = {0};
	long		secs;
	int			usecs;
	double		seconds;
	int64		hits;
	int64		misses;
	int64		dirtied;

	TimestampDifference(base->start, end, &secs, &usecs);
	seconds = secs + usecs / 1000000.0;
	WalUsageAccumDiff(&wal, &pgWalUsage, &base->wal);
	BufferUsageAccumDiff(&buffers, &pgBufferUsage, &base->buffers);
	hits = buffers.shared_blks_hit + buffers.local_blks_hit;
	misses = buffers.shared_blks_read + buffers.local_blks_read;
	dirtied = buffers.shared_blks_dirtied + buffers.local_blks_dirtied;

	if (track_io_timing)
		appendStringInfo(buf, "I/O timings: read: %.3f ms, write: %.3f ms\n",
						 (pgStatBlockReadTime - base->read_time) / 1000.0,
						 (pgStatBlockWriteTime - base->write_time) / 1000.0);
	appendStringInfo(buf, "avg read rate: %.3f MB/s, avg write rate: %.3f MB/s\n",
					 seconds > 0 ? misses * (BLCKSZ / 1048576.0) / seconds : 0,
					 seconds > 0 ? dirtied * (BLCKSZ / 1048576.0) / seconds : 0);
	appendStringInfo(buf, "buffer usage: %lld hits, %lld misses, %lld dirtied\n",
					 (long long) hits, (long long) misses, (long long) dirtied);
	appendStringInfo(buf, "WAL usage: %lld records, %lld full page images, %llu bytes\n",
					 (long long) wal.wal_records, (long long) wal.wal_fpi,
					 (unsigned long long) wal.wal_bytes);
	appendStringInfo(buf, "system usage: %s", pg_rusage_show(&base->rusage));
}

static void
report_end(AuroraVacuum *v, VacuumParams *params, ReportBase *base)
{
	TimestampTz end = GetCurrentTimestamp();
	StringInfoData buf;

	if (!v->verbose && params->log_min_duration > 0 &&
		!TimestampDifferenceExceeds(base->start, end, params->log_min_duration))
		return;
	initStringInfo(&buf);
	report_headline(v, params, &buf);
	report_pages_and_tuples(v, base, &buf);
	report_indexes(v, base, &buf);
	report_resources(base, end, &buf);
	ereport(v->verbose ? INFO : LOG, (errmsg_internal("%s", buf.data)));
	pfree(buf.data);
}

/* ---- VACUUM ----------------------------------------------------------- */

static void
vacuum_work(AuroraVacuum *v, VacuumParams *params)
{
	/* No parallel workers for a table that must be frozen in a hurry. */
	aurora_vacuum_check_failsafe(v);
	aurora_vacuum_alloc_dead_items(v, params->nworkers);
	aurora_vacuum_scan(v);
	aurora_vacuum_free_dead_items(v);
	if (v->do_index_cleanup)
		update_index_stats(v);
	vac_close_indexes(v->nindexes, v->indexes, NoLock);
	aurora_vacuum_truncate(v);
}

void
aurora_vacuum_rel(Relation rel, struct VacuumParams *params,
				  BufferAccessStrategy bstrategy)
{
	bool		instrument;
	ErrorContextCallback errcallback;
	ReportBase	base = {0};
	AuroraVacuum *v;

	base.wal = pgWalUsage;
	base.buffers = pgBufferUsage;
	pgstat_progress_start_command(PROGRESS_COMMAND_VACUUM, RelationGetRelid(rel));

	v = vacuum_begin(rel, params, bstrategy);
	instrument = v->verbose ||
		(IsAutoVacuumWorkerProcess() && params->log_min_duration >= 0);

	errcallback.callback = error_context;
	errcallback.arg = v;
	errcallback.previous = error_context_stack;
	error_context_stack = &errcallback;

	if (v->verbose)
		ereport(INFO,
				(errmsg("%svacuuming \"%s.%s.%s\"",
						v->aggressive ? "aggressively " : "",
						get_database_name(MyDatabaseId), v->nspname,
						v->relname)));

	vac_open_indexes(rel, RowExclusiveLock, &v->nindexes, &v->indexes);
	v->index_stats = palloc0(sizeof(IndexBulkDeleteResult *) * Max(v->nindexes, 1));
	if (instrument)
		report_begin(v, &base);
	v->rel_pages = base.rel_pages = aurora_nblocks(rel);

	vacuum_work(v, params);

	error_context_stack = errcallback.previous;
	pgstat_progress_update_param(PROGRESS_VACUUM_PHASE,
								 PROGRESS_VACUUM_PHASE_FINAL_CLEANUP);
	update_table_stats(v, &base);
	pgstat_progress_end_command();
	if (instrument)
		report_end(v, params, &base);
}
