# SPDX-License-Identifier: Apache-2.0
"""A node that was set up by itself, with a ring and pairs of its own, is not taken into another ring of the same epoch."""

from harness.expectations import expect, expect_equal
from harness.placement import Ring


def run(context):
    with context.cluster(nodes=2, positions={}, proxy=False) as cluster:
        rings = [Ring({position: node.address}) for position, node in zip((3000, 8000), cluster.nodes)]
        for node, ring in zip(cluster.nodes, rings):
            expect_equal(node.install_ring(ring).status, 200, f"a ring for {node.name}")
            node.wait_until_ready()
            for number in range(200):
                expect_equal(node.store(f"key{number}", node.name).status, 200, f"storing at {node.name}")
        first, second = cluster.nodes
        answer = first.get(f"/add_node/8000/{second.address}", timeout=30)
        expect_equal((answer.status, answer.header("X-KV-Outcome")), (409, "not-applied"), f"adding a node with a ring of its own: {answer}")
        expect(second.address in answer.text, f"the answer does not name the node: {answer}")
        expect("state directory" in answer.text and "Wait" not in answer.text, f"the answer does not say what to do: {answer}")
        for node, ring in zip(cluster.nodes, rings):
            expect_equal(node.ring(), ring, f"the ring of {node.name} after that")
            for number in range(200):
                expect_equal(node.read(f"key{number}").text, node.name, f"key{number} at {node.name}")
