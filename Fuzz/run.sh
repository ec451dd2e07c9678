#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Feeds a decoder with random bytes (docs/fuzzing.md).
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)

usage() {
    cat <<'END'
Usage: Fuzz/run.sh [TARGET]... [--count N] [--seconds N] [--longest N] [--replay] [--fast] [--keep] [--jobs N] [--no-build]

Builds the fuzz targets with AddressSanitizer (the first time takes some ten minutes: of the packages, too), and runs
each of those named, or all, one after the other, beginning with what is in Fuzz/corpus/TARGET; all at low priority. An
input that crashes, hangs for 10 s, or of which two readings disagree ends its target; it is left in
Fuzz/.build/found/TARGET.

  --count N     inputs for each target (100,000, where no time is given)
  --seconds N   as many as go into so many seconds; with --count, whichever comes first
  --longest N   bytes of an input (4096)
  --replay      only what is in the corpus, once, and what earlier runs have found to lead to new places
  --fast        without AddressSanitizer, several times as many inputs in the time. Those that lead to new places are
                tried with it by --replay, and by any later run
  --keep        take inputs that reach something new into the corpus, as few and as short as will do
  --jobs N      how many compilers at a time (one a processor)
  --no-build    with what was built before
  --help

The last line is `N passed, N failed`.
END
}

misused() {
    printf '%s\n' "$1" >&2
    exit 64
}

chosen=() limit=() keep='' build=yes longest=4096 sanitizers=fuzzer,address scratch=$HERE/.build jobs=()
while [ $# -gt 0 ]; do
    case $1 in
    --jobs)
        [[ ${2:-} =~ ^[1-9][0-9]?$ ]] || misused "--jobs takes a number"
        jobs=(--jobs "$2")
        shift 2
        ;;
    --count | --seconds | --longest)
        [[ ${2:-} =~ ^[1-9][0-9]{0,9}$ ]] || misused "$1 takes a number"
        case $1 in --count) limit+=("-runs=$2") ;; --seconds) limit+=("-max_total_time=$2") ;; *) longest=$2 ;; esac
        shift 2
        ;;
    --replay) limit=(-runs=0) && shift ;;
    --fast) sanitizers=fuzzer scratch=$HERE/.build/fast && shift ;;
    --keep) keep=yes && shift ;;
    --no-build) build='' && shift ;;
    --help | -h) usage && exit 0 ;;
    -*) misused "unknown argument: $1" ;;
    *)
        [ -d "$HERE/corpus/$1" ] || misused "no such target: $1 ($(cd "$HERE/corpus" && echo *))"
        chosen+=("$1") && shift
        ;;
    esac
done
[ ${#limit[@]} != 0 ] || limit=(-runs=100000)
if [ ${#chosen[@]} = 0 ]; then
    cd "$HERE/corpus"
    chosen=(*)
fi

# (Both sanitizers in one flag: of `--sanitize address --sanitize fuzzer` Swift code gets one alone, and libFuzzer is
# blind. The linker remarks on each symbol of the sanitizer's. SwiftPM sets its compilers' niceness back to 0 where it
# may; not their class.)
if [ -n "$build" ]; then
    chrt --idle 0 swift build -c release --package-path "$HERE" --scratch-path "$scratch" \
        -Xswiftc "-sanitize=$sanitizers" "${jobs[@]}" 2>&1 | { grep -v 'Cannot export local symbol' || true; }
fi
[ -e "$scratch/release.yaml" ] || misused "nothing has been built in $scratch"

# (A third faster; with more, an input that was found says from where its memory came.)
export ASAN_OPTIONS=${ASAN_OPTIONS:-malloc_context_size=1:quarantine_size_mb=8}
# (Swift's own report of a crash reads memory that AddressSanitizer guards, and hides the cause behind a second one.)
export SWIFT_BACKTRACE=enable=no
passed=0 failed=0
for target in "${chosen[@]}"; do
    program=$(nice -n 19 python3 "$HERE/link.py" "$scratch" "$target")
    work=$HERE/.build/found/$target
    mkdir -p "$work/corpus"
    cd "$work"
    status=0 began=$SECONDS
    # (What Foundation keeps for ever is no leak of a decoder's.)
    KV_FUZZ_TARGET=$target nice -n 19 "$program" "${limit[@]}" -max_len="$longest" -timeout=10 -rss_limit_mb=4096 \
        -detect_leaks=0 -print_final_stats=1 corpus "$HERE/corpus/$target" >log 2>&1 || status=$?
    count=$(sed -nE 's/^stat::number_of_executed_units: *([0-9]+)$/\1/p' log)
    if [ "$status" = 0 ]; then
        passed=$((passed + 1))
        printf 'ok     %s: %s inputs in %s s\n' "$target" "$count" $((SECONDS - began))
    else
        failed=$((failed + 1))
        printf 'FAILED %s, after %s inputs: %s\n' "$target" "${count:-?}" "$work"
        grep -aE 'Fatal error|^==[0-9]+== ?ERROR|Test unit written' log | head -4 || true
    fi
    if [ -n "$keep" ] && [ "$status" = 0 ]; then
        rm -rf kept && mkdir kept
        KV_FUZZ_TARGET=$target nice -n 19 "$program" -merge=1 -timeout=10 -detect_leaks=0 -max_len=512 \
            kept "$HERE/corpus/$target" corpus >merge.log 2>&1
        rm -f "$HERE/corpus/$target"/*
        cp kept/* "$HERE/corpus/$target/"
    fi
done
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ] || exit 1
