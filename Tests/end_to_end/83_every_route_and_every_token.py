# SPDX-License-Identifier: Apache-2.0
"""Each route lets in those whom docs/security.md names, and nobody else; two tokens are good at once; no secret shows anywhere."""

import re
import secrets
import socket
import time
from pathlib import Path

from harness.client import Connection, ask, request_bytes, socket_address
from harness.cluster import REPOSITORY
from harness.expectations import eventually, expect, expect_equal
from harness.kvctl import FAILED, Kvctl

TOKENS = {door: secrets.token_hex(32) for door in ("data", "admin", "peer")}
MEMCACHED_PORT = 11211
SENDERS = {"none": None, "wrong": secrets.token_hex(32), **TOKENS}

#: For each path of RouteTable.swift, what is sent there and whose door it is: by method where they differ. The requests are such
#: that those who are let in do no harm.
ROUTES = {
    "/": ("/", "anybody"),
    "/health/live": ("/health/live", "anybody"),
    "/health/ready": ("/health/ready", "anybody"),
    "/route": ("/route?key=a", "data"),
    "/cache": ("/cache?key=a", "data"),
    "/keys/": ("/keys/a", "data"),
    "/keys": ("/keys", "data"),
    "/keys:batch": ("/keys:batch", "data"),
    "/keys:export": ("/keys:export", "data"),
    "/keys:import": ("/keys:import", "data"),
    "/route_test": ("/route_test?key=a", "data"),
    "/fetch_keys": ("/fetch_keys", "data"),
    "/status": ("/status", "watch"),
    "/metrics": ("/metrics", "watch"),
    "/ui": ("/ui", "anybody"),
    "/ui/": ("/ui/", "anybody"),
    "/ui/page.css": ("/ui/page.css", "anybody"),
    "/ui/page.js": ("/ui/page.js", "anybody"),
    "/ui/icon.svg": ("/ui/icon.svg", "anybody"),
    "/ui/events": ("/ui/events", "watch"),
    "/plan/": ("/plan/none", "watch"),
    "/copies": ("/copies?key=a", "data"),
    "/hash_ring": ("/hash_ring", {"GET": "watch", "POST": "admin"}),
    "/add_node/": ("/add_node/none/none", "admin"),
    "/remove_node/": ("/remove_node/none", "admin"),
    "/replace_node/": ("/replace_node/none", "admin"),
    "/abort_change": ("/abort_change", "admin"),
    "/clear_cache": ("/clear_cache", "admin"),
    "/peer/hello": ("/peer/hello", "hello"),
    "/peer/batch": ("/peer/batch", "peer"),
    "/peer/": ("/peer/ring", "peer"),
}

#: What a sender is answered at a door; nobody: neither 401 nor 403.
REFUSALS = {
    "data": {"none": 401, "wrong": 401, "peer": 401},
    "admin": {"none": 401, "wrong": 401, "data": 403, "peer": 401},
    "peer": dict.fromkeys(SENDERS, 401),
}


def run(context):
    with context.cluster(nodes=2, tokens=TOKENS, proxy=True, settings={"memcachedPort": MEMCACHED_PORT}) as cluster:
        every_route_is_known()
        every_sender_at_every_door(context, cluster)
        who_names_no_host_is_not_local(cluster.node(1))
        a_token_is_needed_each_time(cluster)
        memcacheds_port_opens_by_the_data_token(cluster)
        through_the_balancer_it_is_the_same(cluster)
        no_secret_shows(cluster)
        kvctl_shows_a_token(cluster)
        two_tokens_are_good_at_once(context, cluster)
        no_secret_shows(cluster)


def paths_of_the_source():
    text = (REPOSITORY / "Sources/HTTPFront/RouteTable.swift").read_text()
    prefixes = dict(re.findall(r'static let (\w+Prefix): StaticString = "([^"]+)"', text))
    return (set(re.findall(r'\("(/[^"]*)", \.\w+\)', text)) | set(re.findall(r'isEqual\(path, "(/[^"]*)"\)', text))
            | {prefixes[name] for name in re.findall(r"\((\w+Prefix), \.\w+\)", text)})


def every_route_is_known():
    expect_equal(sorted(ROUTES), sorted(paths_of_the_source()), "the routes of this test, and those of RouteTable.swift")
    described = re.findall(r"^  (/\S*):$", (REPOSITORY / "openapi.yaml").read_text(), re.M)
    expect(len(described) >= 4, described)
    for path in described:
        expect(any(path == known or known.endswith("/") and path.startswith(known) for known in ROUTES), f"{path} is in openapi.yaml alone")


