// SPDX-License-Identifier: Apache-2.0

internal import Cluster
internal import Control
internal import HashRing
internal import Telemetry

/// What a node tells another one that shows the ring, at `POST /peer/status`: of all that `/status` and `/metrics` say,
/// what is looked at. What is not known is nil.
struct NodeSample: Codable, Sendable {
    /// `{}`.
    struct Question: Codable, Sendable {}

    let version: String
    let epoch: Epoch
    let uptimeSeconds: Int
    let workers: Int
    let isRecovering: Bool
    /// Of what it lost, how much others found for it and gave it so far.
    let recoveryFound: Int?
    let recoveryDone: Int?
    let memcachedError: String?
    /// What memcached holds: pairs, and a few keys of the node's own.
    let items: Int?
    let bytes: Int?
    let limitBytes: Int?
    let hints: Int
    /// In the latest comparison with other replicas.
    let slotsDiffering: Int?
    let isClockAhead: Bool
    let connections: Int
    /// Why the log, the snapshot or the hand-on of hints failed the last time.
    let troubles: [String]
    let tally: RequestTally
    /// When it was counted, on the node's monotonic clock.
    let atMilliseconds: Int64
    let changeID: String?
    let progress: [ChangeBoard.Entry.Job]

    init(
        _ report: StatusReport, _ statistics: [String: Double]?, _ series: [Series], progress: [ChangeBoard.Entry.Job],
        atMilliseconds: Int64
    ) {
        version = report.version
        epoch = report.epoch
        uptimeSeconds = report.uptimeSeconds
        workers = report.workers.count
        isRecovering = report.isRecovering
        recoveryFound = report.recovery?.pairsFound
        recoveryDone = report.recovery?.pairsDone
        memcachedError = report.memcached.lastError
        items = statistics?["curr_items"].map { Int($0) }
        bytes = statistics?["bytes"].map { Int($0) }
        limitBytes = statistics?["limit_maxbytes"].map { Int($0) }
        hints = report.hints.waiting
        slotsDiffering = report.antiEntropy?.slotsDiffering
        isClockAhead = report.clock.isAhead
        troubles = [
            report.log.error.map { "log: \($0)" }, report.snapshot.error.map { "snapshot: \($0)" },
            report.hints.error.map { "hints: \($0)" },
        ].compactMap(\.self)
        // (As whoever reads the node's metrics counts them.)
        let names = [RequestTally.requestMetric, RequestTally.hopMetric]
        let counted = series.filter { names.contains($0.name.metric) }
        tally = RequestTally(MetricsText.samples(PrometheusText.encode(counted) { _ in "" }))
        let open = series.first { $0.name.metric == "kvserver_connections" }
        if case .gauge(let count)? = open?.value { connections = Int(count) } else { connections = 0 }
        self.atMilliseconds = atMilliseconds
        changeID = report.transition?.id
        self.progress = progress
    }
}
