/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_scrub.c: the scrubber's clock: one step at a time of one volume, in a
 * worker thread, then a pause that makes it --scrub-mb-per-s on average.
 *
 *   timer ──begin──▶ worker ──end──▶ timer (bytes / rate later)
 *
 * A volume that was walked through rests for AU_SCRUB_REST_MS.
 */
#include <stdio.h>

#include "daemon/au_daemon.h"

#define AU_SCRUB_STEP_BYTES ((uint64_t) 512 << 10)
#define AU_SCRUB_REST_MS ((uint64_t) 10 * 60 * 1000)
#define AU_SCRUB_IDLE_MS 1000	/* nothing to do: look again */

static void on_timer(uv_timer_t *timer);

static uint64_t
now_ms(void)
{
	return uv_hrtime() / 1000000;
}

static void
again(AuDaemon *d, uint64_t after_ms)
{
	if (!d->stopping && !uv_is_closing((uv_handle_t *) &d->scrub_timer))
		uv_timer_start(&d->scrub_timer, on_timer, after_ms, 0);
}

/* Not resting, not closed; the one that was looked at longest ago. */
static AuHostVolume *
next_volume(AuDaemon *d)
{
	AuHostVolume *best = NULL;

	for (AuHostVolume *v = d->volumes; v != NULL; v = v->next)
		if (v->store != NULL && (v->scrub_at <= now_ms() ||
								 (v->scrub_at > now_ms() + AU_SCRUB_IDLE_MS && au_disk_short(d))) &&
			(best == NULL || v->scrub_at < best->scrub_at))
			best = v;
	return best;
}

static void
on_problem(void *ctx, const char *text)
{
	AuHostVolume *v = ctx;

	au_log(v->daemon, AU_LOG_ERROR, "volume %llu: damage found by the scrubber: %s",
		   (unsigned long long) v->system_identifier, text);
	au_node_damaged(v->daemon->node, v, text);
}

static void
work(uv_work_t *w)
{
	AuHostVolume *v = w->data;

	v->scrub_bytes = au_pagestore_scrub_work(v->scrub, AU_SCRUB_STEP_BYTES);
}

static void
done(uv_work_t *w, int status)
{
	AuHostVolume *v = w->data;
	AuDaemon   *d = v->daemon;
	uint64_t	rate = d->config.scrub_mb_per_s * 1024 * 1024;
	bool		finished = au_pagestore_scrub_end(v->scrub, on_problem, v);

	(void) status;
	v->scrub = NULL;
	d->work--;
	if (au_disk_short(d))
	{
		/* garbage must go: no pause but between walks */
		v->scrub_at = now_ms() + (finished ? AU_SCRUB_IDLE_MS : 0);
		again(d, 1);
		return;
	}
	v->scrub_at = now_ms() + (finished ? AU_SCRUB_REST_MS : 0);
	again(d, v->scrub_bytes * 1000 / rate + 1);
}

static void
on_timer(uv_timer_t *timer)
{
	AuDaemon   *d = timer->data;
	AuHostVolume *v = next_volume(d);

	if (v != NULL)
		v->scrub = au_pagestore_scrub_begin(v->store);
	if (v == NULL || v->scrub == NULL)
	{
		again(d, AU_SCRUB_IDLE_MS);
		return;
	}
	v->scrub_work.data = v;
	d->work++;
	uv_queue_work(d->loop, &v->scrub_work, work, done);
}

void
au_scrub_start(AuDaemon *d)
{
	uv_timer_init(d->loop, &d->scrub_timer);
	d->scrub_timer.data = d;
	if (d->config.scrub_mb_per_s > 0)
		again(d, AU_SCRUB_IDLE_MS);
}

void
au_scrub_stop(AuDaemon *d)
{
	uv_timer_stop(&d->scrub_timer);
}
