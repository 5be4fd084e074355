#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds, installs and runs test suites, one line a test, and ends with
# "N passed, N failed".  Called by make check and its relatives:
#
#   t/run-all.sh unit asan sim tsan fuzz sql isolation tap core core-full bench long faults
#   t/run-all.sh unit sql isolation tap beside asan sim fuzz
#
# Suites behind the word "beside" compute all the time, while a server's tests wait
# for most of theirs; they run beside the last of the others (after unit, if that
# is one) with a lower priority, and what they print comes at the end.
#
# PostgreSQL refuses to run as root, so as root the suites that need a server
# step down to another user, in a work directory that this user can read
# (the source tree may lie below /root); only t/, sql/ and expected/ are
# copied there.
#
# Environment:
#   TESTS               some tests of suite sql, isolation or tap, instead of all
#   MODES               some modes of suite core-full, instead of all
#   AURORA_TEST_USER    whom to step down to (default postgres)
#   AURORA_TEST_SEED    seed of the tests that act at random moments
#   AURORA_KEEP_WORK=1  keep the work directory even when all is well
#   AURORA_NO_BUILD=1   do not build and install first
#   FAULTS              faults of the campaign (default 200)
#   FAULTS_OPTIONS      more options of t/faults/campaign.py
#   JOBS                the storage side's tests that run at a time (default 2)
#   SEEDS               fresh seeds of the simulator (default 200)
#   FUZZ_SECONDS        how long each fuzzer runs (default 10)
set -uo pipefail

top=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
cd "$top" || exit 2
exec </dev/null
umask 022

PG_MAJOR=${PG_MAJOR:-15}
logs=$top/build/check-logs
passed=0
failed=0
work=
beside=
small_disk=
am_root=0
[ "$(id -u)" -eq 0 ] && am_root=1

say() { printf '%s\n' "$*"; }
headline() { printf '\n=== %s\n' "$*"; }
die() { printf 'check: %s\n' "$*" >&2; exit 2; }

# One finished test: name, ok|FAILED, seconds, further text.
report() {
	printf '  %-44s %-7s %5ss  %s\n' "$1" "$2" "$3" "${4:-}"
}

# Count a whole step as one test.
count_step() {
	if [ "$2" -eq 0 ]; then
		passed=$((passed + 1)); report "$1" ok "$3" "${4:-}"
	else
		failed=$((failed + 1)); report "$1" FAILED "$3" "${4:-}"
	fi
}

prepare() {
	if [ -z "${AURORA_BESIDE:-}" ]; then
		headline "packages"
		.ci/deps.sh all || die "packages are missing"
	fi
	PG_CONFIG=${PG_CONFIG:-pg_config}
	if [ -x "/usr/lib/postgresql/$PG_MAJOR/bin/pg_config" ] &&
		[ "$PG_CONFIG" = pg_config ]; then
		PG_CONFIG=/usr/lib/postgresql/$PG_MAJOR/bin/pg_config
	fi
	bindir=$("$PG_CONFIG" --bindir) || die "$PG_CONFIG does not run"
	pgxs=$("$PG_CONFIG" --pgxs)
	pgxs_top=$(dirname "$pgxs")/../..
	pgxs_top=$(cd "$pgxs_top" && pwd)
	export PG_CONFIG
	[ -n "${AURORA_BESIDE:-}" ] && return	# another one of us has done the rest

	rm -rf "$logs"
	mkdir -p "$logs"
	[ -n "${AURORA_NO_BUILD:-}" ] && return

	headline "build"
	local t0=$SECONDS
	if ! make -j"$(nproc)" >"$logs/build.log" 2>&1; then
		tail -40 "$logs/build.log"
		count_step build 1 $((SECONDS - t0)) "see $logs/build.log"
		finish
	fi
	report build ok $((SECONDS - t0))

	local into
	into=$("$PG_CONFIG" --pkglibdir)
	if [ -w "$into" ]; then
		make install >"$logs/install.log" 2>&1
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		sudo -n make PG_CONFIG="$PG_CONFIG" install >"$logs/install.log" 2>&1
	else
		cmp -s aurora.so "$into/aurora.so" ||
			die "cannot write to $into: run \"make install\" as root first"
		true
	fi || { tail -20 "$logs/install.log"; die "make install failed"; }
	report install ok 0 "$into"
}

# --- the storage side's own tests -----------------------------------------

