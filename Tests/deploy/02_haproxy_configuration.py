# SPDX-License-Identifier: Apache-2.0
"""haproxy.cfg, as it stands and as it is derived for other balancers."""

import re
import socket

from support import REPOSITORY, SETUP, NodeStandIn, eventually, expect, free_network, run, scratch, start, write

ORIGINAL = (REPOSITORY / "haproxy.cfg").read_text()


def balancer(*arguments):
    """What `setup.sh balancer` writes."""
    root = scratch()
    run(SETUP, "balancer", "--root", root, *arguments).expect()
    return (root / "etc/haproxy/haproxy.cfg").read_text()


def test_haproxy_accepts_it():
    run("haproxy", "-c", "-f", REPOSITORY / "haproxy.cfg").expect(says="Configuration file is valid", says_not="WARNING")


def test_haproxy_accepts_what_is_derived_from_it():
    for nodes in (1, 3, 50):
        text = balancer(*(word for node in range(nodes) for word in ("--node", f"10.0.0.{node + 1}:5000")))
        path = write(scratch() / "haproxy.cfg", text)
        run("haproxy", "-c", "-f", path).expect(says_not="WARNING")
        servers = re.findall(r"^    server (\S+) (\S+)$", text, re.M)
        expect(servers == [(f"node{node + 1}", f"10.0.0.{node + 1}:5000") for node in range(nodes)], servers)


def test_only_addresses_and_marked_lines_differ():
    text = balancer("--node", "10.0.0.1:5000", "--bind", "10.0.0.9:80", "--statistics", "127.0.0.1:9000",
                    "--connections", "700")

    def rules(configuration):
        """The configuration without its addresses to bind, and without what is between the markers."""
        without = re.sub(r"(    # BEGIN \w+\n).*?(    # END)", r"\1\2", configuration, flags=re.S)
        return [line for line in without.splitlines() if not line.startswith("    bind ")]
    ours = rules(text)
    expect(ours[0].startswith("# Written by `setup.sh balancer`"), ours[0])
    expect(ours[1:] == rules(ORIGINAL), "rules were lost or changed")
    expect(re.findall(r"^    bind (\S+)$", text, re.M) == ["10.0.0.9:80", "127.0.0.1:9000"], "wrong addresses to bind")
    expect("    maxconn 700\n" in text, "the number of connections was not taken")


def test_the_map_of_slots_is_a_file_that_is_there():
    """HAProxy does not start without it; it is kept where it is."""
    root = scratch()
    for _ in range(2):
        run(SETUP, "balancer", "--root", root, "--node", "10.0.0.1:5000").expect()
        file = root / "etc/haproxy/ring.map"
        expect(all(line.startswith("#") for line in file.read_text().splitlines()), "the map is not empty")
        expect(f",map_int({file})\n" in (root / "etc/haproxy/haproxy.cfg").read_text(), "another map is read")


def test_added_servers_are_checked_like_the_others():
    """HAProxy does not apply its `default-server` to what kvctl adds at run time."""
    wanted = re.search(r"^    default-server (.*)$", ORIGINAL, re.M)[1]
    source = (REPOSITORY / "Sources/kvctl/HAProxyCommand.swift").read_text()
    expect(f'usualServerOptions =\n        "{wanted}"\n' in source, f"kvctl adds servers with other options than {wanted}")


def test_writes_are_not_sent_twice():
    """The lines that this rests on, so that nobody drops one unnoticed; the end-to-end tests show that they work."""
    for line in ("http-request disable-l7-retry unless { method GET HEAD }", "http-request disable-l7-retry if change",
                 "option redispatch 1", "option http-buffer-request", "http-check expect status 200"):
        expect(f"    {line}\n" in ORIGINAL, f"haproxy.cfg lacks: {line}")
    expect(not re.search(r"^\s*(no )?observe layer7", ORIGINAL, re.M), "honest 503s would take a node out")


