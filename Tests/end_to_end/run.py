#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the end-to-end tests against a real cluster: daemons, memcacheds and HAProxy on loopback.

    run.py                      the short form, some minutes
    run.py --full               the long forms: every fault at every step, hours
    run.py --only memory        tests whose name contains that (or matches it as a pattern, as 3?_*)
    run.py --seed 7             what is drawn at random, drawn again
    run.py --schedule FILE      with --only: the schedule of faults that an earlier run printed
    run.py --list               names, and what they show

A test is a file `NN_what_it_shows.py` with a docstring and `run(context)`, which raises when something is wrong. The
daemon is KVSERVER_BINARY, or what `swift build -c release` made; KVSERVER_HAPROXY_CFG takes the place of haproxy.cfg.
"""

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

from harness.context import Context  # noqa: E402
from harness.processes import end_all  # noqa: E402
from harness.runner import chosen_tests, exit_on_signals, list_tests, run_test  # noqa: E402


def main():
    options = parse_arguments()
    tests = chosen_tests(HERE, options.only)
    if options.list:
        list_tests(tests)
        return 0
    exit_on_signals()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
    schedule = json.loads(Path(options.schedule).read_text()) if options.schedule else None
    log_directory = options.logs or tempfile.mkdtemp(prefix="kvserver-e2e-logs-")
    print(f"seed {seed}, {'long' if options.full else 'short'} form, logs of failures in {log_directory}", flush=True)
    failed = []
    try:
        for path in tests:
            context = Context(path.stem, seed, options.full, log_directory, schedule)
            if not run_test(path, context):
                failed.append(path.stem)
    finally:
        end_all()
        if not options.logs and not any(Path(log_directory).iterdir()):
            Path(log_directory).rmdir()
    if failed:
        print(f"failed: {' '.join(failed)} (again with --seed {seed})")
    print(f"{len(tests) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed or not tests else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="PATTERN", help="run the tests whose name contains or matches this")
    parser.add_argument("--list", action="store_true", help="name the tests and end")
    parser.add_argument("--seed", type=int, help="repeat what an earlier run drew at random")
    parser.add_argument("--full", action="store_true", help="the long forms")
    parser.add_argument("--schedule", metavar="FILE", help="faults to inflict, as an earlier run printed them")
    parser.add_argument("--logs", metavar="DIRECTORY", help="where logs of failed tests go")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        end_all()
        sys.exit(130)
