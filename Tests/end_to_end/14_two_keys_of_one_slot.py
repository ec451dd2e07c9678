# SPDX-License-Identifier: Apache-2.0
"""Keys that share a slot are different pairs: the original overwrote one with the other."""

from collections import defaultdict

from harness.expectations import expect_equal
from harness.placement import slot_of


def run(context):
    by_slot = defaultdict(list)
    for number in range(60_000):
        by_slot[slot_of(f"key{number}")].append(f"key{number}")
    slot, keys = max(by_slot.items(), key=lambda item: len(item[1]))
    with context.cluster() as cluster:
        for key in keys:
            expect_equal(cluster.proxy.store(key, f"value of {key}").status, 200, f"storing {key}")
        for key in keys:
            expect_equal(cluster.proxy.read(key).text, f"value of {key}", f"{key}, one of {len(keys)} in slot {slot}")
        owner = cluster.node_at(cluster.first_ring.owner_of_slot(slot))
        expect_equal(owner.pairs(), {key: f"value of {key}" for key in keys}, "the owner's pairs")
        cluster.proxy.store(keys[0], "changed")
        expect_equal([cluster.proxy.read(key).text for key in keys], ["changed", *(f"value of {key}" for key in keys[1:])],
                     "all of them after one was stored again")
    context.note(f"{len(keys)} keys in slot {slot}")
