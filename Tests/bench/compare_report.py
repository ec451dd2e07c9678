#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Medians and ratios of what compare.sh has measured: compare_report.py [--write] FILE

Prints Markdown; with --write puts it between its markers in docs/performance.md, and draws
docs/pictures/performance.svg.
"""

import argparse
import math
import re
import statistics
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, PICTURE = DOCS / "performance.md", DOCS / "pictures" / "performance.svg"
BEGIN, END = "<!-- BEGIN compare -->", "<!-- END compare -->"
HEADING = "## Beside nginx's memcached module, webdis and etcd"

SIZES = {100: "100 B", 1024: "1 KiB", 16384: "16 KiB", 262144: "256 KiB"}
CONNECTIONS = (1, 32, 128, 1024)
SYSTEMS = {"store": "this store", "nginx": "nginx, memcached module", "webdis": "webdis, redis",
           "etcd": "etcd's JSON gateway"}


class Row(NamedTuple):
    """What was measured in all rounds. Latencies in µs."""

    values: list
    errors: int
    p50: float | None
    p99: float | None

    @property
    def median(self):
        return statistics.median(self.values)

    @property
    def counts(self):
        return self.errors == 0


class Wanted(NamedTuple):
    """A figure to reach: a field of one row over that of another, or of one alone, over `scale`."""

    what: str
    against: str
    ours: tuple
    theirs: tuple | None
    bound: float
    is_upper: bool = False
    field: str = "median"
    unit: str = "×"
    scale: float = 1


def row(part, system, work="GET", size=100, connections=128):
    """The name of a row."""
    return part, system, work, size, connections


def wanted_figures(open_loop):
    return [
        Wanted("GET, 32 connections", "nginx's memcached module", row("peers", "store", connections=32),
               row("peers", "nginx", connections=32), 1.5),
        Wanted("GET, 128 connections", "nginx's memcached module", row("peers", "store"), row("peers", "nginx"), 2.0),
        Wanted("GET, 128 connections, 2 workers", "webdis with 2 threads, and redis", row("peers", "store2"),
               row("peers", "webdis2"), 1.3),
        Wanted("POST, 128 connections, 2 workers", "webdis with 2 threads, and redis", row("peers", "store2", "POST"),
               row("peers", "webdis2", "POST"), 1.3),
        Wanted("GET, 128 connections", "nginx's fixed answer (no store: the limit)", row("limits", "store"),
               row("limits", "fixed"), 0.6),
        Wanted("99th percentile of a GET at half of this store's peak", "nginx's memcached module at the same rate",
               row("latency", "store", open_loop), row("latency", "nginx", open_loop), 1.0, is_upper=True,
               field="p99"),
        Wanted("GET through HAProxy, 2 nodes", "HAProxy to nginx's fixed answer (the limit)",
               row("limits", "store", "GET through HAProxy"), row("limits", "fixed", "GET through HAProxy"), 0.7),
        Wanted("GET at a node that has to ask another one", "at the owner", row("growth", "forwarded"),
               row("growth", "local"), 0.6),
        Wanted("GET with many pairs", "with 10 thousand", row("growth", "many pairs"), row("growth", "10000 pairs"),
               0.95),
        Wanted("GET with 100 nodes in the ring", "with 2", row("growth", "100 nodes"), row("growth", "2 nodes"),
               0.97),
        Wanted("GET beside 10,000 idle connections", "without", row("growth", "10000 idle connections"),
               row("growth", "no idle connections"), 0.9),
        Wanted("memory for a pair above its key and value, memcached's own included", "–",
               row("growth", "many", "memory", connections=0), None, 96, is_upper=True, unit=" bytes"),
        Wanted("resident memory of a worker with 1,024 connections", "–",
               row("growth", "worker", "memory", connections=1024), None, 64, is_upper=True, unit=" MiB", scale=1024),
        Wanted("pairs/s that add_node moves", "keys/s of a scan alone",
               row("growth", "add_node", "move", connections=0), row("growth", "scan", "move", connections=0), 0.25),
    ]


# --- measurements ---

def read(path):
    """Rows by name, and how each part was run."""
    found, runs = {}, {}
    for line in path.read_text().splitlines():
        words = line.split("\t")
        if words[0].startswith("# "):
            runs[words[0][2:]] = words[1]
            continue
        part, _, system, work, size, connections, _, value, *rest = words
        found.setdefault((part, system, work, int(size), int(connections)), []).append((value, *rest))
    return {name: combined(measured) for name, measured in found.items()}, runs


def combined(measured):
    def middle(place):
        found = [float(words[place]) for words in measured if len(words) > place]
        return statistics.median(found) if found else None
    errors = sum(int(words[1]) for words in measured if len(words) > 1)
    return Row([float(words[0]) for words in measured], errors, middle(2), middle(3))


def ratio(ours, theirs, field="median"):
    """None where one is missing, had errors, or did nothing."""
    if ours is None or theirs is None or not (ours.counts and theirs.counts) or not getattr(theirs, field):
        return None
    return getattr(ours, field) / getattr(theirs, field)


# --- tables ---

def table(heads, rows):
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, *rows)]
    return [lines[0], "|" + "---|" * len(heads), *lines[1:], ""]


def of_errors(row):
    return "" if row.counts else f" ({row.errors:,} errors: does not count)"


def rate_of(row):
    return "–" if row is None else f"{row.median:,.0f}" + of_errors(row)


def ratio_of(value):
    return "–" if value is None else f"{value:.2f}×"


def figures_table(rows, wanted):
    cells = []
    for figure in wanted:
        ours, theirs = rows.get(figure.ours), rows.get(figure.theirs)
        if ours is None or (figure.theirs and theirs is None):
            continue
        if not all(row.counts for row in (ours, theirs) if row):
            reached, verdict = "errors", "does not count"
        else:
            value = ratio(ours, theirs, figure.field) if figure.theirs else ours.median / figure.scale
            digits = 2 if figure.unit == "×" else 1
            reached = "–" if value is None else f"{value:.{digits}f}{figure.unit}"
            is_met = value is not None and (value <= figure.bound if figure.is_upper else value >= figure.bound)
            verdict = "met" if is_met else "missed"
        sign = "≤" if figure.is_upper else "≥"
        cells.append([figure.what, figure.against, f"{sign} {figure.bound:g}{figure.unit}", reached, verdict])
    return table(["work", "against", "wanted", "reached", ""], cells) if cells else []


def peers_tables(rows):
    lines = []
    for work in ("GET", "POST"):
        systems = [system for system in SYSTEMS if any(name[:3] == ("peers", system, work) for name in rows)]
        cells = []
        for size, label in SIZES.items():
            for connections in CONNECTIONS:
                of = {system: rows.get(row("peers", system, work, size, connections)) for system in systems}
                if any(of.values()):
                    cells.append([label, f"{connections:,}", *(rate_of(of[system]) for system in systems),
                                  *(ratio_of(ratio(of["store"], of[peer])) for peer in systems if peer != "store")])
        if cells:
            lines += [f"{work}, requests/s:", ""]
            lines += table(["values", "connections", *(SYSTEMS[system] for system in systems),
                            *(f"ratio to {system}" for system in systems if system != "store")], cells)
    return lines


def latency_table(rows, open_loop):
    cells = []
    for system in ("store", "nginx"):
        found = rows.get(row("latency", system, open_loop))
        if found:
            cells.append([SYSTEMS[system], rate_of(found), f"{found.p50:,.0f} µs", f"{found.p99:,.0f} µs"])
    if not cells:
        return []
    return [f"Latency of a {open_loop}, sent when due, 100 B, 128 connections:", "",
            *table(["", "answered a second", "median", "99th percentile"], cells)]


def others_table(rows):
    cells = [[part, system, work, f"{connections:,}" if connections else "–", rate_of(found)]
             for (part, system, work, size, connections), found in rows.items()
             if part in ("limits", "growth") and work != "memory" or system.endswith("2")]
    if not cells:
        return []
    return ["The rest, requests/s or pairs/s, values of 100 B:", "",
            *table(["part", "what", "work", "connections", "a second"], cells)]


def report(rows, runs):
    open_loop = next((name[2] for name in rows if name[0] == "latency" and name[2].startswith("GET at ")), "")
    how = "; ".join(f"{run} ({', '.join(part for part in runs if runs[part] == run)})"
                    for run in dict.fromkeys(runs.values()))
    return [HEADING, "",
            "Measured with `Tests/bench/compare.sh --write`, which also wrote this section; what each system does and",
            "does not do, and who gets which processor, is in [Tests/bench/README.md](../Tests/bench/README.md).",
            "Medians of all rounds, in which the systems took turns;", f"{how}.", "",
            *figures_table(rows, wanted_figures(open_loop)), *picture_lines(rows), *peers_tables(rows),
            *latency_table(rows, open_loop), *others_table(rows)]


def picture_lines(rows):
    if not any(name[0] == "peers" for name in rows):
        return []
    return [f"![{description(rows)}](pictures/{PICTURE.name})", ""]


def description(rows):
    """The picture in words."""
    sentences = []
    for system in SYSTEMS:
        found = rows.get(row("peers", system))
        if found:
            sentences.append(f"{SYSTEMS[system]} {found.median:,.0f}" + of_errors(found))
    return ("Requests/s by connections, for GET and POST and four sizes of values; GET of 100 B with 128 connections: "
            + "; ".join(sentences))


# --- picture ---

WIDTH, LEFT, TOP, PANEL_WIDTH, PANEL_HEIGHT, GAP_X, GAP_Y = 1000, 60, 92, 190, 170, 45, 62
STYLE = """
.ground { fill: #ffffff } .text { fill: #24292f } .grid { stroke: #d0d7de }
.line { fill: none; stroke-width: 2; stroke-linejoin: round } .mark { stroke-width: 2 }
.store { stroke: #0969da } .nginx { stroke: #b35900 } .webdis { stroke: #8250df } .etcd { stroke: #1a7f37 }
.mark.store { fill: #0969da } .mark.nginx { fill: #b35900 } .mark.webdis { fill: #8250df }
.mark.etcd { fill: #1a7f37 } .mark.lost { fill: #ffffff }
@media (prefers-color-scheme: dark) {
.ground { fill: #0d1117 } .text { fill: #e6edf3 } .grid { stroke: #30363d }
.store { stroke: #58a6ff } .nginx { stroke: #f0883e } .webdis { stroke: #bc8cff } .etcd { stroke: #3fb950 }
.mark.store { fill: #58a6ff } .mark.nginx { fill: #f0883e } .mark.webdis { fill: #bc8cff }
.mark.etcd { fill: #3fb950 } .mark.lost { fill: #0d1117 }
}
"""


def mark(system, x, y, counts):
    """A shape for each system, so that colours are not all that tells them apart; hollow where there were errors."""
    kind = f'class="mark {system}{"" if counts else " lost"}"'
    if system == "store":
        return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    if system == "nginx":
        return f'<rect {kind} x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>'
    points = {"webdis": ((0, -4.5), (4.5, 3.5), (-4.5, 3.5)), "etcd": ((0, -5), (5, 0), (0, 5), (-5, 0))}[system]
    return f'<polygon {kind} points="{" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in points)}"/>'


def text(x, y, words, more=""):
    return f'<text class="text" x="{x:.1f}" y="{y:.1f}"{more}>{escape(words)}</text>'


SMALL = ' font-size="12"'


def round_top(most):
    """The least of 1, 2, 5, 10, … that is not below."""
    unit = 10 ** math.floor(math.log10(max(most, 1)))
    return next(unit * step for step in (1, 2, 5, 10) if unit * step >= most)


def label_of(rate):
    return f"{rate / 1000:g}k" if rate >= 1000 else f"{rate:g}"


def panel(rows, work, size, left, top):
    series = {system: [(connections, rows[name]) for connections in CONNECTIONS
                       if (name := row("peers", system, work, size, connections)) in rows] for system in SYSTEMS}
    most = round_top(max((found.median for points in series.values() for _, found in points), default=1))
    bottom = top + PANEL_HEIGHT
    parts = [text(left, top - 10, f"{work}, {SIZES[size]}")]
    for step in range(5):
        y = bottom - PANEL_HEIGHT * step / 4
        parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{left + PANEL_WIDTH}" y2="{y:.1f}"/>')
        if step % 2 == 0:
            parts.append(text(left - 6, y + 4, label_of(most * step / 4), SMALL + ' text-anchor="end"'))

    def x_of(connections):
        return left + 8 + (PANEL_WIDTH - 16) * CONNECTIONS.index(connections) / (len(CONNECTIONS) - 1)

    for connections in CONNECTIONS:
        parts.append(text(x_of(connections), bottom + 17, f"{connections:,}", SMALL + ' text-anchor="middle"'))
    for system, points in series.items():
        places = [(x_of(at), bottom - PANEL_HEIGHT * found.median / most, found) for at, found in points]
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
        if places:
            parts.append(f'<polyline class="line {system}" points="{corners}"/>')
        parts += [mark(system, x, y, found.counts) for x, y, found in places]
    return parts


def picture(rows):
    height = TOP + 2 * PANEL_HEIGHT + GAP_Y + 50
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
             'font-family="sans-serif" font-size="14">',
             f"<title>{escape(description(rows))}</title>", f"<style>{STYLE}</style>",
             f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
             text(16, 28, "Requests/s, by connections (each panel has a scale of its own)", ' font-size="16"')]
    x = 22
    for system, label in SYSTEMS.items():
        parts += [mark(system, x, 50, True), text(x + 12, 55, label)]
        x += 32 + 8 * len(label)
    parts.append(text(x + 8, 55, "hollow: there were errors", SMALL))
    for across, size in enumerate(SIZES):
        for down, work in enumerate(("GET", "POST")):
            parts += panel(rows, work, size, LEFT + across * (PANEL_WIDTH + GAP_X), TOP + down * (PANEL_HEIGHT + GAP_Y))
    parts.append(text(WIDTH / 2, height - 8, "connections", SMALL + ' text-anchor="middle"'))
    return "\n".join([*parts, "</svg>", ""])


# --- documents ---

def write(rows, lines):
    """Between the markers, or, where there are none yet, as the last section."""
    page = PAGE.read_text()
    section = "\n".join([BEGIN, *lines]).rstrip() + f"\n{END}\n"
    if BEGIN in page:
        page = re.sub(re.escape(BEGIN) + ".*?" + re.escape(END) + "\n", lambda _: section, page, flags=re.S)
    else:
        page = page.rstrip() + "\n\n" + section
    PAGE.write_text(page)
    if picture_lines(rows):
        PICTURE.write_text(picture(rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="to docs/, instead of printing")
    parser.add_argument("file", type=Path, help="that compare.sh has written")
    options = parser.parse_args()
    rows, runs = read(options.file)
    lines = report(rows, runs)
    if options.write:
        write(rows, lines)
    else:
        print("\n".join(lines).rstrip())


if __name__ == "__main__":
    main()
