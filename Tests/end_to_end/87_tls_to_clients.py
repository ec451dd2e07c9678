# SPDX-License-Identifier: Apache-2.0
"""TLS to clients: who is trusted, what is refused, what a broken file says, and new certificates under load."""

import base64
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time

from harness.client import ConnectionLost, form_request, read_request, request_bytes, socket_address, store_request
from harness.cluster import find_kvctl_binary
from harness.expectations import eventually, expect, expect_equal
from harness.tls import Authority, SecureConnection, ask, host_of, is_cut_off, secure_cluster

TOKENS = {door: secrets.token_hex(32) for door in ("admin", "peer")}
MEMCACHED_PORT = 11311


def run(context):
    cluster = context.cluster(nodes=2, tokens=TOKENS, positions={3000: 1, 8000: 2}, replicas=2, proxy=False, settings={"memcachedPort": MEMCACHED_PORT})
    authority, stranger = (Authority(cluster.directory / name) for name in ("certificates", "strangers"))
    secure_cluster(cluster, authority)
    with cluster:
        requests_through_tls(cluster, authority)
        the_memcached_protocol_is_secured_as_well(cluster, authority)
        who_trusts_another_authority_says_nothing(cluster, stranger)
        old_versions_are_refused(context, cluster, authority)
        plain_text_is_cut_off(cluster, authority)
        slow_handshakes_are_cut_off(context, cluster)
        kvctl_speaks_tls(cluster, authority, stranger)
        broken_files_change_nothing(context, cluster, authority, stranger)
        new_certificates_under_load(context, cluster, authority)


def requests_through_tls(cluster, authority):
    node = cluster.node(1)
    with SecureConnection(node.address, authority.context()) as connection:
        expect(connection.version_of_tls in ("TLSv1.2", "TLSv1.3"), connection.version_of_tls)
        expect_equal(connection.store("roof", "red").status, 200, "storing a pair")
        expect_equal(connection.read("roof").body, b"red", "reading it")
        connection.send(50 * read_request("roof") + request_bytes("GET", "/route_test?key=roof") + 50 * read_request("roof"))
        bodies = [connection.read_answer().body for _ in range(101)]
        expect(bodies.count(b"red") == 100 and bodies[50] in (b.address.encode() for b in cluster.nodes), f"many in a row: {bodies[48:53]}")
        large = os.urandom(3 << 20)
        expect_equal(connection.request("PUT", "/keys/large", large).status, 204, "a large value")
        expect(connection.request("GET", "/keys/large").body == large, "the large value comes back otherwise")
        answer = connection.request("GET", "/nothing", headers=[("Connection", "close")])
        expect(answer.status == 404 and answer.closes, f"the last answer: {answer}")
        eventually(5, "the connection ends", connection.has_bytes_waiting)
    for number in range(20):
        expect_equal(cluster.nodes[number % 2].store(f"key{number}", "1").status, 200, "storing at any node")
        expect_equal(cluster.nodes[(number + 1) % 2].read(f"key{number}").body, b"1", "and reading at another")
    limited = authority.context()
    limited.maximum_version = ssl.TLSVersion.TLSv1_2
    expect_equal(ask(node.address, limited, read_request("roof")).body, b"red", "with TLS 1.2")


def the_memcached_protocol_is_secured_as_well(cluster, authority):
    place = f"{host_of(cluster.node(1).address)}:{MEMCACHED_PORT}"
    with socket.create_connection(socket_address(place), 5) as plain:
        with authority.context().wrap_socket(plain, server_hostname=host_of(place)) as connection:
            connection.sendall(b"get roof\r\nquit\r\n")
            heard = b""
            while part := connection.recv(4096):
                heard += part
    expect_equal(heard, b"VALUE roof 0 3\r\nred\r\nEND\r\n", "memcached's protocol over TLS")
    ended, heard = is_cut_off(place, b"get roof\r\n")
    expect(ended and b"red" not in heard, f"memcached's protocol in plain text: {heard}")


def who_trusts_another_authority_says_nothing(cluster, stranger):
    stranger.make(host_of(cluster.node(1).address))
    try:
        ask(cluster.node(1).address, stranger.context(), read_request("roof"))
    except ssl.SSLCertVerificationError:
        return
    raise AssertionError("a certificate of another authority was taken")


