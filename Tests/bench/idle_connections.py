#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Connections that have had an answer and wait for nothing: idle_connections.py ADDRESS:PORT COUNT

Says `open` when all are; ends with its standard input, and fails if any was closed by then. A node closes a connection
that is idle for 10 s, so all of them ask once more right before.
"""

import select
import socket
import sys
import time

REQUEST = b"GET /health/live HTTP/1.1\r\nHost: bench\r\n\r\n"
#: So many are opened at a time, fewer than a listener lets wait.
AT_ONCE = 500
#: While others are still opened, those that are open ask again so often.
RENEWED_SECONDS = 3


def ask(connections):
    for connection in connections:
        connection.sendall(REQUEST)
    for connection in connections:
        if b" 200 " not in connection.recv(4096):
            sys.exit("idle_connections.py: not answered 200")


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    idle, count, renewed = [], int(sys.argv[2]), time.monotonic()
    while len(idle) < count:
        some = [socket.create_connection((host, int(port)), timeout=10) for _ in range(min(AT_ONCE, count - len(idle)))]
        ask(some)
        idle += some
        if time.monotonic() - renewed > RENEWED_SECONDS:
            ask(idle)
            renewed = time.monotonic()
    ask(idle)
    print("open", flush=True)
    sys.stdin.read()
    poll = select.epoll()
    for connection in idle:
        poll.register(connection.fileno(), select.EPOLLIN)
    if closed := poll.poll(0, count):
        sys.exit(f"idle_connections.py: {len(closed)} of {count} were closed")


if __name__ == "__main__":
    main()
