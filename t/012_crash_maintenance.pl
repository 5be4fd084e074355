# SPDX-License-Identifier: Apache-2.0
#
# kill -9 at random moments in the middle of everything that writes a record of
# ours besides plain traffic: VACUUM in its forms, VACUUM FULL, CLUSTER, index
# builds, TOAST, prepared transactions, COPY FREEZE, TRUNCATE, changes of the
# access method, materialized views, copies of databases.
#
# Whoever changes an aurora table changes a model of it in heap within the same
# transaction, and notes its number; so after each crash the two are the same,
# and each number that a client was told is there.  Besides, after each crash:
# cached pages are storage's pages, indexes agree with tables, main forks have 0
# bytes, what the visibility map says is true of the pages, and an index-only
# scan counts what a sequential scan counts.  In the end each kind of record
# (AU_RECORD_KINDS in au_wal_format.h) must have been replayed by a recovery.
#
# AURORA_TEST_KILLS sets the number of rounds.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my @kinds = qw(INSERT MULTI_INSERT DELETE UPDATE HOT_UPDATE LOCK CONFIRM PRUNE
  VACUUM VISIBLE FREEZE EXTEND IMAGE TRUNCATE);
my $kills = $ENV{AURORA_TEST_KILLS} // 8;

seed_random();
my $node = new_node('main', conf => <<'CONF');
autovacuum_naptime = 1s
max_prepared_transactions = 30
max_worker_processes = 12
min_parallel_index_scan_size = 0
maintenance_work_mem = 1MB
lock_timeout = 3s
deadlock_timeout = 100ms
wal_keep_size = 2GB
max_wal_size = 64MB
CONF

# ---- tables, their models, what changes them ---------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION pageinspect;
CREATE EXTENSION pg_visibility;
CREATE EXTENSION pg_walinspect;
CREATE TABLE noted (op bigint PRIMARY KEY) USING heap;

-- v: lazy vacuum and index builds; w: rewritten; e: its end comes and goes;
-- p: prepared transactions
DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY '{v,w,e,p}'::text[] LOOP
    EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY, n int, filler text) USING aurora WITH (fillfactor = 80)', t);
    EXECUTE format('CREATE TABLE m_%s (id int PRIMARY KEY, n int, f text) USING heap', t);
    EXECUTE format('CREATE INDEX ON %I (n)', t);
    EXECUTE format('INSERT INTO %I SELECT g, 0, repeat(md5(g::text), 4) FROM generate_series(1, 1500) g', t);
    EXECUTE format('INSERT INTO m_%s SELECT id, n, md5(filler) FROM %I', t, t);
  END LOOP;
END $$;
CREATE TABLE big (id int PRIMARY KEY, a text, b text, c text, d text) USING aurora;
ALTER TABLE big ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE MAIN, ALTER c SET STORAGE EXTENDED,
  ALTER d SET STORAGE EXTENDED, ALTER c SET COMPRESSION lz4, ALTER d SET COMPRESSION pglz;
CREATE TABLE m_big (id int PRIMARY KEY, f text) USING heap;
CREATE TABLE fr (id int, t text) USING aurora;
CREATE TABLE m_fr (id int) USING heap;
CREATE MATERIALIZED VIEW mv USING aurora AS SELECT id, n FROM v;
CREATE UNIQUE INDEX ON mv (id);

