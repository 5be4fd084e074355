-- Random work done twice, on a heap table and on an aurora table; they must
-- agree after each round.
CREATE TABLE cmp_heap (id int PRIMARY KEY, k int, v text) USING heap;
CREATE TABLE cmp_aurora (id int PRIMARY KEY, k int, v text) USING aurora;
CREATE INDEX ON cmp_heap (k);
CREATE INDEX ON cmp_aurora (k);
CREATE FUNCTION cmp_differences() RETURNS bigint LANGUAGE sql AS $$
  SELECT (SELECT count(*) FROM (TABLE cmp_heap EXCEPT ALL TABLE cmp_aurora) a)
       + (SELECT count(*) FROM (TABLE cmp_aurora EXCEPT ALL TABLE cmp_heap) b)
$$;
-- One random change, the same for both.  Statements that fail must fail in
-- both.
CREATE FUNCTION cmp_step(op int, a int, b int, s text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE t text; q text; res text[] := '{}'; n bigint;
BEGIN
  FOREACH t IN ARRAY ARRAY['cmp_heap', 'cmp_aurora'] LOOP
    q := CASE op
      WHEN 0 THEN format('INSERT INTO %I SELECT g, g %% 17, %L || g FROM generate_series(%s, %s) g', t, s, a, a + b % 50)
      WHEN 1 THEN format('INSERT INTO %I SELECT g, 3, %L FROM generate_series(%s, %s) g ON CONFLICT (id) DO UPDATE SET v = excluded.v || 1', t, s, a, a + b % 30)
      WHEN 2 THEN format('UPDATE %I SET v = v || %L WHERE id BETWEEN %s AND %s', t, left(s, 7), a, a + b % 40)
      WHEN 3 THEN format('UPDATE %I SET k = k + 1 WHERE k = %s', t, b % 17)
      WHEN 4 THEN format('DELETE FROM %I WHERE id BETWEEN %s AND %s', t, a, a + b % 20)
      WHEN 5 THEN format('UPDATE %I SET id = id + %s WHERE id = %s', t, b, a)
      WHEN 6 THEN format('UPDATE %I SET v = %L WHERE k = %s', t, repeat(s, 300), b % 17)
      WHEN 7 THEN format('DELETE FROM %I WHERE k = %s AND id %% 3 = 0', t, b % 17)
      WHEN 8 THEN format('WITH l AS (SELECT id FROM %1$I WHERE k = %2$s FOR UPDATE) UPDATE %1$I x SET k = x.k WHERE x.id IN (SELECT id FROM l)', t, b % 17)
      ELSE format('UPDATE %I SET v = left(v, 10) WHERE id > %s AND id < %s', t, a, a + 100)
    END;
    BEGIN
      EXECUTE q;
      GET DIAGNOSTICS n = ROW_COUNT;
      res := res || n::text;
    EXCEPTION WHEN unique_violation THEN
      res := res || 'unique violation'::text;
    END;
  END LOOP;
  RETURN CASE WHEN res[1] = res[2] THEN 'same' ELSE format('%s: %s', q, res) END;
END $$;
SELECT setseed(0.15);
DO $$
DECLARE r text;
BEGIN
  FOR round IN 1..10 LOOP
    FOR i IN 1..60 LOOP
      r := cmp_step(floor(random() * 10)::int, floor(random() * 5000)::int,
                    floor(random() * 10000)::int, md5(random()::text));
      IF r <> 'same' THEN RAISE NOTICE '%', r; END IF;
    END LOOP;
    IF cmp_differences() <> 0 THEN RAISE NOTICE 'round %: % differences', round, cmp_differences(); END IF;
  END LOOP;
END $$;
SELECT cmp_differences(), (SELECT count(*) > 500 FROM cmp_aurora) AS has_rows;
VACUUM cmp_aurora; VACUUM cmp_heap;
-- each round a transaction of its own, some rolled back
CREATE PROCEDURE cmp_rounds(rounds int) LANGUAGE plpgsql AS $$
DECLARE r text; p int;
BEGIN
  FOR round IN 1..rounds LOOP
    FOR i IN 1..20 LOOP
      r := cmp_step(floor(random() * 10)::int, floor(random() * 5000)::int,
                    floor(random() * 10000)::int, md5(random()::text));
      IF r <> 'same' THEN RAISE NOTICE '%', r; END IF;
    END LOOP;
    IF random() < 0.3 THEN ROLLBACK; ELSE COMMIT; END IF;
    IF cmp_differences() <> 0 THEN RAISE NOTICE 'round %: % differences', round, cmp_differences(); END IF;
  END LOOP;
END $$;
CALL cmp_rounds(30);
SELECT cmp_differences();
VACUUM cmp_aurora;
CALL cmp_rounds(20);
SELECT cmp_differences();
-- by index, too
SET enable_seqscan = off;
SELECT cmp_differences();
SELECT (SELECT string_agg(k || ':' || n, ' ' ORDER BY k) FROM (SELECT k, count(*) AS n FROM cmp_heap WHERE k >= 0 GROUP BY k) x)
     = (SELECT string_agg(k || ':' || n, ' ' ORDER BY k) FROM (SELECT k, count(*) AS n FROM cmp_aurora WHERE k >= 0 GROUP BY k) x) AS same;
RESET enable_seqscan;
ALTER TABLE cmp_aurora ADD COLUMN z int DEFAULT 3;
ALTER TABLE cmp_heap ADD COLUMN z int DEFAULT 3;
CALL cmp_rounds(5);
SELECT cmp_differences();

SELECT local_main_bytes(), wrong_pages(), check_btrees();
DROP TABLE cmp_heap, cmp_aurora;
DROP FUNCTION cmp_step, cmp_differences;
DROP PROCEDURE cmp_rounds;
