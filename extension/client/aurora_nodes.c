/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aurora_nodes.c: the list of storage nodes, what is known of each, and the
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
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "client/aurora_client.h"
#include "client/aurora_conn.h"
#include "client/aurora_nodes.h"
#include "module/aurora_guc.h"

/* One choice in so many is at random. */
#define EXPLORE_ONE_IN 16
#define FORGET_MS 30000
/* What a failure counts as. */
#define FAILED_US (1000 * 1000)
#define LATENCY_MAX_US (60 * 1000 * 1000)

typedef struct SharedNode
{
	slock_t		mutex;			/* protects said */
	AuroraNodeFigures said;		/* by the shipper */
	pg_atomic_uint32 shipping;	/* the same once more, for choosing */
	pg_atomic_uint64 reads;
	pg_atomic_uint64 errors;
	pg_atomic_uint32 latency_us;
	pg_atomic_uint64 measured_ms;	/* aurora_now_ms() then */
} SharedNode;

static char addresses[AU_GROUP_MAX][AU_ADDRESS_MAX];
static int	count = 0;
static SharedNode *shared = NULL;

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
	char		port[NI_MAXSERV];
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
		!aurora_client_split_node(address, host, sizeof(host), port, sizeof(port)))
		return "The form is host:port, or host:port,host:port,... for several nodes.";
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
aurora_nodes_count(void)
{
	return Max(count, 1);
}

int
aurora_nodes_quorum(void)
{
	return aurora_write_quorum != 0 ? aurora_write_quorum : aurora_nodes_count() / 2 + 1;
}

const char *
aurora_node_address(int node)
{
	Assert(node >= 0 && node < aurora_nodes_count());
	return count == 0 ? embedded_socket() : addresses[node];
}

/* ---- what is known ---- */

Size
aurora_nodes_shmem_size(void)
{
	return MAXALIGN(sizeof(SharedNode) * AU_GROUP_MAX);
}

/* Caller holds AddinShmemInitLock. */
void
aurora_nodes_shmem_init(void)
{
	bool		found;

	shared = ShmemInitStruct("aurora storage nodes", aurora_nodes_shmem_size(), &found);
	if (found)
		return;
	memset(shared, 0, aurora_nodes_shmem_size());
	for (int i = 0; i < AU_GROUP_MAX; i++)
	{
		SpinLockInit(&shared[i].mutex);
		pg_atomic_init_u32(&shared[i].shipping, AURORA_NODE_UNKNOWN);
		pg_atomic_init_u64(&shared[i].reads, 0);
		pg_atomic_init_u64(&shared[i].errors, 0);
		pg_atomic_init_u32(&shared[i].latency_us, 0);
		pg_atomic_init_u64(&shared[i].measured_ms, 0);
	}
}

void
aurora_node_figures(int node, AuroraNodeFigures *out)
{
	SharedNode *n = &shared[node];

	SpinLockAcquire(&n->mutex);
	*out = n->said;
	SpinLockRelease(&n->mutex);
	out->reads = pg_atomic_read_u64(&n->reads);
	out->errors = pg_atomic_read_u64(&n->errors);
	out->latency_us = pg_atomic_read_u32(&n->latency_us);
}

void
aurora_node_report(int node, const AuroraNodeFigures *f)
{
	SharedNode *n = &shared[node];

	SpinLockAcquire(&n->mutex);
	n->said = *f;
	SpinLockRelease(&n->mutex);
	pg_atomic_write_u32(&n->shipping, f->shipping);
}

void
aurora_node_answered(int node, uint64 us)
{
	SharedNode *n = &shared[node];
	uint32		old = pg_atomic_read_u32(&n->latency_us);
	uint32		new = (uint32) Min(us, LATENCY_MAX_US);

	/* Two at once: one of them counts. */
	if (old != 0)
		new = old - old / 8 + new / 8;
	pg_atomic_write_u32(&n->latency_us, Max(new, 1));
	pg_atomic_fetch_add_u64(&n->reads, 1);
	if (aurora_nodes_count() > 1)
		pg_atomic_write_u64(&n->measured_ms, (uint64) aurora_now_ms());
}

void
aurora_node_failed(int node)
{
	SharedNode *n = &shared[node];

	pg_atomic_fetch_add_u64(&n->errors, 1);
	if (aurora_nodes_count() == 1)
		return;
	/* Others need not wait to see it. */
	if (pg_atomic_read_u32(&n->latency_us) < FAILED_US)
		pg_atomic_write_u32(&n->latency_us, FAILED_US);
	pg_atomic_write_u64(&n->measured_ms, (uint64) aurora_now_ms());
}

/* ---- choosing ---- */

/* How good it looks, less is better: first whether it was left just now, then
 * whether the shipper reaches it, then how fast it answers. */
static uint64
rank(int node, uint32 avoid, int64 now)
{
	SharedNode *n = &shared[node];
	uint32		shipping = pg_atomic_read_u32(&n->shipping);
	uint64		r = pg_atomic_read_u32(&n->latency_us);

	if (now - (int64) pg_atomic_read_u64(&n->measured_ms) > FORGET_MS)
		r = 0;
	if (shipping == AURORA_NODE_BEHIND)
		r |= UINT64CONST(1) << 40;
	if (shipping == AURORA_NODE_DOWN)
		r |= UINT64CONST(1) << 41;
	if (avoid & (1u << node))
		r |= UINT64CONST(1) << 42;
	return r;
}

int
aurora_node_choose(uint32 avoid)
{
	int			n = aurora_nodes_count();
	int			first = n == 1 ? 0 : (int) (pg_prng_uint64(&pg_global_prng_state) % n);
	bool		explore;
	int			best = first;
	int64		now;

	if (n == 1)
		return 0;
	now = aurora_now_ms();
	explore = pg_prng_uint64(&pg_global_prng_state) % EXPLORE_ONE_IN == 0 &&
		rank(first, avoid, now) < UINT64CONST(1) << 40;
	/* Beginning anywhere spreads backends over nodes that are as good. */
	for (int i = 1; i < n && !explore; i++)
	{
		int			node = (first + i) % n;

		if (rank(node, avoid, now) < rank(best, avoid, now))
			best = node;
	}
	return best;
}