def methods_of(node, target):
    answer = ask(node.address, request_bytes("OPTIONS", target))
    expect_equal(answer.status, 405, f"OPTIONS {target}")
    return answer.header("Allow").split(", ")


def request(method, target, token, **options):
    headers = [*options.pop("headers", []), *([("Authorization", f"Bearer {token}")] if token else [])]
    body = None if method in ("GET", "HEAD", "DELETE") else b"-"
    return request_bytes(method, target, body, headers, **options)


def ask_once(address, message):
    """The status, and whatever came with the head: the answer to HEAD has no body, whatever length it names."""
    with socket.create_connection(socket_address(address), timeout=5) as connection:
        connection.sendall(message)
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(1 << 16)
            expect(part, f"no answer to {message[:60]!r}")
            data += part
        return int(data[9:12]), data


def every_sender_at_every_door(context, cluster):
    node, count = cluster.node(1), 0
    for path, (target, doors) in ROUTES.items():
        for method in methods_of(node, target):
            door = doors if isinstance(doors, str) else doors["GET" if method == "HEAD" else method]
            for host, forwarded in (("localhost", False), ("kv.example", False), ("localhost", True)):
                seen = "data" if door == "watch" and (host != "localhost" or forwarded) else door
                for sender, token in SENDERS.items():
                    if forwarded and door in ("peer", "hello"):
                        wanted = 403
                    else:
                        wanted = REFUSALS.get(seen, {}).get(sender)
                    headers = [("X-Forwarded-For", "10.0.0.77")] if forwarded else []
                    status, data = ask_once(node.address, request(method, target, token, host=host, headers=headers))
                    what = f"{method} {path} by {sender}, Host: {host}, forwarded: {forwarded}: {data[:300]!r}"
                    # (So many may look on at once; who went away a moment ago counts still.)
                    is_full = path == "/ui/events" and status == 503
                    expect(status == wanted if wanted else status not in (401, 403) and status < 500 or is_full, what)
                    if wanted:
                        expect(b"\r\nX-KV-Outcome: not-applied\r\n" in data, what)
                        expect((b"\r\nWWW-Authenticate: Bearer\r\n" in data) == (wanted == 401), what)
                        # (The ring's page asks for a token where that, or a 401, says that one helps.)
                        expect((b'\r\nWWW-Authenticate: Bearer error="insufficient_scope"\r\n' in data) == (wanted == 403 and seen == "admin"), what)
                    count += 1
    context.note(f"{count} requests at {len(ROUTES)} routes")


def who_names_no_host_is_not_local(node):
    for lines, wanted in ((b"", 401), (b"Host: localhost\r\n", 200), (b"Authorization: Bearer %b\r\n" % TOKENS["data"].encode(), 200)):
        expect_equal(ask_once(node.address, b"GET /status HTTP/1.0\r\n%b\r\n" % lines)[0], wanted, f"HTTP/1.0 with {lines[:20]}")


def memcacheds_port_opens_by_the_data_token(cluster):
    node = cluster.node(1)
    address = f"{node.address.rpartition(':')[0]}:{MEMCACHED_PORT}"
    expect_equal(node.store("moon", "bright").status, 200, "storing")

    def said(message):
        """All that is answered, and whether the connection was ended."""
        with socket.create_connection(socket_address(address), timeout=1.5) as connection:
            connection.sendall(message)
            data = b""
            try:
                while part := connection.recv(1 << 16):
                    data += part
            except TimeoutError:
                return data, False
            return data, True

    def first(token):
        return b"set any 0 0 %d\r\nu %b\r\n" % (2 + len(token), token.encode())
    get, pair = b"get moon\r\n", b"VALUE moon 0 6\r\nbright\r\nEND\r\n"
    expect_equal(said(first(TOKENS["data"]) + get), (b"STORED\r\n" + pair, False), "with the data token")
    failure, stranger = b"CLIENT_ERROR authentication failure\r\n", b"CLIENT_ERROR unauthenticated\r\n"
    for name, message, wanted in (
            *((f"the token {sender}", first(token), failure) for sender, token in SENDERS.items() if token and sender != "data"),
            ("nothing", get, stranger), ("garbage", b"nonsense\r\n", stranger), ("half a command", b"get\r\n", stranger),
            ("an odd length", b"set any 0 0 x\r\n", failure), ("too much", b"set any 0 0 600\r\n" + 600 * b"x" + b"\r\n", failure)):
        expect_equal(said(message + first(TOKENS["data"]) + get), (wanted, True), f"{name}, and then the data token")


