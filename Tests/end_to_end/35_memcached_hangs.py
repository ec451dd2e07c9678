# SPDX-License-Identifier: Apache-2.0
"""A memcached that hangs (SIGSTOP) costs answers within the deadline, never a wrong one, and all is well again within 2 s of its return."""

import socket
import time
from contextlib import contextmanager

from harness.aftermath import expect_nothing_lost
from harness.client import Connection, exchange_many, read_request
from harness.expectations import expect, expect_equal
from harness.history import History
from harness.placement import keys_owned_by
from harness.workload import store_many

FULL_LIMIT_SECONDS = 600

#: The request deadline is 1 s; the rest is for the machine, which runs clients and cluster on the same cores.
ANSWER_WITHIN_SECONDS = 1.1
WELL_AGAIN_SECONDS = 2.0
#: memcached's own (-b), some of which the daemon has filled itself.
MEMCACHED_BACKLOG = 1024


def run(context):
    times, pause = context.short_or_full((2, 3.0), (5, 10.0))
    with context.cluster() as cluster:
        hanging, healthy = cluster.node(2), cluster.node(1)
        affected = keys_owned_by(cluster.first_ring, hanging.address, 300, "affected")
        unaffected = keys_owned_by(cluster.first_ring, healthy.address, 300, "unaffected")
        stored = store_many(cluster.addresses, affected + unaffected, "bulk")
        histories = []
        slowest = 0.0
        for number in range(times):
            with context.load(cluster.addresses, affected, connections=12, processes=1, name=f"affected{number}.", rate=3000) as load:
                load.wait_for_more(500)
                hanging.memcached.pause()
                try:
                    slowest = max(slowest, everything_is_answered_in_time(cluster, hanging, healthy, affected, unaffected, pause))
                    many_connections_do_not_pile_up(hanging, affected)
                    with full_backlog(hanging.memcached.socket_path):
                        # (The lanes' connections have been given up by now: new ones find no place. And other nodes may have taken
                        # the place of one that has been silent for so long.)
                        slowest = max(slowest, everything_is_answered_in_time(
                            cluster, hanging, healthy, affected, unaffected, 2.0, allowed=(200, 503)))
                finally:
                    hanging.memcached.resume()
                well_again(cluster, affected)
                load.wait_for_more(500)
                result = load.stop()
                histories.append(result.history)
                failed = result.failed_reads + result.failed_writes
                expect(failed, "the hanging memcached cost no answer: it can't have hung")
                expect(all(operation.status == 503 for operation in failed), f"not all failures are 503: {result.notes[:5]}")
        checked, _ = expect_nothing_lost(cluster, *histories, History(stored))
    context.note(f"slowest answer meanwhile {slowest * 1000:.0f} ms, {checked} operations checked")


def everything_is_answered_in_time(cluster, hanging, healthy, affected, unaffected, seconds, allowed=(503,)):
    """Asks every node for keys of either side; returns the time of the slowest answer.

    `allowed`: how requests for keys of the node that hangs may be answered.
    """
    slowest, until, number = 0.0, time.monotonic() + seconds, 0
    connections = [Connection(node.address) for node in cluster.nodes]
    while time.monotonic() < until:
        for connection in connections:
            number += 1
            good = unaffected[number % len(unaffected)]
            found = connection.read(good)
            expect(found.status == 200 and found.body.startswith(good.encode() + b"|"),
                   f"{good}, whose owner is well, asked at {connection.address}: {found}")
            bad = affected[number % len(affected)]
            for verb, ask in (("read", lambda: connection.read(bad)), ("store", lambda: connection.store(bad, "x"))):
                began = time.monotonic()
                answer = ask()
                elapsed = time.monotonic() - began
                slowest = max(slowest, elapsed)
                expect(answer.status in allowed, f"{verb} of {bad}, whose memcached hangs, at {connection.address}: {answer}")
                expect(answer.status == 200 or answer.header("X-KV-Outcome") in ("not-applied", "unknown"), f"{verb} of {bad}: no outcome")
                expect(elapsed <= ANSWER_WITHIN_SECONDS, f"{verb} of {bad} at {connection.address} took {elapsed * 1000:.0f} ms")
                expect_equal(connection.get("/").status, 200, f"GET / on the connection after {verb}")
    for connection in connections:
        connection.close()
    expect(healthy.get("/health/ready").status == 200, "the other node is not ready")
    return slowest


@contextmanager
def full_backlog(path):
    """As many connections wait at the socket as may: who connects to it next blocks, or is refused (unix(7): EAGAIN)."""
    waiting = []
    try:
        while True:
            expect(len(waiting) < 10_000, "the backlog has no end")
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            try:
                waiting[-1].connect(path)
            except BlockingIOError:
                break
        expect(len(waiting) > MEMCACHED_BACKLOG // 2, f"only {len(waiting)} connections fill memcached's backlog")
        yield
    finally:
        for connection in waiting:
            connection.close()


def many_connections_do_not_pile_up(node, keys):
    """A crowd at once: each is answered within the deadline, none waits for the others."""
    crowd = [Connection(node.address, timeout=5) for _ in range(300)]
    began = time.monotonic()
    for number, connection in enumerate(crowd):
        connection.send(read_request(keys[number % len(keys)]))
    answers = [connection.read_answer() for connection in crowd]
    elapsed = time.monotonic() - began
    for connection in crowd:
        connection.close()
    expect(all(answer.status == 503 for answer in answers), f"a crowd's answers: {[answer for answer in answers if answer.status != 503][:3]}")
    expect(elapsed <= ANSWER_WITHIN_SECONDS + 0.4, f"a crowd of {len(crowd)} waited {elapsed:.2f} s")


def well_again(cluster, keys):
    """Within two seconds every key of the node that hung is served by every node."""
    deadline = time.monotonic() + WELL_AGAIN_SECONDS
    while True:
        bad = [answer for node in cluster.nodes
               for _, _, _, answer in exchange_many([node.address], [read_request(key) for key in keys[:50]]) if answer.status != 200]
        if not bad and cluster.node(2).store(keys[0] + "'", "well").status == 200:
            return
        expect(time.monotonic() < deadline, f"not well again within {WELL_AGAIN_SECONDS} s: {bad[:3]}")
        time.sleep(0.05)
