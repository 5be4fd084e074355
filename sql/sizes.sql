-- Sizes of relations, as the server's own functions tell them: what these say
-- of heap tables with the same rows.
CREATE TABLE siz_t (a int PRIMARY KEY, b text, c text) USING aurora
  WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off);
SELECT pg_relation_size('siz_t'), pg_table_size('siz_t'), pg_total_relation_size('siz_t');
INSERT INTO siz_t SELECT g, 'row ' || g, repeat(md5(g::text), 10) FROM generate_series(1, 3000) g;
INSERT INTO siz_t SELECT g, 'long ' || g, (SELECT string_agg(md5((g * i)::text), '') FROM generate_series(1, 200) i)
  FROM generate_series(3001, 3100) g;
VACUUM siz_t;
-- each form of the function
SELECT pg_relation_size('siz_t'), pg_relation_size('siz_t', 'main') AS main,
       pg_relation_size('siz_t', 'fsm') AS fsm, pg_relation_size('siz_t', 'vm') AS vm,
       pg_relation_size('siz_t', 'init') AS init;
SELECT pg_relation_size(reltoastrelid), pg_relation_size(reltoastrelid, 'main') AS main,
       pg_table_size(reltoastrelid), pg_total_relation_size(reltoastrelid)
  FROM pg_class WHERE oid = 'siz_t'::regclass;
SELECT pg_table_size('siz_t'), pg_indexes_size('siz_t'), pg_total_relation_size('siz_t');
SELECT pg_size_pretty(pg_table_size('siz_t')) AS pretty;
SELECT relname, pg_relation_size(oid) = relpages * 8192::bigint AS as_vacuum_saw
  FROM pg_class WHERE oid = 'siz_t'::regclass;
-- not a table, not there, not a fork, null
SELECT pg_relation_size('siz_t_pkey'), pg_table_size('siz_t_pkey'), pg_total_relation_size('siz_t_pkey');
SELECT pg_relation_size(1), pg_relation_size(1, 'main'), pg_relation_size(1, 'vm'), pg_table_size(1), pg_total_relation_size(1);
SELECT pg_relation_size('siz_t', 'nonsense');
SELECT pg_relation_size(NULL), pg_relation_size('siz_t', NULL), pg_table_size(NULL);
-- other kinds, and pages that are local
CREATE VIEW siz_v AS SELECT a FROM siz_t;
CREATE SEQUENCE siz_s;
CREATE MATERIALIZED VIEW siz_m USING aurora WITH (autovacuum_enabled = off) AS SELECT a, b FROM siz_t;
CREATE TABLE siz_p (a int, b text) PARTITION BY RANGE (a);
CREATE TABLE siz_p1 PARTITION OF siz_p FOR VALUES FROM (0) TO (1000) USING aurora WITH (autovacuum_enabled = off);
CREATE TABLE siz_p2 PARTITION OF siz_p FOR VALUES FROM (1000) TO (9000) USING heap WITH (autovacuum_enabled = off);
INSERT INTO siz_p SELECT a, b FROM siz_t;
CREATE TEMP TABLE siz_tmp (a int, b text) USING aurora;
INSERT INTO siz_tmp SELECT a, b FROM siz_t;
CREATE UNLOGGED TABLE siz_unl (a int, b text) USING aurora WITH (autovacuum_enabled = off);
INSERT INTO siz_unl SELECT a, b FROM siz_t;
CREATE TABLE siz_heap (a int, b text) USING heap WITH (autovacuum_enabled = off);
INSERT INTO siz_heap SELECT a, b FROM siz_t;
SELECT r, pg_relation_size(r::regclass), pg_relation_size(r::regclass, 'main') AS main,
       pg_relation_size(r::regclass, 'init') >= 0 AS init
  FROM unnest(ARRAY['siz_v', 'siz_s', 'siz_m', 'siz_p', 'siz_p1', 'siz_p2', 'siz_tmp', 'siz_unl', 'siz_heap']) r;
SELECT sum(pg_total_relation_size(relid)) > 100000 AS partitions FROM pg_partition_tree('siz_p');
-- however the call comes about
CREATE VIEW siz_sizes AS
  SELECT c.relname, pg_relation_size(c.oid) AS size, pg_table_size(c.oid) > 0 AS has_pages
    FROM pg_class c WHERE c.relname ~ '^siz_' AND c.relkind IN ('r', 'm');
SELECT * FROM siz_sizes WHERE relname IN ('siz_t', 'siz_m') ORDER BY 1;
CREATE FUNCTION siz_sql(regclass) RETURNS bigint LANGUAGE sql AS 'SELECT pg_relation_size($1)';
CREATE FUNCTION siz_sql_fork(t regclass, fork text) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT PG_RELATION_SIZE(t, fork)';
CREATE FUNCTION siz_std(t regclass) RETURNS bigint LANGUAGE sql RETURN pg_table_size(t) - pg_relation_size(t, 'fsm') - pg_relation_size(t, 'vm');
CREATE FUNCTION siz_outer(t regclass) RETURNS bigint LANGUAGE sql AS 'SELECT siz_sql(t) + 1';
CREATE FUNCTION siz_set(t regclass) RETURNS TABLE (what text, size bigint) LANGUAGE sql STABLE
  AS $$ SELECT 'main', pg_relation_size(t) UNION ALL SELECT 'vm', pg_relation_size(t, 'vm') $$;
