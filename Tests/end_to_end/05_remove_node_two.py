# SPDX-License-Identifier: Apache-2.0
"""The original's fourth scenario: node 2 is removed; its keys are on the nodes that stay, and it still answers requests."""

from harness.expectations import expect_equal
from harness.placement import TWELVE_KEYS


def run(context):
    # With one copy of each pair, as the original had them, and with as many as the daemon keeps by itself.
    for replicas in (1, None):
        with context.cluster(positions={3000: 1, 5000: 3, 8000: 2}, replicas=replicas) as cluster:
            for key in TWELVE_KEYS:
                cluster.proxy.store(key, f"value of {key}")
            leaving = cluster.node(2).address
            answer = cluster.proxy.post_form(f"/remove_node/{leaving}", timeout=30)
            expect_equal((answer.status, answer.body), (200, b"OK"), "removing node 2")

            ring = cluster.first_ring.removing(leaving)
            expect_equal(cluster.wait_for_one_ring(), ring, "the ring afterwards")
            for node in cluster.nodes:
                mine = {key: f"value of {key}" for key in TWELVE_KEYS if node.address in ring.holders(key, replicas)}
                expect_equal(node.pairs(), mine, f"the pairs of {node.name}")
                for key in TWELVE_KEYS:
                    expect_equal(node.read(key).text, f"value of {key}", f"{key} read at {node.name}")
            expect_equal(cluster.node(2).pairs(), {}, "the pairs of the node that left")
