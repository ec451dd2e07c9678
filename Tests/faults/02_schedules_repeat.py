# SPDX-License-Identifier: Apache-2.0
"""One seed is one schedule, another seed another; a schedule survives its way through JSON, and nonsense is refused."""

import json
import random

from harness.expectations import expect, expect_equal
from nemesis.faults import DISK, ENOUGH_REPLICAS, FAULTS, NETWORK, SYNC, possible_faults
from nemesis.schedule import describe, draw_schedule, problem_with


def run(context):
    def drawn(seed):
        return draw_schedule(random.Random(seed), "any", seed, 4, 3, list(FAULTS), 40, 0.5)
    first = drawn(context.seed)
    expect_equal(drawn(context.seed), first, "the same seed's schedule")
    expect(drawn(context.seed + 1)["steps"] != first["steps"], "two seeds have one schedule")
    expect_equal(json.loads(json.dumps(first)), first, "a schedule that went through JSON")
    expect_equal(problem_with(first), None, "what is wrong with a schedule that was drawn")
    expect({step["fault"] for step in first["steps"]} == set(FAULTS), "a fault is never drawn")
    expect(any("ring change" in step for step in first["steps"]), "no ring change is drawn")
    expect(all(describe(step) for step in first["steps"]), "a step can't be described")
    expect(problem_with({**first, "steps": [{"fault": "flood"}]}), "an unknown fault is accepted")
    expect(problem_with({"steps": []}), "half a schedule is accepted")

    possible, refused = possible_faults({NETWORK: "not root", DISK: "not root"}, replicas=1)
    expect("kill a worker" in possible and {"link down", "fill the disk", "lose the host"} <= refused.keys(), "faults without root")
    possible, refused = possible_faults({SYNC: "no fiu-utils"}, replicas=ENOUGH_REPLICAS)
    expect_equal((set(refused), refused["the disk does not sync"]), ({"the disk does not sync"}, "no fiu-utils"), "faults without fiu-utils")
    possible, refused = possible_faults({}, replicas=ENOUGH_REPLICAS)
    expect_equal((set(possible), refused), (set(FAULTS), {}), "faults where all can be inflicted")
