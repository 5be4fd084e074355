# SPDX-License-Identifier: Apache-2.0
#
# Heap and aurora tables in one transaction, with crashes in between: both or
# neither, also with savepoints and prepared transactions.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

seed_random();
my $node = new_node('main', conf => "max_prepared_transactions = 20\n");
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE h (id bigserial PRIMARY KEY, k int, v int) USING heap;
CREATE TABLE a (id bigint PRIMARY KEY, k int, v int) USING aurora;
CREATE TABLE h_acc (k int PRIMARY KEY, v int) USING heap;
CREATE TABLE a_acc (k int PRIMARY KEY, v int) USING aurora;
INSERT INTO h_acc SELECT g, 0 FROM generate_series(1, 50) g;
INSERT INTO a_acc SELECT g, 0 FROM generate_series(1, 50) g;
SQL

# Each transaction does the same to both, in either order, and sometimes throws
# a part away through a savepoint or at its end.
my $script = PostgreSQL::Test::Utils::tempdir() . '/mixed.sql';
append_to_file($script, <<'SQL');
\set k random(1, 50)
\set k2 random(1, 50)
\set d random(1, 100)
\set kind random(1, 5)
BEGIN;
INSERT INTO h (k, v) VALUES (:k, :d) RETURNING id \gset
INSERT INTO a VALUES (:id, :k, :d);
\if :kind = 1
UPDATE a_acc SET v = v + :d WHERE k = :k;
UPDATE h_acc SET v = v + :d WHERE k = :k;
\else
UPDATE h_acc SET v = v + :d WHERE k = :k;
UPDATE a_acc SET v = v + :d WHERE k = :k;
\endif
SAVEPOINT s;
UPDATE h_acc SET v = v - 7 WHERE k = :k;
UPDATE a_acc SET v = v - 7 WHERE k = :k;
DELETE FROM h WHERE id = :id;
DELETE FROM a WHERE id = :id;
\if :kind <> 2
ROLLBACK TO s;
\endif
\if :kind = 3
ROLLBACK;
\elif :kind = 4
PREPARE TRANSACTION 'mixed:client_id';
COMMIT PREPARED 'mixed:client_id';
\else
COMMIT;
\endif
SQL

sub compare
{
	my ($what) = @_;
	is($node->safe_psql('postgres', <<'SQL'), '0|0|0', "$what: heap and aurora agree");
SELECT (SELECT count(*) FROM h FULL JOIN a USING (id) WHERE h.v IS DISTINCT FROM a.v OR h.k IS DISTINCT FROM a.k),
       (SELECT count(*) FROM h_acc FULL JOIN a_acc USING (k) WHERE h_acc.v IS DISTINCT FROM a_acc.v),
       (SELECT count(*) FROM pg_prepared_xacts x WHERE x.gid NOT LIKE 'mixed%')
SQL
	check_all($node, $what, no_pgbench => 1);
	return;
}

for my $i (1 .. 6)
{
	my $load = start_load($node, clients => 6, script => $script, uncounted => 1);
	sleep 0.5 + rand(2);
	my $how = ('postmaster', 'backend', 'postmaster and daemon')[ $i % 3 ];
	my $daemon = daemon_pid($node);
	if ($how eq 'backend')
	{
		my @b;
		eventually(sub { @b = backend_pids($node) });
		kill_quietly(9, $b[ int(rand(@b)) ]);
		wait_load($load);
		$node->poll_query_until('postgres', 'SELECT true');
	}
	else
	{
		my %kids = children($node->{_pid});
		$node->kill9;
		kill_quietly(9, $daemon) if $how =~ /daemon/;
		wait_load($load);
		start_again($node);
	}
	# What was prepared at the crash is finished one way or the other.
	my $gids = $node->safe_psql('postgres', "SELECT gid FROM pg_prepared_xacts");
	foreach my $gid (split /\n/, $gids)
	{
		my $end = rand() < 0.5 ? 'COMMIT' : 'ROLLBACK';
		$node->safe_psql('postgres', "$end PREPARED '$gid'");
	}
	compare("crash $i ($how)");
}

# A transaction that is committed in heap and aurora at a point of no return:
# many tables, one commit record.
$node->safe_psql('postgres', <<'SQL');
BEGIN;
CREATE TABLE both_h AS SELECT g AS i FROM generate_series(1, 1000) g;
CREATE TABLE both_a USING aurora AS SELECT g AS i FROM generate_series(1, 1000) g;
COMMIT;
SQL
my $s = $node->background_psql('postgres');
$s->query_safe('BEGIN; DELETE FROM both_h WHERE i % 2 = 0; DELETE FROM both_a WHERE i % 2 = 0; CREATE TABLE late_h (i int); CREATE TABLE late_a (i int) USING aurora; INSERT INTO late_a SELECT generate_series(1, 1000);');
$node->kill9;
eval { $s->quit; };
start_again($node);
is($node->safe_psql('postgres', "SELECT (SELECT count(*) FROM both_h), (SELECT count(*) FROM both_a), (SELECT count(*) FROM pg_class WHERE relname LIKE 'late%')"),
	'1000|1000|0', 'neither, after a crash before the commit');
compare('at the end');
$node->stop;
done_testing();
