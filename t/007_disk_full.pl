# SPDX-License-Identifier: Apache-2.0
#
# No space in the daemon's directory: writers wait or get a clear error, reads
# go on, and when there is space again all goes on by itself and nothing is
# lost.  With a small file system of its own if the caller could mount one
# (AURORA_TEST_SMALL_DISK), and with the daemon's reserve in any case.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

seed_random();

# Fill, see that writers wait, free, see that they go on.
sub full_disk
{
	my ($node, $what, $fill, $free) = @_;
	my $load = start_load($node, clients => 4, seconds => 120);
	sleep 1;
	$fill->();
	ok(eventually(sub { (shipper_field($node, 'state') // '') eq 'waiting' }), "$what: the shipper says that storage takes no more");
	like_soon(sub { shipper_field($node, 'last_error') }, qr/space|full|reserve/i, "$what: and why");

	# A commit that must be on storage waits and can be cancelled.
	my ($rc, $out, $err) = $node->psql('postgres',
		"SET statement_timeout = '2s'; UPDATE pgbench_branches SET filler = 'x'");
	# (For a lock of one that waits so, or, once it has that, for storage.)
	like($err, qr/canceling (?:statement due to statement timeout|wait for synchronous replication)/, "$what: a writer waits");
	# What storage has is readable.
	is($node->safe_psql('postgres', "SET statement_timeout = '60s'; SELECT count(*) FROM untouched"),
		'20000', "$what: what nobody changed is readable");

	$free->();
	ok($node->poll_query_until('postgres', "SELECT state = 'streaming' FROM aurora.shipper"),
		"$what: it goes on when there is space");
	sleep 2;
	my ($lrc, $n) = wait_load($load, end => 1);
	is($lrc, 0, "$what: no client was broken off") or diag ${ $load->{err} };
	cmp_ok($n, '>', 0, "$what: $n transactions");
	check_all($node, "$what: afterwards");
	return;
}

sub set_up
{
	my ($name, $conf) = @_;
	my $node = new_node($name,
		conf => "synchronous_standby_names = 'aurora'\nshared_buffers = 2MB\n$conf");
	init_pgbench($node, scale => 1);
	$node->safe_psql('postgres', "CREATE TABLE untouched (a int) USING aurora WITH (autovacuum_enabled = off); INSERT INTO untouched SELECT generate_series(1, 20000)");
	$node->safe_psql('postgres', "SELECT aurora.evict('untouched')");
	return $node;
}

# ---- a reserve larger than what is free
{
	my $node = set_up('reserve', '');
	my $dir = $node->data_dir;
	my @df = split ' ', (split /\n/, `df -Pm '$dir'`)[1];
	my $too_much = $df[3] + 100_000;
	full_disk(
		$node,
		'reserve',
		# The supervisor restarts the daemon when its options change.
		sub {
			$node->append_conf('postgresql.conf', "aurora.storaged_options = '--disk-reserve-mb $too_much'");
			$node->reload;
		},
		sub {
			$node->append_conf('postgresql.conf', "aurora.storaged_options = ''");
			$node->reload;
		});
	$node->stop;
}

# ---- a file system that is really full
SKIP:
{
	my $small = $ENV{AURORA_TEST_SMALL_DISK};
	skip 'no small file system (the caller may not mount)', 1
	  unless defined $small && $small ne '' && -w $small;
	mkdir "$small/storage" or die;
	my $node = set_up('small',
		"aurora.storage_directory = '$small/storage'\naurora.storage_socket = ''\n"
		  . "aurora.storaged_options = '--disk-reserve-mb 16'\n");
	my $ballast = "$small/ballast";
	full_disk(
		$node,
		'full file system',
		sub {
			# Until nothing fits.
			open my $f, '>', $ballast or die;
			$f->autoflush(1);
			my $block = "\0" x 65536;
			while (defined(my $w = syswrite $f, $block)) { last if $w < 65536; }
			close $f;
		},
		sub { unlink $ballast; });

	# Killed while full, started while full, then freed.
	open my $f, '>', $ballast or die;
	my $block = "\0" x 65536;
	while (defined(my $w = syswrite $f, $block)) { last if $w < 65536; }
	close $f;
	my $load = start_load($node, clients => 4, seconds => 60);
	sleep 2;
	my $pid = daemon_pid($node);
	kill_quietly('KILL', $pid);
	sleep 3;
	unlink $ballast;
	sleep 1;
	wait_load($load, end => 1);
	wait_for_daemon($node);
	check_all($node, 'killed while the disk was full');
	$node->stop;
}

done_testing();
