#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# make bench: builds, installs, and runs bench/bench.py as a user who may run
# PostgreSQL.  Options for bench.py may follow (bench/run.sh --help) or stand in
# BENCH_OPTIONS.
set -euo pipefail
top=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
PG_MAJOR=${PG_MAJOR:-15}
case " $* " in *" --help "*) exec python3 "$top/bench/bench.py" --help ;; esac

"$top/.ci/deps.sh" all
PG_CONFIG=${PG_CONFIG:-pg_config}
if [ "$PG_CONFIG" = pg_config ] && [ -x "/usr/lib/postgresql/$PG_MAJOR/bin/pg_config" ]; then
	PG_CONFIG=/usr/lib/postgresql/$PG_MAJOR/bin/pg_config
fi
export PG_CONFIG
if [ -z "${AURORA_NO_BUILD:-}" ]; then
	mkdir -p "$top/build"
	echo "building ..."
	(cd "$top" && make -j"$(nproc)" && { [ ! -w "$("$PG_CONFIG" --pkglibdir)" ] || make install; }) \
		>"$top/build/bench-build.log" 2>&1 ||
		{ tail -20 "$top/build/bench-build.log" >&2; exit 1; }
fi

work=$(mktemp -d /var/tmp/aurora-bench.XXXXXX)
trap 'rm -rf "$work"' EXIT
cp "$top/bench/bench.py" "$work/"
revision=$(git -C "$top" describe --always --dirty 2>/dev/null || echo unknown)
command=(python3 "$work/bench.py" --work "$work/servers" --out "$work/latest.json"
	--bindir "$("$PG_CONFIG" --bindir)" --revision "$revision")
if [ "$(id -u)" -eq 0 ]; then
	chmod 755 "$work"
	chown -R postgres "$work"
	command=(runuser -u postgres -- "${command[@]}")
fi
# shellcheck disable=SC2086
(cd "$work" && "${command[@]}" ${BENCH_OPTIONS:-} "$@" </dev/null)
mkdir -p "$top/bench/results"
install -m 644 "$work/latest.json" "$top/bench/results/latest.json"
echo "written: bench/results/latest.json"
