# SPDX-License-Identifier: Apache-2.0
"""
A client of PostgreSQL's protocol 3.0, simple queries only, over a Unix-domain
socket.  There is one because the checker must know to the byte what a client was
told: whether an answer to COMMIT has arrived, and which.
"""

import socket
import struct


class ServerError(Exception):
    """An ERROR; the connection lives on.  FATAL and a broken connection are Lost."""

    def __init__(self, fields):
        super().__init__("%s %s" % (fields.get("C", "?"), fields.get("M", "?")))
        self.sqlstate = fields.get("C", "")


class Lost(Exception):
    """The connection is gone; what was asked last may have happened or not."""


class Connection:
    """timeout: seconds without a byte after which the connection counts as lost."""

    def __init__(self, path, user="postgres", database="postgres", name="bank", timeout=120):
        self.notices = []
        self.socket = socket.socket(socket.AF_UNIX)
        self.buffer = b""
        try:
            self.socket.settimeout(timeout)
            self.socket.connect(path)
            words = ["user", user, "database", database, "application_name", name]
            body = struct.pack("!i", 196608) + b"".join(w.encode() + b"\0" for w in words) + b"\0"
            self.socket.sendall(struct.pack("!i", len(body) + 4) + body)
            self.answer()
        except (OSError, ServerError, Lost) as e:
            self.close()
            raise Lost(str(e)) from e

    def close(self):
        self.socket.close()

    def need(self, n):
        while len(self.buffer) < n:
            piece = self.socket.recv(65536)
            if not piece:
                raise Lost("the server closed the connection")
            self.buffer += piece
        got, self.buffer = self.buffer[:n], self.buffer[n:]
        return got

    def message(self):
        kind, length = struct.unpack("!ci", self.need(5))
        return kind, self.need(length - 4)

    @staticmethod
    def fields(body):
        return {f[:1].decode(): f[1:].decode(errors="replace")
                for f in body.split(b"\0") if f}

    @staticmethod
    def row(body):
        out, at = [], 2
        for _ in range(struct.unpack_from("!h", body)[0]):
            length = struct.unpack_from("!i", body, at)[0]
            at += 4
            if length < 0:
                out.append(None)
            else:
                out.append(body[at:at + length].decode())
                at += length
        return out

    def answer(self):
        """(rows, command tags) until the server is ready again."""
        rows, tags, error = [], [], None
        while True:
            kind, body = self.message()
            if kind == b"Z":
                break
            if kind == b"D":
                rows.append(self.row(body))
            elif kind == b"C":
                tags.append(body[:-1].decode())
            elif kind == b"N":
                self.notices.append(self.fields(body).get("M", ""))
            elif kind == b"E":
                fields = self.fields(body)
                if fields.get("V", fields.get("S")) != "ERROR":
                    raise Lost(fields.get("M", "?"))
                error = error or ServerError(fields)
            elif kind == b"R" and struct.unpack_from("!i", body)[0] != 0:
                raise Lost("the server wants a password")
        if error:
            raise error
        return rows, tags

    def query(self, text):
        try:
            body = text.encode() + b"\0"
            self.socket.sendall(b"Q" + struct.pack("!i", len(body) + 4) + body)
            return self.answer()
        except OSError as e:
            raise Lost(str(e)) from e

    def rows(self, text):
        return self.query(text)[0]

    def value(self, text):
        rows = self.rows(text)
        return rows[0][0] if rows else None