def old_versions_are_refused(context, cluster, authority):
    """By openssl, told to allow what it would not."""
    def handshake(version):
        return subprocess.run(["openssl", "s_client", "-connect", cluster.node(1).address, version, "-cipher", "DEFAULT@SECLEVEL=0", "-CAfile",
                               authority.certificate], input=b"", capture_output=True, timeout=20)
    for version, is_taken in (("-tls1", False), ("-tls1_1", False), ("-tls1_2", True)):
        done = handshake(version)
        is_up = b"Verify return code: 0 (ok)" in done.stdout and done.returncode == 0
        expect(is_up == is_taken, f"openssl s_client {version}: {done.returncode} {done.stdout[-400:]} {done.stderr[-300:]}")
    context.note("TLS 1.0 and 1.1 refused")


def plain_text_is_cut_off(cluster, authority):
    node = cluster.node(1)
    for data in (read_request("roof"), request_bytes("POST", "/clear_cache"), b"\x16\x03\x01\xff\xff" + os.urandom(2000), b"\0" * 100, os.urandom(5000)):
        ended, heard = is_cut_off(node.address, data)
        expect(ended and not heard.startswith(b"HTTP/"), f"{data[:20]}: {heard[:100]}")
    # A client that resets in the middle of its handshake.
    for _ in range(20):
        with socket.create_connection(socket_address(node.address), 5) as connection:
            connection.sendall(b"\x16\x03\x01\x00\x80\x01")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    expect_equal(node.unexpected_deaths(), [], "workers that died of it")
    expect_equal(ask(node.address, authority.context(), read_request("roof")).body, b"red", "a good client after all that")


