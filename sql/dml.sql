-- INSERT, SELECT, UPDATE (HOT and not), DELETE, COPY, RETURNING, ON CONFLICT.
SET default_table_access_method = aurora;
CREATE TABLE dml (id int, name text, n numeric, PRIMARY KEY (id));

INSERT INTO dml VALUES (1, 'one', 1.1), (2, 'two', 2.2), (3, NULL, NULL);
INSERT INTO dml (id) VALUES (4) RETURNING *;
SELECT * FROM dml ORDER BY id;
SELECT ctid, id FROM dml ORDER BY ctid;

-- update without touching the index: HOT
UPDATE dml SET name = 'uno' WHERE id = 1 RETURNING id, name;
-- update of the key: not HOT
UPDATE dml SET id = 10 WHERE id = 2 RETURNING id, name;
-- several times in one transaction
BEGIN;
UPDATE dml SET n = coalesce(n, 0) + 1;
UPDATE dml SET n = n + 1;
UPDATE dml SET n = n + 1;
SELECT * FROM dml ORDER BY id;
COMMIT;
SELECT * FROM dml ORDER BY id;

DELETE FROM dml WHERE id = 3 RETURNING *;
SELECT * FROM dml ORDER BY id;
SELECT * FROM dml WHERE id = 3;

-- own changes are visible only to later commands
WITH ins AS (INSERT INTO dml VALUES (20, 'cte', 0) RETURNING id)
SELECT (SELECT count(*) FROM dml) AS before, (SELECT count(*) FROM ins) AS inserted;
SELECT count(*) FROM dml;
INSERT INTO dml SELECT id + 100, name, n FROM dml;
SELECT count(*) FROM dml;

-- INSERT ... ON CONFLICT
INSERT INTO dml VALUES (1, 'dup', 0) ON CONFLICT DO NOTHING;
INSERT INTO dml VALUES (1, 'dup', 0) ON CONFLICT (id) DO NOTHING RETURNING *;
INSERT INTO dml VALUES (1, 'new', 7), (30, 'thirty', 30)
  ON CONFLICT (id) DO UPDATE SET name = excluded.name || '/' || dml.name, n = excluded.n
  RETURNING id, name, n;
INSERT INTO dml VALUES (50, 'a', 1), (50, 'b', 2) ON CONFLICT (id) DO UPDATE SET name = 'x';
INSERT INTO dml VALUES (1, 'w', 8) ON CONFLICT (id) DO UPDATE SET name = 'w' WHERE dml.n > 100 RETURNING id;
SELECT * FROM dml WHERE id IN (1, 30, 50) ORDER BY id;

-- unique violation leaves nothing behind
INSERT INTO dml VALUES (60, 'x', 0), (1, 'dup', 0);
SELECT * FROM dml WHERE id = 60;

-- MERGE
MERGE INTO dml t USING (VALUES (1, 'merged'), (70, 'seventy')) s(id, name) ON t.id = s.id
  WHEN MATCHED THEN UPDATE SET name = s.name
  WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.name, 0);
SELECT id, name FROM dml WHERE id IN (1, 70) ORDER BY id;

-- UPDATE FROM, DELETE USING
UPDATE dml SET name = 'from ' || s.k FROM (VALUES (1, 'a'), (10, 'b')) s(id, k) WHERE dml.id = s.id;
DELETE FROM dml USING (VALUES (101), (104)) s(id) WHERE dml.id = s.id RETURNING dml.id;
SELECT id, name, n FROM dml ORDER BY id;

-- COPY in (many rows: multi-insert) and out
CREATE TABLE dml_copy (a int, b text, c timestamptz DEFAULT '2000-01-01 UTC');
COPY dml_copy (a, b) FROM stdin;
1	first
2	\N
3	with\ttab
\.
SELECT a, b FROM dml_copy ORDER BY a;
COPY (SELECT a, b FROM dml_copy ORDER BY a) TO stdout;
CREATE TABLE dml_many (a int, b text);
INSERT INTO dml_many SELECT g, repeat('x', g % 100) FROM generate_series(1, 20000) g;
-- the server writes and reads the file
\set copyfile `mktemp -u /tmp/aurora_dml_XXXXXX`
COPY dml_many TO :'copyfile';
TRUNCATE dml_many;
SELECT count(*) FROM dml_many;
COPY dml_many FROM :'copyfile';
SELECT count(*), sum(a), sum(length(b)) FROM dml_many;
COPY dml_many FROM :'copyfile' WHERE a <= 10;
SELECT count(*), sum(a), sum(length(b)) FROM dml_many;
\set ignored `rm -f :'copyfile'`
-- a COPY that fails in the middle
COPY dml_copy (a, b) FROM stdin;
10	fine
eleven	not a number
\.
SELECT count(*) FROM dml_copy;

