#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# walcut_vs_waldump.sh WALCUT [DIRECTORY]: makes real WAL with a private
# PostgreSQL server and checks that our decoder finds in it exactly the
# records that pg_waldump does, fed in pieces of several sizes and restarted
# in between.  Needs PostgreSQL 15 (PG_BIN, or pg_config's) and perl.
#
# The WAL holds drops, two-phase commits, records over many pages, switched
# segments, compressed images, crashes, and a record overwritten after a
# crash (its tail is wiped while the server is down).
set -eu

walcut=$(realpath "$1")
dir=${2:-}
bin=${PG_BIN:-$(pg_config --bindir)}
own_dir=

if [ -z "$dir" ]; then
	dir=$(mktemp -d /tmp/walcut.XXXXXX)
	own_dir=$dir
fi
data=$dir/data
# The server does not run as root.
as=
if [ "$(id -u)" = 0 ]; then
	as="runuser -u postgres --"
	chown postgres "$dir"
	chmod 755 "$dir"
fi

crash() {
	pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null) || return 0
	kids=$(cat /proc/"$pid"/task/"$pid"/children 2>/dev/null || true)
	kill -9 "$pid" 2>/dev/null || true
	# its children notice by themselves; wait for them
	for p in $pid $kids; do
		n=0
		while [ -d /proc/"$p" ] && [ $n -lt 100 ]; do
			sleep 0.1
			n=$((n + 1))
		done
	done
	rm -f "$data/postmaster.pid"
}

