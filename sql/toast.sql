-- Big values: every storage strategy, updates, slices, rollbacks.
SET default_table_access_method = aurora;
CREATE FUNCTION noise(n int, seed int) RETURNS text LANGUAGE sql IMMUTABLE AS
 $$ SELECT left(string_agg(md5((seed * 100003 + i)::text), '' ORDER BY i), n) FROM generate_series(1, n / 32 + 1) i $$;
CREATE TABLE toa (id int PRIMARY KEY, x text, e text, m text, p text);
ALTER TABLE toa ALTER x SET STORAGE EXTENDED, ALTER e SET STORAGE EXTERNAL,
                ALTER m SET STORAGE MAIN, ALTER p SET STORAGE PLAIN;
INSERT INTO toa VALUES
  (1, noise(100000, 1), noise(50000, 2), noise(3000, 3), noise(1000, 4)),
  (2, repeat('compress me ', 20000), repeat('no ', 20000), repeat('main ', 20000), 'p'),
  (3, 'short', NULL, '', noise(2000, 5)),
  (4, noise(1000000, 6), noise(1000000, 7), NULL, NULL);
SELECT id, length(x), length(e), length(m), length(p), md5(x) = md5(noise(100000, 1)) AS same FROM toa ORDER BY id;
SELECT id, md5(x), md5(e), md5(m), md5(p) FROM toa ORDER BY id;
-- slices: of uncompressed values only the chunks asked for
SELECT id, substr(e, 1, 10), substr(e, 1995, 10), substr(e, 40000, 5) FROM toa ORDER BY id;
SELECT substr(x, 99990, 20) FROM toa WHERE id = 1;
SELECT substr(e, 999990, 100), substr(e, 2000000, 1) FROM toa WHERE id = 4;
-- updates: of another column, of the value, to NULL, to a short one
UPDATE toa SET p = 'changed';
SELECT id, md5(x), md5(e), md5(m) FROM toa ORDER BY id;
UPDATE toa SET x = x || '!' WHERE id = 1;
UPDATE toa SET e = NULL WHERE id = 2;
UPDATE toa SET x = noise(40000, 8), e = noise(30000, 9) WHERE id = 3;
UPDATE toa SET e = 'small' WHERE id = 4;
SELECT id, length(x), md5(x), length(e), md5(e) FROM toa ORDER BY id;
-- rolled back
BEGIN; UPDATE toa SET x = noise(70000, id + 20); DELETE FROM toa WHERE id = 1; ROLLBACK;
BEGIN; SAVEPOINT s; INSERT INTO toa VALUES (9, noise(50000, 30)); ROLLBACK TO s; INSERT INTO toa VALUES (9, noise(60000, 31)); COMMIT;
SELECT id, length(x), md5(x) FROM toa ORDER BY id;
-- many chunks, then gone
DELETE FROM toa WHERE id IN (2, 4);
VACUUM toa;
SELECT id, length(x), md5(x), length(e), md5(e) FROM toa ORDER BY id;
-- from heap to aurora and back through a query, detoasted on the way
CREATE TABLE toa_heap (id int, x text) USING heap;
INSERT INTO toa_heap SELECT id, x FROM toa;
INSERT INTO toa SELECT id + 100, x FROM toa_heap;
SELECT id, length(x), md5(x) FROM toa WHERE id > 100 ORDER BY id;
-- the value outlives the row within a cursor
BEGIN;
DECLARE c CURSOR FOR SELECT md5(x) FROM toa ORDER BY id;
FETCH 1 FROM c;
SAVEPOINT s;
FETCH 1 FROM c;
COMMIT;
-- composite, arrays, jsonb, bytea
CREATE TABLE toa2 (a text[], j jsonb, b bytea);
INSERT INTO toa2 SELECT array_agg(noise(500, g)), jsonb_object_agg('k' || g, noise(300, g)), string_agg(decode(noise(200, g), 'hex'), '') FROM generate_series(1, 300) g;
SELECT array_length(a, 1), md5(a::text), md5(j::text), length(b), md5(b) FROM toa2;
UPDATE toa2 SET j = j || '{"new": 1}';
SELECT j -> 'new', length(j::text) FROM toa2;
-- lz4 and pglz
CREATE TABLE toa3 (a text COMPRESSION pglz, b text COMPRESSION lz4);
INSERT INTO toa3 SELECT repeat(noise(100, g), 500), repeat(noise(100, g), 500) FROM generate_series(1, 5) g;
SELECT pg_column_compression(a), pg_column_compression(b), md5(a) = md5(b) AS same FROM toa3;
-- index on a value that is compressed
CREATE INDEX toa3_a ON toa3 (md5(a));
SET enable_seqscan = off;
SELECT count(*) FROM toa3 WHERE md5(a) = md5(repeat(noise(100, 3), 500));
RESET enable_seqscan;
-- values just around the limits
CREATE TABLE toa4 (n int, v text);
ALTER TABLE toa4 ALTER v SET STORAGE EXTERNAL;
INSERT INTO toa4 SELECT n, noise(n, n) FROM unnest(ARRAY[1, 126, 127, 128, 1995, 1996, 1997, 2000, 2032, 2033, 3992, 3993, 8159, 8160, 8192]) n;
SELECT bool_and(v = noise(n, n)), count(*) FROM toa4;
-- rewrite and ANALYZE
VACUUM FULL toa;
ANALYZE toa;
SELECT id, length(x), md5(x), length(e), md5(e) FROM toa ORDER BY id;

SELECT local_main_bytes(), wrong_pages(), check_btrees();
DROP TABLE toa, toa_heap, toa2, toa3, toa4;
DROP FUNCTION noise;
