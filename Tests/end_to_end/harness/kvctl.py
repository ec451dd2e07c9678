# SPDX-License-Identifier: Apache-2.0
"""kvctl as an operator would call it."""

import json
import os
import pty
import select
import subprocess
import time

from .cluster import find_kvctl_binary
from .expectations import expect

DONE, FAILED, UNAVAILABLE, UNKNOWN, NOT_FOUND, CONDITION_FAILED, USAGE = 0, 1, 2, 3, 4, 5, 64


class Ran:
    """A call of kvctl that has ended."""

    def __init__(self, arguments, status, output, errors):
        self.arguments, self.status, self.output, self.errors = arguments, status, output, errors

    @property
    def text(self):
        return self.output.decode(errors="replace")

    @property
    def lines(self):
        return self.text.splitlines()

    @property
    def json(self):
        return json.loads(self.output)

    def expect(self, status=DONE, says=()):
        """Checks the exit status, and that standard output or error has these texts in it."""
        shown = f"kvctl {' '.join(self.arguments)}: status {self.status}, {self.output[:2000]!r}, {self.errors[:2000]!r}"
        expect(self.status == status, f"expected status {status}: {shown}")
        for text in (says,) if isinstance(says, str) else says:
            expect(text in self.text or text in self.errors.decode(errors="replace"), f"expected {text!r}: {shown}")
        return self


class Kvctl:
    """Calls kvctl for one cluster, by way of the environment's KVCTL_NODE."""

    def __init__(self, address):
        self.environment = {**{name: value for name, value in os.environ.items() if not name.startswith("KVCTL_")},
                             "KVCTL_NODE": address}

    def __call__(self, *arguments, input=None, seconds=60):
        arguments = [str(argument) for argument in arguments]
        process = self.start(*arguments, stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL)
        try:
            output, errors = process.communicate(input, timeout=seconds)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return Ran(arguments, process.returncode, output, errors)

    def start(self, *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE):
        """One that goes on; whoever starts it ends it."""
        return subprocess.Popen([find_kvctl_binary(), *(str(argument) for argument in arguments)], stdin=stdin,
                                stdout=stdout, stderr=stderr, env=self.environment)

    def on_terminal(self, *arguments, seconds=60):
        """What it writes to a terminal, and its exit status."""
        master, slave = pty.openpty()
        process = subprocess.Popen([find_kvctl_binary(), *(str(argument) for argument in arguments)], stdin=slave,
                                   stdout=slave, stderr=slave, env=self.environment)
        os.close(slave)
        output, end = b"", time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                if select.select([master], [], [], 0.1)[0]:
                    try:
                        part = os.read(master, 1 << 16)
                    except OSError:  # nobody has it open any more
                        break
                    output += part
                elif process.poll() is not None:
                    break
            return process.wait(max(end - time.monotonic(), 0.1)), output.decode(errors="replace")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            os.close(master)
