/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_nodes.c: the map of storage nodes, what is known of each, and the
 * choice of one; see aurora_nodes.h.
 *
 * Latencies are averages that forget: a new one counts an eighth.  One that
 * was measured more than FORGET_MS ago is worth a new try.
 */
#include "postgres.h"

#include <netdb.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "client/aurora_client.h"
#include "client/aurora_conn.h"
#include "client/aurora_nodes.h"
#include "core/au_hist.h"
#include "module/aurora_guc.h"

/* One choice in so many is at random. */
#define EXPLORE_ONE_IN 16
#define FORGET_MS 30000
/* What a failure counts as. */
#define FAILED_US (1000 * 1000)
#define LATENCY_MAX_US (60 * 1000 * 1000)
/* Buckets of au_hist.h that LATENCY_MAX_US fits. */
#define HIST_BUCKETS (4 * 25)
#define HIST_WINDOW 8192
/* Fewer answers than that tell nothing. */
#define HIST_LEAST 200
#define HEDGE_MIN_MS 2
#define HEDGE_UNKNOWN_MS 50
#define HEDGE_MAX_MS 1000
/* Questions of a window that may be asked twice: 4 %, and some at its beginning. */
#define HEDGES_ONE_IN 25
#define HEDGES_FIRST 50
/* The bound is worked out anew after so long. */
#define HEDGE_FRESH_MS 200

typedef struct SharedNode
{
	slock_t		mutex;			/* protects said */
	AuroraNodeFigures said;		/* by the shipper */
	pg_atomic_uint32 shipping;	/* the same once more, for choosing */
	pg_atomic_uint64 reads;
	pg_atomic_uint64 errors;
	pg_atomic_uint64 hedges;
	pg_atomic_uint64 hedge_wins;
	pg_atomic_uint32 latency_us;
	pg_atomic_uint64 measured_ms;	/* aurora_now_ms() then */
} SharedNode;

static char addresses[AU_GROUP_MAX][AU_ADDRESS_MAX];
static int	count = 0;

/*
 * The map is written by one process only.  version is odd while it does; who
 * has copied it between two looks at the same even version has copied it whole.
 */
typedef struct SharedNodes
{
	pg_atomic_uint64 version;
	AuroraNodeMap map;
	pg_atomic_uint32 settled;	/* see aurora_nodes_set_settled */
	pg_atomic_uint32 watcher;	/* whose latch to set; or none */
	slock_t		mutex;			/* protects why */
	char		why[512];		/* see aurora_nodes_say */

	/* latencies of answers, of all nodes; halved when WINDOW have come */
	pg_atomic_uint32 hist[HIST_BUCKETS];
	pg_atomic_uint32 answers;
	pg_atomic_uint32 hedges;	/* since they were halved */
	SharedNode	node[AURORA_NODES_MAX];
} SharedNodes;

static SharedNodes *shared = NULL;
static AuroraNodeMap map;		/* our copy */
static uint64 map_version;		/* of it */

#define NO_PROC PG_UINT32_MAX
/* A writer that is in the way for longer is waited for at the next look. */
#define COPY_TRIES 1000

/* ---- the list ---- */

/*
 * A Unix socket's path has room for 107 bytes.  Below a data directory with a
 * longer name the embedded daemon's socket moves to /tmp, under a name made
 * of the data directory's hash and our user; who else might create it there
 * is kept out by the check of the peer's user.
 */
static const char *
embedded_socket(void)
{
	static char path[MAXPGPATH];
	struct sockaddr_un un;

	if (aurora_storage_socket[0] != '\0')
		return aurora_storage_socket;
	if (path[0] == '\0')
	{
		snprintf(path, sizeof(path), "%s/aurora/storaged.sock", DataDir);
		if (strlen(path) >= sizeof(un.sun_path))
			snprintf(path, sizeof(path),
					 "/tmp/.aurora-%u-" UINT64_FORMAT ".sock",
					 (unsigned) geteuid(),
					 hash_bytes_extended((const unsigned char *) DataDir,
										 strlen(DataDir), 0));
	}
	return path;
}

