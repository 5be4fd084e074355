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
name=quickstart
steps=9
unicode=/usr/share/unicode
# shellcheck source=.ci/quickstart-lib.sh
. "$top/.ci/quickstart-lib.sh"

stop_server() {
	if running; then
		as_owner "$bin/pg_ctl" -w -m fast -D "$home/data" stop >/dev/null
		echo "The quickstart server is stopped; its data is kept in $home."
		return 0
	fi
	echo "The quickstart server does not run."
}

quickstart() {
	echo "Aurora quickstart in $top"
	build_and_install

	head_line "a private instance, embedded storage"
	make_home
	resolve_home
	make_server ""
	start_server
	create_extension
	show "SELECT state AS shipper, pid, daemon_pid, aurora.storage_address() AS storage FROM aurora.shipper"

	head_line "pgbench's tables at scale 10: 1,000,000 accounts USING aurora"
	make_pgbench_tables

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
	before=$(transactions)
	start_pgbench 60
	say "pgbench runs with 4 clients; each commit waits until it is durable on storage"
	for _ in 1 2 3 4 5; do sleep 1; printf '      %s transactions\n' "$(transactions)"; done
	pid=$(head -1 "$home/data/postmaster.pid")
	kill -9 "$pid"
	say "killed process $pid"
	wait "$load" 2>/dev/null || true
	acked=$(count_acknowledged)
	# A new server refuses to start while processes of the dead one are left.
	tries=0
	while kill -0 "$pid" 2>/dev/null || processes_left; do
		tries=$((tries + 1)); [ $tries -gt 300 ] && break
		sleep 0.1
	done
	local started=${EPOCHREALTIME/./}
	start_server
	say "started again in $(((${EPOCHREALTIME/./} - started) / 1000)) ms"
	committed=$(($(transactions) - before))
	say "clients were told that $acked transactions are committed; the history has $committed"
	show_sums
	check_nothing_lost "$committed" "$acked"

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
		stop_server
		remove_home ;;
	*) die "unknown command $1" ;;
esac
