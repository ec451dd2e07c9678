# SPDX-License-Identifier: Apache-2.0
"""HAProxy sends each request to a node that holds its key, and learns of nodes that come and go; without that it costs a hop, never an answer."""

import os
import re
import signal
import socketserver
import threading
import time
import urllib.request

from harness.client import Connection, form_request, percent_encode, request_bytes
from harness.cluster import REPOSITORY, find_kvctl_binary
from harness.expectations import eventually, expect, expect_equal
from harness.kvctl import FAILED, UNAVAILABLE, Kvctl
from harness.placement import Ring
from harness.processes import OwnedProcess

LIMIT_SECONDS = 180

#: Plain ones, and such as a proxy and a node could read differently.
KEYS = [f"key{number}" for number in range(150)] + [
    "a/b", "a b", "a+b", "50 %", "%41", "ü", "a?b=c", "a&key=b", "a#b", "key=", ":increment", "visits:increment", "x" * 1500]
BYTES = [bytes([byte]) for byte in range(256)] + [b"\xff\x00a", b"a\r\nb"]


def run(context):
    with context.cluster(nodes=4, settings={"repairSeconds": 0}) as cluster:
        one_replica(context, cluster)
    with context.cluster(replicas=3, positions={3000: 1, 6000: 2, 9000: 3}) as cluster:
        a_node_is_down(cluster)
    with context.cluster(settings={"repairSeconds": 0}) as cluster:
        what_goes_wrong(cluster)
    too_many_requests(context)


def follow(cluster, *options):
    """`kvctl haproxy sync --watch`, which ends with the test."""
    return OwnedProcess(
        [find_kvctl_binary(), "haproxy", "sync", "--watch", "--interval", "0.2", "--socket", cluster.proxy.socket_path,
         "--node", cluster.node(1).address, *options], cluster.directory / "sync.log")


def entries(cluster):
    """The map in HAProxy: ranges and their servers."""
    return dict(line.split()[1:] for line in cluster.proxy.order(f"show map {cluster.directory}/ring.map").splitlines() if line)


def servers(cluster):
    """Addresses of the backend's servers, by name."""
    lines = cluster.proxy.order("show servers state nodes").splitlines()
    titles = lines[1].split()[1:]
    found = [dict(zip(titles, line.split())) for line in lines[2:] if line]
    return {server["srv_name"]: f"{server['srv_addr']}:{server['srv_port']}" for server in found}


def hops(cluster):
    """Operations that nodes have sent to each other so far."""
    total = 0
    for node in cluster.nodes:
        text = node.get("/metrics").text
        total += sum(float(number) for number in re.findall(r"^kvserver_peer_operations_total\{[^}]*\} (\S+)$", text, re.M))
    return total


def use_all(cluster):
    """Each key by each way in: stored, read, read as a program does, counted, deleted. Returns how many requests that were."""
    count = 0
    with Connection(cluster.proxy.address) as connection:
        def done(answer, *wanted):
            nonlocal count
            count += 1
            expect((answer.status, answer.body) in wanted or answer.status in wanted, f"request {count}: {answer}")
        for key in [*(key.encode() for key in KEYS), *BYTES]:
            name = percent_encode(key).replace(b".", b"%2E")
            done(connection.exchange(form_request("/route", {"key": key, "val": "v"})), (200, b"OK"))
            done(connection.exchange(request_bytes("GET", b"/route?key=" + name)), (200, b"v"))
            done(connection.exchange(request_bytes("GET", b"/route?consistency=strict&key=" + name)), (200, b"v"))
            done(connection.exchange(request_bytes("GET", b"/keys/" + name)), (200, b"v"))
            done(connection.exchange(request_bytes("PUT", b"/keys/" + name, b"7")), 204)
            done(connection.exchange(request_bytes("POST", b"/keys/" + name + b":increment?by=2")), (200, b"9"))
            done(connection.exchange(request_bytes("GET", b"/keys/" + name + b"?r=1")), (200, b"9"))
            done(connection.exchange(request_bytes("DELETE", b"/route?key=" + name)), (200, b"OK"))
            done(connection.exchange(request_bytes("DELETE", b"/keys/" + name)), 204)
    return count


