/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl.h: what the files of auroractl share.
 */
#ifndef AU_CTL_H
#define AU_CTL_H

#include <jansson.h>
#include <stdbool.h>

#define CTL_TIMEOUT_S 10

/* Where a node is asked; exactly one is set. */
typedef struct CtlTarget
{
	const char *socket;			/* the node's socket, Aurora's protocol */
	const char *http;			/* host:port */
	const char *http_socket;
} CtlTarget;

/* ctl_fetch.c: the status document as text, malloc'ed; NULL: a message was
 * printed. */
char	   *ctl_fetch_status(const CtlTarget *target);

/* ctl_status.c */
void		ctl_print_status(json_t *status);

/* ctl_check.c; log_dir: the daemon's --log-dir or ""; returns the exit status */
int			ctl_check(const char *dir, const char *log_dir);

/* ctl_cluster.c; what follows "cluster" on the command line */
int			ctl_cluster(int argc, char **argv);

#endif							/* AU_CTL_H */
