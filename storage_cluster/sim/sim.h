/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim.h: a whole cluster in one process, on a seeded clock, network and disk.
 *
 *   writers (core/au_proposer) ──┐
 *   readers                   ───┼── simulated connections ──▶ nodes (core/au_node)
 *   nodes, catching up        ───┘                              │
 *                                          landing log on a simulated disk, store
 *
 * The code under test is what the daemon and the log shipper run; only the
 * hosts are ours.  Time goes in ticks; within a tick everything happens in a
 * fixed order, and every choice comes from one random generator, so a seed
 * gives the same run, event for event (the trace hash tells).
 *
 * What must hold is in sim_check.c.  A run has two phases: faults, then quiet,
 * in which everything must come back within a bound.
 */
#ifndef AU_SIM_H
#define AU_SIM_H

#include <stdio.h>

#include "core/au_node_gossip.h"
#include "core/au_proposer.h"
#include "store/au_landing.h"
#include "tests/walmake.h"

#define SIM_SYSID 7001
#define SIM_BASE ((AuLsn) 0x1000000)
#define SIM_TICK_US 500
#define SIM_NODES_MAX AU_GROUP_MAX
#define SIM_WRITERS_MAX 3
#define SIM_LINKS_MAX 256
#define SIM_BLOCKS 12
#define SIM_REL 16384
#define SIM_WINDOW (320u << 10)

/* ---- chance ----------------------------------------------------------- */

typedef struct Sim Sim;

uint64_t	sim_random(Sim *s);
static inline uint64_t
sim_below(Sim *s, uint64_t n)
{
	return n == 0 ? 0 : sim_random(s) % n;
}
/* True once in n times. */
static inline bool
sim_one_in(Sim *s, uint64_t n)
{
	return n != 0 && sim_below(s, n) == 0;
}

/* ---- the network (sim_net.c) ------------------------------------------ */

/* Who a connection's end belongs to: nodes 0.., then writers, then readers. */
#define SIM_WHO_WRITER 100
#define SIM_WHO_READER 200

typedef struct SimChunk
{
	struct SimChunk *next;
	uint64_t	due;
	size_t		len;
	uint8_t		bytes[];
} SimChunk;

typedef struct SimSide
{
	int			who;
	bool		closed;			/* by this side */
	bool		told;			/* that the other side is gone */
	bool		connected;		/* and was told so */
	bool		reading;		/* node side only */
	void	   *conn;			/* AuConn of a node; index + 1 of a writer's node */
	SimChunk   *first;			/* on the way to this side */
	SimChunk   *last;
	uint8_t    *in;				/* arrived, not consumed (node side) */
	size_t		in_len;
} SimSide;

typedef struct SimLink
{
	bool		used;
	uint64_t	serial;
	uint64_t	opened_at;
	SimSide		side[2];		/* 0: who connected, 1: who was connected to */
} SimLink;

/* Begin a connection; NULL: no room. */
SimLink    *sim_net_open(Sim *s, int from, int to, void *conn);
void		sim_net_send(Sim *s, SimLink *l, int side, const uint8_t *bytes, size_t len);
void		sim_net_close(Sim *s, SimLink *l, int side);
/* All connections of somebody who died. */
void		sim_net_cut(Sim *s, int who);
void		sim_net_tick(Sim *s);

/* ---- nodes (sim_node.c), their disks and stores (sim_store.c) --------- */

/* What a page was changed by, in log order. */
typedef struct SimRecord
{
	AuLsn		end;
	uint32_t	blk;
	uint32_t	len;
	size_t		ops;			/* offset into bytes */
	bool		rot;			/* it is damaged, and its checksum tells */
} SimRecord;

/* Damage of a block that no checksum tells: from a version on. */
typedef enum SimWrong
{
	SIM_SOUND,
	SIM_WRONG,					/* other bytes */
	SIM_STALE					/* changes are lost: older bytes */
} SimWrong;

typedef struct SimStore
{
	SimRecord  *records;
	size_t		n;
	size_t		cap;
	uint8_t    *bytes;
	size_t		bytes_len;
	size_t		bytes_cap;
	SimWrong	wrong[SIM_BLOCKS];
	AuLsn		wrong_from[SIM_BLOCKS];
} SimStore;

