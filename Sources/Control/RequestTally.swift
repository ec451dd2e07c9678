// SPDX-License-Identifier: Apache-2.0

/// The requests that a node has answered since it was started, summed up from its metrics. Of clients; what nodes ask
/// each other, and what looks after nodes, does not count.
package struct RequestTally: Hashable, Sendable, Codable {
    /// Requests that took up to so long; cumulative.
    package struct Bucket: Hashable, Sendable, Codable {
        /// Nil for the last, which has all.
        package let seconds: Double?
        package var count: Double
    }

    package private(set) var requests = 0.0
    /// Of those, answered 5xx.
    package private(set) var errors = 0.0
    /// Operations that it sent to other nodes.
    package private(set) var hops = 0.0
    /// Ascending.
    package private(set) var buckets: [Bucket] = []

    /// The histogram's name, and the counter's.
    package static let requestMetric = "kvserver_request_duration_seconds"
    package static let hopMetric = "kvserver_peer_operations_total"

    package init(_ samples: [MetricSample]) {
        var counts: [Double: Double] = [:]
        for sample in samples {
            if sample.name == RequestTally.hopMetric {
                hops += sample.value
                continue
            }
            guard sample.name.hasPrefix(RequestTally.requestMetric), RequestTally.isOfClients(sample) else { continue }
            switch sample.name.dropFirst(RequestTally.requestMetric.count) {
            case "_count":
                requests += sample.value
                if sample.labels["code"]?.first == "5" { errors += sample.value }
            case "_bucket":
                if let bound = sample.labels["le"].flatMap({ $0 == "+Inf" ? .infinity : Double($0) }) {
                    counts[bound, default: 0] += sample.value
                }
            default: break
            }
        }
        buckets = counts.sorted { $0.key < $1.key }.map {
            Bucket(seconds: $0.key.isFinite ? $0.key : nil, count: $0.value)
        }
    }

    private static func isOfClients(_ sample: MetricSample) -> Bool {
        guard let route = sample.labels["route"] else { return false }
        return !["/peer", "/metrics", "/health", "/status", "/ui"].contains { route.hasPrefix($0) }
    }

    /// What came since then. (A node that was started again begins at 0.)
    package func growth(since before: RequestTally) -> RequestTally {
        guard requests >= before.requests, hops >= before.hops else { return self }
        var known: [Double?: Double] = [:]
        for bucket in before.buckets { known[bucket.seconds] = bucket.count }
        var grown = self
        grown.requests -= before.requests
        grown.errors = max(errors - before.errors, 0)
        grown.hops -= before.hops
        for index in buckets.indices { grown.buckets[index].count -= known[buckets[index].seconds] ?? 0 }
        return grown
    }
}
