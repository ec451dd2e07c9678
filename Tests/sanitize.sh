#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs unit tests and some end-to-end tests under ThreadSanitizer and AddressSanitizer.
set -euo pipefail
HERE=$(cd "$(dirname "$0")/.." && pwd)

usage() {
    cat <<'END'
Usage: Tests/sanitize.sh [--only thread|address] [--end-to-end NN]... [--jobs N] [--no-build]

Builds all tests, and the daemon, with ThreadSanitizer, and then with AddressSanitizer, each in a directory of its own
(.build/sanitize-thread, .build/sanitize-address), and runs the unit tests and end-to-end tests with it. It is no part of
Tests/run.sh: each of the two builds takes some 20 minutes on two processors the first time, for every package is built
anew, and the tests take several times as long as without.

  --only NAME        one of the two
  --end-to-end NN    which end-to-end tests, instead of 02, 13 and 26; none: no one
  --jobs N           how many compilers at a time (1)
  --no-build         with what was built before
  --help

Everything runs at low priority. A finding fails the test in which it is made; TSAN_OPTIONS and ASAN_OPTIONS go behind
those that are set here (TSAN_OPTIONS=halt_on_error=0 goes on behind a finding). The last line is `N passed, N failed`.
END
}

misused() {
    printf '%s\n' "$1" >&2
    exit 64
}

kinds=(thread address) scenes=() jobs=1 build=yes
while [ $# -gt 0 ]; do
    case $1 in
    --only)
        case ${2:-} in thread | address) kinds=("$2") ;; *) misused "--only takes thread or address" ;; esac
        shift 2
        ;;
    --end-to-end) [ -n "${2:-}" ] || misused "--end-to-end takes a number" && scenes+=("$2") && shift 2 ;;
    --jobs) [[ ${2:-} =~ ^[1-9][0-9]?$ ]] || misused "--jobs takes a number" && jobs=$2 && shift 2 ;;
    --no-build) build='' && shift ;;
    --help | -h) usage && exit 0 ;;
    *) misused "unknown argument: $1" ;;
    esac
done
[ ${#scenes[@]} != 0 ] || scenes=(02_ 13_ 26_)

cd "$HERE"
# Of the linker, on each symbol of the sanitizer's.
remark='Cannot export local symbol'
passed=0 failed=0
# count NAME COMMAND...: runs it, and counts it as one.
count() {
    local name=$1 began=$SECONDS
    shift
    if "$@"; then
        passed=$((passed + 1))
        printf 'ok     %s (%s s)\n' "$name" $((SECONDS - began))
    else
        failed=$((failed + 1))
        printf 'FAILED %s (%s s)\n' "$name" $((SECONDS - began))
    fi
}

# (Package.swift says why.)
export KVSERVER_SHARED_RUNTIME=1
# A report ends the process, so that no test passes with one.
export TSAN_OPTIONS="halt_on_error=1 exitcode=66 suppressions=$HERE/Tests/sanitizers/thread.suppressions ${TSAN_OPTIONS:-}"
# (What libraries keep for ever is no leak of ours, and memcached's client is given memory by one thread and freed by
# another. A test looks at how much memory is resident: of what was freed, little is kept.)
export ASAN_OPTIONS="detect_leaks=0 halt_on_error=1 quarantine_size_mb=4 thread_local_quarantine_size_kb=64 ${ASAN_OPTIONS:-}"

# Whether the sanitizer reports what is planted, and nothing else.
sees_planted_errors() {
    local kind=$1 program=$2/planted case output
    swiftc -O -parse-as-library -sanitize="$kind" Tests/sanitizers/planted.swift -o "$program" 2>&1 |
        { grep -v "$remark" || true; }
    for case in ${errors[$kind]} ${clean[$kind]}; do
        output=$(LD_PRELOAD=$preloaded "$program" "$case" 2>&1) || true
        if [[ " ${errors[$kind]} " == *" $case "* ]]; then
            grep -qE 'WARNING: ThreadSanitizer: (data|Swift access) race|ERROR: AddressSanitizer: heap' <<<"$output" ||
                { printf 'not reported: %s\n' "$case" && return 1; }
        else
            ! grep -q Sanitizer <<<"$output" || { printf 'reported: %s\n%s\n' "$case" "$output" && return 1; }
        fi
    done
}
declare -A errors=([thread]='race late-write two-mutexes' [address]='freed beyond')
declare -A clean=([thread]='handed-over one-mutex' [address]='handed-over one-mutex')

for kind in "${kinds[@]}"; do
    options=(-c release --sanitize "$kind" --scratch-path "$HERE/.build/sanitize-$kind")
    if [ -n "$build" ]; then
        # (SwiftPM sets its compilers' niceness back to 0 where it may; not their class.)
        if ! chrt --idle 0 swift build "${options[@]}" --build-tests --jobs "$jobs" 2>&1 | { grep -v "$remark" || true; }; then
            failed=$((failed + 1))
            printf 'FAILED build, %s\n' "$kind"
            continue
        fi
    fi
    programs=$(swift build "${options[@]}" --show-bin-path) preloaded=''
    if [ "$kind" = thread ]; then
        preloaded=$programs/handover.so
        clang -Wall -Werror -O1 -shared -fPIC -o "$preloaded" Tests/sanitizers/handover.c
    fi
    count "planted errors, $kind" sees_planted_errors "$kind" "$programs"
    # (Not by `swift test`, which would be given what is for the tests alone. Simulations are one thread each, and slow.)
    count "unit tests, $kind" nice -n 19 env ${preloaded:+LD_PRELOAD="$preloaded"} \
        "$programs/kvserverPackageTests.xctest" --testing-library swift-testing --skip SimulationTests
    # (What starts the daemon, in the place of the daemon.)
    wrapped=$programs/sanitized
    mkdir -p "$wrapped"
    printf '#!/bin/sh\nLD_PRELOAD=%s exec %s "$@"\n' "$preloaded" "$programs/KVServer" >"$wrapped/KVServer"
    chmod +x "$wrapped/KVServer"
    ln -sf "$programs/kvctl" "$wrapped/kvctl"
    for scene in "${scenes[@]}"; do
        [ "$scene" != none ] || continue
        KVSERVER_BINARY=$wrapped/KVServer \
            count "end to end $scene, $kind" nice -n 19 python3 Tests/end_to_end/run.py --only "$scene"
    done
done
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ] || exit 1
