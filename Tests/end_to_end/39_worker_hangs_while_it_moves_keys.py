# SPDX-License-Identifier: Apache-2.0
"""A worker that hangs or dies in the middle of moving keys (and of memcached's dump) is replaced, and the change is completed."""

from harness.aftermath import expect_nothing_lost
from harness.client import Connection, request_bytes
from harness.expectations import eventually, expect_equal
from harness.history import History
from harness.processes import state_of
from harness.workload import store_many


def run(context):
    keys = [f"key{number}" for number in range(context.short_or_full(10_000, 100_000))]
    with context.cluster() as cluster:
        stored = History(store_many(cluster.addresses, keys, "bulk"))
        loser, standby = cluster.node(2), cluster.node(3).address
        added = cluster.first_ring.adding(5000, standby)
        histories = [stored]
        for deed, target, worker_of, ring in (
                ("stop", f"/add_node/5000/{standby}", loser, added), ("kill", f"/remove_node/{standby}", cluster.node(3), cluster.first_ring)):
            with context.load([cluster.proxy.address], keys[:500], connections=8, name=deed) as load:
                load.wait_for_more(500)
                before = set(worker_of.workers())
                worker_of.set_failpoints(f"ring.job.copy.batch={deed} after 2")
                answer = begin(cluster.node(1), target)
                # At once, or the worker that takes the job over meets the failpoint, too.
                eventually(5, f"a worker of {worker_of.name} meets the failpoint",
                           lambda: any(state_of(worker) in (None, "T", "Z") for worker in before), interval=0.002)
                worker_of.set_failpoints()
                eventually(5, f"a worker of {worker_of.name} is replaced", lambda: before - set(worker_of.workers()))
                worker_of.wait_until_replaced(before - set(worker_of.workers()), 5)
                status = answer()
                expect_equal((status.status, status.body), (200, b"OK"), f"{target} with a worker that did {deed}")
                expect_equal(cluster.wait_for_one_ring(), ring, f"the ring after {target}")
                result = load.stop()
            result.expect_no_failed_read()
            histories.append(result.history)
        expect_nothing_lost(cluster, *histories)
        cluster.expect_pairs_only_at_owners(cluster.first_ring, wanted_keys=keys)


def begin(node, target):
    """Sends the request and returns how to await its answer."""
    connection = Connection(node.address, timeout=60)
    connection.send(request_bytes("GET", target))

    def answer():
        with connection:
            return connection.read_answer()
    return answer
