# SPDX-License-Identifier: Apache-2.0
"""Changes that make no sense are refused and change nothing; one that is asked for twice is made once."""

import threading

from harness.expectations import expect, expect_equal
from harness.placement import keys_owned_by


def run(context):
    with context.cluster() as cluster:
        first, second, standby = cluster.nodes
        ring = cluster.first_ring
        keys = [f"key{number}" for number in range(200)]
        for key in keys:
            cluster.proxy.store(key, f"value of {key}")

        refused(cluster, f"/add_node/8000/{standby.address}", 409, second.address)
        refused(cluster, f"/add_node/5000/{second.address}", 409, second.address)
        refused(cluster, f"/remove_node/{standby.address}", 404, standby.address)
        expect_equal(first.get(f"/add_node/8000/{second.address}").status, 200, "adding a node where it is already")
        expect_equal(cluster.wait_for_one_ring(), ring, "the ring after that")
        a_node_that_is_not_there_is_not_added(cluster)

        ring = ring.adding(5000, standby.address)
        for attempt in ("first", "second"):
            answer = cluster.proxy.get(f"/add_node/5000/{standby.address}", timeout=30)
            expect_equal((answer.status, answer.body), (200, b"OK"), f"adding the standby, {attempt} time")
            expect_equal(cluster.wait_for_one_ring(), ring, f"the ring after the {attempt} time")
        asked_again_while_it_runs(context, cluster, ring)
        ring = ring.removing(second.address)
        expect_equal(cluster.wait_for_one_ring(), ring, "the ring after a removal that was asked for twice")

        expect_equal(first.get(f"/remove_node/{standby.address}", timeout=30).status, 200, "removing all but one")
        refused(cluster, f"/remove_node/{first.address}", 409, first.address)
        for key in keys:
            expect_equal(cluster.proxy.read(key).text, f"value of {key}", f"{key} in the end")


def refused(cluster, target, status, named):
    """Refused by each node, with the same ring before and after, and with a text that names what is in the way."""
    before = cluster.wait_for_one_ring()
    for node in cluster.nodes:
        answer = node.get(target, timeout=15)
        expect_equal((answer.status, answer.header("X-KV-Outcome")), (status, "not-applied"), f"{target} at {node.name}")
        expect(named in answer.text, f"{target}: the answer does not name {named}: {answer}")
        expect_equal(cluster.wait_for_one_ring(), before, f"the ring after {target}")


def a_node_that_is_not_there_is_not_added(cluster):
    before = cluster.wait_for_one_ring()
    absent = cluster.unused_address()
    moving = keys_owned_by(before.adding(6000, absent), absent, 5, "moving")
    for key in moving:
        cluster.proxy.store(key, "stays")
    answer = cluster.node(1).get(f"/add_node/6000/{absent}", timeout=30)
    expect(answer.status >= 400, f"adding a node that is not there: {answer}")
    expect_equal(cluster.wait_for_one_ring(15), before, "the ring after that")
    for key in moving:
        expect_equal(cluster.proxy.read(key).text, "stays", f"{key} after that")


def asked_again_while_it_runs(context, cluster, ring):
    """The second request waits for the first one's change and gets its answer."""
    held = cluster.directory / "hold"
    held.touch()
    leaving = cluster.node(2).address
    for node in cluster.nodes:
        node.set_failpoints(f"ring.announce.crossing=hold:{held}")
    answers = {}

    def ask(number):
        answers[number] = cluster.nodes[number].get(f"/remove_node/{leaving}", timeout=40)
    askers = [threading.Thread(target=ask, args=(number,)) for number in (0, 2)]
    askers[0].start()
    askers[0].join(0.5)
    askers[1].start()
    askers[1].join(0.5)
    expect(answers == {}, f"a change that is held was answered: {answers}")
    held.unlink()
    for asker in askers:
        asker.join(40)
    for node in cluster.nodes:
        node.set_failpoints()
    expect_equal({number: (answer.status, answer.body) for number, answer in answers.items()}, {0: (200, b"OK"), 2: (200, b"OK")},
                 "the two answers")
