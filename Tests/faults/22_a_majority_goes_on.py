# SPDX-License-Identifier: Apache-2.0
"""Three copies, and one host is cut off from the others, or its link is down: those who ask the majority's hosts have no error after the
first second, reads and writes alike (but for conditional writes that it decides); those who ask the host alone are told 503."""

import time

from harness.client import OK
from harness.expectations import expect
from harness.history import CONDITIONAL
from nemesis.faults import NETWORK

LIMIT_SECONDS = 180

ERRORS_FOR_SECONDS = 1.0


def run(context):
    if context.replicas < 3 or NETWORK in context.lacking:
        context.note("takes three copies, and networks of the hosts' own")
        context.did_nothing = True
        return
    cuts = context.short_or_full(2, 8)
    done = []
    with context.scene() as scene:
        for number in range(cuts):
            host = context.random.randint(1, 3)
            link_is_down = number % 2 == 1
            scene.load.wait_for_more(200, 60)
            scene.wait_until_well(15, "before a cut")
            scene.mark(f"host {host} is {'without a link' if link_is_down else 'cut off'}")
            began = time.monotonic_ns()
            cut_off(scene, host, link_is_down)
            cut = time.monotonic_ns()
            time.sleep(5)
            ended = time.monotonic_ns()
            scene.network.heal()
            scene.wait_until_well(15, "after a cut")
            done.append((host, link_is_down, began, cut, ended))
        scene.check_all()
        for cut in done:
            check(context, scene, *cut)


def cut_off(scene, host, link_is_down):
    """With a link that is down clients don't reach it either."""
    if link_is_down:
        scene.network.take_link_down(host)
    else:
        for other in scene.network.others(host, with_clients=False):
            scene.network.separate(host, other)


def check(context, scene, host, link_is_down, began, cut, ended):
    alone = scene.cluster.node(host).address
    others = set(scene.cluster.addresses) - {alone}
    during = [operation for operations in scene.history.by_key.values() for operation in operations
              if began <= operation.called < ended and operation.client.startswith("c")]
    at_majority = [operation for operation in during if operation.node in others]
    # (Of a conditional write one node decides, the slot's first owner; nobody else does while it is away.)
    ring = scene.cluster.first_ring
    failed = [o for o in at_majority if o.outcome != OK and not o.found_another_value
              and not (o.kind == CONDITIONAL and ring.owner(o.key) == alone)]
    late = [o for o in failed if o.called > cut + ERRORS_FOR_SECONDS * 1e9]
    expect(not late, f"{len(late)} of {len(at_majority)} operations failed at hosts that are a majority, more than {ERRORS_FOR_SECONDS} s "
                     f"after host {host} was cut off, such as {late[0] if late else ''}")
    for kind in "rw":
        well = [o for o in at_majority if o.kind == kind and o.outcome == OK and o.called > cut]
        expect(len(well) > 100, f"only {len(well)} operations of kind {kind} were answered by the majority's hosts in five seconds")
    # (What began shortly before the end may be answered after it.)
    at_minority = [o for o in during if o.node == alone and o.called > cut and o.returned < ended]
    if not link_is_down:
        wrong = [o for o in at_minority if o.outcome == OK or o.status != 503]
        expect(not wrong, f"{len(wrong)} of {len(at_minority)} operations at a host that is alone were not told 503: {wrong[:2]}")
        expect(len(at_minority) > 5, f"only {len(at_minority)} operations were tried at the host that is alone")
    else:
        answered = [o for o in at_minority if o.status]
        expect(not answered, f"a host without a link answered: {answered[:2]}")
    last = max((o.called - cut for o in failed), default=0) / 1e9
    slowest = max((o.returned - o.called for o in at_majority if o.outcome == OK), default=0) / 1e6
    context.note(f"{'link down' if link_is_down else 'cut off'}: {len(at_majority)} operations at the majority's hosts, {len(failed)} failed, the "
                 f"last {max(last, 0):.2f} s after the cut, the slowest took {slowest:.0f} ms; {len(at_minority)} at the host alone, all refused")
