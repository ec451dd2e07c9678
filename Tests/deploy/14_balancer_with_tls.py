# SPDX-License-Identifier: Apache-2.0
"""HAProxy in front of nodes with TLS, as `setup.sh balancer` sets it up: it shows clients a certificate, and verifies the nodes."""

import http.client
import json
import os
import re
import socket
import ssl
import subprocess

from support import SETUP, NodeStandIn, eventually, expect, free_network, need, run, scratch, stand_in, start, write


def secured(host, certificates, name):
    """Stands for a node that speaks TLS, and says which one it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    return NodeStandIn(host, context, says=name)


def certificates(network, *hosts, directory=None, server="store.example.com"):
    directory = directory or scratch() / "certificates"
    run("deploy/make-certs.sh", "--directory", directory, *hosts, "--server", server).expect()
    return directory


def install(root, made, network, *hosts):
    options = [word for host in hosts for word in ("--node", f"{host}:5000")]
    return run(SETUP, "balancer", "--root", root, *options, "--bind", f"{network}.10:5000", "--statistics", f"{network}.10:8404",
               "--connections", "500", "--tls-certificate", made / "store.example.com.haproxy.pem", "--node-authority", made / "ca.pem", directory="/")


def test_clients_and_nodes_are_secured():
    need("openssl")
    network = free_network()
    good, other, wrong, plain = (f"{network}.{number}" for number in (11, 12, 13, 14))
    made, strangers = certificates(network, good, other), certificates(network, wrong)
    nodes = [secured(good, made, good),
             # In a place that is not that of its certificate, and one that another authority has signed.
             secured(other, made, good), secured(wrong, strangers, wrong)]
    root = scratch()
    install(root, made, network, good, other, wrong, plain).expect(says="Wrote")
    text = (root / "etc/haproxy/haproxy.cfg").read_text()
    place = root / "etc/haproxy"
    expect(f"    bind {network}.10:5000 ssl crt {place}/kvserver.pem ssl-min-ver TLSv1.2 alpn http/1.1\n" in text, "the clients' port")
    expect(f"    server node1 {good}:5000 ssl verify required verifyhost {good} ca-file {place}/kvserver-authority.pem ssl-min-ver TLSv1.2\n" in text, "a node")
    expect((place / "kvserver.pem").stat().st_mode & 0o777 == 0o600, "the balancer's key can be read by others")
    environment = (root / "etc/kvserver/balancer.env")
    expect(not environment.exists() or "KVCTL_CA=" in environment.read_text(), "kvctl does not know the nodes")
    # (In a directory, it can't be nobody in particular.)
    text = re.sub(r"^    (user|group|chroot|stats socket) .*\n", "", text, flags=re.M)
    run("haproxy", "-c", "-f", write(scratch() / "haproxy.cfg", text)).expect(says_not="WARNING")
    start("haproxy", "-f", write(scratch() / "haproxy.cfg", text))
    context = ssl.create_default_context(cafile=made / "ca.pem")

    def ask(context=context, name="store.example.com"):
        connection = http.client.HTTPSConnection(f"{network}.10", 5000, context=context, timeout=5)
        connection.connect = lambda: connect(connection, context, name)
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def connect(connection, context, name):
        plain = socket.create_connection((f"{network}.10", 5000), 5)
        connection.sock = context.wrap_socket(plain, server_hostname=name)

    def serves():
        try:
            return ask() == (200, good)
        except OSError:
            return False
    eventually(10, "the balancer serves", serves)
    eventually(10, "the others are taken out", lambda: all(ask() == (200, good) for _ in range(12)))
    expect(all(not node.asked and not node.checks for node in nodes[1:]), "something was sent to a node that is not who it says")
    expect(nodes[0].checks > 0, "health checks did not go by TLS")
    for bad, name in ((ssl.create_default_context(cafile=strangers / "ca.pem"), "store.example.com"), (context, "elsewhere.example.com")):
        try:
            ask(bad, name)
        except ssl.SSLCertVerificationError:
            continue
        raise AssertionError(f"a client that expects {name} took the certificate")
    old = subprocess.run(["openssl", "s_client", "-connect", f"{network}.10:5000", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], input=b"",
                         capture_output=True, timeout=20)
    expect(old.returncode != 0, "TLS 1.1 was taken")


def test_again_it_changes_nothing_and_new_certificates_are_taken_up():
    need("openssl")
    network = "10.0.0"
    made, root = certificates(network, "10.0.0.11"), scratch()
    install(root, made, network, "10.0.0.11").expect(says="Wrote")
    install(root, made, network, "10.0.0.11").expect(says="is as it should be")
    run("deploy/make-certs.sh", "--directory", made, "--renew", "--server", "store.example.com").expect()
    install(root, made, network, "10.0.0.11").expect(says_not="is as it should be")
    expect((root / "etc/haproxy/kvserver.pem").read_bytes() == (made / "store.example.com.haproxy.pem").read_bytes(), "the old certificate is there")
    run(SETUP, "balancer", "--root", scratch(), "--node", "10.0.0.5:5000", "--tls-certificate", "/none").expect(1, says="there is no file /none")


def test_a_node_takes_its_certificate():
    need("openssl")
    made, root = certificates("10.0.0", "10.0.0.5"), scratch()

    def node(*options):
        return run(SETUP, "node", "--root", root, *options, environment={"KVSERVER_BINARY": str(stand_in())}, directory="/")
    node("--address", "10.0.0.5:5000", "--certificates", made).expect()
    settings = json.loads((root / "etc/kvserver/kvserver.json").read_text())
    expect(settings["tlsKeyFile"] == settings["peerKeyFile"] == "/etc/kvserver/tls/node.key" and settings["peerAuthorityFile"] == "/etc/kvserver/tls/ca.pem",
           settings)
    place = root / "etc/kvserver/tls"
    for name, file, mode in (("ca.pem", "ca.pem", 0o644), ("node.pem", "10.0.0.5.pem", 0o644), ("node.key", "10.0.0.5.key", 0o400)):
        expect((place / name).read_bytes() == (made / file).read_bytes(), f"another {name}")
        expect((place / name).stat().st_mode & 0o777 == mode, f"{name}: {(place / name).stat().st_mode:o}")
    expect(sorted(os.listdir(place)) == ["ca.pem", "node.key", "node.pem"], os.listdir(place))
    node("--certificates", made).expect(says_not="Wrote")
    for options, status, says in ((["--address", "10.0.0.6:5000", "--certificates", made], 1, "there is no file"),
                                  (["--certificates", made, "--peer-port-offset", "0"], 64, "needs a port for the peers"),
                                  (["--certificates", made, "--insecure"], 64, "needs tokens as well")):
        node(*options).expect(status, says)
