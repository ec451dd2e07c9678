# SPDX-License-Identifier: Apache-2.0
"""A slow or failed request is found by its id on every node that it touched, and by its trace, with its spans; a flood of failures stays
within the bound of lines, and no log has a key or a value."""

import json
import threading
import time

from harness.client import Connection, ask, read_request, request_bytes, store_request
from harness.expectations import eventually, expect, expect_equal
from harness.placement import keys_owned_by, slot_of

SLOW_MILLISECONDS = 100
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7"
#: Of each worker, in each second from its first line on: a flood of n seconds may touch n + 2 of them.
LINE_BOUND = 50
KEY, VALUE = "clandestine", "undisclosed"


def run(context):
    with context.cluster(settings={"logFormat": "json", "slowRequestMilliseconds": SLOW_MILLISECONDS}) as cluster:
        front, owner = cluster.node(1), cluster.node(2)
        keys = keys_owned_by(cluster.first_ring, owner.address, 20, KEY)
        for key in keys:
            expect_equal(front.store(key, VALUE).status, 200, f"storing {key}")
        quick_requests_are_not_logged(front, keys[0])
        a_slow_request(cluster, front, owner, keys[0])
        a_failed_request(cluster, owner, keys[1])
        ids_through_the_balancer(cluster, owner, keys[2])
        spans(cluster, front, owner, keys[3])
        without_a_sampled_trace(cluster, front, owner, keys[4])
        written, left_out = a_flood(context, front, keys[5])
        nothing_is_given_away(cluster)
    context.note(f"of {written + left_out} failures in a flood {written} have lines")


def lines(node):
    """The node's log; each line is JSON."""
    return [json.loads(line) for line in node.log_path.read_text().splitlines()]


def lines_of(node, request_id):
    """What the node says of a request: of its own client's, and of batches that carried it."""
    found = lines(node)
    own = [line for line in found if line.get("request.id") == request_id]
    carried = [line for line in found if request_id in line.get("batch.requests", "").split(",")]
    return own, carried


def named(key, request_id=None, traceparent=None, method="GET", states=()):
    headers = [("X-Request-ID", request_id)] if request_id else []
    headers += [("traceparent", traceparent)] if traceparent else []
    headers += [("tracestate", state) for state in states]
    if method == "GET":
        return request_bytes("GET", f"/route?key={key}", headers=headers)
    return request_bytes("POST", "/route", f"key={key}&val={VALUE}".encode(), headers)


def quick_requests_are_not_logged(front, key):
    """Nor does what the client calls it get anywhere."""
    for request_id in ("quick-request-1", "short", "with blank", "x" * 129):
        expect_equal(ask(front.address, named(key, request_id)).status, 200, "a quick request")
    found = lines(front)
    expect(not any("request.route" in line for line in found), f"a quick request was logged: {found[-3:]}")


def a_slow_request(cluster, front, owner, key):
    """memcached stands still for a moment: less than a read's patience (300 ms), so that there is one batch."""
    owner.memcached.pause()
    resume = threading.Timer(2 * SLOW_MILLISECONDS / 1000, owner.memcached.resume)
    resume.start()
    try:
        answer = ask(front.address, named(key, "slow-request-1"))
    finally:
        resume.join()
    expect(answer.status == 200 and answer.text == VALUE, f"a read while memcached stood still for a moment: {answer}")
    own, carried = eventually(5, "both nodes have a line of the slow request",
                              lambda: (found := (lines_of(front, "slow-request-1")[0], lines_of(owner, "slow-request-1")[1]))
                              and all(found) and found)
    expect_equal(len(own), 1, f"lines of the node that was asked: {own}")
    line = own[0]
    expect_equal((line["message"], line["level"], line["request.route"], line["request.method"], line["request.status"],
                  line["request.slot"], line["request.nodes"]),
                 ("a request was slow", "notice", "/route", "GET", "200", str(slot_of(key)), owner.address), "the line")
    expect(float(line["request.milliseconds"]) >= SLOW_MILLISECONDS, f"it was not slow: {line}")
    expect(float(carried[0]["batch.milliseconds"]) >= SLOW_MILLISECONDS, f"it was not slow: {carried[0]}")
    for node in cluster.nodes:
        if node is not front:
            expect_equal(lines_of(node, "slow-request-1")[0], [], f"{node.name} was asked by no client")
    expect_equal(lines_of(cluster.node(3), "slow-request-1"), ([], []), "node 3 has no part in it")


