/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_ship_host.h: the log shipper's connections to the storage nodes: the
 * host of core/au_proposer.h, and the waiting for all sockets.
 *
 *	host = aurora_ship_host_create();             -- once a process
 *	aurora_ship_host_begin(host, options, cxt);   -- makes host->proposer
 *	receive, (au_proposer_log), run, wait, ...    -- turn by turn
 *	aurora_ship_host_end(host);                   -- also after an error
 *
 * Nothing here blocks but wait and, for moments, the look-up of a host's name:
 * it is made at the first connection, and again when a connection failed, but
 * at most every 30 s, and gives up after about 1 s a name server.
 */
#ifndef AURORA_SHIP_HOST_H
#define AURORA_SHIP_HOST_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "core/au_proposer.h"

typedef struct AuroraShipHost AuroraShipHost;

extern AuroraShipHost *aurora_ship_host_create(void);

/* The nodes of aurora_nodes.h, unless the options name a group; the rest of them is
 * the caller's.  What
 * is allocated belongs to cxt, which lives until the end. */
extern AuProposer *aurora_ship_host_begin(AuroraShipHost *host,
										  AuProposerOptions *options,
										  MemoryContext cxt);
extern void aurora_ship_host_end(AuroraShipHost *host);

/* Hand what has arrived to the proposer. */
extern void aurora_ship_host_receive(AuroraShipHost *host);

/* Have the proposer act, and send.  Returns milliseconds after which it wants
 * to act again at the latest; -1: not by itself. */
extern long aurora_ship_host_run(AuroraShipHost *host);

/* Wait for the nodes, the latch (which is reset), and the server's socket
 * unless it is PGINVALID_SOCKET.  timeout_ms -1: for ever. */
extern void aurora_ship_host_wait(AuroraShipHost *host, pgsocket server,
								  long timeout_ms);

/* When a node answered last; 0: none has. */
extern TimestampTz aurora_ship_host_heard(const AuroraShipHost *host);

#endif							/* AURORA_SHIP_HOST_H */
