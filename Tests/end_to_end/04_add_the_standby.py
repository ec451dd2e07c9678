# SPDX-License-Identifier: Apache-2.0
"""The original's third scenario: the standby is added at 5000; its keys move to it, the others stay, all can be read."""

from harness.client import percent_encode
from harness.expectations import expect_equal
from harness.placement import TWELVE_KEYS


def run(context):
    # With one copy of each pair, as the original had them, and with as many as the daemon keeps by itself.
    for replicas in (1, None):
        with context.cluster(replicas=replicas) as cluster:
            for key in TWELVE_KEYS:
                cluster.proxy.store(key, f"value of {key}")
            standby = cluster.node(3).address
            answer = cluster.proxy.get(f"/add_node/5000/{standby}", timeout=30)
            expect_equal((answer.status, answer.body), (200, b"OK"), "adding the standby")

            ring = cluster.first_ring.adding(5000, standby)
            expect_equal(cluster.wait_for_one_ring(), ring, "the ring afterwards")
            expect_equal(sorted(key for key in TWELVE_KEYS if ring.owner(key) == standby), ["bathtub", "bed", "bee"], "what the standby gains")
            for node in cluster.nodes:
                mine = {key: f"value of {key}" for key in TWELVE_KEYS if node.address in ring.holders(key, replicas)}
                expect_equal(node.pairs(), mine, f"the pairs of {node.name}")
                for key in TWELVE_KEYS:
                    expect_equal(node.read(key).text, f"value of {key}", f"{key} read at {node.name}")
                    expect_equal(node.get(b"/route_test?key=" + percent_encode(key)).text, ring.owner(key), f"{node.name} on the owner of {key}")
