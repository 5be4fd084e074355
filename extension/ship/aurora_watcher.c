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
 *	  UNKNOWN ──a node has a view──────────────────────▶ VIEW (for ever)
 *	     │                                                 ▲
 *	     └──nobody has one, see find_out──▶ NONE ──a view──┘
 *	                                             with our volume
 *
 * Invariants:
 *  1. The map's view is that of one cluster, and never goes back to an older epoch,
 *     nor to none, whatever a node says that was put in another one's place: not
 *     even when this process is started again, for the map tells it what it was.
 *  2. A volume that was made by nodes without a cluster stays with them: only a
 *     server whose volume was never made registers one.
 *  3. Nodes that have not joined their cluster yet are waited for: a volume is made
 *     outside of one only when all nodes of the list say that they are in none,
 *     and is registered in one when all of them are in its view: a log group is
 *     made of the nodes that there are then.  Those that do not come in
 *     GATHER_MS are not waited for.
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
#include "client/aurora_conn.h"
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
#define GATHER_MS 10000
/* The same message once in so long, if not too many others come between. */
#define LOG_INTERVAL_MS 60000
#define COMPLAINTS 8
/* As many nodes as should keep a log. */
#define LOG_NODES 3

typedef struct Watcher
{
	AuView		view;			/* epoch 0: none yet */
	AuroraNodeMap map;			/* as published last */
	int			asked;			/* place of the node asked last */
	uint64		who;			/* node id of who answered last; 0: not known */
	char		why[AU_WIRE_TEXT_MAX];	/* the last answer was none */
	bool		warned;			/* that our volume is not the cluster's */
	uint32		warned_group;	/* epoch of a group that is small */
	int64		gathering;		/* nodes of the list are waited for since; 0: not */
	struct
	{
		char		text[512];
		TimestampTz at;
	}			complaints[COMPLAINTS]; /* made of late */
	int			ncomplaints;
} Watcher;

static void
watcher_exit(int code, Datum arg)
{
	aurora_nodes_watch(false);
}

static void
complain(Watcher *w, const char *what, const char *why)
{
	char		text[sizeof(w->complaints[0].text)];
	TimestampTz now = GetCurrentTimestamp();
	int			i;

	snprintf(text, sizeof(text), "%s: %s", what, why);
	if (w->map.state == AURORA_CLUSTER_UNKNOWN)
		aurora_nodes_say(text);	/* nothing is shipped before that is mended */
	for (i = 0; i < COMPLAINTS; i++)
		if (strcmp(text, w->complaints[i].text) == 0)
			break;
	if (i == COMPLAINTS)
		i = w->ncomplaints++ % COMPLAINTS;
	else if (!TimestampDifferenceExceeds(w->complaints[i].at, now, LOG_INTERVAL_MS))
		return;
	strlcpy(w->complaints[i].text, text, sizeof(text));
	w->complaints[i].at = now;
	ereport(LOG, (errmsg("%s", text)));
}

static void
complain_of_node(Watcher *w, int place, const char *why)
{
	char		what[AU_ADDRESS_MAX + 32];

	snprintf(what, sizeof(what), "storage node \"%s\"", aurora_node_address(place));
	complain(w, what, why);
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
	m->cluster_id = w->view.cluster_id;
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
	if (m->group.n < Min(LOG_NODES, w->view.nnodes) && w->warned_group != m->group.epoch)
		ereport(WARNING,
				(errmsg("only %u of the storage cluster's %d nodes keep this server's log",
						m->group.n, w->view.nnodes),
				 errhint("auroractl group add " UINT64_FORMAT " NODE adds one.",
						 GetSystemIdentifier())));
	w->warned_group = m->group.n < Min(LOG_NODES, w->view.nnodes) ? m->group.epoch : 0;
}

