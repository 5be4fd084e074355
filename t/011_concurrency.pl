# SPDX-License-Identifier: Apache-2.0
#
# Sessions that meet: row locks and waiting, READ COMMITTED's second look at a
# changed row, REPEATABLE READ's refusal, SERIALIZABLE's write skew, deadlocks,
# SKIP LOCKED and NOWAIT, ON CONFLICT races.  Each scenario runs on a heap table
# and on an aurora table and must end the same.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use AuroraTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = new_node('main', conf => "deadlock_timeout = '200ms'\n");

# A scenario is a list of [session, SQL]; a session that blocks is left waiting
# until its answer is there.  Returns the transcript.
sub play
{
	my ($am, @steps) = @_;
	my %sessions;
	my @log;
	$node->safe_psql('postgres', <<"SQL");
DROP TABLE IF EXISTS acc, child;
CREATE TABLE acc (id int PRIMARY KEY, v int, note text) USING $am;
INSERT INTO acc SELECT g, 100, 'n' FROM generate_series(1, 10) g;
CREATE TABLE child (id int PRIMARY KEY, acc int REFERENCES acc) USING $am;
SQL
	foreach my $step (@steps)
	{
		my ($who, $sql) = @$step;
		my $s = $sessions{$who} //= do
		{
			my $new = $node->background_psql('postgres', on_error_stop => 0);
			my $pid = $new->query('SELECT pg_backend_pid()');
			{ psql => $new, pid => $pid, pending => 0 };
		};
		_finish($s, $who, \@log, 120) if $s->{pending};
		$s->{tag} = 'done' . ++$s->{count};
		$s->{psql}{stdout} = $s->{psql}{stderr} = '';
		$s->{psql}{stdin} .= "$sql\n\\echo $s->{tag}\n\\warn $s->{tag}\n";
		$s->{pending} = 1;
		$s->{sql} = $sql;
		_finish($s, $who, \@log, 120, 1);
		# Somebody else may have been let go by this step.
		foreach my $other (sort keys %sessions)
		{
			_finish($sessions{$other}, $other, \@log, 120, 1)
			  if $other ne $who && $sessions{$other}{pending};
		}
	}
	foreach my $who (sort keys %sessions)
	{
		_finish($sessions{$who}, $who, \@log, 120) if $sessions{$who}{pending};
		$sessions{$who}{psql}->quit;
	}
	push @log, 'end: ' . $node->safe_psql('postgres',
		"SELECT string_agg(id || '=' || v || note, ' ' ORDER BY id) FROM acc")
	  . ' / ' . $node->safe_psql('postgres', "SELECT coalesce(string_agg(id || '>' || acc, ' ' ORDER BY id), '') FROM child");
	return join "\n", @log;
}

# Does the session wait for a lock, in the end for sessions that do nothing until
# they are told to?  (A deadlock, or a lock that somebody is about to give away,
# resolves itself.)
sub _stands
{
	my ($pid) = @_;
	return $node->safe_psql('postgres', <<"SQL") eq 't';
WITH RECURSIVE b(pid, path, again) AS (
  SELECT $pid, ARRAY[$pid], false
  UNION ALL
  SELECT x, path || x, x = ANY (path) FROM b, unnest(pg_blocking_pids(b.pid)) x WHERE NOT again)
SELECT count(*) > 1 AND NOT bool_or(again)
       AND bool_and(CASE WHEN pg_blocking_pids(pid) = '{}' THEN state LIKE 'idle in transaction%'
                         ELSE wait_event_type = 'Lock' END)
  FROM b LEFT JOIN pg_stat_activity a USING (pid)
SQL
}

# Wait until the session's answer is complete, or (may_block) until it waits for
# a lock.
sub _finish
{
	my ($s, $who, $log, $timeout, $may_block) = @_;
	my $limit = Time::HiRes::time() + $timeout;
	my $p = $s->{psql};
	while (1)
	{
		$p->{run}->pump_nb;
		last if $p->{stdout} =~ /^$s->{tag}$/m && $p->{stderr} =~ /^$s->{tag}$/m;
		if ($may_block)
		{
			if (_stands($s->{pid}) && _stands($s->{pid}))
			{
				$p->{run}->pump_nb;
				last if $p->{stdout} =~ /^$s->{tag}$/m && $p->{stderr} =~ /^$s->{tag}$/m;
				push @$log, "$who: $s->{sql} ... waits" unless $s->{said_waits};
				$s->{said_waits} = 1;
				return;
			}
		}
		if (Time::HiRes::time() > $limit)
		{
			push @$log, "$who: $s->{sql} ... no answer";
			return;
		}
		sleep 0.01;
	}
	my $text = "$p->{stdout}\n$p->{stderr}";
	$text =~ s/^$s->{tag}$//mg;
	my @lines = grep { /\S/ && !/^(?:DETAIL|HINT|CONTEXT|LINE)/ } split /\n/, $text;
	s/^psql:<stdin>:\d+: // foreach @lines;
	@lines = grep { !/^(?:DETAIL|HINT|CONTEXT|LINE|\s*\^)/ && !/^Process/ } @lines;
	push @$log, "$who: $s->{sql}" . (@lines ? ' => ' . join(', ', @lines) : '');
	$s->{pending} = 0;
	$s->{said_waits} = 0;
	return;
}

