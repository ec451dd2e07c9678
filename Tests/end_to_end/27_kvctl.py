# SPDX-License-Identifier: Apache-2.0
"""Every command of kvctl against a real cluster: what it prints, as text and as JSON, in a pipe and on a terminal, and its exit status."""

import json
import threading
import time

from harness.client import exchange_many, store_request
from harness.expectations import eventually, expect, expect_equal
from harness.kvctl import (CONDITION_FAILED, FAILED, NOT_FOUND, UNAVAILABLE, UNKNOWN, USAGE, Kvctl)

LIMIT_SECONDS = 180


def run(context):
    with context.cluster(replicas=None) as cluster:
        kvctl = Kvctl(cluster.proxy.address)
        pairs(cluster, kvctl)
        unavailable(cluster, kvctl)
        ring(cluster, kvctl)
    with context.cluster(settings={"snapshotSeconds": 1}) as cluster:
        cluster.install_ring(cluster.first_ring, standbys=[cluster.node(3).address])
        measures(cluster, Kvctl(cluster.proxy.address))
        changes(cluster, Kvctl(cluster.proxy.address))


def pairs(cluster, kvctl):
    expect_equal(kvctl("put", "roof", "red").expect().output, b"", "what put prints")
    expect_equal(kvctl("get", "roof").expect().output, b"red", "the value")
    kvctl("get", "nothing").expect(NOT_FOUND, says="There is no such pair")
    every_byte = bytes(range(256)) * 1000
    kvctl("put", "any/ key.?&", "--content-type", "image/png", input=every_byte).expect()
    expect_equal(kvctl("get", "any/ key.?&").expect().output, every_byte, "a value of all bytes, by standard input")
    found = kvctl("get", "any/ key.?&", "--json").expect().json
    expect_equal((found["contentType"], found["key"]), ("image/png", "any/ key.?&"), "the type")
    expect("valueBase64" in found and "value" not in found, f"bytes as text: {found.keys()}")
    file = cluster.directory / "value"
    file.write_bytes(b"from a file")
    kvctl("put", "file", "--file", file).expect()
    expect_equal(cluster.proxy.read("file").body, b"from a file", "a value by a file")
    kvctl("put", "file", "--file", file.with_name("none")).expect(FAILED, says="No such file")

    first = kvctl("put", "door", "open", "--if-none-match", "*", "--json").expect().json["version"]
    kvctl("put", "door", "shut", "--if-none-match", "*").expect(CONDITION_FAILED)
    second = kvctl("put", "door", "shut", "--if-match", first, "--json").expect().json["version"]
    expect(second > first, f"versions that do not grow: {first}, {second}")
    kvctl("delete", "door", "--if-match", first).expect(CONDITION_FAILED)
    kvctl("delete", "door", "--if-match", second).expect()
    kvctl("get", "door").expect(NOT_FOUND)
    kvctl("delete", "door").expect()
    kvctl("put", "short", "life", "--ttl", "1").expect()
    eventually(5, "the time to live is over", lambda: kvctl("get", "short").status == NOT_FOUND)

    expect_equal([kvctl("incr", "visits").expect().text, kvctl("incr", "visits", "--by=41").expect().text,
                  kvctl("incr", "visits", "--by=-2").expect().text], ["1\n", "42\n", "40\n"], "a counter")
    expect_equal(kvctl("incr", "visits", "--json").expect().json["value"], 41, "a counter as JSON")
    kvctl("incr", "roof").expect(FAILED, says="no whole number")

    for words in (["put"], ["put", ""], ["get", "x" * 4097], ["put", "a", "b", "--ttl", "0"], ["nonsense"],
                  ["get", "a", "--node", "localhost:5000"], ["get", "a", "--timeout", "0"], ["ring", "add", "here"],
                  ["put", "a", "b", "--file", "c"], ["ring", "remove", "127.0.0.1:1", "--without", "127.0.0.1:2"]):
        kvctl(*words).expect(USAGE)
    for shell in ("bash", "zsh", "fish"):
        kvctl("--generate-completion-script", shell).expect(says="kvctl")


def unavailable(cluster, kvctl):
    nobody = cluster.unused_address()
    kvctl("get", "roof", "--node", nobody).expect(UNAVAILABLE, says="can't be reached")
    kvctl("put", "roof", "blue", "--node", nobody).expect(UNAVAILABLE)
    node = cluster.node(1)
    node.pause_host()
    try:
        began = time.monotonic()
        kvctl("put", "roof", "blue", "--node", node.address, "--timeout", "1").expect(UNKNOWN, says="not known")
        expect(time.monotonic() - began < 5, "it was sent again, or waited for too long")
    finally:
        node.resume_host()
    eventually(10, "the node answers again", lambda: kvctl("get", "roof", "--node", node.address).status == 0)


