# SPDX-License-Identifier: Apache-2.0
"""A cluster, clients that write down what they see, a schedule of faults, and the checks at its end."""

import json
import shutil
import threading
import time
from collections import Counter

from harness import client as http
from harness.client import OK
from harness.expectations import TestFailure, eventually, expect
from harness.history import CONDITIONAL, READ, WRITE, History, Operation
from harness.placement import keys_owned_by
from harness.workload import Load, LoadOptions, value_for, value_of_read

from . import checks
from .disks import Disk
from .faults import DISK, FAULTS
from .mix import Mix, keys_of_kind
from .schedule import describe

#: Where the hosts stand on the ring at first; the last one is the standby, which joins and leaves, and takes others' places.
POSITIONS = {3000: 1, 6000: 2, 9000: 3}
STANDBY_POSITION = 4500
HOSTS = 4

BULK_PAIRS = 2000
#: The longest that a host may take to be well again once its fault is healed; longer while the ring changes.
WELL_WITHIN_SECONDS, CHANGED_WITHIN_SECONDS = 15, 40
COPIES_AGREE_WITHIN_SECONDS = 20


class Scene:
    """Use as a context manager: it begins with a cluster that is well and clients at work, and ends with nothing left."""

    def __init__(self, context, replicas, settings=None, parameters=None):
        """`settings` are the daemons', beside what all scenes have; `parameters` go into every request instead of the wish for
        strict reads and writes."""
        self.context = context
        self.replicas = replicas
        self.network = context.new_network(HOSTS)
        self.marks = []                         # (monotonic ns, text): what the nemesis did
        self._states = {}
        self._parameters = parameters or ({"consistency": "strict"} if replicas > 1 else {})
        self._mix = Mix("", self._parameters)
        self.cluster = context.cluster(
            nodes=HOSTS, positions=POSITIONS, memory_megabytes=64, hash_power=16, network=self.network,
            settings={"insecure": True, "repairSeconds": 3, "snapshotSeconds": 2, **(settings or {})}, replicas=replicas)
        self.disks = {}                         # by host, where hosts have some of their own
        self.load = None
        self.history = History()
        self.ring_changes = Counter()           # by what was asked and the answer's status
        self.hosts_by_place = {place: host for place, host in enumerate(POSITIONS.values(), 1)}
        self.standby = HOSTS
        self.longest_silence = 0.0              # seconds in which nobody at all was served, while a fault lasted

    def __enter__(self):
        try:
            if DISK not in self.context.lacking:
                self.disks.update((number, Disk(self.cluster.node(number).state_directory)) for number in range(1, HOSTS + 1))
            self.cluster.__enter__()
        except BaseException:
            self._release()
            raise
        try:
            self._probes = self._draw_probes()
            copies = len(checks.holders_of(self.cluster, self._probes[:1])[self._probes[0]])
            expect(copies == self.replicas, f"this daemon keeps {copies} copies of a pair where {self.replicas} were asked for")
            self._store_bulk()
            self.load = Load(LoadOptions(addresses=self._entrances(), keys=[], connections=12, processes=1, rate=450,
                                         operation_deadline=3.0, seed=self.context.seed, name="c", mix=self._mix, moves_on=True))
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind, *details):
        try:
            if self.load:
                self.load.__exit__()
            if self.network:
                self.network.heal()
            self.cluster.accept_present_workers()
        finally:
            try:
                self.cluster.__exit__(kind, *details)
            finally:
                self._release()

    def _release(self):
        for disk in self.disks.values():
            disk.release()
        if self.disks:
            shutil.rmtree(self.cluster.directory, ignore_errors=True)
        # The cluster's end has released the network already where it got so far.
        self.context.network_is_gone(self.network)

    def _entrances(self):
        """Where clients ask: of each three, two ask nodes, and one the balancer."""
        addresses = self.cluster.addresses
        pairs = [addresses[index:index + 2] for index in range(0, len(addresses), 2)]
        return [address for pair in pairs for address in (*pair, self.cluster.proxy.address)]

    # What faults ask

    def node(self, step):
        return self.cluster.node(step["host"])

    def state_of(self, step):
        """A place for what a fault has to remember of a step."""
        return self._states.setdefault(id(step), {})

    def seconds_to_connect(self, host, timeout=5.0):
        began = time.monotonic()
        with http.Connection(self.cluster.node(host).address, timeout):
            return time.monotonic() - began

    def mark(self, text):
        self.marks.append((time.monotonic_ns(), text))

    # Health

    def _draw_probes(self):
        ring = self.cluster.first_ring
        return [keys_owned_by(ring, node.address, 1, f"probe{number}.")[0]
                for number, node in enumerate(self.cluster.nodes) if node.address in ring.nodes_by_position.values()]

    def trouble(self):
        """What is not as it should be, in words; None: every node is ready, has all its workers, and stores and reads pairs of
        every owner, and there is one ring."""
        for node in self.cluster.nodes:
            try:
                ready = node.get("/health/ready", timeout=2)
                if ready.status != 200:
                    return f"{node.name} is not ready: {ready}"
                if node.status()["isRecovering"]:
                    return f"{node.name} is recovering"
                if len(node.workers()) != node.settings["workers"]:
                    return f"{node.name} has {len(node.workers())} workers"
                trouble = self._trouble_with_probes(node.name, node.address)
                if trouble:
                    return trouble
            except (OSError, ValueError) as error:
                return f"{node.name}: {error}"
        try:
            trouble = self._trouble_with_probes("the balancer", self.cluster.proxy.address)
            if trouble:
                return trouble
            return None if self.cluster.one_ring() is not None else "the rings differ, or change"
        except (OSError, ValueError) as error:
            return str(error)

    def _trouble_with_probes(self, name, address):
        for key in self._probes:
            with http.Connection(address, 2) as connection:
                value = f"by {name} at {time.monotonic_ns()}"
                stored = connection.exchange(self._store(key, value.encode()))
                found = connection.exchange(self._read(key))
                if stored.status != 200 or found.text != value:
                    return f"{name} stored {key!r} with {stored} and read {found}"
        return None

    def wait_until_well(self, seconds, what):
        began, trouble = time.monotonic(), "nothing asked"
        while trouble:
            trouble = self.trouble()
            if trouble and time.monotonic() - began > seconds:
                raise TestFailure(f"not well within {seconds} s {what}: {trouble}; {self.cluster.describe_rings()}")
            if trouble:
                time.sleep(0.1)
        return time.monotonic() - began

    # The schedule

    def run(self, schedule, seconds=None):
        """Inflicts and heals all steps, or as many as begin within that time, then checks everything. The failure tells the
        shortest story of what went wrong."""
        slowest, number = 0.0, 0
        until = time.monotonic() + seconds if seconds else float("inf")
        try:
            for number, step in enumerate(schedule["steps"], 1):
                if time.monotonic() > until:
                    number -= 1
                    break
                self.load.wait_for_more(step["after"], 60)
                self.wait_until_well(WELL_WITHIN_SECONDS, f"before: {describe(step)}")
                slowest = max(slowest, self._run_step(step))
            self.load.wait_for_more(300, 60)
        except TestFailure as failure:
            # What the clients saw may well tell more than that something did not go on.
            raise TestFailure(f"{failure}{self._story_so_far()}") from failure
        self.check_all()
        context = self.context
        context.faults_inflicted, context.operations_checked = number, len(self.history)
        context.note(f"{number} faults, well again after {slowest:.1f} s at most, "
                     f"nobody served for {self.longest_silence:.1f} s at most; {self.summary}")
        if self.ring_changes:
            context.note("ring changes by answer: " + ", ".join(f"{count} {answer}" for answer, count in sorted(self.ring_changes.items())))

    def _run_step(self, step):
        fault, text = FAULTS[step["fault"]], describe(step)
        change = RingChange(self, step["ring change"]) if "ring change" in step else None
        self.mark(f"inflict {text}")
        heal = fault.inflict(self, step)
        try:
            served = self._hold(step)
            if fault.has_happened:
                eventually(10, f"the effect of {text} shows", lambda: fault.has_happened(self, step))
        finally:
            heal()
        self.mark(f"healed {step['fault']}")
        expect(served > 0, f"nobody at all was served during {text}")
        if change:
            change.wait()
        seconds = self.wait_until_well(CHANGED_WITHIN_SECONDS if change else WELL_WITHIN_SECONDS, f"after {text}")
        if change:
            change.expect_what_was_answered()
        self.mark(f"well again after {seconds:.1f} s")
        return seconds

    def _hold(self, step):
        """Until so many operations were answered, or the time is over; returns how many were."""
        began = answered = self.load.answered
        latest = time.monotonic()
        until = latest + step["seconds"]
        while answered < began + step["hold"] and time.monotonic() < until:
            time.sleep(0.01)
            now, before, answered = time.monotonic(), answered, self.load.answered
            if answered > before:
                latest = now
            self.longest_silence = max(self.longest_silence, now - latest)
        return answered - began

    def _story_so_far(self):
        try:
            self.history.extend(operation for operations in self.load.stop().history.by_key.values() for operation in operations)
            findings = checks.linearizable(self.history)
        except TestFailure as failure:
            return f"\nand the load: {failure}"
        done = "\n".join(f"--- {text}" for _, text in self.marks[-6:])
        return f"\n{done}\n{self._told(findings) if findings else 'What clients saw until then is in order.'}"

    # The checks

    def finish_load(self):
        """Stops the clients, heals and waits; what the clients saw is in `history` then."""
        result = self.load.stop()
        self.history.extend(operation for operations in result.history.by_key.values() for operation in operations)
        if self.network:
            self.network.heal()
        self.wait_until_well(WELL_WITHIN_SECONDS, "after everything")
        self.result = result

    def check_all(self):
        self.finish_load()
        findings = self.findings()
        if findings:
            raise TestFailure(self._told(findings))

    def findings(self):
        """Reads every key back, through every node in turn, and from each of its holders; then says what is wrong. It is read
        again once the copies agree, for a read meets some of a key's copies only, and a wrong one may win afterwards."""
        keys = sorted(self.history.by_key)
        self.mark("final reads")
        self.history.extend(self._read_all(keys))
        disagreement = self._wait_until_copies_agree(keys)
        findings = checks.nothing_lost(self.history, [*keys_of_kind("element", keys), *keys_of_kind("bulk", keys)])
        findings += checks.nothing_resurrected(self.history)
        findings += checks.linearizable(self.history)
        findings += disagreement + self._strangers()
        result, failed = self.result, len(self.result.failed_reads) + len(self.result.failed_writes)
        self.summary = (f"{len(self.history)} operations on {len(keys)} keys checked, {failed} failed "
                        f"({sum(o.outcome == http.UNKNOWN for o in result.failed_writes)} unknown), "
                        f"{checks.sessions(self.history)} steps back within a session")
        return findings

    def _wait_until_copies_agree(self, keys):
        """A write of unknown outcome may land late, between two looks: so they are repeated for what differs."""
        until = time.monotonic() + COPIES_AGREE_WITHIN_SECONDS
        while True:
            reads = self._read_all(keys)
            self.history.extend(reads)
            answers = {read.key: (read.value, read.version) if read.value is not None else None for read in reads}
            copies = checks.all_copies(self.cluster, keys)
            findings = checks.copies_agree(copies, self.replicas, answers)
            if not findings or time.monotonic() > until:
                return findings
            keys = sorted({finding.key for finding in findings})
            time.sleep(0.5)

    def _strangers(self):
        """Pairs that lie where the ring does not put them. Sweeps begin within some seconds."""
        until = time.monotonic() + COPIES_AGREE_WITHIN_SECONDS
        while True:
            findings = []
            for node in self.cluster.nodes:
                keys = list(node.pairs())
                holders = checks.holders_of(self.cluster, keys)
                findings += [checks.Finding("strangers", key, f"lies at {node.address}, which is no holder: {holders[key]}")
                             for key in keys if node.address not in holders[key]]
            if not findings or time.monotonic() > until:
                return findings
            time.sleep(0.5)

    def _told(self, findings):
        place = self.context.keep("history.jsonl", lambda path: write_history(path, self.history))
        return f"{len(findings)} findings; the history is {place}\n{checks.report(self.history, findings, self.marks)}"

    # Requests

    def _query(self):
        return b"".join(f"&{name}={value}".encode() for name, value in self._parameters.items())

    def _read(self, key):
        return http.request_bytes("GET", b"/route?key=%b%b" % (http.percent_encode(key), self._query()))

    def _store(self, key, value):
        query = self._query()
        return http.store_request(key, value, "/route" + (f"?{query[1:].decode()}" if query else ""))

    def _read_all(self, keys):
        reads = []
        for index, called, returned, answer in http.exchange_many(self.cluster.addresses, [self._read(key) for key in keys]):
            reads.append(Operation("final", keys[index], READ, value_of_read(keys[index], answer), answer.version, called,
                                   returned, OK, "", answer.status))
        return reads

    def _store_bulk(self):
        keys = [f"bulk{number}" for number in range(BULK_PAIRS)]
        values = [value_for(key, f"bulk.{number}") for number, key in enumerate(keys)]
        requests = [self._store(key, wire) for key, (wire, _) in zip(keys, values)]
        # A few at a time: on a busy machine the last of many would run out of time.
        for index, called, returned, answer in http.exchange_many(self.cluster.addresses, requests, depth=24):
            expect(answer.status == 200, f"storing {keys[index]!r} in bulk: {answer}")
            self.history.add(Operation("bulk", keys[index], WRITE, values[index][1], answer.version, called, returned, OK,
                                       "", answer.status))


