# SPDX-License-Identifier: Apache-2.0
"""A node that is dead is replaced or removed without its help; what the others hold as well is not lost, and of what they
do not, the answer says how much it is."""

import threading

from harness.expectations import eventually, expect, expect_equal
from harness.placement import slot_of
from harness.workload import store_many

LIMIT_SECONDS = 120


def run(context):
    several_copies(context)
    one_copy(context)
    the_only_heir_is_gone(context)
    two_are_gone(context)


def several_copies(context):
    keys = [f"key{number}" for number in range(context.short_or_full(600, 20_000))]
    with context.cluster(nodes=4, replicas=3, positions={2000: 1, 5000: 2, 8000: 3}) as cluster:
        store_many([cluster.proxy.address], keys, "loader")
        values = {key: cluster.node(1).read(key).body for key in keys}
        first, second, dead, spare = cluster.nodes
        dead.end_daemon()

        refused = first.get(f"/remove_node/{dead.address}", timeout=15)
        expect(refused.status == 503 and dead.address in refused.text and "force=1" in refused.text,
               f"removing a dead node without force: {refused}")
        expect_equal(first.get(f"/remove_node/{dead.address}?force=maybe").status, 400, "a force that is none")
        answer = first.get(f"/replace_node/{dead.address}/{spare.address}", timeout=30)
        expect_equal((answer.status, answer.body), (200, b"OK"), "replacing the dead node")
        again = second.get(f"/replace_node/{dead.address}/{spare.address}", timeout=30)
        expect_equal((again.status, again.body), (200, b"OK"), "asking for it again")
        expect_equal(second.ring().nodes_by_position, {2000: first.address, 5000: second.address, 8000: spare.address}, "the ring")
        everything_is_there(values, (first, second, spare))
        expect_everything_held(values, (first, second, spare))

        # The dead one was only asleep: it learns that it is out, and lets go of what it holds.
        dead.start_daemon()
        dead.wait_until_ready()
        cluster.wait_for_one_ring()
        eventually(20, "it has deleted what it does not own", lambda: dead.pairs() == {} or None)

        # One more dies, and is not replaced.
        second.end_daemon()
        answer = spare.get(f"/remove_node/{second.address}?force=1", timeout=30)
        expect_equal((answer.status, answer.body), (200, b"OK"), "removing another dead one")
        everything_is_there(values, (first, spare))

        # A node that joins dies when there is no way down any more.
        joiner = dead
        held = cluster.directory / "hold"
        held.touch()
        first.set_failpoints(f"ring.announced.settling=hold:{held}")
        answers = {}

        def add():
            answers["add"] = first.get(f"/add_node/5000/{joiner.address}", timeout=60)
        adding = threading.Thread(target=add)
        adding.start()
        eventually(20, "the change is settling", lambda: (first.status()["transition"] or {}).get("step") == "settling" or None)
        joiner.end_daemon()
        first.set_failpoints()
        held.unlink()
        answer = spare.get(f"/remove_node/{joiner.address}?force=1", timeout=60)
        expect_equal((answer.status, answer.body), (200, b"OK"), "removing a node that died while it joined")
        adding.join(30)
        expect(not adding.is_alive(), "the request that adds it is answered")
        expect_equal(first.ring().nodes_by_position, {2000: first.address, 8000: spare.address}, "the ring in the end")
        everything_is_there(values, (first, spare))
        for node in (second, joiner):
            node.start_daemon()
            node.wait_until_ready()
        cluster.wait_for_one_ring()
        everything_is_there(values, cluster.nodes)


