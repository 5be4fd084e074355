# SPDX-License-Identifier: Apache-2.0
#
# Whole databases with aurora tables inside: CREATE DATABASE ... TEMPLATE with
# both strategies, ALTER DATABASE ... SET TABLESPACE there and back, each also
# cancelled and killed in its middle and tried again; RENAME, DROP, tablespaces,
# pg_dump and pg_restore.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use IO::Socket::UNIX;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = new_node('main', conf => <<'CONF');
shared_buffers = 2MB
autovacuum = off
synchronous_standby_names = 'aurora'
max_prepared_transactions = 2
CONF
my ($rc, $out, $err);

# ---- what is copied --------------------------------------------------------

foreach my $spc ('one', 'two', 'three')
{
	$node->safe_psql('postgres',
		"SET allow_in_place_tablespaces = on; CREATE TABLESPACE $spc LOCATION ''");
}
$node->safe_psql('postgres', 'CREATE DATABASE src');
$node->safe_psql('src', <<'SQL');
CREATE EXTENSION aurora;
CREATE EXTENSION amcheck;
SET default_table_access_method = aurora;
CREATE TABLE plain (id int PRIMARY KEY, v text, n int);
INSERT INTO plain SELECT g, 'row ' || g || repeat('x', g % 300), g % 1000 FROM generate_series(1, 20000) g;
CREATE INDEX plain_n ON plain (n);
CREATE INDEX plain_hash ON plain USING hash (v);
UPDATE plain SET n = -n WHERE id % 7 = 0;
DELETE FROM plain WHERE id % 11 = 0;
VACUUM plain;
UPDATE plain SET v = v || '!' WHERE id % 13 = 0;
CREATE TABLE toasted (id int PRIMARY KEY, big text);
ALTER TABLE toasted ALTER big SET STORAGE external;
INSERT INTO toasted SELECT g, (SELECT string_agg(md5(g::text || i), '') FROM generate_series(1, 400) i) FROM generate_series(1, 60) g;
CREATE TABLE child (id int PRIMARY KEY, plain_id int REFERENCES plain ON DELETE CASCADE);
INSERT INTO child SELECT id, id FROM plain WHERE id % 5 = 0;
CREATE TABLE parts (k int, v text, PRIMARY KEY (k)) PARTITION BY RANGE (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (1000);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (1000) TO (2000) USING heap;
CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (2000) TO (3000) TABLESPACE three;
INSERT INTO parts SELECT g, md5(g::text) FROM generate_series(0, 2999) g;
CREATE TABLE elsewhere (a int, v text) TABLESPACE three;
INSERT INTO elsewhere SELECT g, repeat('e', 100) FROM generate_series(1, 3000) g;
CREATE MATERIALIZED VIEW mv AS SELECT n, count(*) AS c FROM plain GROUP BY n;
CREATE TABLE in_heap (a int) USING heap;
INSERT INTO in_heap SELECT generate_series(1, 1000);
CREATE UNLOGGED TABLE unlogged (a int);
INSERT INTO unlogged SELECT generate_series(1, 1000);
CREATE TABLE nothing (a int);
CREATE TABLE cut (a int, v text);
INSERT INTO cut SELECT g, repeat('c', 200) FROM generate_series(1, 5000) g;
DELETE FROM cut WHERE a > 1000;
VACUUM cut;
CREATE TABLE gone (a int);
INSERT INTO gone SELECT generate_series(1, 1000);
DROP TABLE gone;
BEGIN; CREATE TABLE aborted (a int); INSERT INTO aborted SELECT generate_series(1, 1000); ROLLBACK;
CREATE FUNCTION fingerprint(t regclass) RETURNS text LANGUAGE plpgsql AS $$
DECLARE r text;
BEGIN
  EXECUTE format('SELECT count(*) || '':'' || coalesce(md5(string_agg(md5(x::text), '''' ORDER BY md5(x::text))), '''') FROM %s x', t) INTO r;
  RETURN r;
END $$;
SQL

# One line a table: rows and a checksum of them.
sub fingerprint
{
	my ($db) = @_;
	return $node->safe_psql($db, <<'SQL');
SELECT c.oid::regclass, fingerprint(c.oid::regclass) FROM pg_class c
 WHERE relkind IN ('r', 'm') AND relnamespace = 'public'::regnamespace AND relname <> 'unlogged'
 ORDER BY c.oid::regclass::text COLLATE "C"
SQL
}

sub check_db
{
	my ($db, $expected, $what) = @_;
	is(fingerprint($db), $expected, "$what: the rows");
	is($node->safe_psql($db, <<'SQL'), 't|0|0', "$what: pages as on storage, local files empty");
SELECT v.relations > 10, v.differing,
       (SELECT count(*) FROM aurora.tables t WHERE t.persistence = 'permanent' AND t.local_size > 0)
  FROM aurora.verify_all() v
SQL
	($rc, $out, $err) = $node->psql($db, <<'SQL');
SELECT count(bt_index_check(i.indexrelid, true))
  FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am a ON a.oid = x.relam
 WHERE a.amname = 'btree' AND x.relkind = 'i';
SQL
	is($rc == 0 ? '' : $err, '', "$what: amcheck");
	is($node->safe_psql($db, <<'SQL'), '0|20000', "$what: an index scan and a join by key");
SET enable_seqscan = off;
SELECT (SELECT count(*) FROM child c LEFT JOIN plain p ON p.id = c.plain_id WHERE p.id IS NULL),
       (SELECT count(*) FROM plain WHERE id BETWEEN 1 AND 30000) + 1818
SQL
	return;
}

# A database that works: changes, constraints, maintenance; leaves it as it was.
sub use_db
{
	my ($db, $what) = @_;
	my $before = fingerprint($db);
	($rc, $out, $err) = $node->psql($db, 'INSERT INTO child VALUES (-1, -1)');
	like($err, qr/violates foreign key/, "$what: foreign keys are enforced");
	($rc, $out, $err) = $node->psql($db, "INSERT INTO plain VALUES (1, 'again', 0)");
	like($err, qr/duplicate key/, "$what: primary keys are enforced");
	$node->safe_psql($db, <<'SQL');
INSERT INTO plain SELECT g, 'new ' || g, 0 FROM generate_series(50001, 53000) g;
UPDATE plain SET n = n + 1 WHERE id > 50000;
DELETE FROM plain WHERE id > 50000;
INSERT INTO cut SELECT -g, repeat('d', 300) FROM generate_series(1, 2000) g;
DELETE FROM cut WHERE a < 0;
INSERT INTO nothing SELECT generate_series(1, 2000);
VACUUM ANALYZE;
TRUNCATE nothing;
CREATE TABLE fresh USING aurora AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 2000) g;
SQL
	is($node->safe_psql($db, 'SELECT count(*), sum(a), count(DISTINCT b) FROM fresh'),
		'2000|2001000|2000', "$what: a new table");
	$node->safe_psql($db, 'DROP TABLE fresh; REFRESH MATERIALIZED VIEW mv; CLUSTER plain USING plain_pkey');
	is(fingerprint($db), $before, "$what: changed and put back");
	return;
}