def test_what_one_node_is_asked_alone_is_not_passed_on():
    """Whichever node it met would answer for itself: /peer and /cache, and /metrics."""
    front = ORIGINAL[ORIGINAL.index("\nfrontend clients"):ORIGINAL.index("\nbackend nodes")]
    routes = (REPOSITORY / "Sources/HTTPFront/RouteTable.swift").read_text()
    expect('("/metrics", .metrics)' in routes, "no route for /metrics")
    denied = re.findall(r"^    http-request deny status 403 default-errorfiles if { path,url_dec -m beg (\S+) }$", front, re.M)
    expect(denied == ["/metrics"], f"denied to everybody: {denied}")
    expect("acl between_nodes path,url_dec -m beg /peer /cache\n" in front, "/peer or /cache")
    expect("http-request deny status 403 default-errorfiles if between_nodes\n" in front, "/peer and /cache are passed on")


def test_whatever_changes_the_ring_is_known_to_it():
    """Those paths are for operators, are never asked again of another node, and take as long as they take."""
    routes = (REPOSITORY / "Sources/HTTPFront/RouteTable.swift").read_text()
    changing = set(re.findall(r'StaticString = "(/\w+_node)/"', routes)) | {"/abort_change", "/clear_cache"}
    expect({"/add_node", "/remove_node", "/replace_node"} <= changing, changing)
    known = [set(line.split()) for line in re.findall(r"acl change path,url_dec -m beg (.*)", ORIGINAL)]
    expect(known == [changing, changing], known)


def ask(address, message):
    """The beginning of the answer; empty where there is none."""
    with socket.create_connection((address, 5000), timeout=5) as connection:
        connection.sendall(message)
        return connection.recv(1 << 16).decode("latin-1")


def send(address, message):
    """The status of the answer; 0 where there is none."""
    answer = ask(address, message)
    return int(answer[9:12]) if answer else 0


def start_balancer():
    """HAProxy before one stand-in for a node, with nobody for an operator: (its address, the stand-in)."""
    network = free_network()
    backend = NodeStandIn(f"{network}.11")
    directory = scratch()
    text = ORIGINAL
    for old, new in (("acl operator src 127.0.0.0/8 ::1 10.0.0.0/8", "acl operator src 203.0.113.7"), ("127.0.0.", f"{network}."),
                     ("deploy/ring.map", str(write(directory / "ring.map", ""))), ("unix@haproxy.sock", f"unix@{directory}/haproxy.sock"),
                     (f"    server node2 {network}.12:5000\n", ""), (f"    server node3 {network}.13:5000\n", ""),
                     (f"{network}.0/8", "127.0.0.0/8")):
        expect(old in text, f"haproxy.cfg has no {old}")
        text = text.replace(old, new)
    start("haproxy", "-f", write(directory / "haproxy.cfg", text))
    address = f"{network}.10"

    def serves():
        try:
            return send(address, b"GET / HTTP/1.1\r\nHost: kv\r\n\r\n") == 200
        except OSError:
            return False
    eventually(10, "HAProxy serves", serves)
    return address, backend


def spellings(path):
    """Ways to write a path that somebody, somewhere, might take for the same."""
    first = f"%{ord(path[1]):02x}"
    yield from (path, f"/{first}{path[2:]}", f"/{first.upper()}{path[2:]}", f"/{path}", f"//{path}", f"/.{path}", f"/x/..{path}", f"/%2e{path}",
                f"/x/%2e%2e{path}", f"/x%2f..{path}", f"%2f{path[1:]}", f"/%2f{path[1:]}", f"/%25{first[1:]}{path[2:]}", path.upper(), f"http://kv{path}",
                f"http://kv/{first}{path[2:]}", f"http://kv/{path}", f"{path};x", f"{path}%00", f"/%00{path}", f"/;{path}", f"/\\{path}", f"{path}#x",
                f"{path}?x", f"/%c0%af{path[1:]}", f"/x/../{first}{path[2:]}", f"*{path}", path[1:])


