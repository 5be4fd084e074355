-- What is refused says so, and what the views and functions of schema aurora
-- answer.
CREATE TABLE err_heap (a int) USING heap;
CREATE TABLE err_aur (a int, t text) USING aurora WITH (autovacuum_enabled = off);
CREATE TEMP TABLE err_tmp (a int) USING aurora;
INSERT INTO err_aur SELECT g, repeat('e', 500) FROM generate_series(1, 1000) g;

-- functions about pages want permanent aurora tables
SELECT * FROM aurora.verify_pages('err_heap');
SELECT * FROM aurora.verify_pages('err_tmp');
SELECT aurora.evict('err_heap');
SELECT aurora.read_page('err_tmp', 0);
SELECT aurora.read_page('err_aur', -1);
SELECT aurora.read_page('err_aur', 0, 'FFFFFFFF/0');
CREATE INDEX err_idx ON err_aur (a);
SELECT aurora.evict('err_idx');

-- sizes
SELECT aurora.relation_size('err_aur') / 8192 BETWEEN 60 AND 80 AS size,
       aurora.local_size('err_aur') AS local_size,
       aurora.relation_size('err_heap') = pg_relation_size('err_heap') AS heap_size,
       aurora.relation_size('err_idx') = pg_relation_size('err_idx') AS index_size,
       aurora.total_relation_size('err_aur') > aurora.relation_size('err_aur') + pg_relation_size('err_idx') - 1 AS total;
SELECT name, kind, persistence, size > 0 AS has_rows, local_size, indexes_size > 0 AS has_index
  FROM aurora.tables WHERE name LIKE 'err%' ORDER BY name;

-- pages: as storage has them, and thrown out of the cache
SELECT length(aurora.read_page('err_aur', 0)), aurora.read_page('err_aur', 1000) IS NULL AS beyond;
SELECT aurora.evict('err_aur') > 0 AS evicted;
SELECT compared, differing FROM aurora.verify_count('err_aur');
SELECT count(*), sum(a) FROM err_aur;
SELECT compared > 0 AS compared, differing FROM aurora.verify_count('err_aur');
SELECT count(*) FROM aurora.verify_pages('err_aur');
SELECT relations > 0 AS relations, compared > 0 AS compared, differing FROM aurora.verify_all();
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM err_aur;
FETCH 1 FROM c \g /dev/null
SELECT aurora.evict('err_aur');
ROLLBACK;

-- a page as of an LSN: before and after a change
SELECT pg_current_wal_flush_lsn() AS before \gset
UPDATE err_aur SET t = 'changed' WHERE a = 1;
SELECT aurora.sync() IS NOT NULL AS synced;
SELECT pg_current_wal_flush_lsn() AS after \gset
SELECT aurora.read_page('err_aur', 0, :'before') = aurora.read_page('err_aur', 0, :'before') AS same,
       aurora.read_page('err_aur', 0, :'before') = aurora.read_page('err_aur', 0, :'after') AS unchanged;
SELECT aurora.wait_for_applied(:'after') AS applied;
SELECT aurora.wait_for_applied(pg_lsn('FFFFFFFF/0'), '10 ms') AS applied;

-- the shipper and storage
SELECT state, pid > 0 AS pid, term > 0 AS term, durable_lsn <= sent_lsn AS durable, applied_lsn <= durable_lsn AS applied,
       last_error FROM aurora.shipper;
SELECT count(*) FROM aurora.nodes;
SELECT jsonb_typeof(aurora.storage_status());
SELECT aurora.storage_status(7);
SELECT aurora.storage_status(7, missing_ok => true) IS NULL AS missing;
SELECT hits > 0 AS hits, misses + prefetched > 0 AS misses, extends > 0 AS extends FROM aurora.cache;
SELECT plugin, slot_type, active FROM pg_replication_slots WHERE slot_name = 'aurora';

-- settings
SET aurora.storage_timeout = '5s';
SHOW aurora.storage_timeout;
RESET aurora.storage_timeout;
SET aurora.scan_prefetch = 65;
SET aurora.scan_prefetch = 0;
SELECT aurora.evict('err_aur') > 0 AS evicted;
SELECT count(*), sum(a) FROM err_aur;
RESET aurora.scan_prefetch;
SET aurora.storage_nodes = 'elsewhere:1';
SET aurora.no_such_setting = 1;

-- who may look
CREATE ROLE err_user;
GRANT SELECT ON err_aur TO err_user;
SET ROLE err_user;
SELECT count(*) FROM err_aur;
SELECT aurora.evict('err_aur');
SELECT aurora.read_page('err_aur', 0) IS NULL;
SELECT state FROM aurora.shipper;
SELECT aurora.relation_size('err_aur') > 0 AS size;
RESET ROLE;
SELECT p.oid::regprocedure AS for_everybody FROM pg_proc p
 WHERE p.pronamespace = 'aurora'::regnamespace AND p.proname !~ '^redirected_'
   AND has_function_privilege('err_user', p.oid, 'EXECUTE') ORDER BY p.proname COLLATE "C";
SELECT count(*) AS views_for_everybody FROM pg_class c
 WHERE c.relnamespace = 'aurora'::regnamespace AND has_table_privilege('err_user', c.oid, 'SELECT');
GRANT pg_monitor TO err_user;
SET ROLE err_user;
SELECT state FROM aurora.shipper;
SELECT kind FROM aurora.fetch_latency;
SELECT count(*) > 0 AS stages FROM aurora.storage_latency;
SELECT c.relname AS not_for_pg_monitor FROM pg_class c
 WHERE c.relnamespace = 'aurora'::regnamespace AND c.relkind = 'v' AND NOT has_table_privilege(c.oid, 'SELECT');
RESET ROLE;

-- the extension stays as long as there are tables
DROP EXTENSION aurora;
DROP ACCESS METHOD aurora;

-- what is explained is what was read
SELECT aurora.evict('err_aur') > 0 AS evicted;
CREATE FUNCTION err_explain(q text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE l text;
BEGIN
  FOR l IN EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || q LOOP
    RETURN NEXT regexp_replace(l, '\d+', 'N', 'g');
  END LOOP;
END $$;
SELECT err_explain('SELECT count(*) FROM err_aur') LIMIT 4;
SELECT err_explain('SELECT count(*) FROM err_aur') LIMIT 4;

SELECT local_main_bytes(), wrong_pages(), check_btrees();
DROP TABLE err_heap, err_aur, err_tmp;
DROP FUNCTION err_explain;
DROP ROLE err_user;
