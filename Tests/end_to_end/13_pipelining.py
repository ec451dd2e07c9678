# SPDX-License-Identifier: Apache-2.0
"""Requests that travel together are done and answered in their order, whatever they are and however they are cut into packets.

Only safe requests may be done in parallel (RFC 9112, section 9.3.2): a read sees the store before it in its pipeline.
"""

import time

from harness.client import Connection, read_request, request_bytes, store_request
from harness.expectations import expect_equal
from harness.placement import keys_owned_by


def run(context):
    with context.cluster() as cluster:
        owners = [cluster.node(1).address, cluster.node(2).address]
        keys = [key for owner in owners for key in keys_owned_by(cluster.first_ring, owner, 20)]
        context.random.shuffle(keys)
        for place in (cluster.node(1), cluster.node(3), cluster.proxy):
            requests, wanted = mixed_requests(keys, place.address)
            for name, cut in (("in one piece", whole), ("byte by byte", drip), ("in odd pieces", odd_pieces(context.random))):
                with Connection(place.address, timeout=20) as connection:
                    for piece in cut(b"".join(requests)):
                        connection.send(piece)
                    found = [answer_key(connection.read_answer()) for _ in requests]
                for number, (have, want) in enumerate(zip(found, wanted)):
                    expect_equal(have, want, f"answer {number} of {len(wanted)} sent {name} to {place.address}")
        a_connection_serves_many(cluster.node(2), context.short_or_full(20_000, 500_000))


def mixed_requests(keys, mark):
    """Stores, reads and errors, and what each must answer."""
    requests, wanted = [], []
    for key in keys:
        requests.append(store_request(key, f"{key} {mark}"))
        wanted.append((200, b"OK"))
    for number, key in enumerate(keys):
        requests.append(read_request(key))
        wanted.append((200, f"{key} {mark}".encode()))
        if number % 4 == 0:
            requests.append(read_request(f"missing {number}"))
            wanted.append((404, b"N/A"))
        if number % 5 == 0:
            requests.append(request_bytes("GET", "/route"))
            wanted.append((400, None))
        if number % 6 == 0:
            requests.append(request_bytes("GET", "/no_such_path"))
            wanted.append((404, None))
        if number % 7 == 0:
            requests.append(request_bytes("PUT", "/route?key=a"))
            wanted.append((405, None))
    return requests, wanted


def answer_key(answer):
    is_explanation = answer.status >= 400 and answer.body != b"N/A"
    return answer.status, None if is_explanation else answer.body


def whole(data):
    yield data


def drip(data):
    """The first kilobyte byte by byte, so that every request of it is cut everywhere."""
    for position in range(1024):
        yield data[position:position + 1]
        if position % 64 == 0:
            time.sleep(0.001)
    yield data[1024:]


def odd_pieces(random):
    def cut(data):
        while data:
            length = random.randint(1, 700)
            yield data[:length]
            data = data[length:]
    return cut


def a_connection_serves_many(node, count):
    with Connection(node.address, timeout=20) as connection:
        for start in range(0, count, 100):
            batch = [f"many {number % 1000}" for number in range(start, start + 100)]
            connection.send(b"".join(store_request(key, key) + read_request(key) for key in batch))
            for key in batch:
                expect_equal(connection.read_answer().status, 200, f"storing {key}")
                expect_equal(connection.read_answer().text, key, f"reading {key}, stored just before in the same pipeline")
