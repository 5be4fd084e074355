# SPDX-License-Identifier: Apache-2.0
#
# PostgreSQL on a cluster of storage nodes, of which it is told one address:
# it finds the others, keeps its log on three of them, and reads pages from
# who has them.  A node that stands still does not hold up reads; a node of the
# log group that is lost is replaced under load.
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

my $dir = PostgreSQL::Test::Utils::tempdir();
my @port = free_ports(4);
my @meta = free_ports(4);
my @address = map { "127.0.0.1:$_" } @port;
my @handle;

sub start_storage
{
	foreach my $i (@_)
	{
		$handle[$i] = IPC::Run::start(
			[   bindir() . '/aurora_storaged', '--dir', "$dir/node$i", '--listen', $address[$i],
				'--meta-listen', "127.0.0.1:$meta[$i]",
				$i == 0 ? '--cluster-init' : ('--join', $address[0]) ],
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

start_storage(0 .. 2);
ok(wait_members($address[1], 3), 'three nodes form a cluster');
my $node = new_node('main', conf => <<"CONF");
aurora.storage_nodes = '$address[1]'
aurora.storage_timeout = 60s
synchronous_standby_names = 'aurora'
shared_buffers = 4MB
CONF
sub sql { return $node->safe_psql('postgres', $_[0]); }

ok($node->poll_query_until('postgres', "SELECT count(*) = 3 AND bool_and(shipping = 'stream') FROM aurora.storage_nodes()"),
	'told of one node, the server finds the cluster and keeps its log on all three')
	or diag sql('SELECT * FROM aurora.storage_nodes()') . "\n" . slurp("$dir/daemon0.log");
init_pgbench($node, scale => 1);
ok($node->poll_query_until('postgres', "SELECT count(*) = 3 FROM aurora.nodes WHERE state = 'ok'"), '... as aurora.nodes shows');

# ---- reads: a node stands still
sql('CREATE TABLE big (i int, filler text) USING aurora; INSERT INTO big SELECT g, repeat(md5(g::text), 8) FROM generate_series(1, 20000) g');
my $want = sql('SELECT count(*), sum(i) FROM big');
# Latencies are known then, and the server knows that the nodes which joined
# have the pages, too.
ok(eventually(sub {
		evict_all($node);
		sql('SET aurora.scan_prefetch = 0; SELECT count(*) FROM big');
		return sql('SELECT count(*) FILTER (WHERE reads > 100) > 1 FROM aurora.storage_nodes()') eq 't';
	}), 'several nodes are read from') or diag sql('SELECT * FROM aurora.storage_nodes()');
ok(sql('SELECT sum(reads) FROM aurora.storage_nodes()') > 500, 'reads are counted');
for my $prefetch (0, 32)
{
	my $session = $node->background_psql('postgres', on_error_die => 1);
	$session->query_safe("SET aurora.scan_prefetch = $prefetch");
	evict_all($node);
	$session->query_safe('SELECT count(*) FROM big WHERE i < 100');
	evict_all($node);
	my $id = $session->query_safe("SELECT aurora.storage_status(0) ->> 'node_id'");
	my $at = sql("SELECT address FROM aurora.storage_nodes() WHERE node = '$id'");
	my ($i) = grep { $address[$_] eq $at } 0 .. 2;
	signal_storage('STOP', $i);
	my $began = time;
	my $got = $session->query_safe('SELECT count(*), sum(i) FROM big');
	my $took = time - $began;
	is($got, $want, "the session's node ($i) stands still, read-ahead of $prefetch: a cold scan goes on");
	cmp_ok($took, '<', 20, sprintf('... within %.3f s', $took));
	is(sql("SELECT hedges > 0, (SELECT sum(hedge_wins) > 0 FROM aurora.storage_nodes()) FROM aurora.storage_nodes() WHERE address = '$at'"),
		't|t', '... because another node was asked as well') if $prefetch == 0;
	signal_storage('CONT', $i);
	$session->quit;
	ok($node->poll_query_until('postgres', "SELECT bool_and(shipping = 'stream') FROM aurora.storage_nodes()"), '... and the node is back');
}
cmp_ok(sql('SELECT sum(hedges) * 20 FROM aurora.storage_nodes()'), '<=', sql('SELECT sum(reads) + 1000 FROM aurora.storage_nodes()'),
	'few questions were asked twice');
note sql("SELECT string_agg(format('%s: %s reads, %s hedges, %s won', number, reads, hedges, hedge_wins), '; ') FROM aurora.storage_nodes()");

# ---- a node of the log group is lost for good: another one takes its part
sub ctl
{
	my ($i, @args) = @_;
	my ($ok, $out, $err);
	# The node that was just killed may have been the leader.
	eventually(sub {
		$ok = IPC::Run::run([ bindir() . '/auroractl', '--node', $address[$i], @args ], '>', \$out, '2>', \$err);
		return $ok || $err !~ /no leader at the moment/;
	});
	return ($ok, $out . $err);
}

start_storage(3);
ok($node->poll_query_until('postgres', "SELECT count(*) = 4 AND count(*) FILTER (WHERE state = 'ok') = 4 AND string_agg(shipping, ' ' ORDER BY shipping) = 'follows stream stream stream' FROM aurora.nodes"),
	'a fourth node joins, and follows the log') or diag sql('SELECT number, shipping, state, problem FROM aurora.nodes') . slurp("$dir/daemon3.log");
{
	my $volume = sql('SELECT system_identifier FROM pg_control_system()');
	my (undef, $list) = ctl(0, 'node', 'list');
	note $list;
	my ($by) = $list =~ /^\s*(\d+)\s.*\Q$address[3]\E/m;
	my ($lost) = $list =~ /^\s*(\d+)\s.*\Q$address[2]\E/m;
	my $load = start_load($node, clients => 4, seconds => 120);
	sleep 1;
	signal_storage('KILL', 2);
	sleep 1;
	my ($ok, $said) = ctl(0, 'group', 'replace', $volume, $lost, $by);
	ok($ok, 'a lost node of the log group is to be replaced, under load') or diag $said;
	ok($node->poll_query_until('postgres', "SELECT count(*) = 3 AND bool_or(address = '$address[3]') AND NOT bool_or(address = '$address[2]') FROM aurora.storage_nodes() WHERE shipping <> 'follows'"),
		'... the writer takes the new group');
	ok($node->poll_query_until('postgres', "SELECT bool_and(shipping = 'stream') FROM aurora.storage_nodes() WHERE shipping <> 'follows'"), '... and all of it has the log');
	# The old group's other nodes are not enough any more.
	signal_storage('KILL', 1);
	sleep 3;
	my ($rc) = wait_load($load, end => 1);
	is($rc, 0, '... no transaction failed, with another node lost then') or diag ${ $load->{err} };
	my $gap = longest_gap($load);
	cmp_ok($gap, '<', 15, sprintf('... the longest time without a commit was %.3f s', $gap));
	check_all($node, 'replaced');
	start_storage(1, 2);
	foreach my $n (1 .. 4)
	{
		ok($node->poll_query_until('postgres', "SELECT n.applied_lsn >= s.durable_lsn - 8192 FROM aurora.nodes n, aurora.shipper s WHERE n.number = $n"),
			"node number $n has caught up");
	}
	ok($node->poll_query_until('postgres', "SELECT shipping = 'follows' FROM aurora.storage_nodes() WHERE address = '$address[2]'"),
		'the node that was lost follows now');

	# ---- its landing log is damaged: it gets that anew from the group
	signal_storage('TERM', 2);
	my ($file) = sort glob "$dir/node2/volumes/*/log/*.log";
	open(my $f, '+<:raw', $file) or die "$file: $!";
	seek($f, 20000, 0);
	print $f pack('N', int(rand(0xffffffff))) x 4;
	close $f;
	start_storage(2);
	like(slurp("$dir/daemon2.log"), qr/landing log "\Q$file\E" is damaged.*the log is fetched from the other nodes/,
		'a node whose landing log is damaged says so');
	ok($node->poll_query_until('postgres', "SELECT n.state = 'ok' AND n.applied_lsn >= s.durable_lsn - 8192 FROM aurora.nodes n, aurora.shipper s WHERE n.address = '$address[2]'"),
		'... and follows the log again') or diag sql('SELECT * FROM aurora.nodes') . (ctl(2, 'status'))[1] . slurp("$dir/daemon2.log");

	# ---- it is lost, directory and all
	signal_storage('KILL', 2);
	# localhost may be ::1 first, where nobody listens
	ok(IPC::Run::run([ bindir() . '/auroractl', '--node', "localhost:$port[0]", 'node', 'list' ], '>', \$list), 'the others go on');
	eventually(sub { ($ok, $said) = ctl(0, 'node', 'remove', $lost, '--force'); $ok });
	ok($ok, '... and give it up') or diag $said;
	system('rm', '-rf', "$dir/node2");
	start_storage(2);
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM aurora.nodes n, aurora.shipper s WHERE n.address = '$address[2]' AND n.state = 'ok' AND n.applied_lsn >= s.durable_lsn - 8192"),
		'a new one with an empty directory takes its place') or diag slurp("$dir/daemon2.log");
}

# ---- the cluster has no view for a moment: nothing of it is needed to go on
{
	my $load = start_load($node, clients => 4, seconds => 4);
	sleep 1;
	signal_storage('KILL', 0, 1);
	start_storage(0, 1);
	my ($rc) = wait_load($load);
	is($rc, 0, 'most nodes killed and started again: no transaction failed') or diag ${ $load->{err} };
	check_all($node, 'after that');
}

# ---- the server finds its way again
$node->kill9;
start_again($node);
check_all($node, 'server killed');
ok($node->poll_query_until('postgres', "SELECT count(*) FILTER (WHERE shipping = 'stream') = 3 FROM aurora.storage_nodes()"),
	'... and ships to all three again');

$node->stop;
signal_storage('TERM', 0 .. 3);
done_testing();