/* One element of the list, without the spaces around it. */
static const char *
add_node(const char *from, size_t len)
{
	char	   *address = addresses[count];
	char		host[NI_MAXHOST];
	const char *port;
	struct sockaddr_un un;

	while (len > 0 && isspace((unsigned char) *from))
		from++, len--;
	while (len > 0 && isspace((unsigned char) from[len - 1]))
		len--;
	if (count == AU_GROUP_MAX)
		return "At most 7 storage nodes can keep a server's log.";
	if (len >= AU_ADDRESS_MAX)
		return "An address can have 127 bytes at most.";
	memcpy(address, from, len);
	address[len] = '\0';
	if (address[0] == '/' ? len >= sizeof(un.sun_path) :
		!aurora_client_split_node(address, host, sizeof(host), &port))
		return "The form is host:port, or host:port,host:port,... for several nodes, with ports from 1 to 65535.";
	for (int i = 0; i < count; i++)
		if (strcmp(addresses[i], address) == 0)
			return "Name each node once.";
	count++;
	return NULL;
}

const char *
aurora_nodes_define(void)
{
	const char *p = aurora_storage_nodes;

	count = 0;
	while (*p != '\0')
	{
		size_t		len = strcspn(p, ",");
		const char *wrong = add_node(p, len);

		if (wrong != NULL)
			return wrong;
		p += len;
		if (*p == ',' && *++p == '\0')
			return "There is no node after the last comma.";
	}
	return NULL;
}

int
aurora_nodes_configured(void)
{
	return Max(count, 1);
}

int
aurora_nodes_quorum(void)
{
	return aurora_write_quorum != 0 ? aurora_write_quorum : aurora_nodes_configured() / 2 + 1;
}

/* ---- the map ---- */

Size
aurora_nodes_shmem_size(void)
{
	return MAXALIGN(sizeof(SharedNodes));
}

static void
reset_figures(SharedNode *n)
{
	AuroraNodeFigures none = {0};

	SpinLockAcquire(&n->mutex);
	n->said = none;
	SpinLockRelease(&n->mutex);
	pg_atomic_write_u32(&n->shipping, AURORA_NODE_UNKNOWN);
	pg_atomic_write_u64(&n->reads, 0);
	pg_atomic_write_u64(&n->errors, 0);
	pg_atomic_write_u64(&n->hedges, 0);
	pg_atomic_write_u64(&n->hedge_wins, 0);
	pg_atomic_write_u32(&n->latency_us, 0);
	pg_atomic_write_u64(&n->measured_ms, 0);
}

/* What the settings list; of an embedded daemon we know that it is alone. */
static void
configured_map(AuroraNodeMap *m)
{
	memset(m, 0, sizeof(*m));
	m->state = count == 0 ? AURORA_CLUSTER_NONE : AURORA_CLUSTER_UNKNOWN;
	m->count = aurora_nodes_configured();
	for (int i = 0; i < m->count; i++)
	{
		m->place[i].used = m->place[i].up = true;
		strlcpy(m->place[i].address, count == 0 ? embedded_socket() : addresses[i],
				AU_ADDRESS_MAX);
	}
}

/* Caller holds AddinShmemInitLock. */
void
aurora_nodes_shmem_init(void)
{
	bool		found;

	shared = ShmemInitStruct("aurora storage nodes", aurora_nodes_shmem_size(), &found);
	if (found)
		return;
	memset(shared, 0, sizeof(SharedNodes));
	pg_atomic_init_u64(&shared->version, 2);
	SpinLockInit(&shared->mutex);
	pg_atomic_init_u32(&shared->settled, 0);
	pg_atomic_init_u32(&shared->watcher, NO_PROC);
	pg_atomic_init_u32(&shared->answers, 0);
	pg_atomic_init_u32(&shared->hedges, 0);
	for (int i = 0; i < HIST_BUCKETS; i++)
		pg_atomic_init_u32(&shared->hist[i], 0);
	for (int i = 0; i < AURORA_NODES_MAX; i++)
	{
		SharedNode *n = &shared->node[i];

		SpinLockInit(&n->mutex);
		pg_atomic_init_u32(&n->shipping, 0);
		pg_atomic_init_u64(&n->reads, 0);
		pg_atomic_init_u64(&n->errors, 0);
		pg_atomic_init_u64(&n->hedges, 0);
		pg_atomic_init_u64(&n->hedge_wins, 0);
		pg_atomic_init_u32(&n->latency_us, 0);
		pg_atomic_init_u64(&n->measured_ms, 0);
	}
	configured_map(&shared->map);
}

