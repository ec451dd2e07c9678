// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// One thing to do with one pair at one replica.
package enum Operation: Hashable, Sendable {
    /// The pair as it is stored.
    case read(StoredKey)
    /// Its version alone: the first phase of a write whose version is chosen by the coordinator.
    case readVersion(StoredKey)
    /// The same, whatever this memory has lost: for those who give it what it lacks. It is no vote.
    case heldVersion(StoredKey)
    /// Store as the newest: the replica chooses the version, above its clock and above what it holds.
    case stamp(StoredKey, Envelope)
    /// Store if newer than what is held; the version is in the envelope.
    case apply(StoredKey, Envelope)
    /// Store unless something newer than `over` is held; the version, right behind `over`, is in the envelope.
    case replace(StoredKey, Envelope, over: Version)

    package var key: StoredKey {
        switch self {
        case .read(let key), .readVersion(let key), .heldVersion(let key), .stamp(let key, _),
            .apply(let key, _), .replace(let key, _, over: _):
            key
        }
    }

    package var isWrite: Bool {
        switch self {
        case .read, .readVersion, .heldVersion: false
        case .stamp, .apply, .replace: true
        }
    }

    /// Whether its outcome rests on what the replica does not hold: for those whose memory was lost, not to be told.
    package var asksWhatIsHeld: Bool {
        switch self {
        case .read, .readVersion, .replace: true
        case .heldVersion, .stamp, .apply: false
        }
    }

    /// Whether it has a node keep a pair for others.
    package var isHintWrite: Bool { isWrite && key.isHint }

    /// What it holds in memory while it waits, in bytes, roughly.
    package var weight: Int {
        switch self {
        case .read(let key), .readVersion(let key), .heldVersion(let key): key.bytes.count
        case .stamp(let key, let envelope), .apply(let key, let envelope), .replace(let key, let envelope, over: _):
            key.bytes.count + envelope.buffer.readableBytes
        }
    }
}

/// What became of one operation at one replica.
package enum Outcome: Hashable, Sendable {
    /// `read`: the pair, a tombstone included; nil where there is none.
    case record(Envelope?)
    /// `readVersion`, `heldVersion`: `Version.none` where there is no pair.
    case version(Version)
    /// `stamp`: stored with this version.
    case stored(Version)
    /// `apply`: this version or a newer one is held now; `replace`: this version is.
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
    /// Fewer replicas hold a write than it wants. Where none does, and none may yet, it is `notApplied` instead.
    case tooFewHold(Int, of: Int, Reason)
    /// Definitely without effect, for the condition does not hold. A replica says what it holds instead; a client is
    /// told the pair's version, `Version.none` where there is no pair.
    case preconditionFailed(held: Version)

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
        /// The node's memory came back empty, and does not have again what it held.
        case recovering = 7
        /// The node does not hold this slot.
        case notOwner = 8
        /// The node knows no ring yet, or could not confirm it.
        case noRing = 10
        /// What came back was not what the protocol allows.
        case protocolViolation = 11
        /// The ring keeps fewer replicas than the request wants to hear of.
        case tooFewReplicas = 12
        /// The slot is on its way to another owner, and nobody decides on conditions until it has arrived.
        case changingOwner = 13
        /// Others kept overwriting the pair while its condition was looked at.
        case contended = 14
        /// The clock of the node that was asked is too far ahead to stamp writes.
        case clockAhead = 15
        /// The node's append-only log can't take it: its disk is full, fails, or is too slow.
        case logFailed = 16
    }
}

extension OperationFailure {
    /// Nil for `staleRing` and `preconditionFailed`.
    package var reason: Reason? {
        switch self {
        case .notApplied(let reason), .outcomeUnknown(let reason), .tooFewHold(_, of: _, let reason): reason
        case .staleRing, .preconditionFailed: nil
        }
    }

    /// A read has no effect, whatever went wrong.
    package var asNotApplied: OperationFailure { reason.map { .notApplied($0) } ?? self }
}