class RingChange:
    """The standby joins or takes another's place, or leaves if it is there, asked for by a thread; begun when this returns."""

    def __init__(self, scene, options):
        self._scene = scene
        self._before = scene.cluster.one_ring()
        expect(self._before is not None, "there is no one ring to change")
        standby = scene.cluster.node(scene.standby).address
        self._place = None
        if standby in self._before.nodes_by_position.values():
            self._target, self._after = f"/remove_node/{standby}", self._before.removing(standby)
        elif "place" in options:
            self._place = options["place"]
            old = scene.cluster.node(scene.hosts_by_place[self._place]).address
            self._target, self._after = f"/replace_node/{old}/{standby}", self._before.replacing(old, standby)
        else:
            self._target = f"/add_node/{STANDBY_POSITION}/{standby}"
            self._after = self._before.adding(STANDBY_POSITION, standby)
        self._answer = None
        self._asked = scene.cluster.node(options["through"])
        scene.mark(f"{self._target} through {self._asked.name}")
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()
        time.sleep(options["lead"])

    def _ask(self):
        try:
            self._answer = self._asked.post_form(self._target, timeout=CHANGED_WITHIN_SECONDS)
        except (OSError, http.MalformedAnswer):
            pass

    def wait(self):
        self._thread.join(CHANGED_WITHIN_SECONDS + 5)
        self._scene.mark(f"{self._target} was answered with {self._answer}")
        verb = self._target.split("_")[0].strip("/")
        self._scene.ring_changes[f"{verb}: {self._answer.status if self._answer else 'no answer'}"] += 1

    def expect_what_was_answered(self):
        """What OK was said to is so; of what was refused, or not answered, either ring may be the outcome."""
        ring = self._scene.cluster.wait_for_one_ring()
        if self._answer is not None and self._answer.status == 200:
            expect(ring == self._after, f"{self._target} was answered with OK, but the ring is {ring}")
        expect(ring in (self._before, self._after), f"after {self._target} the ring is neither the old nor the new one: {ring}")
        if self._place and ring == self._after:
            hosts = self._scene.hosts_by_place
            hosts[self._place], self._scene.standby = self._scene.standby, hosts[self._place]


# Histories in files


_NAMES = {READ: "read", WRITE: "write", CONDITIONAL: "replace"}
_KINDS = {**{name: kind for kind, name in _NAMES.items()}, "delete": WRITE}
_FIELDS = ("client", "key", "op", "value", "version", "t_call", "t_return", "outcome", "node", "status", "expected")


def write_history(path, history):
    """JSON lines, an object an operation; a return that never came is null."""
    with open(path, "w", encoding="utf-8") as file:
        for operations in history.by_key.values():
            for o in operations:
                returned = None if o.returned == float("inf") else o.returned
                name = "delete" if o.is_delete else _NAMES[o.kind]
                line = (o.client, o.key, name, o.value, o.version, o.called, returned, o.outcome, o.node, o.status, o.expected)
                file.write(json.dumps(dict(zip(_FIELDS, line)), ensure_ascii=False) + "\n")


def read_history(path):
    with open(path, encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    return History(Operation(o["client"], o["key"], _KINDS[o["op"]], o["value"], o["version"], o["t_call"],
                             float("inf") if o["t_return"] is None else o["t_return"], o["outcome"], o["node"], o["status"],
                             o["expected"]) for o in found)
