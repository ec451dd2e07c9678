# SPDX-License-Identifier: Apache-2.0
"""One host's clock is wrong, by seconds or by an hour: no acknowledged write is lost, and one that is too far ahead stamps none."""

from harness.aftermath import expect_nothing_lost
from harness.expectations import eventually, expect, expect_equal
from harness.placement import keys_owned_by

SLOPPY = "/route?consistency=sloppy"

#: Of node 2's clock, in seconds, and whether it may stamp writes.
OFFSETS = ((5, True), (-5, True), (-3600, True), (3600, False))


def run(context):
    for offset, may_write in OFFSETS:
        with context.cluster(nodes=3, replicas=3, positions={2000: 1, 5000: 2, 8000: 3}, settings={"consistency": "strict"}) as cluster:
            wrong = cluster.node(2)
            wrong.end_daemon()
            wrong.change_settings(clockOffsetMilliseconds=offset * 1000)
            wrong.start_daemon()
            wrong.wait_until_ready()
            clock = eventually(10, "the clocks are compared", lambda: offset_of(wrong, may_write))
            expect(all(abs(entry["milliseconds"] + offset * 1000) < 1000 for entry in clock["offsets"]), f"{offset} s off: {clock}")
            nodes = cluster.nodes if may_write else [cluster.node(1), cluster.node(3)]
            keys = [f"key{number}" for number in range(20)]
            with context.load([node.address for node in nodes], keys, connections=6, write_fraction=0.5) as load:
                load.wait_for_more(1500)
                result = load.stop()
            expect_nothing_lost(cluster, result.history)
            expect(not result.failed_writes, f"{offset} s off: {len(result.failed_writes)} writes failed, {result.notes_of('write')[:3]}")

            # One after the other through different nodes: the last one stays, whoever's clock stamped it.
            for number in range(40):
                node = nodes[number % len(nodes)]
                expect_equal(node.store("last", f"value {number}", SLOPPY).status, 200, f"storing {number} with a clock {offset} s off")
                read = cluster.nodes[(number + 1) % 3].get(SLOPPY + "&key=last")
                expect_equal(read.text, f"value {number}", f"read back after {number}, a clock {offset} s off")
            if not may_write:
                too_far_ahead(cluster, wrong)
    a_lone_owner_too_far_ahead(context)
    context.note(", ".join(f"{offset} s" for offset, _ in OFFSETS))


def offset_of(node, may_write):
    clock = node.status()["clock"]
    return clock if len(clock["offsets"]) == 2 and clock["isAhead"] == (not may_write) else None


def too_far_ahead(cluster, wrong):
    def refusal():
        answers = [wrong.store("late", "x") for _ in range(8)]
        return answers if all(answer.status == 503 for answer in answers) else None
    for answer in eventually(5, "writes are refused", refusal):
        expect(answer.header("X-KV-Outcome") == "not-applied" and "clock" in answer.text, f"a write at a host an hour ahead: {answer}")
    expect_equal(wrong.read("last").status, 200, "reading at a host an hour ahead")
    expect("too far ahead" in wrong.log_path.read_text(), "its log says so")
    wrong.end_daemon()
    wrong.change_settings(clockOffsetMilliseconds=0)
    wrong.start_daemon()
    wrong.wait_until_ready()
    eventually(10, "it takes writes again", lambda: wrong.store("late", "x").status == 200 or None)


def a_lone_owner_too_far_ahead(context):
    """It would stamp what is written through the others."""
    with context.cluster(nodes=3, replicas=1, positions={2000: 1, 5000: 2, 8000: 3}) as cluster:
        wrong, other = cluster.node(2), cluster.node(1)
        key = keys_owned_by(cluster.one_ring(), wrong.address, 1)[0]
        wrong.end_daemon()
        wrong.change_settings(clockOffsetMilliseconds=3_600_000)
        wrong.start_daemon()
        wrong.wait_until_ready()

        def refusal():
            answer = other.store(key, "x")
            return answer if answer.status == 503 and "clock" in answer.text else None
        answer = eventually(10, "its owner refuses the write", refusal)
        expect_equal(answer.header("X-KV-Outcome"), "not-applied", "the outcome of a write that its owner can't stamp")
        # (Each of its workers finds out by itself, and the refusal above was one's.)
        eventually(5, "all of them know", lambda: all(wrong.store(key, "x", "/cache").status == 503 for _ in range(8)))
        expect_equal([wrong.store(key, "x", "/cache").status, other.store(key, "x", "/cache").status], [503, 200], "storing at one host, whatever the ring says")
