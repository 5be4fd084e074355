-- Functions of the server and of contrib modules that would read a table's
-- local file: their twins, and how these come into play.
CREATE EXTENSION pg_prewarm;
CREATE EXTENSION pageinspect;
CREATE EXTENSION pg_visibility;
CREATE EXTENSION pg_freespacemap;
CREATE EXTENSION pg_buffercache;
-- each twin looks to the planner as its original does
SELECT t.oid::regprocedure AS twin,
       ROW(t.prorettype, t.proretset, t.proisstrict, t.provolatile, t.proparallel, t.procost, t.prorows,
           t.proleakproof, t.prosecdef, t.pronargdefaults, t.proallargtypes, t.proargmodes, t.proargnames, t.provariadic,
           pg_get_expr(t.proargdefaults, 0))
       IS NOT DISTINCT FROM
       ROW(o.prorettype, o.proretset, o.proisstrict, o.provolatile, o.proparallel, o.procost, o.prorows,
           o.proleakproof, o.prosecdef, o.pronargdefaults, o.proallargtypes, o.proargmodes, o.proargnames, o.provariadic,
           pg_get_expr(o.proargdefaults, 0)) AS alike
  FROM pg_proc t LEFT JOIN pg_proc o ON 'redirected_' || o.proname = t.proname AND o.proargtypes = t.proargtypes AND o.oid <> t.oid
 WHERE t.pronamespace = 'aurora'::regnamespace AND t.proname ~ '^redirected_' ORDER BY t.proname COLLATE "C", t.pronargs, 1;
SELECT count(*) AS uncommented FROM pg_proc p
 WHERE p.pronamespace = 'aurora'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL;
CREATE TABLE red_aur (a int, b text) USING aurora WITH (autovacuum_enabled = off);
CREATE TABLE red_heap (a int, b text) USING heap WITH (autovacuum_enabled = off);
INSERT INTO red_aur SELECT g, repeat('x', g % 100) FROM generate_series(1, 20000) g;
INSERT INTO red_heap SELECT g, repeat('x', g % 100) FROM generate_series(1, 20000) g;
VACUUM red_aur, red_heap;
-- seen, and off
EXPLAIN (VERBOSE, COSTS OFF) SELECT pg_relation_size('red_aur'), pg_relation_size('red_aur', 'main');
EXPLAIN (VERBOSE, COSTS OFF) SELECT * FROM pg_visibility('red_aur') WHERE all_visible;
SET aurora.redirect_functions = off;
EXPLAIN (VERBOSE, COSTS OFF) SELECT pg_relation_size('red_aur', 'main');
SELECT pg_relation_size('red_aur', 'main'), aurora.relation_size('red_aur') > 0 AS own,
       aurora.total_relation_size('red_aur') > aurora.relation_size('red_aur') AS own_total;
RESET aurora.redirect_functions;
SELECT pg_relation_size('red_aur') = pg_relation_size('red_heap') AS same,
       pg_relation_size('red_aur') = aurora.relation_size('red_aur') AS own,
       pg_total_relation_size('red_aur') = aurora.total_relation_size('red_aur') AS own_total,
       aurora.local_size('red_aur') AS local, aurora.local_size('red_heap') = pg_relation_size('red_heap') AS local_heap,
       pg_relation_size('red_aur') = aurora.redirected_pg_relation_size('red_aur') AS by_name;
