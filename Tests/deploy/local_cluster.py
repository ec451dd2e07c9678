# SPDX-License-Identifier: Apache-2.0
"""A cluster that `setup.sh local` makes: on a loopback network and in a directory of the test's own."""

import itertools
import json
import os
import re
import signal
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from support import SETUP, at_end, daemon, expect, free_network, is_alive, run, scratch

#: One that no proxy of the environment comes between.
ASK = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Cluster:
    """Nodes that answer at `.11` and so on of a loopback network, and a balancer, if any, at `.10`."""

    def __init__(self, network):
        self.network = network

    def ask(self, host, path, form=None):
        """The body of a GET, or of a POST of a form. An answer that is none of success is an OSError."""
        body = urllib.parse.urlencode(form).encode() if form else None
        with ASK.open(f"http://{self.network}.{host}:5000{path}", body, timeout=5) as answer:
            return answer.read().decode()

    def store(self, host, key, value):
        self.ask(host, "/route", {"key": key, "val": value})

    def find(self, host, key):
        """The value, or None where there is no such pair."""
        try:
            return self.ask(host, f"/route?key={key}")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None

    def keys_of(self, owner, count):
        """So many keys that belong to a host."""
        names = (f"key{number}" for number in itertools.count())
        return list(itertools.islice((key for key in names if self.ask(owner, f"/route_test?key={key}").strip()
                                      == f"{self.network}.{owner}:5000"), count))

    def ring(self, host):
        return json.loads(self.ask(host, "/hash_ring"))["ring"]

    def status(self, host):
        return json.loads(self.ask(host, "/status"))


class Local(Cluster):
    def __init__(self, *options, network=None):
        super().__init__(network or free_network())
        self.options = ("--network", self.network, "--nodes", "3", "--workers", "2", "--memory", "64", *options)
        self.state = scratch()
        self.environment = {"KVSERVER_LOCAL": str(self.state), "KVSERVER_BINARY": str(daemon())}
        at_end(self.end)

    def setup(self, *arguments):
        return run(SETUP, "local", *arguments, environment=self.environment, directory="/", seconds=90)

    def up(self):
        return self.setup(*self.options).expect(says="read back: hello = world")

    def end(self):
        for pid in self.processes():  # a stopped one would be waited for
            self.signal(pid, signal.SIGCONT)
        try:
            self.setup("down").expect()
        finally:
            left = self.processes()
            for pid in left:
                self.signal(pid, signal.SIGKILL)
        expect(not left, f"`local down` left {left} running")

    def processes(self):
        """Whatever runs with a file of ours on its command line, as all parts and the workers do."""
        found = []
        for name in os.listdir("/proc"):
            try:
                with open(f"/proc/{name}/cmdline", "rb") as line:
                    if name.isdigit() and bytes(self.state) + b"/" in line.read() and is_alive(name):
                        found.append(int(name))
            except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
                pass
        return found

    @staticmethod
    def signal(pid, number):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    def pid(self, part):
        return int((self.state / f"{part}.pid").read_text())

    def pids(self):
        return [self.pid(part) for part in ("haproxy", "sync", *(f"node{node}/{part}" for node in (1, 2, 3)
                                                         for part in ("supervisor", "memcached", "watcher")))]

    def workers(self, node):
        """The pids of a node's workers, as `status` has them."""
        found = re.search(rf"^node{node} .*, workers ([0-9 ]+),", self.setup("status").output, re.M)
        return [int(pid) for pid in found[1].split()] if found else []

    def default_ring(self):
        return {"3000": f"{self.network}.11:5000", "8000": f"{self.network}.12:5000"}

    def memory_files(self):
        """Where its memcacheds keep their pairs, if in files."""
        found = []
        for node in (1, 2, 3):
            words = Path(f"/proc/{self.pid(f'node{node}/memcached')}/cmdline").read_bytes().decode().split("\0")
            found += [words[words.index("-e") + 1]] if "-e" in words else []
        return found
