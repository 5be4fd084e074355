/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_rmgr.h: Aurora's WAL resource manager: redo, and what makes records
 * readable (pg_walinspect; pg_waldump can't load custom ones).
 */
#ifndef AURORA_RMGR_H
#define AURORA_RMGR_H

#include "postgres.h"

#include "access/xlogreader.h"
#include "lib/stringinfo.h"

/* From _PG_init, while shared_preload_libraries is processed. */
extern void aurora_rmgr_register(void);

/* aurora_rmgr_desc.c */
extern void aurora_rmgr_desc(StringInfo buf, XLogReaderState *record);
extern const char *aurora_rmgr_identify(uint8 info);

#endif							/* AURORA_RMGR_H */
