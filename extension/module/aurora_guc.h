/* SPDX-License-Identifier: Apache-2.0 */
/* aurora_guc.h: every setting of the extension; docs/configuration.md
 * describes them for users. */
#ifndef AURORA_GUC_H
#define AURORA_GUC_H

#include "postgres.h"

extern char *aurora_storage_nodes;		/* aurora.storage_nodes: 'host:port,...', '' = embedded; see aurora_nodes.h */
extern int	aurora_write_quorum;		/* aurora.write_quorum, 0 = majority */
extern int	aurora_read_node;			/* aurora.read_node, 1 .., 0 = any */
extern int	aurora_hedge_delay_ms;	/* aurora.hedge_delay: -1 by itself, 0 never; see aurora_nodes.h */
extern char *aurora_storage_socket;		/* aurora.storage_socket: embedded daemon's socket; '' = <data>/aurora/storaged.sock */
extern char *aurora_storage_dir;		/* aurora.storage_directory: embedded daemon's data; '' = <data>/aurora */
extern char *aurora_storaged_path;		/* aurora.storaged_path: '' = beside the postgres binary */
extern char *aurora_storaged_options;	/* aurora.storaged_options: extra daemon arguments */
extern int	aurora_storage_timeout_ms;	/* aurora.storage_timeout, ms, 0 = wait for ever; default 300s */
extern int	aurora_last_written_slots;	/* aurora.last_written_slots, default 131072 */
extern int	aurora_size_cache_entries;	/* aurora.size_cache_entries, default 16384 */
extern int	aurora_scan_prefetch_pages; /* aurora.scan_prefetch, default 64, 0 = off */
extern int	aurora_max_ship_lag_mb;		/* aurora.max_ship_lag, MB; writers wait beyond; default 1024 */
extern char *aurora_shipper_conninfo;	/* aurora.shipper_conninfo: how the shipper reaches its own server; '' = socket dir, port, bootstrap superuser */
extern bool aurora_redirect_functions;	/* aurora.redirect_functions, default on */
extern char *aurora_slot_name;			/* aurora.slot_name, default 'aurora' */

extern void aurora_guc_define(void);

#endif							/* AURORA_GUC_H */
