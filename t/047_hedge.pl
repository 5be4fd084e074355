# SPDX-License-Identifier: Apache-2.0
#
# Two nodes behind proxies that make answers late, or do not answer at all: a
# second node that stands still does not hold up what the first one answers; and
# hedges do not make later ones wait longer.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use IO::Select;
use IO::Socket::INET;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $dir = PostgreSQL::Test::Utils::tempdir();
my @port = free_ports(4);
my @handle;

# ---- the proxies, in a process of their own.  Proxy $i passes a node's answers on
# as many milliseconds later as the file late$i says; while there is a file mute$i it
# neither reads nor takes connections.
sub proxies
{
	my (@listener) = @_;
	my (%to, %of, @late);	# socket => its other end; => proxy; [due, socket, bytes]
	while (1)
	{
		my @mute = map { -e "$dir/mute$_" } 0 .. 1;
		my $set = IO::Select->new();
		$mute[$_] or $set->add($listener[$_]) foreach 0 .. 1;
		$mute[ $of{$_}[0] ] or $set->add($of{$_}[1]) foreach keys %of;
		foreach my $s ($set->can_read(0.002))
		{
			my ($i) = grep { $listener[$_] == $s } 0 .. 1;
			if (defined $i)
			{
				my $client = $s->accept or next;
				my $node = IO::Socket::INET->new("127.0.0.1:$port[$i]") or next;
				($of{$client}, $of{$node}) = ([ $i, $client, 0 ], [ $i, $node, 1 ]);
				($to{$client}, $to{$node}) = ($node, $client);
				next;
			}
			next unless $of{$s};
			my $other = $to{$s};
			my $got = sysread($s, my $bytes, 1 << 20);
			if (!$got)
			{
				delete @of{ $s, $other };
				delete @to{ $s, $other };
				close $_ foreach $s, $other;
				next;
			}
			my $ms = $of{$s}[2] ? slurp("$dir/late$of{$s}[0]") || 0 : 0;
			push @late, [ time + $ms / 1000, $other, $bytes ];
		}
		my $now = time;
		$to{ $_->[1] } and syswrite($_->[1], $_->[2]) foreach grep { $_->[0] <= $now } @late;
		@late = grep { $_->[0] > $now } @late;
	}
	return;
}

my @listener = map { IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port[ 2 + $_ ], Listen => 20, ReuseAddr => 1) } 0 .. 1;
my $proxies = fork();
if ($proxies == 0)
{
	$SIG{PIPE} = 'IGNORE';
	$SIG{TERM} = sub { require POSIX; POSIX::_exit(0); };
	proxies(@listener);
}
END { my $rc = $?; kill 'TERM', $proxies if $proxies; $? = $rc; }

sub file { my ($name, $text) = @_; open my $f, '>', "$dir/$name.new" or die; print $f $text; close $f; rename "$dir/$name.new", "$dir/$name"; return; }

foreach my $i (0 .. 1)
{
	$handle[$i] = IPC::Run::start(
		[ bindir() . '/aurora_storaged', '--dir', "$dir/node$i", '--listen', "127.0.0.1:$port[$i]", '--memory', '64' ],
		'<', \undef, '>>', "$dir/daemon$i.log", '2>&1');
	die slurp("$dir/daemon$i.log") unless wait_listening("127.0.0.1:$port[$i]", $handle[$i]);
}
my $node = new_node('main', conf => <<"CONF");
aurora.storage_nodes = '127.0.0.1:$port[2], 127.0.0.1:$port[3]'
aurora.scan_prefetch = 0
autovacuum = off
max_parallel_workers_per_gather = 0
CONF
sub sql { return $node->safe_psql('postgres', $_[0]); }
sql('CREATE TABLE t (i int, filler text) USING aurora; INSERT INTO t SELECT g, repeat(md5(g::text), 8) FROM generate_series(1, 2000) g');
sql('VACUUM t');
sql('SELECT aurora.sync()');
sql("SELECT count(*) FROM t; SELECT aurora.evict('t')") foreach 1 .. 4;
my $pages = sql("SELECT aurora.relation_size('t') / 8192") || 60;
cmp_ok(sql('SELECT sum(reads) FROM aurora.storage_nodes()'), '>', 200, "answers of $pages pages: what is late is known");

# ---- a node that is slow: a second one is asked, again and again
my $times = '';
for (1 .. 25)
{
	# one page from the first node, in time; one that is late
	my $said = sql(<<"SQL");
SELECT aurora.evict('t');
SET aurora.read_node = 1;
SELECT count(*) FROM t WHERE ctid = '(1,1)';
\\! echo 1500 > $dir/late0
RESET aurora.read_node;
SELECT clock_timestamp() AS began \\gset
SELECT count(*) FROM t WHERE ctid = '(2,1)';
SELECT 'took ' || round(extract(epoch FROM clock_timestamp() - :'began') * 1000);
\\! rm $dir/late0
SQL
	$times .= " $1" if $said =~ /took (\d+)/;
}
note "milliseconds:$times";
my @last = (sort { $a <=> $b } (split ' ', $times)[-10 .. -1]);
cmp_ok(sql('SELECT sum(hedge_wins) FROM aurora.storage_nodes()'), '>', 10, 'late answers: another node was asked, and was first');
cmp_ok($last[5], '<', 750, '... after no longer a time than at first: what was asked twice does not count as slow');

# ---- the other node stands still: it is not waited for
file('mute1', '');
{
	my $said = sql(<<"SQL");
SELECT aurora.evict('t');
SET aurora.read_node = 1;
SELECT count(*) FROM t WHERE ctid = '(1,1)';
\\! echo 10 > $dir/late0
SET aurora.hedge_delay = 2;
RESET aurora.read_node;
SELECT clock_timestamp() AS began \\gset
SELECT count(*) FROM t;
SELECT 'took ' || round(extract(epoch FROM clock_timestamp() - :'began') * 1000);
\\! rm $dir/late0
SQL
	my ($ms) = $said =~ /took (\d+)/;
	like($said, qr/^2000$/m, 'the other node stands still: a slow one is read from');
	cmp_ok($ms, '<', $pages * 20 + 15000, "... $pages pages in $ms ms");
}
unlink "$dir/mute1";

$node->stop;
$_->signal('TERM') foreach @handle;
eval { $_->finish; } foreach @handle;
done_testing();
