# SPDX-License-Identifier: Apache-2.0
"""An etcd cluster of three members on loopback, with their data on disk, so that one that was killed comes back as it was."""

import json
import os
import shutil
import signal
from pathlib import Path

from . import client as http
from .expectations import TestFailure, eventually, expect
from .processes import OwnedProcess

CLIENT_PORT, PEER_PORT = 2379, 2380


class Member:
    """One etcd process."""

    def __init__(self, name, address_of, directory):
        self.name = name
        self.client = address_of(CLIENT_PORT)
        self.peer = address_of(PEER_PORT)
        self.directory = Path(directory)
        self.log_path = self.directory.with_suffix(".log")
        self.process = None

    def start(self, everybody):
        arguments = [
            "etcd", "--name", self.name, "--data-dir", self.directory,
            "--listen-client-urls", f"http://{self.client}", "--advertise-client-urls", f"http://{self.client}",
            "--listen-peer-urls", f"http://{self.peer}", "--initial-advertise-peer-urls", f"http://{self.peer}",
            "--initial-cluster", ",".join(f"{member.name}=http://{member.peer}" for member in everybody),
            "--initial-cluster-token", str(self.directory.parent), "--initial-cluster-state", "new",
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
        self.process = OwnedProcess(arguments, self.log_path, environment)

    def kill(self):
        self.process.kill()

    def pause(self):
        self.process.signal(signal.SIGSTOP)

    def resume(self):
        self.process.signal(signal.SIGCONT)

    def ask(self, path, body, timeout=2.0):
        """etcd's own answer to a request in JSON."""
        text = json.dumps(body).encode()
        head = (f"POST {path} HTTP/1.1\r\nHost: {self.client}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(text)}\r\n\r\n").encode()
        answer = http.ask(self.client, head + text, timeout)
        if answer.status != 200:
            raise OSError(f"{self.name} answered {path} with {answer}")
        return json.loads(answer.body)

    def log_tail(self, lines=10):
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])


class Etcd:
    """Three members."""

    def __init__(self, block, directory, hosts=(201, 202, 203)):
        expect(shutil.which("etcd"), "there is no etcd here: install Debian's etcd-server")
        self.members = [
            Member(f"etcd{number}", lambda port, host=host: block.address(host, port), Path(directory) / f"etcd{number}")
            for number, host in enumerate(hosts, 1)
        ]

    @property
    def endpoints(self):
        """As the daemon is told."""
        return ",".join(f"http://{member.client}" for member in self.members)

    def start(self):
        for member in self.members:
            member.start(self.members)
        self.wait_until_answering()

    def restart(self, *members):
        for member in members or self.members:
            member.start(self.members)
        self.wait_until_answering()

    def wait_until_answering(self, seconds=20):
        def answers():
            for member in self.members:
                if not member.process.alive:
                    raise TestFailure(f"{member.name} ended with {member.process.exit_code}: {member.log_tail()}")
            return all(self._is_answering(member) for member in self.members)
        eventually(seconds, "etcd answers", answers)

    @staticmethod
    def _is_answering(member):
        # A linearizable read: a leader and a majority are there.
        return "header" in member.ask("/v3/kv/range", {"key": "YQ=="})

    def leader(self):
        """The member that leads."""
        status = {member: member.ask("/v3/maintenance/status", {}) for member in self.members if member.process.alive}
        return next(member for member, answer in status.items() if answer["leader"] == answer["header"]["member_id"])

    def kill_all(self):
        for member in self.members:
            member.kill()

    def end(self):
        for member in self.members:
            if member.process:
                member.process.kill()
