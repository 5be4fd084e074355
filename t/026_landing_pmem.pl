# SPDX-License-Identifier: Apache-2.0
#
# The landing log on persistent memory, as libpmem's own switch emulates it on
# tmpfs, in a directory of its own: pgbench, the daemon killed at random
# moments, then server and daemon; nothing is lost.  Then the same logs on
# ordinary files, and back.  What is in use is shown.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use File::Temp ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

$ENV{PMEM_IS_PMEM_FORCE} = '1';
seed_random();

# tmpfs if there is enough of it (each segment takes 64 MB at once)
my ($avail) = (qx(df -Pk /dev/shm 2>/dev/null) // '') =~ /\s(\d+)\s+\d+%/;
my $log_dir = -w '/dev/shm' && ($avail // 0) > 600 * 1024
  ? File::Temp::tempdir('aurora_pmem.XXXXXX', DIR => '/dev/shm', CLEANUP => 1)
  : PostgreSQL::Test::Utils::tempdir();

my $node = new_node('main', conf =>
	"synchronous_standby_names = 'aurora'\nshared_buffers = 2MB\n"
	. "aurora.storaged_options = '--landing pmem --log-dir $log_dir'\n");
init_pgbench($node, scale => 1);

sub kind
{
	return $node->safe_psql('postgres', 'SELECT landing_kind FROM aurora.nodes');
}

sub storaged_log
{
	return slurp($node->data_dir . '/aurora/storaged.log');
}

is(kind(), 'pmem', 'aurora.nodes tells what the log is on');
like($node->safe_psql('postgres', 'SELECT landing_directory FROM aurora.nodes'),
	qr{^\Q$log_dir\E/[0-9A-F]{16}-\d+$}, 'and where');
ok(scalar(glob("$log_dir/*/*.log")), 'that is where it is');
ok(!-e glob($node->data_dir . '/aurora/volumes/*') . '/log', 'and nowhere else');
like(storaged_log(), qr/landing logs on pmem in/, 'the line at start tells, too');
like(storaged_log(), qr/PMEM_IS_PMEM_FORCE is set/, 'and that it is an emulation');
my ($status) = run_command([ bindir() . '/auroractl', '--socket',
	$node->data_dir . '/aurora/storaged.sock', 'status' ]);
like($status, qr/landing log\s.* on pmem /, 'auroractl tells');

my $kills = $ENV{AURORA_TEST_KILLS} // 6;
my $load = start_load($node, clients => 6, seconds => 120);
my $pid = wait_for_daemon($node);
for (1 .. $kills)
{
	sleep_random(0.3, 2);
	kill_quietly(9, $pid);
	$pid = wait_for_daemon($node, not => $pid);
}
sleep 1;
my ($rc, $acked) = wait_load($load, end => 1);
is($rc, 0, 'no transaction failed') or diag ${ $load->{err} };
cmp_ok($acked, '>', 0, "work was done ($acked transactions)");
wait_for_daemon($node);
check_all($node, "after $kills kills");

# All at once, in mid-load.
$load = start_load($node, clients => 4, seconds => 20);
sleep_random(1, 2);
$pid = wait_for_daemon($node);
$node->kill9;
kill_quietly(9, $pid);
wait_load($load);
start_again($node);
wait_for_daemon($node);
check_all($node, 'server and daemon killed');

# The same log through ordinary writes, and back.
for my $to ('file', 'pmem')
{
	$node->stop;
	$node->adjust_conf('postgresql.conf', 'aurora.storaged_options',
		"'--landing $to --log-dir $log_dir'");
	$node->start;
	wait_for_daemon($node);
	is(kind(), $to, "now on $to");
	$load = start_load($node, clients => 2, seconds => 2);
	($rc) = wait_load($load);
	is($rc, 0, "on $to: no transaction failed") or diag ${ $load->{err} };
	check_all($node, "on $to");
}

# Without the option the log is not found, and nothing is begun anew.
$node->stop;
$node->adjust_conf('postgresql.conf', 'aurora.storaged_options', "''");
$node->start;
like_soon(\&storaged_log, qr/its landing log is not in .*start with the --log-dir/,
	'a log that is not there is an error');
$node->adjust_conf('postgresql.conf', 'aurora.storaged_options',
	"'--landing pmem --log-dir $log_dir'");
$node->reload;
wait_for_daemon($node);
ok($node->poll_query_until('postgres', "SELECT state = 'streaming' FROM aurora.shipper"),
	'with it all goes on');
check_all($node, 'at the end');
$node->stop;
done_testing();