my %scenario = (
	'an update waits and sees the new value' => [
		[ 1, 'BEGIN; UPDATE acc SET v = v + 10 WHERE id = 1;' ],
		[ 2, 'UPDATE acc SET v = v * 2 WHERE id = 1;' ],
		[ 1, 'COMMIT;' ],
	],
	'an update waits and finds the first undone' => [
		[ 1, 'BEGIN; UPDATE acc SET v = v + 10 WHERE id = 1;' ],
		[ 2, 'UPDATE acc SET v = v * 2 WHERE id = 1;' ],
		[ 1, 'ROLLBACK;' ],
	],
	'the row no longer matches' => [
		[ 1, 'BEGIN; UPDATE acc SET v = 0 WHERE id = 1;' ],
		[ 2, 'UPDATE acc SET note = note || 2 WHERE v = 100 AND id <= 2;' ],
		[ 1, 'COMMIT;' ],
	],
	'the row is gone' => [
		[ 1, 'BEGIN; DELETE FROM acc WHERE id = 1;' ],
		[ 2, 'UPDATE acc SET v = 5 WHERE id = 1 RETURNING *;' ],
		[ 1, 'COMMIT;' ],
	],
	'the key was changed' => [
		[ 1, 'BEGIN; UPDATE acc SET id = 11 WHERE id = 1;' ],
		[ 2, 'UPDATE acc SET v = 5 WHERE id = 1 RETURNING *;' ],
		[ 1, 'COMMIT;' ],
	],
	# The first one only locks the row: had it been updated, the others would
	# race for its new version, and either may win, on heap as well.
	'a chain of three' => [
		[ 1, 'BEGIN; SELECT v FROM acc WHERE id = 1 FOR UPDATE;' ],
		[ 2, 'BEGIN; UPDATE acc SET v = v + 10 WHERE id = 1;' ],
		[ 3, 'UPDATE acc SET v = v + 100 WHERE id = 1;' ],
		[ 1, 'COMMIT;' ],
		[ 2, 'COMMIT;' ],
	],
	'FOR UPDATE waits' => [
		[ 1, 'BEGIN; SELECT v FROM acc WHERE id = 1 FOR UPDATE;' ],
		[ 2, 'BEGIN; SELECT v FROM acc WHERE id = 1 FOR UPDATE;' ],
		[ 1, 'UPDATE acc SET v = 7 WHERE id = 1; COMMIT;' ],
		[ 2, 'COMMIT;' ],
	],
	'NOWAIT and SKIP LOCKED' => [
		[ 1, 'BEGIN; SELECT id FROM acc WHERE id < 3 ORDER BY id FOR UPDATE;' ],
		[ 2, 'SELECT id FROM acc WHERE id = 1 FOR UPDATE NOWAIT;' ],
		[ 2, 'SELECT id FROM acc WHERE id < 5 ORDER BY id FOR UPDATE SKIP LOCKED;' ],
		[ 2, 'SELECT id FROM acc WHERE id = 1 FOR KEY SHARE NOWAIT;' ],
		[ 2, 'SELECT id, v FROM acc WHERE id = 1;' ],
		[ 1, 'COMMIT;' ],
	],
	'shared locks together, an update waits for both' => [
		[ 1, 'BEGIN; SELECT id FROM acc WHERE id = 1 FOR SHARE;' ],
		[ 2, 'BEGIN; SELECT id FROM acc WHERE id = 1 FOR SHARE;' ],
		[ 3, 'UPDATE acc SET v = 3 WHERE id = 1;' ],
		[ 1, 'COMMIT;' ],
		[ 2, 'UPDATE acc SET v = v + 1 WHERE id = 2; COMMIT;' ],
	],
	'key share and an update that leaves the key alone' => [
		[ 1, 'BEGIN; INSERT INTO child VALUES (1, 1);' ],
		[ 2, 'UPDATE acc SET v = 55 WHERE id = 1;' ],
		[ 2, 'BEGIN; DELETE FROM acc WHERE id = 1;' ],
		[ 1, 'COMMIT;' ],
		[ 2, 'ROLLBACK;' ],
	],
	'key share, then own update (multixact), then others' => [
		[ 1, 'BEGIN; SELECT id FROM acc WHERE id = 1 FOR KEY SHARE;' ],
		[ 2, 'BEGIN; UPDATE acc SET v = 1 WHERE id = 1;' ],
		[ 1, 'SELECT v FROM acc WHERE id = 1;' ],
		[ 3, 'UPDATE acc SET v = v + 1 WHERE id = 1;' ],
		[ 2, 'COMMIT;' ],
		[ 1, 'UPDATE acc SET v = v + 5 WHERE id = 1; COMMIT;' ],
	],
	'lock in a savepoint that is undone' => [
		[ 1, 'BEGIN; SAVEPOINT a; SELECT id FROM acc WHERE id = 1 FOR UPDATE; ROLLBACK TO a;' ],
		[ 2, 'UPDATE acc SET v = 2 WHERE id = 1;' ],
		[ 1, 'UPDATE acc SET v = v + 1 WHERE id = 1; COMMIT;' ],
	],
	'REPEATABLE READ refuses a changed row' => [
		[ 1, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT sum(v) FROM acc;' ],
		[ 2, 'UPDATE acc SET v = 0 WHERE id = 1;' ],
		[ 1, 'SELECT sum(v) FROM acc;' ],
		[ 1, 'UPDATE acc SET v = v + 1 WHERE id = 1;' ],
		[ 1, 'ROLLBACK;' ],
	],
	'REPEATABLE READ waits, then is refused' => [
		[ 1, 'BEGIN; UPDATE acc SET v = 0 WHERE id = 1;' ],
		[ 2, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT sum(v) FROM acc;' ],
		[ 2, 'UPDATE acc SET v = v + 1 WHERE id = 1;' ],
		[ 1, 'COMMIT;' ],
		[ 2, 'ROLLBACK;' ],
	],
	'REPEATABLE READ keeps its picture through pruning' => [
		[ 1, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT sum(v) FROM acc;' ],
		[ 2, 'DO $$ BEGIN FOR i IN 1..300 LOOP UPDATE acc SET v = v + 1 WHERE id = 1; END LOOP; END $$;' ],
		[ 2, 'DELETE FROM acc WHERE id = 2;' ],
		[ 2, 'VACUUM acc;' ],
		[ 1, 'SELECT sum(v), count(*) FROM acc;' ],
		[ 1, 'SET enable_seqscan = off; SELECT v FROM acc WHERE id = 1;' ],
		[ 1, 'COMMIT;' ],
	],
	'SERIALIZABLE: write skew' => [
		[ 1, 'BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT sum(v) FROM acc WHERE id IN (1, 2);' ],
		[ 2, 'BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT sum(v) FROM acc WHERE id IN (1, 2);' ],
		[ 1, 'UPDATE acc SET v = v - 150 WHERE id = 1;' ],
		[ 2, 'UPDATE acc SET v = v - 150 WHERE id = 2;' ],
		[ 1, 'COMMIT;' ],
		[ 2, 'COMMIT;' ],
	],
	'SERIALIZABLE: write skew by index' => [
		[ 1, 'SET enable_seqscan = off; BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT v FROM acc WHERE id = 1;' ],
		[ 2, 'SET enable_seqscan = off; BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT v FROM acc WHERE id = 2;' ],
		[ 1, 'UPDATE acc SET v = 0 WHERE id = 2;' ],
		[ 2, 'UPDATE acc SET v = 0 WHERE id = 1;' ],
		[ 1, 'COMMIT;' ],
		[ 2, 'COMMIT;' ],
	],
	'SERIALIZABLE: a phantom' => [
		[ 1, 'BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM acc;' ],
		[ 2, 'BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM acc;' ],
		[ 1, "INSERT INTO acc VALUES (21, 1, 'one');" ],
		[ 2, "INSERT INTO acc VALUES (22, 1, 'two');" ],
		[ 1, 'COMMIT;' ],
		[ 2, 'COMMIT;' ],
	],
	'SERIALIZABLE: readers only' => [
		[ 1, 'BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; SELECT sum(v) FROM acc;' ],
		[ 2, 'BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE acc SET v = 0 WHERE id = 1; COMMIT;' ],
		[ 1, 'SELECT sum(v) FROM acc; COMMIT;' ],
	],
	'a unique key: wait, then violation' => [
		[ 1, "BEGIN; INSERT INTO acc VALUES (50, 1, 'first');" ],
		[ 2, "INSERT INTO acc VALUES (50, 2, 'second');" ],
		[ 1, 'COMMIT;' ],
	],
	'a unique key: wait, then free' => [
		[ 1, "BEGIN; INSERT INTO acc VALUES (50, 1, 'first');" ],
		[ 2, "INSERT INTO acc VALUES (50, 2, 'second');" ],
		[ 1, 'ROLLBACK;' ],
	],
	'ON CONFLICT DO UPDATE waits, then updates' => [
		[ 1, "BEGIN; INSERT INTO acc VALUES (50, 1, 'first');" ],
		[ 2, "INSERT INTO acc VALUES (50, 2, 'second') ON CONFLICT (id) DO UPDATE SET v = acc.v + 10 RETURNING v;" ],
		[ 1, 'COMMIT;' ],
	],
	'ON CONFLICT DO NOTHING waits, then inserts' => [
		[ 1, "BEGIN; INSERT INTO acc VALUES (50, 1, 'first');" ],
		[ 2, "INSERT INTO acc VALUES (50, 2, 'second') ON CONFLICT DO NOTHING RETURNING v;" ],
		[ 1, 'ROLLBACK;' ],
	],
	'a foreign key: parent in progress' => [
		[ 1, "BEGIN; INSERT INTO acc VALUES (60, 1, 'p');" ],
		[ 2, 'INSERT INTO child VALUES (1, 60);' ],
		[ 1, 'COMMIT;' ],
		[ 2, 'INSERT INTO child VALUES (2, 60);' ],
	],
	'MERGE and a concurrent update' => [
		[ 1, 'BEGIN; UPDATE acc SET v = 1 WHERE id = 1;' ],
		[ 2, "MERGE INTO acc USING (VALUES (1), (70)) s(k) ON acc.id = s.k WHEN MATCHED AND v = 100 THEN DELETE WHEN MATCHED THEN UPDATE SET note = 'm' WHEN NOT MATCHED THEN INSERT VALUES (s.k, 0, 'new');" ],
		[ 1, 'COMMIT;' ],
	],
	'TRUNCATE waits for a writer' => [
		[ 1, 'BEGIN; INSERT INTO child VALUES (1, 1);' ],
		[ 2, 'TRUNCATE child;' ],
		[ 1, 'COMMIT;' ],
	],
);
foreach my $name (sort keys %scenario)
{
	my $heap = play('heap', @{ $scenario{$name} });
	my $aurora = play('aurora', @{ $scenario{$name} });
	note $heap;
	is($aurora, $heap, $name);
	unlike($aurora, qr/no answer/, "$name: nobody hangs");
}

# Which of two is the victim of a deadlock depends on time; that one is, not.
foreach my $am ('heap', 'aurora')
{
	my $log = play($am,
		[ 1, 'BEGIN; UPDATE acc SET v = 1 WHERE id = 1;' ],
		[ 2, 'BEGIN; UPDATE acc SET v = 2 WHERE id = 2;' ],
		[ 1, 'UPDATE acc SET v = 1 WHERE id = 2;' ],
		[ 2, 'UPDATE acc SET v = 2 WHERE id = 1;' ],
		[ 1, 'COMMIT;' ],
		[ 2, 'COMMIT;' ]);
	my $n = () = $log =~ /deadlock detected/g;
	is($n, 1, "$am: a deadlock has one victim") or diag $log;
}

# Many clients at a few rows, every isolation level, nobody's work lost.
foreach my $level ('read committed', 'repeatable read', 'serializable')
{
	$node->safe_psql('postgres', 'DROP TABLE IF EXISTS cnt; CREATE TABLE cnt (id int PRIMARY KEY, v int) USING aurora; INSERT INTO cnt SELECT g, 0 FROM generate_series(1, 4) g');
	my $script = PostgreSQL::Test::Utils::tempdir() . '/inc.sql';
	append_to_file($script, "\\set k random(1, 4)\nBEGIN;\nSELECT v FROM cnt WHERE id = :k FOR UPDATE;\nUPDATE cnt SET v = v + 1 WHERE id = :k;\nEND;\n");
	my $level_ = $level =~ s/ /\\ /r;
	my $load = start_load($node, clients => 8, seconds => 4, script => $script, uncounted => 1,
		options => [ '--max-tries=1000' ],
		pgoptions => "-c default_transaction_isolation=$level_");
	my ($rc, $n) = wait_load($load);
	is($rc, 0, "$level: increments run") or diag ${ $load->{err} };
	is($node->safe_psql('postgres', 'SELECT sum(v) FROM cnt'), $n, "$level: each increment counts once");
}
check_all($node, 'at the end', no_pgbench => 1);
$node->stop;
done_testing();
