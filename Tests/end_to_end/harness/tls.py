# SPDX-License-Identifier: Apache-2.0
"""Certificates as deploy/make-certs.sh makes them, and connections that are secured by them."""

import json
import socket
import ssl
import subprocess
from pathlib import Path

from . import client as http
from .cluster import REPOSITORY

#: How far above a node's port its peers call it, in clusters that have certificates.
OFFSET = 1000


def host_of(address):
    return address.rpartition(":")[0]


def peers_port(address):
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + OFFSET}"


class Authority:
    """A private authority, in a directory of its own."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.certificate = str(self.directory / "ca.pem")

    def make(self, *hosts, options=()):
        """Certificates for these addresses; those that are there are replaced."""
        subprocess.run([REPOSITORY / "deploy/make-certs.sh", "--directory", self.directory, "--renew", *options, *hosts], check=True,
                       capture_output=True, timeout=60)

    def chain(self, host):
        return str(self.directory / f"{host}.pem")

    def key(self, host):
        return str(self.directory / f"{host}.key")

    def settings(self, host, clients=True, peers=True):
        """Of a node at that address, as its configuration names them."""
        settings = {"peerPortOffset": OFFSET}
        if clients:
            settings |= {"tlsCertificateFile": self.chain(host), "tlsKeyFile": self.key(host)}
        if peers:
            settings |= {"peerCertificateFile": self.chain(host), "peerKeyFile": self.key(host), "peerAuthorityFile": self.certificate}
        return settings

    def context(self, host=None):
        """A client's that trusts this authority alone; with `host`, it shows the certificate of that."""
        context = ssl.create_default_context(cafile=self.certificate)
        context.set_alpn_protocols(["http/1.1"])
        if host:
            context.load_cert_chain(self.chain(host), self.key(host))
        return context


class SecureConnection(http.Connection):
    """A connection over TLS; says what the other side has shown."""

    def __init__(self, address, context, timeout=5.0):
        super().__init__(address, timeout)
        self._socket = context.wrap_socket(self._socket, server_hostname=host_of(address))

    @property
    def certificate(self):
        """The other side's, as it is sent."""
        return self._socket.getpeercert(binary_form=True)

    @property
    def version_of_tls(self):
        return self._socket.version()


def ask(address, context, request, timeout=5.0):
    """One request on a connection of its own."""
    with SecureConnection(address, context, timeout) as connection:
        return connection.exchange(request)


def secure_node(node, context):
    """From now on what the tests ask this node is asked over TLS, and what they read of it, too."""
    def exchange(request, timeout):
        return ask(node.address, context, request, timeout)
    node.get = lambda target, timeout=5.0: exchange(http.request_bytes("GET", target, headers=node.headers), timeout)
    node.post_form = lambda target, timeout=5.0, **fields: exchange(http.form_request(target, fields, node.headers), timeout)


def secure_cluster(cluster, authority, clients=True, peers=True):
    """Certificates for all nodes of a cluster that has not been started."""
    hosts = [host_of(node.address) for node in cluster.nodes]
    authority.make(*hosts)
    for node, host in zip(cluster.nodes, hosts):
        node.change_settings(**authority.settings(host, clients, peers))
        if clients:
            secure_node(node, authority.context())


def is_cut_off(address, data, timeout=8.0):
    """Whether the other side ends a plain connection that says this, and what it says before."""
    with socket.create_connection(http.socket_address(address), timeout) as connection:
        connection.settimeout(timeout)
        heard = b""
        try:
            connection.sendall(data)
            while part := connection.recv(4096):
                heard += part
        except ConnectionError:
            pass
        except TimeoutError:
            return False, heard
    return True, heard


def json_body(value):
    return json.dumps(value).encode()