cleanup() {
	crash
	[ -z "$own_dir" ] || rm -rf "$own_dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

start() {
	$as "$bin/pg_ctl" -D "$data" -l "$dir/log" -w -s start
}

sql() {
	$as "$bin/psql" -X -q -h "$dir" -v ON_ERROR_STOP=1 -d postgres "$@" > /dev/null
}

$as "$bin/initdb" -D "$data" -A trust -N --wal-segsize=1 > "$dir/initdb.log" 2>&1
cat >> "$data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$dir'
autovacuum = off
fsync = off
wal_keep_size = 2GB
max_wal_size = 64MB
max_prepared_transactions = 10
wal_level = logical
timezone = 'UTC'
log_timezone = 'UTC'
CONF
start

# ---- transactions, drops, two phases
sql <<'SQL'
CREATE TABLE a (i int PRIMARY KEY, t text);
INSERT INTO a SELECT i, repeat('x', i % 500) FROM generate_series(1, 5000) i;
BEGIN; CREATE TABLE gone (i int); INSERT INTO gone VALUES (1); ROLLBACK;
BEGIN; SAVEPOINT s; CREATE TABLE sub (i int); ROLLBACK TO s; INSERT INTO a VALUES (-1); COMMIT;
CREATE TABLE b (i int, t text); INSERT INTO b SELECT 1, repeat(md5(random()::text), 3000);
DROP TABLE b;
BEGIN; TRUNCATE a; INSERT INTO a VALUES (1); COMMIT;
BEGIN; CREATE TABLE p1 (i int); PREPARE TRANSACTION 'one';
COMMIT PREPARED 'one';
BEGIN; DROP TABLE p1; PREPARE TRANSACTION 'two';
COMMIT PREPARED 'two';
BEGIN; CREATE TABLE p2 (i int); SAVEPOINT x; CREATE TABLE p3 (i int); PREPARE TRANSACTION 'a longer name than usual';
ROLLBACK PREPARED 'a longer name than usual';
SELECT pg_switch_wal();
SELECT pg_switch_wal();
INSERT INTO a SELECT i, 'y' FROM generate_series(10, 3000) i;
SELECT pg_switch_wal();
SQL

# ---- databases and tablespaces
$as mkdir "$dir/space"
sql -c "CREATE TABLESPACE space LOCATION '$dir/space'"
sql -c "CREATE DATABASE d1"
sql -c "CREATE DATABASE d2 STRATEGY file_copy"
sql -c "ALTER DATABASE d1 SET TABLESPACE space"
sql -c "CREATE TABLE sp (i int) TABLESPACE space"
sql -c "DROP TABLE sp"
sql -c "DROP DATABASE d1"
sql -c "DROP DATABASE d2"

# ---- images in every form, long records, checks
for c in off pglz lz4 zstd; do
	sql -c "ALTER SYSTEM SET wal_compression = $c" 2> /dev/null || continue
	sql -c "SELECT pg_reload_conf()" -c "CHECKPOINT" -c "UPDATE a SET t = t || '.'"
done
sql -c "ALTER SYSTEM SET wal_compression = off" -c "SELECT pg_reload_conf()"
for n in 1 7 100 8000 8192 30000 300000 3000000; do
	sql -c "SELECT pg_logical_emit_message(true, 'test', repeat('m', $n))"
done
sql -c "ALTER SYSTEM SET wal_consistency_checking = 'all'" -c "SELECT pg_reload_conf()"
sql -c "UPDATE a SET t = t || '+' WHERE i < 500" -c "CREATE INDEX ON a USING gin (to_tsvector('simple', t))"
sql -c "ALTER SYSTEM SET wal_consistency_checking = ''" -c "SELECT pg_reload_conf()"

# ---- a crash in the middle of work
sql -c "INSERT INTO a SELECT i, 'crash' FROM generate_series(10000, 60000) i" 2> /dev/null &
sleep 0.3
crash
wait
start
sql -c "CREATE TABLE after_crash (i int)"

# ---- a crash that loses the tail of a long record: it is overwritten
before=$($as "$bin/psql" -X -A -t -h "$dir" -d postgres -c "SELECT pg_current_wal_insert_lsn()")
sql -c "SELECT pg_logical_emit_message(false, 'test', repeat('t', 100000))"
crash
# Wipe from three pages after the record's start to its segment's end.
off=$(printf '%d' "0x${before#*/}")
wipe=$(( (off / 8192 + 3) * 8192 ))
seg=$(printf '%s/pg_wal/00000001%08X%08X' "$data" "0x${before%/*}" $((wipe >> 20)))
dd if=/dev/zero of="$seg" bs=8192 seek=$(( (wipe & 0xFFFFF) / 8192 )) \
	count=$(( (0x100000 - (wipe & 0xFFFFF)) / 8192 )) conv=notrunc 2> /dev/null
rm -f "$data/pg_wal/$(printf '00000001%08X%08X' "0x${before%/*}" $(( (wipe >> 20) + 1 )))"
start
sql -c "INSERT INTO after_crash SELECT generate_series(1, 1000)"
$as "$bin/pg_ctl" -D "$data" -w -s -m fast stop

# ---- compare
set -- $(ls "$data/pg_wal" | grep -E '^[0-9A-F]{24}$' | sort)
first=$1
for last in "$@"; do :; done
"$bin/pg_waldump" -p "$data/pg_wal" "$first" "$last" > "$dir/waldump" 2> "$dir/waldump.err" || true
TZ=UTC perl -ne '
	# commit times are only compared when pg_waldump prints them in UTC
	next unless m{^rmgr: (\S+)\s+len \(rec/tot\):\s*\d+/\s*(\d+), tx:\s*(\d+), lsn: (\S+), prev (\S+), desc: (.*)$};
	my ($rmgr, $tot, $tx, $lsn, $prev, $desc) = ($1, $2, $3, $4, $5, $6);
	my $out = "";
	if ($rmgr eq "Transaction" && $desc =~ /^(COMMIT|ABORT)(_PREPARED (\d+):)? (\S+ \S+) UTC/) {
		$tx = $3 if defined $3;
		my ($op, $time) = ($1, $4);
		$time .= ".000000" unless $time =~ /\./;
		$time = sprintf("%s.%06d", $1, substr($2 . "000000", 0, 6)) if $time =~ /^(.*)\.(\d+)$/;
		$out .= " $op $time";
		if ($desc =~ /; rels: ([^;]*)/) {
			my @rels = map {
				m{^base/(\d+)/(\d+)$} ? "1663/$1/$2" :
				m{^pg_tblspc/(\d+)/[^/]+/(\d+)/(\d+)$} ? "$1/$2/$3" : "?$_" }
				split(" ", $1);
			$out .= " rels @rels";
		}
	}
	if ($rmgr eq "Database" && $desc =~ /^DROP dir ([\d\/ ]+)/) {
		$out .= " dir $1"; $out =~ s/ +$//;
	}
	while ($desc =~ /blkref #(\d+): rel (\S+) (?:fork (\S+) )?blk (\d+)( FPW)?/g) {
		$out .= " #$1 $2 " . (defined $3 ? $3 : "main") . " $4" . (defined $5 ? $5 : "");
	}
	print "$lsn $prev $rmgr $tot $tx$out\n";
' "$dir/waldump" > "$dir/expected"

for want in OVERWRITE_CONTRECORD COMMIT_PREPARED ABORT_PREPARED SWITCH 'DROP dir' 'rels:'; do
	grep -q "$want" "$dir/waldump" || { echo "the WAL made holds no $want" >&2; exit 1; }
done
cd "$data/pg_wal"
for how in "-c 1" "-c 7" "-c 8192" "-c 1048576" "-r -c 5000" "-r -c 200000"; do
	"$walcut" $how "$@" > "$dir/walcut.out" 2> "$dir/walcut.err" ||
		{ cat "$dir/walcut.err" >&2; exit 1; }
	if ! cmp -s "$dir/expected" "$dir/walcut.out"; then
		echo "walcut $how and pg_waldump differ:" >&2
		diff "$dir/expected" "$dir/walcut.out" | head -n 20 >&2
		cat "$dir/walcut.err" "$dir/waldump.err" >&2
		exit 1
	fi
done
echo "ok: $(wc -l < "$dir/expected") records in $# segments, as pg_waldump has them"
