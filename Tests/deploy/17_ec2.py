# SPDX-License-Identifier: Apache-2.0
"""deploy/ec2: Terraform's files by its own formatter, by the provider's arguments, and by who is let in; and what they have instances do at
their first boot, done on fresh Debians, with a stand-in for AWS's command line."""

import http.server
import io
import json
import os
import re
import shutil
import sys
import tarfile
import threading
import zipfile

from debian import PACKAGES, Machine, debian_root, in_parallel, network_of
from support import REPOSITORY, Skipped, at_end, daemon, eventually, expect, need, run, scratch, tool, write

DIRECTORY = REPOSITORY / "deploy/ec2"
#: Its provider's resources and their arguments, as another tool of Terraform's has them.
BINDINGS = "cdktf-cdktf-provider-aws==21.22.1"
#: Arguments that belong to Terraform itself.
META = {"count", "for_each", "depends_on", "lifecycle", "provider"}
#: Where the stand-in for SSM listens.
SSM_PORT = 8000


def parsed():
    """All of the files, as one: {"resource": [(type, name, body)], "data": …, "variable": …}."""
    program = "import hcl2, json, sys; print(json.dumps([hcl2.load(open(path)) for path in sys.argv[1:]]))"
    found = {}
    for document in json.loads(tool("python-hcl2==7.3.1", "-c", program, *sorted(DIRECTORY.glob("*.tf"))).expect().output):
        for kind in ("resource", "data"):
            found.setdefault(kind, []).extend((plain(of_type), plain(name), body) for block in document.get(kind, [])
                                              for of_type, named in block.items() for name, body in named.items())
    return found


def plain(text):
    return text.strip('"')


def test_the_formatter_would_change_nothing():
    need("terraform")
    run("terraform", "fmt", "-check", "-diff", "-recursive", DIRECTORY).expect()


def test_each_argument_is_one_of_the_providers():
    """In the place of `terraform validate`, for which there is no provider here."""
    directory = scratch()
    run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check", "--dest", directory, BINDINGS, seconds=110).expect()
    with zipfile.ZipFile(next(directory.glob("*.whl"))) as wheel:
        inner = wheel.read(next(name for name in wheel.namelist() if name.endswith(".jsii.tgz")))
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        types = json.load(archive.extractfile("package/.jsii"))["types"]
    found, problems, by_name = parsed(), [], {fqn.lower(): fqn for fqn in types}
    expect(len(found["resource"]) > 15 and len(found["data"]) > 5, f"hardly anything: {found}")
    for kind, prefix in (("resource", ""), ("data", "data-aws-")):
        for of_type, name, body in found[kind]:
            called = camel(prefix + of_type.removeprefix("aws_"))
            fqn = by_name.get(f"@cdktf/provider-aws.{called}.{called}Config".lower())
            if fqn is None:
                problems.append(f"{kind} {of_type}: the provider has none")
            else:
                problems += wrong_arguments(types, fqn, body, f"{of_type}.{name}")
    expect(not problems, "\n".join(problems))
    # (And it would find one.)
    expect(wrong_arguments(types, "@cdktf/provider-aws.s3Object.S3ObjectConfig", {"bucket": "b", "kee": "k"}, "x") == ["x: no argument kee", "x: key is missing"], "it finds nothing")


def camel(text):
    head, *rest = re.split("[-_]", text)
    return head + "".join(word.capitalize() for word in rest)


def wrong_arguments(types, fqn, body, place):
    arguments = {argument["name"]: argument for argument in types[fqn].get("properties", [])}
    problems = []
    for name, value in body.items():
        if name in META or name.startswith("__"):
            continue
        argument = arguments.get(camel(name))
        if argument is None:
            problems.append(f"{place}: no argument {name}")
            continue
        inner = re.findall(r'"fqn": "(@cdktf/provider-aws\.[^"]+)"', json.dumps(argument["type"]))
        blocks = value if isinstance(value, list) else [value]
        for block in blocks:
            if inner and isinstance(block, dict):
                problems += wrong_arguments(types, inner[0], block, f"{place}.{name}")
    given = {camel(name) for name in body}
    own = {"connection", "count", "dependsOn", "forEach", "lifecycle", "provider", "provisioners"}
    problems += [f"{place}: {re.sub('([A-Z])', lambda found: '_' + found[1].lower(), name)} is missing" for name, argument in arguments.items()
                 if not argument.get("optional") and name not in given and name not in own]
    return problems


