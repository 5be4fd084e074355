# SPDX-License-Identifier: Apache-2.0
#
# Read-ahead: every scan that knows its blocks does it, its settings turn it
# off, what is counted is what heap counts, and nothing outdated is ever seen:
# under concurrent updates and evictions, cancels in the middle of requests,
# kills of the storage daemon, and while the newest log is stuck.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use IPC::Run ();
use Test::More;
use Time::HiRes qw(sleep time);

seed_random();
my $node = new_node('main', conf => <<'CONF');
shared_buffers = 1MB
autovacuum = off
track_io_timing = on
max_parallel_workers_per_gather = 0
synchronous_standby_names = 'aurora'
CONF
my $rows = 60_000;

sub sql { return $node->safe_psql('postgres', join("\n", @_)); }

sql(<<"SQL");
CREATE TABLE a (id int, v int NOT NULL, filler text) USING aurora;
INSERT INTO a SELECT g, 1000, repeat('x', 200) FROM generate_series(1, $rows) g;
CREATE TABLE h (LIKE a) USING heap;
INSERT INTO h SELECT * FROM a;
CREATE INDEX a_id ON a (id);
CREATE INDEX h_id ON h (id);
CREATE TABLE moved (LIKE a) USING aurora;
INSERT INTO moved SELECT * FROM a;
CREATE INDEX moved_id ON moved (id);
UPDATE moved SET v = v + 1 WHERE id % 25 = 0;
VACUUM (ANALYZE) a;
VACUUM (ANALYZE) h;
SQL
my $blocks = sql("SELECT aurora.relation_size('a') / 8192");
cmp_ok($blocks, '>', 1500, "$blocks blocks, 128 buffers");

# Pages that came by read-ahead, as a part of those missed, in what runs
# between.
sub ahead_part
{
	my ($statement, %opt) = @_;
	my $settings = $opt{set} // '';
	my $counters = 'SELECT misses, prefetched FROM aurora.cache;';
	my @out = split /\n/, sql("SET client_min_messages = error; $settings",
		"\\o /dev/null", "SELECT aurora.evict('a');", "\\o",
		$counters, "\\o /dev/null", $statement, "\\o", $counters);
	my ($m1, $p1) = split /\|/, $out[0];
	my ($m2, $p2) = split /\|/, $out[1];

	return ($m2 - $m1, $m2 > $m1 ? ($p2 - $p1) / ($m2 - $m1) : 0);
}

my $sparse = 'SET enable_indexscan = off; SET enable_seqscan = off; '
  . "SELECT sum(v) FROM a WHERE id = ANY (ARRAY(SELECT generate_series(1, $rows, 97)));";
my $backward = 'BEGIN; DECLARE c SCROLL CURSOR FOR SELECT v FROM a; MOVE FORWARD ALL IN c; '
  . "FETCH BACKWARD ALL IN c; COMMIT;";
