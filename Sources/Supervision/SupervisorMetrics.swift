// SPDX-License-Identifier: Apache-2.0

internal import CoreMetrics

/// What the supervisor counts, by way of swift-metrics.
struct SupervisorMetrics {
    let starts = Counter(label: "kvserver_worker_starts_total")
    /// It ended though nobody had told it to.
    let died = SupervisorMetrics.restarts("died")
    /// It stopped beating, and was killed.
    let silent = SupervisorMetrics.restarts("silent")
    /// It did not get ready in time, and was killed.
    let neverReady = SupervisorMetrics.restarts("never_ready")
    /// It did not leave in time, and was killed.
    let drainsOverdue = Counter(label: "kvserver_worker_drains_overdue_total")
    /// Since 1970.
    let startTime = Meter(label: "kvserver_start_time_seconds")
    let wanted = Meter(label: "kvserver_workers_wanted")

    private static func restarts(_ reason: String) -> Counter {
        Counter(label: "kvserver_worker_restarts_total", dimensions: [("reason", reason)])
    }
}
