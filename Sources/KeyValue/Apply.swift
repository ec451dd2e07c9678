// SPDX-License-Identifier: Apache-2.0

/// What a replica makes of a write, given what it holds: the newer-than rule of every write, copy and repair.
package enum Apply: Hashable, Sendable {
    /// Store this envelope over what is held.
    case store(Envelope)
    /// This version or a newer one is held already.
    case keep(newest: Version)
    case refuse(OperationFailure.Reason)

    /// A write whose version was chosen elsewhere.
    /// - Parameters:
    ///   - held: the version that the replica holds; `Version.none` where it holds nothing.
    ///   - isPlausible: whether the version is not too far ahead of the replica's clock.
    package static func fixed(_ envelope: Envelope, over held: Version, isPlausible: Bool) -> Apply {
        if envelope.version <= held { return .keep(newest: held) }
        return isPlausible ? .store(envelope) : .refuse(.clockAhead)
    }

    /// A write that the replica stamps itself; never older than what is held, whatever the clocks say.
    /// - Parameter version: newer than `held`.
    package static func stamped(_ envelope: Envelope, with version: Version) -> Apply {
        var envelope = envelope
        envelope.stamp(version)
        return .store(envelope)
    }
}
