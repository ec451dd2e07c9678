# SPDX-License-Identifier: Apache-2.0
"""A node is known by what it proves on each connection, and called only where nodes may be. Whoever a client names learns nothing."""

import hmac
import json
import re
import secrets
import socket
import threading

from harness.client import Connection, MalformedAnswer, ask, form_request, request_bytes
from harness.expectations import TestFailure, eventually, expect, expect_equal

TOKENS = {door: secrets.token_hex(32) for door in ("admin", "peer")}


def run(context):
    with context.cluster(nodes=3, tokens=TOKENS, replicas=2, proxy=False) as cluster:
        the_cluster_works(cluster)
        only_who_proves_it_is_listened_to(cluster)
        what_was_recorded_is_no_proof(cluster)
        whoever_is_named_learns_nothing(context, cluster)
        nobody_is_called_where_no_node_may_be(cluster)
        a_node_with_another_token_does_not_join(context, cluster)
    with context.cluster(nodes=2, positions={}, proxy=False) as cluster:
        the_list_is_for_both_directions(cluster)
    with context.cluster(nodes=2, tokens=TOKENS, positions={}, proxy=False) as cluster:
        nobody_is_called_because_another_node_says_so(cluster)
    a_running_cluster_gets_its_first_token(context)


def reload(node, **changes):
    before = node.workers()
    node.change_settings(**changes)
    node.supervisor.signal(1)
    node.wait_until_replaced(before, 20)


def the_cluster_works(cluster):
    for number, key in enumerate(("roof", "gate", "bee", "ship", "mist")):
        expect_equal(cluster.nodes[number % 3].store(key, "1").status, 200, f"storing {key}")
    expect_equal(cluster.node(1).get(f"/add_node/5000/{cluster.node(3).address}", timeout=30).body, b"OK", "adding a node")
    for node in cluster.nodes:
        for key in ("roof", "gate", "bee", "ship", "mist"):
            expect_equal(node.read(key).body, b"1", f"{key} through {node.name}")
    expect_equal(cluster.node(2).get(f"/remove_node/{cluster.node(3).address}", timeout=30).body, b"OK", "removing it")


class Peer:
    """A node's side of the handshake, made after docs/security.md."""

    def __init__(self, connection, callee, token, caller):
        self.connection, self.callee, self.caller = connection, callee, caller
        self.key = hmac.digest(token.encode(), b"kvserver peer key 1", "sha256")
        self.nonce = secrets.token_bytes(32)
        self.said = b""

    def proof(self, role, nonce):
        message = f"kvserver peer proof 1 {role}\n{self.caller}\n{self.callee}\n".encode() + self.nonce + nonce
        return hmac.digest(self.key, message, "sha256").hex()

    def call(self, target, body, headers=()):
        message = request_bytes("POST", target, body, headers)
        self.said += message
        return self.connection.exchange(message)

    def hello(self):
        return self.call("/peer/hello", json.dumps(
            {"caller": self.caller, "callee": self.callee, "nonce": self.nonce.hex()}).encode())

    def shake_hands(self):
        answer = self.hello()
        expect_equal(answer.status, 200, f"hello: {answer}")
        told = json.loads(answer.body)
        nonce = bytes.fromhex(told["nonce"])
        return self.proof("callee", nonce) in told["proofs"], [("X-KV-Peer-Proof", self.proof("caller", nonce))]


RING = json.dumps({"clock": 0}).encode()


