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
NETWORK=127.0.77

KVSERVER_BINARY=${KVSERVER_BINARY:-$ROOT/.build/release/KVServer}
export KVSERVER_BINARY
[ -x "$KVSERVER_BINARY" ] || die "no daemon at $KVSERVER_BINARY: swift build -c release --product KVServer"
for tool in memcached nginx wrk haproxy curl python3; do
    command -v $tool >/dev/null || die "$tool is missing: apt-get install memcached nginx-light wrk haproxy curl python3"
done

DIRECTORY=$(mktemp -d "${TMPDIR:-/tmp}/kvserver-bench-XXXXXX")
export KVSERVER_LOCAL=$DIRECTORY/cluster

finish() {
    end_all
    [ ! -e "$KVSERVER_LOCAL/settings" ] || "$ROOT/setup.sh" local down >/dev/null || true
    rm -rf "$DIRECTORY"
}
trap finish EXIT
trap 'exit 130' INT TERM

# --- one node ---

start_node() {
    local socket=$DIRECTORY/memcached.sock
    start "$DIRECTORY/memcached.log" "$ROOT/deploy/run-memcached.sh" --socket "$socket" --memory 256
    within 5 test -S "$socket" || die "memcached did not start"
    mkdir -p "$DIRECTORY/state"
    cat >"$DIRECTORY/node.json" <<END
{"node": "$NETWORK.11:5000", "workers": 1, "memcached": "$socket", "stateDirectory": "$DIRECTORY/state"}
END
    start "$DIRECTORY/node.log" "$KVSERVER_BINARY" --config "$DIRECTORY/node.json"
    within 10 curl -fsS "http://$NETWORK.11:5000/health/live" || die "the node did not start: $(tail -n 3 "$DIRECTORY/node.log")"
    curl -fsS "http://$NETWORK.11:5000/hash_ring" -o /dev/null \
        --data-urlencode "data={\"nodes\":[{\"ip\":\"$NETWORK.11:5000\",\"key\":3000}]}"
    within 10 curl -fsS "http://$NETWORK.11:5000/health/ready" || die "the node is not ready"

    # nginx sees plain keys: the same names, values of the same 100 bytes, without this store's prefix and envelope.
    python3 - "$socket" "$KEYS" <<'END'
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    for number in range(int(sys.argv[2])):
        connection.sendall(b"set bench-%d 0 0 100 noreply\r\n%s%07d\r\n" % (number, b"v" * 93, number))
    connection.sendall(b"mn\r\n")
    assert connection.recv(16) == b"MN\r\n"
END
    sed -e "s|@DIRECTORY@|$DIRECTORY|" -e "s|@SOCKET@|$socket|" -e "s|@ADDRESS@|$NETWORK.20:5000|" \
        -e "s|@USER@|$(id -un)|" -e "s|@GROUP@|$(id -gn)|" \
        "$BENCH/nginx.conf.template" >"$DIRECTORY/nginx.conf"
    start "$DIRECTORY/nginx.out" nginx -c "$DIRECTORY/nginx.conf"
    within 5 curl -fsS "http://$NETWORK.20:5000/route?key=bench-0" || die "nginx does not serve: $(tail -n 3 "$DIRECTORY/nginx.log" "$DIRECTORY/nginx.out")"
}

bench_node() {
    local ours=http://$NETWORK.11:5000 nginx=http://$NETWORK.20:5000 connections round
    start_node
    say "one node with one worker, $KEYS keys, 100-byte values; medians of $rounds rounds of $seconds s"
    # A warm-up that stores every pair, so that each GET finds one.
    load 4 32 keys.lua "$ours" POST "$KEYS" >/dev/null
    load 2 32 keys.lua "$nginx" GET "$KEYS" >/dev/null
    for connections in 32 128; do
        local get=() post=() theirs=()
        load 1 "$connections" keys.lua "$ours" GET "$KEYS" >/dev/null
        for ((round = 0; round < rounds; round++)); do
            get+=("$(load "$seconds" "$connections" keys.lua "$ours" GET "$KEYS")")
            theirs+=("$(load "$seconds" "$connections" keys.lua "$nginx" GET "$KEYS")")
            post+=("$(load "$seconds" "$connections" keys.lua "$ours" POST "$KEYS")")
        done
        local g p n
        g=$(median "${get[@]}") p=$(median "${post[@]}") n=$(median "${theirs[@]}")
        say "  $connections connections: GET $g/s, nginx GET $n/s, POST $p/s;" \
            "GET ours/nginx $(ratio "$g" "$n"), POST/GET $(ratio "$p" "$g")"
    done
    end_all
}

# --- HAProxy and nodes ---

start_cluster() {
    "$ROOT/setup.sh" local --nodes "$1" --workers 1 --memory "$2" --network "$NETWORK" >"$DIRECTORY/setup.log" 2>&1 ||
        die "setup.sh local failed: $(tail -n 5 "$DIRECTORY/setup.log")"
}

stop_cluster() { "$ROOT/setup.sh" local down >/dev/null; }

# HAProxy with nothing behind it but another one's fixed answer: more than that no store can do through it.
start_ceiling() {
    cat >"$DIRECTORY/ceiling.cfg" <<END
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 1s
frontend answer
    bind $NETWORK.31:5000
    http-request return status 200 content-type text/plain string "$(printf 'v%.0s' {1..100})"
frontend balancer
    bind $NETWORK.30:5000
    default_backend answer
backend answer
    server answer $NETWORK.31:5000
END
    start "$DIRECTORY/ceiling.log" haproxy -db -f "$DIRECTORY/ceiling.cfg"
    within 5 curl -fsS "http://$NETWORK.30:5000/" || die "HAProxy does not serve: $(tail -n 3 "$DIRECTORY/ceiling.log")"
}

bench_cluster() {
    local balancer=http://$NETWORK.10:5000 ceiling=http://$NETWORK.30:5000 round reads=() writes=() fixed=() r w f
    start_ceiling
    start_cluster 2 256
    say "HAProxy and two nodes with a worker each, 128 connections; medians of $rounds rounds of $seconds s"
    load 4 128 keys.lua "$balancer" POST "$KEYS" >/dev/null
    for ((round = 0; round < rounds; round++)); do
        reads+=("$(load "$seconds" 128 keys.lua "$balancer" GET "$KEYS")")
        writes+=("$(load "$seconds" 128 keys.lua "$balancer" POST "$KEYS")")
        fixed+=("$(load "$seconds" 128 keys.lua "$ceiling" GET "$KEYS")")
    done
    r=$(median "${reads[@]}") w=$(median "${writes[@]}") f=$(median "${fixed[@]}")
    say "  reads $r/s, $(ratio "$r" $ORIGINAL_READS)× the original; writes $w/s, $(ratio "$w" $ORIGINAL_WRITES)×"
    say "  HAProxy before a fixed answer $f/s; of that, reads $(ratio "$r" "$f"), writes $(ratio "$w" "$f")"
    stop_cluster
    end_all
}

# All the pairs are in the slots that the standby takes over at position 5000, so that all of them move.
bench_move() {
    local node=$NETWORK.12:5000 standby=$NETWORK.13:5000 balancer=http://$NETWORK.10:5000 begin end pairs=${pairs:-1000000}
    start_cluster 3 512
    say "moving $pairs pairs of 100 bytes by add_node, while 4 connections read and write"
    load 5 32 keys.lua "$balancer" POST "$KEYS" >/dev/null
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