# Directories of databases that do not exist.
sub orphans
{
	my $oids = $node->safe_psql('postgres', 'SELECT oid FROM pg_database');
	my %known = map { $_ => 1 } split /\n/, $oids;
	return join ' ', sort grep { /(\d+)$/ && !$known{$1} }
	  map { glob $node->data_dir . "/$_/[0-9]*" } ('base', 'pg_tblspc/*/PG_*');
}

sub crc32c
{
	my ($bytes) = @_;
	my $crc = 0xffffffff;
	foreach my $b (unpack 'C*', $bytes)
	{
		$crc ^= $b;
		$crc = ($crc >> 1) ^ (0x82f63b78 & -($crc & 1)) & 0xffffffff for 1 .. 8;
	}
	return $crc ^ 0xffffffff;
}

# What storage holds: "tablespace/database/relfilenode" => blocks, of all
# relations with pages.
sub stored
{
	my ($lsn, $system) = split /\|/, $node->safe_psql('postgres',
		'SELECT aurora.sync() - \'0/0\', system_identifier FROM pg_control_system()');
	my $s = IO::Socket::UNIX->new(Peer => $node->data_dir . '/aurora/storaged.sock') or die $!;
	my $ask = sub {
		my ($type, $payload) = @_;
		my $head = pack('a4 v v Q< V', 'AUR1', 1, $type, 7, length $payload);
		syswrite $s, $head . pack('V', crc32c($head . $payload)) . $payload;
		my ($in, $body) = ('', '');
		while (length $in < 24) { sysread($s, $in, 24 - length $in, length $in) or die 'closed'; }
		my (undef, undef, $got, undef, $len) = unpack 'a4 v v Q< V', $in;
		while (length $body < $len) { sysread($s, $body, $len - length $body, length $body) or die 'closed'; }
		die "answer $got: $body" unless $got == $type + 1;
		return $body;
	};
	$ask->(1, pack('Q< C v/a', $system, 1, 'test'));
	my (undef, $n, @e) = unpack 'Q< V V*', $ask->(13, pack('V Q<', 0, $lsn));
	my %stored;
	while (my ($spc, $db, $rel, undef, $blocks) = splice @e, 0, 5)
	{
		$stored{"$spc/$db/$rel"} = $blocks;
	}
	return %stored;
}

