#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs memcached as the store needs it. The local cluster and the systemd unit both start it through this file, so
# that the flags are written down once.
set -eu

usage() {
    cat <<'END'
Usage: run-memcached.sh --socket PATH --memory MIB [option...]

Becomes memcached (exec), listening on a unix socket and on no network.

  --socket PATH        the unix socket
  --memory MIB         memory for pairs; the hash table takes up to 1/8 of that on top
  --mode OCTAL         permissions of the socket (0600)
  --threads N          memcached's threads (4)
  --connections N      the most connections (1024)
  --memory-file FILE   keep the pairs in FILE on a tmpfs, so that they survive a restart by SIGUSR1 with the same --memory
  --pid-file FILE      write the process's pid there, before all else
  --help
END
}

die() {
    echo "run-memcached.sh: $*" >&2
    exit 64
}

socket='' memory='' mode=0600 threads=4 connections=1024 file='' pid_file=''
while [ $# -gt 0 ]; do
    case $1 in
    --socket) socket=${2?--socket needs a path} && shift 2 ;;
    --memory) memory=${2?--memory needs a number} && shift 2 ;;
    --mode) mode=${2?--mode needs an octal number} && shift 2 ;;
    --threads) threads=${2?--threads needs a number} && shift 2 ;;
    --connections) connections=${2?--connections needs a number} && shift 2 ;;
    --memory-file) file=${2?--memory-file needs a path} && shift 2 ;;
    --pid-file) pid_file=${2?--pid-file needs a path} && shift 2 ;;
    --help | -h) usage && exit 0 ;;
    *) die "unknown argument: $1" ;;
    esac
done
[ -n "$socket" ] || die "--socket is missing"
# The kernel's limit for a unix socket's path is 107 bytes.
[ ${#socket} -le 107 ] || die "the socket's path is longer than 107 bytes: $socket"
[[ $memory =~ ^[1-9][0-9]{1,6}$ ]] || die "--memory is not a number of MiB from 10 up: '$memory'"

# By whoever becomes memcached, so that no end of whoever started it can leave one behind that no file names.
if [ -n "$pid_file" ]; then
    printf '%s\n' $$ >"$pid_file.new"
    mv "$pid_file.new" "$pid_file"
fi

# A dump and the growth of the hash table block each other, so the table has its final size from the start: one bucket
# for every 128 bytes of -m. It would grow at 1.5 items a bucket, which is 85 bytes an item; none is that small.
hashpower=13 size=1
while [ "$size" -lt "$memory" ]; do
    size=$((size * 2)) hashpower=$((hashpower + 1))
done

arguments=(
    -s "$socket" -a "$mode" # a unix socket: no TCP, no UDP
    -U 0                    # and no UDP either should someone replace -s
    -B ascii                # the binary protocol's parser stays out of reach
    -M                      # full memory is an error, never an eviction: this is a store
    -F                      # no flush_all: clearing goes through the daemon, and the ring survives it
    -m "$memory" -c "$connections" -t "$threads"
    -o "hashpower=$hashpower"
)
# As root, memcached wants to be told to stay root. Only a local cluster of root's does that.
[ "$(id -u)" != 0 ] || arguments+=(-u root)

if [ -n "$file" ]; then
    # Then memcached takes a page for each slab class at once, and does not start with fewer than 39 MiB.
    [ "$memory" -ge 40 ] || die "--memory-file needs at least 40 MiB, not $memory"
    directory=$(dirname "$file")
    [ "$(stat -f -c %T "$directory")" = tmpfs ] || die "$directory is not on a tmpfs"
    # A tmpfs that runs full kills memcached (SIGBUS), so there must be room for all of it now.
    free=$(df --output=avail -B 1M "$directory" | tail -n 1)
    held=0
    [ ! -e "$file" ] || held=$(du -m "$file" | cut -f 1)
    [ $((free + held)) -ge "$memory" ] || die "$directory has room for $((free + held)) MiB, not $memory MiB"
    # What memcached (1.6.18) does with FILE: its stop by SIGUSR1 writes FILE.meta; its start reads and removes that before
    # it touches the pairs, and takes them up if -m, -I and the slabs are as they were and the clock says that a second or
    # more has passed. (The size of the hash table and -t may differ.) A kill -9 before FILE.meta is written leaves none, and
    # the next start is empty.
    #
    # A stop that could not write FILE.meta to its end, say on a full tmpfs, leaves one that would make every start abort.
    if [ -e "$file.meta" ] && [[ $(tail -n 1 "$file.meta") != "Kmmap_oldbase 0x"* || -n $(tail -c 1 "$file.meta") ]]; then
        echo "run-memcached.sh: $file.meta is not whole; memcached starts empty" >&2
        rm "$file.meta"
    fi
    # Without it, FILE is what a crash has left; memcached would not read it, and nobody shall.
    [ -e "$file.meta" ] || rm -f "$file"
    # Within 2 s of its stop, memcached refuses the file and starts empty ("restart incompatible"). So it does when the
    # clock has gone back meanwhile; when it has jumped ahead, pairs with a time to live are gone that much too early.
    for _ in {1..20}; do
        if [ ! -e "$file.meta" ] || [ $(($(date +%s) - $(stat -c %Y "$file.meta"))) -ge 3 ]; then break; fi
        sleep 0.2
    done
    arguments+=(-e "$file")
fi

exec memcached "${arguments[@]}"
