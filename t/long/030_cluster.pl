# SPDX-License-Identifier: Apache-2.0
#
# t/030_cluster.pl with more rounds of faults.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";

$ENV{AURORA_TEST_ROUNDS} //= 10;
require "$FindBin::Bin/../030_cluster.pl";
