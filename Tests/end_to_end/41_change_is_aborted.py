# SPDX-License-Identifier: Apache-2.0
"""A change is aborted while it copies: the old ring stays, nothing is lost, the copies are dropped; once it has settled, an abort is refused."""

import threading

from harness.aftermath import expect_nothing_lost
from harness.expectations import eventually, expect, expect_equal
from harness.history import History
from harness.workload import store_many


def run(context):
    keys = [f"key{number}" for number in range(5000)]
    with context.cluster(memory_megabytes=64, hash_power=16) as cluster:
        stored = History(store_many(cluster.addresses, keys, "bulk"))
        histories = [stored]
        for point, step in (("ring.job.copy.batch", "copying"), ("ring.job.verify.batch", "crossing")):
            with context.load([cluster.proxy.address], keys[:300], connections=8, processes=1, name=f"{step}.") as load:
                load.wait_for_more(300)
                added, aborted = change_and_abort(cluster, point, step)
                result = load.stop()
            expect_equal(aborted.status, 200, f"aborting while {step}: {aborted}")
            expect(added.status >= 400, f"a change that was aborted while {step} was answered with {added}")
            expect_equal(cluster.wait_for_one_ring(), cluster.first_ring, f"the ring after an abort while {step}")
            for node in cluster.nodes:
                expect_equal(node.status()["lastChange"]["outcome"], "aborted", f"the last change in the status of {node.name}")
            result.expect_no_failed_request()
            histories.append(result.history)
            expect_nothing_lost(cluster, *histories)
            cluster.expect_pairs_only_at_owners(cluster.first_ring, wanted_keys=keys)

        added, aborted = change_and_abort(cluster, "ring.announced.settling", "settling")
        expect_equal((aborted.status, aborted.header("X-KV-Outcome")), (409, "not-applied"), f"aborting while settling: {aborted}")
        expect_equal((added.status, added.body), (200, b"OK"), "a change whose abort was refused")
        expect_equal(cluster.wait_for_one_ring(), cluster.first_ring.adding(5000, cluster.node(3).address), "the ring after that")
        expect_nothing_lost(cluster, *histories)


def change_and_abort(cluster, point, step):
    """Holds an add_node at the point, asks another node to abort it, lets go, and returns both answers."""
    held = cluster.directory / "held"
    held.touch()
    for node in ([cluster.node(2)] if ".job." in point else cluster.nodes):
        node.set_failpoints(f"{point}=hold:{held}")
    answers = {}

    def ask(name, node, target):
        answers[name] = node.get(target, timeout=40)
    adding = threading.Thread(target=ask, args=("added", cluster.node(1), f"/add_node/5000/{cluster.node(3).address}"))
    adding.start()
    eventually(10, f"the change is {step}", lambda: (cluster.node(1).status()["transition"] or {}).get("step") == step)
    for node in cluster.nodes:
        cleared = node.get("/clear_cache")
        expect_equal((cleared.status, cleared.header("X-KV-Outcome")), (409, "not-applied"), f"clearing {node.name} while {step}: {cleared}")
    aborting = threading.Thread(target=ask, args=("aborted", cluster.node(2), "/abort_change"))
    aborting.start()
    aborting.join(1.0)
    held.unlink()
    for thread in (adding, aborting):
        thread.join(45)
    for node in cluster.nodes:
        node.set_failpoints()
    expect(len(answers) == 2, f"an answer is missing: {answers}")
    return answers["added"], answers["aborted"]