def ring(cluster, kvctl):
    def is_well():
        return kvctl("status").status == 0
    eventually(20, "all nodes are well again", is_well)
    status = kvctl("status", "--json").expect().json
    expect_equal({node["version"] for node in status["nodes"]}, {kvctl("--version").expect().text.strip()}, "the nodes' version and kvctl's")
    expect_equal([node["node"] for node in status["nodes"]], cluster.addresses[:2], "the nodes of the ring")
    expect(all(node["workers"] == 2 and node["isMemcachedAnswering"] for node in status["nodes"]), status)
    lines = kvctl("status").expect().lines
    expect(lines[0].split()[:3] == ["NODE", "STATE", "EPOCH"] and lines[1].split()[:2] == [cluster.addresses[0], "ok"], lines)
    shown = kvctl("ring", "show", "--json").expect().json
    expect_equal({node["node"]: node["slotsOwned"] for node in shown["nodes"]},
                 dict(zip(cluster.addresses, [5000, 5000])), "who owns how many slots")
    kvctl("ring", "show").expect(says=["50.0 %", "3000"])
    cluster.node(2).end_daemon()
    kvctl("status").expect(UNAVAILABLE, says="DOWN")


def slowly(cluster):
    """From here on a change takes some seconds: each batch of pairs waits."""
    for node in cluster.nodes:
        node.set_failpoints("ring.job.copy.batch=sleep:3000")


def changes(cluster, kvctl):
    keys = [f"key{number}" for number in range(4000)]
    for _, _, _, answer in exchange_many(cluster.addresses, [store_request(key, f"value of {key}") for key in keys]):
        expect_equal(answer.status, 200, "storing what is to move")
    standby, nobody = cluster.node(3).address, cluster.unused_address()
    plan = kvctl("ring", "plan", "add", standby, "--position", "5000", "--json").expect().json
    expect_equal({node["node"]: (node["slotsOwnedBefore"], node["slotsOwnedAfter"]) for node in plan["nodes"]},
                 dict(zip(cluster.addresses, [(5000, 5000), (5000, 3000), (0, 2000)])), "the plan")
    expect_equal((plan["slotsWithNewOwner"], plan["copiesOfSlotsMoved"], plan["copiesOfSlots"]), (2000, 2000, 10_000), "what would move")
    # (As the latest snapshots have them; those of the benchmark are there, too.)
    pairs = sum(len(node.pairs()) for node in cluster.nodes)

    def is_about_right():
        found = kvctl("ring", "plan", "add", standby, "--position", "5000", "--json").json["estimatedPairsMoved"]
        return found is not None and abs(found - pairs / 5) < pairs / 25
    eventually(15, f"of {pairs} pairs a fifth would move", is_about_right)
    kvctl("ring", "plan", "remove", cluster.node(2).address).expect(says="50.0 % of all keys get another owner")
    kvctl("ring", "plan", "remove", nobody).expect(NOT_FOUND)
    kvctl("ring", "plan", "add", standby, "--position", "3000").expect(FAILED, says="taken")
    kvctl("ring", "add", standby, "--position", "3000").expect(FAILED, says="taken")
    kvctl("ring", "remove", nobody).expect(NOT_FOUND, says="not in the ring")
    kvctl("ring", "abort").expect(FAILED)
    kvctl("ring", "resume").expect(NOT_FOUND, says="no ring change is under way")
    expect_equal(cluster.wait_for_one_ring(), cluster.first_ring, "the ring after all that was refused")

    slowly(cluster)
    added = kvctl("ring", "add", standby, "--position", "5000").expect()
    expect(any(line.startswith("copying: ") and " pairs" in line for line in added.lines), f"no progress: {added.lines}")
    expect_equal(added.lines[-1], f"add {standby} at 5000: completed", "its last line")
    expect_equal(cluster.wait_for_one_ring(), cluster.first_ring.adding(5000, standby), "the ring with the standby")
    # Asked for again, it is done already.
    kvctl("ring", "add", standby, "--position", "5000").expect(says="completed")

    status, output = kvctl.on_terminal("ring", "remove", standby)
    expect_equal(status, 0, f"removing on a terminal: {output!r}")
    expect("[#" in output or "[-" in output, f"no bar: {output!r}")
    expect("\r\x1b[K" in output and output.rstrip().endswith("completed"), f"no redrawing: {output!r}")

    # One that is interrupted: the change goes on, and can be waited for, or undone.
    process = kvctl.start("ring", "add", standby, "--position", "6000", "--json")
    eventually(10, "the change is under way", lambda: cluster.node(1).status()["transition"])
    progress = eventually(10, "it tells how far it is", process.stdout.readline)
    process.kill()
    process.wait()
    expect_equal((json.loads(progress)["change"], json.loads(progress)["isAborting"]), (f"add {standby} at 6000", False), "its progress as JSON")
    kvctl("ring", "add", cluster.unused_address(98)).expect(FAILED, says="409")
    kvctl("status").expect(says="ring change under way: add")
    results = []
    waiting = threading.Thread(target=lambda: results.append(kvctl("ring", "resume")))
    waiting.start()
    time.sleep(1)
    kvctl("ring", "abort").expect(says="abort: aborted")
    waiting.join()
    results[0].expect(FAILED)
    expect_equal(cluster.wait_for_one_ring(), cluster.first_ring, "the ring after the abort")

    process = kvctl.start("ring", "add", standby, "--position", "6000")
    eventually(10, "the change is under way", lambda: cluster.node(1).status()["transition"])
    process.kill()
    process.wait()
    for node in cluster.nodes:
        node.set_failpoints()
    kvctl("ring", "resume").expect(says=f"add {standby} at 6000: completed")
    kvctl("ring", "replace", standby, cluster.node(1).address).expect(FAILED)
    expect_equal(cluster.wait_for_one_ring(), cluster.first_ring.adding(6000, standby), "the ring after the change was waited for")
    missing = [key for key in keys if cluster.proxy.read(key).status != 200]
    expect(not missing, f"{len(missing)} keys are missing, such as {missing[:3]}")


