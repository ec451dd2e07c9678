// SPDX-License-Identifier: Apache-2.0

internal import CoreMetrics
private import NIOCore

/// What a lane counts, by way of swift-metrics, once a turn.
struct LaneMetrics: Sendable {
    private let operations: Recorder
    private let duration: Timer
    private let late: Counter

    /// - Parameter lane: `read` or `write`.
    init(_ lane: String) {
        let dimensions = [("lane", lane)]
        operations = Recorder(label: "kvserver_lane_turn_operations", dimensions: dimensions)
        duration = Timer(label: "kvserver_lane_turn_duration_seconds", dimensions: dimensions)
        late = Counter(label: "kvserver_lane_late_operations_total", dimensions: dimensions)
    }

    /// - Parameter nanoseconds: from its beginning until all of it was answered by memcached.
    func turned(_ operations: Int, nanoseconds: Int64) {
        self.operations.record(operations)
        duration.recordNanoseconds(nanoseconds)
    }

    /// Operations whose time was up before their turn, or that were given up.
    func wereLate(_ operations: Int) { late.increment(by: operations) }
}