# Of these: what belongs to no database, or lies where its database has nothing.
sub stored_orphans
{
	my %stored = stored();
	my %known = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', <<'SQL');
SELECT t.oid || '/' || d.oid FROM pg_database d, pg_tablespace t
 WHERE t.oid = d.dattablespace OR t.spcname = 'three'
SQL
	return join ' ', sort grep { m{(.*)/} && !$known{$1} } keys %stored;
}

# psql in the background; returns the handle.
sub start_psql
{
	my ($db, $sql, $errors) = @_;
	my %env = $node->_get_env();
	local @ENV{ keys %env } = values %env;
	return IPC::Run::start(
		[ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $db, '-c', $sql ],
		'<', \undef, '>', \my $o, '2>', $errors);
}

# Start the statement, and have the daemon stopped as soon as so many bytes of log
# have been written: then it waits for the pages it wants to copy next.  Returns
# the handle and the daemon's process.
sub start_and_stop_daemon
{
	my ($sql, $bytes, $errors) = @_;
	my $daemon = wait_for_daemon($node);
	my $said = '';
	my $watcher = start_psql('postgres', <<"SQL", \$said);
DO \$\$
DECLARE start pg_lsn := pg_current_wal_insert_lsn();
BEGIN
  FOR i IN 1 .. 60000 LOOP
    IF pg_current_wal_insert_lsn() - start > $bytes THEN
      COPY (SELECT) TO PROGRAM 'cat >/dev/null; kill -STOP $daemon';
      RETURN;
    END IF;
    PERFORM pg_sleep(0.001);
  END LOOP;
  RAISE 'there is not so much log';
END \$\$
SQL
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%kill -STOP $daemon%' AND wait_event = 'PgSleep'")
	  or die 'nobody watches';
	my $h = start_psql('postgres', $sql, $errors);
	$watcher->finish;
	is($said, '', "$sql: under way");
	return ($h, $daemon);
}

my $want = fingerprint('src');
check_db('src', $want, 'source');

# ---- CREATE DATABASE ... TEMPLATE ----------------------------------------------

