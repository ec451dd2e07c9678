#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Links the fuzz targets once more, so that they run several times as fast: libFuzzer looks at every counter of the program
after each input, and most are of packages that are not what is tried. Theirs are put into sections of another name.

Prints the path of the program. Needs binutils' objcopy."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
MANIFEST = HERE / ".build" / "release.yaml"
LEAN = HERE / ".build" / "lean"
#: Beside the store's own: what is read differently by both is found by the counters of both.
COUNTED = {path.name for path in (HERE.parent / "Sources").iterdir()} | {"Fuzz", "NIOHTTP1"}
SECTIONS = ("__sancov_cntrs", "__sancov_pcs")


def main():
    arguments = link_arguments()
    objects = next(argument[1:] for argument in arguments if argument.startswith("@"))
    program = Path(arguments[arguments.index("-o") + 1])
    lean = LEAN / program.name
    if not lean.exists() or lean.stat().st_mtime < program.stat().st_mtime:
        LEAN.mkdir(exist_ok=True)
        paths = [line.strip().strip("'") for line in Path(objects).read_text().splitlines()]
        listing = LEAN / "objects"
        listing.write_text("".join(f"{without_counters(*numbered)}\n" for numbered in enumerate(paths)))
        changed = {f"@{objects}": f"@{listing}", str(program): str(lean)}
        # (The linker remarks on each symbol of the sanitizer's.)
        linked = subprocess.run([changed.get(argument, argument) for argument in arguments], capture_output=True, text=True)
        if linked.returncode != 0:
            sys.exit(linked.stdout + linked.stderr)
    print(lean)


def link_arguments():
    """As SwiftPM has linked the program."""
    lines = iter(MANIFEST.read_text().splitlines())
    for line in lines:
        if line.strip().startswith('"C.Fuzz-') and line.rstrip().endswith('.exe":'):
            return next(json.loads(text.strip()[len("args: "):]) for text in lines if text.strip().startswith("args: "))
    sys.exit(f"{MANIFEST} does not say how the fuzz targets are linked")


def without_counters(number, path):
    """The object itself, or a copy whose counters libFuzzer does not know."""
    module = next(folder.stem for folder in Path(path).parents if folder.suffix == ".build")
    if module in COUNTED:
        return path
    copy = LEAN / f"{number}.o"
    if not copy.exists() or copy.stat().st_mtime < Path(path).stat().st_mtime:
        renamed = [f"--rename-section={section}=uncounted{section}" for section in SECTIONS]
        subprocess.run(["objcopy", *renamed, path, copy], check=True)
    return copy


if __name__ == "__main__":
    main()