my $by_index = 'SET enable_seqscan = off; SET enable_bitmapscan = off;';
my @scans = (
	[ 'sequential scan', 'SELECT sum(v) FROM a;', 'effective' ],
	[ 'backward scan', $backward, 'effective' ],
	[ 'parallel scan', 'SET max_parallel_workers_per_gather = 2; SET min_parallel_table_scan_size = 0; '
		  . 'SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SELECT sum(v) FROM a;', 'effective' ],
	[ 'TID range', "SELECT sum(v) FROM a WHERE ctid >= '(100,0)' AND ctid < '(900,0)';", 'effective' ],
	[ 'bitmap scan of scattered blocks', $sparse, 'effective' ],
	[ 'index scan in the order of the table', "$by_index SELECT sum(v) FROM a WHERE id > 0;", 'effective' ],
	[ '... backward', "$by_index SELECT sum(v) FROM (SELECT v FROM a ORDER BY id DESC OFFSET 0) x;", 'effective' ],
	[ '... with rows that have moved', "$by_index SELECT aurora.evict('moved'); SELECT sum(v) FROM moved WHERE id > 0;", 'effective' ],
	[ 'join by index', "SET enable_hashjoin = off; SET enable_mergejoin = off; $by_index "
		  . "SELECT sum(v) FROM generate_series(1, $rows, 20) g JOIN a ON id = g;", 'effective' ],
	[ 'TABLESAMPLE SYSTEM', 'SELECT sum(v) FROM a TABLESAMPLE SYSTEM (20);', 'effective' ],
	[ 'TABLESAMPLE BERNOULLI', 'SELECT sum(v) FROM a TABLESAMPLE BERNOULLI (20);', 'effective' ],
	[ 'ANALYZE of scattered blocks', 'SET default_statistics_target = 1; ANALYZE a;', 'maintenance' ],
	[ 'VACUUM', 'VACUUM (FREEZE, DISABLE_PAGE_SKIPPING) a;', 'maintenance' ],
	[ 'CREATE INDEX', 'CREATE INDEX a_v ON a (v); DROP INDEX a_v;', 'maintenance' ],
	[ 'VACUUM FULL', 'VACUUM FULL a;', 'maintenance' ],
);

foreach my $scan (@scans)
{
	my ($name, $statement, $setting) = @$scan;
	my ($missed, $part) = ahead_part($statement);
	cmp_ok($part, '>', 0.8, sprintf('%s: %.0f %% of %d missing pages were asked for ahead',
			$name, 100 * $part, $missed));
	(undef, $part) = ahead_part($statement, set => "SET ${setting}_io_concurrency = 0;");
	is($part, 0, "$name: none with ${setting}_io_concurrency = 0");
}
(undef, my $none) = ahead_part('SELECT sum(v) FROM a;', set => 'SET aurora.scan_prefetch = 0;');
is($none, 0, 'none with aurora.scan_prefetch = 0');

# ---- what is counted -----------------------------------------------------------

sub buffers_of
{
	my ($table, $query) = @_;
	# (Counted for the statistics at once: else that is at its end, after psql's.)
	my $plan = sql('SET enable_seqscan = on;', "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, FORMAT JSON) $query;",
		'SELECT pg_stat_force_next_flush();');
	my ($hit) = $plan =~ /"Shared Hit Blocks": (\d+)/;
	my ($read) = $plan =~ /"Shared Read Blocks": (\d+)/;
	my ($time) = $plan =~ /"I\/O Read Time": ([\d.]+)/;
	return ($hit, $read, $time);
}

sql('VACUUM a; VACUUM h');
foreach my $where ('', 'WHERE id BETWEEN 1000 AND 3000', 'TABLESAMPLE SYSTEM (30) REPEATABLE (3)')
{
	my ($hit_h, $read_h) = buffers_of('h', "SELECT sum(v) FROM h $where");
	sql("SELECT aurora.evict('a')");
	my ($hit_a, $read_a, $time_a) = buffers_of('a', "SELECT sum(v) FROM a $where");
	is($hit_a + $read_a, $hit_h + $read_h, "as many buffers as heap: sum(v) $where");
	cmp_ok($time_a, '>', 0, "with time: $time_a ms");
}
my ($hit, $read) = do { sql("SELECT aurora.evict('a')"); buffers_of('a', 'SELECT sum(v) FROM a') };
is("$hit $read", "0 $blocks", 'each page of an evicted table is read once');

my $statio = "SELECT heap_blks_read, heap_blks_hit FROM pg_statio_user_tables WHERE relname = 'a'";
my $flush = 'SELECT pg_stat_force_next_flush();';
sql("SELECT aurora.evict('a')");
my ($r1, $h1, $t1) = split /\|/, sql("$statio;") . '|' . sql("SELECT blk_read_time FROM pg_stat_database WHERE datname = 'postgres'");
sql('SELECT sum(v) FROM a;', $flush);
my ($r2, $h2, $t2) = split /\|/, sql("$statio;") . '|' . sql("SELECT blk_read_time FROM pg_stat_database WHERE datname = 'postgres'");
is($r2 - $r1, $blocks, 'pg_statio_user_tables counts each page as read once');
is($h2 - $h1, 0, '... and none as hit');
cmp_ok($t2, '>', $t1, 'pg_stat_database has the time');

