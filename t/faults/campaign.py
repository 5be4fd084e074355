#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Faults under load on real processes: a server on three, then on five storage
nodes, clients that move money and remember what they were told, and one fault after
another (nemeses.py).  After each the load is paused and everything is compared
(bank.py); now and then each node's pages are, too.

Exit status 0: nothing lost, nothing wrong was read, writes went on each time.
The last line has the figures.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from bank import WRONG_BALANCES, Bank  # noqa: E402
from cluster import SERVER, Network, Node, Server, Trouble, ended_by_itself, outcome, run  # noqa: E402
from nemeses import NEMESES  # noqa: E402
from pgwire import Lost, ServerError  # noqa: E402

PROGRESS_S = 60                 # writes must go on so long after a fault is healed
CATCH_UP_S = 180                # and all nodes have everything
REPLICAS = 3                    # of each page in a cluster
DEEP_EVERY = 12                 # faults between two comparisons of each node's pages

# (Members of a cluster that are not in the log group follow it.  One that has no
# volume yet has not caught up.)
CAUGHT_UP = """
SELECT coalesce(bool_and(shipping IN ('stream', 'follows') AND coalesce(applied_lsn >= '%s', false)),
                false) FROM aurora.nodes"""
GROUP_CAUGHT_UP = CAUGHT_UP + " WHERE shipping IS DISTINCT FROM 'follows'"
TABLES = ("account", "ledger")
# Options of all nodes: little memory, damage is found within seconds.
SMALL = ["--memory", "64", "--scrub-mb-per-s", "100"]


