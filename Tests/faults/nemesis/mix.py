# SPDX-License-Identifier: Apache-2.0
"""What clients do while faults happen: an operation table over five kinds of keys.

* *registers* are read and overwritten: their order is decided by zones and versions, cheaply and exactly;
* *deletables* are deleted as well, so that their order has to be searched for: they get few operations each;
* *elements* are written once each: at the end, what was acknowledged has to be there;
* *buried* keys are written a few times, then deleted for good: nothing may bring them back;
* *conditional* keys are replaced on condition that they are what was seen last, and overwritten now and then.

A key is used for a while and then gives way to a new one, so that no check becomes long; one with some writes of
unknown outcome does so early. Keys that have given way are still read now and then.
"""

from typing import NamedTuple

from harness.client import OK, UNKNOWN, percent_encode, request_bytes
from harness.history import CONDITIONAL, READ, WRITE
from harness.workload import Draw, value_for

MOST_UNKNOWN_WRITES = 4


class Kind(NamedTuple):
    """A kind of keys: how often it is chosen, how many are in use at a time, how many operations one gets, and which."""

    weight: float
    at_a_time: int
    life: int
    operations: dict                    # name in OPERATIONS: weight


KINDS = {
    "register": Kind(0.40, 24, 200, {"read": 50, "write": 50}),
    "deletable": Kind(0.35, 24, 60, {"read": 50, "write": 35, "delete": 15}),
    "element": Kind(0.10, 1, 1, {"write": 1}),
    "buried": Kind(0.15, 12, 8, {"read": 25, "write": 75}),
    "conditional": Kind(0.25, 16, 60, {"read": 45, "write": 15, "replace": 40}),
}


class _Key:
    def __init__(self, name, kind, life):
        self.name = name
        self.kind = kind
        self.life = life
        self.begun = self.under_way = self.unknown = 0
        self.deleting = False           # buried: the delete has been sent
        self.last_seen = None           # (version, value) of the last value that was read or written

    @property
    def is_used_up(self):
        return self.begun >= self.life or self.unknown >= MOST_UNKNOWN_WRITES


class Mix:
    """The harness's loads ask it what to do next; all in one process, so that it knows what is under way."""

    def __init__(self, prefix, parameters=None, value_bytes=100):
        """`parameters` go into every request's query: `{"consistency": "strict"}`."""
        self._prefix = prefix
        self._query = b"".join(b"&%b=%b" % (name.encode(), percent_encode(value)) for name, value in (parameters or {}).items())
        self._value_bytes = value_bytes
        self._numbers = dict.fromkeys(KINDS, 0)
        self._in_use = {kind: [self._new_key(kind) for _ in range(rule.at_a_time)] for kind, rule in KINDS.items()}
        self._retired = []
        self._by_name = {key.name: key for keys in self._in_use.values() for key in keys}

    # What the load asks

    def draw(self, chooser, name):
        if self._retired and chooser.random() < 0.05:
            key = chooser.choice(self._retired)
            key.under_way += 1
            return read(self, key, name)
        kind = _weighted(chooser, {kind: rule.weight for kind, rule in KINDS.items()})
        place = chooser.randrange(len(self._in_use[kind]))
        key = self._in_use[kind][place]
        if key.is_used_up and (kind != "buried" or key.deleting or key.unknown):
            self._retired.append(key)
            key = self._in_use[kind][place] = self._new_key(kind)
            self._by_name[key.name] = key
        operation = _weighted(chooser, KINDS[kind].operations)
        if kind == "buried" and key.is_used_up:
            # The last write: once it is sent, and no other is under way, only reads follow.
            operation = "read" if key.under_way else "delete"
            key.deleting = operation == "delete"
        key.begun += 1
        key.under_way += 1
        return OPERATIONS[operation](self, key, name)

    def learn(self, operation):
        key = self._by_name[operation.key]
        key.under_way -= 1
        if operation.is_write and operation.outcome == UNKNOWN:
            key.unknown += 1
        if operation.outcome == OK and operation.version:
            key.last_seen = (operation.version, operation.value)

    # What the table's entries ask

    def target(self, key):
        return b"/route?key=%b%b" % (percent_encode(key.name), self._query)

    def form(self, key, name, headers=()):
        """A POST of a new value, and that value's short form."""
        wire, short = value_for(key.name, name, self._value_bytes)
        body = b"key=%b&val=%b" % (percent_encode(key.name), percent_encode(wire))
        target = b"/route" + (b"?" + self._query[1:] if self._query else b"")
        return request_bytes("POST", target, body, [("Content-Type", "application/x-www-form-urlencoded"), *headers]), short

    def _new_key(self, kind):
        self._numbers[kind] += 1
        return _Key(f"{self._prefix}{kind}{self._numbers[kind]}", kind, KINDS[kind].life)


def keys_of_kind(kind, names):
    return [name for name in names if name.rstrip("0123456789").endswith(kind)]


# The operation table. Each entry makes a request and says what it means to the checkers.


def read(mix, key, _name):
    return Draw(READ, key.name, None, request_bytes("GET", mix.target(key)))


def write(mix, key, name):
    request, short = mix.form(key, name)
    return Draw(WRITE, key.name, short, request)


def delete(mix, key, _name):
    return Draw(WRITE, key.name, None, request_bytes("DELETE", mix.target(key)))


def replace(mix, key, name):
    """A write on condition that the key still holds what was seen last (or, where nothing was seen, that it holds nothing)."""
    version, value = key.last_seen or (None, None)
    condition = ("If-Match", f'"{version}"') if value is not None else ("If-None-Match", "*")
    request, short = mix.form(key, name, [condition])
    return Draw(CONDITIONAL, key.name, short, request, value)


OPERATIONS = {"read": read, "write": write, "delete": delete, "replace": replace}


def _weighted(chooser, weights):
    return chooser.choices(list(weights), list(weights.values()))[0]
