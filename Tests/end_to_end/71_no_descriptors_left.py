# SPDX-License-Identifier: Apache-2.0
"""A host whose workers may open few descriptors serves those who are connected and lets newcomers wait, without spinning and without
a death; once it may open more, all are served."""

import resource
import time

from harness.client import Connection, read_request
from harness.expectations import eventually, expect, expect_equal
from harness.placement import keys_owned_by
from harness.processes import processor_seconds
from harness.workload import store_many

#: What a worker that serves nobody has open fits into it, and not twice.
DESCRIPTORS = 64
CONNECTED, NEWCOMERS = 8, 150
#: Of one processor, by a worker that serves the connected now and then. One that spins takes all of it.
BUSY_PART = 0.3


def run(context):
    seconds = context.short_or_full(3, 20)
    with context.cluster(replicas=1) as cluster:
        scarce, other = cluster.node(2), cluster.node(1)
        keys = keys_owned_by(cluster.first_ring, scarce.address, 20)
        stored = store_many(cluster.addresses, keys, "bulk")
        expect_equal(len(stored), len(keys), "pairs stored")
        workers = scarce.workers()
        connected, newcomers = [], []
        try:
            # (The last one asks another node, which is connected then, too.)
            for number in range(CONNECTED):
                connected.append(Connection(scarce.address if number < CONNECTED - 1 else other.address))
                expect_equal(connected[-1].read(keys[number]).status, 200, "a read before")
            for worker in workers:
                limit(worker, DESCRIPTORS)
            for number in range(NEWCOMERS):
                newcomers.append(Connection(scarce.address, timeout=10))
                newcomers[-1].send(read_request(keys[number % len(keys)]))
            began, used = time.monotonic(), [processor_seconds(worker) for worker in workers]
            asked = 0
            while time.monotonic() < began + seconds:
                for number, connection in enumerate(connected):
                    expect_equal(connection.read(keys[number]).status, 200, "a read of one who is connected")
                    asked += 1
                time.sleep(0.02)
            for worker, before in zip(workers, used):
                part = (processor_seconds(worker) - before) / (time.monotonic() - began)
                expect(part < BUSY_PART, f"a worker that lets newcomers wait uses {part:.2f} of a processor")
            waiting = sum(not connection.has_bytes_waiting() for connection in newcomers)
            expect(waiting > 0, "all newcomers were served: the descriptors did not become scarce")
            expect(waiting < NEWCOMERS, "no newcomer was served, though there were descriptors left")
            expect_equal(scarce.workers(), workers, "workers")
            for worker in workers:
                limit(worker, 4096)
            eventually(3, "all newcomers are served", lambda: all(connection.has_bytes_waiting() for connection in newcomers))
            for connection in newcomers:
                expect_equal(connection.read_answer().status, 200, "a newcomer's read")
        finally:
            for connection in connected + newcomers:
                connection.close()
        context.note(f"{waiting} of {NEWCOMERS} newcomers waited, {asked} reads of the connected were answered meanwhile")


def limit(process, descriptors):
    """How many descriptors it may have open."""
    _, most = resource.prlimit(process, resource.RLIMIT_NOFILE)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (descriptors, most))
