/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_config.c: options; one table serves the command line, the file and the
 * help text.
 */
#include "daemon/au_config.h"

#include "common/au_history.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

typedef enum Kind
{
	TEXT,
	MEGABYTES,
	SECONDS,
	SYSID,
	LEVEL,
	LANDING,
	COMPRESSION,
	COUNT,
	SWITCH						/* on or off; on the command line: there or not */
} Kind;

typedef struct Option
{
	const char *name;
	Kind		kind;
	size_t		offset;
	size_t		size;			/* TEXT: of the buffer; COUNT: the largest */
	uint64_t	min;			/* MEGABYTES, SECONDS, COUNT */
	const char *argument;
	const char *help;
} Option;

#define TEXT_OPTION(field) TEXT, offsetof(AuConfig, field), sizeof(((AuConfig *) 0)->field), 0

static const Option options[] = {
	{"dir", TEXT_OPTION(dir), "DIR", "directory of the node's data; made if absent (required)"},
	{"socket", TEXT_OPTION(socket), "PATH", "serve on this Unix socket"},
	{"listen", TEXT_OPTION(listen), "HOST:PORT", "serve on this TCP address"},
	{"http", TEXT_OPTION(http), "HOST:PORT", "status and metrics over HTTP on this address"},
	{"http-socket", TEXT_OPTION(http_socket), "PATH", "... on this Unix socket"},
	{"memory", MEGABYTES, offsetof(AuConfig, memory_mb), 0, 32, "MB",
	"memory for caches and gathered changes (default 256)"},
	{"retention-mb", MEGABYTES, offsetof(AuConfig, retention_mb), 0, 0, "MB",
	"log behind which old page versions stay readable (default 1024)"},
	{"retention-seconds", SECONDS, offsetof(AuConfig, retention_seconds), 0, 0, "S",
	"... and time before the newest commit, whichever is more (default 0: none)"},
	{"hold-limit-mb", MEGABYTES, offsetof(AuConfig, hold_limit_mb), 0, 0, "MB",
	"log that a reader's hold may keep; 0: any (default 4096)"},
	{"log-keep-mb", MEGABYTES, offsetof(AuConfig, log_keep_mb), 0, 1, "MB",
	"log kept for other nodes, behind what the page store has (default 1024)"},
	{"disk-reserve-mb", MEGABYTES, offsetof(AuConfig, disk_reserve_mb), 0, 0, "MB",
	"take no more log when less of the disk is free (default 64)"},
	{"disk-limit", MEGABYTES, offsetof(AuConfig, disk_limit_mb), 0, 0, "MB",
	"take no more log when the node uses so much disk; 0: no limit (default)"},
	{"scrub-mb-per-s", MEGABYTES, offsetof(AuConfig, scrub_mb_per_s), 0, 0, "MB",
	"look for damage at this rate in the background; 0: never (default 4)"},
	{"anti-entropy-mb-per-s", MEGABYTES, offsetof(AuConfig, anti_entropy_mb_per_s), 0, 0, "MB",
	"compare pages with other nodes that keep them at this rate; 0: never (default 4)"},
	{"move-mb-per-s", MEGABYTES, offsetof(AuConfig, move_mb_per_s), 0, 0, "MB",
	"take page versions of slices from other nodes at this rate; 0: any (default 64)"},
	{"slice-grace-seconds", SECONDS, offsetof(AuConfig, slice_grace_seconds), 0, 1, "S",
	"keep slices that other nodes own now for so long (default 60)"},
	{"repair-mb-per-s", MEGABYTES, offsetof(AuConfig, repair_mb_per_s), 0, 1, "MB",
	"take pages from other nodes at this rate when damage is repaired (default 32)"},
	{"single-volume", SYSID, offsetof(AuConfig, single_volume), 0, 0, "SYSID",
	"serve only the server with this system identifier"},
	{"log-dir", TEXT_OPTION(log_dir), "DIR",
	"keep landing logs in this directory, e.g. on persistent memory (default: below --dir)"},
	{"landing", LANDING, offsetof(AuConfig, landing), 0, 0, "KIND",
	"keep landing logs on pmem or in a file (default auto: pmem where it is)"},
	{"cold-compression", COMPRESSION, offsetof(AuConfig, cold_zstd), 0, 0, "KIND",
	"of pages that have not changed for long: lz4 (default), or zstd: smaller, slower to read"},
	{"cluster-init", SWITCH, offsetof(AuConfig, cluster_init), 0, 0, "",
	"make a cluster, whose first node this is; nothing happens if it is in one"},
	{"cluster-recover", SWITCH, offsetof(AuConfig, cluster_recover), 0, 0, "",
	"go on alone: most of the nodes that vote are lost for ever (see docs/operation.md)"},
	{"join", TEXT_OPTION(join), "HOST:PORT",
	"join the cluster of the node at this address; nothing happens if it is in one"},
	{"advertise", TEXT_OPTION(advertise), "HOST:PORT",
	"where servers and other nodes find this one (default: --listen)"},
	{"meta-listen", TEXT_OPTION(meta_listen), "HOST:PORT",
	"for the cluster's consensus, IPv4 (default: the port after --listen's)"},
	{"zone", TEXT_OPTION(zone), "NAME", "replicas are put into different zones"},
	{"weight", COUNT, offsetof(AuConfig, weight), 10000, 1, "N",
	"share of the data when it joins (default 100)"},
	{"replicas", COUNT, offsetof(AuConfig, replicas), AU_RF_MAX, 1, "N",
	"with --cluster-init: nodes that keep each page (default 3)"},
	{"log-level", LEVEL, offsetof(AuConfig, log_level), 0, 0, "LEVEL",
	"debug, info, warning or error (default info)"},
};

