# SPDX-License-Identifier: Apache-2.0
#
# The key-value interface of three real nodes: writes go on while one is dead,
# it gets what it missed, conflicts are given to who reads, deletions stay, all
# nodes killed at once lose nothing; through auroractl and through SQL.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use IO::Socket::INET;
use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

seed_random();
my $dir = PostgreSQL::Test::Utils::tempdir();
my $ctl = bindir() . '/auroractl';
my @port = free_ports(3, 1);		# for clients; the one behind for consensus
my @handle;

sub start_storage
{
	foreach my $i (@_)
	{
		$handle[$i] = IPC::Run::start(
			[
				bindir() . '/aurora_storaged', '--dir', "$dir/node$i", '--memory', '64',
				'--listen', "127.0.0.1:$port[$i]",
				$i == 0 ? '--cluster-init' : ('--join', "127.0.0.1:$port[0]")
			],
			'<', \undef, '>>', "$dir/daemon$i.log", '2>&1');
		die "node $i does not listen: " . slurp("$dir/daemon$i.log")
		  unless wait_listening("127.0.0.1:$port[$i]", $handle[$i]);
	}
	return;
}

sub kill_storage
{
	$handle[$_]->signal('KILL') foreach @_;
	foreach my $i (@_) { eval { $handle[$i]->finish; }; }
	return;
}

sub ctl
{
	my ($node, @words) = @_;
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run([ $ctl, '--node', "127.0.0.1:$port[$node]", @words ],
		'<', \undef, '>', \$out, '2>', \$err);
	chomp $out;
	return ($ok ? 0 : $? >> 8, $out, $err);
}

# Again while a replica that runs has not answered in time.
sub kv_soon
{
	my ($node, @words) = @_;
	my ($rc, $out, $err);
	eventually(sub { ($rc, $out, $err) = ctl($node, 'kv', @words); $err !~ /only \d+ of \d+ replicas/ });
	return ($rc, $out, $err);
}

sub kv
{
	my ($node, @words) = @_;
	my ($rc, $out, $err) = kv_soon($node, @words);
	is($rc, 0, "kv @words at node $node") or diag $err;
	return $out;
}

sub value { my ($node, $key, @o) = @_; my ($rc, $out) = kv_soon($node, 'get', $key, @o); return $out; }
sub json { return JSON::PP->new->utf8->decode($_[0]); }

sub figures
{
	my ($rc, $out) = ctl($_[0], 'status', '--json');
	return $rc == 0 ? json($out)->{kv} : undef;
}

