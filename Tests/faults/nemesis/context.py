# SPDX-License-Identifier: Apache-2.0
"""What a fault test is given, beyond what an end-to-end test is: replicas, hosts' networks, and schedules."""

import json
import shutil
from pathlib import Path

from harness.context import Context
from harness.expectations import TestFailure

from .faults import NETWORK, possible_faults
from .network import Network
from .scene import HOSTS, Scene
from .schedule import draw_schedule

#: From the beginning of one fault to that of the next.
SHORTEST_STEP_SECONDS = 1.5


class FaultContext(Context):
    """`lacking`: what hosts can't have of their own here, and why not. Without networks they share the loopback.
    `seconds`: for how long faults are begun, instead of a number of them."""

    def __init__(self, name, seed, full, log_directory, schedule, *, replicas, lacking, seconds=None):
        super().__init__(name, seed, full, log_directory, schedule)
        self.replicas = replicas
        self.lacking = lacking
        self.faults_inflicted = self.operations_checked = 0
        self._log_directory = Path(log_directory)
        self._seconds = seconds
        self._networks = []
        self.skipped = []               # faults that this run can't inflict, and why
        self.did_nothing = False

    @property
    def given_schedule(self):
        """The one from a file; None: one is drawn."""
        return self._schedule

    def new_network(self, hosts):
        if NETWORK in self.lacking:
            return None
        network = Network(hosts)
        self._networks.append(network)
        return network

    def network_is_gone(self, network):
        if network in self._networks:
            self._networks.remove(network)
            network.release()

    def release(self):
        for network in list(self._networks):
            self.network_is_gone(network)

    def scene(self, **options):
        return Scene(self, self.replicas, **options)

    def keep(self, name, write):
        """Writes a file beside the logs, and returns its path."""
        place = self._log_directory / self.name / name
        place.parent.mkdir(parents=True, exist_ok=True)
        write(place)
        return place

    def forget_what_was_kept(self):
        """For a test whose clusters were to fail."""
        for place in self._log_directory.glob(f"{self.name}*"):
            shutil.rmtree(place)

    def run_faults(self, kinds, steps, ring_changes=0.0):
        """A scene in which these faults happen, as a schedule drawn from the seed has them, or the one that was given."""
        possible, refused = possible_faults(self.lacking, self.replicas)
        skipped = [f"{kind} ({refused[kind]})" for kind in kinds if kind in refused and self._schedule is None]
        if skipped:
            self.note(f"SKIPPED: {', '.join(skipped)}")
            self.skipped = skipped
        kinds = [kind for kind in kinds if kind in possible]
        if not kinds:
            self.did_nothing = True
            return
        if self._seconds:
            steps = int(self._seconds / SHORTEST_STEP_SECONDS) + 1
        schedule = self.schedule(lambda: draw_schedule(self.random, self.name, self.seed, HOSTS, self.replicas, kinds, steps,
                                                       ring_changes))
        with self.scene() as scene:
            try:
                scene.run(schedule, self._seconds)
            except TestFailure as failure:
                place = self.keep("schedule.json", lambda path: path.write_text(json.dumps(schedule, indent=1)))
                raise TestFailure(f"seed {self.seed}, schedule {place}: {failure}") from failure