my $latency = sql("SELECT count > 0, total_time > 0, p50_us <= p90_us, p90_us <= p99_us, p99_us <= max_us FROM aurora.fetch_latency WHERE kind IN ('page', 'ahead')");
is($latency, "t|t|t|t|t\nt|t|t|t|t", 'aurora.fetch_latency');
diag sql('SELECT * FROM aurora.fetch_latency');
is(sql('SELECT count(*) FROM aurora.storage_latency WHERE p50_us > max_us'), '0', 'aurora.storage_latency');

# ---- the newest log is stuck ------------------------------------------------------

my $shipper = shipper_field($node, 'pid');
END { kill 'CONT', $shipper if $shipper; }
sql("SELECT aurora.sync(); SELECT aurora.evict('a');");
kill 'STOP', $shipper;
sql("SET synchronous_commit = local; UPDATE a SET v = v + 1 WHERE ctid = '(40,1)'; SELECT aurora.evict('a');");
my $start = time();
is(sql("SET statement_timeout = '60s'; SELECT v FROM a WHERE ctid = '(3,1)'"), '1000',
	'an old page is read while the newest log is stuck');
is(sql("SET statement_timeout = '60s'; SELECT sum(v) FROM a WHERE ctid < '(39,0)'"),
	sql("SELECT sum(v) FROM h WHERE ctid < '(39,0)'"), '... so is what is read ahead');
# block 40 is in the run of blocks that block 35 is in
sql("SET synchronous_commit = local; SELECT aurora.evict('a')");
is(sql("SET statement_timeout = '60s'; SET synchronize_seqscans = off; SELECT sum(v) FROM (SELECT v FROM a LIMIT 1200) x"),
	'1200000', '... also when the changed page comes soon after');
cmp_ok(time() - $start, '<', 50, sprintf('... at once (%.1f s)', time() - $start));
my ($rc, $out, $err) = $node->psql('postgres', "SET statement_timeout = '1s'; SELECT v FROM a WHERE ctid = '(40,1)' OR ctid = '(40,2)'");
isnt($rc, 0, 'the changed page is waited for');
like($err, qr/statement timeout/, '... and the wait can be cancelled');
kill 'CONT', $shipper;
is(sql("SELECT sum(v) FROM a"), $rows * 1000 + 1, 'when the log goes on, it is there');
sql('UPDATE a SET v = 1000 WHERE v <> 1000');

# ---- cancel in the middle of requests ----------------------------------------------

my $cancel = "SET effective_io_concurrency = 8;\n";
for (1 .. 120)
{
	my $ms = 1 + int(rand(12));
	$cancel .= "SET statement_timeout = $ms; SELECT 'x' FROM a ORDER BY v LIMIT 1;\n";
	# (The first of these may be cancelled itself.)
	$cancel .= 'SET statement_timeout = 0; ' x 5 . "SELECT count(*), sum(v), sum(length(filler)) FROM a WHERE ctid < '(200,0)';\n" if $_ % 4 == 0;
}
my $part = sql("SELECT count(*), sum(v), sum(length(filler)) FROM a WHERE ctid < '(200,0)'");
my $connections = sql('SELECT connections FROM aurora.nodes');
(undef, $out, $err) = $node->psql('postgres', $cancel, on_error_stop => 0);
my @answers = grep { $_ ne 'x' } split /\n/, $out;
my $cancelled = () = $err =~ /statement timeout/g;
is(scalar(@answers), 30, 'answers between cancelled statements');
is(scalar(grep { $_ ne $part } @answers), 0, "... are right, after $cancelled cancels");
cmp_ok($cancelled, '>', 20, 'statements were cancelled');

