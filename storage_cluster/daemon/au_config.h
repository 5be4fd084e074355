/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_config.h: options of aurora_storaged, from the command line and from a
 * file (lines "name = value", names as on the command line without dashes;
 * the command line wins).
 */
#ifndef AU_CONFIG_H
#define AU_CONFIG_H

#include "core/au_node.h"

#define AU_VERSION "0.1.0"

/* What landing logs are kept on. */
typedef enum AuLandingChoice
{
	AU_LANDING_AUTO,			/* persistent memory, if that is what is there */
	AU_LANDING_PMEM,
	AU_LANDING_FILE
} AuLandingChoice;

typedef struct AuConfig
{
	char		dir[4096];
	char		socket[256];
	char		listen[256];
	char		http[256];
	char		http_socket[256];
	uint64_t	memory_mb;
	uint64_t	retention_mb;
	uint64_t	retention_seconds;
	uint64_t	hold_limit_mb;
	uint64_t	log_keep_mb;
	uint64_t	disk_reserve_mb;
	uint64_t	disk_limit_mb;	/* 0: none */
	uint64_t	scrub_mb_per_s;
	uint64_t	anti_entropy_mb_per_s;
	uint64_t	move_mb_per_s;
	uint64_t	slice_grace_seconds;
	uint64_t	repair_mb_per_s;
	uint64_t	single_volume;
	AuLandingChoice landing;
	bool		cold_zstd;		/* what is cold is compressed by zstd, not by lz4 */
	char		log_dir[4096];	/* "": below dir */
	AuLogLevel	log_level;
	bool		cluster_init;
	bool		cluster_recover;
	char		join[128];		/* "": none */
	char		meta_listen[128];
	char		advertise[128];
	char		zone[32];
	uint64_t	weight;
	uint64_t	replicas;
} AuConfig;

typedef enum AuConfigResult
{
	AU_CONFIG_RUN,
	AU_CONFIG_EXIT_OK,			/* --help, --version: printed */
	AU_CONFIG_EXIT_ERROR		/* a message was printed */
} AuConfigResult;

AuConfigResult au_config_read(AuConfig *c, int argc, char **argv);

#endif							/* AU_CONFIG_H */
