#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Instructions per operation: aurora tables beside heap tables, in one server.

A machine that does other work gives no timings one could compare, but the
number of instructions that one backend executes for one statement is nearly
the same at each run.  The server runs under valgrind's callgrind with counting
switched off.  For each operation a fresh session warms up, counting is
switched on for it alone (counting.c), and the statements run.  Two runs of
different lengths are made, and the difference of their costs divided by the
difference of their work is shown, so what comes once a run falls out; some
operations, marked in WHOLE, run once as a whole.

WAL bytes are the distance that the server's insert position moves during the
same statements, with full_page_writes off, so that no page images count.

Only the backend is measured, not the shipper, the walsender and the storage
daemon.

    bench/profile.sh                      all operations
    bench/profile.sh --only select,copy   some
    bench/profile.sh --keep DIR           keep callgrind's files, for
                                          callgrind_annotate

Not everything counts as one instruction's time: the figures say where work is
done, not how long a cache miss takes.
"""

import argparse
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import time

SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{dir}'
shared_buffers = 32MB
max_wal_size = 4GB
checkpoint_timeout = 1h
bgwriter_lru_maxpages = 0
full_page_writes = off
autovacuum = off
fsync = off
synchronous_commit = off
wal_level = replica
max_parallel_workers_per_gather = 0
max_parallel_maintenance_workers = 0
jit = off
shared_preload_libraries = 'aurora'
log_min_messages = warning
aurora.max_ship_lag = 0
"""

# Warm tables stay below a quarter of shared_buffers (no ring); the cold one
# is larger than shared_buffers, so that each scan reads all of it again.
WARM_ROWS = 30000
COLD_ROWS = 250000

SETUP = """
CREATE EXTENSION IF NOT EXISTS aurora;
SET default_table_access_method = {am};
CREATE SCHEMA on_{am};
SET search_path = on_{am}, public;
CREATE TABLE acc (aid int PRIMARY KEY, bid int, abalance int, filler char(84))
    WITH (fillfactor = 90);
CREATE TABLE tel (tid int PRIMARY KEY, bid int, tbalance int, filler char(84))
    WITH (fillfactor = 10);
CREATE TABLE bra (bid int PRIMARY KEY, bbalance int, filler char(88))
    WITH (fillfactor = 10);
CREATE TABLE his (tid int, bid int, aid int, delta int, mtime timestamp,
    filler char(22));
INSERT INTO acc SELECT i, 1, i % 1000, '' FROM generate_series(1, {warm}) i;
INSERT INTO tel SELECT i, 1, 0, '' FROM generate_series(1, 10) i;
INSERT INTO bra VALUES (1, 0, '');
CREATE TABLE scan_av (a int, b int, t text);
INSERT INTO scan_av SELECT i, i % 100, 'row ' || i
    FROM generate_series(1, {warm}) i;
CREATE INDEX ON scan_av (a);
CREATE TABLE scan_nv (a int, b int, t text);
INSERT INTO scan_nv SELECT * FROM scan_av;
CREATE TABLE cold (a int, b int, t text);
INSERT INTO cold SELECT i, i % 100, repeat('x', 90)
    FROM generate_series(1, {cold}) i;
CREATE TABLE copied (a int, b int, t text);
CREATE TABLE copy_src AS SELECT * FROM scan_av;
CREATE TABLE ins (a int, b int, t text);
CREATE TABLE upd (a int PRIMARY KEY, b int, t text) WITH (fillfactor = 40);
CREATE TABLE updi (a int PRIMARY KEY, b int, t text);
CREATE INDEX ON updi (b);
CREATE TABLE del (a int PRIMARY KEY, b int, t text);
CREATE TABLE vac (a int, b int, t text);
VACUUM (FREEZE, ANALYZE) acc, tel, bra, scan_av, cold, copy_src;
SELECT count(*) FROM scan_nv;
"""


COUNTING = """
CREATE OR REPLACE FUNCTION counting_start() RETURNS void LANGUAGE c
    AS '%(so)s';
CREATE OR REPLACE FUNCTION counting_stop(text) RETURNS void LANGUAGE c
    AS '%(so)s'
"""


