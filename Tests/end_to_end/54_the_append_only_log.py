# SPDX-License-Identifier: Apache-2.0
"""Logs instead of fresh snapshots: all hosts, a worker or a memory are killed under writes, and what was acknowledged comes back; a log that fails refuses writes."""

import threading
import time

from harness.client import Connection, ask, request_bytes
from harness.expectations import eventually, expect, expect_equal
from harness.processes import kill

#: What may be lost with all memories at once: a second, and some for a machine that is busy.
LOST_SECONDS = 1.5
NEVER = 3600


def run(context):
    # (The first from the log alone; the second from snapshots that cut it off meanwhile.)
    for replicas, snapshot_seconds in [(1, NEVER), (3, 2)] + context.short_or_full([], [(3, NEVER), (1, 2)]):
        all_hosts_are_killed(context, replicas, snapshot_seconds)
    a_memory_is_lost(context)
    a_worker_is_killed(context)
    the_log_fails(context)


class Writer(threading.Thread):
    """Writes its own keys one after the other, again and again, until its connection breaks; every seventh write is a deletion."""

    def __init__(self, number, address, keys=200):
        super().__init__(daemon=True)
        self.keys = [f"w{number}-{key}" for key in range(keys)]
        #: By key, in their order: what was sent, None for a deletion.
        self.attempted = {key: [] for key in self.keys}
        #: By key, in their order: when the answer came, and the place of what it answers among those that were sent.
        self.acknowledged = {key: [] for key in self.keys}
        self.refused = []
        self.is_ending = False
        self._address = address

    def run(self):
        count = 0
        try:
            with Connection(self._address) as connection:
                while not self.is_ending:
                    key = self.keys[count % len(self.keys)]
                    # (As the keys are no multiple of seven, each is deleted at some time.)
                    value = None if count % 7 == 6 else f"{count}." + "x" * (count % 100)
                    self.attempted[key].append(value)
                    answer = connection.request("DELETE", f"/route?key={key}") if value is None else connection.store(key, value)
                    if answer.status == 200:
                        self.acknowledged[key].append((time.monotonic(), len(self.attempted[key]) - 1))
                    else:
                        self.refused.append(answer)
                    count += 1
        except OSError:
            pass

    def unexpected(self, found, until):
        """Of what was found, by key: what is neither the last value that was acknowledged until then, nor one sent after it."""
        wrong = {}
        for key in self.keys:
            places = [place for when, place in self.acknowledged[key] if when <= until]
            allowed = self.attempted[key][places[-1]:] if places else [None, *self.attempted[key]]
            if found[key] not in allowed:
                wrong[key] = (found[key], allowed[:3])
        return wrong


def all_hosts_are_killed(context, replicas, snapshot_seconds):
    settings = {"appendLog": True, "snapshotSeconds": snapshot_seconds}
    positions = {2000: 1, 5000: 2, 8000: 3}
    with context.cluster(replicas=replicas, positions=positions, proxy=False, settings=settings) as cluster:
        writers = [Writer(number, cluster.nodes[number % 3].address) for number in range(6)]
        for writer in writers:
            writer.start()
        time.sleep(context.short_or_full(6, 30))
        if snapshot_seconds != NEVER:
            for node in cluster.nodes:
                expect(node.status()["snapshot"]["pairs"], f"{node.name} has taken a snapshot")
        for node in cluster.nodes:
            log = node.status()["log"]
            expect(log["isOn"] and log["segments"] and log["lastSyncMilliseconds"] and log["error"] is None, f"{node.name}: {log}")
        memories = {node.name: node.status()["generation"] for node in cluster.nodes}
        pids = [pid for node in cluster.nodes for pid in node.processes()]
        killed = time.monotonic()
        for pid in pids:
            kill(pid)
        for node in cluster.nodes:
            node.end()
        for writer in writers:
            writer.join(10)
            expect(not writer.is_alive(), "a writer has noticed")
            # (503 where the other hosts are dead a moment earlier.)
            expect(not [a for a in writer.refused if a.status != 503], f"none was refused by a log: {writer.refused[:3]}")
        count = sum(len(acknowledged) for writer in writers for acknowledged in writer.acknowledged.values())
        expect(count > 500, f"there were writes enough: {count}")
        for node in cluster.nodes:
            node.memcached.start()
            node.start_daemon()
        for node in cluster.nodes:
            node.wait_until_alive()
        for node in cluster.nodes:
            wait_until_whole(node, memories[node.name])
            expect("the log is loaded" in node.log_path.read_text(), f"{node.name} has loaded its log")
        cluster.wait_for_one_ring()
        for writer in writers:
            found = {key: value_of(cluster.node(1), key) for key in writer.keys}
            wrong = writer.unexpected(found, killed - LOST_SECONDS)
            expect(not wrong, f"{replicas} replicas, snapshots every {snapshot_seconds} s: {len(wrong)} keys are older than they may be: {list(wrong.items())[:3]}")


