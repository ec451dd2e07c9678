# SPDX-License-Identifier: Apache-2.0
"""A real ring change is interrupted at each step, on each side, in each way: it ends within 10 s of healing, one ring everywhere, nothing lost, no orphans.

A case is a change, the failpoint at which it is held, the victim's part in it, and what happens to the victim while the
change is held. The short form draws some cases by the seed; --full runs them all.
"""

import itertools
import time

from harness.aftermath import expect_nothing_lost
from harness.client import ConnectionLost
from harness.expectations import TestFailure, eventually, expect, expect_equal
from harness.history import History
from harness.scene import POSITIONS, Scene, begin_and_hold
from harness.workload import store_many

LIMIT_SECONDS = 240
FULL_LIMIT_SECONDS = 6 * 3600
SHORT_CASES = 6
HEALED_WITHIN_SECONDS = 10
PAUSE_SECONDS = 5

#: Failpoints in the order of the ladder, each with the step that the coordinator's status shows while it is held there.
POINTS = {
    "ring.prepare": None,
    "ring.announce.copying": None,
    "ring.announced.copying": "copying",
    "ring.job.copy.batch": "copying",
    "ring.announce.crossing": "copying",
    "ring.announced.crossing": "crossing",
    "ring.job.verify.batch": "crossing",
    "ring.announce.settling": "crossing",
    "ring.announced.settling": "settling",
    "ring.announce.cleaning": "settling",
    "ring.announced.cleaning": "cleaning",
    "ring.job.clean.batch": "cleaning",
    "ring.finish": "cleaning",
}
#: Until here the losing node alone holds all the pairs that move, and from the second one on the gaining node does.
LAST_POINT_WITH_ONE_COPY = "ring.job.copy.batch"
FIRST_POINT_WITH_ONE_COPY_AGAIN = "ring.announced.cleaning"

VICTIMS = ("coordinator", "loser", "gainer", "bystander")
KINDS = ("kill worker", "kill workers", "empty memcached", "pause host")
CHANGES = ("add", "remove")


def run(context):
    cases = context.schedule(lambda: draw_cases(context))
    failures, missing = [], 0
    for change, point, victim, kind in cases:
        try:
            missing += run_case(context, change, point, victim, kind)
        except TestFailure as failure:
            failures.append(f"case {[change, point, victim, kind]}: {failure}")
    expect(not failures, f"{len(failures)} of {len(cases)} cases failed:\n" + "\n".join(failures))
    context.note(f"{len(cases)} cases; {missing} pairs were gone whose only copy was in a memcached that was emptied")


def draw_cases(context):
    """All cases in --full; else some, at different points and with the kinds and victims in turn."""
    every = [list(case) for case in itertools.product(CHANGES, POINTS, VICTIMS, KINDS)]
    if context.full:
        return every
    context.random.shuffle(every)
    chosen = []
    for number in range(SHORT_CASES):
        points = {case[1] for case in chosen}
        chosen.append(next(case for case in every if case[1] not in points and case[3] == KINDS[number % len(KINDS)]
                           and [c[2] for c in chosen].count(case[2]) < 2))
    return chosen


def may_be_missing(scene, keys, point, victim):
    """The keys of which the victim's memcached holds the only copy while the change is held there."""
    address = scene.parts[victim].address
    points = list(POINTS)
    if points.index(point) <= points.index(LAST_POINT_WITH_ONE_COPY):
        return {key for key in keys if scene.before.owner(key) == address}
    if points.index(point) >= points.index(FIRST_POINT_WITH_ONE_COPY_AGAIN):
        return {key for key in keys if scene.after.owner(key) == address}
    return {key for key in keys if scene.before.owner(key) == address and not scene.is_moving(key)}


def run_case(context, change, point, victim, kind):
    """Returns how many pairs were rightly gone."""
    keys = [f"key{number}" for number in range(3000)]
    with context.cluster(nodes=4, positions=POSITIONS[change], proxy=False, memory_megabytes=64, hash_power=16) as cluster:
        scene = Scene(cluster, change)
        sufferer = scene.parts[victim]
        stored = History(store_many(cluster.addresses, keys, "bulk"))
        busy = [key for key in keys if scene.is_moving(key)][:150] + [key for key in keys if not scene.is_moving(key)][:100]
        asked = [node.address for node in cluster.nodes if node is not sufferer]
        with context.load(asked, busy, connections=6, processes=1, write_fraction=0.5, rate=800) as load:
            load.wait_for_more(200)
            answer = interrupt(cluster, scene, point, sufferer, kind, context.random)
            healed = time.monotonic()
            # The answer comes first where somebody is left to give it: before the first document nothing shows that a change
            # is on its way.
            outcome = answer()
            ring = cluster.wait_for_one_ring(max(0.1, HEALED_WITHIN_SECONDS - (time.monotonic() - healed)))
            seconds = time.monotonic() - healed
            load.wait_for_more(300)
            result = load.stop()
        expect(ring in (scene.before, scene.after), f"the ring in the end is neither the old nor the new one: {ring}")
        if outcome is not None and outcome.status == 200:
            expect_equal(ring, scene.after, "the ring, though the change was answered with OK")
        excused = may_be_missing(scene, keys, point, victim) if kind == "empty memcached" else set()
        _, missing = expect_nothing_lost(cluster, stored, result.history, except_keys=excused)
        wait_until_only_owners_hold(cluster, ring, max(0.0, HEALED_WITHIN_SECONDS - seconds))
        cluster.expect_pairs_only_at_owners(ring, wanted_keys=set(keys) - excused)
        another_change_works(cluster, scene, ring)
        cluster.accept_present_workers()
        return len(missing)


def interrupt(cluster, scene, point, sufferer, kind, random):
    """Begins the change, holds it at the point, does its deed to the victim, lets go, and heals. Returns how to await the change's answer."""
    held, asking = begin_and_hold(cluster, scene, point, POINTS[point])
    if kind == "kill worker":
        sufferer.kill_worker(random)
    elif kind == "kill workers":
        sufferer.kill_all_workers()
    elif kind == "empty memcached":
        sufferer.memcached.restart_empty()
    else:
        sufferer.pause_host()
    held.unlink()
    if kind == "pause host":
        time.sleep(PAUSE_SECONDS)
        sufferer.resume_host()

    def answer():
        with asking:
            try:
                return asking.read_answer()
            except ConnectionLost:
                return None
    return answer


def wait_until_only_owners_hold(cluster, ring, seconds):
    def no_strangers():
        try:
            cluster.expect_pairs_only_at_owners(ring)
            return True
        except TestFailure:
            return False
    eventually(max(seconds, 0.1), "no node holds pairs that it does not own", no_strangers, interval=0.2)


def another_change_works(cluster, scene, ring):
    """The change once more, or back: whatever was left behind must not be in its way."""
    for node in cluster.nodes:
        node.set_failpoints()
    third = cluster.node(3).address
    adds = third not in ring.nodes_by_position.values()
    target = f"/add_node/5000/{third}" if adds else f"/remove_node/{third}"
    wanted = ring.adding(5000, third) if adds else ring.removing(third)
    answer = cluster.node(1).get(target, timeout=40)
    expect_equal((answer.status, answer.body), (200, b"OK"), f"{target} after the interrupted change")
    expect_equal(cluster.wait_for_one_ring(), wanted, f"the ring after {target}")
    cluster.expect_pairs_only_at_owners(wanted)
