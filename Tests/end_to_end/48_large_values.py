# SPDX-License-Identifier: Apache-2.0
"""Values over memcached's item limit: whole or absent, through every way in and out, while they are overwritten, while nodes come and go and
workers die; and what nobody needs of them is deleted."""

import hashlib
import http.client
import json
import random
import socket
import threading
import time

from harness.client import ask, percent_encode, request_bytes
from harness.expectations import eventually, expect, expect_equal
from harness.kvctl import Kvctl

LIMIT_SECONDS = 240

MEBIBYTE = 1 << 20
CHUNK = 256 << 10
PORT = 11211
UPLOAD_SECONDS = 3


def run(context):
    settings = {"uploadSeconds": UPLOAD_SECONDS, "memcachedPort": PORT}
    with context.cluster(nodes=4, replicas=3, positions={2000: 1, 5000: 2, 8000: 3}, settings=settings, memory_megabytes=768) as cluster:
        written_and_read(cluster)
        parts_and_conditions(cluster)
        refusals(cluster)
        original_interface(cluster)
        memcached_clients(cluster)
        backed_up(cluster)
        readers, changes = whole_while_all_changes(context, cluster)
        unfinished_uploads(cluster)
        deleted = all_is_collected(cluster)
        context.note(f"{readers} whole answers while it was overwritten {changes} times and the ring changed; {deleted} chunks deleted")
    with context.cluster(replicas=1, settings=settings, memory_megabytes=512) as cluster:
        imported_late(cluster)
        written_and_read(cluster)
        parts_and_conditions(cluster)


