# SPDX-License-Identifier: Apache-2.0
"""What can't be done is refused with a clear status and an outcome, changes nothing, and leaves the connection in order."""

import json

from harness.client import Connection, form_request, percent_encode, read_request, request_bytes, store_request
from harness.expectations import expect, expect_equal
from harness.placement import Ring

FORM = [("Content-Type", "application/x-www-form-urlencoded")]


def run(context):
    with context.cluster(proxy=False) as cluster:
        node = cluster.node(1)
        node.store("witness", "unchanged")
        before = node.ring_document()
        for name, request, statuses in refused_requests(cluster):
            is_refused(node, name, request, statuses)
            expect_equal(node.ring_document(), before, f"the ring after: {name}")
        after_errors_the_pairs_are_there(cluster)
        keys_at_the_limit_are_taken(node)
        errors_say_which_methods_are_allowed(node)
    with context.cluster(proxy=False, positions={}) as cluster:
        a_node_without_a_ring_says_what_to_do(cluster)


def refused_requests(cluster):
    """Name, request, and the statuses that are right."""
    ring = {"nodes": [{"ip": cluster.node(1).address, "key": 3000}]}

    def install(document):
        return form_request("/hash_ring", {"data": document if isinstance(document, (str, bytes)) else json.dumps(document)})

    def ring_of(*nodes):
        return install({"nodes": [{"ip": ip, "key": position} for ip, position in nodes]})

    here, free = cluster.node(1).address, cluster.node(3).address
    long_key = "k" * 4097
    yield "GET without a key", request_bytes("GET", "/route"), {400}
    yield "GET with an empty key", request_bytes("GET", "/route?key="), {400}
    yield "POST without a key", request_bytes("POST", "/route", b"val=1", FORM), {400}
    yield "POST with an empty key", request_bytes("POST", "/route", b"key=&val=1", FORM), {400}
    yield "POST without a body", request_bytes("POST", "/route", b"", FORM), {400}
    yield "a broken percent code in a query", request_bytes("GET", "/route?key=%zz"), {400}
    yield "a broken percent code in a form", request_bytes("POST", "/route", b"key=a%2&val=1", FORM), {400}
    yield "route_test without a key", request_bytes("GET", "/route_test"), {400}
    yield "cache without a key", request_bytes("GET", "/cache"), {400}
    yield "a key of 4097 bytes in a query", read_request(long_key), {414}
    yield "a key of 4097 bytes in a form", store_request(long_key, "1"), {413, 414}
    yield "a value over the item limit", store_request("large", b"x" * (1 << 20)), {413}
    yield "an unknown path", request_bytes("GET", "/no_such_thing"), {404}
    yield "an unknown path, POST", request_bytes("POST", "/no_such_thing", b"key=1", FORM), {404}
    yield "PUT on /route", request_bytes("PUT", "/route?key=witness"), {405}
    yield "PUT on /", request_bytes("PUT", "/", b"x"), {405}
    yield "DELETE on /hash_ring", request_bytes("DELETE", "/hash_ring"), {405}
    yield "an encoded path", request_bytes("GET", "/%61dd_node/5000/" + free), {400, 404}
    yield "a doubled slash", request_bytes("GET", "//add_node/5000/" + free), {400, 404}

    yield "a ring that is no JSON", install("{nodes"), {400}
    yield "a ring without data", request_bytes("POST", "/hash_ring", b"", FORM), {400}
    yield "a ring without nodes", install({}), {400}
    yield "an empty ring", install({"nodes": []}), {400}
    yield "a ring whose nodes are no list", install({"nodes": {"ip": here, "key": 1}}), {400}
    yield "a ring with a node without position", install({"nodes": [{"ip": here}]}), {400}
    yield "a ring with a node without address", install({"nodes": [{"key": 1}]}), {400}
    yield "a ring with position 10000", ring_of((here, 10000)), {400}
    yield "a ring with position -1", ring_of((here, -1)), {400}
    yield "a ring with position 1.5", ring_of((here, 1.5)), {400}
    yield "a ring with a name for an address", ring_of(("localhost:5000", 1)), {400}
    yield "a ring with an address without port", ring_of(("127.0.0.1", 1)), {400}
    yield "a ring with port 0", ring_of(("127.0.0.1:0", 1)), {400}
    yield "a ring with port 65536", ring_of(("127.0.0.1:65536", 1)), {400}
    yield "a ring with one position twice", ring_of((here, 1), (free, 1)), {400}
    yield "a ring cut short", install(json.dumps(ring)[:-3]), {400}
    yield "a ring of random bytes", install(b"\xff\xfe\x00\x01"), {400}

    for position, address in (("10000", free), ("-1", free), ("x", free), ("", free), ("5000.0", free), ("99999999999999999999", free),
                              ("5000", "127.0.0.1"), ("5000", "localhost:5000"), ("5000", "127.0.0.300:5000"), ("5000", "127.0.0.1:99999"),
                              ("5000", "127.0.0.1:5000:5000"), ("5000", "x")):
        statuses = {400} if position else {400, 404}
        yield f"adding {address!r} at {position!r}", request_bytes("GET", f"/add_node/{position}/{address}"), statuses
    yield "adding without an address", request_bytes("GET", "/add_node/5000"), {400, 404}
    yield "adding at a position that is taken", request_bytes("GET", f"/add_node/8000/{free}"), {409}
    yield "removing an unknown node", request_bytes("GET", f"/remove_node/{free}"), {404}
    yield "removing what is no address", request_bytes("GET", "/remove_node/everything"), {400}
    yield "aborting when nothing runs", request_bytes("POST", "/abort_change", b""), {404, 409}