def a_failed_request(cluster, owner, key):
    """Through HAProxy, which gives it an id and tells it with the answer; as long as the owner's memcached stands still."""
    coordinators = set()
    owner.memcached.pause()
    try:
        for _ in range(6):
            answer = ask(cluster.proxy.address, read_request(key))
            expect_equal(answer.status, 503, "a read whose owner's memcached stands still")
            request_id = answer.header("X-Request-ID")
            expect(request_id and len(request_id) >= 8, f"HAProxy gave no id: {answer.head}")
            coordinator = eventually(
                5, f"some node has a line of {request_id}",
                lambda: next((node for node in cluster.nodes if lines_of(node, request_id)[0]), None))
            coordinators.add(coordinator.name)
            own = [line for node in cluster.nodes for line in lines_of(node, request_id)[0]]
            expect_equal(len(own), 1, f"lines of {request_id}: {own}")
            expect_equal((own[0]["message"], own[0]["request.status"], own[0]["request.outcome"], own[0]["level"]),
                         ("a request failed", "503", "not-applied", "warning"), f"the line of {request_id}")
            if coordinator is not owner:
                expect(owner.address in own[0]["request.nodes"].split(","), f"the owner is not among those asked: {own}")
                carried = eventually(5, f"{owner.name} has a line of {request_id}", lambda: lines_of(owner, request_id)[1])
                expect(all(int(line["batch.failures"]) > 0 for line in carried), f"no failures in {carried}")
    finally:
        owner.memcached.resume()
    expect(coordinators - {owner.name}, "HAProxy asked the owner alone")
    eventually(10, "all is well again", lambda: ask(cluster.proxy.address, read_request(key)).status == 200)


def ids_through_the_balancer(cluster, owner, key):
    """A client's well-formed id stays; anything else is replaced."""
    owner.memcached.pause()
    try:
        own = ask(cluster.proxy.address, named(key, "the-clients.own_1"))
        expect_equal((own.status, own.header("X-Request-ID")), (503, "the-clients.own_1"), "a client's own id")
        for malformed in ("short", "with blanks in it", "comma,separated", "x" * 129, "quote\"quote"):
            answer = ask(cluster.proxy.address, named(key, malformed))
            given = answer.header("X-Request-ID")
            expect(answer.status == 503 and given and given != malformed, f"{malformed!r} became {given!r}")
        twice = ask(cluster.proxy.address, request_bytes(
            "GET", f"/route?key={key}", headers=[("X-Request-ID", "one-of-two"), ("X-Request-ID", "two-of-two")]))
        expect(twice.header("X-Request-ID") not in ("one-of-two", "two-of-two"), "one of two ids was taken")
    finally:
        owner.memcached.resume()
    eventually(5, "the client's id is in a log", lambda: any(lines_of(node, "the-clients.own_1")[0] for node in cluster.nodes))
    eventually(10, "all is well again", lambda: ask(cluster.proxy.address, read_request(key)).status == 200)


