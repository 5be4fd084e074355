# SPDX-License-Identifier: Apache-2.0
#
# The daemon does not answer for a while (stopped by a signal, then gone and not
# started again): reads of pages that are not cached wait, can be cancelled and
# obey statement_timeout; commits that are to wait for storage wait; reads of
# cached pages go on; nothing is lost, and all goes on by itself afterwards.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $pid;
END { kill_quietly('CONT', $pid) if defined $pid; }

seed_random();
# The program is started through a link that can be taken away.
my $program = PostgreSQL::Test::Utils::tempdir() . '/aurora_storaged';
symlink bindir() . '/aurora_storaged', $program or die;
my $node = new_node('main',
	conf => "shared_buffers = 4MB\naurora.storaged_path = '$program'\n");
init_pgbench($node, scale => 1);
$node->safe_psql('postgres', "CREATE TABLE small (a int PRIMARY KEY, b int) USING aurora; INSERT INTO small SELECT g, 0 FROM generate_series(1, 10) g");
my $total = $node->safe_psql('postgres', 'SELECT count(*), sum(aid + abalance - abalance) FROM pgbench_accounts');
$node->safe_psql('postgres', 'SELECT count(*) FROM small');

# ---- stopped by SIGSTOP
$pid = wait_for_daemon($node);
my $read = 'SELECT count(*), sum(aid + abalance - abalance) FROM pgbench_accounts';
$node->safe_psql('postgres', "SELECT aurora.evict('pgbench_accounts')");
kill_quietly('STOP', $pid);

my ($rc, $out, $err);
my $t = timed(sub {
	($rc, $out, $err) = $node->psql('postgres', "SET statement_timeout = '2s'; $read");
});
isnt($rc, 0, 'a read that needs storage does not end');
like($err, qr/canceling statement due to statement timeout/, 'statement_timeout ends it');
cmp_ok($t, '<', 30, 'in time');
cmp_ok($t, '>', 1.5, 'not before');

# by a cancel request and by termination
foreach my $how ('pg_cancel_backend', 'pg_terminate_backend')
{
	my $s = $node->background_psql('postgres', on_error_stop => 0);
	my $backend = $s->query('SELECT pg_backend_pid()');
	$s->query_until(qr/started/, "\\echo started\n$read;\n");
	ok($node->poll_query_until('postgres',
			"SELECT state = 'active' AND query LIKE 'SELECT count%' FROM pg_stat_activity WHERE pid = $backend"),
		"$how: the session is waiting");
	sleep 0.5;
	$t = timed(sub {
		$node->safe_psql('postgres', "SELECT $how($backend)");
		$node->poll_query_until('postgres',
			$how eq 'pg_cancel_backend'
			? "SELECT state <> 'active' FROM pg_stat_activity WHERE pid = $backend"
			: "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $backend)");
	});
	cmp_ok($t, '<', 30, "$how ends a waiting read");
	eval { $s->quit; };
}
is($node->safe_psql('postgres',
		"SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'active' AND pid = pg_backend_pid()"),
	't', 'the server answers meanwhile');

# asynchronous commits go on as long as their pages are cached
is($node->safe_psql('postgres', 'UPDATE small SET b = b + 1 WHERE a = 1 RETURNING b'),
	"1", 'a cached table can be read and written');

# a reader waits and gets its answer when the daemon goes on
my $load = start_load($node, clients => 4, seconds => 6);
sleep 2;
kill_quietly('CONT', $pid);
my ($lrc, $acked) = wait_load($load);
is($lrc, 0, 'load that was started meanwhile runs without an error');
cmp_ok($acked, '>', 0, 'and gets somewhere');
is($node->safe_psql('postgres', $read), $total, 'same rows afterwards');
check_all($node, 'after SIGSTOP and SIGCONT');

# ---- synchronous commit waits and can be cancelled
$node->append_conf('postgresql.conf', "synchronous_standby_names = 'aurora'");
$node->reload;
$node->poll_query_until('postgres', "SELECT sync_state = 'sync' FROM pg_stat_replication WHERE application_name = 'aurora'");
$node->safe_psql('postgres', 'SELECT sum(b) FROM small');
kill_quietly('STOP', $pid);
my $s = $node->background_psql('postgres');
my $backend = $s->query('SELECT pg_backend_pid()');
$s->query_until(qr/started/, "\\echo started\nUPDATE small SET b = b + 1 WHERE a = 2;\n");
ok($node->poll_query_until('postgres', "SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = $backend"),
	'a commit waits for storage');
kill_quietly('CONT', $pid);
ok($node->poll_query_until('postgres', "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $backend"),
	'and ends when storage is back');
$s->quit;

# ---- gone, and kept from coming back
$load = start_load($node, clients => 4, seconds => 120);
sleep 1;
rename $program, "$program.away" or die;
kill_quietly('KILL', wait_for_daemon($node));
ok(eventually(sub { my $p = daemon_pid($node) // 0; $p == 0 || !kill(0, $p) }), 'the daemon is gone');
like_soon(sub { shipper_field($node, 'daemon_error') }, qr/\S/, 'the view says what became of it');
note shipper_field($node, 'daemon_error');
($rc, $out, $err) = $node->psql('postgres', "SET statement_timeout = '2s'; SELECT aurora.evict('pgbench_accounts'); $read");
isnt($rc, 0, 'reads wait');
rename "$program.away", $program or die;
wait_for_daemon($node);
sleep 1;
($lrc, $acked) = wait_load($load, end => 1);
is($lrc, 0, 'load runs on when it is back') or diag ${ $load->{err} };
check_all($node, 'after the daemon was gone');

# ---- a bound on the waiting
$node->append_conf('postgresql.conf', "aurora.storage_timeout = '6s'\nsynchronous_standby_names = ''\n");
$node->reload;
$pid = wait_for_daemon($node);
$node->safe_psql('postgres', "SELECT aurora.evict('pgbench_accounts')");
kill_quietly('STOP', $pid);
$t = timed(sub { ($rc, $out, $err) = $node->psql('postgres', $read); });
kill_quietly('CONT', $pid);
isnt($rc, 0, 'aurora.storage_timeout ends a read');
cmp_ok($t, '<', 11.9, 'read-ahead included');
like($err, qr/pgbench_accounts|block|storage/i, 'with an error that names what it waited for');
note $err;
$node->poll_query_until('postgres', 'SELECT count(*) = 10 FROM small');
is($node->safe_psql('postgres', $read), $total, 'and the next read works');
check_all($node, 'at the end');
$node->stop;
done_testing();
