#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Gets the tests that PostgreSQL brings along, from the source package of the
# version that is installed, as the distribution publishes it; nothing of it
# is ever committed.
#
#   t/core/fetch.sh DIRECTORY
#
# Leaves in DIRECTORY: src/test/regress, src/test/isolation, and file VERSION,
# the version these are of.  Security updates reach mirrors before their
# sources do: if the installed version's source is not there, the newest one
# that is there is taken and a warning printed, and DIRECTORY/client/psql is
# the psql of that version: what a psql prints and how it reads its input is
# part of these tests.
#
# Needs no root: apt works on private lists.  Exits with 3 if no source can be
# had.
set -euo pipefail

dest=${1:?usage: $0 DIRECTORY}
PG_MAJOR=${PG_MAJOR:-15}
package=postgresql-$PG_MAJOR
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/$PG_MAJOR/bin/pg_config}

say() { printf '%s\n' "$*"; }
give_up() { printf 'core: %s\n' "$*" >&2; exit 3; }

installed=$("$PG_CONFIG" --version | sed 's/^PostgreSQL \([0-9.]*\).*/\1/')
if [ -s "$dest/VERSION" ] &&
	{ [ "$(cat "$dest/VERSION")" = "$installed" ] || [ -x "$dest/client/psql" ]; } &&
	[ -n "$(find "$dest/VERSION" -mtime -7)" ]; then
	exit 0
fi
command -v apt-get >/dev/null || give_up "no apt-get here, so no source package can be fetched"

mkdir -p "$dest"
scratch=$(mktemp -d "$dest/fetch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch"/{parts,lists/partial,archives/partial,got}

# The places where the installed package comes from, as source.
apt-cache policy "$package" |
	awk '$2 ~ /^(http|https|file|mirror|copy)/ {split($3, s, "/");
		kind = (s[2] == "" ? "main" : s[2]);
		print "deb-src", $2, s[1], kind; print "deb", $2, s[1], kind}' |
	sort -u >"$scratch/sources.list"
[ -s "$scratch/sources.list" ] || give_up "apt knows no place where $package comes from"

apt=(-q -o Dir::Etc::sourcelist="$scratch/sources.list"
	-o Dir::Etc::sourceparts="$scratch/parts"
	-o Dir::State::lists="$scratch/lists"
	-o Dir::Cache::archives="$scratch/archives"
	-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
	-o Acquire::Retries=2 -o Acquire::Languages=none
	-o APT::Sandbox::User= -o APT::Get::List-Cleanup=0)
apt-get "${apt[@]}" update >"$scratch/log" 2>&1 </dev/null ||
	{ tail -5 "$scratch/log" >&2; give_up "the lists of sources cannot be fetched"; }

newest_first=$(apt-cache "${apt[@]}" showsrc "$package" 2>/dev/null |
	sed -n 's/^Version: //p' | sort -Vru)
found=
for v in $(grep -F "$installed-" <<<"$newest_first" || true) $newest_first; do
	if (cd "$scratch/got" && apt-get "${apt[@]}" --download-only --tar-only \
		source "$package=$v") >>"$scratch/log" 2>&1 </dev/null; then
		found=$v
		break
	fi
done
[ -n "$found" ] || { tail -5 "$scratch/log" >&2
	give_up "no source of $package can be fetched"; }
version=${found%%-*}
version=${version#*:}

rm -rf "$dest/src" "$dest/client" "$dest/VERSION"
tar -xf "$(ls "$scratch"/got/*.orig.tar.*)" -C "$dest" --strip-components=1 --wildcards \
	'*/src/test/regress' '*/src/test/isolation'

if [ "$version" != "$installed" ]; then
	say "warning: the source of PostgreSQL $installed is not to be had; taking the tests of $version"
	(cd "$scratch/got" && apt-get "${apt[@]}" download \
		"postgresql-client-$PG_MAJOR=$found") >>"$scratch/log" 2>&1 </dev/null ||
		give_up "psql $version cannot be fetched"
	dpkg-deb -x "$scratch"/got/postgresql-client-*.deb "$scratch/client"
	mkdir "$dest/client"
	cp "$scratch/client/usr/lib/postgresql/$PG_MAJOR/bin/psql" "$dest/client/"
fi
echo "$version" >"$dest/VERSION"
say "tests of PostgreSQL $version (installed: $installed) are in $dest"
