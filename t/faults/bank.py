# SPDX-License-Identifier: Apache-2.0
"""
The load and its checker.  Clients move money between accounts; each transfer
has a name (client, number) and leaves a line in two ledgers, one on aurora's
storage and one of heap.  For each transfer the client remembers what it was told:

    COMMITTED   COMMIT was answered with COMMIT: it must be there for ever
    FAILED      an error, or the connection broke before COMMIT was sent: it must not be there
    UNKNOWN     the connection broke after COMMIT was sent: it may be there or not,
                and the first answer to that must stay the answer

Checked with the load paused (nobody else's transaction in the server): both
ledgers hold exactly what they must, each account has what the ledger says, the sum
is what it was at the start.  Meanwhile a reader looks at the sum, and at transfers
that are known to be committed, at any time.
"""

import random
import threading
import time

from pgwire import Connection, Lost, ServerError

ACCOUNTS = 3000
INITIAL = 1000
FAILED, COMMITTED, UNKNOWN = 0, 1, 2

SCHEMA = """
CREATE EXTENSION aurora; CREATE EXTENSION amcheck;
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL, filler text) USING aurora;
CREATE TABLE ledger (client int, n int, src int, dst int, amount int,
  PRIMARY KEY (client, n)) USING aurora;
CREATE TABLE ledger_heap (client int, n int, amount int) USING heap;
INSERT INTO account SELECT g, %d, repeat(md5(g::text), 20) FROM generate_series(1, %d) g;
""" % (INITIAL, ACCOUNTS)

BY_CLIENT = ("SELECT client, count(*), sum(n::bigint), sum(n::numeric * n) %% 1000000007, "
             "sum(amount) FROM %s GROUP BY 1")
WRONG_BALANCES = """
SELECT count(*) FROM account a LEFT JOIN
 (SELECT id, sum(d) AS d FROM (SELECT src AS id, -amount AS d FROM ledger
   UNION ALL SELECT dst, amount FROM ledger) x GROUP BY 1) l USING (id)
 WHERE a.balance <> %d + coalesce(l.d, 0)""" % INITIAL


