#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# fuzz.sh SECONDS FUZZER...: runs each so long, some at a time; what they found
# before is beside them, in FUZZER.corpus.  Exit status 0 only if none found
# something.
. "$(dirname "$0")/jobs.sh"
seconds=$1
shift
failed=0

ended() {
	cat "$1"
	[ "$2" -eq 0 ] || failed=1
}

fuzz() {
	echo "== $1, $seconds s"
	mkdir -p "$1.corpus"
	"$1" -max_total_time="$seconds" -max_len=16384 -artifact_prefix="$1." "$1.corpus"
}

for f in "$@"; do job fuzz "$f"; done
jobs_done ended
[ $failed -eq 0 ] && echo "fuzzers ran: $#"
