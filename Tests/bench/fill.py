#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Stores pairs through a node's POST /route, pipelined: fill.py ADDRESS:PORT COUNT [LOW HIGH]

Keys are `move-0`, `move-1`, …, those alone whose slot is in LOW…HIGH; values have 100 bytes. Prints the last number.
"""

import hashlib
import socket
import sys
import threading

CONNECTIONS = 4
DEPTH = 64


def slot(key):
    return int.from_bytes(hashlib.md5(key).digest(), "big") % 10000


def numbers(count, low, high):
    number = 0
    while count:
        if low <= slot(b"move-%d" % number) <= high:
            count -= 1
            yield number
        number += 1


def request(number):
    body = b"key=move-%d&val=%s%08d" % (number, b"m" * 92, number)
    return (b"POST /route HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body))


def store(address, mine, failures):
    try:
        with socket.create_connection(address, timeout=20) as connection:
            answers = connection.makefile("rb")
            for start in range(0, len(mine), DEPTH):
                chunk = mine[start:start + DEPTH]
                connection.sendall(b"".join(request(number) for number in chunk))
                for _ in chunk:
                    status = answers.readline()
                    length = 0
                    while (line := answers.readline()) not in (b"\r\n", b""):
                        if line.lower().startswith(b"content-length:"):
                            length = int(line[15:])
                    answers.read(length)
                    if b" 200 " not in status:
                        raise OSError(f"answered {status!r}")
    except OSError as error:
        failures.append(str(error))


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    count = int(sys.argv[2])
    low, high = (int(text) for text in sys.argv[3:5]) if len(sys.argv) > 3 else (0, 9999)
    wanted = list(numbers(count, low, high))
    failures = []
    threads = [threading.Thread(target=store, args=((host, int(port)), wanted[part::CONNECTIONS], failures))
               for part in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        sys.exit(f"fill.py: {failures[0]}")
    print(wanted[-1])


if __name__ == "__main__":
    main()
