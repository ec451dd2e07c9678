# SPDX-License-Identifier: Apache-2.0
"""kvctl at wrong addresses, with output that goes nowhere, names that are none, disks that are full: its exit status says what became of the
request, and nothing is done twice, to another pair, or in another file."""

import os
import resource
import signal
import socketserver
import subprocess
import threading
import time

from harness.client import exchange_many, store_request
from harness.cluster import find_kvctl_binary
from harness.expectations import eventually, expect, expect_equal
from harness.kvctl import DONE, FAILED, NOT_FOUND, UNAVAILABLE, UNKNOWN, USAGE, Kvctl

LIMIT_SECONDS = 120


def run(context):
    with context.cluster(replicas=None) as cluster:
        kvctl = Kvctl(cluster.proxy.address)
        wrong_addresses(cluster, kvctl)
        arguments(cluster, kvctl)
        outputs(cluster, kvctl)
        files(cluster, kvctl)
    with context.cluster() as cluster:
        cluster.install_ring(cluster.first_ring, standbys=[cluster.node(3).address])
        the_node_that_was_asked_dies(cluster)


def started(cluster, *words, node=None, descriptors=None, prepare=None, **further):
    """Its status, what it says to standard output and error."""
    def enter():
        for descriptor in descriptors or ():
            os.close(descriptor)
        if prepare:
            prepare()
    process = subprocess.Popen(
        [find_kvctl_binary(), *words], env={**os.environ, "KVCTL_NODE": cluster.proxy.address if node is None else node}, preexec_fn=enter,
        stdin=subprocess.DEVNULL, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **further})
    output, errors = process.communicate(timeout=30)
    return process.returncode, output, (errors or b"").decode(errors="replace")


class Stranger(socketserver.ThreadingTCPServer):
    """Answers whatever is asked with the same bytes, and closes."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address, reply):
        self.reply = reply
        host, port = address.split(":")
        super().__init__((host, int(port)), Answering)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Answering(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(1 << 16)
        self.request.sendall(self.server.reply)


def web(status, body=b"<html>hello", *fields):
    head = [f"HTTP/1.1 {status} Something", f"Content-Length: {len(body)}", "Connection: close", *fields, "", ""]
    return "\r\n".join(head).encode() + body


def wrong_addresses(cluster, kvctl):
    """Whoever is no node does not tell of pairs, and has stored nothing."""
    address = cluster.unused_address()
    asked = {"get": ["get", "roof"], "put": ["put", "roof", "red"], "delete": ["delete", "roof"], "incr": ["incr", "roof"]}
    for status, wanted in ((200, FAILED), (204, FAILED), (301, FAILED), (302, FAILED), (404, FAILED), (412, FAILED), (403, FAILED)):
        with Stranger(address, web(status, b"" if status == 204 else b"<html>")):
            for words in asked.values():
                kvctl(*words, "--node", address).expect(wanted)
    with Stranger(address, b"ERROR\r\n"):
        kvctl("get", "roof", "--node", address).expect(UNAVAILABLE, says="broke off")
        kvctl("put", "roof", "red", "--node", address).expect(UNKNOWN, says="not known")
    for body in (b"two\nlines\r\n\x1b[31mred\x07", b'{"detail": "two\\nlines \\u001b[31mred"}'):
        with Stranger(address, web(400, body, "X-KV-Outcome: not-applied")):
            for words in (asked["get"], [*asked["put"], "--json"]):
                refused = kvctl(*words, "--node", address).expect(FAILED, says="two")
                text = refused.errors.decode()
                expect(text.count("\n") == 1 and "\x1b" not in text and not refused.output, f"more than a line: {refused.errors}")
    kvctl("put", "roof", "red").expect()
    # HAProxy's own page answers everything with 200.
    kvctl("get", "roof", "--node", cluster.proxy.statistics_address).expect(FAILED)
    kvctl("get", "nothing", "--json").expect(NOT_FOUND)


def arguments(cluster, kvctl):
    """What is no text, or no header field, is refused before anything is sent."""
    replaced = "\N{REPLACEMENT CHARACTER}"
    kvctl("put", replaced, "stays").expect()
    for words in (["delete", b"\xff"], ["put", b"\xff", "x"], ["put", "x", b"\xff"], ["get", b"\xff"]):
        status, output, errors = started(cluster, *words)
        expect((status, output) == (USAGE, b"") and "UTF-8" in errors, f"{words}: {status}, {output!r}, {errors}")
    expect_equal(kvctl("get", replaced).expect().text, "stays", "the pair that is called as what is no text is shown")
    kvctl("delete", replaced).expect()
    for words in (["--content-type", "a/b\r\nX: y"], ["--if-match", "1\n"], ["--if-none-match", "\x01"]):
        kvctl("put", "x", "y", *words).expect(USAGE, says="control characters")
    for nodes in ("127.0.0.1:1,nonsense", "nonsense", ""):
        status, _, errors = started(cluster, "haproxy", "sync", node=nodes)
        expect((status, "ip:port" in errors) == (USAGE, True), f"KVCTL_NODE={nodes}: {status}, {errors}")


def outputs(cluster, kvctl):
    """What was done says so where it can't be told; a reader that has enough is no error to be told of."""
    for number in range(3):
        kvctl("put", f"listed{number}", "x" * 100_000).expect()
    with open("/dev/full", "wb") as full:
        status, _, errors = started(cluster, "incr", "once", stdout=full)
        expect(status == UNKNOWN and "it is done" in errors, f"a counter that can't be shown: {status}, {errors}")
        status, _, errors = started(cluster, "put", "once-put", "x", "--json", stdout=full)
        expect(status == UNKNOWN and "it is done" in errors, f"a version that can't be shown: {status}, {errors}")
        status, _, errors = started(cluster, "get", "listed0", stdout=full)
        expect(status == FAILED and "No space left" in errors, f"a value that can't be shown: {status}, {errors}")
        status, _, errors = started(cluster, "put", "quiet", "x", stdout=full)
        expect_equal((status, errors), (DONE, ""), "what shows nothing")
    expect_equal(kvctl("get", "once").expect().text, "1", "the counter")
    for words in (["list"], ["list", "--json"], ["get", "listed0"], ["status"], ["ring", "show", "--json"]):
        reader, writer = os.pipe()
        os.close(reader)
        status, _, errors = started(cluster, *words, stdout=writer)
        os.close(writer)
        expect_equal((status, errors), (FAILED, ""), f"{words} where nobody reads")
    status, _, errors = started(cluster, "get", "listed0", descriptors=[1], stdout=None)
    expect(status == FAILED and "can't write" in errors, f"without standard output: {status}, {errors}")
    status, _, _ = started(cluster, "get", "nothing", descriptors=[0, 1, 2], stdout=None, stderr=None)
    expect_equal(status, NOT_FOUND, "without any of the three")


