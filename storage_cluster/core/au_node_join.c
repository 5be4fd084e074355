/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_node_join.c: volumes of the view that this node does not have.
 *
 *   connect to a node that may have it ──▶ EXPORT position ──▶ EXPORT_OK
 *        │                                       │
 *        │ nobody has it: look again later       ├─ its log is kept from the volume's
 *        ▼                                       │  start: an empty volume, which follows
 *   (it is made when a writer comes)             └─ else: a volume with sizes, drops and
 *                                                   times of that node, log from there on
 *
 * What slices the view wants here come later (au_node_move.c).  One volume at a
 * time, in turn.  A crash in between leaves nothing that is taken for a volume.
 * The node whose sizes come holds their LSN (au_node_hold.c) until all are in.
 */
#include "core/au_node_int.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "common/au_wire_export.h"

#define ANSWER_US ((uint64_t) 30 * 1000000)

typedef struct AuJoining
{
	uint64_t	system_identifier;	/* 0: nothing under way */
	AuConn	   *conn;
	uint64_t	node_id;		/* that is asked */
	uint32_t	source;			/* of au_p_source */
	uint32_t	missed;			/* of those that may have it, not heard from */
	uint32_t	turn;			/* the view's volume that is looked at next */
	bool		asked;
	uint64_t	at;				/* nothing before; asked: no answer after is none */
	void	   *found;			/* a volume that is begun; NULL: none */
	AuVolumeMeta meta;
	AuLsn		upto;
	AuLsn		horizon;
	AuPlace		place;
	uint64_t	unknown[AU_VIEW_VOLUMES_MAX];	/* nobody has these */
	uint32_t	nunknown;
} AuJoining;

bool
au_j_unknown(const AuNode *n, uint64_t system_identifier)
{
	for (uint32_t i = 0; n->joining != NULL && i < n->joining->nunknown; i++)
		if (n->joining->unknown[i] == system_identifier)
			return true;
	return false;
}

static void
set_unknown(AuJoining *j, bool unknown)
{
	uint32_t	i = 0;

	while (i < j->nunknown && j->unknown[i] != j->system_identifier)
		i++;
	if (unknown && i == j->nunknown && i < AU_VIEW_VOLUMES_MAX)
		j->unknown[j->nunknown++] = j->system_identifier;
	else if (!unknown && i < j->nunknown)
		j->unknown[i] = j->unknown[--j->nunknown];
}

static void
abandon(AuNode *n)
{
	AuJoining  *j = n->joining;

	if (j->found != NULL)
		n->host.found_abandon(n->host.ctx, j->found);
	j->found = NULL;
}

void
au_j_free(AuNode *n)
{
	if (n->joining == NULL)
		return;
	if (n->joining->conn != NULL)
		au_node_conn_closed(n, n->joining->conn);
	abandon(n);
	n->host.release(n->host.ctx, n->joining);
	n->joining = NULL;
}

static void
join_closed(AuNode *n, AuConn *c)
{
	AuJoining  *j = n->joining;

	assert(j->conn == c);
	j->conn = NULL;
	if (j->asked)
		j->at = n->host.now_us(n->host.ctx) + AU_NODE_RETRY_US;
	j->asked = false;
	abandon(n);
}

enum
{
	ID_HELLO = 1,
	ID_EXPORT,
	ID_HOLD
};

static void
ask(AuNode *n, uint8_t what)
{
	AuJoining  *j = n->joining;
	AuMsgExport m = {
		.what = what,.upto = j->upto,.horizon = j->horizon,.place = j->place,
		.budget = AU_NODE_EXPORT_BYTES
	};
	AuWriter	w;

	if (!au_n_reserve(n, j->conn, &w, AU_WIRE_HEADER + 128))
		return;
	j->asked = true;
	j->at = n->host.now_us(n->host.ctx) + ANSWER_US;
	au_n_send(n, j->conn, &w, au_enc_export(&w, ID_EXPORT, &m));
}

