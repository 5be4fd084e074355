-- ANALYZE, VACUUM in its forms, statistics, freezing, truncation of the end.
SET default_table_access_method = aurora;
CREATE TABLE mnt (id int PRIMARY KEY, v int, t text) WITH (autovacuum_enabled = off);
INSERT INTO mnt SELECT g, g % 10, repeat('m', 100) FROM generate_series(1, 10000) g;
ANALYZE mnt;
SELECT reltuples FROM pg_class WHERE relname = 'mnt';
SELECT relpages > 100 AS pages FROM pg_class WHERE relname = 'mnt';
SELECT attname, n_distinct FROM pg_stats WHERE tablename = 'mnt' AND attname IN ('v', 't') ORDER BY 1;
EXPLAIN (COSTS OFF) SELECT * FROM mnt WHERE id = 5;

VACUUM mnt;
SELECT relallvisible = relpages AS all_visible FROM pg_class WHERE relname = 'mnt';
-- the visibility map is cleared by changes and set again
SELECT sum(v) FROM mnt;
UPDATE mnt SET v = v + 1 WHERE id = 500;
SELECT sum(v) FROM mnt;
VACUUM mnt;
DELETE FROM mnt WHERE id % 2 = 0;
VACUUM mnt;
SELECT count(*), sum(v) FROM mnt;
SELECT reltuples FROM pg_class WHERE relname = 'mnt';
-- freed space is used again: the table does not grow
CREATE TEMP TABLE before AS SELECT relpages FROM pg_class WHERE relname = 'mnt';
INSERT INTO mnt SELECT g, g % 10, repeat('n', 100) FROM generate_series(2, 9000, 2) g;
VACUUM ANALYZE mnt;
SELECT (SELECT relpages FROM pg_class WHERE relname = 'mnt') <= (SELECT relpages FROM before) + 2 AS no_growth;
SELECT count(*), sum(v) FROM mnt;
-- the empty end is cut off
DELETE FROM mnt WHERE id > 1000;
VACUUM (TRUNCATE, INDEX_CLEANUP ON) mnt;
SELECT count(*), sum(v) FROM mnt;
INSERT INTO mnt SELECT g, 0, 'again' FROM generate_series(20001, 25000) g;
SELECT count(*), sum(v) FROM mnt;
DELETE FROM mnt;
VACUUM mnt;
SELECT count(*) FROM mnt;
INSERT INTO mnt VALUES (1, 1, 'one');
SELECT id, v, t FROM mnt;

-- freezing
INSERT INTO mnt SELECT g, 0, 'f' FROM generate_series(100, 3000) g;
VACUUM (FREEZE, DISABLE_PAGE_SKIPPING) mnt;
SELECT age(relfrozenxid) < 10 AS frozen FROM pg_class WHERE relname = 'mnt';
SELECT count(*) FROM mnt;
UPDATE mnt SET v = 1 WHERE id = 100;
DELETE FROM mnt WHERE id = 101;
SELECT count(*), sum(v) FROM mnt;
VACUUM FREEZE mnt;
SELECT count(*), sum(v) FROM mnt;
BEGIN; SELECT id FROM mnt WHERE id = 200 FOR SHARE; SAVEPOINT s; SELECT id FROM mnt WHERE id = 200 FOR UPDATE; COMMIT;
VACUUM FREEZE mnt;
SELECT id, v FROM mnt WHERE id = 200;

-- options
VACUUM (VERBOSE OFF, INDEX_CLEANUP OFF) mnt;
VACUUM (SKIP_LOCKED, PROCESS_TOAST FALSE) mnt;
VACUUM (PARALLEL 2) mnt;
VACUUM (ANALYZE, DISABLE_PAGE_SKIPPING) mnt;
SELECT count(*), sum(v) FROM mnt;
VACUUM FULL mnt;
SELECT count(*), sum(v) FROM mnt;
SELECT last_vacuum IS NOT NULL AS vacuumed, last_analyze IS NOT NULL AS analyzed
  FROM (SELECT pg_stat_force_next_flush()) f, pg_stat_user_tables WHERE relname = 'mnt';
-- VACUUM while an old snapshot still needs the rows
CREATE TABLE mnt2 (a int) WITH (autovacuum_enabled = off);
INSERT INTO mnt2 SELECT generate_series(1, 100);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM mnt2;
COMMIT;
DELETE FROM mnt2 WHERE a <= 50;
VACUUM mnt2;
SELECT count(*), sum(a) FROM mnt2;
-- multivariate statistics, more columns
CREATE STATISTICS mnt_s (dependencies, ndistinct) ON id, v FROM mnt;
ANALYZE mnt;
SELECT stxname FROM pg_statistic_ext WHERE stxname = 'mnt_s';
SELECT pg_stat_get_live_tuples('mnt'::regclass) > 0 AS live;

SELECT local_main_bytes(), wrong_pages(), check_btrees();
DROP TABLE mnt, mnt2, before;
