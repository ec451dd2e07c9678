# SPDX-License-Identifier: Apache-2.0
"""A host's disk is full, or fails to sync: pairs are served on; a ring change is refused before it begins, or ends; the ring is on disk once there is room again."""

from harness.expectations import eventually, expect, expect_equal
from nemesis.faults import DISK, fill_disk
from nemesis.scene import HOSTS, STANDBY_POSITION

LIMIT_SECONDS = 240
FULL_LIMIT_SECONDS = 900


def run(context):
    context.run_faults(["fill the disk", "the disk does not sync"], context.short_or_full(2, 12), ring_changes=0.5)
    if DISK not in context.lacking and context.given_schedule is None:
        a_full_disk_refuses_a_ring(context)


def a_full_disk_refuses_a_ring(context):
    """All three hosts lose slots to the standby, so none of them may begin."""
    full = context.random.randint(1, 3)
    with context.scene() as scene:
        cluster = scene.cluster
        node, before = cluster.node(full), cluster.one_ring()
        standby = cluster.node(HOSTS).address
        target = f"/add_node/{STANDBY_POSITION}/{standby}"
        # What an earlier rehearsal has left behind is room enough for one more ring.
        (node.state_directory / "ring.json.new").unlink(missing_ok=True)
        make_room = fill_disk(scene, {"place": full})
        for asked in cluster.nodes:
            answer = asked.post_form(target, timeout=30)
            expect(answer.status >= 500, f"{target} through {asked.name}, the disk of {node.name} full: {answer}")
            expect_equal(cluster.wait_for_one_ring(), before, "the ring that was to stay")
        answer = node.install_ring(before)
        expect(answer.status >= 500 and b"space" in answer.body, f"installing a ring at {node.name}, whose disk is full: {answer}")
        scene.load.wait_for_more(500, 30)
        make_room()
        answer = node.post_form(target, timeout=60)
        expect_equal((answer.status, answer.text), (200, "OK"), f"{target} with room again")
        after = cluster.wait_for_one_ring()
        expect_equal(after, before.adding(STANDBY_POSITION, standby), "the ring after that")

        # What is on disk is that ring: no memcached has it, and no worker.
        def is_on_every_disk():
            return all(str(STANDBY_POSITION) in (n.state_directory / "ring.json").read_text() for n in cluster.nodes)
        eventually(5, "the ring is on every disk", is_on_every_disk)
        scene.check_all()
