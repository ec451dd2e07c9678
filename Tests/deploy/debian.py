# SPDX-License-Identifier: Apache-2.0
"""Machines that run Debian: a root that debootstrap makes, booted with systemd once for each, in networks of their own.

systemd-nspawn boots them: processes, mounts, users, cgroups and the network are each one's own, what is written goes
into memory, and the kernel alone is shared. They have no way to Debian's mirror: the packages that `apt-get install` puts
in there were downloaded into the root before. All is gone when this process is, whatever ends it.
"""

import atexit
import concurrent.futures
import functools
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from support import REPOSITORY, Failure, at_end, eventually, expect, run, scratch, start, write

sys.path[:0] = [str(REPOSITORY / "Tests/end_to_end"), str(REPOSITORY / "Tests/faults")]

from harness.processes import children_of, kill  # noqa: E402
from nemesis.network import Network  # noqa: E402

#: What this machine needs for that, and the package of each.
PROGRAMS = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container", "nsenter": "util-linux", "ip": "iproute2", "tc": "iproute2", "nft": "nftables"}
#: What the machines get from apt later on, beside the daemon and what it depends on.
LATER = ("curl", "iproute2", "haproxy")
#: Where they find this checkout, and what a test hands them.
CHECKOUT, PACKAGES = "/root/kvserver", "/root/packages"

#: What is mounted in the root while it is made is gone with the command that mounts it, whatever ends that.
APART = ("unshare", "--mount")

BOOTSTRAP_SECONDS, DOWNLOAD_SECONDS, BOOT_SECONDS = 240, 120, 60


@functools.cache
def debian_root(dependencies):
    """A directory with a Debian as this machine's, minimal but for systemd, that has downloaded `LATER` and `dependencies` (of a
    package, as its field has them), and not installed them. It is made once in a run, and nothing writes into it.
    KVSERVER_DEBIAN_ROOT names a directory in which one is kept, and taken if it is there."""
    for program, package in PROGRAMS.items():
        expect(shutil.which(program), f"{program} is missing: apt-get install {package}")
    kept = os.environ.get("KVSERVER_DEBIAN_ROOT")
    place = Path(kept or tempfile.mkdtemp(prefix="kvserver-debian-"))
    if not kept:
        atexit.register(shutil.rmtree, place)
    if not (place / "complete").exists():
        expect(not (place / "root").exists(), f"what {place}/root holds is not complete: remove it")
        _bootstrap(place / "root")
        _download(place / "root", dependencies)
        write(place / "complete", "")
    return place / "root"


