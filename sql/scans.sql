-- Each kind of scan reads the same rows.
SET default_table_access_method = aurora;
CREATE TABLE scan (id int, grp int, txt text);
INSERT INTO scan SELECT g, g % 100, 'text ' || g FROM generate_series(1, 20000) g;
CREATE INDEX scan_id ON scan (id);
CREATE INDEX scan_grp ON scan (grp);
ANALYZE scan;

-- sequential
SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off;
EXPLAIN (COSTS OFF) SELECT count(*), sum(id) FROM scan WHERE id BETWEEN 100 AND 299;
SELECT count(*), sum(id) FROM scan WHERE id BETWEEN 100 AND 299;
SELECT count(*), sum(id), count(DISTINCT txt) FROM scan;
-- index
RESET enable_indexscan; SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT count(*), sum(id) FROM scan WHERE id BETWEEN 100 AND 299;
SELECT count(*), sum(id) FROM scan WHERE id BETWEEN 100 AND 299;
EXPLAIN (COSTS OFF) SELECT id FROM scan ORDER BY id DESC LIMIT 3;
SELECT id, txt FROM scan ORDER BY id DESC LIMIT 3;
-- index only, before and after the pages are known to be all-visible
SET enable_indexscan = off; RESET enable_indexonlyscan;
EXPLAIN (COSTS OFF) SELECT sum(id) FROM scan WHERE id < 50;
SELECT sum(id) FROM scan WHERE id < 50;
VACUUM scan;
SELECT sum(id) FROM scan WHERE id < 50;
DELETE FROM scan WHERE id = 7;
SELECT sum(id) FROM scan WHERE id < 50;
-- bitmap
SET enable_indexonlyscan = off; RESET enable_bitmapscan;
EXPLAIN (COSTS OFF) SELECT count(*), sum(id) FROM scan WHERE grp = 5 AND id < 10000;
SELECT count(*), sum(id) FROM scan WHERE grp = 5 AND id < 10000;
SELECT count(*), sum(id) FROM scan WHERE grp = 5 OR grp = 7;
SET work_mem = '64kB';  -- lossy
SELECT count(*), sum(id) FROM scan WHERE id > 1000;
RESET work_mem;
RESET enable_seqscan; RESET enable_indexscan; RESET enable_indexonlyscan;

-- by TID
EXPLAIN (COSTS OFF) SELECT id FROM scan WHERE ctid = '(0,1)';
SELECT id FROM scan WHERE ctid = '(0,1)';
SELECT id FROM scan WHERE ctid = ANY (ARRAY['(0,2)', '(1,1)', '(99999,1)']::tid[]) ORDER BY 1;
SELECT id FROM scan WHERE ctid = '(0,7)';
EXPLAIN (COSTS OFF) SELECT count(*) FROM scan WHERE ctid >= '(1,0)' AND ctid < '(3,0)';
SELECT count(*) > 100 AS some FROM scan WHERE ctid >= '(1,0)' AND ctid < '(3,0)';
SELECT count(*) FROM scan WHERE ctid < '(0,5)';
SELECT count(*) FROM scan WHERE ctid > '(100000,0)';
SELECT (SELECT count(*) FROM scan WHERE ctid < '(50,0)') + (SELECT count(*) FROM scan WHERE ctid >= '(50,0)') AS all_rows;
SELECT currtid2('scan', '(0,1)');

-- parallel
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0; SET min_parallel_index_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
EXPLAIN (COSTS OFF) SELECT count(*), sum(id) FROM scan;
SELECT count(*), sum(id) FROM scan;
SET enable_seqscan = off; SET enable_bitmapscan = off;
SELECT count(*), sum(length(txt)) FROM scan WHERE id BETWEEN 1000 AND 9000;
SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = on;
SELECT count(*), sum(length(txt)) FROM scan WHERE id BETWEEN 1000 AND 9000;
RESET ALL;
SET default_table_access_method = aurora;

-- sampling
SELECT count(*) FROM scan TABLESAMPLE SYSTEM (100);
SELECT count(*) FROM scan TABLESAMPLE BERNOULLI (100);
SELECT count(*) BETWEEN 500 AND 4000 AS plausible FROM scan TABLESAMPLE BERNOULLI (10) REPEATABLE (1);
SELECT count(*) FROM scan TABLESAMPLE SYSTEM (0);

-- cursors: forward, backward, WHERE CURRENT OF
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id FROM scan WHERE id < 10 ORDER BY id;
FETCH 3 FROM c; FETCH BACKWARD 2 FROM c; FETCH LAST FROM c; FETCH ABSOLUTE 4 FROM c;
CLOSE c;
DECLARE c2 SCROLL CURSOR FOR SELECT id FROM scan;
FETCH 2 FROM c2; FETCH RELATIVE 3000 FROM c2; FETCH BACKWARD 1 FROM c2; FETCH LAST FROM c2; FETCH PRIOR FROM c2;
CLOSE c2;
DECLARE c3 CURSOR FOR SELECT id, txt FROM scan WHERE id IN (21, 22) FOR UPDATE;
FETCH 1 FROM c3;
UPDATE scan SET txt = 'current' WHERE CURRENT OF c3;
FETCH 1 FROM c3;
DELETE FROM scan WHERE CURRENT OF c3;
COMMIT;
SELECT id, txt FROM scan WHERE id IN (21, 22);
BEGIN;
DECLARE h CURSOR WITH HOLD FOR SELECT id FROM scan ORDER BY id;
FETCH 2 FROM h;
COMMIT;
FETCH 2 FROM h;
CLOSE h;

-- a scan does not see rows that its own statement adds
INSERT INTO scan SELECT id + 100000, grp, txt FROM scan WHERE id <= 1000;
SELECT count(*) FROM scan WHERE id > 100000;
UPDATE scan SET grp = grp + 1 WHERE id > 100000;
SELECT count(*), sum(grp) FROM scan WHERE id > 100000;

-- joins of every kind
CREATE TABLE scan_b AS SELECT g AS id, g * 2 AS val FROM generate_series(1, 5000) g;
CREATE INDEX ON scan_b (id);
ANALYZE scan_b;
SELECT count(*), sum(val) FROM scan JOIN scan_b USING (id);
SET enable_hashjoin = off;
SELECT count(*), sum(val) FROM scan JOIN scan_b USING (id);
SET enable_mergejoin = off;
SELECT count(*), sum(val) FROM scan JOIN scan_b USING (id);
RESET ALL;
SET default_table_access_method = aurora;
SELECT grp % 3 AS g, count(*), avg(id)::int FROM scan GROUP BY 1 ORDER BY 1;
SELECT id FROM scan WHERE id < 30 EXCEPT SELECT id FROM scan_b WHERE id > 3 ORDER BY id;

-- all kinds agree
SET enable_seqscan = off;
SELECT count(*) AS by_index, sum(id) FROM scan WHERE id > 0;
SET enable_seqscan = on; SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off;
SELECT count(*) AS by_seq, sum(id) FROM scan WHERE id > 0;

SELECT local_main_bytes(), wrong_pages(), check_btrees();
DROP TABLE scan, scan_b;