AuStatus	sim_store_apply(SimStore *st, const AuWalRecord *rec);
void		sim_store_add(SimStore *st, AuLsn end, uint32_t blk, const uint8_t *ops, uint32_t len);
/* Page as of lsn; AU_NOT_FOUND if nothing changed it; AU_CORRUPT. */
AuStatus	sim_store_read(const SimStore *st, uint32_t blk, AuLsn lsn, uint8_t *page);
void		sim_store_cut(SimStore *st, AuLsn lsn);	/* forget records ending above */
void		sim_store_copy(SimStore *to, const SimStore *from, AuLsn upto);	/* to is empty */
void		sim_store_free(SimStore *st);
/* The i-th record of another one comes to the end. */
void		sim_store_take(SimStore *to, const SimStore *from, size_t i);
/* All of `more`, which is empty then, in log order. */
void		sim_store_merge(SimStore *st, SimStore *more);
/* What is of these pages goes to `gone`. */
void		sim_store_split(SimStore *st, const bool places[SIM_BLOCKS], SimStore *gone);

/* In a cluster pages lie far apart, so that they are of several slices: the
 * block of a place, and the other way round. */
static inline uint32_t
sim_place(uint32_t blk)
{
	return blk < SIM_BLOCKS ? blk : blk / AU_EXTENT_BLOCKS;
}

/* What a store keeps, see sim_slices.c. */
typedef struct SimKept
{
	bool		told;			/* else all slices */
	AuSliceSet	kept;
	AuSliceSet	incoming;
	AuSliceSet	dropping;
	AuLsn		since;			/* of those that are incoming */
	AuLsn		place;			/* up to here they are in */
	bool		done;
} SimKept;

typedef struct SimSlices
{
	SimKept		now;
	SimKept		frozen;
	SimKept		lasting;		/* what a crash leaves */
	uint64_t	changes;
	uint64_t	changes_frozen;
	uint64_t	changes_written;
	uint64_t	keep_change;
	uint64_t	drop_change;
	SimStore	gone;			/* deleted since the last persisted write */
	AuSliceSet	was_gone;		/* slices of it */
	uint16_t	digests[AU_SLICES];	/* under way */
	uint8_t    *chunk;			/* to be imported */
	size_t		chunk_len;
	uint64_t	chunk_due;
} SimSlices;

typedef struct SimDigest SimDigest;

#define SIM_OPINIONS_MAX 64

typedef struct SimOpinion
{
	uint64_t	node_id;
	uint64_t	incarnation;
	uint8_t		state;
} SimOpinion;

typedef struct SimNode
{
	Sim		   *sim;
	int			index;
	bool		up;
	uint64_t	start_at;		/* when down */
	uint64_t	paused_until;
	AuNode	   *node;
	AuNodeHost	host;
	bool		failed;			/* the node called fatal */
	char		why[512];
	long		allocated;

	/*
	 * The disk.  `log` is what the landing log should hold; the real one is
	 * compared with it whenever it is read or opened.
	 */
	uint32_t	life;			/* directories it had before this one */
	bool		exists;
	AuVolumeMeta meta;
	AuVolumeMeta meta_before;	/* for a planted bug: the promise forgotten */
	uint8_t    *log;			/* from log_base */
	size_t		log_cap;
	AuLsn		log_base;
	AuLsn		log_start;
	AuLsn		log_end;
	AuLsn		log_durable;
	bool		syncing;
	uint64_t	sync_due;
	bool		sync_fails;
	uint64_t	full_until;
	uint64_t	slow_until;
	uint64_t	io_error_until; /* each call fails */
	void	   *disk;			/* MemDisk */
	AuLanding  *landing;		/* on it; NULL: not open */
	AuLsn		written_mark;	/* newest mark in an entry; see au_landing.h */
	AuLsn		synced_mark;	/* ... in a synced one: damage below it is found */
	bool		damaged;		/* a sector is not what was written */
	bool		lost;			/* and that was noticed, by the only one that has the log:
								 * it need not come back */

	AuLsn		lost_end;		/* of the log it had when it lost some last */
	bool		shortened;		/* the beginning of the log goes, or is gone */

	SimOpinion	opinions[SIM_OPINIONS_MAX];	/* as gossip told last */
	uint64_t	clock_ahead;
	uint64_t	clock_permille; /* of the right speed */

	/* The store; what is not persisted is lost in a crash. */
	SimStore	store;
	AuLsn		applied;
	AuLsn		restart;
	AuLsn		persisted_applied;
	AuLsn		persisted_restart;
	AuLsn		frozen_applied;
	AuLsn		frozen_restart;
	bool		writing;
	bool		write_persist;
	uint64_t	write_due;
	AuLsn		written;		/* by the last write, in files or not */
	AuLsn		written_restart;

	/* Repair (sim_repair.c) */
	SimDigest  *digest;			/* whose step is under way */
	uint64_t	digest_due;
	int			digests;
	AuExportJob *exports[AU_NODE_EXPORTS_MAX];
	uint64_t	export_due[AU_NODE_EXPORTS_MAX];
	SimStore	fresh;			/* the store that is made anew */
	AuLsn		fresh_applied;
	AuLsn		fresh_restart;
	AuLsn		fresh_log;		/* the log begins here then; 0: it stays */
	AuPlace		fresh_place;
	bool		fresh_all;
	bool		fresh_ready;
	uint8_t    *chunk;			/* to be taken */
	size_t		chunk_len;
	uint64_t	chunk_due;
	uint64_t	wrong_at;		/* a wrong version was there to be read last */

	/* In a cluster (sim_slices.c, sim_view.c) */
	SimSlices	slices;
	AuVolumeMeta found_meta;
	AuView		view;			/* that it heard of last */
	uint64_t	heard;			/* epoch of it, by this process; 0: none */
	uint32_t	view_number;	/* the node's, there */
	uint32_t	process;		/* counts its starts */
} SimNode;

