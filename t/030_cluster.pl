# SPDX-License-Identifier: Apache-2.0
#
# One server on three storage nodes: nodes are killed, stopped and lost under
# load; what was acknowledged stays, on each node, and lists that are wrong are
# refused.  AURORA_TEST_ROUNDS does the faults more often.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

seed_random();
my $rounds = $ENV{AURORA_TEST_ROUNDS} // 1;
my $dir = PostgreSQL::Test::Utils::tempdir();
my @port = free_ports(4);
my @handle;
my @address = map { "127.0.0.1:$_" } @port;
my @options;

sub start_storage
{
	foreach my $i (@_)
	{
		$handle[$i] = IPC::Run::start(
			[ bindir() . '/aurora_storaged', '--dir', "$dir/node$i", '--listen', $address[$i], @options ],
			'<', \undef, '>>', "$dir/daemon$i.log", '2>&1');
		die "node $i does not listen: " . slurp("$dir/daemon$i.log") unless wait_listening($address[$i], $handle[$i]);
	}
	return;
}

sub signal_storage
{
	my ($sig, @which) = @_;
	$handle[$_]->signal($sig) foreach @which;
	return if $sig =~ /STOP|CONT/;
	foreach my $i (@which) { eval { $handle[$i]->finish; }; }
	return;
}

my $list = join(' , ', @address[ 0 .. 2 ]);
start_storage(0 .. 2);
my $node = new_node('main', conf => <<"CONF");
aurora.storage_nodes = '$list'
synchronous_standby_names = 'aurora'
shared_buffers = 4MB
CONF
init_pgbench($node, scale => 1);
$node->safe_psql('postgres', 'CREATE TABLE waits (a int) USING aurora');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub shipping
{
	return sql('SELECT string_agg(shipping, \' \' ORDER BY number) FROM aurora.storage_nodes()');
}

# All nodes hold everything, and have it in their pages.
sub all_caught_up
{
	my ($what) = @_;
	ok($node->poll_query_until('postgres', <<'SQL'), "$what: all nodes have caught up");
SELECT bool_and(n.shipping = 'stream' AND n.durable_lsn >= s.durable_lsn AND n.applied_lsn >= s.durable_lsn - 8192)
  FROM aurora.storage_nodes() n, aurora.shipper s
SQL
	return;
}

# The pages of each node are those that the server has.
sub verify_each
{
	my ($what) = @_;
	foreach my $n (1 .. 3)
	{
		is(sql("SET aurora.read_node = $n; SELECT v.* FROM (VALUES ('pgbench_accounts'::regclass), ('pgbench_tellers'), ('pgbench_branches'), ('pgbench_history')) t(r), LATERAL aurora.verify_pages(t.r) v"),
			'', "$what: node $n has the right pages");
	}
	return;
}

# (Two of three are enough to begin with.)
ok($node->poll_query_until('postgres', "SELECT bool_and(shipping = 'stream') FROM aurora.storage_nodes()"),
	'three nodes');
like_soon(\&shipping, qr/^stream stream stream$/, 'all of them get log');
like_soon(sub { sql('SELECT count(DISTINCT node), count(*) FILTER (WHERE state = \'ok\') FROM aurora.nodes') },
	qr/^3\|3$/, 'aurora.nodes shows them');