def test_who_is_let_in_and_how():
    found = parsed()
    rules = {name: body for of_type, name, body in found["resource"] if of_type == "aws_vpc_security_group_ingress_rule"}
    expect(set(rules) == {"clients", "balancer", "nodes", "ssh"}, f"these are let in: {set(rules)}")
    for name, (into, source, port) in {
            "clients": ("balancer", ("cidr_ipv4", "each.value"), "local.port"),
            "balancer": ("node", ("referenced_security_group_id", "aws_security_group.balancer.id"), "local.port"),
            "nodes": ("node", ("referenced_security_group_id", "aws_security_group.node.id"), "tonumber(each.value)")}.items():
        rule = {key: str(value).strip('"').removeprefix("${").removesuffix("}") for key, value in rules[name].items()}
        expect(rule["security_group_id"] == f"aws_security_group.{into}.id" and rule[source[0]] == source[1] and rule["ip_protocol"] == "tcp"
               and rule["from_port"] == rule["to_port"] == port, f"{name}: {rule}")
        expect(len({"cidr_ipv4", "cidr_ipv6", "prefix_list_id", "referenced_security_group_id"} & set(rule)) == 1, f"{name}: {rule}")
    others = [name for of_type, name, body in found["resource"] if of_type in ("aws_security_group_rule", "aws_vpc_security_group_rules_exclusive")]
    expect(not others, f"rules of another kind: {others}")
    for of_type, name, body in found["resource"]:
        expect(of_type != "aws_security_group" or not {"ingress", "egress"} & set(body), f"{name} has rules of its own")
        if of_type == "aws_instance":
            options, disk = body["metadata_options"][0], body["root_block_device"][0]
            expect(plain(options["http_tokens"]) == "required" and str(options["http_put_response_hop_limit"]) == "1", f"{name}: {options}")
            expect(str(disk["encrypted"]).lower() == "true", f"{name}'s disk is not encrypted")
    text = "".join(path.read_text() for path in DIRECTORY.rglob("*.tf"))
    expect("0.0.0.0/0" not in re.sub(r'(?s)resource "aws_vpc_security_group_egress_rule".*?\n}|error_message.*|condition.*', "", text), "something is open to all")
    expect(not re.search(r"random_(password|string|id)|aws_ssm_parameter|tls_private_key", text), "Terraform's state would have a secret")


