# SPDX-License-Identifier: Apache-2.0
"""A small HTTP/1.1 client on a raw socket: keep-alive, pipelining, and the truth about what became of a request.

What became of a request is one of three things:

* `ok`: it was done, and the answer says so;
* `no`: it was certainly not done;
* `unknown`: it may have been done, or may be done yet.

A node says which of the last two in `X-KV-Outcome`. An error answer without that header came from HAProxy: its 503
means that the request was sent to no node, its 502 and 504 that it may have been; a closed connection says nothing.
"""

import re
import select
import socket
import time
from urllib.parse import quote_from_bytes

OK, NO, UNKNOWN = "ok", "no", "unknown"

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_ENTITY_TAG = re.compile(rb'\r\netag:[ \t]*"([^"\r]*)"', re.IGNORECASE)
_OUTCOME = re.compile(rb"\r\nx-kv-outcome:[ \t]*([a-z-]+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)


class ConnectionLost(OSError):
    """The connection ended, or stayed silent too long, before the answer was whole."""


class MalformedAnswer(Exception):
    """Bytes that are no HTTP/1.1 answer."""


class Answer:
    """One answer. `head` is everything before the body, without the empty line."""

    __slots__ = ("status", "head", "body")

    def __init__(self, status, head, body):
        self.status = status
        self.head = head
        self.body = body

    def header(self, name):
        """The value of a header as text, or None."""
        match = re.search(rb"\r\n" + re.escape(name.encode()) + rb":[ \t]*([^\r]*)", self.head, re.IGNORECASE)
        return match.group(1).decode("latin-1").strip() if match else None

    @property
    def version(self):
        """The version in the ETag, or None."""
        match = _ENTITY_TAG.search(self.head)
        return match.group(1).decode() if match else None

    @property
    def closes(self):
        return _CLOSE.search(self.head) is not None

    @property
    def outcome(self):
        """What became of the request, by status and header alone."""
        if self.status < 400:
            return OK
        match = _OUTCOME.search(self.head)
        if match:
            return {b"not-applied": NO, b"unknown": UNKNOWN}.get(match.group(1).lower(), UNKNOWN)
        return UNKNOWN if self.status in (500, 502, 504) else NO

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def __repr__(self):
        return f"<{self.status} {self.body[:200]!r}>"


class AnswerReader:
    """Cuts a stream of bytes into answers."""

    def __init__(self):
        self._buffer = b""
        self._position = 0

    @property
    def has_unread_bytes(self):
        return self._position < len(self._buffer)

    def feed(self, data):
        self._buffer = self._buffer[self._position:] + data
        self._position = 0

    def next_answer(self, is_head=False):
        """The next whole answer, or None when bytes are missing. `is_head`: it is one to HEAD, and has no body."""
        buffer, start = self._buffer, self._position
        end = buffer.find(b"\r\n\r\n", start)
        if end < 0:
            if len(buffer) - start > 65536:
                raise MalformedAnswer("no end of the headers in 64 KiB")
            return None
        head = buffer[start:end]
        if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
            raise MalformedAnswer(f"not a status line: {head[:80]!r}")
        status = int(head[9:12])
        body_start = end + 4
        length = _CONTENT_LENGTH.search(head)
        if is_head and status >= 200:
            body, body_end = b"", body_start
        elif length:
            body_end = body_start + int(length.group(1))
            if body_end > len(buffer):
                return None
            body = buffer[body_start:body_end]
        elif _CHUNKED.search(head):
            decoded = _decode_chunks(buffer, body_start)
            if decoded is None:
                return None
            body, body_end = decoded
        else:
            body, body_end = b"", body_start
        self._position = body_end
        if 100 <= status < 200:
            return self.next_answer(is_head)
        return Answer(status, head, body)


def _decode_chunks(buffer, position):
    """The body that starts there and where it ends, or None when it isn't all there."""
    pieces = []
    while True:
        line_end = buffer.find(b"\r\n", position)
        if line_end < 0:
            return None
        size = int(buffer[position:line_end].split(b";")[0], 16)
        data_start = line_end + 2
        if size == 0:
            end = buffer.find(b"\r\n", data_start)
            return (b"".join(pieces), end + 2) if end >= 0 else None
        if data_start + size + 2 > len(buffer):
            return None
        pieces.append(buffer[data_start:data_start + size])
        position = data_start + size + 2


def as_bytes(text_or_bytes):
    return text_or_bytes.encode() if isinstance(text_or_bytes, str) else bytes(text_or_bytes)


def percent_encode(text_or_bytes):
    return quote_from_bytes(as_bytes(text_or_bytes), safe="").encode()


def request_bytes(method, target, body=None, headers=(), host="localhost"):
    """A request as it goes over the wire. A body gets the length it has."""
    lines = [f"{method} ".encode() + as_bytes(target) + b" HTTP/1.1", b"Host: " + host.encode()]
    lines += [f"{name}: {value}".encode() for name, value in headers]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def form_request(target, fields, headers=()):
    body = b"&".join(as_bytes(name) + b"=" + percent_encode(value) for name, value in fields.items())
    return request_bytes("POST", target, body, [("Content-Type", "application/x-www-form-urlencoded"), *headers])


def store_request(key, value, path="/route"):
    body = b"key=%b&val=%b" % (percent_encode(key), percent_encode(value))
    return (b"POST %b HTTP/1.1\r\nHost: kvserver\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body))


def read_request(key, path="/route"):
    return b"GET %b?key=%b HTTP/1.1\r\nHost: kvserver\r\n\r\n" % (path.encode(), percent_encode(key))


def socket_address(address):
    host, _, port = address.rpartition(":")
    return host, int(port)


class Connection:
    """One kept-alive connection, a request at a time or many in a row."""

    def __init__(self, address, timeout=5.0):
        self.address = address
        self._socket = socket.create_connection(socket_address(address), timeout=timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = AnswerReader()

    def send(self, data):
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise ConnectionLost(str(error)) from error

    def read_answer(self):
        while True:
            answer = self._reader.next_answer()
            if answer is not None:
                return answer
            try:
                data = self._socket.recv(262144)
            except OSError as error:
                raise ConnectionLost(str(error) or "timed out") from error
            if not data:
                raise ConnectionLost("closed by the other side")
            self._reader.feed(data)

    def exchange(self, request):
        self.send(request)
        return self.read_answer()

    def get(self, target):
        return self.exchange(request_bytes("GET", target))

    def request(self, method, target, body=None, headers=()):
        return self.exchange(request_bytes(method, target, body, headers))

    def post_form(self, target, **fields):
        return self.exchange(form_request(target, fields))

    def store(self, key, value, path="/route"):
        return self.exchange(store_request(key, value, path))

    def read(self, key, path="/route"):
        return self.exchange(read_request(key, path))

    def has_bytes_waiting(self):
        """True when an answer, or the end of the connection, is there to be read."""
        return self._reader.has_unread_bytes or bool(select.select([self._socket], [], [], 0)[0])

    def close(self):
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def ask(address, request, timeout=5.0):
    """One request on a connection of its own."""
    with Connection(address, timeout) as connection:
        return connection.exchange(request)


def exchange_many(addresses, requests, depth=128, timeout=15.0):
    """Sends many requests in pipelined batches over one connection an address, and yields
    `(index, called, returned, answer)` for each (times in monotonic nanoseconds).

    For bulk loads of a healthy cluster: a lost connection is an error, not an outcome. `addresses` may name one
    address several times, for several connections to it.
    """
    connections = [Connection(address, timeout) for address in addresses]
    try:
        position = 0
        while position < len(requests):
            sent = []
            for connection in connections:
                batch = requests[position:position + depth]
                if batch:
                    called = time.monotonic_ns()
                    connection.send(b"".join(batch))
                    sent.append((connection, position, len(batch), called))
                    position += len(batch)
            for connection, first, count, called in sent:
                for index in range(first, first + count):
                    answer = connection.read_answer()
                    yield index, called, time.monotonic_ns(), answer
    finally:
        for connection in connections:
            connection.close()
