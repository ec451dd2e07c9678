# SPDX-License-Identifier: Apache-2.0
"""SIGHUP replaces all workers one by one under load: no request of any method fails, through HAProxy or directly. The new ones are started
as the old ones were."""

import json
import signal
from pathlib import Path

from harness.aftermath import expect_nothing_lost
from harness.expectations import expect, expect_equal

FULL_LIMIT_SECONDS = 1800
ALLOCATOR_SETTINGS = [f"glibc.malloc.{name}" for name in ("tcache_count", "arena_max", "mmap_threshold", "trim_threshold", "top_pad")]


def run(context):
    rounds = context.short_or_full(1, 7)
    keys = [f"key{number}" for number in range(500)]
    times = []
    with context.cluster() as cluster:
        environments = {node.name: [environment(pid) for pid in node.workers()] for node in cluster.nodes}
        with context.load([cluster.proxy.address], keys, connections=16, processes=1, name="proxied") as proxied, \
                context.load(cluster.addresses, keys, connections=6, processes=1, name="direct") as direct:
            proxied.wait_for_more(1000)
            for _ in range(rounds):
                for node in cluster.nodes:
                    old = node.workers()
                    node.supervisor.signal(signal.SIGHUP)
                    times.append(node.wait_until_replaced(old, 40))
                    proxied.wait_for_more(500)
                    direct.wait_for_more(500)
            results = [proxied.stop(), direct.stop()]
        checked, _ = expect_nothing_lost(cluster, *(result.history for result in results))
        for result in results:
            result.expect_no_failed_request()
        for node in cluster.nodes:
            expect_equal([environment(pid) for pid in node.workers()], environments[node.name], f"what {node.name} starts its workers with")
            for started_with in environments[node.name]:
                missing = set(ALLOCATOR_SETTINGS) - tunables(started_with)
                expect(not missing, f"settings of a worker's allocator that are not set: {missing}")
    context.note(f"{len(times)} times, {max(times):.1f} s at most; {checked} operations checked")


def environment(pid):
    """What the process was started with."""
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    found = dict(entry.split("=", 1) for entry in entries if entry)
    # (The order of its fields is any.)
    found["KVSERVER_WORKER_CONFIGURATION"] = json.loads(found["KVSERVER_WORKER_CONFIGURATION"])
    return found


def tunables(started_with):
    """The names of those that are set. (As glibc reads GLIBC_TUNABLES, it ends each of them where the colon was.)"""
    entries = started_with["GLIBC_TUNABLES"].split(":")
    return {entry.split("=")[0] for entry in entries} | started_with.keys()
