# SPDX-License-Identifier: Apache-2.0
#
# Gossip between storage nodes: each finds all others though it was told of one;
# a node that is killed or stands still is suspected, then held for dead, and
# the view says so within seconds; a node that is back is seen at once, with a
# new incarnation, and one that only stood still takes nobody else for dead.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use IO::Socket::UNIX;
use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

seed_random();
my $dir = PostgreSQL::Test::Utils::tempdir();
my $daemon = bindir() . '/aurora_storaged';
my $ctl = bindir() . '/auroractl';
my @port = free_ports(4, 1);		# for clients; the one behind for consensus
my @handle;

sub address { return "127.0.0.1:$port[$_[0]]"; }

sub start_node
{
	my ($i, @options) = @_;
	$handle[$i] = IPC::Run::start(
		[ $daemon, '--dir', "$dir/node$i", '--listen', address($i), '--http-socket', "$dir/http$i",
		  '--memory', '32', @options ],
		'<', \undef, '>>', "$dir/daemon$i.log", '2>&1');
	return;
}

my $said = '';
sub ctl
{
	my ($i, @command) = @_;
	my $out = '';
	IPC::Run::run([ $ctl, '--http-socket', "$dir/http$i", @command ], '<', \undef, '>', \$out, '2>', \$said,
		IPC::Run::timeout(120));
	return $out;
}

sub status_of
{
	my ($i) = @_;
	my $out = ctl($i, 'status', '--json');
	return $out eq '' ? undef : JSON::PP::decode_json($out);
}

sub member
{
	my ($status, $i) = @_;
	my ($m) = grep { $_->{address} eq address($i) } @{ $status->{gossip}{members} };
	return $m // { state => 'unknown', incarnation => 0 };
}

sub in_view
{
	my ($status, $i) = @_;
	my ($n) = grep { $_->{address} eq address($i) } @{ $status->{cluster}{nodes} };
	return $n // {};
}

# Until the test is true of what each of these nodes says; how long it took.
sub wait_until
{
	my ($what, $which, $test) = @_;
	my $t0 = time();
	my @s;
	while (time() - $t0 < 60)
	{
		@s = map { status_of($_) } @$which;
		if (!grep { !defined || !$test->($_) } @s)
		{
			pass($what);
			note(sprintf('%s: after %.1f s', $what, time() - $t0));
			return time() - $t0;
		}
		sleep 0.1;
	}
	fail($what);
	diag(JSON::PP->new->canonical->pretty->encode($_->{gossip})) foreach grep { defined } @s;
	diag("node $_: " . slurp("$dir/daemon$_.log")) foreach @$which;
	return 999;
}

sub all_alive
{
	my ($s, @others) = @_;
	return !grep { member($s, $_)->{state} ne 'alive' } grep { address($_) ne $s->{gossip}{address} } @others;
}

# ---- they find each other ----------------------------------------------
start_node(0, '--cluster-init');
wait_until('a node alone', [0], sub { ($_[0]{cluster}{leader} // 0) == 1 });
is(scalar(@{ status_of(0)->{gossip}{members} }), 0, '... gossips with nobody');
start_node($_, '--join', address($_ - 1)) foreach 1 .. 3;		# a chain
wait_until('each of four finds all others', [ 0 .. 3 ],
	sub { all_alive($_[0], 0 .. 3) && @{ $_[0]{cluster}{nodes} } == 4 && $_[0]{cluster}{slices_moving} == 0 });
wait_until('everybody hears of everybody\'s view', [ 0 .. 3 ],
	sub { my $s = $_[0]; !grep { ($_->{view_epoch} // 0) != $s->{cluster}{epoch} } @{ $s->{gossip}{members} } });
sub metrics
{
	my $http = IO::Socket::UNIX->new(Peer => "$dir/http1") or die "no socket: $!";
	print $http "GET /metrics HTTP/1.0\r\n\r\n";
	local $/;
	return <$http>;
}
like_soon(\&metrics, qr/^aurora_storaged_gossip_members\{state="alive"\} 3\r?$/m, 'metrics count members');
like_soon(\&metrics, qr/^aurora_storaged_gossip_round_trip_seconds_count [1-9]/m, '... and probes');
like_soon(sub { ctl(1, 'status') }, qr/gossip: 3 of 3 other nodes alive/, 'auroractl status shows gossip');

# ---- one is killed -----------------------------------------------------
my $before = member(status_of(0), 3)->{incarnation};
$handle[3]->signal('KILL');
eval { $handle[3]->finish; };
my $took = wait_until('all say that a killed node does not answer', [ 0 .. 2 ], sub { member($_[0], 3)->{state} ne 'alive' });
$took += wait_until('the view says down', [ 0 .. 2 ], sub { defined in_view($_[0], 3)->{up} && !in_view($_[0], 3)->{up} });
cmp_ok($took, '<', 30, 'within seconds');
note(sprintf('MEASURED a killed node is DOWN after %.1f s', $took));
wait_until('all hold it for dead', [ 0 .. 2 ], sub { member($_[0], 3)->{state} eq 'dead' });
like_soon(sub { ctl(2, 'status') }, qr/at \Q@{[address(3)]}\E: dead for/, '... and auroractl status says so');
# It is tried twice a second and more; that is told once a minute.
my @told = slurp("$dir/daemon0.log") =~ /: (connection to .*)/g;
cmp_ok(scalar(grep { /to node "\Q@{[address(3)]}\E": / } @told), '>', 0, '... and the log, with its address');
cmp_ok(scalar(@told), '<', 16, '... not again and again') or diag join "\n", @told;
start_node(3);
wait_until('it is back', [ 0 .. 3 ], sub { all_alive($_[0], 0 .. 3) && in_view($_[0], 3)->{up} });
cmp_ok(member(status_of(0), 3)->{incarnation}, '>', $before, '... in a new incarnation');

# ---- one stands still --------------------------------------------------
my $dead_before = status_of(2)->{gossip}{deaths};
$handle[2]->signal('STOP');
$took = wait_until('the view says that a node which stands still is down', [ 0, 1, 3 ],
	sub { member($_[0], 2)->{state} ne 'alive' && !in_view($_[0], 2)->{up} });
note(sprintf('MEASURED a node that stands still is DOWN after %.1f s', $took));
wait_until('... and it seems dead', [ 0, 1, 3 ], sub { member($_[0], 2)->{state} eq 'dead' });
$handle[2]->signal('CONT');
wait_until('it goes on, objects, and is up', [ 0 .. 3 ], sub { all_alive($_[0], 0 .. 3) && in_view($_[0], 2)->{up} });
my $g = status_of(2)->{gossip};
is($g->{deaths}, $dead_before, 'it took nobody for dead');
cmp_ok($g->{stalls}, '>', 0, '... because it knows that it stood still');
cmp_ok($g->{objections}, '>', 0, '... and took a new incarnation');

foreach my $i (0 .. 3) { $handle[$i]->signal('TERM'); }
foreach my $i (0 .. 3)
{
	$handle[$i]->finish;
	is($handle[$i]->result(0), 0, "node $i stops cleanly");
}
done_testing();
