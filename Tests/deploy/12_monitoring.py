# SPDX-License-Identifier: Apache-2.0
"""deploy/monitoring: what Prometheus and Grafana are given, by promtool's judgement, against docs/metrics.md, and asked of a real
Prometheus that watches a real cluster."""

import json
import re
import socket
import time
import urllib.error
import urllib.parse

from local_cluster import ASK, Local
from support import REPOSITORY, eventually, expect, run, scratch, start, write

MONITORING = REPOSITORY / "deploy/monitoring"
CONFIGURATION, ALERTS, CASES = ((MONITORING / name).read_text() for name in ("prometheus.yml", "alerts.yml", "alerts_test.yml"))
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())

#: What is used of HAProxy's (2.4 and later) and of Prometheus' own, with their labels; ours are in docs/metrics.md.
FOREIGN = {
    "up": ("gauge", set()), "haproxy_backend_active_servers": ("gauge", {"proxy"}),
    "haproxy_frontend_http_responses_total": ("counter", {"proxy", "code"}),
    "haproxy_backend_retry_warnings_total": ("counter", {"proxy"}),
    "haproxy_backend_redispatch_warnings_total": ("counter", {"proxy"}),
    "haproxy_backend_connection_errors_total": ("counter", {"proxy"}),
}
#: What every series has by way of prometheus.yml.
TARGET_LABELS = {"job", "cluster", "instance"}
WORDS = {"and", "or", "unless", "bool", "offset"}
#: What Grafana puts into an expression.
VARIABLES = {"$cluster": ".*", "$node": ".*", "$__rate_interval": "1m"}
#: Panels that a cluster leaves empty that is at rest and serves all, and why.
EMPTY_AT_REST = {
    "Ring change": "the ring is at rest", "Progress of this step": "likewise", "Moved in this step": "likewise",
    "A ring change's time at this step": "likewise", "Progress of a recovery": "no memory was lost",
    "Answers with 5xx, by node": "there are none",
    "What became of failed requests": "there are none", "Answers that are no success, by code": "likewise",
}


def documented():
    """Each metric's type and labels, by docs/metrics.md."""
    rows = re.findall(r"^\| `(kvserver_\w+)` \| (\w+) \|([^|]*)\|", (REPOSITORY / "docs/metrics.md").read_text(), re.M)
    expect(len(rows) > 50, f"docs/metrics.md has only {len(rows)} metrics")
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def alerts():
    """Each rule's expression, and all of its text, by its name."""
    found = {}
    for rule in re.split(r"^      - alert: ", ALERTS, flags=re.M)[1:]:
        expression = re.search(r"^        expr: (?:\|\n((?: {10}.*\n)+)|(.*)\n)", rule, re.M)
        found[rule.split("\n", 1)[0]] = (expression[1] or expression[2], rule)
    expect(len(found) == ALERTS.count("- alert:") and len(found) > 15, f"found the rules {sorted(found)}")
    return found


def panels():
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries():
    """Where each expression of the dashboard stands, itself, and the legend."""
    return [(f"{panel['title']} {target['refId']}", target["expr"], target["legendFormat"])
            for panel in panels() for target in panel["targets"]]


def filled(expression):
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


# What is written down.

def test_promtool_accepts_it():
    run("promtool", "check", "config", MONITORING / "prometheus.yml").expect(says="SUCCESS: 1 rule files found")
    run("promtool", "check", "rules", MONITORING / "alerts.yml").expect(says=f"SUCCESS: {len(alerts())} rules found")
    run("promtool", "test", "rules", MONITORING / "alerts_test.yml").expect(says="SUCCESS", says_not="FAILED")


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not():
    cases = {}
    for case in re.split(r"^  - name: ", CASES, flags=re.M)[1:]:
        name, _, body = case.partition("\n")
        expect(name not in cases, f"twice: {name}")
        cases[name] = body
    wanted = {f"{alert} {what}" for alert in alerts() for what in ("fires", "stays silent")}
    expect(set(cases) == wanted, f"too many or too few cases: {sorted(set(cases) ^ wanted)}")
    for alert, (expression, rule) in alerts().items():
        fires, silent = cases[f"{alert} fires"], cases[f"{alert} stays silent"]
        severity = re.search(r"^          severity: (critical|warning)$", rule, re.M)
        expect(severity and f"              {severity[0].strip()}\n" in fires, f"{alert}: its severity")
        for body in (fires, silent):
            expect(set(re.findall(r"alertname: (\w+)", body)) == {alert}, f"a case of {alert} asks for another one")
            # (Without its metrics a rule is silent, too, and whatever it says.)
            fed = set(re.findall(r"- series: '(\w+)", body))
            expect({name for name, _ in selectors(expression)} <= fed, f"a case of {alert} lacks series; it has {sorted(fed)}")
        expect("exp_labels" in fires and "exp_alerts: []" not in fires, f"{alert} does not fire where it should")
        expect("exp_labels" not in silent and "exp_alerts: []" in silent, f"{alert} fires where it should not")


