# SPDX-License-Identifier: Apache-2.0
"""Mutual TLS between nodes: each side has to show a certificate of the cluster's authority, for the address that it is at."""

import hmac
import json
import secrets
import signal
import ssl
import subprocess
import tempfile
from pathlib import Path

from harness.client import Connection, ConnectionLost, ask as ask_plainly, request_bytes
from harness.cluster import find_server_binary
from harness.expectations import eventually, expect, expect_equal
from harness.tls import OFFSET, Authority, SecureConnection, host_of, is_cut_off, json_body, peers_port, secure_cluster

TOKENS = {door: secrets.token_hex(32) for door in ("admin", "peer")}
KEYS = [f"key{number}" for number in range(40)]
RING = json.dumps({"clock": 0}).encode()


def run(context):
    cluster = context.cluster(nodes=4, tokens=TOKENS, positions={3000: 1, 6000: 2, 9000: 3}, replicas=2, proxy=False)
    authority, stranger = (Authority(cluster.directory / name) for name in ("certificates", "strangers"))
    # Clients speak plain text here: the two have nothing to do with each other.
    secure_cluster(cluster, authority, clients=False)
    stranger.make(*(host_of(node.address) for node in cluster.nodes))
    with cluster:
        the_cluster_works(cluster)
        callers_are_verified(cluster, authority, stranger)
        callees_are_verified(cluster, authority, stranger)
        new_certificates(cluster, authority)
    with tempfile.TemporaryDirectory(prefix="kvserver-e2e-") as scratch:
        what_can_not_be_right(Path(scratch))


def everything_is_there(cluster, value):
    for key in KEYS:
        for node in cluster.nodes[:3]:
            expect_equal(node.read(key).body, value, f"{key} through {node.name}")


def the_cluster_works(cluster):
    for number, key in enumerate(KEYS):
        expect_equal(cluster.nodes[number % 3].store(key, "1").status, 200, f"storing {key}")
    everything_is_there(cluster, b"1")
    node = cluster.node(1)
    expect_equal(node.get(f"/add_node/5000/{cluster.node(4).address}", timeout=30).body, b"OK", "adding a node")
    everything_is_there(cluster, b"1")
    expect(any(node.read(key).body == b"1" for key in KEYS for node in [cluster.node(4)]), "the new node answers")
    expect_equal(node.get(f"/remove_node/{cluster.node(4).address}", timeout=30).body, b"OK", "removing it")
    everything_is_there(cluster, b"1")


class Caller:
    """A node's side of the handshake, on a connection of either kind."""

    def __init__(self, connection, callee, caller):
        self.connection, self.callee, self.caller = connection, callee, caller
        self.key = hmac.digest(TOKENS["peer"].encode(), b"kvserver peer key 1", "sha256")
        self.nonce = secrets.token_bytes(32)

    def hello(self):
        return self.connection.request("POST", "/peer/hello", json_body({"caller": self.caller, "callee": self.callee, "nonce": self.nonce.hex()}))

    def call(self):
        told = self.hello()
        if told.status != 200:
            return told
        nonce = bytes.fromhex(json.loads(told.body)["nonce"])
        message = f"kvserver peer proof 1 caller\n{self.caller}\n{self.callee}\n".encode() + self.nonce + nonce
        proof = hmac.digest(self.key, message, "sha256").hex()
        return self.connection.request("POST", "/peer/ring", RING, [("X-KV-Peer-Proof", proof)])


def callers_are_verified(cluster, authority, stranger):
    """All of them know the peers' token."""
    node, other, third = (cluster.node(number).address for number in (1, 2, 3))
    place = peers_port(node)

    def call(context, caller):
        with SecureConnection(place, context) as connection:
            return Caller(connection, node, caller).call()
    answer = call(authority.context(host_of(other)), other)
    expect(answer.status == 200 and json.loads(answer.body)["document"]["epoch"], f"a peer: {answer}")
    answer = call(authority.context(host_of(other)), third)
    expect(answer.status == 401 and b"certificate is not for the address" in answer.body and answer.closes, f"with another's certificate: {answer}")
    # (With TLS 1.3 a client is done before its certificate is looked at; it hears of it when it reads.)
    for name, context in (("no certificate", authority.context()), ("one of another authority", two_sided(authority, stranger, host_of(other)))):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context.minimum_version = context.maximum_version = version
            try:
                answer = call(context, other)
            except (ssl.SSLError, ConnectionLost, OSError):
                continue
            raise AssertionError(f"with {name}: {answer}")
    # One that is for servers only, as the balancer's is.
    authority.make(options=("--server", host_of(cluster.unused_address(77))))
    try:
        answer = call(authority.context(host_of(cluster.unused_address(77))), cluster.unused_address(77))
        raise AssertionError(f"with a server's certificate: {answer}")
    except (ssl.SSLError, ConnectionLost, OSError):
        pass
    ended, heard = is_cut_off(place, request_bytes("POST", "/peer/ring", RING))
    expect(ended and not heard.startswith(b"HTTP/"), f"plain text at the peers' port: {heard[:100]}")
    expect_equal(ask_plainly(node, request_bytes("POST", "/peer/ring", RING)).status, 404, "a peer at the clients' port")


