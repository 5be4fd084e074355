# SPDX-License-Identifier: Apache-2.0
#
# What a DBA relies on: anti-wraparound vacuum of transaction and multixact ids,
# autovacuum by statistics, VACUUM VERBOSE, its progress and its cost delay, and
# the counters of pg_stat_*.  The same work is done on a heap table and on an
# aurora table, and what is seen must be the same.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_node('main', conf => <<'CONF');
autovacuum_freeze_max_age = 100000
autovacuum_multixact_freeze_max_age = 10000
vacuum_freeze_min_age = 1000
vacuum_multixact_freeze_min_age = 100
autovacuum = off
autovacuum_naptime = 1s
autovacuum_max_workers = 3
log_autovacuum_min_duration = 0
max_wal_size = 1GB
CONF

# The same SQL for both tables, with T for the table's name and AM for its access
# method; both results.
sub both
{
	my ($sql) = @_;
	return map { $node->safe_psql('postgres', $sql =~ s/\bT\b/t_$_/gr =~ s/\bAM\b/$_/gr) }
	  ('heap', 'aurora');
}

both(<<'SQL');
CREATE TABLE T (id int PRIMARY KEY, n int, big text) USING AM WITH (autovacuum_enabled = off);
ALTER TABLE T ALTER big SET STORAGE EXTERNAL;
ALTER TABLE T SET (toast.autovacuum_enabled = off);
SQL
both("INSERT INTO T SELECT g, 0, CASE WHEN g % 100 = 0 THEN repeat(md5(g::text), 200) END FROM generate_series(1, 13000) g");

# ---- the same counters for the same work

my @work = (
	'UPDATE T SET n = n + 1 WHERE id <= 500',
	'UPDATE T SET id = id + 100000 WHERE id BETWEEN 600 AND 700',
	'DELETE FROM T WHERE id BETWEEN 701 AND 800',
	'BEGIN; DELETE FROM T WHERE id < 50; ROLLBACK',
	'BEGIN; INSERT INTO T SELECT g FROM generate_series(200001, 200100) g; SAVEPOINT a; UPDATE T SET n = 1 WHERE id > 200050; ROLLBACK TO a; COMMIT',
	'SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(n) FROM T WHERE id BETWEEN 1000 AND 2000',
	'SET enable_seqscan = off; SET enable_indexscan = off; SELECT count(n) FROM T WHERE id BETWEEN 1000 AND 2000',
	'SELECT count(*) FROM T WHERE n > 3',
	'SELECT count(*) FROM T WHERE length(big) > 10',
	'INSERT INTO T VALUES (5, 5) ON CONFLICT (id) DO UPDATE SET n = 55',
	'VACUUM T', 'ANALYZE T',
	'COPY T FROM PROGRAM \'printf "300001\t1\t1\n300002\t2\t2\n"\'');
my $counters = <<'SQL';
SELECT pg_stat_force_next_flush();
SELECT s.seq_scan, s.seq_tup_read, s.idx_scan, s.idx_tup_fetch, s.n_tup_ins, s.n_tup_upd, s.n_tup_del, s.n_tup_hot_upd,
       s.n_live_tup, s.n_dead_tup, s.n_mod_since_analyze, s.n_ins_since_vacuum, s.vacuum_count, s.analyze_count,
       i.idx_scan, i.idx_tup_read, i.idx_tup_fetch, c.reltuples, c.relpages, c.relallvisible
  FROM pg_stat_user_tables s JOIN pg_stat_user_indexes i USING (relid) JOIN pg_class c ON c.oid = relid
 WHERE relid = 'T'::regclass
SQL
foreach my $sql (@work)
{
	# (What a session has counted is told at its end at the latest, which may be
	# after psql's.)
	both("$sql; SELECT pg_stat_force_next_flush()");
	my ($heap, $aurora) = both($counters);
	is($aurora, $heap, "counters after: $sql");
}

# ---- VACUUM VERBOSE says the same

