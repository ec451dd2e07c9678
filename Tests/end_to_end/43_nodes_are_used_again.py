# SPDX-License-Identifier: Apache-2.0
"""A node that another cluster still takes for its own can't carry one's ring into the other; and the last node that is left is
started with an operator's word."""

import shutil
import time

from harness.expectations import eventually, expect, expect_equal
from harness.placement import Ring
from harness.workload import store_many


def run(context):
    clusters_stay_apart(context)
    the_last_one_is_started(context)


def clusters_stay_apart(context):
    keys = [f"key{number}" for number in range(100)]
    with context.cluster(nodes=5, replicas=2, positions={2000: 1, 5000: 2, 8000: 3}) as cluster:
        first, _, _, used, fresh = cluster.nodes
        store_many([first.address], keys, "loader")
        values = {key: first.read(key).body for key in keys}
        for target in (f"/add_node/9000/{used.address}", f"/remove_node/{used.address}"):
            expect_equal(first.get(target, timeout=30).body, b"OK", target)
        ring = first.ring()

        wipe(used)
        wipe(fresh)
        # (The fresh one, of which no ring knows, asks for the newest once a second: it may have told of an older one before.)
        eventually(10, "the first cluster tells it of its ring again",
                   lambda: used.ring_document()["epoch"] == first.ring_document()["epoch"] or None)
        other = Ring({3000: used.address, 7000: fresh.address})
        for node in (used, fresh):
            refused = node.install_ring(other)
            expect(refused.status == 409 and "stands by" in refused.text and first.address in refused.text,
                   f"founding another cluster with a node that still stands by: {refused}")
        expect_equal(first.ring(), ring, "the first cluster's ring")

        # As the answer says: it is no standby any more, and is emptied.
        expect_equal(first.install_ring(ring, replicas=2).body, b"OK", "the first cluster's ring, without standbys")
        eventually(10, "all members have it", lambda: all(n.ring_document()["epoch"] == first.ring_document()["epoch"]
                                                          for n in cluster.nodes[:3]) or None)
        wipe(used)
        wipe(fresh)
        for node in (used, fresh):
            expect_equal(node.install_ring(other, replicas=2).body, b"OK", f"founding another cluster at {node.name}")
        theirs = [f"other{number}" for number in range(50)]
        store_many([used.address], theirs, "loader")
        answer = first.get(f"/add_node/9500/{used.address}", timeout=30)
        expect(answer.status == 409 and "another ring" in answer.text, f"adding a node of another cluster: {answer}")
        time.sleep(3)
        expect_equal((first.ring(), used.ring(), fresh.ring()), (ring, other, other), "both rings")
        for key in theirs:
            expect_equal(fresh.read(key).status, 200, f"{key} in the second cluster")
        for key, value in values.items():
            expect_equal(first.read(key).body, value, f"{key} in the first cluster")


def wipe(node):
    """A machine that is made anew under its address."""
    node.end_daemon()
    node.memcached.restart_empty()
    shutil.rmtree(node.state_directory)
    node.state_directory.mkdir()
    node.start_daemon()
    node.wait_until_alive()


def the_last_one_is_started(context):
    keys = [f"key{number}" for number in range(100)]
    with context.cluster(nodes=2, replicas=2, positions={2000: 1, 7000: 2}, settings={"snapshotSeconds": 1}) as cluster:
        last, gone = cluster.nodes
        store_many([last.address], keys, "loader")
        values = {key: last.read(key).body for key in keys}
        time.sleep(3)
        for node in (last, gone):
            node.end_daemon()
        last.memcached.restart_empty()
        last.start_daemon()
        last.wait_until_alive()
        refused = eventually(10, "it waits for the other one", lambda: _refused(last))
        expect("POST that ring" in refused.text, f"a node that nobody confirms the ring to: {refused}")
        expect_equal(last.install_ring(Ring({2000: last.address})).body, b"OK", "the ring of the one that is left")
        # (Of two workers one hears first that the memory is filled again; and who connects next to whom is the kernel's choice.)
        for key, value in values.items():
            expect_equal(eventually(10, f"{key} is served", lambda: _served(last, key)).body, value, f"{key}, from its snapshot")
        expect_equal(last.store("key0", "new").status, 200, "storing again")


def _served(node, key):
    answer = node.read(key)
    return answer if answer.status != 503 else None


def _refused(node):
    answer = node.read("key0")
    return answer if answer.status == 503 else None
