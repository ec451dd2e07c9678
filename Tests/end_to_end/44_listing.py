# SPDX-License-Identifier: Apache-2.0
"""All pairs are listed through any node, each once, also while nodes come and go and with a replica away; what was exported is
brought back with its versions, and overwrites nothing newer."""

import base64
import http.client
import json
import threading

from harness.client import ask, percent_encode, request_bytes
from harness.expectations import expect, expect_equal

LIMIT_SECONDS = 180

ODD_KEYS = [b"\x00\xff\r\n", b"odd \xe2\x98\x83", b"odd/" + b"long" * 1000, b"odd" + bytes(range(1, 256)), b"plain%41", b"\xff" * 300]


def run(context):
    count = context.short_or_full(3000, 100_000)
    for replicas, positions in ((1, {3000: 1, 8000: 2}), (3, {2000: 1, 5000: 2, 8000: 3})):
        with context.cluster(nodes=4 if replicas == 3 else 3, replicas=replicas, positions=positions, hash_power=16) as cluster:
            keys = [f"key{number}".encode() for number in range(count)] + ODD_KEYS
            stored = {key: put(cluster, number, key) for number, key in enumerate(keys)}
            for key in keys[:200]:
                expect_equal(change(cluster, 0, "DELETE", key).status, 204, "deleting")
                del stored[key]
            expect_equal(change(cluster, 1, "PUT", b"short", b"lived", "?ttl=1").status, 204, "putting what expires")
            everything_once(cluster, stored)
            refusals(cluster)
            exported = export(cluster)
            expect_equal(set(key_of(key) for key, _ in records(exported)) - {b"short", None},
                         {key for key in stored if len(key) < 200}, "the keys of the export, long ones apart")
            changes = while_the_ring_changes(cluster, stored, replicas)
            context.note(f"{replicas} replicas: {len(stored)} keys, listed {changes} times while the ring changed")
            if replicas == 3:
                one_away(cluster, stored)
            restored(cluster, stored, exported)


def put(cluster, number, key):
    answer = change(cluster, number, "PUT", key, b"value of " + key)
    expect_equal(answer.status, 204, f"putting {key[:20]!r}")
    return answer.header("ETag").strip('"')


def change(cluster, number, method, key, value=None, query=""):
    node = cluster.nodes[number % 2]
    path = b"/keys/" + percent_encode(key) + query.encode()
    return ask(node.address, request_bytes(method, path, value))


def page(address, **query):
    target = "/keys?" + "&".join(f"{name}={value}" for name, value in query.items())
    answer = ask(address, request_bytes("GET", target), timeout=30)
    expect_equal(answer.status, 200, f"{target}: {answer}")
    return json.loads(answer.body)


def listing(addresses, **query):
    """All pages, each through the next node: entries by key. No key may come twice."""
    found, number = {}, 0
    while True:
        one = page(addresses[number % len(addresses)], **query)
        number += 1
        expect(len(one["keys"]) <= query["limit"], f"{len(one['keys'])} pairs on a page of {query['limit']}")
        for entry in one["keys"]:
            key = entry["key"].encode() if "key" in entry else base64.b64decode(entry["keyBase64"])
            expect(key not in found, f"{key[:20]!r} is listed twice")
            found[key] = entry
        if "cursor" not in one:
            return found
        query["cursor"] = one["cursor"]


def everything_once(cluster, stored):
    places = [node.address for node in cluster.nodes] + [cluster.proxy.address]
    for limit in (257, 1000, 2600, 100_000):
        found = listing(places, limit=limit)
        found.pop(b"short", None)
        expect_equal(sorted(set(stored) ^ set(found))[:5], [], f"what is stored and not listed, or not stored, by pages of {limit}")
        for key, entry in found.items():
            expect_equal((entry["version"], entry["bytes"]), (stored[key], len(key) + 9), f"what is said of {key[:20]!r}")
    for prefix in (b"key1", b"odd", b"odd/longl", b"\xff", b"plain%4", b"none"):
        found = listing(places, limit=100, prefix=percent_encode(prefix).decode())
        expect_equal(sorted(found), sorted(key for key in stored if key.startswith(prefix)), f"the keys that begin with {prefix!r}")
    connection = http.client.HTTPConnection(places[0], timeout=5)
    connection.request("HEAD", "/keys")
    head = connection.getresponse()
    expect_equal((head.status, head.headers["Content-Type"], head.read()), (200, "application/json", b""), "the head of a listing")
    connection.close()


def refusals(cluster):
    for query in ("limit=0", "limit=100001", "limit=x", "limit=", "cursor=", "cursor=zz", "cursor=6", "cursor=+1", "cursor=64303031",
                  "prefix=%", "prefix=" + "a" * 4097):
        answer = ask(cluster.node(1).address, request_bytes("GET", f"/keys?{query}"))
        expect(answer.status in (400, 414) and answer.header("Content-Type") == "application/problem+json", f"{query}: {answer}")
    for body in (b"x", b"\x05d0000", records_of([(b"d0000:key1", b"\x01\x00" + bytes(12) + b"v")]),
                 records_of([(b"h0034:roof", b"\x01\x00" + bytes(7) + b"\x01" + bytes(4) + b"v")]),
                 records_of([(b"d0034:roof", b"\x01\x00" + b"\xef" * 8 + bytes(4) + b"v")])):
        answer = ask(cluster.node(1).address, request_bytes("POST", "/keys:import", body))
        expect_equal(answer.status, 400, f"importing {body[:20]!r}: {answer}")


