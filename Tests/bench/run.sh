#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The benchmarks that docs/performance.md cites. See README.md beside this file.
set -euo pipefail

BENCH=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$BENCH/../.." && pwd)
# shellcheck source=Tests/bench/lib.sh
. "$BENCH/lib.sh"

usage() {
    cat <<'END'
Usage: Tests/bench/run.sh [--seconds N] [--rounds N] [--pairs N] [PART...]

  node     one node with one worker beside nginx's memcached module: GET and POST, 32 and 128 connections
  cluster  HAProxy and two nodes: reads and writes
  move     pairs that an add_node moves while clients read and write
  replicas three nodes with three replicas beside three with one: GET and POST, sloppy and strict
  refill   a host's memory and workers are killed under writes: what clients see, and how soon it holds everything again
           (without a PART: all five)

  --seconds N  of each measurement (5)
  --rounds N   of all measurements; medians are printed (5); so many refills
  --pairs N    that move (1000000), and that are refilled (300000)

Environment: KVSERVER_BINARY=/path/to/KVServer instead of .build/release/KVServer
END
}

seconds=5 rounds=5 pairs='' parts=()
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=${2?--seconds needs a number} && shift 2 ;;
    --rounds) rounds=${2?--rounds needs a number} && shift 2 ;;
    --pairs) pairs=${2?--pairs needs a number} && shift 2 ;;
    --help | -h) usage && exit 0 ;;
    node | cluster | move | replicas | refill) parts+=("$1") && shift ;;
    *) usage >&2 && exit 64 ;;
    esac
done
[ ${#parts[@]} -gt 0 ] || parts=(node cluster move replicas refill)

# What the original system did on this kind of machine (Flask under Apache's mod_wsgi, behind HAProxy).
ORIGINAL_READS=660
ORIGINAL_WRITES=570
KEYS=10000

require memcached=memcached nginx=nginx-light wrk=wrk haproxy=haproxy curl=curl python3=python3
begin

# --- one node ---

bench_node() {
    local ours=http://$NETWORK.11:5000 nginx=http://$NETWORK.20:5000 connections round
    start_node one "$NETWORK.11:5000" 1 256 4
    start_nginx "$NETWORK.20:5000" "$DIRECTORY/one/memcached.sock" "$NETWORK.31:5000"
    fill_plain "$DIRECTORY/one/memcached.sock" bench- "$KEYS" 100
    say "one node with one worker, $KEYS keys, 100-byte values; medians of $rounds rounds of $seconds s"
    # A warm-up that stores every pair, so that each GET finds one.
    load 4 32 "$ours" POST "$KEYS" >/dev/null
    load 2 32 "$nginx" GET "$KEYS" >/dev/null
    for connections in 32 128; do
        local get=() post=() theirs=()
        load 1 "$connections" "$ours" GET "$KEYS" >/dev/null
        for ((round = 0; round < rounds; round++)); do
            get+=("$(load "$seconds" "$connections" "$ours" GET "$KEYS")")
            theirs+=("$(load "$seconds" "$connections" "$nginx" GET "$KEYS")")
            post+=("$(load "$seconds" "$connections" "$ours" POST "$KEYS")")
        done
        local g p n
        g=$(median "${get[@]}") p=$(median "${post[@]}") n=$(median "${theirs[@]}")
        say "  $connections connections: GET $g/s, nginx GET $n/s, POST $p/s;" \
            "GET ours/nginx $(ratio "$g" "$n"), POST/GET $(ratio "$p" "$g")"
    done
    end_all
}

# --- HAProxy and nodes ---

bench_cluster() {
    local balancer=http://$NETWORK.10:5000 ceiling=http://$NETWORK.30:5000 round reads=() writes=() fixed=() r w f
    start_nginx "$NETWORK.20:5000" "$DIRECTORY/none" "$NETWORK.31:5000"
    start_ceiling "$NETWORK.30:5000" "$NETWORK.31:5000"
    start_cluster 2 256
    say "HAProxy and two nodes with a worker each, 128 connections; medians of $rounds rounds of $seconds s"
    load 4 128 "$balancer" POST "$KEYS" >/dev/null
    for ((round = 0; round < rounds; round++)); do
        reads+=("$(load "$seconds" 128 "$balancer" GET "$KEYS")")
        writes+=("$(load "$seconds" 128 "$balancer" POST "$KEYS")")
        fixed+=("$(load "$seconds" 128 "$ceiling" GET "$KEYS")")
    done
    r=$(median "${reads[@]}") w=$(median "${writes[@]}") f=$(median "${fixed[@]}")
    say "  reads $r/s, $(ratio "$r" $ORIGINAL_READS)× the original; writes $w/s, $(ratio "$w" $ORIGINAL_WRITES)×"
    say "  HAProxy before nginx's fixed answer $f/s; of that, reads $(ratio "$r" "$f"), writes $(ratio "$w" "$f")"
    stop_cluster
    end_all
}

# All the pairs are in the slots that the standby takes over at position 5000, so that all of them move.
bench_move() {
    local node=$NETWORK.12:5000 standby=$NETWORK.13:5000 balancer=http://$NETWORK.10:5000 begin end pairs=${pairs:-1000000}
    start_cluster 3 512
    say "moving $pairs pairs of 100 bytes by add_node, while 4 connections read and write"
    load 5 32 "$balancer" POST "$KEYS" >/dev/null
    python3 "$BENCH/fill.py" "$node" "$pairs" 3001 5000 >/dev/null
    wrk -t 1 -c 2 -d 600s -s "$BENCH/keys.lua" "$balancer" -- GET "$KEYS" >"$DIRECTORY/reads" 2>&1 &
    local reader=$!
    wrk -t 1 -c 2 -d 600s -s "$BENCH/keys.lua" "$balancer" -- POST "$KEYS" >"$DIRECTORY/writes" 2>&1 &
    local writer=$!
    pids+=("$reader" "$writer")
    python3 "$BENCH/progress.py" "$node" 550 >"$DIRECTORY/progress" &
    local watcher=$!
    pids+=("$watcher")
    sleep 1
    begin=$(date +%s%N)
    [ "$(curl -sS -m 500 "http://$node/add_node/5000/$standby")" = OK ] || die "add_node failed"
    end=$(date +%s%N)
    # wrk prints its figures when it is interrupted.
    kill -INT "$reader" "$writer"
    wait "$reader" "$writer" || true
    wait "$watcher"
    pids=()
    say "  $(awk -v n="$pairs" -v t=$((end - begin)) \
        'BEGIN { printf "%.1f s until add_node has answered, %.0f pairs/s", t / 1e9, n / t * 1e9 }'); by step:"
    cat "$DIRECTORY/progress"
    say "  meanwhile $(sed -nE 's/^Requests\/sec: *//p' "$DIRECTORY/reads") reads/s and" \
        "$(sed -nE 's/^Requests\/sec: *//p' "$DIRECTORY/writes") writes/s were answered 200"
    if grep -hE 'Non-2xx|Socket errors' "$DIRECTORY/reads" "$DIRECTORY/writes"; then die "clients were not all answered 200"; fi
    stop_cluster
}

# --- three replicas ---

bench_replicas() { python3 "$BENCH/replicas.py" --seconds "$seconds" --rounds "$rounds"; }

bench_refill() { python3 "$BENCH/refill.py" --pairs "${pairs:-300000}" --runs "$rounds"; }

for part in "${parts[@]}"; do "bench_$part"; done