# Every node until the code says yes of its figures.
sub wait_figures
{
	my ($what, $code, @nodes) = @_;
	my $limit = time() + 60;
	my $left;
	while (time() < $limit)
	{
		$left = grep { my $f = figures($_); !(defined $f && $code->($f)) } @nodes;
		last if $left == 0;
		sleep 0.2;
	}
	is($left, 0, $what) or diag map { JSON::PP->new->encode(figures($_) // {}) } @nodes;
	return;
}
my $complete = sub { $_[0]->{slices_owned} == 256 && $_[0]->{slices_complete} == 256 };

start_storage(0 .. 2);
wait_figures('all three have all slices', $complete, 0 .. 2);

# ---- values, contexts, conflicts ---------------------------------------------

kv(0, 'put', 'hello', 'world');
is(value($_, 'hello'), 'world', "node $_ gives it") foreach 0 .. 2;
kv(1, 'put', 'hello', 'again');
is(value(2, 'hello', '-r', '3'), 'again', 'a write without --context replaces what is there');

my $seen = json(kv(0, 'get', 'hello', '--json'));
is_deeply($seen->{values}, ['again'], 'one value');
kv(1, 'put', 'hello', 'left', '--context', $seen->{context});
kv(2, 'put', 'hello', 'right', '--context', $seen->{context});
my $both = json(kv(0, 'get', 'hello', '--json'));
is_deeply([ sort @{ $both->{values} } ], [ 'left', 'right' ], 'both of a conflict are given');
kv(0, 'put', 'hello', 'both', '--context', $both->{context});
is(value(1, 'hello'), 'both', 'a write with their context replaces both');
my ($rc, $out, $err) = ctl(0, 'kv', 'put', 'other', 'x', '--context', $both->{context});
isnt($rc, 0, 'a context of another key is refused');
like($err, qr/of another key/, '... and why');
($rc, $out, $err) = ctl(0, 'kv', 'put', 'aurora/mine', 'x');
like($err, qr/the cluster's own/, 'keys below aurora/ are the cluster\'s');
($rc, $out, $err) = ctl(0, 'kv', 'get', 'hello', '-n', '2', '-r', '3');
like($err, qr/3 of 2 replicas/, 'R above N is refused');
($rc) = ctl(0, 'kv', 'get', 'nothing');
is($rc, 1, 'exit status 1: no such key');

# ---- one node is dead --------------------------------------------------------

kv(0, 'put', "key$_", "old$_") foreach 1 .. 5;
kill_storage(2);
kv(1, 'put', "key$_", "new$_") foreach 1 .. 4;
kv(0, 'del', 'key5');
kv(0, 'put', "more$_", 'x') foreach 1 .. 5;
($rc, $out, $err) = ctl(0, 'kv', 'put', 'all', 'x', '-w', '3');
like($err, qr/only [012] of 3 replicas have the write/, 'three of three cannot be had');
ok(eventually(sub { grep { (figures($_) // {})->{owes} } 0, 1 }), 'somebody owes the dead one');

start_storage(2);
wait_figures('it is complete', $complete, 0 .. 2);
wait_figures('nothing is owed any more', sub { !$_[0]->{owes} }, 0, 1);
kill_storage(0, 1);
is(value(2, "key$_", '-r', '1', '-n', '3'), "new$_", "the one that was dead has key$_ by itself") foreach 1 .. 4;
is(value(2, 'key5', '-r', '1'), '', '... and knows that key5 was deleted');
($rc, $out, $err) = ctl(2, 'kv', 'get', 'key1');
like($err, qr/only [01] of 2 replicas answered/, 'two of three cannot be had');

# ---- all of them at once -----------------------------------------------------

start_storage(0, 1);
wait_figures('all are complete again', $complete, 0 .. 2);
kv(1, 'put', 'last', 'words');
kill_storage(0 .. 2);
start_storage(0 .. 2);
wait_figures('all are complete after kill -9 of all', $complete, 0 .. 2);
# (They may not all have found each other yet.)
ok(eventually(sub { (ctl(0, 'kv', 'get', 'last', '-r', '3'))[0] == 0 }), 'all three answer');
is(value(0, 'last', '-r', '3'), 'words', 'what was acknowledged is there');
is(value(0, "key$_", '-r', '3'), "new$_", "key$_, too") foreach 1 .. 4;
is(value(0, 'key5', '-r', '3'), '', 'what was deleted did not come back');
my $list = kv(2, 'list', 'key');
is(join(' ', $list =~ /^(\S+)/mg), 'key1 key2 key3 key4', 'the list has the keys in order');
like_soon(sub { (ctl(0, 'kv', 'list', 'aurora/node/'))[1] }, qr{aurora/node/1.*aurora/node/2.*aurora/node/3}s, 'each node keeps its manifest');
kv(0, 'del', 'key4');
ok(eventually(sub { grep { (figures($_) // { collected => 0 })->{collected} > 0 } 0 .. 2 }), 'tombstones are collected when all nodes are up');
is(value(1, 'key4', '-r', '3'), '', '... and the key stays deleted');

# ---- a damaged store, a start that fails --------------------------------------

# A flipped bit in RocksDB's log: the node does without, and says so; with an
# empty directory it gets all from the others.
kv(0, 'put', "late$_", "value$_") foreach 1 .. 20;
kill_storage(2);
my ($log) = sort { -s $b <=> -s $a } glob("$dir/node2/kv/*.log");
open(my $fh, '+<:raw', $log) or die "$log: $!";
seek($fh, int((-s $log) / 2), 0);
read($fh, my $byte, 1);
seek($fh, int((-s $log) / 2), 0);
print $fh chr(ord($byte) ^ 8);
close($fh);
start_storage(2);
like_soon(sub { (figures(2) // {})->{problem} }, qr/Corruption/, 'a damaged log of the store is told');
($rc, $out, $err) = ctl(2, 'status');
like($out, qr/key-value +.*Corruption/, '... and shown');
($rc, $out, $err) = ctl(2, 'kv', 'get', 'late1', '-r', '1');
like($err, qr/could not open the key-value store/, '... and told to who asks there');
kv(0, 'put', 'late1', 'again');
is(value(1, 'late1'), 'again', 'the others go on');
kill_storage(2);
rename("$dir/node2/kv", "$dir/node2/kv.damaged") or die $!;
start_storage(2);
wait_figures('with an empty directory it fetches all', $complete, 2);
is(value(2, 'late20', '-r', '1', '-n', '3'), 'value20', '... and has what was written before');

# The node's own work on the store has begun when its address is found in use.
SKIP:
{
	my $shim = "$dir/disk_shim.so";
	skip 'no compiler', 1 unless system('cc', '-shared', '-fPIC', '-O1', "$FindBin::Bin/faults/disk_shim.c",
		'-o', $shim, '-ldl') == 0;
	kill_storage(2);
	my $squatter = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port[2], Listen => 1,
		ReuseAddr => 1) or die "port: $!";
	append_to_file("$dir/slow", "slow 700000 /kv/\n");
	my $h = IPC::Run::start(
		[
			bindir() . '/aurora_storaged', '--dir', "$dir/node2", '--memory', '64',
			'--listen', "127.0.0.1:$port[2]", '--join', "127.0.0.1:$port[0]"
		],
		'<', \undef, '>>', "$dir/daemon2.log", '2>&1',
		init => sub { $ENV{LD_PRELOAD} = $shim; $ENV{AURORA_DISK_SHIM} = "$dir/slow"; });
	eval { $h->finish; };
	is($?, 1 << 8, 'an address in use: exit status 1, not a crash') or diag slurp("$dir/daemon2.log") =~ /(.{1,600})\z/s;
	close($squatter);
	start_storage(2);
	wait_figures('... and it starts when the address is free', $complete, 2);
}

# ---- SQL ---------------------------------------------------------------------

my $node = new_node('main', conf => "aurora.storage_nodes = '127.0.0.1:$port[0]'\n");
sub sql { return $node->safe_psql('postgres', $_[0]); }
is(sql(q{SELECT convert_from(value, 'UTF8') FROM aurora.kv_get('last')}), 'words', 'SQL reads what auroractl wrote');
sql(q{SELECT aurora.kv_put('cart', 'milk')});
is(value(2, 'cart'), 'milk', 'auroractl reads what SQL wrote');
sql(q{BEGIN; SELECT aurora.kv_put('cart', 'bread'); ROLLBACK});
is(sql(q{SELECT string_agg(convert_from(value, 'UTF8'), ' ' ORDER BY value) FROM aurora.kv_get('cart')}),
	'bread milk', 'without a context it stays beside, and ROLLBACK does not undo it');
sql(q{SELECT aurora.kv_put('cart', 'both', (SELECT DISTINCT context FROM aurora.kv_get('cart')))});
is(sql(q{SELECT convert_from(value, 'UTF8') FROM aurora.kv_get('cart', r => 3)}), 'both', 'with the context it replaces');
sql(q{SELECT aurora.kv_del('cart', context) FROM aurora.kv_get('cart')});
is(sql(q{SELECT count(*) FROM aurora.kv_get('cart', r => 3)}), '0', 'deleted');

sub state_of
{
	my ($what, $statement, $state) = @_;
	my ($r, $so, $se) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement");
	like($se, qr/ERROR:  $state:/, $what);
	return;
}
state_of('a key below aurora/', q{SELECT aurora.kv_put('aurora/x', 'y')}, '22023');
state_of('a null value', q{SELECT aurora.kv_put('x', NULL)}, '22004');
state_of('a value too long', q{SELECT aurora.kv_put('x', convert_to(repeat('x', 70000), 'UTF8'))}, '54000');
state_of('a damaged context', q{SELECT aurora.kv_put('x', 'y', '\x1234')}, '22023');
state_of('not for everybody',
	q{CREATE ROLE kv_nobody; SET ROLE kv_nobody; SELECT * FROM aurora.kv_get('last')}, '42501');
kill_storage(1, 2);
state_of('too few nodes, read', q{SELECT * FROM aurora.kv_get('last')}, '08006');
state_of('too few nodes, write', q{SELECT aurora.kv_put('last', 'z')}, '080(?:06|07)');
start_storage(1, 2);
$node->stop('fast');
kill_storage(0 .. 2);
done_testing();