void		sim_node_init(Sim *s, int index);
void		sim_node_start(SimNode *n);
void		sim_node_crash(SimNode *n);
void		sim_node_tick(SimNode *n);
void		sim_node_free(SimNode *n);
/* NULL: it holds each node for what it is. */
const char *sim_node_opinions(const SimNode *n);
/* A connection to the node: false, it does not listen. */
bool		sim_node_accept(SimNode *n, SimLink *l);
static inline uint64_t
sim_node_id(const SimNode *n)
{
	return 1000 + (uint64_t) n->index + 100 * n->life;
}
/* Its directory is lost: it comes back as another node, which has nothing. */
void		sim_node_wipe(SimNode *n);
/* It copies pages and log of the volume from another node, as one that is
 * taken into the cluster does; false: not now. */
bool		sim_node_adopt(SimNode *n, const SimNode *from, const AuGroup *group);
/* One that was in no group yet goes on with what was committed. */
void		sim_node_follow(SimNode *n);

/* ---- damaged pages, and their repair (sim_repair.c) --------------------- */

void		sim_repair_init(SimNode *n);
void		sim_repair_tick(SimNode *n);
void		sim_repair_crash(SimNode *n);
/* The store that was made anew takes the old one's place, and an empty log the
 * old log's, if it is to; AU_IO: there is none; AU_FULL: not now. */
AuStatus	sim_repair_switch(SimNode *n);
/* A version goes wrong; false: not now. */
bool		sim_repair_damage(SimNode *n);
/* NULL: nothing is damaged, nothing is being repaired. */
const char *sim_repair_missing(const SimNode *n);
/* Of the tree over all pages that it keeps, as of lsn. */
uint64_t	sim_repair_root(const SimNode *n, const SimStore *st, AuLsn lsn);
/* Versions of a chunk; the place behind it, 0: that was all. */
AuLsn		sim_repair_take(SimStore *st, const uint8_t *chunk, size_t len);
/* Some node is damaged, or makes its pages anew. */
bool		sim_repair_hurt(const Sim *s);
/* Some node has a wrong version whose checksum is right. */
bool		sim_repair_wrong(const Sim *s);

/* ---- slices of a cluster (sim_slices.c) --------------------------------- */

void		sim_slices_init(SimNode *n);
/* A store with nothing in it, which keeps all slices or none. */
void		sim_slices_begin(SimNode *n, bool all);
void		sim_slices_tick(SimNode *n);
void		sim_slices_step(SimNode *n);
void		sim_slices_freeze(SimNode *n);
void		sim_slices_written(SimNode *n, bool persisted);
void		sim_slices_rewind(SimNode *n, AuLsn lsn);
void		sim_slices_crash(SimNode *n);
uint32_t	sim_slice_of(uint32_t place);
/* Is the page's slice kept, is it according to files, is this change taken? */
bool		sim_slices_kept(const SimNode *n, uint32_t place);
bool		sim_slices_lasting(const SimNode *n, uint32_t place);
bool		sim_slices_takes(const SimNode *n, uint32_t place, AuLsn end);

