# SPDX-License-Identifier: Apache-2.0
"""A worker that hangs (SIGSTOP) is replaced within 3 s; through HAProxy no read fails meanwhile, and no acknowledged write is lost."""

import signal

from harness.aftermath import expect_nothing_lost
from harness.processes import kill

FULL_LIMIT_SECONDS = 600


def run(context):
    stops = context.short_or_full(2, 20)
    keys = [f"key{number}" for number in range(500)]
    times = []
    with context.cluster() as cluster:
        with context.load([cluster.proxy.address], keys, connections=16) as load:
            load.wait_for_more(2000)
            for _ in range(stops):
                node = context.random.choice(cluster.nodes)
                victim = context.random.choice(node.workers())
                kill(victim, signal.SIGSTOP)
                times.append(node.wait_until_replaced([victim], 3))
                load.wait_for_more(1000)
            result = load.stop()
        checked, _ = expect_nothing_lost(cluster, result.history)
        result.expect_no_failed_read()
    context.note(f"replaced after {max(times):.1f} s at most; {result.summary()}; {checked} operations checked")