foreach my $strategy ('wal_log', 'file_copy')
{
	# once while we are connected to the template ourselves
	$node->safe_psql($strategy eq 'wal_log' ? 'src' : 'postgres',
		"CREATE DATABASE copy_$strategy TEMPLATE src STRATEGY $strategy"
		  . ($strategy eq 'file_copy' ? ' TABLESPACE one' : ''));
	check_db("copy_$strategy", $want, $strategy);
	use_db("copy_$strategy", $strategy);
}
is($node->safe_psql('copy_file_copy', 'SELECT count(*) FROM unlogged'), '1000', 'an unlogged table');
$node->safe_psql('copy_wal_log', 'CREATE DATABASE copy_of_copy TEMPLATE copy_wal_log');
check_db('copy_of_copy', $want, 'copy of a copy');
$node->safe_psql('copy_wal_log', 'UPDATE plain SET n = 0; TRUNCATE toasted');
is(fingerprint('src'), $want, 'the template does not see changes of its copy');
$node->safe_psql('postgres', 'DROP DATABASE copy_wal_log');
$node->restart;
foreach my $db ('src', 'copy_file_copy', 'copy_of_copy')
{
	check_db($db, $want, "$db after a restart");
}

# refused as ever
{
	my $s = $node->background_psql('src');
	$s->query_safe('SELECT 1');
	($rc, $out, $err) = $node->psql('postgres', 'CREATE DATABASE nope TEMPLATE src');
	like($err, qr/source database "src" is being accessed by other users/, 'not while others are connected');
	($rc, $out, $err) = $node->psql('postgres', 'ALTER DATABASE src SET TABLESPACE two');
	like($err, qr/database "src" is being accessed by other users/, 'nor a move');
	$s->quit;
	$node->safe_psql('src', "BEGIN; INSERT INTO nothing VALUES (1); PREPARE TRANSACTION 'p'");
	($rc, $out, $err) = $node->psql('postgres', 'ALTER DATABASE src SET TABLESPACE two');
	like($err, qr/prepared transaction/, 'nor while a prepared transaction waits');
	$node->safe_psql('src', "ROLLBACK PREPARED 'p'");
}
($rc, $out, $err) = $node->psql('postgres', 'BEGIN; ALTER DATABASE src SET TABLESPACE two;');
like($err, qr/cannot run inside a transaction block/, 'no move in a transaction block');
($rc, $out, $err) = $node->psql('src', 'ALTER DATABASE src SET TABLESPACE two');
like($err, qr/cannot change the tablespace of the currently open database/, 'no move of the current database');
($rc, $out, $err) = $node->psql('postgres', 'ALTER DATABASE src SET TABLESPACE three');
like($err, qr/some relations of database "src" are already in tablespace "three"/, 'no move to where its tables are');
($rc, $out, $err) = $node->psql('postgres', 'ALTER DATABASE src SET TABLESPACE pg_global');
like($err, qr/pg_global cannot be used/, 'no move to pg_global');
($rc, $out, $err) = $node->psql('postgres', 'ALTER DATABASE nowhere SET TABLESPACE two');
like($err, qr/database "nowhere" does not exist/, 'no such database');
($rc, $out, $err) = $node->psql('postgres', 'ALTER DATABASE src SET TABLESPACE nowhere');
like($err, qr/tablespace "nowhere" does not exist/, 'no such tablespace');
$node->safe_psql('postgres', 'CREATE ROLE nobody LOGIN');
($rc, $out, $err) = $node->psql('postgres', 'SET ROLE nobody; ALTER DATABASE src SET TABLESPACE two');
like($err, qr/must be owner of database src/, 'no move of somebody else\'s database');
$node->safe_psql('postgres', 'ALTER DATABASE src SET TABLESPACE pg_default');
check_db('src', $want, 'after what was refused');
is(orphans(), '', 'no directory is left behind');
is(stored_orphans(), '', 'nor pages');

# the template goes, the copy stays
$node->safe_psql('postgres', 'ALTER DATABASE src RENAME TO src2');
check_db('src2', $want, 'renamed');
$node->safe_psql('postgres', 'DROP DATABASE src2');
check_db('copy_of_copy', $want, 'template dropped');
$node->safe_psql('postgres', 'ALTER DATABASE copy_of_copy RENAME TO src');

# ---- SET TABLESPACE ------------------------------------------------------------