def rendered(addresses, package, setup):
    """The nodes' user data, and the balancer's, as Terraform makes them: of a module that needs no provider."""
    need("terraform")
    place = scratch() / "user-data"
    shutil.copytree(DIRECTORY / "user-data", place)
    settings = {"name": "kvserver", "region": "eu-central-1", "bucket": "a-bucket", "package": package.name, "package_sha256": checksum(package),
                "setup": setup.name, "setup_sha256": checksum(setup), "addresses": addresses, "memory_mib": 128}
    write(place / "test.auto.tfvars.json", json.dumps(settings))
    environment = {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    for command in (("init", "-input=false"), ("validate",), ("apply", "-input=false", "-auto-approve")):
        run("terraform", f"-chdir={place}", *command, environment=environment).expect()
    output = scratch() / "output"
    run("sh", "-c", f"terraform -chdir={place} output -json >{output}", environment=environment).expect()
    values = {name: value["value"] for name, value in json.loads(output.read_text()).items()}
    return [*values["nodes"], values["balancer"]]


def checksum(path):
    return run("sha256sum", path).expect().output.split()[0]


def documents(texts):
    program = "import json, sys, yaml; print(json.dumps([yaml.safe_load(text) for text in json.load(open(sys.argv[1]))]))"
    return json.loads(tool("pyyaml", "-c", program, write(scratch() / "texts.json", json.dumps(texts))).expect().output)


class Parameters(http.server.BaseHTTPRequestHandler):
    """Keeps what is put, and, as SSM does without --overwrite, takes no second value."""

    kept, refused = {}, []

    def do_GET(self):
        self.answer(200, self.kept[self.path]["Value"]) if self.path in self.kept else self.answer(404, "")

    def do_POST(self):
        parameter = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if parameter["Name"] in self.kept:
            self.refused.append(parameter)
            return self.answer(400, "")
        self.kept[parameter["Name"]] = parameter
        return self.answer(200, "")

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


AWS = f"""#!/bin/bash
set -eu
ssm=http://10.77.0.1:{SSM_PORT}
case "$1 $2" in
's3 cp')
    [ "$3" = --only-show-errors ] && [[ $4 == s3://a-bucket/* ]]
    cp "{PACKAGES}/${{4##*/}}" "$5"
    ;;
'ssm get-parameter')
    [[ " $* " == *' --with-decryption --query Parameter.Value --output text '* ]]
    curl --silent --fail "$ssm$4" || {{ echo 'An error occurred (ParameterNotFound) when calling the GetParameter operation' >&2 && exit 254; }}
    echo
    ;;
'ssm put-parameter')
    [ $# = 4 ] && [[ "$3 $4" == '--cli-input-json file://'* ]]
    curl --silent --fail --data-binary "@${{4#file://}}" "$ssm/"
    ;;
*) exit 252 ;;
esac
"""


def test_the_first_boot():
    if os.geteuid() != 0:
        raise Skipped("not root")
    packages = scratch()
    run("deploy/package.sh", "--version", "0.1.0", "--output", packages, seconds=120, environment={
        "KVSERVER_BINARY": str(daemon()), "DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}).expect()
    package, setup = next(packages.glob("*.deb")), packages / "setup.tar.gz"
    # As the README packs it.
    command = re.search(r"^tar .*setup\.tar\.gz.*$", (DIRECTORY / "README.md").read_text(), re.M)[0]
    run("sh", "-c", command.replace("deploy/ec2/setup.tar.gz", str(setup))).expect()
    root = debian_root(run("dpkg-deb", "--field", package, "Depends").expect().output.strip())
    texts = rendered([f"10.77.0.{host}:5000" for host in (11, 12)], package, setup)
    expect(all(text.startswith("#cloud-config\n") and len(text) < 16384 for text in texts), "EC2 takes 16 KiB, and cloud-init what begins so")
    network = network_of(3)
    Parameters.kept, Parameters.refused = {}, []
    server = http.server.ThreadingHTTPServer((network.ip(0), SSM_PORT), Parameters)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    at_end(lambda: (server.shutdown(), server.server_close()))
    machines = [Machine(name, number, root, network, packages) for number, name in enumerate(("node1", "node2", "balancer"), 1)]
    for machine in machines:
        machine.wait_until_up()
    in_parallel(first_boot, list(zip(machines, documents(texts))))

    *nodes, balancer = machines
    wanted = {"4999": "10.77.0.11:5000", "9999": "10.77.0.12:5000"}
    for node in nodes:
        eventually(20, f"{node.name} has the ring", lambda node=node: json.loads(node.shell(
            f"curl --silent --fail http://{node.address}:5000/hash_ring").expect().output)["ring"] == wanted)
    eventually(20, "a pair is stored", lambda: balancer.shell("curl --silent --fail -d 'key=roof&val=red' http://127.0.0.1:5000/route").output == "OK")
    expect(nodes[1].shell("curl --silent --fail 'http://10.77.0.12:5000/route?key=roof'").expect().output == "red", "the pair is gone")
    tokens = {f"/kvserver/tokens/{door}": nodes[0].shell(f"cat /etc/kvserver/tokens/{door}").expect().output.strip() for door in ("admin", "peer")}
    expect({name: parameter["Value"] for name, parameter in Parameters.kept.items()} == tokens, "SSM keeps other tokens")
    expect(all(parameter["Type"] == "SecureString" for parameter in Parameters.kept.values()), "they are not encrypted")
    for machine in machines:
        found = machine.shell(f"grep -rlsE --devices=skip '{'|'.join(tokens.values())}' /dev/shm /etc /opt /root /run /tmp /usr/local /var || true").output.split()
        strange = [path for path in found if not path.startswith(("/etc/kvserver/tokens/", "/run/credentials/"))]
        expect(bool(found) == (machine is not balancer) and not strange, f"{machine.name} has tokens in {strange or found}")
    # Again, as somebody would who has seen it fail: nothing changes.
    nodes[0].run("/usr/local/sbin/kvserver-first-boot", seconds=120).expect(says="It has a ring")
    # What is not what was uploaded is not installed.
    nodes[1].shell("sed -i s/PACKAGE_SHA256=\\'./PACKAGE_SHA256=\\'x/ /etc/kvserver-first-boot.env").expect()
    nodes[1].run("/usr/local/sbin/kvserver-first-boot", seconds=120).expect(1, says="is not what was put into a-bucket")


def first_boot(pair):
    """What cloud-init does with such a file."""
    machine, document = pair
    expect(set(document) == {"package_update", "packages", "write_files", "runcmd"}, f"it has {set(document)}")
    expect(document["packages"] == ["awscli", "curl"], document["packages"])
    machine.shell("apt-get install -y -q --no-install-recommends curl").expect()
    files = [{"path": "/usr/local/bin/aws", "permissions": "0755", "content": AWS}, *document["write_files"]]
    for file in files:
        machine.run("sh", "-euc", 'printf %s "$1" >"$2"; chmod "$3" "$2"', "sh", file["content"], file["path"], file["permissions"]).expect()
    for command in document["runcmd"]:
        ran = machine.run(*command, seconds=200).expect()
        expect(not any(parameter["Value"] in ran.output for parameter in Parameters.kept.values()), f"{machine.name} prints a token")


test_the_first_boot.limit_seconds = 500


def test_cloud_init_knows_each_word():
    directory = scratch()
    run("apt-get", "download", "cloud-init", directory=directory, seconds=60).expect()
    run("dpkg-deb", "--extract", next(directory.glob("*.deb")), directory).expect()
    schema = next(directory.rglob("schema-cloud-config-v1.json"))
    file = write(directory / "package.deb", "a stand-in")
    texts = documents(rendered(["10.0.0.5:5000", "10.0.1.5:5000"], file, file))
    check = "import json, sys, jsonschema; jsonschema.validate(*[json.load(open(path)) for path in sys.argv[1:]])"
    for text in texts:
        tool("jsonschema", "-c", check, write(directory / "user-data.json", json.dumps(text)), schema).expect()
    wrong = {**texts[0], "write_files": [{"content": "without a path"}]}
    tool("jsonschema", "-c", check, write(directory / "user-data.json", json.dumps(wrong)), schema).expect(1, says="'path' is a required property")
