/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c: aurora_storaged: start, the loop, the end.
 *
 *   events (sockets, finished work) ──▶ node state
 *   check handle: au_node_run ──▶ slice of work ──▶ more? idle handle keeps
 *                                                   the loop turning
 *
 * Start: lock the directory, open the volumes, listen, say "ready".  Applying
 * what the log holds beyond the pages goes on while clients are served.
 * End: SIGTERM or SIGINT: no more connections, write what is in memory, exit
 * 0.  A second signal ends it at once, which is as safe as kill -9.
 */
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/au_heap.h"
#include "daemon/au_daemon.h"
#include "daemon/au_files.h"
#include "daemon/au_gossip_host.h"
#include "daemon/au_meta.h"
#include "store/au_landing_io.h"

void
au_log(AuDaemon *d, AuLogLevel level, const char *fmt,...)
{
	static const char *const names[] = {"DEBUG", "INFO", "WARNING", "ERROR"};
	struct timespec now;
	struct tm	tm;
	char		line[2048];
	char		stamp[64];
	va_list		args;
	int			n;

	if (level < d->config.log_level)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%S", &tm);
	n = snprintf(line, sizeof(line), "%s.%03ld UTC [%ld] %s: aurora_storaged: ", stamp,
				 now.tv_nsec / 1000000, (long) getpid(), names[level]);
	va_start(args, fmt);
	vsnprintf(line + n, sizeof(line) - (size_t) n - 1, fmt, args);
	va_end(args);
	strcat(line, "\n");
	fputs(line, stderr);		/* one write a line */
}

/* ---- host ------------------------------------------------------------- */

static uint64_t
host_now_us(void *ctx)
{
	(void) ctx;
	return uv_hrtime() / 1000;
}

static void
host_log(void *ctx, AuLogLevel level, const char *message)
{
	au_log(ctx, level, "%s", message);
}

/* What must not go on ends here, without touching files again. */
static void
host_fatal(void *ctx, const char *message)
{
	AuDaemon   *d = ctx;

	au_log(d, AU_LOG_ERROR, "stopped: %s", message);
	_exit(3);
}

static const char *
host_status_json(void *ctx, size_t *len)
{
	AuDaemon   *d = ctx;
	bool		healthy;

	free(d->status_text);
	d->status_text = au_status_json(d, &healthy);
	*len = d->status_text != NULL ? strlen(d->status_text) : 2;
	return d->status_text != NULL ? d->status_text : "{}";
}

/* ---- the loop --------------------------------------------------------- */

static void
on_idle(uv_idle_t *idle)
{
	(void) idle;				/* only keeps the loop from sleeping */
}

void
au_wake(AuDaemon *d)
{
	if (!uv_is_closing((uv_handle_t *) &d->idle))
		uv_idle_start(&d->idle, on_idle);
}

static void
on_timer(uv_timer_t *timer)
{
	(void) timer;				/* the check handle follows */
}

static void
stop_step(AuDaemon *d)
{
	if (au_node_stopped(d->node) && d->work == 0 && d->sessions == 0 &&
		au_meta_stopped(d))
		uv_stop(d->loop);
}

/* From one look at the node to the next, less the time nothing was to be done. */
static void
count_turn(AuDaemon *d)
{
	uint64_t	now = uv_hrtime();
	uint64_t	idle = uv_metrics_idle_time(d->loop);

	if (d->turned_ns != 0)
		au_hist_add(&d->turns, (now - d->turned_ns - (idle - d->turned_idle_ns)) / 1000);
	d->turned_ns = now;
	d->turned_idle_ns = idle;
}

static void
on_check(uv_check_t *check)
{
	AuDaemon   *d = check->data;
	uint64_t	wait = au_node_run(d->node);

	au_readers_turn(d->readers);
	au_volumes_turn(d);
	if (d->kicked != NULL)
	{
		au_sessions_offer(d);
		wait = 0;				/* look at what came in */
	}
	if (d->stopping)
		stop_step(d);
	if (wait == 0)
		au_wake(d);
	else
	{
		uv_idle_stop(&d->idle);
		if (wait == UINT64_MAX)
			uv_timer_stop(&d->timer);
		else
			uv_timer_start(&d->timer, on_timer, wait / 1000 + 1, 0);
	}
	count_turn(d);
}

