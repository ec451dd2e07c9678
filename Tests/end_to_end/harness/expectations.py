# SPDX-License-Identifier: Apache-2.0
"""How a test says what it expects."""

import time


class TestFailure(Exception):
    """What a test found wrong, in a sentence for whoever reads the report."""


def expect(condition, message):
    if not condition:
        raise TestFailure(message)


def expect_equal(found, wanted, what):
    if found != wanted:
        raise TestFailure(f"{what}: wanted {shorten(wanted)}, found {shorten(found)}")


def shorten(thing, length=300):
    text = repr(thing)
    return text if len(text) <= length else f"{text[:length]}… ({len(text)} characters)"


def eventually(seconds, what, predicate, interval=0.05):
    """Asks until the predicate answers something true, and returns that; fails when the time is over.

    An OSError (a node that doesn't accept yet) counts as "not yet".
    """
    deadline = time.monotonic() + seconds
    last_error = None
    while True:
        try:
            answer = predicate()
            if answer:
                return answer
            last_error = None
        except OSError as error:
            last_error = error
        if time.monotonic() > deadline:
            because = f" ({last_error})" if last_error else ""
            raise TestFailure(f"not within {seconds} s: {what}{because}")
        time.sleep(interval)
