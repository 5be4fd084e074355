# SPDX-License-Identifier: Apache-2.0
#
# AuroraTest: what the TAP tests share: servers with Aurora loaded, pgbench
# load in the background with a record of what it was told is committed, faults,
# and the checks that must hold after any fault:
#
#   - pgbench's invariant: the balances of accounts, tellers and branches and
#     the history add up to the same sum; no row is lost or doubled;
#   - every transaction that a client was told is committed is there;
#   - cached pages equal storage's at the same LSN (aurora.verify_pages);
#   - indexes and tables agree (amcheck with heapallindexed, and counts);
#   - the local main fork of every aurora table is 0 bytes.
package AuroraTest;

use strict;
use warnings;

use Exporter 'import';
use Cwd ();
use IO::Socket::INET;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Socket qw(PF_INET SOCK_STREAM SOL_SOCKET SO_REUSEADDR inet_aton pack_sockaddr_in);
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  new_node create_extension init_pgbench start_load wait_load
  acknowledged check_all check_sums start_again daemon_pid wait_for_daemon
  shipper_field children seed_random sleep_random kill_quietly slurp
  backend_pids evict_all bindir timed longest_gap eventually like_soon free_ports wait_members
  wait_listening
);

# ---- random moments ----------------------------------------------------------

# Every test that acts at random moments prints its seed; AURORA_TEST_SEED
# repeats it.
sub seed_random
{
	my $seed = $ENV{AURORA_TEST_SEED};
	$seed = int(time() * 1000) % 1_000_000_007
	  unless defined $seed && $seed ne '';
	srand($seed);
	diag "seed $seed (repeat with AURORA_TEST_SEED=$seed)";
	return $seed;
}

sub sleep_random
{
	my ($min, $max) = @_;
	sleep($min + rand($max - $min));
	return;
}

sub bindir
{
	my ($out) = run_command([ 'pg_config', '--bindir' ]);
	return $out;
}

