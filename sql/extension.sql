-- The extension itself, and helpers that the other tests use.
CREATE EXTENSION aurora;
CREATE EXTENSION amcheck;

SELECT amname, amtype FROM pg_am WHERE amname = 'aurora';
SELECT current_setting('shared_preload_libraries') ~ 'aurora' AS preloaded;

-- Bytes in the local main forks of all permanent aurora tables (and their
-- TOAST tables): always 0.
CREATE FUNCTION local_main_bytes() RETURNS bigint LANGUAGE sql AS $$
  SELECT coalesce(sum((pg_stat_file(pg_relation_filepath(c.oid), true)).size), 0)::bigint
    FROM pg_class c JOIN pg_am a ON a.oid = c.relam
   WHERE a.amname = 'aurora' AND c.relpersistence = 'p' AND c.relkind IN ('r', 't', 'm')
$$;

-- Blocks whose cached page differs from storage's at the same LSN, over all
-- permanent aurora tables: always 0.
CREATE FUNCTION wrong_pages() RETURNS bigint LANGUAGE sql AS $$
  SELECT count(*)
    FROM pg_class c JOIN pg_am a ON a.oid = c.relam,
         LATERAL aurora.verify_pages(c.oid::regclass) v
   WHERE a.amname = 'aurora' AND c.relpersistence = 'p' AND c.relkind IN ('r', 't', 'm')
$$;

-- Index and table agree, for every btree index on an aurora table.
CREATE FUNCTION check_btrees() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE r record; n bigint := 0;
BEGIN
  FOR r IN SELECT i.indexrelid::regclass AS idx
             FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
             JOIN pg_class c ON c.oid = i.indrelid
             JOIN pg_am a ON a.oid = c.relam JOIN pg_am xa ON xa.oid = x.relam
            WHERE a.amname = 'aurora' AND xa.amname = 'btree' AND i.indisvalid
              AND x.relkind = 'i'
  LOOP
    PERFORM bt_index_check(r.idx, true);
    n := n + 1;
  END LOOP;
  RETURN CASE WHEN n > 0 THEN 0 ELSE -1 END;
END $$;

CREATE TABLE ext_t (a int PRIMARY KEY, b text) USING aurora;
SELECT a.amname FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE c.relname = 'ext_t';
INSERT INTO ext_t SELECT g, 'row ' || g FROM generate_series(1, 1000) g;
SELECT count(*), sum(a), min(b), max(b) FROM ext_t;
-- The TOAST table of an aurora table is one, too.
SELECT ta.amname FROM pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid
  JOIN pg_am ta ON ta.oid = t.relam WHERE c.relname = 'ext_t';
SELECT local_main_bytes(), wrong_pages(), check_btrees();
DROP TABLE ext_t;
