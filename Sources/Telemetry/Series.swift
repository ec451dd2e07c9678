// SPDX-License-Identifier: Apache-2.0

/// How a series is counted.
package enum SeriesKind: Int, Hashable, Sendable {
    /// Whole, and only grows.
    case counter = 1
    /// As it is now.
    case gauge = 2
    /// A histogram of nanoseconds, shown in seconds.
    case durations = 3
    /// A histogram of whole numbers.
    case sizes = 4

    var isHistogram: Bool { self == .durations || self == .sizes }

    /// By what that which is counted is divided to be shown.
    var unit: Double { self == .durations ? 1e9 : 1 }
}

/// The name of a metric and the labels of one of its series, written as Prometheus' text format has them.
package struct SeriesName: Hashable, Sendable {
    /// Of the metric.
    package let metric: String
    /// `name="value",…`; empty where it has none.
    package let labels: String

    private static let separator: Character = "\n"

    /// - Parameter labels: names and values; the values may be anything.
    package init(_ metric: String, _ labels: [(String, String)] = []) {
        self.metric = PrometheusText.name(metric)
        self.labels = PrometheusText.labels(labels)
    }

    /// One line for each; neither holds a line's end by itself.
    var text: String { "\(metric)\(SeriesName.separator)\(labels)" }

    init(text: String) {
        let parts = text.split(separator: SeriesName.separator, maxSplits: 1, omittingEmptySubsequences: false)
        self.metric = String(parts[0])
        self.labels = parts.count == 2 ? String(parts[1]) : ""
    }
}

/// Values by bucket.
package struct Histogram: Hashable, Sendable {
    /// The largest value of each bucket but the last, which has none.
    package var bounds: [Double]
    /// By bucket, one more than there are bounds; not cumulative.
    package var counts: [Int]
    package var sum: Double

    package init(bounds: [Double], counts: [Int], sum: Double) {
        precondition(counts.count == bounds.count + 1, "the last bucket has no bound")
        self.bounds = bounds
        self.counts = counts
        self.sum = sum
    }
}

/// One line, or the lines of one histogram.
package struct Series: Hashable, Sendable {
    package enum Value: Hashable, Sendable {
        case counter(Double)
        case gauge(Double)
        case histogram(Histogram)
    }

    package var name: SeriesName
    package var value: Value

    package init(name: SeriesName, value: Value) {
        self.name = name
        self.value = value
    }

    package static func gauge(_ metric: String, _ value: Double) -> Series { gauge(metric, [], value) }

    /// 1 where it is so, else 0.
    package static func flag(_ metric: String, _ isSo: Bool) -> Series { flag(metric, [], isSo) }

    package static func flag(_ metric: String, _ labels: [(String, String)], _ isSo: Bool) -> Series {
        gauge(metric, labels, isSo ? 1 : 0)
    }

    package static func counter(_ metric: String, _ value: Double) -> Series { counter(metric, [], value) }

    package static func gauge(_ metric: String, _ labels: [(String, String)], _ value: Double) -> Series {
        Series(name: SeriesName(metric, labels), value: .gauge(value))
    }

    package static func counter(_ metric: String, _ labels: [(String, String)], _ value: Double) -> Series {
        Series(name: SeriesName(metric, labels), value: .counter(value))
    }
}

/// What several processes have counted.
package struct HostSum: Sendable {
    private var values: [SeriesName: Series.Value] = [:]

    package init() {}

    package mutating func add(_ series: Series) {
        switch (values[series.name], series.value) {
        case (nil, let value): values[series.name] = value
        case (.counter(let held), .counter(let more)): values[series.name] = .counter(held + more)
        case (.gauge(let held), .gauge(let more)): values[series.name] = .gauge(held + more)
        case (.histogram(var held), .histogram(let more)) where held.bounds == more.bounds:
            for index in held.counts.indices { held.counts[index] &+= more.counts[index] }
            held.sum += more.sum
            values[series.name] = .histogram(held)
        // Two releases that count differently under one name, in the moments of a reload.
        default: break
        }
    }

    /// By name.
    package var series: [Series] {
        values.map { Series(name: $0.key, value: $0.value) }
            .sorted { ($0.name.metric, $0.name.labels) < ($1.name.metric, $1.name.labels) }
    }
}
