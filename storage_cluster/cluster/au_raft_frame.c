/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_raft_frame.c: see au_raft_frame.h.
 */
#include "cluster/au_raft_frame.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PREAMBLE 16
#define HELLO_FIXED 24
#define APPEND_FIXED 40			/* term, previous index and term, commit, entries */
#define ENTRY_BYTES 16			/* term, u8 type, u32 length */
#define SNAPSHOT_FIXED 40		/* term, index, its term, configuration's index, length */
#define SERVERS_MAX 256
#define ENTRY_COMMAND 1
#define ENTRY_CHANGE 3

/* ---- greeting --------------------------------------------------------- */

bool
au_raft_hello_text(char *out, size_t cap, const char *address, uint64_t cluster_id, uint64_t node_id)
{
	int			n = snprintf(out, cap, "%s/%016" PRIX64 "/%016" PRIX64, address, cluster_id, node_id);

	return n > 0 && (size_t) n < cap;
}

/* 16 hexadecimal digits. */
static bool
parse_hex(const char *s, uint64_t *out)
{
	*out = 0;
	for (int i = 0; i < 16; i++)
	{
		char		c = s[i];
		unsigned	d = c >= '0' && c <= '9' ? (unsigned) (c - '0') :
			c >= 'A' && c <= 'F' ? (unsigned) (c - 'A') + 10 : 16;

		if (d == 16)
			return false;
		*out = *out << 4 | d;
	}
	return true;
}

/* "1.2.3.4:5", as libraft wants it. */
static bool
is_ip4_address(const char *s)
{
	unsigned	part[4],
				port;
	int			n = 0;

	if (s[strspn(s, "0123456789.:")] != '\0' ||
		sscanf(s, "%3u.%3u.%3u.%3u:%5u%n", &part[0], &part[1], &part[2], &part[3], &port, &n) != 5)
		return false;
	for (int i = 0; i < 4; i++)
		if (part[i] > 255)
			return false;
	return s[n] == '\0' && port >= 1 && port <= 65535;
}

static bool
parse_text(const char *text, AuRaftHello *out)
{
	const char *slash = strchr(text, '/');
	size_t		len = slash != NULL ? (size_t) (slash - text) : 0;

	if (slash == NULL || len >= sizeof(out->address) || strlen(slash) != 34 || slash[17] != '/' ||
		!parse_hex(slash + 1, &out->cluster_id) || !parse_hex(slash + 18, &out->node_id))
		return false;
	memcpy(out->address, text, len);
	out->address[len] = '\0';
	return is_ip4_address(out->address);
}

AuStatus
au_raft_hello_parse(const uint8_t *b, size_t len, AuRaftHello *out, size_t *used)
{
	uint64_t	text_len;

	*used = HELLO_FIXED;
	/* a stranger is known by its first word */
	if (len >= 8 && au_get_u64(b) != 1)
		return AU_CORRUPT;
	if (len < HELLO_FIXED)
		return AU_NEED_MORE;
	text_len = au_get_u64(b + 16);
	if (au_get_u64(b + 8) == 0 || au_get_u64(b + 8) > UINT32_MAX ||
		text_len == 0 || text_len > AU_RAFT_HELLO_MAX - HELLO_FIXED)
		return AU_CORRUPT;
	*used = HELLO_FIXED + (size_t) text_len;
	if (len < *used)
		return AU_NEED_MORE;
	memset(out, 0, sizeof(*out));
	out->number = (uint32_t) au_get_u64(b + 8);
	if (memchr(b + HELLO_FIXED, '\0', text_len) == NULL ||
		!parse_text((const char *) b + HELLO_FIXED, out))
		return AU_CORRUPT;
	return AU_OK;
}

/* ---- messages --------------------------------------------------------- */

typedef struct Server
{
	uint64_t	id;
	const char *address;
} Server;

/* u8 1, u64 n, n × (u64 number, address, NUL, u8 role), zeros to 8 */
static bool
configuration_good(const uint8_t *b, size_t len)
{
	Server		seen[SERVERS_MAX];
	uint64_t	n;
	size_t		at = 9;

	if (len < 9 || b[0] != 1)
		return false;
	n = au_get_u64(b + 1);
	if (n == 0 || n > SERVERS_MAX)
		return false;
	for (uint64_t i = 0; i < n; i++)
	{
		const uint8_t *end;

		if (len - at < 8)
			return false;
		seen[i] = (Server)
		{
			au_get_u64(b + at), (const char *) b + at + 8
		};
		at += 8;
		end = memchr(b + at, '\0', len - at);
		if (end == NULL || seen[i].id == 0)
			return false;
		at = (size_t) (end - b) + 1;
		if (at == len || b[at] > 2)
			return false;
		at++;
		for (uint64_t j = 0; j < i; j++)
			if (seen[j].id == seen[i].id || strcmp(seen[j].address, seen[i].address) == 0)
				return false;
	}
	return true;
}

