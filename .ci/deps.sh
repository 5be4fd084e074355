#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what is missing to build, run and test Aurora, from Debian's
# packages and nowhere else.  Does nothing, and asks no network, when all of
# it is there.
set -euo pipefail

major=${PG_MAJOR:-15}

build_packages=(
	gcc make pkg-config libc6-dev
	postgresql-server-dev-"$major"
	librocksdb-dev libuv1-dev libpmem-dev libcurl4-openssl-dev
	libjansson-dev libmicrohttpd-dev libraft-dev
)
run_packages=(
	postgresql-"$major" postgresql-client-"$major"
	procps util-linux unicode-data
)
test_packages=(libcmocka-dev libipc-run-perl perl clang libclang-rt-dev python3
	iproute2)

case ${1:-all} in
	all) wanted=("${build_packages[@]}" "${run_packages[@]}" "${test_packages[@]}") ;;
	profile) wanted=("${build_packages[@]}" "${run_packages[@]}" valgrind python3) ;;
	run) wanted=("${build_packages[@]}" "${run_packages[@]}") ;;
	list)
		printf '%s\n' "${build_packages[@]}" "${run_packages[@]}" "${test_packages[@]}"
		exit 0 ;;
	*) echo "usage: $0 [all|run|profile|list]" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null; then
	cat >&2 <<-TEXT
	This is no Debian system, so what Aurora needs cannot be installed from
	here.  Install PostgreSQL $major with its server headers, RocksDB, libuv,
	libpmem, libcurl, jansson, libmicrohttpd, libraft and cmocka yourself, then run
	"make" and "make install".
	TEXT
	# Good enough if the main things are there.
	command -v "${PG_CONFIG:-pg_config}" >/dev/null && exit 0
	exit 1
fi

missing=()
for p in "${wanted[@]}"; do
	state=$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)
	[ "$state" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=()
if [ "$(id -u)" -ne 0 ]; then
	if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		sudo=(sudo -n)
	else
		echo "These packages are missing; install them as root, then try again:" >&2
		echo "    apt-get install --no-install-recommends ${missing[*]}" >&2
		exit 1
	fi
fi

echo "Installing from Debian's packages: ${missing[*]}"
apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y
	-o Acquire::Retries=3 -o Dpkg::Use-Pty=0)
"${apt[@]}" update </dev/null
"${apt[@]}" install --no-install-recommends "${missing[@]}" </dev/null
