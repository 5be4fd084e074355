# SPDX-License-Identifier: Apache-2.0
#
# Two servers of one history at one storage node: copies of a data directory
# that both live.  Only one gets commits acknowledged, the other says why not; a
# copy whose log ends before what storage holds is refused.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $dir = PostgreSQL::Test::Utils::tempdir();
my ($port) = free_ports(1);
my $daemon = IPC::Run::start(
	[ bindir() . '/aurora_storaged', '--dir', "$dir/node", '--listen', "127.0.0.1:$port" ],
	'>', "$dir/daemon.log", '2>&1');
die slurp("$dir/daemon.log") unless wait_listening("127.0.0.1:$port", $daemon);

my $first = new_node('first', conf => <<"CONF");
aurora.storage_nodes = '127.0.0.1:$port'
synchronous_standby_names = 'aurora'
autovacuum = off
checkpoint_timeout = 1h
wal_writer_delay = 10s
CONF
$first->safe_psql('postgres', 'CREATE TABLE t (id int PRIMARY KEY, who text) USING aurora; INSERT INTO t VALUES (0, \'first\')');
# It would write a record now and then, which a copy just made would lack.
my %kids = children($first->{_pid});
my ($bgwriter) = grep { $kids{$_} =~ /background writer/ } keys %kids;
kill 'STOP', $bgwriter;
END { kill 'CONT', $bgwriter if $bgwriter; }

# Another server with a copy of the first one's files as they are now.  Nobody
# works meanwhile, so the copy is one moment's.
sub copy_of
{
	my ($name) = @_;
	my $copy = PostgreSQL::Test::Cluster->new($name);
	$first->safe_psql('postgres', 'CHECKPOINT');
	PostgreSQL::Test::RecursiveCopy::copypath($first->data_dir, $copy->data_dir,
		filterfn => sub { return $_[0] ne 'postmaster.pid' && $_[0] ne 'postmaster.opts'; });
	chmod 0700, $copy->data_dir;
	$copy->append_conf('postgresql.conf',
		'port = ' . $copy->port . "\nunix_socket_directories = '" . $copy->host . "'\n");
	return $copy;
}

sub state_of
{
	my ($node) = @_;
	return $node->safe_psql('postgres', 'SELECT state FROM aurora.shipper');
}

# Insert; is it acknowledged within the time?  (statement_timeout does not end
# the wait of a commit.)
my $id = 0;
sub acknowledged_insert
{
	my ($node, $seconds) = @_;
	my $timed_out = 0;
	$id++;
	my ($rc) = $node->psql('postgres', "INSERT INTO t VALUES ($id, '" . $node->name . "')",
		timeout => $seconds, timed_out => \$timed_out);
	return !$timed_out && $rc == 0 ? 1 : 0;
}

is(acknowledged_insert($first, 120), 1, 'the first server writes');
my $older = copy_of('older');
is(acknowledged_insert($first, 120), 1, 'and goes on after it was copied');

# ---- the older copy
$older->start;
ok($older->poll_query_until('postgres', "SELECT state = 'refused' FROM aurora.shipper"),
	'the older copy is refused');
like(shipper_field($older, 'last_error'),
	qr{the server's WAL ends at \S+, before what storage has acknowledged \(\S+\): it was restored from an older copy},
	'... and told why');
note shipper_field($older, 'last_error');
like_soon(sub { slurp($older->logfile) }, qr/HINT:  Start the server whose data directory is current/,
	'... and what to do');
is(acknowledged_insert($older, 2), 0, 'it gets nothing acknowledged');
ok($first->poll_query_until('postgres', "SELECT state = 'streaming' FROM aurora.shipper"), 'the first one is not disturbed');
is(acknowledged_insert($first, 120), 1, '... and writes');
$older->stop('immediate');

# ---- a copy that is as new
my $twin = copy_of('twin');
$twin->start;
ok($twin->poll_query_until('postgres', "SELECT state = 'streaming' FROM aurora.shipper"),
	'a copy as new as storage gets the term');
ok($first->poll_query_until('postgres', "SELECT state = 'refused' FROM aurora.shipper"),
	'the first one is fenced off');
note shipper_field($first, 'last_error');
like_soon(sub { slurp($first->logfile) }, qr/log shipping has stopped: another server writes to this volume/,
	'... and says so');
like_soon(sub { slurp("$dir/daemon.log") }, qr/is fenced off by/, 'so does the node');
is(acknowledged_insert($first, 2), 0, 'the first one gets nothing acknowledged any more');
is(acknowledged_insert($twin, 120), 1, 'the twin does');
my $mine = $id;
is(state_of($first), 'refused', 'the first one does not ask again by itself');
is($twin->safe_psql('postgres', 'SELECT string_agg(id || who, \' \' ORDER BY id) FROM t'),
	"0first 1first 2first 4first ${mine}twin", 'the twin has what was acknowledged, and only that');

# After a restart the first one is refused as well: it lacks what the twin wrote.
$twin->safe_psql('postgres', 'INSERT INTO t SELECT g, \'twin\' FROM generate_series(1001, 2000) g');
kill 'CONT', $bgwriter;
undef $bgwriter;
$first->restart;
ok($first->poll_query_until('postgres', "SELECT state = 'refused' FROM aurora.shipper"),
	'started again, the first one is refused');
note shipper_field($first, 'last_error');
is(acknowledged_insert($first, 2), 0, '... and gets nothing acknowledged');
is(acknowledged_insert($twin, 120), 1, 'the twin goes on');
is($twin->safe_psql('postgres', "SELECT count(*) FROM t WHERE who = 'twin'"), '1002', 'nothing is lost');
check_all($twin, 'the twin', no_pgbench => 1);

$first->stop('immediate');
$twin->stop;
$daemon->signal('TERM');
eval { $daemon->finish; };
done_testing();