def test_no_spelling_of_a_path_slips_past_the_rules():
    """From outside: what is denied reaches no node in the spelling by which nodes know it, and theirs is the only one (they compare raw
    bytes, and take nothing but a path)."""
    address, backend = start_balancer()
    closed = {"/peer/batch": "GET POST", "/peer/hello": "POST", "/cache": "GET POST", "/metrics": "GET", "/add_node/1/10.0.0.9:5000": "GET POST",
              "/remove_node/10.0.0.9:5000": "GET POST", "/replace_node/10.0.0.9:5000/10.0.0.8:5000": "GET POST", "/clear_cache": "GET POST",
              "/abort_change": "GET POST", "/hash_ring": "POST", "/fetch_keys": "GET", "/keys:export": "GET", "/keys:import": "POST", "/keys": "GET"}
    tried = 0
    for path, methods in closed.items():
        for method in methods.split():
            for target in spellings(path):
                backend.asked.clear()
                body = "Content-Length: 1\r\n\r\nx" if method == "POST" else "\r\n"
                status = send(address, f"{method} {target} HTTP/1.1\r\nHost: kv\r\n{body}".encode("latin-1"))
                for seen in backend.asked:
                    expect(seen.split("?")[0].split("#")[0] != path, f"{method} {target} came through as {seen}: {status}")
                if target == path:
                    expect(status == 403, f"{method} {target}: {status}")
                tried += 1
    expect(tried > 400, tried)
    backend.asked.clear()
    expect(send(address, b"GET /route?key=a HTTP/1.1\r\nHost: kv\r\n\r\n") == 200 and backend.asked == ["/route?key=a"], backend.asked)


def test_a_refusal_says_what_became_of_the_request():
    """In words, for whoever reads them, and for programs: it was not applied."""
    address, backend = start_balancer()
    backend.asked.clear()

    def of_length(line, count):
        # (It answers once its buffer is full.)
        return f"{line} HTTP/1.1\r\nHost: kv\r\nContent-Length: {count}\r\n\r\n".encode() + b"x" * 20_000

    for status, message in ((403, b"GET /metrics HTTP/1.1\r\nHost: kv\r\n\r\n"), (403, b"GET /peer/batch HTTP/1.1\r\nHost: kv\r\n\r\n"),
                            (403, b"GET /add_node/1/10.0.0.9:5000 HTTP/1.1\r\nHost: kv\r\n\r\n"),
                            (403, b"GET /fetch_keys HTTP/1.1\r\nHost: kv\r\n\r\n"), (403, b"GET /ui HTTP/1.1\r\nHost: kv\r\n\r\n"),
                            (403, of_length("POST /hash_ring", 20_000)), (400, b"GET //route HTTP/1.1\r\nHost: kv\r\n\r\n"),
                            (413, of_length("POST /route", (4 << 20) + 1)), (413, of_length("POST /keys:batch", (16 << 20) + 1)),
                            (413, of_length("PUT /keys/a", (64 << 20) + 1))):
        head, _, body = ask(address, message).partition("\r\n\r\n")
        expect(head.startswith(f"HTTP/1.1 {status} "), f"{message[:40]}: {head}")
        expect("x-kv-outcome: not-applied" in head.lower(), f"{message[:40]}: {head}")
        expect(body.strip(), f"{message[:40]}: {status} without a word")
    expect(backend.asked == [], backend.asked)


def test_health_checks_need_no_token():
    """Nor do they carry one: what is open to anybody is what they ask (see the routes of the end-to-end test 83)."""
    expect("http-check send meth GET uri /health/ready ver HTTP/1.1 hdr Host balancer\n" in ORIGINAL, "they ask for something else")
    gate = (REPOSITORY / "Sources/HTTPFront/AccessGate.swift").read_text()
    expect(re.search(r"case [^:]*\.ready\b[^:]*: \.anybody\n", gate), "/health/ready is not open to anybody")
