# SPDX-License-Identifier: Apache-2.0
#
# make check-long: pgbench at scale 50 with 8 clients for 60 seconds on aurora
# tables runs clean, with a cache far smaller than the database.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use AuroraTest;
use Test::More;

my $node = new_node('main',
	conf => "synchronous_standby_names = 'aurora'\nshared_buffers = 64MB\nmax_wal_size = 2GB\n");
my $seconds = timed(sub { init_pgbench($node, scale => $ENV{AURORA_TEST_SCALE} // 50); });
note sprintf 'pgbench -i took %.1f s', $seconds;
check_all($node, 'loaded');
my $load = start_load($node, clients => 8, seconds => 60);
my ($rc, $n) = wait_load($load);
is($rc, 0, 'pgbench -c 8 -T 60 runs clean') or diag ${ $load->{err} };
note sprintf '%.1f tps', $n / 60;
check_all($node, 'after a minute of load');
$load = start_load($node, clients => 8, seconds => 30, options => [ '-S' ], uncounted => 1);
($rc) = wait_load($load);
is($rc, 0, 'pgbench -S runs clean');
$node->restart;
check_all($node, 'after a restart');
$node->stop;
done_testing();
