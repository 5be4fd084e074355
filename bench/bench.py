#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Aurora tables beside stock heap tables, as ratios.

Two private servers with the same settings: one stock, one that has Aurora
loaded and runs its embedded storage daemon.  Each measurement is taken on the
one, then on the other, and that a few times (interleaved, so that whatever else
the machine does meets both); the median of each is compared.  A ratio above 1
means that Aurora is faster.

What is measured:
  tpcb             pgbench's TPC-B-like transactions, tps
  tpcb_sync        the same, Aurora's commits waiting until storage has made
                   them durable (synchronous_standby_names = 'aurora');
                   heap as before
  select_cached    pgbench -S, all pages in shared_buffers, tps
  seqscan_cached   a sequential scan over all accounts in shared_buffers
  copy             COPY of rows from a file into an empty table with an index
  update_bulk      one UPDATE of a tenth of the accounts

Local figures on a shared machine: ratios carry over to another machine, the
absolute figures do not.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time

SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{dir}'
shared_buffers = 512MB
max_wal_size = 4GB
checkpoint_timeout = 30min
wal_level = replica
max_wal_senders = 4
max_parallel_workers_per_gather = 0
autovacuum = off
log_min_messages = warning
"""


class Server:
    """A private server in a directory of its own."""

    def __init__(self, name, args, extra):
        self.name = name
        self.args = args
        self.dir = os.path.join(args.work, name)
        self.data = os.path.join(self.dir, "data")
        os.makedirs(self.dir)
        self.tool("initdb", "-D", self.data, "-A", "trust", "-U", "postgres",
                  "-E", "UTF8", "--no-locale")
        with open(os.path.join(self.data, "postgresql.conf"), "a") as f:
            f.write(SETTINGS.format(dir=self.dir))
            f.write(extra)
        self.tool("pg_ctl", "-w", "-t", "120", "-D", self.data,
                  "-l", os.path.join(self.dir, "log"), "start")

    def tool(self, name, *argv, **kw):
        r = subprocess.run([os.path.join(self.args.bindir, name), *argv],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True,
                           timeout=3600, **kw)
        if r.returncode != 0:
            sys.exit("%s: %s failed:\n%s" % (self.name, name, r.stdout[-4000:]))
        return r.stdout

    def sql(self, *commands):
        argv = ["-X", "-At", "-q", "-h", self.dir, "-U", "postgres",
                "-v", "ON_ERROR_STOP=1", "-d", "postgres"]
        for c in commands:
            argv += ["-c", c]
        return self.tool("psql", *argv).strip()

    def timed_sql(self, *commands):
        t0 = time.monotonic()
        self.sql(*commands)
        return time.monotonic() - t0

    def pgbench(self, *argv):
        out = self.tool("pgbench", "-h", self.dir, "-U", "postgres", *argv,
                        "postgres")
        for line in out.splitlines():
            if line.startswith("tps = "):
                return float(line.split()[2])
        return None

    def stop(self):
        subprocess.run([os.path.join(self.args.bindir, "pg_ctl"), "-D",
                        self.data, "-m", "immediate", "stop"],
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)


# ---- measurements: each takes a server and returns "more is better" ----------

def tpcb(s):
    s.sql("CHECKPOINT", "VACUUM pgbench_branches", "VACUUM pgbench_tellers")
    return s.pgbench("-n", "-M", "prepared", "-c", str(s.args.clients),
                     "-j", "2", "-T", str(s.args.seconds))


def tpcb_sync(s):
    if s.name != "aurora":
        return tpcb(s)
    s.sql("ALTER SYSTEM SET synchronous_standby_names = 'aurora'",
          "SELECT pg_reload_conf()", "SELECT pg_sleep(0.5)")
    try:
        return tpcb(s)
    finally:
        s.sql("ALTER SYSTEM RESET synchronous_standby_names",
              "SELECT pg_reload_conf()", "SELECT pg_sleep(0.5)")


def select_cached(s):
    s.sql("SELECT sum(length(filler)) FROM pgbench_accounts")
    return s.pgbench("-n", "-S", "-M", "prepared", "-c", str(s.args.clients),
                     "-j", "2", "-T", str(s.args.seconds))


def seqscan_cached(s):
    s.sql("SELECT count(*) FROM pgbench_accounts WHERE abalance > 1000000")
    return 1 / s.timed_sql(*["SELECT count(*) FROM pgbench_accounts "
                             "WHERE abalance > 1000000"] * 5)


def copy(s):
    s.sql("DROP TABLE IF EXISTS copied",
          "CREATE TABLE copied (id int PRIMARY KEY, a int, t text)",
          "CHECKPOINT")
    return 1 / s.timed_sql("COPY copied FROM '%s'" % s.args.copy_file)


def update_bulk(s):
    s.sql("CHECKPOINT")
    seconds = s.timed_sql("UPDATE pgbench_accounts SET abalance = abalance + 0 "
                          "WHERE aid % 10 = 1")
    s.sql("VACUUM pgbench_accounts")
    return 1 / seconds


MEASUREMENTS = [tpcb, tpcb_sync, select_cached, seqscan_cached, copy,
                update_bulk]


def make_copy_file(path, rows):
    with open(path, "w") as f:
        for i in range(rows):
            f.write("%d\t%d\trow number %d of the file\n" % (i, i * 7 % 1000, i))


def memory_mb():
    with open("/proc/meminfo") as f:
        return int(f.readline().split()[1]) // 1024


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--scale", type=int, default=10)
    p.add_argument("--clients", type=int, default=4)
    p.add_argument("--seconds", type=int, default=10, help="of a pgbench run")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--rows", type=int, default=500000, help="of the COPY")
    p.add_argument("--only", default="", help="names, separated by commas")
    p.add_argument("--work", required=True, help="directory to be made")
    p.add_argument("--bindir", required=True)
    p.add_argument("--out", required=True, help="JSON file")
    p.add_argument("--revision", default="unknown")
    args = p.parse_args()
    chosen = [m for m in MEASUREMENTS
              if not args.only or m.__name__ in args.only.split(",")]

    os.makedirs(args.work)
    args.copy_file = os.path.join(args.work, "rows.txt")
    make_copy_file(args.copy_file, args.rows)
    servers = []
    try:
        servers.append(Server("heap", args, ""))
        servers.append(Server("aurora", args,
                              "shared_preload_libraries = 'aurora'\n"
                              "default_table_access_method = 'aurora'\n"))
        servers[1].sql("CREATE EXTENSION aurora")
        for s in servers:
            print("%-7s pgbench -i -s %d ..." % (s.name, args.scale), flush=True)
            s.pgbench("-i", "-q", "-s", str(args.scale))
        results = {m.__name__: {s.name: [] for s in servers} for m in chosen}
        for repeat in range(args.repeats):
            # Who goes first alternates.
            order = servers if repeat % 2 == 0 else servers[::-1]
            for m in chosen:
                for s in order:
                    v = m(s)
                    results[m.__name__][s.name].append(v)
                    print("  repeat %d  %-15s %-7s %12.2f" %
                          (repeat + 1, m.__name__, s.name, v), flush=True)
        for s in servers:
            n = s.sql("SELECT count(*) FROM pgbench_history",
                      ) if tpcb in chosen else "0"
            sums = s.sql("SELECT (SELECT sum(abalance) FROM pgbench_accounts) = "
                         "(SELECT coalesce(sum(delta), 0) FROM pgbench_history)")
            if sums != "t":
                sys.exit("%s: balances do not agree after %s transactions" % (s.name, n))
        empty = servers[1].sql(
            "SELECT coalesce(sum(local_size), 0) FROM aurora.tables "
            "WHERE persistence = 'permanent'")
        if empty != "0":
            sys.exit("aurora: local files hold %s bytes" % empty)
    finally:
        for s in servers:
            s.stop()
        shutil.rmtree(args.work, ignore_errors=True)

    ratios = {}
    medians = {}
    print()
    print("%-16s %14s %14s %8s   (median of %d)" %
          ("", "heap", "aurora", "ratio", args.repeats))
    for name, by_server in results.items():
        medians[name] = {k: statistics.median(v) for k, v in by_server.items()}
        h, a = medians[name]["heap"], medians[name]["aurora"]
        key = ("tpcb_embedded_sync_vs_heap" if name == "tpcb_sync"
               else "%s_embedded_vs_heap" % name)
        ratios[key] = round(a / h, 3)
        print("%-16s %14.2f %14.2f %8.2f" % (name, h, a, a / h))
    with open(args.out, "w") as f:
        json.dump({
            "revision": args.revision,
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": {"cpus": os.cpu_count(), "memory_mb": memory_mb(),
                        "kernel": platform.release()},
            "settings": {"scale": args.scale, "clients": args.clients,
                         "seconds": args.seconds, "repeats": args.repeats,
                         "rows": args.rows, "postgresql.conf": SETTINGS.strip()},
            "unit": "tps for tpcb and select, 1/s else; ratio above 1: aurora is faster",
            "runs": results,
            "medians": medians,
            "ratios": ratios,
        }, f, indent=2)
        f.write("\n")


if __name__ == "__main__":
    main()
