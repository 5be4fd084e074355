#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# simulate.sh AU_SIMULATE AU_SIMULATE_CLUSTER SEEDS: every seed that ever failed,
# SEEDS fresh ones (half as many of the membership's), an eighth as many of a
# cluster's slices, which are always the same, and each planted bug, which must
# be found.  Ends with a line of figures.
set -u
simulate=$1
cluster=$2
seeds=$3
[[ $seeds =~ ^[1-9][0-9]*$ ]] || { echo "SEEDS is a number from 1 on, not \"$seeds\"" >&2; exit 2; }
here=$(dirname "$(readlink -f "$0")")
. "$here/../tests/jobs.sh"
failed=0

ended() {
	cat "$1"
	[ "$2" -eq 0 ] || failed=1
}

again() {
	"$simulate" --seed "$1" --groups "$2" --repair never --behind never --slices never >/dev/null ||
		{ echo "seed $1, which failed before, FAILED (--groups $2)"; return 1; }
}

again_cluster() {
	"$cluster" --seed "$1" >/dev/null ||
		{ echo "membership: seed $1, which failed before, FAILED"; return 1; }
}

while read -r seed _; do
	case $seed in "" | \#*) continue ;; esac
	for groups in never always; do job again "$seed" $groups; done
done <"$here/seeds"
for plant in ack-before-persist quorum stale-term forgotten-vote no-cut resurrect apply-early no-sync no-crc old-epoch two-at-once no-objection gossip-stale mend-old mend-blind behind-counts ready-early whole-early gives-part lost-votes trim-early; do
	job "$simulate" --from 1 --seeds 300 --plant $plant
done
while read -r seed _; do
	case $seed in "" | \#*) continue ;; esac
	job again_cluster "$seed"
done <"$here/cluster/seeds"
for plant in ready-early stale-ready leftover serve-incoming stale-view no-objection gossip-decides; do
	job "$cluster" --from 1 --seeds 300 --plant $plant
done
job "$cluster" --seeds $(((seeds + 1) / 2))
job "$simulate" --seeds "$seeds" --slices never
job "$simulate" --from 1 --seeds $(((seeds + 7) / 8)) --slices always
jobs_done ended
exit $failed
