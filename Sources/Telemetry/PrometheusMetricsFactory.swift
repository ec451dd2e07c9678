// SPDX-License-Identifier: Apache-2.0

package import CoreMetrics
private import Synchronization

/// Lets what is counted by way of swift-metrics be counted in this process's part of the host's memory.
///
/// A counter is a whole number there, a meter or a gauge a floating-point one, a timer a histogram of nanoseconds, and
/// a recorder that aggregates one of whole numbers. Two of one name and the same labels are the same series. One for
/// which there is no room counts nothing.
package struct PrometheusMetricsFactory: MetricsFactory {
    private let part: CellPart
    private let bounds: @Sendable (_ metric: String) -> [Double]?
    private let refused: Cells?

    /// Seconds, for timers of which nothing else is said.
    package static let durationBounds = [
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5,
    ]
    /// For recorders of which nothing else is said.
    package static let sizeBounds: [Double] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]

    /// - Parameter bounds: of a metric's buckets, growing; nil: the usual ones.
    package init(_ part: CellPart, bounds: @escaping @Sendable (_ metric: String) -> [Double]? = { _ in nil }) {
        self.part = part
        self.bounds = bounds
        self.refused = part.cells(SeriesName("kvserver_metrics_refused_series_total"), .counter)
    }

    private func cells(_ label: String, _ dimensions: [(String, String)], _ kind: SeriesKind) -> Cells? {
        var bounds: [Int] = []
        if kind.isHistogram {
            let usual =
                kind == .durations ? PrometheusMetricsFactory.durationBounds : PrometheusMetricsFactory.sizeBounds
            bounds = (self.bounds(label) ?? usual).map { Int(($0 * kind.unit).rounded()) }
        }
        let cells = part.cells(SeriesName(label, dimensions), kind, bounds: bounds)
        if cells == nil { refused?.add(1) }
        return cells
    }

    package func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
        cells(label, dimensions, .counter).map(CellCounter.init) ?? NOOPMetricsHandler.instance
    }

    package func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
        cells(label, dimensions, .gauge).map(CellGauge.init) ?? NOOPMetricsHandler.instance
    }

    package func makeRecorder(
        label: String, dimensions: [(String, String)], aggregate: Bool
    ) -> any RecorderHandler {
        if aggregate { return cells(label, dimensions, .sizes).map(CellHistogram.init) ?? NOOPMetricsHandler.instance }
        return cells(label, dimensions, .gauge).map(CellGauge.init) ?? NOOPMetricsHandler.instance
    }

    package func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
        cells(label, dimensions, .durations).map(CellHistogram.init) ?? NOOPMetricsHandler.instance
    }

    // A series stays, for what it has counted is part of the host's sum.
    package func destroyCounter(_ handler: any CounterHandler) {}
    package func destroyMeter(_ handler: any MeterHandler) {}
    package func destroyRecorder(_ handler: any RecorderHandler) {}
    package func destroyTimer(_ handler: any TimerHandler) {}
}

private final class CellCounter: CounterHandler {
    private let cells: Cells

    init(_ cells: Cells) { self.cells = cells }

    func increment(by amount: Int64) { cells.add(Int(amount)) }

    /// Prometheus' counters only grow, and this one is others' as well.
    func reset() {}
}

private final class CellGauge: MeterHandler, RecorderHandler {
    private let cells: Cells

    init(_ cells: Cells) { self.cells = cells }

    func set(_ value: Int64) { cells.set(Double(value)) }
    func set(_ value: Double) { cells.set(value) }
    func increment(by amount: Double) { cells.add(amount) }
    func decrement(by amount: Double) { cells.add(-amount) }
    func record(_ value: Int64) { cells.set(Double(value)) }
    func record(_ value: Double) { cells.set(value) }
}

private final class CellHistogram: TimerHandler, RecorderHandler {
    private let cells: Cells

    init(_ cells: Cells) { self.cells = cells }

    func recordNanoseconds(_ duration: Int64) { cells.record(Int(duration)) }
    func record(_ value: Int64) { cells.record(Int(value)) }
    func record(_ value: Double) { cells.record(Int(value.rounded())) }
}
