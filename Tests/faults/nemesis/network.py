# SPDX-License-Identifier: Apache-2.0
"""Hosts with a network each, joined by a bridge, and what can be wrong between them.

    clients (this process): 10.77.0.1 on the bridge, and the balancer, 10.77.0.10
        ├── link1 ══ eth0 of host 1: 10.77.0.11
        ├── link2 ══ eth0 of host 2: 10.77.0.12
        └── …

Packets are dropped where they arrive, by nftables, so that their sender learns nothing. A slow link is a token
bucket at both ends. A late one is a process that carries all packets of a host, each after a while (`wire.py`).
"""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from harness.cluster import PORT
from harness.processes import OwnedProcess

from .namespaces import Namespace

#: The clients' place, among the hosts' numbers.
CLIENTS = 0
BRIDGE = "bridge0"
BALANCER = "10.77.0.10"

_WIRE = Path(__file__).with_name("wire.py")


def why_not():
    """Why this machine can't have such a network, in words; None if it can."""
    if os.geteuid() != 0:
        return "not root"
    missing = [tool for tool in ("ip", "tc", "nft") if not shutil.which(tool)]
    if missing:
        return f"no {' and no '.join(missing)}"
    try:
        Namespace.new().close()
    except OSError as error:
        return str(error)
    return None


class Network:
    """In the role of the harness's AddressBlock. Making one moves the main thread to the clients' place in it."""

    def __init__(self, hosts):
        self.hosts = range(1, hosts + 1)
        self._home = Namespace.present()
        self._clients = Namespace.new()
        self._clients.enter()
        self._namespaces = {CLIENTS: self._clients}
        self._dropped = set()               # (source, destination, percent)
        self._down, self._slow, self._wires = set(), set(), {}
        self._logs = tempfile.mkdtemp(prefix="kvserver-wires-")
        try:
            self._lay_out()
        except BaseException:
            self.release()
            raise

    def _lay_out(self):
        run = self._clients.run
        run("ip", "link", "add", BRIDGE, "address", "02:00:00:00:00:01", "type", "bridge")
        # The first is where the clients' packets come from, and the balancer's to the hosts.
        for address in (self.ip(CLIENTS), BALANCER):
            run("ip", "address", "add", f"{address}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        self._clients.send_packets_as_they_are(BRIDGE)
        for path in Path("/proc/sys/net/ipv4/conf").glob("*/arp_ignore"):
            path.write_text("1")            # a link outside the bridge answers for nobody
        for host in self.hosts:
            namespace = self._namespaces[host] = Namespace.new()
            run("ip", "link", "add", self._link(host), "type", "veth", "peer", "name", "eth0", "netns", namespace.path)
            run("ip", "link", "set", self._link(host), "master", BRIDGE, "up")
            namespace.run("ip", "address", "add", f"{self.ip(host)}/24", "dev", "eth0")
            namespace.run("ip", "link", "set", "eth0", "up")
            namespace.send_packets_as_they_are("eth0")

    # As the harness's clusters see it

    def ip(self, host):
        return f"10.77.0.{10 + host if host != CLIENTS else 1}"

    @staticmethod
    def address(host, port=PORT):
        """By the last part of the address, as AddressBlock has it: node 1 has 11."""
        return f"10.77.0.{host}:{port}"

    def entrance(self, number):
        return self._namespaces[number].enter

    def namespace(self, number):
        return self._namespaces[number]

    def release(self):
        """Back to where the main thread came from; what is left unused is taken down by the kernel."""
        if self._home is None:
            return
        for wire in self._wires.values():
            wire.kill()
        self._home.enter()
        for namespace in [*self._namespaces.values(), self._home]:
            namespace.close()
        self._home = None
        shutil.rmtree(self._logs, ignore_errors=True)

    # What can be wrong

    def drop(self, source, destination, percent=100):
        """Packets from one host to the other vanish, this many of a hundred."""
        self._dropped.add((source, destination, percent))
        self._tell_filters({destination})

    def separate(self, one, other):
        self.drop(one, other)
        self.drop(other, one)

    def others(self, host, with_clients=True):
        return [other for other in ([CLIENTS] if with_clients else []) + list(self.hosts) if other != host]

    def take_link_down(self, host):
        self._down.add(host)
        self._clients.run("ip", "link", "set", self._link(host), "down")

    def slow_down(self, host, kilobits):
        self._slow.add(host)
        for namespace, device in self._ends(host):
            namespace.run("tc", "qdisc", "replace", "dev", device, "root", "tbf", "rate", f"{kilobits}kbit",
                          "burst", "16kb", "latency", "400ms")

    def delay(self, host, milliseconds, jitter=0):
        """Every packet to and from the host arrives that much later, and, with jitter, not always in its turn."""
        link, inner, outer = self._link(host), f"wire{host}a", f"wire{host}b"
        run = self._clients.run
        run("ip", "link", "add", inner, "type", "veth", "peer", "name", outer)
        for device in (inner, outer):
            self._clients.send_packets_as_they_are(device)
        run("ip", "link", "set", outer, "master", BRIDGE, "up")
        run("ip", "link", "set", inner, "up")
        run("ip", "link", "set", link, "nomaster")
        self._wires[host] = OwnedProcess([sys.executable, _WIRE, link, inner, milliseconds, jitter], f"{self._logs}/wire{host}.log")

    def heal(self):
        """Everything is in order again."""
        destinations = {destination for _, destination, _ in self._dropped}
        self._dropped.clear()
        self._tell_filters(destinations)
        for host, wire in list(self._wires.items()):
            wire.kill()
            del self._wires[host]
            self._clients.run("ip", "link", "delete", f"wire{host}a")
            self._clients.run("ip", "link", "set", self._link(host), "master", BRIDGE)
        for host in self._slow:
            for namespace, device in self._ends(host):
                namespace.run("tc", "qdisc", "delete", "dev", device, "root")
        for host in self._down:
            self._clients.run("ip", "link", "set", self._link(host), "up")
        self._slow.clear()
        self._down.clear()

    def dropped_packets(self):
        """How many packets the filters have taken since they were last changed."""
        counts = [re.findall(r"counter packets (\d+)", self._namespaces[destination].run("nft", "list", "table", "inet", "faults"))
                  for destination in {destination for _, destination, _ in self._dropped}]
        return sum(int(count) for found in counts for count in found)

    def held_back_packets(self):
        """How often a slow link made a packet wait."""
        shown = [namespace.run("tc", "-s", "qdisc", "show", "dev", device) for host in self._slow
                 for namespace, device in self._ends(host)]
        return sum(int(count) for text in shown for count in re.findall(r"overlimits (\d+)", text))

    def expect_wires_to_work(self):
        for host, wire in self._wires.items():
            if not wire.alive:
                raise OSError(f"the wire of host {host} broke: {Path(self._logs, f'wire{host}.log').read_text()[-500:]}")

    def _link(self, host):
        return f"link{host}"

    def _ends(self, host):
        return (self._clients, self._link(host)), (self._namespaces[host], "eth0")

    def _tell_filters(self, destinations):
        for destination in destinations:
            rules = "".join(
                f"    ip saddr {self.ip(source)} {'' if percent == 100 else f'numgen random mod 100 < {percent} '}counter drop\n"
                for source, at, percent in sorted(self._dropped) if at == destination)
            self._namespaces[destination].run(
                "nft", "-f", "-", text="table inet faults\ndelete table inet faults\ntable inet faults {\n  chain arriving {\n"
                f"    type filter hook input priority 0\n{rules}  }}\n}}\n")
