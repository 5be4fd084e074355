/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_meta.c: a node becomes a member of a cluster, follows its view, ends; see
 * au_meta.h.
 */
#include "daemon/au_meta_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "common/au_wire_cluster.h"
#include "daemon/au_files.h"

#define SAVE_AGAIN_MS 500

uint64_t
meta_now(void)
{
	return uv_hrtime() / 1000000;
}

/* ---- addresses -------------------------------------------------------- */

static bool
is_any(const char *host)
{
	return host[0] == '\0' || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0 ||
		strcmp(host, "*") == 0;
}

/* libraft knows IPv4 only, and no names. */
static bool
resolve(const char *host, char *out, size_t outlen)
{
	struct addrinfo hints = {.ai_family = AF_INET,.ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	struct sockaddr_in sin;

	if (getaddrinfo(host, NULL, &hints, &list) != 0)
		return false;
	memcpy(&sin, list->ai_addr, sizeof(sin));
	freeaddrinfo(list);
	return inet_ntop(AF_INET, &sin.sin_addr, out, (socklen_t) outlen) != NULL;
}

/* Where others find us: --advertise or --listen, and --meta-listen, or the
 * port after that of --listen. */
static bool
set_addresses(AuMeta *m, char *err, size_t errlen)
{
	const AuConfig *c = &m->d->config;
	const char *own = c->advertise[0] != '\0' ? c->advertise : c->listen;
	char		host[AU_ADDRESS_MAX];
	char		meta_host[AU_ADDRESS_MAX];
	char		ip[64];
	char		next[16];
	const char *port;
	const char *meta_port = next;

	if (own[0] == '\0' || strlen(own) >= AU_ADDRESS_MAX || !au_split_address(own, host, sizeof(host), &port) ||
		is_any(host))
	{
		snprintf(err, errlen, "other nodes of the cluster must know where this one is: give --listen a host and a port, or give --advertise HOST:PORT");
		return false;
	}
	memcpy(m->address, own, strlen(own) + 1);
	snprintf(meta_host, sizeof(meta_host), "%s", host);
	snprintf(next, sizeof(next), "%d", atoi(port) + 1);
	if (c->meta_listen[0] != '\0' &&
		!au_split_address(c->meta_listen, meta_host, sizeof(meta_host), &meta_port))
	{
		snprintf(err, errlen, "--meta-listen \"%s\" is not of the form HOST:PORT, with a port from 1 to 65535",
				 c->meta_listen);
		return false;
	}
	if (atoi(meta_port) > 65535)
	{
		snprintf(err, errlen, "there is no port after that of \"%s\" for the cluster's consensus; give one with --meta-listen",
				 own);
		return false;
	}
	if (is_any(meta_host))
	{
		snprintf(m->meta_bind, sizeof(m->meta_bind), "0.0.0.0:%s", meta_port);
		snprintf(meta_host, sizeof(meta_host), "%s", host);
	}
	if (!resolve(meta_host, ip, sizeof(ip)))
	{
		snprintf(err, errlen, "host \"%s\" has no IPv4 address, which the cluster's consensus needs; give one with --meta-listen",
				 meta_host);
		return false;
	}
	snprintf(m->meta_address, sizeof(m->meta_address), "%s:%s", ip, meta_port);
	if (m->meta_bind[0] == '\0')
		snprintf(m->meta_bind, sizeof(m->meta_bind), "%s", m->meta_address);
	return true;
}

/* ---- views ------------------------------------------------------------ */

static const AuViewNode *
self(const AuMeta *m)
{
	return au_view_node_by_id(&m->view, m->d->node_id);
}

static bool
save_view(AuMeta *m)
{
	static uint8_t bytes[AU_VIEW_ENCODED_MAX];	/* loop thread only */
	size_t		len = au_view_encode(&m->view, bytes, sizeof(bytes));
	char		err[1024];

	if (au_write_file(m->d->config.dir, "VIEW", bytes, len, err, sizeof(err)))
		return true;
	if (meta_now() >= m->next_unsaved)
	{
		m->next_unsaved = meta_now() + META_COMPLAIN_MS;
		au_log(m->d, AU_LOG_ERROR, "could not keep the cluster's view %" PRIu64 ", and goes on with the one before until it can: %s",
			   m->view.epoch, err);
	}
	return false;
}

/*
 * First to disk, then to the node.  What it does because of a view must not
 * outlive that view: a slice that came and is owned would not be wanted by the
 * view before, which a restart would find, and be dropped.
 */
static void
hand_on(AuMeta *m)
{
	m->unsaved = (self(m) != NULL || m->state == META_REMOVED) && !save_view(m);
	m->next_save = meta_now() + SAVE_AGAIN_MS;
	if (m->unsaved)
		return;
	if (au_node_set_view(m->d->node, &m->view) != AU_OK)
		au_log(m->d, AU_LOG_ERROR, "could not take the cluster's view: out of memory");
	au_wake(m->d);
}

/* AU_NOT_FOUND: there is none. */
static AuStatus
read_view(AuMeta *m, char *err, size_t errlen)
{
	static uint8_t bytes[AU_VIEW_ENCODED_MAX + 1];
	char		path[4200];
	long		n;

	snprintf(path, sizeof(path), "%s/VIEW", m->d->config.dir);
	n = au_read_file(path, bytes, sizeof(bytes));
	if (n < 0 && errno == ENOENT)
		return AU_NOT_FOUND;
	if (n < 0)
	{
		snprintf(err, errlen, "could not read \"%s\": %s", path, strerror(errno));
		return AU_IO;
	}
	if (!au_view_decode(&m->view, bytes, (size_t) n))
	{
		memset(&m->view, 0, sizeof(m->view));
		snprintf(err, errlen, "\"%s\" is damaged, or of another version; remove it and start this node once with --join HOST:PORT of another node of the cluster",
				 path);
		return AU_CORRUPT;
	}
	return AU_OK;
}

static void
log_difference(AuMeta *m, const AuView *old)
{
	for (int i = 0; i < m->view.nnodes; i++)
	{
		const AuViewNode *n = &m->view.nodes[i];
		const AuViewNode *o = au_view_node(old, n->number);

		if (o == NULL || o->state != n->state || o->up != n->up)
			au_log(m->d, AU_LOG_INFO, "cluster: node %u at %s is %s, %s", n->number, n->address,
				   n->state == AU_NODE_JOINING ? "joining" : n->state == AU_NODE_ACTIVE ?
				   "active" : "draining", n->up ? "up" : "down");
	}
	for (int i = 0; i < old->nnodes; i++)
		if (au_view_node(&m->view, old->nodes[i].number) == NULL)
			au_log(m->d, AU_LOG_INFO, "cluster: node %u at %s was removed", old->nodes[i].number,
				   old->nodes[i].address);
}

void
meta_take_view(AuMeta *m, const AuView *v)
{
	static AuView old;			/* loop thread only */

	if (v->epoch <= m->view.epoch || v->cluster_id == 0 ||
		(m->view.cluster_id != 0 && v->cluster_id != m->view.cluster_id))
		return;
	old = m->view;
	m->view = *v;
	meta_listen_greeting(m);
	if (m->state == META_MEMBER && old.epoch > 0 && au_view_node_by_id(&old, m->d->node_id) != NULL &&
		(self(m) == NULL || self(m)->number != m->number))
	{
		m->state = META_REMOVED;
		au_log(m->d, AU_LOG_ERROR,
			   "this node was removed from its cluster (it was node %u); stop it, and give it an empty --dir if it is to join again",
			   m->number);
		m->number = 0;
	}
	log_difference(m, &old);
	hand_on(m);
}

void
au_meta_heard(AuMeta *m, uint64_t epoch, const char *address)
{
	if (epoch <= m->view.epoch)
		return;
	m->next_poll = 0;
	if (address != NULL)
		snprintf(m->told_by, sizeof(m->told_by), "%s", address);
}

/* ---- what consensus remembers ------------------------------------------ */

static bool
exists(const AuMeta *m, const char *name)
{
	char		path[4300];

	snprintf(path, sizeof(path), "%s/%s", m->d->config.dir, name);
	return au_is_there(path);
}

/*
 * A node that votes has promised things.  If it has forgotten them, it might
 * vote twice in a term, and for somebody who lacks what it helped to commit.
 */
static bool
remembers(const AuMeta *m, char *err, size_t errlen)
{
	char		first[64];
	char		second[64];

	snprintf(first, sizeof(first), "meta/%u/metadata1", m->number);
	snprintf(second, sizeof(second), "meta/%u/metadata2", m->number);
	if (!self(m)->voter || exists(m, first) || exists(m, second))
		return true;
	snprintf(err, errlen, "node %u votes in the cluster's consensus, but \"%s/meta/%u\" does not have what it voted for; give the directory back, or replace the node: auroractl node remove %u --force, then join with an empty --dir",
			 m->number, m->d->config.dir, m->number, m->number);
	return false;
}

/*
 * There is no VIEW.  A directory that was in a cluster does not begin anew by
 * itself, alone or with a new cluster; only one whose first start was
 * interrupted may.
 */
static bool
may_begin(const AuMeta *m, char *err, size_t errlen)
{
	if (m->d->config.join[0] != '\0' || !exists(m, "meta") ||
		(m->d->config.cluster_init && exists(m, "meta/1")))
		return true;
	snprintf(err, errlen, "this node was in a cluster (\"%s/meta\" is there), but \"%s/VIEW\" is missing; start it once with --join HOST:PORT of another node of the cluster",
			 m->d->config.dir, m->d->config.dir);
	return false;
}

/* ---- asking others for the view --------------------------------------- */

static void
complain(AuMeta *m, const char *what)
{
	if (meta_now() < m->next_complaint)
		return;
	m->next_complaint = meta_now() + META_COMPLAIN_MS;
	au_log(m->d, AU_LOG_WARNING, "could not join the cluster through \"%s\" yet: %s", m->d->config.join, what);
}

static void
on_view(void *ctx, const AuFrame *f, const char *why)
{
	static AuView v;			/* loop thread only */
	AuMeta	   *m = ctx;
	AuMsgView	msg;

	m->polling = false;
	if (f != NULL && au_dec_view(f, &msg) && msg.length > 0 &&
		au_view_decode(&v, msg.bytes, msg.length))
		meta_take_view(m, &v);
	if (m->state == META_JOINING && m->view.cluster_id == 0)
		complain(m, f == NULL ? why : "it is in no cluster itself");
}

static void
poll_view(AuMeta *m, uint64_t now)
{
	uint8_t		frame[64];
	AuMsgGetView msg = {.epoch = m->view.epoch};
	const char *address = m->view.nnodes < 2 ? m->d->config.join : "";
	char		told_by[AU_ADDRESS_MAX];
	uint64_t	node_id = 0;
	AuWriter	w;

	m->next_poll = now + (m->state == META_REMOVED ? META_POLL_REMOVED_MS :
						  m->leader != 0 && m->state == META_MEMBER ? META_POLL_MS : META_POLL_LOST_MS);
	if (m->polling)
		return;
	for (int i = 0; i < m->view.nnodes; i++)
	{
		const AuViewNode *n = &m->view.nodes[m->poll_index++ % m->view.nnodes];

		if (n->node_id == m->d->node_id)
			continue;
		address = n->address;
		node_id = n->node_id;
		/* now and then also one that is said to be dead */
		if (n->up || m->poll_index % 7 == 0)
			break;
	}
	/* who has a newer view may be one that ours does not have, and its leader */
	if (m->told_by[0] != '\0')
	{
		memcpy(told_by, m->told_by, sizeof(told_by));
		m->told_by[0] = '\0';
		address = told_by;
		node_id = 0;
	}
	if (address[0] == '\0')
		return;
	au_writer_start(&w, frame, sizeof(frame));
	m->polling = au_enc_get_view(&w, AU_ASK_ID, &msg) &&
		au_ask(m->d, address, node_id, META_ASK_MS, w.data, w.len, on_view, m);
}

/* ---- joining ---------------------------------------------------------- */

AuViewCommand
meta_join_command(const AuMeta *m)
{
	const AuConfig *c = &m->d->config;
	AuViewCommand j = {.type = AU_VIEW_JOIN};

	j.node.node_id = m->d->node_id;
	j.node.number = m->number;	/* 0: none yet */
	j.with = m->number == 0 ? m->view.next_number : 0;
	snprintf(j.node.address, sizeof(j.node.address), "%s", m->address);
	snprintf(j.node.meta_address, sizeof(j.node.meta_address), "%s", m->meta_address);
	if (strlen(c->http) < sizeof(j.node.http))
		strcpy(j.node.http, c->http);
	/* a restart without --zone leaves it where it was */
	snprintf(j.node.zone, sizeof(j.node.zone), "%s",
			 c->zone[0] != '\0' || self(m) == NULL ? c->zone : self(m)->zone);
	j.node.weight = (uint16_t) c->weight;
	return j;
}

static void
on_joined(void *ctx, const AuFrame *f, const char *why)
{
	AuMeta	   *m = ctx;
	AuMsgClusterOk ok;
	AuMsgError	e;

	m->asking_join = false;
	if (f != NULL && au_dec_cluster_ok(f, &ok))
		m->next_poll = 0;		/* the view has our number */
	else if (f != NULL && au_dec_error(f, &e))
		complain(m, e.message);
	else
		complain(m, why);
}

/* Ask for a number until the view has it. */
static void
joining_tick(AuMeta *m, uint64_t now)
{
	AuViewCommand c = meta_join_command(m);
	uint8_t		bytes[AU_VIEW_COMMAND_MAX];
	uint8_t		frame[AU_VIEW_COMMAND_MAX + 64];
	AuMsgCluster msg = {.bytes = bytes};
	AuWriter	w;
	char		err[512];

	if (m->unsaved)
		return;					/* it would not know whose it is after a crash */
	if (self(m) != NULL)
	{
		m->number = self(m)->number;
		if (!remembers(m, err, sizeof(err)) || !meta_raft_start(m, err, sizeof(err)))
		{
			au_log(m->d, AU_LOG_ERROR, "%s", err);
			_Exit(3);
		}
		m->state = META_MEMBER;
		m->announced = true;
		au_log(m->d, AU_LOG_INFO, "joined the cluster as node %u", m->number);
		return;
	}
	/* JOIN says what view it is of */
	if (m->asking_join || m->view.cluster_id == 0 || now % 1000 >= META_TICK_MS)
		return;
	msg.length = (uint32_t) au_view_command_encode(&c, bytes, sizeof(bytes));
	au_writer_start(&w, frame, sizeof(frame));
	m->asking_join = au_enc_cluster(&w, AU_ASK_ID, &msg) &&
		au_ask(m->d, m->d->config.join, 0, META_ASK_MS * 3, w.data, w.len, on_joined, m);
	if (!m->asking_join)
		complain(m, "it could not be asked");
}

static void
on_announced(void *ctx, const AuCommandResult *r)
{
	AuMeta	   *m = ctx;

	if (r->status == AU_IO)
		m->announced = false;	/* nobody took it */
	else if (r->status != AU_OK)
		au_log(m->d, AU_LOG_WARNING, "the cluster does not take what this node says of itself: %s", r->message);
}

/* ---- the tick --------------------------------------------------------- */

static void
watch_leader(AuMeta *m)
{
	raft_id		id = 0;
	const char *address;

	if (m->raft_open && !m->raft_closing)
		raft_leader(&m->raft, &id, &address);
	m->leader = (uint32_t) id;
	if (meta_raft_leads(m) && m->raft_state != RAFT_LEADER)
	{
		meta_lead_begins(m);
		au_log(m->d, AU_LOG_INFO, "this node leads the cluster's consensus now");
	}
	if (m->raft_open && m->raft.state == RAFT_UNAVAILABLE && m->raft_state != RAFT_UNAVAILABLE)
		au_log(m->d, AU_LOG_ERROR, "this node takes no part in the cluster's consensus any more: %s",
			   raft_errmsg(&m->raft));
	m->raft_state = m->raft_open ? m->raft.state : RAFT_UNAVAILABLE;
}

static void
on_tick(uv_timer_t *timer)
{
	AuMeta	   *m = timer->data;
	uint64_t	now = meta_now();

	watch_leader(m);
	meta_listen_tick(m, now);
	if (m->unsaved && m->state != META_STOPPING && now >= m->next_save)
		hand_on(m);
	if (m->state == META_REMOVED)
		meta_raft_close(m);
	if (m->state == META_JOINING)
		joining_tick(m, now);
	if (m->state == META_MEMBER && !m->announced)
	{
		AuViewCommand c = meta_join_command(m);

		m->announced = au_meta_propose(m, &c, on_announced, m);
	}
	if (m->state != META_STOPPING && now >= m->next_poll && (m->view.nnodes > 1 || !m->creates))
		poll_view(m, now);
	if (m->state == META_MEMBER && meta_raft_leads(m))
		meta_lead_tick(m, now);
	meta_proposals_tick(m, now);
}

void
meta_soon(AuMeta *m)
{
	if (m->tick_open)
		uv_timer_start(&m->tick, on_tick, 0, META_TICK_MS);
}

/* ---- start and end ---------------------------------------------------- */

static void
recovered_path(const AuMeta *m, char *path, size_t len)
{
	snprintf(path, len, "%s/RECOVERED", m->d->config.dir);
}

static void
read_recovered(AuMeta *m)
{
	char		path[4200];
	uint8_t		epoch[8];

	recovered_path(m, path, sizeof(path));
	if (au_read_file(path, epoch, sizeof(epoch)) == (long) sizeof(epoch))
		m->recovered_from = au_get_u64(epoch);
}

/*
 * Go on without the others that vote.  Once: an option that is left in a file
 * would leave the others behind with each start.  What was interrupted before
 * the cluster went on may be done again.
 */
static bool
begin_recovery(AuMeta *m, char *err, size_t errlen)
{
	char		path[4200];
	uint8_t		epoch[8];

	if (m->recovered_from != 0 && m->view.epoch >= m->recovered_from + AU_VIEW_RECOVER_EPOCHS)
	{
		recovered_path(m, path, sizeof(path));
		snprintf(err, errlen, "--cluster-recover was done here already; start without it (to do it once more, remove \"%s\" first)",
				 path);
		return false;
	}
	if (!self(m)->voter)
	{
		snprintf(err, errlen, "this node did not vote in the cluster's consensus and may not know its last view; use --cluster-recover on one that did");
		return false;
	}
	au_put_u64(epoch, m->view.epoch);
	if (!au_write_file(m->d->config.dir, "RECOVERED", epoch, sizeof(epoch), err, errlen))
		return false;
	m->recovered_from = m->view.epoch;
	au_log(m->d, AU_LOG_WARNING, "going on from view %" PRIu64 " without the other nodes that voted; they must never be started again",
		   m->view.epoch);
	m->recovers = true;
	return true;
}

static bool
become(AuMeta *m, AuStatus had_view, char *err, size_t errlen)
{
	const AuConfig *c = &m->d->config;

	if (had_view == AU_OK)
	{
		if (self(m) == NULL)
		{
			snprintf(err, errlen, "this node was removed from its cluster; give it an empty --dir to join again");
			return false;
		}
		m->number = self(m)->number;
		m->state = META_MEMBER;
		read_recovered(m);
		if (!remembers(m, err, errlen) || (c->cluster_recover && !begin_recovery(m, err, errlen)))
			return false;
		return au_node_set_view(m->d->node, &m->view) == AU_OK && meta_raft_start(m, err, errlen);
	}
	if (c->cluster_init)
	{
		m->creates = true;
		m->announced = true;	/* JOIN goes with INIT */
		m->number = 1;
		m->state = META_MEMBER;
		return meta_raft_start(m, err, errlen);
	}
	m->state = META_JOINING;
	return true;
}

bool
au_meta_start(AuDaemon *d, char *err, size_t errlen)
{
	AuMeta	   *m = calloc(1, sizeof(*m));
	AuStatus	status;

	if (m == NULL)
	{
		snprintf(err, errlen, "out of memory");
		return false;
	}
	m->d = d;
	m->raft_state = RAFT_UNAVAILABLE;
	status = read_view(m, err, errlen);
	if (status == AU_NOT_FOUND && !may_begin(m, err, errlen))
	{
		free(m);
		return false;
	}
	if (status == AU_NOT_FOUND && !d->config.cluster_init && d->config.join[0] == '\0')
	{
		free(m);
		return true;			/* in no cluster */
	}
	d->meta = m;
	au_node_in_cluster(d->node);
	if ((status != AU_OK && status != AU_NOT_FOUND) || !set_addresses(m, err, errlen))
		return false;
	if (d->config.single_volume != 0)
	{
		snprintf(err, errlen, "--single-volume is for a node alone, a node of a cluster serves all volumes");
		return false;
	}
	uv_timer_init(d->loop, &m->tick);
	m->tick.data = m;
	m->tick_open = true;
	if (!become(m, status, err, errlen))
		return false;
	uv_timer_start(&m->tick, on_tick, 0, META_TICK_MS);
	return true;
}

static void
on_tick_closed(uv_handle_t *handle)
{
	AuMeta	   *m = handle->data;

	m->tick_open = false;
	au_wake(m->d);
}

void
au_meta_stop(AuDaemon *d)
{
	AuMeta	   *m = d->meta;

	if (m == NULL || m->state == META_STOPPING)
		return;
	m->state = META_STOPPING;
	au_asks_stop(d);
	meta_raft_close(m);
	meta_proposals_tick(m, meta_now());
	if (m->tick_open)
		uv_close((uv_handle_t *) &m->tick, on_tick_closed);
}

bool
au_meta_stopped(const AuDaemon *d)
{
	const AuMeta *m = d->meta;

	return d->nasks == 0 && (m == NULL || (!m->raft_open && !m->tick_open &&
										   !m->listener_open && m->peers == NULL));
}

void
au_meta_free(AuDaemon *d)
{
	free(d->meta);
	d->meta = NULL;
}

const AuView *
au_meta_view(const AuMeta *m)
{
	return &m->view;
}

uint32_t
au_meta_number(const AuMeta *m)
{
	return m->number;
}

const char *
au_meta_address(const AuMeta *m)
{
	return m->address;
}

uint32_t
au_meta_leader(const AuMeta *m)
{
	return m->leader;
}
