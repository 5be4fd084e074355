/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_grant.c: leave to throw a damaged page store away, in a cluster.
 *
 *   damage ──MENDING on──▶ granted ──▶ the new store takes the old one's place
 *      ▲          │ refused              │ slices come, log is applied
 *      └── later ─┘                      ▼
 *          the old store is removed ◀── MENDING off ◀── all that it owns is in files
 *
 * Invariants:
 *  1. The store is exchanged only with a grant that this process was given, and
 *     has not given back: a view may be old.
 *  2. It is given back only when all slices that the view has this node own are
 *     in files; what a grant still stands for after a start, too.
 *  3. Until then the store that was replaced is kept aside.
 */
#include "core/au_node_int.h"

#include <inttypes.h>
#include <stdio.h>

#include "core/au_plant.h"

#define LOOK_US ((uint64_t) 1000000)
#define AGAIN_US ((uint64_t) 5 * 1000000)	/* after a refusal */

bool
au_gr_mends(const AuVolume *v, uint32_t number)
{
	const AuView *view = v->node->view;

	return view != NULL && au_view_mends(view, number, v->meta.system_identifier);
}

/* Nothing is done, and that is known. */
static void
wait_because(AuVolume *v, const char *why)
{
	AuMend	   *m = &v->mend;
	char		text[sizeof(m->waits)];

	snprintf(text, sizeof(text), "the page store is %s, and is kept as it is until it may be made anew: %.290s",
			 m->behind ? "left behind" : "damaged", why);
	if (strcmp(text, m->waits) == 0)
		return;
	memcpy(m->waits, text, sizeof(text));
	au_n_log(v->node, AU_LOG_ERROR, "volume %" PRIu64 ": %s", v->meta.system_identifier, m->waits);
}

static bool
tell(AuVolume *v, bool on)
{
	AuNode	   *n = v->node;

	v->mend.telling = n->host.mending(n->host.ctx, v->handle, on, n->view->epoch);
	return v->mend.telling;
}

bool
au_gr_granted(AuVolume *v, uint64_t now)
{
	AuMend	   *m = &v->mend;

	if (!v->node->in_cluster || m->granted)
		return true;
	if (m->telling || now < m->tell_at)
		return false;
	m->tell_at = now + AGAIN_US;
	if (au_o_number(v->node) == 0 || !tell(v, true))
		wait_because(v, "the cluster cannot be asked now");
	return false;
}

void
au_node_mending_told(AuNode *n, void *handle, bool on, AuStatus status, const char *why)
{
	AuVolume   *v = au_n_volume_of(n, handle);
	AuMend	   *m;

	if (v == NULL || n->dead)
		return;
	m = &v->mend;
	m->telling = false;
	m->tell_at = n->host.now_us(n->host.ctx) + (status == AU_OK ? LOOK_US : AGAIN_US);
	if (!on)
		return;					/* the view tells */
	m->granted = status == AU_OK;
	if (status != AU_OK)
		wait_because(v, why);
	else
		m->waits[0] = '\0';
}

/* Everything that the view has this node own is in files. */
static bool
whole(const AuVolume *v)
{
	const AuNodeHost *h = &v->node->host;
	uint32_t	self = au_o_number(v->node);
	AuSlicesState state;
	AuSliceSet	owned,
				incoming;

	if (!v->node->in_cluster)
		return true;
	if (self == 0)
		return false;			/* it is not known what is to be here */
	h->store_slices(h->ctx, v->handle, &state);
	au_view_owned(v->node->view, self, &owned, &incoming);
	owned = au_slices_without(&owned, &state.lasting);
	return !au_slices_any(&owned) || AU_PLANTED(AU_PLANT_WHOLE_EARLY);
}

uint64_t
au_gr_tend(AuVolume *v, uint64_t now)
{
	AuNode	   *n = v->node;
	AuMend	   *m = &v->mend;
	bool		mends = au_gr_mends(v, au_o_number(n));

	if (n->host.mend_begin == NULL || (m->clean && !mends))
		return UINT64_MAX;
	if (v->store_closed || v->store_state == AU_STORE_STALLED)
		return LOOK_US;
	if (!whole(v))
	{
		if (mends && m->why[0] == '\0')
			snprintf(m->why, sizeof(m->why), "its page store was made anew, and slices are still missing");
		return LOOK_US;
	}
	if (mends)
	{
		if (!m->telling && now >= m->tell_at)
		{
			m->granted = false;
			m->tell_at = now + AGAIN_US;
			(void) tell(v, false);
		}
		return LOOK_US;
	}
	m->granted = false;
	m->clean = true;
	if (m->why[0] != '\0')
		au_n_log(n, AU_LOG_INFO, "volume %" PRIu64 ": the page store is whole again",
				 v->meta.system_identifier);
	m->why[0] = '\0';
	n->host.mend_whole(n->host.ctx, v->handle);
	return UINT64_MAX;
}
