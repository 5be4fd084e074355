# SPDX-License-Identifier: Apache-2.0
#
# A cluster of storage nodes is formed, grows, loses its leader, shrinks, and is
# killed as a whole: all nodes agree on one view, which never goes back, and
# what is not safe is refused with the way out.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use IO::Select;
use IO::Socket::INET;
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
my $nodes = 6;
my @port = free_ports($nodes, 1);		# for clients; the one behind for consensus
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

sub kill_nodes
{
	my (@which) = @_;
	$handle[$_]->signal('KILL') foreach @which;
	foreach my $i (@which) { eval { $handle[$i]->finish; }; $handle[$i] = undef; }
	return;
}

# A node that is to end by itself: its exit status and what it said.
sub fails_to_start
{
	my ($i, @options) = @_;
	my ($out, $rc) = ('');
	IPC::Run::run([ $daemon, '--dir', "$dir/node$i", '--memory', '32', @options ], '<', \undef, '>', \$out,
		'2>&1', IPC::Run::timeout(120));
	$rc = $? >> 8;
	return ($rc, $out);
}

sub ctl
{
	my ($i, @command) = @_;
	my $out = '';
	IPC::Run::run([ $ctl, '--node', address($i), @command ], '<', \undef, '>', \$out, '2>&1',
		IPC::Run::timeout(120));
	return ($? >> 8, $out);
}

sub ctl_ok
{
	my ($what, $i, @command) = @_;
	my ($rc, $out);
	# An election may be under way on a busy machine.
	eventually(sub { ($rc, $out) = ctl($i, @command); $rc == 0 || $out !~ /no leader at the moment/ });
	is($rc, 0, $what) or diag $out;
	return $out;
}

sub ctl_refused
{
	my ($what, $like, $i, @command) = @_;
	my ($rc, $out) = ctl($i, @command);
	is($rc, 1, "$what: exit status");
	like($out, $like, "$what: says why");
	return;
}

# What node i says of its cluster; undef: nothing.
my $quiet = '';
sub cluster_of
{
	my ($i) = @_;
	my $out = '';
	IPC::Run::run([ $ctl, '--http-socket', "$dir/http$i", 'status', '--json' ], '<', \undef, '>', \$out,
		'2>', \$quiet, IPC::Run::timeout(120)) or return undef;
	return JSON::PP::decode_json($out)->{cluster};
}

# ... once it says something.
sub cluster_now
{
	my ($i) = @_;
	return eventually(sub { cluster_of($i) });
}

sub node_in
{
	my ($c, $number) = @_;
	my ($n) = grep { $_->{number} == $number } @{ $c->{nodes} };
	return $n;
}