def value_of(node, key):
    """None where there is no such pair. (503 for a moment, as each worker hears that the memory is whole.)"""
    answer = eventually(10, f"{node.name} answers {key}", lambda: next((a for a in [node.read(key)] if a.status != 503), None))
    expect(answer.status in (200, 404), f"{key}: {answer}")
    return answer.text if answer.status == 200 else None


def wait_until_whole(node, lost):
    """Until it has another memory than the lost one, and all in it that is to be in it."""
    def is_whole():
        status = node.status()
        return (status["generation"] not in (None, lost) and not status["isRecovering"]) or None
    eventually(60, f"{node.name} is whole again", is_whole)


def lose_memory(node):
    lost = node.status()["generation"]
    node.memcached.restart_empty()
    wait_until_whole(node, lost)


def a_memory_is_lost(context):
    """Under writes, and the workers live: nothing is lost, not even of the last second."""
    settings = {"appendLog": True, "snapshotSeconds": NEVER}
    with context.cluster(nodes=1, positions={3000: 1}, proxy=False, settings=settings) as cluster:
        node = cluster.node(1)
        writers = [Writer(number, node.address) for number in range(4)]
        for writer in writers:
            writer.start()
        for _ in range(context.short_or_full(2, 8)):
            time.sleep(1.5)
            lose_memory(node)
        for writer in writers:
            writer.is_ending = True
            writer.join(10)
            acknowledged = sum(map(len, writer.acknowledged.values()))
            expect(not writer.is_alive() and acknowledged > 100, f"a writer went on: {acknowledged}")
        for writer in writers:
            wrong = writer.unexpected({key: value_of(node, key) for key in writer.keys}, time.monotonic())
            expect(not wrong, f"{len(wrong)} keys are older than they may be: {list(wrong.items())[:3]}")


def a_worker_is_killed(context):
    """What it stored last is in no file, but in memory: a snapshot is taken soon, though none is due."""
    settings = {"appendLog": True, "snapshotSeconds": NEVER}
    with context.cluster(nodes=1, positions={3000: 1}, proxy=False, settings=settings) as cluster:
        node = cluster.node(1)
        writers = [Writer(number, node.address) for number in range(4)]
        for writer in writers:
            writer.start()
        time.sleep(3)
        victims = node.workers()
        node.kill_all_workers()
        node.wait_until_replaced(victims, 10)
        for writer in writers:
            writer.join(10)
        eventually(30, "a snapshot is taken", lambda: node.status()["snapshot"]["pairs"])
        left = [path.name for path in node.state_directory.glob("log.*")]
        eventually(5, f"the segments of the killed are gone: {left}", lambda: not node.status()["log"]["segments"] or None)
        lose_memory(node)
        for writer in writers:
            wrong = writer.unexpected({key: value_of(node, key) for key in writer.keys}, time.monotonic())
            expect(not wrong, f"{len(wrong)} keys are older than they may be: {list(wrong.items())[:3]}")


def the_log_fails(context):
    """Writes are refused and reads are not; once the disk works again so do writes, and nothing that was acknowledged is lost."""
    settings = {"appendLog": True, "snapshotSeconds": NEVER, "workers": 1}
    with context.cluster(nodes=1, positions={3000: 1}, proxy=False, settings=settings) as cluster:
        node = cluster.node(1)
        pairs = {}

        def store(key, value):
            answer = node.store(key, value)
            if answer.status == 200:
                pairs[key] = value
            return answer
        for failpoint in ("log.sync=error", "log.write=error"):
            for number in range(50):
                expect_equal(store(f"key{number}", f"before {failpoint} {number}").status, 200, "storing a pair")
            node.set_failpoints(failpoint)
            refusal = eventually(10, "writes are refused", lambda: next((a for a in [store("late", failpoint)] if a.status != 200), None))
            expect_equal((refusal.status, refusal.header("X-KV-Outcome")), (507, "not-applied"), "the refusal")
            expect(b"log" in refusal.body, f"it says why: {refusal}")
            expect_equal(node.read("key1").text, f"before {failpoint} 1", "what was stored, meanwhile")
            eventually(5, "the status says why", lambda: node.status()["log"]["error"])
            node.set_failpoints()
            eventually(10, "writes are taken again", lambda: store("afterwards", failpoint).status == 200 or None)
            eventually(5, "the status says so", lambda: node.status()["log"]["error"] is None or None)
        expect(node.status()["log"]["refused"] > 0, "the refusals are counted")
        lose_memory(node)
        expect_equal({key: value_of(node, key) for key in pairs}, pairs, "all that was acknowledged")
        answer = ask(node.address, request_bytes("DELETE", "/route?key=key1"))
        expect_equal(answer.status, 200, "deleting a pair")
        # (One more life: what was loaded is not in the log again, and need not be.)
        lose_memory(node)
        del pairs["key1"]
        expect_equal({key: value_of(node, key) for key in pairs}, pairs, "all that was acknowledged, once more")
        expect_equal(value_of(node, "key1"), None, "what was deleted")
