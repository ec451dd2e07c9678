#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How many instructions a worker takes for a request, and its parts for theirs, counted by valgrind's callgrind: the same from run to
run, whatever else the machine does, where times are not.

    Tests/bench/instructions.py [--work get,post,memcached,slot,…] [--connections 32] [--parts] [--profile DIRECTORY] [--check] [BINARY ...]

`get`, `post`, `keys`, `memcached`: one node with one worker; each of the connections sends a request and waits for its answer, all at once.
Instructions in the kernel and in memcached are not counted. What the worker does beside (heartbeats, samples) is: it is measured without
requests, and taken away. Anything else is a part, which `Microbenchmarks` (built beside KVServer) does some thousand times.

How often a request takes memory (`malloc`) is counted with it.

    --parts    what a request's instructions are spent on, for each of the figures of whole requests, above it
    --profile  keeps callgrind's files there; callgrind_annotate and `swift demangle` show where the instructions go
    --check    fails where a figure is more than a twentieth above Tests/bench/instructions.json, twice, or was not noted; the
               last line is `N passed, N failed`
    --note     writes what was counted there

Needs valgrind. Symbols stay, but debug information, which valgrind can't read, is stripped from a copy of the binary.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BENCH = Path(__file__).resolve().parent
sys.path.insert(0, str(BENCH.parent / "end_to_end"))

import callgrind  # noqa: E402
from harness import cluster as clusters  # noqa: E402
from harness.cluster import Cluster, find_server_binary  # noqa: E402
from harness.expectations import eventually  # noqa: E402
from harness.workload import store_many  # noqa: E402

NOTED = BENCH / "instructions.json"
ALLOWED_GROWTH = 1.05
KEYS = [f"bench-{number}" for number in range(500)]
VALUE = "v" * 100
#: A worker under valgrind is slow to begin.
SLOWNESS = 10

REQUESTS = {
    "get": lambda key: f"GET /route?key={key} HTTP/1.1\r\nHost: bench\r\n\r\n",
    "post": lambda key: (f"POST /route HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-www-form-urlencoded\r\n"
                         f"Content-Length: {len(key) + len(VALUE) + 9}\r\n\r\nkey={key}&val={VALUE}"),
    "keys": lambda key: f"GET /keys/{key} HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n",
    "memcached": lambda key: f"get {key}\r\n",
}
ENDS = {"memcached": b"END\r\n"}
PARTS = ("slot", "envelope-write", "envelope-read", "batch-write", "batch-read", "request-read", "form-read", "answer-write")
#: How often a part is done; what the second takes more than the first is what they took.
TIMES = (500, 2500)


def slowly(seconds, what, predicate, interval=0.05):
    return eventually(seconds * SLOWNESS, what, predicate, interval)


def control(worker, *arguments):
    subprocess.run(["callgrind_control", *arguments, str(worker)], check=True, capture_output=True)


def dumped(path):
    """What this part of the profile has: instructions by function, and calls of malloc."""
    slowly(3, "callgrind has written its counts", path.exists)
    slowly(3, "they are whole", lambda: re.search(rb"^totals: ", path.read_bytes(), re.M))
    costs, calls = callgrind.read(path)
    return costs, calls["malloc"]


def ask(connections, work, number):
    for index, connection in enumerate(connections):
        connection.sendall(REQUESTS[work](KEYS[(number + 7 * index) % len(KEYS)]).encode())
    for connection in connections:
        answer = b""
        while not answer.endswith(ENDS.get(work, answer or b"?")):
            answer += connection.recv(1 << 16)
        if not answer.startswith((b"HTTP/1.1 200", b"VALUE ")):
            sys.exit(f"not every request was answered: {answer[:200]!r}")


