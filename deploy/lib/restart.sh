# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# The restart of a node that keeps its pairs. To be sourced, after common.sh; the script that does so defines how its
# parts are stopped and started: stop_daemon, stop_memcached (by SIGUSR1), start_memcached_again, start_daemon.

# What of the node is down while it restarts: nothing, `daemon`, or `both`.
stopped=''

# begin_restarts COMMAND: whatever ends this script, no node is left down. COMMAND starts what is down, for people.
begin_restarts() {
    command -v perl >/dev/null || die "perl is missing, with which memcached is asked"
    starts_again=$1
    trap leave_nothing_down EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

leave_nothing_down() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    if [ -n "$stopped" ]; then
        say "Starting again what had been stopped ..." >&2
        [ "$stopped" = daemon ] || start_memcached_again || say "memcached is not back." >&2
        if start_daemon; then
            say "It is started. Look whether the node is ready and its pairs are there before going on." >&2
        else
            say "That failed; when the cause is gone: $starts_again" >&2
        fi
    fi
    exit "$status"
}

# memcached_says SOCKET LINE: its answer to one command.
memcached_says() {
    # shellcheck disable=SC2016 # perl's variables
    perl -MSocket -e '
        alarm 5;
        socket(MEMCACHED, PF_UNIX, SOCK_STREAM, 0) && connect(MEMCACHED, sockaddr_un($ARGV[0])) or exit 1;
        syswrite MEMCACHED, "$ARGV[1]\r\nquit\r\n" or exit 1;
        while (<MEMCACHED>) { s/\r$//; print }
    ' "$1" "$2"
}

# statistic SOCKET NAME [KIND]: a value of `stats` (or of `stats KIND`).
statistic() {
    local answer
    answer=$(memcached_says "$1" "stats${3:+ $3}") || return 1
    answer=$(sed -nE "s/^STAT $2 //p" <<<"$answer")
    [ -n "$answer" ] && printf '%s' "$answer"
}

# generation_of SOCKET: by which the memory is known: the daemon draws a new one whenever memcached is empty.
generation_of() {
    { memcached_says "$1" 'get kv:stamp' || true; } | sed -nE '2s/^([0-9a-f]{16}) .*/\1/p'
}

is_ready() {
    http "http://$1/health/ready" >/dev/null 2>&1
}

# is_whole ADDRESS: ready, and its memory has all that it is to have.
is_whole() {
    local answer
    answer=$(http "http://$1/health/ready" 2>/dev/null) && [[ $answer != *recovering* ]]
}

# require_ready NAME ADDRESS: a node that is not well is no time to take another one away.
require_ready() {
    local answer
    answer=$(http "http://$2/health/ready" 2>&1) ||
        die "$1 is not ready, so no node is restarted now ($(tail -n 1 <<<"$answer"))"
    # (One that is being refilled serves, but the others are needed for that. Its last worker hears of the end a moment
    # after the first.)
    within 10 is_whole "$2" || die "$1 is being refilled, so no node is restarted now"
}

# restart_node NAME ADDRESS SOCKET [MEMORY [FILE]]: dies if anything is not as it should be. MEMORY are the MiB, and FILE
# is the memory file, with which memcached will be started, where that is known.
restart_node() {
    local name=$1 at=$2 socket=$3 memory=${4:-} answer generation before after began=$SECONDS
    require_ready "$name" "$at"
    answer=$(http "http://$at/status") || die "$name does not tell its status; nothing was stopped"
    [[ $answer =~ \"transition\":null ]] ||
        die "the ring is changing, and $name may be needed for that; wait for it (curl http://$at/status), then again"
    answer=$(statistic "$socket" memory_file settings) || die "$name's memcached does not answer; nothing was stopped"
    [[ $answer == /* && $answer == "${5-$answer}" ]] ||
        die "$name's memcached keeps its pairs in no file that its next start takes up, so they would be lost; nothing was stopped (--help says more)"
    answer=$(statistic "$socket" maxbytes settings) || die "$name's memcached does not answer; nothing was stopped"
    [ -z "$memory" ] || [ "$answer" = $((memory << 20)) ] ||
        die "$name's memcached has $((answer >> 20)) MiB and would get $memory: that would start it empty. Nothing was" \
            "stopped. Move the node out of the ring first, and then restart memcached itself"

    # The supervisor says on /health/ready that it leaves, so that balancers turn away, and only then ends.
    say "$name: the daemon leaves ..."
    stopped=daemon
    stop_daemon || die "$name's daemon does not stop"
    generation=$(generation_of "$socket")
    before=$(statistic "$socket" curr_items) || die "$name's memcached does not answer; it was not stopped"
    [ -n "$generation" ] || die "$name's memcached has no stamp, as if it were empty; it was not stopped"
    say "$name: memcached restarts, with $before entries ..."
    stopped=both
    stop_memcached || die "$name's memcached does not stop. If it has to be killed (-9), its pairs are lost"
    start_memcached_again || die "$name's memcached does not start"
    # What it has linked since its start: before anybody writes, that is what it has taken up.
    after=$(statistic "$socket" total_items) || die "$name's memcached does not answer"
    stopped=daemon
    answer=$(generation_of "$socket")
    start_daemon || die "$name's daemon does not start"
    stopped=''
    [ "$answer" = "$generation" ] ||
        die "$name came back EMPTY: its pairs are lost. No other node was restarted. memcached's log says why"
    # A few may have expired between count and stop.
    [ $((after * 100 + 1600)) -ge $((before * 99)) ] ||
        die "$name came back with $after of $before entries. No other node was restarted"
    within 30 is_ready "$at" || die "$name has its $after entries again, but is not ready: curl http://$at/health/ready"
    say "$name: ready again after $((SECONDS - began)) s, generation $generation as before, $after of $before entries"
}