#define NOPTIONS (sizeof(options) / sizeof(options[0]))

static void
print_help(void)
{
	printf("aurora_storaged keeps the log and the table pages of PostgreSQL servers.\n\n"
		   "Usage:\n  aurora_storaged --dir DIR [--socket PATH] [--listen HOST:PORT] [OPTION]...\n\n"
		   "Options:\n");
	for (size_t i = 0; i < NOPTIONS; i++)
	{
		char		left[64];

		snprintf(left, sizeof(left), "--%s %s", options[i].name, options[i].argument);
		printf("  %-26s %s\n", left, options[i].help);
	}
	printf("  %-26s %s\n", "--config FILE", "read options from FILE (name = value)");
	printf("  %-26s %s\n", "--version", "print the version and exit");
	printf("  %-26s %s\n\n", "--help", "print this and exit");
	printf("SIGTERM and SIGINT stop it cleanly; being killed at any moment loses nothing.\n");
}

static const Option *
find_option(const char *name, size_t len)
{
	for (size_t i = 0; i < NOPTIONS; i++)
		if (strlen(options[i].name) == len && strncmp(options[i].name, name, len) == 0)
			return &options[i];
	return NULL;
}

static bool
parse_number(const char *value, uint64_t max, uint64_t *out)
{
	char	   *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(value, &end, 10);
	if (errno != 0 || end == value || *end != '\0' || !isdigit((unsigned char) value[0]) || v > max)
		return false;
	*out = v;
	return true;
}

static bool
parse_level(const char *value, AuLogLevel *out)
{
	static const char *const names[] = {"debug", "info", "warning", "error"};

	for (int i = 0; i < 4; i++)
		if (strcmp(value, names[i]) == 0)
		{
			*out = (AuLogLevel) i;
			return true;
		}
	return false;
}

static bool
parse_landing(const char *value, AuLandingChoice *out)
{
	if (strcmp(value, "auto") == 0)
		*out = AU_LANDING_AUTO;
	else if (strcmp(value, "pmem") == 0)
		*out = AU_LANDING_PMEM;
	else if (strcmp(value, "file") == 0)
		*out = AU_LANDING_FILE;
	else
		return false;
	return true;
}

static bool
parse_compression(const char *value, bool *zstd)
{
	*zstd = strcmp(value, "zstd") == 0;
	return *zstd || strcmp(value, "lz4") == 0;
}