static void
on_signal(uv_signal_t *handle, int signum)
{
	AuDaemon   *d = handle->data;

	if (d->stopping)
	{
		au_log(d, AU_LOG_WARNING, "got signal %d again: ending at once", signum);
		_exit(1);
	}
	au_log(d, AU_LOG_INFO, "stopping on signal %d", signum);
	d->stopping = true;
	for (int i = 0; i < d->nlisteners; i++)
		au_listener_close(d->listeners[i]);
	d->nlisteners = 0;
	au_scrub_stop(d);
	au_meta_stop(d);
	au_node_stop(d->node);
	au_wake(d);
}

static void
on_want_snapshot(uv_async_t *async)
{
	au_snapshot_make(async->data);
}

/* ---- start and end ---------------------------------------------------- */

static bool
make_node(AuDaemon *d, char *err, size_t errlen)
{
	AuNodeOptions opt = {
		.node_id = d->node_id,.single_volume = d->config.single_volume,.alone = true,
		.hold_limit_bytes = d->config.hold_limit_mb * 1024 * 1024,
		.keep_bytes = d->config.log_keep_mb * 1024 * 1024,
		.move_bytes_per_s = d->config.move_mb_per_s * 1024 * 1024,
		.drop_grace_us = d->config.slice_grace_seconds * 1000000,
		.mend_bytes_per_s = d->config.repair_mb_per_s * 1024 * 1024,
		.sync_bytes_per_s = d->config.anti_entropy_mb_per_s * 1024 * 1024
	};

	d->host.ctx = d;
	d->host.now_us = host_now_us;
	d->host.alloc = au_heap_alloc;
	d->host.release = au_heap_release;
	d->host.log = host_log;
	d->host.fatal = host_fatal;
	d->host.status_json = host_status_json;
	d->host.command = au_meta_command;
	au_sessions_fill_host(&d->host);
	au_volumes_fill_host(&d->host);
	au_digest_fill_host(&d->host);
	au_mend_fill_host(&d->host);
	d->memory = au_store_memory_new(d->config.memory_mb * 1024 * 1024);
	if (d->memory != NULL)
	{
		opt.out_bytes_max = au_store_memory_plan(d->memory)->answers;
		d->node = au_node_new(&d->host, &opt);
	}
	if (d->node == NULL)
		snprintf(err, errlen, "out of memory");
	return d->node != NULL;
}

static void
make_handles(AuDaemon *d)
{
	uv_check_init(d->loop, &d->check);
	uv_idle_init(d->loop, &d->idle);
	uv_timer_init(d->loop, &d->timer);
	uv_signal_init(d->loop, &d->sigterm);
	uv_signal_init(d->loop, &d->sigint);
	uv_async_init(d->loop, &d->want_snapshot, on_want_snapshot);
	d->check.data = d->idle.data = d->timer.data = d;
	d->sigterm.data = d->sigint.data = d->want_snapshot.data = d;
	uv_check_start(&d->check, on_check);
	uv_idle_start(&d->idle, on_idle);
	uv_signal_start(&d->sigterm, on_signal, SIGTERM);
	uv_signal_start(&d->sigint, on_signal, SIGINT);
}

static bool
start(AuDaemon *d, char *err, size_t errlen)
{
	if (!au_logs_choose(d, err, errlen))
		return false;
	d->readers = au_readers_start(d->loop, au_volumes_read_done, d, err, errlen);
	if (d->readers == NULL || !make_node(d, err, errlen) || !au_volumes_open(d, err, errlen))
		return false;
	make_handles(d);
	if (!au_kv_prepare(d, err, errlen))
		return false;
	au_scrub_start(d);
	au_snapshot_make(d);
	return au_meta_start(d, err, errlen) && au_gossip_host_start(d, err, errlen) &&
		au_sessions_listen(d, err, errlen) && au_http_start(d, err, errlen);
}

