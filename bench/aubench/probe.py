# SPDX-License-Identifier: Apache-2.0
"""
What a peer used while something ran: processor time by kind of process, bytes
read and written, memory; WAL written.

Linux' /proc tells.  A process that ends while we watch is counted as far as
it was seen last; the rest of it (at most one tick of the sampler) is known from
what its postmaster has reaped, and goes to "backend".
"""

import os
import re
import threading
import time

from .server import descendants

HZ = os.sysconf("SC_CLK_TCK")
TICK_S = 0.5

# The first that matches.
KINDS = [
    ("walwriter", re.compile(r"postgres: walwriter")),
    ("checkpointer", re.compile(r"postgres: checkpointer")),
    ("bgwriter", re.compile(r"postgres: background writer")),
    ("walsender", re.compile(r"postgres: walsender")),
    ("shipper", re.compile(r"postgres: .*aurora.*ship")),
    ("supervisor", re.compile(r"postgres: .*aurora")),
    ("autovacuum", re.compile(r"postgres: autovacuum")),
    ("storaged", re.compile(r"aurora_storaged")),
    ("startup", re.compile(r"postgres: startup")),
    ("backend", re.compile(r"postgres: \S+ \S+ (\[local\]|127\.)")),
    ("walreceiver", re.compile(r"postgres: walreceiver")),
]


def read(path):
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return ""


def kind_of(pid):
    title = read("/proc/%d/cmdline" % pid).replace("\0", " ")
    for name, pattern in KINDS:
        if pattern.search(title):
            return name
    return "other"


def cpu_of(pid):
    """(own seconds, reaped children's seconds), or None."""
    text = read("/proc/%d/stat" % pid)
    if not text:
        return None
    f = text.rpartition(")")[2].split()
    return ((int(f[11]) + int(f[12])) / HZ, (int(f[13]) + int(f[14])) / HZ)


def io_of(pid):
    return {k: int(v) for k, v in
            re.findall(r"^(\w+): (\d+)$", read("/proc/%d/io" % pid), re.M)}


def memory_of(pid):
    """Bytes: own share (PSS) and what belongs to this process alone."""
    text = read("/proc/%d/smaps_rollup" % pid)
    kb = {k: int(v) for k, v in re.findall(r"^(\w+): +(\d+) kB$", text, re.M)}
    return {"pss": 1024 * kb.get("Pss", 0),
            "anon": 1024 * kb.get("Anonymous", 0),
            "rss": 1024 * kb.get("Rss", 0)}


class Root:
    """A server process and all below it; role: primary, standby or node."""

    def __init__(self, pid, role):
        self.pid = pid
        self.role = role

    def pids(self):
        return [self.pid] + descendants(self.pid)

    def kind(self, pid):
        if self.role == "standby":
            return "standby"
        if pid == self.pid:
            return "postmaster" if self.role == "primary" else "storaged"
        return kind_of(pid)