-- rows of every size up to the page
CREATE TABLE dml_sizes (a int, b text);
ALTER TABLE dml_sizes ALTER b SET STORAGE PLAIN;
INSERT INTO dml_sizes SELECT g, repeat('y', g * 100) FROM generate_series(0, 81) g;
SELECT count(*), sum(length(b)), bool_and(b = repeat('y', a * 100)) FROM dml_sizes;
INSERT INTO dml_sizes VALUES (-1, repeat('z', 8200));
UPDATE dml_sizes SET b = b || 'tail' WHERE a % 3 = 0 AND a < 80;
SELECT count(*), sum(length(b)) FROM dml_sizes;
DELETE FROM dml_sizes WHERE a % 2 = 0;
SELECT count(*), sum(length(b)) FROM dml_sizes;

-- many versions of one row: pruning keeps the chain in the page
CREATE TABLE dml_hot (id int PRIMARY KEY, v int) WITH (fillfactor = 50);
INSERT INTO dml_hot SELECT g, 0 FROM generate_series(1, 10) g;
DO $$ BEGIN FOR i IN 1..500 LOOP UPDATE dml_hot SET v = v + 1 WHERE id = 5; END LOOP; END $$;
SELECT * FROM dml_hot WHERE id = 5;
SELECT count(*), sum(v) FROM dml_hot;

-- system columns and whole rows
SELECT tableoid::regclass, dml_hot FROM dml_hot WHERE id = 1;
SELECT xmin::text::bigint > 2 AS xmin, cmin, xmax FROM dml_hot WHERE id = 1;

-- triggers see old and new rows
CREATE FUNCTION dml_trig() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE NOTICE '% % old=% new=%', TG_WHEN, TG_OP, old, new;
  RETURN coalesce(new, old);
END $$;
CREATE TABLE dml_t (a int, b text);
CREATE TRIGGER t1 BEFORE INSERT OR UPDATE OR DELETE ON dml_t FOR EACH ROW EXECUTE FUNCTION dml_trig();
CREATE TRIGGER t2 AFTER INSERT OR UPDATE OR DELETE ON dml_t FOR EACH ROW EXECUTE FUNCTION dml_trig();
INSERT INTO dml_t VALUES (1, 'a'), (2, 'b');
UPDATE dml_t SET b = b || b;
DELETE FROM dml_t WHERE a = 1;
CREATE FUNCTION dml_stmt() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE n int;
BEGIN SELECT count(*) INTO n FROM changed; RAISE NOTICE '% rows', n; RETURN NULL; END $$;
CREATE TRIGGER t3 AFTER UPDATE ON dml_t REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION dml_stmt();
UPDATE dml_t SET a = a + 1;

-- generated and identity columns, defaults, dropped and added columns
CREATE TABLE dml_gen (id int GENERATED ALWAYS AS IDENTITY, a int, dbl int GENERATED ALWAYS AS (a * 2) STORED);
INSERT INTO dml_gen (a) SELECT generate_series(1, 5);
UPDATE dml_gen SET a = a + 1 WHERE id > 3;
ALTER TABLE dml_gen ADD COLUMN extra text DEFAULT 'e';
ALTER TABLE dml_gen DROP COLUMN a CASCADE;
INSERT INTO dml_gen DEFAULT VALUES;
SELECT * FROM dml_gen ORDER BY id;

-- large numbers of columns, nulls
SELECT format('CREATE TABLE dml_wide (%s)', string_agg('c' || g || ' int', ', ')) FROM generate_series(1, 300) g \gexec
INSERT INTO dml_wide (c1, c150, c300) VALUES (1, 2, 3);
UPDATE dml_wide SET c299 = 4;
SELECT c1, c2, c150, c299, c300 FROM dml_wide;

SELECT local_main_bytes(), wrong_pages(), check_btrees();
DROP TABLE dml, dml_copy, dml_many, dml_sizes, dml_hot, dml_t, dml_gen, dml_wide;
DROP FUNCTION dml_trig, dml_stmt;