def is_refused(node, name, request, statuses):
    with Connection(node.address) as connection:
        answer = connection.exchange(request)
        expect(answer.status in statuses, f"{name}: wanted {statuses}, found {answer}")
        expect_equal(answer.header("X-KV-Outcome"), "not-applied", f"the outcome of: {name}")
        expect(answer.body.strip(), f"{name}: the answer explains nothing")
        expect(not answer.closes, f"{name}: the answer closes the connection")
        following = connection.read("witness")
        expect_equal((following.status, following.text), (200, "unchanged"), f"the request after: {name}")


def after_errors_the_pairs_are_there(cluster):
    for key in ("large", "k" * 4097):
        for node in cluster.nodes:
            expect(key not in node.pairs(), f"a refused pair is listed by {node.name}")


def keys_at_the_limit_are_taken(node):
    for key in ("k" * 4096, "\u00e9" * 2048, "k" * 240, "k" * 241, "k" * 250, "k" * 251, "%" * 4096):
        expect_equal(node.store(key, f"value of {len(key)}").status, 200, f"storing under {len(key)} characters {key[:3]!r}")
        expect_equal(node.read(key).text, f"value of {len(key)}", f"reading {len(key)} characters {key[:3]!r}")


def errors_say_which_methods_are_allowed(node):
    for path, methods in (("/route?key=a", {"GET", "POST"}), ("/hash_ring", {"GET", "POST"}), ("/", {"GET"})):
        with Connection(node.address) as connection:
            answer = connection.request("PUT", path)
            allowed = {method.strip() for method in (answer.header("Allow") or "").split(",")}
            expect(answer.status == 405 and methods <= allowed, f"PUT {path}: {answer.status}, Allow: {allowed}")


def a_node_without_a_ring_says_what_to_do(cluster):
    node = cluster.node(1)
    with Connection(node.address) as connection:
        for name, request in (("GET", read_request("a")), ("POST", store_request("a", "1")),
                              ("route_test", request_bytes("GET", b"/route_test?key=" + percent_encode("a")))):
            answer = connection.exchange(request)
            expect_equal(answer.status, 503, f"{name} without a ring")
            expect_equal(answer.header("X-KV-Outcome"), "not-applied", f"the outcome of {name} without a ring")
            expect("/hash_ring" in answer.text, f"{name} without a ring says nothing of what to do: {answer}")
        expect_equal(connection.get("/").status, 200, "GET / without a ring")
        expect_equal(connection.get("/health/ready").status, 503, "readiness without a ring")
    cluster.install_ring(Ring({100: node.address}))
    expect_equal(node.store("a", "1").status, 200, "storing once there is a ring")
    expect_equal(cluster.node(2).read("a").text, "1", "reading once there is a ring")
