# SPDX-License-Identifier: Apache-2.0
"""
Measurements that work on copies of a loaded, stopped peer:

  capture    a fixed number of TPC-B transactions with a fixed seed, one
             checkpoint before, none meanwhile: WAL bytes, by what they are
             for; bytes on disk afterwards; the WAL itself is kept
  ingest     that WAL given to a storage node, heap's to a stock standby
  recovery   kill -9 after so and so much WAL since the checkpoint; the time
             until the first row can be read again; for aurora also after as
             many changes of rows as heap made in so much WAL

They are for stock heap and for aurora's embedded storage.
"""

import json
import os
import re
import shutil
import time

from .probe import WAL_BY_OBJECT, WAL_BY_RMGR, cpu_of, kind_of
from .server import (BenchError, Node, Server, copy_tree, descendants, lsn, run,
                     wait_until)

LONG = {"checkpoint_timeout": "1h", "max_wal_size": "64GB"}
SEGMENT = 16 << 20


def segment_name(n):
    return "00000001%08X%08X" % (n >> 8, n & 0xFF)


class Copy(Server):
    """A server on a copy of a stopped peer's data directory."""

    def __init__(self, peer, where, source=None, conf=None):
        super().__init__(peer.name + " (copy)", where, peer.options.bindir,
                         {**peer.server.conf, **(conf or {})})
        self.peer = peer
        copy_tree(source or peer.server.data, self.data)
        self.write_conf()

    def up(self, settings):
        self.start(settings)
        self.peer.ready(self)

    def remove(self):
        self.end(9, 10)
        shutil.rmtree(self.dir, ignore_errors=True)


def buffers(options):
    return {"shared_buffers": "%dMB" % options.shared_buffers_mb}


# ---- capture ------------------------------------------------------------------

class Captured:
    """Kept of a captured run: where it began and its WAL."""

    def __init__(self):
        self.base = None            # data directory as it was before
        self.archive = None
        self.start = self.end = None
        self.transactions = 0

    def files(self):
        first, last = lsn(self.start) // SEGMENT, (lsn(self.end) - 1) // SEGMENT
        return [segment_name(i) for i in range(first, last + 1)]


