# SPDX-License-Identifier: Apache-2.0
"""Lives of the cluster that `setup.sh local` makes: on a loopback network and in a directory of the test's own."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error

from local_cluster import Local
from support import REPOSITORY, SETUP, at_end, eventually, expect, is_alive, run, write


def test_it_comes_up_says_what_to_try_and_goes_down():
    local = Local()
    said = local.up().output
    for command in ("curl -d 'key=roof&val=red'", f"/add_node/5000/{local.network}.13:5000", "/remove_node/"):
        expect(command in said, f"{command} is missing in:\n{said}")
    for host in (11, 12, 13, 10):
        expect(local.ring(host) == local.default_ring(), f"{host} has {local.ring(host)}")
        expect(local.ask(host, "/route?key=hello") == "world", f"{host} does not answer")
    status = local.setup("status").expect().output
    expect(status.count(" ready ") == 3 and "in no position" in status and "node1 node2 node3" in status, status)
    local.setup("logs").expect(says="node1/kvserver.log")
    before = local.pids()
    run(SETUP, "local", environment=local.environment, seconds=90).expect(says="All 11 parts of the cluster run.")
    expect(local.pids() == before, "a second run replaced parts that ran")
    local.setup("--nodes", "2").expect(1, says="a cluster with other settings runs here")
    local.setup("down").expect(says="The cluster is down")
    expect(not local.processes(), f"still there: {local.processes()}")
    local.setup("down").expect()
    local.setup("status").expect(1, says="DOWN")
    # Up again, it is a new cluster, on the same network.
    run(SETUP, "local", environment=local.environment, seconds=90).expect(says="read back: hello = world")
    expect(local.ring(13) == local.default_ring(), local.ring(13))


def test_it_speaks_memcacheds_protocol_where_it_is_told_to():
    local = Local("--memcached-port", "11211")
    said = local.up().output
    command = next((line for line in said.splitlines() if "telnet://" in line), "").split("    #")[0]
    expect(f"telnet://{local.network}.11:11211" in command, f"no line to try it with in:\n{said}")
    # (The line as it is printed.)
    answer = run("bash", "-c", command).expect().output.replace("\r", "")
    expect(answer == "STORED\nVALUE roof 0 3\nred\nEND\n", f"{command}: {answer!r}")
    expect(local.find(12, "roof") == "red", f"over HTTP: {local.find(12, 'roof')}")
    # The port belongs to the cluster's settings: whoever starts it again need not name it.
    local.setup("down").expect()
    run(SETUP, "local", environment=local.environment, seconds=90).expect(says=f"telnet://{local.network}.11:11211")


def test_what_died_is_started_again():
    local = Local()
    local.up()
    kept = local.pid("node3/memcached"), local.pid("node3/supervisor"), local.pid("node1/supervisor")
    for part in ("node1/watcher", "node1/memcached", "node2/supervisor", "haproxy", "sync"):
        pid = local.pid(part)
        os.kill(pid, signal.SIGKILL)
        eventually(5, f"{part} is gone", lambda pid=pid: not is_alive(pid))
    status = local.setup("status").expect(1).output
    expect(status.count("DOWN") == 5, status)
    local.up()
    local.setup("status").expect()
    expect((local.pid("node3/memcached"), local.pid("node3/supervisor"), local.pid("node1/supervisor")) == kept,
           "parts that ran were replaced")
    for host in (11, 12, 13):
        expect(local.ring(host) == local.default_ring(), f"{host} has {local.ring(host)}")


def test_a_worker_that_is_killed_is_replaced():
    local = Local()
    local.up()
    before = local.workers(1)
    expect(len(before) == 2, f"node 1 has the workers {before}")
    os.kill(before[0], signal.SIGKILL)
    after = eventually(5, "there are two workers again", lambda: (
        found := local.workers(1)) and len(found) == 2 and before[0] not in found and found)
    expect(before[1] in after, "the other one was replaced as well")


def test_reloads_cost_no_request():
    local = Local()
    local.up()
    before = local.workers(1)
    load = subprocess.Popen(
        [sys.executable, REPOSITORY / "Tests/deploy/load.py", f"{local.network}.10:5000", "--seconds", "8",
         "--connections", "16", "--pause", "0.002", "--strict"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    at_end(lambda: (load.kill(), load.wait()))
    eventually(5, "the load begins", lambda: "load0-0" in str(try_ask(local)))
    local.setup("reload").expect(says="node 3 replaces its workers")
    eventually(20, "node 1 has new workers", lambda: not set(local.workers(1)) & set(before))
    local.setup("reload-haproxy").expect(says="HAProxy takes up")
    output, _ = load.communicate(timeout=40)
    expect(load.returncode == 0, f"requests failed: {output}")
    counts = json.loads(output)
    expect(counts["gets"] > 500 and counts["posts"] > 100, f"hardly a load: {counts}")
    local.setup("status").expect()


def try_ask(local):
    try:
        return local.ask(10, "/route?key=load0-0")
    except OSError:
        return None


def test_reconfigure_gives_it_another_ring():
    local = Local()
    local.up()
    one, two, three = (f"{local.network}.{host}:5000" for host in (11, 12, 13))
    script = REPOSITORY / "deploy/reconfigure.sh"
    run(script, f"{one}=1000", f"{three}=6000", "--standby", two).expect()
    for host in (11, 12, 13):
        expect(local.ring(host) == {"1000": one, "6000": three}, f"{host} has {local.ring(host)}")
    run(script, "--clear", f"{one}=1000", f"{three}=6000", "--standby", two).expect()
    try:
        expect(False, f"a pair is there still: {local.ask(11, '/route?key=hello')}")
    except urllib.error.HTTPError as error:
        expect(error.code == 404, error)
    local.up()
    expect(local.ring(12) == {"1000": one, "6000": three}, "the second run put another ring in its place")


def test_an_address_that_is_taken():
    local = Local()
    with socket.create_server((f"{local.network}.12", 5000)):
        local.setup(*local.options).expect(1, says=f"{local.network}.12:5000 is taken by process {os.getpid()}")
        expect(not local.processes(), "parts were started all the same")
    first = Local()
    first.up()
    second = Local(network=first.network)
    second.setup(*second.options).expect(1, says=(f"with its state in {first.state}", "--network"))
    expect(not second.processes(), "parts were started all the same")


def test_it_goes_down_whatever_state_its_parts_are_in():
    local = Local()
    local.up()
    workers = local.workers(2)
    os.kill(local.pid("node1/supervisor"), signal.SIGKILL)
    os.kill(local.pid("node3/memcached"), signal.SIGKILL)
    os.kill(local.pid("node2/watcher"), signal.SIGKILL)
    os.kill(local.pid("node3/watcher"), signal.SIGSTOP)
    os.kill(workers[0], signal.SIGSTOP)
    os.kill(local.pid("node1/memcached"), signal.SIGSTOP)
    local.setup("down").expect(says="The cluster is down")
    eventually(5, "all are gone", lambda: not local.processes())


def test_a_pid_file_that_names_another_process():
    """A pid that the kernel has given to somebody else is left alone."""
    local = Local()
    local.up()
    other = subprocess.Popen(["sleep", "300"])
    at_end(lambda: (other.kill(), other.wait()))
    pid = local.pid("node3/supervisor")
    os.kill(pid, signal.SIGKILL)
    eventually(5, "its workers are gone", lambda: not any(
        str(local.state / "node3/kvserver.json") in line for line in command_lines(local.processes())))
    write(local.state / "node3/supervisor.pid", f"{other.pid}\n")
    local.setup("status").expect(1, says="DOWN")
    local.setup("down").expect()
    expect(other.poll() is None, "it ended somebody else's process")


def command_lines(pids):
    for pid in pids:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as line:
                yield line.read().decode().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            pass


def test_the_balancer_follows_the_ring():
    local = Local()
    local.up()

    def servers_of(slot):
        """The map's servers, by what HAProxy has in its memory."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"{local.state}/haproxy.sock")
            connection.sendall(f"get map {local.state}/ring.map {slot}\n".encode())
            return connection.recv(4096).decode()
    eventually(10, "the map is there", lambda: 'value="node1:node2"' in servers_of(2184) and 'value="node2:node1"' in servers_of(4019))
    local.ask(10, f"/add_node/5000/{local.network}.13:5000")
    eventually(10, "the newcomer is in it", lambda: 'value="node3:node2:node1"' in servers_of(4019))
