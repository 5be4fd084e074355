# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Parts of t/core/run.sh: the work directory, the server, one suite.

passed=0
failed=0
listed=0
work=
logs=${AURORA_CORE_LOGS:-$top/build/core-logs}
am_root=0
[ "$(id -u)" -eq 0 ] && am_root=1

say() { printf '%s\n' "$*"; }
headline() { printf '\n=== %s\n' "$*"; }
die() { printf 'core: %s\n' "$*" >&2; exit 2; }

as_user() {
	if [ $am_root -eq 1 ]; then
		runuser -u "$test_user" -- "$@"
	else
		"$@"
	fi
}

# ---- preparation -------------------------------------------------------------

prepare() {
	source_dir=${AURORA_CORE_SOURCE:-$top/build/core}
	if [ -z "${AURORA_CORE_SOURCE:-}" ]; then
		mkdir -p "$source_dir"
		"$here/fetch.sh" "$source_dir" || exit
	fi
	bindir=$("$PG_CONFIG" --bindir) || die "$PG_CONFIG does not run"
	libdir=$("$PG_CONFIG" --pkglibdir)
	[ -e "$libdir/aurora.so" ] || die "aurora is not installed in $libdir"
	tools=$(cd "$(dirname "$("$PG_CONFIG" --pgxs)")/../test" && pwd)
	installed=$("$PG_CONFIG" --version | sed 's/^PostgreSQL \([0-9.]*\).*/\1/')
	version=$(cat "$source_dir/VERSION")
	psql_dir=$bindir
	[ -x "$source_dir/client/psql" ] && psql_dir=$source_dir/client
	test_user=$(id -un)
	if [ $am_root -eq 1 ]; then
		test_user=${AURORA_TEST_USER:-postgres}
		id "$test_user" >/dev/null 2>&1 ||
			die "there is no user $test_user to step down to"
	fi

	work=$(mktemp -d /var/tmp/aurora-core.XXXXXX) || die "no work directory"
	results=$work/results.tsv
	: >"$results"
	rm -rf "$logs"
	mkdir -p "$logs"
	cp -R "$source_dir/src/test/regress" "$source_dir/src/test/isolation" "$work/"
	mkdir "$work/bin" "$work/lib"
	cp "$psql_dir/psql" "$work/bin/"
	# Where the tests look for their C functions.
	gcc -O1 -fPIC -shared -w -isystem "$("$PG_CONFIG" --includedir-server)" \
		-o "$work/lib/regress.so" "$work/regress/regress.c" ||
		die "the tests' own C functions cannot be compiled"
	ln -s "$libdir/autoinc.so" "$libdir/refint.so" "$work/lib/"
	[ -z "${ci:-}" ] || ci_schedule >"$work/regress/parallel_schedule"
	chmod 755 "$work"
	[ $am_root -eq 0 ] || chown -R "$test_user" "$work"
	cd "$work" || die "cannot enter $work"
	say "server $installed, tests and psql of $version"
}

# ---- the server --------------------------------------------------------------

server_settings() {
	local mode=$1 am=$2
	cat <<-LINES
	shared_preload_libraries = 'aurora'
	default_table_access_method = '$am'
	listen_addresses = ''
	unix_socket_directories = '$work'
	max_prepared_transactions = 2
	log_line_prefix = '%m %b[%p] %q%a '
	LINES
	case $mode in
		small) echo "shared_buffers = ${AURORA_CORE_BUFFERS:-512kB}" ;;
		consistency) cat <<-LINES
			wal_consistency_checking = 'all'
			max_wal_size = 20GB
			checkpoint_timeout = 1h
			LINES
			;;
	esac
}

new_server() {
	local mode=$1 am=$2
	data=$work/data
	as_user "$bindir/initdb" -D "$data" -U postgres -A trust --no-sync \
		--no-locale --encoding=UTF8 >"$work/initdb.log" 2>&1 ||
		{ cat "$work/initdb.log"; return 1; }
	server_settings "$mode" "$am" >>"$data/postgresql.conf"
	crashes=0
	start_server
}

# After a kill -9 the old processes may hold the shared memory a moment longer,
# and somebody has to bury them.
start_server() {
	local until=$((SECONDS + 90))
	while ! as_user "$bindir/pg_ctl" -D "$data" -l "$work/server.log" -w -t 60 \
		start >"$work/pg_ctl.log" 2>&1; do
		[ $SECONDS -lt $until ] || { tail -20 "$work/server.log"; return 1; }
		sleep 0.2
	done
}

crash_server() {
	local pid
	pid=$(head -1 "$data/postmaster.pid") || return 1
	kill -9 "$pid"
	crashes=$((crashes + 1))
	start_server
}