def a_token_is_needed_each_time(cluster):
    """On one connection, of the short way and of the long one: what was sent before opens nothing."""
    good, bad = f"Bearer {TOKENS['data']}", f"Bearer {SENDERS['wrong']}"
    cases = [([good], 200), ([], 401), ([bad], 401), ([good, good], 401), ([good, bad], 401), ([good + "x"], 401), ([good], 200),
             ([f"bearer {TOKENS['data']}"], 200), ([f"Basic {TOKENS['data']}"], 401), ([TOKENS["data"]], 401)]
    node = cluster.node(1)
    expect_equal(node.store("door", "locked").status, 200, "storing")
    for extra in ([], [("X_Odd", "1")]):  # (which only NIO's decoder reads)
        with Connection(node.address) as connection:
            for values, status in cases:
                headers = [*extra, *(("Authorization", value) for value in values)]
                answer = connection.exchange(request_bytes("GET", "/route?key=door", headers=headers))
                expect_equal(answer.status, status, f"GET with {[value[:12] for value in values]} and {extra}: {answer}")
                form = request_bytes("POST", "/route", b"key=door&val=locked", [("Content-Type", "application/x-www-form-urlencoded"), *headers])
                expect_equal(connection.exchange(form).status, status, f"POST with {[value[:12] for value in values]} and {extra}")


def through_the_balancer_it_is_the_same(cluster):
    for sender, token in SENDERS.items():
        for method, target, door in (("GET", "/route?key=door", "data"), ("GET", "/keys/door", "data"), ("POST", "/abort_change", "admin"),
                                     ("GET", "/clear_cache", "admin")):
            if (door, sender) == ("admin", "admin") and target == "/clear_cache":
                continue
            answer = ask(cluster.proxy.address, request(method, target, token))
            wanted = REFUSALS[door].get(sender)
            expect(answer.status == wanted if wanted else answer.status in (200, 404, 409), f"{method} {target} by {sender}: {answer}")
    for sender, token in SENDERS.items():
        for target in ("/peer/batch", "/peer/hello", "/metrics", "/%70eer/batch", "/cache?key=a"):
            answer = ask(cluster.proxy.address, request("POST", target, token))
            expect_equal(answer.status, 403, f"POST {target} by {sender} through the balancer")


def kvctl_shows_a_token(cluster):
    """Of the option, of the environment, and of systemd; none where there is none, and none that others can read."""
    kvctl, files = Kvctl(cluster.node(1).address), {door: cluster.directory / f"{door}-token" for door in TOKENS}
    kvctl.environment.update({"HOME": str(cluster.directory), "XDG_CONFIG_HOME": ""})
    kvctl("put", "roof", "red").expect(FAILED, says="This needs the data token")
    kvctl("put", "roof", "red", "--token-file", files["data"]).expect()
    kvctl("ring", "abort", "--token-file", files["data"]).expect(FAILED, says="This needs the admin token")
    kvctl.environment["KVCTL_TOKEN_FILE"] = str(files["admin"])
    kvctl("get", "roof").expect(says="red")
    kvctl("ring", "abort").expect(FAILED, says="No ring change is under way")
    kvctl("status").expect()
    kvctl("haproxy", "sync", "--socket", cluster.proxy.socket_path, "--map", cluster.directory / "ring.map").expect()
    kvctl("get", "roof", "--token-file", cluster.directory / "nothing").expect(FAILED, says="No such file")
    open_to_all = cluster.directory / "open-token"
    open_to_all.write_text(TOKENS["data"])
    open_to_all.chmod(0o644)
    kvctl("get", "roof", "--token-file", open_to_all).expect(FAILED, says="can be read by others")
    del kvctl.environment["KVCTL_TOKEN_FILE"]
    place = cluster.directory / ".config" / "kvctl"
    place.mkdir(parents=True)
    (place / "token").write_text(files["admin"].read_text())
    (place / "token").chmod(0o400)
    kvctl("get", "roof").expect(says="red")
    credentials = cluster.directory / "credentials"
    credentials.mkdir()
    (credentials / "token").write_text("none\n")
    kvctl.environment["CREDENTIALS_DIRECTORY"] = str(credentials)
    kvctl("get", "roof").expect(FAILED, says="This needs the data token")
    watch = kvctl.start("watch", "--token-file", files["data"])
    try:
        time.sleep(0.5)
        for name in ("cmdline", "environ"):
            shown = Path(f"/proc/{watch.pid}/{name}").read_bytes()
            expect(not any(token.encode() in shown for token in TOKENS.values()), f"kvctl's {name} has a token")
    finally:
        watch.kill()
        watch.communicate()
    (place / "token").unlink()


