# SPDX-License-Identifier: Apache-2.0
"""`setup.sh node`, into a directory: what it installs, and that it may be repeated."""

import json
import os
import shutil

from support import SETUP, Skipped, daemon, eventually, expect, free_network, need, run, scratch, stand_in, start, write

ADDRESS = "10.0.0.5:5000"


def install(root, *arguments, status=0, says=(), says_not=(), environment=None):
    return run(SETUP, "node", "--root", root, *arguments, directory="/",
               environment=environment or {"KVSERVER_BINARY": str(stand_in())}).expect(status, says, says_not)


def content(root):
    """Every file of a tree: its path, mode and bytes (or where it links to)."""
    return {str(path.relative_to(root)): os.readlink(path) if path.is_symlink() else
            (path.stat().st_mode, path.read_bytes() if path.is_file() else None) for path in root.rglob("*")}


def configuration(root):
    return json.loads((root / "etc/kvserver/kvserver.json").read_text())


def environment(root):
    lines = (root / "etc/kvserver/memcached.env").read_text().splitlines()
    return dict(line.split("=") for line in lines if not line.startswith("#"))


def test_it_installs_a_node():
    root = scratch()
    install(root, "--address", ADDRESS, "--memory", "100", says="Nothing was started")
    for program in ("usr/bin/KVServer", "usr/lib/kvserver/run-memcached.sh", "usr/lib/kvserver/reconfigure.sh",
                    "usr/lib/kvserver/restart-node.sh"):
        expect(os.access(root / program, os.X_OK), f"{program} is missing, or not executable")
    for unit in ("kvserver.service", "kvserver-memcached.service"):
        expect((root / "lib/systemd/system" / unit).is_file(), f"{unit} is missing")
        if shutil.which("systemctl"):
            wanted = root / "etc/systemd/system/multi-user.target.wants" / unit
            expect(os.readlink(wanted).endswith(f"/lib/systemd/system/{unit}"), f"{unit} is not enabled")
    expect(configuration(root) == {"node": ADDRESS, "peerPortOffset": 10000}, configuration(root))
    expect(environment(root) == {"MEMORY": "100", "THREADS": "4", "CONNECTIONS": "1024"}, environment(root))
    run("sh", "-c", f". {root}/etc/kvserver/memcached.env && test $MEMORY = 100").expect()


def test_again_it_changes_nothing():
    root = scratch()
    options = ("--address", ADDRESS, "--workers", "4", "--listen", "0.0.0.0:5000", "--memory", "64")
    install(root, *options)
    before = content(root)
    install(root, *options, says_not="Wrote")
    install(root, says_not="Wrote")
    expect(content(root) == before, "a second run changed something")


def test_options_change_what_they_name_and_no_more():
    root = scratch()
    install(root, "--address", ADDRESS, "--memory", "100")
    file = root / "etc/kvserver/kvserver.json"
    file.write_text('{\n  "node": "10.0.0.5:5000",\n  "logLevel": "debug",\n  "drainSeconds": 3\n}\n')
    install(root, "--workers", "6")
    expect(configuration(root) == {"node": ADDRESS, "logLevel": "debug", "drainSeconds": 3, "workers": 6}, file.read_text())
    install(root, "--workers", "8", "--listen", "0.0.0.0:5000")
    expect(configuration(root) == {"node": ADDRESS, "logLevel": "debug", "drainSeconds": 3, "workers": 8,
                                   "listen": "0.0.0.0:5000"}, file.read_text())
    install(root, "--workers", "0", "--address", "10.0.0.6:5001", says="This node was 10.0.0.5:5000")
    expect(configuration(root) == {"node": "10.0.0.6:5001", "logLevel": "debug", "drainSeconds": 3,
                                   "listen": "0.0.0.0:5000"}, file.read_text())
    env = root / "etc/kvserver/memcached.env"
    env.write_text(env.read_text().replace("THREADS=4", "THREADS=2"))
    install(root, "--memory", "200", says="starts empty")
    expect(environment(root) == {"MEMORY": "200", "THREADS": "2", "CONNECTIONS": "1024"}, env.read_text())
    install(root, "--warm-restart", "no")
    expect(environment(root)["MEMORY_FILE"] == "", env.read_text())
    install(root, "--memory", "200", says_not="Wrote")
    install(root, "--warm-restart", "yes")
    expect(environment(root) == {"MEMORY": "200", "THREADS": "2", "CONNECTIONS": "1024"}, env.read_text())