remove_server() {
	as_user "$bindir/pg_ctl" -D "$data" -m fast -w -t 120 stop \
		>>"$work/pg_ctl.log" 2>&1 ||
		{ count_check "$1" "server stops" FAILED; kill_server; }
	mkdir -p "$logs/$1-$2"
	mv "$work/server.log" "$logs/$1-$2/"
	rm -rf "$data"
}

# Server and storage daemon, whatever state they are in: processes that were
# started with a path in our own work directory, which nobody else has.
kill_server() {
	local p
	for p in /proc/[0-9]*; do
		{ tr '\0' ' ' <"$p/cmdline"; } 2>/dev/null | grep -qF "$work/" || continue
		case $(readlink "$p/exe" 2>/dev/null) in
			*/postgres | */aurora_storaged) kill -QUIT "${p#/proc/}" 2>/dev/null ;;
		esac
	done
	sleep 1
}

clean_up() {
	cd "$top" || return
	[ -n "$work" ] || return 0
	kill_server
	if [ -z "${AURORA_KEEP_WORK:-}" ]; then
		rm -rf "$work"
	else
		say "work directory kept: $work"
	fi
}

sql() {
	as_user "$bindir/psql" -XAtq -v ON_ERROR_STOP=1 -h "$work" -U postgres "$@"
}

# ---- a suite -----------------------------------------------------------------

# regress_tool SUITE SCHEDULE MORE-OPTIONS: the tests of a schedule.  Output
# always goes to the same place, so that paths in it are the same.
regress_tool() {
	local suite=$1 schedule=$2 tool limit
	shift 2
	tool=$tools/regress/pg_regress
	limit=${AURORA_CORE_TIMEOUT:-1800}
	[ "$suite" = isolation ] && tool=$tools/isolation/pg_isolation_regress
	cd "$work/$suite" || return 1
	as_user env -u PGHOST -u PGPORT PGTZ= timeout -k 10 "$limit" \
		"$tool" --host="$work" --user=postgres --dlpath="$work/lib" \
		--inputdir="$work/$suite" --outputdir="$work/$suite/out" \
		--bindir="$work/bin" --schedule="$schedule" --max-connections=4 \
		--load-extension=aurora "$@"
	cd "$work" || return 1
}

# One group of tests at a time, and a crash after each.  The isolation schedule
# is a test a line, which makes groups of 20.
crash_groups() {
	local suite=$1 group existing=
	rm -rf "$work/groups"
	mkdir "$work/groups"
	if [ "$suite" = regress ]; then
		grep '^test:' "$work/regress/parallel_schedule" |
			split -l 1 -a 3 - "$work/groups/g"
	else
		grep '^test:' "$work/isolation/isolation_schedule" |
			split -l 20 -a 3 - "$work/groups/g"
	fi
	[ $am_root -eq 0 ] || chown -R "$test_user" "$work/groups"
	for group in "$work"/groups/g*; do
		# shellcheck disable=SC2086
		regress_tool "$suite" "$group" $existing
		existing=--use-existing
		crash_server || { count_check crash "recovery" FAILED; return; }
	done
}

run_suite() {
	local mode=$1 am=$2 suite=$3 t0=$SECONDS schedule keep log
	keep=$work/runs/$mode-$am-$suite
	log=$work/$suite.log
	schedule=$work/regress/parallel_schedule
	[ "$suite" = isolation ] && schedule=$work/isolation/isolation_schedule
	rm -rf "${work:?}/$suite/out"
	mkdir -p "$work/$suite/out" "$work/runs"
	[ $am_root -eq 0 ] || chown "$test_user" "$work/$suite/out"
	if [ "$mode" = crash ]; then
		crash_groups "$suite" >"$log" 2>&1
	else
		regress_tool "$suite" "$schedule" >"$log" 2>&1
	fi
	mv "$work/$suite/out" "$keep"
	mkdir -p "$logs/$mode-$am"
	cp "$log" "$logs/$mode-$am/$suite.log"
	cp "$keep/regression.diffs" "$logs/$mode-$am/$suite.diffs" 2>/dev/null
	judge_suite "$mode" "$am" "$suite" "$log" $((SECONDS - t0))
}

# The lines in which two files differ, without their numbers.
changed_lines() { { diff -U0 "$1" "$2" || true; } | sed '1,2d; /^@@/d'; }

# Is the difference between two files the listed one?
is_listed() {
	[ -e "$here/listed/$1.diff" ] && [ -e "$2" ] && [ -e "$3" ] &&
		changed_lines "$2" "$3" | cmp -s - "$here/listed/$1.diff"
}

