# SPDX-License-Identifier: Apache-2.0
"""The local cluster's memcacheds are started again when they die, by their watchers, and by `setup.sh local` after those."""

import os
import re
import signal
import time

from local_cluster import Local
from support import REPOSITORY, eventually, expect, is_alive, run, scratch, start


def kill(local, part):
    pid = local.pid(part)
    os.kill(pid, signal.SIGKILL)
    eventually(5, f"{part} is gone", lambda: not is_alive(pid))
    return pid


def another_memcached(local, before, node=1, seconds=2):
    """Waits until the pid file names one that runs, and is not `before`."""
    return eventually(seconds, f"node {node} has another memcached than {before}", lambda: (
        (pid := local.pid(f"node{node}/memcached")) != before and is_alive(pid) and pid))


def stores_and_reads(local):
    """Whether node 1 does so, many times in a row: each of its workers comes to know its memcached by itself."""
    try:
        for number in range(20):
            local.store(11, "again", f"value {number}")
            if local.ask(11, "/route?key=again") != f"value {number}":
                return False
    except OSError:
        return False
    return True


def finds_none(local, keys):
    try:
        return [local.find(11, key) for key in keys] == [None] * len(keys)
    except OSError:
        return False


def test_one_that_is_killed_is_replaced():
    local = Local("--replicas", "1")
    local.up()
    others = [local.pid(f"node{node}/{part}") for node in (2, 3) for part in ("memcached", "supervisor", "watcher")]
    supervisor, generation = local.pid("node1/supervisor"), local.status(11)["generation"]
    keys = local.keys_of(11, 5)
    for key in keys:
        local.store(11, key, "lost")
    another_memcached(local, kill(local, "node1/memcached"))
    eventually(5, "node 1 has a new memory", lambda: local.status(11)["generation"] not in (generation, None))
    eventually(5, "node 1 stores and reads", lambda: stores_and_reads(local))
    # Though they lay in a file: what a kill leaves of it may be torn. (Of two workers one knows of its memory first.)
    eventually(5, "there are no pairs of before", lambda: finds_none(local, keys))
    local.setup("status").expect()
    expect(local.pid("node1/supervisor") == supervisor, "the daemon was replaced as well")
    expect([local.pid(f"node{node}/{part}") for node in (2, 3) for part in ("memcached", "supervisor", "watcher")]
           == others, "other nodes' parts were replaced")
    expect(re.search(r"memcached \d+ ended \(status 137\)", (local.state / "node1/memcached.log").read_text()),
           "the log does not say that it was killed")


def test_one_without_a_memory_file_is_replaced_too():
    local = Local("--warm-restart", "no")
    local.up()
    another_memcached(local, kill(local, "node1/memcached"))
    eventually(5, "node 1 stores and reads", lambda: stores_and_reads(local))
    local.setup("restart", "1").expect(1, says=("keeps its pairs in no file", "nothing was stopped"))
    eventually(5, "node 1 was not stopped", lambda: stores_and_reads(local))


def test_a_watcher_that_is_killed():
    """Its memcached goes on with its pairs, is watched again after `setup.sh local`, and ends with the cluster."""
    local = Local()
    local.up()
    memcacheds = [local.pid(f"node{node}/memcached") for node in (1, 2)]
    for node in (1, 2):
        kill(local, f"node{node}/watcher")
    expect(all(map(is_alive, memcacheds)), "memcached died with its watcher")
    expect(local.ask(10, "/route?key=hello") == "world", "the pair is gone")
    local.setup("status").expect(1, says=f"memcached {memcacheds[0]} (watcher DOWN)")
    local.up()
    local.setup("status").expect()
    expect([local.pid(f"node{node}/memcached") for node in (1, 2)] == memcacheds, "a memcached that ran was replaced")
    files = local.memory_files()
    another_memcached(local, kill(local, "node1/memcached"))
    kill(local, "node2/watcher")
    local.setup("down").expect()
    expect(not local.processes(), f"still there: {local.processes()}")
    expect(not any(map(os.path.exists, files)), f"still there: {files}")


def test_the_pauses_grow_and_end_with_the_watcher():
    """What can't run is not started without end as fast as can be; and SIGTERM is heard in a pause."""
    directory = scratch()
    script = REPOSITORY / "deploy/watch-memcached.sh"
    # No memcached starts with as little memory.
    log = directory / "log"
    with open(log, "wb") as output:
        watcher = start(script, "--pid-file", directory / "pid", "--socket", directory / "socket", "--memory", "1",
                        output=output)
        time.sleep(4)
        watcher.terminate()
        expect(watcher.wait(2) == 0, "it ended in another way")
    said = log.read_text()
    pauses = re.findall(r"starts in ([0-9.]+) s", said)
    expect(pauses[:5] == ["0.1", "0.2", "0.4", "0.8", "1.6"] and len(pauses) <= 6, said)


def test_there_is_one_watcher():
    directory = scratch()
    arguments = (REPOSITORY / "deploy/watch-memcached.sh", "--pid-file", directory / "memcached.pid",
                 "--socket", directory / "socket", "--memory", "16")
    watcher = start(*arguments)
    eventually(5, "memcached runs", (directory / "socket").exists)
    memcached = int((directory / "memcached.pid").read_text())
    run(*arguments).expect(1, says="another one watches")
    expect(is_alive(memcached), "memcached was ended")
    watcher.terminate()
    watcher.wait(5)
    expect(not is_alive(memcached), "memcached outlived its watcher's end")


def test_a_shared_memory_that_is_too_small():
    """Then there is a cluster all the same, without warm restart."""
    local = Local("--memory", "900000")
    local.setup(*local.options, "--warm-restart", "yes").expect(1, says="there can be no warm restart: ")
    expect(not local.processes(), "parts were started all the same")
    local = Local("--memory", "39")
    local.up().expect(says="Pairs won't outlast a restart of their memcached: memcached needs --memory 40")