# Errors in subtransactions, with cursors around them that read on.
is(sql(<<"SQL"), "$rows", 'errors in the middle of scans, caught');
CREATE FUNCTION stumble() RETURNS bigint LANGUAGE plpgsql AS \$\$
DECLARE r record; n bigint := 0;
BEGIN
  SET LOCAL effective_io_concurrency = 4;
  FOR r IN SELECT id FROM a LOOP
    n := n + 1;
    IF n % 2000 = 0 THEN
      BEGIN
        PERFORM 1 / (id - 500 - (random() * 2000)::int) FROM a;
      EXCEPTION WHEN division_by_zero THEN NULL;
      END;
    END IF;
  END LOOP;
  RETURN n;
END \$\$;
SELECT stumble();
SQL

# ---- nothing outdated ---------------------------------------------------------------

# Each transaction moves an amount from one row to another, so that every
# snapshot has the same sum.
sub pgbench
{
	my ($name, $script, @args) = @_;
	my $file = $node->data_dir . "/$name.sql";
	open my $f, '>', $file or die;
	print $f $script;
	close $f;
	my ($in, $out) = ('', '');
	my $h = IPC::Run::start([ 'pgbench', '-n', '-f', $file, @args, '-h', $node->host, '-p', $node->port, 'postgres' ],
		'<', \$in, '>', \$out, '2>&1');
	return { h => $h, out => \$out, name => $name };
}

sub finish
{
	my ($run) = @_;
	my $ok = $run->{h}->finish;
	ok($ok && ${ $run->{out} } !~ /aborted|ERROR/, "$run->{name}: every answer was right")
	  or diag ${ $run->{out} };
	return;
}

sql(<<"SQL");
CREATE FUNCTION look(want bigint) RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE got bigint; rows bigint; i int := (random() * 2)::int;
BEGIN
  PERFORM set_config('effective_io_concurrency', (random() * 8)::int::text, true);
  PERFORM set_config('aurora.scan_prefetch', (2 + random() * 62)::int::text, true);
  IF i = 1 THEN
    SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off;
  END IF;
  SELECT sum(v), count(*) INTO got, rows FROM a WHERE id > 0;
  IF got <> want OR rows <> $rows THEN
    RAISE EXCEPTION 'sum % of % rows, expected % of $rows', got, rows, want;
  END IF;
END \$\$;
VACUUM a;
SQL
my $total = $rows * 1000;
my $write = pgbench('updates', <<"SQL", '-c', 2, '-T', 8);
\\set i random(1, $rows)
\\set j random(1, $rows)
\\set k random(1, 20)
BEGIN;
UPDATE a SET v = v - 7 WHERE id = :i;
UPDATE a SET v = v + 7 WHERE id = :j;
COMMIT;
SQL
my $scan = pgbench('scans', "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT look($total);\nCOMMIT;\n", '-c', 2, '-T', 8);
my $vacuum = pgbench('vacuums', "VACUUM a;\nANALYZE a;\n\\sleep 100 ms\n", '-c', 1, '-T', 8);
$write->{h}->finish;	# deadlocks are no error of ours
finish($scan);
finish($vacuum);
is(sql('SELECT sum(v), count(*) FROM a'), "$total|$rows", 'in the end as well');

# ---- the daemon dies, backends are terminated ------------------------------------------

$scan = pgbench('scans while the daemon is killed', "SELECT look($total);\n", '-c', 3, '-T', 9);
my $end = time() + 6;
my $kills = 0;
while (time() < $end || $kills < 2)
{
	sleep_random(0.2, 1.2);
	my $pid = daemon_pid($node);
	next unless defined $pid && $pid > 0;
	kill 'KILL', $pid;
	$kills++;
	wait_for_daemon($node, not => $pid);
}
finish($scan);
cmp_ok($kills, '>=', 2, "killed $kills times");