CREATE FUNCTION siz_plpgsql(t regclass) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint; m bigint;
BEGIN
  n := pg_relation_size(t);
  EXECUTE format('SELECT pg_relation_size(%L)', t) INTO m;
  PERFORM 1 WHERE pg_relation_size(t) <> n;
  RETURN CASE WHEN n = m AND NOT FOUND THEN n ELSE -1 END;
END $$;
SELECT siz_sql('siz_m'), siz_sql_fork('siz_m', 'main'), siz_std('siz_m') - pg_relation_size('siz_m') AS toast,
       siz_outer('siz_m'), siz_plpgsql('siz_m');
SELECT * FROM siz_set('siz_m');
PREPARE siz_prep(regclass) AS SELECT pg_relation_size($1), pg_relation_size($1, 'main') AS main;
SET plan_cache_mode = force_generic_plan;
EXECUTE siz_prep('siz_m');
EXECUTE siz_prep('siz_heap');
SET plan_cache_mode = force_custom_plan;
EXECUTE siz_prep('siz_m');
RESET plan_cache_mode;
WITH s AS (SELECT pg_relation_size('siz_m') AS n)
SELECT n, (SELECT pg_relation_size('siz_t') - n), x.size, l.*
  FROM s, pg_relation_size('siz_m') x(size), LATERAL (SELECT pg_table_size('siz_m') > n - x.size) l;
CREATE TABLE siz_log (t text, size bigint DEFAULT pg_relation_size('siz_m')) USING aurora;
INSERT INTO siz_log (t) VALUES ('default') RETURNING t, size, pg_relation_size('siz_t') AS now;
INSERT INTO siz_log VALUES ('values', pg_relation_size('siz_m'));
UPDATE siz_log SET size = pg_relation_size('siz_t') WHERE size = pg_relation_size('siz_m') AND t = 'values';
SELECT * FROM siz_log ORDER BY t;
DECLARE siz_cur CURSOR WITH HOLD FOR SELECT pg_relation_size('siz_m');
FETCH siz_cur;
CLOSE siz_cur;
SET force_parallel_mode = on;
SELECT pg_relation_size('siz_m'), pg_table_size('siz_m') > pg_relation_size('siz_m') AS more;
RESET force_parallel_mode;
-- sizes change
BEGIN;
INSERT INTO siz_heap SELECT a, b FROM siz_t;
INSERT INTO siz_p SELECT a, b FROM siz_t;
SELECT pg_relation_size('siz_p1');
ROLLBACK;
SELECT pg_relation_size('siz_p1') AS stays;
VACUUM siz_p1;
SELECT pg_relation_size('siz_p1') AS cut;
DELETE FROM siz_t WHERE a > 100;
VACUUM siz_t;
SELECT pg_relation_size('siz_t'), (SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'siz_t'::regclass) AS toast;
VACUUM FULL siz_m;
SELECT pg_relation_size('siz_m');
BEGIN;
TRUNCATE siz_t;
SELECT pg_relation_size('siz_t'), pg_table_size('siz_t');
ROLLBACK;
SELECT pg_relation_size('siz_t');
ALTER TABLE siz_t SET ACCESS METHOD heap;
SELECT pg_relation_size('siz_t'), siz_sql('siz_t');
ALTER TABLE siz_t SET ACCESS METHOD aurora;
SELECT pg_relation_size('siz_t'), siz_sql('siz_t');
-- databases: more than their tables' pages
SELECT pg_database_size(current_database()) > 5000000 AS here,
       abs(pg_database_size('template1') - (SELECT pg_database_size(oid) FROM pg_database WHERE datname = 'template1')) < 1000000 AS same;
SELECT pg_database_size('nowhere');
SELECT pg_database_size(4294967290::oid) AS none;
-- nothing depends on how it is done
SELECT count(*) FROM pg_depend d JOIN pg_extension e ON e.extname = 'aurora'
  JOIN pg_depend m ON m.refclassid = 'pg_extension'::regclass AND m.refobjid = e.oid AND m.classid = 'pg_proc'::regclass
 WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid = m.objid AND d.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass)
   AND d.objid IN (SELECT oid FROM pg_rewrite WHERE ev_class::regclass::text ~ '^siz_'
                   UNION ALL SELECT oid FROM pg_proc WHERE proname ~ '^siz_');
SELECT pg_get_viewdef('siz_sizes') ~ 'aurora\.' AS shows;
SELECT local_main_bytes(), wrong_pages();
DROP VIEW siz_sizes;
DROP FUNCTION siz_sql, siz_sql_fork, siz_std, siz_outer, siz_set, siz_plpgsql;
DROP TABLE siz_log;
DROP MATERIALIZED VIEW siz_m;
DROP VIEW siz_v;
DROP SEQUENCE siz_s;
DROP TABLE siz_t, siz_p, siz_tmp, siz_unl, siz_heap;
