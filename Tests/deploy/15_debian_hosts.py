# SPDX-License-Identifier: Apache-2.0
"""The package on machines of their own: three that are fresh Debians, booted with systemd, and HAProxy on a fourth. All is set up by
`setup.sh`, and runs as units. The original's four scenarios go through there, and then an upgrade under load."""

import contextlib
import json
import os
import subprocess
import sys

from debian import PACKAGES, Machine, debian_root, in_parallel, network_of
from support import REPOSITORY, Skipped, at_end, daemon, eventually, expect, run, scratch, write

from harness.cluster import PORT, Cluster, Node
from harness.placement import Ring
from harness.runner import load_module

OLD, NEW = "1.0.0", "1.0.1"
WORKERS, MEMORY = 2, 128
SCENARIOS = ("02_store_and_route", "03_read_back", "04_add_the_standby", "05_remove_node_two")
BALANCER = 4


class Place(Node):  # pylint: disable=super-init-not-called
    """What the harness's tests ask, at an address where they have started nothing: a node, or the balancer."""

    def __init__(self, name, address, admin_token):
        self.name, self.address = name, address
        self.headers = [("Authorization", f"Bearer {admin_token}")]
        self.settings = {"workers": WORKERS}


class Machines(Cluster):  # pylint: disable=super-init-not-called
    """In the role of the harness's cluster; in a `with` statement the nodes begin with nothing, and with the ring that is wanted."""

    def __init__(self, machines, admin_token):
        *self.hosts, self.balancer = machines
        self.nodes = [Place(host.name, f"{host.address}:{PORT}", admin_token) for host in self.hosts]
        self.proxy = Place("balancer", f"{self.balancer.address}:{PORT}", admin_token)
        self.first_ring, self._ring_fields = None, {}

    @contextlib.contextmanager
    def cluster(self, positions=None, replicas=None):
        self.first_ring = Ring({position: self.node(number).address for position, number in (positions or {3000: 1, 8000: 2}).items()})
        standbys = [node.address for node in self.nodes if node.address not in self.first_ring.nodes_by_position.values()]
        self._ring_fields = {"standbys": standbys} if replicas is None else {"standbys": standbys, "replicas": replicas}
        # All at once, for a node that comes back empty asks the others for the ring.
        for commands in ("systemctl stop kvserver kvserver-memcached", "rm -rf /var/lib/kvserver/* /dev/shm/kvserver/*",
                         "systemctl start kvserver-memcached kvserver"):
            in_parallel(lambda host, commands=commands: host.shell(commands).expect(), self.hosts)
        self.balancer.run("systemctl", "restart", "kvctl-haproxy-sync").expect()
        self.install_ring(self.first_ring)
        self.wait_until_ready()
        yield self

    def wait_until_ready(self):
        for node in self.nodes:
            eventually(30, f"{node.name} is ready", lambda node=node: is_ready(node))
        # And the balancer has seen it: each of its servers.
        eventually(30, "the balancer has all nodes", lambda: self.servers_up() == len(self.nodes))

    def servers_up(self):
        ran = self.balancer.shell("curl --silent --fail 'http://127.0.0.1:8404/;csv' | grep -c '^nodes,node.*,UP,'")
        return int(ran.output) if ran.status == 0 else 0


def is_ready(node):
    try:
        return node.get("/health/ready", timeout=2).status == 200
    except OSError:
        return False