my $others = pgbench('scans beside terminated ones', "SELECT look($total);\n", '-c', 1, '-T', 4);
for (1 .. 18)
{
	my ($in, $o) = ('', '');
	my $h = IPC::Run::start([ 'psql', '-XAtq', '-h', $node->host, '-p', $node->port, '-d', 'postgres',
			'-c', "SET application_name = 'victim'; SET effective_io_concurrency = 8; SELECT sum(v) FROM a;" ],
		'<', \$in, '>', \$o, '2>&1');
	sleep_random(0.02, 0.15);
	sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
	$h->finish;
}
finish($others);

# ---- long scans share memory with the node, and give it back -------------------------

{
	my $session = $node->background_psql('postgres');
	# (The node may hear of it after the server's next question only.)
	my $is_shared = sub {
		my ($bytes, $what) = @_;
		like_soon(sub { sql(q{SELECT aurora.storage_status()->>'shared_bytes'}) }, qr/^$bytes$/, $what);
	};
	$is_shared->(0, 'nobody shares memory with the node');
	$session->query_safe('SET enable_indexonlyscan = off');
	$session->query_safe("SELECT aurora.evict('a'); BEGIN; DECLARE c CURSOR FOR SELECT id, v FROM a; MOVE 10 IN c");
	$is_shared->(0, 'nor does a scan that has just begun');
	$session->query_safe('MOVE 6000 IN c');
	$is_shared->(5 * 64 * 8192, 'one that goes on does');
	$session->query_safe('MOVE ALL IN c; CLOSE c');
	$is_shared->(0, 'until it ends');
	$session->query_safe("SELECT aurora.evict('a'); DECLARE c CURSOR FOR SELECT id, v FROM a; MOVE 6000 IN c");
	$is_shared->(5 * 64 * 8192, 'the next one again');
	$session->quit;
	$is_shared->(0, 'or its session');
}

# ---- cursors that stand still keep nobody from reading ------------------------------

# 32 MB leave 4 MB for answers that are not taken.
$node->append_conf('postgresql.conf', "aurora.storaged_options = '--memory 32'\n");
my $pid = daemon_pid($node);
$node->restart;
wait_for_daemon($node, not => $pid);
my @idle;
my $began = time();
for (1 .. 5)
{
	my $session = $node->background_psql('postgres');
	$session->query_safe(<<'SQL');
SET effective_io_concurrency = 8; SET aurora.scan_prefetch = 64; SET enable_indexonlyscan = off;
BEGIN; DECLARE c CURSOR FOR SELECT id, v FROM a;
SQL
	$session->query_safe('MOVE 3000 IN c');
	push @idle, $session;
}
my $t = time() - $began;
cmp_ok($t, '<', 20, sprintf('5 cursors that stand still are opened in %.1f s', $t));
is($_->query_safe('MOVE ALL IN c; COMMIT'), '', 'and go on') foreach @idle;
$_->quit foreach @idle;
check_all($node, 'at the end', no_pgbench => 1);
# A bulk write's ring is 16 MB; while nobody needs the other buffers, a larger
# table that was just filled is all there, and an index is built without storage.
$node->append_conf('postgresql.conf', "shared_buffers = 128MB\n");
$node->restart;
sql("CREATE TABLE filled USING aurora AS SELECT g, repeat('x', 1000) FROM generate_series(1, 21000) g");
my $misses = sql('SELECT misses FROM aurora.cache');
sql('CREATE INDEX ON filled (g)');
cmp_ok(sql("SELECT aurora.relation_size('filled')"), '>', 20_000_000, 'more than a ring holds');
is(sql('SELECT misses FROM aurora.cache'), $misses, 'is in memory after a bulk write into free buffers');
$node->stop;
done_testing();
