// SPDX-License-Identifier: Apache-2.0

package import HashRing
private import KeyValue
package import Memcached

/// What a host's latest heartbeat has found out about the other nodes.
package struct Heartbeat: Codable, Sendable, Hashable {
    /// Something about one node.
    package struct Measurement: Codable, Sendable, Hashable {
        package let node: NodeID
        package let milliseconds: Int64

        package init(node: NodeID, milliseconds: Int64) {
            self.node = node
            self.milliseconds = milliseconds
        }
    }

    /// Who did not answer.
    package let silent: [NodeID]
    /// The wall clock of each that did, less this host's.
    package let offsets: [Measurement]
    /// How long each that did took to answer.
    package let roundTrips: [Measurement]

    package init(silent: [NodeID] = [], offsets: [Measurement] = [], roundTrips: [Measurement] = []) {
        self.silent = silent
        self.offsets = offsets
        self.roundTrips = roundTrips
    }

    /// Whether this host's wall clock is too far ahead to stamp writes. Of two clocks that differ nobody knows which is
    /// wrong, so it takes a majority of those that answer, and two at least.
    package var isClockAhead: Bool {
        let behind = offsets.count { $0.milliseconds < -Int64(Limits.clockAheadMilliseconds) }
        return behind >= 2 && behind * 2 > offsets.count
    }
}

/// Where the worker that does the heartbeats tells the others of its host what it found: one control key. Losing it
/// costs some waiting.
package struct HeartbeatBoard: Sendable {
    private struct Entry: Codable {
        /// On the monotonic clock, which all processes of a host share.
        let atMilliseconds: Int64
        let heartbeat: Heartbeat
    }

    private static let key = "heartbeat"
    /// For three heartbeats.
    package static let lifeMilliseconds: Int64 = 3000

    private let control: ControlStore

    package init(control: ControlStore) { self.control = control }

    /// One that has found nothing, where it is no news any longer.
    package func latest() async -> (heartbeat: Heartbeat, millisecondsLeft: Int64) {
        guard let entry: Entry = await control.shown(HeartbeatBoard.key) else { return (Heartbeat(), 0) }
        let left = entry.atMilliseconds + HeartbeatBoard.lifeMilliseconds - MonotonicClock.milliseconds()
        return left > 0 ? (entry.heartbeat, left) : (Heartbeat(), 0)
    }

    func show(_ heartbeat: Heartbeat) async {
        _ = try? await control.show(
            HeartbeatBoard.key, Entry(atMilliseconds: MonotonicClock.milliseconds(), heartbeat: heartbeat))
    }
}
