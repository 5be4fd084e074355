/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_database.c: whole databases are copied and moved.
 *
 * Stock copies a database's files: catalogs, indexes, free space and visibility
 * maps are right afterwards, and so are the (empty) files of aurora tables.
 * Their pages are on storage under a name made of tablespace, database and
 * relfilenode; the relfilenode stays, the rest changes.  Here the pages are
 * read from storage under the old name and logged as images under the new one.
 *
 * CREATE DATABASE
 *
 *	stock's work ──▶ copy pages ──▶ commit: the database exists
 *	  template locked (ShareLock), nobody connected but perhaps ourselves
 *
 * ALTER DATABASE ... SET TABLESPACE
 *
 *	lock, check ──▶ copy pages ──▶ stock: copy files, commit, drop old files
 *	  AccessExclusiveLock, nobody    (its DBASE_DROP record makes storage
 *	  connected                      drop the old pages)
 *
 * Invariants:
 *  1. A new name's pages are logged before the commit that makes the name
 *     valid, and the old name's pages go only after it.  So at any crash the
 *     name that pg_database tells has all the pages.
 *  2. While pages are copied nobody changes them: the database is locked as
 *     stock locks it, and it was made sure that nobody is connected.  What is
 *     read is the newest version, not before the end of the log that was
 *     written when this had been made sure.
 *  3. Before a move copies anything it is certain that no live table has the
 *     new name: no relation of the database lies in the target tablespace.
 *  4. Every reason for which a move copies nothing is one that still holds
 *     when stock looks (under the same locks); else it is an error.
 *  5. If the transaction does not commit, the copied pages are dropped: see
 *     undo.  If the server crashes instead, they stay on storage under a name
 *     that nothing refers to.  A new copy under that name begins with dropping
 *     them, so it never has more pages than its source.
 *
 * What is copied is what the database's own pg_class lists, read from here
 * the way CREATE DATABASE itself does it: permanent tables with an access
 * method that is not heap.  Storage is asked only if there are such, so
 * databases without aurora tables work whatever state storage is in.  (It is
 * not storage's list of the database's relations that is copied: that may
 * also hold what a crash has left, whose names a new relation might get.)
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xloginsert.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_tablespace.h"
#include "commands/dbcommands.h"
#include "commands/dbcommands_xlog.h"
#include "commands/defrem.h"
#include "commands/tablespace.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/md.h"
#include "storage/procarray.h"
#include "storage/smgr.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/relmapper.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "cache/aurora_pagecache.h"
#include "client/aurora_client.h"
#include "module/aurora_database.h"
#include "wal/aurora_image.h"

/* Pages asked for in one request. */
#define COPY_BATCH 64

/* ---- what a database holds -------------------------------------------- */

typedef struct Contents
{
	Oid			db;
	Oid			tablespace;		/* the database's default one */
	Oid			watched;		/* a tablespace, or InvalidOid */

	List	   *tables;			/* RelFileNode *: may be aurora's */
	bool		in_watched;		/* some relation lies there */
} Contents;

static void
note_relation(Contents *c, Form_pg_class r)
{
	Oid			spc = OidIsValid(r->reltablespace) ? r->reltablespace :
	c->tablespace;
	RelFileNode *rnode;

	/* files of temporary tables may be gone with their session */
	if (!RELKIND_HAS_STORAGE(r->relkind) ||
		r->relpersistence == RELPERSISTENCE_TEMP)
		return;
	if (spc == c->watched)
		c->in_watched = true;
	if (r->relpersistence != RELPERSISTENCE_PERMANENT ||
		!RELKIND_HAS_TABLE_AM(r->relkind) || !OidIsValid(r->relfilenode) ||
		!OidIsValid(r->relam) || r->relam == HEAP_TABLE_AM_OID)
		return;
	rnode = palloc(sizeof(RelFileNode));
	rnode->spcNode = spc;
	rnode->dbNode = c->db;
	rnode->relNode = r->relfilenode;
	c->tables = lappend(c->tables, rnode);
}

static void
note_page(Contents *c, Buffer buf, BlockNumber blk, Snapshot snapshot)
{
	Page		page = BufferGetPage(buf);
	OffsetNumber maxoff;

	if (PageIsNew(page))
		return;
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
		if (HeapTupleSatisfiesVisibility(&tup, snapshot, buf))
			note_relation(c, (Form_pg_class) GETSTRUCT(&tup));
	}
}

