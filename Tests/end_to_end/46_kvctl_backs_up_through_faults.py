# SPDX-License-Identifier: Apache-2.0
"""A backup and a restore that are interrupted, refused, or meet a damaged file: against a stand-in for a node that fails as it is told."""

import base64
import http.server
import json
import shutil
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

from harness.cluster import AddressBlock
from harness.expectations import eventually, expect, expect_equal
from harness.kvctl import FAILED, NOT_FOUND, UNAVAILABLE, Kvctl


class StandIn(http.server.ThreadingHTTPServer):
    """Pages of records, a few to each; `faults` are used up in turn: a status, or "break" for half a body and no more."""

    daemon_threads = True

    def __init__(self, address, keys, page=40, value=2000):
        host, port = address.split(":")
        self.keys = {f"d{number:04}:key{number}".encode(): (b"%024d" % number) * (value // 24) for number in range(keys)}
        self.page, self.faults, self.pause, self.asked, self.imported = page, [], 0, [], {}
        self.address = address
        super().__init__((host, int(port)), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """A kvctl that was killed has closed its connection."""


def record(key, envelope):
    return bytes([len(key)]) + key + len(envelope).to_bytes(4, "big") + envelope


def records(body):
    found = {}
    while body:
        length = body[0]
        size = int.from_bytes(body[1 + length:5 + length], "big")
        found[body[1:1 + length]] = body[5 + length:5 + length + size]
        body = body[5 + length + size:]
    return found


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, **headers):
        fault = self.server.faults.pop(0) if self.server.faults else None
        if isinstance(fault, int):
            status, body = fault, b'{"detail":"Not now."}'
            headers = {"X-KV-Outcome": "not-applied"}
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if fault == "break":
            self.wfile.write(body[:len(body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def do_GET(self):
        node, url = self.server, urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/hash_ring":
            body = {"ring": {"1": node.address}, "_sorted_keys": [1], "epoch": 3, "replicas": 1, "standbys": []}
            return Handler.answer_plainly(self, json.dumps(body).encode())
        node.asked.append(self.path)
        first = int(query.get("cursor", "at/0").removeprefix("at/"))
        time.sleep(node.pause)
        if url.path == "/keys:export":
            page = list(node.keys.items())[first:first + node.page]
            last = first + node.page >= len(node.keys)
            return self.answer(200, b"".join(record(*pair) for pair in page), **({} if last else {"X-KV-Cursor": f"at/{first + node.page}"}))
        limit = min(int(query["limit"]), 7)
        names = [name for name in ["plain", "with \\ and\n", "grün", b"\xff\x00", *(f"n{number}" for number in range(30))]
                 if query.get("prefix", "") in str(name)]
        keys = [{"keyBase64": base64.b64encode(name).decode()} if isinstance(name, bytes) else {"key": name}
                for name in names[first:first + limit]]
        page = {"keys": [{**key, "version": "0" * 24, "bytes": 1} for key in keys]}
        if first + limit < len(names):
            page["cursor"] = f"at/{first + limit}"
        # (Some pages are empty.)
        return self.answer(200, json.dumps(page).encode())

    def answer_plainly(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        before = len(self.server.imported)
        self.server.imported.update(records(body))
        stored = len(self.server.imported) - before
        self.answer(200, json.dumps({"stored": stored, "kept": len(records(body)) - stored}).encode())


def run(context):
    block = AddressBlock()
    directory = Path(tempfile.mkdtemp(prefix="kvserver-e2e-"))
    node = StandIn(block.address(11), keys=1000)
    try:
        kvctl = Kvctl(node.address)
        listing(node, kvctl)
        backup(node, kvctl, directory)
        resumed(node, kvctl, directory)
        damaged(context, node, kvctl, directory)
    finally:
        node.shutdown()
        node.server_close()
        block.release()
        shutil.rmtree(directory)


def listing(node, kvctl):
    lines = kvctl("list").expect().lines
    expect_equal(lines[:4], ["plain", "with \\x5C and\\x0A", "grün", "\\xFF\\x00"], "names")
    expect_equal(len(lines), 34, "keys")
    found = [json.loads(line) for line in kvctl("list", "--json").expect().lines]
    expect_equal([key.get("key") for key in found[:4]], ["plain", "with \\ and\n", "grün", None], "names as JSON")
    expect_equal(kvctl("list", "--limit", "9").expect().lines[7:], ["n3", "n4"][:2], "no more than was asked for")
    expect_equal(kvctl("list", "--prefix", "grü").expect().lines, ["grün"], "a prefix")
    node.faults = [503, 503]
    expect_equal(len(kvctl("list").expect().lines), 34, "a listing that had to ask again")


def backup(node, kvctl, directory):
    file = directory / "whole"
    node.faults = [503, "break", None, "break", 503]
    report = kvctl("backup", file, "--json").expect().json
    expect_equal((report["pairs"], report["blocks"]), (1000, 25), "a backup through faults")
    expect(not Path(f"{file}.partial").exists(), "its partial file is left")
    kvctl("verify", file).expect(says="whole, 1000 pairs")
    kvctl("backup", "--verify", file).expect(says="whole, 1000 pairs")
    kvctl("backup", file).expect(FAILED, says="--overwrite")
    kvctl("backup", file, "--overwrite").expect(says="1000 pairs")
    node.faults = [503, "break", 503, None, "break"]
    report = kvctl("restore", file, "--json").expect().json
    expect_equal(node.imported, node.keys, "what was restored")
    # (What was stored before its answer broke off counts as kept the second time.)
    expect_equal(report["stored"] + report["kept"], 1000, "the restore's counts")
    kvctl("restore", file).expect(says="0 pairs stored, 1000 were as new already")
    kvctl("restore", directory / "none").expect(FAILED, says="can't open")
    node.faults = [400]
    kvctl("restore", file).expect(FAILED, says="Not now.")
    node.faults = [404]
    kvctl("backup", directory / "other").expect(NOT_FOUND)


def resumed(node, kvctl, directory):
    file = directory / "resumed"
    node.pause = 0.05
    for _ in range(3):
        node.asked.clear()
        process = kvctl.start("backup", file, "--resume")
        eventually(10, "some pages are there", lambda: len(node.asked) >= 5)
        process.kill()
        process.wait()
        expect(not file.exists(), "a part has the whole one's name")
    node.pause = 0
    # What it was writing when it was interrupted is not believed.
    with open(f"{file}.partial", "ab") as partial:
        partial.write(b"\x01\x00\x04at/9\x00\x00\x10\x00" + b"x" * 100)
    node.asked.clear()
    kvctl("backup", file, "--resume").expect(says="1000 pairs")
    expect(0 < len(node.asked) < 20, f"it began anew: {len(node.asked)} pages of 25")
    kvctl("verify", file).expect(says="whole, 1000 pairs")
    node.imported.clear()
    kvctl("restore", file).expect(says="1000 pairs stored, 0 were")
    expect_equal(node.imported, node.keys, "what was restored")


def damaged(context, node, kvctl, directory):
    whole = (directory / "whole").read_bytes()
    file = directory / "damaged"
    node.imported.clear()
    for _ in range(10):
        index = context.random.randrange(len(whole))
        file.write_bytes(whole[:index] + bytes([whole[index] ^ 1 << context.random.randrange(8)]) + whole[index + 1:])
        kvctl("verify", file).expect(FAILED)
        kvctl("restore", file).expect(FAILED, says=str(file))
        file.write_bytes(whole[:index])
        kvctl("restore", file).expect(FAILED)
    expect_equal(node.imported, {}, "what a damaged file brought")
    node.shutdown()
    node.server_close()
    kvctl("backup", directory / "late", "--timeout", "1").expect(UNAVAILABLE)
