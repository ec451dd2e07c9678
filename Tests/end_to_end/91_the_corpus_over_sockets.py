# SPDX-License-Identifier: Apache-2.0
"""What the fuzzers keep (Fuzz/corpus) is sent to a node's two ports, as it is and within well-formed requests: no worker dies of it, and no
answer is a 5xx but what says that HTTP of this kind is not served."""

import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from harness.client import AnswerReader, MalformedAnswer, percent_encode, request_bytes, socket_address
from harness.cluster import REPOSITORY
from harness.expectations import expect, expect_equal

CORPUS = REPOSITORY / "Fuzz" / "corpus"
#: The fuzzers' first bytes say how a stream is cut.
CUT_BYTES = 4
PORT = 11211
AT_ONCE = 16
#: How long a connection may stay open once nothing more is sent.
END_SECONDS = 10
#: Not served: a coding, a version. (A batch finds no place while so many others run; so does another node's call.)
NOT_SERVED, NO_ROOM = {501, 505}, {503}
PEER_CALLS = ("ring", "promise", "release", "announce", "job", "repair", "digests", "list", "wish")
FIELDS = ("If-Match", "If-None-Match", "Range", "If-Range", "Content-Type", "traceparent", "X-Request-ID", "X-Request-IDs", "Origin")


def run(context):
    with context.cluster(replicas=1, nodes=2, proxy=False, positions={3000: 1, 8000: 2}, settings={"memcachedPort": PORT}) as cluster:
        node = cluster.node(1)
        expect_equal(node.store("witness", "unchanged").status, 200, "storing")
        inputs = [*http_inputs()]
        commands = [(f"commands/{path.name}", path.read_bytes()[CUT_BYTES:]) for path in files("commands")]
        expect(len(inputs) > 100 and len(commands) > 5, f"{len(inputs)} and {len(commands)} inputs: where is the corpus?")
        statuses = Counter()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for (title, _, allowed), data in zip(inputs, pool.map(lambda given: exchange(node.address, given[1]), inputs)):
                for status in answers_of(title, data):
                    statuses[status] += 1
                    expect(status < 500 or status in allowed, f"{title} is answered {status}: {data[:300]!r}")
            host = socket_address(node.address)[0]
            said = list(pool.map(lambda given: exchange(f"{host}:{PORT}", given[1]), commands))
        expect(sum(map(len, said)) > 0, "memcached's port says nothing")
        for other in cluster.nodes:
            expect_equal(other.read("witness").text, "unchanged", "a pair that nobody has touched")
            expect(not other.unexpected_deaths(), f"workers of {other.name} have died")
        context.note(f"{len(inputs)} requests and {len(commands)} streams of commands; answers: "
                     + ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items())))


def files(target):
    return sorted((CORPUS / target).iterdir())


def http_inputs():
    """Title, bytes, and the 5xx that may be."""
    for target in ("head", "connection"):
        for path in files(target):
            data = path.read_bytes()[CUT_BYTES if target == "connection" else 0:]
            # (What asks for an end of the ring, or of the pairs, would get it.)
            if not any(word in data for word in (b"_node", b"clear_cache", b"abort_change")):
                yield f"{target}/{path.name}", data, NOT_SERVED | NO_ROOM
    for path in files("form"):
        yield f"form/{path.name}", request_bytes("POST", "/route", path.read_bytes()), set()
        yield f"form/{path.name} in a target", request_bytes("GET", b"/route?key=" + percent_encode(path.read_bytes())), set()
    for path in files("fields"):
        value = bytes(byte for byte in path.read_bytes() if 0x20 <= byte < 0x7F).strip().decode()
        for name in FIELDS:
            # (Of each its own, for who overwrites others on condition may be told to try again.)
            key = f"/keys/{path.name}-{name}"
            yield f"fields/{path.name} as {name}", request_bytes("PUT", key, b"x", [(name, value)]), set()
            yield f"fields/{path.name} as {name}", request_bytes("GET", key, headers=[(name, value)]), set()
    for path in files("cursor"):
        yield f"cursor/{path.name}", request_bytes("GET", b"/keys?limit=1&cursor=" + percent_encode(path.read_bytes())), NO_ROOM
    for target, place in (("batch-json", "/keys:batch"), ("import", "/keys:import"), ("peer-batch", "/peer/batch"),
                          ("peer-answer", "/peer/batch"), ("snapshot", "/keys:import"), ("envelope", "/peer/batch")):
        for path in files(target):
            yield f"{target}/{path.name}", request_bytes("POST", place, path.read_bytes()), NO_ROOM
    for target in ("peer-json", "ring-json"):
        for number, path in enumerate(files(target)):
            call = PEER_CALLS[number % len(PEER_CALLS)]
            yield f"{target}/{path.name} as {call}", request_bytes("POST", f"/peer/{call}", path.read_bytes()), NO_ROOM | {500}


def exchange(address, data):
    """All that is answered, up to the connection's end."""
    said = b""
    with socket.create_connection(socket_address(address), timeout=END_SECONDS) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(1 << 16):
                said += part
        except TimeoutError as problem:
            raise AssertionError(f"a connection that does not end: {data[:300]!r}, answered {said[:300]!r}") from problem
        except OSError:
            pass  # (Refused, and closed before all was sent.)
    return said


def answers_of(title, said):
    """Their statuses; of one to HEAD nobody here knows how long it is."""
    reader, statuses = AnswerReader(), []
    reader.feed(said)
    try:
        while (answer := reader.next_answer()) is not None:
            statuses.append(answer.status)
    except MalformedAnswer as problem:
        expect(title.startswith(("connection", "head")), f"{title}: {problem}")
    return statuses
