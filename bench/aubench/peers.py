# SPDX-License-Identifier: Apache-2.0
"""
The peers: what a user might run, each behind the same few methods.  PEERS, at
the end, is the list; a further peer is one more class and one more entry.

Only one peer runs at a time, so that checkpoints, compactions and vacuums of
the others meet nobody's measurement.
"""

import glob
import os
import shutil
import time

from .probe import Root, cpu_of, kind_of
from .server import Node, Server, descendants, free_port, run, wait_until

# Settings of all servers, standbys included; a session adds its own
# (shared_buffers, checkpoint_timeout).  What is not here is at its default:
# fsync, full_page_writes, synchronous_commit on; bgwriter; wal_buffers.
SETTINGS = {
    "max_connections": 50,
    "wal_level": "replica",
    "max_wal_senders": 8,
    "max_replication_slots": 8,
    "min_wal_size": "1GB",
    "max_wal_size": "8GB",          # checkpoints come by time
    "checkpoint_completion_target": 0.9,
    "maintenance_work_mem": "256MB",
    "max_parallel_workers_per_gather": 0,
    "max_parallel_maintenance_workers": 0,
    "jit": "off",
    "autovacuum": "off",            # the bench vacuums where it is due
    "hot_standby": "on",
    "log_min_messages": "warning",
}


def table_files(server):
    """
    Bytes of the files of all tables and their TOAST tables, all forks, as the
    file system has them (aurora's tables have local maps only, while PostgreSQL's
    size functions tell the size in pages wherever these are).
    """
    total = 0
    for path in server.sql(
            "SELECT pg_relation_filepath(oid) FROM pg_class "
            "WHERE relkind IN ('r', 't', 'm') AND oid >= 16384").split():
        path = os.path.join(server.data, path)
        for name in glob.glob(path + "*"):
            # The file itself, its further segments (.1), its maps (_fsm, _vm).
            if name == path or name[len(path)] in "._":
                total += os.stat(name).st_size
    return total


class Peer:
    """
    A stock server with heap tables; the others build on it.

    start(settings) and stop() may be called again and again; after start()
    everything that belongs to the peer works.
    """
    name = "heap"
    title = "stock heap, local"
    am = "heap"
    extra = {}

    def __init__(self, options, directory):
        self.options = options
        self.dir = directory
        os.makedirs(directory, exist_ok=True)
        conf = {**SETTINGS, "wal_compression": options.wal_compression, **self.extra}
        self.server = Server(self.name, os.path.join(directory, "p"), options.bindir, conf)

    def create(self):
        """Make the instance; afterwards it runs."""
        self.server.initdb()
        self.start({"checkpoint_timeout": "1h", "shared_buffers": "512MB"})

    def start(self, settings):
        self.server.start(settings)

    def stop(self):
        self.server.stop()

    def roots(self):
        return [Root(self.server.pid, "primary")]

    def ready(self, server):
        """Everything that belongs to the server (this peer's, or a copy) works."""

    def settle(self, server):
        """Background work that the last measurement caused is done."""
        server.sql("CHECKPOINT")

    def table_directories(self):
        """Directories that hold table data."""
        return [os.path.join(self.server.data, "base")]

    def disk(self, server):
        """Bytes on disk that hold the bench's tables, and of what."""
        tables = table_files(server)
        pages = int(server.sql(
            "SELECT coalesce(sum(pg_relation_size(oid)), 0) FROM pg_class "
            "WHERE relkind IN ('r', 't', 'm') AND oid >= 16384"))
        return {"table_bytes": tables, "page_bytes": pages}

    def destroy(self):
        shutil.rmtree(self.dir, ignore_errors=True)


class HeapAny2(Peer):
    """The durability that a user would build today out of stock parts."""
    name = "heap_any2"
    title = "stock heap, 3 synchronous standbys, ANY 2"

    def __init__(self, options, directory):
        super().__init__(options, directory)
        self.server.port = free_port()
        self.standbys = []

    def add_standbys(self):
        for i in (1, 2, 3):
            name = "s%d" % i
            s = Server("%s.%s" % (self.name, name), os.path.join(self.dir, name),
                       self.options.bindir, dict(self.server.conf))
            run([s.tool("pg_basebackup"), "-D", s.data, "-c", "fast", "-X", "stream",
                 "-C", "-S", name,
                 "-h", "127.0.0.1", "-p", str(self.server.port), "-U", "postgres"])
            s.conf["primary_conninfo"] = (
                "host=127.0.0.1 port=%d user=postgres application_name=%s"
                % (self.server.port, name))
            s.conf["primary_slot_name"] = name
            s.write_conf()
            open(os.path.join(s.data, "standby.signal"), "w").close()
            self.standbys.append(s)
        self.server.conf["synchronous_standby_names"] = "ANY 2 (s1, s2, s3)"
        self.server.write_conf()

    def start(self, settings):
        super().start(settings)
        for s in self.standbys:
            s.start(settings)
        if self.standbys:
            wait_until("standbys of " + self.name, 120, lambda: self.server.sql(
                "SELECT count(*) FROM pg_stat_replication "
                "WHERE state = 'streaming'") == "3")

    def stop(self):
        # The primary first: it waits until the standbys have everything.
        super().stop()
        for s in self.standbys:
            s.stop()

    def roots(self):
        return super().roots() + [Root(s.pid, "standby") for s in self.standbys]


