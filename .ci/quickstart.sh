#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# make quickstart: from a clean clone to a running private instance, with a
# short demo.  make quickstart-stop and make quickstart-clean undo it.
#
# Everything lives in build/quickstart (as root: owned by user postgres, to
# whom the script steps down, because PostgreSQL refuses to run as root).  The
# server listens on a Unix-domain socket in that directory only, so it meets no
# other server.
set -euo pipefail
umask 022
exec </dev/null

top=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
PG_MAJOR=${PG_MAJOR:-15}
home=$top/build/quickstart
log=$top/build/quickstart.log
unicode=/usr/share/unicode
step=0
steps=9
t0=$SECONDS

am_root=0
owner=$(id -un)
if [ "$(id -u)" -eq 0 ]; then
	am_root=1
	owner=postgres
fi

head_line() {
	step=$((step + 1))
	printf '\n[%d/%d] %s  (%d s)\n' "$step" "$steps" "$*" $((SECONDS - t0))
}
say() { printf '      %s\n' "$*"; }
die() { printf '\nquickstart: %s\n' "$*" >&2; exit 1; }

as_owner() {
	if [ $am_root -eq 1 ]; then
		(cd / && runuser -u "$owner" -- "$@")
	else
		(cd / && "$@")
	fi
}

find_pg() {
	PG_CONFIG=${PG_CONFIG:-pg_config}
	if [ "$PG_CONFIG" = pg_config ] &&
		[ -x "/usr/lib/postgresql/$PG_MAJOR/bin/pg_config" ]; then
		PG_CONFIG=/usr/lib/postgresql/$PG_MAJOR/bin/pg_config
	fi
	bin=$("$PG_CONFIG" --bindir 2>/dev/null) || bin=
	export PG_CONFIG
}

running() {
	[ -n "$bin" ] && [ -e "$home/data/PG_VERSION" ] &&
		as_owner "$bin/pg_ctl" -D "$home/data" status >/dev/null 2>&1
}

psql_() { as_owner env PGOPTIONS="${PGOPTIONS:-}" "$bin/psql" -X -q -v ON_ERROR_STOP=1 -h "$home" -U postgres -d postgres "$@"; }
value() { psql_ -At -c "$1"; }
show() { psql_ -P footer=off -c "$1" | sed 's/^/      /'; }

start_server() {
	as_owner "$bin/pg_ctl" -w -t 300 -D "$home/data" -l "$home/server.log" start >>"$log" 2>&1 || {
		tail -20 "$home/server.log" >&2
		die "the server did not start, see $home/server.log"
	}
}

stop_server() {
	if running; then
		as_owner "$bin/pg_ctl" -w -m fast -D "$home/data" stop >/dev/null
		echo "The quickstart server is stopped; its data is kept in $home."
		return 0
	fi
	echo "The quickstart server does not run."
}

