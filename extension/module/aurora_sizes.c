/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_sizes.c: twins (aurora_redirect.h) of the server's functions that
 * tell sizes.
 *
 * The originals add up files.  Of a permanent aurora table all forks but the
 * main one are files, and so are indexes; the main fork's file is empty.  So
 * a twin adds to the original's answer the main forks that are on storage.
 */
#include "postgres.h"

#include "access/relation.h"
#include "commands/dbcommands.h"
#include "common/relpath.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "am/aurora_am.h"
#include "cache/aurora_pagecache.h"
#include "client/aurora_client.h"
#include "module/aurora_redirect.h"

/* A database's size is told without much waiting, or not at all. */
#define DATABASE_SIZE_TIMEOUT_MS 2000

PG_FUNCTION_INFO_V1(aurora_pg_relation_size);
PG_FUNCTION_INFO_V1(aurora_pg_relation_size_fork);
PG_FUNCTION_INFO_V1(aurora_pg_table_size);
PG_FUNCTION_INFO_V1(aurora_pg_total_relation_size);
PG_FUNCTION_INFO_V1(aurora_pg_database_size_oid);
PG_FUNCTION_INFO_V1(aurora_pg_database_size_name);
PG_FUNCTION_INFO_V1(aurora_sql_local_size);

/* Bytes of the relation's main fork on storage; 0 if it is not there. */
static int64
remote_bytes(Relation rel)
{
	if (!aurora_is_aurora_rel(rel) || !aurora_rel_is_remote(rel))
		return 0;
	return (int64) aurora_nblocks(rel) * BLCKSZ;
}

/* pg_relation_size(regclass, text) of the server, with the fork given. */
static Datum
original_fork_size(FunctionCallInfo fcinfo, Datum fork)
{
	LOCAL_FCINFO(call, 2);

	InitFunctionCallInfoData(*call, fcinfo->flinfo, 2, InvalidOid, NULL, NULL);
	call->args[0] = fcinfo->args[0];
	call->args[1].value = fork;
	call->args[1].isnull = false;
	fork = aurora_original_call(AURORA_RELATION_SIZE_FORK, call);
	fcinfo->isnull = call->isnull;
	return fork;
}

static Datum
relation_size(FunctionCallInfo fcinfo, Datum fork)
{
	Relation	rel;
	int64		bytes;

	if (strcmp(TextDatumGetCString(fork), forkNames[MAIN_FORKNUM]) != 0)
		return original_fork_size(fcinfo, fork);
	rel = try_relation_open(PG_GETARG_OID(0), AccessShareLock);
	if (rel == NULL)
		PG_RETURN_NULL();
	if (!aurora_is_aurora_rel(rel) || !aurora_rel_is_remote(rel))
		bytes = -1;
	else
		bytes = remote_bytes(rel);
	relation_close(rel, AccessShareLock);
	if (bytes < 0)
		return original_fork_size(fcinfo, fork);
	PG_RETURN_INT64(bytes);
}

/* pg_relation_size(regclass) */
Datum
aurora_pg_relation_size(PG_FUNCTION_ARGS)
{
	aurora_original_check(AURORA_RELATION_SIZE);
	return relation_size(fcinfo, CStringGetTextDatum(forkNames[MAIN_FORKNUM]));
}

/* pg_relation_size(regclass, fork text) */
Datum
aurora_pg_relation_size_fork(PG_FUNCTION_ARGS)
{
	aurora_original_check(AURORA_RELATION_SIZE_FORK);
	return relation_size(fcinfo, PG_GETARG_DATUM(1));
}

/* Sizes of a table with its TOAST table. */
static Datum
table_size(AuroraOriginal which, FunctionCallInfo fcinfo)
{
	Relation	rel;
	Datum		files;
	int64		bytes;

	aurora_original_check(which);
	rel = try_relation_open(PG_GETARG_OID(0), AccessShareLock);
	if (rel == NULL)
		PG_RETURN_NULL();
	bytes = remote_bytes(rel);
	if (OidIsValid(rel->rd_rel->reltoastrelid))
	{
		Relation	toast = relation_open(rel->rd_rel->reltoastrelid,
										  AccessShareLock);

		bytes += remote_bytes(toast);
		relation_close(toast, AccessShareLock);
	}
	files = aurora_original_call(which, fcinfo);
	relation_close(rel, AccessShareLock);
	if (fcinfo->isnull)
		return files;
	PG_RETURN_INT64(DatumGetInt64(files) + bytes);
}

Datum
aurora_pg_table_size(PG_FUNCTION_ARGS)
{
	return table_size(AURORA_TABLE_SIZE, fcinfo);
}

Datum
aurora_pg_total_relation_size(PG_FUNCTION_ARGS)
{
	return table_size(AURORA_TOTAL_RELATION_SIZE, fcinfo);
}

/*
 * Databases.  The original goes first, since it checks the caller's rights.
 * What storage has not applied yet is not waited for.  If storage does not
 * answer the size is unknown, that is null, and not an error: it is asked for
 * by tools that look at all databases at once.
 */
static Datum
database_size(AuroraOriginal which, FunctionCallInfo fcinfo, Oid db)
{
	Datum		files = aurora_original_call(which, fcinfo);
	int64		pages;

	if (fcinfo->isnull)
		return files;
	pages = aurora_client_database_pages(db, DATABASE_SIZE_TIMEOUT_MS);
	if (pages < 0)
	{
		ereport(WARNING,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("size of database \"%s\" is not known: storage node \"%s\" does not answer",
						get_database_name(db), aurora_client_target()),
				 errhint("Views aurora.shipper and aurora.nodes tell more. With aurora.redirect_functions = off only local files are counted.")));
		PG_RETURN_NULL();
	}
	PG_RETURN_INT64(DatumGetInt64(files) + pages * BLCKSZ);
}

Datum
aurora_pg_database_size_oid(PG_FUNCTION_ARGS)
{
	aurora_original_check(AURORA_DATABASE_SIZE_OID);
	return database_size(AURORA_DATABASE_SIZE_OID, fcinfo, PG_GETARG_OID(0));
}

Datum
aurora_pg_database_size_name(PG_FUNCTION_ARGS)
{
	aurora_original_check(AURORA_DATABASE_SIZE_NAME);
	return database_size(AURORA_DATABASE_SIZE_NAME, fcinfo,
						 get_database_oid(NameStr(*PG_GETARG_NAME(0)), false));
}

/* local_size(regclass): bytes of the main fork's local file, whatever the
 * settings; null for a relation that is gone. */
Datum
aurora_sql_local_size(PG_FUNCTION_ARGS)
{
	return original_fork_size(fcinfo,
							  CStringGetTextDatum(forkNames[MAIN_FORKNUM]));
}
