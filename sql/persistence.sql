-- Temporary and unlogged aurora tables are ordinary local tables.
CREATE TEMP TABLE per_tmp (id int PRIMARY KEY, t text) USING aurora;
INSERT INTO per_tmp SELECT g, repeat('t', g % 3000) FROM generate_series(1, 3000) g;
UPDATE per_tmp SET t = t || 'x' WHERE id % 2 = 0;
DELETE FROM per_tmp WHERE id % 5 = 0;
SELECT count(*), sum(length(t)) FROM per_tmp;
SET enable_seqscan = off;
SELECT length(t) FROM per_tmp WHERE id = 1234;
RESET enable_seqscan;
VACUUM ANALYZE per_tmp;
SELECT count(*), sum(length(t)) FROM per_tmp;
BEGIN; DELETE FROM per_tmp; ROLLBACK;
SELECT count(*) FROM per_tmp;
TRUNCATE per_tmp;
SELECT count(*) FROM per_tmp;
CREATE TEMP TABLE per_tmp2 (a int) USING aurora ON COMMIT DELETE ROWS;
BEGIN; INSERT INTO per_tmp2 VALUES (1); SELECT count(*) FROM per_tmp2; COMMIT;
SELECT count(*) FROM per_tmp2;
CREATE TEMP TABLE per_tmp3 (a int) USING aurora ON COMMIT DROP;
-- big values in a temporary table
INSERT INTO per_tmp VALUES (1, (SELECT string_agg(md5(g::text), '') FROM generate_series(1, 10000) g));
SELECT length(t), md5(t) FROM per_tmp;

CREATE UNLOGGED TABLE per_unl (id int PRIMARY KEY, t text) USING aurora;
INSERT INTO per_unl SELECT g, 'u' || g FROM generate_series(1, 5000) g;
UPDATE per_unl SET t = t || 'x' WHERE id % 2 = 0;
DELETE FROM per_unl WHERE id % 5 = 0;
SELECT count(*), sum(length(t)) FROM per_unl;
VACUUM per_unl;
CHECKPOINT;
SELECT count(*), sum(length(t)) FROM per_unl;
SELECT pg_relation_size('per_unl') > 0 AS local_file, pg_relation_size('per_unl', 'init') >= 0 AS init_fork;
ALTER TABLE per_unl SET LOGGED;
SELECT count(*), sum(length(t)) FROM per_unl;
SELECT local_main_bytes(), wrong_pages(), check_btrees();
UPDATE per_unl SET t = 'logged now' WHERE id = 1;
ALTER TABLE per_unl SET UNLOGGED;
SELECT count(*), sum(length(t)) FROM per_unl;
-- temporary, unlogged and permanent tables of both kinds in one query
CREATE TABLE per_perm (id int, t text) USING aurora;
CREATE TEMP TABLE per_heap (id int, t text) USING heap;
INSERT INTO per_perm SELECT id, t FROM per_unl WHERE id <= 100;
INSERT INTO per_heap SELECT id, t FROM per_perm WHERE id <= 50;
SELECT count(*) FROM per_perm p JOIN per_heap h USING (id) JOIN per_unl u USING (id);
CHECKPOINT;
SELECT local_main_bytes(), wrong_pages(), check_btrees();
DROP TABLE per_unl, per_perm;
