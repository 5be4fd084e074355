#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
A long run of an embedded instance under a memory limit: pgbench's TPC-B,
sequential scans, vacuums, and a table that is emptied again and again.  Every few
seconds memory (by kind of process) and bytes on disk are looked at; after a
warm-up neither may grow.  It fails on growth, on any error of a client, in the
server's log or the daemon's, on a daemon that was restarted, and if at the end the
balances do not agree, a cached page differs from storage's, or auroractl finds
damage in the stopped store.

Growth is the slope of a straight line through the samples after the warm-up, times
their time: at most --grow-mb or --grow-percent of the level, whichever is more.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from aubench import server  # noqa: E402
from aubench.probe import kind_of, memory_of  # noqa: E402

SCAN_S = 7
VACUUM_S = 20
EMPTY_S = 31


def parse_options():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seconds", type=int, default=1200)
    p.add_argument("--scale", type=int, default=20)
    p.add_argument("--clients", type=int, default=4)
    p.add_argument("--limit-mb", type=int, default=768,
                   help="memory of server and daemon together, OS cache included, if --cgroup "
                   "is there; else the daemon's address space is limited to four times that")
    p.add_argument("--node-memory-mb", type=int, default=64)
    p.add_argument("--retention-mb", type=int, default=64)
    p.add_argument("--sample", type=float, default=5, help="seconds")
    p.add_argument("--warm-up", type=float, default=0.4, help="share of the time")
    p.add_argument("--grow-mb", type=float, default=16)
    p.add_argument("--grow-percent", type=float, default=10)
    p.add_argument("--cgroup", default="", help="directory of a memory control group we may use")
    p.add_argument("--work", required=True)
    p.add_argument("--bindir", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--revision", default="unknown")
    p.add_argument("--command", default="make soak")
    return p.parse_args()


# ---- the limit ------------------------------------------------------------------

class Limit:
    """A control group (version 1 or 2), or the daemon's RLIMIT_AS."""

    def __init__(self, o):
        self.group = o.cgroup
        self.how = "none"
        if self.group:
            v1 = os.path.join(self.group, "memory.limit_in_bytes")
            path = v1 if os.path.exists(v1) else os.path.join(self.group, "memory.max")
            with open(path, "w") as f:
                f.write(str(o.limit_mb << 20))
            self.how = "control group, %d MB" % o.limit_mb

    def procs_file(self):
        return os.path.join(self.group, "cgroup.procs") if self.group else None

    def wrapper(self, o):
        """A program that limits itself and becomes aurora_storaged."""
        if self.group:
            return None
        path = os.path.join(o.work, "limited_storaged")
        with open(path, "w") as f:
            f.write("#!/bin/sh\nulimit -v %d || exit 1\nexec %s/aurora_storaged \"$@\"\n"
                    % (4 * o.limit_mb * 1024, o.bindir))
        os.chmod(path, 0o755)
        self.how = "address space of the daemon, %d MB" % (4 * o.limit_mb)
        return path

    def figure(self, *names):
        for name in names:
            try:
                with open(os.path.join(self.group, name)) as f:
                    return f.read()
            except OSError:
                pass
        return ""

    def killed(self):
        m = re.search(r"^oom_kill (\d+)", self.figure("memory.oom_control", "memory.events"), re.M)
        return int(m.group(1)) if m else 0

    def peak(self):
        text = self.figure("memory.max_usage_in_bytes", "memory.peak").strip()
        return int(text) if text else None


# ---- looking ----------------------------------------------------------------------

def directory_bytes(top):
    total = 0
    for where, _, names in os.walk(top):
        for n in names:
            try:
                total += os.lstat(os.path.join(where, n)).st_blocks * 512
            except OSError:
                pass
    return total


def look(s):
    """Bytes: anonymous memory by kind, everything on disk by directory."""
    out = {}
    for pid in [s.pid] + server.descendants(s.pid):
        k = "memory " + kind_of(pid)
        out[k] = out.get(k, 0) + memory_of(pid)["anon"]
    for name in ("aurora", "pg_wal", "base"):
        out["disk " + name] = directory_bytes(os.path.join(s.data, name))
    return out


def growth(points):
    """(growth over the time of the points along their regression line, their mean)"""
    n = len(points)
    mt = sum(t for t, _ in points) / n
    mv = sum(v for _, v in points) / n
    var = sum((t - mt) ** 2 for t, _ in points)
    slope = sum((t - mt) * (v - mv) for t, v in points) / var if var else 0.0
    return slope * (points[-1][0] - points[0][0]), mv


# ---- the load -----------------------------------------------------------------------

class Load:
    """Something done every so often in a thread of its own, until the end."""

    def __init__(self, soak, every, *commands):
        self.soak = soak
        self.every = every
        self.commands = commands
        self.rounds = 0
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def loop(self):
        while not self.soak.over.wait(self.every):
            try:
                self.soak.server.sql(*self.commands)
                self.rounds += 1
            except (server.BenchError, subprocess.SubprocessError, OSError) as e:
                self.soak.problem("a client: %s" % e)
                return


EMPTY = """BEGIN;
LOCK TABLE pgbench_history;
INSERT INTO kept SELECT coalesce(sum(delta), 0), count(*) FROM pgbench_history;
TRUNCATE pgbench_history;
COMMIT"""

BALANCED = """SELECT (SELECT sum(abalance) FROM pgbench_accounts) =
  (SELECT coalesce(sum(delta), 0) FROM pgbench_history) + (SELECT coalesce(sum(delta), 0) FROM kept)
 AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches)
 AND (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches)"""


class Soak:
    def __init__(self, o):
        self.o = o
        self.limit = Limit(o)
        self.problems = []
        self.samples = []
        self.over = threading.Event()
        conf = {"shared_preload_libraries": "aurora", "default_table_access_method": "aurora",
                "synchronous_standby_names": "aurora", "shared_buffers": "64MB",
                "max_wal_size": "256MB", "min_wal_size": "128MB", "checkpoint_timeout": "60s",
                "autovacuum_naptime": "10s", "log_min_messages": "warning",
                "log_checkpoints": "off",
                "aurora.storaged_options": "--memory %d --retention-mb %d" % (
                    o.node_memory_mb, o.retention_mb)}
        wrapper = self.limit.wrapper(o)
        if wrapper:
            conf["aurora.storaged_path"] = wrapper
        self.server = server.Server("soak", os.path.join(o.work, "p"), o.bindir, conf)
        self.server.procs_file = self.limit.procs_file()

    def say(self, text):
        print(text, flush=True)

    def problem(self, text):
        self.problems.append(text.strip())
        self.say("PROBLEM: " + text.strip()[:1000])

    def set_up(self):
        s = self.server
        s.initdb()
        s.start()
        s.sql("CREATE EXTENSION aurora")
        server.wait_until("shipping", 120, lambda: s.sql(
            "SELECT state FROM aurora.shipper") == "streaming")
        server.run([s.tool("pgbench"), "-i", "-q", "-s", str(self.o.scale), *s.connection(),
                    "postgres"])
        s.sql("CREATE TABLE kept (delta bigint, n bigint)", "SELECT aurora.sync('10 minutes')")

    def run(self):
        s, o = self.server, self.o
        daemon = s.sql("SELECT daemon_pid FROM aurora.shipper")
        bench = subprocess.Popen(
            [s.tool("pgbench"), "-n", "-M", "prepared", "-c", str(o.clients), "-j", "2",
             "-T", str(o.seconds), *s.connection(), "postgres"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        loads = {
            "scans": Load(self, SCAN_S, "SELECT count(*), sum(abalance) FROM pgbench_accounts"),
            "vacuums": Load(self, VACUUM_S, "VACUUM pgbench_accounts",
                            "VACUUM pgbench_tellers, pgbench_branches, kept"),
            "emptied": Load(self, EMPTY_S, EMPTY)}
        t0 = time.monotonic()
        try:
            while bench.poll() is None:
                time.sleep(o.sample)
                t = time.monotonic() - t0
                # What comes after pgbench's sessions have gone is another state.
                if t < o.seconds:
                    self.samples.append((round(t, 1), look(s)))
                    if len(self.samples) % max(1, int(30 / o.sample)) == 1:
                        self.show()
                if t > o.seconds + 120:
                    self.problem("pgbench did not end")
                    break
        finally:
            self.over.set()
            bench.kill()
        out = bench.communicate()[0]
        for load in loads.values():
            load.thread.join(300)
        if bench.returncode != 0:
            self.problem("pgbench ended with %s: %s" % (bench.returncode, out[-1500:]))
        if s.sql("SELECT daemon_pid FROM aurora.shipper") != daemon:
            self.problem("the daemon was restarted")
        m = re.search(r"actually processed: (\d+)", out)
        return {"transactions": int(m.group(1)) if m else 0,
                **{k: v.rounds for k, v in loads.items()}}

    def show(self):
        t, v = self.samples[-1]
        self.say("%5d s  %s" % (t, "  ".join(
            "%s %d" % (k, x >> 20) for k, x in sorted(v.items())
            if x >> 20 and k.split()[1] in ("storaged", "shipper", "backend", "aurora",
                                            "pg_wal", "base"))))

    def judge_growth(self):
        figures = {}
        start = self.o.seconds * self.o.warm_up
        later = [(t, v) for t, v in self.samples if t >= start]
        if len(later) < 4:
            self.problem("only %d samples after the warm-up" % len(later))
            return figures
        for k in sorted({k for _, v in later for k in v}):
            points = [(t, v.get(k, 0)) for t, v in later]
            grown, level = growth(points)
            bound = max(self.o.grow_mb * (1 << 20), level * self.o.grow_percent / 100)
            figures[k] = {"mean_mb": round(level / 1e6, 2), "growth_mb": round(grown / 1e6, 2),
                          "max_mb": round(max(x for _, x in points) / 1e6, 2),
                          "bound_mb": round(bound / 1e6, 2)}
            # (Autovacuum's workers come and go with their maintenance_work_mem.)
            if grown > bound and k != "memory autovacuum":
                self.problem("%s grew by %.1f MB in %d s (bound %.1f MB, level %.1f MB)" % (
                    k, grown / 1e6, points[-1][0] - points[0][0], bound / 1e6, level / 1e6))
        return figures

    def judge_server_log(self):
        """Before the shutdown, which ends sessions with a FATAL."""
        with open(self.server.log) as f:
            for line in f:
                # (Our own polls while it starts; an autovacuum that gives way to
                # our TRUNCATE, as it should.)
                if re.search(r" (ERROR|FATAL|PANIC|WARNING): ", line) and \
                        "the database system is starting up" not in line and \
                        "canceling autovacuum task" not in line:
                    self.problem("server log: " + line)

    def judge_daemon(self):
        path = os.path.join(self.server.data, "aurora", "storaged.log")
        with open(path) as f:
            for line in f:
                if re.search(r"\b(error|fatal|warning|corrupt)\b", line, re.I):
                    self.problem("storaged.log: " + line)
        if self.limit.killed():
            self.problem("the kernel killed a process for want of memory")

    def judge_data(self):
        s = self.server
        s.sql("SELECT aurora.sync('10 minutes')", "CREATE EXTENSION amcheck")
        if s.sql(BALANCED) != "t":
            self.problem("balances and history do not agree")
        compared, differing = s.sql("SELECT compared, differing FROM aurora.verify_all()").split("|")
        if differing != "0" or compared == "0":
            self.problem("verify: %s pages compared, %s differ" % (compared, differing))
        s.sql("SELECT bt_index_check('pgbench_accounts_pkey', true)")
        store = os.path.join(s.data, "aurora")
        self.judge_server_log()
        s.stop()
        out = server.run([s.tool("auroractl"), "check", "--dir", store], check=False)
        self.say("auroractl check: " + out.strip().splitlines()[-1])
        return {"pages_compared": int(compared), "check": out.strip().splitlines()[-1]}


def interrupted(number, _):
    raise SystemExit("soak: interrupted by signal %d" % number)


def main():
    o = parse_options()
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, interrupted)
    os.makedirs(o.work)
    try:
        k = Soak(o)
        k.set_up()
        k.say("soak: %d s, scale %d, limit: %s" % (o.seconds, o.scale, k.limit.how))
        done = k.run()
        figures = k.judge_growth()
        done.update(k.judge_data())
        k.judge_daemon()
        peak = k.limit.peak()
        result = {"command": o.command, "revision": o.revision, "seconds": o.seconds,
                  "limit": k.limit.how, "peak_in_group_mb": peak and round(peak / 1e6),
                  "done": done, "after_warm_up": figures, "problems": k.problems,
                  "samples": k.samples}
        with open(os.path.join(o.out, "soak.json"), "w") as f:
            json.dump(result, f, indent=1)
        print("\n%-24s %10s %10s %10s %10s" % ("after the warm-up, MB", "mean", "max", "growth",
                                              "bound"))
        for name, v in figures.items():
            print("%-24s %10.1f %10.1f %10.2f %10.1f" % (name, v["mean_mb"], v["max_mb"],
                                                        v["growth_mb"], v["bound_mb"]))
        print("\n%s; peak in the group: %s MB" % (
            ", ".join("%s %s" % (v, n.replace("_", " ")) for n, v in done.items()
                      if isinstance(v, int)), result["peak_in_group_mb"]))
    finally:
        server.stop_all()
        shutil.rmtree(o.work, ignore_errors=True)
    if k.problems:
        sys.exit("soak: %d problems" % len(k.problems))
    print("soak: all well")


if __name__ == "__main__":
    main()
