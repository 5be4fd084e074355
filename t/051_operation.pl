# SPDX-License-Identifier: Apache-2.0
#
# auroractl cluster: nodes on this machine are started, stopped and restarted
# one after the other under load, again and again without harm, and with clear
# errors.  Nodes and servers of another protocol version refuse each other.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use IO::Socket::INET;
use IO::Socket::IP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

seed_random();
my $ctl = bindir() . '/auroractl';
my $top = PostgreSQL::Test::Utils::tempdir();
my $dir = "$top/c";
my ($port) = free_ports(1, 7);

# Exit code and output of auroractl cluster.
sub cluster
{
	my ($verb, @options) = @_;
	my $out = '';
	# (The nodes live on: they must not inherit a pipe that is waited for.)
	my $file = "$top/ctl.out";
	my $rc = system("'$ctl' cluster $verb " . join(' ', map { "'$_'" } @options) . " >'$file' 2>&1");
	return ($rc >> 8, slurp($file));
}

sub succeeds
{
	my ($what, $like, @command) = @_;
	my ($rc, $out) = cluster(@command);
	is($rc, 0, $what) or diag $out;
	like($out, $like, "... $what: says so");
	return;
}

sub refuses
{
	my ($what, $rc_wanted, $like, @command) = @_;
	my ($rc, $out) = cluster(@command);
	is($rc, $rc_wanted, $what);
	like($out, $like, "... $what: says why");
	return;
}

END
{
	my $rc = $?;
	cluster('stop', '--dir', $dir) if defined $dir && -e "$dir/cluster";
	$? = $rc;
}

sub node_pid { my $p = slurp("$dir/node$_[0].pid"); chomp $p; return $p; }

# ---- start, again, stop, again
refuses('nothing there yet', 1, qr/there is no cluster in/, 'status', '--dir', $dir);
refuses('no directory', 2, qr/--dir is missing/, 'start');
refuses('too many nodes', 2, qr/--nodes must be from 1 to 7/, 'start', '--dir', $dir, '--nodes', 8);
my $taken = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port + 2, Listen => 1, ReuseAddr => 1) or die;
refuses('a port is taken', 1, qr/port ${\($port + 2)} of 127\.0\.0\.1, which node 2 needs, is in use.*another --port/,
	'start', '--dir', $dir, '--port', $port);
ok(!-e $dir, '... before anything was made');
close $taken;
succeeds('start', qr/node 3 started.*aurora\.storage_nodes = '127\.0\.0\.1:$port,127\.0\.0\.1:${\($port + 2)},127/s,
	'start', '--dir', $dir, '--port', $port);
my $first = node_pid(1);
succeeds('start again', qr/node 1 already runs, process $first/, 'start', '--dir', $dir);
succeeds('status', qr/1  127\.0\.0\.1:$port +$first  up/, 'status', '--dir', $dir);
rename "$dir/node2.http", "$dir/node2.away" or die;
refuses('a node that does not answer', 1, qr/2  127\.0\.0\.1:${\($port + 2)} +\d+  does not answer/, 'status', '--dir', $dir);
rename "$dir/node2.away", "$dir/node2.http" or die;
refuses('another number of nodes', 1, qr/was made with 3 nodes from port $port on/,
	'start', '--dir', $dir, '--nodes', 5);
refuses('not a cluster\'s directory', 1, qr/is not empty, and no cluster/, 'start', '--dir', $top);
refuses('another cluster at these ports', 1, qr/port $port of 127/, 'start', '--dir', "$top/d", '--port', $port);
succeeds('stop', qr/node 1 stopped\nnode 2 stopped\nnode 3 stopped/, 'stop', '--dir', $dir);
succeeds('stop again', qr/node 3 does not run/, 'stop', '--dir', $dir);

# Do they form a cluster?
sub members
{
	my $out = '';
	IPC::Run::run([ $ctl, @_ ? @_ : ('--node', "127.0.0.1:$port"), 'node', 'list' ], '<', \undef, '>', \$out, '2>&1');
	return $out;
}

