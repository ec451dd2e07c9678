# SPDX-License-Identifier: Apache-2.0
"""The original's first scenario: twelve keys are stored through HAProxy, and each lands on the node that the ring says."""

from harness.client import percent_encode
from harness.expectations import expect_equal
from harness.placement import TWELVE_KEYS, slot_of


def run(context):
    expect_equal({key: slot_of(key) for key in TWELVE_KEYS}, TWELVE_KEYS, "the slots by this harness's own reckoning")
    # With one copy of each pair, as the original had them, and with as many as the daemon keeps by itself.
    for replicas in (1, None):
        with context.cluster(replicas=replicas) as cluster:
            for key in TWELVE_KEYS:
                answer = cluster.proxy.store(key, f"value of {key}")
                expect_equal((answer.status, answer.body), (200, b"OK"), f"storing {key}")
            expect_equal(cluster.first_ring.owner("roof"), cluster.node(1).address, "the owner of roof, by the design's example")
            expect_equal(cluster.first_ring.owner("gate"), cluster.node(2).address, "the owner of gate, by the design's example")
            for node in cluster.nodes:
                for key in TWELVE_KEYS:
                    answer = node.get(b"/route_test?key=" + percent_encode(key))
                    expect_equal((answer.status, answer.text), (200, cluster.first_ring.owner(key)), f"{node.name} on the owner of {key}")
                mine = {key: f"value of {key}" for key in TWELVE_KEYS if node.address in cluster.first_ring.holders(key, replicas)}
                expect_equal(node.pairs(), mine, f"the pairs of {node.name}")