def test_one_line_of_json_is_changed_as_well():
    root = scratch()
    install(root, "--address", ADDRESS)
    (root / "etc/kvserver/kvserver.json").write_text('{"workers":2,"node":"10.0.0.5:5000","drainSeconds":3}')
    install(root, "--workers", "16")
    expect(configuration(root) == {"workers": 16, "node": ADDRESS, "drainSeconds": 3}, configuration(root))
    install(root, "--workers", "0")
    expect(configuration(root) == {"node": ADDRESS, "drainSeconds": 3}, configuration(root))


def test_a_linked_lib_stays_a_link():
    root = scratch()
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    install(root, "--address", ADDRESS)
    expect((root / "lib").is_symlink(), "the root's /lib was replaced")
    expect((root / "usr/lib/systemd/system/kvserver.service").is_file(), "the unit went elsewhere")


def test_wrong_options_install_nothing():
    root = scratch() / "none"
    for options, message in ((["--address", "10.0.0.5"], "--address takes ip:port"),
                             (["--address", "host:5000"], "--address takes ip:port"),
                             (["--address", "0.0.0.0:5000"], "0.0.0.0 goes to --listen"),
                             (["--address", ADDRESS, "--workers", "257"], "--workers takes 0 to 256"),
                             (["--address", ADDRESS, "--memory", "63"], "--memory takes MiB from 64 up"),
                             (["--address", ADDRESS, "--listen", "5000"], "--listen takes ip:port"),
                             (["--address", ADDRESS, "--peer-port-offset", "65535"], "--peer-port-offset takes 0 to 65534"),
                             (["--address", "10.0.0.5:55536"], "ports end at 65535"),
                             (["--address", ADDRESS, "--warm-restart", "on"], "--warm-restart takes yes or no"),
                             (["--adress", ADDRESS], "unknown argument: --adress"),
                             (["--address"], "--address needs a value"),
                             ([], "--address is missing")):
        install(root, *options, status=64, says=message)
    install(root, "--address", ADDRESS, "--deb", root / "none.deb", status=1, says="there is no file")
    expect(not root.exists(), "something was installed")


def test_a_package_is_verified():
    packages, root = scratch(), scratch()
    made = run("deploy/package.sh", "--output", packages, "--version", "1.2",
               environment={"KVSERVER_BINARY": str(stand_in())}).expect()
    package = made.output.splitlines()[-1]
    install(root, "--address", ADDRESS, "--deb", package, says="matches")
    with open(package, "ab") as file:
        file.write(b"\n")
    other = scratch()
    install(other, "--address", ADDRESS, "--deb", package, status=1, says="is damaged")
    expect(not list(other.iterdir()), "a damaged package was installed")
    write(packages / "other.deb", "no package")
    install(other, "--address", ADDRESS, "--deb", packages / "other.deb", status=1,
            says=("There is no", "is no package of the daemon"))


def test_without_toolchain_and_package_it_says_what_to_do():
    # A PATH with the tools it needs, and no swift among them.
    tools = scratch()
    for name in ("bash", "sh", "uname", "dirname", "id", "dpkg-deb", "dpkg", "env", "cat", "awk", "sed", "grep"):
        (tools / name).symlink_to(shutil.which(name))
    root = scratch()
    ran = run("/bin/bash", "-c", f'PATH={tools}; hash -r; . {SETUP.parent}/deploy/lib/common.sh; HERE={root}; '
              f'. {SETUP.parent}/deploy/lib/node.sh; setup_node --root {root} --address {ADDRESS}',
              environment={"KVSERVER_BINARY": ""})
    ran.expect(1, says=("there is no Swift toolchain here, and 0 packages", "deploy/package.sh"))


