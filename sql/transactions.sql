-- Rollback, savepoints, isolation levels, row locks.
SET default_table_access_method = aurora;
CREATE TABLE tx (id int PRIMARY KEY, v int);
INSERT INTO tx SELECT g, g FROM generate_series(1, 10) g;

BEGIN;
INSERT INTO tx VALUES (11, 11);
UPDATE tx SET v = 100 WHERE id = 1;
DELETE FROM tx WHERE id = 2;
SELECT count(*), sum(v) FROM tx;
ROLLBACK;
SELECT count(*), sum(v) FROM tx;

BEGIN;
UPDATE tx SET v = v + 1;
SAVEPOINT a;
UPDATE tx SET v = v + 10;
INSERT INTO tx VALUES (12, 12);
SAVEPOINT b;
DELETE FROM tx;
SELECT count(*) FROM tx;
ROLLBACK TO b;
SELECT count(*), sum(v) FROM tx;
ROLLBACK TO a;
SELECT count(*), sum(v) FROM tx;
RELEASE a;
INSERT INTO tx VALUES (13, 13);
COMMIT;
SELECT count(*), sum(v) FROM tx;

-- an update of a row whose last updater was a rolled back savepoint
BEGIN;
SAVEPOINT s; UPDATE tx SET v = -1 WHERE id = 1; ROLLBACK TO s;
UPDATE tx SET v = v + 1000 WHERE id = 1;
SAVEPOINT s2; SELECT v FROM tx WHERE id = 1 FOR UPDATE; ROLLBACK TO s2;
UPDATE tx SET v = v + 1000 WHERE id = 1;
COMMIT;
SELECT v FROM tx WHERE id = 1;

-- exceptions in functions are subtransactions
DO $$
BEGIN
  FOR i IN 1..20 LOOP
    BEGIN
      INSERT INTO tx VALUES (i, 0);
    EXCEPTION WHEN unique_violation THEN
      UPDATE tx SET v = v + 1 WHERE id = i;
    END;
  END LOOP;
END $$;
SELECT count(*), sum(v) FROM tx;

-- row locks of every strength, alone and one after the other
BEGIN;
SELECT id FROM tx WHERE id <= 2 ORDER BY id FOR KEY SHARE;
SELECT id FROM tx WHERE id <= 2 ORDER BY id FOR SHARE;
SELECT id FROM tx WHERE id <= 2 ORDER BY id FOR NO KEY UPDATE;
SELECT id FROM tx WHERE id <= 2 ORDER BY id FOR UPDATE;
SELECT id FROM tx WHERE id = 1 FOR UPDATE NOWAIT;
SELECT id FROM tx WHERE id = 1 FOR UPDATE SKIP LOCKED;
UPDATE tx SET v = 0 WHERE id = 1;
SELECT id, v FROM tx WHERE id = 1 FOR UPDATE;
COMMIT;
SELECT id, v FROM tx WHERE id = 1;
BEGIN; SELECT id FROM tx WHERE id = 3 FOR UPDATE; ROLLBACK;
BEGIN; SELECT id FROM tx WHERE id = 3 FOR SHARE; SAVEPOINT s; SELECT id FROM tx WHERE id = 3 FOR UPDATE; ROLLBACK TO s; UPDATE tx SET v = 33 WHERE id = 3; COMMIT;
SELECT v FROM tx WHERE id = 3;

-- REPEATABLE READ and SERIALIZABLE with a snapshot of their own
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM tx;
INSERT INTO tx VALUES (100, 100);
SELECT count(*) FROM tx;
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
UPDATE tx SET v = v + 1 WHERE id = 5;
SELECT v FROM tx WHERE id = 5;
COMMIT;
BEGIN READ ONLY;
UPDATE tx SET v = 1;
ROLLBACK;

-- commands in one transaction see each other in order
BEGIN;
CREATE TABLE tx2 (a int);
INSERT INTO tx2 VALUES (1);
INSERT INTO tx2 SELECT a + 1 FROM tx2;
INSERT INTO tx2 SELECT a + 2 FROM tx2;
SELECT * FROM tx2 ORDER BY a;
UPDATE tx2 SET a = a * 10 WHERE a > 2;
DELETE FROM tx2 WHERE a = 1;
SELECT a, cmin, cmax FROM tx2 ORDER BY a;
COMMIT;

-- exported snapshots
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_export_snapshot() ~ '-' AS exported;
COMMIT;

SELECT local_main_bytes(), wrong_pages(), check_btrees();
DROP TABLE tx, tx2;
