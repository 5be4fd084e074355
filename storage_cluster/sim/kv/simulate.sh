#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# simulate.sh AU_SIMULATE_KV SEEDS: every seed that ever failed, each planted
# bug, which must be found, and SEEDS fresh ones.  Ends with a line of figures.
set -u
simulate=$1
seeds=$2
[[ $seeds =~ ^[1-9][0-9]*$ ]] || { echo "SEEDS is a number from 1 on, not \"$seeds\"" >&2; exit 2; }
here=$(dirname "$(readlink -f "$0")")
. "$here/../../tests/jobs.sh"
failed=0

ended() {
	cat "$1"
	[ "$2" -eq 0 ] || failed=1
}

again() {
	"$simulate" --seed "$1" >/dev/null || { echo "kv seed $1, which failed before, FAILED"; return 1; }
}

while read -r seed _; do
	case $seed in "" | \#*) continue ;; esac
	job again "$seed"
done <"$here/seeds"
for plant in kv-early kv-quorum kv-compare kv-purge; do
	job "$simulate" --from 1 --seeds 200 --plant $plant
done
# rarely seen since requests do not count owners of before and of now together
job "$simulate" --from 201 --seeds 200 --plant kv-most
job "$simulate" --seeds "$seeds"
jobs_done ended
exit $failed
