#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Keeps a memcached of the local cluster running, as systemd does it for a deployed node.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)

usage() {
    cat <<'END'
Usage: watch-memcached.sh --pid-file FILE --socket PATH --memory MIB [other option of run-memcached.sh...]

Runs memcached through run-memcached.sh, and again whenever it ends: after 0.1 s, then after pauses that double up to 5 s
while it keeps ending within 10 s. FILE has the pid of the one that runs.

SIGTERM ends both. If this script is killed, memcached goes on without it, for the pairs are worth more than the watch;
called again, it watches the one that FILE names.
END
}

say() {
    printf '%s watch-memcached.sh: %s\n' "$(date '+%F %T')" "$*"
}

if [[ " $* " == *' --help '* || " $* " == *' -h '* ]]; then usage && exit 0; fi
pid_file='' socket='' arguments=("$@")
while [ $# -ge 2 ]; do
    case $1 in --pid-file) pid_file=$2 ;; --socket) socket=$2 ;; esac
    shift 2
done
if [ -z "$pid_file" ] || [ -z "$socket" ]; then
    usage >&2
    exit 64
fi

# Two would fight over the socket. (memcached is started with this closed, or it would hold the lock.)
exec 8>>"${pid_file%.pid}.lock"
flock -n 8 || { say "another one watches $pid_file" && exit 1; }

# A pipe that never has anything to read: to wait without a process for it, and so that a signal is heard soon.
exec 7<> <(:)
nap() {
    read -r -t "$1" -u 7 || true
}

# runs PID: whether it is a memcached at our socket, or about to become one.
runs() {
    local words=()
    { mapfile -d '' -t words <"/proc/$1/cmdline"; } 2>/dev/null || return 1
    [[ " ${words[*]-} " == *" $socket "* ]]
}

stopping='' pid='' ours='' delay=1
trap 'stopping=yes' TERM INT HUP

if [ -e "$pid_file" ]; then
    read -r pid <"$pid_file" || true
    if [[ $pid =~ ^[1-9][0-9]*$ ]] && runs "$pid"; then say "watches memcached $pid"; else pid=''; fi
fi
while [ -z "$stopping" ]; do
    # A state directory that was removed takes its cluster with it.
    [ -d "$(dirname "$pid_file")" ] || { say "$(dirname "$pid_file") is gone" && exit 1; }
    began=$SECONDS status=unknown
    if [ -z "$pid" ]; then
        "$HERE/run-memcached.sh" "${arguments[@]}" 7>&- 8>&- &
        pid=$! ours=yes
        say "started memcached $pid"
    fi
    if [ -n "$ours" ]; then
        status=0
        wait "$pid" || status=$?
    else
        while [ -z "$stopping" ] && runs "$pid"; do nap 0.2; done
    fi
    [ -z "$stopping" ] || break
    [ $((SECONDS - began)) -lt 10 ] || delay=1
    say "memcached $pid ended (status $status); the next one starts in $((delay / 10)).$((delay % 10)) s"
    pid='' ours=''
    for ((tenth = 0; tenth < delay; tenth++)); do
        [ -n "$stopping" ] || nap 0.1
    done
    delay=$((delay * 2 < 50 ? delay * 2 : 50))
done

[ -n "$pid" ] || exit 0
say "ends, and memcached $pid with it"
kill -TERM "$pid" 2>/dev/null || true
for _ in {1..30}; do
    runs "$pid" || exit 0
    nap 0.1
done
kill -KILL "$pid" 2>/dev/null || true