# verdict MODE AM SUITE TEST WHAT-THE-TOOL-SAYS
verdict() {
	local mode=$1 am=$2 suite=$3 test=$4 told=$5 out heap
	out=$work/runs/$mode-$am-$suite/results/$test.out
	heap=$work/runs/$mode-heap-$suite
	[ -d "$heap" ] || heap=$work/runs/default-heap-$suite
	heap=$heap/results/$test.out
	if [ "$told" = ok ]; then
		echo ok
	elif is_listed "$test" "$work/$suite/expected/$test.out" "$out"; then
		echo listed
	elif [ "$am" = heap ] || [ "$version" = "$installed" ]; then
		echo FAILED
	elif cmp -s "$out" "$heap"; then
		echo "same as heap"
	elif is_listed "$test" "$heap" "$out"; then
		echo listed
	else
		echo FAILED
	fi
}

# Counts a suite by the tool's lines "test NAME ... ok" and "     NAME ... ok".
# Tests of the schedule that it says nothing of have failed.
judge_suite() {
	local mode=$1 am=$2 suite=$3 log=$4 secs=$5 test told v
	local -A told_of=()
	local n_ok=0 n_same=0 n_listed=0 n_bad=0
	while read -r test told; do
		told_of[$test]=$told
	done < <(sed -nE 's/^(test)? +([^ ]+) +\.\.\. (ok|FAILED|failed).*/\2 \3/p' "$log")
	for test in $(sed -n 's/^test://p' "$work/$suite"/*_schedule); do
		v=$(verdict "$mode" "$am" "$suite" "$test" "${told_of[$test]:-missing}")
		printf '%s\t%s\t%s\t%s\t%s\n' "$mode" "$am" "$suite" "$test" "$v" >>"$results"
		case $v in
			ok) n_ok=$((n_ok + 1)) ;;
			"same as heap") n_same=$((n_same + 1)) ;;
			listed) n_listed=$((n_listed + 1)); say "  listed: $test" ;;
			*) n_bad=$((n_bad + 1)); say "  FAILED: $suite/$test" ;;
		esac
	done
	printf '  %-10s %4d as expected, %d same as heap, %d listed, %d FAILED (%d s)\n' \
		"$suite" $n_ok $n_same $n_listed $n_bad "$secs"
	# Heap is the measure, not the one who is measured.
	[ "$am" = aurora ] || return 0
	passed=$((passed + n_ok + n_same))
	listed=$((listed + n_listed))
	failed=$((failed + n_bad))
	[ $n_ok -gt 0 ] || tail -5 "$log"
}

# ---- checks after a run --------------------------------------------------------

count_check() {
	printf '%s\t%s\t%s\t%s\t%s\n' "$1" aurora check "$2" "$3" >>"$results"
	printf '  %-52s %s\n' "$2" "$3"
	if [ "$3" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# one_check MODE NAME DATABASE EXPECTED SQL
one_check() {
	local got
	got=$(sql -d "$3" -c "$5" 2>&1)
	if [[ $got =~ ^$4$ ]]; then
		count_check "$1" "$2" ok
	else
		count_check "$1" "$2" FAILED
		say "$got" | head -20
	fi
}

check_database() {
	local mode=$1 db=$2 when=$3
	sql -d "$db" -c 'CREATE EXTENSION IF NOT EXISTS amcheck' >/dev/null 2>&1
	one_check "$mode" "$db: pages equal storage's$when" "$db" \
		'[0-9]+\|0' \
		"SELECT relations, differing FROM aurora.verify_all()"
	one_check "$mode" "$db: local files are empty$when" "$db" '0' \
		"SELECT count(*) FROM aurora.tables
		  WHERE persistence = 'permanent' AND local_size <> 0"
	one_check "$mode" "$db: every B-tree agrees with its table$when" "$db" '[0-9]+' \
		"SELECT count(public.bt_index_check(i.indexrelid, true))
		   FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		        JOIN pg_am a ON a.oid = c.relam
		  WHERE a.amname = 'btree' AND c.relpersistence <> 't'
		    AND c.relkind = 'i' AND i.indisvalid AND i.indisready"
}

# Each crash was one, and recovery found nothing wrong: with
# wal_consistency_checking it compares all blocks of stock records.
check_recovery() {
	local log=$work/server.log
	if [ "$crashes" -gt 0 ] &&
		[ "$(grep -c 'was not properly shut down' "$log")" -eq "$crashes" ] &&
		! grep -E 'PANIC:|TRAP:|inconsistent page found' "$log"; then
		count_check "$1" "$crashes crashes, $crashes clean recoveries" ok
	else
		count_check "$1" "$crashes crashes, $crashes clean recoveries" FAILED
	fi
}