def no_secret_shows(cluster):
    """Not in logs, not in lists of processes or their environment, and in nothing that a node or the balancer says of itself."""
    texts = {}
    for path in cluster.directory.rglob("*"):
        if path.is_file() and not path.name.endswith("-token"):
            texts[str(path)] = path.read_bytes()
    for node in cluster.nodes:
        for pid in [node.supervisor.pid, *node.workers()]:
            for name in ("cmdline", "environ"):
                texts[f"{node.name}, {pid}, {name}"] = Path(f"/proc/{pid}/{name}").read_bytes()
        for target in ("/status", "/metrics", "/hash_ring"):
            texts[f"{node.name}{target}"] = node.get(target).body
    expect(any(name.endswith("kvserver.log") for name in texts) and any("environ" in name for name in texts), sorted(texts))
    for name, text in texts.items():
        for sender, token in SENDERS.items():
            expect(token is None or token.encode() not in text, f"the token {sender} shows in {name}")
    for pid in cluster.node(1).workers():
        held = [Path(f"/proc/{pid}/fd/{entry.name}").readlink() for entry in Path(f"/proc/{pid}/fd").iterdir()]
        expect(not any("kvserver-tokens" in str(link) for link in held), f"a worker keeps what it was given: {held}")


def two_tokens_are_good_at_once(context, cluster):
    """The older and the newer one, after a reload; then the newer one alone. Meanwhile the nodes go on speaking to each other."""
    newer = {door: secrets.token_hex(32) for door in TOKENS}
    node = cluster.node(1)

    def statuses():
        return {name: ask(node.address, request("GET", "/route?key=door", token)).status
                for name, token in (("older", TOKENS["data"]), ("newer", newer["data"]))}

    def change(tokens, wanted):
        cluster.write_tokens(tokens)
        for each in cluster.nodes:
            before = each.workers()
            each.supervisor.signal(1)
            each.wait_until_replaced(before, 20)
            for entrance in cluster.nodes:
                kvctl = Kvctl(entrance.address)
                kvctl("put", "roof", "red", "--token-file", cluster.directory / "data-token").expect()
                kvctl("ring", "abort", "--token-file", cluster.directory / "admin-token").expect(FAILED, says="No ring change is under way")
            expect_equal(ask(each.address, request("GET", "/route?key=door", tokens["data"].split()[-1])).status, 200, "between two reloads")
        expect_equal(statuses(), wanted, "after the reload")
    expect_equal(statuses(), {"older": 200, "newer": 401}, "before")
    change({door: f"{newer[door]}\n{TOKENS[door]}" for door in TOKENS}, {"older": 200, "newer": 200})
    change({door: f"{TOKENS[door]}\n{newer[door]}" for door in TOKENS}, {"older": 200, "newer": 200})
    change(newer, {"older": 401, "newer": 200})
    SENDERS.update({f"newer {door}": token for door, token in newer.items()})
    for each in cluster.nodes:
        each.headers = [("Authorization", f"Bearer {newer['admin']}")]
    for key in ("roof", "gate", "bee", "ship"):
        for each in cluster.nodes:
            expect_equal(each.store(key, "1").status, 200, f"storing {key} through {each.name}")
    # What can't be read leaves all as it is.
    path = cluster.directory / "data-token"
    path.write_text("too short\n")
    workers = node.workers()
    node.supervisor.signal(1)
    eventually(5, "the log says that the configuration stays", lambda: "has what is no token" in node.log_tail())
    time.sleep(0.3)
    expect_equal((sorted(node.workers()), statuses()), (sorted(workers), {"older": 401, "newer": 200}), "after a broken file")
    path.write_text(newer["data"] + "\n")
    # A worker that dies is followed by one that knows the same.
    node.kill_worker(context.random)
    eventually(10, "a new worker", lambda: len(node.workers()) == node.settings["workers"] and set(node.workers()) != set(workers))
    node.wait_until_ready()
    expect_equal(statuses(), {"older": 401, "newer": 200}, "after a worker's death")

