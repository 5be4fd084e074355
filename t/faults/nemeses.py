# SPDX-License-Identifier: Apache-2.0
"""
The faults.  Each is a function of the campaign that injects, holds and heals;
it returns a word on what it did to whom.  `single`: one node fails and the others
have a quorum, so writes must go on, and the time without any is measured.

Weights tell how often a kind is drawn; each kind is drawn once before the
drawing begins, so a short campaign sees many.

Killing a process loses nothing that it has given to the kernel.  What a power cut
takes, besides, is the simulator's business and that of the landing log's tests.
"""

import os
import shutil
import signal

NEMESES = {}


class Nemesis:
    def __init__(self, function, weight, single, needs, nodes, planted):
        self.name = function.__name__
        self.function = function
        self.weight = weight
        self.single = single
        self.needs = needs          # "": nothing; "net", "shim", "cluster"
        self.nodes = nodes          # for at least so many
        self.planted = planted      # must be found; only with --only


def nemesis(weight=10, single=True, needs="", nodes=3, planted=False):
    def add(function):
        NEMESES[function.__name__] = Nemesis(function, weight, single, needs, nodes, planted)
        return function
    return add


def names(nodes):
    return ", ".join("node %d" % n.number for n in nodes)


# ---- processes ------------------------------------------------------------------

@nemesis(weight=20)
def kill_node(c):
    n = c.some(1)[0]
    n.kill()
    c.hold()
    n.start()
    return names([n])


@nemesis()
def pause_node(c):
    n = c.some(1)[0]
    n.signal(signal.SIGSTOP)
    c.hold()
    n.signal(signal.SIGCONT)
    return names([n])


@nemesis(weight=5)
def restart_node(c):
    """As in a rolling restart: an orderly stop."""
    n = c.some(1)[0]
    if not n.stop():
        c.bank.violation("node %d did not stop cleanly, see %s" % (n.number, n.log))
    c.hold(0.3)
    n.start()
    return names([n])


@nemesis(nodes=5)
def kill_two_nodes(c):
    victims = c.some(2)
    for n in victims:
        n.kill()
    c.hold()
    for n in victims:
        n.start()
    return names(victims)


@nemesis(nodes=5)
def pause_one_kill_one(c):
    a, b = c.some(2)
    a.signal(signal.SIGSTOP)
    b.kill()
    c.hold()
    b.start()
    a.signal(signal.SIGCONT)
    return "pause %s, kill %s" % (names([a]), names([b]))


