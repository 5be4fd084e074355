/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_pagedirs.c: see au_pagedirs.h.
 */
#include "daemon/au_pagedirs.h"

#include <stdio.h>

#include "daemon/au_files.h"

void
au_pagedirs(const char *volume_dir, AuPageDirs *p)
{
	snprintf(p->pages, sizeof(p->pages), "%s/pages", volume_dir);
	snprintf(p->anew, sizeof(p->anew), "%s/pages.new", volume_dir);
	snprintf(p->damaged, sizeof(p->damaged), "%s/pages.damaged", volume_dir);
	snprintf(p->dropped, sizeof(p->dropped), "%s/pages.dropped", volume_dir);
}

bool
au_pagedirs_switch(const AuPageDirs *p, char *err, size_t errlen)
{
	bool		again = au_is_there(p->damaged);

	/* an earlier call may have failed between the rename and the sync */
	if (!au_is_there(p->anew) && au_is_there(p->pages))
		return au_sync_parent(p->pages, err, errlen);
	if (au_is_there(p->pages) &&
		((again && !au_remove_tree(p->dropped, err, errlen)) ||
		 !au_rename_durably(p->pages, again ? p->dropped : p->damaged, err, errlen)))
		return false;
	return au_rename_durably(p->anew, p->pages, err, errlen);
}
