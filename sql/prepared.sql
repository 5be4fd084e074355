-- Prepared transactions.  prepared_1.out is for a server that has them switched
-- off (max_prepared_transactions = 0, the default).
SET default_table_access_method = aurora;
CREATE TABLE tx (id int PRIMARY KEY, v int);
INSERT INTO tx SELECT g, g FROM generate_series(1, 10) g;
BEGIN;
INSERT INTO tx VALUES (200, 200);
UPDATE tx SET v = 500 WHERE id = 5;
DELETE FROM tx WHERE id = 6;
PREPARE TRANSACTION 'aur1';
SELECT count(*) FROM tx WHERE id IN (5, 6, 200);
SELECT v FROM tx WHERE id = 5;
COMMIT PREPARED 'aur1';
SELECT id, v FROM tx WHERE id IN (5, 6, 200) ORDER BY id;
BEGIN; DELETE FROM tx; PREPARE TRANSACTION 'aur2';
ROLLBACK PREPARED 'aur2';
SELECT count(*) FROM tx;
-- a table made in one, and row locks held by one
BEGIN; CREATE TABLE tx2 (a int); INSERT INTO tx2 SELECT generate_series(1, 100); PREPARE TRANSACTION 'aur3';
COMMIT PREPARED 'aur3';
SELECT count(*) FROM tx2;
BEGIN; SELECT id FROM tx WHERE id = 1 FOR UPDATE; PREPARE TRANSACTION 'aur4';
SELECT id FROM tx WHERE id < 3 ORDER BY id FOR UPDATE SKIP LOCKED;
COMMIT PREPARED 'aur4';
SELECT id FROM tx WHERE id < 3 ORDER BY id FOR UPDATE SKIP LOCKED;
BEGIN; DROP TABLE tx2; PREPARE TRANSACTION 'aur5';
COMMIT PREPARED 'aur5';
SELECT count(*) FROM tx2;

SELECT local_main_bytes(), wrong_pages(), check_btrees();
DROP TABLE tx;
