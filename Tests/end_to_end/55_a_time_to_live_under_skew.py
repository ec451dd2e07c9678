# SPDX-License-Identifier: Apache-2.0
"""One host's clock is two seconds off: what it stores or reads lives that much longer or shorter than it was to, no more; what the other
hosts store and read does not, though that host holds a copy."""

import time

from harness.client import Connection
from harness.expectations import expect, expect_equal

TTL_SECONDS = 3
SKEW_SECONDS = 2
#: On top of the skew, and where no wrong clock is asked. Half of it, or less, is how seldom each pair is looked at.
TOLERANCE_SECONDS = 1.0
PAIRS_PER_HOST = 6


def run(context):
    for skew, replicas in ((SKEW_SECONDS, 3), (-SKEW_SECONDS, 3)) + context.short_or_full((), ((SKEW_SECONDS, 1), (-SKEW_SECONDS, 1))):
        with context.cluster(nodes=3, replicas=replicas, positions={2000: 1, 5000: 2, 8000: 3}, proxy=False,
                             settings={"snapshotSeconds": 0}) as cluster:
            wrong = cluster.node(2)
            wrong.end_daemon()
            wrong.change_settings(clockOffsetMilliseconds=skew * 1000)
            wrong.start_daemon()
            wrong.wait_until_ready()
            lives = measured_lives(cluster)
            by_others = {asked: life for asked, life in lives.items() if wrong.address not in asked}
            for (writer, reader), (shortest, longest) in lives.items():
                error = max(TTL_SECONDS - shortest, longest - TTL_SECONDS)
                allowed = TOLERANCE_SECONDS + (abs(skew) if (writer, reader) not in by_others else 0)
                expect(error <= allowed, f"a pair that was to live for {TTL_SECONDS} s lived for {shortest:.2f} … {longest:.2f} s, stored "
                                         f"through {writer}, read through {reader}; {wrong.name}'s clock is {skew:+} s off")
            worst = max(max(TTL_SECONDS - shortest, longest - TTL_SECONDS) for shortest, longest in lives.values())
            expect(worst > abs(skew) - TOLERANCE_SECONDS, f"no pair felt a clock that is {skew:+} s off: it can't have been")
            worst_by_others = max(max(TTL_SECONDS - shortest, longest - TTL_SECONDS) for shortest, longest in by_others.values())
            context.note(f"{replicas} copies, {skew:+} s: {worst:.2f} s off at most, {worst_by_others:.2f} s by hosts that are right")


def measured_lives(cluster):
    """How long pairs were found, by (who stored them, who was asked): the shortest and the longest life. A life is at least as long as
    until it was last found, and at most until it was first missing; of either the one that is further from what was wanted counts."""
    connections = {node.address: Connection(node.address) for node in cluster.nodes}
    born = {}
    for writer, connection in connections.items():
        for number in range(PAIRS_PER_HOST):
            key = f"brief {writer} {number}"
            called = time.monotonic()
            answer = connection.post_form("/route", key=key, val="x", ttl=str(TTL_SECONDS))
            expect_equal(answer.status, 200, f"storing {key}")
            born[key] = (writer, called)
    last_found, first_missing = {}, {}
    until = time.monotonic() + TTL_SECONDS + SKEW_SECONDS + TOLERANCE_SECONDS + 0.2
    while time.monotonic() < until:
        for key, (_, called) in born.items():
            for reader, connection in connections.items():
                answer = connection.read(key)
                expect(answer.status in (200, 404), f"reading {key} at {reader}: {answer}")
                if answer.status == 200:
                    last_found[key, reader] = time.monotonic() - called
                    # (That it comes back is an error as well: its life is as long as it was last seen.)
                else:
                    first_missing.setdefault((key, reader), time.monotonic() - called)
        time.sleep(0.02)
    for connection in connections.values():
        connection.close()
    lives = {}
    for key, (writer, _) in born.items():
        for reader in connections:
            shortest, longest = lives.get((writer, reader), (float("inf"), 0.0))
            missing = first_missing.get((key, reader), float("inf"))
            lives[writer, reader] = (min(shortest, missing), max(longest, last_found.get((key, reader), 0.0)))
    return lives
