#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Links the fuzz targets once more, so that one of them runs many times as fast: libFuzzer looks at every counter of the
program after each input, and most are of modules that the target does not try. Theirs are put into sections of another name.

    link.py BUILD TARGET

BUILD is the directory that SwiftPM has built in. Prints the path of the program. Needs binutils' objcopy."""

import json
import subprocess
import sys
from pathlib import Path

SECTIONS = ("__sancov_cntrs", "__sancov_pcs")
#: What a target tries, by module. (NIOHTTP1 where it reads the same bytes: what both find different is found by the counters of both.)
TRIED = {
    "head": "HTTPFront NIOHTTP1 RequestTracing AccessControl KeyValue",
    "connection": "HTTPFront NIOHTTP1 RequestTracing AccessControl KeyValue HashRing",
    "form": "HTTPFront KeyValue", "batch-json": "HTTPFront KeyValue", "import": "HTTPFront KeyValue", "cursor": "HTTPFront KeyValue",
    "fields": "HTTPFront RequestTracing KeyValue HashRing",
    "commands": "MemcachedFront KeyValue",
    "tokens": "AccessControl", "addresses": "AccessControl HashRing Memcached Etcd", "handshake": "AccessControl HashRing",
    "envelope": "KeyValue", "stored-key": "KeyValue HashRing", "manifest": "KeyValue", "peer-batch": "KeyValue", "peer-answer": "KeyValue",
    "listing": "KeyValue", "snapshot": "KeyValue", "backup": "Control", "peer-json": "Cluster HashRing KeyValue",
    "ring-json": "HashRing", "host-record": "HashRing", "etcd": "Etcd",
    "status": "Control HashRing", "metrics": "Control", "balancer": "Control HashRing",
    "metadump": "Memcached KeyValue", "replies": "Memcached", "stamp": "Memcached",
    "configuration": "Supervision AccessControl HashRing Memcached Etcd",
}


def main():
    if len(sys.argv) != 3 or sys.argv[2] not in TRIED:
        sys.exit(f"usage: {sys.argv[0]} BUILD {'|'.join(TRIED)}")
    build, counted = Path(sys.argv[1]), {"Fuzz", *TRIED[sys.argv[2]].split()}
    arguments = link_arguments(build / "release.yaml")
    objects = next(argument[1:] for argument in arguments if argument.startswith("@"))
    program = Path(arguments[arguments.index("-o") + 1])
    lean = build / "lean" / "-".join(sorted(counted))
    if not lean.exists() or lean.stat().st_mtime < program.stat().st_mtime:
        lean.parent.mkdir(exist_ok=True)
        paths = [Path(line.strip().strip("'")) for line in Path(objects).read_text().splitlines()]
        listing = lean.with_suffix(".objects")
        listing.write_text("".join(
            f"{path if module_of(path) in counted else without_counters(path, lean.with_name(f'{number}.o'))}\n"
            for number, path in enumerate(paths)))
        changed = {f"@{objects}": f"@{listing}", str(program): str(lean)}
        # (The linker remarks on each symbol of the sanitizer's.)
        linked = subprocess.run([changed.get(argument, argument) for argument in arguments], capture_output=True, text=True)
        if linked.returncode != 0:
            sys.exit(linked.stdout + linked.stderr)
    print(lean)


def link_arguments(manifest):
    """As SwiftPM has linked the program."""
    lines = iter(manifest.read_text().splitlines())
    for line in lines:
        if line.strip().startswith('"C.Fuzz-') and line.rstrip().endswith('.exe":'):
            return next(json.loads(text.strip()[len("args: "):]) for text in lines if text.strip().startswith("args: "))
    sys.exit(f"{manifest} does not say how the fuzz targets are linked")


def module_of(path):
    return next(folder.stem for folder in path.parents if folder.suffix == ".build")


def without_counters(path, copy):
    """A copy whose counters libFuzzer does not know."""
    if not copy.exists() or copy.stat().st_mtime < path.stat().st_mtime:
        renamed = [f"--rename-section={section}=uncounted{section}" for section in SECTIONS]
        subprocess.run(["objcopy", *renamed, path, copy], check=True)
    return copy


if __name__ == "__main__":
    main()
