# SPDX-License-Identifier: Apache-2.0
"""The faults: how each is drawn, inflicted, proven to have happened, and healed.

A step of a schedule is a dictionary that JSON can hold. It names a fault of `FAULTS`, and has what that fault's `draw`
drew: with the same step, the same is done to the same host. `inflict` returns how to heal.
"""

import signal
from typing import Callable, NamedTuple

from harness.expectations import eventually, expect
from harness.processes import kill, wait_until_gone

from . import disks

#: What a fault can need: networks or disks of the hosts' own, something that makes syncs fail, or other copies of what it
#: destroys.
NETWORK, DISK, SYNC, COPIES = "network", "disk", "sync", "copies"
#: With so many, one of them can be lost.
ENOUGH_REPLICAS = 3

REPLACED_WITHIN_SECONDS = 5


class Fault(NamedTuple):
    inflict: Callable                   # (scene, step) -> a function that heals
    draw: Callable                      # (chooser, hosts) -> what a step says beside the fault's name
    needs: frozenset = frozenset()
    has_happened: Callable | None = None    # (scene, step) -> True once its effect has shown


def one_host(chooser, hosts):
    return {"host": chooser.choice(hosts)}


def a_worker(chooser, hosts):
    return {**one_host(chooser, hosts), "worker": chooser.randrange(2)}


def two_hosts(chooser, hosts):
    one, other = chooser.sample(hosts, 2)
    return {"host": one, "other": other}


def a_member(chooser, hosts):
    """Whoever stands at that place of the first ring: not the standby, whose memory may be empty."""
    return {"place": chooser.choice(hosts[:-1])}


def nothing(_chooser, _hosts):
    return {}


# Processes


def _worker_of(scene, step):
    workers = scene.node(step).workers()
    return workers[step["worker"] % len(workers)]


def kill_worker(scene, step):
    victim = _worker_of(scene, step)
    kill(victim)
    return lambda: scene.node(step).wait_until_replaced([victim], REPLACED_WITHIN_SECONDS)


def stop_worker(scene, step):
    victim = _worker_of(scene, step)
    kill(victim, signal.SIGSTOP)
    return lambda: scene.node(step).wait_until_replaced([victim], REPLACED_WITHIN_SECONDS)


def kill_all_workers(scene, step):
    node = scene.node(step)
    victims = node.workers()
    for victim in victims:
        kill(victim)
    return lambda: node.wait_until_replaced(victims, REPLACED_WITHIN_SECONDS)


def worker_dies_at_a_write(scene, step):
    node = scene.node(step)
    scene.state_of(step)["workers"] = set(node.workers())
    node.set_failpoints(f"{step['point']}=kill after {step['hits']}")

    def heal():
        node.set_failpoints()
        eventually(REPLACED_WITHIN_SECONDS, f"{node.name} has all its workers",
                   lambda: len(node.workers()) == node.settings["workers"])
    return heal


def a_point_of_a_write(chooser, hosts):
    return {**one_host(chooser, hosts), "point": chooser.choice(["http.beforeApply", "http.afterApply.beforeReply"]),
            "hits": chooser.randint(0, 60)}


def a_worker_has_died(scene, step):
    return scene.state_of(step)["workers"] - set(scene.node(step).workers())


def kill_daemon(scene, step):
    """Supervisor and workers; the memcached goes on."""
    node = scene.node(step)
    workers = node.kill_supervisor()
    for worker in workers:
        kill(worker)

    def heal():
        expect(not wait_until_gone(workers, 5), f"workers of {node.name} have outlived it")
        node.start_daemon()
        node.wait_until_alive()
    return heal


def wrong_clock(scene, step):
    """The daemon comes back with another clock, and later with the right one, which may be a jump back. It is away for a
    moment each time."""
    node = scene.node(step)

    def start_with(offset):
        start = kill_daemon(scene, step)
        node.change_settings(clockOffsetMilliseconds=offset)
        start()
    start_with(step["offset"])
    return lambda: start_with(0)