-- An SQL function that mentions none of them is inlined as ever.
CREATE FUNCTION red_plain(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1';
CREATE FUNCTION red_size(regclass) RETURNS bigint LANGUAGE sql AS 'SELECT pg_relation_size($1)';
EXPLAIN (VERBOSE, COSTS OFF) SELECT red_plain(a), red_size('red_aur') FROM red_aur;
SELECT red_size('red_aur') = pg_relation_size('red_heap') AS same;
-- databases
SELECT aurora.sync() IS NOT NULL AS synced;
SET aurora.redirect_functions = off;
SELECT pg_database_size(current_database()) AS files \gset
RESET aurora.redirect_functions;
SELECT pg_database_size(current_database()) - :files >= pg_relation_size('red_aur') AS counts_pages,
       abs(pg_database_size(current_database()) - (SELECT pg_database_size(oid) FROM pg_database WHERE datname = current_database())) < 1000000 AS same;

-- pg_prewarm
CREATE FUNCTION red_cached() RETURNS bigint LANGUAGE sql AS $$
  SELECT count(*) FROM pg_buffercache
   WHERE relfilenode = pg_relation_filenode('red_aur') AND relforknumber = 0
     AND reldatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
$$;
SELECT aurora.evict('red_aur') >= 0 AS evicted;
SELECT red_cached();
SELECT pg_prewarm('red_aur', first_block => 3, last_block => 41), red_cached();
SELECT aurora.evict('red_aur') > 0 AS evicted;
SELECT pg_prewarm('red_aur', 'read', 'main', 10, 12), red_cached();
SELECT pg_prewarm('red_aur', 'prefetch', 'main', 20, 22), red_cached();
SELECT pg_prewarm('red_aur') = pg_prewarm('red_heap') AS same, red_cached() > 100 AS cached;
SELECT pg_prewarm('red_aur', 'buffer', 'main', 7, 3), pg_prewarm('red_heap', 'buffer', 'main', 7, 3);
SELECT pg_prewarm('red_aur', 'buffer', 'fsm') = pg_prewarm('red_heap', 'buffer', 'fsm') AS fsm;
CREATE FUNCTION red_error(q text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE q;
  RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
  RETURN sqlstate || ' ' || replace(replace(sqlerrm, 'red_aur', 'TABLE'), 'red_heap', 'TABLE');
END $$;
-- Wrong calls: as of a heap table.
SELECT call, red_error(format(call, 'red_aur')) AS error,
       red_error(format(call, 'red_aur')) = red_error(format(call, 'red_heap')) AS same
  FROM unnest(ARRAY[
    'SELECT pg_prewarm(%L, ''nonsense'')', 'SELECT pg_prewarm(%L, NULL)', 'SELECT pg_prewarm(%L, ''buffer'', NULL)',
    'SELECT pg_prewarm(%L, ''buffer'', ''nonsense'')', 'SELECT pg_prewarm(%L, ''buffer'', ''init'')',
    'SELECT pg_prewarm(%L, ''buffer'', ''main'', -1)', 'SELECT pg_prewarm(%L, ''buffer'', ''main'', 1, 999999)',
    'SELECT pg_prewarm(%L, ''read'', ''main'', 999999)',
    'SELECT get_raw_page(%L, 999999)', 'SELECT get_raw_page(%L, -1)', 'SELECT get_raw_page(%L, ''nonsense'', 0)',
    'SELECT get_raw_page(%L, ''main'', 999999)', 'SELECT get_raw_page(%L || ''x'', 0)',
    'SELECT pg_visibility(%L, -1)', 'SELECT * FROM pg_visibility(%L, 999999)']) call;
SELECT pg_prewarm(NULL);
SELECT pg_prewarm(1::regclass);

-- pageinspect: the cached page, with changes that storage may not have yet
SELECT aurora.evict('red_aur') > 0 AS evicted;
SELECT h.lower = e.lower AND h.upper = e.upper AND h.special = e.special AS same, h.flags
  FROM page_header(get_raw_page('red_aur', 5)) h, page_header(get_raw_page('red_heap', 5)) e;
SELECT red_cached();
SELECT count(*) AS differing
  FROM generate_series(0, pg_relation_size('red_aur') / 8192 - 1) b,
       LATERAL (SELECT md5(string_agg(lp || ' ' || lp_off || ' ' || lp_len || ' ' || t_ctid || coalesce(t_data::text, ''), ',' ORDER BY lp)) AS all_items
                  FROM heap_page_items(get_raw_page('red_aur', 'main', b))) x,
       LATERAL (SELECT md5(string_agg(lp || ' ' || lp_off || ' ' || lp_len || ' ' || t_ctid || coalesce(t_data::text, ''), ',' ORDER BY lp)) AS all_items
                  FROM heap_page_items(get_raw_page('red_heap', 'main', b))) y
 WHERE x.all_items <> y.all_items;
SELECT length(get_raw_page('red_aur', 'fsm', 0)), length(get_raw_page('red_aur', 'vm', 0));

-- pg_visibility
SELECT aurora.evict('red_aur') > 0 AS evicted;
SELECT * FROM pg_visibility('red_aur', 5);
SELECT pg_visibility('red_aur', 6), pg_visibility('red_aur', 999999);
SELECT red_cached();
SELECT count(*) AS differing FROM pg_visibility('red_aur') x FULL JOIN pg_visibility('red_heap') y USING (blkno)
 WHERE (x.all_visible, x.all_frozen, x.pd_all_visible) IS DISTINCT FROM (y.all_visible, y.all_frozen, y.pd_all_visible);
UPDATE red_aur SET b = b WHERE a BETWEEN 1000 AND 1100;
UPDATE red_heap SET b = b WHERE a BETWEEN 1000 AND 1100;
SELECT count(*) AS differing, (SELECT count(*) FROM pg_visibility('red_aur') WHERE NOT pd_all_visible) AS changed
  FROM pg_visibility('red_aur') x FULL JOIN pg_visibility('red_heap') y USING (blkno)
 WHERE (x.all_visible, x.all_frozen, x.pd_all_visible) IS DISTINCT FROM (y.all_visible, y.all_frozen, y.pd_all_visible);
SELECT aurora.evict('red_aur') > 0 AS evicted;
SELECT pg_check_visible('red_aur');
SELECT * FROM pg_check_frozen('red_aur');
VACUUM FREEZE red_aur;
SELECT aurora.evict('red_aur') > 0 AS evicted;
SELECT pg_check_visible('red_aur');
SELECT * FROM pg_check_frozen('red_aur');
SELECT * FROM pg_visibility_map_summary('red_aur');
SELECT pg_truncate_visibility_map('red_aur');
SELECT * FROM pg_visibility_map_summary('red_aur');
SELECT count(*) AS rows, count(*) FILTER (WHERE pd_all_visible) AS pages FROM pg_visibility('red_aur');
SELECT count(*), sum(a) FROM red_aur;

-- pg_freespacemap
SELECT count(*) AS differing FROM pg_freespace('red_aur') x FULL JOIN pg_freespace('red_heap') y USING (blkno)
 WHERE x.blkno IS NULL OR y.blkno IS NULL;
SELECT avail = pg_freespace('red_aur', 7) AS same FROM pg_freespace('red_aur') WHERE blkno = 7;

-- local pages: the originals'
CREATE UNLOGGED TABLE red_unl (a int) USING aurora;
INSERT INTO red_unl SELECT generate_series(1, 1000);
SELECT pg_prewarm('red_unl'), length(get_raw_page('red_unl', 1)), (SELECT count(*) FROM pg_visibility('red_unl')),
       (SELECT count(*) FROM pg_check_visible('red_unl'));
-- in target lists, where sets are taken row by row
SELECT (pg_visibility('red_unl')).*;

-- Rights are those of the original.
CREATE ROLE red_user;
SET ROLE red_user;
SELECT pg_relation_size('red_aur') > 0 AS anybody, pg_database_size(current_database()) > 0 AS connects;
SELECT red_error(format('SELECT pg_prewarm(%L)', t)), red_error(format('SELECT get_raw_page(%L, 0)', t)),
       red_error(format('SELECT pg_visibility(%L, 0)', t)), red_error(format('SELECT pg_check_frozen(%L)', t))
  FROM unnest(ARRAY['red_aur', 'red_heap']) t;
SELECT aurora.redirected_pg_check_frozen('red_aur');
RESET ROLE;
GRANT SELECT ON red_aur TO red_user;
GRANT pg_stat_scan_tables TO red_user;
REVOKE EXECUTE ON FUNCTION pg_total_relation_size(regclass) FROM PUBLIC;
SET ROLE red_user;
SELECT pg_prewarm('red_aur', 'buffer', 'main', 0, 0), (SELECT count(*) FROM pg_check_frozen('red_aur'));
SELECT pg_total_relation_size('red_aur');
RESET ROLE;
GRANT EXECUTE ON FUNCTION pg_total_relation_size(regclass) TO PUBLIC;
REVOKE pg_stat_scan_tables FROM red_user;

-- A function of that name that is not the original is left alone, and the
-- original is found in any schema.
CREATE SCHEMA red_schema;
CREATE FUNCTION red_schema.pg_prewarm(regclass, mode text DEFAULT 'buffer', fork text DEFAULT 'main',
    first_block bigint DEFAULT NULL, last_block bigint DEFAULT NULL) RETURNS bigint LANGUAGE sql AS 'SELECT -1::bigint';
SELECT red_schema.pg_prewarm('red_aur');
DROP FUNCTION red_schema.pg_prewarm;
PREPARE red_prep AS SELECT pg_prewarm('red_aur', 'buffer', 'main', 0, 1);
EXECUTE red_prep;
ALTER EXTENSION pg_prewarm SET SCHEMA red_schema;
SELECT red_schema.pg_prewarm('red_aur', 'buffer', 'main', 0, 1);
DROP EXTENSION pg_prewarm;
EXECUTE red_prep;
SELECT aurora.redirected_pg_prewarm('red_aur');
CREATE VIEW red_view AS SELECT pg_relation_size('red_heap'::regclass) > 0 AS has_pages, relname FROM pg_class WHERE relname = 'red_heap';
SELECT * FROM red_view;
-- without the extension everything is as without us
CREATE DATABASE red_db TEMPLATE template0;
SELECT current_database() AS home \gset
\c red_db
SELECT pg_relation_size('pg_class') > 0 AS size, pg_database_size('red_db') > 0 AS database_size;
EXPLAIN (VERBOSE, COSTS OFF) SELECT pg_table_size('pg_class');
-- nor does a schema of that name fool anybody
CREATE SCHEMA aurora;
CREATE FUNCTION aurora.redirected_pg_table_size(regclass) RETURNS bigint LANGUAGE sql STRICT AS 'SELECT -1::bigint';
SELECT pg_table_size('pg_class') > 0 AS size;
DROP SCHEMA aurora CASCADE;
CREATE VIEW v AS SELECT pg_table_size('pg_class') > 0 AS size;
PREPARE p AS SELECT pg_table_size('pg_class') > 0 AS size;
CREATE EXTENSION aurora;
SELECT * FROM v;
EXECUTE p;
EXPLAIN (VERBOSE, COSTS OFF) SELECT * FROM v;
DROP EXTENSION aurora;
SELECT * FROM v;
EXECUTE p;
EXPLAIN (VERBOSE, COSTS OFF) SELECT * FROM v;
\c :home
DROP DATABASE red_db;

-- Storage parameters that aurora tables cannot have
CREATE TABLE red_cat (a int) USING aurora WITH (user_catalog_table = true);
CREATE TABLE red_cat USING aurora WITH (user_catalog_table) AS SELECT 1 AS a;
CREATE UNLOGGED TABLE red_cat (a int) USING aurora WITH (user_catalog_table = on);
CREATE TABLE red_cat (a int) USING aurora WITH (user_catalog_table = false, fillfactor = 50);
ALTER TABLE red_cat SET (user_catalog_table = true);
ALTER TABLE red_cat SET (autovacuum_enabled = off), SET (user_catalog_table = true);
ALTER TABLE red_cat RESET (user_catalog_table);
SELECT reloptions FROM pg_class WHERE oid = 'red_cat'::regclass;
ALTER TABLE red_heap SET (user_catalog_table = true);
CREATE TABLE red_like (LIKE red_heap) USING heap WITH (user_catalog_table = true);
DROP TABLE red_cat, red_like;

SELECT local_main_bytes(), wrong_pages();
DROP VIEW red_view;
DROP FUNCTION red_plain, red_size, red_cached, red_error;
DROP TABLE red_aur, red_heap, red_unl;
DROP SCHEMA red_schema;
DROP ROLE red_user;
DROP EXTENSION pageinspect, pg_visibility, pg_freespacemap, pg_buffercache;
