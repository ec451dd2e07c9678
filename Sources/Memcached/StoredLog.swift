// SPDX-License-Identifier: Apache-2.0

package import KeyValue

/// Where a lane hands what memcached has stored, so that it survives the memory. It never waits for a disk.
package protocol StoredLog: Sendable {
    /// Keeps room for so many bytes of keys and envelopes, before they are stored; whoever got it calls `append`.
    /// - Returns: false where nothing can be logged just now, so that nothing may be stored.
    func reserve(_ bytes: Int) -> Bool

    /// Takes what was stored.
    /// - Parameter bytes: as they were reserved; the records are no more than that.
    func append(_ records: [SnapshotRecord], under stamp: HostStamp, reserved bytes: Int)
}
