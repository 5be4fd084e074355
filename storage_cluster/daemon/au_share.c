/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_share.c: see au_share.h.
 */
#include "daemon/au_share.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/au_base.h"

typedef struct Mapped
{
	uint8_t    *base;
	size_t		len;
} Mapped;

void *
au_share_open(long pid, uint32_t fd, uint32_t pages)
{
	Mapped	   *m = malloc(sizeof(*m));
	char		path[64];
	struct stat st;
	int			here;
	int			seals;

	if (m == NULL)
		return NULL;
	snprintf(path, sizeof(path), "/proc/%ld/fd/%u", pid, fd);
	here = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	m->len = (size_t) pages * AU_PAGE_SIZE;
	m->base = MAP_FAILED;
	if (here >= 0)
	{
		/* fails for what is no memfd; all of it there: no write can fail for lack of
		 * memory, which would be SIGBUS */
		seals = fcntl(here, F_GET_SEALS);
		if (seals >= 0 && (seals & F_SEAL_SHRINK) != 0 && fstat(here, &st) == 0 &&
			st.st_size >= 0 && (uint64_t) st.st_size >= m->len &&
			(uint64_t) st.st_blocks * 512 >= m->len)
			m->base = mmap(NULL, m->len, PROT_READ | PROT_WRITE, MAP_SHARED, here, 0);
		close(here);
	}
	if (m->base != MAP_FAILED)
		return m;
	free(m);
	return NULL;
}

void
au_share_close(void *share)
{
	Mapped	   *m = share;

	munmap(m->base, m->len);
	free(m);
}

uint8_t *
au_share_page(void *share, uint32_t page)
{
	return ((Mapped *) share)->base + (size_t) page * AU_PAGE_SIZE;
}