def packages():
    """The package in two versions, the older one first."""
    directory = scratch()
    for version in (OLD, NEW):
        run("deploy/package.sh", "--output", directory, "--version", version, seconds=120, environment={
            "KVSERVER_BINARY": str(daemon()), "DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}).expect()
    return directory


def package_of(version):
    return f"{PACKAGES}/kvserver_{version}_{run('dpkg', '--print-architecture').output.strip()}.deb"


def set_up():
    """Three nodes and a balancer, by the commands that the README has."""
    if os.geteuid() != 0:
        raise Skipped("not root")
    made = packages()
    root = debian_root(run("dpkg-deb", "--field", next(made.glob(f"*_{OLD}_*.deb")), "Depends").expect().output.strip())
    network = network_of(BALANCER)
    machines = [Machine("balancer" if number == BALANCER else f"node{number}", number, root, network, made) for number in range(1, BALANCER + 1)]
    for machine in machines:
        machine.wait_until_up()
    *hosts, balancer = machines
    def set_up_node(host, tokens=None):
        options = ["--address", f"{host.address}:{PORT}", "--deb", package_of(OLD), "--memory", MEMORY, "--workers", WORKERS]
        if tokens:
            # As an administrator takes the first node's to the others.
            host.shell(f"mkdir -m 700 /root/tokens; base64 -d <<<{tokens} | tar -x -C /root/tokens").expect()
            options += ["--tokens", "/root/tokens"]
        host.setup("node", *options).expect(says=("matches", "It is in no ring yet"))

    def set_up_balancer():
        balancer.setup("balancer", "--deb", package_of(OLD), *(word for host in hosts for word in ("--node", f"{host.address}:{PORT}"))).expect(
            says="none of its nodes is ready")

    set_up_node(hosts[0])
    tokens = hosts[0].shell("tar -c -C /etc/kvserver/tokens . | base64 -w 0").expect().output
    admin = hosts[0].shell("cat /etc/kvserver/tokens/admin").expect().output.strip()
    in_parallel(lambda machine: set_up_balancer() if machine is balancer else set_up_node(machine, tokens), machines[1:])
    return Machines(machines, admin)


def test_the_scenarios_and_an_upgrade_under_load():
    machines = set_up()
    try:
        for scenario in SCENARIOS:
            load_module(REPOSITORY / f"Tests/end_to_end/{scenario}.py").run(machines)
        with machines.cluster({1000: 1, 4000: 2, 7000: 3}):
            upgrade_under_load(machines)
        for host in machines.hosts:
            nothing_but_the_daemon_listens(host)
            no_secret_shows(host)
        for unit, host in [("kvserver", machines.hosts[0]), ("kvserver-memcached", machines.hosts[0]), ("kvctl-haproxy-sync", machines.balancer)]:
            host.run("systemd-analyze", "security", "--threshold=20", f"{unit}.service").expect()
    except Exception:
        for host in [*machines.hosts, machines.balancer]:
            print(f"      the end of {host.name}'s journal:\n{host.journal(25)}", flush=True)
        raise


test_the_scenarios_and_an_upgrade_under_load.limit_seconds = 600


def upgrade_under_load(machines):
    done = scratch() / "done"
    load = subprocess.Popen(
        [sys.executable, REPOSITORY / "Tests/deploy/load.py", machines.proxy.address, "--seconds", "150", "--until", done, "--connections", "16",
         "--pause", "0.005", "--strict"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    at_end(lambda: (load.kill(), load.wait()))
    for host in machines.hosts:
        before = {unit: host.main_pid(unit) for unit in ("kvserver", "kvserver-memcached")}
        host.setup("node", "--deb", package_of(NEW)).expect(says="It has a ring")
        expect(host.shell("dpkg-query -W -f '${Version}' kvserver").expect().output == NEW, f"{host.name} has another version")
        after = {unit: host.main_pid(unit) for unit in before}
        expect(after["kvserver"] != before["kvserver"], f"{host.name} runs the old daemon still")
        expect(after["kvserver-memcached"] == before["kvserver-memcached"], f"{host.name}'s memcached was restarted, too")
        running = host.run("readlink", f"/proc/{after['kvserver']}/exe").expect().output.strip()
        expect(running == "/usr/bin/KVServer", f"{host.name} runs {running}")
        machines.wait_until_ready()
    # And memcached, as for an update of it.
    for host in machines.hosts:
        host.run("/usr/lib/kvserver/restart-node.sh").expect(says="as before")
        machines.wait_until_ready()
    write(done, "")
    output, _ = load.communicate(timeout=60)
    expect(load.returncode == 0, f"requests failed: {output}")
    counts = json.loads(output)
    expect(counts["gets"] > 2000 and counts["posts"] > 500, f"hardly a load: {counts}")


def nothing_but_the_daemon_listens(host):
    """memcached has a unix socket, and no port at any address: not at loopback either."""
    listening = [line for line in host.run("ss", "-Hltunp").expect().output.splitlines() if line]
    strangers = [line for line in listening if '"KVServer"' not in line]
    expect(listening and not strangers, f"{host.name} has {listening}, of which the daemon has not opened {strangers}")
    its_own = f"nsenter --target {host.main_pid('kvserver-memcached')} --net ss"
    expect(host.shell(f"{its_own} -Hltun").expect().output == "", "memcached listens in a network of its own")
    expect("/run/kvserver/memcached.sock" in host.shell(f"{its_own} -Hlx").expect().output, "memcached has no socket")


def no_secret_shows(host):
    """Not in the journal, in no process's arguments or environment, in no answer, and in no file but those that are for it."""
    secrets = host.shell("grep -hxE '[0-9a-f]{64}' /etc/kvserver/tokens/*").expect().output.split()
    expect(len(secrets) == 2, f"{host.name} has {len(secrets)} tokens")
    # (What each of these shows all the same, lest it shows nothing at all.)
    shown = {
        "the journal": (host.journal(100_000), "supervising"),
        "the processes": (host.shell("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' || true").output, "/etc/kvserver/kvserver.json"),
        "its answers": (host.shell(f"for path in status metrics hash_ring; do curl --silent --fail http://{host.address}:{PORT}/$path; done").output, '"epoch"'),
    }
    for where, (text, other) in shown.items():
        expect(other in text, f"{host.name}: {where} lack {other}, so nothing is said of them: {text[-500:]}")
        expect(not any(secret in text for secret in secrets), f"a token shows in {where} of {host.name}")
    words = "|".join(secrets)
    files = set(host.shell(f"grep -rlsE --devices=skip '{words}' /dev/shm /etc /home /root /run /tmp /usr/lib/kvserver /var || true").output.split())
    strange = {path for path in files if not path.startswith(("/etc/kvserver/tokens/", "/run/credentials/kvserver.service/", "/root/tokens/"))}
    expect("/etc/kvserver/tokens/admin" in files and not strange, f"{host.name} has tokens in {strange or files}")
    readable = host.shell(f"setpriv --reuid nobody --regid nogroup --clear-groups cat {' '.join(sorted(files))} 2>/dev/null || true").output
    expect(readable == "", f"anybody may read a token on {host.name}")
