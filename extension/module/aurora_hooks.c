/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_hooks.c: DDL that works on whole databases.
 *
 * CREATE DATABASE copies its template, and ALTER DATABASE ... SET TABLESPACE
 * moves a database, by copying relation files.  The files of aurora tables
 * are empty: their rows, known to storage under the old name, would silently
 * be missing.  So both are refused for a database in which aurora tables have
 * pages.
 *
 * Whether there are such tables is looked up in that database's own pg_class,
 * read from here the way CREATE DATABASE itself does it.  Only if it lists
 * permanent tables of another access method than heap is storage asked.  So
 * databases without such tables cost a few buffer reads, and work whatever
 * state storage is in.
 *
 * Before we look, the database is locked as stock will lock it (nobody can
 * connect any more), and it is made sure that nobody is connected: else
 * somebody could create a table after we looked and leave before stock does.
 *
 * After DROP DATABASE its relations' sizes are forgotten, since the Oid may
 * come again.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "common/relpath.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "storage/smgr.h"
#include "tcop/utility.h"
#include "utils/relmapper.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "cache/aurora_pagecache.h"
#include "client/aurora_client.h"
#include "module/aurora_hooks.h"

static ProcessUtility_hook_type prev_process_utility = NULL;

/* ---- what a database holds ---- */

/* A permanent table with an access method that is not heap. */
static bool
may_be_aurora(Form_pg_class c)
{
	return c->relpersistence == RELPERSISTENCE_PERMANENT &&
		RELKIND_HAS_TABLE_AM(c->relkind) &&
		OidIsValid(c->relam) && c->relam != HEAP_TABLE_AM_OID;
}

static bool
page_lists_other_tables(Buffer buf, BlockNumber blk, Snapshot snapshot)
{
	Page		page = BufferGetPage(buf);
	OffsetNumber maxoff;

	if (PageIsNew(page))
		return false;
	maxoff = PageGetMaxOffsetNumber(page);
	for (OffsetNumber off = FirstOffsetNumber; off <= maxoff; off++)
	{
		ItemId		lp = PageGetItemId(page, off);
		HeapTupleData tup;

		if (!ItemIdIsNormal(lp))
			continue;
		tup.t_data = (HeapTupleHeader) PageGetItem(page, lp);
		tup.t_len = ItemIdGetLength(lp);
		tup.t_tableOid = RelationRelationId;
		ItemPointerSet(&tup.t_self, blk, off);
		if (may_be_aurora((Form_pg_class) GETSTRUCT(&tup)) &&
			HeapTupleSatisfiesVisibility(&tup, snapshot, buf))
			return true;
	}
	return false;
}

/* Does the database's pg_class list a table that could be ours?  Nobody is
 * connected to it. */
static bool
lists_other_tables(Oid db, Oid tablespace)
{
	LockRelId	lockid = {RelationRelationId, db};
	RelFileNode rnode;
	char	   *path = GetDatabasePath(db, tablespace);
	BlockNumber nblocks;
	BufferAccessStrategy ring = GetAccessStrategy(BAS_BULKREAD);
	Snapshot	snapshot;
	bool		found = false;

	/* so that DROP DATABASE finds none of its pages in use */
	LockRelationId(&lockid, AccessShareLock);
	rnode.spcNode = tablespace;
	rnode.dbNode = db;
	rnode.relNode = RelationMapOidToFilenodeForDatabase(path, RelationRelationId);
	nblocks = smgrnblocks(smgropen(rnode, InvalidBackendId), MAIN_FORKNUM);
	smgrclose(smgropen(rnode, InvalidBackendId));
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (BlockNumber blk = 0; blk < nblocks && !found; blk++)
	{
		Buffer		buf;

		CHECK_FOR_INTERRUPTS();
		buf = ReadBufferWithoutRelcache(rnode, MAIN_FORKNUM, blk, RBM_NORMAL,
										ring, true);
		LockBuffer(buf, BUFFER_LOCK_SHARE);
		found = page_lists_other_tables(buf, blk, snapshot);
		UnlockReleaseBuffer(buf);
	}
	UnregisterSnapshot(snapshot);
	UnlockRelationId(&lockid, AccessShareLock);
	FreeAccessStrategy(ring);
	pfree(path);
	return found;
}

