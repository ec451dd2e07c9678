# SPDX-License-Identifier: Apache-2.0
"""With `peerPortOffset` nodes call each other at a port of their own, which serves nothing else; the clients' port serves nothing of theirs."""

import json
import secrets
import subprocess

from harness.client import Connection, ask, form_request, request_bytes
from harness.cluster import find_server_binary
from harness.expectations import expect, expect_equal

OFFSET = 1000
TOKENS = {door: secrets.token_hex(32) for door in ("admin", "peer")}
KEYS = ("roof", "gate", "bee", "ship", "mist")
RING = json.dumps({"clock": 0}).encode()


def run(context):
    with context.cluster(nodes=3, tokens=TOKENS, replicas=2, proxy=False, settings={"peerPortOffset": OFFSET}) as cluster:
        the_cluster_works(cluster)
        each_port_serves_its_own(cluster)
        a_node_without_such_a_port_is_refused(cluster)
    a_daemon_without_such_a_port_does_not_start(context)


def peers_port(address):
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + OFFSET}"


def the_cluster_works(cluster):
    for number, key in enumerate(KEYS):
        expect_equal(cluster.nodes[number % 3].store(key, "1").status, 200, f"storing {key}")
    expect_equal(cluster.node(1).get(f"/add_node/5000/{cluster.node(3).address}", timeout=30).body, b"OK", "adding a node")
    for node in cluster.nodes:
        for key in KEYS:
            expect_equal(node.read(key).body, b"1", f"{key} through {node.name}")
    expect_equal(cluster.node(2).get(f"/remove_node/{cluster.node(3).address}", timeout=30).body, b"OK", "removing it")


def each_port_serves_its_own(cluster):
    node = cluster.node(1)
    for target in ("/peer/hello", "/peer/batch", "/peer/ring", "/peer/", "/peer/x"):
        for method in ("POST", "GET"):
            body = RING if method == "POST" else None
            expect_equal(ask(node.address, request_bytes(method, target, body)).status, 404, f"{method} {target} at the clients' port")
    place = peers_port(node.address)
    headers = [("Authorization", f"Bearer {TOKENS['admin']}")]
    for target in ("/", "/route?key=roof", "/keys/roof", "/hash_ring", "/status", "/metrics", "/health/live", "/health/ready", "/ui", "/cache?key=roof",
                   f"/remove_node/{cluster.node(2).address}", "/clear_cache", "/fetch_keys"):
        expect_equal(ask(place, request_bytes("GET", target, headers=headers)).status, 404, f"GET {target} at the peers' port")
    expect_equal(ask(place, form_request("/route", {"key": "roof", "val": "2"}, headers)).status, 404, "POST /route at the peers' port")
    # (Many in a row, so that the short way of a GET would be taken.)
    with Connection(place) as connection:
        connection.send(4 * request_bytes("GET", "/route?key=roof"))
        expect_equal([connection.read_answer().status for _ in range(4)], [404] * 4, "GETs in a row at the peers' port")
    expect_equal(node.read("roof").body, b"1", "the pair after all that")
    expect_equal(ask(place, request_bytes("POST", "/peer/ring", RING)).status, 401, "who proves nothing at the peers' port")


def a_node_without_such_a_port_is_refused(cluster):
    node = cluster.node(1)
    far = f"{node.address.rpartition(':')[0]}:{65536 - OFFSET}"
    for target in (f"/add_node/5000/{far}", f"/add_node/auto/{far}", f"/replace_node/{cluster.node(2).address}/{far}"):
        answer = node.get(target)
        expect(answer.status == 400 and b"ports end at 65535" in answer.body, f"{target}: {answer}")


def a_daemon_without_such_a_port_does_not_start(_context):
    for offset, port, says in ((OFFSET, 65536 - OFFSET, "ports end at 65535"), (65535, 1, "peerPortOffset is not a whole number from 0 to 65534")):
        daemon = subprocess.run([find_server_binary(), "--check", "--node", f"127.0.0.1:{port}", "--peer-port-offset", str(offset)],
                                capture_output=True, text=True, timeout=20)
        expect(daemon.returncode in (64, 78) and says in daemon.stderr, f"offset {offset}: {daemon}")
