#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs all tests, and installs before what they need. The last line is `N passed, N failed`.
set -eu
HERE=$(cd "$(dirname "$0")/.." && pwd)
# Where Debian keeps haproxy, for users whose PATH lacks it.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
# shellcheck source-path=SCRIPTDIR source=../deploy/lib/common.sh
. "$HERE/deploy/lib/common.sh"

usage() {
    cat <<'END'
Usage: Tests/run.sh [--only PART]... [--seed N]

Installs what is missing (with apt-get, through sudo unless you are root), builds for release, and runs the tests:

  swift        units, simulations, and memcached: a real one and a scripted one
  fuzz         whether the fuzz targets still compile (which nobody else builds)
  instructions how many instructions requests and their parts take (Tests/bench/instructions.py)
  deploy       the scripts, units and configurations, and a life of the local cluster
  end_to_end   real clusters on loopback, behind HAProxy, under load and faults
  faults       hosts in networks of their own, and faults drawn from a seed (short form; Tests/faults/run.sh is the long one)

The last line is `N passed, N failed`. A part that crashes, or does not build, counts as one failure.

  --only PART   one of these; may be repeated
  --seed N      what the end-to-end and fault tests draw at random, drawn again (they print their seed), and the first
                of the seeds that the simulation runs
  --help

Environment: KVSERVER_BINARY=/path/to/KVServer   what deploy, end_to_end and faults test, instead of building it
             KVCTL_BINARY=/path/to/kvctl         likewise (what is beside KVServer)
END
}

# How long each may take, in seconds. They end long before, unless something hangs.
BUILD_LIMIT=3600 SWIFT_LIMIT=900 INSTRUCTIONS_LIMIT=600 DEPLOY_LIMIT=1500 END_TO_END_LIMIT=2700 FAULTS_LIMIT=900

passed=0 failed=0 running='' chosen=' ' seed=''
while [ $# -gt 0 ]; do
    case $1 in
    --only)
        needs_value "$@"
        case $2 in swift | fuzz | instructions | deploy | end_to_end | faults) chosen+="$2 " ;; *) misused "no such part: $2" ;; esac
        shift 2
        ;;
    --seed) needs_value "$@" && seed=$2 && shift 2 ;;
    --help | -h) usage && exit 0 ;;
    *) misused "unknown argument: $1" ;;
    esac
done
[ "$chosen" != ' ' ] || chosen=' swift fuzz instructions deploy end_to_end faults '
[ -z "$seed" ] || is_number "$seed" 0 999999999 || misused "--seed takes a number up to 999999999: $seed"

logs=$(mktemp -d)
# Whatever happens, the counts come last, and nothing that was started here goes on.
finish() {
    local status=$?
    trap - EXIT
    end_running
    rm -rf "$logs"
    if [ "$status" != 0 ]; then failed=$((failed + 1)); fi
    printf '%s passed, %s failed\n' "$passed" "$failed"
    [ "$failed" = 0 ] || exit 1
}
end_running() {
    [ -n "$running" ] || return 0
    # (`swift test` gives its child a process group of its own, in the same session.)
    pkill -TERM -s "$running" || true
    for _ in {1..100}; do
        pgrep -s "$running" >/dev/null || break
        sleep 0.1
    done
    pkill -KILL -s "$running" || true
    running=''
}
trap finish EXIT
trap 'say "--- ended by a signal"; exit 130' INT
trap 'say "--- ended by a signal"; exit 143' TERM HUP

# limited NAME SECONDS COMMAND...: runs it in a session of its own, which dies with this script, and shows its output,
# also kept in $logs/NAME. Its descendants in that session are gone when this returns, with its status.
limited() {
    local log=$logs/$1 limit=$2 status=0 began=$SECONDS shown
    shift 2
    : >"$log"
    setsid setpriv --pdeathsig TERM timeout --kill-after=20 "$limit" "$@" </dev/null >>"$log" 2>&1 &
    running=$!
    tail -n +1 -s 0.2 -f --pid="$running" "$log" &
    shown=$!
    wait "$running" || status=$?
    wait "$shown" || true
    end_running
    [ "$status" != 124 ] || say "--- ended: it took longer than $limit s"
    say "--- $((SECONDS - began)) s, status $status"
    return "$status"
}

# count PART PASSED FAILED STATUS: adds up. A part that counted nothing, or failed without counting a failure, counts as
# one failure.
count() {
    local good=$2 bad=$3
    if [ "$bad" = 0 ] && { [ "$4" != 0 ] || [ "$good" = 0 ]; }; then
        bad=1
        say "--- $1 ended with status $4 and without a count of what failed: one failure"
    fi
    say "=== $1: $good passed, $bad failed"
    passed=$((passed + good)) failed=$((failed + bad))
}

