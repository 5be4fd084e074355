# SPDX-License-Identifier: Apache-2.0
#
# Contrib modules and the functions redirected for them, where a restart or a
# failure is needed: autoprewarm leaves aurora pages out and loads the rest;
# pg_visibility's checks find what a damaged visibility map promises in vain;
# pg_prewarm waits for storage, and can be cancelled; a database's size is null
# while storage does not answer.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use File::Copy qw(copy);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $pid;
END { kill_quietly('CONT', $pid) if defined $pid; }

my $node = new_node('main', conf => <<'CONF');
shared_preload_libraries = 'aurora,pg_prewarm'
autovacuum = off
CONF
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION pg_prewarm;
CREATE EXTENSION pg_visibility;
CREATE EXTENSION pg_buffercache;
CREATE TABLE aur (a int, b text) USING aurora;
CREATE TABLE heap (a int, b text) USING heap;
INSERT INTO aur SELECT g, repeat('x', 100) FROM generate_series(1, 3000) g;
INSERT INTO heap SELECT g, repeat('x', 100) FROM generate_series(1, 3000) g;
VACUUM (FREEZE) aur, heap;
SELECT count(*) FROM aur;
SELECT count(*) FROM heap;
SQL
my %rel = map { $_ => $node->safe_psql('postgres', "SELECT pg_relation_filenode('$_')") } 'aur', 'heap';
my %map = map { $_ => $node->data_dir . '/' . $node->safe_psql('postgres', "SELECT pg_relation_filepath('$_')") . '_vm' } 'aur', 'heap';
sub cached
{
	my ($table, $fork) = @_;
	return $node->safe_psql('postgres',
		"SELECT count(*) FROM pg_buffercache WHERE relfilenode = $rel{$table} AND relforknumber = " . ($fork // 0));
}

# ---- autoprewarm
$node->safe_psql('postgres', 'SELECT autoprewarm_dump_now()');
$node->stop;
my $blocks = slurp($node->data_dir . '/autoprewarm.blocks');
cmp_ok(scalar(() = $blocks =~ /^\d+,\d+,$rel{aur},0,/mg), '>', 20, 'autoprewarm wrote down aurora pages');
cmp_ok($rel{aur}, '<', $rel{heap}, 'and will meet them before those of heap');
copy($map{$_}, "$map{$_}.frozen") or die foreach 'aur', 'heap';
my $log = -s $node->logfile;
$node->start;
ok($node->poll_query_until('postgres',
		"SELECT pg_read_file('" . $node->logfile . "', $log, 10000000) ~ 'autoprewarm successfully prewarmed'"),
	'autoprewarm ends well after a restart');
unlike(substr(slurp($node->logfile), $log), qr/ERROR|PANIC|could not read block/, 'without an error');
cmp_ok(cached('heap'), '>', 20, 'pages of heap were loaded');
cmp_ok(cached('aur', 2), '>', 0, 'and the local forks of aurora tables');
is(cached('aur'), 0, 'pages of aurora tables were left out');
is($node->safe_psql('postgres', 'SELECT count(*), sum(a) FROM aur'), '3000|4501500', 'nothing is lost');
is($node->safe_psql('postgres', "SELECT aurora.evict('aur') > 0, pg_prewarm('aur') = pg_relation_size('aur') / 8192"),
	't|t', 'pg_prewarm loads them');
cmp_ok(cached('aur'), '>', 20, 'all');

# ---- a visibility map that says more than is true
foreach my $table ('aur', 'heap')
{
	is($node->safe_psql('postgres', "SELECT (SELECT count(*) FROM pg_check_visible('$table')), (SELECT count(*) FROM pg_check_frozen('$table'))"),
		'0|0', "$table: the map is right");
	$node->safe_psql('postgres', "DELETE FROM $table WHERE a IN (3, 2000)");
}
$node->stop;
copy("$map{$_}.frozen", $map{$_}) or die foreach 'aur', 'heap';
$node->start;
wait_for_daemon($node);
foreach my $check ('pg_check_visible', 'pg_check_frozen')
{
	my $found = $node->safe_psql('postgres', "SELECT string_agg(t_ctid::text, ' ' ORDER BY t_ctid) FROM $check('aur')");
	like($found, qr/^\(0,3\) \(\d+,\d+\)$/, "$check finds the rows that are not as the map says");
	is($found, $node->safe_psql('postgres', "SELECT string_agg(t_ctid::text, ' ' ORDER BY t_ctid) FROM $check('heap')"),
		"$check: as of a heap table");
	is($node->safe_psql('postgres', "SELECT count(*) FROM (SELECT $check('aur')) x"), '2', "$check in a target list");
}
$node->safe_psql('postgres', 'SELECT pg_truncate_visibility_map(\'aur\')');
$node->safe_psql('postgres', 'VACUUM (FREEZE) aur');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_check_visible('aur')"), '0', 'a new map is right again');
is($node->safe_psql('postgres', 'SELECT count(*) FROM aur'), '2998', 'truncating the map cuts no rows off');

# ---- an error while a session looks for the twins is not remembered
my $oid = $node->safe_psql('postgres', "SELECT 'aur'::regclass::oid");
my $size_query = "SELECT pg_relation_size(CAST($oid AS regclass)) > 0";
my $session = $node->background_psql('postgres', on_error_stop => 0);
is($session->query("SET aurora.redirect_functions = off; SET lock_timeout = '200ms'; $size_query"), 'f', 'not redirected');
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE pg_namespace IN ACCESS EXCLUSIVE MODE');
$session->query("SET aurora.redirect_functions = on; $size_query");
like($session->{stderr}, qr/canceling statement due to lock timeout/, 'an error');
$locker->query_safe('ROLLBACK');
is($session->query($size_query), 't', 'redirected after an error');
$session->quit;
$locker->quit;

# ---- twins are for everybody who has the original, whatever default
# privileges say
$node->safe_psql('postgres', 'CREATE DATABASE strict; CREATE ROLE anybody');
is($node->safe_psql('strict', <<'SQL'), "t|t", 'default privileges take no size away');
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
CREATE EXTENSION aurora;
SET ROLE anybody;
SELECT pg_relation_size('pg_class') > 0, pg_database_size('strict') > 0;
SQL
$node->safe_psql('postgres', 'DROP DATABASE strict');

# ---- storage does not answer
my $size = $node->safe_psql('postgres', "SELECT aurora.sync() IS NOT NULL AND pg_database_size('postgres') > 0");
is($size, 't', 'the size of a database is known');
$node->safe_psql('postgres', "SELECT aurora.evict('aur')");
$pid = wait_for_daemon($node);
kill_quietly('STOP', $pid);
my ($rc, $out, $err);
my $t = timed(sub { ($rc, $out, $err) = $node->psql('postgres', "SELECT pg_database_size('postgres') IS NULL"); });
is($out, 't', 'storage is away: the size of a database is null');
like($err, qr/WARNING: +size of database "postgres" is not known: storage node .* does not answer/, 'with a warning that says why');
cmp_ok($t, '<', 20, 'and does not wait long');
is($node->safe_psql('postgres', "SET aurora.redirect_functions = off; SELECT pg_database_size('postgres') > 0"),
	't', 'files can be counted');
$t = timed(sub {
	($rc, $out, $err) = $node->psql('postgres', "SET statement_timeout = '1s'; SELECT pg_prewarm('aur')");
});
like($err, qr/canceling statement due to statement timeout/, 'pg_prewarm waits and can be cancelled');
cmp_ok($t, '<', 30, 'in time');
kill_quietly('CONT', $pid);
is($node->safe_psql('postgres', "SELECT pg_prewarm('aur') > 20"), 't', 'and goes on when storage is back');
$node->stop;
done_testing();
