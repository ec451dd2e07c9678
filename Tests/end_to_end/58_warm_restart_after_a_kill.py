# SPDX-License-Identifier: Apache-2.0
"""A memcached whose pairs lie in a file (`-e`) takes them up after SIGUSR1, and is empty after `kill -9`: another memory, which is
refilled by the others, and of whose old pairs none is seen again."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

from harness.aftermath import expect_nothing_lost
from harness.cluster import REPOSITORY, Memcached
from harness.client import ask, request_bytes
from harness.expectations import eventually, expect, expect_equal
from harness.processes import OwnedProcess
from harness.workload import store_many

#: The least with which memcached starts on a file.
MEGABYTES = 40


class MemcachedOnFile(Memcached):
    """Started as every deployment starts it."""

    def __init__(self, other, file):
        super().__init__(other.socket_path, other.log_path, MEGABYTES)
        self.file = file

    def start(self):
        Path(self.socket_path).unlink(missing_ok=True)
        self.process = OwnedProcess([REPOSITORY / "deploy/run-memcached.sh", "--socket", self.socket_path, "--memory", MEGABYTES,
                                     "--threads", "2", "--memory-file", self.file], self.log_path)
        eventually(10, "memcached accepts", lambda: self.command(b"version").startswith(b"VERSION"), interval=0.01)

    def restart_warm(self):
        self.process.signal(signal.SIGUSR1)
        expect(self.process.wait(10), "memcached does not end by SIGUSR1")
        self.start()


def run(context):
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or os.statvfs(shared).f_bavail * os.statvfs(shared).f_frsize < 2 * MEGABYTES << 20:
        context.note("SKIPPED: no room in /dev/shm")
        return
    directory = tempfile.mkdtemp(prefix="kvserver-e2e-", dir=shared)
    try:
        # No snapshot helps: what is there again comes from the others.
        cluster = context.cluster(replicas=3, positions={2000: 1, 5000: 2, 8000: 3}, proxy=False,
                                  settings={"repairSeconds": 2, "snapshotSeconds": 0, "consistency": "strict"})
        node = cluster.node(2)
        node.memcached = MemcachedOnFile(node.memcached, f"{directory}/memory")
        with cluster:
            a_stop_by_usr1_keeps_all(cluster, node)
            a_kill_under_load(context, cluster, node)
            a_kill_of_the_whole_host(cluster, node)
    finally:
        shutil.rmtree(directory)


def a_stop_by_usr1_keeps_all(cluster, node):
    """So that what follows is no matter of a file that is never taken up."""
    store_many(cluster.addresses, [f"warm{number}" for number in range(50)], "warm")
    generation = node.status()["generation"]
    node.memcached.restart_warm()
    eventually(5, "its pairs are back", lambda: all(node.read(f"warm{number}", "/cache").status == 200 for number in range(50)))
    expect_equal(node.status()["generation"], generation, "the generation after a warm restart")
    expect(not Path(f"{node.memcached.file}.meta").exists(), "what describes the file is used a second time")


def a_kill_under_load(context, cluster, node):
    """The file is as it was in the middle of writes."""
    generation = node.status()["generation"]
    keys = [f"key{number}" for number in range(200)]
    with context.load(cluster.addresses, keys, connections=6, processes=1, write_fraction=0.5, rate=600) as load:
        load.wait_for_more(600)
        node.memcached.process.kill()
        expect(os.path.getsize(node.memcached.file) > 0, "there is no file to take up")
        node.memcached.start()
        eventually(3, "it is known for another memory", lambda: node.status()["generation"] != generation or None)
        load.wait_for_more(600)
        eventually(20, "it is refilled", lambda: not node.status()["isRecovering"] or None)
        load.wait_for_more(200)
        result = load.stop()
    checked, _ = expect_nothing_lost(cluster, result.history)
    context.note(f"{checked} operations checked, {len(result.failed_reads) + len(result.failed_writes)} failed")


def a_kill_of_the_whole_host(cluster, node):
    """What the others write and delete while it is down is newer than what its file holds."""
    keys = [f"host{number}" for number in range(100)]
    for key in keys:
        expect_equal(cluster.node(1).store(key, "old").status, 200, f"storing {key}")
    eventually(15, "all holders have them", lambda: all(node.read(key, "/cache").text == "old" for key in keys))
    node.end_daemon()
    node.memcached.process.kill()
    for key in keys[:60]:
        expect_equal(cluster.node(1).store(key, "new").status, 200, f"storing {key} while a host is down")
    for key in keys[60:]:
        answer = ask(cluster.node(3).address, request_bytes("DELETE", f"/route?key={key}"))
        expect_equal(answer.status, 200, f"deleting {key} while a host is down")
    node.memcached.start()
    expect_equal(node.memcached.stored_names(), [], "what memcached holds after a kill")
    node.start_daemon()
    eventually(10, "it says that its memory is being refilled", lambda: node.status()["isRecovering"] or None, interval=0.01)

    # From the first moment on, whatever it answers is what is true now.
    def old_ones():
        answers = {key: [node.read(key, path) for path in ("/cache", "/route?r=1&consistency=sloppy", "/route")] for key in keys[::5]}
        return {key: found for key, found in answers.items() if any(answer.text == "old" for answer in found)}

    def is_whole():
        expect_equal(old_ones(), {}, "what a host that was killed shows of its old memory")
        return not node.status()["isRecovering"] or None
    eventually(20, "it is refilled", is_whole)
    node.wait_until_alive()
    eventually(5, "it serves its own pairs", lambda: node.read(keys[0], "/cache").status == 200 or None)
    found = {key: node.read(key, "/cache") for key in keys}
    expect_equal({key: answer.text if answer.status == 200 else None for key, answer in found.items()},
                 {key: "new" if number < 60 else None for number, key in enumerate(keys)}, "what it holds once it is refilled")
