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
import fnmatch
import importlib.util
import json
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

from harness.context import Context  # noqa: E402
from harness.expectations import TestFailure  # noqa: E402
from harness.processes import end_all  # noqa: E402

#: How long a test may take; a module's LIMIT_SECONDS or FULL_LIMIT_SECONDS says otherwise.
DEFAULT_LIMIT_SECONDS, DEFAULT_FULL_LIMIT_SECONDS = 120, 3600


def main():
    options = parse_arguments()
    tests = [path for path in sorted(HERE.glob("[0-9][0-9]_*.py")) if is_chosen(path.stem, options.only)]
    if options.list:
        for path in tests:
            print(f"{path.stem}: {(load_module(path).__doc__ or '').strip().splitlines()[0]}")
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
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


def is_chosen(name, patterns):
    return not patterns or any(pattern in name or fnmatch.fnmatch(name, pattern) for pattern in patterns)


def load_module(path):
    specification = importlib.util.spec_from_file_location(f"test_{path.stem}", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class OutOfTime(TestFailure):
    """A test took longer than it may."""


def run_test(path, context):
    """Runs one test and prints its line; True when it passed."""
    began = time.monotonic()
    problem = None
    try:
        module = load_module(path)
        limit = (getattr(module, "FULL_LIMIT_SECONDS", DEFAULT_FULL_LIMIT_SECONDS) if context.full
                 else getattr(module, "LIMIT_SECONDS", DEFAULT_LIMIT_SECONDS))
        signal.signal(signal.SIGALRM, lambda *_: raise_out_of_time(limit))
        signal.alarm(limit)
        module.run(context)
    except TestFailure as failure:
        problem = str(failure)
        place = traceback.extract_tb(failure.__traceback__)
        own = [frame for frame in place if frame.filename == str(path)]
        if own:
            problem += f"\n  at {path.name}:{own[-1].lineno}: {own[-1].line}"
    except Exception:
        problem = traceback.format_exc()
    finally:
        signal.alarm(0)
        end_all()
    seconds = time.monotonic() - began
    notes = f": {'; '.join(context.notes)}" if context.notes else ""
    print(f"{'FAILED' if problem else 'ok    '} {path.stem} ({seconds:.1f} s){notes}", flush=True)
    if problem:
        print("      " + problem.replace("\n", "\n      "), flush=True)
    return problem is None


def raise_out_of_time(limit):
    raise OutOfTime(f"took longer than {limit} s")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        end_all()
        sys.exit(130)
