# SPDX-License-Identifier: Apache-2.0
#
# One server with its embedded daemon: rows survive eviction, restart and crash
# though the local files stay empty; the views and auroractl tell what is going
# on.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use List::Util qw(max);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes 'time';

my $node = new_node('main');

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE t (id int PRIMARY KEY, v text, big text) USING aurora;
INSERT INTO t SELECT g, 'v' || g, CASE WHEN g % 100 = 0 THEN (SELECT string_agg(md5((g + i)::text), '') FROM generate_series(1, 500) i) END
  FROM generate_series(1, 20000) g;
UPDATE t SET v = v || '!' WHERE id % 3 = 0;
DELETE FROM t WHERE id % 7 = 0;
SQL
my $sum_query =
  "SELECT count(*), sum(id), md5(string_agg(id || v || coalesce(big, ''), ',' ORDER BY id)) FROM t";
my $sum = $node->safe_psql('postgres', $sum_query);
like($sum, qr/^17143\|/, 'rows are there');
check_all($node, 'fresh', no_pgbench => 1);

# ---- eviction
cmp_ok(evict_all($node), '>', 100, 'pages were thrown out of the cache');
is($node->safe_psql('postgres', $sum_query), $sum, 'same rows after eviction');
cmp_ok($node->safe_psql('postgres', 'SELECT misses + prefetched FROM aurora.cache'),
	'>', 100, 'pages were fetched from storage');

# ---- restart: clean, immediate, both without any page in a local file
foreach my $mode ('fast', 'immediate')
{
	$node->stop($mode);
	$node->start;
	is($node->safe_psql('postgres', $sum_query), $sum, "same rows after stop -m $mode");
	check_all($node, "after stop -m $mode", no_pgbench => 1);
}

# ---- what was rolled back or in progress is not there
$node->safe_psql('postgres', 'BEGIN; DELETE FROM t; ROLLBACK;');
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN; DELETE FROM t WHERE id < 1000;');
$node->stop('immediate');
eval { $session->quit; };
$node->start;
is($node->safe_psql('postgres', $sum_query), $sum, 'a transaction in progress at the crash is gone');

# ---- while nobody waits for storage, log is gathered before it is sent
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE s (a int) USING aurora;
CREATE PROCEDURE commits(n int) LANGUAGE plpgsql AS
  $$ BEGIN FOR i IN 1..n LOOP INSERT INTO s VALUES (i); COMMIT; END LOOP; END $$;
SQL
my $commits = 2000;
my $appends = $node->safe_psql('postgres', 'SELECT aurora.sync(); SELECT appends FROM aurora.shipper');
$appends = (split /\n/, $appends)[-1];
my $began = time;
$node->safe_psql('postgres', "CALL commits($commits)");
my $ms = 1000 * (time - $began);
my $after = $node->safe_psql('postgres', 'SELECT aurora.sync(); SELECT appends FROM aurora.shipper');
$after = (split /\n/, $after)[-1];
# (5 ms of log in each at least; a machine may be so slow that this is one commit.)
cmp_ok($after - $appends, '<', max($commits / 2, $ms / 5 + 40),
	sprintf("$commits commits that don't wait are sent in fewer messages (%.0f ms)", $ms));

# ... also after somebody has asked for an LSN that will never come
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE anybody;
CREATE PROCEDURE slow_commits(n int) LANGUAGE plpgsql AS
  $$ BEGIN FOR i IN 1..n LOOP INSERT INTO s VALUES (i); COMMIT; PERFORM pg_sleep(0.001); END LOOP; END $$;
SQL
is($node->safe_psql('postgres', "SET ROLE anybody; SELECT aurora.wait_for_applied('FFFFFFFF/FFFFFFF0', '0')"),
	'f', 'an LSN that is not written is not waited for');
$appends = $node->safe_psql('postgres', 'SELECT appends FROM aurora.shipper');
$began = time;
$node->safe_psql('postgres', 'CALL slow_commits(300)');
$ms = 1000 * (time - $began);
$after = $node->safe_psql('postgres', 'SELECT appends FROM aurora.shipper');
cmp_ok($after - $appends, '<', $ms / 5 + 40, sprintf('log is gathered for 5 ms still (%.0f ms)', $ms));

# ---- synchronous commit through PostgreSQL's own replication
$node->append_conf('postgresql.conf', "synchronous_standby_names = 'aurora'");
$node->reload;
ok($node->poll_query_until('postgres',
		"SELECT sync_state = 'sync' AND state = 'streaming' FROM pg_stat_replication WHERE application_name = 'aurora'"),
	'the shipper is a synchronous standby named aurora');
$node->safe_psql('postgres', "UPDATE t SET v = 'sync' WHERE id = 1");
is($node->safe_psql('postgres',
		"SELECT flush_lsn <= pg_current_wal_flush_lsn() AND write_lsn >= flush_lsn FROM pg_stat_replication WHERE application_name = 'aurora'"),
	't', 'it reports what storage made durable');
is($node->safe_psql('postgres', "SELECT active FROM pg_replication_slots WHERE slot_name = 'aurora'"),
	't', 'its slot keeps the log until storage has it');

# ---- sizes and statistics
is($node->safe_psql('postgres',
		"SELECT aurora.local_size('t') = 0 AND pg_relation_size('t') > 1000000"),
	't', 'pg_relation_size tells the true size, of a file of 0 bytes');
$node->safe_psql('postgres', 'ANALYZE t');
cmp_ok($node->safe_psql('postgres', "SELECT relpages FROM pg_class WHERE relname = 't'"),
	'>', 100, 'ANALYZE knows the pages');

# ---- pages that reflect a commit are announced, not found out by asking: the
# shipper asks every 50 ms at most
$node->safe_psql('postgres', "SET synchronous_commit = remote_apply; CALL commits(100)");
# (Asked about, each of them would be late, in every round.)
my %took;
for (1 .. 5)
{
	foreach my $level ('on', 'remote_apply')
	{
		my $start = time;
		$node->safe_psql('postgres', "SET synchronous_commit = $level; CALL commits(100)");
		$took{$level} = time - $start;
	}
	last if $took{remote_apply} < $took{on} + 100 * 0.025;
}
cmp_ok($took{remote_apply}, '<', $took{on} + 100 * 0.025,
	sprintf('100 commits that wait for pages took %.3f s, for durable log %.3f s',
		$took{remote_apply}, $took{on}));
$node->safe_psql('postgres', 'DROP TABLE s');

# ---- drop gives the space back, in storage too, and DROP DATABASE works
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', <<'SQL');
CREATE EXTENSION aurora;
CREATE TABLE o (a int) USING aurora;
INSERT INTO o SELECT generate_series(1, 10000);
SQL
is($node->safe_psql('other', 'SELECT count(*) FROM o'), '10000', 'another database');
$node->safe_psql('postgres', 'DROP DATABASE other');
$node->safe_psql('postgres', 'DROP TABLE t');

# ---- the daemon goes with the server
my $pid = wait_for_daemon($node);
ok(kill(0, $pid), 'the daemon runs');
$node->stop;
ok(eventually(sub { !kill(0, $pid) }), 'the daemon ends with the server');

done_testing();