@nemesis(single=False)
def kill_quorum(c):
    """Writes wait until one of them is back."""
    victims = c.some(len(c.nodes) // 2 + 1)
    for n in victims:
        n.kill()
    c.hold(0.5)
    for n in victims:
        n.start()
    return names(victims)


@nemesis(single=False)
def kill_all_nodes(c):
    for n in c.nodes:
        n.kill()
    c.hold(0.3)
    for n in c.nodes:
        n.start()
    return "all"


@nemesis(single=False)
def kill_server(c):
    c.server.kill()
    c.server.start()
    return "postmaster"


@nemesis(single=False)
def kill_server_lose_node(c):
    """The new term is won without one node, which comes back later."""
    n = c.some(1)[0]
    n.kill()
    c.server.kill()
    c.server.start()
    c.hold()
    n.start()
    return "postmaster and " + names([n])


@nemesis(single=False)
def kill_everything(c):
    c.server.process.kill()
    for n in c.nodes:
        n.kill()
    c.server.kill()
    for n in c.nodes:
        n.start()
    c.server.start()
    return "postmaster and all nodes"


# ---- network -----------------------------------------------------------------------

def both_ways(c, a, others, verb):
    for b in others:
        getattr(c.network, verb)(a, b)
        getattr(c.network, verb)(b, a)


@nemesis(needs="net")
def isolate_node(c):
    n = c.some(1)[0]
    others = c.everybody_but(n)
    both_ways(c, n.number, others, "cut")
    c.hold()
    both_ways(c, n.number, others, "heal")
    return names([n])


@nemesis(needs="net")
def mute_node(c):
    """It hears, but nobody hears it."""
    n = c.some(1)[0]
    for b in c.everybody_but(n):
        c.network.cut(n.number, b)
    c.hold()
    for b in c.everybody_but(n):
        c.network.heal(n.number, b)
    return names([n])


@nemesis(needs="net")
def deafen_node(c):
    """It is heard, but hears nobody."""
    n = c.some(1)[0]
    for b in c.everybody_but(n):
        c.network.cut(b, n.number)
    c.hold()
    for b in c.everybody_but(n):
        c.network.heal(b, n.number)
    return names([n])


@nemesis(needs="net", weight=5)
def part_nodes(c):
    """The server reaches all, the nodes do not reach each other; one needs the others' log."""
    n = c.some(1)[0]
    n.kill()
    c.hold(0.5)
    numbers = [m.number for m in c.nodes]
    for a in numbers:
        both_ways(c, a, [b for b in numbers if b > a], "cut")
    n.start()
    c.hold()
    for a in numbers:
        both_ways(c, a, [b for b in numbers if b > a], "heal")
    return names([n])


@nemesis(needs="net", single=False, weight=5)
def isolate_server(c):
    both_ways(c, 0, [n.number for n in c.nodes], "cut")
    c.hold(0.5)
    both_ways(c, 0, [n.number for n in c.nodes], "heal")
    return "the server"


# ---- disks ---------------------------------------------------------------------------

@nemesis(needs="shim")
def slow_disk(c):
    n = c.some(1)[0]
    ms = c.random.choice([20, 100, 500])
    n.disk("slow %d" % (1000 * ms))
    c.hold()
    n.disk("")
    return "%s, %d ms a sync" % (names([n]), ms)


@nemesis(needs="shim")
def full_disk(c):
    n = c.some(1)[0]
    n.disk("full")
    c.hold()
    n.disk("")
    return names([n])


@nemesis(needs="shim", weight=5)
def full_disk_and_kill(c):
    n = c.some(1)[0]
    n.disk("full")
    c.hold(0.5)
    n.kill()
    n.disk("")
    n.start()
    return names([n])


@nemesis(needs="shim", weight=5)
def broken_disk(c):
    """Syncs fail; what came after the last good one may be gone. Restarted on a good disk."""
    n = c.some(1)[0]
    n.disk("broken")
    c.hold(0.5)
    n.kill()
    n.disk("")
    n.start()
    return names([n])


@nemesis(weight=8)
def damaged_file(c):
    """
    Bits flipped in a file of the page store.  Reads go on and are right, whoever
    has to give the page, and the node gets what it lost from the others.
    """
    n = c.some(1)[0]
    if not n.stop():                # not killed: what is in memory goes to files
        c.bank.violation("node %d did not stop cleanly, see %s" % (n.number, n.log))
    files = []
    for where, _, found in os.walk(n.dir):
        files += [os.path.join(where, f) for f in found
                  if f.endswith(".sst") and "volumes" in where]
    if not files:
        n.start()
        return "%s, which has no files yet" % names([n])
    path = c.random.choice(sorted(files))
    flip(c, path)
    n.start()
    n.wait_listening()
    c.hold()
    c.cold_reads()
    return "%s, %s: %s" % (names([n]), os.path.basename(path), c.wait_repaired(n))


def flip(c, path):
    """Some bits, at places that only the seed and the size determine."""
    size = os.path.getsize(path)
    with open(path, "r+b") as f:
        for _ in range(8):
            at = c.random.randrange(size)
            f.seek(at)
            byte = f.read(1)[0]
            f.seek(at)
            f.write(bytes([byte ^ 1 << c.random.randrange(8)]))


# ---- members -------------------------------------------------------------------------

@nemesis(needs="cluster", weight=4)
def join_and_drain(c):
    """A further node joins under load, gets its slices, and gives them away again."""
    n = c.further_node()
    c.wait_member(n, "active")
    c.hold(0.5)
    return "node %s of the cluster" % c.take_out(n)


@nemesis(needs="cluster", weight=4)
def replace_member(c):
    """A node, with its part in the log group if it has one, gives way to a new one."""
    old = c.some(1)[0]
    new = c.further_node()
    c.wait_member(new, "active")
    number = c.take_out(old)
    c.nodes[c.nodes.index(old)] = new
    return "%s of the cluster by %s" % (number, c.member(new)[0])


@nemesis(needs="cluster", weight=4)
def kill_while_joining(c):
    """One of the nodes that a new one copies from is killed meanwhile; then the new one is."""
    n = c.further_node()
    victim = c.some(1)[0]
    victim.kill()
    c.hold(0.5)
    n.kill()
    victim.start()
    n.start()
    n.wait_listening()
    c.wait_member(n, "active")
    return "%s, and node %s" % (names([victim]), c.take_out(n))


# ---- planted: does the checker find it? --------------------------------------------

@nemesis(planted=True)
def planted_loss(c):
    """A transfer that somebody was told is committed goes from both ledgers."""
    with_checker(c, "WITH gone AS (DELETE FROM ledger WHERE ctid = (SELECT ctid FROM ledger "
                    "LIMIT 1) RETURNING client, n) "
                    "DELETE FROM ledger_heap l USING gone g WHERE (l.client, l.n) = (g.client, g.n)")
    return "a transfer"


@nemesis(planted=True)
def planted_theft(c):
    """Money goes from one account to another, and no ledger tells."""
    with_checker(c, "UPDATE account SET balance = balance + CASE id WHEN 1 THEN -1 ELSE 1 END "
                    "WHERE id IN (1, 2)")
    return "an account"


def with_checker(c, statement):
    connection = c.bank.connect()
    connection.query(statement)
    connection.close()
