# SPDX-License-Identifier: Apache-2.0
#
# A table that many sessions extend at once, row by row and by COPY, while
# others roll back, are cancelled or terminated in the middle, delete, and VACUUM
# cuts the end off.  A ledger in heap, written in the same transactions, tells
# how many rows there must be.  In the end the server is killed as well.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use PostgreSQL::Test::Utils;
use Test::More;

seed_random();
my $node = new_node('main', conf => "shared_buffers = 2MB\nautovacuum = off\nwal_keep_size = 2GB\nlog_min_messages = fatal\n");
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION pg_walinspect;
CREATE SEQUENCE ids CACHE 100;
CREATE TABLE grows (id bigint DEFAULT nextval('ids'), filler text DEFAULT repeat('g', 300)) USING aurora;
CREATE TABLE ledger (n bigint) USING heap;
CREATE VIEW verdict AS
  SELECT (SELECT count(*) FROM grows) - (SELECT coalesce(sum(n), 0) FROM ledger) AS missing,
         (SELECT count(*) - count(DISTINCT id) FROM grows) AS doubled;
SQL

my $first_lsn = $node->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');

my $dir = PostgreSQL::Test::Utils::tempdir();
my %script = (
	insert => "BEGIN;\nINSERT INTO grows SELECT FROM generate_series(1, 60);\nINSERT INTO ledger VALUES (60);\nEND;\n",
	copy => "BEGIN;\nCOPY grows (filler) FROM PROGRAM 'seq 1 500';\nINSERT INTO ledger VALUES (500);\nEND;\n",
	undone => "BEGIN;\nINSERT INTO grows SELECT FROM generate_series(1, 400);\nROLLBACK;\n",
	delete => "WITH d AS (DELETE FROM grows WHERE id > (SELECT max(id) FROM grows) - 3000 RETURNING 1) INSERT INTO ledger SELECT -count(*) FROM d;\n",
	empty => "BEGIN;\nLOCK grows IN SHARE ROW EXCLUSIVE MODE;\nWITH d AS (DELETE FROM grows RETURNING 1) INSERT INTO ledger SELECT -count(*) FROM d;\nEND;\nVACUUM (SKIP_LOCKED) grows;\n",
	vacuum => "VACUUM (TRUNCATE, SKIP_LOCKED) grows;\n");
append_to_file("$dir/$_", $script{$_}) foreach keys %script;
my @mix = map { ('-f', $_) } "$dir/insert\@20", "$dir/copy\@4", "$dir/undone\@8", "$dir/delete\@4",
  "$dir/empty\@1", "$dir/vacuum\@4";

sub verdict
{
	my ($what) = @_;
	is($node->safe_psql('postgres', 'SELECT * FROM verdict'), '0|0', "$what: each row is there, once");
	ok($node->safe_psql('postgres',
			"SELECT aurora.relation_size('grows') / 8192 > coalesce(max((ctid::text::point)[0]), -1) FROM grows") eq 't',
		"$what: no row lies beyond the end");
	return;
}

# Ends that were cut off so far; whether there is one in three rounds depends on
# who is fast.
sub cut_off
{
	return $node->safe_psql('postgres',
		"SELECT coalesce(sum(count), 0) FROM pg_get_wal_stats('$first_lsn', pg_current_wal_flush_lsn(), true) WHERE \"resource_manager/record_type\" = 'aurora/TRUNCATE'");
}

for my $round (1 .. 12)
{
	last if $round > 3 && cut_off() > 0;
	my $load = start_load($node, clients => 8, seconds => 3, uncounted => 1,
		options => [@mix]);
	# A client whose transaction failed is gone: half of them stay.
	for (1 .. 4)
	{
		sleep_random(0.3, 0.9);
		$node->safe_psql('postgres', 'SELECT '
			  . ($round > 1 && rand() < 0.5 ? 'pg_terminate_backend' : 'pg_cancel_backend')
			  . "(pid) FROM pg_stat_activity WHERE application_name = 'pgbench' AND state = 'active' ORDER BY random() LIMIT 1");
	}
	$node->kill9 if $round == 3;
	wait_load($load);
	start_again($node) if $round == 3;
	verdict("round $round");
	evict_all($node);
	verdict("round $round, from storage");
	check_all($node, "round $round", no_pgbench => 1);
}
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM ledger WHERE n > 0'), '>', 30, 'work was done');
cmp_ok(cut_off(), '>', 0, '... and ends were cut off meanwhile');
$node->safe_psql('postgres', 'WITH d AS (DELETE FROM grows RETURNING 1) INSERT INTO ledger SELECT -count(*) FROM d');
$node->safe_psql('postgres', 'VACUUM grows');
is($node->safe_psql('postgres', "SELECT aurora.relation_size('grows')"), '0', 'an empty table is cut to nothing');
verdict('at the end');
$node->stop;
done_testing();