/* ---- the cluster's view (sim_view.c) ------------------------------------- */

#define SIM_COMMANDS_MAX 64

/* A command on its way to consensus. */
typedef struct SimCommandOn
{
	SimNode    *node;			/* NULL: free */
	uint32_t	process;
	uint64_t	due;
	bool		answer;			/* it waits for one */
	bool		taken;
	AuStatus	status;
	char		err[512];
	AuViewCommand command;
} SimCommandOn;

typedef struct SimViews
{
	bool		on;
	bool		begun;			/* all nodes have the volume */
	uint8_t		rf;
	bool		careful;		/* see choose_cluster */
	uint64_t	admin;			/* somebody does something, once in so many ticks */
	uint64_t	lag;			/* a node hears of a new view likewise */
	AuView		head;
	SimCommandOn on_way[SIM_COMMANDS_MAX];
} SimViews;

void		sim_view_init(Sim *s);
void		sim_view_init_node(SimNode *n);
void		sim_view_start(SimNode *n);
void		sim_view_tick(Sim *s);
bool		sim_view_has(const SimNode *n);
/* It is making its pages anew, as far as the view knows. */
bool		sim_view_mends(const SimNode *n);
bool		sim_view_at_rest(const Sim *s);
uint32_t	sim_view_lag(const Sim *s, const SimNode *n);
const char *sim_view_missing(const SimNode *n);
void		sim_view_check_end(Sim *s);

/* ---- the log group (sim_group.c) -------------------------------------- */

#define SIM_GROUPS_MAX 256

/* The volume's entry in the view, as commands made it: all groups that were. */
typedef struct SimGroups
{
	bool		on;				/* else one group, which the settings name */
	AuGroup		was[SIM_GROUPS_MAX];	/* of epoch i + 1 */
	uint32_t	epoch;
	bool		settled;		/* the view knows */
	uint32_t	checked;		/* newest that a writer called settled */
	int			leaving;		/* node to be replaced, when another one is in; -1 */
	uint64_t	changes;
} SimGroups;

void		sim_group_init(Sim *s, uint32_t nodes, uint8_t quorum);
void		sim_group_tick(Sim *s);
/* The group of an epoch; the last one if it is 0. */
const AuGroup *sim_group(const Sim *s, uint32_t epoch);
/* A writer says so; the view may hear of it later. */
void		sim_group_settled(Sim *s, uint32_t epoch);
bool		sim_group_has(const AuGroup *g, const SimNode *n);

/* ---- disks (sim_disk.c) ------------------------------------------------ */

void		sim_disk_init(SimNode *n);
/* After a crash; false: not now, or never again. */
bool		sim_disk_open(SimNode *n);
void		sim_disk_crash(SimNode *n);
void		sim_disk_tick(SimNode *n);
void		sim_disk_free(SimNode *n);
/* Nothing is left on it. */
void		sim_disk_wipe(SimNode *n);
/* The volume comes to be on it, with the log from where another node's pages
 * are replayed from to where they are. */
bool		sim_disk_adopt(SimNode *n, const AuVolumeMeta *meta, const SimNode *from);
/* An empty log takes the old one's place; false: not now. */
bool		sim_disk_relog(SimNode *n, AuLsn start);
/* More log, durable at once; false: not now. */
bool		sim_disk_put(SimNode *n, const uint8_t *bytes, size_t len);
/* Spoil a sector of log that is known to be durable, unless too many nodes
 * lack some; false: there is none. */
bool		sim_disk_damage(SimNode *n);

/* ---- writers (sim_writer.c) ------------------------------------------- */

typedef struct SimRecordEnd
{
	AuLsn		end;
	AuLsn		prev;			/* start of the record */
} SimRecordEnd;

typedef struct SimWriter
{
	Sim		   *sim;
	int			index;
	bool		exists;			/* a copy may appear later */
	bool		up;
	bool		stopped;		/* fenced or refused: waits for somebody */
	uint32_t	started;		/* times that somebody did */
	uint64_t	start_at;
	uint64_t	retry_at;
	uint64_t	paused_until;
	AuProposer *proposer;
	AuProposerHost host;
	SimLink    *links[AU_GROUP_MAX];
	uint64_t	link_serial[AU_GROUP_MAX];
	bool		made;			/* the volume was made */
	WalMake		wal;			/* the server's own WAL */
	AuLsn		flushed;
	AuLsn		fed;
	AuLsn		acked;			/* commits up to here were told to clients */
	SimRecordEnd *ends;
	size_t		nends;
	size_t		ends_cap;
	uint64_t	ended_kinds[8];
} SimWriter;