def count(binary, work, options, directory, files):
    wrapper = directory / "KVServer"
    wrapper.write_text(f"""#!/bin/sh
exec valgrind --quiet --tool=callgrind --trace-children=yes --instr-atstart=no --callgrind-out-file={files}.%p {binary} "$@"
""")
    wrapper.chmod(0o755)
    os.environ["KVSERVER_BINARY"] = str(wrapper)
    cluster = Cluster("bench", directory, nodes=1, positions={5000: 1}, workers=1, proxy=False,
                      settings={"memcachedPort": options.port, "allowFailpoints": False})
    # (Which would be read for each request.)
    for node in cluster.nodes:
        del node.settings["failpointsFile"]
        node.change_settings()
    try:
        cluster.start()
        node = cluster.node(1)
        store_many(cluster.addresses, KEYS, VALUE)
        host, port = node.address.rsplit(":", 1)
        connections = [socket.create_connection((host, options.port if work == "memcached" else int(port)))
                       for _ in range(options.connections)]
        for number in range(5):
            ask(connections, work, number)
        worker = node.workers()[0]
        control(worker, "--instr=on")
        counted = []
        for part, rounds in enumerate((options.rounds, 0), start=1):
            began = time.monotonic()
            for number in range(rounds):
                ask(connections, work, number)
            if rounds == 0:
                time.sleep(seconds)
            seconds = time.monotonic() - began
            control(worker, "--dump")
            counted.append(dumped(files.with_name(f"{files.name}.{worker}.{part}")))
        requests = options.rounds * options.connections
        (costs, calls), (idle_costs, idle_calls) = counted
        costs.subtract(idle_costs)
        if options.parts:
            for words, spent in callgrind.spent_on(costs).most_common():
                print(f"{spent / requests:9.0f}  {words}")
        return [costs.total() / requests, (calls - idle_calls) / requests]
    finally:
        cluster.end()


def count_part(program, part, files):
    counted = []
    for times in TIMES:
        ran = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={files}.{times}", program, part, str(times)],
                             capture_output=True, text=True)
        found = re.search(r"Collected *: (\d+)", ran.stderr)
        if ran.returncode != 0 or not found:
            sys.exit(f"{part} could not be counted: {ran.stderr}{ran.stdout}")
        counted.append(int(found.group(1)))
    return [(counted[1] - counted[0]) / (TIMES[1] - TIMES[0])]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", default=",".join(("get", "post", "memcached", *PARTS)))
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--port", type=int, default=18811)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--note", action="store_true")
    parser.add_argument("binaries", nargs="*", type=Path)
    options = parser.parse_args()
    clusters.eventually = slowly
    noted = json.loads(NOTED.read_text()) if NOTED.exists() else {}
    found, grown = {}, set()
    for place, binary in enumerate(options.binaries or [Path(find_server_binary())]):
        for work in options.work.split(","):
            for _ in range(2 if options.check else 1):
                figures = counts_of(binary, work, options, place)
                grown -= figures.keys()
                grown |= {name for name, figure in figures.items() if figure > ALLOWED_GROWTH * noted.get(name, 0)}
                if grown.isdisjoint(figures):
                    break
            for name, figure in figures.items():
                before = noted.get(name)
                print(f"{binary.name} {name}: {figure:.6g}" + (f", {figure / before:.3f} of what was noted" if before else ""))
            found |= figures
    if options.note:
        NOTED.write_text(json.dumps({**noted, **found}, indent=2) + "\n")
    if options.check:
        if grown:
            print(f"more than was noted, or not noted: {', '.join(sorted(grown))}")
        print(f"{len(found) - len(grown)} passed, {len(grown)} failed")
        sys.exit(1 if grown else 0)


def counts_of(binary, work, options, place):
    """By name: instructions, and for whole requests calls of malloc."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        stripped = directory / "stripped"
        program = binary.with_name("Microbenchmarks") if work in PARTS else binary
        subprocess.run(["strip", "-g", "-o", stripped, program], check=True)
        kept = options.profile or directory
        kept.mkdir(parents=True, exist_ok=True)
        files = kept.resolve() / f"{work}.{place}"
        counted = count_part(stripped, work, files) if work in PARTS else count(stripped, work, options, directory, files)
    return dict(zip((work, f"{work} malloc"), (round(counted[0]), *(round(calls, 1) for calls in counted[1:]))))


if __name__ == "__main__":
    main()
