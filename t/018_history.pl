# SPDX-License-Identifier: Apache-2.0
#
# Pages as of an LSN: thousands of (page, LSN, bytes) samples are taken from
# storage while a random load runs, and read again after the load, after the
# daemon was killed with -9 (its memory is small, so it compacts all the time)
# and after a restart: the same bytes each time, for every LSN inside the
# retention.  Below it, a clear refusal.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use PostgreSQL::Test::Utils;
use Test::More;

seed_random();
my $node = new_node('main', conf => <<'CONF');
synchronous_standby_names = 'aurora'
aurora.storaged_options = '--memory 32 --retention-mb 40 --scrub-mb-per-s 100'
CONF
init_pgbench($node, scale => 1);
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE samples (rel regclass, blk bigint, lsn pg_lsn, sum text) USING heap;
CREATE PROCEDURE take(n int) LANGUAGE plpgsql AS $$
DECLARE
	r regclass;
	at pg_lsn;
	b bigint;
	blocks bigint;
BEGIN
	FOR i IN 1 .. n LOOP
		r := (ARRAY['pgbench_accounts', 'pgbench_accounts', 'pgbench_tellers',
					'pgbench_branches', 'pgbench_history'])[1 + floor(random() * 5)];
		at := pg_current_wal_flush_lsn() - floor(random() * 2000000)::numeric;
		blocks := aurora.relation_size(r) / 8192;
		CONTINUE WHEN blocks = 0;
		b := CASE WHEN random() < 0.5 THEN blocks - 1 ELSE floor(random() * blocks) END;
		BEGIN
			INSERT INTO samples SELECT r, b, at, md5(aurora.read_page(r, b, at));
		EXCEPTION WHEN snapshot_too_old THEN
			NULL;	-- before the volume's first position
		END;
		IF i % 50 = 0 THEN COMMIT; END IF;
	END LOOP;
END $$;
SQL

# (Not so much log that the first samples would be too old on a fast machine.)
my $load = start_load($node, clients => 3, seconds => 14, options => [ '-R', 800 ]);
$node->safe_psql('postgres', "CALL take(500)") for 1 .. 8;
my ($rc, $acked) = wait_load($load);
is($rc, 0, "the load ran ($acked transactions)");
my $taken = $node->safe_psql('postgres', 'SELECT count(*) FROM samples');
cmp_ok($taken, '>', 2500, "$taken samples");

sub compare
{
	my ($when) = @_;
	my $differing = $node->safe_psql('postgres', <<'SQL');
SELECT count(*), min(rel || ' block ' || blk || ' at ' || lsn)
FROM samples WHERE sum IS DISTINCT FROM md5(aurora.read_page(rel, blk, lsn))
SQL
	is($differing, '0|', "$when: every sample gives the same bytes");
	return;
}


compare('after the load');
my $pid = wait_for_daemon($node);
kill_quietly(9, $pid);
$pid = wait_for_daemon($node, not => $pid);
compare('daemon killed');
$node->restart;
wait_for_daemon($node);
compare('restarted');

# Verification while pages change: it holds the LSN that it may ask for.
$load = start_load($node, clients => 3, seconds => 5);
for (1 .. 5)
{
	is($node->safe_psql('postgres',
			"SELECT differing FROM aurora.verify_count('pgbench_accounts')"),
		0, 'verified under load');
}
wait_load($load);

# Enough log, and the first samples are gone: refused, not answered wrong.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE filler (a int, t text) USING aurora;
ALTER TABLE filler ALTER t SET STORAGE EXTERNAL;
INSERT INTO filler SELECT g, repeat(md5(g::text), 200) FROM generate_series(1, 9000) g;
SELECT aurora.sync();
SQL
like_soon(sub {
		($node->psql('postgres', 'SELECT aurora.read_page(rel, blk, lsn) FROM samples ORDER BY lsn LIMIT 1'))[2];
	}, qr/is older than what storage keeps/, 'below the horizon: refused');
check_all($node, 'at the end');
$node->stop;
done_testing();