def only_who_proves_it_is_listened_to(cluster):
    node, name = cluster.node(1), cluster.node(2).address
    for target in ("/peer/ring", "/peer/batch", "/peer/promise", "/peer/no_such_call"):
        for fields in ([], [("Authorization", f"Bearer {TOKENS['peer']}")], [("Authorization", f"Bearer {TOKENS['admin']}")],
                       [("X-KV-Peer-Proof", "0" * 64)], [("X-KV-Peer-Proof", TOKENS["peer"])]):
            answer = ask(node.address, request_bytes("POST", target, RING, fields))
            expect(answer.status == 401 and answer.closes, f"{target} with {fields}: {answer}")
    with Connection(node.address) as connection:
        peer = Peer(connection, node.address, TOKENS["peer"], name)
        is_ours, proof = peer.shake_hands()
        expect(is_ours, "the node does not prove itself as docs/security.md says")
        first = peer.call("/peer/ring", RING, proof)
        expect(first.status == 200 and json.loads(first.body)["document"]["epoch"], f"a peer: {first}")
        expect_equal(peer.call("/peer/ring", RING).status, 200, "a second call on the same connection")
        expect_equal(peer.call("/peer/hello", b"{}").status, 400, "a second hello")
    for change, status in (("token", 401), ("caller", 401), ("callee", 400), ("none", 401)):
        with Connection(node.address) as connection:
            peer = Peer(connection, node.address, secrets.token_hex(32) if change == "token" else TOKENS["peer"], name)
            if change == "callee":
                peer.callee = name
                expect_equal(peer.hello().status, status, "a hello to another node")
                continue
            is_ours, proof = peer.shake_hands()
            expect_equal(is_ours, change != "token", "whether the node proves itself")
            if change == "caller":
                nonce = secrets.token_bytes(32)
                proof = [("X-KV-Peer-Proof", peer.proof("caller", nonce))]
            expect_equal(peer.call("/peer/ring", RING, [] if change == "none" else proof).status, status, f"with a wrong {change}")
    with Connection(node.address) as connection:
        # There is one try: the connection ends before the right proof is looked at.
        peer = Peer(connection, node.address, TOKENS["peer"], name)
        _, proof = peer.shake_hands()
        connection.send(request_bytes("POST", "/peer/ring", RING, [("X-KV-Peer-Proof", "0" * 64)]) + request_bytes("POST", "/peer/ring", RING, proof))
        expect_equal(connection.read_answer().status, 401, "a wrong proof")
        try:
            raise TestFailure(f"a right proof after a wrong one: {connection.read_answer()}")
        except (OSError, MalformedAnswer):
            pass
    for body in (b"", b"{}", b"[]", b"x" * 1025, RING):
        expect(ask(node.address, request_bytes("POST", "/peer/hello", body)).status in (400, 413), f"hello {body[:10]}")


def what_was_recorded_is_no_proof(cluster):
    """All that a peer has sent, sent again on another connection: once as it is, once without its hello."""
    node = cluster.node(1)
    with Connection(node.address) as connection:
        peer = Peer(connection, node.address, TOKENS["peer"], cluster.node(2).address)
        _, proof = peer.shake_hands()
        before = len(peer.said)
        expect_equal(peer.call("/peer/ring", RING, proof).status, 200, "a peer")
        for recorded, statuses in ((peer.said, [200, 401]), (peer.said[before:], [401])):
            with Connection(node.address) as other:
                other.send(recorded)
                expect_equal([other.read_answer().status for _ in statuses], statuses, "what was recorded")
                eventually(5, "the connection ends", other.has_bytes_waiting)
        expect_equal(peer.call("/peer/ring", RING).status, 200, "the peer itself")


