#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# simulate.sh AU_SIMULATE SEEDS: every seed that ever failed, SEEDS fresh ones,
# and each planted bug, which must be found.  Ends with a line of figures.
set -u
simulate=$1
seeds=$2
here=$(dirname "$(readlink -f "$0")")
failed=0

while read -r seed _; do
	case $seed in "" | \#*) continue ;; esac
	for groups in never always; do
		"$simulate" --seed "$seed" --groups $groups >/dev/null ||
			{ echo "seed $seed, which failed before, FAILED (--groups $groups)"; failed=1; }
	done
done <"$here/seeds"
for plant in ack-before-persist quorum stale-term forgotten-vote no-cut resurrect apply-early no-sync no-crc old-epoch two-at-once no-objection gossip-stale; do
	"$simulate" --from 1 --seeds 300 --plant $plant || failed=1
done
"$simulate" --seeds "$seeds" || failed=1
exit $failed
