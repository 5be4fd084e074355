/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_database.h: CREATE DATABASE and ALTER DATABASE ... SET TABLESPACE of
 * databases that hold aurora tables; aurora_database.c tells how.
 */
#ifndef AURORA_DATABASE_H
#define AURORA_DATABASE_H

#include "postgres.h"

#include "nodes/parsenodes.h"

/* The statement's option of that name, or NULL. */
extern DefElem *aurora_find_option(List *options, const char *name);

/* Stock has carried the statement out and will commit next: copy the pages of
 * the template's aurora tables. */
extern void aurora_database_created(const CreatedbStmt *stmt);

/*
 * Stock is about to carry out SET TABLESPACE: copy the pages that will have
 * another name.  Returns the database, or InvalidOid if there is nothing
 * stock would do.  Raises whatever stock would about rights and other sessions.
 */
extern Oid	aurora_database_moving(const AlterDatabaseStmt *stmt,
								   bool is_top_level);

/* From _PG_init. */
extern void aurora_database_install(void);

#endif							/* AURORA_DATABASE_H */