/* The entries' lengths; SIZE_MAX: the header is not good. */
static size_t
entries_bytes(const uint8_t *h, size_t len)
{
	size_t		total = 0;
	uint64_t	n;

	if (len < APPEND_FIXED)
		return SIZE_MAX;
	n = au_get_u64(h + 32);
	if (n > (len - APPEND_FIXED) / ENTRY_BYTES)
		return SIZE_MAX;
	for (uint64_t i = 0; i < n; i++)
	{
		const uint8_t *e = h + APPEND_FIXED + i * ENTRY_BYTES;
		uint32_t	bytes = au_get_u32(e + 12);

		if (e[8] < ENTRY_COMMAND || e[8] > ENTRY_CHANGE || bytes % 8 != 0 ||
			bytes > AU_RAFT_MESSAGE_MAX - total || (bytes == 0 && e[8] == ENTRY_CHANGE))
			return SIZE_MAX;
		total += bytes;
	}
	return total;
}

static bool
entries_good(const uint8_t *h, const uint8_t *payload)
{
	uint64_t	n = au_get_u64(h + 32);

	for (uint64_t i = 0; i < n; i++)
	{
		const uint8_t *e = h + APPEND_FIXED + i * ENTRY_BYTES;
		uint32_t	bytes = au_get_u32(e + 12);

		if (e[8] == ENTRY_CHANGE && !configuration_good(payload, bytes))
			return false;
		payload += bytes;
	}
	return true;
}

static size_t
snapshot_bytes(const uint8_t *h, size_t len)
{
	uint64_t	conf_len;
	uint64_t	bytes;

	if (len < SNAPSHOT_FIXED)
		return SIZE_MAX;
	conf_len = au_get_u64(h + 32);
	if (conf_len > len - SNAPSHOT_FIXED || len - SNAPSHOT_FIXED - conf_len < 8 ||
		!configuration_good(h + SNAPSHOT_FIXED, (size_t) conf_len))
		return SIZE_MAX;
	bytes = au_get_u64(h + SNAPSHOT_FIXED + conf_len);
	return bytes == 0 || bytes > AU_RAFT_MESSAGE_MAX ? SIZE_MAX : (size_t) bytes;
}

/* Bytes that follow the header; SIZE_MAX: it is not good.  Those that libraft
 * also takes in an older, shorter form may have that or the whole one. */
static size_t
payload_bytes(uint64_t type, const uint8_t *h, size_t len)
{
	switch (type)
	{
		case AU_RAFT_APPEND:
			return entries_bytes(h, len);
		case AU_RAFT_SNAPSHOT:
			return snapshot_bytes(h, len);
		case AU_RAFT_VOTE:
			return len == 32 || len >= 40 ? 0 : SIZE_MAX;
		case AU_RAFT_VOTE_RESULT:
			return len == 16 || len >= 24 ? 0 : SIZE_MAX;
		default:				/* APPEND_RESULT, TIMEOUT_NOW */
			return len >= 24 ? 0 : SIZE_MAX;
	}
}

AuStatus
au_raft_frame_check(const uint8_t *b, size_t len, AuRaftFrame *out, size_t *used)
{
	uint64_t	type;
	uint64_t	header;
	size_t		payload;

	*used = PREAMBLE;
	if (len < PREAMBLE)
		return AU_NEED_MORE;
	type = au_get_u64(b);
	header = au_get_u64(b + 8);
	if (type < AU_RAFT_APPEND || type > AU_RAFT_TIMEOUT_NOW || header < 8 || header % 8 != 0 ||
		header > AU_RAFT_MESSAGE_MAX)
		return AU_CORRUPT;
	*used = PREAMBLE + (size_t) header;
	if (len < *used)
		return AU_NEED_MORE;
	payload = payload_bytes(type, b + PREAMBLE, (size_t) header);
	if (payload == SIZE_MAX)
		return AU_CORRUPT;
	*used += payload;
	if (len < *used)
		return AU_NEED_MORE;
	if (type == AU_RAFT_APPEND && !entries_good(b + PREAMBLE, b + PREAMBLE + header))
		return AU_CORRUPT;
	*out = (AuRaftFrame)
	{
		.type = (uint16_t) type,.term = au_get_u64(b + PREAMBLE)
	};
	return AU_OK;
}