my %epoch;
# Until $test, called with the clusters as the nodes see them, is true; the
# views of all are the same then, and each that joins has read its number there.
# The epoch of a node never goes back.
sub wait_until
{
	my ($what, $which, $test) = @_;
	my $limit = time() + 60;
	my @c;
	while (time() < $limit)
	{
		@c = map { cluster_of($_) } @$which;
		foreach my $k (0 .. $#$which)
		{
			next unless defined $c[$k];
			my $i = $which->[$k];
			die "node $i: view $c[$k]{epoch} after $epoch{$i}" if $c[$k]{epoch} < ($epoch{$i} // 0);
			$epoch{$i} = $c[$k]{epoch};
		}
		my $same = !grep { !defined || $_->{epoch} != $c[0]{epoch} || $_->{state} eq 'joining' } @c;
		if ($same && $test->(@c))
		{
			pass($what);
			return @c;
		}
		sleep 0.1;
	}
	fail($what);
	diag(JSON::PP->new->canonical->pretty->encode($_)) foreach grep { defined } @c;
	diag("node $_: " . slurp("$dir/daemon$_.log")) foreach @$which;
	BAIL_OUT('the cluster does not come to it') if $what =~ /formed/;
	return @c;
}

# What the port for consensus does with these bytes: true, it closed the
# connection; false, it waits for more.
sub closes
{
	my ($i, $bytes, $wait) = @_;
	my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port[$i] + 1) or die "node $i: $!";
	my $limit = time() + ($wait // 10);
	$s->blocking(0);
	$s->syswrite($bytes);
	while (time() < $limit)
	{
		my $n = $s->sysread(my $answer, 100);
		return 1 if (defined $n && $n == 0) || (!defined $n && $!{ECONNRESET});
		sleep 0.02;
	}
	return 0;
}

# How libraft greets, with what we put in.
sub greeting
{
	my ($number, $text) = @_;
	$text .= "\0" x (8 - length($text) % 8);
	return pack('Q<3', 1, $number, length($text)) . $text;
}

sub metrics
{
	my ($i) = @_;
	my $s = IO::Socket::UNIX->new(Peer => "$dir/http$i") or die "no HTTP: $!";
	print $s "GET /metrics HTTP/1.0\r\n\r\n";
	local $/;
	return <$s>;
}

sub metric
{
	my ($i, $name) = @_;
	return metrics($i) =~ /^aurora_storaged_${name}_total (\d+)$/m ? $1 : undef;
}

# Who connects to the port that is returned speaks to node i; what it says is
# kept in $dir/said.N, a file for each connection.
my $relay;
sub relay_to
{
	my ($i) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 8) or die "no port: $!";
	$relay = fork() // die "fork: $!";
	return $listener->sockport() if $relay;
	my (%other, %file, $n);
	my $all = IO::Select->new($listener);
	while (1)
	{
		foreach my $s ($all->can_read())
		{
			if ($s == $listener)
			{
				my $from = $listener->accept() or next;
				my $to = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port[$i]) or next;
				@other{ $from, $to } = ($to, $from);
				open($file{$from}, '>:raw', sprintf('%s/said.%d', $dir, ++$n)) or die;
				$file{$from}->autoflush(1);
				$all->add($from, $to);
			}
			elsif (sysread($s, my $bytes, 65536))
			{
				print { $file{$s} } $bytes if $file{$s};
				$other{$s}->syswrite($bytes);
			}
			else
			{
				$all->remove($s, $other{$s});
				$_->close() foreach $other{$s}, $s;
			}
		}
	}
}

# What node i answers to these bytes, until it says what is expected.
sub say_to
{
	my ($i, $bytes, $expected) = @_;
	my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port[$i]) or die "node $i: $!";
	my ($answer, $limit) = ('', time() + 60);
	$s->syswrite($bytes);
	while ($answer !~ $expected && time() < $limit)
	{
		next unless IO::Select->new($s)->can_read(0.5);
		last unless $s->sysread($answer, 65536, length $answer);
	}
	return $answer;
}

END { kill('KILL', $relay) if $relay; }

sub voters { return scalar grep { $_->{voter} } @{ $_[0]{nodes} }; }
sub at_rest { return $_[0]{slices_moving} == 0 && !grep { $_->{state} eq 'joining' } @{ $_[0]{nodes} }; }

# The same everywhere, but for what each says of itself.
sub same_views
{
	my ($what, @c) = @_;
	my @text = map { JSON::PP->new->canonical->encode([ @{$_}{qw(cluster_id epoch nodes volumes replicas)} ]) } @c;
	is(scalar(grep { $_ ne $text[0] } @text), 0, "$what: the same view everywhere");
	return;
}

# ---- wrong beginnings --------------------------------------------------
my ($rc, $out) = fails_to_start(0, '--socket', "$dir/s", '--cluster-init');
is($rc, 1, 'a member without an address does not start');
like($out, qr/other nodes of the cluster must know where this one is/, '... and says why');
($rc, $out) = fails_to_start(0, '--listen', address(0), '--cluster-init', '--join', address(1));
is($rc, 2, 'to make a cluster and to join one is too much');
like($out, qr/give --cluster-init to the first node/, '... and says so');

