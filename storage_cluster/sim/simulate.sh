#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# simulate.sh AU_SIMULATE AU_SIMULATE_CLUSTER SEEDS: every seed that ever failed,
# SEEDS fresh ones (half as many of the membership's), and each planted bug,
# which must be found.  Ends with a line of figures.
set -u
simulate=$1
cluster=$2
seeds=$3
here=$(dirname "$(readlink -f "$0")")
failed=0

while read -r seed _; do
	case $seed in "" | \#*) continue ;; esac
	for groups in never always; do
		"$simulate" --seed "$seed" --groups $groups --repair never >/dev/null ||
			{ echo "seed $seed, which failed before, FAILED (--groups $groups)"; failed=1; }
	done
done <"$here/seeds"
for plant in ack-before-persist quorum stale-term forgotten-vote no-cut resurrect apply-early no-sync no-crc old-epoch two-at-once no-objection gossip-stale mend-old mend-blind; do
	"$simulate" --from 1 --seeds 300 --plant $plant || failed=1
done
while read -r seed _; do
	case $seed in "" | \#*) continue ;; esac
	"$cluster" --seed "$seed" >/dev/null || { echo "membership: seed $seed, which failed before, FAILED"; failed=1; }
done <"$here/cluster/seeds"
for plant in ready-early stale-ready leftover serve-incoming stale-view no-objection gossip-decides; do
	"$cluster" --from 1 --seeds 300 --plant $plant || failed=1
done
"$cluster" --seeds $(((seeds + 1) / 2)) || failed=1
"$simulate" --seeds "$seeds" || failed=1
exit $failed
