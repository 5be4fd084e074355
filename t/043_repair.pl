# SPDX-License-Identifier: Apache-2.0
#
# One server on three storage nodes, one of which has its files damaged: what
# is read through SQL is always right, the damage is found and reported, and
# the node gets its pages anew from the others.
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
my $dir = PostgreSQL::Test::Utils::tempdir();
my @port = free_ports(3);
my @address = map { "127.0.0.1:$_" } @port;
my @handle;

sub start_storage
{
	my ($i) = @_;
	$handle[$i] = IPC::Run::start(
		[ bindir() . '/aurora_storaged', '--dir', "$dir/node$i", '--listen', $address[$i],
			'--scrub-mb-per-s', '200', '--anti-entropy-mb-per-s', '200', '--repair-mb-per-s', '200' ],
		'<', \undef, '>>', "$dir/daemon$i.log", '2>&1');
	wait_listening($address[$i], $handle[$i])
	  or die "node $i does not listen: " . slurp("$dir/daemon$i.log");
	return;
}

sub stop_storage
{
	my ($sig, $i) = @_;
	$handle[$i]->signal($sig);
	eval { $handle[$i]->finish; };
	return;
}

start_storage($_) foreach 0 .. 2;
my $list = join(',', @address);
my $node = new_node('main', conf => <<"CONF");
aurora.storage_nodes = '$list'
synchronous_standby_names = 'aurora'
shared_buffers = 1MB
CONF
init_pgbench($node, scale => 2);

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub status_of
{
	my ($i, $name) = @_;
	my $n = $i + 1;
	return sql("SELECT coalesce((aurora.storage_status($n) #>> '{volumes,0,$name}')::bigint, -1)");
}

sub wait_status
{
	my ($i, $name, $least, $what) = @_;
	my $n = $i + 1;
	ok($node->poll_query_until('postgres',
			"SELECT coalesce((aurora.storage_status($n) #>> '{volumes,0,$name}')::bigint, -1) >= $least"), $what)
	  or diag slurp("$dir/daemon$i.log");
	return;
}

sub all_caught_up
{
	my ($what) = @_;
	ok($node->poll_query_until('postgres', <<'SQL'), "$what: all nodes have caught up");
SELECT bool_and(n.shipping = 'stream' AND n.applied_lsn >= s.durable_lsn - 8192)
  FROM aurora.storage_nodes() n, aurora.shipper s
SQL
	return;
}

# What the tables hold; they do not fit into shared_buffers, so this reads them
# from storage.
my $sums = 'SELECT (SELECT sum(hashtext(a::text)::bigint) FROM pgbench_accounts a), (SELECT sum(hashtext(f::text)::bigint) FROM facts f)';

sub verify_each
{
	my ($what) = @_;
	foreach my $n (1 .. 3)
	{
		is(sql("SET aurora.read_node = $n; SELECT v.* FROM (VALUES ('pgbench_accounts'::regclass), ('pgbench_tellers'), ('pgbench_history'), ('facts')) t(r), LATERAL aurora.verify_pages(t.r) v"),
			'', "$what: node $n has the right pages");
	}
	return;
}

sub files_of
{
	my ($i, $pattern) = @_;
	return sort { -s $b <=> -s $a } glob "$dir/node$i/volumes/*/$pattern";
}

# Some bits of a file.
sub flip
{
	my ($file, @at) = @_;
	open my $f, '+<:raw', $file or die "$file: $!";
	foreach my $at (@at)
	{
		my $c;
		seek $f, $at, 0;
		read $f, $c, 1;
		seek $f, $at, 0;
		print $f chr(ord($c) ^ 4);
	}
	close $f;
	return;
}

sub flip_pages
{
	my ($i) = @_;
	foreach my $file (files_of($i, 'pages/*.sst'))
	{
		my $size = -s $file;
		flip($file, map { int(rand($size * 0.9)) } 1 .. 3);
	}
	return;
}

sub checked_offline
{
	my ($i) = @_;
	my $out = `@{[bindir()]}/auroractl check --dir $dir/node$i 2>&1`;
	is($?, 0, "auroractl check of node $i finds nothing") or diag $out;
	return;
}

sql('CREATE TABLE facts (id int PRIMARY KEY, t text) USING aurora; INSERT INTO facts SELECT g, repeat(md5(g::text), 8) FROM generate_series(1, 20000) g;');
my $right = sql($sums);

# ---- while the node is down: its files of page versions
stop_storage('TERM', 1);
flip_pages(1);
start_storage(1);
is(sql($sums), $right, 'bits flipped in files of page versions: what is read is right');
wait_status(1, 'repairs', 1, '... the node got its pages anew');
like(slurp("$dir/daemon1.log"), qr/its page store is damaged and will be made anew from other nodes/, '... and said what was wrong');
all_caught_up('page versions repaired');
is(status_of(1, 'scrub_damaged'), 0, '... nothing is damaged now');
verify_each('page versions repaired');

