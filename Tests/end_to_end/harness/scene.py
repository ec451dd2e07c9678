# SPDX-License-Identifier: Apache-2.0
"""A ring change whose steps a test looks at: who plays which part in it, and how to hold it at a failpoint."""

import time

from .client import Connection, request_bytes
from .expectations import eventually, expect
from .placement import Ring

#: Of the nodes in the ring before the change.
POSITIONS = {"add": {3000: 1, 8000: 2, 9500: 4}, "remove": {3000: 1, 5000: 3, 8000: 2, 9500: 4}}


class Scene:
    """A cluster of four, a change, and who plays which part in it. Both changes move the same slots between nodes 2 and 3."""

    def __init__(self, cluster, change):
        first, second, third, fourth = cluster.nodes
        without = Ring({3000: first.address, 8000: second.address, 9500: fourth.address})
        with_third = without.adding(5000, third.address)
        self.before, self.after = (without, with_third) if change == "add" else (with_third, without)
        loser, gainer = (second, third) if change == "add" else (third, second)
        self.parts = {"coordinator": fourth, "loser": loser, "gainer": gainer, "bystander": first}
        self.target = f"/add_node/5000/{third.address}" if change == "add" else f"/remove_node/{third.address}"

    def is_moving(self, key):
        return self.before.owner(key) != self.after.owner(key)


def begin_and_hold(cluster, scene, point, step):
    """Begins the change and holds it at the failpoint, which comes after this step.

    Returns the file that holds it as long as it is there, and the connection on which the answer will come.
    """
    held = cluster.directory / "held"
    held.touch()
    # Jobs are held where pairs are lost only: gaining nodes clean up before a change begins.
    for node in [scene.parts["loser"]] if ".job." in point else cluster.nodes:
        node.set_failpoints(f"{point}=hold:{held}")
    coordinator = scene.parts["coordinator"]
    asking = Connection(coordinator.address, timeout=60)
    asking.send(request_bytes("GET", scene.target))

    def state():
        transition = coordinator.status().get("transition")
        return transition and (transition["id"], transition["step"])

    def stands_still():
        first = state()
        time.sleep(0.4)
        return first == state() and (first[1] if first else None) == step
    eventually(10, f"the change is held at {point}", stands_still)
    expect(not asking.has_bytes_waiting(), f"the change was answered though it should be held at {point}: is that failpoint never reached?")
    return held, asking
