#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# make profile: instructions and WAL bytes per operation, heap and aurora, by
# bench/profile/profile.py.  Options for it may follow (bench/profile.sh
# --help) or stand in PROFILE_OPTIONS.
set -euo pipefail
top=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
PG_MAJOR=${PG_MAJOR:-15}
case " $* " in *" --help "*) exec python3 "$top/bench/profile/profile.py" --help ;; esac

"$top/.ci/deps.sh" profile
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

work=$(mktemp -d /var/tmp/aurora-profile.XXXXXX)
trap 'rm -rf "$work"' EXIT
cp "$top/bench/profile/profile.py" "$work/"
"${CC:-gcc}" -O2 -Wall -Wextra -Werror -Wno-unused-parameter -fPIC -shared \
	-isystem "$("$PG_CONFIG" --includedir-server)" \
	-o "$work/counting.so" "$top/bench/profile/counting.c"
command=(python3 "$work/profile.py" --work "$work/server" --counting "$work/counting.so"
	--bindir "$("$PG_CONFIG" --bindir)")
if [ "$(id -u)" -eq 0 ]; then
	chmod 755 "$work"
	chown -R postgres "$work"
	command=(runuser -u postgres -- "${command[@]}")
fi
# shellcheck disable=SC2086
(cd "$work" && "${command[@]}" ${PROFILE_OPTIONS:-} "$@" </dev/null)
