#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast a memcached lists its keys, with which every ring change begins: scan.py SOCKET. Prints keys a second."""

import socket
import sys
import time


def main():
    while True:
        keys, seconds, is_busy = scan(sys.argv[1])
        if not is_busy:
            break
        time.sleep(0.2)
    print(f"{keys / seconds:.0f}")


def scan(path):
    """(keys, seconds, whether another dump was under way)"""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(path)
        connection.sendall(b"lru_crawler metadump hash\r\n")
        began, keys, end = time.monotonic(), 0, b""
        while not end.endswith((b"END\r\n", b"BUSY currently processing crawler request\r\n")):
            data = connection.recv(1 << 20)
            if not data:
                sys.exit("scan.py: memcached closed the connection")
            keys += data.count(b"\n")
            end = (end + data)[-64:]
        return keys - 1, time.monotonic() - began, not end.endswith(b"END\r\n")


if __name__ == "__main__":
    main()