bool
aurora_nodes_look(void)
{
	static AuroraNodeMap copy;
	uint64		version = pg_atomic_read_u64(&shared->version);

	if (version == map_version)
		return false;
	for (int i = 0; i < COPY_TRIES; i++)
	{
		version = pg_atomic_read_u64(&shared->version);
		pg_read_barrier();
		copy = shared->map;
		pg_read_barrier();
		if (version % 2 == 0 && pg_atomic_read_u64(&shared->version) == version)
		{
			map = copy;
			map_version = version;
			return true;
		}
		pg_spin_delay();
	}
	return false;
}

const AuroraNodeMap *
aurora_nodes_map(void)
{
	if (map_version == 0)
		(void) aurora_nodes_look();
	return &map;
}

void
aurora_nodes_publish(const AuroraNodeMap *m)
{
	for (int i = 0; i < AURORA_NODES_MAX; i++)
		if (shared->map.place[i].node_id != m->place[i].node_id)
			reset_figures(&shared->node[i]);
	pg_atomic_fetch_add_u64(&shared->version, 1);
	pg_write_barrier();
	shared->map = *m;
	pg_write_barrier();
	pg_atomic_fetch_add_u64(&shared->version, 1);
}

void
aurora_nodes_watch(bool on)
{
	pg_atomic_write_u32(&shared->watcher, on ? (uint32) MyProc->pgprocno : NO_PROC);
}

void
aurora_nodes_moved(void)
{
	uint32		procno = pg_atomic_read_u32(&shared->watcher);

	/* If it has ended since, whoever has its place now wakes once in vain. */
	if (procno != NO_PROC)
		SetLatch(&ProcGlobal->allProcs[procno].procLatch);
}

void
aurora_nodes_set_settled(uint32 epoch)
{
	if (pg_atomic_read_u32(&shared->settled) == epoch)
		return;
	pg_atomic_write_u32(&shared->settled, epoch);
	aurora_nodes_moved();
}

uint32
aurora_nodes_settled(void)
{
	return pg_atomic_read_u32(&shared->settled);
}

void
aurora_nodes_say(const char *why)
{
	SpinLockAcquire(&shared->mutex);
	strlcpy(shared->why, why, sizeof(shared->why));
	SpinLockRelease(&shared->mutex);
}

void
aurora_nodes_said(char *why, size_t len)
{
	SpinLockAcquire(&shared->mutex);
	strlcpy(why, shared->why, len);
	SpinLockRelease(&shared->mutex);
}

int
aurora_nodes_count(void)
{
	return aurora_nodes_map()->count;
}

bool
aurora_node_used(int node)
{
	return aurora_nodes_map()->place[node].used;
}

const char *
aurora_node_address(int node)
{
	Assert(node >= 0 && node < AURORA_NODES_MAX);
	return aurora_nodes_map()->place[node].address;
}

int
aurora_node_place(uint64 node_id)
{
	const AuroraNodeMap *m = aurora_nodes_map();

	for (int i = 0; i < m->count; i++)
		if (m->place[i].used && m->place[i].node_id == node_id)
			return i;
	return -1;
}

uint64
aurora_nodes_all(void)
{
	const AuroraNodeMap *m = aurora_nodes_map();
	uint64		all = 0;

	for (int i = 0; i < m->count; i++)
		if (m->place[i].used)
			all |= UINT64CONST(1) << i;
	return all;
}

