# SPDX-License-Identifier: Apache-2.0
"""The Debian package, with a stand-in for the daemon."""

import os
import re
import shutil

from support import Skipped, daemon, expect, need, run, scratch, stand_in


def package(binary, *arguments):
    """Makes one, and returns its file and what was said."""
    directory = scratch()
    ran = run("deploy/package.sh", "--output", directory, *arguments, environment={
        "KVSERVER_BINARY": str(binary), "KVCTL_BINARY": str(stand_in().with_name("kvctl"))})
    return directory, ran


def field(file, name):
    return run("dpkg-deb", "--field", file, name).expect().output.strip()


def test_its_content():
    directory, ran = package(stand_in(), "--version", "1.2.3")
    ran.expect()
    architecture = run("dpkg", "--print-architecture").output.strip()
    file = directory / f"kvserver_1.2.3_{architecture}.deb"
    expect(ran.output.splitlines()[-1] == str(file), ran.output)
    run("sha256sum", "--check", "--strict", f"{file}.sha256", directory=directory).expect()
    listed = run("dpkg-deb", "--contents", file).expect().output
    expect(all(" root/root " in line for line in listed.splitlines()), f"not all is root's:\n{listed}")
    files = {line.split()[5]: line[:10] for line in listed.splitlines() if line.startswith("-")}
    program, plain = "-rwxr-xr-x", "-rw-r--r--"
    expect(files == {
        "./usr/bin/KVServer": program, "./usr/bin/kvctl": program, "./lib/systemd/system/kvctl-haproxy-sync.service": plain, "./usr/lib/kvserver/run-memcached.sh": program,
        "./usr/lib/kvserver/reconfigure.sh": program, "./usr/lib/kvserver/restart-node.sh": program,
        "./usr/lib/kvserver/lib/common.sh": plain, "./usr/lib/kvserver/lib/restart.sh": plain,
        "./lib/systemd/system/kvserver.service": plain,
        "./lib/systemd/system/kvserver-memcached.service": plain, "./usr/lib/sysusers.d/kvserver.conf": plain,
        "./usr/lib/tmpfiles.d/kvserver.conf": plain, "./usr/share/doc/kvserver/copyright": plain}, listed)
    expect(field(file, "Depends") == "memcached (>= 1.6), bash, systemd", field(file, "Depends"))
    root = scratch()
    run("dpkg-deb", "--extract", file, root).expect()
    run(root / "usr/bin/KVServer").expect(says="a stand-in")
    run(root / "usr/lib/kvserver/restart-node.sh", "--config", root / "none").expect(1, says="no node was set up here")
    for unit in ("kvserver.service", "kvserver-memcached.service", "kvctl-haproxy-sync.service"):
        for path in re.findall(r"^ExecStart=(\S+)", (root / "lib/systemd/system" / unit).read_text(), re.M):
            expect(os.access(root / path[1:], os.X_OK), f"{unit} starts {path}, which the package lacks")


def test_it_depends_on_what_the_daemon_links():
    directory, ran = package(shutil.which("curl"), "--version", "1")
    ran.expect()
    depends = field(next(directory.glob("*.deb")), "Depends")
    expect(re.search(r"(^|, )libc6 \(>= \d", depends) and re.search(r"libcurl4\S* \(>= \d", depends), depends)


def test_it_refuses_a_daemon_that_links_what_no_package_has():
    need("ldd")
    if "libswift" not in run("ldd", daemon()).output:
        raise Skipped("the daemon does not link Swift's runtime as a library")
    directory, ran = package(daemon(), "--version", "1")
    ran.expect(1, says="no package owns")
    expect(not list(directory.iterdir()), "it made a package all the same")


def test_two_builds_are_the_same():
    binary = stand_in()
    files = [next(package(binary, "--version", "1")[0].glob("*.deb")).read_bytes() for _ in range(2)]
    expect(files[0] == files[1], "two packages of the same are not the same")


def test_wrong_arguments():
    package(stand_in(), "--version", "v1")[1].expect(1, says="no version for a Debian package")
    package(stand_in(), "--version")[1].expect(64, says="--version needs a value")
    package("/nonexistent/KVServer", "--version", "1")[1].expect(1, says="there is no program at /nonexistent/KVServer")
