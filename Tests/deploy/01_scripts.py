# SPDX-License-Identifier: Apache-2.0
"""All scripts: shellcheck, --help, and the wrong way to call them."""

import os
import re

from support import REPOSITORY, SETUP, expect, need, run

#: Not our own: what was built, what was fetched, what runs.
FOREIGN = (".build", ".git", ".local")


def scripts():
    """Every shell script of the checkout, and those that are sourced."""
    for directory, names, files in os.walk(REPOSITORY):
        names[:] = [name for name in names if not name.startswith(FOREIGN)]
        for name in files:
            path = os.path.join(directory, name)
            with open(path, "rb") as file:
                start = file.read(200)
            if re.match(rb"#!/bin/(ba)?sh\n", start) or b"\n# shellcheck shell=" in start:
                yield path


def test_shellcheck_finds_nothing():
    need("shellcheck")
    paths = sorted(scripts())
    expect(len(paths) >= 12, f"found only {paths}")
    run("shellcheck", "--external-sources", *paths).expect()


def test_scripts_that_are_called_are_executable():
    for path in scripts():
        with open(path, "rb") as file:
            called = file.read(2) == b"#!"
        expect(os.access(path, os.X_OK) == called, f"{path} has the wrong mode")


def test_every_script_explains_itself():
    for command in (["setup.sh"], ["setup.sh", "local"], ["setup.sh", "node"], ["setup.sh", "balancer"],
                    ["setup.sh", "local", "down"], ["setup.sh", "local", "restart"], ["deploy/package.sh"],
                    ["deploy/reconfigure.sh"], ["deploy/restart-node.sh"], ["deploy/run-memcached.sh"],
                    ["deploy/watch-memcached.sh"], ["deploy/make-certs.sh"], ["Tests/run.sh"], ["Tests/faults/run.sh"], ["Tests/sanitize.sh"],
                    ["Fuzz/run.sh"]):
        run(REPOSITORY / command[0], *command[1:], "--help", directory="/").expect(says="Usage: ")


def test_setup_refuses_what_it_does_not_know():
    run(SETUP).expect(64, says="Usage: ")
    run(SETUP, "lokal").expect(64, says="unknown command: lokal")
    run(SETUP, "local", "--nods", "3").expect(64, says="unknown argument: --nods")
    run(SETUP, "local", "--nodes").expect(64, says="--nodes needs a value")
    run(SETUP, "local", "--nodes", "51").expect(64, says="--nodes takes 1 to 50: 51")
    run(SETUP, "local", "--workers", "0").expect(64, says="--workers takes 1 to 256: 0")
    run(SETUP, "local", "--memory", "many").expect(64, says="--memory takes MiB from 16 up: many")
    run(SETUP, "local", "--warm-restart", "maybe").expect(64, says="--warm-restart takes yes or no: maybe")
    for port in ("5000", "0", "65536", "x"):
        run(SETUP, "local", "--memcached-port", port).expect(64, says=f"--memcached-port takes a port other than 5000: {port}")
    for network in ("10.0.0", "127.0", "127.0.0.1", "127.0.256", "127.0.0;"):
        run(SETUP, "local", "--network", network).expect(64, says="--network takes the first three bytes")
    run(SETUP, "local", "status", "now").expect(64, says="local status takes no arguments")
    run(SETUP, "local", "logs", "../etc").expect(64, says="local logs takes")
