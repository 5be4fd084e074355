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
use PostgreSQL::Test::Utils;
use Test::More;

my $python = -x '/usr/bin/python3' ? '/usr/bin/python3' : 'python3';
my $seed = $ENV{AURORA_TEST_SEED} || int(rand(1_000_000_000));
my $dir = PostgreSQL::Test::Utils::tempdir_short();

# (exit code, output) of a campaign.
sub campaign
{
	my ($name, @options) = @_;
	my $out = '';
	IPC::Run::run(
		[ $python, "$FindBin::Bin/faults/campaign.py", '--work', "$dir/$name",
			'--bindir', bindir(), '--seed', $seed, @options ],
		'<', \undef, '>', \$out, '2>&1');
	my $rc = $? >> 8;
	diag $out if $rc > 1;
	return ($rc, $out);
}

my ($rc, $out) = campaign('short', '--faults', 12, '--nodes', '3,5', '--hold', '0.5,1.5');
is($rc, 0, 'faults under load: nothing lost, nothing wrong') or diag $out;
my ($figures) = $out =~ /^(faults: .*)$/m;
like($figures // '', qr/^faults: 12 .* lost or wrong 0;/, '... all 12 of them');
note $figures // 'no figures';

foreach my $plant ([ 'planted_loss', qr/ledger, client \d+: lost 1 / ],
	[ 'planted_theft', qr/accounts do not have what the ledger says/ ])
{
	($rc, $out) = campaign($plant->[0], '--nodes', 3, '--faults', 1, '--only', $plant->[0]);
	is($rc, 1, "$plant->[0] is found");
	like($out, $plant->[1], '... for what it is');
}

done_testing();