def count_hops(cluster):
    before = hops(cluster)
    requests = use_all(cluster)
    return (hops(cluster) - before) / requests


def one_replica(context, cluster):
    kvctl = Kvctl(cluster.node(1).address)
    without = count_hops(cluster)
    expect(without > 0.5, f"{without:.2f} hops a request though the map is empty")

    # Once, by hand; HAProxy knows the fourth node, which has no ring, as it knows the third: from its file.
    nobody = kvctl("haproxy", "sync", "--socket", cluster.directory / "none.sock")
    nobody.expect(UNAVAILABLE, says="does not listen")
    kvctl("haproxy", "sync", "--socket", cluster.proxy.socket_path, seconds=90).expect(says="map of epoch")
    expect_equal(sorted(servers(cluster)), ["node1", "node2"], "the servers; whoever is not of the cluster has been taken away")
    expect_equal(entries(cluster), {"0:3000": "node1", "3001:8000": "node2", "8001:9999": "node1"}, "the map")
    expect_equal(count_hops(cluster), 0, "hops a request")

    sync = follow(cluster)
    third, fourth = cluster.node(3).address, cluster.node(4).address
    added = cluster.proxy.get(f"/add_node/5000/{third}", timeout=30)
    expect_equal(added.status, 200, f"adding a node that HAProxy does not know: {added}")
    ring = cluster.first_ring.adding(5000, third)
    began = time.monotonic()
    wait_for_map(cluster, ring)
    context.note(f"{without:.2f} hops a request without the map, 0 with it; {time.monotonic() - began:.1f} s after add_node")
    name = "n-" + re.sub(r"[.:]", "-", third)
    expect_equal(servers(cluster).get(name), third, "the newcomer's server")
    wait_until_up(cluster, name)
    expect_equal(count_hops(cluster), 0, "hops a request after add_node")

    # A reload forgets all of that, and is told again. (The newcomer is in the file, by another name.)
    cluster.proxy.reload()
    wait_for_map(cluster, ring)
    wait_until_up(cluster, "node3")
    expect_equal(count_hops(cluster), 0, "hops a request after a reload")

    # Whoever leaves is drained, and its server is taken away; one that comes back meanwhile is used again.
    expect_equal(cluster.proxy.get(f"/add_node/9000/{fourth}", timeout=30).status, 200, "adding another one")
    ring = ring.adding(9000, fourth)
    wait_for_map(cluster, ring)
    install(cluster, Ring({p: n for p, n in ring.nodes_by_position.items() if n != third}))
    ring = ring.removing(third)
    wait_for_map(cluster, ring)
    eventually(10, "the server of whoever left is drained, or gone already", lambda: state_of(cluster, third) != "UP")
    expect_equal(cluster.proxy.get(f"/add_node/5000/{third}", timeout=30).status, 200, "adding it again")
    wait_for_map(cluster, ring.adding(5000, third))
    eventually(10, "it is up again", lambda: state_of(cluster, third) == "UP")
    install(cluster, ring)
    eventually(60, "the server of whoever left is gone", lambda: third not in servers(cluster).values())

    # With a map that is wrong, or a stale one, answers are right all the same.
    expect(sync.alive, "the sync has ended")
    sync.terminate()
    path = f"{cluster.directory}/ring.map"
    cluster.proxy.order(f"clear map {path}")
    cluster.proxy.order(f"add map {path} 0:9999 node2")
    use_all(cluster)
    cluster.proxy.order(f"clear map {path}")
    cluster.proxy.order(f"add map {path} 0:9999 nobody:node1")
    use_all(cluster)


def install(cluster, ring, replicas=1):
    for node in cluster.nodes:
        if node.address in ring.nodes_by_position.values():
            expect_equal(node.install_ring(ring, replicas=replicas).status, 200, "installing a ring")


