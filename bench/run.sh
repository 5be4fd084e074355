#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# make bench, make soak: builds, installs, and runs bench/bench.py (or
# bench/soak.py) as a user who may run PostgreSQL, in a work directory of its
# own that goes away at the end, whatever the end is.
#
#   bench/run.sh bench|soak [OPTIONS]     OPTIONS: bench/run.sh bench --help
#
# Environment:
#   BENCH_OPTIONS      more options of bench.py
#   SOAK_OPTIONS       more options of soak.py
#   SOAK_SECONDS       how long the soak runs (default 1200)
#   AURORA_NO_BUILD=1  do not build and install first
#   AURORA_TEST_USER   whom to step down to as root (default postgres)
#   TMPDIR             where the work directory is made (default /var/tmp)
#   BENCH_RESULTS      where results go (default bench/results)
#   BENCH_DOCS=0       do not put the results into docs/benchmark.md (only modes
#                      full and compact with all peers and workloads do)
set -euo pipefail
top=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
PG_MAJOR=${PG_MAJOR:-15}
what=${1:-bench}
shift || true
case $what in
	bench) options=${BENCH_OPTIONS:-} ;;
	soak) options="--seconds ${SOAK_SECONDS:-1200} ${SOAK_OPTIONS:-}" ;;
	*) echo "usage: $0 bench|soak [OPTIONS]" >&2; exit 2 ;;
esac
case " $* $options " in
	*" --help "*) exec python3 "$top/bench/$what.py" --help ;;
esac

"$top/.ci/deps.sh" all
PG_CONFIG=${PG_CONFIG:-pg_config}
if [ "$PG_CONFIG" = pg_config ] && [ -x "/usr/lib/postgresql/$PG_MAJOR/bin/pg_config" ]; then
	PG_CONFIG=/usr/lib/postgresql/$PG_MAJOR/bin/pg_config
fi
export PG_CONFIG
mkdir -p "$top/build"
if [ -z "${AURORA_NO_BUILD:-}" ]; then
	echo "building ..."
	(cd "$top" && make -j"$(nproc)" && { [ ! -w "$("$PG_CONFIG" --pkglibdir)" ] || make install; }) \
		>"$top/build/bench-build.log" 2>&1 ||
		{ tail -20 "$top/build/bench-build.log" >&2; exit 1; }
fi
make -C "$top/storage_cluster" build/bench/walfeed >>"$top/build/bench-build.log" 2>&1 ||
	{ tail -20 "$top/build/bench-build.log" >&2; exit 1; }

# Processes start in the work directory, which their user must be able to enter;
# a socket's path has 107 bytes at most.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/aurora-$what.XXXXXX")
child=
group=
clean_up() {
	cd "$top"
	rm -rf "$work"
	[ -n "$group" ] || return 0
	# (The kernel may still be burying the last of its processes.)
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		rmdir "$group" 2>/dev/null && return 0
		sleep 0.2
	done
}
trap clean_up EXIT
# The program cleans up after itself on a signal; wait for it.
stop_child() {
	trap '' INT TERM HUP
	[ -z "$child" ] || { kill -TERM "$child" 2>/dev/null; wait "$child" 2>/dev/null; } || true
	publish
	exit 130
}
trap stop_child INT TERM HUP

# A memory control group for the soak, where we may make one.
make_group() {
	local top_group
	for top_group in /sys/fs/cgroup/memory /sys/fs/cgroup; do
		group=$top_group/aurora-soak.$$
		if mkdir "$group" 2>/dev/null; then
			if [ -e "$group/memory.limit_in_bytes" ] || [ -e "$group/memory.max" ]; then
				chown -R "$user" "$group"
				command+=(--cgroup "$group")
				return
			fi
			rmdir "$group"
		fi
	done
	group=
}

mkdir "$work/bin" "$work/out"
cp -R "$top/bench/"*.py "$top/bench/aubench" "$top/storage_cluster/build/bench/walfeed" "$work/bin/"
revision=$(git -C "$top" describe --always --dirty 2>/dev/null || echo unknown)
shown="make $what"
[ -z "$options$*" ] || shown="make $what ${what^^}_OPTIONS=\"$(echo $options "$@")\""
# Debian's own: another one may be in a directory that the user cannot enter.
python=/usr/bin/python3
[ -x "$python" ] || python=python3
command=("$python" "$work/bin/$what.py" --work "$work/w" --out "$work/out"
	--bindir "$("$PG_CONFIG" --bindir)" --revision "$revision" --command "$shown")
[ "$what" = soak ] || command+=(--walfeed "$work/bin/walfeed")
if [ "$(id -u)" -eq 0 ]; then
	user=${AURORA_TEST_USER:-postgres}
	id "$user" >/dev/null 2>&1 || { echo "bench: there is no user $user to step down to" >&2; exit 1; }
	chmod 755 "$work"
	chown -R "$user" "$work"
	[ "$what" != soak ] || make_group
	# (runuser would put a process of its own between, which waits 2 s only.)
	command=(setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups "${command[@]}")
fi
# Puts the results where they belong.  They are written after each measurement:
# what was measured until an interruption is kept, but for the document.
publish() {
	local plot results=${BENCH_RESULTS:-$top/bench/results}
	ls "$work"/out/* >/dev/null 2>&1 || return 0
	cd "$work"
	mkdir -p "$results"
	[ ! -e out/latest.json ] || rm -f "$results"/*.svg
	install -m 644 out/* "$results/"
	[ -e out/latest.json ] || return 0
	echo "written: latest.json, latest.md and plots in $results"
	if [ "${BENCH_DOCS:-1}" != 0 ] && grep -qE '"mode": "(full|compact)"' out/latest.json &&
		grep -q '"complete": true' out/latest.json && grep -q '"everything": true' out/latest.json; then
		sed 's/](\([a-z0-9-]*\.svg\))/](benchmark-\1)/' out/latest.md >out/section.md
		(cd bin && python3 -m aubench.report ../out/section.md "$top/docs/benchmark.md")
		for plot in out/*.svg; do install -m 644 "$plot" "$top/docs/benchmark-$(basename "$plot")"; done
		echo "written: docs/benchmark.md"
	fi
}
# (A function, so that bash has read it all when the script is edited meanwhile.)
run() {
	cd "$work"
	# shellcheck disable=SC2086
	"${command[@]}" $options "$@" </dev/null &
	child=$!
	rc=0
	wait "$child" || rc=$?
	child=
	publish
	exit $rc
}
run "$@"
