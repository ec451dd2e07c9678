# SPDX-License-Identifier: Apache-2.0
"""Every request of the original's surface gets the answer that it always got, directly and through HAProxy."""

import json
import re

from harness.client import Connection, percent_encode, request_bytes
from harness.expectations import expect, expect_equal
from harness.placement import Ring, keys_owned_by

VERSION = re.compile(r"[0-9a-f]{24}")


def run(context):
    with context.cluster() as cluster:
        for place in (cluster.node(1), cluster.node(3), cluster.proxy):
            pairs_are_stored_and_read(place.address)
            the_ring_is_shown(place.address, cluster.first_ring)
        installing_the_same_ring_again_is_harmless(cluster)
        the_cache_is_this_node_s_alone(cluster)
        clearing_empties_one_node_and_keeps_the_ring(cluster)
        values_of_any_bytes_come_back(cluster, context.random)


def pairs_are_stored_and_read(address):
    with Connection(address) as connection:
        greeting = connection.get("/")
        expect_equal(greeting.status, 200, "GET /")
        expect_equal(len(greeting.text.strip().splitlines()), 1, "lines of GET /")
        missing = connection.read(f"missing at {address}")
        expect_equal((missing.status, missing.body), (404, b"N/A"), "a missing key")
        for value in ("first", "second", ""):
            answer = connection.store("a key", value)
            expect_equal((answer.status, answer.body), (200, b"OK"), "storing")
            expect(VERSION.fullmatch(answer.version or ""), f"the version of a stored pair: {answer.head!r}")
            found = connection.read("a key")
            expect_equal((found.status, found.text, found.version), (200, value, answer.version), "reading it back")
        plus = connection.request("POST", "/route", b"val=a+b%2Bc&key=plus+key",
                                  [("Content-Type", "application/x-www-form-urlencoded")])
        expect_equal(plus.status, 200, "a form with its fields in the other order, and plus signs")
        expect_equal(connection.read("plus key").text, "a b+c", "a plus sign is a space in a form")
        expect_equal(connection.get("/route?key=plus+key").text, "a b+c", "and in a query")


def the_ring_is_shown(address, ring):
    with Connection(address) as connection:
        answer = connection.get("/hash_ring")
        document = json.loads(answer.body)
        expect_equal(document["ring"], {str(p): node for p, node in ring.nodes_by_position.items()}, "the ring")
        expect_equal(document["_sorted_keys"], sorted(ring.nodes_by_position), "its sorted positions")
        expect(isinstance(document["epoch"], int), f"the epoch: {document}")
        for key in ("roof", "gate", "\u00e9\u2603", "a b&c=d"):
            owner = connection.get(b"/route_test?key=" + percent_encode(key))
            expect_equal((owner.status, owner.text), (200, ring.owner(key)), f"the owner of {key!r}")


def installing_the_same_ring_again_is_harmless(cluster):
    for node in cluster.nodes:
        node.store(f"kept on {node.name}", "value")
        answer = node.install_ring(cluster.first_ring, replicas=1)
        expect_equal((answer.status, answer.body), (200, b"OK"), "installing the same ring again")
    expect_equal(cluster.wait_for_one_ring(), cluster.first_ring, "the ring after that")
    for node in cluster.nodes:
        expect_equal(cluster.node(1).read(f"kept on {node.name}").text, "value", "a pair after that")


def the_cache_is_this_node_s_alone(cluster):
    first, second = cluster.node(1), cluster.node(2)
    key = keys_owned_by(cluster.first_ring, second.address, 1, "cached")[0]
    stored = first.store(key, "at the first", path="/cache")
    expect_equal((stored.status, stored.body), (200, b"OK"), "POST /cache")
    expect_equal(first.read(key, path="/cache").text, "at the first", "GET /cache where it was put")
    elsewhere = second.read(key, path="/cache")
    expect_equal((elsewhere.status, elsewhere.body), (404, b"N/A"), "GET /cache elsewhere")
    expect_equal(first.read(key).status, 404, "GET /route asks the owner, which has nothing")
    first.store(key, "at its owner")
    expect_equal(second.read(key, path="/cache").text, "at its owner", "GET /cache at the owner after POST /route")
    expect_equal(first.read(key, path="/cache").text, "at the first", "GET /cache where it was put, after that")


def clearing_empties_one_node_and_keeps_the_ring(cluster):
    first, second = cluster.node(1), cluster.node(2)
    kept = keys_owned_by(cluster.first_ring, second.address, 1, "kept")[0]
    dropped = keys_owned_by(cluster.first_ring, first.address, 1, "dropped")[0]
    for key in (kept, dropped):
        second.store(key, "value")
    expect(dropped in first.pairs(), "a pair is not listed by its owner")
    expect_equal(first.get("/clear_cache").status, 200, "GET /clear_cache")
    expect_equal(first.pairs(), {}, "the pairs after clearing")
    expect_equal(second.read(dropped).status, 404, "a pair after its node was cleared")
    expect_equal(first.read(kept).text, "value", "a pair of the other node")
    expect_equal([node.ring() for node in cluster.nodes], [cluster.first_ring] * 3, "the rings after clearing")
    expect_equal(second.store(dropped, "again").status, 200, "storing after clearing")
    expect_equal(first.read(dropped).text, "again", "reading after clearing")


def values_of_any_bytes_come_back(cluster, random):
    values = [bytes(range(256)), b"\r\nEND\r\n", b"\0", random.randbytes(70_000), b"x" * 1_000_000, b"%41+&=;"]
    for number, value in enumerate(values):
        for place in (cluster.proxy, cluster.node(3)):
            key = f"bytes {number} at {place.address}"
            expect_equal(place.store(key, value).status, 200, f"storing {len(value)} bytes")
            found = place.read(key)
            expect(found.status == 200 and found.body == value, f"{len(value)} bytes came back as {found}")
    head = cluster.node(1)
    with Connection(head.address) as connection:
        answer = connection.exchange(request_bytes("GET", b"/route?key=bytes%200%20at%20" + percent_encode(cluster.proxy.address)))
        expect_equal(answer.body, bytes(range(256)), "a value on a kept connection")
