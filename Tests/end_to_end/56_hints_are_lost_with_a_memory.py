# SPDX-License-Identifier: Apache-2.0
"""A stand-in loses its memory, hints included: what was acknowledged is held by another of its W nodes, member or stand-in, and
comes to all members from there, deletions included."""

from harness.client import ask, request_bytes
from harness.expectations import eventually, expect, expect_equal
from harness.placement import keys_owned_by

HELD_WITHIN_SECONDS = 20


def run(context):
    count = context.short_or_full(60, 2000)
    positions = {1000: 1, 3000: 2, 5000: 3, 7000: 4, 9000: 5}
    # No snapshot: all that a memory had is gone with it. What a member alone holds, comparing replicas gives to the others.
    with context.cluster(nodes=5, replicas=3, positions=positions, proxy=False,
                         settings={"repairSeconds": 1, "snapshotSeconds": 0}) as cluster:
        keys = keys_owned_by(cluster.first_ring, cluster.node(2).address, count)
        members, stand_ins = [cluster.node(number) for number in (2, 3, 4)], [cluster.node(5), cluster.node(1)]
        expect_equal(cluster.first_ring.holders(keys[0]), [node.address for node in members], "who holds them")
        values = dict.fromkeys(keys)
        for away in (members[:1], members[1:], members):
            for loser in context.short_or_full(stand_ins[:1], stand_ins):
                hints = a_stand_in_forgets(cluster, values, members, away, stand_ins, loser)
                context.note(f"{len(away)} away: {hints} hints lost")


def a_stand_in_forgets(cluster, values, members, away, stand_ins, loser):
    """With these members away every pair is written; then that stand-in's memory is emptied. Returns how many hints were in it."""
    for node in away:
        node.end_daemon()
    there = [node for node in members if node not in away] + stand_ins
    for number, key in enumerate(values):
        node = there[number % len(there)]
        if number % 4 == 0:
            values[key] = None
            answer = ask(node.address, request_bytes("DELETE", f"/route?key={key}"))
        else:
            values[key] = f"{len(away)} away, {loser.name} forgets, {key}"
            answer = node.store(key, values[key])
        expect_equal(answer.status, 200, f"changing {key} at {node.name} with {len(away)} members away ({answer})")
    hints = len([name for name in loser.memcached.stored_names() if name.startswith(b"h")])
    loser.memcached.restart_empty()
    expect(hints > len(values) // 2 or len(away) == 1 and loser is stand_ins[1], f"{loser.name} had {hints} hints")
    for node in away:
        node.start_daemon()
    for node in away:
        node.wait_until_ready()

    def differing():
        found = {}
        for node in members:
            for key, value in values.items():
                answer = node.read(key, "/cache")
                if answer.status == 503 or (answer.text if answer.status == 200 else None) != value:
                    found[node.name, key] = str(answer)
        return found
    last = {}

    def is_held():
        last.clear()
        last.update(differing())
        return not last or None
    try:
        eventually(HELD_WITHIN_SECONDS, "all members hold all of it", is_held, interval=0.2)
    finally:
        if last:
            print(f"      {len(last)} differ, such as {list(last.items())[:3]}")
    eventually(HELD_WITHIN_SECONDS, "the emptied memory is refilled", lambda: not loser.status()["isRecovering"] or None)
    # (Each worker learns by its first write that its connection was to the memory that is lost; that write fails.)
    for number in range(40):
        loser.store(f"wake {number}", "x")
    for number, (key, value) in enumerate(values.items()):
        node = cluster.nodes[number % 5]
        for consistency in ("sloppy", "strict"):
            answer = node.get(f"/route?key={key}&consistency={consistency}")
            expect_equal(answer.text if answer.status == 200 else None, value, f"{key} at {node.name}, {consistency}: {answer}")
            expect(answer.status in (200, 404), f"reading {key} at {node.name}, {consistency}: {answer}")
    return hints
