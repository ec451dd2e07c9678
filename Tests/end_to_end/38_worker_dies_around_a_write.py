# SPDX-License-Identifier: Apache-2.0
"""Workers die just before or just after a write is applied: what was answered is true, what was not is unknown."""

from harness.aftermath import expect_nothing_lost
from harness.expectations import eventually

FULL_LIMIT_SECONDS = 3600


def run(context):
    deaths = context.short_or_full(4, 100)
    keys = [f"key{number}" for number in range(200)]
    with context.cluster() as cluster:
        histories = []
        for place in ("http.beforeApply", "http.afterApply.beforeReply"):
            with context.load([cluster.proxy.address], keys, connections=16, write_fraction=0.5, name=place) as load:
                load.wait_for_more(500)
                for _ in range(deaths):
                    node = context.random.choice(cluster.nodes)
                    before = set(node.workers())
                    node.set_failpoints(f"{place}=kill after {context.random.randint(0, 100)}")
                    eventually(20, f"a worker of {node.name} dies at {place}", lambda: before - set(node.workers()), interval=0.002)
                    node.set_failpoints()
                    node.wait_until_replaced(before - set(node.workers()), 10)
                    load.wait_for_more(300)
                result = load.stop()
            result.expect_no_failed_read()
            histories.append(result.history)
            context.note(f"{place}: {result.summary()}")
        expect_nothing_lost(cluster, *histories)
