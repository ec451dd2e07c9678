# SPDX-License-Identifier: Apache-2.0
"""With one replica: a gaining node's memory is lost after its last word on settling, and before it stands on cleaning. The losing node
holds everything still, so nothing may be lost: not where it is lost twice, nor with its disk, nor where a driver ends the change alone."""

import shutil
import time

from harness.expectations import eventually, expect, expect_equal
from harness.scene import POSITIONS, Scene, begin_and_hold
from harness.workload import read_many, store_many

LIMIT_SECONDS = 300
POINT, STEP = "ring.announce.cleaning", "settling"


def run(context):
    for change in POSITIONS:
        case(context, change, emptied_once)
    for course in (emptied_twice, made_anew, a_driver_is_cut_off):
        case(context, "add", course)


def case(context, change, course):
    keys = [f"key{number}" for number in range(1500)]
    with context.cluster(nodes=4, positions=POSITIONS[change], proxy=False, memory_megabytes=64, hash_power=16) as cluster:
        scene = Scene(cluster, change)
        stored = store_many(cluster.addresses, keys, "v")
        held, asking = begin_and_hold(cluster, scene, POINT, STEP)
        with asking:
            course(cluster, scene, held, asking)
        eventually(30, "all stand on the new ring", lambda: {position_of(node) for node in cluster.nodes} == {(None, "completed")})
        expect_equal(cluster.wait_for_one_ring(), scene.after, "the ring")
        # (What the gaining node held before all this is gone with its memory.)
        kept = {key for key in keys if scene.before.owner(key) != scene.parts["gainer"].address}
        found = read_many(cluster.addresses, keys)
        lost = [write.key for write, read in zip(stored, found) if write.key in kept and read.value != write.value]
        expect(not lost, f"{course.__name__}, {change}: {len(lost)} of {len(kept)} pairs are lost, {sum(map(scene.is_moving, lost))} of them moved")
        cluster.expect_pairs_only_at_owners(scene.after, wanted_keys=kept)
        cluster.accept_present_workers()


def emptied_once(cluster, scene, held, asking):
    forget(scene.parts["gainer"])
    held.unlink()
    expect_equal(asking.read_answer().status, 200, "the change")


def emptied_twice(cluster, scene, held, asking):
    """The second time while it stands on cleaning without what was verified, and nobody drives the change."""
    gainer, loser, coordinator = (scene.parts[name] for name in ("gainer", "loser", "coordinator"))
    forget(gainer)
    gainer.pause_host()
    held.unlink()
    eventually(10, "the loser stands on cleaning", lambda: position_of(loser)[0] == "cleaning")
    coordinator.pause_host()
    gainer.resume_host()
    eventually(10, "the gainer stands on cleaning", lambda: position_of(gainer)[0] == "cleaning")
    forget(gainer)
    eventually(40, "another one has ended the change", lambda: position_of(loser)[0] is None)
    coordinator.resume_host()


def made_anew(cluster, scene, held, asking):
    """Another machine under the old address."""
    gainer = scene.parts["gainer"]
    gainer.end_daemon()
    gainer.memcached.restart_empty()
    shutil.rmtree(gainer.state_directory)
    gainer.state_directory.mkdir()
    gainer.start_daemon()
    gainer.wait_until_alive()
    held.unlink()
    expect_equal(asking.read_answer().status, 200, "the change")


def a_driver_is_cut_off(cluster, scene, held, asking):
    """It ends the change by itself, for a clean-up needs nobody's word, while the others have not begun with it."""
    others = [scene.parts[name] for name in ("gainer", "loser", "bystander")]
    coordinator = scene.parts["coordinator"]
    forget(others[0])
    others[0].end_daemon()
    held.unlink()
    eventually(10, "the others stand on cleaning", lambda: all(position_of(node)[0] == "cleaning" for node in others[1:]))
    for node in others[1:]:
        node.end_daemon()
    eventually(60, "the driver has ended the change", lambda: position_of(coordinator) == (None, "completed"))
    coordinator.pause_host()
    for node in others:
        node.start_daemon()
    eventually(40, "the others have ended it", lambda: all(position_of(node) == (None, "completed") for node in others))
    coordinator.resume_host()
    time.sleep(2)


def forget(node):
    """Its memcached comes back empty, and its daemon has found that out."""
    def generation():
        try:
            return node.status()["generation"]
        except (OSError, KeyError, ValueError):
            return None
    before = generation()
    node.memcached.restart_empty()
    eventually(10, "the node has a new memory", lambda: generation() not in (None, before))


def position_of(node):
    """On which step it stands, and how the latest change ended."""
    try:
        status = node.status()
    except (OSError, ValueError):
        return "silent", None
    transition, last = status.get("transition"), status.get("lastChange")
    return transition and transition["step"], last and last["outcome"]
