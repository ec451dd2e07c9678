# SPDX-License-Identifier: Apache-2.0
"""Processes that belong to the run: started here, ended by their pid, never outliving it.

Every child asks the kernel to be killed when this process dies (PR_SET_PDEATHSIG), so that neither Ctrl-C nor
`kill -9` of the run leaves a memcached behind. The kernel ties that wish to the *thread* that forked, hence the
rule that only the main thread starts processes.
"""

import ctypes
import os
import signal
import subprocess
import threading
import time

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1

_running: list["OwnedProcess"] = []


def die_with_parent():
    """Asks the kernel to kill the calling process when the thread that forked it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class OwnedProcess:
    """A process that this run started, with its output in a file. `enter` is called in it before its program begins."""

    def __init__(self, arguments, log_path, environment=None, enter=None):
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("processes are started by the main thread only (see this module's docstring)")
        self.arguments = [str(argument) for argument in arguments]

        def prepare():
            die_with_parent()
            if enter:
                enter()
        with open(log_path, "ab") as log:
            self._process = subprocess.Popen(
                self.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                start_new_session=True, preexec_fn=prepare)
        self.pid = self._process.pid
        _running.append(self)

    @property
    def alive(self):
        return self._process.poll() is None

    @property
    def exit_code(self):
        """None while it runs; negative for a signal."""
        return self._process.poll()

    def signal(self, number):
        if self.alive:
            os.kill(self.pid, number)

    def wait(self, seconds):
        """True once the process has ended, False when it still runs after that time."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        if self in _running:
            _running.remove(self)
        return True

    def kill(self):
        self.signal(signal.SIGKILL)
        self.wait(10)

    def terminate(self, seconds=5):
        """Asks it to end, and kills it when it doesn't in time. A stopped process is woken first."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        if not self.wait(seconds):
            self.kill()


def end_all():
    """Kills whatever this run started and did not end itself."""
    for process in list(_running):
        workers = children_of(process.pid) if process.alive else []
        process.kill()
        for worker in workers:
            kill(worker)


def stat_of(pid):
    """The fields of /proc/PID/stat from the third one on, the state: proc(5) counts them from 1."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        return stat.read().rpartition(b")")[2].decode().split()


def state_of(pid):
    """The state letter of the process (`R`, `S`, `T`, `Z`, …), or None when there is no such process."""
    try:
        return stat_of(pid)[0]
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return None


def is_alive(pid):
    return state_of(pid) not in (None, "Z", "X")


def age_of(pid):
    """How many seconds ago the process was started; 0 where it is gone."""
    try:
        started = int(stat_of(pid)[19]) / os.sysconf("SC_CLK_TCK")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def processor_seconds(pid):
    """What the process has used so far, the kernel's part included."""
    fields = stat_of(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_of(pid):
    """The living children of a process, whichever of its threads forked them, oldest first."""
    children = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as listing:
                children += [int(child) for child in listing.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return sorted(child for child in children if is_alive(child))


def kill(pid, number=signal.SIGKILL):
    """Sends a signal; a process that has just gone by itself is no error."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def wait_until_gone(pids, seconds):
    """The pids that still live when the time is over: empty when all are gone."""
    deadline = time.monotonic() + seconds
    left = [pid for pid in pids if is_alive(pid)]
    while left and time.monotonic() < deadline:
        time.sleep(0.01)
        left = [pid for pid in left if is_alive(pid)]
    return left
