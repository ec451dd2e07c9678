// SPDX-License-Identifier: Apache-2.0

private import Cluster
private import Glibc
internal import NIOCore

/// `stats`: what a client may look for, under memcached's names. It is about the worker that answers; the cluster's
/// figures are metrics.
extension CommandHandler {
    var statistics: Reply {
        let metrics = front.metrics
        let reads: [Command.Verb] = [.get, .gets, .gat, .gats, .mg]
        let stores: [Command.Verb] = [.set, .add, .replace, .append, .prepend, .cas, .ms]
        let figures: [(String, String)] = [
            ("pid", "\(getpid())"),
            ("uptime", "\((NIODeadline.now() - front.started).nanoseconds / 1_000_000_000)"),
            ("time", "\(front.store.wallMilliseconds / 1000)"),
            ("version", front.version),
            ("pointer_size", "\(UInt.bitWidth)"),
            ("curr_connections", "\(front.connectionCount)"),
            ("total_connections", "\(metrics.acceptedCount)"),
            ("cmd_get", "\(metrics.count(reads))"),
            ("cmd_set", "\(metrics.count(stores))"),
            ("cmd_touch", "\(metrics.count([.touch, .gat, .gats]))"),
            ("get_hits", "\(metrics.count(reads, .hit))"),
            ("get_misses", "\(metrics.count(reads, .miss))"),
            ("delete_hits", "\(metrics.count([.delete, .md], .hit))"),
            ("delete_misses", "\(metrics.count([.delete, .md], .miss))"),
            ("incr_hits", "\(metrics.count([.incr], .hit))"),
            ("incr_misses", "\(metrics.count([.incr], .miss))"),
            ("decr_hits", "\(metrics.count([.decr], .hit))"),
            ("decr_misses", "\(metrics.count([.decr], .miss))"),
            ("cas_hits", "\(metrics.count([.cas], .done))"),
            ("cas_misses", "\(metrics.count([.cas], .miss))"),
            ("cas_badval", "\(metrics.count([.cas], .unmet))"),
            ("touch_hits", "\(metrics.count([.touch], .hit))"),
            ("touch_misses", "\(metrics.count([.touch], .miss))"),
            ("item_size_max", "\(front.store.itemBytes)"),
            ("threads", "1"),
        ]
        return Reply(figures.map { "STAT \($0.0) \($0.1)\r\n" }.joined() + "END")
    }
}
