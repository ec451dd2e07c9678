# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Processes and figures of the benchmarks. To be sourced by run.sh.

say() { printf '%s\n' "$*"; }

die() {
    printf 'bench: %s\n' "$*" >&2
    exit 1
}

# --- processes ---

pids=()

# start LOG COMMAND...: in the background, ended with this script.
start() {
    local log=$1
    shift
    "$@" </dev/null >>"$log" 2>&1 &
    pids+=("$!")
}

# In the opposite order of their start; a daemon gets time to end its workers.
end_all() {
    local index pid
    for ((index = ${#pids[@]} - 1; index >= 0; index--)); do
        pid=${pids[index]}
        kill "$pid" 2>/dev/null || continue
        for _ in {1..50}; do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null || true
    done
    pids=()
}

# within SECONDS COMMAND...: whether the command succeeds before they are over.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

# --- figures ---

# load SECONDS CONNECTIONS SCRIPT URL [ARGUMENT...]: prints wrk's requests a second; fails if any was not answered 200.
load() {
    local seconds=$1 connections=$2 script=$3 url=$4 output
    shift 4
    output=$(wrk -t 1 -c "$connections" -d "${seconds}s" -s "$BENCH/$script" "$url" -- "$@") ||
        die "wrk failed: $output"
    if grep -qE 'Non-2xx|Socket errors' <<<"$output"; then
        printf '%s\n' "$output" >&2
        die "not every request to $url was answered 200"
    fi
    sed -nE 's/^Requests\/sec: *([0-9]+).*/\1/p' <<<"$output"
}

# median NUMBER...
median() {
    printf '%s\n' "$@" | sort -n | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# ratio A B: with two decimals.
ratio() {
    awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'
}