# Counts of a log of Swift Testing. It closes with "Test run with 12 tests in 3 suites passed after 0.1 seconds."; which
# of them failed or were skipped is told by a line for each.
count_swift() {
    local log=$logs/swift total=0 skipped bad number
    while read -r number; do total=$((total + number)); done < <(
        sed -nE 's/^.*Test run with ([0-9]+) tests?( in [0-9]+ suites?)? (passed|failed) after .*/\1/p' "$log")
    bad=$(grep -E '^[^ ]+ +Test .* failed after [0-9.]+ seconds' "$log" | grep -cvE 'Test run with [0-9]+ tests?' || true)
    # (What a test is given may speak of skipping, too.)
    skipped=$(grep -E '^[^ ]+ +Test .* skipped' "$log" | grep -cv ' Test case passing ' || true)
    [ "$skipped" = 0 ] || say "--- $skipped skipped"
    # Without a closing line it crashed, and nothing that passed before is believed.
    if [ "$total" = 0 ]; then bad=0 skipped=0; fi
    if [ "$bad" -gt "$total" ]; then bad=$total; fi
    count swift $((total - bad - skipped)) "$bad" "$1"
}

# count_lines PART STATUS: of a log whose last line is "N passed, N failed".
count_lines() {
    local good bad
    read -r good bad < <(tail -n 1 "$logs/$1" | sed -nE 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p') || true
    count "$1" "${good:-0}" "${bad:-0}" "$2"
}

# --- what the tests need ---

install_missing() {
    local missing=() pair
    for pair in memcached:memcached haproxy:haproxy curl:curl python3:python3 ss:iproute2 nft:nftables ps:procps \
        pkg-config:pkg-config shellcheck:shellcheck etcd:etcd-server fiu-run:fiu-utils promtool:prometheus \
        memccapable:libmemcached-tools chromium:chromium valgrind:valgrind debootstrap:debootstrap systemd-nspawn:systemd-container; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    # (What lets a test install a tool of PyPI in an environment of its own.)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    pkg-config --exists libmemcached 2>/dev/null || missing+=(libmemcached-dev)
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

# Builds once, for all parts: the tests' targets, the daemon and kvctl. Sets `built`.
build() {
    say "=== build"
    local status=0
    limited build "$BUILD_LIMIT" swift build -c release --build-tests || status=$?
    if [ "$status" = 0 ]; then
        built=yes
        if [ -z "${KVSERVER_BINARY:-}" ]; then
            KVSERVER_BINARY=$(swift build -c release --show-bin-path)/KVServer
            export KVSERVER_BINARY
        fi
    else
        say "--- the build failed"
    fi
}

# --- the parts ---

run_swift() {
    local status=0
    if [ -z "$built" ]; then
        count swift 0 1 1
        return
    fi
    # The first of the simulation's seeds.
    [ -z "$seed" ] || export KV_SIM_FIRST=$seed
    # The simulations take all cores, and what waits for a clock should not have to wait for them.
    # shellcheck disable=SC2016 # expanded by the inner shell
    limited swift "$SWIFT_LIMIT" sh -euc '
        status=0
        swift test -c release --skip-build --disable-xctest --skip SimulationTests || status=$?
        swift test -c release --skip-build --disable-xctest --filter SimulationTests || status=$?
        exit $status' || status=$?
    count_swift "$status"
}

run_fuzz() {
    local status=0
    limited fuzz 60 Fuzz/check.sh || status=$?
    if [ "$status" = 0 ]; then count fuzz 1 0 0; else count fuzz 0 1 "$status"; fi
}

run_instructions() {
    local status=0
    limited instructions "$INSTRUCTIONS_LIMIT" python3 Tests/bench/instructions.py --check || status=$?
    count_lines instructions "$status"
}

run_deploy() {
    local status=0
    limited deploy "$DEPLOY_LIMIT" python3 Tests/deploy/run.py || status=$?
    count_lines deploy "$status"
}

# run_on_daemon PART LIMIT COMMAND...
run_on_daemon() {
    local part=$1 limit=$2 status=0
    shift 2
    if [ -z "${KVSERVER_BINARY:-}" ]; then
        say "--- there is no daemon to test"
        count "$part" 0 1 1
        return
    fi
    limited "$part" "$limit" "$@" ${seed:+--seed "$seed"} || status=$?
    count_lines "$part" "$status"
}

run_end_to_end() { run_on_daemon end_to_end "$END_TO_END_LIMIT" python3 Tests/end_to_end/run.py; }

run_faults() { run_on_daemon faults "$FAULTS_LIMIT" python3 Tests/faults/run.py --short; }

cd "$HERE"
install_missing
built=''
if [ -z "${KVSERVER_BINARY:-}" ] || [[ $chosen == *' swift '* ]]; then
    check_swift
    build
fi
for part in swift fuzz instructions deploy end_to_end faults; do
    if [[ $chosen == *" $part "* ]]; then
        say "=== $part"
        "run_$part"
    fi
done
say "=== all: $((SECONDS / 60)) min $((SECONDS % 60)) s"
