#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# make quickstart-cluster: from a clean clone to PostgreSQL on three storage
# nodes of its own, one of which is killed under load, missed by nobody, and
# brought back.  make quickstart-cluster-stop and -clean undo it.
#
# Everything lives in build/quickstart-cluster, as with make quickstart; the
# nodes listen on six ports of 127.0.0.1 that were free.
set -euo pipefail
umask 022
exec </dev/null

top=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
name=quickstart-cluster
steps=9
# shellcheck source=.ci/quickstart-lib.sh
. "$top/.ci/quickstart-lib.sh"

cluster() { as_owner "$bin/auroractl" cluster "$@" --dir "$home/nodes"; }

stop_all() {
	if [ -z "$bin" ]; then
		echo "The quickstart cluster does not run."
		return 0
	fi
	if running; then
		as_owner "$bin/pg_ctl" -w -m fast -D "$home/data" stop >/dev/null
	fi
	[ ! -e "$home/nodes/cluster" ] || cluster stop
	echo "The quickstart cluster is stopped; its data is in $home."
}

# The nodes; the first port is chosen once.
start_nodes() {
	local port
	if [ -e "$home/nodes/cluster" ]; then
		# The program may be newer than the one they run with.
		cluster stop >>"$log" 2>&1
		cluster start >>"$log" 2>&1 || { tail -5 "$log" >&2; die "the nodes did not start"; }
		return
	fi
	for port in 7015 7115 7215 7315 7415 7515; do
		if cluster start --port "$port" >>"$log" 2>&1; then return; fi
		[ ! -e "$home/nodes/cluster" ] || break
	done
	tail -5 "$log" >&2
	die "the nodes did not start"
}

first_port() { as_owner sed -n 's/^port = //p' "$home/nodes/cluster"; }

# What postgresql.conf needs to know of them.
nodes_setting() {
	local first
	first=$(first_port)
	echo "aurora.storage_nodes = '127.0.0.1:$first,127.0.0.1:$((first + 2)),127.0.0.1:$((first + 4))'"
}

show_nodes() {
	show "SELECT number, address, shipping, state, durable_lsn, applied_lsn FROM aurora.nodes ORDER BY 1"
}

# The cluster as its members see it, once all are there.
members() {
	local out=
	for _ in $(seq 100); do
		out=$(as_owner "$bin/auroractl" --node "127.0.0.1:$(first_port)" node list 2>&1) || true
		[ "$(grep -c '127\.0\.0\.1:.* active' <<<"$out")" -eq 3 ] && break
		sleep 0.2
	done
	sed 's/^/      /' <<<"$out"
}

# What node 2 lacks of the log, in kB; empty if it is not heard of.
behind_kb() {
	value "SELECT pg_wal_lsn_diff(s.durable_lsn, n.applied_lsn)::bigint / 1024
	         FROM aurora.storage_nodes() n, aurora.shipper s WHERE n.number = 2"
}

# Second by second: one of three nodes dies in the fourth.
load_and_kill() {
	local pid
	start_pgbench 12
	say "pgbench runs with 4 clients; each commit waits until two of three nodes have it"
	for i in 1 2 3 4 5 6 7 8 9 10; do
		sleep 1
		if [ "$i" -eq 4 ]; then
			pid=$(as_owner cat "$home/nodes/node2.pid")
			kill -9 "$pid"
			printf '      %8s transactions   kill -9 of node 2, process %s\n' "$(transactions)" "$pid"
		else
			printf '      %8s transactions\n' "$(transactions)"
		fi
	done
	wait "$load" || { tail -5 "$log" >&2; die "a client was broken off, see $log"; }
}

bring_back() {
	local kb
	cluster start | grep 'node 2' | sed 's/^/      /'
	for _ in $(seq 600); do
		kb=$(behind_kb)
		say "node 2 is ${kb:-?} kB of log behind"
		[ "${kb:-1}" -le 0 ] &&
			[ "$(value 'SELECT shipping FROM aurora.storage_nodes() WHERE number = 2')" = stream ] && return
		sleep 0.3
	done
	die "node 2 does not catch up"
}

quickstart() {
	local before acked committed
	echo "Aurora quickstart with three storage nodes in $top"
	build_and_install

	head_line "three storage nodes"
	make_home
	resolve_home
	start_nodes
	cluster status | sed 's/^/      /'
	say "they form a cluster:"
	members

	head_line "PostgreSQL on these nodes"
	make_server "$(nodes_setting)"
	start_server
	create_extension
	# (A quorum was enough to begin.)
	for _ in $(seq 100); do
		[ "$(value "SELECT count(*) FROM aurora.storage_nodes() WHERE shipping = 'stream'")" = 3 ] && break
		sleep 0.1
	done
	show_nodes

	head_line "pgbench's tables at scale 10: 1,000,000 accounts USING aurora"
	make_pgbench_tables

	head_line "kill -9 of a node in the middle of a write load"
	before=$(transactions)
	load_and_kill
	acked=$(count_acknowledged)
	committed=$(($(transactions) - before))
	say "clients were told that $acked transactions are committed; the history has $committed"
	show_nodes
	show_sums
	check_nothing_lost "$committed" "$acked"

	head_line "the node comes back, and gets from the others what it missed"
	bring_back
	show_nodes
	# All that is cached is dropped, and read again from this node alone.
	value "SET aurora.read_node = 2; SELECT aurora.evict(relid) FROM aurora.tables WHERE persistence = 'permanent'" >/dev/null
	[ "$(value "SET aurora.read_node = 2; SELECT count(*) FROM pgbench_history")" = "$(transactions)" ] ||
		die "node 2 has another history"
	say "read from node 2 alone: $(transactions) transactions"
	show_sums
	check_nothing_lost "$committed" "$acked"

	head_line "ready, and it goes on running"
	cat <<-TEXT
	      connect:    $bin/psql -h $home -U postgres postgres
	      look:       SELECT * FROM aurora.nodes;   SELECT * FROM aurora.shipper;
	                  $bin/auroractl cluster status --dir $home/nodes
	                  $bin/auroractl --node 127.0.0.1:$(first_port) node list
	      kill one:   kill -9 \$(cat $home/nodes/node1.pid)
	      back:       $bin/auroractl cluster start --dir $home/nodes
	      stop:       make quickstart-cluster-stop      (make quickstart-cluster starts it again)
	      remove:     make quickstart-cluster-clean
	      log files:  $home/server.log, $home/nodes/node*.log, $log
	TEXT
	[ $am_root -eq 0 ] || say "as user $owner: runuser -u $owner -- COMMAND"
	printf '\nquickstart-cluster: all well, took %d s\n' $((SECONDS - t0))
}

case ${1:-quickstart-cluster} in
	quickstart-cluster) quickstart ;;
	quickstart-cluster-stop) find_pg; resolve_home; stop_all ;;
	quickstart-cluster-clean)
		find_pg
		stop_all
		remove_home ;;
	*) die "unknown command $1" ;;
esac
