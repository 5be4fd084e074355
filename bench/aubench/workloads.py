# SPDX-License-Identifier: Apache-2.0
"""
The workloads.  Most run in a session: a peer that has been started with the
session's settings and warmed up.  Those without a session get a stopped peer.
Each returns a sample: {"value": ..., further figures}.
"""

import glob
import os

from .probe import Watch, wal_between, wal_position
from .server import run

ACCOUNTS_PER_SCALE = 100000
ALL_PAGES = "SELECT count(*) FROM pgbench_accounts WHERE abalance > 1000000000"


class Workload:
    def __init__(self, function, session, unit, title, peers=None):
        self.name = function.__name__
        self.function = function
        self.session = session
        self.unit = unit            # "tps": more is better; "s": less is
        self.title = title
        self.peers = peers          # None: all


class Session:
    """settings(options) -> dict; prepare(peer) after the start."""

    def __init__(self, settings, prepare):
        self.settings = settings
        self.prepare = prepare


# ---- sessions ---------------------------------------------------------------

def cached_settings(o):
    return {"shared_buffers": "%dMB" % o.shared_buffers_mb,
            "checkpoint_timeout": "%ds" % o.checkpoint_s}


def large_settings(o):
    return {**cached_settings(o), "shared_buffers": "%dMB" % o.small_buffers_mb}


def warm(peer):
    """
    Every page of pgbench's tables and indexes into shared_buffers.  A bitmap
    scan, because a sequential one of a big table goes through a small ring.
    """
    peer.server.sql(
        "VACUUM pgbench_branches, pgbench_tellers",
        "SELECT pg_prewarm(oid) FROM pg_class WHERE relname IN "
        "('pgbench_accounts_pkey', 'pgbench_branches_pkey', 'pgbench_tellers_pkey')",
        "SET enable_seqscan = off; SET enable_indexscan = off; "
        "SET enable_indexonlyscan = off; SET work_mem = '256MB'; "
        "SELECT count(abalance) FROM pgbench_accounts WHERE aid > 0",
        "SELECT count(*) FROM pgbench_branches",
        "SELECT count(*) FROM pgbench_tellers")


def vacuum_small(peer):
    peer.server.sql("VACUUM pgbench_branches, pgbench_tellers")


SESSIONS = {
    "cached": Session(cached_settings, warm),
    "large": Session(large_settings, vacuum_small),
    "bulk": Session(cached_settings, vacuum_small),
}


# ---- pgbench ----------------------------------------------------------------

def percentile(ordered, p):
    return ordered[min(len(ordered) - 1, int(len(ordered) * p))] if ordered else None


def latencies(pattern):
    """Milliseconds out of pgbench's transaction logs, which are removed."""
    us = []
    for path in glob.glob(pattern):
        with open(path) as f:
            us += [int(line.split(" ", 3)[2]) for line in f]
        os.unlink(path)
    us.sort()
    return {"p50_ms": (percentile(us, 0.5) or 0) / 1000,
            "p99_ms": (percentile(us, 0.99) or 0) / 1000,
            "max_ms": (us[-1] if us else 0) / 1000, "logged": len(us)}


def pgbench(peer, seconds, *argv, clients=None, sampling=1.0, transactions=None):
    """One run, with everything that is looked at meanwhile."""
    o, s = peer.options, peer.server
    clients = clients or o.clients
    log = os.path.join(peer.dir, "tx")
    command = [s.tool("pgbench"), "-n", "-M", "prepared", "-c", str(clients),
               "-j", str(min(2, clients)), "-l", "--log-prefix=" + log, *argv,
               *s.connection(), "postgres"]
    if sampling < 1.0:
        command[1:1] = ["--sampling-rate=%g" % sampling]
    command[1:1] = (["-t", str(transactions)] if transactions
                    else ["-T", str(seconds)])
    before = wal_position(s)
    with Watch(peer.roots(), memory_after=seconds / 2 if seconds else None) as w:
        out = run(command)
    wal = wal_between(before, wal_position(s))
    tps = done = 0
    for line in out.splitlines():
        if line.startswith("tps = "):
            tps = float(line.split()[2])
        if line.startswith("number of transactions actually processed: "):
            done = int(line.split(":")[1].split("/")[0])
    sample = {"value": tps, "transactions": done, "latency": latencies(log + ".*"),
              "wal": wal, **w.result()}
    if done:
        sample["per_transaction"] = {
            "wal_bytes": wal["lsn_bytes"] / done,
            "wal_full_page_images": wal["full_page_images"] / done,
            "read_bytes": sample["io"].get("read_bytes", 0) / done,
            "write_bytes": sample["io"].get("write_bytes", 0) / done,
            "cpu_ms": {k: 1000 * v / done for k, v in sample["cpu_s"].items()},
            "cpu_ms_total": 1000 * sample["cpu_s_total"] / done}
    return sample


