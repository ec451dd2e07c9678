# SPDX-License-Identifier: Apache-2.0
"""A memcached that was killed and came back empty loses its pairs and nothing else: the ring stays, and its node serves again."""

from harness.expectations import eventually, expect, expect_equal
from harness.placement import keys_owned_by


def run(context):
    with context.cluster() as cluster:
        first, second, _ = cluster.nodes
        lost = keys_owned_by(cluster.first_ring, first.address, 100, "lost")
        kept = keys_owned_by(cluster.first_ring, second.address, 100, "kept")
        for key in lost + kept:
            cluster.proxy.store(key, f"value of {key}")
        epoch = first.ring_document()["epoch"]
        workers = first.workers()
        first.memcached.restart_empty()
        the_node_serves_again(cluster, first, lost[0])
        expect_equal(cluster.wait_for_one_ring(), cluster.first_ring, "the ring after one memcached came back empty")
        expect(first.ring_document()["epoch"] >= epoch, "the epoch went back")
        expect_equal(first.workers(), workers, "the workers: a memcached that dies is no reason to restart them")
        for key in kept:
            expect_equal(cluster.proxy.read(key).text, f"value of {key}", f"{key}, a pair of the other node")
        for key in lost[1:]:
            answer = cluster.proxy.read(key)
            expect_equal((answer.status, answer.body), (404, b"N/A"), f"{key}, whose only copy is gone")

        for key in lost + kept:
            cluster.proxy.store(key, f"newer value of {key}")
        for node in cluster.nodes:
            node.memcached.restart_empty()
        for node in cluster.nodes:
            the_node_serves_again(cluster, node, f"probe of {node.name}")
        expect_equal(cluster.wait_for_one_ring(), cluster.first_ring, "the ring after all memcacheds came back empty at once")

        everything_starts_again(cluster)


def the_node_serves_again(cluster, node, key):
    def stores_and_reads():
        stored = node.store(key, "again")
        return stored.status == 200 and node.read(key).body == b"again"
    eventually(5, f"{node.name} serves again", stores_and_reads)
    eventually(5, f"{node.name} is ready", lambda: node.get("/health/ready").status == 200)


def everything_starts_again(cluster):
    """Daemons and memcacheds at once, as after a power cut: the ring is on disk."""
    for node in cluster.nodes:
        node.kill_supervisor()
        node.memcached.restart_empty()
    for node in cluster.nodes:
        node.start_daemon()
    for node in cluster.nodes:
        node.wait_until_alive()
        node.wait_until_ready()
    expect_equal(cluster.wait_for_one_ring(), cluster.first_ring, "the ring after everything was started again")
    for node in cluster.nodes:
        the_node_serves_again(cluster, node, f"probe of {node.name}")
