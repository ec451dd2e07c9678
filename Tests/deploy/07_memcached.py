# SPDX-License-Identifier: Apache-2.0
"""run-memcached.sh: what the memcached that it starts does, and does not."""

import os
import signal
import socket
import stat
import tempfile
import time
from pathlib import Path

from support import REPOSITORY, Skipped, at_end, eventually, expect, run, scratch, start

SCRIPT = REPOSITORY / "deploy/run-memcached.sh"


class Memcached:
    def __init__(self, *arguments, path=None):
        self.path = path or scratch() / "memcached.sock"
        self.arguments = arguments
        self.start()

    def start(self):
        self.path.unlink(missing_ok=True)
        self.process = start(SCRIPT, "--socket", self.path, *self.arguments)
        eventually(15, "memcached answers", self.answers)

    def answers(self):
        expect(self.process.poll() is None, f"memcached ended with status {self.process.poll()}")
        try:
            return self.ask("version").startswith("VERSION")
        except OSError:
            return False

    def ask(self, line, end="\r\n"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.path))
            connection.sendall(line.encode() + b"\r\n")
            answer = b""
            while not answer.endswith(end.encode()):
                data = connection.recv(1 << 16)
                if not data:
                    break
                answer += data
        return answer.decode()

    def setting(self, name):
        lines = self.ask("stats settings", "END\r\n").splitlines()
        return next(line.split()[2] for line in lines if line.split()[1] == name)

    def store(self, key, value):
        return self.ask(f"set {key} 0 0 {len(value)}\r\n{value}")


def test_it_is_a_store_and_no_cache():
    """Full memory is an error, and what was stored stays."""
    memcached = Memcached("--memory", "16")
    value = "x" * 100_000
    stored = 0
    while (answer := memcached.store(f"key{stored}", value)) == "STORED\r\n":
        stored += 1
        expect(stored < 1000, "16 MiB took 100 MB")
    expect(answer.startswith("SERVER_ERROR out of memory"), answer)
    expect(stored > 50, f"full after {stored} values")
    for index in range(stored):
        answer = memcached.ask(f"get key{index}", "END\r\n")
        expect(value in answer, f"key{index} of {stored} is lost")


def test_nobody_can_empty_it():
    memcached = Memcached("--memory", "16")
    memcached.store("key", "value")
    answer = memcached.ask("flush_all")
    expect("not allowed" in answer, answer)
    expect("value" in memcached.ask("get key", "END\r\n"), "the pair is gone")


def test_it_listens_on_no_network():
    memcached = Memcached("--memory", "16")
    inodes = set()
    for name in os.listdir(f"/proc/{memcached.process.pid}/fd"):
        try:
            inodes.add(os.readlink(f"/proc/{memcached.process.pid}/fd/{name}"))
        except FileNotFoundError:
            pass
    for table in ("tcp", "tcp6", "udp", "udp6"):
        path = Path("/proc/net") / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            expect(f"socket:[{line.split()[9]}]" not in inodes, f"it has a {table} socket")
    expect(memcached.setting("binding_protocol") == "ascii", "it speaks the binary protocol")


def test_its_socket_is_closed_to_others():
    memcached = Memcached("--memory", "16")
    expect(stat.S_IMODE(memcached.path.stat().st_mode) == 0o600, oct(memcached.path.stat().st_mode))
    memcached = Memcached("--memory", "16", "--mode", "0660")
    expect(stat.S_IMODE(memcached.path.stat().st_mode) == 0o660, oct(memcached.path.stat().st_mode))


def test_options_reach_it():
    memcached = Memcached("--memory", "100", "--threads", "3", "--connections", "77", "--memory-file", "")
    found = [memcached.setting(name) for name in ("maxbytes", "num_threads", "maxconns", "evictions")]
    expect(found == [str(100 << 20), "3", "77", "off"], found)


