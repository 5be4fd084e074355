#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Aurora beside what a user would take instead: stock heap, and stock heap with
three synchronous standbys.  Sets the peers up in private directories, measures
them in turns on the same machine in one run (the order of the peers rotates
with each repeat), compares medians, and writes latest.json, latest.md and plots.

docs/benchmark.md tells what is measured and how the ratios are counted.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from aubench import logwork, plot, report, server  # noqa: E402
from aubench.peers import PEERS, SETTINGS, load  # noqa: E402
from aubench.workloads import SESSIONS, WORKLOADS, make_copy_file  # noqa: E402

LOG_PEERS = ("heap", "embedded")
LOG_WORKLOADS = ("wal", "ingest", "recovery")
# Compared with each other in the cluster's targets: all repeats of session cached.
CLUSTER_PEERS = ("heap_any2", "cluster3")

MODES = {
    # Does everything work?  Its figures mean nothing.
    "smoke": dict(scale=1, select_s=1, simple_s=1, tpcb_s=1, point_s=1, repeats=1,
                  rows=20000, recovery_mb=8, capture_tx=2000, settle=0.5,
                  shared_buffers_mb=128, small_buffers_mb=4, checkpoint_s=30),
    "quick": dict(scale=10, select_s=3, simple_s=3, tpcb_s=8, point_s=2, repeats=2,
                  rows=500000, recovery_mb=256, capture_tx=20000, settle=2,
                  shared_buffers_mb=512, small_buffers_mb=16, checkpoint_s=30),
    "full": dict(scale=100, select_s=10, simple_s=12, tpcb_s=60, point_s=5, repeats=3,
                 rows=3000000, recovery_mb=1024, capture_tx=150000, settle=5,
                 shared_buffers_mb=2048, small_buffers_mb=128, checkpoint_s=60),
}
# As full, every peer and workload, in so many minutes.
MODES["compact"] = dict(MODES["full"], select_s=8, simple_s=10, point_s=4, repeats=2,
                        other_repeats=1, rows=2000000, settle=3, minutes=38)
OPTION_HELP = {
    "scale": "pgbench's scale: 15 MB of table each", "repeats": "of everything",
    "select_s": "seconds of a select-only run", "simple_s": "of a simple-update run",
    "tpcb_s": "of a TPC-B run, at least checkpoint-s to be fair",
    "point_s": "of the cold point reads", "rows": "of the COPY",
    "recovery_mb": "WAL since the checkpoint", "capture_tx": "transactions of the captured run",
    "settle": "seconds without change that count as quiet",
    "shared_buffers_mb": "where data is cached", "small_buffers_mb": "where it is not",
    "checkpoint_s": "checkpoint_timeout, at least 30",
    "other_repeats": "of peers other than heap and embedded (default as --repeats); "
                     "heap_any2 and cluster3 take part in all of session cached",
    "minutes": "begin no repeat but the first of anything that would last longer "
               "than this (default: no limit)",
}


def parse_options():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--mode", choices=MODES, default="full",
                   help="where the other options' defaults come from (default full)")
    p.add_argument("--peers", default=",".join(PEERS), help="names, separated by commas")
    p.add_argument("--workloads", default="",
                   help="names, separated by commas: "
                   + ", ".join([w.name for w in WORKLOADS] + list(LOG_WORKLOADS)))
    p.add_argument("--seconds", type=int, help="of each pgbench run")
    p.add_argument("--clients", type=int, default=4)
    p.add_argument("--wal-compression", default="off", help="of all servers")
    for name, text in OPTION_HELP.items():
        p.add_argument("--" + name.replace("_", "-"), help=text,
                       type=float if name == "settle" else int)
    p.add_argument("--work", required=True, help="directory to be made")
    p.add_argument("--bindir", required=True)
    p.add_argument("--walfeed", required=True, help="the program")
    p.add_argument("--out", required=True, help="directory for the results")
    p.add_argument("--revision", default="unknown")
    p.add_argument("--command", default="make bench")
    o = p.parse_args()
    for name, value in MODES[o.mode].items():
        if getattr(o, name) is None:
            setattr(o, name, value)
    if o.other_repeats is None:
        o.other_repeats = o.repeats
    o.minutes = o.minutes or 24 * 60
    if o.seconds:
        o.select_s = o.simple_s = o.tpcb_s = o.point_s = o.seconds
    o.peers = o.peers.split(",")
    names = [w.name for w in WORKLOADS] + list(LOG_WORKLOADS)
    o.workloads = o.workloads.split(",") if o.workloads else names
    for given, known in ((o.peers, PEERS), (o.workloads, names)):
        for x in given:
            if x not in known:
                p.error("\"%s\" is none of %s" % (x, ", ".join(known)))
    o.everything = set(o.peers) == set(PEERS) and set(o.workloads) == set(names)
    if o.checkpoint_s < 30:
        p.error("PostgreSQL takes no checkpoint_timeout below 30 s")
    return o