class Campaign:
    def __init__(self, options, nodes, seed):
        self.o = options
        self.random = random.Random(seed)
        self.count = nodes
        self.work = os.path.join(options.work, "%dnodes" % nodes)
        os.makedirs(self.work)
        self.network = Network(nodes + 1, options.port)      # one more may join
        self.nodes = [Node(i, self.work, options.bindir, self.network, options.shim,
                           SMALL + ["--retention-mb", "64"] + self.membership(i))
                      for i in range(1, nodes + 1)]
        self.started = list(self.nodes)     # also those that came and went
        self.server = None
        self.bank = None
        self.injected = {}
        self.gaps = {}
        self.number = 0

    def membership(self, i):
        """How node i comes into the cluster, if there is to be one."""
        if not self.formed():
            return []
        return ["--cluster-init", "--replicas", str(REPLICAS)] if i == 1 else ["--join", self.network.address(1)]

    # ---- what nemeses use ---------------------------------------------------

    def some(self, k):
        return self.random.sample(self.nodes, k)

    def everybody_but(self, node):
        return [SERVER] + [n.number for n in self.nodes if n is not node]

    def hold(self, factor=1.0):
        time.sleep(factor * self.random.uniform(*self.o.hold))

    def cold_reads(self):
        """All pages from storage, whichever node gives them."""
        c = self.bank.connect()
        try:
            c.query("SET statement_timeout = '60s'; SET lock_timeout = '5s'")
            for table in TABLES:
                try:
                    c.query("SELECT aurora.evict('%s')" % table)
                except ServerError as e:
                    self.bank.note_error("evict: " + str(e))
                c.query("SELECT count(*), count(md5(t::text)) FROM %s t" % table)
        finally:
            c.close()

    # ---- the cluster, where there is one --------------------------------------

    def formed(self):
        return self.count in self.o.form

    def control(self, *command, seconds=CATCH_UP_S):
        """
        auroractl's output, asked of one node after the other until one does it:
        there may be no leader yet, or a log whose writer has not taken a change.
        """
        limit = time.monotonic() + seconds
        answers = []
        while time.monotonic() < limit:
            for n in self.nodes:
                rc, text = outcome([os.path.join(self.o.bindir, "auroractl"), "--node",
                                    n.address, *map(str, command)])
                if rc == 0:
                    return text
                answers.append("%s: %s" % (n.address, text.strip()))
            time.sleep(0.2)
        raise Trouble("auroractl %s did not succeed within %d s; the last answers: %s" % (
            " ".join(map(str, command)), seconds, "; ".join(answers[-len(self.nodes):])))

    def further_node(self):
        """A node with an empty directory at an address that is free, started, to join."""
        taken = [n.number for n in self.nodes]
        number = next(i for i in range(1, self.count + 2) if i not in taken)
        n = Node(number, self.work, self.o.bindir, self.network, self.o.shim,
                 SMALL + ["--join", self.nodes[0].address])
        self.started.append(n)
        n.start()
        n.wait_listening()
        return n

    def member(self, node):
        """Its line of "node list" in words, or None."""
        for line in self.control("node", "list").splitlines():
            if node.address in line.split():
                return line.split()
        return None

    def wait_member(self, node, state, seconds=CATCH_UP_S):
        limit = time.monotonic() + seconds
        while state not in (self.member(node) or []):
            if time.monotonic() > limit:
                raise Trouble("node at %s is not %s within %d s: %s" % (
                    node.address, state, seconds, self.control("node", "list")))
            time.sleep(0.1)

    def take_out(self, node):
        """Drained, removed, stopped; its directory goes.  Returns its number in the cluster."""
        number = self.member(node)[0]
        self.control("node", "drain", number, "--wait")
        self.control("node", "remove", number)
        if not node.stop():
            self.bank.violation("the drained node did not stop cleanly, see " + node.log)
        shutil.rmtree(node.dir)
        self.wait_forgotten(node)
        return number

    def wait_forgotten(self, node):
        """The server hears of it a little later."""
        c = self.bank.connect()
        try:
            limit = time.monotonic() + PROGRESS_S
            while c.value("SELECT count(*) FROM aurora.storage_nodes() WHERE address = '%s'"
                          % node.address) != "0":
                if time.monotonic() > limit:
                    raise Trouble("the server still lists %s, which was removed" % node.address)
                time.sleep(0.05)
        finally:
            c.close()

    def wait_repaired(self, node, seconds=CATCH_UP_S):
        """
        Its page store was made anew and has all slices, or has nothing damaged: a
        whole walk of the scrubber has found nothing.  Returns which.
        """
        limit = time.monotonic() + seconds
        while True:
            v = (node.status() or {}).get("volumes") or [{}]
            whole = "repairing" not in v[0] and v[0].get("slices_incoming", 0) == 0 \
                and v[0].get("slices_missing", 0) == 0
            if whole and v[0].get("repairs", 0) > 0:
                return "repaired"
            if whole and v[0].get("scrub_passes", 0) > 0 and v[0]["scrub_damaged"] == 0:
                return "no harm"
            if time.monotonic() > limit:
                raise Trouble("node %d is not repaired within %d s: %s" % (
                    node.number, seconds, v[0]))
            time.sleep(0.1)

    # ---- states -------------------------------------------------------------------

    def wait_caught_up(self, seconds=CATCH_UP_S, which=CAUGHT_UP):
        c = self.bank.connect()
        try:
            lsn = c.value("SELECT pg_current_wal_flush_lsn()")
            limit = time.monotonic() + seconds
            while c.value(which % lsn) != "t":
                if time.monotonic() > limit:
                    self.bank.violation("not all nodes have caught up within %d s: %s" % (
                        seconds, c.rows("SELECT number, shipping, shipping_problem, durable_lsn, "
                                        "applied_lsn FROM aurora.nodes")))
                    return
                time.sleep(0.05)
        finally:
            c.close()

    @staticmethod
    def numbers(c):
        """Of the nodes, as the server counts them."""
        return [r[0] for r in c.rows("SELECT number FROM aurora.nodes ORDER BY 1")]

    def compare_nodes(self):
        """
        With the load paused: the pages of each node are those of the server.  A
        node that keeps some slices only cannot be asked alone.
        """
        self.wait_caught_up()
        c = self.bank.connect()
        try:
            whole = not self.formed() or self.count <= REPLICAS
            for n in self.numbers(c) if whole else ["0"]:
                c.query("SET aurora.read_node = %s" % n)
                for table in TABLES:
                    c.query("SELECT aurora.evict('%s')" % table)
                wrong = c.value(WRONG_BALANCES)
                if wrong != "0":
                    self.bank.violation("node %s: %s balances are wrong" % (n, wrong))
                for table in TABLES:
                    c.query("SELECT count(*) FROM %s" % table)
                    differing = c.rows("SELECT v.* FROM aurora.verify_pages('%s') v" % table)
                    if differing:
                        self.bank.violation("node %s: pages of %s differ: %s" % (
                            n, table, differing[:3]))
            c.query("RESET aurora.read_node")
            c.query("SELECT bt_index_check('account_pkey', true), "
                    "bt_index_check('ledger_pkey', true)")
        except ServerError as e:
            self.bank.violation("comparing nodes: %s" % e)
        finally:
            c.close()

    # ---- the course -------------------------------------------------------------

    def start(self):
        for n in self.nodes:
            n.start()
        for n in self.nodes:
            n.wait_listening()
        self.server = Server(self.work, self.o.bindir, self.network, self.nodes)
        self.server.start()
        self.bank = Bank(self.server.socket, self.o.clients, self.random.randrange(1 << 30))
        self.bank.set_up()
        # Nodes that follow may have no volume yet when the first fault comes.
        self.wait_caught_up(which=GROUP_CAUGHT_UP)
        self.bank.start()
        if self.bank.wait_progress(60) is None:
            raise Trouble("the load does not begin")
        time.sleep(1)

    def possible(self):
        return [n for n in NEMESES.values() if len(self.nodes) >= n.nodes
                and (n.needs != "net" or self.network.namespaces)
                and (n.needs != "shim" or self.o.shim)
                and (n.needs != "cluster" or self.formed())
                and (n.name in self.o.only if self.o.only else not n.planted)]

    def draw(self, count):
        """Each kind once in random order, then by weight."""
        kinds = self.possible()
        first = self.random.sample(kinds, len(kinds))[:count]
        return first + self.random.choices(kinds, [k.weight for k in kinds],
                                           k=count - len(first))

    def one(self, kind):
        self.number += 1
        self.bank.where = "%d nodes, fault %d, %s" % (self.count, self.number, kind.name)
        began = time.monotonic()
        whom = kind.function(self)
        healed = time.monotonic()
        resumed = self.bank.wait_progress(PROGRESS_S)
        text = ""
        if resumed is None:
            self.bank.violation("no writes within %d s after %s of %s" % (
                PROGRESS_S, kind.name, whom))
        elif kind.single and not (kind.nodes > 3 and self.formed()):
            # (A cluster keeps a log on three nodes: two may be too many.)
            gap = self.bank.gap(began, healed + resumed)
            self.gaps.setdefault(kind.name, []).append(gap)
            text = "%.2f s without writes" % gap
        else:
            text = "writes %.2f s after it" % resumed
        self.injected[kind.name] = self.injected.get(kind.name, 0) + 1
        # Sometimes the next fault comes before everybody has caught up.
        if self.random.random() < 0.7:
            self.wait_caught_up()
        if not self.bank.pause():
            self.bank.violation("clients are stuck after %s of %s" % (kind.name, whom))
        unknown = self.bank.check(balances=self.number % 4 == 0 or kind.planted)
        if self.number % DEEP_EVERY == 0:
            self.compare_nodes()
        self.bank.resume()
        self.watch_processes()
        print("%3d nodes, fault %3d: %-21s %-36s %s, %d commits so far, %d unknown" % (
            len(self.nodes), self.number, kind.name, whom, text,
            len(self.bank.commit_times), unknown), flush=True)
        time.sleep(self.random.uniform(0.1, 0.5))

    def watch_processes(self):
        for n in self.nodes:
            if n.process.poll() is not None:
                raise Trouble(ended_by_itself(n))

    def finish(self):
        self.bank.where += ", or at the end"
        if not self.bank.pause():
            self.bank.violation("clients are stuck at the end")
        self.bank.check()
        self.compare_nodes()
        self.bank.stop()
        if not self.server.stop():
            self.bank.violation("the server did not stop cleanly, see " + self.server.log)
        for n in self.nodes:
            if not n.stop():
                self.bank.violation("node %d did not stop cleanly, see %s" % (n.number, n.log))
        self.watch_for_crashes()

    def watch_for_crashes(self):
        """Nobody may have died of a signal that was not ours, or failed an assertion."""
        for n in {n.log: n for n in self.started}.values():
            with open(n.log, errors="replace") as f:
                for line in f:
                    if "ssertion" in line or "ERROR: AddressSanitizer" in line:
                        self.bank.violation("node %d: %s" % (n.number, line.strip()))
        with open(self.server.log, errors="replace") as f:
            for line in f:
                if "PANIC" in line or "was terminated by signal" in line or "TRAP:" in line:
                    self.bank.violation("server: " + line.strip())

    def run(self, count):
        limit = time.monotonic() + self.o.seconds if self.o.seconds else None
        try:
            self.start()
            for kind in self.draw(count):
                if limit and time.monotonic() > limit:
                    break
                self.one(kind)
                if self.bank.violations and not self.o.go_on:
                    break
            self.finish()
        finally:
            if self.bank:
                self.bank.over = True
                if self.bank.violations or sys.exc_info()[0]:
                    self.keep_state()
            for p in [n.process for n in self.started] + [self.server and self.server.process]:
                if p and p.poll() is None:
                    p.send_signal(signal.SIGCONT)
                    p.kill()
                    p.wait()
            self.network.close()


    def keep_state(self):
        """What there is to know of everybody goes to state.json, beside the logs."""
        state = {"wrong": self.bank.violations, "status": {}}
        try:
            c = self.bank.connect(seconds=5)
            for view in ("shipper", "nodes"):
                state[view] = c.value("SELECT json_agg(v) FROM aurora.%s v" % view)
        except (Lost, ServerError) as e:
            state["server"] = str(e)
        for n in self.nodes:
            state["status"][n.number] = n.status()
        with open(os.path.join(self.work, "state.json"), "w") as f:
            json.dump(state, f, indent=1)