# PostgreSQL's owner must be able to enter the directory, and a socket's path
# has 107 bytes at most; where the tree lies too deep or is private (a clone
# below /root), the instance lies in /var/tmp and build/quickstart leads there.
make_home() {
	mkdir -p "$top/build"
	if [ -L "$home" ] && [ ! -d "$home" ]; then rm -f "$home"; fi
	[ -d "$home" ] && return 0
	if ! as_owner test -x "$top/build" || [ ${#home} -gt 70 ]; then
		local away
		away=$(mktemp -d /var/tmp/aurora-quickstart.XXXXXX)
		chmod 755 "$away"
		[ $am_root -eq 1 ] && chown "$owner" "$away"
		ln -s "$away" "$home"
		say "user $owner cannot use $top/build, so the instance is in $away"
	else
		mkdir "$home"
		[ $am_root -eq 1 ] && chown "$owner" "$home"
	fi
	return 0
}

# A short path that every client can use, whatever the link is called.
resolve_home() { [ -L "$home" ] && home=$(readlink -f "$home"); return 0; }

start_pgbench() {
	# Each transaction whose COMMIT was answered leaves one line in a log.
	as_owner mkdir -p "$home/acked"
	as_owner find "$home/acked" -type f -delete
	as_owner "$bin/pgbench" -n -h "$home" -U postgres -c 4 -j 2 -T 60 -l \
		--log-prefix="$home/acked/log" postgres >>"$log" 2>&1 &
	load=$!
}

# Is there still a process that works in the data directory?
processes_left() {
	local p
	for p in /proc/[0-9]*; do
		if [ "$(readlink "$p/cwd" 2>/dev/null)" = "$home/data" ] &&
			[[ "$(readlink "$p/exe" 2>/dev/null)" == */postgres* ]]; then
			return 0
		fi
	done
	return 1
}

quickstart() {
	mkdir -p "$top/build"
	: >"$log"
	echo "Aurora quickstart in $top"

	head_line "packages: PostgreSQL $PG_MAJOR, RocksDB, libuv and what else is missing"
	"$top/.ci/deps.sh" run
	find_pg
	[ -n "$bin" ] || die "no pg_config"
	say "$("$bin/postgres" --version)"

	head_line "build the extension and the storage daemon"
	(cd "$top" && make -j"$(nproc)") >>"$log" 2>&1 ||
		{ tail -30 "$log" >&2; die "the build failed, see $log"; }
	say "done"

	head_line "install them into $("$PG_CONFIG" --pkglibdir)"
	if [ -w "$("$PG_CONFIG" --pkglibdir)" ]; then
		(cd "$top" && make install) >>"$log" 2>&1 || die "make install failed, see $log"
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		(cd "$top" && sudo -n make PG_CONFIG="$PG_CONFIG" install) >>"$log" 2>&1 ||
			die "make install failed, see $log"
	else
		cmp -s "$top/aurora.so" "$("$PG_CONFIG" --pkglibdir)/aurora.so" ||
			die "run \"make install\" as root, then make quickstart again"
	fi
	say "done"

	head_line "a private instance, embedded storage"
	[ $am_root -eq 0 ] || id "$owner" >/dev/null 2>&1 || die "there is no user $owner"
	make_home
	resolve_home
	if [ ! -e "$home/data/PG_VERSION" ]; then
		as_owner "$bin/initdb" -D "$home/data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 >>"$log" 2>&1 ||
			die "initdb failed, see $log"
		as_owner tee -a "$home/data/postgresql.conf" >/dev/null <<-CONF

		# --- make quickstart ---
		listen_addresses = ''
		unix_socket_directories = '$home'
		unix_socket_permissions = 0700
		shared_preload_libraries = 'aurora'
		default_table_access_method = 'aurora'
		synchronous_standby_names = 'aurora'	# a commit waits until storage has it
		shared_buffers = 128MB
		CONF
	fi
	if running; then
		# The library may be newer than the one the server runs with.
		as_owner "$bin/pg_ctl" -w -m fast -D "$home/data" stop >>"$log" 2>&1
	fi
	start_server
	# The first user of the shipper waits for it; system catalogs are heap.
	value 'CREATE EXTENSION IF NOT EXISTS aurora' >/dev/null
	for _ in $(seq 100); do
		[ "$(value 'SELECT state FROM aurora.shipper')" = streaming ] && break
		sleep 0.2
	done
	show "SELECT state AS shipper, pid, daemon_pid, aurora.storage_address() AS storage FROM aurora.shipper"

	head_line "pgbench's tables at scale 10: 1,000,000 accounts USING aurora"
	as_owner "$bin/pgbench" -h "$home" -U postgres -i -s 10 -q postgres 2>&1 | tee -a "$log" |
		grep -E 'tuples|done in' | tail -1 | sed 's/^/      /'

	head_line "real data: UnicodeData.txt, joined and aggregated"
	psql_ >>"$log" 2>&1 <<-SQL
	DROP TABLE IF EXISTS ucd, ucd_block, ucd_category;
	CREATE TABLE ucd (code text PRIMARY KEY, name text, category text, combining int, bidi text,
	  decomposition text, dec text, digit text, num text, mirrored text, old_name text, remark text,
	  upper text, lower text, title text);
	COPY ucd FROM '$unicode/UnicodeData.txt' (DELIMITER ';', NULL '');
	CREATE TABLE ucd_block (first text, last text, name text);
	COPY ucd_block FROM PROGRAM 'sed -n "s/^\([0-9A-F]*\)\.\.\([0-9A-F]*\); \(.*\)/\1;\2;\3/p" $unicode/Blocks.txt' (DELIMITER ';');
	CREATE TABLE ucd_category (category text PRIMARY KEY, meaning text);
	INSERT INTO ucd_category VALUES ('Lu', 'upper case letter'), ('Ll', 'lower case letter'), ('Lo', 'other letter'),
	  ('Nd', 'decimal digit'), ('So', 'other symbol'), ('Mn', 'nonspacing mark'), ('Sm', 'mathematical symbol');
	CREATE INDEX ON ucd (category);
	ANALYZE ucd; ANALYZE ucd_block;
	SQL
	show "SELECT c.meaning, count(*), min(u.name) AS first_by_name
	        FROM ucd u JOIN ucd_category c USING (category) GROUP BY 1 ORDER BY 2 DESC"
	show "SELECT b.name AS block, count(*) AS upper_case_letters, count(l.code) AS with_lower_case, min(l.name) AS example
	        FROM ucd u JOIN ucd_block b
	             ON lpad(u.code, 6, '0') BETWEEN lpad(b.first, 6, '0') AND lpad(b.last, 6, '0')
	             LEFT JOIN ucd l ON l.code = u.lower
	       WHERE u.category = 'Lu' GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 5"

	head_line "where the bytes live"
	show "SELECT name, kind, pg_size_pretty(size) AS table_pages, local_size AS local_file_bytes,
	             pg_size_pretty(indexes_size) AS indexes
	        FROM aurora.tables WHERE size > 0 AND schema = 'public' ORDER BY size DESC LIMIT 6"
	local file
	file=$home/data/$(value "SELECT pg_relation_filepath('pgbench_accounts')")
	say "$(as_owner ls -l "$file")"
	say "and in the storage daemon's directory:"
	as_owner du -sh "$home/data/aurora" | sed 's/^/      /'
	if [ -x "$bin/auroractl" ]; then
		as_owner "$bin/auroractl" --socket "$home/data/aurora/storaged.sock" status 2>>"$log" | sed 's/^/      /' || true
	fi

	head_line "kill -9 of the server in the middle of a write load"
	local acked committed before pid tries
	before=$(value 'SELECT count(*) FROM pgbench_history')
	start_pgbench
	say "pgbench runs with 4 clients; each commit waits until it is durable on storage"
	for _ in 1 2 3 4 5; do sleep 1; printf '      %s transactions\n' "$(value 'SELECT count(*) FROM pgbench_history')"; done
	pid=$(head -1 "$home/data/postmaster.pid")
	kill -9 "$pid"
	say "killed process $pid"
	wait "$load" 2>/dev/null || true
	acked=$(as_owner find "$home/acked" -type f -exec cat {} + | wc -l)
	# A new server refuses to start while processes of the dead one are left.
	tries=0
	while kill -0 "$pid" 2>/dev/null || processes_left; do
		tries=$((tries + 1)); [ $tries -gt 300 ] && break
		sleep 0.1
	done
	local started=${EPOCHREALTIME/./}
	start_server
	say "started again in $(((${EPOCHREALTIME/./} - started) / 1000)) ms"
	committed=$(($(value 'SELECT count(*) FROM pgbench_history') - before))
	say "clients were told that $acked transactions are committed; the history has $committed"
	show "SELECT (SELECT sum(abalance) FROM pgbench_accounts) AS accounts, (SELECT sum(tbalance) FROM pgbench_tellers) AS tellers,
	             (SELECT sum(bbalance) FROM pgbench_branches) AS branches, (SELECT sum(delta) FROM pgbench_history) AS history"
	show "SELECT relations AS tables, compared AS cached_pages_compared_with_storage, differing FROM aurora.verify_all()"
	local sums differing
	sums=$(value "SELECT count(DISTINCT s) FROM (VALUES ((SELECT sum(abalance) FROM pgbench_accounts)), ((SELECT sum(tbalance) FROM pgbench_tellers)),
	          ((SELECT sum(bbalance) FROM pgbench_branches)), ((SELECT sum(delta) FROM pgbench_history))) v(s)")
	differing=$(value 'SELECT differing FROM aurora.verify_all()')
	[ "$committed" -ge "$acked" ] || die "LOST: $((acked - committed)) acknowledged transactions are missing"
	[ "$sums" = 1 ] || die "LOST: the balances do not agree"
	[ "$differing" = 0 ] || die "cached pages differ from storage"
	say "nothing that was committed is lost"

	head_line "ready"
	local psql_command="$bin/psql -h $home -U postgres"
	cat <<-TEXT
	      connect:    $psql_command postgres
	      try:        CREATE TABLE t (id int PRIMARY KEY, v text) USING aurora;
	                  SELECT * FROM aurora.tables;   SELECT * FROM aurora.shipper;
	      stop:       make quickstart-stop       (make quickstart starts it again)
	      remove:     make quickstart-clean
	      log files:  $home/server.log, $log
	TEXT
	printf '\nquickstart: all well, took %d s\n' $((SECONDS - t0))
}

case ${1:-quickstart} in
	quickstart) quickstart ;;
	quickstart-stop) find_pg; resolve_home; stop_server ;;
	quickstart-clean)
		find_pg
		link=$home
		resolve_home
		stop_server
		case $home in
			*/build/quickstart | /var/tmp/aurora-quickstart.*) rm -rf "$home" ;;
		esac
		[ -L "$link" ] && rm -f "$link"
		rm -f "$log"
		echo "Removed $home." ;;
	*) die "unknown command $1" ;;
esac