class Watch:
    """with Watch(roots) as w: ...; then w.result()."""

    def __init__(self, roots, memory_after=None):
        self.roots = roots
        self.seen = {}          # pid -> [kind, first, last, root]
        self.memory = None
        self.memory_after = memory_after
        self.quit = threading.Event()
        self.thread = threading.Thread(target=self.loop, daemon=True)

    def sample(self, first=False):
        for r in self.roots:
            for pid in r.pids():
                c = cpu_of(pid)
                if c is None:
                    continue
                s = self.seen.get(pid)
                if s is None or s[0] == "other":
                    # A child that has just been forked has no title of its own yet.
                    base = s[1] if s else (c[0] if first else 0.0)
                    self.seen[pid] = [r.kind(pid), base, c[0], r]
                else:
                    s[2] = c[0]

    def loop(self):
        while not self.quit.wait(TICK_S):
            self.sample()
            if (self.memory_after is not None and self.memory is None
                    and time.monotonic() - self.t0 >= self.memory_after):
                self.memory = memory_by_kind(self.roots)

    def io_total(self):
        total = {}
        for r in self.roots:
            for pid in r.pids():
                for k, v in io_of(pid).items():
                    total[k] = total.get(k, 0) + v
        return total

    def reaped(self):
        return {r.pid: (cpu_of(r.pid) or (0, 0))[1] for r in self.roots}

    def __enter__(self):
        self.t0 = time.monotonic()
        self.sample(first=True)
        self.reaped0 = self.reaped()
        self.io0 = self.io_total()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.quit.set()
        self.thread.join()
        self.sample()
        self.seconds = time.monotonic() - self.t0
        self.io1 = self.io_total()
        self.reaped1 = self.reaped()

    def result(self):
        cpu = {}
        for kind, first, last, _ in self.seen.values():
            cpu[kind] = cpu.get(kind, 0.0) + last - first
        # What ended processes used after they were seen last.
        for r in self.roots:
            gone = sum(s[2] for p, s in self.seen.items()
                       if s[3] is r and not os.path.exists("/proc/%d" % p))
            rest = self.reaped1[r.pid] - self.reaped0[r.pid] - gone
            if rest > 0:
                kind = "standby" if r.role == "standby" else "backend"
                cpu[kind] = cpu.get(kind, 0.0) + rest
        return {
            "seconds": self.seconds,
            "cpu_s": {k: round(v, 3) for k, v in sorted(cpu.items()) if v > 0.0},
            "cpu_s_total": round(sum(cpu.values()), 3),
            "io": {k: max(0, self.io1.get(k, 0) - v) for k, v in self.io0.items()},
            "memory": self.memory,
        }


def memory_by_kind(roots):
    out = {}
    for r in roots:
        for pid in r.pids():
            m = memory_of(pid)
            k = r.kind(pid)
            for field, v in m.items():
                out.setdefault(k, {}).setdefault(field, 0)
                out[k][field] += v
    out["total"] = {"pss": sum(v["pss"] for v in out.values()),
                    "anon": sum(v["anon"] for v in out.values())}
    return out


# ---- WAL --------------------------------------------------------------------

def wal_position(server):
    """What pg_stat_wal counts, and the insert position."""
    row = server.sql("SELECT wal_records, wal_fpi, wal_bytes, wal_sync, wal_write, "
                     "pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') "
                     "FROM pg_stat_wal").split("|")
    names = ["records", "full_page_images", "bytes", "syncs", "writes", "lsn"]
    return dict(zip(names, (int(x) for x in row)))


def wal_between(a, b):
    d = {k: b[k] - a[k] for k in a}
    d["lsn_bytes"] = d.pop("lsn")
    return d


# A record counts for what its first block belongs to.  Records without a
# block (commits, checkpoints, invalidations) are "transaction".
WAL_BY_OBJECT = """
WITH r AS (
  SELECT resource_manager, record_type, record_length, fpi_length,
         substring(block_ref from 'rel \\d+/\\d+/(\\d+)')::oid AS filenode
    FROM pg_get_wal_records_info('{0}', '{1}')
), o AS (
  SELECT pg_relation_filenode(c.oid) AS filenode,
         CASE WHEN c.relkind = 'i' THEN 'index' ELSE 'table' END AS what
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname IN ('public', 'pg_toast') AND c.relkind IN ('r', 'i', 't', 'm')
     AND c.oid >= 16384
)
SELECT json_object_agg(what, v) FROM (
  SELECT coalesce(o.what, CASE WHEN r.filenode IS NULL THEN 'transaction' ELSE 'catalog' END) AS what,
         json_build_object('records', count(*), 'bytes', sum(record_length),
                           'image_bytes', sum(fpi_length)) AS v
    FROM r LEFT JOIN o USING (filenode) GROUP BY 1) s
"""

WAL_BY_RMGR = """
SELECT json_object_agg("resource_manager/record_type",
         json_build_object('records', count, 'record_bytes', record_size,
                           'image_bytes', fpi_size, 'bytes', combined_size))
  FROM pg_get_wal_stats('{0}', '{1}') WHERE count > 0
"""
