# SPDX-License-Identifier: Apache-2.0
"""All of it together: clients speak TLS to HAProxy, HAProxy to the nodes that it verifies, the nodes to each other; and kvctl keeps HAProxy as the ring is."""

import os
import re
import secrets
import subprocess
import urllib.request

from harness.client import read_request, request_bytes, store_request
from harness.cluster import REPOSITORY, find_kvctl_binary
from harness.expectations import eventually, expect, expect_equal
from harness.processes import OwnedProcess
from harness.tls import Authority, ask, host_of, secure_cluster

LIMIT_SECONDS = 120
TOKENS = {door: secrets.token_hex(32) for door in ("admin", "peer")}
KEYS = [f"key{number}" for number in range(60)]


def run(context):
    cluster = context.cluster(nodes=3, tokens=TOKENS, replicas=1, proxy=False)
    authority, stranger = (Authority(cluster.directory / name) for name in ("certificates", "strangers"))
    secure_cluster(cluster, authority)
    place = cluster.unused_address(10)
    authority.make(options=("--server", host_of(place)))
    with cluster:
        proxy = start_haproxy(cluster, authority, place)
        sync = OwnedProcess([find_kvctl_binary(), "haproxy", "sync", "--watch", "--interval", "0.2", "--socket", cluster.directory / "haproxy.sock",
                             "--node", cluster.node(1).address, "--ca", authority.certificate,
                             "--server-ca", str(cluster.directory / "balancer/etc/haproxy/kvserver-authority.pem")], cluster.directory / "sync.log")
        try:
            requests_pass(cluster, authority, place)
            a_node_that_joins_is_asked(cluster, authority, place)
            a_node_that_is_not_who_it_says_is_taken_out(cluster, authority, stranger, place)
        finally:
            sync.kill()
            proxy.kill()


def start_haproxy(cluster, authority, place):
    """In front of the first two nodes, as `setup.sh balancer` makes it, but for what only a machine of its own has."""
    root = cluster.directory / "balancer"
    host = host_of(place)
    subprocess.run([REPOSITORY / "setup.sh", "balancer", "--root", root, "--node", cluster.node(1).address, "--node", cluster.node(2).address, "--bind", place,
                    "--statistics", f"{host}:8404", "--connections", "500", "--tls-certificate", authority.directory / f"{host}.haproxy.pem",
                    "--node-authority", authority.certificate], check=True, capture_output=True, timeout=60,
                   env={**os.environ, "KVCTL_BINARY": find_kvctl_binary()})
    text = (root / "etc/haproxy/haproxy.cfg").read_text()
    text = re.sub(r"^    (user|group|chroot) .*\n", "", text, flags=re.M)
    text = re.sub(r"^    stats socket .*$", f"    stats socket unix@{cluster.directory}/haproxy.sock mode 600 level admin", text, flags=re.M)
    (cluster.directory / "haproxy.cfg").write_text(text)
    return OwnedProcess(["haproxy", "-f", cluster.directory / "haproxy.cfg"], cluster.directory / "haproxy.log")


def states(cluster):
    """Of the servers that HAProxy has, as its statistics say it, by address."""
    address = f"{host_of(cluster.unused_address(10))}:8404"
    with urllib.request.urlopen(f"http://{address}/;csv", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    titles = lines[0].lstrip("# ").split(",")
    rows = [dict(zip(titles, line.split(","))) for line in lines[1:]]
    return {row["addr"]: row["status"].split()[0] for row in rows if row["pxname"] == "nodes" and row["svname"] != "BACKEND"}


def requests_pass(cluster, authority, place):
    def serves():
        try:
            return ask(place, authority.context(), request_bytes("GET", "/")).status == 200
        except OSError:
            return False
    eventually(15, "the balancer serves", serves)
    for key in KEYS:
        expect_equal(ask(place, authority.context(), store_request(key, "1")).status, 200, f"storing {key}")
        expect_equal(ask(place, authority.context(), read_request(key)).body, b"1", f"reading {key}")
    expect_equal(ask(place, authority.context(), request_bytes("POST", "/peer/ring", b"{}")).status, 403, "what is between nodes")


def a_node_that_joins_is_asked(cluster, authority, place):
    joiner = cluster.node(3)
    expect_equal(cluster.node(1).get(f"/add_node/5000/{joiner.address}", timeout=30).body, b"OK", "adding a node")
    eventually(15, f"HAProxy has {joiner.address}, and finds it well", lambda: states(cluster).get(joiner.address) == "UP")

    def asked():
        for line in joiner.get("/metrics").body.decode().splitlines():
            if line.startswith("kvserver_request_duration_seconds_count") and 'route="/route"' in line and 'method="GET"' in line:
                return float(line.rpartition(" ")[2])
        return 0.0
    before = asked()

    def is_asked():
        for key in KEYS:
            expect_equal(ask(place, authority.context(), read_request(key)).body, b"1", f"reading {key}")
        return asked() > before
    eventually(15, "requests go straight to the new node", is_asked)


def a_node_that_is_not_who_it_says_is_taken_out(cluster, authority, stranger, _place):
    """With a certificate of another authority towards clients; the nodes know each other by the good ones still."""
    node = cluster.node(3)
    host = host_of(node.address)
    stranger.make(host)
    node.end_daemon()
    node.change_settings(tlsCertificateFile=stranger.chain(host), tlsKeyFile=stranger.key(host))
    node.start_daemon()

    def is_well_elsewhere():
        try:
            return ask(node.address, stranger.context(), request_bytes("GET", "/health/ready")).status == 200
        except OSError:
            return False
    eventually(15, "the node serves, with a stranger's certificate", is_well_elsewhere)
    eventually(10, "HAProxy takes it out", lambda: states(cluster).get(node.address) == "DOWN")
    for key in KEYS:
        expect_equal(ask(cluster.unused_address(10), authority.context(), read_request(key)).body, b"1", f"reading {key} without it")
    node.end_daemon()
    expect("SSL" in (cluster.directory / "haproxy.log").read_text(), "HAProxy does not say why")
