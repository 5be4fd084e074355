/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_base.h: what every part of Aurora agrees on before anything else:
 * status codes, byte order, page identity.
 *
 * Free of PostgreSQL and of operating system dependencies: this header is
 * compiled into the extension, the storage daemon, auroractl, the simulator
 * and the fuzzers.
 *
 * Everything on disk, on the wire and in our WAL records is little-endian,
 * except RocksDB keys, which are big-endian so that they sort.
 */
#ifndef AU_BASE_H
#define AU_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define AU_PAGE_SIZE 8192

/* A byte position in the server's WAL, as PostgreSQL's XLogRecPtr; 0 = none. */
typedef uint64_t AuLsn;
#define AU_LSN_INVALID ((AuLsn) 0)
#define AU_LSN_MAX (~(AuLsn) 0)

/* printf("%X/%X", AU_LSN_ARGS(lsn)) */
#define AU_LSN_ARGS(lsn) (uint32_t) ((lsn) >> 32), (uint32_t) (lsn)

typedef enum AuStatus
{
	AU_OK = 0,
	AU_NEED_MORE,	/* not an error: the input ends in mid-item */
	AU_NOT_FOUND,	/* no such page, relation, volume at that LSN */
	AU_CORRUPT,		/* a checksum or a structure check failed */
	AU_INVALID,		/* the caller or the peer asked for nonsense */
	AU_UNSUPPORTED, /* a version this build does not speak */
	AU_FENCED,		/* a newer term exists */
	AU_REFUSED,		/* valid, but not on this volume/node */
	AU_FULL,		/* disk full, or another bound reached */
	AU_IO,			/* the operating system said no */
	AU_GONE,		/* that LSN is below the retention horizon */
	AU_NOMEM,
	AU_MOVED,		/* that slice, or log group, is elsewhere now: ask for the view */
	AU_LOST			/* this node lost log that it had acknowledged, and has no say yet */
} AuStatus;

/* Short lower-case name of a status, never NULL. */
const char *au_status_name(AuStatus status);

/* host:port, [v6]:port, :port: the host without brackets goes to `host`, *port
 * points into address and is a number from 1 to 65535.  False: it is not of that
 * form, or does not fit. */
bool		au_split_address(const char *address, char *host, size_t hostlen, const char **port);

/* Identity of a relation fork within a volume (a volume is one PostgreSQL
 * cluster, named by its system identifier). */
typedef struct AuRelId
{
	uint32_t	spc;			/* tablespace Oid */
	uint32_t	db;				/* database Oid */
	uint32_t	rel;			/* relfilenode number */
	uint32_t	fork;			/* 0 = main */
} AuRelId;

typedef struct AuPageId
{
	AuRelId		rel;
	uint32_t	blk;
} AuPageId;

static inline void
au_put_u16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t) v;
	p[1] = (uint8_t) (v >> 8);
}

static inline void
au_put_u32(uint8_t *p, uint32_t v)
{
	au_put_u16(p, (uint16_t) v);
	au_put_u16(p + 2, (uint16_t) (v >> 16));
}

static inline void
au_put_u64(uint8_t *p, uint64_t v)
{
	au_put_u32(p, (uint32_t) v);
	au_put_u32(p + 4, (uint32_t) (v >> 32));
}

static inline uint16_t
au_get_u16(const uint8_t *p)
{
	return (uint16_t) (p[0] | ((uint16_t) p[1] << 8));
}

static inline uint32_t
au_get_u32(const uint8_t *p)
{
	return au_get_u16(p) | ((uint32_t) au_get_u16(p + 2) << 16);
}

static inline uint64_t
au_get_u64(const uint8_t *p)
{
	return au_get_u32(p) | ((uint64_t) au_get_u32(p + 4) << 32);
}

#endif							/* AU_BASE_H */
