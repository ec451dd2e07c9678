# SPDX-License-Identifier: Apache-2.0
"""Where a key belongs: an independent reckoning to hold the daemon's against."""

import bisect
import hashlib

SLOT_COUNT = 10_000

#: The keys of the original's tests, with their slots.
TWELVE_KEYS = {
    "roof": 2184, "bed": 4019, "bathtub": 4324, "bee": 4603, "gate": 6051, "finger": 6823,
    "gas": 6952, "saddle": 8016, "mist": 8155, "flower": 8700, "shoes": 9235, "ship": 9381,
}


def slot_of(key):
    key_bytes = key.encode() if isinstance(key, str) else key
    return int.from_bytes(hashlib.md5(key_bytes).digest(), "big") % SLOT_COUNT


class Ring:
    """Positions and their nodes: a slot belongs to the first position at or after it, wrapping at the end."""

    def __init__(self, nodes_by_position):
        self.nodes_by_position = {int(position): node for position, node in nodes_by_position.items()}
        self._positions = sorted(self.nodes_by_position)

    def owner_of_slot(self, slot):
        index = bisect.bisect_left(self._positions, slot)
        return self.nodes_by_position[self._positions[index % len(self._positions)]]

    def owner(self, key):
        return self.owner_of_slot(slot_of(key))

    def holders(self, key, replicas=None):
        """The first `replicas` nodes clockwise (None: the daemon's default), or all, the owner first."""
        start = bisect.bisect_left(self._positions, slot_of(key))
        clockwise = (self._positions[start:] + self._positions[:start])
        return list(dict.fromkeys(self.nodes_by_position[position] for position in clockwise))[:replicas or 3]

    def adding(self, position, node):
        return Ring({**self.nodes_by_position, position: node})

    def removing(self, node):
        return Ring({p: n for p, n in self.nodes_by_position.items() if n != node})

    def replacing(self, old, new):
        return Ring({p: new if n == old else n for p, n in self.nodes_by_position.items()})

    def __eq__(self, other):
        return isinstance(other, Ring) and self.nodes_by_position == other.nodes_by_position

    def __repr__(self):
        return f"Ring({self.nodes_by_position})"


def keys_owned_by(ring, node, count, prefix="key"):
    """The first `count` names `prefix0, prefix1, …` that the ring gives to that node."""
    found, number = [], 0
    while len(found) < count:
        name = f"{prefix}{number}"
        if ring.owner(name) == node:
            found.append(name)
        number += 1
    return found
