# SPDX-License-Identifier: Apache-2.0
"""What a test is given: a seed, clusters, loads, and a place for its remarks."""

import json
import random

from .cluster import Cluster
from .workload import Load, LoadOptions


class Context:
    """One test's run. `full` asks for the long form; everything random comes from `random`, so that a seed repeats it."""

    def __init__(self, name, seed, full, log_directory, schedule=None):
        self.name = name
        self.seed = seed
        self.full = full
        self.random = random.Random(f"{seed}/{name}")
        self.notes = []
        self._log_directory = log_directory
        self._schedule = schedule
        self._clusters = 0

    def note(self, text):
        """A remark to print beside the result: a figure that was measured."""
        self.notes.append(text)

    def short_or_full(self, short, full):
        return full if self.full else short

    def cluster(self, **options):
        """A cluster of this test's own; use it in a `with` statement."""
        self._clusters += 1
        return Cluster(f"{self.name}.{self._clusters}", self._log_directory, **options)

    def load(self, addresses, keys, **options):
        """Clients that begin at once; use it in a `with` statement."""
        return Load(LoadOptions(addresses=addresses, keys=keys, seed=self.seed, **options))

    def schedule(self, make):
        """The faults that this run will inflict: made from the seed, or taken from `--schedule`; printed either way,
        so that a run can be repeated without them being drawn again."""
        steps = self._schedule if self._schedule is not None else make()
        print(f"      schedule of {self.name}: {json.dumps(steps)}", flush=True)
        return steps
