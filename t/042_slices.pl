# SPDX-License-Identifier: Apache-2.0
#
# Nodes join a cluster under PostgreSQL and leave it, and are killed meanwhile:
# slices move, about a node's share of them, and what was acknowledged is read
# from whoever has it; a node that comes when log from the beginning is gone
# begins with another one's sizes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

seed_random();
my $dir = PostgreSQL::Test::Utils::tempdir();
my $nodes = 5;
my @port = free_ports($nodes);
my @meta = free_ports($nodes);
my @address = map { "127.0.0.1:$_" } @port;
my @handle;
my $move_mb = 0;		# of slices, a second; 0: as fast as may be

sub start_storage
{
	foreach my $i (@_)
	{
		$handle[$i] = IPC::Run::start(
			[   bindir() . '/aurora_storaged', '--dir', "$dir/node$i", '--listen', $address[$i],
				'--meta-listen', "127.0.0.1:$meta[$i]", '--http-socket', "$dir/http$i",
				'--memory', '64', '--slice-grace-seconds', '2', '--move-mb-per-s', $move_mb, '--anti-entropy-mb-per-s', '200',
				$i == 0 ? '--cluster-init' : ('--join', $address[0]) ],
			'<', \undef, '>>', "$dir/daemon$i.log", '2>&1');
	}
	foreach my $i (@_)
	{
		die "node $i does not listen: " . slurp("$dir/daemon$i.log") unless wait_listening($address[$i], $handle[$i]);
	}
	return;
}

sub kill_storage
{
	my ($sig, @which) = @_;
	$handle[$_]->signal($sig) foreach @which;
	foreach my $i (@which) { eval { $handle[$i]->finish; }; }
	return;
}

# What node i says of itself; {}: nothing.
my $quiet = '';
sub status
{
	my ($i) = @_;
	my $out = '';
	IPC::Run::run([ bindir() . '/auroractl', '--http-socket', "$dir/http$i", 'status', '--json' ], '<', \undef,
		'>', \$out, '2>', \$quiet, IPC::Run::timeout(120)) or return {};
	return JSON::PP::decode_json($out);
}

