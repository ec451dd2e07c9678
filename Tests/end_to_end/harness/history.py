# SPDX-License-Identifier: Apache-2.0
"""What clients did and saw: the input of the checkers.

Times are monotonic nanoseconds, one clock for all processes of the machine. Every written value is unique. A read that
found nothing has the value None. A client that got no definite answer to a write goes on under a new name: the
old one never comes back, as in Jepsen's histories.
"""

import json
from collections import defaultdict
from typing import NamedTuple, Optional

from .client import NO, OK, UNKNOWN

READ, WRITE = "r", "w"
#: A write that is done only where the key holds `expected`; else it is refused with 412, and has told as much.
CONDITIONAL = "c"
FOREVER = float("inf")
NEVER = float("-inf")


class Operation(NamedTuple):
    client: str
    key: str
    kind: str                   # READ, WRITE or CONDITIONAL
    value: Optional[str]        # written or found; None: deleted, or nothing found
    version: Optional[str]      # as the answer gave it
    called: float
    returned: float
    outcome: str                # OK, NO or UNKNOWN
    node: str = ""
    status: int = 0
    expected: Optional[str] = None      # what a conditional write asks for; None: nothing

    @property
    def is_write(self):
        return self.kind != READ

    @property
    def is_delete(self):
        return self.kind == WRITE and self.value is None

    @property
    def found_another_value(self):
        """A conditional write that was refused because the key held something else."""
        return self.kind == CONDITIONAL and self.outcome == NO and self.status == 412

    def __str__(self):
        verb = {READ: "read ", WRITE: "deleted, leaving" if self.is_delete else "wrote",
                CONDITIONAL: f"replaced {self.expected!r} by"}[self.kind]
        ended = "never answered" if self.outcome == UNKNOWN else f"{self.returned}"
        return (f"[{self.called} … {ended}] {self.client} {verb} {self.value!r} "
                f"{self.outcome} version={self.version} status={self.status} at {self.node}")


class History:
    """Operations by key."""

    def __init__(self, operations=()):
        self.by_key = defaultdict(list)
        self.extend(operations)

    def add(self, operation):
        self.by_key[operation.key].append(operation)

    def extend(self, operations):
        for operation in operations:
            self.by_key[operation.key].append(operation)

    def __len__(self):
        return sum(len(operations) for operations in self.by_key.values())

    def acknowledged_keys(self):
        """The keys that some acknowledged write has given a value."""
        return {key for key, operations in self.by_key.items()
                if any(operation.is_write and operation.outcome == OK for operation in operations)}

    def count(self, kind, outcome):
        return sum(1 for operations in self.by_key.values() for operation in operations
                   if operation.kind == kind and operation.outcome == outcome)

    def without_keys(self, keys):
        kept = History()
        kept.by_key.update({key: operations for key, operations in self.by_key.items() if key not in keys})
        return kept

    def settled(self):
        """A shorter history to go on with, after a check at whose end each key was read while nothing else ran: what the
        last read found is the first write, and the writes that may still land are kept."""
        shorter = History()
        for key, operations in self.by_key.items():
            reads = [operation for operation in operations if operation.kind == READ and operation.outcome == OK]
            if not reads:
                shorter.extend(operations)
                continue
            last = max(reads, key=lambda read: read.returned)
            for operation in operations:
                if operation.kind == WRITE and operation.value == last.value:
                    shorter.add(operation._replace(outcome=OK, version=last.version,
                                                   returned=min(operation.returned, last.called)))
                elif operation.kind == WRITE and operation.outcome == UNKNOWN:
                    shorter.add(operation)
        return shorter


def write_operations(path, operations):
    """JSON lines, an array an operation."""
    with open(path, "w", encoding="utf-8") as file:
        for operation in operations:
            file.write(json.dumps(operation, ensure_ascii=False, separators=(",", ":")) + "\n")


def read_operations(path):
    with open(path, encoding="utf-8") as file:
        return [Operation(*json.loads(line)) for line in file]


def parse_history(text, key="x"):
    """Operations from a short notation, a line each: `client kind value called..returned [outcome] [@version] [status] [=expected]`.

    `a w one 1..2`, `b r - 3..4` (nothing found), `a w two 5.. unknown`, `a w three 5..6 no @0007`,
    `a c four 7..8 =three` (a conditional write), `a c five 9..10 no 412 =three` (one that found something else).
    """
    operations = []
    for line in text.strip().splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        client, kind, value, times, *rest = words
        called, _, returned = times.partition("..")
        version = next((word[1:] for word in rest if word.startswith("@")), None)
        expected = next((word[1:] for word in rest if word.startswith("=")), "-")
        status = next((int(word) for word in rest if word.isdigit()), 0)
        outcome = next((word for word in rest if word in (OK, NO, UNKNOWN)), OK)
        operations.append(Operation(client, key, kind, None if value == "-" else value, version,
                                    float(called), float(returned) if returned else FOREVER, outcome, "", status,
                                    None if expected == "-" else expected))
    return operations
