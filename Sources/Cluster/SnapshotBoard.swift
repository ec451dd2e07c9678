// SPDX-License-Identifier: Apache-2.0

package import Memcached

/// Where the workers of a host tell each other about its snapshots: one control key in memcached. Losing it loses
/// nothing but what `/status` shows.
package struct SnapshotBoard: Sendable {
    package struct Entry: Codable, Hashable, Sendable {
        package struct Finished: Codable, Hashable, Sendable {
            /// Since 1970.
            package let atMilliseconds: UInt64
            package let pairs: Int
            /// Of keys and envelopes.
            package let bytes: Int
            package let seconds: Double
        }

        /// When the last attempt was begun, on the monotonic clock, which all processes of a host share.
        var begunMilliseconds: Int64
        /// The last one that succeeded.
        package var finished: Finished?
        /// Why the last attempt failed.
        package var error: String?
    }

    private static let key = "snapshot"

    private let control: ControlStore

    package init(control: ControlStore) { self.control = control }

    package func entry() async -> Entry? { await control.shown(SnapshotBoard.key) }

    func show(_ entry: Entry) async { _ = try? await control.show(SnapshotBoard.key, entry) }
}
