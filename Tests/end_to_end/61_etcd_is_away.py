# SPDX-License-Identifier: Apache-2.0
"""etcd keeps the ring: a change survives the loss of a member of etcd's; without etcd reads and writes go on, changes are 503; all goes on when it is back."""

import time

from harness.aftermath import expect_nothing_lost
from harness.client import Connection, request_bytes
from harness.expectations import eventually, expect, expect_equal
from harness.history import History
from harness.placement import Ring
from harness.workload import store_many

LIMIT_SECONDS = 400


def run(context):
    keys = [f"key{number}" for number in range(1000)]
    with context.cluster(nodes=4, positions={3000: 1, 8000: 2}, proxy=False, authority="etcd") as cluster:
        stored = History(store_many(cluster.addresses, keys, "bulk"))
        with context.load(cluster.addresses, keys[:200], connections=6, processes=1, write_fraction=0.5, rate=600) as load:
            load.wait_for_more(100)
            a_member_is_killed(context, cluster, load)
            all_are_killed(cluster, load)
            all_are_killed_in_the_middle(cluster, load)
            load.wait_for_more(200)
            result = load.stop()
        expect_nothing_lost(cluster, stored, result.history)
        etcd_forgot_everything(cluster)
        a_node_learns_at_its_start(cluster)
        what_is_another_clusters(cluster)
        cluster.accept_present_workers()


def a_member_is_killed(context, cluster, load):
    """Its leader, while a change is about to begin, and in the middle of one."""
    added = cluster.node(3)
    for target, moment in ((f"/add_node/5000/{added.address}", "before"), (f"/remove_node/{added.address}", "while")):
        leader = cluster.etcd.leader()
        held = cluster.directory / "held"
        if moment == "while":
            held.touch()
            for node in cluster.nodes:
                node.set_failpoints(f"ring.announce.crossing=hold:{held}")
        else:
            leader.kill()
        began = time.monotonic()
        with Connection(cluster.node(1).address, timeout=40) as asking:
            asking.send(request_bytes("GET", target))
            if moment == "while":
                eventually(10, "the change copies", lambda: (cluster.node(1).status()["transition"] or {}).get("step") == "copying")
                leader.kill()
                held.unlink()
            answer = asking.read_answer()
        context.note(f"etcd's leader killed {moment} a change, which took {time.monotonic() - began:.1f} s")
        expect_equal((answer.status, answer.text), (200, "OK"), f"{target}, etcd's leader killed {moment} it")
        cluster.wait_for_one_ring()
        for node in cluster.nodes:
            node.set_failpoints()
        cluster.etcd.restart(leader)
        load.wait_for_more(50)
    expect_equal(cluster.wait_for_one_ring(), cluster.first_ring, "the ring after two changes")


def expect_refused(cluster, node, added):
    """What a node says while etcd is away."""
    began = time.monotonic()
    for answer in (node.get(f"/add_node/5000/{added.address}", timeout=20), node.install_ring(cluster.first_ring, replicas=1)):
        expect_equal(answer.status, 503, f"a change without etcd: {answer}")
        expect("Nothing was changed: etcd: " in answer.text and cluster.etcd.members[0].client in answer.text,
               f"the answer does not say what is missing: {answer}")
        expect_equal(answer.header("X-KV-Outcome"), "not-applied", "its outcome")
    expect(time.monotonic() - began < 12, "it took long to say so")


def all_are_killed(cluster, load):
    cluster.etcd.kill_all()
    load.wait_for_more(200)
    expect_refused(cluster, cluster.node(1), cluster.node(3))
    # A node that starts without etcd serves all the same.
    restarted = cluster.node(2)
    restarted.end_daemon()
    restarted.start_daemon()
    restarted.wait_until_alive()
    restarted.wait_until_ready()
    # (A worker that found the restarted node away a moment ago does not ask it again at once.)
    for node in cluster.nodes:
        key = f"without etcd, {node.name}"
        eventually(3, f"{node.name} stores without etcd", lambda: node.store(key, "x").status == 200 or None)
        eventually(3, f"{node.name} reads without etcd", lambda: node.read(key).text == "x" or None)
    load.wait_for_more(200)
    cluster.etcd.restart()
    added = cluster.node(3)
    for target in (f"/add_node/5000/{added.address}", f"/remove_node/{added.address}"):
        answer = cluster.node(4).get(target, timeout=30)
        expect_equal((answer.status, answer.text), (200, "OK"), f"{target} once etcd is back")
    expect_equal(cluster.wait_for_one_ring(), cluster.first_ring, "the ring once etcd is back")


