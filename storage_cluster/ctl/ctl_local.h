/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl_local.h: files and processes of a cluster on this machine; layout and
 * invariants in ctl_cluster.c.
 */
#ifndef AU_CTL_LOCAL_H
#define AU_CTL_LOCAL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define LOCAL_NODES_MAX 7		/* addresses that aurora.storage_nodes takes */
#define LOCAL_NODES_DEFAULT 3
#define LOCAL_PORT_DEFAULT 7015
#define LOCAL_DIR_MAX 2048
#define LOCAL_PATH_MAX (LOCAL_DIR_MAX + 64)
#define LOCAL_START_S 60		/* a node that has much log takes its time */
#define LOCAL_STOP_S 60
#define LOCAL_CATCH_UP_S 600

typedef struct LocalCluster
{
	char		dir[LOCAL_DIR_MAX]; /* absolute */
	int			lock_fd;		/* of D/cluster; -1: there is none yet */
	int			nodes;
	int			port;			/* of node 1 */
} LocalCluster;

/* False: too long. */
bool		local_absolute(const char *dir, char *out, size_t cap);
/* D/NAME */
void		local_path(const LocalCluster *c, char *out, const char *name);
/* D/nodeI and a suffix; out has LOCAL_PATH_MAX bytes. */
void		local_node_path(const LocalCluster *c, char *out, int i, const char *suffix);

/* Node i's port; the next one is for the cluster's consensus. */
static inline int
local_port(const LocalCluster *c, int i)
{
	return c->port + 2 * (i - 1);
}

/* Writes nodeI.conf if there is none. */
bool		local_write_config(const LocalCluster *c, int i, char *err, size_t errlen);

/* The process of node i; 0: it does not run. */
pid_t		local_pid(const LocalCluster *c, int i);
/* Starts node i as a process of its own, its messages in nodeI.log; -1: err. */
pid_t		local_launch(const LocalCluster *c, int i, char *err, size_t errlen);
/* Does it listen on its HTTP socket? */
bool		local_answers(const LocalCluster *c, int i);

#endif							/* AU_CTL_LOCAL_H */
