# SPDX-License-Identifier: Apache-2.0
"""Values of 256 KiB that are read again and again come from memory that the worker keeps: what the system takes back it would have to give
anew, page by page, for each of them."""

from harness.client import Connection, read_request
from harness.expectations import expect, expect_equal
from harness.processes import stat_of

VALUE_BYTES = 256 << 10
PAGES = VALUE_BYTES // 4096
CONNECTIONS, WARM_ROUNDS = 192, 5
#: Pages that the system gave for an answer, at most.
PAGES_AN_ANSWER = PAGES / 8


def run(context):
    rounds = context.short_or_full(20, 200)
    with context.cluster(nodes=1, positions={5000: 1}, replicas=1, workers=1, proxy=False, memory_megabytes=128) as cluster:
        node = cluster.node(1)
        value = b"v" * VALUE_BYTES
        expect_equal(node.store("large", value).status, 200, "storing")
        [worker] = node.workers()
        connections = [Connection(node.address) for _ in range(CONNECTIONS)]
        try:
            read_by_all(connections, WARM_ROUNDS, value)
            before = page_faults(worker)
            read_by_all(connections, rounds, value)
            pages = (page_faults(worker) - before) / (rounds * CONNECTIONS)
        finally:
            for connection in connections:
                connection.close()
    context.note(f"{pages:.1f} pages of {PAGES} for an answer")
    expect(pages <= PAGES_AN_ANSWER, f"the system gave {pages:.1f} pages for each answer of {PAGES}, in {rounds} rounds of {CONNECTIONS} reads")


def read_by_all(connections, rounds, value):
    """All of them ask before the first answer is taken."""
    for _ in range(rounds):
        for connection in connections:
            connection.send(read_request("large"))
        for connection in connections:
            answer = connection.read_answer()
            expect(answer.status == 200 and answer.body == value, f"reading: {answer.status}, {len(answer.body)} bytes")


def page_faults(pid):
    """How many pages the system has given to it so far (proc(5): minflt)."""
    return int(stat_of(pid)[7])
