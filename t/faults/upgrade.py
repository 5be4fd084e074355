#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
A rolling upgrade between two builds under load: three storage nodes and a server
of the old one, clients that remember what they were told (bank.py).  Node after node
is stopped and started with the new build; in each mixture a node is also killed
with -9.  Then the server's library, then ALTER EXTENSION, then the nodes once more.

    upgrade.py --old BINDIR --new BINDIR --work DIR

Each BINDIR is of a PostgreSQL of its own with that build installed (a relocated copy
will do).  Exit status 0: nothing was lost, no client was told an error, no
connection broke but when the server was restarted.  PostgreSQL does not run as root.
"""

import argparse
import os
import shutil
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from campaign import Campaign  # noqa: E402
from cluster import Trouble  # noqa: E402
from pgwire import Lost, ServerError  # noqa: E402

NODES = 3


class Upgrade(Campaign):
    def say(self, text):
        print("%7.1f s  %s" % (time.monotonic() - self.began, text), flush=True)

    def compare(self, what):
        """Everything, with the load paused; nobody may have been told an error."""
        self.bank.where = what
        if not self.bank.pause():
            self.bank.violation("clients are stuck")
        unknown = self.bank.check()
        if unknown:
            self.bank.violation("%d connections broke in mid-commit" % unknown)
        self.no_errors()
        self.compare_nodes()
        self.bank.resume()

    def no_errors(self):
        # (The reader gives way to a vacuum that cuts off the end of its table.)
        told = {k: n for k, n in self.bank.errors.items() if "lock timeout" not in k}
        if told:
            self.bank.violation("clients were told %s" % told)

    def step(self, what, function, deep=True):
        """Something that no client may notice but by waiting."""
        self.bank.where = what
        began = time.monotonic()
        function()
        resumed = self.bank.wait_progress(60)
        if resumed is None:
            raise Trouble("no writes after: " + what)
        self.wait_caught_up(60)
        if self.bank.violations:
            raise Trouble("it ends here")
        gap = self.bank.gap(began, time.monotonic())
        if deep:
            self.compare(what)
        self.say("%s: %.2f s without writes, %d commits so far" % (
            what, gap, len(self.bank.commit_times)))

    def exchange(self, node, bindir):
        if node.process.poll() is None and not node.stop():
            self.bank.violation("node %d did not stop cleanly, see %s" % (node.number, node.log))
        node.argv[0] = os.path.join(bindir, "aurora_storaged")
        node.start()
        node.wait_listening()

    @staticmethod
    def kill(node):
        node.kill()
        time.sleep(1)
        node.start()
        node.wait_listening()

    def exchange_server(self, bindir):
        """With the load paused: its restart is not what is looked at."""
        if not self.bank.pause():
            self.bank.violation("clients are stuck before the server stops")
        self.no_errors()
        if self.server.process.poll() is None and not self.server.stop():
            self.bank.violation("the server did not stop cleanly, see " + self.server.log)
        self.server.bindir = bindir
        self.server.start()
        c = self.bank.connect()
        c.query("ALTER EXTENSION aurora UPDATE")
        c.close()
        self.bank.errors.clear()    # that the server stops was told
        self.bank.resume()

    def at_once(self):
        """For builds that do not understand each other."""
        if not self.bank.pause() or not self.server.stop() or not all([n.stop() for n in self.nodes]):
            raise Trouble("the old ones did not stop cleanly, see the logs in " + self.work)
        for node in self.nodes:
            self.exchange(node, self.o.new)
        self.exchange_server(self.o.new)

    def course(self):
        old, new = self.o.old, self.o.new
        self.say("all old, %d commits" % len(self.bank.commit_times))
        if self.o.at_once:
            self.step("all are new", self.at_once)
            return
        for i, node in enumerate(self.nodes):
            self.step("node %d is new" % node.number, lambda: self.exchange(node, new))
            other = self.nodes[(i + 1) % NODES]
            self.step("... node %d is killed" % other.number, lambda: self.kill(other), deep=False)
        if self.o.back:
            for node in reversed(self.nodes):
                self.step("node %d is old again" % node.number, lambda: self.exchange(node, old))
            for node in self.nodes:
                self.step("node %d is new again" % node.number, lambda: self.exchange(node, new))
        self.step("the server is new", lambda: self.exchange_server(new))
        for node in self.nodes:
            self.step("node %d is restarted" % node.number, lambda: self.exchange(node, new), deep=False)

    def run(self, count=None):
        self.began = time.monotonic()
        try:
            self.start()
            self.course()
            self.finish()
        finally:
            if self.bank:
                self.bank.over = True
                self.keep_state()
            for p in [n.process for n in self.started] + [self.server and self.server.process]:
                if p and p.poll() is None:
                    p.kill()
                    p.wait()
            self.network.close()


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--old", required=True, help="directory of programs of the old build")
    p.add_argument("--new", required=True, help="... and of the new one")
    p.add_argument("--work", required=True, help="directory to be made; removed if all is well")
    p.add_argument("--listed", action="store_true", help="nodes of a list, no cluster")
    p.add_argument("--back", action="store_true", help="also back and forth once more")
    p.add_argument("--at-once", action="store_true", help="all are stopped, then all started new")
    p.add_argument("--clients", type=int, default=4)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--port", type=int, default=17100, help="first of eight ports of 127.0.0.1")
    o = p.parse_args()
    os.environ["AURORA_FAULTS_NET"] = "0"
    o.bindir, o.shim, o.form, o.hold = o.old, None, [] if o.listed else [NODES], [1, 1]
    os.makedirs(o.work)
    u = Upgrade(o, NODES, o.seed)
    wrong = []
    try:
        u.run()
    except (Trouble, Lost, ServerError) as e:
        wrong.append("%s: %s: %s" % (u.bank.where if u.bank else "at the start", type(e).__name__, e))
    wrong = (u.bank.violations if u.bank else []) + wrong
    for w in wrong:
        print("WRONG: " + w)
    if wrong:
        print("logs and state.json: " + o.work)
    else:
        shutil.rmtree(o.work)
    print("upgrade: %d commits told, %d checks, %s" % (
        len(u.bank.commit_times) if u.bank else 0, u.bank.checks if u.bank else 0,
        "%d WRONG" % len(wrong) if wrong else "nothing lost, no errors told"))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
