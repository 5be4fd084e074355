# SPDX-License-Identifier: Apache-2.0
#
# A table far larger than shared_buffers = 1MB, updated at random; a small
# model table in heap says what every row must be.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use Test::More;

seed_random();
my $node = new_node('main', conf => "shared_buffers = 1MB\nautovacuum = off\n");
my $rows = 40_000;

$node->safe_psql('postgres', <<"SQL");
CREATE TABLE model (id int PRIMARY KEY, n int NOT NULL) USING heap;
CREATE TABLE big (id int PRIMARY KEY, n int NOT NULL, filler text) USING aurora;
INSERT INTO model SELECT g, 0 FROM generate_series(1, $rows) g;
INSERT INTO big SELECT g, 0, repeat(md5(g::text), 20) FROM generate_series(1, $rows) g;
CREATE FUNCTION work(steps int) RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE k int; op float;
BEGIN
  FOR i IN 1..steps LOOP
    k := 1 + floor(random() * $rows)::int;
    op := random();
    IF op < 0.7 THEN
      UPDATE big SET n = n + 1 WHERE id = k;
      UPDATE model SET n = n + 1 WHERE id = k;
    ELSIF op < 0.8 THEN
      UPDATE big SET n = n + 5, filler = repeat(md5(random()::text), 10 + (random() * 20)::int) WHERE id BETWEEN k AND k + 5;
      UPDATE model SET n = n + 5 WHERE id BETWEEN k AND k + 5;
    ELSIF op < 0.9 THEN
      DELETE FROM big WHERE id = k;
      DELETE FROM model WHERE id = k;
    ELSE
      INSERT INTO big VALUES (k, 1000, 'again') ON CONFLICT (id) DO UPDATE SET n = excluded.n;
      INSERT INTO model VALUES (k, 1000) ON CONFLICT (id) DO UPDATE SET n = excluded.n;
    END IF;
  END LOOP;
END \$\$;
SQL
cmp_ok($node->safe_psql('postgres', "SELECT aurora.relation_size('big')"),
	'>', 25_000_000, 'the table is 25 times the cache');

my $differences = <<'SQL';
SELECT count(*) FROM (SELECT id, n FROM big) b FULL JOIN model m USING (id) WHERE b.n IS DISTINCT FROM m.n
SQL
my $order = <<'SQL';
SELECT count(*) FILTER (WHERE id <= prev) FROM (SELECT id, lag(id) OVER () AS prev FROM (SELECT id FROM big ORDER BY id) x) y
SQL

sub check
{
	my ($what) = @_;
	is($node->safe_psql('postgres', $differences), '0', "$what: every row is what the model says");
	is($node->safe_psql('postgres', "SET enable_seqscan = off; SET enable_bitmapscan = off; $order"),
		'0', "$what: in order by the index");
	check_all($node, $what, no_pgbench => 1);

	# Some pages here and there, compared while they are in the cache.
	my $blocks = $node->safe_psql('postgres', "SELECT aurora.relation_size('big') / 8192");
	my $sql = join '', map {
		my $first = int(rand($blocks));
		my $last = $first + 5;
		"SELECT 'rows', count(*) FROM big WHERE ctid >= '($first,0)' AND ctid < '($last,0)';"
		  . "SELECT 'pages', compared, differing FROM aurora.verify_count('big');"
	} 1 .. 30;
	my ($compared, $differing) = (0, 0);
	foreach (split /\n/, $node->safe_psql('postgres', $sql))
	{
		next unless /^pages\|(\d+)\|(\d+)/;
		$compared += $1;
		$differing += $2;
	}
	cmp_ok($compared, '>', 50, "$what: $compared pages compared with storage's");
	is($differing, 0, "$what: none differs");
	return;
}

check('loaded');
for my $round (1 .. 3)
{
	# Three sessions at once, each a row at a time in its own transaction order;
	# the model is changed in the same transaction.
	my @sessions = map { $node->background_psql('postgres') } 1 .. 3;
	foreach my $s (@sessions)
	{
		$s->query_safe('SELECT setseed(' . sprintf('%.6f', rand()) . ')');
	}
	foreach my $n (1 .. 5)
	{
		$_->query_safe("BEGIN; LOCK model IN EXCLUSIVE MODE; SELECT work(300); COMMIT;") foreach @sessions;
	}
	$_->quit foreach @sessions;
	check("round $round");
	$node->safe_psql('postgres', $round == 2 ? 'VACUUM big' : 'SELECT 1');
}
check('vacuumed');
cmp_ok($node->safe_psql('postgres', 'SELECT misses + prefetched FROM aurora.cache'),
	'>', 10_000, 'pages came from storage all the time');

$node->restart;
check('after a restart');
$node->stop('immediate');
$node->start;
check('after a crash');
$node->safe_psql('postgres', 'SELECT work(2000)');
$node->kill9;
start_again($node);
check('after work and another crash');
$node->stop;
done_testing();
