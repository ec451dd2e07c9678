// SPDX-License-Identifier: Apache-2.0

internal import Cluster
internal import HashRing
internal import Telemetry

/// What `GET /status` says of this node, as metrics: it is true of the whole host, whichever worker says it. What is
/// not known is left out.
struct StatusMetrics {
    let report: StatusReport
    let heartbeat: Heartbeat
    /// Whether memcached has told what the host's workers share.
    let isShared: Bool
    /// memcached's own; nil where it did not answer.
    let statistics: [String: Double]?
    let wallMilliseconds: UInt64
    let monotonicMilliseconds: Int64

    var series: [Series] {
        processes + ring + recovery + (isShared ? replicas + peers + disk : []) + memcached
    }

    /// Nothing where there is no value.
    private func known(_ metric: String, _ value: Double?) -> [Series] {
        value.map { [.gauge(metric, $0)] } ?? []
    }

    private var processes: [Series] {
        [.gauge("kvserver_info", [("version", report.version), ("node", "\(report.node)")], 1)]
            + (isShared ? [.gauge("kvserver_workers", Double(report.workers.count))] : [])
    }

    private var ring: [Series] {
        let members = Set(report.ring.values)
        var series: [Series] = [
            .gauge("kvserver_ring_epoch", Double(report.epoch.value)),
            .gauge("kvserver_ring_members", Double(members.count)),
            .gauge("kvserver_ring_standbys", Double(report.standbys.count)),
            .gauge("kvserver_ring_positions", Double(report.ring.values.count { $0 == report.node })),
            .gauge("kvserver_ring_replicas", Double(report.replicas)),
        ]
        series += RingTransition.Step.allCases.map {
            .flag(
                "kvserver_ring_transition_step", [("step", $0.rawValue)], report.transition?.step == $0)
        }
        for progress in report.transition?.progress ?? [] {
            let labels = [("member", "\(progress.node)")]
            series += [
                .gauge("kvserver_ring_transition_found_pairs", labels, Double(progress.pairsFound)),
                .gauge("kvserver_ring_transition_done_pairs", labels, Double(progress.pairsDone)),
                .gauge("kvserver_ring_transition_moved_pairs", labels, Double(progress.pairsMoved)),
                .gauge("kvserver_ring_transition_moved_bytes", labels, Double(progress.bytesMoved)),
                .gauge("kvserver_ring_transition_duration_seconds", labels, progress.seconds),
            ]
        }
        if let last = report.lastChange {
            series += [FinishedChange.Outcome.completed, .aborted].map {
                .flag("kvserver_ring_last_change", [("outcome", $0.rawValue)], last.outcome == $0)
            }
        }
        return series
    }

    private var recovery: [Series] {
        var series: [Series] = [.flag("kvserver_recovering", report.isRecovering)]
        for source in report.recovery?.sources ?? [] {
            let labels = [("source", "\(source.node)")]
            series.append(.gauge("kvserver_recovery_found_pairs", labels, Double(source.pairsFound)))
            series.append(.gauge("kvserver_recovery_done_pairs", labels, Double(source.pairsDone)))
        }
        return series + known("kvserver_recovery_snapshot_pairs", report.recovery?.snapshotPairs.map(Double.init))
    }

    private var replicas: [Series] {
        let hints = report.hints
        var series: [Series] = [
            .gauge("kvserver_hints_waiting", Double(hints.waiting)),
            .gauge("kvserver_hints_waiting_bytes", Double(hints.waitingBytes)),
            .counter("kvserver_hints_delivered_total", Double(hints.delivered)),
            .counter("kvserver_hints_dropped_total", Double(hints.dropped)),
            .counter("kvserver_hints_refused_total", Double(hints.refused)),
            .flag("kvserver_hints_last_failed", hints.error != nil),
        ]
        if let pass = report.antiEntropy {
            let age = Double(monotonicMilliseconds - pass.endedMilliseconds)
            series += [
                .gauge("kvserver_antientropy_last_differing_slots", Double(pass.slotsDiffering)),
                .gauge("kvserver_antientropy_last_repaired_pairs", Double(pass.pairsRepaired)),
                .gauge("kvserver_antientropy_last_duration_seconds", pass.seconds),
                .gauge("kvserver_antientropy_last_end_time_seconds", (Double(wallMilliseconds) - age) / 1000),
                .flag("kvserver_antientropy_last_failed", pass.error != nil),
            ]
        }
        return series
    }