def wait_for_map(cluster, ring):
    def names_it():
        names = {address: name for name, address in servers(cluster).items()}
        wanted = {slot: names.get(ring.owner_of_slot(slot)) for slot in range(0, 10_000, 7)}
        found = {}
        for key, value in entries(cluster).items():
            first, last = map(int, key.split(":"))
            found.update({slot: value for slot in range(first, last + 1)})
        return all(found.get(slot) == name for slot, name in wanted.items())
    eventually(10, "HAProxy's map is that of the ring", names_it)


def state_of(cluster, address):
    """UP, DOWN, DRAIN, MAINT, as HAProxy has it; None where it has no such server."""
    lines = cluster.proxy.order("show stat").splitlines()
    titles = lines[0][2:].split(",")
    found = [dict(zip(titles, line.split(","))) for line in lines[1:] if line]
    return next((server["status"].split()[0] for server in found if server["pxname"] == "nodes" and server["addr"] == address), None)


def wait_until_up(cluster, name):
    eventually(5, f"{name} is up", lambda: re.search(rf"^nodes,{name},.*,UP,", cluster.proxy.order("show stat"), re.M))


def a_node_is_down(cluster):
    """The next replica takes the slots of a node that is down, also where the sync has ended; nothing else changes."""
    Kvctl(cluster.node(2).address)("haproxy", "sync", "--socket", cluster.proxy.socket_path, "--drain", "0").expect()
    expect_equal(entries(cluster), {"0:3000": "node1:node2:node3", "3001:6000": "node2:node3:node1", "6001:9000": "node3:node1:node2",
                                    "9001:9999": "node1:node2:node3"}, "the map")
    for key in KEYS:
        expect_equal(cluster.proxy.store(key, f"value of {key}").status, 200, f"storing {key}")
    for stop, resume in ((lambda node: node.end_daemon(), None), (lambda node: node.pause_host(), lambda node: node.resume_host())):
        node = cluster.node(1)
        stop(node)
        for key in KEYS:
            expect_equal(cluster.proxy.read(key).text, f"value of {key}", f"{key} while its owner may be down")
        if resume:
            resume(node)
        else:
            eventually(5, "HAProxy has seen it", lambda: re.search(r"^nodes,node1,.*,DOWN,", cluster.proxy.order("show stat"), re.M))
            for key in KEYS:
                expect_equal(cluster.proxy.store(key, f"value of {key}").status, 200, f"storing {key} while node 1 is down")
            node.start_daemon()
            node.wait_until_alive()
            node.wait_until_ready()
            eventually(5, "HAProxy has seen it", lambda: re.search(r"^nodes,node1,.*,UP,", cluster.proxy.order("show stat"), re.M))


