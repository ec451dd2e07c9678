# SPDX-License-Identifier: Apache-2.0
"""The original's second scenario: what was stored is read back through HAProxy and from every node, the standby too."""

from harness.expectations import expect, expect_equal
from harness.placement import TWELVE_KEYS


def run(context):
    # With one copy of each pair, as the original had them, and with as many as the daemon keeps by itself.
    for replicas in (1, None):
        with context.cluster(replicas=replicas) as cluster:
            versions = {key: cluster.proxy.store(key, f"value of {key}").version for key in TWELVE_KEYS}
            for place in [cluster.proxy, *cluster.nodes]:
                for key in TWELVE_KEYS:
                    answer = place.read(key)
                    expect_equal((answer.status, answer.text), (200, f"value of {key}"), f"{key} read at {place.address}")
                    expect_equal(answer.version, versions[key], f"the version of {key} at {place.address}")
                answer = place.read("never stored")
                expect_equal((answer.status, answer.body), (404, b"N/A"), f"a missing key at {place.address}")
            for key in TWELVE_KEYS:
                newer = cluster.proxy.store(key, f"newer value of {key}")
                expect(newer.version > versions[key], f"the version of {key} did not grow: {versions[key]} to {newer.version}")
                expect_equal(cluster.proxy.read(key).text, f"newer value of {key}", f"{key} after it was stored again")
