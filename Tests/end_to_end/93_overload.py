# SPDX-License-Identifier: Apache-2.0
"""Three times as many requests as a node can do leave four fifths of what it can do done, in time; the others are refused with 503 at once,
nothing is left hanging, and afterwards all is as before."""

import json
import multiprocessing
import select
import socket
import statistics
import time
from collections import Counter, deque

from harness.client import AnswerReader, request_bytes, socket_address
from harness.expectations import expect, expect_equal
from harness.processes import die_with_parent
from harness.workload import store_many

LIMIT_SECONDS = 120

#: Reads in one request: dear for a node and cheap for the client, who has no more processors than the node.
KEYS = 200
#: Clients who each wait for their answer, at the peak; and under overload, where all that is due is sent.
AT_PEAK, UNDER_OVERLOAD = 8, 300
OVERLOAD = 3.0
GOODPUT, RECOVERED, RECOVERY_SECONDS = 0.80, 0.95, 5
#: An answer that comes later is none.
IN_TIME_SECONDS = 1.0


def run(context):
    seconds = context.short_or_full(6, 30)
    with context.cluster(nodes=1, positions={5000: 1}, replicas=1, proxy=False) as cluster:
        node = cluster.node(1)
        keys = [f"key{number}" for number in range(KEYS)]
        expect_equal(len(store_many([node.address], keys, "bulk")), KEYS, "pairs stored")
        request = request_bytes("POST", "/keys:batch", json.dumps(
            {"operations": [{"method": "get", "key": key} for key in keys]}).encode(), [("Content-Type", "application/json")])
        before = Clients(node.address, request, AT_PEAK, None).run(4)
        peak = rate_of(before)
        under = Clients(node.address, request, UNDER_OVERLOAD, OVERLOAD * peak).run(seconds)
        after = Clients(node.address, request, AT_PEAK, None).run(RECOVERY_SECONDS)
        good, offered = rate_of(under), statistics.median(under["offered"])
        context.note(f"peak {peak:.0f}/s, offered {offered:.0f}/s, good {good:.0f}/s, afterwards {max(after['good'])}/s; "
                     f"statuses {dict(under['statuses'])}")
        expect(offered > 2.5 * peak, f"only {offered:.0f} requests a second were offered, the peak is {peak:.0f}")
        # (Both are measured while the machine does other things, too: the lower one counts.)
        expect(good >= GOODPUT * min(peak, rate_of(after)), f"{good:.0f} good answers a second, the peak is {peak:.0f}")
        expect(max(after["good"]) >= RECOVERED * min(peak, rate_of(after)), f"afterwards {after['good']} good answers a second")
        expect(set(under["statuses"]) <= {200, 503}, f"other answers than 200 and 503: {under['statuses']}")
        expect(under["statuses"][503] > 0, "nothing was refused: it was no overload")
        expect_equal(node.read("key0").status, 200, "a read afterwards")


def rate_of(told):
    return statistics.median(told["good"][1:])


class Clients:
    """Clients in a process of their own: each sends a request and waits for its answer. With a rate, so many are due a second, and are sent
    by whoever is free, on new connections where answers say that they are the last; without one, each client sends at once again."""

    def __init__(self, address, request, count, rate):
        self._address, self._request, self._count, self._rate = socket_address(address), request, count, rate

    def run(self, seconds):
        """What became of it, for each second."""
        context = multiprocessing.get_context("fork")
        mine, theirs = context.Pipe()
        process = context.Process(target=self._run, args=(seconds, theirs))
        process.start()
        try:
            expect(mine.poll(seconds + 20), "the clients tell nothing")
            return mine.recv()
        finally:
            process.kill()
            process.join()

    def _run(self, seconds, report):
        die_with_parent()
        good, offered, statuses = [0] * seconds, [0] * seconds, Counter()
        poll = select.epoll()
        clients, free, busy = {}, deque(), {}
        for _ in range(self._count):
            self._connect(clients, poll, free)
        began = time.monotonic()
        sent = 0
        while (now := time.monotonic() - began) < seconds:
            due = self._count if self._rate is None else int(now * self._rate) - sent
            while due > 0:
                due -= 1
                sent += 1
                if self._rate is not None or free:
                    offered[int(now)] += 1
                if not free:
                    continue
                descriptor = free.popleft()
                busy[descriptor] = time.monotonic()
                clients[descriptor][0].sendall(self._request)
            for descriptor, _ in poll.poll(0.002):
                client, reader = clients[descriptor]
                part = client.recv(1 << 18)
                reader.feed(part)
                answer = reader.next_answer() if part else None
                if answer is not None:
                    statuses[answer.status] += 1
                    in_time = time.monotonic() - busy.pop(descriptor) < IN_TIME_SECONDS
                    second = int(time.monotonic() - began)
                    if answer.status == 200 and in_time and second < seconds:
                        good[second] += 1
                    if not answer.closes:
                        free.append(descriptor)
                        continue
                if not part or answer is not None:
                    poll.unregister(descriptor)
                    if descriptor in free:
                        free.remove(descriptor)
                    if busy.pop(descriptor, None) is not None:
                        statuses["lost"] += 1
                    clients.pop(descriptor)[0].close()
                    self._connect(clients, poll, free)
        report.send({"good": good, "offered": offered, "statuses": statuses})

    def _connect(self, clients, poll, free):
        client = socket.create_connection(self._address, timeout=5)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        clients[client.fileno()] = (client, AnswerReader())
        poll.register(client.fileno(), select.EPOLLIN | select.EPOLLRDHUP)
        free.append(client.fileno())