static bool
set_option(AuConfig *c, const Option *o, const char *value, const char *where)
{
	char	   *field = (char *) c + o->offset;
	uint64_t	number;

	switch (o->kind)
	{
		case TEXT:
			if (strlen(value) >= o->size)
			{
				fprintf(stderr, "aurora_storaged: %soption \"%s\" is longer than %zu bytes\n",
						where, o->name, o->size - 1);
				return false;
			}
			memcpy(field, value, strlen(value) + 1);
			return true;
		case MEGABYTES:
		case SECONDS:
			if (!parse_number(value, (uint64_t) 1 << 30, &number) || number < o->min)
			{
				fprintf(stderr, "aurora_storaged: %soption \"%s\" must be a number of %s, at least %u, not \"%s\"\n",
						where, o->name, o->kind == SECONDS ? "seconds" : "megabytes",
						(unsigned) o->min, value);
				return false;
			}
			*(uint64_t *) (void *) field = number;
			return true;
		case COUNT:
			if (!parse_number(value, o->size, &number) || number < o->min)
			{
				fprintf(stderr, "aurora_storaged: %soption \"%s\" must be a number from %u to %zu, not \"%s\"\n",
						where, o->name, (unsigned) o->min, o->size, value);
				return false;
			}
			*(uint64_t *) (void *) field = number;
			return true;
		case SWITCH:
			if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
			{
				fprintf(stderr, "aurora_storaged: %soption \"%s\" must be on or off, not \"%s\"\n",
						where, o->name, value);
				return false;
			}
			*(bool *) field = strcmp(value, "on") == 0;
			return true;
		case SYSID:
			if (!parse_number(value, UINT64_MAX, &number) || number == 0)
			{
				fprintf(stderr, "aurora_storaged: %soption \"%s\" must be a system identifier as pg_controldata shows it, not \"%s\"\n",
						where, o->name, value);
				return false;
			}
			*(uint64_t *) (void *) field = number;
			return true;
		case LEVEL:
			if (!parse_level(value, (AuLogLevel *) (void *) field))
			{
				fprintf(stderr, "aurora_storaged: %soption \"%s\" must be debug, info, warning or error, not \"%s\"\n",
						where, o->name, value);
				return false;
			}
			return true;
		case LANDING:
			if (!parse_landing(value, (AuLandingChoice *) (void *) field))
			{
				fprintf(stderr, "aurora_storaged: %soption \"%s\" must be auto, pmem or file, not \"%s\"\n",
						where, o->name, value);
				return false;
			}
			return true;
		case COMPRESSION:
			if (!parse_compression(value, (bool *) field))
			{
				fprintf(stderr, "aurora_storaged: %soption \"%s\" must be lz4 or zstd, not \"%s\"\n",
						where, o->name, value);
				return false;
			}
			return true;
	}
	return false;
}

static char *
trim(char *s)
{
	char	   *end;

	while (isspace((unsigned char) *s))
		s++;
	end = s + strlen(s);
	while (end > s && isspace((unsigned char) end[-1]))
		*--end = '\0';
	return s;
}

static bool
read_file(AuConfig *c, const char *path)
{
	FILE	   *f = fopen(path, "r");
	char		line[8192];
	char		where[4200];
	int			lineno = 0;
	bool		ok = true;

	if (f == NULL)
	{
		fprintf(stderr, "aurora_storaged: could not open configuration file \"%s\": %s\n",
				path, strerror(errno));
		return false;
	}
	while (ok && fgets(line, sizeof(line), f) != NULL)
	{
		char	   *s = trim(line);
		char	   *equals = strchr(s, '=');
		char	   *name;
		const Option *o;

		lineno++;
		if (*s == '\0' || *s == '#')
			continue;
		snprintf(where, sizeof(where), "\"%s\", line %d: ", path, lineno);
		if (equals == NULL)
		{
			fprintf(stderr, "aurora_storaged: %sexpected \"name = value\"\n", where);
			ok = false;
			break;
		}
		*equals = '\0';
		name = trim(s);
		o = find_option(name, strlen(name));
		if (o == NULL)
		{
			fprintf(stderr, "aurora_storaged: %sunknown option \"%s\"\n", where, name);
			ok = false;
			break;
		}
		ok = set_option(c, o, trim(equals + 1), where);
	}
	fclose(f);
	return ok;
}

