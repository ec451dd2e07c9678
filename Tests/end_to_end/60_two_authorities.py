# SPDX-License-Identifier: Apache-2.0
"""The embedded authority and etcd's pass one suite: of two operators one wins, a killed driver is followed by another, and each says who is missing."""

import threading
import time

from harness.client import Connection, ConnectionLost, request_bytes
from harness.expectations import eventually, expect, expect_equal

LIMIT_SECONDS = 400
FULL_LIMIT_SECONDS = 3600
KEYS = [f"key{number}" for number in range(300)]
#: Where the driver's worker is killed. What etcd has recorded goes on though nobody was told of it yet; with the embedded
#: authority a change goes on from its first document on that a losing node has accepted.
KILLED_AT = {
    "embedded": ("ring.announced.copying", "ring.announced.crossing", "ring.announced.settling", "ring.finish"),
    "etcd": ("ring.recorded.copying", "ring.recorded.crossing", "ring.announced.crossing", "ring.recorded.cleaning", "ring.recorded"),
}


def run(context):
    for authority in ("embedded", "etcd"):
        rounds = context.short_or_full(3, 100)
        with context.cluster(nodes=5, positions={3000: 1, 8000: 2, 9500: 5}, workers=2, proxy=False, authority=authority) as cluster:
            for key in KEYS:
                expect_equal(cluster.node(1).store(key, f"value of {key}").status, 200, f"storing {key}")
            wins = [two_operators(cluster, number) for number in range(rounds)]
            takeovers = [driver_is_killed(context, cluster, point) for point in KILLED_AT[authority]]
            bystander_is_away(cluster, authority)
            cluster.accept_present_workers()
            for key in KEYS:
                expect_equal(cluster.node(4).read(key).text, f"value of {key}", f"{key} in the end, with {authority}")
        context.note(f"{authority}: won by {wins}, taken over and done in {max(takeovers):.1f} s at most")


def two_operators(cluster, number):
    """Both ask at one moment, through different nodes; returns who won."""
    before = cluster.wait_for_one_ring()
    contenders = [(cluster.node(1), 5000, cluster.node(3)), (cluster.node(2), 6000, cluster.node(4))]
    barrier = threading.Barrier(2)
    answers = [None, None]

    def ask(index):
        asked, position, added = contenders[index]
        barrier.wait()
        answers[index] = asked.get(f"/add_node/{position}/{added.address}", timeout=40)
    # Held until one has lost, so that they surely overlap.
    held = cluster.directory / f"hold{number}"
    held.touch()
    for node in cluster.nodes:
        node.set_failpoints(f"ring.announce.copying=hold:{held}")
    askers = [threading.Thread(target=ask, args=(index,)) for index in range(2)]
    for asker in askers:
        asker.start()
    deadline = time.monotonic() + 5
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
    expect_equal(cluster.wait_for_one_ring(), before.adding(position, winner.address), f"the ring of round {number}")
    expect_equal(cluster.node(5).get(f"/remove_node/{winner.address}", timeout=30).status, 200, "taking it back")
    expect_equal(cluster.wait_for_one_ring(), before, f"the ring after round {number}")
    return winner.name


def driver_is_killed(context, cluster, point):
    """The worker that drives dies at that point; returns how long the change took from then on."""
    before = cluster.wait_for_one_ring()
    driver, added = cluster.node(5), cluster.node(3)
    # (A worker that dies with the request under way answers nothing.)
    driver.set_failpoints(f"{point}=kill")
    workers = driver.workers()
    with Connection(driver.address, timeout=60) as asking:
        asking.send(request_bytes("GET", f"/add_node/5000/{added.address}"))
        killed = eventually(15, f"a worker dies at {point}", lambda: set(workers) - set(driver.workers()))
        driver.set_failpoints()
        began = time.monotonic()
        try:
            answer = asking.read_answer()
            expect(False, f"answered by a worker that was killed: {answer}")
        except ConnectionLost:
            pass
    wanted = before.adding(5000, added.address)
    ring = eventually(20, f"the change goes on, killed at {point}", lambda: cluster.one_ring() == wanted and wanted)
    seconds = time.monotonic() - began
    driver.wait_until_replaced(killed, 10)
    expect_equal(ring, wanted, f"the ring, killed at {point}")
    # (Killed at its very end, the driver counts as one for some seconds more.)
    eventually(10, "taking it back", lambda: cluster.node(1).get(f"/remove_node/{added.address}", timeout=40).status == 200)
    expect_equal(cluster.wait_for_one_ring(), before, "the ring after that")
    return seconds


def bystander_is_away(cluster, authority):
    """Adding node 3 at 5000 moves slots from node 2 alone: node 5 has nothing to do with it."""
    before = cluster.wait_for_one_ring()
    bystander, added = cluster.node(5), cluster.node(3)
    bystander.pause_host()
    try:
        began = time.monotonic()
        answer = cluster.node(1).get(f"/add_node/5000/{added.address}", timeout=60)
        seconds = time.monotonic() - began
        if authority == "embedded":
            expect_equal(answer.status, 503, f"a change without {bystander.name}: {answer}")
            expect(bystander.address in answer.text, f"the answer does not name {bystander.address}: {answer}")
            expect_equal(answer.header("X-KV-Outcome"), "not-applied", "its outcome")
            expect(seconds < 5, f"it took {seconds:.1f} s to say so")
        else:
            expect_equal((answer.status, answer.text), (200, "OK"), f"a change without {bystander.name}")
    finally:
        bystander.resume_host()
        bystander.wait_until_alive()
    wanted = before if authority == "embedded" else before.adding(5000, added.address)
    expect_equal(cluster.wait_for_one_ring(), wanted, f"the ring once {bystander.name} is back")
