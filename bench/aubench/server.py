# SPDX-License-Identifier: Apache-2.0
"""
A private PostgreSQL server, and a storage node of its own, as subprocesses.

Everything that is started is a child of this process and listed in `running`,
so that stop_all() leaves nothing behind, whatever went wrong.  The servers
listen on a Unix-domain socket in their directory; those with standbys and
storage nodes also on a port of 127.0.0.1 that the kernel chose.
"""

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

running = []
libc = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


class BenchError(Exception):
    """Something that was run failed; the text says what."""


def run(argv, timeout=3600, check=True, env=None):
    """A command's output (stdout and stderr)."""
    r = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, timeout=timeout,
                       env={**os.environ, **(env or {})})
    if check and r.returncode != 0:
        raise BenchError("%s failed (%d):\n%s" % (" ".join(argv)[:200], r.returncode,
                                                  r.stdout[-3000:]))
    return r.stdout


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def copy_tree(src, dst):
    """A copy of a directory whose owner has stopped."""
    if os.path.exists(dst):
        shutil.rmtree(dst)
    run(["cp", "-a", "--reflink=auto", src, dst])


def children_of(pid):
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
            return [int(x) for x in f.read().split()]
    except (OSError, ValueError):
        return []


def descendants(pid):
    found = []
    todo = [pid]
    while todo:
        for c in children_of(todo.pop()):
            found.append(c)
            todo.append(c)
    return found


def alive(pid):
    """Does the process exist, and is it more than a zombie?"""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(what, seconds, test, step=0.05):
    limit = time.monotonic() + seconds
    while not test():
        if time.monotonic() > limit:
            raise BenchError("%s: not within %g s" % (what, seconds))
        time.sleep(step)


def lsn(text):
    hi, lo = text.split("/")
    return (int(hi, 16) << 32) + int(lo, 16)


class Process:
    """A server process with its log, started directly (no pg_ctl between)."""

    def __init__(self, name, directory):
        self.name = name
        self.dir = directory
        self.log = os.path.join(directory, "log")
        self.proc = None
        self.procs_file = None      # of a control group to be started in
        os.makedirs(directory, exist_ok=True)

    def launch(self, argv, env=None):
        with open(self.log, "a") as log:
            self.proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                                         stdout=log, stderr=log,
                                         env={**os.environ, **(env or {})},
                                         start_new_session=True,
                                         preexec_fn=self.in_child)
        running.append(self)

    def in_child(self):
        # SIGQUIT is PostgreSQL's immediate shutdown.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)
        if self.procs_file:
            with open(self.procs_file, "w") as f:
                f.write("0")

    @property
    def pid(self):
        return self.proc.pid if self.proc else None

    def tail(self, n=1500):
        try:
            with open(self.log) as f:
                return f.read()[-n:]
        except OSError:
            return ""

    def must_live(self):
        if self.proc is None or self.proc.poll() is not None:
            raise BenchError("%s has ended:\n%s" % (self.name, self.tail()))

    def end(self, sig, seconds=120):
        """Signal, wait for it and for all its children to be gone."""
        if self.proc is None:
            return
        pids = [self.proc.pid] + descendants(self.proc.pid)
        try:
            self.proc.send_signal(sig)
            self.proc.wait(seconds)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
        limit = time.monotonic() + 10
        while any(alive(p) for p in pids[1:]):
            if time.monotonic() > limit:
                for p in pids[1:]:
                    if alive(p):
                        os.kill(p, signal.SIGKILL)
                limit += 10
            time.sleep(0.02)
        self.proc = None
        if self in running:
            running.remove(self)


def stop_all():
    for p in list(running):
        try:
            p.end(signal.SIGQUIT, 20)
        except (OSError, BenchError):
            pass


