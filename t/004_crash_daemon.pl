# SPDX-License-Identifier: Apache-2.0
#
# kill -9 of the storage daemon in the middle of pgbench, at random moments,
# several times within one run: clients wait, no transaction fails, nothing is
# lost.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use Test::More;
use Time::HiRes qw(sleep time);

seed_random();
my $rounds = 4;
my $kills = $ENV{AURORA_TEST_KILLS} // 8;
my $node = new_node('main',
	conf => "synchronous_standby_names = 'aurora'\nshared_buffers = 2MB\n");
init_pgbench($node, scale => 1);

my $done = 0;
for my $round (1 .. $rounds)
{
	my $here = int($kills / $rounds);
	my $load = start_load($node, clients => 4 + int(rand(4)), seconds => 120);
	my $pid = wait_for_daemon($node);
	for (1 .. $here)
	{
		sleep_random(0.3, 2.5);
		kill_quietly(9, $pid);
		$done++;
		# Sometimes again while it is still starting.
		$pid = rand() < 0.3 ? daemon_pid($node) // 0 : wait_for_daemon($node, not => $pid);
	}
	wait_for_daemon($node);
	sleep 1;
	my ($rc, $acked) = wait_load($load, end => 1);
	is($rc, 0, "round $round: no transaction failed") or diag ${ $load->{err} };
	cmp_ok($acked, '>', 0, "round $round: work was done ($acked transactions)");
	wait_for_daemon($node);
	check_all($node, "round $round, after $done kills") or last;
}

# Killed while the server is down as well, then both start.
my $pid = wait_for_daemon($node);
$node->kill9;
kill_quietly(9, $pid);
start_again($node);
check_all($node, 'server and daemon killed when idle');
$node->stop;
done_testing();