for my $round (1 .. $rounds)
{
	# ---- one node is lost
	my $victim = int(rand(3));
	my $load = start_load($node, clients => 4, seconds => 6);
	sleep 2;
	signal_storage('KILL', $victim);
	my ($rc) = wait_load($load);
	is($rc, 0, "round $round, node $victim killed: no transaction failed") or diag ${ $load->{err} };
	my $gap = longest_gap($load);
	cmp_ok($gap, '<', 15, sprintf('... writes went on: the longest gap was %.3f s', $gap));
	like_soon(\&shipping, qr/down/, '... and the view shows it');
	check_all($node, 'on two nodes');
	# More log than the shipper's window, so that it needs its peers.
	sql('CREATE TABLE filler (a text) USING aurora; INSERT INTO filler SELECT repeat(md5(g::text), 20) FROM generate_series(1, 40000) g; DROP TABLE filler;');
	start_storage($victim);
	all_caught_up("node $victim came back");
	my $n = $victim + 1;
	cmp_ok(sql("SELECT (aurora.storage_status($n) #>> '{volumes,0,peer_bytes}')::bigint"), '>', 1 << 20,
		'... with log from the other nodes');
	verify_each('after that');

	# ---- one node stands still
	$victim = int(rand(3));
	$load = start_load($node, clients => 4, seconds => 5);
	sleep 1;
	signal_storage('STOP', $victim);
	($rc) = wait_load($load);
	signal_storage('CONT', $victim);
	is($rc, 0, "node $victim stopped: no transaction failed") or diag ${ $load->{err} };
	cmp_ok(longest_gap($load), '<', 15, sprintf('... writes went on: the longest gap was %.3f s', longest_gap($load)));
	all_caught_up("node $victim continued");

	# ---- two nodes are lost: writes wait
	$load = start_load($node, clients => 2, seconds => 8);
	sleep 1;
	signal_storage('KILL', 0, 1);
	sleep 0.5;
	my ($out, $err) = ('', '');
	my $writer = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'INSERT INTO waits VALUES (1)' ],
		'<', \undef, '>', \$out, '2>', \$err);
	my $waits = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query ~ '^INSERT INTO waits'";
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 $waits"), 'two nodes killed: a commit waits');
	ok($node->poll_query_until('postgres', "SELECT state = 'connecting' FROM aurora.shipper"), '... and the shipper says so');
	note shipper_field($node, 'last_error');
	sleep 1;
	is(sql("SELECT count(pg_cancel_backend(pid)) $waits"), '1', '... the commit is on record as waiting');
	$writer->finish;
	like($err, qr/canceling wait for synchronous replication due to user request/, '... and can be cancelled');
	start_storage(0);
	($rc) = wait_load($load);
	is($rc, 0, 'it goes on when one is back') or diag ${ $load->{err} };
	check_all($node, 'two of three nodes');
	start_storage(1);
	all_caught_up('all are back');

	# ---- all at once, then the server
	$load = start_load($node, clients => 4, seconds => 6);
	sleep 1.5;
	signal_storage('KILL', 0 .. 2);
	sleep 0.5;
	start_storage(0 .. 2);
	($rc) = wait_load($load);
	is($rc, 0, 'all nodes killed: no transaction failed') or diag ${ $load->{err} };
	check_all($node, 'all nodes killed');

	$load = start_load($node, clients => 4, seconds => 20);
	sleep 1.5;
	$node->kill9;
	wait_load($load);
	start_again($node);
	check_all($node, 'server killed');
	all_caught_up('server killed');
	verify_each('server killed');
}

