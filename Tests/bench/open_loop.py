# SPDX-License-Identifier: Apache-2.0
"""Requests that are sent when they are due, however long the answers before them take: an open loop, in a thread.

A request that is due goes out on a connection that is idle, or on a new one. What waits because there is none left, or
for an answer, is counted from when it was due.
"""

import errno
import select
import socket
import threading
import time
from typing import NamedTuple

from harness import client as http

MOST_CONNECTIONS = 800


class Sent(NamedTuple):
    """One request and what became of it. Times in seconds, of the monotonic clock."""

    number: int
    due: float
    ended: float
    outcome: str
    what: str                           # of a failure


class _Connection:
    def __init__(self, address):
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = http.AnswerReader()
        self.is_connected = False
        self.number = self.due = None
        error = self.socket.connect_ex(http.socket_address(address))
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, "connecting")


class OpenLoop:
    """`request_of(number)` makes the request with that number; numbers begin at 0. `sent` has all that ended, once stopped."""

    def __init__(self, address, rate, request_of, most, deadline=5.0):
        self._address, self._rate, self._request_of, self._most, self._deadline = address, rate, request_of, most, deadline
        self.sent = []
        self._poll = select.epoll()
        self._by_descriptor, self._idle = {}, []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.began = time.monotonic()
        self._thread.start()

    def stop(self):
        self._stop.set()
        self._thread.join()
        return self.sent

    def _run(self):
        number, checked = 0, 0.0
        while True:
            now = time.monotonic()
            while not self._stop.is_set() and number < self._most and self.began + number / self._rate <= now:
                if not self._begin(number, self.began + number / self._rate):
                    break
                number += 1
            is_over = self._stop.is_set() or number == self._most
            if is_over and not any(connection.number is not None for connection in self._by_descriptor.values()):
                break
            for descriptor, _ in self._poll.poll(0.001):
                self._go_on(self._by_descriptor[descriptor])
            if now - checked > 0.1:
                checked = now
                for connection in list(self._by_descriptor.values()):
                    if connection.number is not None and now - connection.due > self._deadline:
                        self._lose(connection, "no answer in time")
        for connection in list(self._by_descriptor.values()):
            self._close(connection)

    def _begin(self, number, due):
        """False: all connections are in use; it is tried again."""
        if self._idle:
            connection = self._idle.pop()
        elif len(self._by_descriptor) < MOST_CONNECTIONS:
            connection = _Connection(self._address)
            self._by_descriptor[connection.socket.fileno()] = connection
            self._poll.register(connection.socket.fileno(), select.EPOLLOUT)
        else:
            return False
        connection.number, connection.due = number, due
        if connection.is_connected:
            self._send(connection)
        return True

    def _send(self, connection):
        try:
            connection.socket.send(self._request_of(connection.number))
        except OSError as error:
            self._lose(connection, f"sending: {error}")

    def _go_on(self, connection):
        if not connection.is_connected:
            error = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                return self._end(connection, http.NO, f"connecting: {error}", closes=True)
            connection.is_connected = True
            self._poll.modify(connection.socket.fileno(), select.EPOLLIN)
            return self._send(connection)
        try:
            data = connection.socket.recv(65536)
        except OSError as error:
            return self._lose(connection, f"receiving: {error}")
        if not data:
            return self._lose(connection, "closed without an answer")
        connection.reader.feed(data)
        answer = connection.reader.next_answer()
        if answer is not None:
            what = "" if answer.status == 200 else f"{answer.status} {answer.text.strip()}"
            self._end(connection, answer.outcome, what, answer.closes)

    def _lose(self, connection, what):
        self._end(connection, http.UNKNOWN, what, closes=True)

    def _end(self, connection, outcome, what, closes):
        if connection.number is not None:
            self.sent.append(Sent(connection.number, connection.due, time.monotonic(), outcome, what))
        connection.number = None
        if closes:
            self._close(connection)
        else:
            self._idle.append(connection)

    def _close(self, connection):
        if connection in self._idle:
            self._idle.remove(connection)
        del self._by_descriptor[connection.socket.fileno()]
        self._poll.unregister(connection.socket.fileno())
        connection.socket.close()
