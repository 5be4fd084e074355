/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_share.c: see aurora_share.h.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/aurora_share.h"
#include "utils/memutils.h"

#define SHARE_BYTES ((size_t) AURORA_SHARE_SLOTS * AURORA_SHARE_SLOT_PAGES * BLCKSZ)

#define ALLOCATE_TRIES 10

struct AuroraShare
{
	uint8	   *base;
	int			users;
	uint64		request[AURORA_SHARE_SLOTS];	/* 0: free */
};

/*
 * All of it is allocated here, by us: a page that the node were the first to write
 * could not be had at that moment, which would end the node (SIGBUS), or count as its
 * memory.  A signal may come in between.
 */
static bool
allocate(int fd)
{
	int			rc = EINTR;

	if (ftruncate(fd, SHARE_BYTES) != 0)
		return false;
	for (int i = 0; i < ALLOCATE_TRIES && rc == EINTR; i++)
		rc = posix_fallocate(fd, 0, SHARE_BYTES);
	return rc == 0;
}

AuroraShare *
aurora_share_new(int *fd)
{
	AuroraShare *share;
	void	   *base = MAP_FAILED;

	*fd = memfd_create("aurora pages", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd < 0)
		return NULL;
	if (allocate(*fd) &&
		fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
		base = mmap(NULL, SHARE_BYTES, PROT_READ, MAP_SHARED, *fd, 0);
	share = base == MAP_FAILED ? NULL :
		MemoryContextAllocExtended(TopMemoryContext, sizeof(AuroraShare),
								   MCXT_ALLOC_ZERO | MCXT_ALLOC_NO_OOM);
	if (share == NULL)
	{
		if (base != MAP_FAILED)
			munmap(base, SHARE_BYTES);
		close(*fd);
		return NULL;
	}
	share->base = base;
	share->users = 1;
	return share;
}

void
aurora_share_use(AuroraShare *share)
{
	share->users++;
}

void
aurora_share_leave(AuroraShare *share)
{
	if (share == NULL || --share->users > 0)
		return;
	munmap(share->base, SHARE_BYTES);
	pfree(share);
}

int
aurora_share_take(AuroraShare *share, uint64 id)
{
	for (int i = 0; i < AURORA_SHARE_SLOTS; i++)
		if (share->request[i] == 0)
		{
			share->request[i] = id;
			return i;
		}
	return -1;
}

void
aurora_share_done(AuroraShare *share, uint64 id)
{
	for (int i = 0; i < AURORA_SHARE_SLOTS; i++)
		if (share->request[i] == id)
			share->request[i] = 0;
}

uint8 *
aurora_share_memory(AuroraShare *share, int slot)
{
	return share->base + (size_t) slot * AURORA_SHARE_SLOT_PAGES * BLCKSZ;
}
