# SPDX-License-Identifier: Apache-2.0
"""`/keys/{key}`: a value put through one node comes back from every other with its bytes, type and version, also after a ring change,
and in parts; counters count; errors are problem details; the standard library's HTTP client, which is none of ours, does it all."""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote_from_bytes

from harness.expectations import expect, expect_equal
from harness.placement import keys_owned_by

KEYS = [b"plain", b"a/b/c", b"a b+c%d", b"\x00\xff\r\n", "\u00e9\u2603".encode(), b"..", b"k" * 4096]


def run(context):
    with context.cluster(settings={"corsOrigins": "https://example.com"}) as cluster:
        places = [node.address for node in cluster.nodes] + [cluster.proxy.address]
        versions = {}
        for number, key in enumerate(KEYS):
            status, head, body = ask(places[number % len(places)], "PUT", key, value_of(key), {"Content-Type": type_of(key)})
            expect_equal((status, body), (204, b""), f"putting {key[:20]!r}")
            versions[key] = head["ETag"]
        everyone_agrees(places, versions)
        parts(cluster)
        conditions(places)
        problems(cluster)
        pages_of_other_origins(places)
        batches(places)
        large_batches(places)
        counters(places)
        moved = keys_owned_by(cluster.first_ring, cluster.node(2).address, 50, "moved")
        for key in moved:
            status, head, _ = ask(places[0], "PUT", key.encode(), value_of(key.encode()), {"Content-Type": type_of(key.encode())})
            expect_equal(status, 204, "putting what will move")
            versions[key.encode()] = head["ETag"]
        expect_equal(cluster.node(1).get(f"/add_node/5000/{cluster.node(3).address}", timeout=30).text, "OK", "adding the standby")
        expect_equal(cluster.node(1).get(f"/remove_node/{cluster.node(2).address}", timeout=30).text, "OK", "removing node 2")
        everyone_agrees(places, versions)
        for key in list(versions):
            expect_equal(ask(places[-1], "DELETE", key)[0], 204, "deleting")
            expect_equal(ask(places[0], "GET", key)[0], 404, "reading what was deleted")
            expect_equal(ask(places[0], "DELETE", key)[0], 204, "deleting again")