def all_are_killed_in_the_middle(cluster, load):
    """The change stays where it is, keys that move are served, and it ends once etcd is back."""
    added = cluster.node(3)
    held = cluster.directory / "held in the middle"
    held.touch()
    for node in cluster.nodes:
        node.set_failpoints(f"ring.job.copy.batch=hold:{held}")
    with Connection(cluster.node(1).address, timeout=90) as asking:
        asking.send(request_bytes("GET", f"/add_node/5000/{added.address}"))
        eventually(10, "the change copies", lambda: (cluster.node(1).status()["transition"] or {}).get("step") == "copying")
        cluster.etcd.kill_all()
        held.unlink()
        for node in cluster.nodes:
            node.set_failpoints()
        # Longer than a driver tries, and than its lease lives.
        load.wait_for_more(600)
        deadline = time.monotonic() + 11
        while time.monotonic() < deadline:
            expect_equal((cluster.node(4).status()["transition"] or {}).get("step"), "copying", "the step without etcd")
            time.sleep(0.5)
        load.wait_for_more(200)
        cluster.etcd.restart()
        answer = asking.read_answer()
    expect_equal((answer.status, answer.text), (200, "OK"), "the change once etcd is back")
    expect_equal(cluster.wait_for_one_ring(), cluster.first_ring.adding(5000, added.address), "the ring once etcd is back")


def etcd_forgot_everything(cluster):
    """Without its data the nodes still know the ring, and the next change, or the same ring installed again, brings etcd up to date."""
    ring = cluster.wait_for_one_ring()
    member = cluster.etcd.members[0]
    for way in ("a change", "an installed ring"):
        member.ask("/v3/kv/deleterange", {"key": "L2t2c2VydmVyLw==", "range_end": "L2t2c2VydmVyMA=="})
        away = cluster.node(4)
        if way == "a change":
            # As long as etcd does not know the newest ring, each member has to be asked. (Node 1 is one, and has nothing to move.)
            away = cluster.node(1)
            away.pause_host()
            answer = cluster.node(2).get(f"/remove_node/{cluster.node(3).address}", timeout=30)
            away.resume_host()
            away.wait_until_alive()
            expect_equal(answer.status, 503, f"a change that nobody can be sure of: {answer}")
            expect(away.address in answer.text, f"the answer does not name {away.address}: {answer}")
            # (The node that was away may still hear of the promise that it was asked for, which lives for 3 s.)
            eventually(10, "the change with all members",
                       lambda: cluster.node(2).get(f"/remove_node/{cluster.node(3).address}", timeout=30).status == 200)
            ring = ring.removing(cluster.node(3).address)
        else:
            cluster.install_ring(ring)
        expect_equal(cluster.wait_for_one_ring(), ring, f"the ring after {way}")
        pairs = member.ask("/v3/kv/range", {"key": "L2t2c2VydmVyL3Jpbmc="}).get("kvs", [])
        expect_equal(len(pairs), 1, f"documents in etcd after {way}")


def a_node_learns_at_its_start(cluster):
    """A node that has nothing learns the ring from etcd alone."""
    ring = cluster.wait_for_one_ring()
    fresh = cluster.node(4)
    fresh.end_daemon()
    fresh.memcached.restart_empty()
    for path in fresh.state_directory.iterdir():
        path.unlink()
    fresh.start_daemon()
    fresh.wait_until_alive()
    eventually(5, "a fresh node knows the ring", lambda: fresh.ring_document()["ring"] and fresh.ring() == ring)


def what_is_another_clusters(cluster):
    """A ring of other nodes is neither taken over nor replaced."""
    stranger = cluster.unused_address()
    answer = cluster.node(1).install_ring(Ring({1: stranger}), replicas=1)
    expect_equal(answer.status, 409, f"a ring of other nodes: {answer}")
    expect("/kvserver/ring" in answer.text, f"the answer does not name the key: {answer}")