def measures(cluster, kvctl):
    result = kvctl("bench", "--duration", "1", "--connections", "4", "--gets", "50", "--keys", "20", "--json").expect().json
    expect(result["requests"] > 100 and result["failures"] == result["missing"] == 0, f"a closed loop: {result}")
    counts = [result[kind]["count"] for kind in ("getMilliseconds", "putMilliseconds")]
    expect(sum(counts) == result["requests"] and min(counts) > result["requests"] * 0.3, f"the mix: {counts}")
    latency = result["getMilliseconds"]
    expect(0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p999"] <= latency["max"], f"percentiles: {latency}")
    result = kvctl("bench", "--duration", "2", "--rate", "200", "--json").expect().json
    expect(abs(result["requests"] - 400) < 8, f"an open loop at 200/s: {result}")
    # One that stalls for half a second shows it in all that was due meanwhile, not in one request alone.
    node = cluster.node(1)
    process = kvctl.start("bench", "--node", node.address, "--duration", "3", "--rate", "200", "--connections", "1", "--gets", "0", "--json")
    time.sleep(1.2)
    node.pause_host()
    time.sleep(0.5)
    node.resume_host()
    output, _ = process.communicate(timeout=20)
    latency = json.loads(output)["putMilliseconds"]
    expect(latency["p90"] > 100 and latency["max"] > 400, f"a stall of 0.5 s in 3 s at 200/s: {latency}")
    lines = kvctl("bench", "--duration", "0.5").expect().lines
    expect(" requests in " in lines[0] and lines[1].split()[:2] == ["MS", "COUNT"], lines)
    kvctl("bench", "--duration", "0.5", "--node", cluster.unused_address()).expect(UNAVAILABLE)

    load = kvctl.start("bench", "--duration", "6", "--connections", "2")
    try:
        looks = [json.loads(line) for line in kvctl("watch", "--interval", "1", "--count", "2", "--json").expect().lines]
        expect(all(look["requestsPerSecond"] > 10 and look["p99Milliseconds"] > 0 for look in looks), f"no requests to be seen: {looks}")
        expect_equal([line["node"] for line in looks[1]["nodes"]], cluster.addresses, "the nodes")
        expect(all(line["rates"]["epoch"] > 0 for line in looks[1]["nodes"]), looks[1])
        lines = kvctl("watch", "--interval", "0.5", "--count", "2").expect().lines
        expect(len(lines) == 2 and all(" 3 of 3 nodes, " in line for line in lines), lines)
        status, output = kvctl.on_terminal("watch", "--interval", "0.5", "--count", "2")
        expect(status == 0 and output.count("\x1b[H\x1b[J") == 2 and "REQUESTS/S" in output, f"on a terminal: {output!r}")
    finally:
        load.communicate(timeout=20)