# ---- the machine --------------------------------------------------------------

def first_line(path, start):
    with open(path) as f:
        for line in f:
            if line.startswith(start):
                return line.split(":", 1)[1].strip()
    return "unknown"


def fdatasync_us(directory):
    """Median of 200 times 8 kB written over and synced."""
    path = os.path.join(directory, "sync-test")
    times = []
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.write(fd, bytes(1 << 20))
        os.fsync(fd)
        for i in range(200):
            t0 = time.monotonic()
            os.pwrite(fd, b"x" * 8192, 8192 * (i % 128))
            os.fdatasync(fd)
            times.append(time.monotonic() - t0)
    finally:
        os.close(fd)
        os.unlink(path)
    return round(1e6 * statistics.median(times))


def machine(o):
    file_system = server.run(["df", "--output=source,fstype", o.work]).splitlines()[-1].split()
    return {"cpu": first_line("/proc/cpuinfo", "model name"), "cpus": os.cpu_count(),
            "memory_mb": int(first_line("/proc/meminfo", "MemTotal").split()[0]) // 1024,
            "kernel": platform.release(), "file_system": file_system[1],
            "fdatasync_us": fdatasync_us(o.work),
            "load_before": os.getloadavg()[0],
            "postgresql": server.run([os.path.join(o.bindir, "postgres"), "--version"]).strip()}


def check_room(o):
    """Disk: each peer's data as often as it has copies, WAL, working copies."""
    data = 16 * o.scale + 200 * o.rows // 1000000 + 60
    copies = {"heap": 1, "heap_any2": 4, "embedded": 2, "node": 2, "cluster3": 4}
    wal = min(4096, 32 * max(o.tpcb_s, o.simple_s)) + 256
    need = sum(copies.get(p, 4) * (data + wal) for p in o.peers)
    if set(LOG_WORKLOADS) & set(o.workloads):
        need += 7 * data + 6 * o.recovery_mb + o.capture_tx // 50
    free = shutil.disk_usage(o.work).free >> 20
    print("disk: about %d MB needed, %d MB free in %s" % (need, free, o.work))
    if need > free:
        sys.exit("bench: not enough room; set TMPDIR to a larger disk, or take a smaller --scale")
    memory = int(first_line("/proc/meminfo", "MemAvailable").split()[0]) // 1024
    if "heap_any2" in o.peers and memory < 2 * o.shared_buffers_mb + 24 * o.scale:
        print("warning: %d MB of memory are few for these settings" % memory)


# ---- the run ------------------------------------------------------------------

