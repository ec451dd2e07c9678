#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Sets up the store: a whole cluster on this machine, or this machine as a part of one.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)
# Where Debian keeps haproxy, for users whose PATH lacks it.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
# shellcheck source=deploy/lib/common.sh
. "$HERE/deploy/lib/common.sh"

usage() {
    cat <<'END'
Usage: ./setup.sh local [option...]                     a cluster on this machine, for trying it out
       ./setup.sh local status|logs|reload|reload-haproxy|restart|down
       sudo ./setup.sh node [option...]                 this machine becomes a node
       sudo ./setup.sh balancer --node ip:port...       this machine becomes the balancer

`./setup.sh local --help`, `./setup.sh node --help` and `./setup.sh balancer --help` say more. Every command can be
repeated: what is in place is left alone.
END
}

[ "$(uname -s)" = Linux ] || die "the store runs on Linux (Debian 12, Ubuntu 22.04 or later)"
case ${1:-} in
local | node | balancer)
    part=$1 && shift
    # shellcheck source=/dev/null
    . "$HERE/deploy/lib/$part.sh"
    "setup_$part" "$@"
    ;;
--help | -h) usage ;;
'') usage >&2 && exit 64 ;;
*) misused "unknown command: $1" ;;
esac
