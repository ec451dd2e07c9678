# SPDX-License-Identifier: Apache-2.0
"""Without an admin token nobody but a program on this machine changes anything, no page of a browser's; and beyond loopback nothing listens."""

import json
import os
import secrets
import subprocess
import tempfile
from pathlib import Path

from harness.client import ask, request_bytes
from harness.cluster import find_server_binary
from harness.expectations import expect, expect_equal

ADMIN = ["/add_node/none/none", "/add_node/auto/none", "/remove_node/none", "/replace_node/none", "/abort_change", "/clear_cache", "/hash_ring"]


def run(context):
    what_does_not_start()
    with context.cluster(nodes=1, positions={3000: 1}) as cluster:
        forged_requests(context, cluster)
        pages_get_nothing_from_peers(cluster.node(1))
        the_balancer_tells_whom_it_asks_for(cluster)


# Starting

def check(settings, credentials=None, **environment):
    """What the daemon says of a configuration: its exit status and its words."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "kvserver.json")
        path.write_text(json.dumps({"stateDirectory": f"{directory}/state", **settings}))
        names = {name: value for name, value in os.environ.items() if not name.startswith(("KVSERVER_", "CREDENTIALS_"))}
        if credentials:
            environment["CREDENTIALS_DIRECTORY"] = credentials
        ran = subprocess.run([find_server_binary(), "--config", path, "--check"], env={**names, **environment}, capture_output=True,
                             text=True, timeout=20, check=False)
        return ran.returncode, ran.stderr


def what_does_not_start():
    with tempfile.TemporaryDirectory() as directory:
        def token(name, text=None, mode=0o400):
            path = Path(directory, name)
            path.write_text(text or secrets.token_hex(32))
            path.chmod(mode)
            return str(path)
        good, open_to_all = token("good"), token("open", mode=0o644)
        none, group = token("none", "none\n"), token("group", mode=0o640)
        beyond = {"node": "10.0.0.5:5000"}
        both = {"adminTokenFile": good, "peerTokenFile": good}
        for name, settings, words in (
                ("loopback", {"node": "127.0.0.1:5000"}, None), ("IPv6's loopback", {"node": "[::1]:5000"}, None),
                ("beyond loopback", beyond, "there is no admin and no peer token"),
                ("every address", {"node": "127.0.0.1:5000", "listen": "0.0.0.0:5000"}, "listen is 0.0.0.0:5000, beyond loopback"),
                ("loopback of another one's", {"node": "10.0.0.5:5000", "listen": "127.0.0.1:5000"}, None),
                ("told to", {**beyond, "insecure": True}, None), ("with tokens", {**beyond, **both}, None),
                ("with one for all doors", {**beyond, **both, "dataTokenFile": good}, None),
                ("no admin token", {**beyond, "peerTokenFile": good}, "there is no admin token"),
                ("no peer token", {**beyond, "adminTokenFile": good}, "there is no peer token"),
                ("a file that says none", {**beyond, **both, "peerTokenFile": none}, "there is no peer token"),
                ("a file that all can read", {**beyond, **both, "dataTokenFile": open_to_all}, "can be read by others"),
                ("a file that a group can read", {**beyond, **both, "peerTokenFile": group}, "can be read by others"),
                ("no file", {**beyond, **both, "peerTokenFile": f"{directory}/nothing"}, "No such file"),
                ("a relative path", {**beyond, **both, "peerTokenFile": "token"}, "peerTokenFile is not an absolute path"),
                ("no list of blocks", {**beyond, **both, "peers": "10.0.0.1/8"}, "peers is not a list of CIDR blocks")):
            status, said = check(settings)
            expect_equal(status, 78 if words else 0, f"{name}: {said}")
            expect((words or "can be right") in said, f"{name}: {said}")
            if words and "there is no" in words:
                expect("insecure" in said and "TokenFile" in said, f"{name} does not say what to do: {said}")
        expect_equal(check({**beyond, "adminTokenFile": good}, KVSERVER_PEER_TOKEN_FILE=good)[0], 0, "by way of the environment")
        # systemd's own files are as systemd makes them.
        credentials = Path(directory, "credentials")
        credentials.mkdir()
        for name in ("admin-token", "peer-token"):
            token(f"credentials/{name}", mode=0o440)
        expect_equal(check(beyond, credentials=str(credentials))[0], 0, "with systemd's credentials")
        token("credentials/data-token", "none")
        expect_equal(check(beyond, credentials=str(credentials))[0], 0, "with systemd's credentials, data open")
        token("credentials/data-token2", "short")
        Path(credentials, "data-token2").rename(Path(credentials, "data-token"))
        expect_equal(check(beyond, credentials=str(credentials))[0], 78, "with a broken one among systemd's credentials")


# Forgery

def forged_requests(context, cluster):
    node, own, count = cluster.node(1), cluster.node(1).address, 0
    host = f"http://{own}"
    # Host, further fields, and whether GET and POST are let in.
    cases = [
        (own, [], True, True), ("localhost", [], True, True), ("localhost:5000", [], True, True), ("LOCALHOST", [], True, True),
        ("127.1.2.3:80", [], True, True), ("[::1]:5000", [], True, True),
        # DNS rebinding: a name of the attacker's leads here.
        ("evil.example", [], False, False), ("evil.example:5000", [], False, False), ("127.0.0.1.evil.example", [], False, False),
        ("localhost.evil.example", [], False, False), ("127.1", [], False, False), ("0x7f.0.0.1", [], False, False),
        ("10.0.0.5:5000", [], False, False), ("169.254.169.254", [], False, False), ("", [], False, False), ("[::ffff:127.0.0.1]", [], True, True),
        # Pages of others.
        (own, [("Origin", "https://evil.example")], False, False), (own, [("Origin", "null")], False, False),
        (own, [("Referer", "https://evil.example/")], False, False), (own, [("Referer", host)], False, False),
        (own, [("Origin", host), ("Referer", "https://evil.example/")], False, False),
        (own, [("Origin", host), ("Origin", "https://evil.example")], False, False),
        *((own, [("Sec-Fetch-Site", site)], False, False) for site in ("cross-site", "same-site", "nonsense", "")),
        (own, [("Sec-Fetch-Site", "cross-site"), ("Origin", host)], False, False),
        # A page of our own asks by POST; an image in one of our pages would ask by GET.
        (own, [("Origin", host)], False, True), (own, [("Origin", host), ("Referer", f"{host}/ui"), ("Sec-Fetch-Site", "same-origin")], False, True),
        (own, [("Referer", f"{host}/keys/page.html")], False, True),
        ("evil.example", [("Origin", "http://evil.example")], False, False),
        (own, [("Origin", f"https://{own}")], False, False), (own, [("Origin", host + "1")], False, False),
        # Typed into a browser.
        (own, [("Sec-Fetch-Site", "none")], True, True),
        # A proxy asks for somebody else.
        (own, [("X-Forwarded-For", "127.0.0.1")], False, False), (own, [("Forwarded", "for=10.0.0.1")], False, False),
        # There is no token that could be the right one.
        ("evil.example", [("Authorization", f"Bearer {secrets.token_hex(32)}")], False, False),
    ]
    expect_equal(node.store("witness", "here").status, 200, "storing")
    for place in (node.address, cluster.proxy.address):
        for name, fields, *allowed in cases:
            for method, is_let_in in zip(("GET", "POST"), allowed):
                for target in ADMIN:
                    if target == "/clear_cache" and is_let_in or target == "/hash_ring" and method == "GET":
                        continue
                    body = b"-" if method == "POST" else None
                    answer = ask(place, request_bytes(method, target, body, fields, host=name))
                    what = f"{method} {target} at {place}, Host: {name}, {fields}: {answer}"
                    # (HAProxy itself refuses an empty Host or two; it need not be by 403.)
                    expect(answer.status not in (401, 403) if is_let_in else answer.status in (400, 403), what)
                    count += 1
    expect_equal(node.read("witness").body, b"here", "what nobody was allowed to clear")
    expect_equal(ask(node.address, request_bytes("GET", "/clear_cache")).body, b"OK", "and who is allowed")
    expect_equal(node.read("witness").status, 404, "clears it")
    context.note(f"{count} requests that may be forged")


def pages_get_nothing_from_peers(node):
    ring = json.dumps({"clock": 0}).encode()
    expect_equal(ask(node.address, request_bytes("POST", "/peer/ring", ring)).status, 200, "a peer, where there is no token")
    for field in (("Origin", "https://evil.example"), ("Origin", f"http://{node.address}"), ("Referer", "http://a/"),
                  ("Sec-Fetch-Site", "same-origin"), ("X-Forwarded-For", "10.0.0.1")):
        for target in ("/peer/ring", "/peer/batch", "/peer/hello"):
            answer = ask(node.address, request_bytes("POST", target, ring, [field]))
            expect_equal(answer.status, 403, f"{target} with {field}: {answer}")
    expect_equal(ask(node.address, request_bytes("POST", "/peer/hello", b"{}")).status, 404, "nothing to prove anything by")


def the_balancer_tells_whom_it_asks_for(cluster):
    """A balancer on a node's own machine does not lend its address to those who come from elsewhere. (Here all come from loopback.)"""
    order = "    http-request set-header X-Forwarded-For %[src] unless { src 127.0.0.0/8 ::1 }\n"
    expect(order in (cluster.directory / "haproxy.cfg").read_text(), "haproxy.cfg does not say for whom it asks")
