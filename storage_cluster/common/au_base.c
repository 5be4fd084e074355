/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_base.c: names of the status codes; addresses taken apart.
 *
 * Invariant: every AuStatus has a name, and any other number has one too, so
 * that a status read from a peer may be printed without looking at it first.
 */
#include "common/au_base.h"

const char *
au_status_name(AuStatus status)
{
	/* No default: the compiler then tells when a status has no name. */
	switch (status)
	{
		case AU_OK:
			return "ok";
		case AU_NEED_MORE:
			return "need more";
		case AU_NOT_FOUND:
			return "not found";
		case AU_CORRUPT:
			return "corrupt";
		case AU_INVALID:
			return "invalid";
		case AU_UNSUPPORTED:
			return "unsupported";
		case AU_FENCED:
			return "fenced";
		case AU_REFUSED:
			return "refused";
		case AU_FULL:
			return "full";
		case AU_IO:
			return "i/o error";
		case AU_GONE:
			return "gone";
		case AU_NOMEM:
			return "out of memory";
		case AU_LOST:
			return "lost";
		case AU_MOVED:
			return "moved";
	}
	return "unknown status";
}

/* Whoever takes more than 65535 for a port listens, or connects, elsewhere: the
 * system's structures have 16 bits for it. */
static bool
is_port(const char *text)
{
	uint32_t	number = 0;
	size_t		len = strlen(text);

	if (len == 0 || len > 5)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		if (text[i] < '0' || text[i] > '9')
			return false;
		number = number * 10 + (uint32_t) (text[i] - '0');
	}
	return number >= 1 && number <= 65535;
}

bool
au_split_address(const char *address, char *host, size_t hostlen, const char **port)
{
	const char *colon = strrchr(address, ':');
	size_t		len = colon != NULL ? (size_t) (colon - address) : 0;

	if (colon == NULL || !is_port(colon + 1))
		return false;
	*port = colon + 1;
	if (len >= 2 && address[0] == '[' && address[len - 1] == ']')
	{
		address++;
		len -= 2;
	}
	if (len >= hostlen)
		return false;
	memcpy(host, address, len);
	host[len] = '\0';
	return true;
}