class Psql:
    """One session, driven through a pipe."""

    def __init__(self, server, am):
        self.p = subprocess.Popen(
            [server.path("psql"), "-X", "-q", "-At", "-h", server.dir,
             "-U", "postgres", "-d", "postgres", "-v", "ON_ERROR_STOP=1"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)
        if am is not None:
            self.run("SET search_path = on_%s, public" % am)
            self.run("SET default_table_access_method = %s" % am)
        self.pid = int(self.run("SELECT pg_backend_pid()"))

    def run(self, text):
        """Runs statements (a string, ';' between) and returns their output."""
        self.p.stdin.write(text + ";\n\\echo __done__\n")
        self.p.stdin.flush()
        out = []
        while True:
            line = self.p.stdout.readline()
            if line == "":
                sys.exit("psql ended:\n%s\nafter: %s" %
                         ("".join(out), text[:500]))
            if line == "__done__\n":
                return "".join(out).strip()
            out.append(line)

    def close(self):
        self.p.stdin.write("\\q\n")
        self.p.stdin.flush()
        self.p.wait()


class Server:
    def __init__(self, args):
        self.args = args
        self.dir = args.work
        self.data = os.path.join(self.dir, "data")
        self.valgrind = None
        self.log = open(os.path.join(self.dir, "log"), "a")

    def path(self, name):
        return os.path.join(self.args.bindir, name)

    def tool(self, name, *argv):
        r = subprocess.run([self.path(name), *argv], stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True)
        if r.returncode != 0:
            sys.exit("%s failed:\n%s" % (name, r.stdout[-4000:]))
        return r.stdout

    def init(self):
        self.tool("initdb", "-D", self.data, "-A", "trust", "-U", "postgres",
                  "-E", "UTF8", "--no-locale", "-N")
        with open(os.path.join(self.data, "postgresql.conf"), "a") as f:
            f.write(SETTINGS.format(dir=self.dir))

    def start(self):
        self.tool("pg_ctl", "-w", "-t", "120", "-D", self.data,
                  "-l", os.path.join(self.dir, "log"), "start")

    def stop(self):
        self.tool("pg_ctl", "-w", "-t", "300", "-m", "fast", "-D", self.data,
                  "stop")

    def start_counted(self):
        self.valgrind = subprocess.Popen(
            ["valgrind", "--tool=callgrind", "--instr-atstart=no",
             "--trace-children=no", "--vgdb=no", "--cache-sim=no", "--compress-strings=no",
             "--callgrind-out-file=%s/cg.%%p" % self.dir,
             "--log-file=%s/vg.%%p" % self.dir,
             self.path("postgres"), "-D", self.data],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        for _ in range(300):
            r = subprocess.run([self.path("pg_isready"), "-q", "-h", self.dir])
            if r.returncode == 0:
                return
            if self.valgrind.poll() is not None:
                break
            time.sleep(0.5)
        sys.exit("the server did not start under valgrind; see %s/log" %
                 self.dir)

    def stop_counted(self):
        if self.valgrind is not None and self.valgrind.poll() is None:
            self.valgrind.terminate()
            self.valgrind.wait(timeout=300)

    def dump(self, pid, name):
        """Total and file of what the backend wrote under that name."""
        newest = max(glob.glob("%s/cg.%d.*" % (self.dir, pid)),
                     key=lambda f: int(f.rsplit(".", 1)[1]), default=None)
        if newest is not None:
            with open(newest) as f:
                text = f.read()
            m = re.search(r"^(?:totals|summary): (\d+)", text, re.M)
            if m and "Client Request: %s\n" % name in text:
                return int(m.group(1)), newest
        sys.exit("callgrind wrote nothing for process %d" % pid)


# ---- operations --------------------------------------------------------------
#
# name, unit, prepare (once a session), body(n) -> SQL that does n units of
# work, warm-up n (default: the longer length), two lengths.  The rate is (cost(n2) - cost(n1)) / (n2 - n1).

def repeat(text, n):
    """The statements n times, {i} replaced by a number spread over the keys."""
    return ";\n".join(text.format(i=1 + (k * 7919) % WARM_ROWS, k=k)
                      for k in range(n))


TPCB = """BEGIN;
EXECUTE u1({i}); EXECUTE s1({i}); EXECUTE u2(1 + {i} % 10); EXECUTE u3; EXECUTE h({i});
END"""
TPCB_PREPARE = """
PREPARE u1(int) AS UPDATE acc SET abalance = abalance + 5 WHERE aid = $1;
PREPARE s1(int) AS SELECT abalance FROM acc WHERE aid = $1;
PREPARE u2(int) AS UPDATE tel SET tbalance = tbalance + 5 WHERE tid = $1;
PREPARE u3 AS UPDATE bra SET bbalance = bbalance + 5 WHERE bid = 1;
PREPARE h(int) AS INSERT INTO his (tid, bid, aid, delta, mtime)
    VALUES (1, 1, $1, 5, '2020-01-01');
SET plan_cache_mode = force_generic_plan;
"""


class Op:
    def __init__(self, name, unit, body, n1, n2, prepare="", warm=None,
                 before=None, what=""):
        self.name, self.unit, self.body = name, unit, body
        self.n1, self.n2, self.prepare = n1, n2, prepare
        self.warm = n2 if warm is None else warm
        self.before = before    # SQL before each of the two lengths
        self.what = what


def scan(sql):
    return lambda n: sql.format(n=n)


OPS = [
    Op("select", "statement", lambda n: repeat("EXECUTE s1({i})", n), 200, 700,
       TPCB_PREPARE, what="SELECT by primary key, prepared"),
    Op("select_simple", "statement",
       lambda n: repeat("SELECT abalance FROM acc WHERE aid = {i}", n),
       100, 300, what="the same, simple protocol (as pgbench -S)"),
    Op("tpcb", "transaction", lambda n: repeat(TPCB, n), 100, 400,
       TPCB_PREPARE, what="pgbench's TPC-B-like transaction, prepared"),
    Op("tpcb_update", "statement", lambda n: repeat("EXECUTE u1({i})", n),
       100, 600, TPCB_PREPARE, what="its UPDATE of accounts, as a transaction"),
    Op("tpcb_branch", "statement", lambda n: repeat("EXECUTE u3", n),
       100, 600, TPCB_PREPARE, what="its UPDATE of the branch (always one row)"),
    Op("tpcb_insert", "statement", lambda n: repeat("EXECUTE h({i})", n),
       100, 600, TPCB_PREPARE, what="its INSERT into history"),
    Op("seqscan", "row", None, 0, 0, what="count(*), all-visible pages"),
    Op("seqscan_sum", "row", None, 0, 0,
       what="sum of two columns with a filter"),
    Op("seqscan_new", "row", None, 0, 0,
       what="count(*), pages not marked all-visible"),
    Op("indexscan", "row",
       scan("SELECT sum(b) FROM scan_av WHERE a BETWEEN 1 AND {n}"),
       1000, 6000, "SET enable_bitmapscan = off; SET enable_seqscan = off",
       what="index scan over a range"),
    Op("bitmapscan", "row",
       scan("SELECT sum(b) FROM scan_av WHERE a BETWEEN 1 AND {n}"),
       1000, 6000, "SET enable_indexscan = off; SET enable_seqscan = off",
       what="bitmap scan over a range"),
    Op("copy", "row", scan("COPY copied FROM 'COPYFILE.{n}'"),
       1000, 5000, what="COPY FROM a file"),
    Op("insert_select", "row",
       scan("INSERT INTO ins SELECT a, b, t FROM copy_src LIMIT {n}"),
       1000, 5000, what="INSERT ... SELECT"),
    Op("update_hot", "row",
       scan("UPDATE upd SET b = b + 1 WHERE a <= {n}"), 1000, 5000,
       before="TRUNCATE upd; INSERT INTO upd SELECT * FROM copy_src LIMIT 6000; "
              "ANALYZE upd",
       warm=100, what="UPDATE, HOT"),
    Op("update_index", "row",
       scan("UPDATE updi SET b = b + 1 WHERE a <= {n}"), 1000, 5000,
       before="TRUNCATE updi; INSERT INTO updi SELECT * FROM copy_src LIMIT 6000; "
              "ANALYZE updi",
       warm=100, what="UPDATE of an indexed column"),
    Op("delete", "row",
       scan("DELETE FROM del WHERE a <= {n}"), 1000, 5000,
       before="TRUNCATE del; INSERT INTO del SELECT * FROM copy_src LIMIT 6000; "
              "ANALYZE del",
       warm=10, what="DELETE"),
    Op("index_build", "row", None, 0, 0, what="CREATE INDEX on an int column"),
    Op("vacuum", "page", None, 0, 0, what="VACUUM, a tenth of the rows dead"),
    Op("cold_scan", "page", None, 0, 0,
       what="sequential scan of a table larger than shared_buffers"),
]


def measure(server, am, op):
    """(instructions, WAL bytes, dump file) per unit."""
    s = Psql(server, am)
    server_cost = {}
    wal = {}

    def cost(key, sql):
        lsn = s.run("SELECT pg_current_wal_insert_lsn()")
        s.run("SELECT counting_start()")
        s.run(sql)
        s.run("SELECT counting_stop('%s')" % key)
        server_cost[key] = server.dump(s.pid, key)
        wal[key] = int(s.run("SELECT pg_current_wal_insert_lsn() - '%s'" % lsn))

    def rate(units):
        return (((server_cost["long"][0] - server_cost["short"][0]) / units),
                (wal["long"] - wal["short"]) / units, server_cost["long"][1])

    try:
        if op.prepare:
            s.run(op.prepare)
        whole = WHOLE.get(op.name)
        if whole is not None:
            prepare, sql, units_sql = whole
            s.run(prepare)
            units = float(s.run(units_sql))
            if op.name not in ONCE:
                s.run(sql)
            server_cost["short"] = (0, "")
            wal["short"] = 0
            cost("long", sql)
            return rate(units)
        if op.before:
            s.run(op.before)
            s.run("SET enable_seqscan = off; SET enable_bitmapscan = off")

        def body(n):
            return op.body(n).replace("COPYFILE", server.args.copy_file)
        if op.warm:
            s.run(body(op.warm))
        for key, n in (("short", op.n1), ("long", op.n2)):
            if op.before:
                s.run("SET enable_seqscan = on; " + op.before)
                s.run("SET enable_seqscan = off; " + body(op.warm))
            cost(key, body(n))
        units = op.n2 - op.n1
        return rate(units)
    finally:
        s.close()


# Statements that are measured whole: prepare, statement, units.
WHOLE = {
    "seqscan": ("SELECT 1", "SELECT count(*) FROM scan_av",
                "SELECT count(*) FROM scan_av"),
    "seqscan_sum": ("SELECT 1",
                    "SELECT sum(a), sum(b) FROM scan_av WHERE b <> 7",
                    "SELECT count(*) FROM scan_av"),
    "seqscan_new": ("SELECT 1", "SELECT count(*) FROM scan_nv",
                    "SELECT count(*) FROM scan_nv"),
    "index_build": ("SELECT 1", "CREATE INDEX ON copy_src (b)",
                    "SELECT count(*) FROM copy_src"),
    "vacuum": ("TRUNCATE vac; INSERT INTO vac SELECT * FROM copy_src; "
               "SELECT count(*) FROM vac; DELETE FROM vac WHERE a % 10 = 0",
               "VACUUM (INDEX_CLEANUP ON, TRUNCATE OFF) vac",
               "SELECT count(DISTINCT (ctid::text::point)[0]) FROM vac"),
    "cold_scan": ("SELECT 1", "SELECT count(*) FROM cold",
                  "SELECT relpages FROM pg_class WHERE oid = 'cold'::regclass"),
}
# No warm-up: a second run would find nothing to do.
ONCE = ("index_build", "vacuum")


def report(results, out):
    head = ("operation", "unit", "heap", "aurora", "ratio",
            "WAL heap", "aurora", "ratio")
    out("%-14s %-11s %9s %9s %6s  %8s %8s %6s" % head)
    for r in results:
        out("%-14s %-11s %9.0f %9.0f %6.2f  %8.1f %8.1f %6s" %
            (r["name"], r["unit"], r["heap"], r["aurora"],
             r["aurora"] / r["heap"], r["wal_heap"], r["wal_aurora"],
             "%.2f" % (r["wal_aurora"] / r["wal_heap"])
             if r["wal_heap"] >= 0.5 else "-"))


def main():
    ap = argparse.ArgumentParser(
        description="Instructions per operation, heap and aurora.")
    ap.add_argument("--bindir", required=True)
    ap.add_argument("--work", required=True)
    ap.add_argument("--counting", required=True, help="counting.so")
    ap.add_argument("--only", default="", help="operations, comma separated")
    ap.add_argument("--am", default="heap,aurora")
    ap.add_argument("--json", help="write the figures there as well")
    ap.add_argument("--keep", help="copy callgrind's files there: NAME.AM")
    args = ap.parse_args()
    wanted = [o for o in args.only.split(",") if o]
    ops = [o for o in OPS if not wanted or o.name in wanted]
    if len(ops) < len(wanted):
        sys.exit("operations are: " + " ".join(o.name for o in OPS))

    os.makedirs(args.work, exist_ok=True)
    args.copy_file = os.path.join(args.work, "rows")
    for n in (1000, 5000):
        with open("%s.%d" % (args.copy_file, n), "w") as f:
            for i in range(n):
                f.write("%d\t%d\trow %d\n" % (i, i % 100, i))
    server = Server(args)
    server.init()
    server.start()
    results = []
    try:
        for am in ("heap", "aurora"):
            s = Psql(server, None)
            s.run(COUNTING % {"so": args.counting})
            s.run(SETUP.rstrip().rstrip(";").format(am=am, warm=WARM_ROWS, cold=COLD_ROWS))
            s.close()
        server.stop()
        server.start_counted()
        for op in ops:
            r = {"name": op.name, "unit": op.unit, "what": op.what,
                 "heap": 1, "aurora": 1, "wal_heap": 0, "wal_aurora": 0}
            for am in args.am.split(","):
                count, wal, dump = measure(server, am, op)
                r[am], r["wal_" + am] = count, wal
                if args.keep:
                    os.makedirs(args.keep, exist_ok=True)
                    shutil.copy(dump, "%s/%s.%s" % (args.keep, op.name, am))
            results.append(r)
            print("%s done" % op.name, file=sys.stderr)
    finally:
        server.stop_counted()
    report(results, print)
    if args.json:
        with open(args.json, "w") as f:
            json.dump(results, f, indent=1)


main()
