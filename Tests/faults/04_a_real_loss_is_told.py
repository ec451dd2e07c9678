# SPDX-License-Identifier: Apache-2.0
"""One copy, and its memory is emptied under load, which loses acknowledged writes: the same run that passes without that fault fails, and tells the story."""

import json

from harness.expectations import TestFailure, expect

LIMIT_SECONDS = 180

STEPS = [{"after": 300, "fault": "kill a worker", "host": 2, "worker": 0, "hold": 200, "seconds": 2},
         {"after": 300, "fault": "empty memcached", "host": 2, "hold": 200, "seconds": 2}]


def run(context):
    if context.replicas > 1:
        context.note("only one copy can be lost like this")
        context.did_nothing = True
        return
    with context.scene(settings={"snapshotSeconds": 0}) as scene:
        scene.run({"steps": STEPS[:1]})
    try:
        with context.scene(settings={"snapshotSeconds": 0}) as scene:
            scene.run({"steps": STEPS})
    except TestFailure as failure:
        told = str(failure)
    else:
        raise TestFailure("a memory was emptied, and no check has noticed")
    finally:
        context.notes.clear()
    for words in ("lost writes: ", "linearizability: ", "the shortest story", "inflict empty memcached: host 2", "history.jsonl"):
        expect(words in told, f"the story lacks {words!r}:\n{told}")
    history = next(word for word in told.split() if word.endswith("history.jsonl"))
    with open(history, encoding="utf-8") as file:
        first = json.loads(file.readline())
    expect({"client", "key", "op", "value", "version", "t_call", "t_return", "outcome", "node", "status"} <= first.keys(),
           f"a line of the history lacks something: {first}")
    context.forget_what_was_kept()