/* Read the database's pg_class.  Nobody else is connected to it. */
static void
list_contents(Contents *c)
{
	LockRelId	lockid = {RelationRelationId, c->db};
	RelFileNode rnode;
	char	   *path = GetDatabasePath(c->db, c->tablespace);
	BlockNumber nblocks;
	BufferAccessStrategy ring = GetAccessStrategy(BAS_BULKREAD);
	Snapshot	snapshot;

	/* so that DROP DATABASE finds none of its pages in use */
	LockRelationId(&lockid, AccessShareLock);
	rnode.spcNode = c->tablespace;
	rnode.dbNode = c->db;
	rnode.relNode = RelationMapOidToFilenodeForDatabase(path, RelationRelationId);
	nblocks = smgrnblocks(smgropen(rnode, InvalidBackendId), MAIN_FORKNUM);
	smgrclose(smgropen(rnode, InvalidBackendId));
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (BlockNumber blk = 0; blk < nblocks; blk++)
	{
		Buffer		buf;

		CHECK_FOR_INTERRUPTS();
		buf = ReadBufferWithoutRelcache(rnode, MAIN_FORKNUM, blk, RBM_NORMAL,
										ring, true);
		LockBuffer(buf, BUFFER_LOCK_SHARE);
		note_page(c, buf, blk, snapshot);
		UnlockReleaseBuffer(buf);
	}
	UnregisterSnapshot(snapshot);
	UnlockRelationId(&lockid, AccessShareLock);
	FreeAccessStrategy(ring);
	pfree(path);
}

static Oid
default_tablespace_of(Oid db)
{
	HeapTuple	tup = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(db));
	Oid			tablespace;

	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for database %u", db);
	tablespace = ((Form_pg_database) GETSTRUCT(tup))->dattablespace;
	ReleaseSysCache(tup);
	return tablespace;
}

/* ---- if it comes to nothing ------------------------------------------- */

/*
 * What an abort of this transaction must take back.  In TopTransactionContext;
 * forgotten at commit.  (An error after SET TABLESPACE's own commit in its
 * middle finds nothing to undo.)
 */
typedef struct Undo
{
	Oid			db;
	bool		created;		/* CREATE DATABASE: all of it goes */
	List	   *tablespaces;	/* CREATE DATABASE: where its directories are */
	List	   *tables;			/* SET TABLESPACE: RelFileNode *, copies */
} Undo;

static Undo *undo = NULL;

static Undo *
undo_begin(Oid db, bool created)
{
	undo = MemoryContextAllocZero(TopTransactionContext, sizeof(Undo));
	undo->db = db;
	undo->created = created;
	return undo;
}

/* CREATE DATABASE: the tablespaces in which stock has made a directory.  Not
 * interruptible, else these would be left behind. */