# Until the code says yes, for a minute or so many seconds; its last answer.
sub eventually
{
	my ($code, $seconds) = @_;
	my $limit = time() + ($seconds // 60);
	my $answer;
	until ($answer = $code->())
	{
		last if time() > $limit;
		sleep 0.1;
	}
	return $answer;
}

# What the code gives is like this before a minute is over.
sub like_soon
{
	my ($code, $like, $what) = @_;
	my $text;
	eventually(sub { $text = $code->() // ''; $text =~ $like });
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return like($text, $like, $what);
}

# ---- ports ---------------------------------------------------------------------

# So many ports of 127.0.0.1 for daemons, each with $behind more behind it.  They
# are held, bound without listening, until the test ends: no other test and no
# outgoing connection gets one, not while its daemon is down, either.
my @held;

sub free_ports
{
	my ($count, $behind) = @_;
	my @ports;
	for (1 .. 1000)
	{
		last if @ports == $count;
		my $p = 20000 + int(rand(12000));
		my @s = map { _hold_port($p + $_) } 0 .. $behind // 0;
		next if grep { !defined } @s;
		push @held, @s;
		push @ports, $p;
	}
	die 'no ports' unless @ports == $count;
	return @ports;
}

sub _hold_port
{
	my ($port) = @_;
	socket(my $s, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
	bind($s, pack_sockaddr_in($port, inet_aton('127.0.0.1'))) or return undef;
	# Bound for us alone; from here on who asks for the same may listen there.
	setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1) or die "socket: $!";
	return $s;
}

# Is the process over?  (IPC::Run tells only once its input has been pumped.)
sub has_ended
{
	my ($handle) = @_;
	my $stat = slurp("/proc/$handle->{KIDS}[0]{PID}/stat") // '';
	return $stat eq '' || $stat =~ /\) [ZX] /;
}

# Until somebody listens at the address: true; false when the process that was to
# do so has ended.
sub wait_listening
{
	my ($address, $handle) = @_;
	my $up;
	eventually(sub { ($up = IO::Socket::INET->new($address)) || has_ended($handle) });
	return defined $up;
}

# Until the cluster that the node at the address is in has so many active members.
# A server makes its log group of those that are there when it starts.
sub wait_members
{
	my ($address, $n) = @_;
	my $list = '';
	return 1 if eventually(sub {
		IPC::Run::run([ bindir() . '/auroractl', '--node', $address, 'node', 'list' ], '<', \undef, '>', \$list, '2>&1');
		return (() = $list =~ /\bactive\b/g) == $n;
	});
	diag $list;
	return 0;
}

# ---- servers -------------------------------------------------------------------

# A server that has Aurora loaded and uses the embedded daemon; conf => text
# is appended to postgresql.conf.
sub new_node
{
	my ($name, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => 1, %{ $opt{init} // {} });
	$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'aurora'
max_connections = 30
shared_buffers = 8MB
restart_after_crash = on
log_statement = none
log_replication_commands = off
autovacuum_naptime = 5s
checkpoint_timeout = 30s
wal_log_hints = off
max_wal_size = 256MB
CONF
	$node->append_conf('postgresql.conf', $opt{conf}) if defined $opt{conf};
	unless ($opt{no_start})
	{
		$node->start;
		create_extension($node);
	}
	return $node;
}

sub create_extension
{
	my ($node) = @_;
	$node->safe_psql('postgres',
		'CREATE EXTENSION IF NOT EXISTS aurora; CREATE EXTENSION IF NOT EXISTS amcheck;');
	return;
}

# After a kill: children may hold the shared memory a moment longer, whoever
# inherits the dead postmaster may take a moment to bury it (until then a new
# one takes it for alive), and recovery takes as long as it takes.
sub start_again
{
	my ($node, %opt) = @_;
	my $limit = time() + ($opt{timeout} // 120);
	my $pidfile = $node->data_dir . '/postmaster.pid';
	my $old = -e $pidfile ? (split /\n/, slurp($pidfile))[0] : undef;

	while (time() < $limit)
	{
		my $left = grep { _uses_data_dir($_, $node->data_dir) } _server_pids();
		last if $left == 0 && !(defined $old && kill(0, $old));
		sleep 0.05;
	}
	$node->start;
	return;
}

sub _server_pids
{
	my @pids;
	opendir my $d, '/proc' or return;
	while (my $e = readdir $d)
	{
		next unless $e =~ /^\d+$/;
		my $exe = readlink "/proc/$e/exe";
		push @pids, $e if defined $exe && $exe =~ m{/postgres(?: \(deleted\))?$};
	}
	closedir $d;
	return @pids;
}

sub _uses_data_dir
{
	my ($pid, $dir) = @_;
	my $cwd = readlink "/proc/$pid/cwd";
	return defined $cwd && ($cwd eq $dir || $cwd eq Cwd::realpath($dir));
}

# Direct children of a process, as pid => command line.
sub children
{
	my ($parent) = @_;
	my %kids;
	opendir my $d, '/proc' or return;
	while (my $e = readdir $d)
	{
		next unless $e =~ /^\d+$/;
		my $stat = slurp("/proc/$e/stat") or next;
		next unless $stat =~ /^\d+ \(.*\) \S (\d+)/s && $1 == $parent;
		my $cmd = slurp("/proc/$e/cmdline") // '';
		$cmd =~ s/\0+$//;
		$cmd =~ tr/\0/ /;
		$kids{$e} = $cmd;
	}
	closedir $d;
	return %kids;
}

sub backend_pids
{
	my ($node) = @_;
	my %kids = children($node->{_pid});
	return grep { $kids{$_} =~ /\[local\]/ } keys %kids;
}

sub slurp
{
	my ($file) = @_;
	open my $f, '<', $file or return;
	local $/ = undef;
	my $text = <$f>;
	close $f;
	return $text;
}

sub kill_quietly
{
	my ($sig, @pids) = @_;
	return kill($sig, grep { defined && $_ > 0 } @pids);
}

# ---- the daemon and the shipper ------------------------------------------------

# One column of the view that shows the shipper, or undef while the server
# cannot be asked.
sub shipper_field
{
	my ($node, $field) = @_;
	my ($rc, $out) =
	  $node->psql('postgres', "SELECT $field FROM aurora.shipper");
	return $rc == 0 && $out ne '' ? $out : undef;
}

sub daemon_pid
{
	my ($node) = @_;
	return shipper_field($node, 'daemon_pid');
}

sub wait_for_daemon
{
	my ($node, %opt) = @_;
	my $limit = time() + ($opt{timeout} // 120);
	while (time() < $limit)
	{
		my $pid = daemon_pid($node);
		return $pid
		  if defined $pid && $pid > 0
		  && $pid != ($opt{not} // 0)
		  && kill(0, $pid)
		  && (shipper_field($node, 'state') // '') eq 'streaming';
		sleep 0.1;
	}
	die 'the daemon did not come up; see ' . $node->logfile;
}

# Throw the cached pages of all aurora tables away.
sub evict_all
{
	my ($node, $db) = @_;
	return $node->safe_psql($db // 'postgres',
		"SELECT coalesce(sum(aurora.evict(relid)), 0) FROM aurora.tables WHERE persistence = 'permanent'");
}

# ---- pgbench -------------------------------------------------------------------

# pgbench's tables; opt: scale, am (default aurora), db.
sub init_pgbench
{
	my ($node, %opt) = @_;
	my $scale = $opt{scale} // 1;
	my $am = $opt{am} // 'aurora';
	my @options = @{ $opt{options} // [] };
	local $ENV{PGOPTIONS} = "-c default_table_access_method=$am";
	local %ENV = (%ENV, $node->_get_env());
	system_or_bail('pgbench', '-i', '-q', '-s', $scale, @options,
		$opt{db} // 'postgres');
	$node->{aurora_scale} = $scale;
	$node->{aurora_acked} = 0;
	$node->{aurora_unknown} = 0;
	return;
}

my $load_number = 0;

# pgbench in the background.  opt: clients, seconds, script (file), options.
sub start_load
{
	my ($node, %opt) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir('load');
	my $clients = $opt{clients} // 4;
	my @cmd = (
		'pgbench', '-n', '-c', $clients, '-j', 2,
		'-T', $opt{seconds} // 60, '-l', "--log-prefix=$dir/log");
	push @cmd, '-f', $opt{script} if defined $opt{script};
	push @cmd, @{ $opt{options} // [] };
	push @cmd, $opt{db} // 'postgres';

	my ($out, $err) = ('', '');
	my %env = $node->_get_env();
	local @ENV{ keys %env } = values %env;
	local $ENV{PGOPTIONS} = $opt{pgoptions} // '';
	local $ENV{PGAPPNAME} = 'pgbench';
	my $h = IPC::Run::start(\@cmd, '<', \undef, '>', \$out, '2>', \$err);
	return {
		handle => $h,
		dir => $dir,
		clients => $clients,
		out => \$out,
		err => \$err,
		node => $node,
		counted => $opt{uncounted} ? 0 : 1,
	};
}

# Wait for its end; opt end => 1 has it end now as if its time were over: it begins
# no more transactions.  Counts what it was told is committed: its log has one line
# for each transaction whose COMMIT was answered.  Returns (exit code, acknowledged).
sub wait_load
{
	my ($load, %opt) = @_;
	if ($opt{end})
	{
		# (Not before it has asked for the signal: it opens its logs after that.)
		eventually(sub { my @logs = glob "$load->{dir}/log.*"; @logs > 0 || !$load->{handle}->pumpable });
		$load->{handle}->signal('ALRM');
	}
	my $ok = eval { $load->{handle}->finish; 1 };
	diag "pgbench: $@" unless $ok;
	my $rc = $load->{handle}->full_result(0) // 0;
	my $n = 0;
	foreach my $f (glob "$load->{dir}/log.*")
	{
		open my $fh, '<', $f or next;
		while (<$fh>) { $n++ if /^\d+ \d+ \d/ && !/ (?:failed|skipped)/; }
		close $fh;
	}
	if ($load->{counted})
	{
		my $node = $load->{node};
		$node->{aurora_acked} += $n;
		# At each client's break-off one commit may have happened unheard.
		$node->{aurora_unknown} += $load->{clients};
	}
	return ($rc, $n);
}

# Longest time without a commit in a load, in seconds.
sub longest_gap
{
	my ($load) = @_;
	my @at;
	foreach my $f (glob "$load->{dir}/log.*")
	{
		foreach (split /\n/, slurp($f) // '')
		{
			my @w = split / /;
			push @at, $w[4] + $w[5] / 1e6 if @w >= 6;
		}
	}
	@at = sort { $a <=> $b } @at;
	my $gap = 0;
	for my $i (1 .. $#at)
	{
		$gap = $at[$i] - $at[ $i - 1 ] if $at[$i] - $at[ $i - 1 ] > $gap;
	}
	return $gap;
}

sub acknowledged { return $_[0]->{aurora_acked} // 0; }

# ---- the checks ----------------------------------------------------------------

# pgbench's invariant and the acknowledged transactions, as one test.
sub check_sums
{
	my ($node, $what, %opt) = @_;
	my $s = $node->{aurora_scale};
	my $row = $node->safe_psql('postgres', <<'SQL');
SELECT (SELECT sum(abalance) FROM pgbench_accounts),
       (SELECT sum(tbalance) FROM pgbench_tellers),
       (SELECT sum(bbalance) FROM pgbench_branches),
       (SELECT coalesce(sum(delta), 0) FROM pgbench_history),
       (SELECT count(*) FROM pgbench_accounts),
       (SELECT count(DISTINCT aid) FROM pgbench_accounts),
       (SELECT count(*) FROM pgbench_tellers),
       (SELECT count(*) FROM pgbench_branches),
       (SELECT count(*) FROM pgbench_history)
SQL
	my ($a, $t, $b, $h, $na, $nd, $nt, $nb, $nh) = split /\|/, $row;
	my ($acked, $unknown) = ($node->{aurora_acked}, $node->{aurora_unknown});
	my @bad;
	push @bad, "sums differ: accounts $a tellers $t branches $b history $h"
	  unless $a == $t && $t == $b && $b == $h;
	push @bad, "accounts $na, distinct $nd, tellers $nt, branches $nb at scale $s"
	  unless $na == 100000 * $s && $nd == $na && $nt == 10 * $s && $nb == $s;
	push @bad, "history has $nh rows, acknowledged were $acked"
	  if $nh < $acked;
	push @bad, "history has $nh rows, at most "
	  . ($acked + $unknown) . " can have been committed"
	  if $nh > $acked + $unknown;
	# What is there now is the base of the next round.
	$node->{aurora_acked} = $nh;
	$node->{aurora_unknown} = 0;
	is(join('; ', @bad), '', "$what: sums agree, nothing acknowledged is lost ($nh transactions)");
	return @bad == 0;
}

# Everything of the list at the top.
sub check_all
{
	my ($node, $what, %opt) = @_;
	my $ok = $opt{no_pgbench} ? 1 : check_sums($node, $what, %opt);

	# Each table is read and compared with storage at once, by one statement:
	# in a cache of 1 MB nothing of it may be left a moment later.
	my $out = $node->safe_psql('postgres', <<'SQL');
CREATE TEMP TABLE problems (t regclass, blkno bigint, lsn pg_lsn, problem text) USING heap;
CREATE TEMP TABLE counted (has_rows bool, compared bigint) USING heap;
DO $$
DECLARE
  r record;
  n bigint;
BEGIN
  FOR r IN SELECT c.oid::regclass AS t, c.oid FROM pg_class c JOIN pg_am a ON a.oid = c.relam
            WHERE a.amname = 'aurora' AND c.relpersistence = 'p' AND c.relkind IN ('r', 't', 'm')
  LOOP
    EXECUTE format('SELECT count(*) FROM %s', r.t) INTO n;
    INSERT INTO counted SELECT n > 0, v.compared FROM aurora.verify_count(r.oid) v;
    INSERT INTO problems SELECT r.t, v.* FROM aurora.verify_pages(r.oid) v;
  END LOOP;
END $$;
SELECT coalesce(bool_or(has_rows), false), coalesce(sum(compared), 0) FROM counted;
SELECT * FROM problems;
SQL
	my ($counted, @problems) = split /\n/, $out;
	my ($any_rows, $compared) = split /\|/, $counted;
	is(join("\n", @problems), '', "$what: cached pages are storage's pages")
	  or $ok = 0;
	ok($any_rows eq 'f' || $compared > 0, "$what: $compared pages were compared") or $ok = 0;

	my ($rc, $so, $se) = $node->psql('postgres', <<'SQL');
SELECT count(*), count(bt_index_check(i.indexrelid, true))
  FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
  JOIN pg_class c ON c.oid = i.indrelid
  JOIN pg_am a ON a.oid = c.relam JOIN pg_am xa ON xa.oid = x.relam
 WHERE a.amname = 'aurora' AND xa.amname = 'btree' AND i.indisvalid AND x.relkind = 'i'
   AND c.relpersistence = 'p';
SQL
	is($rc == 0 ? '' : $se, '', "$what: indexes and tables agree (amcheck)")
	  or $ok = 0;

	unless ($opt{no_pgbench})
	{
		$out = $node->safe_psql('postgres', <<'SQL');
SET enable_seqscan = off; SET enable_bitmapscan = off;
SELECT count(*), sum(abalance), count(DISTINCT aid) FROM pgbench_accounts WHERE aid > 0;
SQL
		my $out2 = $node->safe_psql('postgres', <<'SQL');
SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off;
SELECT count(*), sum(abalance), count(DISTINCT aid) FROM pgbench_accounts WHERE aid > 0;
SQL
		is($out, $out2, "$what: index scan and sequential scan agree") or $ok = 0;
	}

	$out = $node->safe_psql('postgres', <<'SQL');
SELECT c.oid::regclass, aurora.local_size(c.oid), (pg_stat_file(pg_relation_filepath(c.oid), true)).size
  FROM pg_class c JOIN pg_am a ON a.oid = c.relam
 WHERE a.amname = 'aurora' AND c.relpersistence = 'p' AND c.relkind IN ('r', 't', 'm')
   AND (aurora.local_size(c.oid) > 0
        OR coalesce((pg_stat_file(pg_relation_filepath(c.oid), true)).size, 0) > 0)
SQL
	is($out, '', "$what: local main forks are 0 bytes") or $ok = 0;
	return $ok;
}

# Seconds that a piece of code takes.
sub timed
{
	my ($code) = @_;
	my $t0 = time();
	$code->();
	return time() - $t0;
}

1;
