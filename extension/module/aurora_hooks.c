/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_hooks.c: DDL that works on whole databases, of which access methods
 * are told nothing.
 *
 *	CREATE DATABASE           afterwards, in the same transaction, the pages of
 *	                          the template's aurora tables are copied
 *	ALTER DATABASE ...        beforehand, in the same transaction, pages are
 *	  SET TABLESPACE          copied to their new names
 *	DROP DATABASE             stock's record makes storage drop the pages
 *
 * After the last two the relations' sizes under the old names are forgotten,
 * since the names may come again.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "tcop/utility.h"

#include "am/aurora_am.h"
#include "cache/aurora_pagecache.h"
#include "module/aurora_database.h"
#include "module/aurora_hooks.h"

static ProcessUtility_hook_type prev_process_utility = NULL;

static void
process_utility(PlannedStmt *pstmt, const char *queryString,
				bool readOnlyTree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *queryEnv,
				DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *stmt = pstmt->utilityStmt;
	Oid			renamed = InvalidOid;	/* database whose old names end */

	if (IsA(stmt, AlterDatabaseStmt) &&
		aurora_find_option(((AlterDatabaseStmt *) stmt)->options, "tablespace"))
		renamed = aurora_database_moving((AlterDatabaseStmt *) stmt,
										 context == PROCESS_UTILITY_TOPLEVEL);
	else if (IsA(stmt, DropdbStmt))
		renamed = get_database_oid(((DropdbStmt *) stmt)->dbname, true);

	if (prev_process_utility)
		prev_process_utility(pstmt, queryString, readOnlyTree, context,
							 params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);

	if (OidIsValid(renamed))
		aurora_size_forget_database(renamed, XactLastRecEnd);
	else if (IsA(stmt, CreatedbStmt))
		aurora_database_created((CreatedbStmt *) stmt);
}

void
aurora_hooks_install(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	aurora_database_install();
	aurora_scan_bitmap_install();
}
