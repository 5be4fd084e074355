-- Partitioned tables with aurora and heap partitions.
CREATE TABLE par (id int, k int, t text, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
CREATE TABLE par_1 PARTITION OF par FOR VALUES FROM (0) TO (10) USING aurora;
CREATE TABLE par_2 PARTITION OF par FOR VALUES FROM (10) TO (20) USING heap;
CREATE TABLE par_3 PARTITION OF par FOR VALUES FROM (20) TO (30) PARTITION BY HASH (id);
CREATE TABLE par_3a PARTITION OF par_3 FOR VALUES WITH (MODULUS 2, REMAINDER 0) USING aurora;
CREATE TABLE par_3b PARTITION OF par_3 FOR VALUES WITH (MODULUS 2, REMAINDER 1) USING aurora;
CREATE TABLE par_d PARTITION OF par DEFAULT USING aurora;
INSERT INTO par SELECT g, g % 40, 'p' || g FROM generate_series(1, 4000) g;
SELECT tableoid::regclass, count(*), sum(id) FROM par GROUP BY tableoid ORDER BY tableoid::regclass::text;
EXPLAIN (COSTS OFF) SELECT * FROM par WHERE k = 5 AND id = 5;
SELECT * FROM par WHERE k = 5 AND id = 5;
-- rows move between partitions, also between heap and aurora
UPDATE par SET k = k + 10 WHERE id <= 100;
SELECT tableoid::regclass, count(*), sum(id) FROM par GROUP BY tableoid ORDER BY tableoid::regclass::text;
UPDATE par SET k = 5 WHERE k = 15 AND id < 50 RETURNING tableoid::regclass, id;
DELETE FROM par WHERE id % 3 = 0;
SELECT tableoid::regclass, count(*), sum(id) FROM par GROUP BY tableoid ORDER BY tableoid::regclass::text;
INSERT INTO par VALUES (1, 11, 'conflict') ON CONFLICT (id, k) DO UPDATE SET t = 'was there' RETURNING tableoid::regclass, *;
-- detach, attach, truncate, drop
ALTER TABLE par DETACH PARTITION par_1;
SELECT count(*) FROM par;
ALTER TABLE par ATTACH PARTITION par_1 FOR VALUES FROM (0) TO (10);
SELECT count(*) FROM par;
TRUNCATE par_3;
SELECT tableoid::regclass, count(*) FROM par GROUP BY tableoid ORDER BY tableoid::regclass::text;
DROP TABLE par_2;
SELECT tableoid::regclass, count(*) FROM par GROUP BY tableoid ORDER BY tableoid::regclass::text;
CREATE INDEX par_t ON par (t);
SET enable_seqscan = off;
SELECT count(*) FROM par WHERE t = 'p70';
RESET enable_seqscan;
SET enable_partitionwise_join = on; SET enable_partitionwise_aggregate = on;
SELECT count(*) FROM par a JOIN par b USING (id, k);
RESET ALL;
-- foreign key to a partitioned table
CREATE TABLE par_ref (id int, k int, FOREIGN KEY (id, k) REFERENCES par ON DELETE CASCADE) USING aurora;
INSERT INTO par_ref SELECT id, k FROM par WHERE k < 5;
INSERT INTO par_ref VALUES (-1, 1);
DELETE FROM par WHERE k = 2;
SELECT count(*) = (SELECT count(*) FROM par WHERE k < 5) AS agree FROM par_ref;

SELECT local_main_bytes(), wrong_pages(), check_btrees();
DROP TABLE par_ref, par;