class Bench:
    def __init__(self, options):
        self.o = options
        self.t0 = time.monotonic()
        self.peers = {}
        self.samples = []
        self.errors = []
        self.captured = {}
        self.crashed = {}
        self.took = {}              # seconds of what was done once
        self.described = {}         # the machine
        self.complete = False

    def say(self, text):
        t = int(time.monotonic() - self.t0)
        print("[%3d:%02d] %s" % (t // 60, t % 60, text), flush=True)

    def fail(self, what, e):
        text = str(e).strip() or type(e).__name__
        self.errors.append({"what": what, "error": text})
        self.say("FAILED %s: %s" % (what, text.replace("\n", "\n         ")[:1500]))

    def add(self, workload, unit, peer, repeat, sample):
        self.samples.append({"workload": workload, "unit": unit, "peer": peer,
                             "repeat": repeat, **sample})
        p99 = (sample.get("latency") or {}).get("p99_ms")
        self.say("repeat %d  %-20s %-10s %12.3f %s%s" % (
            repeat, workload, peer, sample["value"], unit,
            "   p99 %.2f ms" % p99 if p99 else ""))
        self.write()

    def attempt(self, what, function, *args):
        """The result, or None after an error, which is kept."""
        try:
            return function(*args)
        except (server.BenchError, OSError, subprocess.SubprocessError, ValueError,
                KeyError) as e:
            self.fail(what, e)
            return None

    def set_up(self):
        for name in self.o.peers:
            self.say("setting up %s: %s" % (name, PEERS[name].title))
            peer = PEERS[name](self.o, os.path.join(self.o.work, name))
            try:
                load(peer)
                self.peers[name] = peer
            except (server.BenchError, OSError, subprocess.SubprocessError) as e:
                self.fail("setting up " + name, e)
                server.stop_all()
                peer.destroy()

    def capture(self):
        for name in LOG_PEERS:
            peer = self.peers.get(name)
            if peer is None:
                continue
            if {"wal", "ingest"} & set(self.o.workloads):
                self.say("capturing %d transactions of %s" % (self.o.capture_tx, name))
                got = self.attempt("capture " + name, logwork.capture, peer, self.o.work,
                                   self.o.capture_tx)
                if got:
                    self.add("wal", "B/tx", name, 1, got[0])
                    self.captured[name] = got[1]
                if name == "heap":
                    got = self.attempt("capture heap, lz4", logwork.capture, peer,
                                       self.o.work, self.o.capture_tx, "lz4")
                    if got:
                        self.add("wal", "B/tx", "heap_lz4", 1, got[0])
            if "recovery" in self.o.workloads:
                self.crash("recovery", peer)
                like = self.crashed.get(("recovery", "heap"))
                if like and name != "heap":
                    self.crash("recovery_same", peer, like[1]["row_changes"])

    def crash(self, workload, peer, row_changes=None):
        self.say("making %s and a crash, %s" % (
            "%d changes" % row_changes if row_changes else "%d MB of WAL" % self.o.recovery_mb,
            peer.name))
        got = self.attempt("crash " + peer.name, logwork.crash, peer, self.o.work,
                           "crashed-%s-%s" % (workload, peer.name), self.o.recovery_mb,
                           row_changes)
        if got:
            self.crashed[workload, peer.name] = got

    def in_time(self, key, function, *args):
        """Run it, unless that is a repetition for which there is no time."""
        began = time.monotonic()
        if key in self.took and (began + self.took[key] + self.took["disk_end"] - self.t0
                                 > 60 * self.o.minutes):
            self.say("no time to repeat %s" % (key,))
            return
        function(*args)
        self.took.setdefault(key, time.monotonic() - began)

    def turn(self, repeat, session=None):
        """The peers in this repeat's order."""
        names = [n for n in self.peers if n in LOG_PEERS or repeat <= self.o.other_repeats
                 or (session == "cached" and n in CLUSTER_PEERS)]
        k = (repeat - 1) % max(1, len(names))
        return [self.peers[n] for n in names[k:] + names[:k]]

    def wanted(self, peer, session):
        return [w for w in WORKLOADS if w.session == session and w.name in self.o.workloads
                and (w.peers is None or peer.name in w.peers)]

    def measure(self, w, peer, repeat):
        sample = self.attempt("%s, %s" % (w.name, peer.name), w.function, peer)
        if sample:
            self.add(w.name, w.unit, peer.name, repeat, sample)
        return sample is not None

    def run_session(self, name, peer, repeat):
        todo = self.wanted(peer, name)
        if not todo:
            return
        session = SESSIONS[name]
        try:
            peer.start(session.settings(self.o))
            session.prepare(peer)
            for w in todo:
                self.measure(w, peer, repeat)
            peer.stop()
        except (server.BenchError, OSError, subprocess.SubprocessError) as e:
            self.fail("session %s, %s" % (name, peer.name), e)
        server.stop_all()
        os.sync()

    def run_alone(self, w, peer, repeat):
        self.measure(w, peer, repeat)
        server.stop_all()

    def run_recovery(self, workload, peer, repeat):
        kept, how = self.crashed[workload, peer.name]
        sample = self.attempt("%s, %s" % (workload, peer.name), logwork.recovery, peer,
                              self.o.work, kept)
        if sample:
            self.add(workload, "s", peer.name, repeat, {**sample, **how})

    def run_repeat(self, repeat):
        for name in SESSIONS:
            for peer in self.turn(repeat, name):
                self.in_time("session %s, %s" % (name, peer.name),
                             self.run_session, name, peer, repeat)
        for w in [w for w in WORKLOADS if w.session is None and w.name in self.o.workloads]:
            for peer in self.turn(repeat):
                if w.peers is None or peer.name in w.peers:
                    self.in_time("%s, %s" % (w.name, peer.name),
                                 self.run_alone, w, peer, repeat)
        if "ingest" in self.o.workloads:
            self.in_time("ingest", self.run_ingest, repeat)
        for peer in self.turn(repeat):
            for workload, name in self.crashed:
                if name == peer.name:
                    self.in_time("%s, %s" % (workload, name),
                                 self.run_recovery, workload, peer, repeat)
        self.took.setdefault("disk_end", 15 * len(self.peers))

    def run_ingest(self, repeat):
        heap, ours = self.peers.get("heap"), self.peers.get("embedded")
        jobs = []
        if "heap" in self.captured:
            jobs.append(("heap", lambda: logwork.standby_replay(
                heap, self.o.work, self.captured["heap"])))
        if "embedded" in self.captured:
            jobs.append(("embedded", lambda: logwork.node_ingest(
                ours, self.o.work, self.captured["embedded"])))
        if "heap" in self.captured and ours:
            jobs.append(("node_given_heap_wal", lambda: logwork.node_ingest(
                ours, self.o.work, self.captured["heap"], True)))
        k = repeat % max(1, len(jobs))
        for name, job in jobs[k:] + jobs[:k]:
            sample = self.attempt("ingest, " + name, job)
            if sample:
                self.add("ingest", "tx/CPU-s", name, repeat, sample)

    def last_look(self):
        """Disk at the end, and: is everything still there?"""
        for peer in self.peers.values():
            try:
                peer.start(SESSIONS["cached"].settings(self.o))
                peer.settle(peer.server)
                disk = peer.disk(peer.server)
                rows = peer.server.sql(
                    "SELECT (SELECT count(*) FROM pgbench_accounts) + "
                    "(SELECT count(*) FROM pgbench_history)")
                same = peer.server.sql(
                    "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = "
                    "(SELECT coalesce(sum(delta), 0) FROM pgbench_history)")
                self.add("disk_end", "MB", peer.name, 1,
                         {"value": disk["table_bytes"] / 1e6, "disk": disk,
                          "rows": int(rows),
                          "bytes_per_row": disk["table_bytes"] / int(rows)})
                if same != "t":
                    raise server.BenchError("balances and history do not agree")
                if peer.am == "aurora" and peer.server.sql(
                        "SELECT differing FROM aurora.verify_all()") != "0":
                    raise server.BenchError("cached pages differ from storage's")
                peer.stop()
            except (server.BenchError, OSError, subprocess.SubprocessError) as e:
                self.fail("last look at " + peer.name, e)
            server.stop_all()

    def settings(self):
        out = {k: v for k, v in vars(self.o).items()
               if k not in ("work", "bindir", "walfeed", "out", "command", "revision",
                                "copy_file")}
        out["postgresql.conf"] = {**SETTINGS, "wal_compression": self.o.wal_compression}
        return out

    def write_file(self, name, text):
        """All of it or nothing: this may be its last moment."""
        path = os.path.join(self.o.out, name)
        with open(path + ".new", "w") as f:
            f.write(text)
        os.rename(path + ".new", path)

    def write(self):
        """What there is so far; returns it."""
        result = {"revision": self.o.revision, "command": self.o.command,
                  "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                  "complete": self.complete,
                  "seconds": round(time.monotonic() - self.t0),
                  "machine": self.described, "settings": self.settings(),
                  "peers": {n: PEERS[n].title for n in self.o.peers},
                  "workloads": {w.name: {"unit": w.unit, "title": w.title}
                                for w in WORKLOADS},
                  "samples": self.samples, "errors": self.errors}
        report.summarize(result)
        plots = plot.all_plots(result)
        for name, svg in plots.items():
            self.write_file(name, svg)
        self.write_file("latest.md", report.markdown(result, plots))
        self.write_file("latest.json", json.dumps(result, indent=1) + "\n")
        return result


def interrupted(number, _):
    raise SystemExit("bench: interrupted by signal %d" % number)


def main():
    o = parse_options()
    for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, interrupted)
    os.makedirs(o.work)
    b = Bench(o)
    try:
        check_room(o)
        os.makedirs(o.out, exist_ok=True)
        b.described = machine(o)
        if b.described["load_before"] > 0.5:
            print("warning: the machine is busy (load %.1f); take the figures with care"
                  % b.described["load_before"])
        o.copy_file = os.path.join(o.work, "rows.txt")
        if {"copy", "index_build", "update_bulk"} & set(o.workloads):
            make_copy_file(o.copy_file, o.rows)
        b.set_up()
        b.capture()
        for repeat in range(1, o.repeats + 1):
            b.run_repeat(repeat)
        b.last_look()
        b.complete = True
    finally:
        server.stop_all()
        shutil.rmtree(o.work, ignore_errors=True)
        if b.samples:
            print("\n" + report.console(b.write()), flush=True)
    if b.errors:
        sys.exit("bench: %d of the measurements failed, see above" % len(b.errors))


if __name__ == "__main__":
    main()
