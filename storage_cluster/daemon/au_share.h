/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_share.h: memory of a client's process, mapped here, into which its pages
 * are put.
 *
 * The client may write there at any time, so nothing is ever read from it.  It
 * cannot take the memory away: it is refused unless sealed against shrinking.  And
 * it has allocated all of it: a node must not be killed, or charged, because a
 * client's memory has run out.
 * Any thread may write; open and close are the loop thread's.
 */
#ifndef AU_SHARE_H
#define AU_SHARE_H

#include <stdint.h>

/* The first pages * AU_PAGE_SIZE bytes of a memfd that the process knows as
 * fd.  NULL: it is not such a thing, or not to be had. */
void	   *au_share_open(long pid, uint32_t fd, uint32_t pages);
void		au_share_close(void *share);
uint8_t    *au_share_page(void *share, uint32_t page);

#endif							/* AU_SHARE_H */