def content(name, size):
    """Different for each name, and quick to make."""
    return random.Random(name).randbytes(64 << 10) * (size // (64 << 10)) + random.Random(f"{name} end").randbytes(size % (64 << 10))


def connect(address, timeout=30):
    host, port = address.split(":")
    return http.client.HTTPConnection(host, int(port), timeout=timeout)


def call(address, method, key, body=None, query="", headers=None, chunked=False):
    connection = connect(address)
    try:
        try:
            connection.request(method, f"/keys/{percent_encode(key).decode()}{query}", body, headers or {}, encode_chunked=chunked)
        except BrokenPipeError:
            # Refused before its end: the answer says why.
            pass
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def put(address, key, value, query="", headers=None):
    status, fields, body = call(address, "PUT", key, value, query, headers)
    expect_equal((status, body), (204, b""), f"putting {len(value)} bytes at {key}")
    return fields["ETag"]


def written_and_read(cluster):
    long_key = "k" * 900
    for key, size in (("just over", MEBIBYTE - 100), ("two", 2 * MEBIBYTE), ("odd", 3 * MEBIBYTE + 12_345), (long_key, MEBIBYTE + 1),
                      ("whole chunks", 8 * CHUNK), ("largest", 64 * MEBIBYTE)):
        value = content(key, size)
        tag = put(cluster.proxy.address, key, value, headers={"Content-Type": "image/x-test"})
        for address in (*cluster.addresses, cluster.proxy.address):
            status, fields, body = call(address, "GET", key)
            expect_equal((status, len(body), fields["Content-Length"], fields["ETag"], fields["Content-Type"]),
                         (200, size, str(size), tag, "image/x-test"), f"{key[:20]} at {address}")
            expect(body == value, f"{key[:20]}: other bytes than were put")
        status, fields, body = call(cluster.addresses[0], "HEAD", key)
        expect_equal((status, fields["Content-Length"], fields["ETag"], body), (200, str(size), tag, b""), "HEAD")
    # A body that does not say its length.
    value = content("streamed", 5 * MEBIBYTE)
    pieces = (value[start:start + 100_000] for start in range(0, len(value), 100_000))
    status, _, _ = call(cluster.proxy.address, "PUT", "streamed", pieces, headers={"Transfer-Encoding": "chunked"}, chunked=True)
    expect_equal(status, 204, "a body in HTTP's chunks")
    expect(call(cluster.addresses[1], "GET", "streamed")[2] == value, "what was put in HTTP's chunks")
    # Several requests on one connection, and a small value after a large one.
    connection = connect(cluster.addresses[0])
    for number in range(3):
        connection.request("PUT", "/keys/again", content(number, 2 * MEBIBYTE))
        expect_equal(connection.getresponse().read(), b"", "an answer")
        connection.request("GET", "/keys/again")
        expect(connection.getresponse().read() == content(number, 2 * MEBIBYTE), "what was just put")
        connection.request("PUT", "/keys/again", b"small")
        connection.getresponse().read()
        connection.request("GET", "/keys/again")
        expect_equal(connection.getresponse().read(), b"small", "a small value over a large one")
    connection.close()
    expect_equal(call(cluster.addresses[0], "DELETE", "two")[0], 204, "deleting")
    expect_equal(call(cluster.addresses[1], "GET", "two")[0], 404, "what was deleted")


def parts_and_conditions(cluster):
    address, size = cluster.addresses[1], 3 * MEBIBYTE + 17
    value = content("parts", size)
    tag = put(address, "parts", value)
    for first, last in ((0, 0), (0, CHUNK), (CHUNK - 1, CHUNK), (CHUNK, 2 * CHUNK - 1), (5, 3 * CHUNK + 5), (size - 20, size - 1), (size - 1, size + 50)):
        status, fields, body = call(address, "GET", "parts", headers={"Range": f"bytes={first}-{last}"})
        expect_equal((status, fields["Content-Range"]), (206, f"bytes {first}-{min(last, size - 1)}/{size}"), "a part")
        expect(body == value[first:last + 1], f"the bytes {first} to {last}")
    expect_equal(call(address, "GET", "parts", headers={"Range": "bytes=-7"})[2], value[-7:], "the last bytes")
    expect_equal(call(address, "GET", "parts", headers={"Range": f"bytes={size}-"})[0], 416, "behind the end")
    expect_equal(call(address, "GET", "parts", headers={"If-None-Match": tag})[0], 304, "what the client has")
    expect_equal(call(address, "PUT", "parts", content("other", size), headers={"If-None-Match": "*"})[0], 412, "where there is one")
    expect(call(address, "GET", "parts")[2] == value, "what a refused write has left")
    expect_equal(call(address, "PUT", "parts", content("other", size), headers={"If-Match": tag})[0], 204, "over what is there")
    expect(call(address, "GET", "parts")[2] == content("other", size), "a conditional write")
    put(address, "short-lived", value, "?ttl=1")
    expect(call(address, "GET", "short-lived")[2] == value, "before it expires")
    eventually(4, "it has expired", lambda: call(address, "GET", "short-lived")[0] == 404)


def refusals(cluster):
    address = cluster.addresses[0]
    connection = connect(address)
    connection.putrequest("PUT", "/keys/refused")
    connection.putheader("Content-Length", str(64 * MEBIBYTE + 1))
    connection.endheaders()
    answer = connection.getresponse()
    expect_equal((answer.status, answer.getheader("X-KV-Outcome")), (413, "not-applied"), "a value over 64 MiB")
    connection.close()
    for query in ("?ttl=0", "?w=0", "?consistency=none"):
        expect_equal(call(address, "PUT", "refused", content("x", 2 * MEBIBYTE), query)[0], 400, query)
    expect_equal(call(address, "GET", "refused")[0], 404, "what was refused")
    value = content("only", 2 * MEBIBYTE)
    put(address, "only", value)
    expect_equal(ask(address, request_bytes("POST", "/keys/only:increment")).status, 409, "counting with a large value")
    answer = ask(address, request_bytes("POST", "/keys:batch", json.dumps({"operations": [{"method": "get", "key": "only"}]}).encode(),
                                        [("Content-Type", "application/json")]))
    expect_equal([one["status"] for one in json.loads(answer.body)["results"]], [413], f"in a batch: {answer}")
    answer = ask(address, request_bytes("GET", "/keys?prefix=only"), timeout=30)
    expect_equal(answer.status, 200, f"listing: {answer}")
    listed = json.loads(answer.body)["keys"]
    expect_equal([(one["key"], one["bytes"]) for one in listed], [("only", len(value))], "as it is listed")


def original_interface(cluster):
    value = content("route", 2 * MEBIBYTE)
    put(cluster.addresses[0], "route", value)
    answer = ask(cluster.addresses[1], request_bytes("GET", "/route?key=route"), timeout=30)
    expect(answer.status == 200 and answer.body == value, "read by /route")
    holder = ask(cluster.addresses[0], request_bytes("GET", "/route_test?key=route")).text
    answer = ask(holder, request_bytes("GET", "/cache?key=route"), timeout=30)
    expect(answer.status == 200 and answer.body == value, "read by /cache at its owner")
    expect_equal(ask(cluster.addresses[0], request_bytes("POST", "/route", b"key=route&val=" + b"x" * 2 * MEBIBYTE)).status, 413,
                 "a form over the item limit")
    held = json.loads(ask(holder, request_bytes("GET", "/fetch_keys"), timeout=30).body)
    expect("route" in held and held["route"] is None, "a large value in /fetch_keys")
    expect(not any("~" in key for key in held), f"chunks in /fetch_keys: {[key for key in held if '~' in key][:3]}")


def memcached_clients(cluster):
    value = content("mc", MEBIBYTE + 4321)
    put(cluster.addresses[0], "mc", value)
    host = cluster.addresses[1].split(":")[0]
    with socket.create_connection((host, PORT), timeout=10) as connection:
        stream = connection.makefile("rwb")

        def told(line, count=1):
            stream.write(line + b"\r\n")
            stream.flush()
            return [stream.readline().strip() for _ in range(count)]
        for command in (b"get mc", b"gat 3600 mc", b"get mc"):
            head = told(command)[0]
            expect_equal(head, b"VALUE mc 0 %d" % len(value), command)
            expect(stream.read(len(value) + 2) == value + b"\r\n", f"{command}: other bytes")
            expect_equal(stream.readline().strip(), b"END", "its end")
        expect(told(b"append mc 0 0 1\r\nx")[0].startswith(b"SERVER_ERROR"), "appending to a large value")
        smaller = content("smaller", MEBIBYTE - 3000)
        put(cluster.addresses[0], "smaller", smaller)
        expect(told(b"append smaller 0 0 1\r\nx")[0].startswith(b"SERVER_ERROR"), "appending to one that is smaller than an item")
        expect(call(cluster.addresses[2], "GET", "smaller")[2] == smaller, "what nothing was appended to")
        expect(told(b"incr mc 1")[0].startswith(b"CLIENT_ERROR"), "counting with a large value")
    expect(call(cluster.addresses[2], "GET", "mc")[2] == value, "by HTTP after memcached's clients")


def backed_up(cluster):
    file = cluster.directory / "large.kvbackup"
    kvctl = Kvctl(cluster.addresses[0])
    value, other = content("kept", 5 * MEBIBYTE), content("by kvctl", 2 * MEBIBYTE)
    tag = put(cluster.addresses[0], "kept", value)
    source = cluster.directory / "value"
    source.write_bytes(other)
    kvctl("put", "by kvctl", "--file", source).expect()
    kvctl("backup", file).expect()
    for key in ("kept", "by kvctl"):
        expect_equal(call(cluster.addresses[0], "DELETE", key)[0], 204, "deleting")
    for node in cluster.nodes:
        ask(node.address, request_bytes("GET", "/clear_cache"), timeout=30)
    expect_equal(call(cluster.addresses[0], "GET", "kept")[0], 404, "what was cleared")
    kvctl("restore", file).expect()
    status, fields, body = call(cluster.addresses[1], "GET", "kept")
    expect_equal((status, fields["ETag"]), (200, tag), "restored, with its version")
    expect(body == value, "restored: other bytes")
    expect(call(cluster.addresses[1], "GET", "by kvctl")[2] == other, "restored: other bytes of what kvctl has put")


def imported_late(cluster):
    """A manifest that comes so long after its chunks that they have been collected is refused, and may be imported from the beginning."""
    value = content("late", 2 * MEBIBYTE)
    tag = put(cluster.addresses[0], "late", value)
    exported = ask(cluster.addresses[0], request_bytes("GET", "/keys:export"), timeout=30).body
    # (A record: a byte with its key's length, the key, four with its envelope's, the envelope. The manifest's is the last one.)
    start, following = 0, 0
    while following < len(exported):
        start = following
        name_end = start + 1 + exported[start]
        following = name_end + 4 + int.from_bytes(exported[name_end:name_end + 4], "big")
    for node in cluster.nodes:
        ask(node.address, request_bytes("GET", "/clear_cache"), timeout=30)

    def imported(records):
        return ask(cluster.addresses[0], request_bytes("POST", "/keys:import", records), timeout=30)
    expect_equal(imported(exported[:start]).status, 200, "importing chunks alone")
    eventually(60, "chunks that nothing names are collected", lambda: deleted_chunks(cluster) >= 9)
    answer = imported(exported[start:])
    expect_equal((answer.status, answer.header("X-KV-Outcome")), (409, "not-applied"), f"a manifest that is late: {answer}")
    expect_equal(call(cluster.addresses[1], "GET", "late")[0], 404, "what was refused")
    expect_equal(imported(exported).status, 200, "from the beginning")
    status, fields, body = call(cluster.addresses[1], "GET", "late")
    expect(status == 200 and fields["ETag"] == tag and body == value, f"imported again: {status}")


def whole_while_all_changes(context, cluster):
    """Two writers overwrite one key with different lengths, three readers read it, a node joins, takes another's place and leaves, a worker
    is killed: every answer is one of the values that were put, whole, under its own version."""
    key, sizes = "busy", (2 * MEBIBYTE + 1, 3 * MEBIBYTE, 1_500_000)
    sums, is_over, failures, counts = {}, threading.Event(), [], {"read": 0, "cut": 0, "put": 0}
    lock = threading.Lock()
    put(cluster.addresses[0], key, content("busy 0", sizes[0]))
    sums[hashlib.sha256(content("busy 0", sizes[0])).digest()] = True

    def write(writer):
        number = 0
        while not is_over.is_set():
            number += 1
            value = content(f"busy {writer} {number}", sizes[number % 3])
            with lock:
                sums[hashlib.sha256(value).digest()] = True
            try:
                status, _, body = call(cluster.addresses[number % 2], "PUT", key, value)
                with lock:
                    counts["put"] += status == 204
                if status not in (204, 503):
                    failures.append(f"PUT: {status} {body[:200]}")
            except (OSError, http.client.HTTPException):
                pass
            # (What is overwritten stays for a while.)
            time.sleep(0.2)

    def read(reader):
        while not is_over.is_set():
            try:
                status, fields, body = call(cluster.addresses[reader % 3], "GET", key)
            except (OSError, http.client.HTTPException):
                with lock:
                    counts["cut"] += 1
                continue
            if status == 200:
                if hashlib.sha256(body).digest() not in sums:
                    failures.append(f"torn: {len(body)} bytes under {fields['ETag']}")
                with lock:
                    counts["read"] += 1
            elif status != 503:
                failures.append(f"GET: {status} {body[:200]}")
    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    threads += [threading.Thread(target=read, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    newcomer = cluster.node(4).address
    try:
        for target in (f"/add_node/3500/{newcomer}", f"/remove_node/{newcomer}"):
            answer = cluster.node(1).get(target, timeout=60)
            expect_equal(answer.body, b"OK", target)
            cluster.node(2).kill_worker(random.Random(context.seed))
            time.sleep(1)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    expect_equal(failures[:3], [], "while all changes")
    expect(counts["read"] > 20 and counts["put"] > 5, f"too little was done to tell: {counts}")
    expect(counts["cut"] <= counts["read"] / 4 + 5, f"too many answers were cut: {counts}")
    cluster.accept_present_workers()
    status, _, body = call(cluster.addresses[0], "GET", key)
    expect(status == 200 and hashlib.sha256(body).digest() in sums, f"at last: {status}")
    return counts["read"], counts["put"]


def unfinished_uploads(cluster):
    """Cut off in the middle, too slow, or with a worker that dies: what was there stays."""
    value = content("stays", 2 * MEBIBYTE)
    put(cluster.addresses[0], "stays", value)
    head = b"PUT /keys/stays HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (4 * MEBIBYTE)
    host, port = cluster.addresses[0].split(":")
    for ending in ("close", "kill", "slow"):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(head + b"z" * 3 * MEBIBYTE)
            time.sleep(0.3)
            if ending == "kill":
                cluster.node(1).kill_all_workers()
            if ending == "slow":
                expect(connection.recv(1000).startswith(b"HTTP/1.1 408"), "an upload that takes longer than uploadSeconds")
        if ending == "kill":
            cluster.node(1).wait_until_ready()
            cluster.accept_present_workers()
        expect(call(cluster.addresses[1], "GET", "stays")[2] == value, f"after an upload that ended by {ending}")


def chunks(node):
    """Names of the chunks that a node's memcached holds alive, by upload."""
    found = {}
    for name in node.memcached.stored_names():
        if name[:1] == b"d" and name[5:8] == b":%~":
            found.setdefault(name[8:40], []).append(name)
    return found


def deleted_chunks(cluster):
    total = 0
    for node in cluster.nodes:
        for line in node.get("/metrics").text.splitlines():
            if line.startswith("kvserver_chunks_deleted_total"):
                total += int(float(line.split()[-1]))
    return total


def living_bytes(cluster):
    return sum(int(line.split()[2]) for node in cluster.nodes for line in node.memcached.command(b"stats", b"END\r\n").decode().splitlines()
               if line.startswith("STAT bytes "))


def all_is_collected(cluster):
    """What no value needs is gone a while later, and what one needs stays."""
    # (Most of what came before may be gone already.)
    for number in range(12):
        put(cluster.addresses[0], "needed", content(f"not needed {number}", 4 * MEBIBYTE))
    value = content("needed", 4 * MEBIBYTE)
    put(cluster.addresses[0], "needed", value)
    held = sum(len(names) for names in chunks(cluster.node(1)).values())
    expect(held > 50, f"only {held} chunks to tell by")
    before = living_bytes(cluster)
    eventually(60, "memory is free again", lambda: living_bytes(cluster) < before / 2)

    def is_settled():
        first = deleted_chunks(cluster)
        time.sleep(2 * UPLOAD_SECONDS)
        return deleted_chunks(cluster) == first
    eventually(60, "the sweeps find nothing more", is_settled)
    for key, wanted in (("needed", value), ("kept", content("kept", 5 * MEBIBYTE)), ("stays", content("stays", 2 * MEBIBYTE))):
        expect(call(cluster.addresses[1], "GET", key)[2] == wanted, f"{key} after the sweeps")
    return deleted_chunks(cluster)