# ---- one, two, three ---------------------------------------------------
start_node(0, '--cluster-init', '--zone', 'a');
my ($c) = wait_until('formed by one node', [0], sub { $_[0]{leader} == 1 && $_[0]{epoch} > 0 && voters($_[0]) == 1 });
my $id = $c->{cluster_id};
is(node_in($c, 1)->{slices_owned}, 256, 'it has all slices');
kill_nodes(0);
start_node(0, '--cluster-init', '--zone', 'a');
($c) = wait_until('after kill -9 it leads again', [0], sub { $_[0]{leader} == 1 });
is($c->{cluster_id}, $id, 'to be told to make a cluster again makes no other one');

start_node(1, '--join', address(0), '--zone', 'b');
start_node(2, '--join', address(1), '--zone', 'c');		# which may be no member yet
my @c = wait_until('three nodes formed a cluster', [ 0 .. 2 ],
	sub { @{ $_[0]{nodes} } == 3 && voters($_[0]) == 3 && at_rest($_[0]) && $_[0]{leader} == $_[1]{leader} });
same_views('three nodes', @c);
is_deeply([ sort map { $_->{number} } @c ], [ 1, 2, 3 ], 'each has a number of its own');
is(scalar(grep { $_->{slices_owned} != 256 } @{ $c[0]{nodes} }), 0, 'three replicas on three nodes: each has all slices');

# ---- strangers at the port for consensus -------------------------------
my $own = sub { return sprintf('127.0.0.1:%d/%s/%s', $port[1] + 1, $_[0], $_[1]) };
my $node2 = node_in($c[0], $c[1]{number})->{node_id};
my $append = pack('Q<9', 1, 64, 99, 0, 0, 0, 1, 99, 8) . pack('Q<2', 0, 0);	# an entry of type 0
ok(closes(0, "GET / HTTP/1.0\r\n\r\n"), 'no message of consensus');
ok(closes(0, greeting($c[1]{number}, sprintf('127.0.0.1:%d', $port[1] + 1))), 'a node that does not say of which cluster it is');
ok(closes(0, greeting($c[1]{number}, $own->('0' x 15 . '1', $node2))), 'a node of another cluster');
ok(closes(0, greeting($c[1]{number}, $own->($id, '0' x 15 . '1'))), "a node with another's number");
ok(closes(0, greeting(77, $own->($id, $node2))), 'a node that is not in the view');
ok(closes(0, greeting($c[1]{number}, $own->($id, $node2)) . $append), 'entries that are none, from a member');
ok(!closes(0, substr(greeting($c[1]{number}, $own->($id, $node2)), 0, 40), 0.3), 'half a greeting may still become one');
cmp_ok(metric(0, 'cluster_strangers'), '>=', 6, 'strangers are counted');
like_soon(sub { slurp("$dir/daemon0.log") }, qr/closed a connection from 127.0.0.1 to the port for consensus/, '... and told of');
@c = wait_until('nothing came of it', [ 0 .. 2 ], sub { $_[0]{leader} > 0 && voters($_[0]) == 3 });

# ---- a first node that has lost its disk ---------------------------------
# It makes a cluster of its own, as it was told; the other one goes on without
# it, and neither hears the other.
kill_nodes(0);
rename("$dir/node0", "$dir/kept0") or die;
my $kept_epoch = delete $epoch{0};
start_node(0, '--cluster-init', '--zone', 'a');
($c) = wait_until('a cluster of its own', [0], sub { $_[0]{leader} == 1 && $_[0]{epoch} > 0 });
isnt($c->{cluster_id}, $id, 'another cluster');
my $own_id = $c->{cluster_id};
@c = wait_until('the first one is missed, whoever answers at its address', [ 1, 2 ],
	sub { $_[0]{leader} > 1 && !node_in($_[0], 1)->{up} });
