# SPDX-License-Identifier: Apache-2.0
"""Workers die by kill -9 under load: through HAProxy no read fails and no acknowledged write is lost."""

from harness.aftermath import expect_nothing_lost
from harness.client import UNKNOWN
from harness.expectations import expect
from harness.history import WRITE

FULL_LIMIT_SECONDS = 1200
CONNECTIONS = 32


def run(context):
    kills = context.short_or_full(10, 50)
    keys = [f"key{number}" for number in range(1000)]
    replaced = []
    with context.cluster() as cluster:
        with context.load([cluster.proxy.address], keys, connections=CONNECTIONS, write_fraction=0.2) as load:
            load.wait_for_more(3000)
            for _ in range(kills):
                node = context.random.choice(cluster.nodes)
                victim = node.kill_worker(context.random)
                replaced.append(node.wait_until_replaced([victim], 3))
                load.wait_for_more(context.random.randint(500, 3000))
            result = load.stop()
        checked, _ = expect_nothing_lost(cluster, result.history)
        result.expect_no_failed_read()
        unknown = result.history.count(WRITE, UNKNOWN)
        refused = len(result.failed_writes) - unknown
        expect(refused == 0, f"{refused} writes were refused, first {result.notes_of(WRITE)[:3]}")
        # As if a quarter of the connections, a worker's share, were all writing: one request in five does.
        in_flight = CONNECTIONS // 4 * kills
        expect(unknown <= in_flight, f"{unknown} unknown writes after {kills} kills: more than were in flight in the dead workers")
    context.note(f"{kills} kills, a new worker after {max(replaced) * 1000:.0f} ms at most; {result.summary()}; {checked} operations checked")