# ---- under load, and with drops and truncations between
{
	sql('CREATE TABLE gone (t text) USING aurora; INSERT INTO gone SELECT repeat(md5(g::text), 20) FROM generate_series(1, 3000) g;');
	my $load = start_load($node, clients => 2, seconds => 8);
	sleep 1;
	stop_storage('TERM', 2);
	flip_pages(2);
	sql('DROP TABLE gone; DELETE FROM facts WHERE id > 9000; VACUUM facts; INSERT INTO facts SELECT g, \'again\' FROM generate_series(9001, 9400) g;');
	start_storage(2);
	my ($rc) = wait_load($load);
	is($rc, 0, 'bits flipped under load: no transaction failed') or diag ${ $load->{err} };
	wait_status(2, 'repairs', 1, '... the node got its pages anew');
	all_caught_up('repaired under load');
	check_all($node, 'repaired under load');
	is(sql("SET aurora.read_node = 3; SELECT count(*), count(*) FILTER (WHERE id > 9000 AND t <> 'again') FROM facts"),
		'9400|0', '... and what was deleted stays away');
	verify_each('repaired under load');
}

# ---- a file that is gone: the store cannot even be opened
$right = sql($sums);
stop_storage('TERM', 0);		# (a file of a merge that is not over is nobody's)
unlink((files_of(0, 'pages/*.sst'))[0]) or die;
start_storage(0);
is(sql($sums), $right, 'a file of page versions lost: what is read is right');
wait_status(0, 'repairs', 1, '... the node got its pages anew');
all_caught_up('lost file repaired');
verify_each('lost file repaired');

# ---- its landing log, under load: it gets that anew, too, and counts again
{
	my $load = start_load($node, clients => 2, seconds => 60);
	sleep 1;
	stop_storage('KILL', 1);
	my $file = (sort glob "$dir/node1/volumes/*/log/*.log")[-1];
	flip($file, map { int((-s $file) * $_) } 0.2, 0.4, 0.6);
	start_storage(1);
	like(slurp("$dir/daemon1.log"), qr/landing log "\Q$file\E" is damaged.*the log is fetched from the other nodes/,
		'bits flipped in the landing log: the node says so, and begins it anew');
	ok(-e ($file =~ s{/log/}{/log.damaged/}r), '... what was damaged is kept');
	ok($node->poll_query_until('postgres', "SELECT state = 'ok' AND applied_lsn > '0/0' FROM aurora.nodes WHERE number = 2"),
		'... it gets its log from the others') or diag sql('SELECT * FROM aurora.nodes') . slurp("$dir/daemon1.log");
	like(slurp("$dir/daemon1.log"), qr/the log that was lost is here again/, '... and has its vote back');
	stop_storage('KILL', 2);
	sleep 1;
	my $before = sql('SELECT count(*) FROM pgbench_history');
	ok($node->poll_query_until('postgres', "SELECT count(*) > $before FROM pgbench_history"), '... commits go on with it and one other');
	start_storage(2);
	my ($rc) = wait_load($load, end => 1);
	is($rc, 0, '... no transaction failed') or diag ${ $load->{err} };
	all_caught_up('landing log begun anew');
	check_all($node, 'landing log begun anew');
	verify_each('landing log begun anew');
	stop_storage('TERM', 1);
	start_storage(1);
	ok(!-e ($file =~ s{/log/.*}{/log.damaged}r), 'what was damaged goes when nothing is lacking any more');
}

# ---- ... in a part that is in the pages already: only that goes
{
	for my $i (1 .. 6)
	{
		sql("INSERT INTO facts VALUES (200000 + $i, 'log'); SELECT pg_switch_wal()");
	}
	all_caught_up('more than a file of log');
	stop_storage('TERM', 1);
	my @file = sort glob "$dir/node1/volumes/*/log/*.log";
	cmp_ok(scalar @file, '>', 1, 'the landing log has several files');
	flip($file[0], map { int((-s $file[0]) * $_) } 0.2, 0.6);
	start_storage(1);
	like(slurp("$dir/daemon1.log"), qr/landing log "\Q$file[0]\E" is damaged.*what is left, from .* on, is all that is needed/,
		'bits flipped in log that is in the pages: the node says so, and goes on with the rest');
	ok(!-e $file[0], '... that file is gone');
	all_caught_up('log that was not needed');
}

$node->stop;
stop_storage('TERM', $_) foreach 0 .. 2;
checked_offline($_) foreach 0 .. 2;
done_testing();
