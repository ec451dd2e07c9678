# SPDX-License-Identifier: Apache-2.0
"""deploy/make-certs.sh: what it makes is what it says, and what is there stays."""

from support import expect, need, run, scratch


def make(directory, *arguments, status=0, says=()):
    return run("deploy/make-certs.sh", "--directory", directory, *arguments).expect(status, says)


def test_it_makes_an_authority_and_what_that_signs():
    need("openssl")
    directory = scratch() / "certificates"
    make(directory, "10.0.0.5", "fd00::7", "--server", "store.example.com", says=["Made the authority", "10.0.0.5.pem"])
    for name, san, usages in (("10.0.0.5", "IP Address:10.0.0.5", "Server Authentication, TLS Web Client Authentication"),
                              ("fd00::7", "IP Address:FD00:0:0:0:0:0:0:7", "Client"), ("store.example.com", "DNS:store.example.com", "Server")):
        run("openssl", "verify", "-CAfile", directory / "ca.pem", directory / f"{name}.pem").expect()
        text = run("openssl", "x509", "-in", directory / f"{name}.pem", "-noout", "-text").expect(says=[san, usages])
        expect(("Client" in text.output) == (name != "store.example.com"), f"{name}: {text.output}")
    for file in directory.iterdir():
        secret = file.suffix == ".key" or file.name.endswith(".haproxy.pem")
        expect(file.stat().st_mode & 0o777 == (0o600 if secret else 0o644), f"{file.name}: {file.stat().st_mode:o}")
    expect(directory.stat().st_mode & 0o077 == 0, "others can look into it")
    both = (directory / "store.example.com.haproxy.pem").read_text()
    expect(both.count("BEGIN CERTIFICATE") == both.count("BEGIN PRIVATE KEY") == 1, both)


def test_nothing_is_overwritten_unless_told():
    need("openssl")
    directory = scratch()
    make(directory, "10.0.0.5")
    before = {file.name: file.read_bytes() for file in directory.iterdir()}
    make(directory, "10.0.0.6", "10.0.0.5", status=1, says="there is a certificate for 10.0.0.5")
    expect({file.name: file.read_bytes() for file in directory.iterdir()} == before, "something was overwritten, or made")
    make(directory, "--renew", "--days", "9", "10.0.0.5")
    expect((directory / "ca.pem").read_bytes() == before["ca.pem"], "another authority")
    for name in ("10.0.0.5.pem", "10.0.0.5.key"):
        expect((directory / name).read_bytes() != before[name], f"{name} is not new")
    run("openssl", "x509", "-in", directory / "10.0.0.5.pem", "-noout", "-checkend", str(8 * 86400)).expect()
    run("openssl", "x509", "-in", directory / "10.0.0.5.pem", "-noout", "-checkend", str(10 * 86400)).expect(1)
    make(directory, "10.0.0.6", "--days", "4000", says="the authority ends before")
    (directory / "ca.key").unlink()
    make(directory, "10.0.0.7", status=1, says="only one of ca.pem and ca.key")


def test_wrong_options_make_nothing():
    directory = scratch() / "none"
    for options, message in (([], "for whom?"), (["10.0.0.5:5000"], "without a port"), (["store.example.com"], "known by its IP address"),
                             (["10.0.0.5", "--days", "0"], "--days takes"), (["--server", "a b"], "--server takes"), (["--server"], "needs a value"),
                             (["--server", "../x"], "--server takes"), (["--sever", "x"], "unknown option")):
        make(directory, *options, status=64, says=message)
    expect(not directory.exists(), "something was made")
