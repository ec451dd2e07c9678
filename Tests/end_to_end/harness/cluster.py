# SPDX-License-Identifier: Apache-2.0
"""A whole cluster on one machine: for each node a memcached and a daemon, and HAProxy in front of all.

Each cluster takes a /24 of the loopback network for itself, laid out like the default one: HAProxy at `.10`, nodes
from `.11`, all at port 5000.
"""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from . import client as http
from .etcd import Etcd
from .expectations import TestFailure, eventually, expect
from .placement import Ring
from .processes import OwnedProcess, age_of, children_of, is_alive, kill, wait_until_gone

REPOSITORY = Path(__file__).resolve().parents[3]
PORT = 5000

# From this age on, a worker's death is none of a row (the supervisor says 1 s), also where it took a while to get ready.
QUICK_DEATH_SECONDS = 1.5

_CRASH = re.compile(rb"Fatal error|Program crashed|Precondition failed|AddressSanitizer|LeakSanitizer|ThreadSanitizer")


def find_server_binary():
    """KVSERVER_BINARY, or what `swift build -c release` made."""
    named = os.environ.get("KVSERVER_BINARY")
    if named:
        return named
    directory = subprocess.run(["swift", "build", "-c", "release", "--show-bin-path"], cwd=REPOSITORY, check=True,
                               capture_output=True, text=True).stdout.strip()
    return f"{directory}/KVServer"


def find_kvctl_binary():
    """KVCTL_BINARY, or what stands beside the daemon."""
    return os.environ.get("KVCTL_BINARY") or str(Path(find_server_binary()).with_name("kvctl"))


class AddressBlock:
    """A 127.x.y.0/24 of our own. Whoever listens on its last address holds it, so that runs at the same time differ."""

    def __init__(self):
        chooser = random.Random()
        for _ in range(200):
            self.prefix = f"127.{chooser.randint(16, 250)}.{chooser.randint(0, 250)}"
            self._claim = socket.socket()
            try:
                self._claim.bind((f"{self.prefix}.254", 1024))
                self._claim.listen(1)
                if not self._is_in_use():
                    return
            except OSError:
                pass
            self._claim.close()
        raise TestFailure("found no free loopback network")

    def _is_in_use(self):
        """True when some other process has a TCP socket in this network."""
        a, b, c = (int(part) for part in self.prefix.split("."))
        with open("/proc/net/tcp", encoding="ascii") as table:
            local = [line.split()[1].split(":") for line in table.readlines()[1:]]
        ending = f"{c:02X}{b:02X}{a:02X}"
        return any(address.endswith(ending) and port != "0400" for address, port in local)

    def address(self, host, port=PORT):
        return f"{self.prefix}.{host}:{port}"

    def entrance(self, _number):
        """What a process of that node calls before its program begins: nothing, all nodes share this machine's network."""
        return None

    def release(self):
        self._claim.close()


