# SPDX-License-Identifier: Apache-2.0
"""Without an admin token nobody but a program on this machine changes anything, no page of a browser's; and beyond loopback nothing listens."""

import json
import os
import secrets
import socket
import subprocess
import tempfile
from pathlib import Path

from harness.client import MalformedAnswer, ask, request_bytes
from harness.cluster import find_server_binary
from harness.expectations import eventually, expect, expect_equal

ADMIN = ["/add_node/none/none", "/add_node/auto/none", "/remove_node/none", "/replace_node/none", "/abort_change", "/clear_cache", "/hash_ring"]


def run(context):
    what_does_not_start()
    with context.cluster(nodes=1, positions={3000: 1}) as cluster:
        forged_requests(context, cluster)
        pages_get_nothing_from_peers(cluster.node(1))
        pages_change_no_pairs(context, cluster, granted=[])
        the_balancer_tells_whom_it_asks_for(cluster)
        a_socket_of_both_families_knows_ipv4(cluster.node(1))
    with context.cluster(nodes=1, positions={3000: 1}, settings={"corsOrigins": "https://example.com"}) as cluster:
        pages_change_no_pairs(context, cluster, granted=["https://example.com"])
    with context.cluster(nodes=1, positions={3000: 1}, tokens={"peer": secrets.token_hex(32)}, settings={"insecure": True}) as cluster:
        an_insecure_node_says_so(cluster.node(1))
        whoever_reaches_an_insecure_node(cluster)


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
        loopback = {"node": "127.0.0.1:5000"}
        for name, settings, words in (
                ("loopback", {"node": "127.0.0.1:5000"}, None), ("IPv6's loopback", {"node": "[::1]:5000"}, None),
                ("beyond loopback", beyond, "there is no admin and no peer token"),
                ("every address", {"node": "127.0.0.1:5000", "listen": "0.0.0.0:5000"}, "listen is 0.0.0.0:5000, beyond loopback"),
                ("loopback of another one's", {"node": "10.0.0.5:5000", "listen": "127.0.0.1:5000"}, None),
                ("told to", {**beyond, "insecure": True}, None), ("with tokens", {**beyond, **both}, None),
                ("with one for all doors", {**beyond, **both, "dataTokenFile": good}, None),
                ("no admin token", {**beyond, "peerTokenFile": good}, "there is no admin token"),
                ("no peer token", {**beyond, "adminTokenFile": good}, "there is no peer token"),
                ("loopback, a data token alone", {**loopback, "dataTokenFile": good}, "there is no peer token"),
                ("loopback, an admin token alone", {**loopback, "adminTokenFile": good}, "there is no peer token"),
                ("loopback, the peer token says none", {**loopback, **both, "peerTokenFile": none}, "there is no peer token"),
                ("loopback, no admin token", {**loopback, "dataTokenFile": good, "peerTokenFile": good}, None),
                ("loopback, a peer token alone", {**loopback, "peerTokenFile": good}, None),
                ("loopback, told to", {**loopback, "dataTokenFile": good, "adminTokenFile": good, "insecure": True}, None),
                ("a node elsewhere", {"node": "8.8.8.8:5000", "listen": "127.0.0.1:5000"}, "node is 8.8.8.8:5000, which is not where nodes may be"),
                ("a node outside peers", {**loopback, "peers": "10.0.0.0/8"}, "is not where nodes may be (peers: 10.0.0.0/8)"),
                ("a node outside peers, told to", {**beyond, "insecure": True, "peers": "127.0.0.0/8"}, "is not where nodes may be"),
                ("a node within peers", {"node": "8.8.8.8:5000", "listen": "127.0.0.1:5000", "peers": "10.0.0.0/8,8.8.8.8/32"}, None),
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
        if os.geteuid() == 0:
            foreign = token("foreign")
            os.chown(foreign, 12345, 0)
            status, said = check({**beyond, **both, "dataTokenFile": foreign})
            expect(status == 78 and "belongs to neither this user nor root" in said, f"a file of somebody else's: {said}")
        # systemd's own files are as systemd makes them.
        credentials = Path(directory, "credentials")
        credentials.mkdir()
        for name in ("admin-token", "peer-token"):
            token(f"credentials/{name}", mode=0o440)
        expect_equal(check(beyond, credentials=str(credentials))[0], 0, "with systemd's credentials")
        for name, settings, directory_of_them in (("no directory", {"dataTokenFile": open_to_all}, ""), ("a slash", {"dataTokenFile": open_to_all}, "/"),
                                                  ("a way out", {"dataTokenFile": f"{credentials}/../open"}, str(credentials))):
            status, said = check({**beyond, **both, **settings}, CREDENTIALS_DIRECTORY=directory_of_them)
            expect(status == 78 and "can be read by others" in said, f"{name} makes a credential of any file: {said}")
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
        # A browser's user has asked, but not by a link or a bookmark, and not ahead of time.
        (own, [("Sec-Fetch-Site", "none")], True, True),
        (own, [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "navigate")], False, True),
        (own, [("Sec-Fetch-Mode", "navigate")], False, True), (own, [("Sec-Fetch-Mode", "cors")], True, True),
        (own, [("Sec-Purpose", "prefetch;prerender")], False, False), (own, [("Purpose", "prefetch")], False, False),
        # A proxy asks for somebody else.
        (own, [("X-Forwarded-For", "127.0.0.1")], False, False), (own, [("Forwarded", "for=10.0.0.1")], False, False),
        *((own, [(name, value)], False, False) for name, value in (
            ("Via", "1.1 nginx"), ("X-Real-IP", "10.0.0.1"), ("X-Forwarded-Host", "kv.example"), ("x-forwarded-proto", "https"),
            ("X-Forwarded-Whatever", ""))),
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


