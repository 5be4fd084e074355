/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_module.c: the library's entry point.
 *
 * Everything the extension needs (shared memory, the resource manager that
 * replays our WAL, the workers) can only be set up when the server starts.
 * Loaded later, by CREATE EXTENSION without shared_preload_libraries, the
 * library does nothing, and each use of it raises aurora_require_preloaded's
 * error.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "cache/aurora_cache_internal.h"
#include "client/aurora_nodes.h"
#include "module/aurora_guc.h"
#include "module/aurora_hooks.h"
#include "module/aurora_module.h"
#include "module/aurora_options.h"
#include "module/aurora_redirect.h"
#include "ship/aurora_ship.h"
#include "wal/aurora_rmgr.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static bool preloaded = false;
static shmem_request_hook_type prev_shmem_request = NULL;
static shmem_startup_hook_type prev_shmem_startup = NULL;

void
aurora_require_preloaded(void)
{
	if (!preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the aurora library must be loaded when the server starts"),
				 errhint("Add aurora to shared_preload_libraries in postgresql.conf and restart the server.")));
}

static void
shmem_request(void)
{
	if (prev_shmem_request)
		prev_shmem_request();
	RequestAddinShmemSpace(aurora_pagecache_shmem_size());
	RequestAddinShmemSpace(aurora_ship_shmem_size());
	RequestAddinShmemSpace(aurora_nodes_shmem_size());
}

static void
shmem_startup(void)
{
	if (prev_shmem_startup)
		prev_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	aurora_pagecache_shmem_init();
	aurora_ship_shmem_init();
	aurora_nodes_shmem_init();
	LWLockRelease(AddinShmemInitLock);
}

/*
 * The log is the database: it must be written in full, and it must be
 * possible to stream it away.  Better no start than tables that cannot be
 * written.
 */
static void
check_server_settings(void)
{
	if (wal_level < WAL_LEVEL_REPLICA)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("aurora needs wal_level \"replica\" or \"logical\""),
				 errhint("Set wal_level = replica in postgresql.conf, or take aurora out of shared_preload_libraries.")));
	if (max_wal_senders < 1 || max_replication_slots < 1)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("aurora needs a WAL sender and a replication slot for its log shipper"),
				 errhint("Set max_wal_senders and max_replication_slots to at least 1, or take aurora out of shared_preload_libraries.")));
}

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	check_server_settings();
	aurora_guc_define();
	aurora_rmgr_register();
	prev_shmem_request = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
	RegisterXactCallback(aurora_cache_xact_callback, NULL);
	aurora_hooks_install();
	aurora_options_install();
	aurora_redirect_install();
	aurora_ship_register_workers();
	preloaded = true;
}
