# SPDX-License-Identifier: Apache-2.0
"""deploy/compose: the file by Compose's schema and by what it is to say; and, without Docker, the steps of the Dockerfile done on a fresh
Debian, and the services run there as Compose would: as the image's user, with their commands, volumes and addresses."""

import copy
import json
import os
import re
import shlex
import sys
import zipfile

from debian import CHECKOUT, PACKAGES, Machine, debian_root, network_of
from support import REPOSITORY, Skipped, daemon, eventually, expect, run, scratch, tool

DIRECTORY = REPOSITORY / "deploy/compose"
#: An old release of Compose's, that carries the schema.
COMPOSE = "docker-compose==1.29.2"


def compose():
    """The file as JSON has it, with its aliases resolved."""
    ran = tool("pyyaml", "-c", f"import json, yaml; print(json.dumps(yaml.safe_load(open({str(DIRECTORY / 'compose.yaml')!r}))))")
    return json.loads(ran.expect().output)


def test_the_file_is_by_the_schema():
    directory = scratch()
    run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check", "--dest", directory, COMPOSE, seconds=100).expect()
    with zipfile.ZipFile(next(directory.glob("*.whl"))) as wheel:
        wheel.extract("compose/config/compose_spec.json", directory)
    content = directory / "compose.json"
    document = compose()
    # (Of the top-level words that is the one which came later.)
    expect(document.pop("name") == "kvserver", "the project has another name")
    content.write_text(json.dumps(document))
    check = "import json, sys, jsonschema; jsonschema.validate(*[json.load(open(path)) for path in sys.argv[1:]])"
    arguments = ("-c", check, content, directory / "compose/config/compose_spec.json")
    tool("jsonschema", *arguments).expect()
    # And the schema is one that refuses.
    content.write_text(json.dumps({**document, "services": {"node1": {"image": "kvserver", "retsart": "always"}}}))
    tool("jsonschema", *arguments).expect(1, says="retsart")


def test_nobody_has_more_than_it_needs():
    document = compose()
    services = document["services"]
    for name, service in services.items():
        expect(service.get("privileged") is None and service.get("cap_add") is None and service.get("user") is None, f"{name} has more rights")
        if service.get("restart"):
            expect(service["read_only"] and service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], f"{name} isn't confined")
        for volume in service.get("volumes", []):
            expect(volume.split(":")[0] in document["volumes"], f"{name} mounts {volume}, which is not declared")
        for other in service.get("depends_on", {}):
            expect(other in services, f"{name} waits for {other}, which is not there")
        expect(all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), f"{name} is open to others: {service.get('ports')}")
    nodes = {name: service for name, service in services.items() if re.fullmatch(r"node\d", name)}
    expect(list(nodes) == ["node1", "node2", "node3", "node4"], f"the nodes are {list(nodes)}")
    for name, node in nodes.items():
        memcached = services["memcached" + name[-1]]
        expect(memcached["network_mode"] == "none" and "ports" not in memcached, f"the memcached of {name} has a network")
        expect(memcached["volumes"] == [f"run{name[-1]}:/run/kvserver"] and memcached["volumes"][0] in node["volumes"], f"{name} has no memcached of its own")
        expect(node["environment"]["KVSERVER_NODE"] == f"{node['networks']['store']['ipv4_address']}:5000", f"{name} goes by another address")
        expect(node.get("profiles") == memcached.get("profiles") == (["fourth"] if name == "node4" else None), f"the profiles of {name}")
    text = (DIRECTORY / "compose.yaml").read_text()
    expect(not re.search(r"[0-9a-f]{32}", text), "it has a secret")


class Image:
    """What the Dockerfile makes of the machine that it is given, step by step; a step that is not known here fails."""

    def __init__(self, machine, arguments):
        self._machine, self._arguments = machine, arguments
        self.user, self.entrypoint, self.health = "root", None, None

    def made(self, stage):
        """A copy of what the image says once this stage is done, too."""
        expect(stage[0].startswith(("FROM debian:bookworm-slim ", "FROM node ")), f"made of something else: {stage[0]}")
        for step in stage[1:]:
            word, _, rest = step.partition(" ")
            getattr(self, f"do_{word}")(rest)
        return copy.copy(self)

    def do_RUN(self, text):
        # The lists that apt downloads are here already, and are not downloaded again.
        lists, kept = "/var/lib/apt/lists", "/root/lists"
        settings = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in self._arguments.items())
        self._machine.shell(f"[ -d {kept} ] || cp -a {lists} {kept}; rm -rf {lists}; cp -a {kept} {lists}\n{settings}{text}", seconds=120).expect()

    def do_COPY(self, text):
        *sources, target = text.split()
        if sources == ["--from=build", "/package/"]:
            # What the first stage makes was made by this test.
            sources = [f"{PACKAGES}/."]
        else:
            # (Of a directory Docker copies what is in there.)
            sources = [f"{CHECKOUT}/{source}" + ("/." if (REPOSITORY / source).is_dir() else "") for source in sources]
        self._machine.shell(f"mkdir -p {target} && cp -a {' '.join(sources)} {target}").expect()

    def do_ARG(self, text):
        expect(text in self._arguments, f"compose.yaml gives no {text}")

    def do_USER(self, text):
        self.user = text

    def do_ENTRYPOINT(self, text):
        self.entrypoint = json.loads(text)

    def do_HEALTHCHECK(self, text):
        self.health = text.split(" CMD ")[1]

    def do_EXPOSE(self, _):
        pass