def pages_change_no_pairs(context, cluster, granted):
    """Without a data token. `granted` are the origins of corsOrigins. What a page may read is the browser's to say."""
    node, own, count = cluster.node(1), f"http://{cluster.node(1).address}", 0
    site = "Sec-Fetch-Site"
    cases = [
        ([], True), ([("Origin", own)], True), ([("Origin", own.replace("http:", "https:"))], True), ([(site, "none")], True),
        ([("Origin", own), (site, "same-origin")], True), ([("Origin", "https://kv.example"), (site, "same-origin")], True),
        ([("Origin", "null")], False), ([("Origin", "null"), (site, "cross-site")], False), ([("Origin", own + "1")], False),
        ([("Origin", "http://evil.example")], False), ([("Origin", "http://evil.example"), (site, "cross-site")], False),
        ([("Origin", own), ("Origin", "http://evil.example")], False), ([("origin", "")], False),
        *(([(site, where)], False) for where in ("cross-site", "same-site", "")), ([("Origin", own), (site, "cross-site")], False),
        ([("Origin", "https://example.com")], "https://example.com" in granted),
        ([("Origin", "https://example.com"), (site, "cross-site")], "https://example.com" in granted),
        ([("Origin", "https://example.com"), ("Origin", "http://evil.example")], False),
    ]
    form = [("Content-Type", "application/x-www-form-urlencoded")]
    batch = json.dumps({"operations": [{"method": "put", "key": "page", "value": "7"}]}).encode()
    changes = (("POST", "/route", b"key=page&val=7", form), ("PUT", "/keys/page", b"7", []), ("POST", "/keys/page:increment?by=0", b"", []),
               ("POST", "/keys:batch", batch, []), ("POST", "/keys:import", b"", []), ("POST", "/cache", b"key=page&val=7", form),
               ("DELETE", "/keys/page", None, []), ("DELETE", "/route?key=page", None, []), ("DELETE", "/cache?key=page", None, []))
    for place in (node.address, cluster.proxy.address):
        for fields, is_let_in in cases:
            for method, target, body, further in changes:
                if target.startswith("/cache") and place != node.address:
                    continue
                expect_equal(node.store("page", "1").status, 200, "storing")
                answer = ask(place, request_bytes(method, target, body, [*further, *fields], host=own.removeprefix("http://")))
                what = f"{method} {target} at {place}, {fields}: {answer}"
                expect((answer.status != 403) == is_let_in, what)
                expect(is_let_in or answer.outcome == "no" and node.read("page").body == b"1", what)
                count += 1
            answer = ask(place, request_bytes("GET", "/route?key=page", None, fields))
            expect(answer.status in (200, 404), f"GET with {fields}: {answer}")
    context.note(f"{count} changes of pairs by pages")


