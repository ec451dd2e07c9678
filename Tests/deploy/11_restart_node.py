# SPDX-License-Identifier: Apache-2.0
"""A node restarts, memcached included, and keeps its pairs: `setup.sh local restart` and restart-node.sh."""

import json
import os
import signal
import subprocess
import time

from local_cluster import Cluster, Local
from support import REPOSITORY, Skipped, at_end, daemon, eventually, expect, free_network, is_alive, run, scratch, write

SCRIPT = REPOSITORY / "deploy/restart-node.sh"


def need_shared_memory(mib):
    try:
        room = os.statvfs("/dev/shm")
    except OSError as error:
        raise Skipped("no /dev/shm here") from error
    if room.f_bavail * room.f_frsize < mib << 20:
        raise Skipped(f"/dev/shm has less than {mib} MiB")


def begin(*arguments, environment):
    """Starts a script that goes on beside the test; its output is `wait_for`'s."""
    process = subprocess.Popen([str(argument) for argument in arguments], env=os.environ | environment,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    at_end(lambda: (process.kill(), process.wait()))
    return process


def test_a_local_node_restarts_under_load():
    need_shared_memory(200)
    # (Two nodes are in the ring: with two replicas both are needed for each key.)
    local = Local("--replicas", "1")
    local.up()
    mine, others = local.keys_of(11, 200), local.keys_of(12, 50)
    for key in mine + others:
        local.store(10, key, f"value of {key}")
    before, generation = local.pids(), local.status(11)["generation"]
    restart = begin(SCRIPT, "--local", "1", environment=local.environment)
    # Meanwhile the balancer serves the other node's pairs, reads and writes.
    served = 0
    while restart.poll() is None:
        key = others[served % len(others)]
        local.store(10, key, f"value {served} of {key}")
        expect(local.ask(10, f"/route?key={key}") == f"value {served} of {key}", f"another value of {key}")
        served += 1
        time.sleep(0.01)
    said = restart.stdout.read()
    expect(restart.returncode == 0 and f"generation {generation} as before" in said, said)
    expect(served > 50, f"only {served} requests were served meanwhile")
    expect(local.status(11)["generation"] == generation, "its memory is another")
    lost = [key for key in mine if local.find(10, key) != f"value of {key}"]
    expect(not lost, f"lost {lost}")
    # haproxy and its sync; then supervisor, memcached and watcher of each node.
    changed = [old != new for old, new in zip(before, local.pids())]
    expect(changed == [False, False, True, True, False] + [False] * 6, f"{changed}: other parts were replaced than should be")
    local.setup("status").expect()


def test_all_local_nodes_restart_one_by_one():
    need_shared_memory(200)
    local = Local()
    local.up()
    local.setup("restart", "4").expect(64, says="takes numbers of nodes, 1 to 3: 4")
    before = local.pids()
    local.setup("restart").expect(says=("node 1: ready again", "node 2: ready again", "node 3: ready again"))
    expect(not {*before[2:4], *before[5:7], *before[8:10]} & set(local.pids()), "not all parts were replaced")
    expect(local.ask(10, "/route?key=hello") == "world", "the pair is gone")
    # While a node is away, no other one is taken away as well.
    os.kill(local.pid("node2/supervisor"), signal.SIGKILL)
    before = local.pids()
    eventually(5, "node 2 is away", lambda: not answers(local, 12))
    local.setup("restart", "1").expect(1, says="node 2 is not ready, so no node is restarted now")
    expect(local.pids() == before, "parts were replaced all the same")


def answers(cluster, host):
    try:
        return bool(cluster.ask(host, "/"))
    except OSError:
        return False


#: In systemd's place: starts and stops a node's two services as the units do it.
SYSTEMCTL = """#!/bin/bash
set -eu
cd "$NODE_DIRECTORY"
echo "$*" >>calls
end() {
    read -r pid <"$1"
    kill "-$2" "$pid"
    while kill -0 "$pid" 2>/dev/null && ! grep -qs '^State:.Z' "/proc/$pid/status"; do sleep 0.05; done
}
case "$*" in
'stop kvserver.service') end supervisor.pid TERM ;;
'stop kvserver-memcached.service') if [ -e breaks ]; then end memcached.pid KILL; else end memcached.pid USR1; fi ;;
'start kvserver-memcached.service')
    [ ! -e does-not-start ] || exit 1
    . "$PWD/memcached.env"
    setsid "$SCRIPTS/run-memcached.sh" --socket "$PWD/memcached.sock" --pid-file "$PWD/memcached.pid" \
        --memory "$MEMORY" --memory-file "$(cat memory)" </dev/null >>memcached.log 2>&1 &
    ;;
'start kvserver.service')
    setsid "$DAEMON" --config "$PWD/kvserver.json" </dev/null >>kvserver.log 2>&1 &
    echo $! >supervisor.pid
    ;;
*) exit 1 ;;
esac
"""

#: In ssh's place: the node with that address, on this machine.
SSH = """#!/bin/bash
set -eu
[ "$2 $3 $4" = "sudo -n /usr/lib/kvserver/restart-node.sh" ] || exit 1
export NODE_DIRECTORY=$NODES/$1
exec "$SCRIPTS/restart-node.sh" --config "$NODE_DIRECTORY/kvserver.json"
"""


class Deployed(Cluster):
    """Nodes as `setup.sh node` makes them, but for systemd and ssh, which this machine may lack."""

    def __init__(self, count):
        need_shared_memory(64 * count)
        super().__init__(free_network())
        self.directory = scratch()
        self.hosts = [f"{self.network}.{11 + index}" for index in range(count)]
        write(self.directory / "bin/systemctl", SYSTEMCTL, 0o755)
        write(self.directory / "bin/ssh", SSH, 0o755)
        self.environment = {"PATH": f"{self.directory}/bin:{os.environ['PATH']}", "NODES": str(self.directory),
                            "SCRIPTS": str(REPOSITORY / "deploy"), "DAEMON": str(daemon())}
        at_end(self.end)
        for host in self.hosts:
            node = self.directory / host
            memory = f"/dev/shm/{self.directory.name}-{host}"
            at_end(lambda memory=memory: run("rm", "-f", memory, f"{memory}.meta").expect())
            write(node / "memory", memory)
            write(node / "memcached.env", "MEMORY=64\n")
            write(node / "kvserver.json", json.dumps({
                "node": f"{host}:5000", "memcached": f"{node}/memcached.sock", "workers": 1,
                "stateDirectory": f"{node}/state"}))
            (node / "state").mkdir()
            for unit in ("kvserver-memcached.service", "kvserver.service"):
                run("systemctl", "start", unit, environment=self.of(host)).expect()
            eventually(10, f"{host} answers", lambda host=host: answers(self, int(host.rpartition(".")[2])))
        run(REPOSITORY / "deploy/reconfigure.sh", *(
            f"{host}:5000={1000 * (index + 1)}" for index, host in enumerate(self.hosts))).expect()
        for host in self.hosts:
            eventually(10, f"{host} is ready", lambda host=host: self.is_ready(host))

    def of(self, host):
        return self.environment | {"NODE_DIRECTORY": str(self.directory / host)}

    def is_ready(self, host):
        try:
            return bool(self.ask(int(host.rpartition(".")[2]), "/health/ready"))
        except OSError:
            return False

    def pids(self, host):
        return [int((self.directory / host / f"{part}.pid").read_text()) for part in ("supervisor", "memcached")]

    def end(self):
        for host in self.hosts:
            for part in ("supervisor", "memcached"):
                path = self.directory / host / f"{part}.pid"
                if path.exists():
                    pid = int(path.read_text())
                    Local.signal(pid, signal.SIGKILL)
                    eventually(5, f"{part} is gone", lambda pid=pid: not is_alive(pid))
        # (Workers leave when their supervisor is gone.)
        eventually(15, "the workers are gone", lambda: not any(answers(self, 11 + index) for index in range(len(self.hosts))))

    def restart(self, host):
        return run(SCRIPT, "--config", self.directory / host / "kvserver.json", environment=self.of(host))

    def restart_all(self):
        return run(SCRIPT, "--all", f"{self.hosts[-1]}:5000", "--ssh", "ssh", environment=self.environment)


def test_a_deployed_node_restarts():
    nodes = Deployed(1)
    [host] = nodes.hosts
    nodes.store(11, "key", "value")
    before = nodes.pids(host)
    nodes.restart(host).expect(says=("the daemon leaves", "ready again", "as before"))
    expect(not set(before) & set(nodes.pids(host)), "not all parts were replaced")
    expect(nodes.ask(11, "/route?key=key") == "value", "another value")
    calls = (nodes.directory / host / "calls").read_text().splitlines()[2:]
    expect(calls == ["stop kvserver.service", "stop kvserver-memcached.service", "start kvserver-memcached.service",
                     "start kvserver.service"], calls)


def test_what_would_lose_the_pairs_is_refused():
    nodes = Deployed(1)
    [host] = nodes.hosts
    before = nodes.pids(host)
    write(nodes.directory / host / "memcached.env", "MEMORY=80\n")
    nodes.restart(host).expect(1, says=("has 64 MiB and would get 80", "Nothing was"))
    write(nodes.directory / host / "memcached.env", "MEMORY=64\nMEMORY_FILE=\n")
    nodes.restart(host).expect(1, says=("keeps its pairs in no file", "nothing was stopped"))
    write(nodes.directory / host / "memcached.env", "MEMORY=64\n")
    os.kill(before[1], signal.SIGSTOP)
    nodes.restart(host).expect(1)
    os.kill(before[1], signal.SIGCONT)
    expect(nodes.pids(host) == before and all(map(is_alive, before)), "something was stopped")


def test_a_restart_that_fails_or_is_interrupted_leaves_nothing_down():
    nodes = Deployed(1)
    [host] = nodes.hosts
    script = begin(SCRIPT, "--config", nodes.directory / host / "kvserver.json", environment=nodes.of(host))
    for line in script.stdout:
        if "memcached restarts" in line:
            break
    script.send_signal(signal.SIGTERM)
    said = script.stdout.read()
    expect(script.wait(60) == 143 and "Starting again what had been stopped" in said, f"{script.returncode}: {said}")
    eventually(15, "the node is ready", lambda: nodes.is_ready(host))
    write(nodes.directory / host / "does-not-start", "")
    nodes.restart(host).expect(1, says=("memcached does not start", "memcached is not back",
                                        "Look whether the node is ready"))
    eventually(10, "the daemon runs", lambda: answers(nodes, 11))


def test_nodes_restart_through_ssh_one_by_one():
    nodes = Deployed(2)
    nodes.store(11, "key", "value")
    before = {host: nodes.pids(host) for host in nodes.hosts}
    nodes.restart_all().expect(says="All nodes are restarted.")
    for host in nodes.hosts:
        expect(not set(before[host]) & set(nodes.pids(host)), f"not all parts of {host} were replaced")
    expect(nodes.ask(12, "/route?key=key") == "value", "another value")
    # One that comes back empty ends the roll. (It serves all the same.)
    first, second = nodes.hosts
    write(nodes.directory / first / "breaks", "")
    before = nodes.pids(second)
    nodes.restart_all().expect(1, says=(f"{first}:5000 came back EMPTY", f"the restart of {first}:5000 failed"))
    expect(nodes.pids(second) == before, "the second node was restarted all the same")
    eventually(15, "the first node is ready", lambda: nodes.is_ready(first))


def test_wrong_arguments():
    run(SCRIPT, "--all", "here").expect(64, says="--all takes ip:port")
    run(SCRIPT, "--everything").expect(64, says="unknown argument: --everything")
    run(SCRIPT, "--config", scratch() / "none").expect(1, says="no node was set up here")
