-- All index access methods, and what CREATE INDEX can do.
SET default_table_access_method = aurora;
CREATE TABLE idx (id int, a int, t text, arr int[], p point, r int4range, ts tsvector, h text);
INSERT INTO idx SELECT g, g % 500, 'word' || (g % 777), ARRAY[g % 10, g % 20, g % 30],
       point(g % 100, g / 100), int4range(g, g + 10), to_tsvector('simple', 'doc w' || (g % 50)), md5(g::text)
  FROM generate_series(1, 10000) g;
CREATE INDEX idx_bt ON idx USING btree (a, id);
CREATE INDEX idx_hash ON idx USING hash (h);
CREATE INDEX idx_gin ON idx USING gin (arr);
CREATE INDEX idx_gin_ts ON idx USING gin (ts);
CREATE INDEX idx_gist ON idx USING gist (p);
CREATE INDEX idx_gist_r ON idx USING gist (r);
CREATE INDEX idx_spgist ON idx USING spgist (t);
CREATE INDEX idx_brin ON idx USING brin (id) WITH (pages_per_range = 4);
CREATE INDEX idx_expr ON idx ((id * 2)) WHERE a < 10;
CREATE INDEX idx_incl ON idx (id) INCLUDE (t);
ANALYZE idx;

CREATE FUNCTION both_ways(q text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE i text; s text; plan text; line text;
BEGIN
  SET LOCAL enable_seqscan = off;
  plan := '';
  FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || q LOOP
    IF line ~ 'on idx|Index' THEN plan := coalesce(substring(line from '(idx_\w+)'), plan); END IF;
  END LOOP;
  EXECUTE q INTO i;
  SET LOCAL enable_seqscan = on; SET LOCAL enable_indexscan = off;
  SET LOCAL enable_bitmapscan = off; SET LOCAL enable_indexonlyscan = off;
  EXECUTE q INTO s;
  SET LOCAL enable_indexscan = on; SET LOCAL enable_bitmapscan = on; SET LOCAL enable_indexonlyscan = on;
  RETURN format('%s: %s', plan, CASE WHEN i IS NOT DISTINCT FROM s THEN s ELSE format('index says %s, table says %s', i, s) END);
END $$;
CREATE FUNCTION all_ways() RETURNS SETOF text LANGUAGE sql AS $$
  SELECT both_ways('SELECT (count(*), sum(id)) FROM idx WHERE a = 77') UNION ALL
  SELECT both_ways('SELECT (count(*), sum(id)) FROM idx WHERE h = md5(''4711'')') UNION ALL
  SELECT both_ways('SELECT (count(*), sum(id)) FROM idx WHERE arr @> ARRAY[3, 13]') UNION ALL
  SELECT both_ways('SELECT (count(*), sum(id)) FROM idx WHERE ts @@ ''w7''::tsquery') UNION ALL
  SELECT both_ways('SELECT (count(*), sum(id)) FROM idx WHERE p <@ box ''(10,10),(20,20)''') UNION ALL
  SELECT both_ways('SELECT (count(*), sum(id)) FROM idx WHERE r && int4range(500, 520)') UNION ALL
  SELECT both_ways('SELECT (count(*), sum(id)) FROM idx WHERE t = ''word5''') UNION ALL
  SELECT both_ways('SELECT (count(*), sum(a)) FROM idx WHERE id * 2 BETWEEN 100 AND 3000 AND a < 10')
$$;
SELECT * FROM all_ways();
SET enable_seqscan = off; SET enable_indexscan = off; SET enable_indexonlyscan = off;
DROP INDEX idx_incl;
EXPLAIN (COSTS OFF) SELECT count(*), sum(a) FROM idx WHERE id BETWEEN 4000 AND 4100;
SELECT count(*), sum(a) FROM idx WHERE id BETWEEN 4000 AND 4100;
RESET enable_seqscan; RESET enable_indexscan; RESET enable_indexonlyscan;
-- nearest neighbours
SELECT p FROM idx ORDER BY p <-> point '(50.2, 50.3)', id LIMIT 3;

-- the same after changes of all kinds
UPDATE idx SET a = a + 1, t = t || 'x' WHERE id % 10 = 0;
DELETE FROM idx WHERE id % 7 = 0;
UPDATE idx SET arr = arr || 13 WHERE id % 11 = 0;
INSERT INTO idx SELECT g, g % 500, 'word' || (g % 777), ARRAY[g % 10, 13], point(g % 100, g / 100),
       int4range(g, g + 10), to_tsvector('simple', 'doc w' || (g % 50)), md5(g::text) FROM generate_series(10001, 11000) g;
SELECT * FROM all_ways();
VACUUM idx;
SELECT * FROM all_ways();
SELECT brin_summarize_new_values('idx_brin') >= 0 AS ok;
REINDEX TABLE idx;
SELECT * FROM all_ways();

-- unique
CREATE UNIQUE INDEX idx_u ON idx (id);
INSERT INTO idx (id) VALUES (1);
INSERT INTO idx (id) VALUES (7);
CREATE UNIQUE INDEX idx_u2 ON idx (a);
-- built while the table is in use
CREATE INDEX CONCURRENTLY idx_conc ON idx (a);
SELECT indisvalid FROM pg_index WHERE indexrelid = 'idx_conc'::regclass;
REINDEX INDEX CONCURRENTLY idx_conc;
SELECT indisvalid FROM pg_index WHERE indexrelid = 'idx_conc'::regclass;
DROP INDEX CONCURRENTLY idx_conc;
-- in a transaction with rows of the same transaction, and HOT chains broken by it
BEGIN;
CREATE TABLE idx2 (a int, b int);
INSERT INTO idx2 SELECT g, g FROM generate_series(1, 100) g;
UPDATE idx2 SET b = b + 1 WHERE a < 50;
CREATE INDEX idx2_b ON idx2 (b);
SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
SELECT count(*) FROM idx2 WHERE b = 10;
SAVEPOINT s;
DELETE FROM idx2 WHERE a = 9;
SELECT count(*) FROM idx2 WHERE b = 10;
ROLLBACK TO s;
SELECT count(*) FROM idx2 WHERE b = 10;
COMMIT;
SELECT count(*), sum(b) FROM idx2;
-- parallel build
SET max_parallel_maintenance_workers = 2; SET min_parallel_table_scan_size = 0;
CREATE INDEX idx_par ON idx (t, id);
RESET max_parallel_maintenance_workers; RESET min_parallel_table_scan_size;
SELECT bt_index_parent_check('idx_par', true, true);
-- unlogged duplicates: index deletion of dead entries under inserts
CREATE TABLE idx3 (a int, b int);
CREATE INDEX idx3_a ON idx3 (a);
INSERT INTO idx3 SELECT g % 5, 0 FROM generate_series(1, 2000) g;
DO $$ BEGIN FOR i IN 1..10 LOOP UPDATE idx3 SET a = (a + 1) % 5, b = b + 1; END LOOP; END $$;
SET enable_seqscan = off;
SELECT a, count(*), sum(b) FROM idx3 WHERE a >= 0 GROUP BY a ORDER BY a;
RESET enable_seqscan;

SELECT local_main_bytes(), wrong_pages(), check_btrees();
DROP TABLE idx, idx2, idx3;
DROP FUNCTION both_ways, all_ways;
