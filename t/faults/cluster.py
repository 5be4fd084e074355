# SPDX-License-Identifier: Apache-2.0
"""
Storage nodes and a server as child processes, each in a network namespace of
its own where the kernel lets us:

      server ──veth──┐
      node 1 ──veth──┤ the campaign's own namespace: a router
      node 2 ──veth──┤ 10.77.i.1 here, 10.77.i.2 there
      node 3 ──veth──┘

A packet from a to b is dropped by a routing rule "from a to b blackhole" of the
router, so a cut may be one-way, and nobody is told.  All of it is gone when the
campaign's process is.  Without namespaces all listen on ports of 127.0.0.1 and
nothing can be cut.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import time

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)
SERVER = 0                      # the server's number in the network; nodes from 1


class Trouble(Exception):
    """The campaign cannot go on."""


def outcome(argv):
    """(exit status, output)"""
    try:
        r = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, errors="replace", timeout=120)
        return r.returncode, r.stdout
    except subprocess.TimeoutExpired as e:
        return 124, "not through within 120 s: %r" % (e.stdout or b"")[-200:]


def run(argv):
    rc, text = outcome(argv)
    if rc != 0:
        raise Trouble("%s failed (%d): %s" % (" ".join(argv), rc, text[-2000:]))
    return text


def ended_by_itself(node):
    with open(node.log, errors="replace") as f:
        last = f.read()[-500:].splitlines()[-1:]
    return "node %d ended by itself (%d); %s ends with: %s" % (
        node.number, node.process.returncode, node.log, "".join(last))


def die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def launch(argv, log, env=None):
    with open(log, "a") as f:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=f, stderr=f,
                                env={**os.environ, **(env or {})}, start_new_session=True,
                                preexec_fn=die_with_parent)


class Network:
    def __init__(self, n, base_port):
        self.namespaces = os.environ.get("AURORA_FAULTS_NET") == "1"
        self.base_port = base_port
        self.holder = {}
        self.cuts = set()
        if self.namespaces:
            run(["ip", "link", "set", "lo", "up"])
            with open("/proc/sys/net/ipv4/ip_forward", "w") as f:
                f.write("1")
            for i in range(n + 1):
                self.add(i)

    @staticmethod
    def available():
        """Can namespaces be had?  Also for an ordinary user."""
        test = ("ip link set lo up && echo 1 >/proc/sys/net/ipv4/ip_forward && "
                "ip link add v0 type veth peer name v1 && "
                "ip rule add from 10.77.1.2 to 10.77.2.2 blackhole && "
                "unshare -n true")
        return subprocess.run(
            Network.unshare() + ["sh", "-c", test],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL).returncode == 0

    @staticmethod
    def unshare():
        return ["unshare", "--user", "--map-current-user", "--keep-caps", "--net"]

    def add(self, i):
        p = subprocess.Popen(["unshare", "-n", "sleep", "infinity"],
                             stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)
        ours = os.readlink("/proc/self/ns/net")
        limit = time.monotonic() + 10
        while os.readlink("/proc/%d/ns/net" % p.pid) == ours:
            if time.monotonic() > limit:
                raise Trouble("no network namespace")
            time.sleep(0.01)
        self.holder[i] = p
        run(["ip", "link", "add", "v%d" % i, "type", "veth", "peer", "name", "e0",
             "netns", str(p.pid)])
        run(["ip", "addr", "add", "10.77.%d.1/24" % i, "dev", "v%d" % i])
        run(["ip", "link", "set", "v%d" % i, "up"])
        run(self.inside(i) + ["sh", "-c",
            "ip link set lo up; ip addr add 10.77.%d.2/24 dev e0; ip link set e0 up; "
            "ip route add default via 10.77.%d.1" % (i, i)])

    def close(self):
        """At once: the kernel takes its time to remove an interface with its namespace."""
        for p in self.holder.values():
            p.kill()
            p.wait()
        for i in self.holder:
            outcome(["ip", "link", "del", "v%d" % i])
        while self.cuts:
            self.heal(*next(iter(self.cuts)))

    def inside(self, i):
        return ["nsenter", "-t", str(self.holder[i].pid), "-n"] if self.namespaces else []

    def ip(self, i):
        return "10.77.%d.2" % i if self.namespaces else "127.0.0.1"

    def port(self, i):
        # The port after it is for the cluster's consensus.
        return 7015 if self.namespaces else self.base_port + 2 * i

    def address(self, i):
        return "%s:%d" % (self.ip(i), self.port(i))

    def rule(self, verb, a, b):
        run(["ip", "rule", verb, "from", self.ip(a), "to", self.ip(b), "blackhole"])

    def cut(self, a, b):
        """Nothing that a sends gets to b any more."""
        if (a, b) not in self.cuts:
            self.rule("add", a, b)
            self.cuts.add((a, b))

    def heal(self, a, b):
        if (a, b) in self.cuts:
            self.rule("del", a, b)
            self.cuts.remove((a, b))


class Node:
    """A storage node; number from 1."""

    def __init__(self, number, work, bindir, network, shim, options=()):
        self.number = number
        self.dir = os.path.join(work, "node%d" % number)
        self.log = os.path.join(work, "node%d.log" % number)
        self.http = os.path.join(work, "h%d" % number)
        self.control = os.path.join(work, "disk%d" % number)
        self.network = network
        self.address = network.address(number)
        self.argv = [os.path.join(bindir, "aurora_storaged"), "--dir", self.dir,
                     "--listen", self.address, "--http-socket", self.http, *options]
        self.env = {"LD_PRELOAD": shim, "AURORA_DISK_SHIM": self.control} if shim else {}
        self.process = None

    def start(self):
        self.process = launch(self.network.inside(self.number) + self.argv, self.log, self.env)

    def wait_listening(self, seconds=60):
        """Until it answers on its HTTP socket."""
        limit = time.monotonic() + seconds
        while True:
            s = socket.socket(socket.AF_UNIX)
            try:
                s.connect(self.http)
                return
            except OSError:
                pass
            finally:
                s.close()
            if self.process.poll() is not None:
                raise Trouble(ended_by_itself(self))
            if time.monotonic() > limit:
                raise Trouble("node %d does not listen" % self.number)
            time.sleep(0.02)

    def status(self):
        """Its GET /status; None: no answer."""
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(5)
                s.connect(self.http)
                s.sendall(b"GET /status HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: s.recv(65536), b""))
            return json.loads(answer.partition(b"\r\n\r\n")[2])
        except (OSError, ValueError):
            return None

    def signal(self, sig):
        self.process.send_signal(sig)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return self.process.returncode == 0

    def disk(self, text):
        """What disk_shim.c shall do; "": an ordinary disk."""
        with open(self.control + ".new", "w") as f:
            f.write(text)
        os.replace(self.control + ".new", self.control)


CONF = """
shared_preload_libraries = 'aurora'
listen_addresses = ''
unix_socket_directories = '%(sockets)s'
max_connections = 40
shared_buffers = 4MB
checkpoint_timeout = 30s
max_wal_size = 256MB
wal_log_hints = off
autovacuum_naptime = 5s
log_min_messages = warning
aurora.storage_nodes = '%(nodes)s'
synchronous_standby_names = 'aurora'
"""


class Server:
    def __init__(self, work, bindir, network, nodes):
        self.data = os.path.join(work, "data")
        self.log = os.path.join(work, "server.log")
        self.socket = os.path.join(work, ".s.PGSQL.5432")
        self.bindir = bindir
        self.network = network
        self.process = None
        run([os.path.join(bindir, "initdb"), "-D", self.data, "-A", "trust", "-U", "postgres",
             "-E", "UTF8", "--no-locale", "-N"])
        with open(os.path.join(self.data, "postgresql.conf"), "a") as f:
            f.write(CONF % {"sockets": work, "nodes": ",".join(n.address for n in nodes)})

    def start(self):
        self.process = launch(self.network.inside(SERVER) + [
            os.path.join(self.bindir, "postgres"), "-D", self.data], self.log)

    def left(self):
        """Processes of an earlier postmaster that still work in the directory."""
        real = os.path.realpath(self.data)
        found = []
        for p in os.listdir("/proc"):
            if p.isdigit() and int(p) != (self.process.pid if self.process else 0):
                try:
                    if os.readlink("/proc/%s/cwd" % p) == real:
                        found.append(int(p))
                except OSError:
                    pass
        return found

    def kill(self):
        """kill -9 of the postmaster; its children notice by themselves."""
        self.process.kill()
        self.process.wait()
        limit = time.monotonic() + 60
        while self.left():
            if time.monotonic() > limit:
                raise Trouble("processes of the killed server are left: %s" % self.left())
            time.sleep(0.02)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return self.process.returncode == 0