void		sim_writer_init(Sim *s, int index);
void		sim_writer_tick(SimWriter *w);
void		sim_writer_crash(SimWriter *w);
/* A copy of another server's data directory, up to some moment. */
void		sim_writer_copy(SimWriter *w, const SimWriter *from);
void		sim_writer_free(SimWriter *w);

/* ---- readers (sim_reader.c) ------------------------------------------- */

#define SIM_READERS 3

typedef struct SimReader
{
	SimLink    *link;
	uint64_t	serial;
	int			node;
	uint64_t	asked_at;		/* 0: nothing is asked */
	uint64_t	ask_at;
	uint32_t	blk;
	AuLsn		not_before;
	AuLsn		read_lsn;
	uint8_t    *in;
	size_t		in_len;
	size_t		in_cap;
} SimReader;

void		sim_reader_tick(Sim *s, int index);
void		sim_reader_input(Sim *s, int index, const uint8_t *bytes, size_t len);
void		sim_reader_closed(Sim *s, int index);

/* ---- all of it -------------------------------------------------------- */

/* Bugs put in on purpose; the checks must find each. */
typedef enum SimPlant
{
	SIM_PLANT_NONE,
	SIM_PLANT_ACK_BEFORE_PERSIST,	/* log counts as durable when it is written */
	SIM_PLANT_QUORUM,			/* the writer believes in a quorum of one less */
	SIM_PLANT_STALE_TERM,		/* the writer of an old term is let in again */
	SIM_PLANT_FORGOTTEN_VOTE,	/* a crash forgets the promise made last */
	SIM_PLANT_NO_CUT,			/* log of a lost election stays */
	SIM_PLANT_RESURRECT,		/* nodes give each other log no quorum holds */
	SIM_PLANT_APPLY_EARLY,		/* pages show log that no quorum holds */
	SIM_PLANT_NO_SYNC,			/* the disk says that it has synced, and has not */
	SIM_PLANT_NO_CRC,			/* damaged log is believed */
	SIM_PLANT_OLD_EPOCH,		/* nodes take part in a group that is over */
	SIM_PLANT_TWO_AT_ONCE,		/* two nodes of a group are replaced at once */
	SIM_PLANT_NO_OBJECTION,		/* a node that is suspected keeps silent */
	SIM_PLANT_GOSSIP_STALE,		/* the opinion heard last counts */
	SIM_PLANT_MEND_OLD,			/* a repair brings old versions back */
	SIM_PLANT_MEND_BLIND,		/* a repair takes the damaged copy for the good one */
	SIM_PLANT_BEHIND_COUNTS,	/* a node left behind counts before it has caught up */
	SIM_PLANT_LOST_VOTES,		/* a node whose log was damaged votes with what is left */
	SIM_PLANT_READY_EARLY,		/* slices count when they begin to come */
	SIM_PLANT_WHOLE_EARLY,		/* a store made anew counts as whole without its slices */
	SIM_PLANT_GIVES_PART,		/* slices come from nodes that do not have all of them */
	SIM_PLANT_TRIM_EARLY,		/* log goes that no owner of some slice has */
	SIM_PLANTS
} SimPlant;

extern const char *const sim_plant_names[SIM_PLANTS];

typedef struct SimOptions
{
	uint64_t	seed;
	SimPlant	plant;
	uint64_t	fault_us;		/* first phase */
	uint64_t	quiet_us;		/* second phase at most */
	bool		verbose;
	int			groups;			/* log groups change: 1 always, -1 never, 0 as the
								 * seed says */
	int			repair;			/* pages are damaged and repaired: likewise */
	int			behind;			/* nodes are away until their log is gone: likewise */
	int			slices;			/* nodes are in a cluster, and have slices: likewise */
} SimOptions;

/* How often each kind of trouble comes, drawn from the seed: 0 never, else
 * about once in so many ticks. */
