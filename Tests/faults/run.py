#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the fault tests: hosts with networks of their own, clients that record what they see, faults drawn from a seed.

    run.py --short              each scenario once, about five minutes (run.sh runs it for longer)
    run.py --minutes 60         each scenario, and then everything at once with seed after seed until the time is over
    run.py --mixed 20 --seconds 60    everything at once with 20 seeds, for so long each, and nothing else
    run.py --seed 7             what is drawn at random, drawn again
    run.py --schedule FILE      the faults that an earlier run printed, in the scenario that it names
    run.py --replicas 1         as many copies of each pair (3); with one, hosts keep their memory
    run.py --only 20            tests whose name contains that
    run.py --check FILE         a recorded history, checked again
    run.py --list               names, and what they show

A test is a file `NN_what_it_shows.py` with a docstring and `run(context)`, which raises when something is wrong. The
daemon is KVSERVER_BINARY, or what `swift build -c release` made. Networks take root, iproute2 and nftables; without them
the hosts share the loopback, and faults of the network are skipped, which the last lines say. So are faults of disks without
root, and syncs that fail without fiu-utils.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "end_to_end")]
sys.dont_write_bytecode = True

from harness.processes import end_all  # noqa: E402
from harness.runner import chosen_tests, exit_on_signals, list_tests, run_test  # noqa: E402
from nemesis import checks, disks  # noqa: E402
from nemesis.context import FaultContext  # noqa: E402
from nemesis.faults import DISK, NETWORK, SYNC  # noqa: E402
from nemesis.network import why_not  # noqa: E402
from nemesis.scene import read_history  # noqa: E402
from nemesis.schedule import problem_with  # noqa: E402

#: With fewer, the scenarios are run in their short form.
LONG_FORMS_TAKE_MINUTES = 15
#: What is repeated with seed after seed while there is time.
REPEATED = "40_everything_at_once"


def main():
    options = parse_arguments()
    if options.check:
        return check_again(options.check)
    schedule = read_schedule(options) if options.schedule else None
    tests = chosen_tests(HERE, options.only)
    if options.list:
        list_tests(tests)
        return 0
    exit_on_signals()
    run = Run(options, schedule)
    repeated = HERE / f"{REPEATED}.py"
    try:
        if options.mixed:
            run.run_mixed(repeated)
            return run.conclude()
        for path in tests:
            run.run(path, run.seed)
        if not options.short and schedule is None and repeated in tests:
            run.repeat_until_over(repeated)
    finally:
        end_all()
        run.close()
    return run.conclude()


class Run:
    """All tests of one call, and what became of them."""

    def __init__(self, options, schedule):
        self._options = options
        self._schedule = schedule
        self._has_time_for_long_forms = not options.short and options.minutes >= LONG_FORMS_TAKE_MINUTES
        self._until = time.monotonic() + options.minutes * 60
        self.seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
        self._log_directory = options.logs or tempfile.mkdtemp(prefix="kvserver-faults-logs-")
        self._passed, self._failed, self._skipped = 0, [], set()
        self._faults = self._operations = 0
        lacking = {NETWORK: "asked for by --loopback" if options.loopback else why_not(),
                   DISK: disks.keep_mounts_to_ourselves(), SYNC: disks.why_syncs_do_not_fail()}
        self._lacking = {what: why for what, why in lacking.items() if why}
        print(f"seed {self.seed}, {options.replicas} replicas, {'short' if options.short else f'{options.minutes:g} minutes'}, "
              f"logs of failures in {self._log_directory}", flush=True)
        self._warn()

    def _warn(self):
        if NETWORK in self._lacking:
            print(f"!!! NO FAULTS OF THE NETWORK: hosts can't have networks of their own here ({self._lacking[NETWORK]})", flush=True)

    def run(self, path, seed):
        context = FaultContext(path.stem, seed, self._has_time_for_long_forms, self._log_directory, self._schedule,
                               replicas=self._options.replicas, lacking=self._lacking,
                               seconds=self._options.mixed and self._options.seconds)
        try:
            passed = run_test(path, context)
            if passed and not context.did_nothing:
                self._passed += 1
            elif not passed:
                self._failed.append(f"{path.stem} (seed {seed})")
        finally:
            context.release()
        self._skipped.update(context.skipped)
        self._faults += context.faults_inflicted
        self._operations += context.operations_checked

    def run_mixed(self, path):
        for number in range(self._options.mixed):
            print(f"      seed {self.seed + number}", flush=True)
            self.run(path, self.seed + number)
        print(f"{self._options.mixed} runs of {self._options.seconds:g} s: {self._faults} faults, {self._operations} operations "
              f"checked, {len(self._failed)} runs failed", flush=True)

    def repeat_until_over(self, path):
        seed, longest = self.seed, 0.0
        while time.monotonic() + longest < self._until:
            began, seed = time.monotonic(), seed + 1
            print(f"      seed {seed}", flush=True)
            self.run(path, seed)
            longest = max(longest, time.monotonic() - began)

    def close(self):
        if not self._options.logs and not any(Path(self._log_directory).iterdir()):
            Path(self._log_directory).rmdir()

    def conclude(self):
        self._warn()
        if self._skipped:
            print(f"!!! SKIPPED: {', '.join(sorted(self._skipped))}")
        if self._failed:
            print(f"failed: {', '.join(self._failed)}")
        print(f"{self._passed} passed, {len(self._failed)} failed")
        return 1 if self._failed or not self._passed else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="each scenario once, with few faults")
    parser.add_argument("--minutes", type=float, default=30, help="how long to go on (30)")
    parser.add_argument("--mixed", type=int, metavar="RUNS", help="all faults at once, so many times, each with a seed of its own")
    parser.add_argument("--seconds", type=float, default=60, help="of each of these runs (60)")
    parser.add_argument("--seed", type=int, help="repeat what an earlier run drew at random")
    parser.add_argument("--replicas", type=int, default=3, choices=range(1, 4), help="copies of each pair (3)")
    parser.add_argument("--schedule", metavar="FILE", help="faults to inflict, as an earlier run printed them")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="run the tests whose name contains or matches this")
    parser.add_argument("--list", action="store_true", help="name the tests and end")
    parser.add_argument("--check", metavar="FILE", help="check a recorded history again")
    parser.add_argument("--loopback", action="store_true", help="no networks of the hosts' own, even where they can be had")
    parser.add_argument("--logs", metavar="DIRECTORY", help="where logs of failed tests go")
    return parser.parse_args()


def read_schedule(options):
    """The schedule in the file; its scenario, replicas and seed are taken over."""
    schedule = json.loads(Path(options.schedule).read_text())
    problem = problem_with(schedule)
    if problem:
        sys.exit(f"{options.schedule}: {problem}")
    options.only, options.replicas = [schedule["scenario"]], schedule["replicas"]
    if options.seed is None:
        options.seed = schedule.get("seed")
    return schedule


def check_again(path):
    history = read_history(path)
    findings = checks.linearizable(history) + checks.nothing_resurrected(history)
    if findings:
        print(checks.report(history, findings))
    print(f"{len(history)} operations, {len(findings)} findings, {checks.sessions(history)} steps back within a session")
    return 1 if findings else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        end_all()
        sys.exit(130)