def slow_handshakes_are_cut_off(context, cluster):
    """However it drips: the time is absolute."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    began = time.monotonic()
    with socket.create_connection(socket_address(cluster.node(1).address), 5) as connection:
        connection.settimeout(0.2)
        connection.sendall(hello[:5])
        while time.monotonic() - began < 20:
            try:
                connection.sendall(b"\0")
                if not connection.recv(4096):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    took = time.monotonic() - began
    expect(took < 10, f"a slow handshake goes on after {took:.0f} s")
    context.note(f"slow handshake cut off after {took:.1f} s")


def kvctl_speaks_tls(cluster, authority, stranger):
    node = cluster.node(1).address
    token = cluster.directory / "admin-token"

    def kvctl(*words, ca=authority.certificate):
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
        return subprocess.run([find_kvctl_binary(), *words, "--node", node, *(["--ca", ca] if ca else []), "--token-file", token], capture_output=True,
                              text=True, timeout=60, env=environment)
    put = kvctl("put", "wall", "white")
    expect_equal(put.returncode, 0, f"kvctl put: {put}")
    expect_equal(kvctl("get", "wall").stdout.strip(), "white", "kvctl get")
    status = kvctl("status")
    expect(status.returncode == 0 and all(other in status.stdout for other in cluster.addresses), f"kvctl status: {status}")
    for words, ca, says in ((("get", "wall"), stranger.certificate, "its certificate is not one that --ca's authority has signed"),
                            (("get", "wall"), "/nonexistent/ca.pem", "can't be read: No such file"), (("get", "wall"), str(token), "has no certificate in PEM"),
                            (("get", "wall"), None, "if it speaks TLS, name its authority by --ca")):
        done = kvctl(*words, ca=ca)
        expect(done.returncode != 0 and says in done.stderr and "wall" not in done.stdout, f"kvctl with {ca}: {done}")


def reload(node, waits=True):
    before = node.workers()
    node.supervisor.signal(signal.SIGHUP)
    if waits:
        node.wait_until_replaced(before, 30)


def shown(node, authority):
    with SecureConnection(node.address, authority.context()) as connection:
        return connection.certificate


def of_file(path):
    return base64.b64decode("".join(line for line in open(path, encoding="ascii").read().splitlines() if "-" not in line))


def broken_files_change_nothing(context, cluster, authority, stranger):
    node = cluster.node(1)
    host = host_of(node.address)
    before = shown(node, authority)
    key, chain = authority.key(host), authority.chain(host)
    kept = {path: open(path, encoding="ascii").read() for path in (key, chain)}

    def write(path, text, mode=0o600):
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        os.chmod(path, mode)
    wrongs = {
        "is not that of the certificate": lambda: shutil.copy(stranger.key(host), key),
        "has no certificate in PEM": lambda: write(chain, "nothing"),
        "has no key in PEM that can be used": lambda: write(key, kept[key][:100]),
        "can be read by others than its owner": lambda: os.chmod(key, 0o644),
        "can't be read: No such file or directory": lambda: os.unlink(chain),
    }
    for says, break_it in wrongs.items():
        lines, workers = node.log_path.read_text().count(says), node.workers()
        break_it()
        reload(node, waits=False)
        eventually(10, f"the log says: {says}", lambda: node.log_path.read_text().count(says) > lines)
        expect("the configuration stays as it was" in node.log_tail(3), node.log_tail(3))
        expect_equal(node.workers(), workers, "workers after a reload that was refused")
        expect_equal(shown(node, authority), before, "the certificate meanwhile")
        for path, text in kept.items():
            write(path, text)
    plain = {name: node.settings.pop(name) for name in ("tlsCertificateFile", "tlsKeyFile")}
    node.change_settings()
    reload(node, waits=False)
    eventually(10, "TLS is not turned off by a reload", lambda: "to turn TLS on or off needs a restart" in node.log_tail(3))
    expect_equal(shown(node, authority), before, "the certificate after that")
    node.change_settings(**plain)
    # A worker that is started meanwhile has what the supervisor had read.
    os.unlink(key)
    victim = node.kill_worker(context.random)
    node.wait_until_replaced([victim], 10)
    expect_equal({shown(node, authority) for _ in range(20)}, {before}, "the certificate of a new worker")
    write(key, kept[key])
    expect("BEGIN" not in node.log_path.read_text(), "a key in the log")


class Clients:
    """Some that ask all the time, each on a connection that it keeps, and begin another one when they are told to."""

    def __init__(self, address, authority, count):
        self.failures, self.done = [], 0
        self._is_over = threading.Event()
        self._address, self._context = address, authority.context()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, number):
        turn, connection = 0, None
        while not self._is_over.is_set():
            turn += 1
            try:
                connection = connection or SecureConnection(self._address, self._context)
                key = f"{self._address} {number}"
                stored = connection.exchange(store_request(key, str(turn)))
                if stored.status != 200:
                    self.failures.append(f"storing {key}: {stored}")
                if stored.closes:
                    connection.close()
                    connection = SecureConnection(self._address, self._context)
                read = connection.exchange(read_request(key))
                if read.body != str(turn).encode():
                    self.failures.append(f"reading {key}, {turn}: {read}")
                if read.closes:
                    connection.close()
                    connection = None
                self.done += 2
            except (ConnectionLost, OSError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                connection = None

    def stop(self):
        self._is_over.set()
        for thread in self._threads:
            thread.join(20)


def new_certificates_under_load(context, cluster, authority):
    rounds = context.short_or_full(3, 10)
    clients = [Clients(node.address, authority, 4) for node in cluster.nodes]
    for _ in range(rounds):
        for node, load in zip(cluster.nodes, clients):
            before, count = shown(node, authority), load.done
            eventually(10, "requests are answered", lambda: load.done > count + 50)
            authority.make(host_of(node.address))
            reload(node)
            fresh = of_file(authority.chain(host_of(node.address)))
            expect(fresh != before, "the certificate is no new one")
            expect_equal({shown(node, authority) for _ in range(20)}, {fresh}, "the certificate after a reload")
    for load in clients:
        load.stop()
    failures = [failure for load in clients for failure in load.failures]
    expect(not failures, f"{len(failures)} requests failed, such as {failures[:3]}")
    node = cluster.node(1)
    authority.make(host_of(node.address), options=("--days", "9"))
    reload(node)
    expect(len(re.findall("expires in [89] days", node.log_path.read_text())) == 1, "no warning of a certificate that is about to expire")
    cluster.accept_present_workers()
    context.note(f"{2 * rounds} reloads with new certificates, {sum(load.done for load in clients)} requests, none failed")
