/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_ship_server.h: the shipper and its own server.
 */
#ifndef AURORA_SHIP_SERVER_H
#define AURORA_SHIP_SERVER_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "nodes/pg_list.h"

#include "ship/aurora_ship_state.h"

/* As CHECK_FOR_INTERRUPTS, but a request to stop ends the process without a
 * message. */
extern void aurora_ship_check_interrupts(void);

/* Sleep for ms (negative: for ever), or until the configuration was changed if
 * asked. */
extern void aurora_ship_pause(long ms, bool until_reload);

/* Name of the bootstrap superuser, who may always replicate. */
extern char *aurora_superuser_name(void);

/* Connection string to our own server; palloc'd. */
extern char *aurora_server_conninfo(const char *superuser);

/*
 * See to it that our slot exists, holds WAL, and is free.  A slot that lost
 * its WAL is made anew: whether storage can go on is decided by whether the
 * WAL it needs is still there.
 */
extern AuroraTrouble aurora_slot_ensure(AuroraShipFailure *failure);

/* Beginning of the WAL that is in pg_wal without a gap up to its end.
 * history: readTimeLineHistory. */
extern XLogRecPtr aurora_wal_start(List *history);

#endif							/* AURORA_SHIP_SERVER_H */
