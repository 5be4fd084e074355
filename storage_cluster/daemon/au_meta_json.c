/* SPDX-License-Identifier: Apache-2.0 */
/*
 * au_meta_json.c: the cluster as this node knows it, for /status and /metrics.
 */
#include "daemon/au_meta_int.h"

#include <inttypes.h>
#include <stdio.h>

#include "cluster/au_ring.h"

static const char *
state_name(uint8_t state)
{
	return state == AU_NODE_JOINING ? "joining" : state == AU_NODE_ACTIVE ? "active" : "draining";
}

static json_t *
hex_json(uint64_t id)
{
	char		text[32];

	snprintf(text, sizeof(text), "%016" PRIX64, id);
	return json_string(text);
}

static json_t *
node_json(const AuMeta *m, int index, const AuRingLoad *load)
{
	const AuViewNode *n = &m->view.nodes[index];
	json_t	   *o = json_object();
	AuSliceSet	owned,
				incoming;
	int			coming = 0;

	au_view_owned(&m->view, n->number, &owned, &incoming);
	for (uint32_t s = 0; s < AU_SLICES; s++)
		coming += au_slices_has(&incoming, s);
	json_object_set_new(o, "number", json_integer(n->number));
	json_object_set_new(o, "node_id", hex_json(n->node_id));
	json_object_set_new(o, "address", json_string(n->address));
	json_object_set_new(o, "meta_address", json_string(n->meta_address));
	json_object_set_new(o, "http", json_string(n->http));
	json_object_set_new(o, "zone", json_string(n->zone));
	json_object_set_new(o, "weight", json_integer(n->weight));
	json_object_set_new(o, "state", json_string(state_name(n->state)));
	json_object_set_new(o, "up", json_boolean(n->up));
	json_object_set_new(o, "voter", json_boolean(n->voter));
	json_object_set_new(o, "mending", json_boolean(n->mending != 0));
	json_object_set_new(o, "slices_owned", json_integer(load->owned[index]));
	json_object_set_new(o, "slices_incoming", json_integer(coming));
	json_object_set_new(o, "slices_wanted", json_integer(load->wanted[index]));
	json_object_set_new(o, "slices_share", json_real(load->share[index]));
	return o;
}

static json_t *
volume_json(const AuViewVolume *vol)
{
	json_t	   *o = json_object();
	json_t	   *group = json_array();
	char		text[32];

	snprintf(text, sizeof(text), "%" PRIu64, vol->system_identifier);
	json_object_set_new(o, "system_identifier", json_string(text));
	json_object_set_new(o, "group_epoch", json_integer(vol->group_epoch));
	json_object_set_new(o, "settled", json_boolean(vol->settled));
	json_object_set_new(o, "write_quorum", json_integer(vol->write_quorum));
	json_object_set_new(o, "leaving", json_integer(vol->leaving));
	for (int i = 0; i < vol->ngroup; i++)
		json_array_append_new(group, json_integer(vol->group[i]));
	json_object_set_new(o, "group", group);
	return o;
}

json_t *
au_meta_json(const AuMeta *m)
{
	static const char *const states[] = {"joining", "member", "removed", "stopping"};
	static AuRingLoad load;		/* loop thread only */
	json_t	   *o = json_object();
	json_t	   *nodes = json_array();
	json_t	   *volumes = json_array();
	int			moving = 0;

	au_ring_load(&m->view, &load);
	for (int i = 0; i < m->view.nnodes; i++)
		json_array_append_new(nodes, node_json(m, i, &load));
	for (int i = 0; i < m->view.nvolumes; i++)
		json_array_append_new(volumes, volume_json(&m->view.volumes[i]));
	for (uint32_t s = 0; s < AU_SLICES; s++)
		moving += m->view.slices[s].ntarget > 0;
	json_object_set_new(o, "cluster_id", hex_json(m->view.cluster_id));
	json_object_set_new(o, "state", json_string(states[m->state]));
	json_object_set_new(o, "epoch", json_integer((json_int_t) m->view.epoch));
	json_object_set_new(o, "number", json_integer(m->number));
	json_object_set_new(o, "leader", json_integer(m->leader));
	json_object_set_new(o, "replicas", json_integer(m->view.rf));
	json_object_set_new(o, "slices", json_integer(AU_SLICES));
	json_object_set_new(o, "slices_moving", json_integer(moving));
	json_object_set_new(o, "nodes", nodes);
	json_object_set_new(o, "volumes", volumes);
	return o;
}

void
au_meta_metrics(const AuMeta *m, AuText *t)
{
	uint64_t	up = 0,
				voters = 0,
				moving = 0;

	for (int i = 0; i < m->view.nnodes; i++)
	{
		up += m->view.nodes[i].up;
		voters += m->view.nodes[i].voter;
	}
	for (uint32_t s = 0; s < AU_SLICES; s++)
		moving += m->view.slices[s].ntarget > 0;
	au_text_value(t, "cluster_member", false, "1 if the node is a member of its cluster, 0 if it joins or was removed",
				  m->number != 0);
	au_text_value(t, "cluster_epoch", false, "epoch of the newest view the node knows", m->view.epoch);
	au_text_value(t, "cluster_leader", false, "number of the node that leads the consensus; 0: none to be seen", m->leader);
	au_text_value(t, "cluster_nodes", false, "nodes in the view", m->view.nnodes);
	au_text_value(t, "cluster_nodes_up", false, "... that are up", up);
	au_text_value(t, "cluster_voters", false, "... that vote", voters);
	au_text_value(t, "cluster_strangers", true,
				  "connections to the port for consensus that were closed: no node of this cluster, or no message",
				  m->strangers);
	au_text_value(t, "cluster_slices_moving", false, "slices on their way to other nodes", moving);
}