def test_the_hash_table_never_grows():
    """One bucket for every 128 bytes of memory: a dump and the growth of the table would block each other."""
    for memory, power in (("16", 17), ("100", 20), ("1000", 23)):
        memcached = Memcached("--memory", memory)
        lines = memcached.ask("stats", "END\r\n").splitlines()
        expect(f"STAT hash_power_level {power}" in lines, f"not {power} for {memory} MiB")


def memory_file():
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        raise Skipped("no /dev/shm here")
    directory = tempfile.TemporaryDirectory(prefix="kvserver-deploy-", dir=shared)
    at_end(directory.cleanup)
    return Path(directory.name) / "memory"


def stop(memcached, *signals):
    for number in signals:
        memcached.process.send_signal(number)
    memcached.process.wait(10)


def test_pairs_survive_a_restart_by_usr1():
    file = memory_file()
    memcached = Memcached("--memory", "40", "--memory-file", file)
    memcached.store("key", "value")
    stop(memcached, signal.SIGUSR1)
    began = time.monotonic()
    memcached.start()
    expect("value" in memcached.ask("get key", "END\r\n"), "it started empty")
    expect(time.monotonic() - began > 1.5, "memcached takes its file up only after 2 s, says its release")
    # After a kill it starts empty, and doesn't serve what may be torn.
    expect(not Path(f"{file}.meta").exists(), "a second start could take up what was changed since")
    stop(memcached, signal.SIGKILL)
    memcached.start()
    expect(memcached.ask("get key", "END\r\n") == "END\r\n", "it took up the memory of one that was killed")


def test_it_starts_empty_where_the_memory_may_be_torn():
    file = memory_file()
    meta = Path(f"{file}.meta")
    memcached = Memcached("--memory", "40", "--memory-file", file)

    def starts_empty(what):
        memcached.start()
        expect(memcached.ask("get key", "END\r\n") == "END\r\n", f"it took up the memory {what}")
        expect(memcached.store("key", "value") == "STORED\r\n", "it takes no pair")

    memcached.store("key", "value")
    stop(memcached, signal.SIGUSR1, signal.SIGKILL)
    meta.unlink(missing_ok=True)  # (in case it was faster than the kill)
    starts_empty("of one that was killed while it stopped")
    # What a stop on a full tmpfs leaves. memcached by itself would abort, and at each further start again.
    stop(memcached, signal.SIGUSR1)
    meta.write_bytes(b"")
    starts_empty("that an empty file describes")
    stop(memcached, signal.SIGUSR1)
    meta.write_bytes(meta.read_bytes()[:-3])
    starts_empty("that half a file describes")
    stop(memcached, signal.SIGUSR1)
    meta.write_bytes(meta.read_bytes().replace(b"Kstop_time 1", b"Kstop_time 9"))
    starts_empty("though the clock has gone back")
    stop(memcached, signal.SIGUSR1)
    memcached.arguments = ("--memory", "41", *memcached.arguments[2:])
    starts_empty("though its size was another")


def test_its_pid_file():
    path = scratch()
    memcached = Memcached("--memory", "16", "--pid-file", path / "pid", path=path / "memcached.sock")
    expect((path / "pid").read_text() == f"{memcached.process.pid}\n", "the pid file names another process")


def test_wrong_arguments():
    path = scratch()
    for arguments, message in ((["--memory", "16"], "--socket is missing"),
                               (["--socket", path / "s"], "--memory is not a number of MiB"),
                               (["--socket", path / "s", "--memory", "9"], "--memory is not a number of MiB"),
                               (["--socket", path / ("s" * 100), "--memory", "16"], "longer than 107 bytes"),
                               (["--port", "11211"], "unknown argument: --port"),
                               (["--socket", path / "s", "--memory", "39", "--memory-file", "/dev/shm/x"], "at least 40 MiB"),
                               (["--socket", path / "s", "--memory", "64", "--memory-file", "/proc/x"], "not on a tmpfs"),
                               (["--socket", path / "s", "--memory", "9000000", "--memory-file", "/dev/shm/x"],
                                "has room for")):
        run(SCRIPT, *arguments).expect(64, says=message)