def export(cluster):
    """The bodies of all pages."""
    bodies, cursor = [], ""
    while True:
        answer = ask(cluster.node(1).address, request_bytes("GET", f"/keys:export{cursor}"), timeout=30)
        expect_equal(answer.status, 200, f"exporting: {answer}")
        bodies.append(answer.body)
        if answer.header("X-KV-Cursor") is None:
            return bodies
        cursor = "?cursor=" + answer.header("X-KV-Cursor")


def records(bodies):
    for body in bodies:
        position = 0
        while position < len(body):
            key = body[position + 1:position + 1 + body[position]]
            position += 1 + len(key)
            length = int.from_bytes(body[position:position + 4], "big")
            yield key, body[position + 4:position + 4 + length]
            position += 4 + length


def records_of(pairs):
    return b"".join(bytes([len(key)]) + key + len(record).to_bytes(4, "big") + record for key, record in pairs)


def key_of(stored_key):
    """Of a key whose stored form is no digest."""
    rest, key = stored_key[6:], b""
    if rest.startswith(b"%%"):
        return None
    while rest:
        key, rest = (key + bytes([int(rest[1:3], 16)]), rest[3:]) if rest[:1] == b"%" else (key + rest[:1], rest[1:])
    return key


def while_the_ring_changes(cluster, stored, replicas):
    """A node joins and leaves, another one leaves and joins, again and again while keys beside these come and go."""
    newcomer = cluster.nodes[-1]
    leaver = cluster.node(2)
    position = 8000 if replicas == 1 else 5000
    is_over = threading.Event()
    failures = []

    def churn():
        number = 0
        while not is_over.is_set():
            key = b"churn%d" % (number % 500)
            answer = change(cluster, 0, "DELETE" if number % 3 == 2 else "PUT", key, None if number % 3 == 2 else b"x")
            if answer.status != 204:
                failures.append(str(answer))
            number += 1

    def changes():
        try:
            for target in (f"/add_node/4000/{newcomer.address}", f"/remove_node/{leaver.address}",
                           f"/add_node/{position}/{leaver.address}", f"/remove_node/{newcomer.address}"):
                answer = cluster.node(1).get(target, timeout=60)
                if answer.body != b"OK":
                    failures.append(f"{target}: {answer}")
        finally:
            is_over.set()
    threads = [threading.Thread(target=work) for work in (churn, changes)]
    for thread in threads:
        thread.start()
    times = 0
    while not is_over.is_set() or times < 3:
        found = listing(cluster.addresses[:2], limit=900)
        missing = [key for key in stored if found.get(key, {}).get("version") != stored[key]]
        expect(not missing, f"{len(missing)} keys are not listed while the ring changes, or in another version: {missing[:3]}")
        strangers = [key for key in found if key not in stored and not key.startswith(b"churn")]
        expect(not strangers, f"listed and never stored, or deleted: {strangers[:3]}")
        times += 1
    for thread in threads:
        thread.join()
    expect(not failures, f"meanwhile: {failures[:3]}")
    return times


def one_away(cluster, stored):
    """A replica is away: the others make up a majority. With two away nobody can tell, and says so."""
    cluster.wait_for_one_ring()
    away = [cluster.node(2), cluster.node(3)]
    for number, node in enumerate(away):
        node.pause_host()
        try:
            if number == 0:
                found = listing([cluster.node(1).address], limit=1500)
                expect(all(found.get(key, {}).get("version") == version for key, version in stored.items()),
                       "a listing with a replica away")
            else:
                answer = ask(cluster.node(1).address, request_bytes("GET", "/keys"), timeout=150)
                expect(answer.status == 503 and b"too few" in answer.body and answer.header("Retry-After"),
                       f"a listing with two replicas away: {answer}")
        finally:
            if number == 1:
                for paused in away:
                    paused.resume_host()


def restored(cluster, stored, exported):
    """What was deleted comes back as it was; what was written since the export stays."""
    deleted = list(stored)[:100]
    newer = list(stored)[100:150]
    for key in newer:
        stored[key] = put(cluster, 1, key)
    before = ask(cluster.node(1).address, request_bytes("POST", "/keys:import", exported[0]), timeout=30)
    expect_equal(json.loads(before.body)["stored"], 0, f"importing what is there: {before}")
    forget(cluster, deleted)
    for _ in range(2):
        for body in exported:
            answer = ask(cluster.node(2).address, request_bytes("POST", "/keys:import", body), timeout=30)
            expect_equal(answer.status, 200, f"importing: {answer}")
    found = listing(cluster.addresses[:2], limit=5000)
    wrong = [key for key in stored if found.get(key, {}).get("version") != stored[key]]
    expect(not wrong, f"{len(wrong)} keys are not what they were after an import, {wrong[:3]}")
    for key in deleted[:20] + newer[:20]:
        expect_equal(change(cluster, 0, "GET", key).body, b"value of " + key, f"{key!r} after an import")


def forget(cluster, keys):
    """As if the cluster had lost them: without a tombstone."""
    for node in cluster.nodes:
        for name in node.memcached.stored_names():
            if key_of(name) in keys:
                expect_equal(node.memcached.command(b"delete " + name), b"DELETED\r\n", f"deleting {name!r} in memcached")