static void
print_ready(AuDaemon *d)
{
	AuNodeStats stats;

	au_node_stats(d->node, &stats);
	au_log(d, AU_LOG_INFO, "ready, version %s, node %016" PRIX64 ", directory \"%s\", landing logs on %s%s%s, %u volume(s), %s%s%s%s",
		   AU_VERSION, d->node_id, d->config.dir, d->landing_io->kind,
		   d->config.log_dir[0] ? " in " : "", d->config.log_dir, stats.volumes,
		   d->config.socket[0] ? "socket " : "", d->config.socket,
		   d->config.listen[0] ? " listening on " : "", d->config.listen);
}

static void
close_any(uv_handle_t *handle, void *arg)
{
	(void) arg;
	if (!uv_is_closing(handle))
		uv_close(handle, NULL);
}

static void
end(AuDaemon *d)
{
	au_http_stop(d);
	au_meta_stop(d);
	if (d->node != NULL)
		au_node_stop(d->node);
	/* a start that failed half way: threads work on stores already */
	while (!au_meta_stopped(d) || d->work > 0)
		uv_run(d->loop, UV_RUN_ONCE);
	au_meta_free(d);
	au_readers_stop(d->readers);
	if (d->node != NULL)
		au_node_free(d->node);
	au_kv_end(d);
	au_volumes_close(d);
	au_store_memory_free(d->memory);
	free(d->status_text);
	free(d->snapshot.json);
	free(d->snapshot.metrics);
}

/*
 * What is freed goes back to the system: few arenas (each keeps what it once
 * had), large blocks by mmap at a threshold that stays where it is: above an
 * answer of a long read, which would otherwise be mapped, faulted in page by
 * page and unmapped for each.
 */
static void
tame_malloc(void)
{
	mallopt(M_ARENA_MAX, 2);
	mallopt(M_MMAP_THRESHOLD, 640 * 1024);
	mallopt(M_TRIM_THRESHOLD, 4 * 1024 * 1024);
}

int
main(int argc, char **argv)
{
	static AuDaemon daemon;
	AuDaemon   *d = &daemon;
	char		err[1024];
	int			lock;
	bool		ok;

	switch (au_config_read(&d->config, argc, argv))
	{
		case AU_CONFIG_RUN:
			break;
		case AU_CONFIG_EXIT_OK:
			return 0;
		default:
			return 2;
	}
	tame_malloc();
	setenv("UV_THREADPOOL_SIZE", "8", 0);
	signal(SIGPIPE, SIG_IGN);
	umask(0077);
	setvbuf(stderr, NULL, _IOLBF, 4096);
	d->loop = uv_default_loop();
	(void) uv_loop_configure(d->loop, UV_METRICS_IDLE_TIME);
	d->started_ms = uv_hrtime() / 1000000;
	pthread_mutex_init(&d->snapshot.lock, NULL);
	pthread_cond_init(&d->snapshot.made, NULL);

	if (!au_make_dir(d->config.dir, err, sizeof(err)) ||
		(lock = au_lock_dir(d->config.dir, err, sizeof(err))) < 0 ||
		!au_node_identity(d->config.dir, &d->node_id, err, sizeof(err)))
	{
		au_log(d, AU_LOG_ERROR, "could not start: %s", err);
		return 1;
	}
	ok = start(d, err, sizeof(err));
	if (ok)
	{
		print_ready(d);
		uv_run(d->loop, UV_RUN_DEFAULT);
	}
	else
		au_log(d, AU_LOG_ERROR, "could not start: %s", err);
	for (int i = 0; i < d->nlisteners; i++)
		au_listener_close(d->listeners[i]);
	end(d);
	uv_walk(d->loop, close_any, NULL);
	if (ok)
		au_log(d, AU_LOG_INFO, "stopped");
	close(lock);
	return ok ? 0 : 1;
}
