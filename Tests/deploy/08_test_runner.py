# SPDX-License-Identifier: Apache-2.0
"""Tests/run.sh adds up what its parts say, and hides no part that crashed. A script plays the toolchain."""

import os
import signal
import subprocess

from support import REPOSITORY, eventually, expect, is_alive, run, scratch, write

RUN = REPOSITORY / "Tests/run.sh"


def toolchain(tests, status=0, build="exit 0"):
    """A directory with a `swift` that builds by these commands, and whose tests print these lines."""
    directory = scratch()
    write(directory / "printed", tests)
    write(directory / "swift", f"""#!/bin/sh
case "$*" in
--version) echo 'Swift version 6.3.1 (swift-6.3.1-RELEASE)' ;;
*--show-bin-path*) echo {directory} ;;
build*) {build} ;;
test*--filter*) ;; # the simulations: none here
test*) cat {directory}/printed && exit {status} ;;
esac
""", 0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}", "KVSERVER_BINARY": ""}


def expect_counts(counts, status, *arguments):
    ran = run(RUN, "--only", "swift", environment=toolchain(*arguments)).expect(status)
    lines = ran.output.splitlines()
    expect(lines[-1] == counts, f"expected {counts!r} as the last line:\n{ran.output}")
    closing = [line for line in lines if line.endswith(" failed") and line[0].isdigit()]
    expect(len(closing) == 1, f"more than one closing line:\n{ran.output}")


def test_counts_of_tests_that_pass():
    expect_counts("12 passed, 0 failed", 0, "✔ Test a() passed after 0.001 seconds.\n"
                  "✔ Test run with 12 tests in 3 suites passed after 0.125 seconds.\n")
    expect_counts("1 passed, 0 failed", 0, "✔ Test run with 1 test passed after 0.125 seconds.\n")


def test_counts_of_tests_that_fail():
    expect_counts("10 passed, 2 failed", 1, """✘ Test a() recorded an issue at A.swift:3:5: Expectation failed: x
✘ Test a() failed after 0.001 seconds with 1 issue.
✘ Test "of b" with 3 test cases failed after 0.001 seconds with 2 issues.
✘ Suite "Of a" failed after 0.002 seconds with 3 issues.
✘ Test run with 12 tests in 3 suites failed after 0.125 seconds with 3 issues.
""", 1)


def test_skipped_tests_are_not_said_to_pass():
    expect_counts("2 passed, 0 failed", 0, "➜ Test a() skipped: no memcached here\n"
                  "✔ Test run with 3 tests in 1 suite passed after 0.125 seconds.\n")


def test_a_crash_is_a_failure():
    expect_counts("0 passed, 1 failed", 1, "✔ Test a() passed after 0.001 seconds.\nFatal error: x\n", 1)
    expect_counts("3 passed, 1 failed", 1, "✔ Test run with 3 tests in 1 suite passed after 0.1 seconds.\n", 139)


def test_no_test_is_a_failure():
    expect_counts("0 passed, 1 failed", 1, "")
    expect_counts("0 passed, 1 failed", 1, "✔ Test run with 0 tests in 0 suites passed after 0.001 seconds.\n")


def test_a_failed_build_is_a_failure():
    expect_counts("0 passed, 1 failed", 1, "✔ Test run with 3 tests in 1 suite passed after 0.1 seconds.\n", 0,
                  "echo 'error: x' && exit 1")


def test_nothing_outlives_it():
    directory = scratch()
    environment = toolchain("", 0, f"sleep 300 & echo $! > {directory}/pid; wait")
    process = subprocess.Popen([RUN, "--only", "swift"], env=os.environ | environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        eventually(20, "the build begins", lambda: (directory / "pid").exists() and (directory / "pid").read_text())
        pid = int((directory / "pid").read_text())
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=20)[0].decode()
    finally:
        process.kill()
        process.wait()
    expect(process.returncode == 1 and output.splitlines()[-1] == "0 passed, 1 failed", output)
    expect(not is_alive(pid), "the build goes on")
