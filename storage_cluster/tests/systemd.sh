#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# systemd.sh BUILD: what make install-systemd installs is what systemd and the
# daemon take: the unit by systemd-analyze (left out where there is none), the
# example by a daemon that is started with it.
set -uo pipefail
build=$1
dir=$(mktemp -d /tmp/aurora-systemd.XXXXXX)
daemon=
passed=0
failed=0
trap '[ -z "$daemon" ] || kill -9 "$daemon" 2>/dev/null; rm -rf "$dir"' EXIT

check() {
	if [ "$2" -eq 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "[  FAILED  ] systemd: $1"; fi
}

make -s install-systemd DESTDIR="$dir" unitdir=/units sysusersdir=/sysusers docdir=/doc \
	confdir=/etc/aurora bindir=/bin >"$dir/log" 2>&1
check "make install-systemd: $(tail -1 "$dir/log")" $?
unit=$dir/units/aurora-storaged@.service
grep -q '@[a-z]*dir@' "$unit"
check "a place was not filled in" $((! $?))

if command -v systemd-analyze >/dev/null; then
	# The program has to be there, and the user to be known, for it to be content.
	sed -e "s,^ExecStart=.* --config,ExecStart=$(readlink -f "$build")/aurora_storaged --config," \
		-e 's/^User=.*/User=root/; s/^Group=.*/Group=root/; /^Documentation=/d' \
		"$unit" >"$dir/aurora-storaged@check.service"
	SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no "$dir/aurora-storaged@check.service" >"$dir/log" 2>&1
	rc=$?
	# (It also tells about other units of the machine.)
	grep -q 'aurora-storaged' "$dir/log" && rc=1
	check "systemd-analyze verify: $(cat "$dir/log")" $rc
	systemd-analyze security --offline=yes --threshold=20 "$unit" >"$dir/log" 2>&1
	check "systemd-analyze security: $(tail -1 "$dir/log")" $?
fi

sed "s,/var/lib/aurora/NAME,$dir/node,; s,^listen = .*,socket = $dir/s,; s,^http = .*,http-socket = $dir/h," \
	"$dir/doc/example.conf" >"$dir/node.conf"
"$build/aurora_storaged" --config "$dir/node.conf" >"$dir/log" 2>&1 &
daemon=$!
for _ in $(seq 600); do [ -S "$dir/h" ] && break; sleep 0.1; done
"$build/auroractl" --http-socket "$dir/h" status >"$dir/status" 2>&1
check "a daemon with the example: $(tail -1 "$dir/log")" $?
kill -TERM "$daemon"
wait "$daemon"
check "its orderly stop" $?
daemon=

echo "[  PASSED  ] $passed test(s)."
[ $failed -eq 0 ] || { echo "[  FAILED  ] $failed test(s)."; exit 1; }
