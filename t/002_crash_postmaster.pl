# SPDX-License-Identifier: Apache-2.0
#
# kill -9 of the postmaster, sometimes of all its children at the same moment
# (with or without the daemon), in the middle of pgbench, at random moments.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use Test::More;

seed_random();
my $kills = $ENV{AURORA_TEST_KILLS} // 8;
my $node = new_node('main', conf => "synchronous_standby_names = 'aurora'\n");
init_pgbench($node, scale => 1);

for my $i (1 .. $kills)
{
	my $load = start_load($node, clients => 4 + int(rand(4)));
	sleep_random(0.5, 3);
	my $daemon = daemon_pid($node);
	my %kids = children($node->{_pid});
	my $how = (
		'the postmaster',
		'the postmaster and all its children',
		'the postmaster, its children and the daemon')[ int(rand(3)) ];
	$node->kill9;
	kill_quietly(9, keys %kids) if $how =~ /children/;
	kill_quietly(9, $daemon) if $how =~ /daemon/;
	my (undef, $acked) = wait_load($load);
	start_again($node);
	note "kill $i: $how, $acked transactions acknowledged before";
	check_all($node, "kill $i of $how") or last;
}

# It still works: a clean run, nothing lost, all pgbench clients happy.
my $load = start_load($node, seconds => 3);
my ($rc, $n) = wait_load($load);
is($rc, 0, 'pgbench runs clean afterwards');
cmp_ok($n, '>', 0, 'and does something');
check_all($node, 'at the end');

# Recovery remembers no sizes: a table that was cut and grew again has the one
# that it had.
my $blocks = "SELECT pg_relation_size('cut') / 8192";
$node->safe_psql('postgres', $_)
  for ('CREATE TABLE cut USING aurora AS SELECT g FROM generate_series(1, 20000) g',
	'CHECKPOINT', 'DELETE FROM cut WHERE g > 100');
# (Once nobody, autovacuum for one, has a snapshot that needs the rows.)
ok(eventually(sub { $node->safe_psql('postgres', "VACUUM cut; $blocks") == 1 }), 'VACUUM cuts a table');
$node->safe_psql('postgres', 'INSERT INTO cut SELECT generate_series(101, 3000)');
my $grown = $node->safe_psql('postgres', $blocks);
cmp_ok($grown, '>', 5, 'it grows');
$node->kill9;
start_again($node);
is($node->safe_psql('postgres', $blocks), $grown, 'and has this size after a crash');
is($node->safe_psql('postgres', 'SELECT count(*), sum(g) FROM cut'),
	'3000|4501500', 'with all its rows');
$node->stop;
done_testing();
