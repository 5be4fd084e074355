#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes expected/*.out from sql/*.sql with PostgreSQL's own heap: a private
# server gets an access method named "aurora" whose handler is heap's, and the
# tests run on it.  So what aurora tables must do is what heap tables do, and
# nobody wrote it down by hand.  Tests about Aurora itself (errors, redirect)
# are not made this way.
#
#   t/make-expected.sh [test ...]
#
# Run it as an ordinary user, or as root (then it steps down to postgres).
set -euo pipefail
top=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
bindir=$("$PG_CONFIG" --bindir)

if [ "$(id -u)" -eq 0 ]; then
	work=$(mktemp -d /var/tmp/aurora-expected.XXXXXX)
	trap 'rm -rf "$work"' EXIT
	mkdir "$work/t"
	cp "$top/t/make-expected.sh" "$work/t/"
	cp -R "$top/sql" "$top/expected" "$top/Makefile" "$work/"
	chown -R postgres "$work"
	(cd "$work" && runuser -u postgres -- "$work/t/make-expected.sh" "$@")
	for f in "$work"/expected/*.out; do
		cmp -s "$f" "$top/expected/${f##*/}" || install -m 644 "$f" "$top/expected/"
	done
	exit
fi

data=$(mktemp -d "${TMPDIR:-/tmp}/aurora-heap.XXXXXX")
stop() { "$bindir/pg_ctl" -D "$data/pg" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$data"; }
trap stop EXIT
"$bindir/initdb" -D "$data/pg" --no-locale -E UTF8 -A trust >/dev/null
cat >>"$data/pg/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$data'
max_prepared_transactions = 4
autovacuum_naptime = 2s
fsync = off
CONF
"$bindir/pg_ctl" -w -D "$data/pg" -l "$data/log" start >/dev/null

export PGHOST=$data PGDATABASE=regression PGTZ=PST8PDT PGDATESTYLE='Postgres, MDY'
export PGOPTIONS='-c intervalstyle=postgres_verbose'
psql() { "$bindir/psql" -X "$@"; }
psql -q -d postgres -c 'CREATE DATABASE regression TEMPLATE template0' \
	-c "ALTER DATABASE regression SET lc_messages TO 'C'" \
	-c "ALTER DATABASE regression SET bytea_output TO 'hex'"
psql -q -c 'CREATE ACCESS METHOD aurora TYPE TABLE HANDLER heap_tableam_handler' \
	-c 'CREATE SCHEMA aurora' \
	-c 'CREATE FUNCTION aurora.verify_pages(regclass) RETURNS SETOF int LANGUAGE sql AS $$ SELECT 1 WHERE false $$'

cd "$top"
run() {
	sed -e 's/^CREATE EXTENSION aurora;/SELECT WHERE false \\g \/dev\/null/' \
		-e "s/current_setting('shared_preload_libraries') ~ 'aurora'/true/" "sql/$1.sql" |
		psql -a -q -v HIDE_TABLEAM=on -v HIDE_TOAST_COMPRESSION=on 2>&1 |
		sed -e 's/^SELECT WHERE false .*/CREATE EXTENSION aurora;/' \
			-e "s/SELECT true AS preloaded/SELECT current_setting('shared_preload_libraries') ~ 'aurora' AS preloaded/" |
		awk '/^ local_main_bytes \|/ {print; getline; print; getline; sub(/^ *[0-9]+/, "                0")} {print}'
}
run extension >"expected/extension.out.new"
psql -q -c 'CREATE OR REPLACE FUNCTION local_main_bytes() RETURNS bigint LANGUAGE sql AS $$ SELECT 0::bigint $$'
tests=${*:-$(sed -n '/^REGRESS = /,/[^\\]$/p' Makefile | sed 's/^REGRESS = //; s/\\$//')}
for t in $tests; do
	case $t in
		extension) mv expected/extension.out.new expected/extension.out ;;
		errors | redirect) ;;
		*) run "$t" >"expected/$t.out" ;;
	esac
	echo "$t"
done
# The same with prepared transactions switched off, as they are by default.
case " $(echo $tests) " in
	*" prepared "*)
		"$bindir/pg_ctl" -w -D "$data/pg" -l "$data/log" -o '-c max_prepared_transactions=0' restart >/dev/null
		psql -q -c 'DROP TABLE IF EXISTS tx, tx2'
		run prepared >expected/prepared_1.out
		echo "prepared_1" ;;
esac
rm -f expected/extension.out.new