/* One pass over the arguments: for the file only, or for everything else. */
static AuConfigResult
read_arguments(AuConfig *c, int argc, char **argv, bool file_pass)
{
	for (int i = 1; i < argc; i++)
	{
		const char *arg = argv[i];
		const char *equals = strchr(arg, '=');
		size_t		len = equals != NULL ? (size_t) (equals - arg) : strlen(arg);
		const char *value;
		const Option *o = NULL;
		bool		is_file;

		if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)
		{
			print_help();
			return AU_CONFIG_EXIT_OK;
		}
		if (strcmp(arg, "--version") == 0 || strcmp(arg, "-V") == 0)
		{
			printf("aurora_storaged %s (protocol %d)\n", AU_VERSION, AU_WIRE_VERSION);
			return AU_CONFIG_EXIT_OK;
		}
		is_file = len == 8 && strncmp(arg, "--config", 8) == 0;
		if (len > 2 && strncmp(arg, "--", 2) == 0)
			o = find_option(arg + 2, len - 2);
		if (o == NULL && !is_file)
		{
			fprintf(stderr, "aurora_storaged: unknown option \"%s\"; see aurora_storaged --help\n", arg);
			return AU_CONFIG_EXIT_ERROR;
		}
		if (o != NULL && o->kind == SWITCH && equals == NULL)
			value = "on";
		else
			value = equals != NULL ? equals + 1 : i + 1 < argc ? argv[++i] : NULL;
		if (value == NULL)
		{
			fprintf(stderr, "aurora_storaged: option \"%s\" needs a value\n", arg);
			return AU_CONFIG_EXIT_ERROR;
		}
		if (is_file && file_pass && !read_file(c, value))
			return AU_CONFIG_EXIT_ERROR;
		if (!is_file && !file_pass && !set_option(c, o, value, ""))
			return AU_CONFIG_EXIT_ERROR;
	}
	return AU_CONFIG_RUN;
}

AuConfigResult
au_config_read(AuConfig *c, int argc, char **argv)
{
	AuConfigResult rc;
	char		host[AU_ADDRESS_MAX];
	const char *port;

	memset(c, 0, sizeof(*c));
	c->memory_mb = 256;
	c->retention_mb = 1024;
	c->hold_limit_mb = 4096;
	c->log_keep_mb = 1024;
	c->disk_reserve_mb = 64;
	c->scrub_mb_per_s = 4;
	c->move_mb_per_s = 64;
	c->slice_grace_seconds = 60;
	c->anti_entropy_mb_per_s = 4;
	c->repair_mb_per_s = 32;
	c->log_level = AU_LOG_INFO;
	c->weight = 100;
	c->replicas = 3;
	rc = read_arguments(c, argc, argv, true);
	if (rc == AU_CONFIG_RUN)
		rc = read_arguments(c, argc, argv, false);
	if (rc != AU_CONFIG_RUN)
		return rc;
	if (c->dir[0] == '\0')
	{
		fprintf(stderr, "aurora_storaged: option --dir is required; see aurora_storaged --help\n");
		return AU_CONFIG_EXIT_ERROR;
	}
	if (c->socket[0] == '\0' && c->listen[0] == '\0')
	{
		fprintf(stderr, "aurora_storaged: give --socket or --listen, or nobody can connect\n");
		return AU_CONFIG_EXIT_ERROR;
	}
	if (c->join[0] != '\0' && !au_split_address(c->join, host, sizeof(host), &port))
	{
		fprintf(stderr, "aurora_storaged: option \"join\" is not of the form HOST:PORT, with a port from 1 to 65535, but \"%s\"\n",
				c->join);
		return AU_CONFIG_EXIT_ERROR;
	}
	if (c->cluster_init && c->join[0] != '\0')
	{
		fprintf(stderr, "aurora_storaged: give --cluster-init to the first node of a cluster, --join to the others\n");
		return AU_CONFIG_EXIT_ERROR;
	}
	return AU_CONFIG_RUN;
}
