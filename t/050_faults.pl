# SPDX-License-Identifier: Apache-2.0
#
# A short campaign of faults on three and on five storage nodes under a load of
# transfers: nothing that a client was told is lost (t/faults; make
# check-faults runs a long one).  And the checker finds what it shall find.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use File::Copy qw(copy);
use PostgreSQL::Test::Utils;
use Test::More;

my $python = -x '/usr/bin/python3' ? '/usr/bin/python3' : 'python3';
my $seed = $ENV{AURORA_TEST_SEED} || int(rand(1_000_000_000));
# Where there is room for 1 GB, as for all tests' data (/tmp may be small), unless
# that is too long for sockets.
my $dir = PostgreSQL::Test::Utils::tempdir('f');
$dir = PostgreSQL::Test::Utils::tempdir_short() if length("$dir/planted_theft/3nodes/.s.PGSQL.5432") > 100;
my ($port) = free_ports(1, 15);		# two for each of up to seven nodes, where nodes have no networks of their own
my $log_dir = $ENV{TESTLOGDIR} || PostgreSQL::Test::Utils::tempdir();

# (exit code, output) of a campaign.  The whole output, and what a campaign in
# which something was wrong left, goes to the logs of this test.
sub campaign
{
	my ($name, @options) = @_;
	my $out = '';
	IPC::Run::run(
		[ $python, "$FindBin::Bin/faults/campaign.py", '--work', "$dir/$name",
			'--bindir', bindir(), '--port', $port, '--seed', $seed, @options ],
		'<', \undef, '>', \$out, '2>&1');
	my $rc = $? >> 8;
	my $prefix = "$log_dir/050_faults_$name";
	open my $f, '>', "$prefix.log" or die "$prefix.log: $!";
	print $f $out;
	close $f;
	foreach my $file (glob "$dir/$name/*/*.log $dir/$name/*/state.json")
	{
		my ($count, $base) = $file =~ m{/(\d+)nodes/([^/]+)$} or next;
		copy($file, "${prefix}_${count}_$base") or die "$file: $!";
	}
	return ($rc, $out);
}

# The end of it: what was wrong first, how to do it again, the figures.
sub in_short
{
	my ($out) = @_;
	my @lines = split /\n/, $out;
	my @last = grep { /^(?:WRONG|again:|faults:) ?/ } @lines;
	return join "\n", map { substr($_, 0, 700) } @last ? @last : @lines[ -(@lines < 8 ? @lines : 8) .. -1 ];
}

my ($rc, $out) = campaign('short', '--faults', 12, '--nodes', '3,5', '--hold', '0.5,1.5');
is($rc, 0, 'faults under load: nothing lost, nothing wrong') or diag in_short($out);
my ($figures) = $out =~ /^(faults: .*)$/m;
like($figures // '', qr/^faults: 12 .* lost or wrong 0;/, '... all 12 of them');
note $figures // 'no figures';

foreach my $plant ([ 'planted_loss', qr/ledger, client \d+: lost 1 / ],
	[ 'planted_theft', qr/accounts do not have what the ledger says/ ])
{
	($rc, $out) = campaign($plant->[0], '--nodes', 3, '--faults', 1, '--only', $plant->[0]);
	is($rc, 1, "$plant->[0] is found");
	like(in_short($out), $plant->[1], '... for what it is, in the last lines');
}

done_testing();
