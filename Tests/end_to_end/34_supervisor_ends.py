# SPDX-License-Identifier: Apache-2.0
"""A supervisor that is killed leaves no worker behind and no port taken; one that is asked to end answers what it has begun."""

import signal
import time

from harness.aftermath import expect_nothing_lost
from harness.client import Connection
from harness.expectations import eventually, expect, expect_equal
from harness.processes import wait_until_gone

KILLED_SECONDS = 5


def run(context):
    with context.cluster() as cluster:
        node = cluster.node(2)
        keys = [f"key{number}" for number in range(300)]
        for key in keys:
            cluster.proxy.store(key, f"value of {key}")
        killed(cluster, node)
        for key in keys:
            expect_equal(cluster.proxy.read(key).text, f"value of {key}", f"{key} after the supervisor was killed and started again")
        asked_to_end(context, cluster, node)
        for key in keys:
            expect_equal(cluster.proxy.read(key).text, f"value of {key}", f"{key} after the node ended and was started again")


def killed(cluster, node):
    with Connection(node.address) as idle:
        idle.get("/")
        orphans = node.kill_supervisor()
        left = wait_until_gone(orphans, KILLED_SECONDS)
        expect(not left, f"workers {left} still live {KILLED_SECONDS} s after their supervisor was killed")
    start_again(cluster, node)


def asked_to_end(context, cluster, node):
    """SIGTERM under load through HAProxy costs no read, and the node ends with success."""
    keys = [f"other{number}" for number in range(300)]
    staying = [key for key in keys if cluster.first_ring.owner(key) != node.address]
    with context.load([cluster.proxy.address], staying, connections=16) as load:
        load.wait_for_more(2000)
        workers = node.workers()
        node.supervisor.signal(signal.SIGTERM)
        expect(node.supervisor.wait(20), "the supervisor still lives 20 s after SIGTERM")
        expect_equal(node.supervisor.exit_code, 0, "the supervisor's exit code")
        expect_equal(wait_until_gone(workers, 1), [], "workers that outlive their supervisor")
        load.wait_for_more(2000)
        start_again(cluster, node)
        load.wait_for_more(2000)
        result = load.stop()
    result.expect_no_failed_request()
    expect_nothing_lost(cluster, result.history)
    context.note(result.summary())


def start_again(cluster, node):
    began = time.monotonic()
    node.start_daemon()
    node.wait_until_alive()
    node.wait_until_ready()
    expect_equal(eventually(10, "the node has its ring again", node.ring), cluster.first_ring, "the ring after a restart")
    expect(time.monotonic() - began < 10, "the node took longer than 10 s to start")