-- Random changes of a hundred rows of a table and of its model, in
-- subtransactions some of which are undone.  Sessions that change the same
-- hundred take turns, or their models would miss each other's work.
CREATE FUNCTION change(t text, op bigint, steps int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE k int; dice float; hundred int := floor(random() * 20)::int;
BEGIN
  INSERT INTO noted VALUES (op);
  PERFORM pg_advisory_xact_lock(hashtext(t), hundred);
  FOR i IN 1..steps LOOP
    k := 1 + hundred * 100 + floor(random() * 80)::int;
    dice := random();
    BEGIN
      IF dice < 0.35 THEN			-- HOT
        EXECUTE format('UPDATE %1$I SET filler = filler || ''x'' WHERE id = $1', t) USING k;
      ELSIF dice < 0.55 THEN
        EXECUTE format('UPDATE %1$I SET n = n + 1 WHERE id BETWEEN $1 AND $1 + 10', t) USING k;
      ELSIF dice < 0.65 THEN
        EXECUTE format('DELETE FROM %1$I WHERE id BETWEEN $1 AND $1 + 20', t) USING k;
      ELSIF dice < 0.75 THEN
        EXECUTE format('SELECT count(*) FROM (SELECT 1 FROM %1$I WHERE id BETWEEN $1 AND $1 + 5 FOR NO KEY UPDATE) x', t) USING k;
      ELSIF dice < 0.9 THEN
        EXECUTE format('INSERT INTO %1$I SELECT g, 7, repeat(md5(g::text), 4) FROM generate_series($1, $1 + 5) g ON CONFLICT (id) DO UPDATE SET n = excluded.n', t) USING k;
      ELSE
        PERFORM pg_advisory_xact_lock(hashtext(t), -1);
        EXECUTE format('COPY %I FROM PROGRAM ''for i in $(seq %s %s); do printf "%%d\t1\t%%0100d\n" $i $i; done''', t, op * 40 % 1000000 + 10000, op * 40 % 1000000 + 10039);
        EXECUTE format('DELETE FROM %1$I WHERE id >= 10000 AND random() < 0.9', t);
      END IF;
      IF random() < 0.2 THEN
        RAISE EXCEPTION 'undo' USING ERRCODE = 'AU001';
      END IF;
      IF dice >= 0.9 THEN
        EXECUTE format('DELETE FROM m_%1$s WHERE id >= 10000; INSERT INTO m_%1$s SELECT id, n, md5(filler) FROM %1$I WHERE id >= 10000', t);
      ELSE
        EXECUTE format('DELETE FROM m_%1$s WHERE id BETWEEN %2$s AND %2$s + 20; INSERT INTO m_%1$s SELECT id, n, md5(filler) FROM %1$I WHERE id BETWEEN %2$s AND %2$s + 20', t, k);
      END IF;
    EXCEPTION WHEN SQLSTATE 'AU001' OR unique_violation THEN NULL;
    END;
  END LOOP;
END $$;

CREATE FUNCTION noise(n int) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(md5(random()::text), '') FROM generate_series(1, n)
$$;
CREATE FUNCTION change_big(op bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE k int := 1 + floor(random() * 40)::int; dice float := random();
BEGIN
  INSERT INTO noted VALUES (op);
  PERFORM pg_advisory_xact_lock(0, 0);
  IF dice < 0.5 THEN
    INSERT INTO big VALUES (k, noise(200), noise(60), noise(500), repeat(noise(10), 100))
      ON CONFLICT (id) DO UPDATE SET a = excluded.a, c = excluded.c;
  ELSIF dice < 0.8 THEN
    UPDATE big SET d = repeat(noise(100), 10), b = b || 'y' WHERE id = k;
  ELSE
    DELETE FROM big WHERE id BETWEEN k AND k + 3;
  END IF;
  DELETE FROM m_big;
  INSERT INTO m_big SELECT id, md5(a || b || c || d) FROM big;
END $$;
SQL
$node->safe_psql('postgres', 'CREATE DATABASE original');
$node->safe_psql('original', <<'SQL');
CREATE EXTENSION aurora;
CREATE TABLE t (id int PRIMARY KEY, x text) USING aurora;
INSERT INTO t SELECT g, repeat(md5(g::text), 20) FROM generate_series(1, 1000) g;
SQL
my $first_lsn = $node->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');

# ---- what runs until it is killed ----------------------------------------------

my $op = 0;

# SQL, and the line that tells that it was done.
sub told
{
	my ($sql) = @_;
	return "$sql\n\\if :ERROR\n\\else\n\\echo told $op\n\\endif\n";
}

sub change
{
	my ($table, $steps) = @_;
	$op++;
	return told("SELECT change('$table', $op, $steps);");
}

sub pick { return $_[ rand @_ ]; }

my %worker = (
	traffic => sub { return change(pick('v', 'w'), 5); },
	vacuum => sub {
		my $options = pick(
			'FREEZE', 'INDEX_CLEANUP ON', 'INDEX_CLEANUP ON, PARALLEL 2', 'PARALLEL 2, FREEZE',
			'DISABLE_PAGE_SKIPPING', 'ANALYZE', 'INDEX_CLEANUP OFF');
		my $table = pick('v', 'w', 'p', 'big');
		return "VACUUM ($options) $table;\n" . change('v', 3);
	},
	truncation => sub {
		# What never was can go at once, whoever else runs.
		return change('e', 3)
		  . "BEGIN;\nINSERT INTO e SELECT g, 1, repeat('e', 200) FROM generate_series(100000, 102000) g;\n"
		  . "ROLLBACK;\nVACUUM (TRUNCATE) e;\n";
	},
	rewrite => sub {
		return pick(
			"VACUUM FULL w;\n", "CLUSTER w USING w_pkey;\n", "CLUSTER w USING w_n_idx;\n",
			"ALTER TABLE w SET ACCESS METHOD heap;\nALTER TABLE w SET ACCESS METHOD aurora;\n",
			"BEGIN;\nALTER TABLE w ALTER n TYPE bigint;\nROLLBACK;\n",
			"VACUUM FULL big;\n") . change('w', 3);
	},
	index => sub {
		return pick(
			"CREATE INDEX x1 ON v (filler);\nDROP INDEX x1;\n",
			"CREATE INDEX CONCURRENTLY x2 ON v (n, id);\nDROP INDEX x2;\n",
			"REINDEX TABLE CONCURRENTLY v;\n", "REINDEX TABLE big;\n",
			"CREATE UNIQUE INDEX CONCURRENTLY x3 ON w (id);\nDROP INDEX x3;\n") . change('v', 2);
	},
	toast => sub { $op++; return told("SELECT change_big($op);"); },
	prepared => sub {
		$op++;
		my $end = pick('COMMIT', 'COMMIT', 'ROLLBACK');
		return "BEGIN;\nSELECT change('p', $op, 4);\n\\if :ERROR\nROLLBACK;\n\\else\n"
		  . "PREPARE TRANSACTION 'g$op';\n\\if :ERROR\n\\else\n\\echo prepared $op\nSELECT pg_sleep(0.01);\n"
		  . "$end PREPARED 'g$op';\n\\if :ERROR\n\\else\n\\echo $end $op\n\\endif\n\\endif\n\\endif\n";
	},
	load => sub {
		my $n = 100 + int(rand(900));
		$op++;
		return pick(
			"BEGIN;\nTRUNCATE fr, m_fr;\nCOPY fr FROM PROGRAM 'for i in \$(seq $n); do printf \"%d\\t%0200d\\n\" \$i \$i; done' WITH (FREEZE);\n"
			  . "INSERT INTO m_fr SELECT id FROM fr;\nINSERT INTO noted VALUES ($op);\n" . told('COMMIT;'),
			"BEGIN;\nTRUNCATE fr;\nINSERT INTO fr SELECT 1, 'gone' FROM generate_series(1, 100);\nROLLBACK;\n",
			"BEGIN;\nINSERT INTO fr SELECT g, 'more' FROM generate_series(1001, 1000 + $n) g;\n"
			  . "INSERT INTO m_fr SELECT g FROM generate_series(1001, 1000 + $n) g;\nCOMMIT;\n");
	},
	view => sub {
		return pick("REFRESH MATERIALIZED VIEW mv;\n", "REFRESH MATERIALIZED VIEW CONCURRENTLY mv;\n");
	},
	database => sub {
		my $how = pick('WAL_LOG', 'FILE_COPY');
		return "DROP DATABASE IF EXISTS copy;\nCREATE DATABASE copy TEMPLATE original STRATEGY $how;\n";
	});

sub start_worker
{
	my ($name) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir_short() . "/$name.sql";
	my %w = (name => $name, out => '', err => '');
	append_to_file($file, "SELECT setseed(" . sprintf('%.6f', rand()) . ");\n"
		  . join('', map { $worker{$name}->() } 1 .. 150));
	$w{handle} = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', $file ],
		'<', \undef, '>', \$w{out}, '2>', \$w{err});
	return \%w;
}

# What a worker's client was told, into %$told: op => last word about it.
sub end_worker
{
	my ($w, $told) = @_;
	eval { $w->{handle}->finish; };
	$told->{$2} = $1 while $w->{out} =~ /^(told|prepared|COMMIT|ROLLBACK) (\d+)$/mg;
	# Anything but waiting for each other and the crash is a fault.
	return grep { !/deadlock detected|lock timeout|server closed|postmaster|terminat|connection|could not send|restart|recovery mode|shutting down|already exists|does not exist|is being accessed|other session/ }
	  $w->{err} =~ /(?:ERROR|FATAL|PANIC):.*/g;
}

# What the server said around each of those faults: who met it, doing what.
sub said
{
	my @log = split /\n/, slurp($node->logfile);
	foreach my $fault (@_)
	{
		my ($at) = grep { index($log[$_], $fault) >= 0 } 0 .. $#log;
		next unless defined $at;
		my ($pid) = $log[$at] =~ /\[(\d+)\]/;
		my @of = grep { !defined $pid || $log[$_] =~ /\[$pid\]/ || $log[$_] =~ /^\s/ }
		  ($at < 20 ? 0 : $at - 20) .. ($at + 12 > $#log ? $#log : $at + 12);
		diag join "\n", @log[@of];
	}
	return;
}

# ---- what must hold afterwards -----------------------------------------------

sub check_told
{
	my ($what, $told) = @_;
	my %prepared = map { s/^g//r => 1 }
	  split /\n/, $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts');
	my @lost = grep { $told->{$_} eq 'prepared' && !$prepared{$_} } keys %$told;
	# Its client heard of PREPARE, but perhaps not of what came next.
	my %noted = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', 'SELECT op FROM noted');
	my @undecided = sort { $a <=> $b } keys %prepared;
	foreach my $g (@undecided)
	{
		push @lost, "$g, finished and prepared" if ($told->{$g} // 'prepared') ne 'prepared';
	}
	push @lost, grep { $told->{$_} =~ /^(?:told|COMMIT)$/ && !$noted{$_} } keys %$told;
	push @lost, map { "$_ is there" } grep { $told->{$_} eq 'ROLLBACK' && $noted{$_} } keys %$told;
	# A prepared one that is gone was finished by a command whose answer was lost:
	# only each session's last command can be.
	@lost = grep { !($_ =~ /^\d+$/ && $told->{$_} eq 'prepared' && $_ == last_prepared($told)) } @lost;
	is("@lost", '', "$what: " . scalar(keys %$told) . ' answers hold, '
		  . scalar(@undecided) . ' prepared');
	$node->safe_psql('postgres', pick('COMMIT', 'ROLLBACK') . " PREPARED 'g$_'") foreach @undecided;
	return;
}

sub last_prepared
{
	my ($told) = @_;
	my ($last) = sort { $b <=> $a } grep { $told->{$_} ne 'told' } keys %$told;
	return $last;
}

sub check_contents
{
	my ($what) = @_;
	my $sql = join ' UNION ALL ', map
	{
		"SELECT '$_', count(*) FROM (SELECT id, n, md5(filler) AS f FROM $_) a"
		  . " FULL JOIN m_$_ b USING (id) WHERE (a.n, a.f) IS DISTINCT FROM (b.n, b.f)"
	} qw(v w p e);
	$sql .= ' UNION ALL SELECT \'big\', count(*) FROM (SELECT id, md5(a || b || c || d) AS f FROM big) a FULL JOIN m_big b USING (id) WHERE a.f IS DISTINCT FROM b.f';
	$sql .= ' UNION ALL SELECT \'fr\', abs((SELECT count(*) FROM fr) - (SELECT count(*) FROM m_fr)) + abs((SELECT coalesce(sum(id), 0) FROM fr) - (SELECT coalesce(sum(id), 0) FROM m_fr))';
	my @bad = grep { !/\|0$/ } split /\n/, $node->safe_psql('postgres', $sql);
	is("@bad", '', "$what: tables and models are the same");

	if ($node->safe_psql('postgres', "SELECT count(*) FROM pg_database WHERE datname = 'copy' AND datconnlimit <> -2"))
	{
		is($node->safe_psql('copy', "SELECT count(*), sum(id), count(*) FILTER (WHERE x = repeat(md5(id::text), 20)) FROM t; SELECT differing FROM aurora.verify_all(); SELECT count(*) FILTER (WHERE id > 0) FROM t"),
			"1000|500500|1000\n0\n1000", "$what: the copied database is whole");
	}
	return;
}

sub check_visibility
{
	my ($what) = @_;
	my $out = $node->safe_psql('postgres', <<'SQL');
CREATE TEMP TABLE wrong (t regclass, blk bigint, why text);
DO $$
DECLARE r record; a bigint; b bigint;
BEGIN
  FOR r IN SELECT c.oid::regclass AS t, c.relkind FROM pg_class c JOIN pg_am am ON am.oid = c.relam
            WHERE am.amname = 'aurora' AND c.relpersistence = 'p' AND c.relkind IN ('r', 't', 'm')
  LOOP
    INSERT INTO wrong
      SELECT r.t, m.blkno, 'map says visible, page does not'
        FROM pg_visibility_map(r.t) m
       WHERE m.all_visible AND NOT coalesce(((page_header(aurora.read_page(r.t, m.blkno))).flags & 4) <> 0, false);
    INSERT INTO wrong
      SELECT r.t, m.blkno, 'map says frozen, a row is not'
        FROM pg_visibility_map(r.t) m, LATERAL heap_page_items(aurora.read_page(r.t, m.blkno)) i
       WHERE m.all_frozen AND i.lp_flags = 1 AND (i.t_infomask & 768) <> 768;
    IF r.relkind = 'r' AND r.t::text IN ('v', 'w', 'e', 'p', 'big') THEN
      SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
      EXECUTE format('SELECT count(*) FROM (SELECT id FROM %s WHERE id > -1) x', r.t) INTO a;
      SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off;
      EXECUTE format('SELECT count(*) FROM (SELECT id FROM %s WHERE id > -1) x', r.t) INTO b;
      SET LOCAL enable_indexscan = on; SET LOCAL enable_indexonlyscan = on;
      IF a <> b THEN
        INSERT INTO wrong VALUES (r.t, NULL, format('index-only scan counts %s, sequential scan %s', a, b));
      END IF;
    END IF;
  END LOOP;
END $$;
SELECT * FROM wrong LIMIT 20;
SQL
	is($out, '', "$what: the visibility map tells the truth");
	return;
}

# Builds that were interrupted leave invalid indexes, as on heap.
sub tidy_up
{
	my $sql = $node->safe_psql('postgres',
		"SELECT format('DROP INDEX %s;', indexrelid::regclass) FROM pg_index WHERE NOT indisvalid AND indrelid >= 16384::oid AND indexrelid::regclass::text !~ '^pg_toast'");
	$sql .= ' DROP INDEX IF EXISTS x1, x2, x3;'
	  . ' ALTER TABLE w SET ACCESS METHOD aurora;';
	$node->safe_psql('postgres', $sql);
	return;
}

# ---- rounds ------------------------------------------------------------------

# Of each kind, records that recoveries replayed.
my %replayed = map { $_ => 0 } @kinds;
my $log_read = 0;

sub count_replayed
{
	my $log = slurp($node->logfile);
	my $new = substr($log, $log_read);
	$log_read = length $log;
	while ($new =~ /redo starts at ([0-9A-F]+\/[0-9A-F]+).*?redo done at ([0-9A-F]+\/[0-9A-F]+)/sg)
	{
		my ($from, $to) = ($1, $2);
		my $rows = $node->safe_psql('postgres',
			"SELECT \"resource_manager/record_type\", count FROM pg_get_wal_stats('$from', '$to', true) WHERE \"resource_manager/record_type\" LIKE 'aurora/%' AND count > 0");
		$replayed{$1} += $2 while $rows =~ m{^aurora/(\w+)\|(\d+)$}mg;
	}
	return;
}

sub check_everything
{
	my ($what, $told) = @_;
	count_replayed();
	check_told($what, $told);
	check_visibility($what);
	tidy_up();
	check_contents($what);
	check_all($node, $what, no_pgbench => 1);
	return;
}

for my $round (1 .. $kills)
{
	my @workers = map { start_worker($_) }
	  ('traffic', 'traffic', grep { $_ ne 'traffic' } sort keys %worker);
	sleep_random(0.3, 2.5);
	$node->safe_psql('postgres', 'CHECKPOINT') if rand() < 0.3;
	my $daemon = daemon_pid($node);
	my %kids = children($node->{_pid});
	my $how = pick(
		'the postmaster', 'the postmaster and all its children', 'the postmaster and all its children',
		'the postmaster, its children and the daemon');
	$node->kill9;
	kill_quietly(9, keys %kids) if $how =~ /children/;
	kill_quietly(9, $daemon) if $how =~ /daemon/;
	my %told;
	my @faults = map { end_worker($_, \%told) } @workers;
	start_again($node);
	is(join("\n", @faults), '', "kill $round: no errors but the crash's") or said(@faults);
	check_everything("kill $round of $how", \%told);
	last unless Test::More->builder->is_passing;
}

# Each kind for certain, one after the other, all of it replayed: no checkpoint of
# its own comes between, and no snapshot of autovacuum's keeps rows.
my %told;
$node->append_conf('postgresql.conf', "autovacuum = off\ncheckpoint_timeout = 1h\nmax_wal_size = 4GB\n");
$node->reload;
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"),
	'no autovacuum any more');
$node->safe_psql('postgres', 'CHECKPOINT');
foreach my $sql (
	"SELECT setseed(0.5); SELECT change('e', 0, 200); SELECT change_big(-1)",
	# more than there can be room for: the table grows
	"INSERT INTO e SELECT g, 1, repeat('e', 200) FROM generate_series(200000, 205000) g",
	'VACUUM (FREEZE, DISABLE_PAGE_SKIPPING) e', 'DELETE FROM e; DELETE FROM m_e', 'VACUUM (TRUNCATE) e',
	'VACUUM FULL w')
{
	$node->safe_psql('postgres', $sql);
}
%replayed = map { $_ => 0 } keys %replayed;
$node->kill9;
start_again($node);
check_everything('at the end', \%told);

# ---- no crash, but a rewrite that time overtakes ------------------------------------
# VACUUM FULL copies rows that a snapshot may need when it begins.  When that
# snapshot is gone before the copying is done, those rows' TOAST values are dead
# to everybody but the copying itself, which must still find them.
{
	my %session = map { $_ => $node->background_psql('postgres', on_error_stop => 0) } qw(reader writer rewriter watcher);
	$node->safe_psql('postgres', <<'SQL');
CREATE TABLE late (id int PRIMARY KEY, t text) USING aurora
  WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
ALTER TABLE late ALTER t SET STORAGE EXTERNAL;
INSERT INTO late SELECT g, repeat(md5(g::text), 400) FROM generate_series(1, 3000) g;
SQL
	$session{reader}->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
	$node->safe_psql('postgres', 'DELETE FROM late');
	# Its many catalog changes will make the rewriting session look again at who
	# runs; it begins before that and after the DELETE.
	$session{writer}->query_safe(<<'SQL');
BEGIN;
DO $$
BEGIN
  FOR i IN 1..300 LOOP
    CREATE TABLE other (id int PRIMARY KEY, t text) USING heap;
    DROP TABLE other;
  END LOOP;
END $$;
SQL
	$session{rewriter}{stdin} .= "VACUUM FULL VERBOSE late;\n\\echo rewritten\n\\warn rewritten\n";
	$session{rewriter}{run}->pump_nb;
	# (Looked for all the time: it may be over in a moment.)
	$session{watcher}->query(<<'SQL');
DO $$
BEGIN
  FOR i IN 1..60000 LOOP
    PERFORM pg_stat_clear_snapshot();
    IF EXISTS (SELECT FROM pg_stat_progress_cluster WHERE heap_tuples_scanned > 10) THEN RETURN; END IF;
    PERFORM pg_sleep(0.001);
  END LOOP;
  RAISE 'none seen';
END $$;
SQL
	is($session{watcher}{stderr}, '', 'a rewrite has begun');
	$session{$_}->query_safe('COMMIT') foreach qw(reader writer);
	$session{rewriter}{run}->pump until $session{rewriter}{stderr} =~ /^rewritten/m;
	like($session{rewriter}{stderr}, qr/3000 dead row versions cannot be removed yet/,
		'... and copies rows that nobody needs any more when it ends, with their TOAST values');
	$_->quit foreach values %session;
	$node->safe_psql('postgres', 'DROP TABLE late');
}

$node->safe_psql('postgres', 'REFRESH MATERIALIZED VIEW mv');
is($node->safe_psql('postgres', 'SELECT count(*) FROM mv FULL JOIN v USING (id, n) WHERE mv.id IS NULL OR v.id IS NULL'),
	'0', 'the materialized view can be refreshed');
note join ' ', map { "$_ $replayed{$_}" } @kinds;
is(join(' ', grep { $replayed{$_} == 0 } @kinds), '', 'the last recovery replayed records of each kind');
is(join(' ', sort grep { my $k = $_; !grep { $_ eq $k } @kinds } keys %replayed), '', '... and of no other');
$node->stop;
done_testing();