sub verbose_of
{
	my ($options, $table) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "VACUUM ($options) $table");
	$err =~ s/psql:<stdin>:\d+: //g;
	$err =~ s/t_(?:heap|aurora)/T/g;
	$err =~ s/pg_toast_\d+/TOAST/g;
	# rates, times, positions and amounts of I/O are each table's own
	$err =~ s/^(avg read rate|buffer usage|WAL usage|system usage|I\/O timings):.*$/$1/mg;
	$err =~ s/\d+\.\d+ s/N s/g;
	$err =~ s/(removable cutoff|new rel\w+): \d+, which.*/$1/g;
	return $err;
}
foreach my $options ('VERBOSE', 'VERBOSE, FREEZE', 'VERBOSE, INDEX_CLEANUP ON, DISABLE_PAGE_SKIPPING', 'VERBOSE, INDEX_CLEANUP OFF', 'VERBOSE, ANALYZE')
{
	both('DELETE FROM T WHERE id BETWEEN 2000 AND 2500 AND id % 3 = 0; UPDATE T SET n = n + 1 WHERE id % 7 = 0');
	my $heap = verbose_of($options, 't_heap');
	is(verbose_of($options, 't_aurora'), $heap, "VACUUM ($options)");
	both('INSERT INTO T SELECT g FROM generate_series(2000, 2500) g ON CONFLICT DO NOTHING');
}

# ---- progress, and the delay that makes it visible

# What a VACUUM of the table says of itself, looked at every millisecond or two from
# before its begin to its end.
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION watch(t regclass) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  r record;
  total bigint := 0;
  scanned bigint := 0;
  delayed int := 0;
  phases text[] := '{}';
BEGIN
  FOR i IN 1..60000 LOOP
    PERFORM pg_stat_clear_snapshot();
    SELECT p.*, a.wait_event INTO r
      FROM pg_stat_progress_vacuum p JOIN pg_stat_activity a USING (pid) WHERE p.relid = t;
    EXIT WHEN NOT FOUND AND phases <> '{}';
    IF FOUND THEN
      total := greatest(total, r.heap_blks_total);
      scanned := greatest(scanned, r.heap_blks_scanned);
      delayed := delayed + (r.wait_event IS NOT DISTINCT FROM 'VacuumDelay')::int;
      IF r.phase <> ALL (phases) THEN phases := phases || r.phase; END IF;
    END IF;
    PERFORM pg_sleep(0.001);
  END LOOP;
  RETURN concat_ws('|', total, scanned, delayed, array_to_string(phases, ', '));
END $$;
SQL
foreach my $table ('t_heap', 't_aurora')
{
	$node->safe_psql('postgres', "UPDATE $table SET n = n + 1");
	my ($out, $err) = ('', '');
	my $h = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "SELECT watch('$table')" ],
		'<', \undef, '>', \$out, '2>', \$err);
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'SELECT watch(%' AND wait_event = 'PgSleep'")
	  or die 'nobody watches';
	my (undef, undef, $said) = $node->psql('postgres',
		"SET vacuum_cost_delay = 20; SET vacuum_cost_limit = 40; VACUUM (DISABLE_PAGE_SKIPPING) $table");
	$h->finish;
	is($said . $err, '', "$table: VACUUM with delays ends well");
	chomp $out;
	my ($total, $scanned, $delayed, $phases) = split /\|/, $out;
	is($total, $node->safe_psql('postgres', "SELECT aurora.relation_size('$table') / 8192"),
		"$table: progress tells the table's pages");
	cmp_ok($scanned, '>', 0, "$table: ... and that they are scanned");
	like($phases, qr/scanning heap/, "$table: phases are shown");
	cmp_ok($delayed, '>', 0, "$table: the delay is obeyed");
	note "$table: phases: $phases";
}

# ---- autovacuum by statistics: not before, as its snapshots would keep rows from
# one VACUUM and not from the other

$node->append_conf('postgresql.conf', 'autovacuum = on');
$node->reload;
foreach my $am ('heap', 'aurora')
{
	$node->safe_psql('postgres', <<"SQL");
CREATE TABLE auto_$am (id int PRIMARY KEY, n int) USING $am;
BEGIN;
INSERT INTO auto_$am SELECT g, 0 FROM generate_series(1, 2000) g;
DELETE FROM auto_$am WHERE id % 2 = 0;
COMMIT;
SQL
}
ok($node->poll_query_until('postgres',
		"SELECT count(*) = 2 FROM pg_stat_user_tables WHERE relname LIKE 'auto\\_%' AND autovacuum_count > 0 AND autoanalyze_count > 0 AND n_dead_tup = 0"),
	'autovacuum and autoanalyze come by statistics, to both');