def an_offset(chooser, hosts):
    return {**one_host(chooser, hosts), "offset": chooser.choice([-3_600_000, -5000, 5000, 3_600_000])}


def stop_memcached(scene, step):
    scene.node(step).memcached.pause()
    return scene.node(step).memcached.resume


def pause_host(scene, step):
    scene.node(step).pause_host()
    return scene.node(step).resume_host


def empty_memcached(scene, step):
    scene.node(step).memcached.restart_empty()
    return lambda: None


def lose_host(scene, step):
    """Everything that a host has in memory is gone, and it comes back later."""
    node = scene.node(step)
    heal_daemon = kill_daemon(scene, step)
    node.memcached.process.kill()

    def heal():
        node.memcached.start()
        heal_daemon()
    return heal


# Disks


def _expect_disk_to_work(node):
    eventually(10, f"{node.name} has no trouble with its disk", lambda: not _trouble_with_disk(node))


def fill_disk(scene, step):
    """Nothing more can be written to where the host keeps its ring and its snapshots."""
    host = scene.hosts_by_place[step["place"]]
    node, disk = scene.cluster.node(host), scene.disks[host]
    _expect_disk_to_work(node)
    disk.fill()
    # A snapshot that was being written gives its room back.
    eventually(10, f"{node.name} has trouble with its disk", lambda: _trouble_with_disk(node))
    disk.fill()
    return disk.clear


def disk_does_not_sync(scene, step):
    """The daemon comes back with calls to `fsync` and `fdatasync` that fail, and later without. It is away for a moment each
    time."""
    host = scene.hosts_by_place[step["place"]]
    node = scene.cluster.node(host)

    def start_with(environment):
        start = kill_daemon(scene, {"host": host})
        node.environment = environment
        start()
    _expect_disk_to_work(node)
    start_with(disks.environment_without_sync())
    return lambda: start_with({})


def snapshots_fail(scene, step):
    """It is the disk that they fail of, as the host itself tells."""
    return _trouble_with_disk(scene.cluster.node(scene.hosts_by_place[step["place"]]))


def _trouble_with_disk(node):
    error = node.status()["snapshot"]["error"] or ""
    return any(f"can't {verb}" in error for verb in ("open", "write", "sync"))


# The balancer


def reload_balancer(scene, step):
    for _ in range(step["times"]):
        scene.cluster.proxy.reload()
    return lambda: None


def kill_balancer(scene, _step):
    scene.cluster.proxy.end()

    def heal():
        scene.cluster.proxy.start()
        scene.cluster.proxy.wait_until_serving()
    return heal


def balancer_is_gone(scene, _step):
    try:
        scene.cluster.proxy.get("/", timeout=0.3)
    except OSError:
        return True
    return False


# Networks


def _drops(scene, *pairs, percent=100):
    for source, destination in pairs:
        scene.network.drop(source, destination, percent)
    return scene.network.heal


def _both_ways(host, others):
    return [pair for other in others for pair in ((host, other), (other, host))]


def cut_off_by_link(scene, step):
    scene.network.take_link_down(step["host"])
    return scene.network.heal


def cut_off_silently(scene, step):
    return _drops(scene, *_both_ways(step["host"], scene.network.others(step["host"])))


def cut_off_from_hosts(scene, step):
    return _drops(scene, *_both_ways(step["host"], scene.network.others(step["host"], with_clients=False)))


def cut_one_way(scene, step):
    return _drops(scene, (step["host"], step["other"]))


def cut_between_two(scene, step):
    return _drops(scene, *_both_ways(step["host"], [step["other"]]))


def lose_packets(scene, step):
    return _drops(scene, *_both_ways(step["host"], scene.network.others(step["host"])), percent=step["percent"])


