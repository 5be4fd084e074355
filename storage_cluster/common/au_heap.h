/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_heap.h: the C library's allocator in the form in which a host gives one to
 * parts that call none themselves.  ctx is not looked at; alloc returns NULL
 * when out of memory.  Any thread.
 */
#ifndef AU_HEAP_H
#define AU_HEAP_H

#include <stdlib.h>

static inline void *
au_heap_alloc(void *ctx, size_t size)
{
	(void) ctx;
	return malloc(size);
}

static inline void
au_heap_release(void *ctx, void *p)
{
	(void) ctx;
	free(p);
}

#endif							/* AU_HEAP_H */