def two_sided(authority, stranger, host):
    """Trusts the one, and shows what the other one has signed."""
    context = ssl.create_default_context(cafile=authority.certificate)
    context.load_cert_chain(stranger.chain(host), stranger.key(host))
    return context


def callees_are_verified(cluster, authority, stranger):
    """A node that knows the token, and is in its place with a certificate that is none for it, is not spoken to."""
    node, joiner = cluster.node(1), cluster.node(4)
    host = host_of(joiner.address)

    def restart(**settings):
        joiner.end_daemon()
        joiner.change_settings(**settings)
        joiner.start_daemon()
        joiner.wait_until_alive()

    def refused(name, says):
        answer = node.get(f"/add_node/5000/{joiner.address}", timeout=30)
        expect(answer.status == 503 and answer.outcome == "no" and says in answer.body, f"a node with {name}: {answer}")
        everything_is_there(cluster, b"1")
    good = authority.settings(host, clients=False)
    restart(peerCertificateFile=stranger.chain(host), peerKeyFile=stranger.key(host))
    refused("a certificate of another authority", b"CERTIFICATE_VERIFY_FAILED")
    # Of a node elsewhere it would not start: so this one listens where another one is known to be.
    elsewhere = host_of(cluster.unused_address(88))
    authority.make(elsewhere)
    restart(node=f"{elsewhere}:5000", listen=joiner.address, peerCertificateFile=authority.chain(elsewhere), peerKeyFile=authority.key(elsewhere))
    refused("a certificate for another address", b"certificate")
    joiner.end_daemon()
    del joiner.settings["listen"]
    for setting in ("peerCertificateFile", "peerKeyFile", "peerAuthorityFile"):
        del joiner.settings[setting]
    restart(node=joiner.address)
    refused("no TLS", b"does not answer")
    restart(**good)
    expect_equal(node.get(f"/add_node/5000/{joiner.address}", timeout=30).body, b"OK", "the node with its own certificate")
    everything_is_there(cluster, b"1")


def new_certificates(cluster, authority):
    """Node by node, with writes between; each has a time with its peers' old ones and a time with their new ones."""
    for round_number, node in enumerate(cluster.nodes):
        authority.make(host_of(node.address))
        before = node.workers()
        node.supervisor.signal(signal.SIGHUP)
        node.wait_until_replaced(before, 30)
        for number, key in enumerate(KEYS):
            expect_equal(cluster.nodes[number % 4].store(key, f"{round_number}").status, 200, f"storing {key} after a reload")
        everything_is_there(cluster, f"{round_number}".encode())
    context = authority.context(host_of(cluster.node(2).address))
    with SecureConnection(peers_port(cluster.node(1).address), context) as connection:
        expect(ssl.DER_cert_to_PEM_cert(connection.certificate).strip() in open(authority.chain(host_of(cluster.node(1).address)), encoding="ascii").read(),
               "the peers' port shows an old certificate")


def what_can_not_be_right(scratch):
    """At the start, in one line, with status 78."""
    authority = Authority(scratch / "certificates")
    host = "127.0.0.1"
    authority.make(host, "127.0.0.2")
    good = {"node": f"{host}:5000", **authority.settings(host)}

    def check(settings, says):
        flags = [word for name, value in settings.items() for word in ("--" + "".join("-" + c.lower() if c.isupper() else c for c in name), str(value))]
        done = subprocess.run([find_server_binary(), "--check", *flags, "--state-directory", str(scratch / "state"), "--memcached", "/tmp/none"],
                              capture_output=True, text=True, timeout=20)
        expect(done.returncode == (78 if says else 0), f"{settings}: {done}")
        expect((says or "can be right") in done.stderr, f"{settings}: {done.stderr}")
    token = scratch / "token"
    token.touch(mode=0o600)
    token.write_text(TOKENS["peer"])
    check({**good, "peerTokenFile": token}, None)
    check(good, "there is no peer token")
    good["peerTokenFile"] = token
    check({**good, "peerPortOffset": 0}, "TLS needs a peerPortOffset")
    check({name: value for name, value in good.items() if name != "tlsKeyFile"}, "tlsCertificateFile and tlsKeyFile go together")
    check({name: value for name, value in good.items() if name != "peerAuthorityFile"}, "go together: 1 of them not set")
    check({**good, "peerKeyFile": authority.key("127.0.0.2")}, "is not that of the certificate in")
    check({**good, "peerCertificateFile": authority.chain("127.0.0.2"), "peerKeyFile": authority.key("127.0.0.2")}, f"is not for {host}")