def one_copy(context):
    keys = [f"key{number}" for number in range(300)]
    with context.cluster(nodes=3, replicas=1, positions={3000: 1, 8000: 2}) as cluster:
        store_many([cluster.proxy.address], keys, "loader")
        first, dead, spare = cluster.nodes
        lost = [key for key in keys if 3000 < slot_of(key) <= 8000]
        values = {key: first.read(key).body for key in keys if key not in lost}
        dead.end_daemon()
        for target in (f"/remove_node/{dead.address}", f"/replace_node/{dead.address}/{spare.address}"):
            refused = first.get(target, timeout=15)
            expect(refused.status == 503 and dead.address in refused.text and "force=1" in refused.text, f"{target}: {refused}")
        answer = first.get(f"/replace_node/{dead.address}/{spare.address}?force=1", timeout=30)
        expect(answer.status == 200 and answer.body.startswith(b"OK; the only copy of 5000 slots was on " + dead.address.encode()),
               f"replacing the only holder: {answer}")
        everything_is_there(values, (first, spare))
        for key in lost[:50]:
            expect_equal(spare.read(key).status, 404, f"{key}, which is lost")
            expect_equal(first.store(key, b"anew").status, 200, f"storing {key} anew")
            expect_equal(spare.read(key).body, b"anew", f"{key} after that")
        dead.start_daemon()
        dead.wait_until_ready()
        cluster.wait_for_one_ring()
        for key in lost[:50]:
            expect_equal(dead.read(key).body, b"anew", f"{key}, asked of the node that is back")


def the_only_heir_is_gone(context):
    """With one copy, a node dies while it joins: what it was to get stays where it was."""
    keys = [f"key{number}" for number in range(300)]
    with context.cluster(nodes=3, replicas=1, positions={3000: 1, 8000: 2}) as cluster:
        store_many([cluster.proxy.address], keys, "loader")
        first, second, joiner = cluster.nodes
        values = {key: first.read(key).body for key in keys}
        before = cluster.one_ring()
        held = cluster.directory / "hold"
        held.touch()
        first.set_failpoints(f"ring.announce.settling=hold:{held}")
        adding = threading.Thread(target=lambda: first.get(f"/add_node/5000/{joiner.address}", timeout=60))
        adding.start()
        # (It dies when all has been verified, and before it could say that it answers alone from now on: after that, it alone would have the pairs.)
        eventually(20, "the change is about to settle", lambda: "settling" in first.log_tail() or None)
        joiner.end_daemon()
        first.set_failpoints()
        held.unlink()
        eventually(20, "the change is settling", lambda: (first.status()["transition"] or {}).get("step") == "settling" or None)
        answer = second.get(f"/remove_node/{joiner.address}?force=1", timeout=60)
        expect_equal((answer.status, answer.body), (200, b"OK"), "removing the only node that was to hold these slots")
        adding.join(30)
        expect_equal(first.ring(), before, "the ring in the end")
        everything_is_there(values, (first, second))


def two_are_gone(context):
    """Of five, which do not share all slots: each change goes on without both."""
    keys = [f"key{number}" for number in range(300)]
    positions = {1000: 1, 3000: 2, 5000: 3, 7000: 4, 9000: 5}
    with context.cluster(nodes=5, replicas=3, positions=positions) as cluster:
        store_many([cluster.proxy.address], keys, "loader")
        values = {key: cluster.node(1).read(key).body for key in keys}
        first, _, third, _, _ = cluster.nodes
        gone = (cluster.node(2), cluster.node(4))
        for node in gone:
            node.end_daemon()
        refused = first.get(f"/remove_node/{gone[0].address}?force=1", timeout=20)
        expect(refused.status == 503 and f"without={gone[1].address}" in refused.text, f"removing one of two: {refused}")
        answer = first.get(f"/remove_node/{gone[0].address}?force=1&without={gone[1].address}", timeout=60)
        expect_equal((answer.status, answer.body), (200, b"OK"), "removing one of two")
        answer = third.get(f"/remove_node/{gone[1].address}?force=1", timeout=60)
        expect_equal((answer.status, answer.body), (200, b"OK"), "removing the other one")
        expect_equal(first.ring().nodes_by_position, {1000: first.address, 5000: third.address, 9000: cluster.node(5).address}, "the ring")
        everything_is_there(values, (first, third, cluster.node(5)))


def everything_is_there(values, nodes):
    for number, (key, value) in enumerate(values.items()):
        answer = nodes[number % len(nodes)].get(f"/route?key={key}&consistency=strict")
        expect(answer.status == 200 and answer.body == value, f"{key}: {answer}")


def expect_everything_held(values, nodes):
    for node in nodes:
        missing = [key for key, value in values.items() if node.get(f"/cache?key={key}").body != value]
        expect(not missing, f"{node.name} lacks {len(missing)} pairs, such as {missing[:3]}")
