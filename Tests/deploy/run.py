#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests what sets the store up: scripts, systemd units, HAProxy's configuration, and a life of the local cluster.

    run.py                  all of them
    run.py --only local     tests whose name contains that
    run.py --list           their names

A test is a function `test_…` in a file `NN_subject.py`; it raises when something is wrong. The daemon is
KVSERVER_BINARY, or what `swift build -c release` left in .build; without one, what needs it fails.
"""

import argparse
import importlib.util
import signal
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

from support import Failure, Skipped, clean_up  # noqa: E402

#: How long a test may take; its `limit_seconds` says otherwise.
LIMIT_SECONDS = 120


class OutOfTime(Failure):
    """A test took longer than it may."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="TEXT", help="run the tests whose name contains this")
    parser.add_argument("--list", action="store_true", help="name the tests and end")
    options = parser.parse_args()
    tests = [(name, test) for name, test in find_tests()
             if not options.only or any(text in name for text in options.only)]
    if options.list:
        print(*(name for name, _ in tests), sep="\n")
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    outcomes = [run_test(name, test) for name, test in tests]
    if outcomes.count("skipped"):
        print(f"{outcomes.count('skipped')} skipped")
    print(f"{outcomes.count('ok')} passed, {outcomes.count('FAILED')} failed")
    return 0 if "ok" in outcomes and "FAILED" not in outcomes else 1


def find_tests():
    """Every test, in the order of files and of lines."""
    for path in sorted(HERE.glob("[0-9][0-9]_*.py")):
        specification = importlib.util.spec_from_file_location(f"deploy_{path.stem}", path)
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        for name, value in list(vars(module).items()):
            if name.startswith("test_"):
                yield f"{path.stem}: {name[len('test_'):]}", value


def run_test(name, test):
    """Runs one test, prints its line, and says how it went."""
    began = time.monotonic()
    outcome, remark = "ok", ""
    limit = getattr(test, "limit_seconds", LIMIT_SECONDS)
    signal.signal(signal.SIGALRM, lambda *_: raise_out_of_time(limit))
    try:
        signal.alarm(limit)
        test()
    except Skipped as reason:
        outcome, remark = "skipped", str(reason)
    except Failure as failure:
        # The outermost frame outside this file: the test's own line.
        frame = next(frame for frame in traceback.extract_tb(failure.__traceback__) if frame.filename != __file__)
        outcome, remark = "FAILED", f"{failure}\n(at {Path(frame.filename).name}:{frame.lineno})"
    except Exception:
        outcome, remark = "FAILED", traceback.format_exc()
    finally:
        signal.alarm(0)
        try:
            clean_up()
        except Exception:
            outcome, remark = "FAILED", remark + "\nwhile cleaning up: " + traceback.format_exc()
    lines = remark.splitlines()
    same_line = f": {lines[0]}" if len(lines) == 1 else ""
    print(f"{outcome:7} {name} ({time.monotonic() - began:.1f} s){same_line}", flush=True)
    if len(lines) > 1:
        print("      " + "\n      ".join(lines), flush=True)
    return outcome


def raise_out_of_time(limit):
    raise OutOfTime(f"took longer than {limit} s")


if __name__ == "__main__":
    sys.exit(main())
