#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# simulate.sh AU_SIMULATE_KV SEEDS: every seed that ever failed, each planted
# bug, which must be found, and SEEDS fresh ones.  Ends with a line of figures.
set -u
simulate=$1
seeds=$2
here=$(dirname "$(readlink -f "$0")")
failed=0

while read -r seed _; do
	case $seed in "" | \#*) continue ;; esac
	"$simulate" --seed "$seed" >/dev/null || { echo "kv seed $seed, which failed before, FAILED"; failed=1; }
done <"$here/seeds"
for plant in kv-early kv-quorum kv-compare kv-purge; do
	"$simulate" --from 1 --seeds 200 --plant $plant || failed=1
done
"$simulate" --seeds "$seeds" || failed=1
exit $failed
