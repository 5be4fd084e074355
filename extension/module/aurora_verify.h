/* SPDX-License-Identifier: Apache-2.0 */
/* aurora_verify.h: what the SQL functions share. */
#ifndef AURORA_VERIFY_H
#define AURORA_VERIFY_H

#include "postgres.h"

#include "storage/lockdefs.h"
#include "utils/relcache.h"

/* Open a table of access method aurora; an error for anything else. */
extern Relation aurora_sql_open(Oid relid, LOCKMODE lockmode);

#endif							/* AURORA_VERIFY_H */
