-- TRUNCATE, DROP, transactional DDL, rewrites, SET ACCESS METHOD, CTAS,
-- materialized views, CLUSTER, inheritance, dependencies.
SET default_table_access_method = aurora;
CREATE TABLE ddl (id int PRIMARY KEY, t text);
INSERT INTO ddl SELECT g, 't' || g FROM generate_series(1, 1000) g;

-- TRUNCATE, rolled back and not, in the creating transaction and later
BEGIN; TRUNCATE ddl; SELECT count(*) FROM ddl; INSERT INTO ddl VALUES (1, 'x'); SELECT count(*) FROM ddl; ROLLBACK;
SELECT count(*), sum(id) FROM ddl;
BEGIN; CREATE TABLE ddl_new (a int); INSERT INTO ddl_new SELECT generate_series(1, 500); TRUNCATE ddl_new; INSERT INTO ddl_new VALUES (1); COMMIT;
SELECT * FROM ddl_new;
BEGIN; SAVEPOINT s; TRUNCATE ddl_new; ROLLBACK TO s; SELECT * FROM ddl_new; TRUNCATE ddl_new; COMMIT;
SELECT * FROM ddl_new;
INSERT INTO ddl_new SELECT generate_series(1, 300);
TRUNCATE ddl_new;
SELECT count(*) FROM ddl_new;
INSERT INTO ddl_new VALUES (7);
SELECT * FROM ddl_new;

-- CREATE and DROP, rolled back
BEGIN; CREATE TABLE ddl_gone (a int PRIMARY KEY); INSERT INTO ddl_gone SELECT generate_series(1, 1000); ROLLBACK;
SELECT * FROM ddl_gone;
BEGIN; DROP TABLE ddl; ROLLBACK;
SELECT count(*), sum(id) FROM ddl;
BEGIN; ALTER TABLE ddl RENAME TO ddl_r; ALTER TABLE ddl_r ADD COLUMN z int DEFAULT 5; SELECT sum(z) FROM ddl_r; ROLLBACK;
SELECT count(*), sum(id) FROM ddl;

-- ALTER TABLE: with and without rewrite
ALTER TABLE ddl ADD COLUMN fast int DEFAULT 42;
ALTER TABLE ddl ADD COLUMN slow double precision DEFAULT random();
SELECT count(*), sum(fast), bool_and(slow BETWEEN 0 AND 1) FROM ddl;
ALTER TABLE ddl ALTER COLUMN id TYPE bigint;
SELECT count(*), sum(id), sum(fast) FROM ddl;
ALTER TABLE ddl ALTER COLUMN t TYPE varchar(20) USING upper(t);
SELECT min(t), max(t) FROM ddl;
ALTER TABLE ddl DROP COLUMN slow;
ALTER TABLE ddl ALTER COLUMN fast SET NOT NULL;
ALTER TABLE ddl SET (fillfactor = 60);
SELECT count(*), sum(id), sum(fast) FROM ddl;

-- ALTER TABLE ... SET ACCESS METHOD, both ways, with indexes and TOAST
CREATE TABLE ddl_am (id int PRIMARY KEY, t text, big text) USING heap;
INSERT INTO ddl_am SELECT g, 't' || g, (SELECT string_agg(md5((g * 100 + i)::text), '') FROM generate_series(1, 200) i) FROM generate_series(1, 50) g;
CREATE INDEX ddl_am_t ON ddl_am (t);
UPDATE ddl_am SET t = 'u' || id WHERE id % 2 = 0;
DELETE FROM ddl_am WHERE id % 10 = 0;
SELECT count(*), sum(id), md5(string_agg(id || t || big, ',' ORDER BY id)) FROM ddl_am;
ALTER TABLE ddl_am SET ACCESS METHOD aurora;
SELECT amname FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE relname = 'ddl_am';
SELECT count(*), sum(id), md5(string_agg(id || t || big, ',' ORDER BY id)) FROM ddl_am;
SELECT local_main_bytes(), wrong_pages(), check_btrees();
UPDATE ddl_am SET t = 'v' || id WHERE id % 3 = 0;
SELECT count(*), sum(id), md5(string_agg(id || t || big, ',' ORDER BY id)) FROM ddl_am;
BEGIN; ALTER TABLE ddl_am SET ACCESS METHOD heap; UPDATE ddl_am SET t = 'lost'; ROLLBACK;
SELECT count(*), sum(id), md5(string_agg(id || t || big, ',' ORDER BY id)) FROM ddl_am;
ALTER TABLE ddl_am SET ACCESS METHOD heap;
SELECT amname FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE relname = 'ddl_am';
SELECT count(*), sum(id), md5(string_agg(id || t || big, ',' ORDER BY id)) FROM ddl_am;
SET enable_seqscan = off;
SELECT id FROM ddl_am WHERE t = 'v9';
RESET enable_seqscan;