uint64
aurora_nodes_alive(void)
{
	const AuroraNodeMap *m = aurora_nodes_map();
	uint64		alive = 0;

	for (int i = 0; i < m->count; i++)
		if (m->place[i].used && m->place[i].up &&
			pg_atomic_read_u32(&shared->node[i].shipping) != AURORA_NODE_DOWN)
			alive |= UINT64CONST(1) << i;
	return alive;
}

uint64
aurora_node_owners(const RelFileNode *rnode, BlockNumber blk)
{
	const AuroraNodeMap *m = aurora_nodes_map();
	AuRelId		rel = {rnode->spcNode, rnode->dbNode, rnode->relNode, 0};
	uint64		owners = 0;

	if (m->state == AURORA_CLUSTER_VIEW)
		owners = m->owners[au_slice_of(&rel, blk)];
	return owners != 0 ? owners : aurora_nodes_all();
}

/* ---- what is known ---- */

void
aurora_node_figures(int node, AuroraNodeFigures *out)
{
	SharedNode *n = &shared->node[node];

	SpinLockAcquire(&n->mutex);
	*out = n->said;
	SpinLockRelease(&n->mutex);
	out->reads = pg_atomic_read_u64(&n->reads);
	out->errors = pg_atomic_read_u64(&n->errors);
	out->hedges = pg_atomic_read_u64(&n->hedges);
	out->hedge_wins = pg_atomic_read_u64(&n->hedge_wins);
	out->latency_us = pg_atomic_read_u32(&n->latency_us);
}

void
aurora_node_report(int node, const AuroraNodeFigures *f)
{
	SharedNode *n = &shared->node[node];

	SpinLockAcquire(&n->mutex);
	n->said = *f;
	SpinLockRelease(&n->mutex);
	pg_atomic_write_u32(&n->shipping, f->shipping);
}

/* ---- hedging ---- */

static void
note_latency(uint32 us)
{
	pg_atomic_fetch_add_u32(&shared->hist[Min(au_hist_bucket(us), HIST_BUCKETS - 1)], 1);
	if (pg_atomic_add_fetch_u32(&shared->answers, 1) % HIST_WINDOW != 0)
		return;
	for (int i = 0; i < HIST_BUCKETS; i++)
		pg_atomic_fetch_sub_u32(&shared->hist[i], pg_atomic_read_u32(&shared->hist[i]) / 2);
	pg_atomic_write_u32(&shared->hedges, 0);
}

/* What 99 of 100 answers took at most, in us; 0: not known. */
static uint64
percentile99(void)
{
	uint32		counts[HIST_BUCKETS];
	uint64		total = 0;
	uint64		seen = 0;

	for (int i = 0; i < HIST_BUCKETS; i++)
		total += counts[i] = pg_atomic_read_u32(&shared->hist[i]);
	if (total < HIST_LEAST)
		return 0;
	for (int i = 0; i < HIST_BUCKETS; i++)
	{
		seen += counts[i];
		if (seen * 100 >= total * 99)
			return au_hist_upper_us(i);
	}
	return au_hist_upper_us(HIST_BUCKETS - 1);
}

int64
aurora_hedge_ms(void)
{
	static int64 known_ms = HEDGE_UNKNOWN_MS;
	static int64 known_at = 0;
	int64		now;

	if (aurora_hedge_delay_ms >= 0)
		return aurora_hedge_delay_ms;
	now = aurora_now_ms();
	if (known_at == 0 || now - known_at > HEDGE_FRESH_MS)
	{
		uint64		us = percentile99();

		known_at = now;
		known_ms = us == 0 ? HEDGE_UNKNOWN_MS :
			(int64) Min(Max((us * 2 + 999) / 1000, HEDGE_MIN_MS), HEDGE_MAX_MS);
	}
	return known_ms;
}

bool
aurora_hedge_allowed(void)
{
	uint32		part = pg_atomic_read_u32(&shared->answers) % HIST_WINDOW;

	if (pg_atomic_read_u32(&shared->hedges) >= HEDGES_FIRST + part / HEDGES_ONE_IN)
		return false;
	pg_atomic_fetch_add_u32(&shared->hedges, 1);
	return true;
}

