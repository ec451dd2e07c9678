# SPDX-License-Identifier: Apache-2.0
"""openapi.yaml tells the truth: schemathesis sends what it allows and what it does not, and sees no answer that it does not name, and no 5xx."""

import re
import subprocess
import sys
import venv

from harness.cluster import REPOSITORY
from harness.expectations import expect

LIMIT_SECONDS = 240

SCHEMATHESIS = "schemathesis==4.32.5"
#: Left out: which requests a server has to take, or to refuse. What is well-formed may fail on its condition, its range, or the ring's
#: replicas; and a Range that is none, or a field of the query that nobody knows, is as if it had not been said.
CHECKS = ("not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
          "response_schema_conformance,unsupported_method,allow_header_conformance,use_after_free,ensure_resource_availability")
#: Without its fourth, coverage, in which the tool itself fails now and then under CPython 3.11 ("AST constructor recursion depth mismatch").
PHASES = "examples,fuzzing,stateful"


def run(context):
    tool = installed()
    with context.cluster() as cluster:
        for place in (cluster.node(1).address, cluster.proxy.address):
            result = subprocess.run(
                [tool, "run", REPOSITORY / "openapi.yaml", "--url", f"http://{place}", "--checks", CHECKS, "--phases", PHASES, "--workers", "2",
                 "--seed", str(context.seed), "--max-examples", str(context.short_or_full(60, 1000)), "--request-timeout", "5",
                 "--no-color", "--warnings", "off"],
                cwd=cluster.node(1).directory, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
            expect(result.returncode == 0, f"schemathesis, seed {context.seed}, at {place}:\n{result.stdout[-6000:]}{result.stderr[-2000:]}")
            cases = re.search(r"([\d,]+) generated", result.stdout)
            expect(cases and int(cases[1].replace(",", "")) > 100, f"too few requests were made:\n{result.stdout[-3000:]}")
            context.note(f"{cases[1]} requests at {place}")


def installed():
    """Where the tool is: in an environment of the repository's own, made the first time."""
    directory = REPOSITORY / ".local" / "tools" / "schemathesis"
    tool = directory / "bin" / "schemathesis"
    if not tool.exists():
        venv.create(directory, with_pip=True, clear=True)
        subprocess.run([directory / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", SCHEMATHESIS],
                       check=True, stdout=sys.stderr, timeout=180)
    return tool
