#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Connections that have had an answer and wait for nothing: idle_connections.py ADDRESS:PORT COUNT

Says `open` when all are; ends with its standard input, and fails if any was closed by then. A node closes an idle
connection after 10 s.
"""

import select
import socket
import sys

REQUEST = b"GET /health/live HTTP/1.1\r\nHost: bench\r\n\r\n"
#: So many are asked for at a time, fewer than a listener lets wait.
AT_ONCE = 500


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    idle = []
    while len(idle) < int(sys.argv[2]):
        some = [socket.create_connection((host, int(port)), timeout=10) for _ in range(min(AT_ONCE, int(sys.argv[2]) - len(idle)))]
        for connection in some:
            connection.sendall(REQUEST)
        for connection in some:
            if b" 200 " not in connection.recv(4096):
                sys.exit("idle_connections.py: not answered 200")
        idle += some
    print("open", flush=True)
    sys.stdin.read()
    poll = select.epoll()
    for connection in idle:
        poll.register(connection.fileno(), select.EPOLLIN)
    if closed := poll.poll(0, len(idle)):
        sys.exit(f"idle_connections.py: {len(closed)} were closed")


if __name__ == "__main__":
    main()
