// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// One thing to do with one pair at one replica.
package enum Operation: Hashable, Sendable {
    /// The pair as it is stored.
    case read(StoredKey)
    /// Its version alone: the first phase of a write whose version is chosen by the coordinator.
    case readVersion(StoredKey)
    /// Store as the newest: the replica chooses the version, above its clock and above what it holds.
    case stamp(StoredKey, Envelope)
    /// Store if newer than what is held; the version is in the envelope.
    case apply(StoredKey, Envelope)

    package var key: StoredKey {
        switch self {
        case .read(let key), .readVersion(let key), .stamp(let key, _), .apply(let key, _): key
        }
    }

    package var isWrite: Bool {
        switch self {
        case .read, .readVersion: false
        case .stamp, .apply: true
        }
    }

    /// What it holds in memory while it waits, in bytes, roughly.
    package var weight: Int {
        switch self {
        case .read(let key), .readVersion(let key): key.bytes.count
        case .stamp(let key, let envelope), .apply(let key, let envelope):
            key.bytes.count + envelope.buffer.readableBytes
        }
    }
}

/// What became of one operation at one replica.
package enum Outcome: Hashable, Sendable {
    /// `read`: the pair, a tombstone included; nil where there is none.
    case record(Envelope?)
    /// `readVersion`: `Version.none` where there is no pair.
    case version(Version)
    /// `stamp`: stored with this version.
    case stored(Version)
    /// `apply`: this version or a newer one is held now.
    case applied(newest: Version)
    case failed(OperationFailure)
}

/// Why an operation did not do what was asked, sorted by what the caller may do next.
package enum OperationFailure: Error, Hashable, Sendable {
    /// Definitely without effect here; the same may be sent again.
    case notApplied(Reason)
    /// It may have had its effect, or may still have it: a write that the owner stamps must not be sent again.
    case outcomeUnknown(Reason)
    /// The ring has moved on; nothing was done.
    case staleRing

    package enum Reason: UInt8, Hashable, Sendable, CaseIterable {
        /// memcached did not answer, or its connection broke.
        case memcachedUnavailable = 1
        /// The node did not answer, or its connection broke.
        case nodeUnreachable = 2
        /// The request's time was up.
        case deadline = 3
        /// Too many operations wait already.
        case overloaded = 4
        /// memcached has no room (and evicts nothing).
        case outOfMemory = 5
        /// Larger than memcached's item limit.
        case tooLarge = 6
        /// The node's memory came back empty during a ring change that still needs what it held.
        case recovering = 7
        /// The node does not hold this slot.
        case notOwner = 8
        /// The node knows no ring yet, or could not confirm it.
        case noRing = 10
        /// What came back was not what the protocol allows.
        case protocolViolation = 11
    }
}
