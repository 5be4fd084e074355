/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_guc.c: definitions of the settings; docs/configuration.md describes
 * them for users.  What two processes must agree on (where storage is, sizes
 * of shared memory) is fixed at server start.
 */
#include "postgres.h"

#include <limits.h>
#include <sys/un.h>

#include "replication/slot.h"
#include "utils/guc.h"

#include "client/aurora_nodes.h"
#include "module/aurora_guc.h"

char	   *aurora_storage_nodes = "";
int			aurora_write_quorum = 0;
int			aurora_read_node = 0;
int			aurora_hedge_delay_ms = -1;
char	   *aurora_storage_socket = "";
char	   *aurora_storage_dir = "";
char	   *aurora_storaged_path = "";
char	   *aurora_storaged_options = "";
int			aurora_storage_timeout_ms = 300 * 1000;
int			aurora_last_written_slots = 131072;
int			aurora_size_cache_entries = 16384;
int			aurora_scan_prefetch_pages = 64;
int			aurora_max_ship_lag_mb = 1024;
char	   *aurora_shipper_conninfo = "";
char	   *aurora_slot_name = "aurora";
bool		aurora_redirect_functions = true;

/*
 * A wrong value in the configuration file would only be warned about when a
 * library defines the setting, and the default be used.  Here the default
 * means other storage than the user meant, so it has to stop the server.
 */
static void
refuse(const char *name, const char *value, const char *rule)
{
	ereport(FATAL,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for parameter \"%s\": \"%s\"", name, value),
			 errhint("%s", rule)));
}

static void
check_values(void)
{
	struct sockaddr_un un;
	const char *wrong = aurora_nodes_define();
	int			nodes;

	if (wrong != NULL)
		refuse("aurora.storage_nodes", aurora_storage_nodes, wrong);
	nodes = aurora_nodes_configured();
	if (aurora_write_quorum != 0 &&
		(aurora_write_quorum > nodes || aurora_write_quorum * 2 <= nodes))
		refuse("aurora.write_quorum", psprintf("%d", aurora_write_quorum),
			   psprintf("With %d storage nodes it can be %d to %d; 0 stands for %d, the majority.",
						nodes, nodes / 2 + 1, nodes, nodes / 2 + 1));
	if (aurora_storage_socket[0] != '\0' &&
		!is_absolute_path(aurora_storage_socket))
		refuse("aurora.storage_socket", aurora_storage_socket,
			   "The path of a socket must be absolute.");
	if (strlen(aurora_storage_socket) >= sizeof(un.sun_path))
		refuse("aurora.storage_socket", aurora_storage_socket,
			   "The path of a Unix-domain socket can have 107 bytes at most.");
	if (!ReplicationSlotValidateName(aurora_slot_name, LOG))
		refuse("aurora.slot_name", aurora_slot_name,
			   "A slot's name has lower case letters, digits and underscores only.");
}

/* Where storage is. */
static void
define_storage(void)
{
	DefineCustomStringVariable("aurora.storage_nodes",
							   "Addresses of the storage nodes.",
							   "host:port,...; empty: the server runs its own node on a Unix-domain socket.",
							   &aurora_storage_nodes, "",
							   PGC_POSTMASTER, 0,
							   NULL, NULL, NULL);
	DefineCustomIntVariable("aurora.write_quorum",
							"Storage nodes that must hold log before it counts as durable.",
							"0: more than half of them.",
							&aurora_write_quorum,
							0, 0, AU_GROUP_MAX,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("aurora.read_node",
							"The storage node that this session reads from.",
							"Its number in aurora.storage_nodes, from 1 on; 0: the fastest, and another one if it fails.",
							&aurora_read_node,
							0, 0, AURORA_NODES_MAX,
							PGC_USERSET, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("aurora.hedge_delay",
							"After how long without an answer a second storage node is asked as well.",
							"-1: twice what the slowest of a hundred answers took of late; 0: never.",
							&aurora_hedge_delay_ms,
							-1, -1, 60 * 1000,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomStringVariable("aurora.storage_socket",
							   "Unix-domain socket of the server's own storage node.",
							   "Empty: aurora/storaged.sock in the data directory.",
							   &aurora_storage_socket, "",
							   PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("aurora.storage_directory",
							   "Directory of the server's own storage node.",
							   "Empty: aurora in the data directory.",
							   &aurora_storage_dir, "",
							   PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("aurora.storaged_path",
							   "The aurora_storaged program.",
							   "Empty: where the server's own programs are.",
							   &aurora_storaged_path, "",
							   PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("aurora.storaged_options",
							   "More arguments for the server's own storage node.",
							   NULL,
							   &aurora_storaged_options, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomIntVariable("aurora.storage_timeout",
							"Longest wait for an answer from storage.",
							"Then the statement fails; 0 waits for ever.",
							&aurora_storage_timeout_ms,
							300 * 1000, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
}

/* The page cache. */
static void
define_cache(void)
{
	DefineCustomIntVariable("aurora.last_written_slots",
							"Slots of the table that tells how new a page read from storage must be.",
							"With fewer slots than busy pages, reads wait for more log than they need.",
							&aurora_last_written_slots,
							131072, 1024, 1 << 26,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("aurora.size_cache_entries",
							"Tables whose sizes are kept in shared memory.",
							NULL,
							&aurora_size_cache_entries,
							16384, 256, 1 << 24,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("aurora.scan_prefetch",
							"Pages that a scan asks storage for at once.",
							"0 turns read-ahead off; effective_io_concurrency says how many requests are in flight.",
							&aurora_scan_prefetch_pages,
							64, 0, 64,
							PGC_USERSET, 0,
							NULL, NULL, NULL);
}

/* The log shipper. */
static void
define_shipper(void)
{
	DefineCustomIntVariable("aurora.max_ship_lag",
							"Writers wait while more log than this is not yet durable on storage.",
							"0: never wait.",
							&aurora_max_ship_lag_mb,
							1024, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MB,
							NULL, NULL, NULL);
	DefineCustomStringVariable("aurora.shipper_conninfo",
							   "How the log shipper connects to its own server.",
							   "Empty: the first Unix-domain socket, the server's port, the bootstrap superuser.",
							   &aurora_shipper_conninfo, "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("aurora.slot_name",
							   "Replication slot of the log shipper.",
							   NULL,
							   &aurora_slot_name, "aurora",
							   PGC_POSTMASTER, 0,
							   NULL, NULL, NULL);
}

/* How aurora tables look from SQL. */
static void
define_sql(void)
{
	DefineCustomBoolVariable("aurora.redirect_functions",
							 "Lets pg_relation_size() and its like know the pages on storage.",
							 "Off: they, and functions of contrib modules that read pages, see a table's local file only.",
							 &aurora_redirect_functions,
							 true,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);
}

void
aurora_guc_define(void)
{
	define_sql();
	define_storage();
	define_cache();
	define_shipper();
	MarkGUCPrefixReserved("aurora");
	check_values();
}