def ask(address, method, key, body=None, headers=None, query=""):
    """Over a connection of its own, with Python's own client."""
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request(method, f"/keys/{quote_from_bytes(key, safe='/:').replace('..', '%2E%2E')}{query}", body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def value_of(key):
    """Any bytes, of various lengths."""
    return bytes(range(256)) * (len(key) % 7) + key


def type_of(key):
    return f"application/x-test; length={len(key)}"


def everyone_agrees(places, versions):
    for key, version in versions.items():
        for place in places:
            status, head, body = ask(place, "GET", key)
            expect_equal((status, body, head["Content-Type"], head["ETag"]), (200, value_of(key), type_of(key), version),
                         f"{key[:20]!r} at {place}")
            status, head, body = ask(place, "HEAD", key)
            expect_equal((status, body, head["Content-Length"]), (200, b"", str(len(value_of(key)))), f"the head of {key[:20]!r}")


def parts(cluster):
    """A large value, piece by piece, through every node."""
    value = bytes(number * 7 % 251 for number in range(900_000))
    status, head, _ = ask(cluster.proxy.address, "PUT", b"large", value)
    expect_equal(status, 204, "putting a large value")
    put_together = b""
    for number, node in enumerate(cluster.nodes):
        first = number * 300_000
        status, found, body = ask(node.address, "GET", b"large", headers={"Range": f"bytes={first}-{first + 299_999}",
                                                                         "If-Range": head["ETag"]})
        expect_equal((status, found["Content-Range"]), (206, f"bytes {first}-{first + 299_999}/900000"), "a part")
        put_together += body
    expect(put_together == value, "the parts do not make up the value")
    expect_equal(ask(cluster.proxy.address, "GET", b"large", headers={"Range": "bytes=900000-"})[0], 416, "a part behind the end")


def conditions(places):
    _, head, _ = ask(places[0], "PUT", b"condition", b"1", {"If-None-Match": "*"})
    first = head["ETag"]
    expect_equal(ask(places[1], "PUT", b"condition", b"2", {"If-None-Match": "*"})[0], 412, "creating again")
    expect_equal(ask(places[-1], "PUT", b"condition", b"2", {"If-Match": first})[0], 204, "replacing the known version")
    expect_equal(ask(places[-1], "PUT", b"condition", b"3", {"If-Match": first})[0], 412, "replacing an old version")
    expect_equal(ask(places[1], "DELETE", b"condition", headers={"If-Match": first})[0], 412, "deleting an old version")
    status, head, _ = ask(places[0], "GET", b"condition", headers={"If-None-Match": first})
    expect_equal((status, head["ETag"] != first), (200, True), "reading another version")
    expect_equal(ask(places[0], "GET", b"condition", headers={"If-None-Match": head["ETag"]})[0], 304, "reading what is known")
    expect_equal(ask(places[1], "PUT", b"condition", b"4", query="?ttl=3600&consistency=strict&w=1")[0], 204, "what the query says")


def pages_of_other_origins(places):
    """As a browser asks for them: first whether it may, then the request itself."""
    for place in places:
        connection = http.client.HTTPConnection(place, timeout=5)
        for origin, granted in (("https://example.com", "https://example.com"), ("https://example.org", None)):
            connection.request("OPTIONS", "/keys/plain", headers={"Origin": origin, "Access-Control-Request-Method": "PUT"})
            answer = connection.getresponse()
            answer.read()
            expect_equal((answer.status, answer.headers["Access-Control-Allow-Origin"]), (204 if granted else 405, granted), "a preflight")
            for target in ("/keys/plain", "/keys?limit=1"):
                connection.request("GET", target, headers={"Origin": origin})
                answer = connection.getresponse()
                answer.read()
                expect_equal((answer.status, answer.headers["Access-Control-Allow-Origin"]), (200, granted), f"{target} for a page")
        connection.close()


def batches(places):
    """Written through one place, read through the next."""
    for number, place in enumerate(places):
        keys = [f"batch{number}.{item}" for item in range(1000)]
        put = [{"method": "put", "key": key, "value": key * 3, "contentType": "text/x-test"} for key in keys]
        written = batch(place, put)
        expect_equal([result["status"] for result in written], [204] * 1000, f"putting 1000 pairs at {place}")
        read = batch(places[number - 1], [{"method": "get", "key": key} for key in keys], "?consistency=strict")
        expect_equal(read, [{"status": 200, "version": result["version"], "value": key * 3, "contentType": "text/x-test"}
                            for key, result in zip(keys, written)], "reading them elsewhere")
        conditions = [{"method": "delete", "key": key, "ifMatch": f'"{result["version"] if item % 2 else "0" * 24}"'}
                      for item, (key, result) in enumerate(zip(keys, written))]
        expect_equal([result["status"] for result in batch(place, conditions)], [412, 204] * 500, "deleting every other one")


def counters(places):
    """Increments through all places at once: each that was acknowledged counts once, and is told a number of its own."""
    def count(place):
        numbers = []
        while len(numbers) < 50:
            status, head, body = ask(place, "POST", b"counter:increment", query="?by=3")
            if status == 503:
                expect_equal(head["X-KV-Outcome"], "not-applied", body)
                continue
            expect_equal(status, 200, body)
            numbers.append(int(body))
        return numbers
    with ThreadPoolExecutor(len(places)) as pool:
        numbers = sorted(number for numbers in pool.map(count, places) for number in numbers)
    expect_equal(numbers, [3 * (number + 1) for number in range(50 * len(places))], "what the increments were told")
    expect_equal(ask(places[0], "GET", b"counter")[2], str(numbers[-1]).encode(), "the counter")


def large_batches(places):
    """Up to 16 MiB, through the balancer too; more is refused."""
    operations = [{"method": "put", "key": f"much{number}", "value": "v" * 500_000} for number in range(30)]
    for place in (places[0], places[-1]):
        expect_equal([result["status"] for result in batch(place, operations)], [204] * 30, f"a batch of 15 MB at {place}")
        read = batch(place, [{"method": "get", "key": operation["key"]} for operation in operations])
        expect_equal([result.get("value") for result in read], ["v" * 500_000] * 30, "and back")


def batch(address, operations, query=""):
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("POST", "/keys:batch" + query, json.dumps({"operations": operations}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        expect_equal(answer.status, 200, body[:300])
        return json.loads(body)["results"]
    finally:
        connection.close()


def problems(cluster):
    for place in (cluster.node(1).address, cluster.proxy.address):
        for method, key, query, headers, status in [
                ("GET", b"nothing", "", {}, 404), ("POST", b"a", "", {}, 405), ("PUT", b"a", "?ttl=never", {}, 400),
                ("PUT", b"a", "", {"Content-Encoding": "gzip"}, 415), ("GET", b"", "", {}, 400)]:
            found, head, body = ask(place, method, key, b"v" if method in ("PUT", "POST") else None, headers, query)
            expect_equal((found, head["Content-Type"]), (status, "application/problem+json"), f"{method} {key!r}{query}")
            problem = json.loads(body)
            expect_equal((problem["status"], problem["outcome"]), (status, "not-applied"), f"{problem}")
            expect(problem["title"] and problem["detail"], f"{problem}")