/* It counts as an answer that took that long, at least. */
void
aurora_node_hedged(int node, uint64 us)
{
	SharedNode *n = &shared->node[node];

	pg_atomic_fetch_add_u64(&n->hedges, 1);
	if (pg_atomic_read_u32(&n->latency_us) < us)
		pg_atomic_write_u32(&n->latency_us, (uint32) Min(us, LATENCY_MAX_US));
	pg_atomic_write_u64(&n->measured_ms, (uint64) aurora_now_ms());
}

void
aurora_node_hedge_won(int node)
{
	pg_atomic_fetch_add_u64(&shared->node[node].hedge_wins, 1);
}

void
aurora_node_answered(int node, uint64 us)
{
	SharedNode *n = &shared->node[node];
	uint32		old = pg_atomic_read_u32(&n->latency_us);
	uint32		new = (uint32) Min(us, LATENCY_MAX_US);

	/* Two at once: one of them counts. */
	if (old != 0)
		new = old - old / 8 + new / 8;
	pg_atomic_write_u32(&n->latency_us, Max(new, 1));
	pg_atomic_fetch_add_u64(&n->reads, 1);
	note_latency((uint32) Min(us, LATENCY_MAX_US));
	if (aurora_nodes_count() > 1)
		pg_atomic_write_u64(&n->measured_ms, (uint64) aurora_now_ms());
}

void
aurora_node_failed(int node)
{
	SharedNode *n = &shared->node[node];

	pg_atomic_fetch_add_u64(&n->errors, 1);
	if (aurora_nodes_count() == 1)
		return;
	/* Others need not wait to see it. */
	if (pg_atomic_read_u32(&n->latency_us) < FAILED_US)
		pg_atomic_write_u32(&n->latency_us, FAILED_US);
	pg_atomic_write_u64(&n->measured_ms, (uint64) aurora_now_ms());
}

/* ---- choosing ---- */

/* From here on there is a reason not to ask this node. */
#define RANK_POOR (UINT64CONST(1) << 40)

/* How good it looks, less is better: first whether it was left just now, then
 * whether the view and the shipper hold it for alive, then how fast it answers. */
static uint64
rank(int node, uint64 avoid, int64 now)
{
	SharedNode *n = &shared->node[node];
	uint32		shipping = pg_atomic_read_u32(&n->shipping);
	uint64		r = pg_atomic_read_u32(&n->latency_us);

	if (now - (int64) pg_atomic_read_u64(&n->measured_ms) > FORGET_MS)
		r = 0;
	if (shipping == AURORA_NODE_BEHIND)
		r |= RANK_POOR;
	if (shipping == AURORA_NODE_DOWN || !map.place[node].up)
		r |= RANK_POOR << 1;
	if (avoid & (UINT64CONST(1) << node))
		r |= RANK_POOR << 2;
	return r;
}

/* Beginning anywhere spreads backends over nodes that are as good. */
static int
best_of(uint64 among, uint64 avoid, int64 now, uint64 chance)
{
	int			first = (int) (chance % map.count);
	int			best = -1;

	for (int i = 0; i < map.count; i++)
	{
		int			node = (first + i) % map.count;

		if ((among & (UINT64CONST(1) << node)) != 0 &&
			(best < 0 || rank(node, avoid, now) < rank(best, avoid, now)))
			best = node;
	}
	return best;
}

int
aurora_node_choose(uint64 among, uint64 avoid)
{
	uint64		chance;
	int			any;
	int64		now;

	if (aurora_nodes_count() == 1)
		return 0;
	among &= aurora_nodes_all();
	if (among == 0)
		among = aurora_nodes_all();
	chance = pg_prng_uint64(&pg_global_prng_state);
	now = aurora_now_ms();
	any = (int) (chance % map.count);
	if (chance / map.count % EXPLORE_ONE_IN == 0 && (among & (UINT64CONST(1) << any)) != 0 &&
		rank(any, avoid, now) < RANK_POOR)
		return any;
	return best_of(among, avoid, now, chance);
}
