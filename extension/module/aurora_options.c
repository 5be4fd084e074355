/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_options.c: storage parameters that aurora tables cannot have.
 *
 * The server parses a table's parameters by its kind, whatever its access
 * method, and asks nobody.  What makes or changes a table's pg_class row
 * (CREATE TABLE, ... AS, ALTER TABLE ... SET, SET ACCESS METHOD) then calls
 * object_access_hook: there the new row is looked at.
 *
 * user_catalog_table is for tables that logical decoding reads, with
 * snapshots of the past, for which heap logs what aurora does not.  Taken
 * silently it would be an error when somebody decodes.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "am/aurora_am.h"
#include "module/aurora_options.h"

static object_access_hook_type prev_object_access = NULL;

static bool
is_aurora_am(Oid am)
{
	HeapTuple	tup;
	bool		ours;

	if (!OidIsValid(am) || am == HEAP_TABLE_AM_OID)
		return false;
	tup = SearchSysCache1(AMOID, ObjectIdGetDatum(am));
	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for access method %u", am);
	ours = GetTableAmRoutine(((Form_pg_am) GETSTRUCT(tup))->amhandler) ==
		aurora_table_routine();
	ReleaseSysCache(tup);
	return ours;
}

static void
check_row(HeapTuple tup, TupleDesc desc)
{
	Form_pg_class row = (Form_pg_class) GETSTRUCT(tup);
	StdRdOptions *options;

	if ((row->relkind != RELKIND_RELATION && row->relkind != RELKIND_MATVIEW) ||
		heap_attisnull(tup, Anum_pg_class_reloptions, desc) ||
		!is_aurora_am(row->relam))
		return;
	options = (StdRdOptions *) extractRelOptions(tup, desc, NULL);
	if (options != NULL && options->user_catalog_table)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("access method \"aurora\" does not support storage parameter \"user_catalog_table\""),
				 errdetail("Logical decoding could not read the table."),
				 errhint("Use a heap table.")));
}

/* The row as this command has written it, which nobody else sees yet. */
static void
check_relation(Oid relid)
{
	Relation	pg_class = table_open(RelationRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tup;

	ScanKeyInit(&key, Anum_pg_class_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(pg_class, ClassOidIndexId, true, SnapshotSelf,
							  1, &key);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
		check_row(tup, RelationGetDescr(pg_class));
	systable_endscan(scan);
	table_close(pg_class, AccessShareLock);
}

static void
object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId,
			  void *arg)
{
	if (prev_object_access)
		prev_object_access(access, classId, objectId, subId, arg);
	if ((access == OAT_POST_CREATE || access == OAT_POST_ALTER) &&
		classId == RelationRelationId && subId == 0)
		check_relation(objectId);
}

void
aurora_options_install(void)
{
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
}
