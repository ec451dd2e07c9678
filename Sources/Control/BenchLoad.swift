// SPDX-License-Identifier: Apache-2.0

/// What a benchmark asks next: the same for the same seed.
package struct BenchLoad: Sendable {
    package enum Request: Hashable, Sendable {
        case get(key: Int)
        case put(key: Int)
    }

    private var state: UInt64
    private let keys: Int
    private let gets: Int

    /// - Parameters:
    ///   - keys: numbered from 0 on, all as likely.
    ///   - gets: of a hundred requests.
    package init(seed: UInt64, keys: Int, gets: Int) {
        precondition(keys > 0 && (0...100).contains(gets), "validated")
        state = seed
        self.keys = keys
        self.gets = gets
    }

    package mutating func next() -> Request {
        let key = Int(draw() % UInt64(keys))
        return Int(draw() % 100) < gets ? .get(key: key) : .put(key: key)
    }

    /// SplitMix64.
    private mutating func draw() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

/// When the requests of an open loop are due: evenly, whatever becomes of those before.
///
/// Latency counts from then on, not from when a connection was free for it; otherwise a store that stalls would be
/// asked, and measured, less while it does (coordinated omission).
package struct BenchSchedule: Hashable, Sendable {
    package let perSecond: Double

    package init(perSecond: Double) {
        precondition(perSecond > 0, "validated")
        self.perSecond = perSecond
    }

    /// Nanoseconds after the beginning.
    package func due(_ request: Int) -> UInt64 { UInt64(Double(request) * 1e9 / perSecond) }
}

/// What was measured.
package struct BenchResult: Sendable {
    package var gets = LatencyHistogram()
    package var puts = LatencyHistogram()
    /// Requests by what became of them. A key that is missing is an answer like another.
    package var outcomes: [RequestOutcome: Int] = [:]

    package init() {}

    package mutating func record(_ request: BenchLoad.Request, _ outcome: RequestOutcome, nanoseconds: UInt64) {
        outcomes[outcome, default: 0] += 1
        switch request {
        case .get: gets.record(nanoseconds)
        case .put: puts.record(nanoseconds)
        }
    }

    package mutating func add(_ other: BenchResult) {
        gets.add(other.gets)
        puts.add(other.puts)
        outcomes.merge(other.outcomes, uniquingKeysWith: +)
    }

    package var requests: Int { outcomes.values.reduce(0, +) }
    package var failures: Int { requests - (outcomes[.done] ?? 0) - (outcomes[.notFound] ?? 0) }
}