/* The end of all log written so far, flushed.  At the very start of a WAL
 * page the insert position is beyond the page's header, which nobody has
 * written yet: then the end is before it. */
static XLogRecPtr
flush_all_wal(void)
{
	XLogRecPtr	lsn = GetXLogInsertRecPtr();
	XLogRecPtr	in_page = lsn % XLOG_BLCKSZ;
	XLogRecPtr	header = XLogSegmentOffset(lsn - in_page, wal_segment_size) == 0 ?
	SizeOfXLogLongPHD : SizeOfXLogShortPHD;

	if (in_page == header)
		lsn -= in_page;
	XLogFlush(lsn);
	return lsn;
}

/*
 * Raises an error if aurora tables of the database have pages.  what: "copied"
 * or "moved".  A database that does not exist is left for stock to complain
 * about.
 */
static void
refuse_aurora_database(const char *name, LOCKMODE lockmode, const char *what)
{
	Oid			db = get_database_oid(name, true);
	HeapTuple	tup;
	Oid			tablespace;
	int			others;
	int			prepared;

	if (!OidIsValid(db))
		return;
	LockSharedObject(DatabaseRelationId, db, 0, lockmode);
	tup = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(db));
	if (!HeapTupleIsValid(tup))
		return;					/* dropped just now */
	tablespace = ((Form_pg_database) GETSTRUCT(tup))->dattablespace;
	ReleaseSysCache(tup);

	if (CountOtherDBBackends(db, &others, &prepared))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("database \"%s\" is being accessed by other users", name),
				 errdetail("There are %d other sessions and %d prepared transactions using the database.",
						   others, prepared)));

	if (!lists_other_tables(db, tablespace) ||
		!aurora_client_database_has_pages(db, flush_all_wal()))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("database \"%s\" cannot be %s because it holds aurora tables with rows",
					name, what),
			 errdetail("The pages of aurora tables are in the storage cluster, not in the database's files."),
			 errhint("Create an empty database and use pg_dump and psql to fill it.")));
}

/* ---- the statements ---- */

static DefElem *
find_option(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		if (strcmp(def->defname, name) == 0)
			return def;
	}
	return NULL;
}

static void
before_create_database(CreatedbStmt *stmt)
{
	DefElem    *def = find_option(stmt->options, "template");
	const char *name = def != NULL && def->arg != NULL ?
	defGetString(def) : "template1";

	refuse_aurora_database(name, ShareLock, "copied");
}

static void
before_alter_database(AlterDatabaseStmt *stmt)
{
	if (find_option(stmt->options, "tablespace") != NULL)
		refuse_aurora_database(stmt->dbname, AccessExclusiveLock, "moved");
}

static void
process_utility(PlannedStmt *pstmt, const char *queryString,
				bool readOnlyTree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *queryEnv,
				DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *stmt = pstmt->utilityStmt;
	Oid			dropped = InvalidOid;

	if (IsA(stmt, CreatedbStmt))
		before_create_database((CreatedbStmt *) stmt);
	else if (IsA(stmt, AlterDatabaseStmt))
		before_alter_database((AlterDatabaseStmt *) stmt);
	else if (IsA(stmt, DropdbStmt))
		dropped = get_database_oid(((DropdbStmt *) stmt)->dbname, true);

	if (prev_process_utility)
		prev_process_utility(pstmt, queryString, readOnlyTree, context,
							 params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);

	if (OidIsValid(dropped))
		aurora_size_forget_database(dropped, XactLastRecEnd);
}

void
aurora_hooks_install(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
