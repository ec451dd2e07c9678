# SPDX-License-Identifier: Apache-2.0
"""Replicas are compared every second while one member's copies are dropped or put back to older ones behind its back, and clients overwrite
them: at no member does an older version ever take a newer one's place, and in the end all hold the newest."""

import socket
import time

from harness.checker import check_history
from harness.client import OK, ask, percent_encode, request_bytes
from harness.expectations import eventually, expect, expect_equal
from harness.history import READ, WRITE, History, Operation
from harness.placement import slot_of
from harness.workload import Draw, value_for, value_of_read

#: All members acknowledge and all are read, so that what is done to one member alone is hidden from clients.
QUERY = "consistency=strict&r=3&w=3"
KEYS = [f"raced{number}" for number in range(60)]
#: Not written meanwhile: only a repair can bring them back.
AT_REST = [f"rest{number}" for number in range(60)]
SECONDS_TO_AGREE = 15


class StrictReadsAndWrites:
    def draw(self, chooser, name):
        key = chooser.choice(KEYS)
        if chooser.random() < 0.5:
            wire, value = value_for(key, name)
            return Draw(WRITE, key, value, store_request(key, wire))
        return Draw(READ, key, None, read_request(key))

    def learn(self, operation):
        pass


def store_request(key, value):
    body = b"key=%b&val=%b" % (percent_encode(key), percent_encode(value))
    return request_bytes("POST", f"/route?{QUERY}", body, [("Content-Type", "application/x-www-form-urlencoded")])


def read_request(key):
    return request_bytes("GET", f"/route?{QUERY}&key={key}")


def run(context):
    seconds = context.short_or_full(8, 60)
    with context.cluster(replicas=3, positions={2000: 1, 5000: 2, 8000: 3}, proxy=False,
                         settings={"repairSeconds": 1, "snapshotSeconds": 0}) as cluster:
        history = History()
        for number, key in enumerate(KEYS + AT_REST):
            wire, value = value_for(key, f"first.{number}")
            called = time.monotonic_ns()
            answer = ask(cluster.node(1).address, store_request(key, wire))
            expect_equal(answer.status, 200, f"storing {key}: {answer}")
            history.add(Operation("first", key, WRITE, value, answer.version, called, time.monotonic_ns(), OK, "", 200))
        memories = [Memory(node) for node in cluster.nodes]
        victim = memories[context.random.randrange(3)]
        with context.load(cluster.addresses, KEYS, connections=6, processes=1, rate=400, mix=StrictReadsAndWrites()) as load:
            load.wait_for_more(100)
            looks, dropped, aged = look_and_damage(context, memories, victim, seconds)
            load.wait_for_more(100)
            result = load.stop()
        expect(not result.failed_reads and not result.failed_writes,
               f"{len(result.failed_reads) + len(result.failed_writes)} operations failed: {result.notes[:3]}")
        for operations in result.history.by_key.values():
            history.extend(operations)

        def held():
            found = [memory.copies(KEYS + AT_REST) for memory in memories]
            return found[0] if found[0] == found[1] == found[2] and len(found[0]) == len(KEYS + AT_REST) else None
        copies = eventually(SECONDS_TO_AGREE, "all members hold the same", held, interval=0.2)
        for key in KEYS + AT_REST:
            # (Every write was acknowledged, and its version is its writer's alone.)
            newest = max(operation.version for operation in history.by_key[key] if operation.is_write)
            expect_equal(version_of(copies[key]).hex(), newest, f"the version that all members hold of {key}")
            called = time.monotonic_ns()
            read = ask(cluster.node(2).address, read_request(key))
            history.add(Operation("last", key, READ, value_of_read(key, read), read.version, called, time.monotonic_ns(), OK))
        violations = check_history(history)
        expect(not violations, f"{len(violations)} keys are not linearizable:\n" + "\n".join(map(str, violations[:3])))
        repaired = sum(log.count("ring.job=repair") for log in (node.log_path.read_text() for node in cluster.nodes))
        expect(repaired, "replicas were never compared")
    context.note(f"{looks} looks at all members, {dropped} copies dropped and {aged} put back to older ones, {len(history)} operations, "
                 f"{repaired} repairs")


def look_and_damage(context, memories, victim, seconds):
    """Looks at what every member holds again and again, and between two looks does damage to one of them: it is what it was made, from
    then on; everything else may become newer only."""
    newest, old = [{} for _ in memories], []
    looks = dropped = aged = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        looks += 1
        for memory, versions in zip(memories, newest):
            for key, envelope in memory.copies(KEYS + AT_REST).items():
                version = version_of(envelope)
                expect(version >= versions.get(key, version), f"{memory.name} went back from {versions.get(key, b'').hex()} to "
                                                               f"{version.hex()} of {key}")
                versions[key] = version
                if memory is victim and len(old) < 2000:
                    old.append((key, envelope))
            missing = [key for key in versions if versions[key] > NOTHING and key not in memory.present]
            expect(not missing, f"{memory.name} has dropped {missing[:3]}")
        versions = newest[memories.index(victim)]
        for key in context.random.sample(KEYS + AT_REST, 6):
            if context.random.random() < 0.5:
                victim.drop(key)
                versions[key] = NOTHING
                dropped += 1
        for key, envelope in context.random.sample(old, 6):
            if victim.put(key, envelope):
                versions[key] = version_of(envelope)
                aged += 1
        time.sleep(0.005)
    return looks, dropped, aged


class Memory:
    """A node's memcached, as someone sees it who goes past the node."""

    def __init__(self, node):
        self.name = node.name
        self.present = set()
        self._file = None
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(5)
        self._socket.connect(node.memcached.socket_path)
        self._file = self._socket.makefile("rb")

    def copies(self, keys):
        """Key: the envelope, of those that are there."""
        names = {name_of(key): key for key in keys}
        self._socket.sendall(b"get " + b" ".join(names) + b"\r\n")
        found = {}
        while (line := self._file.readline()) != b"END\r\n":
            words = line.split()
            expect(words[0] == b"VALUE", f"memcached says {line!r}")
            found[names[words[1]]] = self._file.read(int(words[3]))
            self._file.read(2)
        self.present = set(found)
        return found

    def drop(self, key):
        self._socket.sendall(b"delete " + name_of(key) + b"\r\n")
        self._file.readline()

    def put(self, key, envelope):
        self._socket.sendall(b"set %b 0 0 %d\r\n%b\r\n" % (name_of(key), len(envelope), envelope))
        return self._file.readline() == b"STORED\r\n"


NOTHING = bytes(12)


def name_of(key):
    return b"d%04d:%b" % (slot_of(key), key.encode())


def version_of(envelope):
    """Behind format and flags: time and writer, to be compared as they are."""
    return envelope[2:14]
