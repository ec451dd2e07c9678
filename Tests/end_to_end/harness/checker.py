# SPDX-License-Identifier: Apache-2.0
"""Is a history linearizable? Three ways to decide it, and a checker of sets.

Linearizability is local: a history is linearizable if and only if each key's is. So every checker here takes the
operations of one key, and returns None when they are in order, else a `Violation`.

* `check_versions`: the versions in the answers are a witness of the order. O(n log n). Passing proves linearizability.
* `check_zones`: exact for unique values, without versions. O(n log n). (Gibbons and Korach, "Testing shared
  memories", 1997; Golab, Li and Shah, "Analyzing consistency properties for fun and profit", 2011.)
* `check_search`: exact for any register. Exponential at worst, with a memo (Wing and Gong 1993, Lowe 2017, as in
  porcupine). It knows deletes, a write of None, and conditional writes.

A write that was certainly not done may not be read. One of unknown outcome may have been done at any time after its
call, or never.
"""

import bisect
from typing import NamedTuple

from .client import NO, OK, UNKNOWN
from .history import CONDITIONAL, FOREVER, NEVER, READ, Operation


class Violation(NamedTuple):
    key: str
    what: str
    operations: tuple

    def __str__(self):
        lines = "\n".join(f"      {operation}" for operation in sorted(self.operations, key=lambda o: o.called))
        return f"key {self.key!r}: {self.what}\n{lines}"


class Undecided(Exception):
    """The search gave up: too much concurrency or too many unknown writes on one key."""


def _reads_and_writes(operations):
    """The operations that bind: reads that were answered, and all writes by value, but for deletes."""
    reads = [operation for operation in operations if operation.kind == READ and operation.outcome == OK]
    writes = {}
    for operation in operations:
        if operation.is_write and not operation.is_delete:
            if operation.value in writes:
                raise ValueError(f"the value {operation.value!r} was written twice: these checkers need unique values")
            writes[operation.value] = operation
    return reads, writes


def _reads_of_nothing_written(reads, writes):
    """A violation that needs no order: a value that nobody wrote, that was refused, or that was read before it was written."""
    for read in reads:
        if read.value is None:
            continue
        write = writes.get(read.value)
        if write is None:
            return Violation(read.key, "a read found a value that nobody wrote to this key", (read,))
        if write.outcome == NO:
            return Violation(read.key, "a read found the value of a write that was refused as not applied", (write, read))
        if read.returned < write.called:
            return Violation(read.key, "a read found a value before it was written", (write, read))
    return None


# Versions


def check_versions(operations):
    """Passing proves linearizability where nothing was deleted; of deletes, and of what is found after them, it sees only
    those whose answers carry a version, and of conditional writes not the condition."""
    reads, writes = _reads_and_writes(operations)
    violation = _reads_of_nothing_written(reads, writes)
    if violation:
        return violation

    version_of_value, witness = {}, {}
    for operation in operations:
        if operation.outcome != OK or operation.value is None:
            continue
        if operation.version is None:
            return Violation(operation.key, "an answer without a version", (operation,))
        known = version_of_value.setdefault(operation.value, operation.version)
        witness.setdefault(operation.value, operation)
        if known != operation.version:
            return Violation(operation.key, "one value under two versions", (witness[operation.value], operation))
    value_of_version = {}
    for value, version in version_of_value.items():
        other = value_of_version.setdefault(version, value)
        if other != value:
            return Violation(witness[value].key, "two values under one version", (witness[other], witness[value]))

    deletes = [operation for operation in operations if operation.is_delete]
    for delete in deletes:
        if delete.outcome != OK:
            continue
        if delete.version is None:
            return Violation(delete.key, "an answer without a version", (delete,))
        if delete.version in value_of_version:
            return Violation(delete.key, "a delete under the version of another write",
                             (delete, *(o for o in operations if o is not delete and o.version == delete.version)))
        value_of_version[delete.version] = delete

    # Nothing found, where nothing was deleted, is older than every version; versions are fixed-width text, and "" sorts
    # before all of them.
    versioned = [(read, version_of_value[read.value]) for read in reads if read.value is not None]
    versioned += [(read, read.version or "") for read in reads if read.value is None and (read.version or not deletes)]
    versioned += [(delete, delete.version) for delete in deletes if delete.outcome == OK]
    versioned += [(write, version_of_value[value]) for value, write in writes.items()
                  if value in version_of_value and write.outcome != NO]
    by_return = sorted((pair for pair in versioned if pair[0].outcome != UNKNOWN), key=lambda pair: pair[0].returned)
    newest, newest_operation, next_returned = "", None, 0
    for operation, version in sorted(versioned, key=lambda pair: pair[0].called):
        while next_returned < len(by_return) and by_return[next_returned][0].returned < operation.called:
            if by_return[next_returned][1] >= newest:
                newest_operation, newest = by_return[next_returned]
            next_returned += 1
        if newest_operation is None:
            continue
        if version < newest:
            return Violation(operation.key, "an operation went back behind a version already seen",
                             (newest_operation, operation))
    return None