def what_goes_wrong(cluster):
    """HAProxy or all nodes are away, or a map is longer than a command: it is said once, healed, and nothing stays behind."""
    log = cluster.directory / "sync.log"
    sync = follow(cluster)
    wait_for_map(cluster, cluster.first_ring)

    # 100 nodes at 40 positions each, and the two that are there, and are asked.
    def seat(number):
        return cluster.addresses[number] if number < 2 else f"10.77.0.{number % 100}:5000"
    install(cluster, Ring({number * 2: seat(number) for number in range(4000)}), 3)
    eventually(30, "the map has a range for each position", lambda: len(entries(cluster)) == 4001)
    expect(len(servers(cluster)) > 100, f"{len(servers(cluster))} servers")
    # Nodes come and go sooner than anybody looks.
    for number in range(5):
        install(cluster, cluster.first_ring.adding(5000, f"10.77.9.{number}:5000"))
        time.sleep(0.1)
    install(cluster, cluster.first_ring)
    wait_for_map(cluster, cluster.first_ring)
    eventually(60, "all those are gone again", lambda: sorted(servers(cluster)) == ["node1", "node2"])

    # One after the other, each told once.
    before = log.read_text()
    for node in cluster.nodes:
        node.pause_host()
    eventually(20, "it says that nobody answers", lambda: "no node tells" in log.read_text())
    time.sleep(3)
    for node in cluster.nodes:
        node.resume_host()
    eventually(20, "it says that it works again", lambda: "works again" in log.read_text())
    expect_equal(log.read_text()[len(before):].count("no node tells"), 1, "lines of nodes that are away")
    expect_equal(sorted(servers(cluster)), ["node1", "node2"], "the servers")
    before = log.read_text()
    cluster.proxy.end()
    eventually(20, "it says that HAProxy is away", lambda: "does not listen" in log.read_text())
    time.sleep(1)
    cluster.proxy.start()
    wait_for_map(cluster, cluster.first_ring)
    expect_equal(log.read_text()[len(before):].count("does not listen"), 1, "lines of an HAProxy that is away")
    # (A connection stays for some seconds, in case that it is used again.)
    eventually(20, "few descriptors are open", lambda: len(os.listdir(f"/proc/{sync.pid}/fd")) < 60)

    expect(sync.alive, "the sync has ended")
    sync.signal(signal.SIGTERM)
    expect(sync.wait(10), "it goes on after SIGTERM")
    expect_equal((sync.exit_code, log.read_text().rstrip().splitlines()[-1].count("no node")), (0, 0), "how it ended")

    # An order that HAProxy does not take, each time anew.
    kvctl = Kvctl(cluster.node(1).address)
    kvctl("haproxy", "sync", "--socket", cluster.proxy.socket_path, "--backend", "others").expect(FAILED, says="HAProxy answers with")
    kvctl("haproxy", "sync", "--socket", cluster.proxy.socket_path, "--map", "others").expect(FAILED, says="HAProxy has no map")
    versions = []
    with Refusing(cluster.directory / "refusing.sock", cluster.proxy.order, "add map @") as refusing:
        cluster.proxy.order(f"clear map {cluster.directory}/ring.map")
        for _ in range(3):
            kvctl("haproxy", "sync", "--socket", refusing.path).expect(FAILED, says="out of memory")
        versions = [line.split()[2] for line in refusing.seen if line.startswith("clear map @")]
    expect_equal(len(set(versions)), 3, f"prepared maps that were given up: {versions}")


class Refusing(socketserver.ThreadingUnixStreamServer):
    """HAProxy's admin socket, but for one order, which it is said to have no memory for."""

    daemon_threads = True

    def __init__(self, path, order, refused):
        self.path, self.order, self.refused, self.seen = path, order, refused, []
        super().__init__(str(path), Passing)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Passing(socketserver.BaseRequestHandler):
    def handle(self):
        line = self.request.recv(1 << 16).decode()
        self.server.seen.append(line)
        refused = line.startswith(self.server.refused)
        self.request.sendall(b"out of memory\n\n" if refused else self.server.order(line.strip()).encode() + b"\n")


def too_many_requests(context):
    """One line of haproxy.cfg says how many an address may send."""
    text = (REPOSITORY / "haproxy.cfg").read_text()
    line = re.findall(r"^    http-request deny status 429 .*$", text, re.M)
    expect_equal(len(line), 1, "lines that limit")
    with context.cluster() as cluster:
        path = cluster.directory / "haproxy.cfg"
        path.write_text(re.sub(r"(sc_http_req_rate\(0\) gt) \d+", r"\1 50", path.read_text()))
        cluster.proxy.reload()
        answers = eventually(10, "there is a limit", lambda: limited(cluster))
        expect(answers.header("X-KV-Outcome") == "not-applied" and answers.header("Retry-After"), f"{answers}")
        metrics = urllib.request.urlopen(f"http://{cluster.proxy.statistics_address}/metrics", timeout=5).read()
        expect(b"haproxy_server_status{" in metrics, "HAProxy's metrics")


def limited(cluster):
    for _ in range(100):
        answer = cluster.proxy.get("/route?key=roof")
        if answer.status == 429:
            return answer
    return None
