# SPDX-License-Identifier: Apache-2.0
"""Pairs that are deleted, or whose time to live is over, are missing everywhere, also after they have moved to another node; stored again, they are back."""

import time

from harness import client as http
from harness.expectations import expect, expect_equal

LIFE_SECONDS = 4


def run(context):
    kept, deleted, expiring, renewed = ([f"{kind} {number}" for number in range(150)] for kind in ("kept", "deleted", "expiring", "renewed"))
    with context.cluster() as cluster:
        nodes = cluster.nodes
        for key in kept + deleted:
            cluster.proxy.store(key, "value")
        for key in deleted:
            answer = delete(cluster.proxy.address, key)
            expect_equal((answer.status, answer.body), (200, b"OK"), f"deleting {key}")
        expect_equal(delete(cluster.proxy.address, "never stored").status, 200, "deleting what is not there")
        born = time.monotonic()
        for key in expiring + renewed:
            answer = cluster.proxy.post_form("/route", key=key, val="short", ttl=str(LIFE_SECONDS))
            expect_equal((answer.status, answer.body), (200, b"OK"), f"storing {key} for {LIFE_SECONDS} s")
        for key in renewed:
            cluster.proxy.store(key, "value")
        lives = [cluster.proxy.read(key).text for key in expiring]
        if time.monotonic() - born < LIFE_SECONDS:
            expect_equal(lives, ["short"] * len(expiring), "what has some time to live yet")

        # They move, deleted as they are.
        answer = cluster.proxy.get(f"/add_node/5000/{nodes[2].address}", timeout=30)
        expect_equal((answer.status, answer.body), (200, b"OK"), "adding the standby")
        time.sleep(max(0.0, born + LIFE_SECONDS + 0.1 - time.monotonic()))
        for node in nodes:
            for key in deleted + expiring + ["never stored"]:
                expect_equal(node.read(key).status, 404, f"{key} at {node.name}")
            for key in kept + renewed:
                expect_equal(node.read(key).text, "value", f"{key} at {node.name}")
        listed = set().union(*(node.pairs() for node in nodes))
        expect_equal(listed, set(kept + renewed), "what the nodes list")
        expect(any(cluster.first_ring.adding(5000, nodes[2].address).owner(key) == nodes[2].address for key in deleted), "no deleted key has moved")

        for key in deleted + expiring:
            cluster.proxy.store(key, "again")
            expect_equal(cluster.proxy.read(key).text, "again", f"{key}, stored again")


def delete(address, key):
    return http.ask(address, http.request_bytes("DELETE", b"/route?key=" + http.percent_encode(key)))