    private var peers: [Series] {
        func labels(_ node: NodeID) -> [(String, String)] { [("peer", "\(node)")] }
        return heartbeat.silent.map { .gauge("kvserver_peer_up", labels($0), 0) }
            + heartbeat.roundTrips.flatMap { measured -> [Series] in
                [
                    .gauge("kvserver_peer_up", labels(measured.node), 1),
                    .gauge(
                        "kvserver_peer_round_trip_seconds", labels(measured.node),
                        Double(measured.milliseconds) / 1000),
                ]
            }
            + heartbeat.offsets.map {
                .gauge("kvserver_peer_clock_offset_seconds", labels($0.node), Double($0.milliseconds) / 1000)
            }
            + [.flag("kvserver_clock_ahead", report.clock.isAhead)]
    }

    private var disk: [Series] {
        let (snapshot, log) = (report.snapshot, report.log)
        return [
            .gauge("kvserver_snapshot_interval_seconds", Double(snapshot.intervalSeconds)),
            .flag("kvserver_snapshot_last_failed", snapshot.error != nil),
            .flag("kvserver_log_enabled", log.isOn),
            .gauge("kvserver_log_segments", Double(log.segments)),
            .gauge("kvserver_log_bytes", Double(log.bytes)),
            .flag("kvserver_log_failing", log.error != nil),
        ]
            + known(
                "kvserver_snapshot_end_time_seconds", snapshot.finishedMilliseconds.map { Double($0) / 1000 })
            + known("kvserver_snapshot_pairs", snapshot.pairs.map(Double.init))
            + known("kvserver_snapshot_bytes", snapshot.bytes.map(Double.init))
            + known("kvserver_snapshot_duration_seconds", snapshot.seconds)
            + known(
                "kvserver_log_last_sync_time_seconds", log.lastSyncMilliseconds.map { Double($0) / 1000 })
    }

    // MARK: memcached

    private var memcached: [Series] {
        var series: [Series] = [
            .flag("kvserver_memcached_up", statistics != nil),
            .gauge("kvserver_memcached_item_limit_bytes", Double(report.memcached.itemBytes)),
        ]
        for (name, metric, labels) in StatusMetrics.gauges {
            if let value = statistics?[name] { series.append(.gauge(metric, labels, value)) }
        }
        for (name, metric, labels) in StatusMetrics.counters {
            if let value = statistics?[name] { series.append(.counter(metric, labels, value)) }
        }
        return series
    }

    private typealias Statistic = (name: String, metric: String, labels: [(String, String)])

    /// By memcached's names for them (its doc/protocol.txt).
    private static let gauges: [Statistic] = [
        ("bytes", "kvserver_memcached_stored_bytes", []),
        ("limit_maxbytes", "kvserver_memcached_limit_bytes", []),
        ("curr_items", "kvserver_memcached_items", []),
        ("curr_connections", "kvserver_memcached_connections", []),
        ("uptime", "kvserver_memcached_uptime_seconds", []),
        ("threads", "kvserver_memcached_threads", []),
    ]

    private static let counters: [Statistic] = [
        ("total_items", "kvserver_memcached_stored_items_total", []),
        ("evictions", "kvserver_memcached_evictions_total", []),
        ("expired_unfetched", "kvserver_memcached_expired_unread_items_total", []),
        ("reclaimed", "kvserver_memcached_reclaimed_items_total", []),
        ("total_connections", "kvserver_memcached_connections_accepted_total", []),
        ("rejected_connections", "kvserver_memcached_connections_rejected_total", []),
        ("cmd_get", "kvserver_memcached_commands_total", [("command", "get")]),
        ("cmd_set", "kvserver_memcached_commands_total", [("command", "set")]),
        ("cmd_meta", "kvserver_memcached_commands_total", [("command", "meta")]),
        ("get_hits", "kvserver_memcached_gets_total", [("result", "hit")]),
        ("get_misses", "kvserver_memcached_gets_total", [("result", "miss")]),
        ("cas_hits", "kvserver_memcached_cas_total", [("result", "stored")]),
        ("cas_badval", "kvserver_memcached_cas_total", [("result", "lost")]),
        ("cas_misses", "kvserver_memcached_cas_total", [("result", "missing")]),
        ("store_no_memory", "kvserver_memcached_failed_stores_total", [("reason", "no_memory")]),
        ("store_too_large", "kvserver_memcached_failed_stores_total", [("reason", "too_large")]),
        ("bytes_read", "kvserver_memcached_received_bytes_total", []),
        ("bytes_written", "kvserver_memcached_sent_bytes_total", []),
        ("rusage_user", "kvserver_memcached_cpu_seconds_total", [("mode", "user")]),
        ("rusage_system", "kvserver_memcached_cpu_seconds_total", [("mode", "system")]),
    ]
}
