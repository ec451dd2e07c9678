# SPDX-License-Identifier: Apache-2.0
"""HAProxy is reloaded under load: no request of any method fails."""

from harness.aftermath import expect_nothing_lost

FULL_LIMIT_SECONDS = 600


def run(context):
    reloads = context.short_or_full(4, 20)
    keys = [f"key{number}" for number in range(500)]
    with context.cluster() as cluster:
        with context.load([cluster.proxy.address], keys, connections=24) as load:
            load.wait_for_more(2000)
            for _ in range(reloads):
                cluster.proxy.reload()
                load.wait_for_more(2000)
            result = load.stop()
        checked, _ = expect_nothing_lost(cluster, result.history)
        result.expect_no_failed_request()
    context.note(f"{reloads} reloads; {result.summary()}; {checked} operations checked")
