# SPDX-License-Identifier: Apache-2.0
"""What the tests share: commands and what is expected of them, scratch directories, processes that end with the test."""

import contextlib
import ctypes
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SETUP = REPOSITORY / "setup.sh"

# Where Debian keeps haproxy, for users whose PATH lacks it.
os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"

#: Called in reverse order when a test is over.
_at_end = []


class Failure(Exception):
    """Something is not as it should be."""


class Skipped(Exception):
    """This machine lacks what the test needs."""


def expect(condition, message):
    if not condition:
        raise Failure(message)


def at_end(action):
    _at_end.append(action)


def clean_up():
    problems = []
    while _at_end:
        try:
            _at_end.pop()()
        except Exception as error:  # the rest has to be cleaned up all the same
            problems.append(error)
    if problems:
        raise problems[0]


class Ran:
    """A command that has ended."""

    def __init__(self, arguments, status, output):
        self.arguments, self.status, self.output = arguments, status, output

    def expect(self, status=0, says=(), says_not=()):
        """Checks its exit status, and that its output (both streams) has these texts in it."""
        shown = f"{' '.join(self.arguments)}: status {self.status}, output:\n{self.output}"
        expect(self.status == status, f"expected status {status}; {shown}")
        for text in (says,) if isinstance(says, str) else says:
            expect(text in self.output, f"expected {text!r} to be said; {shown}")
        for text in (says_not,) if isinstance(says_not, str) else says_not:
            expect(text not in self.output, f"did not expect {text!r} to be said; {shown}")
        return self


def run(*arguments, environment=None, directory=REPOSITORY, seconds=60):
    """Runs a command to its end, with no input; its descendants are given `seconds`, too."""
    arguments = [str(argument) for argument in arguments]
    with tempfile.TemporaryFile() as output:  # (a pipe would be held open by what the command leaves running)
        process = subprocess.Popen(arguments, cwd=directory, env=os.environ | (environment or {}),
                                   stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
        try:
            status = process.wait(seconds)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                status = "none, for it did not end"
            else:
                raise
        output.seek(0)
        return Ran(arguments, status, output.read().decode(errors="replace"))


def start(*arguments, output=subprocess.DEVNULL, environment=None, enter=None):
    """Starts a process that is killed when the test is over, or when this process dies. `enter` is called in it first."""
    def prepare():
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if enter:
            enter()
    process = subprocess.Popen([str(argument) for argument in arguments], stdin=subprocess.DEVNULL,
                               stdout=output, stderr=output, env=os.environ | (environment or {}), start_new_session=True,
                               preexec_fn=prepare)

    def end():
        process.kill()
        process.wait()
    at_end(end)
    return process


def scratch():
    """A directory of the test's own, with a path short enough for a unix socket in it."""
    path = Path(tempfile.mkdtemp(prefix="kvserver-deploy-"))
    at_end(lambda: shutil.rmtree(path))
    return path


def write(path, text, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def stand_in():
    """A program to pack in the daemon's place, where nothing starts it, with another one in kvctl's beside it."""
    directory = scratch()
    write(directory / "kvctl", "#!/bin/sh\necho 'a stand-in of kvctl'\n", 0o755)
    return write(directory / "KVServer", "#!/bin/sh\necho 'a stand-in'\n", 0o755)


def daemon():
    """The daemon as it was built for release."""
    path = Path(os.environ.get("KVSERVER_BINARY") or REPOSITORY / ".build/release/KVServer")
    expect(os.access(path, os.X_OK), f"there is no daemon at {path}; build it first: swift build -c release")
    return path.resolve()


def tool(package, *arguments):
    """Runs Python with a package of PyPI, in an environment of the repository's own, made the first time."""
    directory = REPOSITORY / ".local/tools" / package.replace("=", "-")
    python = directory / "bin/python"
    if not (directory / "complete").exists():
        run(sys.executable, "-m", "venv", "--clear", directory, seconds=60).expect()
        run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", package, seconds=100).expect()
        (directory / "complete").touch()
    return run(python, *arguments)


def need(program):
    if not shutil.which(program):
        raise Skipped(f"no {program} here")


def eventually(seconds, what, condition):
    """Waits until the condition holds, and returns its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        expect(time.monotonic() < end, f"not within {seconds} s: {what}")
        time.sleep(0.05)
    return value


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def free_network():
    """The first three bytes of loopback addresses that nobody listens at."""
    for _ in range(100):
        network = f"127.{random.randint(16, 250)}.{random.randint(0, 250)}"
        try:
            for host, port in [(10, 5000), (10, 8404), *((11 + node, 5000) for node in range(5))]:
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((f"{network}.{host}", port))
            return network
        except OSError:
            continue
    raise Failure("found no free loopback network")


class NodeStandIn:
    """Answers what reaches it as a node 200, until the test is over: keeps the targets in `asked`, and counts health checks apart."""

    def __init__(self, host, context=None, says="OK"):
        self.asked, self.checks = [], 0
        self._context, self._says = context, says.encode()
        self._socket = socket.create_server((host, 5000))
        threading.Thread(target=self._accept, daemon=True).start()
        at_end(self._socket.close)

    def _accept(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, plain):
        data = b""
        with contextlib.suppress(OSError):  # (HAProxy's checks may end by a reset)
            with self._context.wrap_socket(plain, server_side=True) if self._context else plain as connection:
                while part := connection.recv(1 << 16):
                    data += part
                    while b"\r\n\r\n" in data:
                        head, _, data = data.partition(b"\r\n\r\n")
                        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                        data = data[int(length[1]):] if length else data
                        target = head.split(b" ")[1].decode("latin-1")
                        if target == "/health/ready":
                            self.checks += 1
                        else:
                            self.asked.append(target)
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(self._says), self._says))
