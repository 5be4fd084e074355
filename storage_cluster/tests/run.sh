#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the given cmocka binaries, some at a time, and adds up their cases:
#   run.sh BINARY...
# Prints a line a binary (and the whole output of one that fails), at the end
# "N passed, N failed".  A binary that crashes, hangs or runs no case counts
# as a failed case.  Exit status 0 only if nothing failed.
. "$(dirname "$0")/jobs.sh"
passed=0
failed=0

ended() {
	local out=$1 rc=$2 p f t=${*: -1}
	p=$(sed -n 's/.*\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$out" | tail -1)
	f=$(sed -n 's/.*\[  FAILED  \] \([0-9]*\) test.*/\1/p' "$out" | tail -1)
	p=${p:-0}
	f=${f:-0}
	if [ "$rc" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
	if [ "$rc" -eq 0 ] && [ "$p" -eq 0 ]; then f=1; fi
	passed=$((passed + p))
	failed=$((failed + f))
	if [ "$f" -ne 0 ]; then
		cat "$out"
		echo "$t: exit status $rc"
	else
		echo "$t: [  PASSED  ] $p test(s) in $3 s"
	fi
}

for t in "$@"; do job timeout "${TEST_TIMEOUT:-600}" "$t"; done
jobs_done ended
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
