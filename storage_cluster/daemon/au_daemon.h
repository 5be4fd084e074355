/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_daemon.h: what the files of aurora_storaged share.
 *
 *   loop thread    connections, the node's core, short reads of what is in
 *                  memory, small files, syncs on persistent memory
 *   reader threads pages from files (au_readers.h)
 *   worker threads fdatasync of landing logs, writing of page versions
 *   HTTP thread    answers from a snapshot that the loop thread makes
 */
#ifndef AU_DAEMON_H
#define AU_DAEMON_H

#include <pthread.h>
#include <uv.h>

#include "cluster/au_kv.h"
#include "core/au_node.h"
#include "daemon/au_config.h"
#include "daemon/au_readers.h"
#include "daemon/au_relog.h"
#include "rdma/transport.h"
#include "store/au_landing.h"
#include "store/au_pagestore.h"
#include "store/au_rebuild.h"

#define AU_CONNECTIONS_MAX 1024
#define AU_LANDING_SEGMENT_BYTES ((uint64_t) 64 << 20)
#define AU_SNAPSHOT_MS 200		/* younger ones are good enough */

typedef struct AuDaemon AuDaemon;
typedef struct AuAsk AuAsk;

/* A volume as the host knows it: files and the work in worker threads. */
typedef struct AuHostVolume
{
	AuDaemon   *daemon;
	struct AuHostVolume *next;
	uint64_t	system_identifier;
	AuLsn		start_lsn;
	char		dir[4400];
	char		log_dir[4500];
	AuLanding  *landing;
	AuPageStore *store;			/* NULL: could not be reopened yet */
	AuLsn		hold;			/* what the store is to hold, also when opened again */
	AuLsn		persisted_applied;	/* known also while store is NULL */
	AuLsn		persisted_restart;

	uv_work_t	remove_work;	/* files of log that was trimmed */
	bool		removing;
	bool		remove_again;	/* there came more meanwhile */
	char		remove_err[512];
	uv_work_t	sync_work;
	AuStatus	sync_status;
	char		sync_err[512];

	uv_work_t	write_work;
	bool		write_persist;
	AuStatus	write_status;
	char		write_err[512];

	uv_work_t	digest_work;
	AuDigest   *digest;			/* the one a step is under way of */

	uint32_t	exports;		/* chunks being made for other nodes */
	/* a new page store beside a damaged one, see au_mend.c */
	AuRebuild  *rebuild;		/* NULL: none */
	AuSliceSet	rebuild_slices;
	bool		mended;			/* it is complete: it takes the other's place */
	AuLsn		relog;			/* ... and an empty log that begins here the log's; 0: no */
	uv_work_t	mend_work;
	uint8_t    *mend_chunk;
	size_t		mend_len;
	AuStatus	mend_status;
	char		mend_err[512];

	uv_work_t	scrub_work;
	AuPageScrub *scrub;			/* the step under way; NULL: none */
	uint64_t	scrub_bytes;	/* it walked */
	uint64_t	scrub_at;		/* ms; not before */
} AuHostVolume;

typedef struct AuSnapshot
{
	pthread_mutex_t lock;
	pthread_cond_t made;
	uint64_t	serial;			/* counts snapshots */
	uint64_t	made_ms;		/* uv_hrtime / 1e6 */
	char	   *json;
	char	   *metrics;
	bool		healthy;
	bool		stopped;		/* no more will be made */
} AuSnapshot;

/* What is wrong with connections to one node was told of, so that it is not told
 * again twice a second for as long as the node is down. */
typedef struct AuTrouble
{
	char		address[AU_ADDRESS_MAX];	/* "": unused */
	char		why[64];
	uint64_t	told_ms;		/* uv_now */
	uint64_t	untold;			/* the same, since then */
} AuTrouble;

#define AU_TROUBLES_MAX 64		/* as many nodes as a cluster may have */
#define AU_TROUBLE_AGAIN_MS 60000

struct AuDaemon
{
	AuConfig	config;
	uint64_t	node_id;
	uv_loop_t  *loop;
	uv_check_t	check;			/* runs the node after each batch of events */
	uv_idle_t	idle;			/* keeps the loop turning while there is work */
	uv_timer_t	timer;			/* when the node wants to run again */
	uv_signal_t sigterm;
	uv_signal_t sigint;
	uv_timer_t	scrub_timer;
	uint64_t	disk_used;		/* as of ... */
	uint64_t	disk_used_at;	/* ms; 0: never looked */
	uv_async_t	want_snapshot;
	AuListener *listeners[2];
	int			nlisteners;
	AuNode	   *node;
	AuNodeHost	host;
	AuStoreMemory *memory;
	AuHostVolume *volumes;
	const struct AuLandingIo *landing_io;	/* chosen at start */
	struct AuSession *kicked;	/* sessions to offer buffered input to */
	AuTrouble	troubles[AU_TROUBLES_MAX];	/* with connections to other nodes */
	uint64_t	sessions;
	uint64_t	sessions_refused;
	char	   *status_text;	/* last answer to STATUS */
	uint64_t	started_ms;
	AuReaders  *readers;
	uint64_t	work;			/* syncs, writes and reads under way */
	bool		stopping;
	bool		failed;
	AuSnapshot	snapshot;
	AuHist		turns;			/* of the loop, without its waiting for events */
	AuHist		snapshots;
	uint64_t	turned_ns;		/* the last one's end, and the loop's idle time then */
	uint64_t	turned_idle_ns;
	void	   *http;			/* au_http.c */
	struct AuMeta *meta;		/* NULL: in no cluster */
	bool		telling_ready;	/* SLICES_READY is under way */
	AuAsk	   *asks;			/* questions to other nodes under way */
	uint32_t	nasks;
	void	   *kv;				/* au_hostkv.c */
};