# A number that is left over may be anybody's now.
open my $f, '>', "$dir/node1.pid" or die;
print $f "$$\n";
close $f;
succeeds('a pid file that is left over', qr/node 1 does not run/, 'stop', '--dir', $dir);
refuses('all are down', 1, qr/1  127\.0\.0\.1:$port +-  down/, 'status', '--dir', $dir);
refuses('restart what does not run', 1, qr/node 1 does not run; start it first/, 'restart', '--dir', $dir);
succeeds('start after that', qr/node 1 started/, 'start', '--dir', $dir);

like_soon(sub { members() }, qr/127\.0\.0\.1:$port.*127\.0\.0\.1:${\($port + 2)}.*127\.0\.0\.1:${\($port + 4)}/s, 'the nodes are a cluster');

# ---- other ways to write an address
# (No host is this machine: ::1 first, where nobody listens, then 127.0.0.1.)
like(members('--node', ":$port"), qr/127\.0\.0\.1:$port/, 'all addresses of a name are tried');
SKIP:
{
	my $v6 = $port + 6;
	my $free = eval { IO::Socket::IP->new(LocalHost => '::1', LocalPort => $v6, Listen => 1) };
	skip 'no IPv6 here', 2 unless $free;
	close $free;
	my $daemon = IPC::Run::start([ bindir() . '/aurora_storaged', '--dir', "$top/v6", '--listen', "[::1]:$v6",
			'--http', '[::1]:' . ($v6 + 1) ], '<', \undef, '>', "$top/v6.log", '2>&1');
	like_soon(sub { members('--node', "[::1]:$v6") }, qr/in no cluster/, 'an address of IPv6 in brackets') or diag slurp("$top/v6.log");
	like_soon(sub { members('--http', '[::1]:' . ($v6 + 1)) }, qr/in no cluster/, '... and over HTTP');
	$daemon->signal('TERM');
	$daemon->finish;
}

# ---- rolling restart under load
my $list = join ',', map { '127.0.0.1:' . ($port + 2 * $_) } 0 .. 2;
my $node = new_node('main', conf => <<"CONF");
aurora.storage_nodes = '$list'
synchronous_standby_names = 'aurora'
CONF
init_pgbench($node, scale => 1);
my $load = start_load($node, clients => 4, seconds => 60);
sleep 1;
my %old = map { $_ => node_pid($_) } 1 .. 3;
succeeds('rolling restart under load', qr/node 3 stopped\nnode 3 started/, 'restart', '--dir', $dir);
is(scalar(grep { node_pid($_) == $old{$_} } 1 .. 3), 0, '... all nodes are new processes');
ok($node->poll_query_until('postgres', "SELECT state = 'streaming' FROM aurora.shipper"), '... the shipper went on');
my ($rc) = wait_load($load, end => 1);
is($rc, 0, '... no transaction failed') or diag ${ $load->{err} };
check_all($node, 'rolling restart');

# ---- a server that had a node of its own is told the cluster: nothing is carried over
{
	my $moved = new_node('moved');
	wait_for_daemon($moved);
	$moved->safe_psql('postgres', 'CREATE TABLE t (a int) USING aurora; INSERT INTO t VALUES (1)');
	$moved->stop;
	my $before = -s $moved->logfile;
	$moved->append_conf('postgresql.conf', "aurora.storage_nodes = '127.0.0.1:$port'");
	$moved->start;
	like_soon(sub { substr(slurp($moved->logfile), $before) },
		qr/volume does not belong to the storage cluster.*It was made elsewhere, or.*set aurora\.storage_nodes to what it was/s,
		'a server of another volume is told so');
	ok($moved->poll_query_until('postgres', "SELECT state = 'refused' AND last_error ~ 'does not hold the volume' FROM aurora.shipper"),
		'... nothing is shipped');
	my ($rc, $out, $err) = $moved->psql('postgres', 'SELECT * FROM t');
	like($err, qr/does not hold this database cluster.*Check aurora\.storage_nodes/s, '... nor read');
	$moved->stop;
	$moved->append_conf('postgresql.conf', "aurora.storage_nodes = ''");
	$moved->start;
	is($moved->safe_psql('postgres', 'SELECT * FROM t'), '1', '... and with the setting as it was all is there');
	$moved->stop;
}

