# SPDX-License-Identifier: Apache-2.0
"""Three copies, and one host's link carries 1 Mbit/s, or its packets come 200 ms late: whoever asks the other hosts their answers as
fast as ever; reads ask it last, once a heartbeat or an answer has shown that it is slow."""

import time

from harness.client import OK
from harness.expectations import eventually, expect
from harness.history import CONDITIONAL, READ, WRITE
from nemesis.faults import NETWORK

LIMIT_SECONDS = 180

#: As many times as without the slow link; and so many milliseconds as the clock of a busy machine may be off.
TIMES, NOISE_MILLISECONDS = 2.0, 15.0
#: After this a read asks another member: a link that is slow now and then is found out by reads that wait for as long.
PATIENCE_MILLISECONDS = 50.0
#: A heartbeat a second, and what it found is looked at twice a second.
SECONDS_TO_FIND_OUT = 2.0
AS_EVER, NARROW, LATE = "as ever", "1 Mbit/s", "200 ms late"
VERBS = {READ: "reads", WRITE: "writes"}


def run(context):
    if context.replicas < 3 or NETWORK in context.lacking:
        context.note("takes three copies, and networks of the hosts' own")
        context.did_nothing = True
        return
    seconds = context.short_or_full(5, 30)
    host = context.random.randint(1, 3)
    phases = {}
    with context.scene() as scene:
        scene.load.wait_for_more(300, 60)
        began = time.monotonic_ns()
        time.sleep(seconds)
        phases[AS_EVER] = (began, time.monotonic_ns())
        for name in (NARROW, LATE):
            scene.wait_until_well(15, "before a slow link")
            if name == NARROW:
                scene.network.slow_down(host, 1000)
            else:
                scene.network.delay(host, 200)
            time.sleep(SECONDS_TO_FIND_OUT)
            began = time.monotonic_ns()
            time.sleep(seconds)
            # (Some of the clients wait at the slow host most of the time.)
            scene.load.wait_for_more(400, 60)
            phases[name] = (began, time.monotonic_ns())
            if name == NARROW:
                eventually(5, "packets wait", scene.network.held_back_packets)
            else:
                scene.network.expect_wires_to_work()
                expect(scene.seconds_to_connect(host) > 0.18, "the link is not late")
            scene.network.heal()
        scene.check_all()
        check(context, scene, host, phases)


def check(context, scene, host, phases):
    slow = scene.cluster.node(host).address
    others = {node.address for node in scene.cluster.nodes} - {slow}
    ring = scene.cluster.first_ring
    p99 = {}
    for name, (began, ended) in phases.items():
        asked = [o for operations in scene.history.by_key.values() for o in operations
                 if began <= o.called < ended and o.node in others and o.client.startswith("c")]
        failed = [o for o in asked if o.outcome != OK and not o.found_another_value
                  and not (o.kind == CONDITIONAL and ring.owner(o.key) == slow)]
        expect(not failed, f"{name}: {len(failed)} of {len(asked)} operations failed, such as {failed[:1]}")
        for kind in (READ, WRITE):
            p99[name, kind] = percentile(99, asked, kind)
            if name != AS_EVER:
                bound = TIMES * p99[AS_EVER, kind] + NOISE_MILLISECONDS + (PATIENCE_MILLISECONDS if (name, kind) == (NARROW, READ) else 0)
                expect(p99[name, kind] <= bound, f"{name}: the 99th percentile of {VERBS[kind]} through the other hosts is "
                                                 f"{p99[name, kind]:.0f} ms, as ever {p99[AS_EVER, kind]:.0f} ms")
        context.note(f"{name}: {len(asked)} operations, p99 of reads {p99[name, READ]:.1f} ms (median {percentile(50, asked, READ):.1f}), of "
                     f"writes {p99[name, WRITE]:.1f} ms")


def percentile(percent, operations, kind):
    """Of the milliseconds that answered operations of that kind took."""
    times = sorted((o.returned - o.called) / 1e6 for o in operations if o.kind == kind and o.outcome == OK)
    expect(len(times) >= 100, f"only {len(times)} operations of kind {kind} were answered")
    return times[len(times) * percent // 100]
