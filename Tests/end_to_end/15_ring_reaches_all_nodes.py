# SPDX-License-Identifier: Apache-2.0
"""A ring that was installed on one node only reaches the others, and all act on the newest."""

from harness.expectations import eventually, expect, expect_equal
from harness.placement import Ring


def run(context):
    with context.cluster(positions={}, proxy=False) as cluster:
        first, second, third = cluster.nodes
        ring = Ring({3000: first.address, 8000: second.address, 5000: third.address})
        expect_equal(first.install_ring(ring).status, 200, "installing a ring on the first node alone")
        install_reaches(cluster, ring, 10)
        pairs_are_served_by_all(cluster, "first ring")

        changed = Ring({3000: second.address, 8000: third.address, 9000: first.address})
        epoch = max(node.ring_document()["epoch"] for node in cluster.nodes)
        expect_equal(second.install_ring(changed).status, 200, "installing another ring on the second node alone")
        install_reaches(cluster, changed, 10)
        expect(all(node.ring_document()["epoch"] > epoch for node in cluster.nodes), "the epoch has not grown")
        pairs_are_served_by_all(cluster, "second ring")


def install_reaches(cluster, ring, seconds):
    """Traffic is part of it: nodes learn from the messages between them, too."""
    def all_have_it():
        for number, node in enumerate(cluster.nodes):
            node.store(f"traffic {number}", "x")
        return cluster.one_ring() == ring
    eventually(seconds, "every node has the ring", all_have_it)


def pairs_are_served_by_all(cluster, mark):
    for writer in cluster.nodes:
        for number in range(30):
            key = f"{mark} {writer.name} {number}"
            expect_equal(writer.store(key, key).status, 200, f"storing at {writer.name}")
    for reader in cluster.nodes:
        for writer in cluster.nodes:
            for number in range(30):
                key = f"{mark} {writer.name} {number}"
                expect_equal(reader.read(key).text, key, f"{key} read at {reader.name}")