foreach my $spc ('two', 'pg_default', 'two', 'pg_default')
{
	$node->safe_psql('postgres', "ALTER DATABASE src SET TABLESPACE $spc");
	check_db('src', $want, "moved to $spc");
	$node->restart if $spc eq 'two';
	use_db('src', "in $spc");
}
# What shrank elsewhere must not come back with its old size.
$node->safe_psql('src', 'DELETE FROM elsewhere; INSERT INTO nothing SELECT generate_series(1, 50000);');
$node->safe_psql('postgres', 'ALTER DATABASE src SET TABLESPACE two');
$node->safe_psql('src', 'TRUNCATE nothing; DELETE FROM plain WHERE id > 2000; VACUUM plain; ');
$want = fingerprint('src');
$node->safe_psql('postgres', 'ALTER DATABASE src SET TABLESPACE pg_default');
is(fingerprint('src'), $want, 'shrunk elsewhere');
$node->stop('immediate');
$node->start;
is(fingerprint('src'), $want, 'the same after a crash');
$node->safe_psql('src', <<'SQL');
INSERT INTO plain SELECT g, 'late ' || g, 1 FROM generate_series(30001, 50000) g;
SQL

# What docs/operation.md says: how to get rid of what a crash in CREATE
# DATABASE has left.  Its number is first used for a copy.
sub reclaim
{
	my ($what) = @_;
	my $left = orphans();
	my ($oid) = $left =~ m{(\d+)$} or die "no directory was left behind";
	like(stored_orphans(), qr{^\d+/$oid/}, "$what: a crash leaves pages");
	system_or_bail('rm', '-r', split / /, $left);
	$node->safe_psql('postgres', "CREATE DATABASE leftover OID = $oid TEMPLATE src");
	is(fingerprint('leftover'), $want, "$what: its Oid used again");
	use_db('leftover', "$what: its Oid used again");
	$node->safe_psql('postgres', 'DROP DATABASE leftover');
	return;
}

# ---- in the middle ---------------------------------------------------------------

$node->safe_psql('src', <<'SQL');
CREATE TABLE large (id int PRIMARY KEY, v text) USING aurora;
INSERT INTO large SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 45000) g;
REFRESH MATERIALIZED VIEW mv;
SQL
$want = fingerprint('src');
my @commands = (
	[ 'CREATE DATABASE again TEMPLATE src STRATEGY wal_log', 'again', 24 ],
	[ 'CREATE DATABASE again TEMPLATE src STRATEGY file_copy', 'again', 12 ],
	[ 'ALTER DATABASE src SET TABLESPACE two', 'src', 12 ]);
foreach my $c (@commands)
{
	my ($sql, $db, $mb) = @$c;
	foreach my $how ('cancelled', 'terminated', 'killed')
	{
		my $said = '';
		my ($h, $daemon) = start_and_stop_daemon($sql, $mb << 20, \$said);
		if ($how eq 'killed')
		{
			# all at once: nobody is left to clean up
			my %kids = children($node->{_pid});
			kill_quietly('STOP', $node->{_pid});
			kill_quietly(9, keys %kids);
			$node->kill9;
			kill_quietly('CONT', $daemon);
			eval { $h->finish };
			start_again($node);
		}
		else
		{
			my $f = $how eq 'cancelled' ? 'pg_cancel_backend' : 'pg_terminate_backend';
			is($node->safe_psql('postgres', "SELECT $f(pid) FROM pg_stat_activity WHERE query = '$sql'"),
				't', "$sql: to be $how");
			eval { $h->finish };
			kill_quietly('CONT', $daemon);
			like($said, $how eq 'cancelled' ? qr/canceling statement/ : qr/terminating connection|closed the connection/,
				"$sql: $how");
			is(orphans(), '', "$sql: $how, no directory is left behind");
			is(stored_orphans(), '', "$sql: $how, nor pages");
		}
		is($node->safe_psql('postgres', "SELECT count(*) FROM pg_database WHERE datname = 'again'"),
			'0', "$sql: $how, no new database");
		is(fingerprint('src'), $want, "$sql: $how, the old one is whole");
	}
	# It has shrunk since, so that more was copied than now is there.
	$node->safe_psql('src', 'DELETE FROM large WHERE id > (SELECT max(id) - 3000 FROM large); VACUUM large');
	$want = fingerprint('src');
	$node->safe_psql('postgres', $sql);
	is(fingerprint($db), $want, "$sql: at last");
	reclaim($sql) if $db eq 'again';
	is(stored_orphans(), '', "$sql: at last, storage holds no more than it must");
	use_db($db, $sql);
	$node->stop('immediate');
	$node->start;
	is(fingerprint($db), $want, "$sql: and after a crash");
	$node->safe_psql('postgres', 'DROP DATABASE again WITH (FORCE)') if $db eq 'again';
}
$node->safe_psql('postgres', 'ALTER DATABASE src SET TABLESPACE pg_default');
is(fingerprint('src'), $want, 'and back');

