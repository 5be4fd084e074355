/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagedirs.h: the directories of a volume's page stores, and how one that
 * was made anew takes the place of the other.
 *
 *   pages, pages.new ──rename──▶ pages.damaged, pages.new ──rename──▶
 *   pages.damaged, pages ──new one is whole──▶ pages
 *
 * Only a complete one gets that far; what a crash stops is found by where
 * things are.  pages.damaged stays until the core says that the new one has all
 * its slices; if damage comes again before that, it is the later store that
 * goes, as pages.dropped.
 *
 * All stores are closed, except where it says otherwise.
 */
#ifndef AU_PAGEDIRS_H
#define AU_PAGEDIRS_H

#include <stdbool.h>
#include <stddef.h>

#define AU_PAGEDIR_CAP 4500

typedef struct AuPageDirs
{
	char		pages[AU_PAGEDIR_CAP];
	char		anew[AU_PAGEDIR_CAP];
	char		damaged[AU_PAGEDIR_CAP];
	char		dropped[AU_PAGEDIR_CAP];
} AuPageDirs;

/* Their names, whatever is open or there. */
void		au_pagedirs(const char *volume_dir, AuPageDirs *p);

/* pages.new takes the place of pages; durable when it returns.  Not there: it
 * has done so before.  After a failure: again, or at the next start. */
bool		au_pagedirs_switch(const AuPageDirs *p, char *err, size_t errlen);

#endif							/* AU_PAGEDIRS_H */