def figures(campaigns, seed, took):
    kinds, gaps, commits, unknown, reads, checks, violations = {}, [], 0, 0, 0, 0, []
    for c in campaigns:
        for k, n in c.injected.items():
            kinds[k] = kinds.get(k, 0) + n
        gaps += [g for v in c.gaps.values() for g in v]
        if c.bank:
            commits += len(c.bank.commit_times)
            reads += c.bank.reads
            checks += c.bank.checks
            violations += c.bank.violations
    return {"seed": seed, "seconds": round(took), "faults": sum(kinds.values()),
            "by_kind": dict(sorted(kinds.items())), "commits_told": commits,
            "reads": reads, "checks": checks, "violations": violations,
            "single_failures": len(gaps),
            "gap_median_s": round(statistics.median(gaps), 3) if gaps else None,
            "gap_worst_s": round(max(gaps), 3) if gaps else None,
            "gaps_by_kind": {k: [round(g, 3) for c in campaigns for g in c.gaps.get(k, [])]
                             for k in sorted(kinds)},
            "errors_told": {k: n for c in campaigns if c.bank
                            for k, n in c.bank.errors.items()}}


def parse_options():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--faults", type=int, default=200, help="of all (default 200)")
    p.add_argument("--nodes", default="3,5", help="campaigns with so many nodes (default 3,5)")
    p.add_argument("--seconds", type=int, default=0, help="end a campaign after so long")
    p.add_argument("--form", default="3,5",
                   help="campaigns of so many nodes form a cluster (views, gossip; three "
                        "have a page); in the others each node is by itself (default 3,5)")
    p.add_argument("--clients", type=int, default=6)
    p.add_argument("--hold", default="0.7,2.5", help="seconds that a fault lasts")
    p.add_argument("--only", default="", help="kinds: " + ", ".join(NEMESES))
    p.add_argument("--go-on", action="store_true", help="also after something was wrong")
    p.add_argument("--seed", type=int, default=int(time.time() * 1000) % 1000000007)
    p.add_argument("--port", type=int, default=17100, help="first port without namespaces")
    p.add_argument("--work", required=True, help="directory to be made; removed if all is well")
    p.add_argument("--bindir", required=True, help="of PostgreSQL and aurora_storaged")
    p.add_argument("--json", help="file for the figures")
    o = p.parse_args()
    o.hold = [float(x) for x in o.hold.split(",")]
    o.form = [int(x) for x in o.form.split(",") if x]
    o.nodes = [int(x) for x in o.nodes.split(",")]
    o.only = [x for x in o.only.split(",") if x]
    for k in o.only:
        if k not in NEMESES:
            p.error("there is no kind \"%s\"" % k)
    return o