# ---- tablespaces -----------------------------------------------------------------

($rc, $out, $err) = $node->psql('postgres', 'DROP TABLESPACE three');
like($err, qr/tablespace "three" is not empty/, 'DROP TABLESPACE is refused while aurora tables lie in it');

# ---- pg_dump, pg_restore -----------------------------------------------------------

my $dir = PostgreSQL::Test::Utils::tempdir();
my %env = $node->_get_env();
local @ENV{ keys %env } = values %env;
my $ams = q{SELECT string_agg(DISTINCT a.amname, ',' ORDER BY a.amname) FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'm')};
foreach my $format ('custom', 'directory', 'plain')
{
	command_ok([ 'pg_dump', '-F', $format, '-f', "$dir/$format", 'src' ], "pg_dump, $format");
	$node->safe_psql('postgres', "CREATE DATABASE $format");
	command_ok(
		$format eq 'plain'
		? [ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/$format", $format ]
		: [ 'pg_restore', '-j', $format eq 'directory' ? 2 : 1, '-d', $format, "$dir/$format" ],
		"restored, $format");
	check_db_rows($format, $format);
	is($node->safe_psql($format, $ams), 'aurora,heap', "$format: access methods as they were");
}

sub check_db_rows
{
	my ($db, $what) = @_;
	is(fingerprint($db), $want, "$what: the rows");
	return;
}

# another access method at the other end
foreach my $am ('aurora', 'heap')
{
	$node->safe_psql('postgres', "CREATE DATABASE other_$am");
	$node->safe_psql('postgres', "ALTER DATABASE other_$am SET default_table_access_method = $am");
	$node->safe_psql("other_$am", 'CREATE EXTENSION aurora');
	IPC::Run::run([ 'pg_restore', '-f', "$dir/sql.$am", "$dir/custom" ]) or die;
	my $text = slurp("$dir/sql.$am");
	like($text, qr/default_table_access_method = aurora/, 'the dump names the access method');
	$text =~ s/^SET default_table_access_method = .*$//mg;
	open my $f, '>', "$dir/sql.$am" or die;
	print $f $text;
	close $f;
	command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/sql.$am", "other_$am" ],
		"restored without access methods, default $am");
	check_db_rows("other_$am", "other_$am");
	is($node->safe_psql("other_$am", $ams), $am, "all in $am");
}

# ---- DROP DATABASE ------------------------------------------------------------------

{
	my $s = $node->background_psql('src');
	$s->query_safe('SELECT 1');
	$node->safe_psql('postgres', 'DROP DATABASE src WITH (FORCE)');
	eval { $s->quit };
}
foreach my $db ('copy_file_copy', 'custom', 'directory', 'plain', 'other_aurora', 'other_heap')
{
	$node->safe_psql('postgres', "DROP DATABASE $db");
}
$node->restart;
$node->safe_psql('postgres', "DROP TABLESPACE $_") foreach ('one', 'two');
check_all($node, 'at the end', no_pgbench => 1);
$node->stop;
done_testing();