def test_every_metric_and_label_exists():
    known = documented() | FOREIGN
    for where, expression, legend in [*((name, expression, "") for name, (expression, _) in alerts().items()), *queries()]:
        labels = set()
        for name, matched in selectors(expression):
            metric = name if name in known else re.sub(r"_(bucket|sum|count)$", "", name)
            expect(metric in known, f"{where}: there is no {name}")
            kind, own = known[metric]
            expect((name == metric) == (kind != "histogram"), f"{where}: {name} of a {kind}")
            own = own | TARGET_LABELS | ({"le"} if name.endswith("_bucket") else set())
            expect(matched <= own, f"{where}: {name} has no {sorted(matched - own)}")
            labels |= own
        for name in re.findall(r"\b(?:rate|increase)\((\w+)", expression):
            metric = re.sub(r"_(bucket|sum|count)$", "", name) if name not in known else name
            expect(known[metric][0] in ("counter", "histogram"), f"{where}: the rate of {name}, a {known[metric][0]}")
        grouped = set(re.findall(r"\w+", " ".join(grouping(expression))))
        expect(grouped <= labels, f"{where}: grouped by {sorted(grouped - labels)}, which none of its metrics has")
        shown = set(re.findall(r"{{(\w+)}}", legend))
        left = grouped if re.search(r"\bby \(", expression) else labels
        expect(shown <= left, f"{where}: the legend shows {sorted(shown - left)}")


def test_it_watches_the_local_cluster_and_the_alerts_its_jobs():
    jobs = {}
    for job in re.split(r"^  - job_name: ", CONFIGURATION, flags=re.M)[1:]:
        expect("cluster: local" in job, f"no label for the cluster: {job}")
        jobs[job.split("\n", 1)[0]] = re.findall(r"^ +- ([0-9.]+:\d+)$", job, re.M)
    nodes = re.findall(r"^    server \S+ (\S+)$", (REPOSITORY / "haproxy.cfg").read_text(), re.M)
    expect(jobs == {"kvserver": nodes, "kvserver-balancer": ["127.0.0.10:8404"]}, jobs)
    used = set(re.findall(r'job="([^"]+)"', " ".join(expression for expression, _ in alerts().values())
                          + " ".join(expression for _, expression, _ in queries())))
    expect(used == set(jobs), f"rules and panels ask for the jobs {used}")


def test_the_dashboard_is_whole():
    everything = DASHBOARD["panels"]
    numbers = [panel["id"] for panel in everything]
    expect(len(set(numbers)) == len(numbers) and all(number > 0 for number in numbers), f"ids of panels: {numbers}")
    titles = [panel["title"] for panel in everything]
    expect(len(set(titles)) == len(titles), "two panels have one title")
    expect(DASHBOARD["id"] is None and DASHBOARD["schemaVersion"] >= 38, "it can't be imported as a new one")
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    expect(set(variables) == {"datasource", "cluster", "node"} and variables["datasource"]["type"] == "datasource", variables)
    source = {"type": "prometheus", "uid": "${datasource}"}
    for asked in [variables["cluster"], variables["node"], *panels(), *(target for panel in panels() for target in panel["targets"])]:
        expect(asked["datasource"] == source, f"a source of its own: {asked}")
    cells = set()
    for panel in everything:
        place = panel["gridPos"]
        taken = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        expect(place["x"] + place["w"] <= 24 and not taken & cells, f"{panel['title']} lies on another panel, or beside the page")
        cells |= taken
    for before, after in zip(everything, everything[1:] + [{"type": "row"}]):
        expect("row" not in (before["type"], after["type"]) or before["type"] != after["type"], f"the row {before['title']} is empty")
    for panel in panels():
        names = [target["refId"] for target in panel["targets"]]
        expect(names and len(set(names)) == len(names), f"{panel['title']}: targets {names}")


