// SPDX-License-Identifier: Apache-2.0

/// A sample of Prometheus' text format.
package struct MetricSample: Hashable, Sendable {
    package let name: String
    package let labels: [String: String]
    package let value: Double

    package init(name: String, labels: [String: String] = [:], value: Double) {
        self.name = name
        self.labels = labels
        self.value = value
    }
}

package enum MetricsText {
    /// The samples; lines that are none, comments among them, are left out.
    package static func samples(_ text: String) -> [MetricSample] {
        text.utf8.split(separator: UInt8(ascii: "\n")).compactMap { sample(Array($0)) }
    }

    private static func sample(_ line: [UInt8]) -> MetricSample? {
        guard let first = line.first, first != UInt8(ascii: "#") else { return nil }
        var index = line.firstIndex { $0 == UInt8(ascii: "{") || $0 == UInt8(ascii: " ") } ?? line.count
        let name = String(decoding: line[..<index], as: UTF8.self)
        var labels: [String: String] = [:]
        if index < line.count, line[index] == UInt8(ascii: "{") {
            index += 1
            while index < line.count, line[index] != UInt8(ascii: "}") {
                guard let equals = line[index...].firstIndex(of: UInt8(ascii: "=")), equals + 1 < line.count,
                    line[equals + 1] == UInt8(ascii: "\"")
                else { return nil }
                let label = String(decoding: line[index..<equals], as: UTF8.self)
                var value: [UInt8] = []
                index = equals + 2
                while index < line.count, line[index] != UInt8(ascii: "\"") {
                    if line[index] == UInt8(ascii: "\\"), index + 1 < line.count {
                        index += 1
                        value.append(line[index] == UInt8(ascii: "n") ? UInt8(ascii: "\n") : line[index])
                    } else {
                        value.append(line[index])
                    }
                    index += 1
                }
                guard index < line.count else { return nil }
                labels[label] = String(decoding: value, as: UTF8.self)
                index += 1
                if index < line.count, line[index] == UInt8(ascii: ",") { index += 1 }
            }
            guard index < line.count else { return nil }
            index += 1
        }
        let rest = line[min(index, line.count)...].split(separator: UInt8(ascii: " "))
        guard !name.isEmpty, let number = rest.first else { return nil }
        switch String(decoding: number, as: UTF8.self) {
        case "+Inf": return MetricSample(name: name, labels: labels, value: .infinity)
        case "-Inf": return MetricSample(name: name, labels: labels, value: -.infinity)
        case let text:
            guard let value = Double(text) else { return nil }
            return MetricSample(name: name, labels: labels, value: value)
        }
    }
}

/// What a node did between two looks at its metrics.
package struct NodeRates: Hashable, Sendable, Encodable {
    /// Of clients; what nodes ask each other, and what looks after nodes, does not count.
    package let requestsPerSecond: Double
    /// Of those, answered 5xx.
    package let errorsPerSecond: Double
    /// Nil where there were no requests.
    package let medianMilliseconds: Double?
    package let p99Milliseconds: Double?
    /// Operations that it sent to other nodes.
    package let hopsPerSecond: Double
    package let connections: Int
    /// Of memcached's memory, 0…1; nil where it does not tell.
    package let memoryUsed: Double?
    package let epoch: Int

    /// - Parameter seconds: between the two.
    package init(from before: [MetricSample], to after: [MetricSample], seconds: Double) {
        self.init(from: RequestTally(before), to: RequestTally(after), seconds: seconds, after)
    }

    /// - Parameter gauges: what is told beside the later one.
    package init(
        from before: RequestTally, to after: RequestTally, seconds: Double, _ gauges: [MetricSample] = []
    ) {
        let grown = after.growth(since: before)
        func gauge(_ name: String) -> Double? { gauges.first { $0.name == name }?.value }
        // (What a node says may be no number, or too large for one.)
        func count(_ name: String) -> Int { gauge(name).flatMap { Int(exactly: $0.rounded()) } ?? 0 }
        let seconds = max(seconds, 0.001)
        requestsPerSecond = grown.requests / seconds
        errorsPerSecond = grown.errors / seconds
        hopsPerSecond = grown.hops / seconds
        medianMilliseconds = NodeRates.quantile(0.5, of: grown.buckets)
        p99Milliseconds = NodeRates.quantile(0.99, of: grown.buckets)
        connections = count("kvserver_connections")
        epoch = count("kvserver_ring_epoch")
        if let stored = gauge("kvserver_memcached_stored_bytes"), let limit = gauge("kvserver_memcached_limit_bytes"),
            limit > 0
        {
            memoryUsed = stored / limit
        } else {
            memoryUsed = nil
        }
    }

    /// In milliseconds: within its bucket, as if all were spread evenly in it (as PromQL's histogram_quantile).
    private static func quantile(_ share: Double, of buckets: [RequestTally.Bucket]) -> Double? {
        guard let total = buckets.last?.count, total > 0 else { return nil }
        let wanted = share * total
        var lower = (bound: 0.0, count: 0.0)
        for bucket in buckets {
            let (bound, count) = (bucket.seconds ?? .infinity, bucket.count)
            if count >= wanted {
                guard bound.isFinite, count > lower.count else { return lower.bound * 1000 }
                return (lower.bound + (bound - lower.bound) * (wanted - lower.count) / (count - lower.count)) * 1000
            }
            lower = (bound, count)
        }
        return lower.bound * 1000
    }
}
