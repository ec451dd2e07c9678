# SPDX-License-Identifier: Apache-2.0
"""Of two different changes asked for at once through two nodes, exactly one is made; the other is told which one runs."""

import threading
import time

from harness.expectations import expect, expect_equal

FULL_LIMIT_SECONDS = 3600


def run(context):
    rounds = context.short_or_full(5, 200)
    wins = {"node3": 0, "node4": 0}
    with context.cluster(nodes=4, workers=1, proxy=False) as cluster:
        for key in range(100):
            cluster.node(1).store(f"key{key}", f"value {key}")
        for number in range(rounds):
            winner = race(cluster, number)
            wins[winner.name] += 1
            expect_equal(cluster.node(1).get(f"/remove_node/{winner.address}", timeout=30).status, 200, "taking it back")
            expect_equal(cluster.wait_for_one_ring(), cluster.first_ring, f"the ring after round {number}")
        for key in range(100):
            expect_equal(cluster.node(2).read(f"key{key}").text, f"value {key}", f"key{key} in the end")
    context.note(f"{rounds} rounds, won by {wins}")


def race(cluster, number):
    """Both changes are held before their first step until one of them has lost, so that they surely overlap."""
    held = cluster.directory / f"hold{number}"
    held.touch()
    for node in cluster.nodes:
        node.set_failpoints(f"ring.announce.copying=hold:{held}")
    contenders = [(cluster.node(1), 5000, cluster.node(3)), (cluster.node(2), 6000, cluster.node(4))]
    barrier = threading.Barrier(2)
    answers = [None, None]

    def ask(index):
        asked, position, added = contenders[index]
        barrier.wait()
        answers[index] = asked.get(f"/add_node/{position}/{added.address}", timeout=40)
    askers = [threading.Thread(target=ask, args=(index,)) for index in range(2)]
    for asker in askers:
        asker.start()
    deadline = time.monotonic() + 3
    while answers == [None, None] and time.monotonic() < deadline:
        time.sleep(0.01)
    held.unlink()
    for asker in askers:
        asker.join(45)
    for node in cluster.nodes:
        node.set_failpoints()

    expect_equal(sorted(answer.status for answer in answers if answer), [200, 409], f"the answers in round {number}: {answers}")
    won = 0 if answers[0].status == 200 else 1
    _, position, winner = contenders[won]
    expect(winner.address in answers[1 - won].text, f"the loser is not told which change runs: {answers[1 - won]}")
    expect_equal(answers[1 - won].header("X-KV-Outcome"), "not-applied", "the outcome of the change that lost")
    expect_equal(cluster.wait_for_one_ring(), cluster.first_ring.adding(position, winner.address), f"the ring of round {number}")
    return winner
