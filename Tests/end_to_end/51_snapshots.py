# SPDX-License-Identifier: Apache-2.0
"""Every memcached is killed at once, with one replica and with three: what the snapshots hold comes back, deletes included."""

import time

from harness.client import ask, request_bytes
from harness.expectations import eventually, expect, expect_equal


def run(context):
    for replicas in (1, 3):
        every_memory_is_lost(context, replicas)
    what_is_stored_while_a_snapshot_is_loaded_stays(context)


def what_is_stored_while_a_snapshot_is_loaded_stays(context):
    """Even by a clock that is behind the snapshot's: such a write waits until the store knows what it held."""
    settings = {"snapshotSeconds": 1, "clockOffsetMilliseconds": 60_000}
    with context.cluster(nodes=1, positions={3000: 1}, proxy=False, settings=settings) as cluster:
        node = cluster.node(1)
        expect(node.store("key", "old").status == 200, "storing it")
        eventually(20, "it is in a snapshot", lambda: node.status()["snapshot"]["pairs"])
        node.change_settings(clockOffsetMilliseconds=0)
        node.end_daemon()
        node.set_failpoints("snapshot.load.block=sleep:1500")
        node.memcached.restart_empty()
        node.start_daemon()
        answers = []
        def is_stored():
            answers.append(node.store("key", "new"))
            return answers[-1].status == 200 or None
        eventually(15, "a write is taken again", is_stored)
        node.set_failpoints()
        expect(any(b"is being refilled" in answer.body for answer in answers), f"none was refused meanwhile: {answers}")
        eventually(10, "the node is whole", lambda: not node.status()["isRecovering"] or None)
        # (A worker that has not heard of it yet refuses for a moment.)
        found = eventually(5, "it answers", lambda: next((a for a in [node.read("key")] if a.status != 503), None))
        expect_equal(found.text, "new", "what was stored last")


def every_memory_is_lost(context, replicas):
    pairs = {f"key{number}": f"value{number}" for number in range(context.short_or_full(500, 50_000))}
    positions = {2000: 1, 5000: 2, 8000: 3}
    with context.cluster(replicas=replicas, positions=positions, settings={"snapshotSeconds": 1}) as cluster:
        for key, value in pairs.items():
            expect(cluster.proxy.store(key, value).status == 200, f"storing {key}")
        for key in list(pairs)[:50]:
            del pairs[key]
            expect(ask(cluster.node(1).address, request_bytes("DELETE", f"/route?key={key}")).status == 200, f"deleting {key}")
        stored = time.time() * 1000

        def is_on_disk(node):
            last = node.status()["snapshot"]
            # Begun after the last write.
            return (last["pairs"] and last["finishedMilliseconds"] - 1000 * last["seconds"] > stored) or None
        for node in cluster.nodes:
            eventually(20, f"{node.name} has a snapshot", lambda: is_on_disk(node))
        memories = {node.name: node.status()["generation"] for node in cluster.nodes}
        for node in cluster.nodes:
            node.memcached.restart_empty()
        for node in cluster.nodes:
            def is_whole():
                status = node.status()
                return (status["generation"] not in (None, memories[node.name]) and not status["isRecovering"]) or None
            eventually(60, f"{node.name} is whole again", is_whole)
        cluster.wait_for_one_ring()
        for node in cluster.nodes:
            def answer_of(key):
                # (503 for a moment, as each worker finds its connections to the old memcached broken.)
                return eventually(5, f"{node.name} answers {key}",
                                  lambda: next((a for a in [node.read(key)] if a.status != 503), None))
            found = {key: answer_of(key).text for key in pairs}
            expect_equal(found, pairs, f"the pairs, read at {node.name} with {replicas} replicas")
            for number in range(50):
                answer = answer_of(f"key{number}")
                expect(answer.status == 404, f"key{number} was deleted: {answer}")