is($node->safe_psql('postgres', "SELECT count(DISTINCT (reltuples, n_live_tup)), min(reltuples) FROM pg_class c JOIN pg_stat_user_tables s ON s.relid = c.oid WHERE c.relname LIKE 'auto\\_%'"),
	'1|1000', '... with the same result');

# ---- wraparound: both tables have autovacuum off, and get it all the same

my $ages = <<'SQL';
SELECT max(age(c.relfrozenxid)), max(mxid_age(c.relminmxid))
  FROM pg_class t JOIN pg_class c ON c.oid IN (t.oid, t.reltoastrelid) WHERE t.relname = 'T'
SQL
my $forced = <<'SQL';
SELECT count(*) = 4 AND max(age(c.relfrozenxid)) < 100000 AND max(mxid_age(c.relminmxid)) < 10000
  FROM pg_class t JOIN pg_class c ON c.oid IN (t.oid, t.reltoastrelid) WHERE t.relname IN ('t_heap', 't_aurora')
SQL
my $contents = 'SELECT count(*), sum(id), sum(n), sum(length(big)), md5(string_agg(big, \'\' ORDER BY id)) FROM T';
my ($heap_before, $aurora_before) = both($contents);
is($aurora_before, $heap_before, 'tables are the same');

$node->safe_psql('postgres', <<'SQL');
CREATE TEMP TABLE x (a int);
DO $$
BEGIN
  FOR i IN 1..105000 LOOP
    BEGIN
      INSERT INTO x VALUES (i);
    EXCEPTION WHEN unique_violation THEN NULL;
    END;
  END LOOP;
END $$;
SQL
ok($node->poll_query_until('postgres', $forced), 'anti-wraparound vacuum of transaction ids comes to both, TOAST tables included');
my ($heap, $aurora) = both($ages);
note "ages: heap $heap, aurora $aurora";
like_soon(sub { slurp($node->logfile) }, qr/automatic aggressive vacuum to prevent wraparound of table "postgres\.public\.t_aurora"/,
	'the log says so');
like_soon(sub { slurp($node->logfile) }, qr/automatic aggressive vacuum to prevent wraparound of table "postgres\.pg_toast\.pg_toast_\d+"/,
	'of TOAST tables as well');

my $oldest = <<'SQL';
SELECT min(c.relminmxid::text::bigint)
  FROM pg_class t JOIN pg_class c ON c.oid IN (t.oid, t.reltoastrelid) WHERE t.relname IN ('t_heap', 't_aurora')
SQL
my $oldest_before = $node->safe_psql('postgres', $oldest);

# A row locked by a transaction and updated by its subtransaction: a multixact.
both(<<'SQL');
DO $$
DECLARE r record;
BEGIN
  PERFORM 1 FROM T FOR KEY SHARE;
  FOR r IN SELECT id FROM T ORDER BY id LIMIT 6000 LOOP
    BEGIN
      UPDATE T SET n = n WHERE id = r.id;
    EXCEPTION WHEN unique_violation THEN NULL;
    END;
  END LOOP;
END $$;
SQL
ok($node->poll_query_until('postgres', "SELECT ($oldest) > $oldest_before"), '... and of multixacts');
ok($node->poll_query_until('postgres', $forced), 'until all ages are below the limits');
($heap, $aurora) = both($ages);
note "ages: heap $heap, aurora $aurora";

# By hand, to the end: the same age.
both('VACUUM (FREEZE) T');
($heap, $aurora) = both($ages);
my ($xh, $xa) = map { (split /\|/)[0] } ($heap, $aurora);
cmp_ok(abs($xh - $xa), '<', 50, "relfrozenxid after VACUUM FREEZE: heap $xh, aurora $xa");
is((split /\|/, $aurora)[1], (split /\|/, $heap)[1], '... and relminmxid');
($heap, $aurora) = both($contents);
is($heap, $heap_before, 'rows are what they were, in heap');
is($aurora, $aurora_before, '... and in aurora');
check_all($node, 'at the end', no_pgbench => 1);
$node->stop;
done_testing();