def stages():
    text = re.sub(r"^#.*\n", "", (DIRECTORY / "Dockerfile").read_text(), flags=re.M)
    lines = [line for line in text.splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith("FROM ")] + [len(lines)]
    found = {lines[start].split(" AS ")[1]: lines[start:end] for start, end in zip(starts, starts[1:])}
    expect(list(found) == ["build", "node", "balancer"], f"the stages are {list(found)}")
    return found


class Containers:
    """The services, started on one machine that has all their addresses, confined as far as systemd's words say what Compose's do."""

    def __init__(self, machine, images):
        self._machine, self._images = machine, images

    def start(self, name, service):
        """One that ends by itself is waited for."""
        image, is_done_at_once = self._images[service["image"]], "restart" not in service
        words = service.get("entrypoint", image.entrypoint) + service.get("command", [])
        properties = [f"User={image.user}", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "PrivateTmp=yes",
                      *(["ProtectSystem=strict"] if service.get("read_only") else []), *(["PrivateNetwork=yes"] if service.get("network_mode") == "none" else []),
                      *(f"Environment={key}={value}" for key, value in service.get("environment", {}).items())]
        for volume in service.get("volumes", []):
            place, target, *mode = volume.split(":")
            # A new volume has the owner, the mode and the content of what it is mounted over.
            self._machine.shell(f"mkdir -p /volumes; [ -e /volumes/{place} ] || cp -a {target} /volumes/{place}").expect()
            properties += [f"BindReadOnlyPaths=/volumes/{place}:{target}"] if mode else [f"BindPaths=/volumes/{place}:{target}", f"ReadWritePaths={target}"]
        self._machine.run("systemd-run", "--quiet", f"--unit=compose-{name}", *(["--wait", "--pipe"] if is_done_at_once else ["--service-type=exec"]),
                          *(f"--property={line}" for line in properties), "--", *(word.replace("$$", "$") for word in words)).expect()
        if not is_done_at_once:
            eventually(20, f"{name} is healthy: {self.journal(name)}", lambda: self._is_healthy(service, image))

    def _is_healthy(self, service, image):
        check = service.get("healthcheck", {})
        if check.get("disable"):
            return True
        environment = "".join(f"export {key}={value}; " for key, value in service.get("environment", {}).items())
        if "test" in check:
            # (In the container, a volume's place is another one.)
            place = next(volume.split(":") for volume in service["volumes"])
            command = shlex.join(check["test"][1:]).replace(place[1], f"/volumes/{place[0]}")
        else:
            command = image.health
        return self._machine.shell(environment + command).status == 0

    def journal(self, name):
        return self._machine.run("journalctl", "--no-pager", "--lines=20", f"--unit=compose-{name}").output


def test_what_the_dockerfile_makes_serves():
    if os.geteuid() != 0:
        raise Skipped("not root")
    services, packages, found = compose()["services"], scratch(), stages()
    build = next(step for step in found["build"] if "deploy/package.sh" in step)
    expect(build == 'RUN deploy/package.sh --version "$VERSION" --output /package', f"the package is made in another way: {build}")
    run("deploy/package.sh", "--version", "0.1.0", "--output", packages, seconds=120, environment={
        "KVSERVER_BINARY": str(daemon()), "DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}).expect()
    root = debian_root(run("dpkg-deb", "--field", next(packages.glob("*.deb")), "Depends").expect().output.strip())
    network = network_of(1)
    machine = Machine("compose", 1, root, network, packages)
    machine.wait_until_up()
    addresses = {name: service["networks"]["store"]["ipv4_address"] for name, service in services.items() if isinstance(service.get("networks"), dict)}
    for address in addresses.values():
        network.namespace(1).run("ip", "address", "add", f"{address}/32", "dev", "lo")

    # As Docker's Debian has it: a package's service is not started.
    machine.shell("printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d").expect()
    image = Image(machine, services["balancer"]["build"]["args"])
    images = {"kvserver": image.made(found["node"]), "kvserver-balancer": image.made(found["balancer"])}
    expect([image.user for image in images.values()] == ["kvserver", "haproxy"], "an image is root's")
    containers = Containers(machine, images)
    for name, service in services.items():
        if "profiles" not in service:
            containers.start(name, service)
    containers.start("ring", services["ring"])

    balancer = f"http://{addresses['balancer']}:5000"
    machine.shell(f"curl -s --fail --retry 20 --retry-all-errors --retry-delay 1 -d 'key=roof&val=red' {balancer}/route").expect(says="OK")
    for name in ("memcached4", "node4"):
        containers.start(name, services[name])
    # As the README has it: in a container that has the tokens.
    added = {**services["ring"], "entrypoint": ["/usr/bin/kvctl", "ring", "add"], "command": ["--node", f"{addresses['node1']}:5000", f"{addresses['node4']}:5000"]}
    containers.start("added", added)
    ring = json.loads(machine.shell(f"curl -s --fail {balancer}/hash_ring").expect().output)
    expect(set(ring["ring"].values()) == {f"{addresses[name]}:5000" for name in ("node1", "node2", "node3", "node4")}, ring)
    expect(machine.shell(f"curl -s --fail '{balancer}/route?key=roof'").expect().output == "red", "the pair is gone")
    # The balancer has come to know it.
    eventually(20, f"HAProxy has the fourth node: {containers.journal('sync')}", lambda: machine.shell(
        "curl --silent --fail 'http://127.0.0.1:8404/;csv' | grep -c '^nodes,n.*,UP,'").output.strip() == "4")


test_what_the_dockerfile_makes_serves.limit_seconds = 500