class Memcached:
    """One memcached on a unix socket, with the flags that the store asks for."""

    def __init__(self, socket_path, log_path, megabytes=256, hash_power=18):
        self.socket_path = socket_path
        self.log_path = log_path
        self.megabytes = megabytes
        self.hash_power = hash_power
        #: Further words for `-o`, from the next start on.
        self.options = []
        self.process = None

    def start(self):
        if os.path.exists(self.socket_path):
            os.unlink(self.socket_path)
        arguments = ["memcached", "-M", "-F", "-B", "ascii", "-U", "0", "-s", self.socket_path, "-a", "0660",
                     "-m", str(self.megabytes), "-o", ",".join([f"hashpower={self.hash_power}", *self.options]), "-t", "2"]
        if os.geteuid() == 0:
            arguments += ["-u", "root"]
        self.process = OwnedProcess(arguments, self.log_path)
        eventually(5, "memcached accepts", lambda: self.command(b"version").startswith(b"VERSION"), interval=0.01)

    def restart_empty(self):
        """`kill -9`, and a new one on the same socket."""
        self.process.kill()
        self.start()

    def pause(self):
        self.process.signal(signal.SIGSTOP)

    def resume(self):
        self.process.signal(signal.SIGCONT)

    def end(self):
        if self.process:
            self.process.kill()

    def command(self, line, end=b"\r\n", timeout=5.0):
        """What memcached answers to one line, up to and with `end`."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(str(self.socket_path))
            connection.sendall(line + b"\r\n")
            answer = b""
            while not answer.endswith(end):
                data = connection.recv(1 << 20)
                if not data:
                    break
                answer += data
            return answer

    def stored_names(self):
        """All of memcached's keys, as it keeps them (percent-decoded from its dump)."""
        def dump():
            answer = self.command(b"lru_crawler metadump hash", end=b"END\r\n")
            return None if answer.startswith(b"BUSY") else answer
        lines = eventually(10, "memcached dumps its keys", dump).split(b"\n")
        return [_percent_decode(line.split()[0][len(b"key="):]) for line in lines if line.startswith(b"key=")]


def _percent_decode(data):
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match.group(1), 16)]), data)


