# SPDX-License-Identifier: Apache-2.0
#
# aurora.storage_nodes: a daemon that was started by hand and outlives the
# server; it is restarted, moved and asked by auroractl.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

seed_random();
my $bindir = bindir();
my $dir = PostgreSQL::Test::Utils::tempdir();
my ($port, $http) = free_ports(2);
my $daemon;

sub start_daemon
{
	$daemon = IPC::Run::start(
		[ "$bindir/aurora_storaged", '--dir', "$dir/node",
			'--listen', "127.0.0.1:$port", '--http', "127.0.0.1:$http", @_ ],
		'>', "$dir/daemon.log", '2>&1');
	die 'the daemon does not listen: ' . (slurp("$dir/daemon.log") // '')
	  unless wait_listening("127.0.0.1:$port", $daemon);
	return;
}
sub stop_daemon
{
	my ($sig) = @_;
	$daemon->signal($sig);
	eval { $daemon->finish; };
	return $daemon->full_result(0);
}

start_daemon();
my $node = new_node('main', conf => "aurora.storage_nodes = '127.0.0.1:$port'\n");
init_pgbench($node, scale => 1);
is($node->safe_psql('postgres', 'SELECT coalesce(daemon_pid, 0) FROM aurora.shipper'), '0',
	'no embedded daemon');
my $load = start_load($node, seconds => 3);
my ($rc) = wait_load($load);
is($rc, 0, 'pgbench runs');
check_all($node, 'external daemon');

my ($out, $err);
my $sysid = $node->safe_psql('postgres', 'SELECT system_identifier FROM pg_control_system()');
IPC::Run::run([ "$bindir/auroractl", '--http', "127.0.0.1:$http", 'status' ], '>', \$out, '2>', \$err);
note $out;
like($out, qr/$sysid/, 'auroractl status names the volume') or diag $err;
like($out, qr/applied|durable/i, 'and how far its log is');
IPC::Run::run([ "$bindir/auroractl", '--http', "127.0.0.1:1", 'status' ], '>', \$out, '2>', \$err);
like($err, qr/127\.0\.0\.1:1\b/, 'auroractl names a node that does not answer');

# ---- the server outlives the daemon's restart and the other way round
$load = start_load($node, seconds => 8);
sleep 1;
stop_daemon('TERM');
sleep 1;
start_daemon();
sleep 1;
stop_daemon('KILL');
start_daemon();
($rc) = wait_load($load);
is($rc, 0, 'load runs through restarts of the daemon') or diag ${ $load->{err} };
check_all($node, 'daemon restarted twice');
$node->restart;
check_all($node, 'server restarted');
$node->kill9;
start_again($node);
check_all($node, 'server killed');

# The server starts while the daemon is away, and finds it later.
$node->stop;
stop_daemon('TERM');
$node->start;
($rc, $out, $err) = $node->psql('postgres', "SET statement_timeout = '1s'; SELECT sum(abalance) FROM pgbench_accounts");
isnt($rc, 0, 'reads wait while the daemon is away');
start_daemon();
ok($node->poll_query_until('postgres', "SELECT state = 'streaming' FROM aurora.shipper"), 'found again');
check_all($node, 'daemon came later');
$node->stop;
is(stop_daemon('TERM'), 0, 'the daemon ends well');
IPC::Run::run([ "$bindir/auroractl", 'check', '--dir', "$dir/node" ], '>', \$out, '2>&1');
is($? >> 8, 0, 'auroractl check finds nothing wrong') or diag $out;
note $out;

# ---- a name server that is away holds nobody up for long
SKIP:
{
	my $shim = "$dir/resolver_shim.so";
	skip 'no compiler', 3 unless system('cc', '-shared', '-fPIC', '-O1', "$FindBin::Bin/faults/resolver_shim.c",
		'-o', $shim, '-ldl') == 0;
	$node->append_conf('postgresql.conf', "aurora.storage_nodes = 'storage.away:$port'\n");
	{
		local $ENV{LD_PRELOAD} = $shim;
		local $ENV{AURORA_RESOLVER_SHIM} = "storage.away:$dir/looked_up";
		$node->start;
	}
	($rc, $out, $err) = $node->psql('postgres',
		"SELECT pg_backend_pid(); SET statement_timeout = '1s'; SELECT sum(abalance) FROM pgbench_accounts");
	isnt($rc, 0, 'a node whose name cannot be looked up is not reached');
	my ($backend) = $out =~ /^(\d+)$/m;
	my $limit = time() + 60;
	my @waits;
	while (time() < $limit)
	{
		@waits = map { [split] } split /\n/, slurp("$dir/looked_up") // '';
		last if (grep { $_->[0] == $backend } @waits) && (grep { $_->[0] != $backend } @waits);
		sleep 0.1;
	}
	ok((grep { $_->[0] == $backend } @waits) && (grep { $_->[0] != $backend } @waits),
		'the backend has looked it up, and the log shipper');
	is(scalar(grep { "$_->[1] $_->[2]" ne '1 1' } @waits), 0, '... each for a second, once') or
		diag join(', ', map { "@$_" } @waits);
	$node->stop('immediate');
}
done_testing();