def again(o):
    """The command that repeats this campaign: the same faults, if not the same moments."""
    return "make check-faults FAULTS=%d FAULTS_OPTIONS='--seed %d --nodes %s --hold %s%s'%s" % (
        o.faults, o.seed, ",".join(map(str, o.nodes)), ",".join(map(str, o.hold)),
        " --only " + ",".join(o.only) if o.only else "",
        "" if os.environ["AURORA_FAULTS_NET"] == "1" else " AURORA_FAULTS_NET=0")


def build_shim(o):
    """The library that makes disks bad; None where it cannot be built."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "disk_shim.c")
    library = os.path.join(o.work, "disk_shim.so")
    try:
        run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"])
        return library
    except (Trouble, OSError) as e:
        print("disks stay good: %s" % e)
        return None


def main():
    o = parse_options()
    if "AURORA_FAULTS_NET" not in os.environ:
        os.environ["AURORA_FAULTS_NET"] = "1" if Network.available() else "0"
        if os.environ["AURORA_FAULTS_NET"] == "1":
            os.execvp("unshare", Network.unshare() + [sys.executable] + sys.argv
                      + ["--seed=%d" % o.seed])
    os.makedirs(o.work)
    o.shim = build_shim(o)
    print("seed %d (repeat with --seed %d)%s" % (
        o.seed, o.seed, "" if os.environ["AURORA_FAULTS_NET"] == "1"
        else "; no network namespaces, so no partitions"), flush=True)
    campaigns, trouble, started = [], [], time.monotonic()
    for i, n in enumerate(o.nodes):
        count = o.faults * (i + 1) // len(o.nodes) - o.faults * i // len(o.nodes)
        try:
            campaigns.append(Campaign(o, n, o.seed + i))
            campaigns[-1].run(count)
        except Exception as e:          # also a mistake of our own ends with figures
            if not isinstance(e, (Trouble, Lost, ServerError)):
                traceback.print_exc(file=sys.stdout)
            bank = campaigns[-1].bank if len(campaigns) > i else None
            trouble.append("%s: %s: %s" % (
                bank.where if bank else "%d nodes" % n, type(e).__name__, e))
            print("TROUBLE: " + trouble[-1], flush=True)
    f = figures(campaigns, o.seed, time.monotonic() - started)
    f["violations"] += trouble
    if o.json:
        with open(o.json, "w") as out:
            json.dump(f, out, indent=1)
    for c in campaigns:
        for k in sorted(c.gaps):
            print("%d nodes, %-21s without writes: median %.2f s, worst %.2f s (%d)" % (
                len(c.nodes), k, statistics.median(c.gaps[k]), max(c.gaps[k]), len(c.gaps[k])))
    if f["violations"]:
        print("WRONG, the first of %d: %s" % (len(f["violations"]), f["violations"][0]))
        print("logs and state.json: " + o.work)
        print("again: " + again(o))
    else:
        shutil.rmtree(o.work)
    print("faults: %d (%s); commits told %d, lost or wrong %d; %d checks, %d reads; without writes "
          "after a single failure: median %s s, worst %s s; %d s; seed %d" % (
              f["faults"], ", ".join("%s %d" % kv for kv in f["by_kind"].items()),
              f["commits_told"], len(f["violations"]), f["checks"], f["reads"],
              f["gap_median_s"], f["gap_worst_s"], f["seconds"], o.seed))
    sys.exit(1 if f["violations"] else 0)


if __name__ == "__main__":
    main()