def test_a_real_install_asks_for_root_and_systemd():
    if os.geteuid() != 0:
        run(SETUP, "node", "--address", ADDRESS).expect(1, says="this needs root")
    elif not os.path.isdir("/run/systemd/system"):
        run(SETUP, "node", "--address", ADDRESS).expect(1, says=("no systemd runs here", "--root DIR"))


def test_systemd_accepts_the_units():
    need("systemd-analyze")
    root = scratch()
    install(root, "--address", ADDRESS)
    units = []
    for path in sorted((root / "lib/systemd/system").glob("*.service")):
        # The programs of the units are in that root, not on this machine.
        text = path.read_text().replace("ExecStart=/usr/", f"ExecStart={root}/usr/")
        units.append(write(root / "units" / path.name, text))
    expect(len(units) == 3, units)
    run("systemd-analyze", "verify", "--man=no", *units).expect()


def test_what_ends_is_started_again_without_end():
    root = scratch()
    install(root, "--address", ADDRESS)
    for path in sorted((root / "lib/systemd/system").glob("*.service")):
        lines = path.read_text().splitlines()
        for line in ("Restart=always", "StartLimitIntervalSec=0"):
            expect(line in lines, f"{path.name} lacks {line}")


def test_the_units_are_hardened():
    need("systemd-analyze")
    if "--offline" not in run("systemd-analyze", "--help").output:
        raise Skipped("this systemd cannot judge a unit that is not installed")
    root = scratch()
    install(root, "--address", ADDRESS)
    for path in sorted((root / "lib/systemd/system").glob("*.service")):
        run("systemd-analyze", "security", "--offline=true", "--threshold=20", path).expect()


def tokens(root):
    directory = root / "etc/kvserver/tokens"
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_it_makes_tokens_and_keeps_them():
    root = scratch()
    ran = install(root, "--address", ADDRESS, says="Made the token for admin and peer in ")
    made = tokens(root)
    expect(set(made) == {"admin", "peer", "data"} and made["data"] == "none\n", made.keys())
    for door in ("admin", "peer"):
        expect(len(made[door]) == 65 and set(made[door].strip()) <= set("0123456789abcdef"), f"{door} is no token")
        expect(made[door].strip() not in ran.output, "a token was printed")
    expect(made["admin"] != made["peer"], "one token for two doors")
    directory = root / "etc/kvserver/tokens"
    expect(directory.stat().st_mode & 0o777 == 0o700, oct(directory.stat().st_mode))
    expect(all(path.stat().st_mode & 0o777 == 0o400 for path in directory.iterdir()), "others can read a token")
    install(root, says_not="Made the token")
    expect(tokens(root) == made, "a second run changed a token")
    install(root, "--data-token", says="Made the token for data in ")
    with_data = tokens(root)
    expect(len(with_data["data"]) == 65 and {**with_data, "data": "none\n"} == made, "the data token")
    install(root, "--data-token", says_not="Made the token")
    other = scratch()
    install(other, "--address", "10.0.0.6:5000", "--tokens", directory, says_not="Made the token")
    expect(tokens(other) == with_data, "another node has other tokens")
    install(other, "--tokens", scratch(), status=1, says="there are no files admin and peer")


def test_without_tokens_it_has_to_be_told_so():
    root = scratch()
    install(root, "--address", ADDRESS, "--insecure")
    expect(configuration(root) == {"node": ADDRESS, "peerPortOffset": 10000, "insecure": True}, configuration(root))
    expect(not (root / "etc/kvserver/tokens").exists(), "it made tokens")
    install(root, "--insecure", "--data-token", status=64, says="--insecure makes no tokens")
    install(root, "--insecure", says_not="Wrote")
    install(root, "--memory", "64", says=("is so no longer", "Made the token for admin and peer in "))
    expect(configuration(root) == {"node": ADDRESS, "peerPortOffset": 10000, "insecure": False}, "it is insecure still")
    expect(set(tokens(root)) == {"admin", "peer", "data"}, "it has no tokens")
    install(root, says_not=("is so no longer", "Wrote", "Made"))
    (root / "etc/kvserver/kvserver.json").write_text('{"insecure":true,"node":"10.0.0.5:5000"}')
    install(root, "--address", ADDRESS, says="is so no longer")
    expect(configuration(root) == {"node": ADDRESS, "insecure": False}, "it is insecure still")


