#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# PostgreSQL's own regression and isolation tests, which none of us wrote,
# with default_table_access_method = aurora.  Ends with "N passed, N failed".
#
#   t/core/run.sh all | MODE ...
#       default      stock settings
#       small        shared_buffers so small that pages come and go all the time
#       crash        kill -9 of the postmaster and recovery between groups
#       consistency  wal_consistency_checking on, then a crash, so that
#                    recovery compares; pages compared with storage
#   t/core/run.sh --ci          what fits into four minutes: isolation tests and
#                               a part of the regression tests, mode small
#
# Each run has a new server, and after it the pages of all aurora tables are
# compared with storage's, every B-tree is checked against its table, and
# no permanent aurora table may have a byte in its local file.
#
# When a test passes:
#   ok            its output is PostgreSQL's expected output
#   same as heap  only if the tests are not of the installed version (see
#                 fetch.sh): byte for byte what heap gives on this server.
#                 To know that, the same is run with heap first (modes crash
#                 and consistency are compared with heap in mode default).
#   listed        a difference in the nature of things: the lines in which
#                 output and expected output differ are those in
#                 t/core/listed/TEST.diff, no more, no fewer.  Counted neither
#                 as passed nor as failed, and told in docs/compatibility.md.
#
# A run of all modes writes its table into docs/compatibility.md.
#
# Environment:
#   AURORA_TEST_USER     whom to step down to as root (default postgres)
#   AURORA_KEEP_WORK=1   keep the work directory
#   AURORA_CORE_SOURCE   directory with the tests, instead of fetching them
set -uo pipefail

here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
top=$(cd "$here/../.." && pwd)
export PG_MAJOR=${PG_MAJOR:-15}
export PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/$PG_MAJOR/bin/pg_config}
exec </dev/null
umask 022
ulimit -c 0

# shellcheck source=t/core/lib.sh
. "$here/lib.sh"
# shellcheck source=t/core/table.sh
. "$here/table.sh"

# Regression tests of --ci, each with those it builds upon.
ci_schedule() {
	cat <<-LINES
	test: test_setup
	test: tablespace
	test: copy copyselect copydml insert insert_conflict
	test: create_function_c create_misc create_operator create_procedure create_table create_type create_schema
	test: create_index create_index_spgist create_view index_including index_including_gist
	test: create_aggregate constraints triggers select inherit vacuum updatable_views
	test: union case join aggregates transactions portals btree_index update delete prepared_xacts
	test: brin gin gist tablesample matview lock rowsecurity identity generated join_hash
	test: merge tid tidscan tidrangescan stats_ext
	test: select_parallel
	test: write_parallel
	test: vacuum_parallel
	test: foreign_key cluster bitmapops combocid indirect_toast
	test: plancache temp truncate alter_table returning
	test: partition_join partition_prune reloptions indexing
	test: compression
	test: fast_default
	LINES
}

# run_all MODE AM: a server of its own, both suites, the checks.
run_all() {
	local mode=$1 am=$2
	headline "mode $mode, tables of access method $am"
	new_server "$mode" "$am" || { count_check "$mode" server FAILED; return; }
	run_suite "$mode" "$am" regress
	[ "$ci/$am" = 1/heap ] || run_suite "$mode" "$am" isolation
	if [ "$am" = aurora ]; then
		check_database "$mode" regression ""
		check_database "$mode" isolation_regression ""
		if [ "$mode" = consistency ]; then
			crash_server
			check_database "$mode" regression " after the crash"
		fi
		[ "$crashes" -eq 0 ] || check_recovery "$mode"
	fi
	remove_server "$mode" "$am"
}

# Crashes and checks change no output, so heap's of mode default will do there.
wants_heap() {
	case $1 in
		default|small) true ;;
		*) [ ! -d "$work/runs/default-heap-regress" ] ;;
	esac
}

[ $# -gt 0 ] || set -- --help
modes=()
ci=
whole=
for arg in "$@"; do
	case $arg in
		--ci) ci=1 ;;
		all) whole=1; modes=(default small crash consistency) ;;
		default|small|crash|consistency) modes+=("$arg") ;;
		*) sed -n '3,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 2 ;;
	esac
done

started=$SECONDS
trap clean_up EXIT
trap 'exit 130' INT TERM
prepare
if [ -n "$ci" ]; then
	[ "$version" = "$installed" ] || run_all small heap
	run_all small aurora
else
	for mode in "${modes[@]}"; do
		wants_heap "$mode" && run_all "$mode" heap
		run_all "$mode" aurora
	done
	write_table
	if [ -n "$whole" ]; then
		put_table_into "$top/docs/compatibility.md"
	else
		cat "$table"
	fi
fi
say ""
say "took $((SECONDS - started)) s; logs are in $logs"
[ "$listed" -eq 0 ] || say "listed differences, neither passed nor failed: $listed"
say "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
