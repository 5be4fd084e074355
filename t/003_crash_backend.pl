# SPDX-License-Identifier: Apache-2.0
#
# kill -9 of a backend, or of the shipper or another process of the server, in
# the middle of pgbench: the postmaster restarts everything and recovery runs,
# while the daemon goes on.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use Test::More;
use Time::HiRes qw(sleep time);

seed_random();
my $kills = $ENV{AURORA_TEST_KILLS} // 8;
my $node = new_node('main');
init_pgbench($node, scale => 1);

for my $i (1 .. $kills)
{
	my $load = start_load($node, clients => 4 + int(rand(4)));
	sleep_random(0.5, 3);
	my (%kids, @backends);
	eventually(sub {
		%kids = children($node->{_pid});
		@backends = grep { $kids{$_} =~ /\[local\]/ && $kids{$_} !~ /walsender/ } keys %kids;
	});
	my @others = grep { $kids{$_} =~ /aurora|walsender|checkpointer|walwriter|autovacuum worker/ } keys %kids;
	my $victim =
	  @others && rand() < 0.35
	  ? $others[ int(rand(@others)) ]
	  : $backends[ int(rand(@backends)) ];
	my $what = $kids{$victim} // 'nothing';
	$what =~ s/^postgres: (main: )?//;
	$what =~ s/\s+$//;
	kill_quietly(9, $victim);
	my (undef, $acked) = wait_load($load);
	note "kill $i: $what, $acked transactions acknowledged before";
	$node->poll_query_until('postgres', 'SELECT true')
	  or die 'server did not come back';
	check_all($node, "kill $i of \"$what\"") or last;
}

my $load = start_load($node, seconds => 3);
my ($rc, $n) = wait_load($load);
is($rc, 0, 'pgbench runs clean afterwards');
check_all($node, 'at the end');
$node->stop;
done_testing();