/* It is on this node now. */
static AuStatus
add(AuNode *n, void *handle, char *err, size_t errlen)
{
	AuJoining  *j = n->joining;
	AuStatus	status = au_node_add_volume(n, &j->meta, handle, err, errlen);

	if (status == AU_OK)
		au_n_log(n, AU_LOG_INFO, "volume %" PRIu64 " of the cluster is followed from %X/%X on",
				 j->meta.system_identifier, AU_LSN_ARGS(n->host.log_start(n->host.ctx, handle)));
	j->system_identifier = 0;
	return status;
}

static AuStatus
take_position(AuNode *n, const AuMsgExportOk *m, char *err, size_t errlen)
{
	const AuNodeHost *h = &n->host;
	AuJoining  *j = n->joining;
	void	   *handle;
	AuStatus	status;

	j->meta = (AuVolumeMeta)
	{
		.system_identifier = j->system_identifier,.start_lsn = m->start_lsn,
		.timeline = m->timeline,.segment_size = m->segment_size,.group = m->group
	};
	/* Whose group nobody told is kept by that node alone; not by this one. */
	if (j->meta.group.n == 0)
	{
		j->meta.group.n = j->meta.group.write_quorum = 1;
		j->meta.group.members[0].node_id = j->node_id;
	}
	if (n->nvols == AU_NODE_VOLUMES_MAX || !au_segment_size_valid(m->segment_size))
	{
		snprintf(err, errlen, "this node cannot take it");
		return AU_REFUSED;
	}
	if (m->log_lsn <= m->start_lsn)
	{
		status = h->volume_create(h->ctx, &j->meta, &handle, err, errlen);
		return status == AU_OK ? add(n, handle, err, errlen) : status;
	}
	status = h->found_begin(h->ctx, &j->meta, &m->position, &j->found, err, errlen);
	if (status != AU_OK)
		return status;
	j->upto = m->position.applied;
	j->horizon = m->position.horizon;
	memset(&j->place, 0, sizeof(j->place));
	j->place.key[0] = 2;		/* AU_KS_SIZE */
	if (au_h_ask(n, j->conn, ID_HOLD, j->upto))
	{
		j->asked = true;
		j->at = h->now_us(h->ctx) + ANSWER_US;
	}
	return AU_OK;
}

static AuStatus
take_sizes(AuNode *n, const AuFrame *f, char *err, size_t errlen)
{
	const AuNodeHost *h = &n->host;
	AuJoining  *j = n->joining;
	void	   *handle = j->found;
	bool		done;
	AuStatus	status = h->found_take(h->ctx, handle, f->payload, f->length, &j->place, &done,
									   err, errlen);

	if (status != AU_OK)
		return status;
	if (!done)
	{
		ask(n, AU_EXPORT_SIZES);
		return AU_OK;
	}
	j->found = NULL;
	status = h->found_end(h->ctx, handle, err, errlen);
	return status == AU_OK ? add(n, handle, err, errlen) : status;
}

