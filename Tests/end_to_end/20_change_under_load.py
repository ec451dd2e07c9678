# SPDX-License-Identifier: Apache-2.0
"""The standby is added and node 2 removed while clients read and write: no request fails, nothing acknowledged is lost, every key stays linearizable."""

import time

from harness.checker import check_history
from harness.expectations import expect, expect_equal
from harness.history import READ, WRITE, History
from harness.workload import read_many, store_many

LIMIT_SECONDS = 180
FULL_LIMIT_SECONDS = 7200


def run(context):
    pairs = context.short_or_full(30_000, 300_000)
    rounds = context.short_or_full(1, 5)
    keys = [f"key{number}" for number in range(pairs)]
    with context.cluster(memory_megabytes=1024, hash_power=20) as cluster:
        began = time.monotonic()
        history = History(store_many(cluster.addresses, keys, "bulk"))
        context.note(f"{pairs} pairs stored at {pairs / (time.monotonic() - began):.0f}/s")
        for number in range(rounds):
            history = one_round(context, cluster, keys, history, number)


def one_round(context, cluster, keys, history, number):
    """There, and back again, so that the next round finds the cluster as this one did."""
    second, standby = cluster.node(2).address, cluster.node(3).address
    changes = [
        (f"/add_node/5000/{standby}", cluster.first_ring.adding(5000, standby)),
        (f"/remove_node/{second}", cluster.first_ring.adding(5000, standby).removing(second)),
        (f"/add_node/8000/{second}", cluster.first_ring.adding(5000, standby)),
        (f"/remove_node/{standby}", cluster.first_ring),
    ]
    # Some keys are asked for so often that each sees many operations while it moves; the others, all of them, now and then.
    busy = context.random.sample(keys, 300)
    with context.load([cluster.proxy.address], keys, connections=8, processes=1, name=f"wide{number}.") as wide, \
            context.load([cluster.proxy.address, *cluster.addresses], busy, connections=8, processes=1,
                         write_fraction=0.5, name=f"busy{number}.") as narrow:
        narrow.wait_for_more(1000)
        for target, ring in changes:
            began = time.monotonic()
            answer = cluster.node(1).get(target, timeout=600)
            seconds = time.monotonic() - began
            expect_equal((answer.status, answer.body), (200, b"OK"), target)
            expect_equal(cluster.wait_for_one_ring(), ring, f"the ring after {target}")
            narrow.wait_for_more(500)
            context.note(f"{target.split('/')[1]} took {seconds:.1f} s")
        results = [narrow.stop(), wide.stop()]
    for result in results:
        for operations in result.history.by_key.values():
            history.extend(operations)
    history.extend(read_many(cluster.addresses, keys))

    violations = check_history(history)
    expect(not violations, f"{len(violations)} keys are not linearizable:\n" + "\n".join(map(str, violations[:3])))
    for result in results:
        result.expect_no_failed_request()
    cluster.expect_pairs_only_at_owners(cluster.first_ring, wanted_keys=keys)
    context.note(f"{len(history)} operations checked, "
                 f"slowest read {max(result.slowest_milliseconds(READ) for result in results):.0f} ms, "
                 f"write {max(result.slowest_milliseconds(WRITE) for result in results):.0f} ms")
    return history.settled()