# ---- a killed node is brought back by start
kill_quietly('KILL', node_pid(2));
ok($node->poll_query_until('postgres', "SELECT shipping = 'down' FROM aurora.storage_nodes() WHERE number = 2"),
	'a killed node is seen');
refuses('status of it', 1, qr/2  127\.0\.0\.1:\d+ +-  down/, 'status', '--dir', $dir);
succeeds('start brings it back', qr/node 1 already runs.*node 2 started/s, 'start', '--dir', $dir);
ok($node->poll_query_until('postgres', "SELECT shipping = 'stream' FROM aurora.storage_nodes() WHERE number = 2"),
	'... and it catches up');
check_all($node, 'a node was killed');

# ---- another version of the protocol
# A message of version 7 to a node ...
my $s = IO::Socket::INET->new("127.0.0.1:$port") or die;
print $s pack('a4 v v V2 V V', 'AUR1', 7, 1, 1, 0, 0, 0);
my $answer = '';
$answer .= $_ while sysread($s, $_, 4096);
like($answer, qr/this node speaks protocol version \d+, the message is of version 7/, 'a node tells what it speaks');
like($answer, qr/same version of Aurora/, '... and what to do');

# ... and a node of version 7 in the place of one of three: the others go on.
succeeds('stop for that', qr/node 3 stopped/, 'stop', '--dir', $dir);
my $newer = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port + 4, Listen => 5, ReuseAddr => 1) or die "port: $!";
my $child = fork();
die unless defined $child;
if ($child == 0)
{
	while (my $c = $newer->accept)
	{
		sysread($c, my $hello, 4096);
		print $c pack('a4 v v V2 V V', 'AUR1', 7, 2, 1, 0, 0, 0);
		close $c;
	}
	POSIX::_exit(0);
}
close $newer;
foreach my $i (1, 2)
{
	# (Port 3 is taken, so the cluster as a whole would not be started.)
	system("'" . bindir() . "/aurora_storaged' --config '$dir/node$i.conf' >>'$dir/node$i.log' 2>&1 & echo \$! >'$dir/node$i.pid'");
}
ok($node->poll_query_until('postgres', "SELECT shipping_problem ~ 'speaks version 7 of Aurora''s protocol, the server version' FROM aurora.storage_nodes() WHERE number = 3"),
	'a node of another version is refused, with both versions') or diag
  $node->safe_psql('postgres', 'SELECT number, shipping, shipping_problem FROM aurora.storage_nodes()');
ok($node->poll_query_until('postgres', "SELECT state = 'streaming' FROM aurora.shipper"), '... the others go on');
check_all($node, 'with a node of another version');
kill 'KILL', $child;
waitpid $child, 0;
succeeds('its place is taken again', qr/node 3 started/, 'start', '--dir', $dir);
ok($node->poll_query_until('postgres', "SELECT shipping = 'stream' FROM aurora.storage_nodes() WHERE number = 3"),
	'... and all three are there');
$node->stop;
succeeds('the end', qr/node 1 stopped\nnode 2 stopped\nnode 3 stopped/, 'stop', '--dir', $dir);

# ---- the files of a stopped node
sub check
{
	my $out = '';
	IPC::Run::run([ $ctl, 'check', '--dir', "$dir/node1" ], '<', \undef, '>', \$out, '2>&1');
	return ($? >> 8) . ": $out";
}
my $view = slurp("$dir/node1/VIEW");
sub write_view { open my $v, '>:raw', "$dir/node1/VIEW" or die; print $v $_[0]; close $v; return; }
like(check(), qr/^0: cluster [0-9A-F]{16}: view \d+\n.*no problems in 1 volume/s, 'all files are sound');
write_view(substr($view, 0, 30) . chr(ord(substr($view, 30, 1)) ^ 4) . substr($view, 31));
like(check(), qr{^1: .*/VIEW" is damaged}s, 'a damaged view is found');
unlink "$dir/node1/VIEW" or die;
like(check(), qr{^1: .*could not read ".*/VIEW"}s, '... and one that is missing');
write_view($view);
like(check(), qr/^0: /, '... and with the right one all is well');
done_testing();