class Rogue:
    """Somebody who listens where a client says that a node is, keeps all that comes, and answers as `reply` says."""

    def __init__(self, address, reply):
        host, _, port = address.rpartition(":")
        self.heard, self._reply = [], reply
        self._socket = socket.create_server((host, int(port)))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection):
        with connection:
            connection.settimeout(3)
            heard = b""
            try:
                while part := connection.recv(1 << 16):
                    heard += part
                    self.heard.append(part)
                    if heard.endswith(b"}"):
                        connection.sendall(self._reply(heard))
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def answer_of(status, body):
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def whoever_is_named_learns_nothing(context, cluster):
    node, real, place = cluster.node(1), cluster.node(2), cluster.unused_address()
    before = node.ring_document()

    def relay(heard):
        """Has a real node answer, with the name changed so that it does."""
        body = heard.partition(b"\r\n\r\n")[2].replace(place.encode(), real.address.encode())
        answer = ask(real.address, request_bytes("POST", "/peer/hello", body))
        return answer_of(answer.status, answer.body)

    def proof_with_another_token(heard):
        hello = json.loads(heard.partition(b"\r\n\r\n")[2])
        peer = Peer(None, hello["callee"], secrets.token_hex(32), hello["caller"])
        peer.nonce, nonce = bytes.fromhex(hello["nonce"]), secrets.token_bytes(32)
        return answer_of(200, json.dumps({"nonce": nonce.hex(), "proofs": [peer.proof("callee", nonce)]}).encode())
    nonce = json.dumps(secrets.token_hex(32)).encode()
    at_length = b'{"nonce":%b,"proofs":[%b]}' % (nonce, b",".join([b'"%b"' % (b"0" * 64)] * 100_000))
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    replies = {
        "one that has no token": lambda _: answer_of(404, b"{}"), "one that says yes": lambda _: answer_of(200, b"{}"),
        "one that gives an empty proof": lambda _: answer_of(200, json.dumps({"nonce": "0" * 64, "proofs": []}).encode()),
        "one that throws it back": lambda heard: answer_of(200, heard.partition(b"\r\n\r\n")[2]),
        "one that relays": relay, "one of another cluster": proof_with_another_token, "one that sends noise": lambda _: secrets.token_bytes(500) + b"\r\n\r\n",
        "one that hangs up": lambda _: b"", "one that answers at length": lambda _: answer_of(200, at_length),
        "one that has not decided yet": lambda _: 1000 * interim,
    }
    #: What the node says of them, where it could have gone wrong for another reason.
    reasons = {"one that answers at length": b"larger than 1024 bytes", "one that has not decided yet": b"an interim answer"}
    nonces = []
    for name, reply in replies.items():
        with Rogue(place, reply) as rogue:
            for target in (f"/add_node/5000/{place}", f"/replace_node/{real.address}/{place}", f"/add_node/auto/{place}"):
                answer = node.get(target, timeout=30)
                expect(answer.status == 503 and answer.outcome == "no", f"{target}, {name}: {answer}")
                expect(reasons.get(name, b"") in answer.body, f"{target}, {name}: {answer}")
            told = [json.loads(part) for part in b"".join(rogue.heard).split(b"\r\n\r\n") if part.startswith(b"{") and b"}POST" not in part]
            heard = b"".join(rogue.heard)
            expect(heard.count(b"POST ") == heard.count(b"POST /peer/hello ") > 0, f"{name} hears more than hello: {heard[:2000]!r}")
            for secret in [*TOKENS.values(), "Proof", "roof", "gate"]:
                expect(secret.encode() not in heard, f"{name} hears {secret}")
            expect(all(set(each) == {"caller", "callee", "nonce"} for each in told), f"{name} is told {told}")
            nonces += [each["nonce"] for each in told]
    expect(len(nonces) >= len(replies) and len(nonces) == len(set(nonces)), f"{len(nonces)} nonces, {len(set(nonces))} different ones")
    expect_equal(node.ring_document(), before, "the ring after all that")
    context.note(f"{len(replies)} strangers, named as nodes")


def nobody_is_called_where_no_node_may_be(cluster):
    node = cluster.node(1)
    before = node.ring_document()
    for name in ("169.254.169.254:80", "0.0.0.0:5000", "8.8.8.8:53", "224.0.0.1:5000", "255.255.255.255:5000", "[fe80::1]:80", "[::]:80",
                 "[::ffff:169.254.169.254]:80", "[::ffff:127.0.0.1]:5000", "[fd00:ec2::254]:80", "[2001:db8::1]:80", "100.100.100.200:80"):
        for target in (f"/add_node/5000/{name}", f"/add_node/auto/{name}", f"/replace_node/{cluster.node(2).address}/{name}"):
            answer = node.get(target)
            expect(answer.status == 403 and b"is not where nodes may be" in answer.body, f"{target}: {answer}")
        for document in ({"nodes": [{"ip": name, "key": 1}, {"ip": node.address, "key": 2}]},
                         {"nodes": [{"ip": node.address, "key": 1}], "standbys": [name]}):
            answer = ask(node.address, form_request("/hash_ring", {"data": json.dumps(document)}, node.headers))
            expect_equal(answer.status, 403, f"a ring with {name}: {answer}")
    for name in ("localhost:5000", "127.1:5000", "0177.0.0.1:5000", "0x7f000001:5000", "2130706433:5000", "[fe80::1%25lo]:80", "127.0.0.1"):
        expect_equal(node.get(f"/add_node/5000/{name}").status, 400, f"adding {name}")
    expect_equal(node.ring_document(), before, "the ring after all that")


