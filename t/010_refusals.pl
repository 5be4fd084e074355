# SPDX-License-Identifier: Apache-2.0
#
# What must be refused, with a message that says what to do: no preload,
# another server's volume, a damaged file, another protocol version, a server
# restored from an older copy.  And what once had to be: copies of databases.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use IO::Socket::INET;
use IO::Socket::UNIX;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;

my $bindir = bindir();
my ($rc, $out, $err);

# ---- not preloaded
{
	my $node = PostgreSQL::Test::Cluster->new('nopreload');
	$node->init(allows_streaming => 1);
	$node->start;
	($rc, $out, $err) = $node->psql('postgres', 'CREATE EXTENSION aurora');
	isnt($rc, 0, 'not preloaded: CREATE EXTENSION is refused');
	like($err, qr/shared_preload_libraries/, 'the message says what to set');
	$node->stop;

	# ---- settings with which the server does not start
	my $three = 'aurora.storage_nodes=127.0.0.1:1,127.0.0.1:2,127.0.0.1:3';
	foreach my $wrong (
		[ qr/The form is host:port/, 'aurora.storage_nodes=nothing' ],
		[ qr/with ports from 1 to 65535/, 'aurora.storage_nodes=127.0.0.1:65536' ],
		[ qr/with ports from 1 to 65535/, 'aurora.storage_nodes=127.0.0.1:0' ],
		[ qr/no node after the last comma/, 'aurora.storage_nodes=127.0.0.1:1,' ],
		[ qr/Name each node once/, 'aurora.storage_nodes=127.0.0.1:1,127.0.0.1:1' ],
		[ qr/At most 7 storage nodes/, 'aurora.storage_nodes=' . join(',', map { "h:$_" } 1 .. 8) ],
		[ qr/With 3 storage nodes it can be 2 to 3/, $three, 'aurora.write_quorum=1' ],
		[ qr/With 3 storage nodes it can be 2 to 3/, $three, 'aurora.write_quorum=4' ],
		[ qr/lower case letters, digits and underscores/, 'aurora.slot_name=No' ],
		[ qr/path of a socket must be absolute/, 'aurora.storage_socket=here' ],
		[ qr/aurora needs wal_level/, 'wal_level=minimal', 'max_wal_senders=0' ],
		[ qr/needs a WAL sender and a replication slot/, 'max_replication_slots=0' ])
	{
		my ($says, @settings) = @$wrong;
		$rc = IPC::Run::run([ "$bindir/postgres", '-D', $node->data_dir, '-c', 'shared_preload_libraries=aurora',
				map { ('-c', $_) } @settings ], '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
		ok(!$rc, "the server does not start with @settings");
		like($err, $says, '... and says why');
	}
}

# ---- the server's own settings
my $node = new_node('main');
init_pgbench($node, scale => 1);
# Copies of databases, which stock makes file by file, keep their rows.
$node->safe_psql('postgres', 'CREATE DATABASE has_rows');
$node->safe_psql('has_rows', "CREATE EXTENSION aurora; CREATE TABLE t (a int PRIMARY KEY, big text) USING aurora; INSERT INTO t SELECT g, repeat(md5(g::text), 100 + g % 200) FROM generate_series(1, 1000) g; CREATE MATERIALIZED VIEW mv USING aurora AS SELECT a FROM t");
my $rows = 'SELECT count(*), sum(a), md5(string_agg(big, NULL ORDER BY a)), (SELECT count(*) FROM mv) FROM t';
my $expect = $node->safe_psql('has_rows', $rows);
foreach my $strategy ('wal_log', 'file_copy')
{
	$node->safe_psql('postgres', "CREATE DATABASE copied TEMPLATE has_rows STRATEGY $strategy");
	is($node->safe_psql('copied', $rows), $expect, "CREATE DATABASE ... STRATEGY $strategy copies the rows");
	$node->safe_psql('copied', 'UPDATE t SET a = a + 10000; DELETE FROM t WHERE a < 10100');
	is($node->safe_psql('has_rows', $rows), $expect, 'and its own rows only are changed');
	$node->kill9 if $strategy eq 'file_copy';
	start_again($node) if $strategy eq 'file_copy';
	is($node->safe_psql('copied', 'SELECT count(*) FROM t'), '901', 'the copy is a database of its own');
	$node->safe_psql('postgres', 'DROP DATABASE copied');
}
my $place = PostgreSQL::Test::Utils::tempdir();
$node->safe_psql('postgres', "CREATE TABLESPACE spc LOCATION '$place'");
$node->safe_psql('postgres', 'ALTER DATABASE has_rows SET TABLESPACE spc');
is($node->safe_psql('has_rows', $rows), $expect, 'ALTER DATABASE ... SET TABLESPACE keeps the rows');
$node->restart;
is($node->safe_psql('has_rows', $rows), $expect, 'after a restart, too');
$node->safe_psql('postgres', 'ALTER DATABASE has_rows SET TABLESPACE pg_default');
is($node->safe_psql('has_rows', $rows), $expect, 'and back');
$node->safe_psql('postgres', 'DROP DATABASE has_rows');
$node->safe_psql('postgres', 'DROP TABLESPACE spc');
($rc, $out, $err) = $node->psql('postgres', 'DROP EXTENSION aurora');
isnt($rc, 0, 'DROP EXTENSION is refused while there are tables');
$node->safe_psql('postgres', 'CREATE DATABASE plain');
is($node->safe_psql('plain', 'SELECT 1'), '1', 'a database without aurora tables can be copied');

# ---- an older copy of the server: the daemon has log that the copy lacks
{
	my $load = start_load($node, seconds => 2);
	wait_load($load);
	my $storage = PostgreSQL::Test::Utils::tempdir() . '/storage';
	$node->stop;
	my $copy = PostgreSQL::Test::Utils::tempdir() . '/older';
	PostgreSQL::Test::RecursiveCopy::copypath($node->data_dir, $copy,
		filterfn => sub { $_[0] !~ m{^aurora(?:/|$)|\.sock$} });
	$node->start;
	$load = start_load($node, seconds => 2);
	wait_load($load);
	check_all($node, 'before the old copy comes back');
	$node->stop;

	# The old copy in the place of the new one, with the new storage.
	my $data = $node->data_dir;
	rename "$data", "$data.new" or die;
	PostgreSQL::Test::RecursiveCopy::copypath($copy, $data);
	chmod 0700, $data;
	rename "$data.new/aurora", "$data/aurora" or die;
	$node->start(fail_ok => 1);
	ok($node->poll_query_until('postgres', "SELECT state = 'refused' FROM aurora.shipper"),
		'older copy: the shipper is refused');
	my $why = shipper_field($node, 'last_error') // '';
	note $why;
	like($why, qr/durable|older|behind|restored/i, 'older copy: and says why');
	($rc, $out, $err) = $node->psql('postgres', "SET statement_timeout = '3s'; CREATE TABLE x (a int) USING aurora; INSERT INTO x VALUES (1);");
	isnt($rc, 0, 'older copy: nothing can be written');
	$node->stop('immediate');

	# The right one again: all is well.
	rename "$data/aurora", "$data.new/aurora" or die;
	rename $data, "$data.old" or die;
	rename "$data.new", $data or die;
	$node->start;
	wait_for_daemon($node);
	check_all($node, 'older copy: the right server is served again');
}

# ---- another server with this daemon's volume
{
	$node->stop;
	my $other = new_node('other', no_start => 1);
	PostgreSQL::Test::RecursiveCopy::copypath($node->data_dir . '/aurora',
		$other->data_dir . '/aurora', filterfn => sub { $_[0] !~ /\.sock$/ });
	$other->start;
	ok(eventually(sub {
			($other->psql('postgres', 'SELECT 1') // 1) == 0
			  && slurp($other->logfile) =~ /volume of another server/i;
		}), 'another server: the log says that the volume is another server\'s');
	$other->stop('immediate');
	$node->start;
}

# ---- nonsense and other versions on the wire
{
	wait_for_daemon($node);
	my $path = $node->data_dir . '/aurora/storaged.sock';
	my $talk = sub {
		my ($bytes) = @_;
		my $s = IO::Socket::UNIX->new(Peer => $path) or return "cannot connect to $path: $!";
		syswrite $s, $bytes;
		my $answer = '';
		eval {
			local $SIG{ALRM} = sub { die "timeout\n" };
			alarm 10;
			while (sysread $s, my $buf, 4096) { $answer .= $buf; }
			alarm 0;
		};
		alarm 0;
		return $@ ? "$@$answer" : $answer;
	};
	my $answer = $talk->(pack('a4 v v Q< V V', 'AUR1', 99, 1, 1, 0, 0));
	like($answer, qr/version/, 'another protocol version: the answer says so') ;
	isnt($answer, "timeout\n", 'and the connection is closed');
	foreach my $junk ("GET / HTTP/1.0\r\n\r\n", "\0" x 64, 'AUR1' . ("\xff" x 60))
	{
		unlike($talk->($junk), qr/timeout/, 'nonsense: the connection is closed');
	}
	ok(kill(0, daemon_pid($node)), 'the daemon is not disturbed');
	check_all($node, 'after nonsense on the wire');
}

# ---- a damaged file: the landing log, in its middle
{
	my $dir = $node->data_dir . '/aurora';
	my $load = start_load($node, seconds => 3);
	wait_load($load);
	$node->stop;
	my ($log) = sort { -s $b <=> -s $a } split /\n/, `find '$dir' -name '*.log' -path '*land*' -size +0`;
	($log) = sort { -s $b <=> -s $a } split /\n/, `find '$dir' -name '????????????????.log'` unless defined $log;
	ok(defined $log, 'there is a landing log') or diag `find '$dir'`;
	my $backup = slurp($log);
	my $broken = $backup;
	my $used = length($broken);
	$used-- while $used > 0 && substr($broken, $used - 1, 1) eq "\0";
	my $at = int($used / 2);
	substr($broken, $at, 32) = join '', map { chr(ord($_) ^ 0x5a) } split //, substr($broken, $at, 32);
	open my $f, '>', $log or die; binmode $f; print $f $broken; close $f;
	my $before = -s $node->logfile;
	$node->start;
	like_soon(sub { substr(slurp($node->logfile), $before) }, qr/damaged|corrupt|checksum|crc/i,
		'damaged log: the daemon refuses it and says so');
	($rc, $out, $err) = $node->psql('postgres', "SET statement_timeout = '3s'; SELECT sum(abalance) FROM pgbench_accounts");
	isnt($rc, 0, 'damaged log: no wrong rows are served');
	$node->stop('immediate');
	open $f, '>', $log or die; binmode $f; print $f $backup; close $f;
	$node->start;
	wait_for_daemon($node);
	check_all($node, 'damaged log: the right file again');
}
$node->stop;
done_testing();
