# SPDX-License-Identifier: Apache-2.0
"""`setup.sh balancer`, into a directory."""

from support import SETUP, expect, run, scratch, stand_in, write


def install(root, *arguments, status=0, says=()):
    return run(SETUP, "balancer", "--root", root, *arguments, directory="/").expect(status, says)


def test_again_it_changes_nothing():
    root = scratch()
    file = root / "etc/haproxy/haproxy.cfg"
    install(root, "--node", "10.0.0.5:5000", says="Wrote")
    before = file.read_bytes(), file.stat().st_mtime_ns
    install(root, "--node", "10.0.0.5:5000", says="is as it should be")
    expect((file.read_bytes(), file.stat().st_mtime_ns) == before, "a second run changed it")
    expect(sorted(path.name for path in file.parent.iterdir()) == ["haproxy.cfg", "ring.map"], "it left something behind")


def test_a_foreign_configuration_is_kept_and_our_own_is_not():
    root = scratch()
    file = write(root / "etc/haproxy/haproxy.cfg", "# somebody else's\n")
    install(root, "--node", "10.0.0.5:5000", says="Kept")
    install(root, "--node", "10.0.0.6:5000")
    kept = file.with_name("haproxy.cfg.before-kvserver")
    expect(kept.read_text() == "# somebody else's\n", "the foreign configuration is lost")
    expect(sorted(path.name for path in file.parent.iterdir()) == [file.name, kept.name, "ring.map"], "it left something behind")
    expect("10.0.0.6:5000" in file.read_text() and "10.0.0.5:5000" not in file.read_text(), file.read_text())


def test_wrong_options_install_nothing():
    root = scratch() / "none"
    one = ["--node", "10.0.0.5:5000"]
    for options, message in (([], "no nodes given"), (["--node"], "--node needs a value"),
                             (["--node", "10.0.0.5"], "--node takes ip:port"),
                             (["--node", "10.0.0.5:5000 backup"], "--node takes ip:port"),
                             (one + one, "a node twice"), (one + ["--bind", "80"], "--bind takes ip:port"),
                             (one + ["--bind", "10.0.0.5:5000"], "a node where clients come in"),
                             (one + ["--statistics", "x"], "--statistics takes ip:port"),
                             (one + ["--connections", "5"], "--connections takes"), (["10.0.0.5:5000"], "unknown argument")):
        install(root, *options, status=64, says=message)
    expect(not root.exists(), "something was installed")


def test_kvctl_comes_with_its_unit():
    """From KVCTL_BINARY, or from the daemon's package; without either the balancer works, and says what it lacks."""
    nodes = ("--node", "10.0.0.5:5000", "--node", "10.0.0.6:5000")
    install(scratch(), *nodes, says="There is no kvctl here")
    kvctl = stand_in().with_name("kvctl")
    package = scratch()
    environment = {"KVSERVER_BINARY": str(stand_in()), "KVCTL_BINARY": str(kvctl)}
    run("deploy/package.sh", "--output", package, "--version", "1", environment=environment).expect()
    damaged = write(scratch() / "damaged.deb", "not what it was")
    write(damaged.with_name("damaged.deb.sha256"), next(package.glob("*.sha256")).read_text())
    root = scratch()
    install(root, *nodes, "--deb", damaged, status=1, says="is damaged")
    expect(not (root / "usr/bin/kvctl").exists(), "it was installed all the same")
    for options, environment in (((), {"KVCTL_BINARY": str(kvctl)}), (("--deb", next(package.glob("*.deb"))), {})):
        root = scratch()
        run(SETUP, "balancer", "--root", root, *nodes, *options, environment=environment, directory="/").expect(
            says_not="There is no kvctl")
        run(root / "usr/bin/kvctl").expect(says="a stand-in of kvctl")
        expect((root / "etc/kvserver/balancer.env").read_text() == "KVCTL_NODE=10.0.0.5:5000,10.0.0.6:5000\n", "whom it asks")
        unit = (root / "lib/systemd/system/kvctl-haproxy-sync.service").read_text()
        configuration = (root / "etc/haproxy/haproxy.cfg").read_text()
        expect("--socket /run/haproxy/admin.sock " in unit and "stats socket unix@/run/haproxy/admin.sock " in configuration,
               "two different sockets")
        expect("--backend nodes " in unit and "\nbackend nodes\n" in configuration, "two different backends")
        expect("--map /etc/haproxy/ring.map\n" in unit, "another map")