-- CREATE TABLE AS, SELECT INTO, LIKE
CREATE TABLE ddl_as AS SELECT id, t FROM ddl WHERE id <= 10;
SELECT id, t INTO ddl_into FROM ddl WHERE id <= 5;
CREATE TABLE ddl_like (LIKE ddl INCLUDING ALL);
INSERT INTO ddl_like SELECT * FROM ddl WHERE id < 4;
SELECT (SELECT count(*) FROM ddl_as), (SELECT count(*) FROM ddl_into), (SELECT count(*) FROM ddl_like);
SELECT relname, amname FROM pg_class c JOIN pg_am a ON a.oid = c.relam
 WHERE relname IN ('ddl_as', 'ddl_into', 'ddl_like') ORDER BY 1;

-- materialized views
CREATE MATERIALIZED VIEW ddl_mv AS SELECT id % 10 AS k, count(*) AS n FROM ddl GROUP BY 1;
CREATE UNIQUE INDEX ON ddl_mv (k);
SELECT * FROM ddl_mv ORDER BY k LIMIT 3;
DELETE FROM ddl WHERE id <= 100;
REFRESH MATERIALIZED VIEW ddl_mv;
SELECT sum(n) FROM ddl_mv;
DELETE FROM ddl WHERE id <= 200;
REFRESH MATERIALIZED VIEW CONCURRENTLY ddl_mv;
SELECT sum(n) FROM ddl_mv;

-- CLUSTER and VACUUM FULL
CREATE INDEX ddl_t ON ddl (t);
CLUSTER ddl USING ddl_t;
SELECT count(*), sum(id) FROM ddl;
SELECT id FROM ddl LIMIT 3;
VACUUM FULL ddl;
SELECT count(*), sum(id) FROM ddl;

-- tablespaces
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE aur_spc LOCATION '';
ALTER TABLE ddl SET TABLESPACE aur_spc;
SELECT count(*), sum(id) FROM ddl;
UPDATE ddl SET t = t || '.' WHERE id % 2 = 0;
ALTER INDEX ddl_pkey SET TABLESPACE aur_spc;
ALTER TABLE ddl SET TABLESPACE pg_default;
ALTER INDEX ddl_pkey SET TABLESPACE pg_default;
SELECT count(*), sum(id) FROM ddl;
CREATE TABLE ddl_spc (a int) TABLESPACE aur_spc;
INSERT INTO ddl_spc SELECT generate_series(1, 100);
SELECT count(*) FROM ddl_spc;
DROP TABLE ddl_spc;
DROP TABLESPACE aur_spc;

-- logged and unlogged
ALTER TABLE ddl SET UNLOGGED;
SELECT count(*), sum(id) FROM ddl;
ALTER TABLE ddl SET LOGGED;
SELECT count(*), sum(id) FROM ddl;

-- views, rules, row security, inheritance
CREATE VIEW ddl_v AS SELECT id, t FROM ddl WHERE id < 300;
UPDATE ddl_v SET t = 'through view' WHERE id = 250;
SELECT * FROM ddl_v WHERE id = 250;
CREATE TABLE ddl_child () INHERITS (ddl);
INSERT INTO ddl_child VALUES (5000, 'child', 1);
SELECT tableoid::regclass, id FROM ddl WHERE id > 990 ORDER BY id DESC LIMIT 2;
DROP TABLE ddl;
SELECT local_main_bytes(), wrong_pages(), check_btrees();
DROP TABLE ddl CASCADE;
DROP TABLE ddl_new, ddl_am, ddl_as, ddl_into, ddl_like;
SELECT count(*) FROM pg_class WHERE relname LIKE 'ddl%';
