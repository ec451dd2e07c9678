# SPDX-License-Identifier: Apache-2.0
"""Runs tests that are files: `NN_what_it_shows.py` with a docstring and `run(context)`, which raises when something is wrong."""

import fnmatch
import importlib.util
import signal
import sys
import time
import traceback

from .expectations import TestFailure
from .processes import end_all

#: How long a test may take; a module's LIMIT_SECONDS or FULL_LIMIT_SECONDS says otherwise.
DEFAULT_LIMIT_SECONDS, DEFAULT_FULL_LIMIT_SECONDS = 120, 3600


def is_chosen(name, patterns):
    return not patterns or any(pattern in name or fnmatch.fnmatch(name, pattern) for pattern in patterns)


def chosen_tests(directory, patterns):
    return [path for path in sorted(directory.glob("[0-9][0-9]_*.py")) if is_chosen(path.stem, patterns)]


def list_tests(tests):
    for path in tests:
        print(f"{path.stem}: {(load_module(path).__doc__ or '').strip().splitlines()[0]}")


def exit_on_signals():
    """So that what was started is ended."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))


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
