// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import NIOCore

/// What the host's latest heartbeat found, as one worker knows it.
///
/// Of silent nodes it is a breaker that all workers of the host share: it opens where a heartbeat got no answer, is
/// probed by the next one, and by every write, and closes by itself where nobody does heartbeats.
package struct HeartbeatNews: Sendable {
    private var silent: Set<NodeID> = []
    private var slownesses: [NodeID: Slowness] = [:]
    private var end = NIODeadline.uptimeNanoseconds(0)

    package init() {}

    /// - Parameter end: when this is no news any longer.
    package mutating func heard(_ heartbeat: Heartbeat, until end: NIODeadline) {
        silent = Set(heartbeat.silent)
        slownesses = Dictionary(
            heartbeat.roundTrips.map { ($0.node, Slowness(of: .milliseconds($0.milliseconds))) }, uniquingKeysWith: max)
        self.end = end
    }

    package func isSilent(_ node: NodeID, at now: @autoclosure () -> NIODeadline = .now()) -> Bool {
        !silent.isEmpty && silent.contains(node) && end > now()
    }

    package func slowness(of node: NodeID, at now: @autoclosure () -> NIODeadline = .now()) -> Slowness {
        guard let slowness = slownesses[node], slowness > .quick, end > now() else { return .quick }
        return slowness
    }
}

/// How long a node takes to answer, in doublings: `quick` is below 8 ms, for what a busy processor does says nothing of
/// the way; then below 16 ms, below 32 ms, and so on.
package struct Slowness: Comparable, Sendable {
    package static let quick = Slowness(of: .zero)
    private static let quickMilliseconds: Int64 = 8

    package let doublings: Int

    package init(of roundTrip: TimeAmount) {
        let times = max(roundTrip.nanoseconds, 0) / 1_000_000 / Slowness.quickMilliseconds
        doublings = Int64.bitWidth - times.leadingZeroBitCount
    }

    package static func < (one: Slowness, other: Slowness) -> Bool { one.doublings < other.doublings }
}