def test_tokens_that_the_daemon_would_refuse_are_not_taken():
    good, other = "a" * 32, "0123456789-._~+/ABCDEFGHIJKLMNOPQRSTUVWXYZ=="
    settings = write(scratch() / "kvserver.json", json.dumps({"node": ADDRESS, "stateDirectory": str(scratch())}))
    cases = [("data", "none\n", True), ("data", "# open\n none \r\n", True), ("data", "", False), ("admin", "none\n", False), ("peer", "none\n", False),
             *(("admin", text, is_good) for text, is_good in (
                 (good, True), (f"# of all\n\n \t{good} \r\n{other}\n", True), ("b" * 256, True), ("b" * 257, False), (good[1:], False), ("", False),
                 ("# nothing\n", False), (f"{good}\n{other}\n{good}\n", False), (f"{good} {good}\n", False), (f"{good}!\n", False), ("é" * 32, False),
                 (f"{good}\nnone\n", False), (f"# {'x' * 4096}\n{good}\n", False), (good + "\0", False)))]
    for door, text, is_good in cases:
        directory, root = scratch(), scratch() / "none"
        for name, content_of_it in {"admin": good, "peer": good, "data": good, door: text}.items():
            write(directory / name, content_of_it, 0o400)
        what = f"{door}: {text[:80]!r}"
        if is_good:
            install(root, "--address", ADDRESS, "--tokens", directory)
            expect(tokens(root)[door] == text.replace("\r\n", "\n"), what)
        else:
            install(root, "--address", ADDRESS, "--tokens", directory, status=1, says=f"{directory}/{door} is no file of a token")
            expect(not root.exists(), f"something was installed: {what}")
        ran = run(daemon(), "--config", settings, "--check", *(f"--{name}-token-file={directory}/{name}" for name in ("admin", "peer", "data")),
                  environment={"CREDENTIALS_DIRECTORY": ""})
        expect((ran.status == 0) == is_good, f"the daemon and setup.sh differ about {what}: {ran.output}")


def test_the_daemon_takes_what_systemd_hands_it():
    """The names of the unit's credentials are those that the daemon looks for, and a file that is missing is none."""
    root = scratch()
    install(root, "--address", ADDRESS)
    unit = (root / "lib/systemd/system/kvserver.service").read_text()
    source = (SETUP.parent / "Sources/Supervision/ConfigurationLayer.swift").read_text()
    for door in ("data", "admin", "peer"):
        expect(f"\nLoadCredential={door}-token:/etc/kvserver/tokens/{door}\n" in unit, f"no {door}-token")
        expect(f"\nSetCredential={door}-token:none\n" in unit, f"the unit needs a {door}-token")
        expect(f'"{door}-token"' in source, f"the daemon does not look for {door}-token")
    credentials = scratch()
    for door, token in tokens(root).items():
        write(credentials / f"{door}-token", token, 0o440)
    settings = write(scratch() / "kvserver.json", json.dumps({**configuration(root), "stateDirectory": str(scratch())}))
    run(daemon(), "--config", settings, "--check", environment={"CREDENTIALS_DIRECTORY": str(credentials)}).expect(says="can be right")
    run(daemon(), "--config", settings, "--check", environment={"CREDENTIALS_DIRECTORY": ""}).expect(78, says="beyond loopback")


def test_a_daemon_that_is_not_roots_serves():
    """As the unit's is not: what root alone may do with a socket would close each connection."""
    place, network = scratch(), free_network()
    place.chmod(0o755)
    program, state = shutil.copy(daemon(), place), place / "state"
    state.mkdir()
    words = [program, "--node", f"{network}.11:5000", "--workers", 1, "--memcached", place / "memcached.sock", "--state-directory", state]
    if os.geteuid() == 0:
        shutil.chown(state, "nobody", "nogroup")
        words = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", *words]
    with open(place / "log", "w+b") as log:
        process = start(*words, output=log)
        eventually(10, "it answers", lambda: run("curl", "--silent", "--fail", f"http://{network}.11:5000/health/live").status == 0)
    process.terminate()
    expect(process.wait(20) == 0, f"it ended with {process.returncode}")
