#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Keeps asking a store for a while, and reports what failed.

Every connection writes and reads pairs of its own, so that each answer can be checked: a GET fails unless it has the
value that was last acknowledged (or a later one whose outcome is unknown). Prints one JSON object; exits with 1 if
a GET failed or an acknowledged write is lost, and with --strict also if a POST failed.
"""

import argparse
import asyncio
import collections
import json
import os
import sys
import time


class Refused(Exception):
    """No answer, or half of one."""


class Connection:
    def __init__(self, address):
        self.address = address
        self.reader = self.writer = None

    async def ask(self, request):
        """The status and body of the answer. Connects if need be; never sends anything twice."""
        try:
            head, body = await asyncio.wait_for(self._exchange(request), 15)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, IndexError) as error:
            self.close()
            raise Refused(type(error).__name__) from error
        if "connection: close" in head:
            self.close()
        return int(head.split(" ")[1]), body

    async def _exchange(self, request):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(*self.address)
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        return head, await self.reader.readexactly(length)

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


class Client:
    def __init__(self, name, options, counts):
        self.name, self.options, self.counts = name, options, counts
        self.connection = Connection(options.address)
        self.host = "%s:%d" % options.address
        # Key to the values that it may have: the acknowledged one, and later ones whose outcome is unknown.
        self.possible = {}

    async def run(self, end):
        turn = 0
        while time.monotonic() < end and not (self.options.until and os.path.exists(self.options.until)):
            key = f"{self.name}-{turn % 50}"
            if turn % self.options.every == 0 or key not in self.possible:
                await self.post(key, f"{key}-{turn}")
            else:
                await self.get(key)
            turn += 1
            if self.options.pause:
                await asyncio.sleep(self.options.pause)

    async def post(self, key, value):
        body = f"key={key}&val={value}"
        request = (
            f"POST /route HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}"
        )
        before = self.possible.get(key, {None})
        try:
            status, answer = await self.connection.ask(request.encode())
        except Refused as error:
            status = str(error)
        if status == 200:
            self.possible[key] = {value}
            self.counts["posts"] += 1
        else:
            self.possible[key] = before | {value}
            self.counts["failed posts"] += 1
            self.counts[f"post: {status}"] += 1

    async def get(self, key, purpose="gets"):
        request = f"GET /route?key={key} HTTP/1.1\r\nHost: {self.host}\r\n\r\n"
        started = time.monotonic()
        try:
            status, answer = await self.connection.ask(request.encode())
        except Refused as error:
            status, answer = str(error), b""
        self.counts["slowest get ms"] = max(self.counts["slowest get ms"], int((time.monotonic() - started) * 1000))
        found = answer.decode("latin-1") if status == 200 else None
        if status in (200, 404) and found in self.possible[key]:
            self.counts[purpose] += 1
        elif status in (200, 404):
            self.counts["wrong or lost"] += 1
        else:
            self.counts["failed gets"] += 1
            self.counts[f"get: {status}"] += 1


async def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("address", help="ip:port of the balancer or of a node")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--until", metavar="FILE", help="end before that, once there is such a file")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--every", type=int, default=5, help="each so-manieth request is a POST (5)")
    parser.add_argument("--pause", type=float, default=0, help="seconds between a client's requests (0)")
    parser.add_argument("--strict", action="store_true", help="a failed POST is a failure, too")
    options = parser.parse_args()
    host, port = options.address.rsplit(":", 1)
    options.address = (host, int(port))

    counts = collections.Counter({"slowest get ms": 0})
    clients = [Client(f"load{index}", options, counts) for index in range(options.connections)]
    end = time.monotonic() + options.seconds
    await asyncio.gather(*(client.run(end) for client in clients))
    # At the end, all that was acknowledged is still there.
    for client in clients:
        for key in client.possible:
            await client.get(key, "read back")
        client.connection.close()
    print(json.dumps(dict(sorted(counts.items()))))
    failed = counts["failed gets"] + counts["wrong or lost"] + (counts["failed posts"] if options.strict else 0)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    asyncio.run(main())
