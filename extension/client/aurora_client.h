/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_client.h: a backend's questions to the storage nodes.
 *
 * One connection a process, opened at first use and again after a failure,
 * closed at exit; blocking calls on WaitLatchOrSocket.  Every wait (but that for
 * a name server, see aurora_client_hurry_resolver) ends with
 * the answer, with the user's cancel (also while an LWLock holds off
 * interrupts: QueryCancelPending and ProcDiePending are looked at directly),
 * or after aurora.storage_timeout.  A node that cannot be reached, does not
 * answer soon, or has not got what is asked for, is left for the next one, with
 * a bounded back-off after each round, until then.  Errors are raised with
 * ERRCODE_CONNECTION_FAILURE (node unreachable, timeout),
 * ERRCODE_DATA_CORRUPTED (AU_CORRUPT) or ERRCODE_IO_ERROR, always naming the
 * relation, block, LSN and node.
 */
#ifndef AURORA_CLIENT_H
#define AURORA_CLIENT_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "storage/block.h"
#include "storage/relfilenode.h"

#include "cluster/au_view.h"
#include "common/au_wire.h"

/*
 * Fetch n blocks (1 .. AU_WIRE_BLOCKS_MAX).  read_lsn = InvalidXLogRecPtr:
 * newest, not before not_before; else as of read_lsn.  pages: n * BLCKSZ
 * bytes; status[i]: AU_OK or AU_NOT_FOUND (page i then is all zero).
 * Returns the LSN the pages were read as of.
 * The caller has flushed local WAL up to not_before.
 */
extern XLogRecPtr aurora_client_get_pages(const RelFileNode *rnode,
										  const BlockNumber *blocks, int n,
										  XLogRecPtr not_before, XLogRecPtr read_lsn,
										  char *pages, uint8 *status);

/*
 * Read-ahead: ask now, take later.  aurora_client_ask_pages sends a request
 * and returns its id, or 0 if storage cannot be reached or too many are out.
 * aurora_client_take_pages waits for the answer, once; page pointers in *got
 * stay valid until the request is forgotten, by aurora_client_forget or with
 * the resource owner that was current when it was made (aurora_client_asked
 * tells).  The pages have not been looked at: see aurora_client_page_usable.
 * Storage trouble is no error here: the answer then does not come (false).
 * But the end of aurora.storage_timeout is: nobody is to wait for it twice.
 * Both can be cancelled, which raises an error and leaves nothing behind that
 * a later request could mistake for its answer.
 */
#define AURORA_CLIENT_ASKED_MAX 16
extern uint64 aurora_client_ask_pages(const RelFileNode *rnode,
									  const BlockNumber *blocks, int n,
									  XLogRecPtr not_before, XLogRecPtr read_lsn);
extern bool aurora_client_take_pages(uint64 id, const RelFileNode *rnode,
									 const BlockNumber *blocks, int n,
									 AuMsgPages *got);
extern bool aurora_client_asked(uint64 id);
extern void aurora_client_forget(uint64 id);
/* Nothing is going to be asked for soon: give memory back. */
extern void aurora_client_asked_end(void);
/* A sound page, not newer than what was read as of. */
extern bool aurora_client_page_usable(const uint8 *page, XLogRecPtr as_of);

/* Size in blocks of the main fork; 0 for a relation storage never heard of. */
extern BlockNumber aurora_client_get_size(const RelFileNode *rnode,
										  XLogRecPtr not_before, XLogRecPtr read_lsn,
										  XLogRecPtr *as_of);

/*
 * Blocks of all relations of a database together, as far as storage has
 * applied the log.  -1 if it does not answer within timeout_ms.
 */
extern int64 aurora_client_database_pages(Oid db, int timeout_ms);

/*
 * Keep LSNs from here on readable for this process, until it says otherwise
 * (InvalidXLogRecPtr: no more) or its connection ends.  false: storage cannot
 * (too many do already, or it is too old); what is read then may be gone.
 */
extern bool aurora_client_hold(XLogRecPtr lsn);
/* The same as giving it up, without waiting for anybody: for error paths. */
extern void aurora_client_drop_hold(void);

/* Status of a node (-1: the one that is read from) as JSON text, palloc'd;
 * NULL if it cannot be reached within timeout_ms. */
extern char *aurora_client_status_json(int node, int timeout_ms);

/*
 * The cluster's view, from one node.  NEW: *view is filled and newer than epoch;
 * SAME; NONE: the node is in no cluster, nor about to join one; REFUSED: it does
 * not say, for the reason in err (it has not joined its cluster yet, say);
 * NO_ANSWER within timeout_ms, err says why.  *node_id: whose word NEW, SAME and
 * NONE are; 0: not known.
 */
typedef enum AuroraViewAnswer
{
	AURORA_VIEW_NO_ANSWER,
	AURORA_VIEW_REFUSED,
	AURORA_VIEW_NONE,
	AURORA_VIEW_SAME,
	AURORA_VIEW_NEW
} AuroraViewAnswer;

extern AuroraViewAnswer aurora_client_get_view(int node, uint64 epoch, AuView *view,
											   int timeout_ms, uint64 *node_id,
											   char *err, size_t errlen);
/* A command for the view; it may be repeated.  false: err says why it was not
 * taken, or that nobody knows. */
extern bool aurora_client_command(const AuViewCommand *c, int timeout_ms,
								  char *err, size_t errlen);
/* This process changes the view: its connections say so. */
extern void aurora_client_administers(void);

/* aurora.storage_nodes, or the embedded daemon's socket: for messages. */
extern const char *aurora_client_target(void);
/* A connected, non-blocking, close-on-exec socket; -1 with *err (palloc'd). */
extern int	aurora_client_open_unix(const char *path, char **err);
/*
 * Names are looked up by getaddrinfo, which can be neither cancelled nor given a
 * deadline: from now on it waits a second for each name server that /etc/resolv.conf
 * lists (three at most) and search domain, once, instead of 5 s twice.
 */
extern void aurora_client_hurry_resolver(void);
/* Without them it works as well: no error. */
extern void aurora_client_tcp_options(int fd);
/* As au_split_address, for one address of a list: with a host. */
extern bool aurora_client_split_node(const char *node, char *host, size_t hostlen,
									 const char **port);

#endif							/* AURORA_CLIENT_H */