def files(cluster, kvctl):
    """A backup is whole or is said not to be, whatever else there is in its place."""
    directory = cluster.directory
    file, partial = directory / "pairs", directory / "pairs.partial"
    # The file would become standard output, and be written to by whoever shows the progress.
    status, _, errors = started(cluster, "backup", str(file), descriptors=[0, 1], stdout=None)
    expect(status == FAILED and "can't write" in errors, f"a backup that can't say that it is done: {status}, {errors}")
    kvctl("verify", file).expect(says="whole")
    whole = file.read_bytes()

    kvctl("backup", directory, "--overwrite").expect(FAILED, says="is a directory")
    expect(not directory.with_name(directory.name + ".partial").exists(), "it was begun all the same")
    kvctl("backup", file).expect(FAILED, says="--overwrite")
    kvctl("backup", "/proc/nothing/pairs").expect(FAILED, says="No such file")
    link = directory / "nowhere"
    link.symlink_to("/proc/nothing")
    kvctl("backup", link / "pairs").expect(FAILED)
    for command in (["verify"], ["restore"], ["backup", "--verify"]):
        kvctl(*command, directory).expect(FAILED, says="Is a directory")
        kvctl(*command, directory / "none").expect(FAILED, says="No such file")
    pipe = directory / "pipe"
    os.mkfifo(pipe)
    keeper = os.open(pipe, os.O_RDWR)
    kvctl("verify", pipe).expect(FAILED, says="can't read")
    os.close(keeper)
    damaged = directory / "damaged"
    for content in (b"", whole[:100], whole[:-1], whole + b"x", b"#!/bin/sh\n" * 100, whole[:8] + b"\x02" + whole[9:], whole[:200] + b"x" + whole[201:]):
        damaged.write_bytes(content)
        for command in ("verify", "restore"):
            said = kvctl(command, damaged, "--json").expect(FAILED)
            expect(not said.output and said.errors.count(b"\n") == 1, f"{content[:10]}: {said.output}, {said.errors}")

    # A disk that is full, as a limit of the file's size has it.
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    file.unlink()
    status, output, errors = started(cluster, "backup", str(file), prepare=limit)
    expect(status == FAILED and "can't write" in errors and not output, f"a full disk: {status}, {output!r}, {errors}")
    expect(not file.exists() and partial.stat().st_size == 1000, "what is not whole took the name")
    kvctl("backup", file, "--resume").expect()
    kvctl("verify", file).expect(says="whole")
    expect(not partial.exists(), "the part has stayed")


def the_node_that_was_asked_dies(cluster):
    """The others know how the change goes on, and kvctl asks them: what was begun is not said not to have been."""
    asked, standby = cluster.node(1), cluster.node(3).address
    for _, _, _, answer in exchange_many(cluster.addresses[:2], [store_request(f"key{number}", "value") for number in range(2000)]):
        expect_equal(answer.status, 200, "storing what is to move")
    for node in cluster.nodes:
        node.set_failpoints("ring.job.copy.batch=sleep:1400")
    process = Kvctl(asked.address).start("ring", "add", standby, "--position", "5000")
    eventually(10, "the change is under way", lambda: cluster.node(2).status()["transition"])
    asked.end_daemon()
    time.sleep(4)
    expect(process.poll() is None, f"kvctl has ended: {process.poll()}, {process.stderr.read() if process.poll() else ''}")
    for node in cluster.nodes:
        node.set_failpoints()
    asked.start_daemon()
    asked.wait_until_alive()
    output, errors = process.communicate(timeout=60)
    expect(process.returncode == DONE and b"completed" in output, f"status {process.returncode}: {output}, {errors}")
    expect_equal(cluster.wait_for_one_ring(), cluster.first_ring.adding(5000, standby), "the ring")