class Server(Process):
    """A PostgreSQL server; `conf` is a dict of settings that never change."""

    def __init__(self, name, directory, bindir, conf):
        super().__init__(name, directory)
        self.bindir = bindir
        self.conf = conf
        self.data = os.path.join(directory, "data")
        self.port = None

    def tool(self, name):
        return os.path.join(self.bindir, name)

    def initdb(self):
        run([self.tool("initdb"), "-D", self.data, "-A", "trust", "-U", "postgres",
             "-E", "UTF8", "--no-locale", "--data-checksums"])
        self.write_conf()

    def write_conf(self):
        path = os.path.join(self.data, "postgresql.conf")
        with open(path) as f:
            text = f.read().partition("\n# --- bench ---\n")[0]
        with open(path, "w") as f:
            f.write(text + "\n# --- bench ---\n")
            for k, v in self.conf.items():
                f.write("%s = '%s'\n" % (k, str(v).replace("'", "''")))
            f.write("unix_socket_directories = '%s'\n" % self.dir)
            if self.port is None:
                f.write("listen_addresses = ''\n")
            else:
                f.write("listen_addresses = '127.0.0.1'\nport = %d\n" % self.port)

    def start(self, settings=None, seconds=600):
        argv = [self.tool("postgres"), "-D", self.data]
        for k, v in (settings or {}).items():
            argv += ["-c", "%s=%s" % (k, v)]
        self.launch(argv)
        self.wait_ready(seconds)

    def wait_ready(self, seconds=600):
        def ready():
            self.must_live()
            return subprocess.run(
                [self.tool("pg_isready"), "-q", "-h", self.dir] + self.port_args(),
                stdin=subprocess.DEVNULL).returncode == 0
        wait_until("start of " + self.name, seconds, ready, 0.02)

    def port_args(self):
        return ["-p", str(self.port)] if self.port else []

    def connection(self):
        return ["-h", self.dir] + self.port_args() + ["-U", "postgres"]

    def stop(self, seconds=600):
        self.end(signal.SIGINT, seconds)

    def crash(self):
        """kill -9 of the postmaster and everything below it."""
        if self.proc is None:
            return
        pids = descendants(self.proc.pid)
        self.proc.kill()
        for p in pids:
            try:
                os.kill(p, signal.SIGKILL)
            except OSError:
                pass
        self.end(signal.SIGKILL, 60)
        try:
            os.unlink(os.path.join(self.data, "postmaster.pid"))
        except OSError:
            pass

    def sql(self, *commands, db="postgres", timeout=3600):
        argv = [self.tool("psql"), "-X", "-At", "-q", "-v", "ON_ERROR_STOP=1",
                *self.connection(), "-d", db]
        for c in commands:
            argv += ["-c", c]
        return run(argv, timeout).strip()

    def timed(self, *commands):
        """Seconds that psql reports for the last command, measured there."""
        argv = [self.tool("psql"), "-X", "-At", "-v", "ON_ERROR_STOP=1",
                *self.connection(), "-d", "postgres"]
        for c in commands[:-1]:
            argv += ["-c", c]
        argv += ["-c", "\\timing on", "-c", commands[-1]]
        times = re.findall(r"^Time: ([0-9.]+) ms", run(argv), re.M)
        if not times:
            raise BenchError("psql gave no time")
        return float(times[-1]) / 1000

    def settings(self):
        """What postgresql.conf and the command line set."""
        rows = self.sql("SELECT json_object_agg(name, setting || coalesce(unit, '')) "
                        "FROM pg_settings WHERE source IN "
                        "('configuration file', 'command line')")
        return json.loads(rows)


class Node(Process):
    """An aurora_storaged of its own."""

    def __init__(self, name, directory, bindir):
        super().__init__(name, directory)
        self.bindir = bindir
        self.store = os.path.join(directory, "store")
        self.socket = os.path.join(directory, "s")
        self.port = free_port()
        self.http = free_port()

    def start(self, options=()):
        self.launch([os.path.join(self.bindir, "aurora_storaged"), "--dir", self.store,
                     "--socket", self.socket,
                     "--listen", "127.0.0.1:%d" % self.port,
                     "--http", "127.0.0.1:%d" % self.http, *options])

        def listens():
            self.must_live()
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self.status() is not None
            except OSError:
                return False
        wait_until("start of " + self.name, 120, listens)

    def status(self):
        with urllib.request.urlopen("http://127.0.0.1:%d/status" % self.http,
                                    timeout=10) as f:
            return json.load(f)

    def stop(self, seconds=300):
        self.end(signal.SIGTERM, seconds)
