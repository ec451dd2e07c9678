# SPDX-License-Identifier: Apache-2.0
"""haproxy.cfg, as it stands and as it is derived for other balancers."""

import re

from support import REPOSITORY, SETUP, expect, run, scratch, write

ORIGINAL = (REPOSITORY / "haproxy.cfg").read_text()


def balancer(*arguments):
    """What `setup.sh balancer` writes."""
    root = scratch()
    run(SETUP, "balancer", "--root", root, *arguments).expect()
    return (root / "etc/haproxy/haproxy.cfg").read_text()


def test_haproxy_accepts_it():
    run("haproxy", "-c", "-f", REPOSITORY / "haproxy.cfg").expect(says="Configuration file is valid", says_not="WARNING")


def test_haproxy_accepts_what_is_derived_from_it():
    for nodes in (1, 3, 50):
        text = balancer(*(word for node in range(nodes) for word in ("--node", f"10.0.0.{node + 1}:5000")))
        path = write(scratch() / "haproxy.cfg", text)
        run("haproxy", "-c", "-f", path).expect(says_not="WARNING")
        servers = re.findall(r"^    server (\S+) (\S+)$", text, re.M)
        expect(servers == [(f"node{node + 1}", f"10.0.0.{node + 1}:5000") for node in range(nodes)], servers)


def test_only_addresses_and_marked_lines_differ():
    text = balancer("--node", "10.0.0.1:5000", "--bind", "10.0.0.9:80", "--statistics", "127.0.0.1:9000",
                    "--connections", "700")

    def rules(configuration):
        """The configuration without its addresses to bind, and without what is between the markers."""
        without = re.sub(r"(    # BEGIN \w+\n).*?(    # END)", r"\1\2", configuration, flags=re.S)
        return [line for line in without.splitlines() if not line.startswith("    bind ")]
    ours = rules(text)
    expect(ours[0].startswith("# Written by `setup.sh balancer`"), ours[0])
    expect(ours[1:] == rules(ORIGINAL), "rules were lost or changed")
    expect(re.findall(r"^    bind (\S+)$", text, re.M) == ["10.0.0.9:80", "127.0.0.1:9000"], "wrong addresses to bind")
    expect("    maxconn 700\n" in text, "the number of connections was not taken")


def test_the_map_of_slots_is_a_file_that_is_there():
    """HAProxy does not start without it; it is kept where it is."""
    root = scratch()
    for _ in range(2):
        run(SETUP, "balancer", "--root", root, "--node", "10.0.0.1:5000").expect()
        file = root / "etc/haproxy/ring.map"
        expect(all(line.startswith("#") for line in file.read_text().splitlines()), "the map is not empty")
        expect(f",map_int({file})\n" in (root / "etc/haproxy/haproxy.cfg").read_text(), "another map is read")


def test_added_servers_are_checked_like_the_others():
    """HAProxy does not apply its `default-server` to what kvctl adds at run time."""
    wanted = re.search(r"^    default-server (.*)$", ORIGINAL, re.M)[1]
    source = (REPOSITORY / "Sources/kvctl/HAProxyCommand.swift").read_text()
    expect(f'usualServerOptions =\n        "{wanted}"\n' in source, f"kvctl adds servers with other options than {wanted}")


def test_writes_are_not_sent_twice():
    """The lines that this rests on, so that nobody drops one unnoticed; the end-to-end tests show that they work."""
    for line in ("http-request disable-l7-retry unless { method GET HEAD }", "http-request disable-l7-retry if change",
                 "option redispatch 1", "option http-buffer-request", "http-check expect status 200"):
        expect(f"    {line}\n" in ORIGINAL, f"haproxy.cfg lacks: {line}")
    expect(not re.search(r"^\s*(no )?observe layer7", ORIGINAL, re.M), "honest 503s would take a node out")


def test_what_one_node_is_asked_alone_is_not_passed_on():
    """Whichever node it met would answer for itself: /peer and /cache, and /metrics."""
    front = ORIGINAL[ORIGINAL.index("\nfrontend clients"):ORIGINAL.index("\nbackend nodes")]
    routes = (REPOSITORY / "Sources/HTTPFront/RouteTable.swift").read_text()
    expect('("/metrics", .metrics)' in routes, "no route for /metrics")
    denied = re.findall(r"^    http-request deny status 403 if { path,url_dec -m beg (\S+) }$", front, re.M)
    expect(denied == ["/metrics"], f"denied to everybody: {denied}")
    expect("acl between_nodes path,url_dec -m beg /peer /cache\n" in front, "/peer or /cache")
    expect("http-request deny status 403 if between_nodes\n" in front, "/peer and /cache are passed on")


def test_whatever_changes_the_ring_is_known_to_it():
    """Those paths are for operators, are never asked again of another node, and take as long as they take."""
    routes = (REPOSITORY / "Sources/HTTPFront/RouteTable.swift").read_text()
    changing = set(re.findall(r'StaticString = "(/\w+_node)/"', routes)) | {"/abort_change", "/clear_cache"}
    expect({"/add_node", "/remove_node", "/replace_node"} <= changing, changing)
    known = [set(line.split()) for line in re.findall(r"acl change path,url_dec -m beg (.*)", ORIGINAL)]
    expect(known == [changing, changing], known)
