-- Unique, check, exclusion and foreign key constraints, also across heap and
-- aurora tables in both directions.
CREATE TABLE heap_p (id int PRIMARY KEY, t text) USING heap;
CREATE TABLE aur_p (id int PRIMARY KEY, t text) USING aurora;
CREATE TABLE aur_of_heap (id int PRIMARY KEY, p int REFERENCES heap_p ON DELETE CASCADE ON UPDATE CASCADE) USING aurora;
CREATE TABLE heap_of_aur (id int PRIMARY KEY, p int REFERENCES aur_p ON DELETE CASCADE ON UPDATE CASCADE) USING heap;
CREATE TABLE aur_of_aur (id int PRIMARY KEY, p int REFERENCES aur_p ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED) USING aurora;
INSERT INTO heap_p SELECT g, 'h' || g FROM generate_series(1, 5) g;
INSERT INTO aur_p SELECT g, 'a' || g FROM generate_series(1, 5) g;
INSERT INTO aur_of_heap SELECT g, g FROM generate_series(1, 5) g;
INSERT INTO heap_of_aur SELECT g, g FROM generate_series(1, 5) g;
INSERT INTO aur_of_aur SELECT g, g FROM generate_series(1, 5) g;
INSERT INTO aur_of_heap VALUES (6, 99);
INSERT INTO heap_of_aur VALUES (6, 99);
INSERT INTO aur_of_aur VALUES (6, 99);
BEGIN;
INSERT INTO aur_of_aur VALUES (6, 6);
INSERT INTO aur_p VALUES (6, 'late');
COMMIT;
DELETE FROM heap_p WHERE id = 1;
DELETE FROM aur_p WHERE id = 2;
UPDATE heap_p SET id = 30 WHERE id = 3;
UPDATE aur_p SET id = 40 WHERE id = 4;
DELETE FROM aur_of_aur WHERE p = 4;
UPDATE aur_p SET id = 40 WHERE id = 4;
SELECT * FROM aur_of_heap ORDER BY id;
SELECT * FROM heap_of_aur ORDER BY id;
SELECT * FROM aur_of_aur ORDER BY id;
TRUNCATE aur_p;
TRUNCATE aur_p CASCADE;
SELECT (SELECT count(*) FROM heap_of_aur), (SELECT count(*) FROM aur_of_aur);

-- deferred unique
CREATE TABLE con_u (id int UNIQUE DEFERRABLE INITIALLY DEFERRED, v text) USING aurora;
INSERT INTO con_u VALUES (1, 'a'), (2, 'b');
UPDATE con_u SET id = id + 1;
SELECT * FROM con_u ORDER BY id;
BEGIN; INSERT INTO con_u VALUES (2, 'dup'); COMMIT;
BEGIN; UPDATE con_u SET id = 3 WHERE id = 2; UPDATE con_u SET id = 4 WHERE v = 'b'; COMMIT;
SELECT * FROM con_u ORDER BY id;
-- check, not null
CREATE TABLE con_c (a int CHECK (a > 0), b int NOT NULL) USING aurora;
INSERT INTO con_c VALUES (0, 1);
INSERT INTO con_c VALUES (1, NULL);
INSERT INTO con_c VALUES (1, 1);
ALTER TABLE con_c ADD CONSTRAINT big CHECK (b > 100);
ALTER TABLE con_c ADD CONSTRAINT big CHECK (b > 100) NOT VALID;
UPDATE con_c SET b = 200;
ALTER TABLE con_c VALIDATE CONSTRAINT big;
-- exclusion
CREATE TABLE con_x (r int4range, EXCLUDE USING gist (r WITH &&)) USING aurora;
INSERT INTO con_x VALUES ('[1,5)'), ('[5,9)');
INSERT INTO con_x VALUES ('[3,4)');
INSERT INTO con_x VALUES ('[3,4)') ON CONFLICT DO NOTHING;
SELECT * FROM con_x ORDER BY r;
-- unique with nulls, two columns, expression
CREATE TABLE con_n (a int, b int, UNIQUE NULLS NOT DISTINCT (a, b)) USING aurora;
INSERT INTO con_n VALUES (1, NULL);
INSERT INTO con_n VALUES (1, NULL);
CREATE UNIQUE INDEX con_expr ON con_n ((a % 10));
INSERT INTO con_n VALUES (11, 5);
SELECT * FROM con_n;
-- a key that was deleted may come again; one whose delete was rolled back not
BEGIN; DELETE FROM con_n; INSERT INTO con_n VALUES (21, 5); COMMIT;
SELECT * FROM con_n;
BEGIN; DELETE FROM con_n; ROLLBACK;
INSERT INTO con_n VALUES (31, 5);

SELECT local_main_bytes(), wrong_pages(), check_btrees();
DROP TABLE heap_p, aur_p, aur_of_heap, heap_of_aur, aur_of_aur, con_u, con_c, con_x, con_n;