static void
undo_note_directories(Undo *u)
{
	Relation	rel = table_open(TableSpaceRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(rel, 0, NULL);
	HeapTuple	tup;

	while ((tup = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Oid			spc = ((Form_pg_tablespace) GETSTRUCT(tup))->oid;
		char	   *path;
		struct stat st;
		MemoryContext old;

		if (spc == GLOBALTABLESPACE_OID)
			continue;
		path = GetDatabasePath(u->db, spc);
		if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
		{
			old = MemoryContextSwitchTo(TopTransactionContext);
			u->tablespaces = lappend_oid(u->tablespaces, spc);
			MemoryContextSwitchTo(old);
		}
		pfree(path);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
}

/*
 * The new database never came to be: remove its directories, and have storage
 * drop its pages.  Stock does the former itself while it copies; this is for
 * all that can fail afterwards.  The record is durable before the files
 * go, so that a crash in between leaves nothing behind.
 */
static void
remove_database(const Undo *u)
{
	xl_dbase_drop_rec rec;
	ListCell   *lc;
	XLogRecPtr	lsn;

	DropDatabaseBuffers(u->db);
	ForgetDatabaseSyncRequests(u->db);
	if (u->tablespaces == NIL)
		return;

	rec.db_id = u->db;
	rec.ntablespaces = list_length(u->tablespaces);
	XLogBeginInsert();
	XLogRegisterData((char *) &rec, MinSizeOfDbaseDropRec);
	foreach(lc, u->tablespaces)
		XLogRegisterData((char *) &lfirst_oid(lc), sizeof(Oid));
	lsn = XLogInsert(RM_DBASE_ID, XLOG_DBASE_DROP | XLR_SPECIAL_REL_UPDATE);
	XLogFlush(lsn);
	aurora_size_forget_database(u->db, lsn);

	foreach(lc, u->tablespaces)
	{
		char	   *path = GetDatabasePath(u->db, lfirst_oid(lc));

		if (!rmtree(path, true))
			ereport(WARNING,
					(errmsg("some useless files may be left behind in database directory \"%s\"",
							path)));
		pfree(path);
	}
}

static void
xact_callback(XactEvent event, void *arg)
{
	Undo	   *u = undo;
	ListCell   *lc;

	if (u == NULL || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;
	undo = NULL;
	if (event == XACT_EVENT_COMMIT)
		return;
	foreach(lc, u->tables)
		aurora_log_no_pages((RelFileNode *) lfirst(lc));
	if (u->created)
		remove_database(u);
}

/* ---- copying ---------------------------------------------------------- */

typedef struct Copier
{
	XLogRecPtr	start;			/* all changes of the source are below */
	char	   *pages;			/* COPY_BATCH of them */
	uint64		copied;
} Copier;

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

static void
copy_batch(Copier *c, const RelFileNode *src, const RelFileNode *dst,
		   BlockNumber first, int n, BlockNumber nblocks)
{
	BlockNumber blocks[COPY_BATCH];
	uint8		status[COPY_BATCH];

	for (int i = 0; i < n; i++)
		blocks[i] = first + i;
	aurora_client_get_pages(src, blocks, n, c->start, InvalidXLogRecPtr,
							c->pages, status);
	for (int i = 0; i < n; i++)
	{
		/* A block that storage never heard of stays one, but for the last:
		 * the copy has the source's size. */
		if (status[i] == AU_NOT_FOUND && blocks[i] + 1 < nblocks)
			continue;
		CHECK_FOR_INTERRUPTS();
		aurora_log_page_image(dst, blocks[i], c->pages + (Size) i * BLCKSZ);
		c->copied++;
	}
}

static BlockNumber
stored_size(const Copier *c, const RelFileNode *rnode)
{
	XLogRecPtr	as_of;

	return aurora_client_get_size(rnode, c->start, InvalidXLogRecPtr, &as_of);
}

/* dst has no pages. */
static void
copy_table(Copier *c, const RelFileNode *src, const RelFileNode *dst)
{
	BlockNumber nblocks = stored_size(c, src);

	aurora_size_created(dst);
	for (BlockNumber blk = 0; blk < nblocks; blk += COPY_BATCH)
		copy_batch(c, src, dst, blk, (int) Min(COPY_BATCH, nblocks - blk),
				   nblocks);
}

static void
copier_start(Copier *c)
{
	c->start = flush_all_wal();
	c->pages = palloc((Size) COPY_BATCH * BLCKSZ);
	c->copied = 0;
}

static void
copier_end(Copier *c, const Contents *of)
{
	ereport(DEBUG1,
			(errmsg_internal("copied " UINT64_FORMAT " pages of %d tables of database %u",
							 c->copied, list_length(of->tables), of->db)));
	pfree(c->pages);
}

/* ---- CREATE DATABASE -------------------------------------------------- */

DefElem *
aurora_find_option(List *options, const char *name)
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

/*
 * Stock holds its lock on the template until the transaction ends, and has made
 * sure that no other session is connected to it.  (Our own may be: it is in no
 * transaction block, so it has no changes under way.)
 */
void
aurora_database_created(const CreatedbStmt *stmt)
{
	DefElem    *def = aurora_find_option(stmt->options, "template");
	const char *template = def != NULL && def->arg != NULL ?
	defGetString(def) : "template1";
	Contents	from = {0};
	Oid			db;
	Oid			tablespace;
	Copier		c;
	ListCell   *lc;

	/* From here on we must clean up: no interrupt until we know what. */
	HOLD_INTERRUPTS();
	CommandCounterIncrement();	/* to see the new row of pg_database */
	db = get_database_oid(stmt->dbname, false);
	undo_note_directories(undo_begin(db, true));
	RESUME_INTERRUPTS();

	tablespace = default_tablespace_of(db);
	from.db = get_database_oid(template, false);
	from.tablespace = default_tablespace_of(from.db);
	list_contents(&from);
	if (from.tables == NIL)
		return;

	copier_start(&c);
	foreach(lc, from.tables)
	{
		RelFileNode *src = (RelFileNode *) lfirst(lc);
		RelFileNode dst = *src;

		dst.dbNode = db;
		if (src->spcNode == from.tablespace)
			dst.spcNode = tablespace;

		/* A crash may have left pages under a name that had come to be nobody's.
		 * (Not without need: redo of the record cuts the copied maps.) */
		if (stored_size(&c, &dst) > 0)
			aurora_log_no_pages(&dst);
		copy_table(&c, src, &dst);
	}
	copier_end(&c, &from);
	list_free_deep(from.tables);
}

/* ---- ALTER DATABASE ... SET TABLESPACE -------------------------------- */

static Oid
lock_database(const char *name)
{
	for (;;)
	{
		Oid			db = get_database_oid(name, false);

		LockSharedObject(DatabaseRelationId, db, 0, AccessExclusiveLock);
		if (get_database_oid(name, true) == db)
			return db;
		/* renamed or dropped before we had the lock */
		UnlockSharedObject(DatabaseRelationId, db, 0, AccessExclusiveLock);
	}
}

static void
check_nobody_connected(Oid db, const char *name)
{
	int			others;
	int			prepared;

	if (CountOtherDBBackends(db, &others, &prepared))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("database \"%s\" is being accessed by other users", name),
				 errdetail("There are %d other sessions and %d prepared transactions using the database.",
						   others, prepared)));
}

/*
 * The checks are stock's, which makes them again: somebody without the right
 * to move the database shall not make us copy it.  Locked are the database,
 * and the names of tablespaces, so that stock comes to the same results.
 */
static bool
check_move(const AlterDatabaseStmt *stmt, Contents *from)
{
	const char *target = defGetString(linitial_node(DefElem, stmt->options));
	AclResult	acl;

	from->db = lock_database(stmt->dbname);
	if (!pg_database_ownercheck(from->db, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_DATABASE, stmt->dbname);
	if (from->db == MyDatabaseId)
		return false;			/* stock complains */

	LockRelationOid(TableSpaceRelationId, ShareLock);
	from->watched = get_tablespace_oid(target, false);
	acl = pg_tablespace_aclcheck(from->watched, GetUserId(), ACL_CREATE);
	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_TABLESPACE, target);
	from->tablespace = default_tablespace_of(from->db);
	if (from->watched == GLOBALTABLESPACE_OID ||	/* stock complains */
		from->watched == from->tablespace)	/* stock does nothing */
		return false;
	check_nobody_connected(from->db, stmt->dbname);
	return true;
}

/* Only what lies in the database's default tablespace gets another name. */
static void
copy_moving_tables(const Contents *from)
{
	Undo	   *u = undo_begin(from->db, false);
	Copier		c;
	ListCell   *lc;

	copier_start(&c);
	foreach(lc, from->tables)
	{
		RelFileNode *src = (RelFileNode *) lfirst(lc);
		RelFileNode *dst;
		MemoryContext old;

		if (src->spcNode != from->tablespace)
			continue;
		old = MemoryContextSwitchTo(TopTransactionContext);
		dst = palloc(sizeof(RelFileNode));
		*dst = *src;
		dst->spcNode = from->watched;
		u->tables = lappend(u->tables, dst);
		MemoryContextSwitchTo(old);

		/* The table may have had this name before: a crash may have left pages
		 * there, and a standby may remember the size it had then. */
		aurora_log_no_pages(dst);
		copy_table(&c, src, dst);
	}
	copier_end(&c, from);
}

Oid
aurora_database_moving(const AlterDatabaseStmt *stmt, bool is_top_level)
{
	Contents	from = {0};

	if (list_length(stmt->options) != 1)
		return InvalidOid;		/* stock complains */
	PreventInTransactionBlock(is_top_level, "ALTER DATABASE SET TABLESPACE");
	if (!check_move(stmt, &from))
		return InvalidOid;
	list_contents(&from);
	if (from.tables == NIL)
		return from.db;
	if (from.in_watched)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("some relations of database \"%s\" are already in tablespace \"%s\"",
						stmt->dbname, get_tablespace_name(from.watched)),
				 errhint("You must move them back to the database's default tablespace before using this command.")));
	copy_moving_tables(&from);
	list_free_deep(from.tables);
	return from.db;
}

void
aurora_database_install(void)
{
	RegisterXactCallback(xact_callback, NULL);
}