def _sources():
    """This machine's sources of its distribution's release, and of its security updates: (address, name of the release)."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', Path("/etc/os-release").read_text(), re.M))
    listed = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(CODENAME) $(COMPONENT)", "Created-By: Packages").expect().output
    found = sorted({tuple(line.split()[:2]) for line in listed.splitlines() if line.split()[3:] == ["main"]
                    and release["VERSION_CODENAME"] in line.split()[1:3] + [line.split()[1].removesuffix("-security")]})
    main = [address for address, name in found if name == release["VERSION_CODENAME"]]
    expect(main, f"no source of {release['VERSION_CODENAME']} among apt's: {listed or 'it has no lists: apt-get update'}")
    return main[0], release["VERSION_CODENAME"], found


def _bootstrap(root):
    mirror, codename, sources = _sources()
    ran = run(*APART, "debootstrap", "--variant=minbase", "--include=dbus,systemd-sysv", codename, root, mirror, seconds=BOOTSTRAP_SECONDS)
    if ran.status != 0:
        raise Failure(f"debootstrap made no {codename} of {mirror}, status {ran.status}:\n{ran.output[-2000:]}")
    write(root / "etc/apt/sources.list", "".join(f"deb {address} {name} main\n" for address, name in sources))
    # Fetched as on this machine, which may have a proxy, or a clock that the lists are too old for.
    write(root / "etc/apt/apt.conf.d/00fetch", run("apt-config", "dump", "Acquire").expect().output)


def _download(root, dependencies):
    names = [name.split()[0] for name in dependencies.split(",")]
    for command in ("apt-get update -q", f"apt-get install -y -q --no-install-recommends --download-only {shlex.join([*names, *LATER])}"):
        ran = run(*APART, "chroot", root, "sh", "-c", command, environment={"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}, seconds=DOWNLOAD_SECONDS)
        if ran.status != 0:
            raise Failure(f"{command}: status {ran.status} in the new root:\n{ran.output[-2000:]}")
    # From here on there is no network, and apt is not to wait for one.
    write(root / "etc/apt/apt.conf.d/99away", 'Acquire::Retries "0";\nAcquire::http::Timeout "1";\nDpkg::Use-Pty "0";\nquiet "2";\n')
    write(root / "etc/resolv.conf", "")
    # Made at each boot, which is not the first one, of which a person is asked.
    write(root / "etc/machine-id", "")


class Machine:
    """One that is running. `number` is its place in the network."""

    def __init__(self, name, number, root, network, packages):
        self.name, self.address = name, network.ip(number)
        groups = _new_groups(f"kvserver-test-{os.getpid()}-{name}")
        # (The last of its processes may take a moment.)
        at_end(lambda: eventually(10, f"{name}'s cgroups are empty", groups.remove))
        self._log = open(scratch() / f"{name}.log", "w+b")  # pylint: disable=consider-using-with
        at_end(self._log.close)

        def enter():
            groups.enter()
            network.entrance(number)()
        # The outermost is killed with this process, takes along what it has forked, and that, process 1 of a namespace, all the rest.
        self._process = start(
            "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "systemd-nspawn", "--quiet", "--directory", root, "--read-only", "--volatile=overlay", "--boot", "--console=pipe", "--register=no", "--keep-unit",
            "--suppress-sync=yes", "--kill-signal=SIGKILL", "--settings=no", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
            f"--machine={name}-{os.getpid()}", f"--hostname={name}",
            "--network-namespace-path=/proc/self/ns/net", f"--bind-ro={REPOSITORY}:{CHECKOUT}", f"--bind-ro={packages}:{PACKAGES}",
            output=self._log, enter=enter, environment={"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_LOCK": "0"})
        at_end(self._end)

    def _end(self):
        """By its own way, on which it takes along what it has laid out."""
        for nspawn in children_of(self._process.pid):
            kill(nspawn, signal.SIGTERM)
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()

    def wait_until_up(self):
        def is_up():
            expect(self._process.poll() is None, f"{self.name} did not boot: {self._console()}")
            return self._leader() and self.run("systemctl", "is-system-running").output.strip() in ("running", "degraded")
        try:
            eventually(BOOT_SECONDS, f"{self.name} is up", is_up)
        except Failure as failure:
            raise Failure(f"{failure}; its console: {self._console()}") from failure

    def _console(self):
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-1500:]

    def _leader(self):
        """The pid, outside, of its process 1."""
        found = [leader for nspawn in children_of(self._process.pid) for leader in children_of(nspawn)]
        return found[0] if found else None

    def run(self, *arguments, seconds=60):
        """Runs a command in there, as root does, and returns what it says."""
        leader = self._leader()
        expect(leader, f"{self.name} is not running: {self._console()}")
        return run("nsenter", "--target", leader, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
                   "env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8",
                   *arguments, directory="/", seconds=seconds)

    def shell(self, text, seconds=60):
        return self.run("bash", "-euo", "pipefail", "-c", text, seconds=seconds)

    def setup(self, *arguments, seconds=120):
        return self.run(f"{CHECKOUT}/setup.sh", *arguments, seconds=seconds)

    def main_pid(self, unit):
        """The unit's main process, by its number in there."""
        return int(self.run("systemctl", "show", "--property=MainPID", "--value", unit).expect().output)

    def journal(self, lines=2000):
        return self.run("journalctl", "--no-pager", "--output=short-iso", "--lines", lines).output


class _Groups:
    """A cgroup of a machine's own, in each hierarchy that systemd uses."""

    def __init__(self, directories):
        self._directories = directories

    def enter(self):
        """Moves the calling process there."""
        for directory in self._directories:
            (directory / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self):
        """Whether they are gone, with all those within."""
        try:
            for directory in self._directories:
                inner = sorted((path for path in directory.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
                for path in [*inner, *([directory] if directory.exists() else [])]:
                    path.rmdir()
        except OSError:
            return False
        return True


def _new_groups(name):
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    places = [Path(place) for _, place, kind, options, *_ in mounts if kind == "cgroup2" or kind == "cgroup" and "name=systemd" in options.split(",")]
    expect(places, "there is no cgroup hierarchy that systemd can use")
    directories = [place / name for place in places]
    for directory in directories:
        directory.mkdir()
    return _Groups(directories)


def network_of(machines):
    """Lays out a network for so many machines, in which this process stands until the test is over."""
    network = Network(machines)
    at_end(network.release)
    return network


def in_parallel(do, things):
    """Does the same with each at once, and raises the first of the failures."""
    with concurrent.futures.ThreadPoolExecutor(len(things)) as pool:
        return list(pool.map(do, things))
