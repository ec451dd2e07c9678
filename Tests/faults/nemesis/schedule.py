# SPDX-License-Identifier: Apache-2.0
"""Schedules of faults: drawn from a seed, printed as JSON, replayed from a file.

    {"scenario": "…", "seed": 7, "hosts": 4, "replicas": 1, "steps": [
        {"after": 300, "fault": "cut one way", "host": 2, "other": 1, "hold": 400, "seconds": 6},
        {"after": 250, "fault": "kill a worker", "host": 1, "worker": 0, "hold": 200, "seconds": 5,
         "ring change": {"through": 3, "lead": 0.4}}]}

`after`: so many answered operations after the one before has healed; `hold`: it is healed after so many more, or after
that many `seconds`. With a ring change, the standby joins, or leaves, meanwhile: asked for `lead` seconds before the fault.
One that names a `place` puts the standby, unless it is there, in the stead of whoever stands at that place of the first ring.
"""

from .faults import FAULTS

#: The share of ring changes that put the standby in another's stead, where it is not there.
REPLACEMENTS = 0.4


def draw_schedule(chooser, scenario, seed, hosts, replicas, kinds, steps, ring_changes):
    """Each kind in turn, in an order of the seed's; `ring_changes`: the share of steps in the middle of a ring change."""
    numbers = list(range(1, hosts + 1))
    order = []
    while len(order) < steps:
        turn = list(kinds)
        chooser.shuffle(turn)
        order += turn
    return {"scenario": scenario, "seed": seed, "hosts": hosts, "replicas": replicas,
            "steps": [_step(chooser, numbers, kind, chooser.random() < ring_changes) for kind in order[:steps]]}


def _step(chooser, hosts, kind, changes_ring):
    step = {"after": chooser.randint(150, 500), "fault": kind, **FAULTS[kind].draw(chooser, hosts),
            "hold": chooser.randint(150, 1500), "seconds": chooser.choice([2, 4, 6])}
    if changes_ring:
        step["ring change"] = {"through": chooser.choice(hosts), "lead": round(chooser.uniform(0, 1.5), 2)}
        # (A fault of a member's is not to find that it is none any more.)
        if "place" not in step and chooser.random() < REPLACEMENTS:
            step["ring change"]["place"] = chooser.choice(hosts[:-1])
    return step


def describe(step):
    known = ("after", "fault", "hold", "seconds", "ring change")
    details = ", ".join(f"{name} {value}" for name, value in step.items() if name not in known)
    change = f", while the ring changes through host {step['ring change']['through']}" if "ring change" in step else ""
    return f"{step['fault']}: {details}{change}"


def problem_with(schedule):
    """Why a schedule from a file can't be run, or None."""
    for field in ("scenario", "hosts", "replicas", "steps"):
        if field not in schedule:
            return f"a schedule needs {field!r}"
    for step in schedule["steps"]:
        missing = {"after", "fault", "hold", "seconds"} - step.keys()
        if missing or step["fault"] not in FAULTS:
            return f"not a step: {step}"
    return None