def delay_packets(scene, step):
    scene.network.delay(step["host"], step["milliseconds"], step["jitter"])
    return scene.network.heal


def slow_link(scene, step):
    scene.network.slow_down(step["host"], step["kilobits"])
    return scene.network.heal


def packets_were_dropped(scene, _step):
    return scene.network.dropped_packets()


def host_is_out_of_reach(scene, step):
    try:
        scene.node(step).get("/", timeout=0.3)
    except OSError:
        return True
    return False


def host_answers_late(scene, step):
    scene.network.expect_wires_to_work()
    return scene.seconds_to_connect(step["host"]) * 1000 >= 0.9 * step["milliseconds"]


def packets_had_to_wait(scene, _step):
    return scene.network.held_back_packets()


_on_network = frozenset({NETWORK})

FAULTS = {
    "kill a worker": Fault(kill_worker, a_worker),
    "stop a worker": Fault(stop_worker, a_worker),
    "a worker dies at a write": Fault(worker_dies_at_a_write, a_point_of_a_write, has_happened=a_worker_has_died),
    "kill all workers": Fault(kill_all_workers, one_host),
    "kill the daemon": Fault(kill_daemon, one_host),
    "stop memcached": Fault(stop_memcached, one_host),
    "pause the host": Fault(pause_host, one_host),
    "wrong clock": Fault(wrong_clock, an_offset),
    "reload the balancer": Fault(reload_balancer, lambda chooser, _: {"times": chooser.randint(1, 3)}),
    "kill the balancer": Fault(kill_balancer, nothing, has_happened=balancer_is_gone),
    "fill the disk": Fault(fill_disk, a_member, frozenset({DISK})),
    "the disk does not sync": Fault(disk_does_not_sync, a_member, frozenset({DISK, SYNC}), snapshots_fail),
    "empty memcached": Fault(empty_memcached, one_host, frozenset({COPIES})),
    "lose the host": Fault(lose_host, one_host, frozenset({COPIES})),
    "link down": Fault(cut_off_by_link, one_host, _on_network, host_is_out_of_reach),
    "cut off silently": Fault(cut_off_silently, one_host, _on_network, packets_were_dropped),
    "cut off from all hosts": Fault(cut_off_from_hosts, one_host, _on_network, packets_were_dropped),
    "cut one way": Fault(cut_one_way, two_hosts, _on_network, packets_were_dropped),
    "cut between two": Fault(cut_between_two, two_hosts, _on_network, packets_were_dropped),
    "lose packets": Fault(lose_packets, lambda chooser, hosts: {**one_host(chooser, hosts), "percent": 5}, _on_network,
                          packets_were_dropped),
    "delay packets": Fault(delay_packets, lambda chooser, hosts: {**one_host(chooser, hosts), "milliseconds": 200, "jitter": 0},
                           _on_network, host_answers_late),
    "reorder packets": Fault(delay_packets, lambda chooser, hosts: {**one_host(chooser, hosts), "milliseconds": 40, "jitter": 100},
                             _on_network, host_answers_late),
    "slow link": Fault(slow_link, lambda chooser, hosts: {**one_host(chooser, hosts), "kilobits": 100}, _on_network,
                       packets_had_to_wait),
}


def possible_faults(lacking, replicas):
    """The names of the faults that a run can inflict, and, of each that it can't, why not. `lacking` has the same of what
    the machine lacks: `{NETWORK: "not root"}`."""
    possible, refused = [], {}
    for name, fault in FAULTS.items():
        reasons = [f"no {what} of its own: {lacking[what]}" if what != SYNC else lacking[what]
                   for what in sorted(fault.needs & lacking.keys())]
        if COPIES in fault.needs and replicas < ENOUGH_REPLICAS:
            reasons.append(f"{replicas} replica" + ("s" if replicas > 1 else ""))
        if reasons:
            refused[name] = "; ".join(reasons)
        else:
            possible.append(name)
    return possible, refused
