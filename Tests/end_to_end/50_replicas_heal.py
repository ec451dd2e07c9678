# SPDX-License-Identifier: Apache-2.0
"""With three replicas a memory may be lost, and a host be away: nothing acknowledged is missing, and all replicas become
equal again by themselves."""

from harness.client import ask, request_bytes
from harness.expectations import eventually, expect


def run(context):
    count = context.short_or_full(2000, 100_000)
    pairs = {f"key{number}".encode(): f"value{number}".encode() for number in range(count)}
    with context.cluster(replicas=3, positions={2000: 1, 5000: 2, 8000: 3}, settings={"repairSeconds": 5}) as cluster:
        answers = cluster.node(1).get("/route_test?key=roof&all=1")
        expect(answers.body.split() == [cluster.node(number).address.encode() for number in (2, 3, 1)],
               f"all who hold roof, its owner first: {answers}")
        for key, value in pairs.items():
            expect(cluster.proxy.store(key, value).status == 200, f"storing {key}")

        # A memory is lost: the others answer, and it is refilled.
        lost = cluster.node(2)
        generation = lost.status()["generation"]
        lost.memcached.restart_empty()
        eventually(2, "the loss is noticed", lambda: lost.status()["isRecovering"] or None)
        ready = eventually(2, "a recovering node says so",
                           lambda: next((a for a in [lost.get("/health/ready")] if b"recovering" in a.body), None))
        expect(ready.status == 200, f"a recovering node serves: {ready}")
        for key, value in list(pairs.items())[:200]:
            for consistency in (b"sloppy", b"strict"):
                answer = lost.get(b"/route?key=%b&consistency=%b" % (key, consistency))
                expect(answer.status == 200 and answer.body == value, f"{key} at a recovering node: {answer}")
        eventually(60, "the memory is refilled", lambda: not lost.status()["isRecovering"] or None)
        expect(lost.status()["generation"] != generation, "it is another memory")
        # (`/cache` answers 503 for a moment, until its worker has heard that the memory is whole.)
        eventually(2, "both workers know", lambda: all(lost.get("/cache?key=key0").status == 200 for _ in range(20)) or None)
        missing = [key for key, value in pairs.items() if lost.get(b"/cache?key=" + key).body != value]
        expect(not missing, f"{len(missing)} pairs are not refilled, {missing[:3]}")

        # A host is away and misses writes, some of them deletes.
        expect(cluster.proxy.store("brief", "older").status == 200, "storing brief")
        away = cluster.node(3)
        away.end_daemon()
        changed = list(pairs)[:300]
        for key in changed[:200]:
            pairs[key] += b" again"
            answer = cluster.node(1).store(key, pairs[key])
            expect(answer.status == 200, f"storing {key} while a replica is away: {answer}")
        for key in changed[200:]:
            del pairs[key]
            answer = ask(cluster.node(1).address, request_bytes("DELETE", b"/route?key=" + key))
            expect(answer.status == 200, f"deleting {key} while a replica is away: {answer}")
        # One that all held for good, and that expires now: the node that was away must not bring it back.
        brief = cluster.node(1).post_form("/route", key="brief", val="newer", ttl="1")
        expect(brief.status == 200, f"storing what expires while a replica is away: {brief}")
        wanted = cluster.node(1).post_form("/route?w=3", key="all", val="three")
        expect(wanted.status == 503 and wanted.header("X-KV-Outcome") == "unknown" and b"2 of the 3" in wanted.body,
               f"a write that wants all three says how many it reached: {wanted}")
        strict = cluster.node(1).get(b"/route?consistency=strict&key=" + changed[0])
        expect(strict.body == pairs[changed[0]], f"a strict read with two of three: {strict}")
        away.start_daemon()
        away.wait_until_ready()

        def is_equal():
            return all(away.get(b"/cache?key=" + key).body == pairs.get(key, b"N/A") for key in changed) or None
        eventually(30, "the node that was away has what it missed", is_equal)

        eventually(30, "what has expired is known to have", lambda: away.get("/cache?key=brief").status == 404 or None)

        # One of three is left.
        for node in (cluster.node(2), cluster.node(3)):
            node.end_daemon()
        survivor = cluster.node(1)
        key = changed[0]
        expect(survivor.get(b"/route?key=" + key).status == 503, "a majority is away")
        expect(survivor.get(b"/route?r=1&key=" + key).body == pairs[key], "one is asked for, and there")
        answer = survivor.post_form("/route?w=1", key="alone", val="x")
        expect(answer.status == 200, f"a write that wants one: {answer}")
        for node in (cluster.node(2), cluster.node(3)):
            node.start_daemon()
        for node in (cluster.node(2), cluster.node(3)):
            node.wait_until_ready()

        # What no ring can give.
        expect(cluster.node(1).get("/route?key=all&r=4").status == 400, "more replicas than there are")
        expect(cluster.node(1).get("/route?key=all&consistency=much").status == 400, "no such consistency")