class Aurora(Peer):
    """What aurora's peers have in common."""
    am = "aurora"
    nodes = ()                      # those that the server does not run itself
    extra = {"shared_preload_libraries": "aurora",
             "default_table_access_method": "aurora"}

    def create(self):
        super().create()
        self.server.sql("CREATE EXTENSION aurora")
        self.ready(self.server)

    def start(self, settings):
        super().start(settings)
        # Before the extension exists there is nothing to ask.
        if self.server.sql("SELECT count(*) FROM pg_extension WHERE extname = 'aurora'") == "1":
            self.ready(self.server)

    def ready(self, server):
        wait_until("shipping of " + server.name, 300, lambda: server.sql(
            "SELECT state FROM aurora.shipper") == "streaming")

    def daemons_cpu(self, server):
        """Seconds that storage daemons have worked."""
        pids = [p for p in descendants(server.pid) if kind_of(p) == "storaged"]
        return sum((cpu_of(p) or (0,))[0] for p in pids + [n.pid for n in self.nodes])

    def settle(self, server):
        """
        Storage has applied what there is, its files have stopped changing, and
        none are being merged: the daemons need less than a tenth of a processor.
        """
        server.sql("CHECKPOINT", "SELECT aurora.sync('10 minutes')")
        quiet = self.options.settle
        last, cpu, since, waited = None, 0.0, 0.0, 0.0
        while since < quiet and waited < 12 * quiet:
            now = server.sql("SELECT store_bytes FROM aurora.nodes ORDER BY 1")
            used = self.daemons_cpu(server)
            since = since + 0.5 if now == last and used < cpu + 0.05 else 0.0
            last, cpu = now, used
            waited += 0.5
            time.sleep(0.5)

    def disk(self, server):
        store, landing, pending = (int(x) for x in server.sql(
            "SELECT sum(store_bytes), sum(landing_bytes), sum(pending_bytes) "
            "FROM aurora.nodes").split("|"))
        local = table_files(server)
        pages = int(server.sql("SELECT coalesce(sum(size), 0) FROM aurora.tables "
                               "WHERE persistence = 'permanent'"))
        return {"table_bytes": store + local, "page_bytes": pages,
                "of_which_local_maps": local, "landing_log_bytes": landing,
                "pending_in_memory_bytes": pending}


class Embedded(Aurora):
    name = "embedded"
    title = "aurora, embedded storage"

    def store_dir(self):
        return os.path.join(self.server.data, "aurora")

    def table_directories(self):
        return super().table_directories() + [self.store_dir()]


class ExternalNode(Aurora):
    """Commits wait until the node (of several: a quorum) has made them durable."""
    name = "node"
    title = "aurora, one external node, synchronous"
    count = 1

    def __init__(self, options, directory):
        self.nodes = [Node("%s.storaged%d" % (self.name, i), os.path.join(directory, "n%d" % i),
                           options.bindir) for i in range(1, self.count + 1)]
        self.extra = {**Aurora.extra,
                      "aurora.storage_nodes":
                      ",".join("127.0.0.1:%d" % n.port for n in self.nodes)}
        super().__init__(options, directory)

    def create(self):
        super().create()
        self.server.conf["synchronous_standby_names"] = "aurora"
        self.server.write_conf()

    def start(self, settings):
        for n in self.nodes:
            n.start()
        super().start(settings)

    def ready(self, server):
        """A quorum is enough to go on, but all shall take part in what is measured."""
        super().ready(server)
        wait_until("all nodes of " + server.name, 300, lambda: server.sql(
            "SELECT count(*) FROM aurora.storage_nodes() WHERE shipping = 'stream'")
            == str(self.count))

    def stop(self):
        super().stop()
        for n in self.nodes:
            n.stop()

    def roots(self):
        return super().roots() + [Root(n.pid, "node") for n in self.nodes]

    def table_directories(self):
        return super().table_directories() + [n.store for n in self.nodes]


class Cluster3(ExternalNode):
    """The same durability as HeapAny2's: two more copies besides the local WAL."""
    name = "cluster3"
    title = "aurora, 3 storage nodes, write quorum 2"
    count = 3


PEERS = {p.name: p for p in (Peer, HeapAny2, Embedded, ExternalNode, Cluster3)}


def load(peer):
    """pgbench's tables and their indexes; ends with the peer stopped."""
    o = peer.options
    s = peer.server
    peer.create()
    run([s.tool("pgbench"), "-i", "-q", "-s", str(o.scale), "-I", "dtg", *s.connection(),
         "postgres"])
    s.sql("VACUUM (ANALYZE, FREEZE) pgbench_branches, pgbench_tellers, pgbench_accounts",
          "VACUUM ANALYZE pgbench_history")
    run([s.tool("pgbench"), "-i", "-q", "-s", str(o.scale), "-I", "p", *s.connection(),
         "postgres"])
    s.sql("CREATE EXTENSION pg_prewarm", "CREATE EXTENSION pg_walinspect")
    if isinstance(peer, HeapAny2):
        peer.add_standbys()
    peer.settle(s)
    peer.stop()

