# SPDX-License-Identifier: Apache-2.0
"""deploy/reconfigure.sh, against nodes that are played here: what it sends, and what it says of each answer."""

import http.server
import json
import re
import threading
import urllib.parse

from support import REPOSITORY, at_end, expect, free_network, run, scratch, write


class Node:
    """Answers as a node does, and keeps what it was asked. `answers` puts a status in place of its answer."""

    def __init__(self, address, answers=None, keeps_ring=True, token=None):
        self.token = token
        self.address, self.answers, self.keeps_ring = address, answers or {}, keeps_ring
        self.asked, self.ring, self.authorizations = [], {}, []
        node = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                node.answer(self, "GET", None)

            def do_POST(self):
                node.answer(self, "POST", self.rfile.read(int(self.headers["Content-Length"])).decode())

            def log_message(self, *_):
                pass
        host, port = address.split(":")
        self.server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
        threading.Thread(target=self.server.serve_forever, args=[0.02], daemon=True).start()
        at_end(self.stop)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler, method, body):
        self.asked.append((method, handler.path, body))
        self.authorizations.append(handler.headers["Authorization"])
        status, text = self.answers.get((method, handler.path), (200, "OK"))
        if self.token and handler.headers["Authorization"] != f"Bearer {self.token}":
            status, text = 401, "This needs the admin token."
        if status == 200 and (method, handler.path) == ("POST", "/hash_ring") and self.keeps_ring:
            sent = json.loads(urllib.parse.parse_qs(body)["data"][0])
            self.ring = {str(entry["key"]): entry["ip"] for entry in sent["nodes"]}
        if status == 200 and method == "GET" and handler.path == "/hash_ring":
            text = json.dumps({"ring": self.ring, "_sorted_keys": sorted(map(int, self.ring)), "epoch": 3})
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text.encode())

    def documents(self):
        return [json.loads(urllib.parse.parse_qs(body)["data"][0]) for method, path, body in self.asked if (method, path) == ("POST", "/hash_ring")]


def reconfigure(*arguments, **options):
    return run(REPOSITORY / "deploy/reconfigure.sh", *arguments, directory="/", **options)


def addresses(count):
    network = free_network()
    return [f"{network}.{11 + index}:5000" for index in range(count)]


def test_every_node_gets_the_same_ring():
    one, two, standby = addresses(3)
    nodes = [Node(address) for address in (one, two, standby)]
    ran = reconfigure(f"{one}=3000", f"{two}=8000", f"{one}=0", "--standby", standby).expect()
    ring = {"nodes": [{"ip": one, "key": 3000}, {"ip": two, "key": 8000}, {"ip": one, "key": 0}], "standbys": [standby], "replicas": 3}
    for node in nodes:
        expect(node.documents() == [ring], f"{node.address} was sent {node.documents()}")
        expect([path for _, path, _ in node.asked] == ["/hash_ring", "/hash_ring"], f"{node.asked}")
        expect(f"{node.address} " in ran.output, ran.output)


def test_pairs_are_dropped_only_when_asked():
    [one] = addresses(1)
    node = Node(one)
    reconfigure(f"{one}=0").expect(says_not="dropped its pairs")
    expect(not any(path == "/clear_cache" for _, path, _ in node.asked), node.asked)
    reconfigure("--clear", f"{one}=0").expect(says="dropped its pairs")
    expect([path for _, path, _ in node.asked].count("/clear_cache") == 1, node.asked)


def test_a_node_that_fails_is_named_and_the_others_get_their_ring():
    one, two, three, four = addresses(4)
    good = Node(one)
    Node(two, {("POST", "/hash_ring"): (503, "memcached is away")})
    Node(three, keeps_ring=False)
    ran = reconfigure("--seconds", "2", f"{one}=1", f"{two}=2", f"{three}=3", f"{four}=4")
    ran.expect(1, says=("503 memcached is away", "3 failed; running this again is safe"))
    lines = [line for line in ran.output.splitlines() if line.startswith("127.")]
    expect([line.split()[0] for line in lines if "FAILED" in line] == [two, four, three], ran.output)
    expect(len(good.documents()) == 1, "the good node has no ring")


def test_a_failed_clearing_fails():
    [one] = addresses(1)
    Node(one, {("POST", "/clear_cache"): (503, "busy")})
    reconfigure("--clear", f"{one}=0").expect(1, says="has the ring but may hold pairs still: 503 busy")


def test_wrong_arguments_send_nothing():
    [one] = addresses(1)
    node = Node(one)
    for arguments, message in ((["10.0.0.5=1"], "not an ip:port=position"), ([one], "no position from 0 to 9999"),
                               ([f"{one}=10000"], "no position from 0 to 9999"), ([f"{one}=x"], "no position"),
                               ([f"{one}=007"], "no position"), ([f"{one}=1", f"{one}=1"], "two nodes at position 1"),
                               ([f"{one}=1", "--standby", one], "a standby in a position"),
                               ([f"{one}=1", "--standby", "x"], "not an ip:port: x"),
                               (["--seconds", "0", f"{one}=1"], "no number of seconds: 0"),
                               (["--cler", f"{one}=1"], "unknown option: --cler")):
        reconfigure(*arguments).expect(64, says=message)
    expect(node.asked == [], f"it was asked {node.asked}")


def test_it_shows_the_token_of_a_file():
    """Of the option, else of the environment, else of the user's own; never among the arguments of a program."""
    [one] = addresses(1)
    node, home = Node(one), scratch()
    files = {name: write(home / name, f"# of {name}\n\n {name * 8} \nolder\n", 0o400) for name in ("option", "variable", ".config/kvctl/token")}
    for arguments, variable, wanted in ((["--token-file", files["option"]], files["variable"], "option"), ([], files["variable"], "variable"),
                                        ([], "", ".config/kvctl/token")):
        node.authorizations.clear()
        ran = reconfigure(*arguments, f"{one}=0", environment={"HOME": str(home), "XDG_CONFIG_HOME": "", "KVCTL_TOKEN_FILE": str(variable)})
        ran.expect(says_not=wanted * 8)
        expect(set(node.authorizations) == {f"Bearer {wanted * 8}"}, f"{wanted}: {node.authorizations}")
    reconfigure("--token-file", home / "nothing", f"{one}=0").expect(64, says="no token can be read")
    for file, outcome in ((f"{'n' * 32}\n{'o' * 32}\n", 0), (f"{'o' * 32}\n{'n' * 32}\n", 0), ("n" * 32, 1)):
        # One node knows the newer token alone, the other one still the older.
        places = addresses(2)
        newer, older = Node(places[0], token="n" * 32), Node(places[1], token="o" * 32)
        ran = reconfigure("--token-file", write(scratch() / "token", file, 0o400), f"{places[0]}=0", f"{places[1]}=5000")
        ran.expect(outcome, says="has the ring")
        expect((bool(newer.ring), bool(older.ring)) == (True, outcome == 0), "who has the ring")
    source = (REPOSITORY / "deploy/reconfigure.sh").read_text()
    expect("Bearer" in source and not re.search(r"(-H|--header)\b", source), "a token is an argument")
