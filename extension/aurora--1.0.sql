/* SPDX-License-Identifier: Apache-2.0 */
/* extension/aurora--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION aurora" to load this file. \quit

CREATE SCHEMA aurora;
GRANT USAGE ON SCHEMA aurora TO PUBLIC;
COMMENT ON SCHEMA aurora IS 'views and functions of the aurora storage engine';

-- Without the library in shared_preload_libraries nothing below would work.
CREATE FUNCTION aurora.check_preloaded() RETURNS void
    AS 'MODULE_PATHNAME', 'aurora_sql_check_preloaded'
    LANGUAGE C;
SELECT aurora.check_preloaded();
DROP FUNCTION aurora.check_preloaded();

--
-- The table access method
--
CREATE FUNCTION aurora.tableam_handler(internal) RETURNS table_am_handler
    AS 'MODULE_PATHNAME', 'aurora_tableam_handler'
    LANGUAGE C STRICT;
COMMENT ON FUNCTION aurora.tableam_handler(internal) IS
    'handler of table access method aurora';

CREATE ACCESS METHOD aurora TYPE TABLE HANDLER aurora.tableam_handler;
COMMENT ON ACCESS METHOD aurora IS
    'tables whose pages live in the storage cluster';

--
-- Sizes
--
CREATE FUNCTION aurora.relation_size(rel regclass) RETURNS bigint
    AS 'MODULE_PATHNAME', 'aurora_sql_relation_size'
    LANGUAGE C STRICT PARALLEL SAFE;
COMMENT ON FUNCTION aurora.relation_size(regclass) IS
    'true size in bytes of a relation''s main fork, wherever its pages are, whatever aurora.redirect_functions says';

CREATE FUNCTION aurora.total_relation_size(rel regclass) RETURNS bigint
    AS 'MODULE_PATHNAME', 'aurora_pg_total_relation_size'
    LANGUAGE C STRICT PARALLEL SAFE;
COMMENT ON FUNCTION aurora.total_relation_size(regclass) IS
    'true size in bytes of a table with its TOAST table, indexes, free space and visibility maps';

CREATE FUNCTION aurora.local_size(rel regclass) RETURNS bigint
    AS 'MODULE_PATHNAME', 'aurora_sql_local_size'
    LANGUAGE C STRICT PARALLEL SAFE;
COMMENT ON FUNCTION aurora.local_size(regclass) IS
    'bytes of the local file of a relation''s main fork: 0 for permanent aurora tables';

--
-- Twins: the planner calls them in place of functions of the server and of
-- contrib modules (setting aurora.redirect_functions), as which they must look.
-- Who may execute the original may execute its twin.
--
CREATE FUNCTION aurora.redirected_pg_relation_size(regclass) RETURNS bigint
    AS 'MODULE_PATHNAME', 'aurora_pg_relation_size'
    LANGUAGE C STRICT PARALLEL SAFE;
CREATE FUNCTION aurora.redirected_pg_relation_size(regclass, text) RETURNS bigint
    AS 'MODULE_PATHNAME', 'aurora_pg_relation_size_fork'
    LANGUAGE C STRICT PARALLEL SAFE;
CREATE FUNCTION aurora.redirected_pg_table_size(regclass) RETURNS bigint
    AS 'MODULE_PATHNAME', 'aurora_pg_table_size'
    LANGUAGE C STRICT PARALLEL SAFE;
CREATE FUNCTION aurora.redirected_pg_total_relation_size(regclass) RETURNS bigint
    AS 'MODULE_PATHNAME', 'aurora_pg_total_relation_size'
    LANGUAGE C STRICT PARALLEL SAFE;
CREATE FUNCTION aurora.redirected_pg_database_size(oid) RETURNS bigint
    AS 'MODULE_PATHNAME', 'aurora_pg_database_size_oid'
    LANGUAGE C STRICT PARALLEL SAFE;
CREATE FUNCTION aurora.redirected_pg_database_size(name) RETURNS bigint
    AS 'MODULE_PATHNAME', 'aurora_pg_database_size_name'
    LANGUAGE C STRICT PARALLEL SAFE;
CREATE FUNCTION aurora.redirected_pg_prewarm(regclass, mode text DEFAULT 'buffer',
                                             fork text DEFAULT 'main',
                                             first_block bigint DEFAULT NULL,
                                             last_block bigint DEFAULT NULL)
    RETURNS bigint
    AS 'MODULE_PATHNAME', 'aurora_pg_prewarm'
    LANGUAGE C PARALLEL SAFE;
CREATE FUNCTION aurora.redirected_get_raw_page(text, bigint) RETURNS bytea
    AS 'MODULE_PATHNAME', 'aurora_get_raw_page'
    LANGUAGE C STRICT PARALLEL RESTRICTED;
CREATE FUNCTION aurora.redirected_get_raw_page(text, text, bigint) RETURNS bytea
    AS 'MODULE_PATHNAME', 'aurora_get_raw_page_fork'
    LANGUAGE C STRICT PARALLEL RESTRICTED;
CREATE FUNCTION aurora.redirected_pg_visibility(regclass, blkno bigint,
                                                OUT all_visible boolean,
                                                OUT all_frozen boolean,
                                                OUT pd_all_visible boolean)
    RETURNS record
    AS 'MODULE_PATHNAME', 'aurora_pg_visibility_block'
    LANGUAGE C STRICT;
CREATE FUNCTION aurora.redirected_pg_visibility(regclass, OUT blkno bigint,
                                                OUT all_visible boolean,
                                                OUT all_frozen boolean,
                                                OUT pd_all_visible boolean)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'aurora_pg_visibility'
    LANGUAGE C STRICT;
CREATE FUNCTION aurora.redirected_pg_check_frozen(regclass, OUT t_ctid tid)
    RETURNS SETOF tid
    AS 'MODULE_PATHNAME', 'aurora_pg_check_frozen'
    LANGUAGE C STRICT;
CREATE FUNCTION aurora.redirected_pg_check_visible(regclass, OUT t_ctid tid)
    RETURNS SETOF tid
    AS 'MODULE_PATHNAME', 'aurora_pg_check_visible'
    LANGUAGE C STRICT;
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid FROM pg_proc p
              WHERE p.pronamespace = 'aurora'::regnamespace
                AND p.proname ~ '^redirected_' LOOP
        EXECUTE format('COMMENT ON FUNCTION %s IS %L', f,
            'called in place of the original, which does not know pages on storage');
        -- also where default privileges say otherwise: the twin itself asks
        -- for the right to execute the original
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', f);
    END LOOP;
END $$;

--
-- Storage, as its node tells about itself
--
CREATE FUNCTION aurora.storage_address() RETURNS text
    AS 'MODULE_PATHNAME', 'aurora_sql_storage_address'
    LANGUAGE C STRICT STABLE PARALLEL SAFE;
COMMENT ON FUNCTION aurora.storage_address() IS
    'where the storage nodes are: aurora.storage_nodes, or the socket of the embedded daemon';

CREATE FUNCTION aurora.storage_status(number integer DEFAULT 0, missing_ok boolean DEFAULT false)
    RETURNS jsonb
    AS 'MODULE_PATHNAME', 'aurora_sql_storage_status'
    LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION aurora.storage_status(integer, boolean) IS
    'a storage node''s own status as JSON, by its number in aurora.nodes (0: the one this session reads from); null if it does not answer or, with missing_ok, if there is none of that number';

CREATE FUNCTION aurora.storage_nodes(
    OUT number integer,
    OUT address text,
    OUT node text,
    OUT shipping text,
    OUT shipping_problem text,
    OUT sent_lsn pg_lsn,
    OUT durable_lsn pg_lsn,
    OUT applied_lsn pg_lsn,
    OUT reads bigint,
    OUT read_errors bigint,
    OUT read_latency double precision,
    OUT hedges bigint,
    OUT hedge_wins bigint)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'aurora_sql_storage_nodes'
    LANGUAGE C STRICT VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION aurora.storage_nodes() IS
    'the storage nodes as this server sees them, without asking them; see view aurora.nodes';

-- (A node may leave its cluster while the others are asked, hence missing_ok.)
CREATE VIEW aurora.nodes AS
    SELECT n.number, n.address, coalesce(n.status ->> 'node_id', n.node) AS node,
           n.shipping, n.shipping_problem, n.sent_lsn,
           n.reads, n.read_errors, n.read_latency, n.hedges, n.hedge_wins,
           CASE WHEN n.status IS NULL THEN 'unreachable'
                WHEN v.volume IS NULL THEN 'no volume'
                ELSE v.volume ->> 'state' END AS state,
           v.volume ->> 'problem' AS problem,
           n.status ->> 'version' AS version,
           (v.volume ->> 'timeline')::bigint AS timeline,
           (v.volume ->> 'term')::bigint AS term,
           v.volume ->> 'writer' AS writer,
           (v.volume ->> 'start_lsn')::pg_lsn AS start_lsn,
           (v.volume ->> 'received_lsn')::pg_lsn AS received_lsn,
           (v.volume ->> 'durable_lsn')::pg_lsn AS durable_lsn,
           (v.volume ->> 'applied_lsn')::pg_lsn AS applied_lsn,
           (v.volume ->> 'persisted_lsn')::pg_lsn AS persisted_lsn,
           (v.volume ->> 'horizon_lsn')::pg_lsn AS horizon_lsn,
           (v.volume ->> 'durable_lsn')::pg_lsn
               - (v.volume ->> 'applied_lsn')::pg_lsn AS applied_lag_bytes,
           (v.volume ->> 'landing_bytes')::bigint AS landing_bytes,
           v.volume ->> 'landing_kind' AS landing_kind,
           v.volume ->> 'landing_directory' AS landing_directory,
           (v.volume ->> 'store_bytes')::bigint AS store_bytes,
           (v.volume ->> 'pending_bytes')::bigint AS pending_bytes,
           (v.volume ->> 'relations')::bigint AS relations,
           (v.volume ->> 'pages_read')::bigint AS pages_read,
           (v.volume ->> 'read_waits')::bigint AS read_waits,
           (n.status ->> 'resident_bytes')::bigint AS resident_bytes,
           (n.status ->> 'memory_limit_bytes')::bigint AS memory_limit_bytes,
           (n.status ->> 'disk_free_bytes')::bigint AS disk_free_bytes,
           (n.status ->> 'connections')::bigint AS connections,
           make_interval(secs => (n.status ->> 'uptime_s')::double precision) AS uptime,
           n.status ->> 'directory' AS directory
      FROM (SELECT s.*, aurora.storage_status(s.number, true) AS status
              FROM aurora.storage_nodes() s) n
           LEFT JOIN LATERAL
           (SELECT e.volume
              FROM jsonb_array_elements(n.status -> 'volumes') e(volume)
             WHERE e.volume ->> 'system_identifier'
                   = (SELECT system_identifier::text FROM pg_control_system())) v ON true;
COMMENT ON VIEW aurora.nodes IS
    'the storage nodes and this server''s volume on them, as the log shipper sees them and as they themselves tell; a row for each, also if it does not answer';
COMMENT ON COLUMN aurora.nodes.number IS 'place in aurora.storage_nodes, or one that the node keeps as long as it is in the cluster; for aurora.read_node';
COMMENT ON COLUMN aurora.nodes.shipping IS 'stream (gets log), behind (gets it from the other nodes first), down, follows (a node of the cluster that does not belong to the log group), or unknown (there is no shipper yet)';
COMMENT ON COLUMN aurora.nodes.shipping_problem IS 'why shipping is not stream';
COMMENT ON COLUMN aurora.nodes.sent_lsn IS 'end of the log that was sent to it';
COMMENT ON COLUMN aurora.nodes.reads IS 'questions of backends that it has answered';
COMMENT ON COLUMN aurora.nodes.read_errors IS 'questions that it failed to answer, and attempts to connect';
COMMENT ON COLUMN aurora.nodes.read_latency IS 'how long its answers take of late, in milliseconds';
COMMENT ON COLUMN aurora.nodes.hedges IS 'questions that another node was asked as well because its answer was late (aurora.hedge_delay)';
COMMENT ON COLUMN aurora.nodes.hedge_wins IS 'questions that were late elsewhere, and that it answered first';
COMMENT ON COLUMN aurora.nodes.address IS 'host:port, or the socket of the embedded daemon';
COMMENT ON COLUMN aurora.nodes.node IS 'the node''s own id';
COMMENT ON COLUMN aurora.nodes.state IS 'ok, unreachable, no volume (the node does not know this server), or what is wrong with the volume';
COMMENT ON COLUMN aurora.nodes.problem IS 'why state is not ok';
COMMENT ON COLUMN aurora.nodes.timeline IS 'timeline of the volume';
COMMENT ON COLUMN aurora.nodes.term IS 'newest term the node has granted';
COMMENT ON COLUMN aurora.nodes.writer IS 'who may append; empty if nobody is connected';
COMMENT ON COLUMN aurora.nodes.start_lsn IS 'where the volume''s log begins';
COMMENT ON COLUMN aurora.nodes.received_lsn IS 'end of the log the node has received';
COMMENT ON COLUMN aurora.nodes.durable_lsn IS 'end of the log that is on its disk';
COMMENT ON COLUMN aurora.nodes.applied_lsn IS 'it serves pages as of here';
COMMENT ON COLUMN aurora.nodes.persisted_lsn IS 'page versions up to here are in files; after a crash log is replayed from here';
COMMENT ON COLUMN aurora.nodes.horizon_lsn IS 'pages can be read as of any LSN from here on';
COMMENT ON COLUMN aurora.nodes.applied_lag_bytes IS 'log that is durable but not yet in pages';
COMMENT ON COLUMN aurora.nodes.landing_bytes IS 'landing log on disk';
COMMENT ON COLUMN aurora.nodes.landing_kind IS 'what it is kept on: file, or pmem (persistent memory)';
COMMENT ON COLUMN aurora.nodes.landing_directory IS 'where it is';
COMMENT ON COLUMN aurora.nodes.store_bytes IS 'page versions on disk';
COMMENT ON COLUMN aurora.nodes.pending_bytes IS 'changes gathered in memory';
COMMENT ON COLUMN aurora.nodes.relations IS 'relations the volume holds';
COMMENT ON COLUMN aurora.nodes.pages_read IS 'pages it was asked for since it started';
COMMENT ON COLUMN aurora.nodes.read_waits IS 'reads that had to wait for log to be applied';
COMMENT ON COLUMN aurora.nodes.resident_bytes IS 'memory of the process';
COMMENT ON COLUMN aurora.nodes.memory_limit_bytes IS 'its limit for caches and gathered changes';
COMMENT ON COLUMN aurora.nodes.disk_free_bytes IS 'free space where its directory is';
COMMENT ON COLUMN aurora.nodes.connections IS 'open connections';
COMMENT ON COLUMN aurora.nodes.uptime IS 'since the node started';
COMMENT ON COLUMN aurora.nodes.directory IS 'where the node keeps its data';

--
-- The shipper
--
CREATE FUNCTION aurora.shipper_status(
    OUT state text,
    OUT pid integer,
    OUT daemon_pid integer,
    OUT term bigint,
    OUT timeline bigint,
    OUT start_lsn pg_lsn,
    OUT sent_lsn pg_lsn,
    OUT durable_lsn pg_lsn,
    OUT applied_lsn pg_lsn,
    OUT bytes_sent bigint,
    OUT appends bigint,
    OUT sessions bigint,
    OUT reconnects bigint,
    OUT daemon_starts bigint,
    OUT throttle_waits bigint,
    OUT throttle_time double precision,
    OUT last_ack timestamptz,
    OUT last_error text,
    OUT daemon_error text)
    AS 'MODULE_PATHNAME', 'aurora_sql_shipper_status'
    LANGUAGE C STRICT VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION aurora.shipper_status() IS
    'state of the log shipper and of the embedded storage daemon; see view aurora.shipper';

CREATE VIEW aurora.shipper AS
    SELECT s.state, s.pid, s.daemon_pid, s.term, s.timeline, s.start_lsn,
           f.flush_lsn, s.sent_lsn, s.durable_lsn, s.applied_lsn,
           greatest(f.flush_lsn - s.durable_lsn, 0) AS durable_lag_bytes,
           greatest(f.flush_lsn - s.applied_lsn, 0) AS applied_lag_bytes,
           s.bytes_sent, s.appends, s.sessions, s.reconnects, s.daemon_starts,
           s.throttle_waits, s.throttle_time, s.last_ack, s.last_error,
           s.daemon_error
      FROM aurora.shipper_status() s,
           (SELECT CASE WHEN pg_is_in_recovery() THEN NULL
                        ELSE pg_current_wal_flush_lsn() END) AS f(flush_lsn);
COMMENT ON VIEW aurora.shipper IS
    'the log shipper: its state, how far the log is on storage, what it does';
COMMENT ON COLUMN aurora.shipper.state IS
    'stopped, connecting (to server or storage), streaming, refused (somebody must act, see last_error), waiting (storage is full)';
COMMENT ON COLUMN aurora.shipper.pid IS 'process of the shipper';
COMMENT ON COLUMN aurora.shipper.daemon_pid IS 'process of the embedded aurora_storaged; null if it does not run or aurora.storage_nodes names another';
COMMENT ON COLUMN aurora.shipper.term IS 'term in which this server may append; each new connection wins a greater one';
COMMENT ON COLUMN aurora.shipper.timeline IS 'timeline of the server when the shipper connected';
COMMENT ON COLUMN aurora.shipper.start_lsn IS 'where the volume''s log begins';
COMMENT ON COLUMN aurora.shipper.flush_lsn IS 'end of the log that is flushed locally; null during recovery';
COMMENT ON COLUMN aurora.shipper.sent_lsn IS 'end of the log that was sent to storage';
COMMENT ON COLUMN aurora.shipper.durable_lsn IS 'end of the log that is durable on storage';
COMMENT ON COLUMN aurora.shipper.applied_lsn IS 'storage serves pages as of here';
COMMENT ON COLUMN aurora.shipper.durable_lag_bytes IS 'flushed locally, not yet durable on storage';
COMMENT ON COLUMN aurora.shipper.applied_lag_bytes IS 'flushed locally, not yet in storage''s pages';
COMMENT ON COLUMN aurora.shipper.bytes_sent IS 'log bytes sent since the server started';
COMMENT ON COLUMN aurora.shipper.appends IS 'messages that carried them';
COMMENT ON COLUMN aurora.shipper.sessions IS 'times streaming was started';
COMMENT ON COLUMN aurora.shipper.reconnects IS 'times streaming was cut off';
COMMENT ON COLUMN aurora.shipper.daemon_starts IS 'times the embedded daemon was started';
COMMENT ON COLUMN aurora.shipper.throttle_waits IS 'changes that waited because more than aurora.max_ship_lag was not yet durable on storage';
COMMENT ON COLUMN aurora.shipper.throttle_time IS 'time they waited, in milliseconds, over all backends';
COMMENT ON COLUMN aurora.shipper.last_ack IS 'last answer of the storage node';
COMMENT ON COLUMN aurora.shipper.last_error IS 'why log is not shipped; null while it is';
COMMENT ON COLUMN aurora.shipper.daemon_error IS 'how the embedded daemon ended last';

--
-- The page cache
--
CREATE FUNCTION aurora.cache_stats(
    OUT hits bigint,
    OUT misses bigint,
    OUT fetched bigint,
    OUT prefetched bigint,
    OUT stale_retries bigint,
    OUT read_time double precision,
    OUT size_hits bigint,
    OUT size_misses bigint,
    OUT extends bigint)
    AS 'MODULE_PATHNAME', 'aurora_sql_cache_stats'
    LANGUAGE C STRICT VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION aurora.cache_stats() IS
    'counters of the page cache; see view aurora.cache';

CREATE VIEW aurora.cache AS
    SELECT hits, misses, fetched, prefetched, stale_retries, read_time,
           size_hits, size_misses, extends,
           CASE WHEN hits + misses > 0
                THEN hits::double precision / (hits + misses) END AS hit_ratio
      FROM aurora.cache_stats();
COMMENT ON VIEW aurora.cache IS
    'reads of aurora pages since the server started, all backends together';
COMMENT ON COLUMN aurora.cache.hits IS 'page was in shared_buffers';
COMMENT ON COLUMN aurora.cache.misses IS 'page was not, and came from storage';
COMMENT ON COLUMN aurora.cache.fetched IS 'pages that came from storage, read-ahead included';
COMMENT ON COLUMN aurora.cache.prefetched IS 'misses whose page read-ahead had asked for; fetched - misses pages were asked for in vain';
COMMENT ON COLUMN aurora.cache.stale_retries IS 'pages that were changed while they were fetched, and fetched again';
COMMENT ON COLUMN aurora.cache.read_time IS 'time backends waited for storage, in milliseconds';
COMMENT ON COLUMN aurora.cache.size_hits IS 'relation sizes known in shared memory';
COMMENT ON COLUMN aurora.cache.size_misses IS 'relation sizes asked from storage';
COMMENT ON COLUMN aurora.cache.extends IS 'pages appended to tables';
COMMENT ON COLUMN aurora.cache.hit_ratio IS 'hits / (hits + misses)';

--
-- Latencies, as backends see them and as the storage node does
--
CREATE FUNCTION aurora.fetch_latency_stats(
    OUT kind text,
    OUT count bigint,
    OUT total_time double precision,
    OUT p50_us double precision,
    OUT p90_us double precision,
    OUT p99_us double precision,
    OUT max_us bigint)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'aurora_sql_fetch_latency'
    LANGUAGE C STRICT VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION aurora.fetch_latency_stats() IS
    'how long backends waited for storage; see view aurora.fetch_latency';

CREATE VIEW aurora.fetch_latency AS
    SELECT kind, count, total_time, p50_us, p90_us, p99_us, max_us
      FROM aurora.fetch_latency_stats();
COMMENT ON VIEW aurora.fetch_latency IS
    'how long backends waited for storage since the server started, all together';
COMMENT ON COLUMN aurora.fetch_latency.kind IS 'page: for a single page; ahead: for what read-ahead had asked for; size: for a table''s size';
COMMENT ON COLUMN aurora.fetch_latency.count IS 'waits';
COMMENT ON COLUMN aurora.fetch_latency.total_time IS 'their sum, in milliseconds';
COMMENT ON COLUMN aurora.fetch_latency.p50_us IS 'half of them were shorter, in microseconds (within 1/16)';
COMMENT ON COLUMN aurora.fetch_latency.p90_us IS '90 % of them were shorter';
COMMENT ON COLUMN aurora.fetch_latency.p99_us IS '99 % of them were shorter';
COMMENT ON COLUMN aurora.fetch_latency.max_us IS 'the longest';

CREATE VIEW aurora.storage_latency AS
    SELECT n.address, l.stage,
           (l.value ->> 'count')::bigint AS count,
           (l.value ->> 'sum_us')::double precision / 1000 AS total_time,
           (l.value ->> 'p50_us')::double precision AS p50_us,
           (l.value ->> 'p90_us')::double precision AS p90_us,
           (l.value ->> 'p99_us')::double precision AS p99_us,
           (l.value ->> 'max_us')::bigint AS max_us
      FROM (SELECT s.address, aurora.storage_status(s.number, true) AS status
              FROM aurora.storage_nodes() s) n,
           LATERAL jsonb_array_elements(n.status -> 'volumes') e(volume),
           LATERAL jsonb_each(e.volume -> 'latency') l(stage, value)
     WHERE e.volume ->> 'system_identifier'
           = (SELECT system_identifier::text FROM pg_control_system());
COMMENT ON VIEW aurora.storage_latency IS
    'how long each stage of the storage node takes for this server''s volume, since the node started; no row if it does not answer';
COMMENT ON COLUMN aurora.storage_latency.stage IS 'append, persist, decode, apply, read, ...: see docs/operation.md';
COMMENT ON COLUMN aurora.storage_latency.count IS 'times it was done';
COMMENT ON COLUMN aurora.storage_latency.total_time IS 'time it took altogether, in milliseconds';
COMMENT ON COLUMN aurora.storage_latency.p50_us IS 'half of them were shorter, in microseconds';
COMMENT ON COLUMN aurora.storage_latency.p90_us IS '90 % of them were shorter';
COMMENT ON COLUMN aurora.storage_latency.p99_us IS '99 % of them were shorter';
COMMENT ON COLUMN aurora.storage_latency.max_us IS 'the longest';

--
-- Tables
--
CREATE VIEW aurora.tables AS
    SELECT n.nspname AS schema, c.relname AS name, c.oid AS relid,
           CASE c.relkind WHEN 'r' THEN 'table' WHEN 'm' THEN 'materialized view'
                          WHEN 't' THEN 'toast' END AS kind,
           CASE c.relpersistence WHEN 'p' THEN 'permanent'
                                 WHEN 'u' THEN 'unlogged'
                                 WHEN 't' THEN 'temporary' END AS persistence,
           aurora.relation_size(c.oid) AS size,
           aurora.local_size(c.oid) AS local_size,
           pg_indexes_size(c.oid) AS indexes_size,
           pg_stat_get_blocks_fetched(c.oid) - pg_stat_get_blocks_hit(c.oid)
               AS heap_blks_read,
           pg_stat_get_blocks_hit(c.oid) AS heap_blks_hit
      FROM pg_class c
           JOIN pg_am a ON a.oid = c.relam
           JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE a.amname = 'aurora' AND c.relkind IN ('r', 'm', 't')
       AND NOT pg_is_other_temp_schema(n.oid);
COMMENT ON VIEW aurora.tables IS
    'every aurora table of this database with its true size and its reads';
COMMENT ON COLUMN aurora.tables.kind IS 'table, materialized view, or toast (the TOAST table of one)';
COMMENT ON COLUMN aurora.tables.persistence IS 'pages of unlogged and temporary tables are local files';
COMMENT ON COLUMN aurora.tables.size IS 'bytes of the main fork, wherever its pages are';
COMMENT ON COLUMN aurora.tables.local_size IS 'bytes of the local main fork: 0 for permanent tables';
COMMENT ON COLUMN aurora.tables.indexes_size IS 'bytes of its indexes, which are local files';
COMMENT ON COLUMN aurora.tables.heap_blks_read IS 'pages that were fetched from storage (local tables: from the file)';
COMMENT ON COLUMN aurora.tables.heap_blks_hit IS 'pages that were found in shared_buffers';

--
-- Waiting for storage
--
CREATE FUNCTION aurora.wait_for_applied(lsn pg_lsn, timeout interval DEFAULT '1 minute')
    RETURNS boolean
    AS 'MODULE_PATHNAME', 'aurora_sql_wait_for_applied'
    LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION aurora.wait_for_applied(pg_lsn, interval) IS
    'wait until storage serves pages as of this LSN; false when the time is up, null timeout waits for ever';

CREATE FUNCTION aurora.sync(timeout interval DEFAULT '1 minute') RETURNS pg_lsn
    AS 'MODULE_PATHNAME', 'aurora_sql_sync'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION aurora.sync(interval) IS
    'flush the log and wait until storage has applied all of it; returns how far that is';

--
-- Looking at pages
--
CREATE FUNCTION aurora.read_page(rel regclass, blkno bigint, lsn pg_lsn DEFAULT NULL)
    RETURNS bytea
    AS 'MODULE_PATHNAME', 'aurora_sql_read_page'
    LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION aurora.read_page(regclass, bigint, pg_lsn) IS
    'a page as storage has it, newest or as of an LSN; null if there is none';

CREATE FUNCTION aurora.verify_pages(
    rel regclass,
    OUT blkno bigint,
    OUT lsn pg_lsn,
    OUT problem text)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'aurora_verify_pages'
    LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION aurora.verify_pages(regclass) IS
    'compare the table''s cached pages with storage''s version at the same LSN, hint bits aside: one row for each that differs';

CREATE FUNCTION aurora.verify_count(
    rel regclass,
    OUT compared bigint,
    OUT differing bigint)
    AS 'MODULE_PATHNAME', 'aurora_verify_count'
    LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION aurora.verify_count(regclass) IS
    'as verify_pages: how many cached pages were compared, and how many differ';

CREATE FUNCTION aurora.verify_all(
    OUT relations bigint,
    OUT compared bigint,
    OUT differing bigint)
    AS $$
        SELECT count(*), coalesce(sum(v.compared), 0)::bigint,
               coalesce(sum(v.differing), 0)::bigint
          FROM pg_catalog.pg_class c
               JOIN pg_catalog.pg_am a ON a.oid = c.relam,
               LATERAL aurora.verify_count(c.oid) v
         WHERE a.amname = 'aurora' AND c.relpersistence = 'p'
           AND c.relkind IN ('r', 'm', 't')
    $$
    LANGUAGE sql VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION aurora.verify_all() IS
    'verify_count over all aurora tables of this database';

CREATE FUNCTION aurora.evict(rel regclass) RETURNS bigint
    AS 'MODULE_PATHNAME', 'aurora_sql_evict'
    LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION aurora.evict(regclass) IS
    'drop the table''s pages from shared_buffers, so that the next reads come from storage; returns their number. Takes an AccessExclusiveLock';

--
-- The storage nodes' key-value interface
--
CREATE FUNCTION aurora.kv_get(
    key text, r integer DEFAULT 0, n integer DEFAULT 0, sloppy boolean DEFAULT false,
    OUT value bytea, OUT context bytea)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'aurora_sql_kv_get'
    LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION aurora.kv_get(text, integer, integer, boolean) IS
    'values of a key in the storage nodes'' key-value interface: a row each, more than one if they were written without knowing of each other; r of n replicas must answer';

CREATE FUNCTION aurora.kv_put(
    key text, value bytea, context bytea DEFAULT NULL, w integer DEFAULT 0,
    n integer DEFAULT 0, sloppy boolean DEFAULT false)
    RETURNS bytea
    AS 'MODULE_PATHNAME', 'aurora_sql_kv_put'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION aurora.kv_put(text, bytea, bytea, integer, integer, boolean) IS
    'write a key, at once and for good; replaces what came with the context, and nothing else; returns the new context; w of n replicas must have it';

CREATE FUNCTION aurora.kv_del(
    key text, context bytea DEFAULT NULL, w integer DEFAULT 0,
    n integer DEFAULT 0, sloppy boolean DEFAULT false)
    RETURNS bytea
    AS 'MODULE_PATHNAME', 'aurora_sql_kv_del'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION aurora.kv_del(text, bytea, integer, integer, boolean) IS
    'delete of a key what came with the context, at once and for good';

REVOKE ALL ON FUNCTION aurora.storage_address() FROM PUBLIC;
REVOKE ALL ON FUNCTION aurora.storage_status(integer, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION aurora.storage_nodes() FROM PUBLIC;
REVOKE ALL ON FUNCTION aurora.shipper_status() FROM PUBLIC;
REVOKE ALL ON FUNCTION aurora.cache_stats() FROM PUBLIC;
REVOKE ALL ON FUNCTION aurora.fetch_latency_stats() FROM PUBLIC;
REVOKE ALL ON FUNCTION aurora.sync(interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION aurora.read_page(regclass, bigint, pg_lsn) FROM PUBLIC;
REVOKE ALL ON FUNCTION aurora.verify_pages(regclass) FROM PUBLIC;
REVOKE ALL ON FUNCTION aurora.verify_count(regclass) FROM PUBLIC;
REVOKE ALL ON FUNCTION aurora.verify_all() FROM PUBLIC;
REVOKE ALL ON FUNCTION aurora.evict(regclass) FROM PUBLIC;
REVOKE ALL ON FUNCTION aurora.kv_get(text, integer, integer, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION aurora.kv_put(text, bytea, bytea, integer, integer, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION aurora.kv_del(text, bytea, integer, integer, boolean) FROM PUBLIC;

GRANT EXECUTE ON FUNCTION aurora.storage_address() TO pg_monitor;
GRANT EXECUTE ON FUNCTION aurora.storage_status(integer, boolean) TO pg_monitor;
GRANT EXECUTE ON FUNCTION aurora.storage_nodes() TO pg_monitor;
GRANT EXECUTE ON FUNCTION aurora.shipper_status() TO pg_monitor;
GRANT EXECUTE ON FUNCTION aurora.cache_stats() TO pg_monitor;
GRANT EXECUTE ON FUNCTION aurora.fetch_latency_stats() TO pg_monitor;
GRANT SELECT ON aurora.shipper, aurora.cache, aurora.tables, aurora.nodes,
    aurora.fetch_latency, aurora.storage_latency TO pg_monitor;