# cmocka says "[  PASSED  ] 12 test(s)." and "[  FAILED  ] 1 test(s)".
count_cmocka() {
	local log=$1 name=$2 rc=$3 secs=$4 p f
	p=$(sed -n 's/.*\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | awk '{n += $1} END {print n + 0}')
	f=$(sed -n 's/.*\[  FAILED  \] \([0-9]*\) test.*/\1/p' "$log" | awk '{n += $1} END {print n + 0}')
	# A crash or a sanitizer's report fails the run without a failed case.
	if [ "$rc" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
	if [ "$rc" -eq 0 ] && [ "$p" -eq 0 ]; then f=1; fi
	passed=$((passed + p)); failed=$((failed + f))
	if [ "$f" -eq 0 ]; then
		report "$name" ok "$secs" "$p cases"
	else
		report "$name" FAILED "$secs" "$p cases passed, $f failed"
		tail -40 "$log"
	fi
}

# The documents against the sources.
check_docs() {
	local t0=$SECONDS rc
	python3 t/check-docs.py >"$logs/docs.log" 2>&1
	rc=$?
	count_step "documents name what there is" $rc $((SECONDS - t0)) "$(tail -n 1 "$logs/docs.log")"
	[ $rc -eq 0 ] || head -20 "$logs/docs.log"
}

suite_storage() {
	local target=$1 name=$2 t0=$SECONDS rc
	timeout "${SUITE_TIMEOUT:-1800}" make -C storage_cluster -j"$(nproc)" "$target" >"$logs/$target.log" 2>&1
	rc=$?
	count_cmocka "$logs/$target.log" "$name" $rc $((SECONDS - t0))
}

# The simulator ends with its figures; a planted bug that is not found, or a
# seed that fails, fails the step.
suite_sim() {
	local t0=$SECONDS rc
	timeout "${SUITE_TIMEOUT:-1800}" make -C storage_cluster -j"$(nproc)" simulate SEEDS="${SEEDS:-200}" >"$logs/sim.log" 2>&1
	rc=$?
	count_step "simulated cluster, ${SEEDS:-200} fresh seeds" $rc $((SECONDS - t0))
	[ $rc -eq 0 ] || grep -E "FAILED|not found|rror" "$logs/sim.log" | head -20
	grep 'seeds/s' "$logs/sim.log" | sed 's/^/    /'	# membership, then all else

	t0=$SECONDS
	timeout "${SUITE_TIMEOUT:-1800}" make -C storage_cluster -j"$(nproc)" simulate-kv SEEDS="${SEEDS:-200}" >"$logs/simkv.log" 2>&1
	rc=$?
	count_step "simulated key-value interface, ${SEEDS:-200} fresh seeds" $rc $((SECONDS - t0))
	[ $rc -eq 0 ] || grep -E "FAILED|not found|rror" "$logs/simkv.log" | head -20
	grep 'seeds/s' "$logs/simkv.log" | tail -1 | sed 's/^/    /'
}

suite_fuzz() {
	local t0=$SECONDS rc n
	timeout "${SUITE_TIMEOUT:-1800}" make -C storage_cluster -j"$(nproc)" fuzz \
		FUZZ_SECONDS="${FUZZ_SECONDS:-10}" >"$logs/fuzz.log" 2>&1
	rc=$?
	n=$(grep -c '^Done [0-9]* runs' "$logs/fuzz.log")
	if [ $rc -eq 0 ] && [ "$n" -gt 0 ]; then
		passed=$((passed + n))
		report "fuzzers" ok $((SECONDS - t0)) "$n targets"
	else
		failed=$((failed + 1)); passed=$((passed + n))
		report "fuzzers" FAILED $((SECONDS - t0)) "$n targets ran to the end"
		tail -30 "$logs/fuzz.log"
	fi
}

# --- suites that need a server ----------------------------------------------

as_user() {
	if [ $am_root -eq 1 ]; then
		runuser -u "$test_user" -- "$@"
	else
		"$@"
	fi
}

need_work() {
	[ -n "$work" ] && return
	work=$(mktemp -d /var/tmp/aurora-check.XXXXXX) || die "no work directory"
	test_user=$(id -un)
	if [ $am_root -eq 1 ]; then
		test_user=${AURORA_TEST_USER:-postgres}
		id "$test_user" >/dev/null 2>&1 || die "there is no user $test_user to step down to"
	fi
	cp -R t sql expected "$work/"
	# pg_regress needs a directory it may write into.
	mkdir -p "$work/out" "$work/tmp"
	if [ $am_root -eq 1 ]; then
		# A small file system for the disk-full test; the test has another
		# way when we may not mount.
		mkdir "$work/small"
		if mount -t tmpfs -o size=192m,mode=0700,uid="$(id -u "$test_user")" \
			tmpfs "$work/small" 2>/dev/null; then
			small_disk=$work/small
		else
			rmdir "$work/small"
		fi
		chown -R "$test_user" "$work"
	fi
	chmod 755 "$work"
	cd "$work" || die "cannot enter $work"
}

# Servers and daemons that a test left behind: processes that were started with
# a path in our own work directory, which nobody else has.
stop_leftovers() {
	local p pid
	[ -n "$work" ] || return 0
	for p in /proc/[0-9]*; do
		pid=${p#/proc/}
		{ tr '\0' ' ' <"$p/cmdline"; } 2>/dev/null | grep -qF "$work/" || continue
		case $(readlink "$p/exe" 2>/dev/null) in
			*/postgres | */aurora_storaged)
				kill -CONT "$pid" 2>/dev/null
				kill -QUIT "$pid" 2>/dev/null ;;
		esac
	done
}

clean_up() {
	cd "$top" || return
	[ -z "$beside" ] || stop_beside
	[ -n "$work" ] || return 0
	stop_leftovers
	sleep 0.3
	if [ -n "$small_disk" ]; then
		umount "$small_disk" 2>/dev/null || umount -l "$small_disk" 2>/dev/null
	fi
	if [ $failed -eq 0 ] && [ -z "${AURORA_KEEP_WORK:-}" ]; then
		rm -rf "$work"
	else
		say "work directory kept: $work"
	fi
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# regress_suite NAME TOOL INPUT SETTINGS DATABASE OPTION... TEST...: one of
# PostgreSQL's two regression tools on a server of its own.
regress_suite() {
	local name=$1 tool=$2 input=$3 conf=$4 db=$5 rc line test ok=0 bad=0
	shift 5
	need_work
	local out=$work/out/$name
	local log=$out/tool.log
	as_user mkdir -p "$out"
	as_user env PATH="$bindir:$PATH" timeout 1800 "$pgxs_top/src/test/$tool" \
		--inputdir="$work/$input" --outputdir="$out" \
		--temp-instance="$out/instance" --temp-config="$work/$conf" \
		--bindir="$bindir" --dbname="$db" \
		--no-locale --encoding=UTF8 "$@" >"$log" 2>&1
	rc=$?
	while read -r line; do
		test=$name/$(sed 's/^test \([^ ]*\) .*/\1/' <<<"$line")
		if [[ $line == *" ok "* ]]; then
			ok=$((ok + 1)); report "$test" ok "$(ms_of "$line")"
		else
			bad=$((bad + 1)); report "$test" FAILED "$(ms_of "$line")"
		fi
	done < <(grep '^test ' "$log")
	[ $rc -ne 0 ] && [ $bad -eq 0 ] && bad=1
	[ $((ok + bad)) -eq 0 ] && bad=1
	passed=$((passed + ok)); failed=$((failed + bad))
	mkdir -p "$logs/$name"
	cp "$log" "$logs/$name/"
	cp -R "$out/results" "$out/regression.diffs" "$out/log" "$logs/$name/" 2>/dev/null
	if [ $bad -ne 0 ]; then
		head -200 "$out/regression.diffs" 2>/dev/null || tail -20 "$log"
		say "  see $logs/$name"
	fi
}

# "extension" and "a_tools" make what the others use.
suite_sql() {
	local tests
	tests=${TESTS:+extension $TESTS}
	tests=${tests:-$(sed -n '/^REGRESS = /,/[^\\]$/p' "$top/Makefile" |
		sed 's/^REGRESS = //; s/\\$//' | tr '\n' ' ')}
	# shellcheck disable=SC2086
	regress_suite sql regress/pg_regress . t/aurora.conf \
		contrib_regression_aurora $tests
}

suite_isolation() {
	local tests
	tests=${TESTS:-$(cd "$top/t/isolation/specs" && ls ./*.spec |
		sed 's/^..//; s/\.spec$//; /^a_tools$/d')}
	# shellcheck disable=SC2086
	regress_suite isolation isolation/pg_isolation_regress t/isolation \
		t/isolation/isolation.conf isolation_aurora --load-extension=aurora \
		a_tools $tests
}

ms_of() {
	sed -n 's/.* \([0-9]*\) ms.*/\1/p' <<<"$1" | awk '{printf "%.1f", $1 / 1000}'
}

# Runs one TAP script; counts its top-level "ok" and "not ok" lines.
run_tap() {
	local script=$1 name log t0=$SECONDS rc p f
	name=$(basename "$script" .pl)
	log=$work/tap-$name.log
	as_user env \
		PATH="$bindir:$PATH" TMPDIR="$work/tmp" TESTDIR="$work" PGPORT=65432 \
		TESTDATADIR="$work/tmp_check" TESTLOGDIR="$work/tmp_check/log" \
		PG_REGRESS="$pgxs_top/src/test/regress/pg_regress" \
		AURORA_TEST_SMALL_DISK="$small_disk" \
		AURORA_TEST_SEED="${AURORA_TEST_SEED:-}" \
		timeout -k 10 "${TAP_TIMEOUT:-1500}" \
		perl -I "$pgxs_top/src/test/perl" -I "$work/t/lib" "$work/$script" \
		>"$log" 2>&1
	rc=$?
	p=$(grep -c '^ok ' "$log")
	f=$(grep -c '^not ok ' "$log")
	if [ $rc -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
	if [ "$p" -eq 0 ] && [ "$f" -eq 0 ]; then
		grep -q '^1\.\.0 # SKIP' "$log" || f=1
	fi
	passed=$((passed + p)); failed=$((failed + f))
	mkdir -p "$logs/tap"
	cp "$log" "$logs/tap/"
	cp "$work"/tmp_check/log/*"$name"* "$logs/tap/" 2>/dev/null
	if [ "$f" -eq 0 ]; then
		report "$script" ok $((SECONDS - t0)) "$p tests"
	else
		report "$script" FAILED $((SECONDS - t0)) "$p passed, $f failed"
		[ $rc -eq 124 ] && say "    stopped after ${TAP_TIMEOUT:-1500} s"
		grep -A12 '^not ok\|^# *Failed' "$log" | head -60
		tail -15 "$log"
		say "  see $logs/tap/tap-$name.log"
		stop_leftovers
	fi
}

suite_tap() {
	local script
	need_work
	for script in ${TESTS:-$(cd "$work" && ls t/[0-9]*.pl)}; do
		run_tap "$script"
	done
}

suite_long() {
	local script
	need_work
	for script in $(cd "$work" && ls t/long/*.pl); do
		TAP_TIMEOUT=${TAP_TIMEOUT:-7200} run_tap "$script"
	done
}

# Many faults on real processes; build/check-logs/faults.log ends with the
# figures.
suite_faults() {
	local t0=$SECONDS rc python=/usr/bin/python3
	[ -x "$python" ] || python=python3
	need_work
	# shellcheck disable=SC2086
	as_user "$python" "$work/t/faults/campaign.py" --work "$work/faults" --bindir "$bindir" \
		--json "$work/out/faults.json" --faults "${FAULTS:-200}" ${FAULTS_OPTIONS:-} 2>&1 |
		tee "$logs/faults.log"
	rc=${PIPESTATUS[0]}
	cp "$work/out/faults.json" "$logs/" 2>/dev/null
	count_step "campaign of ${FAULTS:-200} faults" "$rc" $((SECONDS - t0)) "$logs/faults.log"
}

# PostgreSQL's own tests: "core" what fits into a few minutes, "core-full" all
# of them.  Their source comes over the network; without it "core" is skipped.
suite_core() {
	local log=$logs/core.log rc p f
	"$top/t/core/run.sh" "$@" 2>&1 | tee "$log" | sed -u '$d'
	rc=${PIPESTATUS[0]}
	if [ "$rc" -eq 3 ] && [ "$1" = --ci ]; then
		tail -1 "$log"
		say "  skipped: no source of PostgreSQL's tests"
		return
	fi
	p=$(sed -n 's/^\([0-9]*\) passed, [0-9]* failed$/\1/p' "$log" | tail -1)
	f=$(sed -n 's/^[0-9]* passed, \([0-9]*\) failed$/\1/p' "$log" | tail -1)
	if [ "$rc" -ne 0 ] && [ "${f:-0}" -eq 0 ]; then f=1; tail -1 "$log"; fi
	passed=$((passed + ${p:-0})); failed=$((failed + ${f:-0}))
}

# Do make bench and make soak do what they should?  Their figures mean nothing
# here, but they must all be there and make sense.
suite_bench() {
	local t0=$SECONDS rc
	AURORA_NO_BUILD=1 BENCH_RESULTS=$logs/bench BENCH_DOCS=0 BENCH_OPTIONS= timeout 1800 \
		"$top/bench/run.sh" bench --mode smoke >"$logs/bench.log" 2>&1 &&
		/usr/bin/python3 "$top/bench/check_result.py" "$logs/bench/latest.json" >>"$logs/bench.log" 2>&1
	rc=$?
	count_step "make bench, a smoke run" $rc $((SECONDS - t0))
	[ $rc -eq 0 ] || tail -30 "$logs/bench.log"

	t0=$SECONDS
	AURORA_NO_BUILD=1 BENCH_RESULTS=$logs/bench SOAK_SECONDS=12 SOAK_OPTIONS= timeout 1800 \
		"$top/bench/run.sh" soak --scale 1 --sample 1 --warm-up 0.5 --grow-mb 256 >"$logs/soak.log" 2>&1
	rc=$?
	count_step "make soak, 12 s" $rc $((SECONDS - t0))
	[ $rc -eq 0 ] || tail -30 "$logs/soak.log"
}

# start_beside SUITE...: in a session of their own, and with longer limits.
start_beside() {
	AURORA_BESIDE=1 TEST_TIMEOUT=${TEST_TIMEOUT:-1500} SUITE_TIMEOUT=5400 \
		setsid nice -n 10 "$top/t/run-all.sh" "$@" >"$logs/beside.log" 2>&1 &
	beside=$!
}

# (timeout gives what it runs a process group each, but they are of one session.)
stop_beside() {
	local p stat
	for p in /proc/[0-9]*; do
		{ read -r stat <"$p/stat"; } 2>/dev/null || continue
		# shellcheck disable=SC2086
		set -- ${stat##*) }	# state, parent, process group, session
		[ "$4" != "$beside" ] || kill -TERM "${p#/proc/}" 2>/dev/null
	done
}

wait_beside() {
	local rc p f log=$logs/beside.log
	[ -n "$beside" ] || return
	wait "$beside"
	rc=$?
	beside=
	headline "beside these"
	sed '/^[0-9]* passed, [0-9]* failed$/d; /^took /d' "$log" | cat -s
	p=$(sed -n 's/^\([0-9]*\) passed, [0-9]* failed$/\1/p' "$log" | tail -1)
	f=$(sed -n 's/^[0-9]* passed, \([0-9]*\) failed$/\1/p' "$log" | tail -1)
	if [ "$rc" -ne 0 ] && [ "${f:-0}" -eq 0 ]; then f=1; fi
	passed=$((passed + ${p:-0})); failed=$((failed + ${f:-0}))
}

finish() {
	clean_up
	trap - EXIT
	printf '\n%d passed, %d failed\n' "$passed" "$failed"
	[ "$failed" -eq 0 ]
	exit
}

[ $# -gt 0 ] || { sed -n '3,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"; exit 2; }
started=$SECONDS
prepare
alone=()
while [ $# -gt 0 ] && [ "$1" != beside ]; do alone+=("$1"); shift; done
[ $# -eq 0 ] || shift
for suite in "${alone[@]}"; do
	if [ $# -gt 0 ] && [ "$suite" != unit ]; then
		start_beside "$@"
		shift $#
	fi
	case $suite in
		unit) headline "unit tests of the storage side"
			check_docs
			suite_storage check "unit tests" ;;
		asan) headline "the same under AddressSanitizer and UBSan"
			suite_storage asan "unit tests, sanitized" ;;
		tsan) headline "reads on many threads under ThreadSanitizer"
			suite_storage tsan "unit tests under ThreadSanitizer" ;;
		sim) headline "the cluster on a seeded clock, network and disk"; suite_sim ;;
		fuzz) headline "fuzzers, ${FUZZ_SECONDS:-10} s each"; suite_fuzz ;;
		sql) headline "SQL behaviour (pg_regress)"; suite_sql ;;
		isolation) headline "sessions step by step (isolation tester)"; suite_isolation ;;
		tap) headline "servers, crashes, faults (TAP)"; suite_tap ;;
		core) headline "PostgreSQL's own tests, a part"; suite_core --ci ;;
		core-full) headline "PostgreSQL's own tests"
			# shellcheck disable=SC2086
			suite_core ${MODES:-all} ;;
		bench) headline "the benchmark itself"; suite_bench ;;
		long) headline "long tests"; suite_long ;;
		faults) headline "faults under load"; suite_faults ;;
		*) die "unknown suite \"$suite\"" ;;
	esac
done
[ $# -eq 0 ] || start_beside "$@"
wait_beside
say ""
say "took $((SECONDS - started)) s"
finish
