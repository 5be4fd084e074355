# SPDX-License-Identifier: Apache-2.0
#
# t/012_crash_maintenance.pl with more kills.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";

$ENV{AURORA_TEST_KILLS} //= 100;
require "$FindBin::Bin/../012_crash_maintenance.pl";