static void
join_answer(AuNode *n, AuConn *c, const AuFrame *f)
{
	AuJoining  *j = n->joining;
	AuStatus	status = AU_INVALID;
	AuMsgHelloOk ok;
	AuMsgError	e;
	char		err[512] = "an answer that was not expected";

	j->asked = false;
	if (f->type == AU_MSG_HELLO_OK && au_dec_hello_ok(f, &ok))
	{
		if (!ok.volume_known)
		{
			j->missed--;
			j->at = n->host.now_us(n->host.ctx);
			au_n_close(n, c);
			return;
		}
		ask(n, AU_EXPORT_POSITION);
		return;
	}
	if (f->type == AU_MSG_EXPORT_OK && j->found == NULL)
	{
		AuMsgExportOk *m = n->host.alloc(n->host.ctx, sizeof(*m));

		if (m != NULL && au_dec_export_ok(f, m))
			status = take_position(n, m, err, sizeof(err));
		if (m != NULL)
			n->host.release(n->host.ctx, m);
	}
	else if (f->type == AU_MSG_HOLD_OK && j->found != NULL)
	{
		ask(n, AU_EXPORT_SIZES);
		return;
	}
	else if (f->type == AU_MSG_EXPORT_DATA && j->found != NULL)
		status = take_sizes(n, f, err, sizeof(err));
	else if (f->type == AU_MSG_ERROR && au_dec_error(f, &e))
		snprintf(err, sizeof(err), "%.500s", e.message);
	if (status == AU_OK && j->system_identifier != 0)
		return;					/* it goes on */
	if (status != AU_OK)
	{
		au_n_log(n, AU_LOG_WARNING, "volume %" PRIu64 " of the cluster could not be taken from %s: %s",
				 j->system_identifier, c->name, err);
		j->at = n->host.now_us(n->host.ctx) + AU_NODE_RETRY_US;
	}
	au_n_close(n, c);
}

/* The next node that may have it.  All were asked: what is known then. */
static void
connect_next(AuNode *n, uint64_t now)
{
	static const AuOutgoing use = {join_answer, join_closed};
	const AuViewVolume *of = au_view_volume(n->view, n->joining->system_identifier);
	AuJoining  *j = n->joining;
	AuGroup		group = {0};
	AuMember	m;

	j->at = now + AU_NODE_RETRY_US;
	if (of == NULL)
	{
		j->system_identifier = 0;
		return;
	}
	while (au_p_source(n, j->system_identifier, &group, j->source, &m))
	{
		j->source++;
		if (m.node_id == n->opt.node_id)
			continue;
		j->missed++;
		if (m.address[0] == '\0')
			continue;
		j->node_id = m.node_id;
		j->conn = au_n_connect(n, j->system_identifier, NULL, m.node_id, m.address, &use, NULL);
		j->asked = j->conn != NULL;
		return;
	}
	set_unknown(j, j->missed == 0);
	j->system_identifier = 0;
}

static void
next_volume(AuNode *n)
{
	AuJoining  *j = n->joining;

	/* in turn: one that nobody has must not keep the others from coming */
	for (uint32_t k = 0; k < n->view->nvolumes; k++)
	{
		uint32_t	i = (j->turn + k) % n->view->nvolumes;
		uint64_t	id = n->view->volumes[i].system_identifier;

		if (au_n_volume(n, id) == NULL &&
			(n->opt.single_volume == 0 || n->opt.single_volume == id))
		{
			j->system_identifier = id;
			j->source = 0;
			j->missed = 0;
			j->turn = i + 1;
			/* somebody may have got it since; all are asked first */
			set_unknown(j, false);
			return;
		}
	}
}

uint64_t
au_j_run(AuNode *n, uint64_t now)
{
	const AuNodeHost *h = &n->host;
	AuJoining  *j = n->joining;

	if (au_o_number(n) == 0 || h->found_begin == NULL)
		return UINT64_MAX;
	if (j == NULL)
	{
		j = n->joining = h->alloc(h->ctx, sizeof(*j));
		if (j == NULL)
			return AU_NODE_RETRY_US;
		memset(j, 0, sizeof(*j));
	}
	/* somebody made it here meanwhile */
	if (j->system_identifier != 0 && j->conn != NULL &&
		au_n_volume(n, j->system_identifier) != NULL)
		au_n_close(n, j->conn);
	if (j->conn != NULL)
	{
		if (j->asked && now >= j->at && !j->conn->closing)
			au_n_close(n, j->conn);
	}
	else if (now >= j->at)
	{
		if (j->system_identifier == 0 || au_n_volume(n, j->system_identifier) != NULL)
		{
			j->system_identifier = 0;
			next_volume(n);
		}
		if (j->system_identifier == 0)
			return UINT64_MAX;
		connect_next(n, now);
	}
	return j->at > now ? j->at - now : AU_NODE_STARVED_US;
}
