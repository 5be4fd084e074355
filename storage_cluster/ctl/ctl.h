/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl.h: what the files of auroractl share.
 */
#ifndef AU_CTL_H
#define AU_CTL_H

#include <jansson.h>
#include <stdbool.h>

#include "common/au_wire.h"

#define CTL_TIMEOUT_S 10

/* Where a node is asked; exactly one is set. */
typedef struct CtlTarget
{
	const char *socket;			/* the node's socket, Aurora's protocol */
	const char *node;			/* host:port, Aurora's protocol */
	const char *http;			/* host:port */
	const char *http_socket;
} CtlTarget;

/* ctl_fetch.c: the status document, a new reference; NULL: a message was
 * printed. */
json_t	   *ctl_get_status(const CtlTarget *target);

/* ctl_wire.c: open says HELLO as an administrator, ask sends a frame with id
 * CTL_WIRE_ID and waits for an answer of a type, which is good until the next
 * one.  NULL, false: a message was printed. */
typedef struct CtlWire CtlWire;
#define CTL_WIRE_ID 2
CtlWire    *ctl_wire_open(const CtlTarget *target);
bool		ctl_wire_ask(CtlWire *c, const uint8_t *frame, size_t len, uint16_t want, AuFrame *answer);
void		ctl_wire_close(CtlWire *c);

/* ctl_status.c */
void		ctl_print_status(json_t *status);
const char *ctl_text_of(json_t *o, const char *key);	/* "": none */
int64_t		ctl_number_of(json_t *o, const char *key);	/* 0: none */

/* ctl_node.c: `auroractl node ...`, `group ...` and `ring show`; words: what follows; and
 * the cluster's part of a status.  They return the exit status. */
int			ctl_node(const CtlTarget *target, int nwords, const char **words, bool force, bool wait);
int			ctl_group(const CtlTarget *target, int nwords, const char **words);
int			ctl_ring(const CtlTarget *target, int nwords, const char **words);
void		ctl_print_cluster(json_t *cluster);

/* ctl_check.c; log_dir: the daemon's --log-dir or ""; returns the exit status */
int			ctl_check(const char *dir, const char *log_dir);

/* ctl_kv.c: `auroractl kv ...`; words: what follows.  R, W, N of a request: 0
 * as the node thinks best. */
typedef struct CtlKv
{
	const char *context;		/* hexadecimal, as `kv get` shows it; NULL: none */
	const char *file;			/* the value is in it; "-": standard input */
	const char *limit;
	const char *after;
	const char *n;
	const char *r;
	const char *w;
	bool		sloppy;
	bool		as_json;
} CtlKv;
int			ctl_kv(const CtlTarget *target, int nwords, const char **words, const CtlKv *o);

/* ctl_cluster.c; what follows "cluster" on the command line */
int			ctl_cluster(int argc, char **argv);

#endif							/* AU_CTL_H */