def select_cached(peer):
    return pgbench(peer, peer.options.select_s, "-S", sampling=0.2)


def simple_update(peer):
    return pgbench(peer, peer.options.simple_s, "-N")


def tpcb(peer):
    return pgbench(peer, peer.options.tpcb_s)


def tpcb_sync(peer):
    """Aurora's commits wait until storage, too, has made them durable."""
    s = peer.server
    s.sql("ALTER SYSTEM SET synchronous_standby_names = 'aurora'",
          "SELECT pg_reload_conf()", "SELECT pg_sleep(0.5)")
    try:
        return pgbench(peer, peer.options.simple_s)
    finally:
        s.sql("ALTER SYSTEM RESET synchronous_standby_names",
              "SELECT pg_reload_conf()", "SELECT pg_sleep(0.5)")


def select_large(peer):
    return pgbench(peer, peer.options.select_s, "-S", sampling=0.2)


def simple_update_large(peer):
    return pgbench(peer, peer.options.simple_s, "-N")


def tpcb_large(peer):
    return pgbench(peer, peer.options.simple_s)


# ---- scans and reads ----------------------------------------------------------

def timed(peer, *commands):
    with Watch(peer.roots()) as w:
        seconds = peer.server.timed(*commands)
    return {"value": seconds, **w.result()}


def seqscan_warm(peer):
    return timed(peer, ALL_PAGES, ALL_PAGES)


def files_below(directories):
    for top in directories:
        for where, _, names in os.walk(top):
            for name in names:
                yield os.path.join(where, name)


def os_cache(peer, load):
    """Read the peer's table files into the OS cache, or drop them from it."""
    os.sync()
    for path in files_below(peer.table_directories()):
        try:
            with open(path, "rb", buffering=0) as f:
                if load:
                    while f.read(1 << 20):
                        pass
                else:
                    os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            pass                    # a socket, or a file that has just gone


def started(peer, load, function):
    """
    Run it on a freshly started peer: nothing in shared_buffers.  With the OS
    cache warm, after background work that earlier measurements left: a storage
    daemon that was stopped goes on merging its files when it starts.
    """
    peer.stop()
    os_cache(peer, load)
    peer.start(cached_settings(peer.options))
    if load:
        peer.settle(peer.server)
    try:
        return function(peer)
    finally:
        peer.stop()


def scan_once(peer):
    return timed(peer, "SELECT count(*) FROM pgbench_branches", ALL_PAGES)


def seqscan_cold(peer):
    return started(peer, True, scan_once)


def seqscan_disk(peer):
    return started(peer, False, scan_once)


def point_cold(peer):
    return started(peer, True, lambda p: pgbench(
        p, p.options.point_s, "-S", clients=1))


# ---- bulk -------------------------------------------------------------------

def copy(peer):
    s = peer.server
    s.sql("DROP TABLE IF EXISTS copied",
          "CREATE TABLE copied (id int, a int, t text)", "CHECKPOINT")
    return timed(peer, "COPY copied FROM '%s'" % peer.options.copy_file)


def index_build(peer):
    return timed(peer, "CREATE INDEX copied_id ON copied (id)")


def update_bulk(peer):
    peer.server.sql("VACUUM ANALYZE copied", "CHECKPOINT")
    return timed(peer, "UPDATE copied SET a = a + 1 WHERE id % 5 = 0")


def make_copy_file(path, rows):
    with open(path, "w") as f:
        for i in range(rows):
            f.write("%d\t%d\trow number %d of the file\n" % (i, i * 7 % 1000, i))


# Standbys have no part in reading, so the peer that only adds them to stock
# heap is left out there; and so is cluster3, since a server reads from one node.
READERS = ("heap", "embedded", "node")

WORKLOADS = [
    Workload(select_cached, "cached", "tps", "select-only, cached", READERS),
    Workload(seqscan_warm, "cached", "s", "sequential scan, in shared_buffers", READERS),
    Workload(simple_update, "cached", "tps", "simple-update, cached"),
    Workload(tpcb, "cached", "tps", "TPC-B, cached"),
    Workload(tpcb_sync, "cached", "tps", "TPC-B, cached, commits wait for storage",
             ("embedded",)),
    Workload(select_large, "large", "tps", "select-only, data >> shared_buffers", READERS),
    Workload(simple_update_large, "large", "tps",
             "simple-update, data >> shared_buffers", READERS),
    Workload(tpcb_large, "large", "tps", "TPC-B, data >> shared_buffers"),
    Workload(seqscan_cold, None, "s", "sequential scan, cold (OS cache warm)", READERS),
    Workload(seqscan_disk, None, "s", "sequential scan, OS cache dropped", READERS),
    Workload(point_cold, None, "tps", "random point reads, cold, 1 client", READERS),
    Workload(copy, "bulk", "s", "COPY in"),
    Workload(index_build, "bulk", "s", "index build"),
    Workload(update_bulk, "bulk", "s", "bulk update"),
]