def a_node_with_another_token_does_not_join(context, cluster):
    with context.cluster(nodes=1, tokens={**TOKENS, "peer": secrets.token_hex(32)}, positions={}, proxy=False) as other:
        answer = cluster.node(1).get(f"/add_node/5000/{other.node(1).address}", timeout=30)
        expect(answer.status == 503 and b"does not prove that it knows the peers' token" in answer.body, f"a node with another token: {answer}")
        expect_equal(other.node(1).get("/health/ready").status, 503, "the other node, which has no ring still")
        # On the ring's page it is not one that can't be reached.
        node = cluster.node(1)
        expect_equal(node.install_ring(node.ring(), replicas=2, standbys=[other.node(1).address]).status, 200, "it as a standby")
        host, port = node.address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=5) as page:
            page.sendall(request_bytes("GET", "/ui/events", headers=node.headers))
            told = b""
            while b'"isUnproven":true' not in told:
                part = page.recv(1 << 16)
                expect(part and len(told) < 1 << 14, f"what the page is told of it: {told[-2000:]}")
                told += part


def the_list_is_for_both_directions(cluster):
    node = cluster.node(1)
    expect_equal(ask(node.address, request_bytes("POST", "/peer/ring", RING)).status, 200, "somebody on loopback")
    reload(node, peers=block_of(node.address))
    expect_equal(ask(node.address, request_bytes("POST", "/peer/ring", RING)).status, 403, "somebody at an address that is not allowed")
    expect_equal(node.get(f"/add_node/5000/{cluster.node(2).address}").status, 403, "a node at such an address")


def block_of(*addresses):
    return ",".join(f"{address.rpartition(':')[0]}/32" for address in addresses)


def nobody_is_called_because_another_node_says_so(cluster):
    """A ring with a stranger comes from a node that allows it there to one that does not."""
    allowing, node = cluster.nodes
    place = cluster.unused_address()
    reload(node, peers="127.0.0.1/32," + block_of(allowing.address, node.address))
    with Rogue(place, lambda _: answer_of(404, b"{}")) as rogue:
        def callers():
            return {name.decode() for name in re.findall(rb'"caller":"([^"]+)"', b"".join(rogue.heard))}
        ring = {"nodes": [{"ip": allowing.address, "key": 3000}, {"ip": node.address, "key": 6000}, {"ip": place, "key": 9999}], "replicas": 1}
        expect_equal(node.post_form("/hash_ring", data=json.dumps(ring)).status, 403, "the ring from a client")
        expect_equal(allowing.post_form("/hash_ring", data=json.dumps(ring)).status, 200, "the ring at a node that allows it")
        eventually(15, "the other node knows the ring", lambda: place in json.dumps(node.ring_document()["ring"]))
        outcomes = {each.name: [each.read(f"key {number}").status for number in range(30)] for each in (allowing, node)}
        expect(all(set(statuses) <= {404, 503} for statuses in outcomes.values()), outcomes)
        node.get("/copies?key=key")
        eventually(5, "the node that allows it has called", lambda: allowing.address in callers())
        expect_equal(callers(), {allowing.address}, "who has called the stranger")


def a_running_cluster_gets_its_first_token(context):
    """First all nodes are told of it and take others all the same, then none but those that prove themselves. Nothing stops meanwhile."""
    with context.cluster(nodes=3, positions={3000: 1, 6000: 2, 9000: 3}, replicas=2, proxy=False) as cluster:
        def all_keys(value):
            for number, key in enumerate(("roof", "gate", "bee", "ship", "mist", "gas", "bed", "shoes")):
                for node in cluster.nodes:
                    expect_equal(node.store(key, f"{value} {number}").status, 200, f"storing {key} through {node.name}, {value}")
                for node in cluster.nodes:
                    expect_equal(node.read(key).body, f"{value} {number}".encode(), f"{key} through {node.name}, {value}")
        files = cluster.write_tokens({"peer": secrets.token_hex(32)})
        all_keys("before")
        for stage in ({**files, "insecure": True}, {"insecure": False}):
            for node in cluster.nodes:
                reload(node, **stage)
                all_keys(f"{node.name} has {sorted(stage)}")
        expect_equal(ask(cluster.node(1).address, request_bytes("POST", "/peer/ring", RING)).status, 401, "who proves nothing")
