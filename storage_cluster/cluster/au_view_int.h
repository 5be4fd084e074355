/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_view_int.h: what the files of the view share: au_view.c (nodes and
 * slices), au_view_group.c (log groups), au_view_mend.c (pages made anew),
 * au_view_valid.c, au_view_codec.c.
 */
#ifndef AU_VIEW_INT_H
#define AU_VIEW_INT_H

#include "cluster/au_view.h"

/* Index in v->nodes, v->volumes; -1: none such. */
int			au_view_index(const AuView *v, uint32_t number);
int			au_view_volume_index(const AuView *v, uint64_t system_identifier);
bool		au_view_group_has(const AuViewVolume *vol, uint32_t number);

/* err says why and what to do. */
AuStatus	au_view_refuse(AuStatus status, char *err, size_t errlen, const char *fmt,...)
	__attribute__((format(printf, 4, 5)));

/* MENDING; the slices that a node that is whole again, or not, is a target of
 * are ready, or not.  au_view_finish_move: see au_view.c. */
AuStatus	au_view_mending(AuView *v, const AuViewCommand *c, bool *changed,
							char *err, size_t errlen);
bool		au_view_is_owner(const AuSlice *s, uint32_t number);
bool		au_view_finish_move(AuView *v, AuSlice *s);
void		au_view_promote_joined(AuView *v);
AuStatus	au_view_no_such_node(const AuView *v, uint32_t number, char *err, size_t errlen);

/* Commands about volumes and their groups. */
AuStatus	au_view_volume_add(AuView *v, const AuViewCommand *c, bool *changed,
							   char *err, size_t errlen);
AuStatus	au_view_group_replace(AuView *v, const AuViewCommand *c, bool *changed,
								  char *err, size_t errlen);
AuStatus	au_view_group_settled(AuView *v, const AuViewCommand *c, bool *changed,
								  char *err, size_t errlen);
/* Begin to replace members that drain, in groups that may change now. */
bool		au_view_groups_tend(AuView *v);

#endif							/* AU_VIEW_INT_H */
