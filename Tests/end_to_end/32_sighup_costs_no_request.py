# SPDX-License-Identifier: Apache-2.0
"""SIGHUP replaces all workers one by one under load: no request of any method fails, through HAProxy or directly. The new ones are started
as the old ones were."""

import signal
from pathlib import Path

from harness.aftermath import expect_nothing_lost
from harness.expectations import expect

FULL_LIMIT_SECONDS = 1800


def run(context):
    rounds = context.short_or_full(1, 7)
    keys = [f"key{number}" for number in range(500)]
    times = []
    with context.cluster() as cluster:
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
            for pid in node.workers():
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                expect(any(entry.startswith(b"GLIBC_TUNABLES=") and b"tcache_count=" in entry for entry in environment),
                       f"a worker's allocator is not as it is to be: {environment}")
    context.note(f"{len(times)} times, {max(times):.1f} s at most; {checked} operations checked")