typedef struct SimSwarm
{
	uint64_t	crash_node;
	uint64_t	crash_writer;
	uint64_t	crash_all;
	uint64_t	pause;
	uint64_t	partition;
	uint64_t	reset;
	uint64_t	corrupt;
	uint64_t	disk_full;
	uint64_t	slow_disk;
	uint64_t	sync_error;
	uint64_t	io_error;
	uint64_t	damage;
	uint64_t	spoil;			/* page versions; with repair only */
	uint64_t	away;			/* a node, for long; with behind only */
	uint64_t	keep_bytes;		/* log kept for others; 0: as much as ever */
	uint64_t	persist_bytes;	/* log between persisted positions; likewise */
	uint64_t	twice;
	uint64_t	copy;
	bool		clock_skew;
	bool		pmem;
	uint64_t	regroup;
	uint64_t	latency_us;
	uint64_t	sync_us;
	uint64_t	records;		/* log in a tick */
	uint64_t	idle;			/* and only once in so many; 0: in each */
} SimSwarm;

typedef struct SimFigures
{
	uint64_t	ticks;
	uint64_t	faults;
	uint64_t	acked_records;
	uint64_t	reads;
	uint64_t	terms;
	uint64_t	cuts;
	uint64_t	fenced;
	uint64_t	refused;
	uint64_t	damaged;
	uint64_t	lost;			/* damage that was noticed */
	uint64_t	relogs;			/* logs begun anew for that */
	uint64_t	regroups;
	uint64_t	spoiled;		/* page versions */
	uint64_t	repairs;
	uint64_t	remade;			/* nodes that were left behind */
	uint64_t	moves;			/* of slices with pages, to other owners */
	uint64_t	moved;			/* slices that came */
	uint64_t	chunks;
	uint64_t	founded;		/* volumes begun with another node's position */
} SimFigures;

struct Sim
{
	SimOptions	opt;
	SimSwarm	swarm;
	uint64_t	rng[4];
	uint64_t	now;
	uint64_t	trace;			/* hash of what happened */
	uint32_t	nnodes;
	uint8_t		quorum;			/* of the first group */
	SimGroups	groups;
	SimViews	views;
	bool		quiet;
	bool		repair;			/* replicas are compared and repaired */
	bool		behind;			/* little log is kept, and nodes are away for long */
	uint64_t	hurt_at;		/* some node was damaged, or being repaired */
	SimNode		nodes[SIM_NODES_MAX];
	SimNode		nobody;			/* whom trouble befalls that may not come now */
	SimWriter	writers[SIM_WRITERS_MAX];
	SimReader	readers[SIM_READERS];
	SimLink		links[SIM_LINKS_MAX];
	uint64_t	link_serial;
	uint64_t	blocked_until[SIM_NODES_MAX + 2][SIM_NODES_MAX + 2];	/* from, to */
	SimFigures	figures;

	/* What was committed, as told to any client (sim_check.c). */
	uint8_t    *truth;			/* from SIM_BASE */
	size_t		truth_len;
	size_t		truth_cap;
	AuLsn		visible;		/* highest commit any writer has told nodes of */
	SimStore	model;
	AuWalDecode *decode;

	bool		broken;
	char		verdict[1024];
};

static inline uint32_t
sim_block(const Sim *s, uint32_t place)
{
	return s->views.on ? place * AU_EXTENT_BLOCKS : place;
}

/* It must have what was committed in the end. */
static inline bool
sim_counts(const Sim *s, const SimNode *n)
{
	return s->views.on ? sim_view_has(n) : sim_group_has(sim_group(s, 0), n);
}

/* Runs one seed; true if all held, else s->verdict says what did not. */
bool		sim_run(Sim *s, const SimOptions *opt);
void		sim_free(Sim *s);

void		sim_fail(Sim *s, const char *fmt,...) __attribute__((format(printf, 2, 3)));
void		sim_trace(Sim *s, uint64_t a, uint64_t b);
void		sim_say(Sim *s, const char *fmt,...) __attribute__((format(printf, 2, 3)));

/* sim_check.c */
void		sim_check_committed(Sim *s, const SimWriter *w, AuLsn commit);
void		sim_check_page(Sim *s, int node, uint32_t blk, AuLsn as_of, AuStatus status,
						   const uint8_t *page);
void		sim_check_tick(Sim *s);
/* All is back: NULL, or what is missing. */
const char *sim_check_quiet(Sim *s);
void		sim_check_end(Sim *s);

#endif							/* AU_SIM_H */
