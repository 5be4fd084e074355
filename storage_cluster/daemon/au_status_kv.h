/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_status_kv.h: what the key-value interface shows of itself in /status and
 * /metrics.  Loop thread only.
 */
#ifndef AU_STATUS_KV_H
#define AU_STATUS_KV_H

#include <jansson.h>

#include "daemon/au_daemon.h"
#include "daemon/au_text.h"

/* null: not in use; "problem": why the store could not be opened. */
json_t	   *au_kv_json(AuDaemon *d);
/* Nothing, if it is not in use; only aurora_storaged_kv_up if there is a problem. */
void		au_kv_metrics(AuDaemon *d, AuText *t);
/* au_status.c: count, sum, quantiles. */
json_t	   *au_latency_json(const AuHist *h);

#endif							/* AU_STATUS_KV_H */