# Until all these nodes have the volume, nothing comes or goes, and their slices
# are $sum (a third of which each has at least a few).
sub wait_settled
{
	my ($what, $sum, @which) = @_;
	my $limit = time() + 90;
	my $seen = '';
	while (time() < $limit)
	{
		my @v = map { (status($_)->{volumes} // [])->[0] } @which;
		if (!grep { !defined } @v)
		{
			my $total = 0;
			$total += $_->{slices} foreach @v;
			my $busy = grep { $_->{slices_incoming} + $_->{slices_missing} + $_->{slices_dropping} } @v;
			$seen = join ', ', map { "$_->{slices}+$_->{slices_incoming}+$_->{slices_missing}-$_->{slices_dropping}" } @v;
			if (!$busy && $total == $sum)
			{
				pass("$what: $seen slices");
				return @v;
			}
		}
		sleep 0.2;
	}
	fail("$what: $seen slices");
	diag slurp("$dir/daemon$_.log") foreach @which;
	return;
}

sub ctl
{
	my $out = '';
	IPC::Run::run([ bindir() . '/auroractl', '--node', $address[0], @_ ], '<', \undef, '>', \$out, '2>&1',
		IPC::Run::timeout(120));
	return ($? >> 8, $out);
}

start_storage(0 .. 2);
ok(wait_members($address[0], 3), 'three nodes form a cluster');
my $node = new_node('main', conf => <<"CONF");
aurora.storage_nodes = '$address[0]'
synchronous_standby_names = 'aurora'
shared_buffers = 2MB
CONF
ok($node->poll_query_until('postgres', "SELECT count(*) = 3 AND bool_and(shipping = 'stream') FROM aurora.storage_nodes()"),
	'a server on three nodes');
init_pgbench($node, scale => 1);
wait_settled('three nodes have all', 3 * 256, 0 .. 2);

# ---- a node joins under load, and is killed in between
my $load = start_load($node, clients => 4, seconds => 120);
sleep 1;
start_storage(3);
sleep_random(0.2, 1.5);
kill_storage('KILL', 3);
start_storage(3);
my @v = wait_settled('a fourth node came, killed in between', 3 * 256, 0 .. 3);
cmp_ok($v[3]->{slices}, '>=', 96, 'it has its share');
cmp_ok($v[3]->{slices}, '<=', 3 * 64 * 1.3, '... and not much more');
my ($rc) = wait_load($load, end => 1);
is($rc, 0, '... no transaction failed') or diag ${ $load->{err} };
evict_all($node);
check_all($node, 'a node has joined');
cmp_ok(status(3)->{volumes}[0]{applied_lsn}, 'ne', '0/0', 'it follows the log');

# ---- any node is lost for a while under load; reads find the others
foreach my $i (3, 1 + int(rand(2)))
{
	$load = start_load($node, clients => 4, seconds => 5);
	sleep_random(0.3, 1.5);
	kill_storage('KILL', $i);
	sleep 1;
	start_storage($i);
	($rc) = wait_load($load);
	is($rc, 0, "node $i killed and started again: no transaction failed") or diag ${ $load->{err} };
	evict_all($node);
	check_all($node, "node $i was lost for a while");
}

# ---- one that is drained gives all it has to others
$load = start_load($node, clients => 2, seconds => 120);
my ($numbers) = grep { $_->{address} eq $address[3] } @{ status(0)->{cluster}{nodes} };
($rc, my $out) = ctl('node', 'drain', $numbers->{number});
is($rc, 0, 'a node is drained') or diag $out;
wait_settled('the others have all again', 3 * 256, 0 .. 2);
($rc) = wait_load($load, end => 1);
is($rc, 0, '... no transaction failed') or diag ${ $load->{err} };
($rc, $out) = ctl('node', 'drain', $numbers->{number}, '--wait');
is($rc, 0, '... and the cluster knows that they have') or diag $out;

# It goes while the nodes are listed, which takes a while as one stands still.
my ($still) = grep { status($_)->{cluster}{number} != status(0)->{cluster}{leader} } 1, 2;
$handle[$still]->signal('STOP');
my $listed = '';
my $list = $node->background_psql('postgres', on_error_stop => 0);
$list->{stdin} .= "SELECT count(*) FROM aurora.nodes; SELECT 'listed';\n";
$list->{run}->pump_nb;
sleep 0.5;
ok(wait_removed(), 'it can be removed');
$list->{run}->pump until $list->{stdout} =~ /listed/ || $list->{stderr} =~ /ERROR/;
is($list->{stderr}, '', '... while the nodes are listed');
$list->quit;
$handle[$still]->signal('CONT');
kill_storage('TERM', 3);
evict_all($node);
check_all($node, 'without it');

# ---- two of three have their page stores damaged: each is emptied, never both
kill_storage('TERM', 1, 2);
foreach my $file (map { glob "$dir/node$_/volumes/*/pages/MANIFEST-*" } 1, 2)
{
	open(my $f, '+<:raw', $file) or die "$file: $!";
	seek($f, (-s $file) / 2, 0);
	read($f, my $byte, 1);
	seek($f, (-s $file) / 2, 0);
	print $f chr(ord($byte) ^ 1);
	close $f;
}
$move_mb = 8;				# the first one is not through before the other one asks
start_storage(1, 2);
foreach my $i (1, 2)
{
	my $v;
	eventually(sub { $v = (status($i)->{volumes} // [])->[0]; $v && $v->{repairs} == 1 && !defined $v->{repairing} });
	ok($v && $v->{repairs} == 1 && !defined $v->{repairing}, "node $i has got its page store anew")
		or diag slurp("$dir/daemon$i.log");
	# (Another thread removes it, afterwards.)
	ok(eventually(sub { my @left = glob("$dir/node$i/volumes/*/pages.*"); !@left }), '... and the damaged one is gone');
}
like(slurp("$dir/daemon1.log") . slurp("$dir/daemon2.log"),
	qr/kept as it is until it may be made anew: node \d+ makes its pages anew, and shares slice/, 'one waited for the other');
wait_settled('all have all', 3 * 256, 0 .. 2);
ok(eventually(sub { my $n = status(0)->{cluster}{nodes} // []; @$n && !grep { $_->{mending} } @$n }), 'and the cluster knows it');
kill_storage('KILL', 0);
evict_all($node);
check_all($node, 'from those that were damaged');
start_storage(0);

sub wait_removed
{
	my ($rc, $out);
	return 1 if eventually(sub { ($rc, $out) = ctl('node', 'remove', $numbers->{number}); $rc == 0 });
	diag $out;
	return 0;
}

$node->stop;
kill_storage('TERM', 0 .. 2);
foreach my $i (0 .. 3)
{
	my ($ok, $text) = (1, '');
	foreach my $volume (glob "$dir/node$i/volumes/*")
	{
		$ok = IPC::Run::run([ bindir() . '/auroractl', '--dir', "$dir/node$i", 'check' ], '<', \undef, '>', \$text, '2>&1');
	}
	ok($ok, "node $i: what is on its disk is sound") or diag $text;
}
done_testing();