class Client(threading.Thread):
    def __init__(self, bank, number, seed):
        super().__init__(daemon=True, name="client %d" % number)
        self.bank = bank
        self.number = number
        self.random = random.Random(seed)
        self.told = []              # of each transfer
        self.amount = []
        self.turn = threading.Lock()    # held from a look at bank.paused to the transfer's end
        self.connection = None

    def run(self):
        while not self.bank.over:
            with self.turn:
                pause = 0.01 if self.bank.paused else self.step()
            time.sleep(pause)
        self.drop()

    def step(self):
        """A transfer.  Returns for how long to wait before the next."""
        try:
            if self.connection is None:
                self.connection = Connection(self.bank.socket)
            self.transfer()
            return 0
        except Lost:
            self.drop()
            return 0.05

    def drop(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def transfer(self):
        n = len(self.told)
        a, b = self.random.sample(range(1, ACCOUNTS + 1), 2)
        amount = self.random.randint(1, 99)
        self.told.append(FAILED)
        self.amount.append(amount)
        steps = ["UPDATE account SET balance = balance - %d WHERE id = %d" % (amount, a),
                 "UPDATE account SET balance = balance + %d WHERE id = %d" % (amount, b)]
        if a > b:
            steps.reverse()         # always in one order: no deadlocks
        steps += ["INSERT INTO ledger VALUES (%d, %d, %d, %d, %d)" % (
                      self.number, n, a, b, amount),
                  "INSERT INTO ledger_heap VALUES (%d, %d, %d)" % (self.number, n, amount)]
        try:
            self.connection.query("BEGIN; " + "; ".join(steps))
            if self.random.random() < 0.01:
                self.connection.query("ROLLBACK")
                return
            self.told[n] = UNKNOWN
            tags = self.connection.query("COMMIT")[1]
            self.told[n] = COMMITTED if tags == ["COMMIT"] else FAILED
            if tags == ["COMMIT"]:
                self.bank.committed(self)
        except ServerError as e:
            # An error before the commit; one at COMMIT also undoes it all.
            self.told[n] = FAILED
            self.bank.note_error(str(e))
            self.connection.query("ROLLBACK")


class Bank:
    def __init__(self, socket_path, clients, seed):
        self.socket = socket_path
        self.over = False
        self.paused = True
        self.commit_times = []      # monotonic, of all clients
        self.errors = {}
        self.violations = []
        self.where = "at the start"     # which fault it is: the campaign says so
        self.reads = 0
        self.checks = 0
        self.clients = [Client(self, i, seed * 1000 + i) for i in range(1, clients + 1)]
        self.reader = threading.Thread(target=self.read, daemon=True, name="reader")
        self.reader_random = random.Random(seed)

    def connect(self, name="checker", seconds=60):
        """Tries until the server takes connections."""
        limit = time.monotonic() + seconds
        while True:
            try:
                return Connection(self.socket, name=name)
            except Lost:
                if time.monotonic() > limit:
                    raise
                time.sleep(0.05)

    def set_up(self):
        c = self.connect()
        for part in SCHEMA.split(";"):
            if part.strip():
                c.query(part)
        c.close()

    def start(self):
        self.paused = False
        for t in self.clients + [self.reader]:
            t.start()

    def stop(self):
        self.over = True
        for t in self.clients + [self.reader]:
            t.join(130)

    def committed(self, client):
        self.commit_times.append(time.monotonic())

    def note_error(self, text):
        self.errors[text[:60]] = self.errors.get(text[:60], 0) + 1

    def violation(self, text):
        self.violations.append("%s: %s" % (self.where, text))
        print("VIOLATION: " + self.violations[-1], flush=True)

    def counts(self):
        told = [t for c in self.clients for t in c.told]
        return {"committed": told.count(COMMITTED), "failed": told.count(FAILED),
                "unknown": told.count(UNKNOWN)}

    def gap(self, start, end):
        """Longest time without a commit from start to end."""
        times = [t for t in self.commit_times[-200000:] if start <= t <= end]
        edges = [start] + sorted(times) + [end]
        return max(b - a for a, b in zip(edges, edges[1:]))

    def wait_progress(self, seconds):
        """Has anybody committed within so many seconds from now?"""
        start = time.monotonic()
        while not (self.commit_times and self.commit_times[-1] > start):
            if time.monotonic() - start > seconds:
                return None
            time.sleep(0.01)
        return self.commit_times[-1] - start

    # ---- the reader ------------------------------------------------------

    def read(self):
        c = None
        while not self.over:
            try:
                if c is None:
                    c = Connection(self.socket, name="reader")
                    c.query("SET statement_timeout = '20s'; SET lock_timeout = '200ms'")
                self.read_once(c)
            except ServerError as e:
                self.note_error("reader: " + str(e))
            except Lost:
                if c:
                    c.close()
                c = None
            time.sleep(0.1)

    def read_once(self, c):
        total = c.value("SELECT sum(balance) FROM account")
        if total != str(ACCOUNTS * INITIAL):
            self.violation("the sum of all accounts was read as %s" % total)
        client = self.reader_random.choice(self.clients)
        known = len(client.told) - 1
        if known > 0:
            n = self.reader_random.randrange(known)
            if client.told[n] == COMMITTED:
                got = c.value("SELECT amount FROM ledger WHERE client = %d AND n = %d"
                              % (client.number, n))
                if got != str(client.amount[n]):
                    self.violation("transfer %d of client %d, told committed, was read as %s"
                                   % (n, client.number, got))
        self.reads += 1

    # ---- the checks --------------------------------------------------------

    def pause(self, seconds=120):
        """All clients between two transfers."""
        self.paused = True
        limit = time.monotonic() + seconds
        for c in self.clients:
            if not c.turn.acquire(timeout=max(0.1, limit - time.monotonic())):
                return False
            c.turn.release()        # whoever takes its turn from now on sees the pause
        return True

    def resume(self):
        self.paused = False

    def nobody_left(self, c):
        """Backends of broken connections have ended."""
        limit = time.monotonic() + 60
        while c.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bank' "
                      "AND state <> 'idle'") != "0":
            if time.monotonic() > limit:
                self.violation("a backend of a broken connection does not end")
                return
            time.sleep(0.05)

    def resolve(self, c):
        """What became of the unknown ones: from now on that is how it is."""
        for client in self.clients:
            unknown = [n for n, t in enumerate(client.told) if t == UNKNOWN]
            for i in range(0, len(unknown), 500):
                part = unknown[i:i + 500]
                there = {int(r[0]) for r in c.rows(
                    "SELECT n FROM ledger WHERE client = %d AND n IN (%s)"
                    % (client.number, ",".join(map(str, part))))}
                for n in part:
                    client.told[n] = COMMITTED if n in there else FAILED

    def compare(self, c, table):
        got = {int(r[0]): tuple(int(x) for x in r[1:]) for r in c.rows(BY_CLIENT % table)}
        for client in self.clients:
            there = [n for n, t in enumerate(client.told) if t == COMMITTED]
            want = (len(there), sum(there), sum(n * n for n in there) % 1000000007,
                    sum(client.amount[n] for n in there))
            have = got.get(client.number, (0, 0, 0, 0))
            if want != have:
                self.explain(c, table, client, set(there))

    def explain(self, c, table, client, there):
        have = {int(r[0]) for r in c.rows("SELECT n FROM %s WHERE client = %d"
                                          % (table, client.number))}
        lost, extra = sorted(there - have), sorted(have - there)
        self.violation("%s, client %d: lost %d %s, not to be there %d %s" % (
            table, client.number, len(lost), lost[:10], len(extra), extra[:10]))

    def check(self, balances=True):
        """With the load paused.  Returns the number of violations so far."""
        c = self.connect()
        self.nobody_left(c)
        unresolved = self.counts()["unknown"]
        self.resolve(c)
        for table in ("ledger", "ledger_heap"):
            self.compare(c, table)
        total = c.value("SELECT sum(balance) FROM account")
        if total != str(ACCOUNTS * INITIAL):
            self.violation("the sum of all accounts is %s" % total)
        if balances:
            wrong = c.value(WRONG_BALANCES)
            if wrong != "0":
                self.violation("%s accounts do not have what the ledger says" % wrong)
        c.close()
        self.checks += 1
        return unresolved