def spans(cluster, front, owner, key):
    """client → node 1 → node 2, each the parent of the next."""
    for method in ("GET", "POST"):
        trace = TRACE[:-1] + {"GET": "a", "POST": "b"}[method]
        # (Of two fields one list is made, and a later version is read as far as it is known.)
        version, states = {"GET": ("00", ["a=1 , b@c=x:y"]), "POST": ("01", ["a=1", "b@c=x:y"])}[method]
        answer = ask(front.address, named(key, "traced-request-1", f"{version}-{trace}-{PARENT}-01", method, states))
        expect_equal(answer.status, 200, f"a {method} in a sampled trace")

        def of(node):
            return [line for line in lines(node) if line.get("trace.id") == trace and line["message"] == "span"]
        eventually(5, "the nodes have spans", lambda: len(of(front)) >= 2 and of(owner))
        server = [line for line in of(front) if line["span.kind"] == "server"]
        client = [line for line in of(front) if line["span.kind"] == "client"]
        expect_equal((len(server), len(client)), (1, 1), f"spans of {front.name}")
        expect_equal((server[0]["span.parent"], server[0]["span.name"], server[0]["span.attribute.status"]),
                     (PARENT, "/route", "200"), "the span of the client's request")
        expect_equal((client[0]["span.parent"], client[0]["span.attribute.peer.node"]),
                     (server[0]["span.id"], owner.address), "the span of what node 2 is asked")
        peer, = of(owner)
        expect_equal((peer["span.parent"], peer["span.kind"], peer["span.name"]), (client[0]["span.id"], "server", "/peer/batch"),
                     "node 2's own span")
        expect_equal({span.get("trace.state") for span in (server[0], client[0], peer)}, {"a=1,b@c=x:y"}, "the trace's state")
        expect(float(peer["span.milliseconds"]) <= float(client[0]["span.milliseconds"]) <= float(server[0]["span.milliseconds"]),
               f"spans that hold others are shorter: {peer}, {client[0]}, {server[0]}")
        expect_equal(of(cluster.node(3)), [], "node 3 has no part in it")


def without_a_sampled_trace(cluster, front, owner, key):
    """A trace's id is on the lines of a failure all the same, and there are no spans; a malformed one is ignored."""
    trace = TRACE[:-1] + "c"
    owner.memcached.pause()
    try:
        expect_equal(ask(front.address, named(key, "unsampled-request", f"00-{trace}-{PARENT}-00")).status, 503, "a failure")
        for malformed in (f"00-{trace}-{PARENT}", f"ff-{trace}-{PARENT}-01", f"00-{trace.upper()}-{PARENT}-01", "x"):
            expect_equal(ask(front.address, named(key, "malformed-trace", malformed)).status, 503, "a failure")
    finally:
        owner.memcached.resume()
    line, = eventually(5, "the failure has a line", lambda: lines_of(front, "unsampled-request")[0])
    expect_equal(line["trace.id"], trace, "the trace on the line")
    carried = eventually(5, "the owner has one, too", lambda: lines_of(owner, "unsampled-request")[1])
    expect(trace in carried[0]["batch.traces"], f"no trace on {carried[0]}")
    eventually(5, "the others have lines", lambda: len(lines_of(front, "malformed-trace")[0]) == 4)
    expect(not any("trace.id" in line for line in lines_of(front, "malformed-trace")[0]), "a malformed trace was taken")
    for node in cluster.nodes:
        expect(not any(line["message"] == "span" and line["trace.id"] == trace for line in lines(node)), f"{node.name} has spans of it")
    eventually(10, "all is well again", lambda: front.read(key).status == 200)


def a_flood(context, front, key):
    """Failures as quickly as they can be had; each is written or counted."""
    before = len(lines(front))
    seconds = context.short_or_full(2.5, 10.0)
    front.set_failpoints("http.beforeApply=error")
    sent, began = 0, time.monotonic()
    connections = [Connection(front.address) for _ in range(8)]
    while time.monotonic() - began < seconds:
        for connection in connections:
            connection.send(store_request(key, VALUE) * 16)
        for connection in connections:
            for _ in range(16):
                expect(connection.read_answer().status >= 500, "the failpoint let a write through")
                sent += 1
    took = time.monotonic() - began
    front.set_failpoints()
    for connection in connections:
        connection.close()

    def told():
        flood = lines(front)[before:]
        written = [line for line in flood if line["message"] == "a request failed"]
        counted = sum(int(line["lines"]) for line in flood if "left out" in line["message"])
        return len(written) + counted == sent and (written, counted)
    written, left_out = eventually(5, f"each of {sent} failures is written or counted", told)
    expect(left_out > 0, f"{sent} failures are no flood")
    for worker in {line["worker.slot"] for line in written}:
        count = sum(line["worker.slot"] == worker for line in written)
        expect(count <= LINE_BOUND * (int(took) + 2), f"worker {worker} wrote {count} lines in {took:.1f} s")
    return len(written), left_out


def nothing_is_given_away(cluster):
    for node in cluster.nodes:
        text = node.log_path.read_text()
        for secret in (KEY, VALUE):
            expect(secret not in text, f"{node.name}'s log has a key or a value")