/* They are nodes each for itself, or nothing to us. */
static void
publish_none(Watcher *w)
{
	if (w->map.state == AURORA_CLUSTER_NONE)
		return;
	Assert(w->map.state == AURORA_CLUSTER_UNKNOWN);
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

/* What we know is of this cluster; 0: of none yet. */
static uint64
our_cluster(const Watcher *w)
{
	return w->view.epoch != 0 ? w->view.cluster_id :
		w->map.state == AURORA_CLUSTER_VIEW ? w->map.cluster_id : 0;
}

/* May this view take the place of what is known? */
static bool
follows(Watcher *w, int place, const AuView *got)
{
	uint64		ours = our_cluster(w);

	if (ours != 0 && got->cluster_id != ours)
	{
		complain_of_node(w, place, "is of another cluster now, and no longer asked what this one is like");
		return false;
	}
	return got->epoch > w->view.epoch && got->epoch >= w->map.epoch;
}

/* Ask a node; a newer view is in w->view then, and who it was in w->who. */
static AuroraViewAnswer
ask_node(Watcher *w, int place, bool *newer)
{
	AuView	   *got = palloc(sizeof(AuView));
	AuroraViewAnswer answer = aurora_client_get_view(place, w->view.epoch, got, ANSWER_MS,
													 &w->who, w->why, sizeof(w->why));

	*newer = answer == AURORA_VIEW_NEW && follows(w, place, got);
	if (*newer)
		w->view = *got;
	else if (answer == AURORA_VIEW_NEW)
		answer = AURORA_VIEW_NO_ANSWER;
	if (answer == AURORA_VIEW_NONE && our_cluster(w) != 0)
		complain_of_node(w, place, "says that it is in no cluster; another node may have got its address");
	if (answer == AURORA_VIEW_REFUSED)
		complain_of_node(w, place, w->why);
	pfree(got);
	return answer;
}

/* Ask one node more than last time. */
static AuroraViewAnswer
ask_next(Watcher *w, bool *newer)
{
	do
		w->asked = (w->asked + 1) % aurora_nodes_count();
	while (!aurora_node_used(w->asked));
	return ask_node(w, w->asked, newer);
}

/*
 * Nothing is known: ask all nodes of the list.  One view settles it.  That there
 * is none is true when all say so, which a server needs anyhow whose volume is
 * still to be made.  For a volume that exists more than half will do, and
 * without a node that has yet to join even one: a wrong guess is found out by
 * the nodes, which know the volume's group.  false: not known yet.
 */
static bool
find_out(Watcher *w)
{
	int			all = aurora_nodes_count();
	int			none = 0;
	int			unsure = 0;
	char		why[512] = "";

	for (int i = 0; i < all && w->view.epoch == 0; i++)
	{
		bool		newer;
		AuroraViewAnswer answer = ask_node(w, i, &newer);

		none += answer == AURORA_VIEW_NONE;
		unsure += answer == AURORA_VIEW_REFUSED;
		if (answer == AURORA_VIEW_REFUSED ||
			(answer == AURORA_VIEW_NO_ANSWER && unsure == 0))
			snprintf(why, sizeof(why), "storage node \"%s\": %s", aurora_node_address(i), w->why);
	}
	aurora_nodes_say(why);
	if (w->view.epoch != 0)
		return true;
	if (none < all &&
		!(aurora_ship_marker_exists() && (none > all / 2 || (none > 0 && unsure == 0))))
		return false;
	publish_none(w);
	return true;
}

/*
 * Before this server is registered: are all nodes of the list in the view?  Some
 * may be about to join; the log group is made of those that are there.
 */
static bool
gathered(Watcher *w)
{
	bool		all = true;

	if (w->gathering == 0)
		w->gathering = aurora_now_ms();
	for (int i = 0; i < aurora_nodes_count() && all; i++)
	{
		bool		newer;

		(void) ask_node(w, i, &newer);
		all = w->who != 0 && au_view_node_by_id(&w->view, w->who) != NULL;
		if (!all)
			complain_of_node(w, i, "is not in its cluster's view yet; waiting for it before this server's log group is made");
	}
	return all || aurora_now_ms() - w->gathering >= GATHER_MS;
}

/* The nodes are in no cluster, as far as we know. */
static long
pause_without(void)
{
	AuroraShipStatus st;

	aurora_ship_status(&st);
	return st.state == AURORA_SHIP_STREAMING ? LOOK_RARELY_MS : LOOK_MS;
}

/* Returns how long to sleep, ms. */
static long
look(Watcher *w)
{
	const AuViewVolume *vol;
	bool		newer = false;
	AuroraViewAnswer answer = AURORA_VIEW_NEW;

	if (w->map.state == AURORA_CLUSTER_UNKNOWN && w->view.epoch == 0)
		newer = find_out(w);
	else
		answer = ask_next(w, &newer);
	if (w->view.epoch == 0)
		return w->map.state == AURORA_CLUSTER_NONE ? pause_without() : LOOK_SOON_MS;
	vol = au_view_volume(&w->view, GetSystemIdentifier());
	if (vol == NULL && w->map.state == AURORA_CLUSTER_VIEW)
	{
		complain(w, "the storage cluster's view", "this server is not in it any more, which cannot be; going by what it said before");
		return LOOK_MS;
	}
	if (vol == NULL && aurora_ship_marker_exists())
	{
		if (!w->warned)
			ereport(WARNING,
					(errmsg("this server's volume does not belong to the storage cluster that aurora.storage_nodes names"),
					 errdetail("It was made elsewhere, or by these nodes before they joined the cluster; then those that are listed go on keeping it, and no others."),
					 errhint("If it was made elsewhere, set aurora.storage_nodes to what it was then (empty: the server's own node). To have the cluster keep it, dump the aurora tables and load them into a new server.")));
		w->warned = true;
		publish_none(w);
		return pause_without();
	}
	if (vol == NULL)
	{
		if (!RecoveryInProgress() && gathered(w))
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
