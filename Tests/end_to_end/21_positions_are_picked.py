# SPDX-License-Identifier: Apache-2.0
"""A node is added at positions that are picked for it: as many as were asked for, or as the others have; asked again: once."""

import threading

from harness.expectations import expect, expect_equal
from harness.placement import SLOT_COUNT


def run(context):
    with context.cluster() as cluster:
        first, second, standby = cluster.nodes
        keys = [f"key{number}" for number in range(300)]
        for key in keys:
            cluster.proxy.store(key, f"value of {key}")
        what_makes_no_sense_is_refused(cluster, standby)

        ring = added(cluster, f"/add_node/auto/{standby.address}?positions=8", standby, 8)
        shares = [share(ring, node) for node in cluster.nodes]
        expect_equal(sum(shares), SLOT_COUNT, "the shares together")
        expect(shares[2] in range(7900, 8101), f"who has 8 of 10 positions should have 8 of 10 slots, not {shares}")
        all_is_there(cluster, ring, keys)

        for target in (f"/add_node/auto/{standby.address}?positions=8", f"/add_node/auto/{standby.address}"):
            for node in cluster.nodes:
                answer = node.get(target, timeout=30)
                expect_equal((answer.status, answer.body), (200, b"OK"), f"{target} again, at {node.name}")
        for target in (f"/add_node/auto/{standby.address}?positions=9", f"/add_node/5000/{standby.address}"):
            answer = first.get(target, timeout=30)
            expect_equal((answer.status, answer.header("X-KV-Outcome")), (409, "not-applied"), f"{target}: {answer}")
            expect(standby.address in answer.text and "8 positions" in answer.text, f"{target} does not say what there is: {answer}")
        expect_equal(cluster.wait_for_one_ring(), ring, "the ring after all that")

        remove(cluster, standby)
        all_is_there(cluster, cluster.first_ring, keys)

        # The others have one position each, so it gets one, and half of what one of them had at least.
        ring = added(cluster, f"/add_node/auto/{standby.address}", standby, 1)
        expect(share(ring, standby) >= 2500, f"the standby got {share(ring, standby)} slots")
        remove(cluster, standby)

        asked_twice_while_it_runs(cluster, standby)
        all_is_there(cluster, cluster.wait_for_one_ring(), keys)


def what_makes_no_sense_is_refused(cluster, standby):
    for query in ("positions=0", "positions=257", "positions=-1", "positions=many", "positions="):
        answer = cluster.proxy.get(f"/add_node/auto/{standby.address}?{query}")
        expect_equal((answer.status, answer.header("X-KV-Outcome")), (400, "not-applied"), f"{query}: {answer}")
        expect("256" in answer.text, f"{query}: the answer does not name the limit: {answer}")
    expect_equal(cluster.proxy.get("/add_node/auto/localhost:5000").status, 400, "a host name")
    expect_equal(cluster.wait_for_one_ring(), cluster.first_ring, "the ring after what was refused")


def added(cluster, target, node, count):
    """The ring in which the node is at so many positions, and everybody else where they were."""
    before = cluster.wait_for_one_ring()
    answer = cluster.proxy.get(target, timeout=30)
    expect_equal((answer.status, answer.body), (200, b"OK"), target)
    ring = cluster.wait_for_one_ring()
    expect_equal(len(positions(ring, node)), count, f"the positions of {node.name} after {target}")
    expect_equal(ring.removing(node.address), before, f"the others after {target}")
    return ring


def remove(cluster, node):
    answer = cluster.proxy.post_form(f"/remove_node/{node.address}", timeout=30)
    expect_equal((answer.status, answer.body), (200, b"OK"), f"removing {node.name}")
    expect_equal(cluster.wait_for_one_ring(), cluster.first_ring, "the ring afterwards")


def asked_twice_while_it_runs(cluster, standby):
    """The same request, at another node meanwhile, waits for the change that runs; one for another number is refused."""
    held = cluster.directory / "hold"
    held.touch()
    for node in cluster.nodes:
        node.set_failpoints(f"ring.announce.crossing=hold:{held}")
    answers = {}

    def ask(number, query):
        answers[query] = cluster.nodes[number].get(f"/add_node/auto/{standby.address}?{query}", timeout=40)
    askers = [threading.Thread(target=ask, args=arguments)
              for arguments in ((0, "positions=6"), (1, ""), (2, "positions=6&again"), (1, "positions=7"))]
    for asker in askers:
        asker.start()
        asker.join(0.7)
    expect_equal({query: answer.status for query, answer in answers.items()}, {"positions=7": 409}, "what is answered while it runs")
    expect("6 positions" in answers["positions=7"].text, f"the answer does not say what runs: {answers['positions=7']}")
    held.unlink()
    for asker in askers:
        asker.join(40)
    for node in cluster.nodes:
        node.set_failpoints()
    expect_equal(sorted(answer.status for answer in answers.values()), [200, 200, 200, 409], f"the answers: {answers}")
    expect_equal(len(positions(cluster.wait_for_one_ring(), standby)), 6, "the positions in the end")


def all_is_there(cluster, ring, keys):
    for node in cluster.nodes:
        mine = {key: f"value of {key}" for key in keys if ring.owner(key) == node.address}
        expect_equal(node.pairs(), mine, f"the pairs of {node.name}")
    for key in keys:
        expect_equal(cluster.proxy.read(key).text, f"value of {key}", key)


def positions(ring, node):
    return [position for position, name in ring.nodes_by_position.items() if name == node.address]


def share(ring, node):
    return sum(ring.owner_of_slot(slot) == node.address for slot in range(SLOT_COUNT))