# ---- one is away until the others keep no log for it
# The oldest log that a node has (its files are named so).
sub oldest_log
{
	my ($i) = @_;
	my ($first) = sort map { m{([0-9A-F]{16})\.log$} ? $1 : () } glob("$dir/node$i/volumes/*/log/*.log");
	return hex($first // 0);
}

sub wait_until
{
	my ($what, $is) = @_;
	for (1 .. 600)
	{
		return pass($what) if $is->();
		sleep 0.1;
	}
	return fail($what);
}

{
	my $made = qr/the page store was made anew from other nodes/;
	my $load;
	my $asks = 0;
	@options = ('--log-keep-mb', 1);
	signal_storage('KILL', 0 .. 2);
	start_storage(0 .. 2);
	all_caught_up('nodes that keep little log');
	signal_storage('KILL', 2);
	my $away = sql('SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), \'0/0\')::bigint');
	sql("SELECT count(pg_logical_emit_message(false, 'aurora', repeat('x', 1000000))) FROM generate_series(1, 220)");
	$load = start_load($node, clients => 2, seconds => 2);
	wait_load($load);
	foreach my $i (0, 1)
	{
		wait_until("node $i keeps no log from where node 2 stopped", sub { oldest_log($i) > $away });
	}
	$load = start_load($node, clients => 2, seconds => 8);
	# ... and it is killed in the middle
	foreach my $kill (1 .. 3)
	{
		start_storage(2);
		wait_until("node 2 is to be made anew ($kill)", sub {
				my $log = slurp("$dir/daemon2.log");
				my $n = () = $log =~ /are made anew from theirs/g;
				return ($n > $asks && ($asks = $n)) || $log =~ $made; });
		sleep rand(0.4);
		signal_storage('KILL', 2);
	}
	start_storage(2);
	wait_until('... and is', sub { slurp("$dir/daemon2.log") =~ $made })
		or diag slurp("$dir/daemon2.log");
	my ($rc) = wait_load($load);
	is($rc, 0, '... while no transaction failed') or diag ${ $load->{err} };
	all_caught_up('node 2 was made anew');
	ok(!glob("$dir/node2/volumes/*/REBUILT") && oldest_log(2) > $away, '... with a log that begins later');
	verify_each('node 2 was made anew');
	# it counts: without it there is no quorum
	signal_storage('KILL', 0);
	is($node->psql('postgres', 'INSERT INTO waits VALUES (2)', timeout => 60), 0, '... and counts for commits');
	check_all($node, 'node 2 was made anew');
	@options = ();
	start_storage(0);
	all_caught_up('node 2 was made anew, all are back');
}

# ---- lists that are wrong
sub refused_with
{
	my ($what, $conf, $until) = @_;
	$node->stop;
	my $path = $node->data_dir . '/postgresql.conf';
	my $before = slurp($path);
	$node->append_conf('postgresql.conf', $conf);
	$node->start;
	ok($node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM $until)"), "$what: refused, with the reason");
	$node->stop;
	open my $f, '>', $path or die;
	print $f $before;
	close $f;
	$node->start;
	ok($node->poll_query_until('postgres', "SELECT state = 'streaming' FROM aurora.shipper"), '... and the right list is taken');
	return;
}
refused_with('one node is missing', "aurora.storage_nodes = '$address[0],$address[1]'\n",
	"aurora.shipper WHERE state = 'refused' AND last_error ~ 'kept by 3 nodes with a write quorum of 2, but 2 nodes with a quorum of 2 are configured'");
refused_with('another quorum', "aurora.write_quorum = 3\n",
	"aurora.shipper WHERE state = 'refused' AND last_error ~ 'kept by 3 nodes with a write quorum of 2, but 3 nodes with a quorum of 3'");
# (Before the group is known the shipper is refused as a whole; once it is, one of
# the two places is, and the others go on.)
refused_with('a node twice', "aurora.storage_nodes = '$address[0],$address[1],localhost:$port[1]'\n",
	"(SELECT shipping_problem FROM aurora.storage_nodes() UNION ALL SELECT last_error FROM aurora.shipper WHERE state = 'refused') p(why) WHERE why ~ 'are the same storage node'");
start_storage(3);
$node->stop;
$node->append_conf('postgresql.conf', "aurora.storage_nodes = '$address[0],$address[1],$address[3]'\n");
$node->start;
ok($node->poll_query_until('postgres', "SELECT shipping_problem ~ 'does not keep this server''s volume' FROM aurora.storage_nodes() WHERE number = 3"),
	'a foreign node is not taken in');
ok($node->poll_query_until('postgres', "SELECT state = 'streaming' FROM aurora.shipper"), '... the other two go on');
$node->stop;
$node->append_conf('postgresql.conf', "aurora.storage_nodes = '$list'\naurora.write_quorum = 1\n");
is($node->start(fail_ok => 1), 0, 'a quorum that is none: the server does not start');
like(slurp($node->logfile), qr/With 3 storage nodes it can be 2 to 3; 0 stands for 2, the majority/, '... and says what can be');
$node->append_conf('postgresql.conf', "aurora.write_quorum = 0\n");

# ---- a node that lost its data
signal_storage('KILL', 2);
rename "$dir/node2", "$dir/node2.old" or die;
start_storage(2);
$node->start;
ok($node->poll_query_until('postgres', "SELECT shipping_problem ~ 'does not keep this server''s volume|does not hold the volume' FROM aurora.storage_nodes() WHERE number = 3"),
	'a node with an empty directory is not taken in');
note sql('SELECT shipping_problem FROM aurora.storage_nodes() WHERE number = 3');
check_all($node, 'on the other two');
signal_storage('KILL', 1);
ok($node->poll_query_until('postgres', "SELECT state = 'refused' AND last_error ~ 'does not (hold|keep)' FROM aurora.shipper"),
	'... which becomes the shipper\'s trouble when another is lost');
start_storage(1);
ok($node->poll_query_until('postgres', "SELECT state = 'streaming' FROM aurora.shipper"), '... until that is back');
signal_storage('TERM', 2);
PostgreSQL::Test::RecursiveCopy::copypath("$dir/node2.old", "$dir/node2.back");
rename "$dir/node2", "$dir/node2.empty" or die;
rename "$dir/node2.back", "$dir/node2" or die;
start_storage(2);
all_caught_up('it got its directory back');
verify_each('it got its directory back');

# ---- a new timeline: the log before the switch is sent once more, as the old one
{
	my $load = start_load($node, clients => 2, seconds => 2);
	wait_load($load);
	$node->stop;
	$node->append_conf('postgresql.conf', "restore_command = '/bin/false'\n");
	open my $f, '>', $node->data_dir . '/recovery.signal' or die;
	close $f;
	$node->start;
	ok($node->poll_query_until('postgres', "SELECT state = 'streaming' AND timeline = 2 FROM aurora.shipper"),
		'the log of a new timeline is shipped');
	check_all($node, 'new timeline');
	$load = start_load($node, clients => 2, seconds => 2);
	wait_load($load);
	$node->restart;
	check_all($node, 'new timeline, later');
	all_caught_up('new timeline');
	verify_each('new timeline');
}

$node->stop;
signal_storage('TERM', 0 .. 3);
done_testing();
