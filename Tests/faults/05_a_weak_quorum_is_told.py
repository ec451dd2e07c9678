# SPDX-License-Identifier: Apache-2.0
"""Three copies, of which one is enough for a read or a write: a host that is cut off from the others under load makes the run fail, and the failure tells the seed's schedule, the history and the story of the key with the fewest operations."""

import json
from pathlib import Path

from harness.expectations import TestFailure, expect
from nemesis import checks
from nemesis.faults import NETWORK
from nemesis.scene import read_history

LIMIT_SECONDS = 180


def run(context):
    if context.replicas < 3 or NETWORK in context.lacking:
        context.note("takes three copies, and networks of the hosts' own")
        context.did_nothing = True
        return
    host = context.random.randint(1, 3)
    step = {"after": 300, "fault": "cut off from all hosts", "host": host, "hold": 1500, "seconds": 4}
    try:
        with context.scene(parameters={"r": "1", "w": "1"}) as scene:
            scene.run({"steps": [step]})
    except TestFailure as failure:
        told = str(failure)
    else:
        raise TestFailure("reads and writes of one copy each, under a cut, and no check has noticed")
    finally:
        context.notes.clear()
    for words in ("linearizability: ", "the shortest story, of ", f"inflict cut off from all hosts: host {host}", "history.jsonl"):
        expect(words in told, f"the story lacks {words!r}:\n{told}")
    place = next(word for word in told.split() if word.endswith("history.jsonl"))
    first = json.loads(Path(place).read_text(encoding="utf-8").splitlines()[0])
    expect({"client", "key", "op", "value", "version", "t_call", "t_return", "outcome", "node", "status"} <= first.keys(),
           f"a line of the history lacks something: {first}")
    again = checks.linearizable(read_history(place))
    expect(again, "the history that was kept, checked again, is in order")
    context.forget_what_was_kept()
    context.note(f"{len(again)} keys found out")