# Zones


class _Cluster(NamedTuple):
    """A write with the reads that found its value. `first_return` and `last_call` over all of them span its zone."""

    first_return: float
    last_call: float
    operations: tuple

    @property
    def is_forward(self):
        """The value was surely there all the time from first_return to last_call."""
        return self.first_return < self.last_call


def check_zones(operations):
    reads, writes = _reads_and_writes(operations)
    if needs_search(operations):
        raise ValueError("check_zones knows no deletes (nothing-found would be a value written twice) and no conditions")
    violation = _reads_of_nothing_written(reads, writes)
    if violation:
        return violation

    reads_of = {}
    for read in reads:
        reads_of.setdefault(read.value, []).append(read)
    clusters = []
    if None in reads_of:
        found_nothing = reads_of[None]
        clusters.append(_Cluster(NEVER, max(read.called for read in found_nothing), tuple(found_nothing)))
    for value, write in writes.items():
        its_reads = reads_of.get(value, ())
        if write.outcome == NO or (write.outcome == UNKNOWN and not its_reads):
            continue
        returned = FOREVER if write.outcome == UNKNOWN else write.returned
        clusters.append(_Cluster(min([returned, *(read.returned for read in its_reads)]),
                                 max([write.called, *(read.called for read in its_reads)]), (write, *its_reads)))

    forward = sorted((cluster for cluster in clusters if cluster.is_forward), key=lambda c: c.first_return)
    for earlier, later in zip(forward, forward[1:]):
        if later.first_return < earlier.last_call:
            return _violation_of_pair("two values alternate: each was seen after the other had replaced it", earlier, later)
    starts = [cluster.first_return for cluster in forward]
    for backward in clusters:
        if backward.is_forward:
            continue
        before = bisect.bisect_left(starts, backward.last_call) - 1
        if before >= 0 and backward.first_return < forward[before].last_call:
            return _violation_of_pair("a write was skipped: an older value was there before and after it",
                                      forward[before], backward)
    return None


def _violation_of_pair(what, *clusters):
    """The operations that matter: of each cluster the write, the first to return and the last to be called."""
    shown = []
    for cluster in clusters:
        for operation in (cluster.operations[0],
                          min(cluster.operations, key=lambda o: FOREVER if o.outcome == UNKNOWN else o.returned),
                          max(cluster.operations, key=lambda o: o.called)):
            if operation not in shown:
                shown.append(operation)
    return Violation(shown[0].key, what, tuple(shown))


# Search


def needs_search(operations):
    """True where zones don't do: a key with deletes or conditional writes."""
    return any(operation.is_delete or operation.kind == CONDITIONAL for operation in operations)


def _next_state(operation, state):
    """What the key holds after the operation, if it can have happened where the key holds `state`; else IMPOSSIBLE."""
    if operation.kind == READ:
        return state if operation.value == state else IMPOSSIBLE
    if operation.kind == CONDITIONAL:
        matches = operation.expected == state
        if operation.outcome == UNKNOWN:
            return operation.value if matches else state
        if operation.found_another_value:
            return IMPOSSIBLE if matches else state
        return operation.value if matches else IMPOSSIBLE
    return operation.value


