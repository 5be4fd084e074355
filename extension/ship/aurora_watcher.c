/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_watcher.c: the background worker that knows where things are: it asks
 * the nodes of aurora.storage_nodes whether they belong to a cluster, and if so
 * keeps the map of nodes (client/aurora_nodes.h) as the cluster's view says.
 *
 *	  node ◀──GET_VIEW, CLUSTER── watcher ──map──▶ shared memory ──▶ backends
 *	                                 ▲                           └──▶ shipper
 *	                                 └── "group e is settled", "moved" ──┘
 *
 * It also speaks for this server in the cluster: registers its volume, and says
 * when the log group is settled.  It may wait for a node that does not answer;
 * nobody waits for it.
 *
 * Invariants:
 *  1. The map's view never goes back to an older epoch.
 *  2. A volume that was made by nodes without a cluster stays with them: only a
 *     server whose volume was never made registers one.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "client/aurora_client.h"
#include "client/aurora_nodes.h"
#include "module/aurora_guc.h"
#include "ship/aurora_ship.h"
#include "ship/aurora_ship_state.h"

/* How often a view is asked for; while something is not known yet; by a server
 * whose nodes are in no cluster. */
#define LOOK_MS 1000
#define LOOK_SOON_MS 100
#define LOOK_RARELY_MS 30000
#define ANSWER_MS 2000
/* One message of a kind in so long. */
#define LOG_INTERVAL_MS 60000

typedef struct Watcher
{
	AuView		view;			/* epoch 0: none yet */
	AuroraNodeMap map;			/* as published last */
	int			asked;			/* place of the node asked last */
	char		last_error[512];
	TimestampTz last_logged;
} Watcher;

static void
watcher_exit(int code, Datum arg)
{
	aurora_nodes_watch(false);
}

static void
complain(Watcher *w, const char *what, const char *why)
{
	char		text[sizeof(w->last_error)];
	TimestampTz now = GetCurrentTimestamp();

	snprintf(text, sizeof(text), "%s: %s", what, why);
	if (strcmp(text, w->last_error) == 0 &&
		!TimestampDifferenceExceeds(w->last_logged, now, LOG_INTERVAL_MS))
		return;
	strlcpy(w->last_error, text, sizeof(w->last_error));
	w->last_logged = now;
	ereport(LOG, (errmsg("%s", text)));
}

/* ---- from the view to the map ---- */

/* A node keeps its place; new ones take what is empty. */
static void
place_nodes(AuroraNodeMap *m, const AuView *v)
{
	bool		placed[AU_VIEW_NODES_MAX] = {false};

	for (int i = 0; i < AURORA_NODES_MAX; i++)
	{
		const AuViewNode *n = m->place[i].used && m->place[i].number != 0 ?
			au_view_node(v, m->place[i].number) : NULL;

		if (n != NULL)
			placed[n - v->nodes] = true;
		else
			memset(&m->place[i], 0, sizeof(m->place[i]));
	}
	for (int k = 0; k < v->nnodes; k++)
		for (int i = 0; i < AURORA_NODES_MAX && !placed[k]; i++)
			if (!m->place[i].used)
			{
				m->place[i].used = placed[k] = true;
				m->place[i].number = v->nodes[k].number;
			}
	m->count = 0;
	for (int i = 0; i < AURORA_NODES_MAX; i++)
	{
		const AuViewNode *n;

		if (!m->place[i].used)
			continue;
		n = au_view_node(v, m->place[i].number);
		m->place[i].node_id = n->node_id;
		m->place[i].up = n->up;
		strlcpy(m->place[i].address, n->address, AU_ADDRESS_MAX);
		m->count = i + 1;
	}
}

static void
place_slices(AuroraNodeMap *m, const AuView *v)
{
	for (int s = 0; s < AU_SLICES; s++)
	{
		m->owners[s] = 0;
		for (int k = 0; k < v->slices[s].nowners; k++)
			for (int i = 0; i < m->count; i++)
				if (m->place[i].used && m->place[i].number == v->slices[s].owner[k])
					m->owners[s] |= UINT64CONST(1) << i;
	}
}