def an_insecure_node_says_so(node):
    words = ("insecure overrides the peer token", "insecure: whoever reaches this node may change the ring")

    def said():
        return [node.log_path.read_text().count(text) for text in words]
    expect_equal(said(), [1, 1], "at its start")
    for settings, wanted in (({}, [2, 2]), ({"insecure": False}, [2, 2]), ({"insecure": True}, [3, 3])):
        before = node.workers()
        node.change_settings(**settings)
        node.supervisor.signal(1)
        node.wait_until_replaced(before, 20)
        expect_equal(said(), wanted, f"after a reload with {settings}")
    node.wait_until_ready()


def whoever_reaches_an_insecure_node(cluster):
    """May change things, but not by GET, which any page can have a browser send: over plain HTTP nothing would tell."""
    node = cluster.node(1)
    expect_equal(node.store("witness", "here").status, 200, "storing")
    for place in (node.address, cluster.proxy.address):
        for host, fields in (("localhost", [("X-Forwarded-For", "10.0.0.77")]), ("10.0.0.5:5000", []), ("kv.example", [])):
            for target in ADMIN:
                if target != "/hash_ring":
                    answer = ask(place, request_bytes("GET", target, None, fields, host=host))
                    expect(answer.status == 403 and b"by POST" in answer.body, f"GET {target} at {place}, {host}, {fields}: {answer}")
                if target != "/clear_cache":
                    answer = ask(place, request_bytes("POST", target, b"-", fields, host=host))
                    expect(answer.status not in (401, 403), f"POST {target} at {place}, {host}, {fields}: {answer}")
                answer = ask(place, request_bytes("POST", target, b"-", [*fields, ("Origin", "http://evil.example")], host=host))
                expect_equal(answer.status, 403, f"POST {target} at {place} by a page")
        expect_equal(ask(place, request_bytes("GET", "/abort_change")).status, 409, "GET by a program on this machine")
    expect_equal(node.read("witness").body, b"here", "what nobody has cleared")
    expect_equal(ask(node.address, request_bytes("POST", "/clear_cache", b"", host="kv.example")).body, b"OK", "clearing by POST")
    expect_equal(node.read("witness").status, 404, "what was cleared")


def a_socket_of_both_families_knows_ipv4(node):
    """A caller over IPv4 has an address of IPv6's there, and is the same caller."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        return
    with socket.create_server(("", 0)) as unused:
        port = unused.getsockname()[1]
    node.end_daemon()
    node.change_settings(listen=f"[::]:{port}", insecure=True)
    node.start_daemon()
    address = f"{node.address.rpartition(':')[0]}:{port}"

    def answers():
        try:
            return ask(address, request_bytes("GET", "/health/ready"), timeout=2).status == 200
        except (OSError, MalformedAnswer):
            return False
    eventually(15, "the node answers", answers)
    expect_equal(ask(address, request_bytes("POST", "/peer/ring", json.dumps({"clock": 0}).encode())).status, 200, "a peer over IPv4")
    expect_equal(ask(address, request_bytes("GET", "/abort_change")).status, 409, "a program on this machine over IPv4")
    eventually(5, "the log says that pairs are open", lambda: f"pairs are open to whoever reaches [::]:{port}" in node.log_tail(100))
    node.accept_present_workers()


def the_balancer_tells_whom_it_asks_for(cluster):
    """A balancer on a node's own machine does not lend its address to those who come from elsewhere. (Here all come from loopback.)"""
    order = "    http-request set-header X-Forwarded-For %[src] unless { src 127.0.0.0/8 ::1 }\n"
    expect(order in (cluster.directory / "haproxy.cfg").read_text(), "haproxy.cfg does not say for whom it asks")
