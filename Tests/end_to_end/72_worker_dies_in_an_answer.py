# SPDX-License-Identifier: Apache-2.0
"""A worker dies in the middle of a large answer: the client sees a body that is shorter than was announced, never a cut or mixed
value in a whole answer; so also through HAProxy, and where the worker that dies answers another node."""

import re
import socket
import threading
import time
from collections import Counter

from harness.client import Connection, read_request, socket_address
from harness.expectations import TestFailure, eventually, expect, expect_equal
from harness.placement import keys_owned_by
from harness.processes import kill

#: Near memcached's item limit; not so near that the envelope does not fit.
VALUE_BYTES = (1 << 20) - 2048
#: So many answers that they fit into no socket's buffers.
ANSWERS = 8
READERS = 4
#: Who dies sooner after its start is replaced only after a pause, which grows.
LIFE_SECONDS = 1.1


def value_of(key):
    """Bytes of which each place differs from its neighbours, and from the same place of other keys' values."""
    line = b"".join(b"%b-%07d." % (key.encode(), number) for number in range(VALUE_BYTES // 8))
    return line[:VALUE_BYTES]


def run(context):
    times = context.short_or_full(3, 40)
    # One copy: a read has no other node to turn to.
    with context.cluster(replicas=1, settings={"snapshotSeconds": 0}) as cluster:
        owner, other = cluster.node(1), cluster.node(3)
        keys = keys_owned_by(cluster.first_ring, owner.address, 4)
        values = {key: value_of(key) for key in keys}
        for key, value in values.items():
            expect_equal(cluster.proxy.store(key, value).status, 200, f"storing {len(value)} bytes")
        for name, address in (("a node", owner.address), ("HAProxy", cluster.proxy.address)):
            cut = rounds = 0
            # (What the kernel has taken already comes though its sender dies; through HAProxy that may be all.)
            while rounds < times or not cut and rounds < 4 * times:
                rounds += 1
                cut += slow_readers(context, cluster, address, list(values.items()))
            expect(cut > 0, f"through {name}, none of {rounds * READERS} answers was cut: nothing was shown")
            context.note(f"through {name} {cut} of {rounds * READERS} answers were cut")
        context.note(f"through another node {the_owner_dies(owner, other, values, times)}")
        cluster.accept_present_workers()


def slow_readers(context, cluster, address, pairs):
    """Some clients ask for one value again and again, and take the first bytes only; then all workers die. Returns how many clients
    were given the beginning of a value at the end."""
    readers = []
    time.sleep(LIFE_SECONDS)
    try:
        for number in range(READERS):
            key, value = pairs[number % len(pairs)]
            connection = socket.socket()
            readers.append((connection, key, value))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(5)
            connection.connect(socket_address(address))
            connection.sendall(read_request(key) * ANSWERS)
        received = [connection.recv(1000) for connection, _, _ in readers]
        taken = context.random.randrange(VALUE_BYTES)
        while len(received[0]) < taken:
            received[0] += readers[0][0].recv(65536)
        victims = {node: node.workers() for node in cluster.nodes}
        for workers in victims.values():
            for worker in workers:
                kill(worker)
        cut = 0
        for (connection, key, value), begin in zip(readers, received):
            cut += check(key, value, begin, connection)
    finally:
        for connection, _, _ in readers:
            connection.close()
    for node, workers in victims.items():
        node.wait_until_replaced(workers, 5)
    for node in cluster.nodes:
        node.wait_until_ready()
    return cut


def check(key, value, received, connection):
    """Every answer that is whole has the value, or is an error; what is behind them is the beginning of one. Returns 1 where that
    is the beginning of a value."""
    for _ in range(ANSWERS):
        while True:
            head, _, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            if length and len(body) >= int(length[1]):
                break
            try:
                data = connection.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                if not head.startswith(b"HTTP/1.1 200") or not body:
                    return 0
                expect_equal(int(length[1]), len(value), "the length that was announced")
                expect(value.startswith(body), f"what came of {key} is no beginning of its value")
                return 1
            received += data
        status, body, received = int(head[9:12]), body[:int(length[1])], body[int(length[1]):]
        expect(status == 200 and body == value or status >= 500,
               f"a whole answer, {status} with {len(body)} bytes, has not the value of {key}, which has {len(value)}")
    # (HAProxy keeps the connection where nothing was cut, and answers the rest once there are workers again.)
    return 0


def the_owner_dies(owner, other, values, deaths):
    """Whoever asks another node gets the whole value or an error, and keeps the connection. (Three read without a pause, so some are
    always under way; a node asks again for what another one has not answered to the end.)"""
    stop, found, troubles = threading.Event(), Counter(), []

    def read_on():
        try:
            with Connection(other.address) as connection:
                while not stop.is_set():
                    for key, value in values.items():
                        answer = connection.read(key)
                        found[answer.status] += 1
                        if answer.status != 503 and (answer.status != 200 or answer.body != value):
                            troubles.append(f"{key}: {answer.status} with {len(answer.body)} bytes")
        except Exception as error:  # (told by the main thread)
            troubles.append(f"{error!r}")
    readers = [threading.Thread(target=read_on) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(deaths):
            time.sleep(LIFE_SECONDS)
            before = found[200]
            eventually(10, "values are read", lambda: found[200] > before + 5, interval=0.001)
            victims = owner.workers()
            for victim in victims:
                kill(victim)
            owner.wait_until_replaced(victims, 5)
            owner.wait_until_ready()
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    expect(not troubles, f"read through another node while the owner's workers die: {troubles[:5]}")
    return f"{found[200]} whole, {found[503]} refused"