class Node:
    """One node: the supervisor, its workers and their memcached."""

    def __init__(self, name, address, directory, binary, settings, memory_megabytes, hash_power, enter=None):
        self.name = name
        self.address = address
        self._enter = enter
        self.directory = Path(directory)
        self.state_directory = self.directory / "state"
        self.state_directory.mkdir(parents=True)
        self.log_path = self.directory / "kvserver.log"
        self._failpoints_path = self.directory / "failpoints"
        self._failpoints_path.write_text("")
        self._binary = binary
        self.memcached = Memcached(str(self.directory / "memcached.sock"), self.directory / "memcached.log",
                                   memory_megabytes, hash_power)
        self.settings = {
            "node": address, "workers": 2, "memcached": self.memcached.socket_path,
            "stateDirectory": str(self.state_directory), "allowFailpoints": True,
            "failpointsFile": str(self._failpoints_path), "logLevel": "info", **settings,
        }
        self._settings_path = self.directory / "kvserver.json"
        self.change_settings()
        self.supervisor = None
        #: Of the daemon, from its next start on.
        self.environment = {}
        #: Of what is asked here: a token, say.
        self.headers = []
        self._expected_workers = []

    # Life

    def change_settings(self, **changes):
        """From the daemon's next start on."""
        self.settings.update(changes)
        self._settings_path.write_text(json.dumps(self.settings, indent=2))

    def start_daemon(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("KVSERVER_", "KV_"))}
        environment.update(self.environment)
        self.supervisor = OwnedProcess([self._binary, "--config", self._settings_path], self.log_path, environment, self._enter)

    def wait_until_alive(self, seconds=15):
        """Waits until the node answers and all its workers are there."""
        def answers():
            if not self.supervisor.alive:
                raise TestFailure(f"{self.name} ended with {self.supervisor.exit_code}: {self.log_tail()}")
            return self.get("/", timeout=2).status == 200 and len(self.workers()) == self.settings["workers"]
        eventually(seconds, f"{self.name} runs", answers)
        self._expected_workers = self.workers()

    def wait_until_ready(self, seconds=15):
        """Waits until the node says that it can serve."""
        eventually(seconds, f"{self.name} is ready", lambda: self.get("/health/ready", timeout=2).status == 200)
        self._expected_workers = self.workers()

    def workers(self):
        return children_of(self.supervisor.pid)

    def kill_worker(self, chooser):
        """`kill -9` for one worker; returns its pid.

        One that has lived for a while, where there is one: the supervisor takes a row of quick deaths for a fault that will not
        pass, and lets the next worker wait, twice as long each time.
        """
        workers = self.workers()
        victim = chooser.choice([worker for worker in workers if age_of(worker) > QUICK_DEATH_SECONDS] or workers)
        kill(victim)
        return victim

    def kill_all_workers(self):
        for worker in self.workers():
            kill(worker)

    def kill_supervisor(self):
        """`kill -9` for the supervisor; returns the workers that it leaves behind."""
        workers = self.workers()
        self.supervisor.kill()
        return workers

    def wait_until_replaced(self, gone, seconds):
        """Waits until the pids in `gone` are gone and the node has its full number of workers again; returns how long it took."""
        began = time.monotonic()
        gone = set(gone)
        eventually(seconds, f"{self.name} has replaced its workers {sorted(gone)}",
                   lambda: len(self.workers()) == self.settings["workers"] and not gone & set(self.workers()), interval=0.01)
        self._expected_workers = self.workers()
        return time.monotonic() - began

    def processes(self):
        """Supervisor, workers and memcached: the whole host."""
        return [self.supervisor.pid, *self.workers(), self.memcached.process.pid]

    def pause_host(self):
        """Stops every process of this host, as when a virtual machine is paused."""
        for pid in self.processes():
            kill(pid, signal.SIGSTOP)

    def resume_host(self):
        for pid in reversed(self.processes()):
            kill(pid, signal.SIGCONT)

    def end_daemon(self):
        """`kill -9` for all but memcached."""
        workers = self.workers()
        self.supervisor.kill()
        for worker in workers:
            kill(worker)
        wait_until_gone(workers, 5)
        self._expected_workers = []

    def end(self):
        if self.supervisor:
            self.end_daemon()
        self.memcached.end()

    def accept_present_workers(self):
        """Tells the harness that the test has replaced workers on purpose."""
        self._expected_workers = self.workers()

    def unexpected_deaths(self):
        """Workers that have gone though no test sent them away."""
        return sorted(set(self._expected_workers) - set(self.workers()))

    # Faults inside

    def set_failpoints(self, *lines):
        """`name=action` a line, read by the daemon at each hit; none: all off."""
        temporary = self._failpoints_path.with_suffix(".new")
        temporary.write_text("".join(f"{line}\n" for line in lines))
        os.replace(temporary, self._failpoints_path)

    # Questions

    def get(self, target, timeout=5.0):
        return http.ask(self.address, http.request_bytes("GET", target, headers=self.headers), timeout)

    def post_form(self, target, timeout=5.0, **fields):
        return http.ask(self.address, http.form_request(target, fields, self.headers), timeout)

    def store(self, key, value, path="/route"):
        return self.post_form(path, key=key, val=value)

    def read(self, key, path="/route"):
        return self.get(b"%b?key=%b" % (path.encode(), http.percent_encode(key)))

    def json(self, target, timeout=5.0):
        answer = self.get(target, timeout)
        if answer.status != 200:
            raise OSError(f"{self.name} answered {target} with {answer}")
        return json.loads(answer.body)

    def status(self):
        return self.json("/status")

    def ring_document(self):
        return self.json("/hash_ring")

    def ring(self):
        return Ring(self.ring_document()["ring"])

    def pairs(self):
        """What this node's memcached holds, as `GET /fetch_keys` tells it."""
        return self.json("/fetch_keys", timeout=60.0)

    def install_ring(self, ring, **further):
        """`further` goes into the same document, beside the nodes."""
        nodes = [{"ip": node, "key": position} for position, node in ring.nodes_by_position.items()]
        return self.post_form("/hash_ring", data=json.dumps({"nodes": nodes, **further}))

    # Logs

    def log_tail(self, lines=15):
        try:
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"

    def crash_lines(self):
        data = self.log_path.read_bytes() if self.log_path.exists() else b""
        return [line.decode(errors="replace") for line in data.splitlines() if _CRASH.search(line)]