ctl_ok('... and can be changed meanwhile', 1, 'node', 'weight', 2, '100');
sleep 1;
is(cluster_now(0)->{cluster_id}, $own_id, 'the new cluster is not taken over');
is(scalar(@{ cluster_now(0)->{nodes} }), 1, '... and stays what it is');
kill_nodes(0);
rename("$dir/node0", "$dir/other0") or die;
rename("$dir/kept0", "$dir/node0") or die;
$epoch{0} = $kept_epoch;
rename("$dir/node0/meta", "$dir/meta0") or die;
($rc, $out) = fails_to_start(0, '--listen', address(0));
is($rc, 1, 'a voter that has forgotten its votes does not start');
like($out, qr/votes in the cluster's consensus, but ".*" does not have what it voted for/, '... and says why');
rename("$dir/meta0", "$dir/node0/meta") or die;
rename("$dir/node0/VIEW", "$dir/view0") or die;
($rc, $out) = fails_to_start(0, '--listen', address(0));
is($rc, 1, 'a node of a cluster does not start alone because its view is missing');
like($out, qr/VIEW" is missing; start it once with --join/, '... and says what to do');
rename("$dir/view0", "$dir/node0/VIEW") or die;
start_node(0);
@c = wait_until('with its disk it is back', [ 0 .. 2 ], sub { node_in($_[0], 1)->{up} && voters($_[0]) == 3 });

# ---- a fourth ----------------------------------------------------------
start_node(3, '--join', address(2), '--zone', 'a');
@c = wait_until('a fourth node joined', [ 0 .. 3 ], sub { @{ $_[0]{nodes} } == 4 && at_rest($_[0]) });
same_views('four nodes', @c);
is(voters($c[0]), 3, 'three of four vote');
my $number = { map { $_ => $c[$_]{number} } 0 .. 3 };
my $new = node_in($c[0], $number->{3});
cmp_ok($new->{slices_owned}, '<=', 150, 'it got its share in its zone, not more');
cmp_ok($new->{slices_owned}, '>=', 90, '... and not less');
is(node_in($c[0], $number->{1})->{slices_owned}, 256, 'zones b and c keep one replica of all');

ctl_ok('ring show', 3, 'ring', 'show');
like_soon(sub { (ctl(3, 'ring', 'show'))[1] }, qr/256 slices, 3 replicas of each, 0 slices moving\n.*\n.*\n\s+1 a\s+#+/,
	'the ring is drawn');
like_soon(sub { (ctl(3, 'node', 'list'))[1] }, qr/active\s+up\s+leader/, 'the leader is shown');
like(ctl_ok('status', 1, 'status'), qr/cluster $id\n  this node is node \d\n/, 'status shows the cluster');
like_soon(sub { metrics(3) }, qr/^aurora_storaged_cluster_leader [1-4]\n(?s:.*)^aurora_storaged_cluster_nodes_up 4\n/m, 'metrics tell of it');
my $before = node_in($c[0], $number->{3})->{slices_owned};
ctl_ok('a weight, asked of a node that does not lead', $c[0]{leader} == $number->{2} ? 1 : 2,
	'node', 'weight', $number->{3}, '200', '--wait');
@c = wait_until('the heavier node has more', [ 0 .. 3 ],
	sub { at_rest($_[0]) && node_in($_[0], $number->{3})->{slices_owned} > $before + 10 });

# ---- a view that cannot be kept ----------------------------------------
# Not handed on before it is on disk: gossip tells what the node goes by.
sub known_to
{
	my ($i, $other) = @_;
	my $out = '';
	IPC::Run::run([ $ctl, '--http-socket', "$dir/http$i", 'status', '--json' ], '<', \undef, '>', \$out, '2>', \$quiet,
		IPC::Run::timeout(120)) or return 0;
	my ($m) = grep { $_->{address} eq address($other) } @{ JSON::PP::decode_json($out)->{gossip}{members} };
	return $m->{view_epoch} // 0;
}
sub known_from
{
	my ($epoch) = @_;
	return eventually(sub { known_to(0, 2) >= $epoch });
}
ok(known_from($c[0]{epoch}), 'node 2 goes by the view');
mkdir "$dir/node2/VIEW.tmp" or die;
ctl_ok('a change', 0, 'node', 'weight', $number->{3}, '201');
like_soon(sub { slurp("$dir/daemon2.log") }, qr/ERROR: .*could not keep the cluster's view \d+, and goes on with the one before until it can: /, 'a view that cannot be kept is told of');
sleep 1.5;
my $newest = cluster_now(0)->{epoch};
ok(eventually(sub { known_to(0, 3) >= $newest }), 'others go by the newer one');
cmp_ok(known_to(0, 2), '<', $newest, '... but not who cannot keep it');
rmdir "$dir/node2/VIEW.tmp" or die;
ok(known_from($newest), 'when it can, it does');

# ---- what is not safe --------------------------------------------------
ctl_refused('a node that has slices', qr/node $number->{1} has slices; drain it first/, 0, 'node', 'remove', $number->{1});
ctl_refused('by force, a node that is up', qr/is up; drain it/, 0, 'node', 'remove', $number->{1}, '--force');
ctl_refused('a node there is not', qr/there is no node 99/, 2, 'node', 'drain', '99');
ctl_refused('a volume there is not', qr/the cluster has no volume 77/, 1, 'group', 'add', '77', $number->{0});

# ---- the leader dies ---------------------------------------------------
my ($lead) = grep { $number->{$_} == $c[0]{leader} } 0 .. 3;
my @others = grep { $_ != $lead } 0 .. 3;
kill_nodes($lead);
my $t0 = time();
@c = wait_until('another one leads, the dead one is seen', \@others,
	sub {
		my $v = node_in($_[0], $number->{$lead});
		return $_[0]{leader} != $number->{$lead} && $_[0]{leader} > 0 && !$v->{up} && !$v->{voter} && voters($_[0]) == 3;
	});
note(sprintf('MEASURED the leader is replaced and DOWN after %.1f s', time() - $t0));
same_views('without the old leader', @c);
ctl_ok('the cluster can change', $others[0], 'node', 'weight', $number->{$others[1]}, '110');
start_node($lead);
@c = wait_until('it is back, without being told where to join', [ 0 .. 3 ], sub { node_in($_[0], $number->{$lead})->{up} });
is($c[$lead]{number}, $number->{$lead}, 'it is who it was');

# ---- one goes ----------------------------------------------------------
ctl_ok('drain', 0, 'node', 'drain', $number->{1}, '--wait');
ctl_ok('remove', 3, 'node', 'remove', $number->{1});
@c = wait_until('a removed node is told so', [ 0 .. 3 ], sub { @{ $_[0]{nodes} } == 3 && $_[1]{state} eq 'removed' });
wait_until('three vote again', [ 0, 2, 3 ], sub { voters($_[0]) == 3 });
like_soon(sub { slurp("$dir/daemon1.log") }, qr/ERROR: .*this node was removed from its cluster/, '... and says so in its log');
ctl_refused('a command through a removed node', qr/no member of a cluster|was removed/, 1, 'node', 'drain', $number->{1});
kill_nodes(1);
($rc, $out) = fails_to_start(1, '--listen', address(1), '--join', address(0));
is($rc, 1, 'it does not start again');
like($out, qr/was removed from its cluster; give it an empty --dir/, '... and says what to do');
start_node(4, '--listen', address(1), '--join', address(0), '--zone', 'b');		# at its place
@c = wait_until('a new node takes its address', [ 0, 2, 3, 4 ], sub { @{ $_[0]{nodes} } == 4 && at_rest($_[0]) });
is($c[3]{number}, 5, 'numbers are not used twice');

# ---- one that is lost, and its successor at its address ------------------
# The successor answers, but it is not the node that is missed.
kill_nodes(4);
rename("$dir/node4", "$dir/lost4") or die;
delete $epoch{4};
start_node(4, '--listen', address(1), '--join', address(0), '--zone', 'b');
wait_until('the lost node is seen to be lost', [ 0, 2, 3 ], sub { !node_in($_[0], 5)->{up} });
ctl_ok('it is given up', 0, 'node', 'remove', '5', '--force');
@c = wait_until('its successor is taken in', [ 0, 2, 3, 4 ], sub { @{ $_[0]{nodes} } == 4 && at_rest($_[0]) });
is($c[3]{number}, 6, '... as another node');
# the lost one is found and started again, at another address
my $lost_log = "$dir/lost4.log";
my $lost_port = $port[4];
my $lost = IPC::Run::start([ $daemon, '--dir', "$dir/lost4", '--listen', "127.0.0.1:$lost_port", '--memory', '32' ],
	'<', \undef, '>>', $lost_log, '2>&1');
like_soon(sub { slurp($lost_log) }, qr/this node was removed from its cluster \(it was node 5\)/, 'a node that was given up learns it when it comes back');
sleep 1;
@c = wait_until('... and does not join again', [ 0, 2, 3, 4 ], sub { 1 });
is_deeply([ sort map { $_->{number} } @{ $c[0]{nodes} } ], [ sort { $a <=> $b } map { $_->{number} } @c ], 'no node but these');
$lost->signal('KILL');
eval { $lost->finish; };

# ---- all die -----------------------------------------------------------
my @all = (0, 2, 3, 4);
@c = wait_until('quiet', \@all, sub { voters($_[0]) == 3 });
my $last = $c[0]{epoch};
kill_nodes(@all);
start_node(0);
@c = wait_until('alone, it has the view it knew', [0], sub { $_[0]{epoch} >= $last });
is($c[0]{leader}, 0, '... and no leader');
ctl_refused('a command without a leader', qr/no leader at the moment\n.*voting nodes must run/, 0, 'node', 'weight', $number->{2}, '90');
start_node($_, $_ == 4 ? ('--listen', address(1)) : ()) foreach @all[ 1 .. 3 ];
@c = wait_until('all are back', \@all,
	sub { $_[0]{leader} > 0 && !grep { !$_->{up} } @{ $_[0]{nodes} } });
same_views('after the whole cluster was killed', @c);
is($c[0]{cluster_id}, $id, 'it is the same cluster');
ctl_ok('and it can change', 2, 'node', 'weight', $number->{2}, '90');

# ---- a damaged view ----------------------------------------------------
kill_nodes(2);
my $view = slurp("$dir/node2/VIEW");
substr($view, 40, 1) ^= "\x10";
open(my $f, '>:raw', "$dir/node2/VIEW") or die;
print $f $view;
close $f;
($rc, $out) = fails_to_start(2, '--listen', address(2));
is($rc, 1, 'a node whose view is damaged does not start');
like($out, qr/VIEW" is damaged.*--join/, '... and says what to do');
unlink "$dir/node2/VIEW";
start_node(2, '--join', address(0));
@c = wait_until('it is taken in again', \@all, sub { ($_[1]{number} // 0) == $number->{2} && node_in($_[0], $number->{2})->{up} });

# ---- most voters are lost for ever ---------------------------------------
my %where = (4 => [ '--listen', address(1) ]);
my $quiet_all = sub { voters($_[0]) == 3 && at_rest($_[0]) && !grep { !$_->{up} } @{ $_[0]{nodes} } };
wait_until('quiet again', \@all, $quiet_all);
# The log of the one that will be left ends before the view that it has.
kill_nodes(@all);
foreach (@all) { system('cp', '-a', "$dir/node$_/meta", "$dir/oldmeta$_") == 0 or die; }
start_node($_, @{ $where{$_} // [] }) foreach @all;
@c = wait_until('they go on', \@all, sub { $_[0]{leader} > 0 && $quiet_all->(@_) });
my %at = map { $all[$_] => $c[$_]{number} } 0 .. 3;
my @voting = grep { node_in($c[0], $at{$_})->{voter} } @all;
my ($standby) = grep { !node_in($c[0], $at{$_})->{voter} } @all;
my ($left, @lost) = @voting;
ctl_ok('a change that its log will not have', $standby, 'node', 'weight', $at{$standby}, $_) foreach 101 .. 107;
@c = wait_until('it knows of that', \@all, sub { node_in($_[0], $at{$standby})->{weight} == 107 && $quiet_all->(@_) });
my $known = $c[0]{epoch};
kill_nodes(@all);
rename("$dir/node$left/meta", "$dir/newmeta") or die;
rename("$dir/oldmeta$left", "$dir/node$left/meta") or die;
($rc, $out) = fails_to_start($standby, '--listen', address($standby), '--cluster-recover', @{ $where{$standby} // [] });
is($rc, 1, 'one that did not vote does not go on alone');
like($out, qr/did not vote/, '... and says why');
start_node($left, '--cluster-recover', @{ $where{$left} // [] });
start_node($standby, @{ $where{$standby} // [] });
@c = wait_until('one goes on, with who is left', [ $left, $standby ],
	sub { $_[0]{leader} == $at{$left} && !node_in($_[0], $at{ $lost[0] })->{up} && !node_in($_[0], $at{ $lost[1] })->{up} });
ctl_ok('a lost node is given up', $left, 'node', 'remove', $at{$_}, '--force') foreach @lost;
@c = wait_until('a cluster of two', [ $left, $standby ], sub { @{ $_[0]{nodes} } == 2 && voters($_[0]) == 2 && at_rest($_[0]) });
same_views('recovered', @c);
cmp_ok($c[0]{epoch}, '>=', $known + 2**20, 'no epoch that somebody may have seen is given out again');
is(node_in($c[0], $at{$standby})->{weight}, 107, 'what its view had and its log had not is kept');
kill_nodes($left);
($rc, $out) = fails_to_start($left, '--listen', address($left), '--cluster-recover', @{ $where{$left} // [] });
is($rc, 1, 'it does so once');
like($out, qr/was done here already/, '... and says so');
start_node($left, @{ $where{$left} // [] });
wait_until('two again', [ $left, $standby ], sub { $_[0]{leader} > 0 && node_in($_[0], $at{$left})->{up} });
@all = ($left, $standby);

# ---- one is down, another one drains --------------------------------------
# Who drains gives its vote to others; half of the votes would decide nothing.
start_node(5, '--listen', address(5), '--join', '127.0.0.1:' . relay_to($left), '--zone', 'c');
@c = wait_until('a third one', [ @all, 5 ], sub { voters($_[0]) == 3 && at_rest($_[0]) });
my $third = $c[2]{number};
kill_nodes(5);
wait_until('it is down', \@all, sub { !node_in($_[0], $third)->{up} });
ctl_ok('another one drains', $left, 'node', 'drain', $at{$standby});
sleep 2;
ctl_ok('the cluster still decides', $left, 'node', 'weight', $at{$left}, '110');
ctl_refused('to remove it would end that', qr/only 1 of 2 nodes would be up|has slices/, $left, 'node', 'remove', $at{$standby});
ctl_ok('who is down can be given up', $left, 'node', 'remove', $third, '--force');
wait_until('who drains has done so', \@all, sub { @{ $_[0]{nodes} } == 2 && voters($_[0]) == 1 });

# ---- what a node said when it joined comes once more ------------------------
kill('KILL', $relay);
waitpid($relay, 0);
my @said = grep { /AUVC/ && index($_, address(5)) >= 0 } map { slurp($_) } glob("$dir/said.*");
cmp_ok(scalar(@said), '>=', 1, 'the node that was removed had asked to join');
like(say_to($left, $said[0], qr/removed since/), qr/was removed since this one asked to join/,
	'a copy of that, which was under way for long, is refused');
is(scalar(@{ cluster_now($left)->{nodes} }), 2, '... and makes no member');

foreach my $i (@all) { $handle[$i]->signal('TERM'); }
foreach my $i (@all)
{
	$handle[$i]->finish;
	is($handle[$i]->result(0), 0, "node $i stops cleanly");
}
done_testing();