/* main.c */
void		au_log(AuDaemon *d, AuLogLevel level, const char *fmt,...)
			__attribute__((format(printf, 3, 4)));

void		au_wake(AuDaemon *d);	/* run the node again without waiting for an event */

/*
 * au_hostlog.c: where landing logs are.  choose: once, before any volume is
 * opened.  make: an empty one for a new volume, at its place if there is a
 * --log-dir, else below dir, which will be renamed.  open: that of a volume
 * that exists; never makes one.
 */
bool		au_logs_choose(AuDaemon *d, char *err, size_t errlen);
AuStatus	au_log_make(AuDaemon *d, const char *dir, const AuVolumeMeta *meta,
						char *err, size_t errlen);
/* needed: as AuLandingOptions.needed_lsn. */
AuStatus	au_log_open(AuHostVolume *v, AuLsn needed, char *err, size_t errlen);
/* What au_relog.h needs; good as long as v. */
void		au_log_relog(AuHostVolume *v, AuRelog *r);

/* au_loglost.c: a log that is damaged, as err says; pages are decoded again from
 * restart on.  AU_OK: v->landing is open, *meta is as VOLUME is now.
 * AU_CORRUPT: nothing can be done, err is as before. */
AuStatus	au_log_rescue(AuHostVolume *v, AuVolumeMeta *meta, AuLsn restart,
						  char *err, size_t errlen);
/* No log is lost any more. */
void		au_log_forget_damaged(AuHostVolume *v);

/* au_hostvol.c: volumes */
bool		au_volumes_open(AuDaemon *d, char *err, size_t errlen);
void		au_volumes_close(AuDaemon *d);
void		au_volumes_fill_host(AuNodeHost *h);
void		au_volumes_read_done(void *daemon, AuPageBatch *batch);
/* A turn of the loop ends. */
void		au_volumes_turn(AuDaemon *d);
/* `dir` is only remembered in opt. */
void		au_volume_store_options(const AuHostVolume *v, const char *dir, AuPageStoreOptions *opt);
/* Log and store below v->dir; not AU_OK: v is freed.  With `others`, who keep
 * the volume, too, a damaged store is left closed: AU_OK, v->store is NULL and
 * err says why.  A damaged log may change *meta; NULL: it was made just now. */
AuStatus	au_volume_open_files(AuHostVolume *v, AuVolumeMeta *meta, bool others,
								 char *err, size_t errlen);

/* au_hostmove.c: slices that come and go */
void		au_moves_fill_host(AuNodeHost *h);

/*
 * au_mend.c: page stores made anew.  finish: before the store is opened at
 * start.  switch: while it is closed; nothing to do unless one is complete.
 */
bool		au_mend_finish(AuHostVolume *v, char *err, size_t errlen);
bool		au_mend_switch(AuHostVolume *v, char *err, size_t errlen);
void		au_mend_fill_host(AuNodeHost *h);

/* au_disk.c: bytes the node uses, or will for log it has; room for `more`
 * bytes of log (else err says why not); whether room gets short */
uint64_t	au_disk_used(AuDaemon *d);
bool		au_disk_room(AuDaemon *d, uint64_t more, char *err, size_t errlen);
bool		au_disk_short(AuDaemon *d);

/* au_scrub.c: looking for damage in the background; stop: no further step */
void		au_scrub_start(AuDaemon *d);
void		au_scrub_stop(AuDaemon *d);

/* au_digest.c: comparing replicas */
void		au_digest_fill_host(AuNodeHost *h);

/* au_session.c: connections */
bool		au_sessions_listen(AuDaemon *d, char *err, size_t errlen);
void		au_sessions_fill_host(AuNodeHost *h);
void		au_sessions_offer(AuDaemon *d);

/* au_hostkv.c: the key-value interface.  prepare: after the node was made and
 * before anybody is served; end: after the node was freed. */
bool		au_kv_prepare(AuDaemon *d, char *err, size_t errlen);
void		au_kv_end(AuDaemon *d);
uint64_t	au_kv_disk_bytes(AuDaemon *d);
const char *au_kv_problem(AuDaemon *d);	/* why the store could not be opened; "" */
bool		au_kv_figures(AuDaemon *d, AuKvStats *stats, uint64_t *keys);	/* false: not in use */

/* au_status.c; both malloc'ed, NULL: out of memory */
char	   *au_status_json(AuDaemon *d, bool *healthy);
char	   *au_status_metrics(AuDaemon *d);

/* au_http.c */
bool		au_http_start(AuDaemon *d, char *err, size_t errlen);
void		au_http_stop(AuDaemon *d);
void		au_snapshot_make(AuDaemon *d);	/* loop thread */

#endif							/* AU_DAEMON_H */