class Proxy:
    """HAProxy with the repository's configuration, whose addresses and server lists are replaced by the cluster's."""

    def __init__(self, address, statistics_address, nodes, directory):
        self.address = address
        self.statistics_address = statistics_address
        self._log_path = Path(directory) / "haproxy.log"
        self._configuration_path = Path(directory) / "haproxy.cfg"
        template = Path(os.environ.get("KVSERVER_HAPROXY_CFG", REPOSITORY / "haproxy.cfg")).read_text()
        self.socket_path = Path(directory) / "haproxy.sock"
        Path(directory, "ring.map").write_text("")
        self._configuration_path.write_text(
            rewritten_configuration(template, address, statistics_address, [node.address for node in nodes], directory))
        self._process = None

    def start(self):
        """Runs in master-worker mode, as systemd's unit does."""
        self._process = OwnedProcess(["haproxy", "-W", "-f", self._configuration_path], self._log_path)

    def wait_until_serving(self, seconds=10):
        def serves():
            if not self._process.alive:
                raise TestFailure(f"haproxy ended: {self._log_path.read_text(errors='replace')[-2000:]}")
            return self.get("/", timeout=2).status == 200
        eventually(seconds, "HAProxy serves", serves)

    def reload(self, seconds=10):
        """What `systemctl reload haproxy` does; returns once a new worker process is there."""
        before = set(children_of(self._process.pid))
        asked = 0.0

        def has_new_worker():
            # The master takes no notice of a signal while it begins, as it does at each reload.
            nonlocal asked
            if time.monotonic() - asked > 1:
                self._process.signal(signal.SIGUSR2)
                asked = time.monotonic()
            return set(children_of(self._process.pid)) - before
        eventually(seconds, "HAProxy has a new worker", has_new_worker)

    def order(self, line):
        """What HAProxy answers to a command on its admin socket."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.socket_path))
            connection.sendall(line.encode() + b"\n")
            answer = b""
            while part := connection.recv(1 << 16):
                answer += part
            return answer.decode()

    def end(self):
        """`kill -9`; may be started again."""
        if self._process:
            workers = children_of(self._process.pid)
            self._process.kill()
            for worker in workers:
                kill(worker)
            wait_until_gone(workers, 5)
            self._process = None

    def get(self, target, timeout=5.0):
        return http.ask(self.address, http.request_bytes("GET", target), timeout)

    def post_form(self, target, timeout=5.0, **fields):
        return http.ask(self.address, http.form_request(target, fields), timeout)

    def store(self, key, value):
        return http.ask(self.address, http.store_request(key, value))

    def read(self, key):
        return http.ask(self.address, http.read_request(key))


_SECTION_WORDS = ("global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "userlist", "cache", "ring", "program")
_GLOBAL_WORDS_OF_THE_SYSTEM = ("daemon", "chroot", "user", "group", "pidfile", "log", "uid", "gid")


def rewritten_configuration(template, address, statistics_address, server_addresses, directory):
    """The configuration with its addresses replaced. Everything else stays, for it is what the tests are about."""
    sections = []
    for line in template.splitlines():
        words = line.split("#")[0].split()
        if words and words[0] in _SECTION_WORDS and not line[0].isspace():
            sections.append([])
        if sections:
            sections[-1].append(line)
    output = []
    for section in sections:
        kind = section[0].split()[0]
        parsed = [line.split("#")[0].split() for line in section]
        shows_statistics = any(words[:2] in (["stats", "enable"], ["stats", "uri"]) for words in parsed) and kind != "defaults"
        servers_written = False
        for line, words in zip(section, parsed):
            if not words:
                continue
            if kind == "global" and words[0] in _GLOBAL_WORDS_OF_THE_SYSTEM and words[:2] != ["log", "stdout"]:
                continue
            if words[:2] == ["stats", "socket"]:
                line = " ".join(["    stats socket", f"{directory}/haproxy.sock", *words[3:]])
            elif words[0] == "log" and words[1] not in ("global", "stdout"):
                continue
            elif words[0] == "bind":
                line = " ".join(["    bind", statistics_address if shows_statistics else address, *words[2:]])
            elif words[0] == "server":
                if servers_written:
                    continue
                servers_written = True
                line = "\n".join(" ".join([f"    server node{number}", server, *words[3:]])
                                 for number, server in enumerate(server_addresses, 1))
            output.append(re.sub(r"map_int\([^),]*", f"map_int({directory}/ring.map", line))
    return "\n".join(output) + "\n"


class Cluster:
    """Nodes and HAProxy. Use as a context manager: on the way out it checks that nobody crashed, and ends everything."""

    def __init__(self, name, log_directory, *, nodes=3, positions=None, workers=2, proxy=True, memory_megabytes=256,
                 hash_power=18, settings=None, network=None, ring_fields=None,
                 replicas=1, authority="embedded", tokens=None):
        """`positions` maps positions to node numbers from 1; empty: the nodes get no ring. `network` gives the nodes their
        addresses (by default a loopback network of their own), `ring_fields` goes into the ring's document beside the nodes.
        `replicas=None` leaves their number to the daemon. `tokens` are those of the doors ("data", "admin", "peer") that have one;
        the tests' own questions carry the admin's. With `authority="etcd"` three members of etcd keep the ring."""
        self.name = name
        self._log_directory = Path(log_directory)
        self._block = network or AddressBlock()
        self._ring_fields = {**({} if replicas is None else {"replicas": replicas}), **(ring_fields or {})}
        self.directory = Path(tempfile.mkdtemp(prefix="kvserver-e2e-"))
        binary = find_server_binary()
        expect(os.access(binary, os.X_OK), f"no daemon at {binary}: build it, or set KVSERVER_BINARY")
        self.etcd = Etcd(self._block, self.directory) if authority == "etcd" else None
        settings = {**({"etcd": self.etcd.endpoints} if self.etcd else {}), **self.write_tokens(tokens or {}), **(settings or {})}
        self.nodes = [
            Node(f"node{number}", self._block.address(10 + number), self.directory / f"node{number}", binary,
                 {"workers": workers, **settings}, memory_megabytes, hash_power, self._block.entrance(number))
            for number in range(1, nodes + 1)
        ]
        if tokens and "admin" in tokens:
            for node in self.nodes:
                node.headers = [("Authorization", f"Bearer {tokens['admin']}")]
        positions = {3000: 1, 8000: 2} if positions is None else positions
        self.first_ring = Ring({position: self.node(number).address for position, number in positions.items()})
        self.proxy = Proxy(self._block.address(10), self._block.address(10, 8404), self.nodes, self.directory) if proxy else None

    def write_tokens(self, tokens):
        """Makes the tokens' files, which all nodes share; each door's may be several, on lines. Returns the settings that name them."""
        for door, text in tokens.items():
            path = self.directory / f"{door}-token"
            path.unlink(missing_ok=True)
            path.touch(mode=0o600)
            path.write_text(text + "\n")
        return {f"{door}TokenFile": str(self.directory / f"{door}-token") for door in tokens}

    def node(self, number):
        """Node by number, from 1."""
        return self.nodes[number - 1]

    def node_at(self, address):
        return next(node for node in self.nodes if node.address == address)

    @property
    def addresses(self):
        return [node.address for node in self.nodes]

    def unused_address(self, host=99):
        """An address of this cluster's network where nobody listens."""
        return self._block.address(host)

    def start(self):
        if self.etcd:
            self.etcd.start()
        for node in self.nodes:
            node.memcached.start()
            node.start_daemon()
        for node in self.nodes:
            node.wait_until_alive()
        if self.first_ring.nodes_by_position:
            self.install_ring(self.first_ring)
            for node in self.nodes:
                node.wait_until_ready()
        if self.proxy:
            self.proxy.start()
            self.proxy.wait_until_serving()

    def install_ring(self, ring, **further):
        """The same ring to every node in turn, as reconfigure.sh does it. `further` goes into the document."""
        for node in self.nodes:
            answer = node.install_ring(ring, **self._ring_fields, **further)
            expect(answer.status == 200 and answer.body == b"OK", f"installing the ring on {node.name}: {answer}")

    def one_ring(self):
        """The ring that all nodes have, or None while they differ in epoch or positions, or while a change runs. All workers of
        a node have it: each answers for itself, and the next question may reach another one."""
        documents = [node.ring_document() for node in self.nodes]
        first = documents[0]
        if any((document["ring"], document["epoch"]) != (first["ring"], first["epoch"]) for document in documents):
            return None
        for node in self.nodes:
            status = node.status()
            workers = status["workers"]
            if status.get("transition") is not None or len(workers) < node.settings["workers"]:
                return None
            if any(worker["drainedEpoch"] < first["epoch"] for worker in workers):
                return None
        return Ring(first["ring"])

    def wait_for_one_ring(self, seconds=10):
        try:
            return eventually(seconds, "all nodes have one ring and no change runs", self.one_ring)
        except TestFailure as failure:
            raise TestFailure(f"{failure}; {self.describe_rings()}") from failure

    def describe_rings(self):
        described = []
        for node in self.nodes:
            try:
                status = node.status()
                described.append(f"{node.name}: epoch {status.get('epoch')} ring {node.ring_document()['ring']} "
                                 f"transition {status.get('transition')} last {status.get('lastChange')}")
            except (OSError, ValueError, http.MalformedAnswer) as error:
                described.append(f"{node.name}: {error}")
        return "; ".join(described)

    def expect_pairs_only_at_owners(self, ring, wanted_keys=None, not_wanted_keys=()):
        """Each node lists keys that it owns and no others; with `wanted_keys`, exactly those in all,
        give or take the `not_wanted_keys`, which may be missing."""
        seen = set()
        for node in self.nodes:
            pairs = node.pairs()
            strangers = [key for key in pairs if ring.owner(key) != node.address]
            expect(not strangers, f"{node.name} holds {len(strangers)} of {len(pairs)} pairs that it does not own, "
                                  f"such as {strangers[:3]}")
            seen |= pairs.keys()
        if wanted_keys is not None:
            missing = set(wanted_keys) - seen - set(not_wanted_keys)
            expect(not missing, f"{len(missing)} keys are listed by no node, such as {sorted(missing)[:3]}")

    def accept_present_workers(self):
        """Tells the harness that the test has replaced workers on purpose."""
        for node in self.nodes:
            node.accept_present_workers()

    def expect_nobody_crashed(self):
        for node in self.nodes:
            crashes = node.crash_lines()
            expect(not crashes, f"{node.name} crashed: {crashes[:3]}")
            deaths = node.unexpected_deaths()
            expect(not deaths, f"{node.name} lost its workers {deaths} though nobody sent them away: {node.log_tail()}")
            expect(node.memcached.process is None or node.memcached.process.alive, f"the memcached of {node.name} has ended")

    def end(self):
        if self.proxy:
            self.proxy.end()
        for node in self.nodes:
            node.end()
        if self.etcd:
            self.etcd.end()
        self._block.release()

    def keep_logs(self):
        """Copies logs, settings and failpoints to where someone can look at them; returns the place."""
        place = self._log_directory / self.name
        for source in sorted(self.directory.rglob("*")):
            is_etcds = self.etcd and any(member.directory in source.parents for member in self.etcd.members)
            if source.is_file() and source.suffix in (".log", ".json", ".cfg", "") and not is_etcds:
                target = place / source.relative_to(self.directory)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        return place

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__(TestFailure, None, None)
            raise
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.expect_nobody_crashed()
        except TestFailure:
            kind = TestFailure
            raise
        finally:
            self.end()
            if kind is not None:
                print(f"      logs of {self.name}: {self.keep_logs()}", flush=True)
            shutil.rmtree(self.directory, ignore_errors=True)
