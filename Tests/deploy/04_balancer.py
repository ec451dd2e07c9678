# SPDX-License-Identifier: Apache-2.0
"""`setup.sh balancer`, into a directory."""

from support import SETUP, expect, run, scratch, write


def install(root, *arguments, status=0, says=()):
    return run(SETUP, "balancer", "--root", root, *arguments, directory="/").expect(status, says)


def test_again_it_changes_nothing():
    root = scratch()
    file = root / "etc/haproxy/haproxy.cfg"
    install(root, "--node", "10.0.0.5:5000", says="Wrote")
    before = file.read_bytes(), file.stat().st_mtime_ns
    install(root, "--node", "10.0.0.5:5000", says="is as it should be")
    expect((file.read_bytes(), file.stat().st_mtime_ns) == before, "a second run changed it")
    expect([path.name for path in file.parent.iterdir()] == ["haproxy.cfg"], "it left something behind")


def test_a_foreign_configuration_is_kept_and_our_own_is_not():
    root = scratch()
    file = write(root / "etc/haproxy/haproxy.cfg", "# somebody else's\n")
    install(root, "--node", "10.0.0.5:5000", says="Kept")
    install(root, "--node", "10.0.0.6:5000")
    kept = file.with_name("haproxy.cfg.before-kvserver")
    expect(kept.read_text() == "# somebody else's\n", "the foreign configuration is lost")
    expect(sorted(path.name for path in file.parent.iterdir()) == [file.name, kept.name], "it left something behind")
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