IMPOSSIBLE = object()


def _binding(operations):
    """The operations that an order has to explain. Without conditional writes, an unknown write that nobody can have seen
    explains nothing, and would only multiply the orders to try."""
    binding = [o for o in operations if o.outcome == OK or o.found_another_value or (o.outcome == UNKNOWN and o.is_write)]
    if any(operation.kind == CONDITIONAL for operation in binding):
        return binding
    last_seen = {}
    for operation in binding:
        if operation.kind == READ:
            last_seen[operation.value] = max(operation.returned, last_seen.get(operation.value, NEVER))
    return [o for o in binding if o.outcome != UNKNOWN or last_seen.get(o.value, NEVER) >= o.called]


class _Event:
    """A call or a return in a doubly linked list ordered by time. A call of a finished operation knows its return."""

    __slots__ = ("operation", "index", "ends", "previous", "next")

    def __init__(self, operation, index):
        self.operation = operation
        self.index = index
        self.ends = None
        self.previous = self.next = None

    def unlink(self):
        self.previous.next = self.next
        if self.next:
            self.next.previous = self.previous

    def relink(self):
        self.previous.next = self
        if self.next:
            self.next.previous = self


def check_search(operations, initial=None, state_limit=1_000_000):
    binding = _binding(operations)
    if not binding:
        return None
    timeline, must_return = [], 0
    for index, operation in enumerate(binding):
        call = _Event(operation, index)
        timeline.append(((operation.called, 0, index), call))
        if operation.outcome != UNKNOWN:
            call.ends = _Event(operation, index)
            timeline.append(((operation.returned, 1, index), call.ends))
            must_return += 1
    head = last = _Event(None, -1)
    for _, event in sorted(timeline, key=lambda pair: pair[0]):
        last.next, event.previous = event, last
        last = event

    state, done, pending = initial, 0, must_return
    seen = {(0, initial)}
    undo = []
    entry = head.next
    while pending:
        is_return = entry is not None and entry.operation.outcome != UNKNOWN and entry.ends is None
        if entry is None or is_return:
            # A return whose operation is not yet placed, or no candidate left: take the last placement back.
            if not undo:
                return Violation(binding[0].key, "no order of these operations explains what was read", tuple(binding))
            entry, state = undo.pop()
            done &= ~(1 << entry.index)
            if entry.ends:
                entry.ends.relink()
                pending += 1
            entry.relink()
            entry = entry.next
            continue
        operation = entry.operation
        next_state = _next_state(operation, state)
        if next_state is IMPOSSIBLE:
            entry = entry.next
            continue
        placed = (done | (1 << entry.index), next_state)
        if placed in seen:
            entry = entry.next
            continue
        if len(seen) >= state_limit:
            raise Undecided(f"{state_limit} states were not enough for {len(binding)} operations on {operation.key!r}")
        seen.add(placed)
        undo.append((entry, state))
        done, state = placed
        entry.unlink()
        if entry.ends:
            entry.ends.unlink()
            pending -= 1
        entry = head.next
    return None


# Whole histories


def check_history(history, with_versions=True, state_limit=1_000_000):
    """All violations of a history of unique values: by zones or search (both exact), and by versions where answers carry
    them. Raises `Undecided` when a search gives up."""
    violations = []
    for operations in history.by_key.values():
        violation = check_search(operations, state_limit=state_limit) if needs_search(operations) else check_zones(operations)
        if violation is None and with_versions:
            violation = check_versions(operations)
        if violation:
            violations.append(violation)
    return violations


class SetDifference(NamedTuple):
    lost: set            # acknowledged, but not there
    unexpected: set      # there, but never tried
    recovered: set       # there, of unknown outcome


def check_set(acknowledged, attempted, present):
    """Unique elements that were added, compared with what is there at the end."""
    acknowledged, attempted, present = set(acknowledged), set(attempted), set(present)
    return SetDifference(acknowledged - present, present - attempted, (present & attempted) - acknowledged)
