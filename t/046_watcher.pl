# SPDX-License-Identifier: Apache-2.0
#
# How a server finds out what its storage nodes are, when that is not plain: they
# have not joined their cluster yet; the watcher is started again while a
# stranger has a node's address; the slices that a session reads have moved
# and it has not heard of it.
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

my $dir = PostgreSQL::Test::Utils::tempdir();
my @port = free_ports(4);
my @meta = free_ports(4);
my @address = map { "127.0.0.1:$_" } @port;
my @handle;
my $list = '';

# Node $i with these options; its directory is $name.
sub start_storage
{
	my ($i, $name, @options) = @_;
	$handle[$i] = IPC::Run::start(
		[   bindir() . '/aurora_storaged', '--dir', "$dir/$name", '--listen', $address[$i], '--memory', '64',
			@options ],
		'<', \undef, '>>', "$dir/$name.log", '2>&1');
	die "$name does not listen: " . slurp("$dir/$name.log") unless wait_listening($address[$i], $handle[$i]);
	return;
}

sub member
{
	my ($i, @options) = @_;
	start_storage($i, "node$i", '--meta-listen', "127.0.0.1:$meta[$i]", '--slice-grace-seconds', '1',
		'--move-mb-per-s', '0', @options);
	return;
}

sub kill_storage
{
	my ($sig, $i) = @_;
	$handle[$i]->signal($sig);
	eval { $handle[$i]->finish; };
	return;
}

sub node_list_like
{
	my ($like) = @_;
	return eventually(sub {
		IPC::Run::run([ bindir() . '/auroractl', '--node', $address[0], 'node', 'list' ], '>', \$list, '2>&1');
		return $list =~ $like;
	});
}

# How many slices node $i has; 1000: some come or go.
sub slices
{
	my ($i) = @_;
	my $out = '';
	IPC::Run::run([ bindir() . '/auroractl', '--node', $address[$i], 'status', '--json' ], '<', \undef, '>', \$out,
		'2>', \my $err) or return 0;
	my $v = JSON::PP::decode_json($out)->{volumes}[0] // return 0;
	return $v->{slices_incoming} + $v->{slices_missing} + $v->{slices_dropping} > 0 ? 1000 : $v->{slices};
}

# The first of the tables $prefix1 .. $prefix$n that a session cannot read within
# 300 ms, and what it is told.
sub unreadable
{
	my ($server, $prefix, $n, $condition) = @_;
	my ($rc, $said) = $server->psql('postgres', <<"SQL");
SET aurora.storage_timeout = '300ms';
CREATE FUNCTION pg_temp.unreadable() RETURNS text LANGUAGE plpgsql AS \$\$
BEGIN
	FOR n IN 1 .. $n LOOP
		BEGIN
			EXECUTE format('SELECT sum(i) FROM $prefix%s', n);
		EXCEPTION WHEN $condition THEN
			RETURN format('$prefix%s|%s', n, SQLERRM);
		END;
	END LOOP;
END \$\$;
SELECT pg_temp.unreadable();
SQL
	return split /\|/, $said, 2;
}