def test_every_expression_of_the_dashboard_can_be_parsed():
    rules = {"groups": [{"name": "panels", "rules": [
        {"record": f"panel:{number}", "expr": filled(expression)} for number, (_, expression, _) in enumerate(queries())]}]}
    path = write(scratch() / "panels.yml", json.dumps(rules))  # (JSON is YAML)
    run("promtool", "check", "rules", path).expect(says=f"SUCCESS: {len(queries())} rules found")
    for where, expression, _ in queries():
        expect("$" not in filled(expression), f"{where}: a variable that is not there: {expression}")


def test_the_documentation_names_what_there_is():
    text = (REPOSITORY / "docs/metrics.md").read_text()
    for path in MONITORING.iterdir():
        expect(f"deploy/monitoring/{path.name}" in text, f"docs/metrics.md does not tell of {path.name}")


# What really happens.

def test_a_running_cluster_gives_every_panel_what_it_shows():
    local = Local()
    local.environment |= {"KVSERVER_SNAPSHOT_SECONDS": "2", "KVSERVER_REPAIR_SECONDS": "2", "KVSERVER_APPEND_LOG": "true"}
    local.up()
    directory = scratch()
    text = re.sub(r"127\.0\.0\.(\d+:\d+)", rf"{local.network}.\1", CONFIGURATION)
    text = re.sub(r"_(interval|timeout): \d+s", r"_\1: 1s", text)
    write(directory / "prometheus.yml", text)
    write(directory / "alerts.yml", ALERTS)
    address = free_address(f"{local.network}.10")
    start("prometheus", "--config.file", directory / "prometheus.yml", "--storage.tsdb.path", directory / "data",
          "--web.listen-address", address)

    def ask(path, **query):
        with ASK.open(f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def targets_up():
        try:
            return [target["scrapeUrl"] for target in ask("targets")["activeTargets"] if target["health"] == "up"]
        except urllib.error.URLError:
            return []
    eventually(20, "all targets are up", lambda: len(targets_up()) == 4)

    def values(expression):
        return ask("query", query=expression)["result"]

    def without_a_number():
        """Titles of panels of which some line has no number, after some more requests."""
        for number in range(20):
            local.store(11 + number % 3, f"seen{number}", "v")
            local.find(11 + number % 3, f"seen{number}")
        return {where.rpartition(" ")[0] for where, expression, _ in queries()
                if all(value["value"][1] == "NaN" for value in values(filled(expression)))}
    end = time.monotonic() + 30
    while missing := without_a_number() - set(EMPTY_AT_REST):
        expect(time.monotonic() < end, f"panels with nothing to show: {sorted(missing)}")
        time.sleep(1)
    rules = eventually(20, "every rule was looked at", lambda: judged(ask("rules")))
    expect(set(rules) == set(alerts()), f"rules: {sorted(rules)}")
    expect(all(rule["health"] == "ok" for rule in rules.values()), rules)
    raised = [name for name, rule in rules.items() if rule["state"] != "inactive"]
    expect(not raised, f"a cluster where all is well raises {raised}")
    # A node that is gone is said to be.
    local.signal(local.pid("node3/supervisor"), 9)
    eventually(20, "the node that was killed is missed", lambda: judged(ask("rules"))["KVServerNodeDown"]["state"] == "pending")


def free_address(host):
    """One that nobody listens at: Debian's package starts a Prometheus of its own, at port 9090 of all addresses."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return f"{host}:{probe.getsockname()[1]}"


def judged(answer):
    """Every rule by its name; None while one was not evaluated yet."""
    rules = {rule["name"]: rule for group in answer["groups"] for rule in group["rules"]}
    return rules if all(rule["health"] != "unknown" for rule in rules.values()) else None


# PromQL, as far as it has to be understood here.

def bare(expression):
    return re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)


def grouping(expression):
    """What stands in `by (…)` and the like."""
    return re.findall(r"\b(?:by|without|on|ignoring) \(([^)]*)\)", bare(expression))


def selectors(expression):
    """Each metric that is asked for, and the labels by which."""
    text = re.sub(r"\b(?:by|without|on|ignoring) \([^)]*\)", " ", bare(expression))
    text = re.sub(r"\[[^]]*\]", " ", text)
    return [(name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", braces))) for name, braces
            in re.findall(r"(?<![\w$])([a-zA-Z_:][\w:]*)\b(?!\s*\()(?:\{([^}]*)\})?", re.sub(r"\b(?:%s)\b" % "|".join(WORDS), " ", text))]