/* Our volume is in the view. */
static void
publish(Watcher *w, const AuViewVolume *vol)
{
	AuroraNodeMap *m = &w->map;
	bool		first = m->state != AURORA_CLUSTER_VIEW;

	m->state = AURORA_CLUSTER_VIEW;
	m->epoch = w->view.epoch;
	place_nodes(m, &w->view);
	place_slices(m, &w->view);
	au_view_group(&w->view, vol, &m->group);
	m->settled = vol->settled != 0;
	aurora_nodes_publish(m);
	if (first)
		ereport(LOG,
				(errmsg("storage is a cluster of %d nodes, %u of them keep this server's log",
						w->view.nnodes, m->group.n)));
}

/* They are nodes each for itself, or nothing to us. */
static void
publish_none(Watcher *w)
{
	if (w->map.state == AURORA_CLUSTER_NONE)
		return;
	w->map.state = AURORA_CLUSTER_NONE;
	aurora_nodes_publish(&w->map);
}

/* ---- what this server has to say ---- */

static bool
command(Watcher *w, const AuViewCommand *c, const char *what)
{
	char		err[AU_WIRE_TEXT_MAX];

	if (aurora_client_command(c, ANSWER_MS, err, sizeof(err)))
		return true;
	complain(w, what, err);
	return false;
}

static void
register_volume(Watcher *w)
{
	AuViewCommand c = {
		.type = AU_VIEW_VOLUME_ADD,.system_identifier = GetSystemIdentifier(),
		.write_quorum = (uint8) aurora_write_quorum
	};

	if (command(w, &c, "could not register this server in the storage cluster"))
		ereport(LOG,
				(errmsg("this server is registered in the storage cluster")));
}

static void
settle(Watcher *w)
{
	AuViewCommand c = {
		.type = AU_VIEW_GROUP_SETTLED,.system_identifier = GetSystemIdentifier(),
		.group_epoch = w->map.group.epoch
	};

	(void) command(w, &c, "could not tell the storage cluster that the log group is settled");
}

/* ---- turns ---- */

/* Ask one node more than last time; what it says is in w->view. */
static AuroraViewAnswer
ask_next(Watcher *w, bool *newer)
{
	AuView	   *got = palloc(sizeof(AuView));
	AuroraViewAnswer answer;

	do
		w->asked = (w->asked + 1) % aurora_nodes_count();
	while (!aurora_node_used(w->asked));
	answer = aurora_client_get_view(w->asked, w->view.epoch, got, ANSWER_MS);
	*newer = answer == AURORA_VIEW_NEW && got->epoch > w->view.epoch;
	if (*newer)
		w->view = *got;
	return answer;
}

/* Returns how long to sleep, ms. */
static long
look(Watcher *w)
{
	const AuViewVolume *vol;
	bool		newer;
	AuroraViewAnswer answer = ask_next(w, &newer);

	if (answer == AURORA_VIEW_NONE && w->view.epoch == 0)
	{
		publish_none(w);
		return LOOK_RARELY_MS;
	}
	if (w->view.epoch == 0)
		return LOOK_SOON_MS;
	vol = au_view_volume(&w->view, GetSystemIdentifier());
	if (vol == NULL && aurora_ship_marker_exists())
	{
		publish_none(w);
		return LOOK_RARELY_MS;
	}
	if (vol == NULL)
	{
		if (!RecoveryInProgress())
			register_volume(w);
		return LOOK_SOON_MS;
	}
	if (newer || w->map.state != AURORA_CLUSTER_VIEW)
		publish(w, vol);
	(void) aurora_nodes_look();
	if (!w->map.settled && aurora_nodes_settled() == w->map.group.epoch)
	{
		settle(w);
		return LOOK_SOON_MS;
	}
	/* A node that does not answer may be the one that does not know. */
	return answer == AURORA_VIEW_NO_ANSWER ? LOOK_SOON_MS : LOOK_MS;
}

void
aurora_watcher_main(Datum arg)
{
	Watcher    *w;
	MemoryContext cxt;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	before_shmem_exit(watcher_exit, (Datum) 0);
	BackgroundWorkerUnblockSignals();
	aurora_nodes_watch(true);
	aurora_client_administers();
	w = MemoryContextAllocZero(TopMemoryContext, sizeof(Watcher));
	w->asked = -1;
	w->map = *aurora_nodes_map();
	cxt = AllocSetContextCreate(TopMemoryContext, "aurora watcher", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		long		ms;

		MemoryContextSwitchTo(cxt);
		ms = look(w);
		MemoryContextReset(cxt);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
}