# Until the log of a server, or of a node, says so.
sub logged
{
	my ($file, $like) = @_;
	return eventually(sub { (slurp($file) // '') =~ $like });
}

my $node = new_node('main', no_start => 1, conf => <<"CONF");
aurora.storage_nodes = '$address[1]'
aurora.storage_timeout = 20s
aurora.write_quorum = 1
synchronous_standby_names = 'aurora'
CONF
sub sql { return $node->safe_psql('postgres', $_[0]); }
sub watcher
{
	my %kids = children($node->{_pid});
	return (grep { $kids{$_} =~ /aurora watcher/ } keys %kids)[0] // 0;
}

# ---- the server is there before its nodes have joined
member(1, '--join', $address[0]);
$node->start;
$node->safe_psql('postgres', 'SET synchronous_commit = local; CREATE EXTENSION aurora');
ok($node->poll_query_until('postgres', "SELECT last_error LIKE '%$address[1]%no view of its cluster yet%' FROM aurora.shipper"),
	'a node that has not joined its cluster yet is waited for, and the view says so')
  or diag sql('SELECT state, last_error FROM aurora.shipper');
unlike(slurp("$dir/node1.log"), qr/created volume/, '... no volume is made outside of the cluster');
member(0, '--cluster-init', '--replicas', '1');
ok($node->poll_query_until('postgres', "SELECT last_error LIKE 'could not register%quorum of 1 among 2 nodes%' FROM aurora.shipper"),
	'a setting that the cluster cannot take is told by the view, too') or diag sql('SELECT last_error FROM aurora.shipper');
$node->append_conf('postgresql.conf', "aurora.write_quorum = 0\n");
$node->restart;
ok($node->poll_query_until('postgres', "SELECT count(*) = 2 AND bool_and(shipping = 'stream') FROM aurora.storage_nodes()"),
	'the cluster keeps the log, on both of its nodes, as soon as there is one')
  or diag sql('SELECT * FROM aurora.storage_nodes()');

# ---- the watcher is started again while a stranger has a node's address
sql('CREATE TABLE t (i int, filler text) USING aurora; INSERT INTO t SELECT g, repeat(md5(g::text), 8) FROM generate_series(1, 3000) g');
my $views = sql("SELECT string_agg(address, ' ' ORDER BY number) FROM aurora.nodes");
my ($place) = grep { (split / /, $views)[0] eq $address[$_] } 0 .. 1;
kill_storage('KILL', $place);
start_storage($place, 'stranger');
my $before = watcher();
kill 'TERM', $before;
ok(eventually(sub { my $w = watcher(); $w != 0 && $w != $before }), 'the watcher was started again');
ok(logged($node->logfile, qr/"\Q$address[$place]\E": says that it is in no cluster/),
	'... and is told by the first node that it is in no cluster');
is(sql("SELECT string_agg(address, ' ' ORDER BY number) FROM aurora.nodes"), $views, '... which it does not believe');
kill_storage('KILL', $place);
member($place);
my $began = time;
sql('INSERT INTO t VALUES (0)');
cmp_ok(time - $began, '<', 15, 'commits go on when the node has its address back');
unlike(slurp($node->logfile), qr/have joined, or left, a cluster/, '... the log group was never in doubt');

# ---- slices move, and the server hears of it late
my @tables = map { "m$_" } 1 .. 24;
sql("CREATE TABLE $_ USING aurora AS SELECT g AS i FROM generate_series(1, 500) g") foreach @tables;
sql('SELECT aurora.sync()');
my $sleeper = watcher();
kill 'STOP', $sleeper;
member(2, '--join', $address[0]);
ok(node_list_like(qr/\Q$address[2]\E.*active/), 'a third node has come') or diag $list;
ok(eventually(sub { my @s = map { slices($_) } 0 .. 2; $s[0] + $s[1] + $s[2] == 256 && !grep { $_ == 0 } @s }),
	'... and the old owners have let go of what it has');
evict_all($node);
# One of those that moved, and who had it and no longer answers.
my ($table, $why) = unreadable($node, 'm', 24, 'OTHERS');
my ($from) = ($why // '') =~ /storage node "([^"]*)"/ or die "nothing moved: $table";
my ($silent) = grep { $address[$_] eq $from } 0 .. 1;
evict_all($node);
$handle[$silent]->signal('STOP');
my (@out, @err);
my @reader = map {
	my $i = $_;
	my $sql = $i == 0 ? "SELECT sum(i) FROM $table" : join(' UNION ALL ', map { "SELECT sum(i) FROM $_" } @tables);
	$out[$i] = $err[$i] = '';
	IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', "SET aurora.storage_timeout = '60s'", '-c', $sql ],
		'<', \undef, '>', \$out[$i], '2>', \$err[$i]);
} 0 .. 1;
sleep 1;
$_->pump_nb foreach @reader;
is("@out", ' ', 'pages that moved while the server did not look are not to be had from who had them');
kill 'CONT', $sleeper;
$began = time;
ok($reader[0]->finish, '... but from who has them now, as soon as the server looks, even if the old owner is silent') or diag $err[0];
cmp_ok(time - $began, '<', 30, sprintf('... in %.1f s', time - $began));
$handle[$silent]->signal('CONT');
ok($reader[1]->finish, '... and also if it says that it has them no more') or diag $err[1];
is($out[0], "125250\n", '... what was asked');
is($out[1], "125250\n" x @tables, '... all of them');
ok($node->poll_query_until('postgres', "SELECT count(*) = 3 FROM aurora.nodes WHERE state = 'ok'"), '... and the view is the new one');

$node->stop;
kill_storage('TERM', $_) foreach 0 .. 2;

# ---- a node that has slices of a server's is not in its log group, and stood still
# when its volume was made: it has none when a session asks it for pages
sub signal_storage
{
	my ($sig, @which) = @_;
	$handle[$_]->signal($sig) foreach @which;
	return;
}

start_storage($_, "fresh$_", '--meta-listen', "127.0.0.1:$meta[$_]",
	$_ == 0 ? ('--cluster-init', '--replicas', '1') : ('--join', $address[0])) foreach 0 .. 3;
ok(wait_members($address[0], 4), 'four nodes, each slice on one of them');
signal_storage('STOP', 3);
ok(node_list_like(qr/\Q$address[3]\E.*DOWN/), 'one stands still') or diag $list;
my $fresh = new_node('fresh', conf => <<"CONF");
aurora.storage_nodes = '$address[0]'
aurora.storage_timeout = 60s
synchronous_standby_names = 'aurora'
CONF
ok($fresh->poll_query_until('postgres', "SELECT count(*) = 3 AND bool_and(shipping = 'stream') FROM aurora.nodes WHERE address <> '$address[3]'"),
	'... and the others keep the log') or diag $fresh->safe_psql('postgres', 'SELECT number, shipping, state, problem FROM aurora.nodes');
# A table of one page, which is on that node.
$fresh->safe_psql('postgres', "CREATE TABLE s$_ USING aurora AS SELECT g AS i FROM generate_series(1, 100) g") foreach 1 .. 32;
evict_all($fresh);
my ($name) = unreadable($fresh, 's', 32, 'connection_failure');
like($name, qr/^s\d+$/, '... with a table that nobody can read now');
signal_storage('STOP', 0 .. 2);
signal_storage('CONT', 3);
my ($out, $err) = ('', '');
my $reader = IPC::Run::start([ 'psql', '-XAtq', '-d', $fresh->connstr('postgres'), '-c', "SELECT sum(i) FROM $name" ],
	'<', \undef, '>', \$out, '2>', \$err);
sleep 1.5;
$reader->pump_nb;
is("$out$err", '', 'a node of the cluster that has no volume yet is waited for');
signal_storage('CONT', 0 .. 2);
ok($reader->finish, '... and answers when it has got it') or diag $err;
is($out, "5050\n", '... what was asked');

$fresh->stop;
kill_storage('TERM', $_) foreach 0 .. 3;
done_testing();