def capture(peer, work, transactions, compression=None):
    """(sample, Captured); compression: another wal_compression, WAL not kept."""
    o = peer.options
    s = Copy(peer, os.path.join(work, "cap"),
             conf={"wal_compression": compression} if compression else None)
    try:
        s.up({**buffers(o), **LONG})
        s.sql("CHECKPOINT")
        start = s.sql("SELECT pg_current_wal_insert_lsn()")
        t0 = time.monotonic()
        run([s.tool("pgbench"), "-n", "-M", "prepared", "-c", str(o.clients), "-j", "2",
             "--random-seed=1", "-t", str(transactions // o.clients), *s.connection(),
             "postgres"])
        seconds = time.monotonic() - t0
        end = s.sql("SELECT pg_current_wal_insert_lsn()")
        objects = json.loads(s.sql(WAL_BY_OBJECT.format(start, end)))
        rmgrs = json.loads(s.sql(WAL_BY_RMGR.format(start, end)))
        done = transactions // o.clients * o.clients
        sample = {
            "value": objects.get("table", {}).get("bytes", 0) / done,
            "transactions": done, "seconds": seconds,
            "wal_bytes": lsn(end) - lsn(start),
            "wal_bytes_per_transaction": (lsn(end) - lsn(start)) / done,
            "by_object": objects, "by_record": rmgrs}
        kept = None
        if compression is None:
            kept = Captured()
            kept.start, kept.end, kept.transactions = start, end, done
            kept.archive = os.path.join(work, "archive-" + peer.name)
            os.makedirs(kept.archive)
            s.sql("SELECT pg_switch_wal()")
            for name in kept.files():
                shutil.copy(os.path.join(s.data, "pg_wal", name), kept.archive)
            kept.base = os.path.join(work, "base-" + peer.name)
            peer.settle(s)
            sample["disk"] = peer.disk(s)
        s.end(2, 300)
    finally:
        s.remove()
    if kept:
        copy_tree(peer.server.data, kept.base)
    return sample, kept


# ---- ingest -------------------------------------------------------------------

def standby_replay(peer, work, kept):
    """Processor seconds of a stock standby that replays it from an archive."""
    s = Copy(peer, os.path.join(work, "rep"), kept.base,
             {"restore_command": 'cp "%s/%%f" "%%p"' % kept.archive})
    try:
        open(os.path.join(s.data, "standby.signal"), "w").close()
        os.sync()
        t0 = time.monotonic()
        s.launch([s.tool("postgres"), "-D", s.data, "-c", "shared_buffers=%s"
                  % buffers(peer.options)["shared_buffers"]])
        s.wait_ready()
        pids = descendants(s.pid)
        startup = [p for p in pids if kind_of(p) == "startup"]
        if not startup:
            raise BenchError("the standby has no startup process:\n" + s.tail())

        def replayed():
            return lsn(s.sql("SELECT pg_last_wal_replay_lsn()") or "0/0") >= lsn(kept.end)
        wait_until("replay", 1800, replayed, 0.1)
        seconds = time.monotonic() - t0
        cpu = {}
        for p in descendants(s.pid):
            k = kind_of(p)
            if k != "backend":
                cpu[k] = cpu.get(k, 0) + (cpu_of(p) or (0, 0))[0]
    finally:
        s.remove()
    return ingest_sample(kept, cpu["startup"], seconds, cpu_s=cpu,
                         all_cpu_s=sum(cpu.values()))


def node_ingest(peer, work, kept, create=False):
    """
    Processor seconds of a storage node that is given it; create: on an empty
    volume (WAL of a heap server: taken, checked, decoded, stored; it has no
    pages in it).
    """
    n = Node("ingest", os.path.join(work, "ing"), peer.options.bindir)
    try:
        if not create:
            copy_tree(os.path.join(kept.base, "aurora"), n.store)
        os.sync()
        n.start()
        before = sum(cpu_of(n.pid))
        command = [peer.options.walfeed, "-e", kept.end]
        if create:
            command += ["-c", kept.start]
        fed = json.loads(run(command + [n.socket] + [
            os.path.join(kept.archive, f) for f in kept.files()]))
        cpu = sum(cpu_of(n.pid)) - before
        n.stop()
    finally:
        n.end(9, 10)
        shutil.rmtree(n.dir, ignore_errors=True)
    return ingest_sample(kept, cpu, fed["applied_s"], durable_s=fed["durable_s"],
                         fed_bytes=fed["bytes"])


def ingest_sample(kept, cpu, seconds, **more):
    size = lsn(kept.end) - lsn(kept.start)
    return {"value": kept.transactions / max(cpu, 1e-3), "cpu_seconds": cpu,
            "seconds": seconds, "transactions": kept.transactions, "wal_bytes": size,
            "wal_mb_per_cpu_second": size / 1e6 / max(cpu, 1e-3),
            "wal_mb_per_second": size / 1e6 / max(seconds, 1e-3), **more}


# ---- recovery -----------------------------------------------------------------

# Clients change rows of their own part of the table, so they never wait for
# each other.
CHANGES = """UPDATE pgbench_accounts a SET abalance = abalance + 1
 FROM (SELECT DISTINCT :client_id * {share} + 1 + (random() * ({share} - 1))::int AS aid
         FROM generate_series(1, 200)) r WHERE a.aid = r.aid;
"""


def change(s, script, *argv):
    """Run it with two clients; how many statements that were."""
    out = run([s.tool("pgbench"), "-n", "-c", "2", "-j", "2", *argv,
               "-f", script, *s.connection(), "postgres"])
    return int(re.search(r"actually processed: (\d+)", out).group(1))


def crash(peer, work, name, wal_mb, row_changes=None):
    """
    (directory `name` of a server that was killed, sample of how it came there);
    row_changes: after so many, instead of so much WAL.
    """
    o = peer.options
    s = Copy(peer, os.path.join(work, "cra"))
    script = os.path.join(work, "changes.sql")
    with open(script, "w") as f:
        f.write(CHANGES.replace("\n", " ").format(share=100000 * o.scale // 2))
    try:
        s.up({**buffers(o), **LONG})
        s.sql("CHECKPOINT")
        start = lsn(s.sql("SELECT pg_current_wal_insert_lsn()"))
        size = statements = 0
        t0 = time.monotonic()
        if row_changes:
            statements = change(s, script, "-t", str(row_changes // 400))
        while not row_changes and size < wal_mb << 20:
            statements += change(s, script, "-T", "2")
            size = lsn(s.sql("SELECT pg_current_wal_insert_lsn()")) - start
            if time.monotonic() - t0 > 900:
                raise BenchError("%d MB of WAL after 15 minutes" % (size >> 20))
        # Let storage and the OS be where they are in quiet operation.
        s.sql("SELECT pg_sleep(1)")
        size = lsn(s.sql("SELECT pg_current_wal_insert_lsn()")) - start
        s.crash()
        kept = os.path.join(work, name)
        if os.path.exists(kept):
            shutil.rmtree(kept)
        os.rename(s.data, kept)
    finally:
        s.remove()
    return kept, {"wal_bytes": size, "row_changes": 200 * statements}


def recovery(peer, work, kept):
    """Seconds from the start of the server until a row has been read."""
    s = Copy(peer, os.path.join(work, "rec"), kept)
    try:
        os.sync()
        t0 = time.monotonic()
        s.start({**buffers(peer.options), **LONG}, 1800)
        ready = time.monotonic() - t0
        s.sql("SELECT abalance FROM pgbench_accounts WHERE aid = 1")
        seconds = time.monotonic() - t0
        redo = re.search(r"redo done at .*elapsed: ([0-9.]+) s", s.tail(20000))
        whole = s.sql("SELECT count(*) FROM pgbench_accounts")
        if whole != str(100000 * peer.options.scale):
            raise BenchError("%s rows after recovery" % whole)
    finally:
        s.remove()
    return {"value": seconds, "ready_s": ready, "first_row_s": seconds - ready,
            "redo_s": float(redo.group(1)) if redo else None}
