// SPDX-License-Identifier: Apache-2.0

/// What a replica makes of a write, given what it holds: the newer-than rule of every write, copy and repair.
package enum Apply: Hashable, Sendable {
    /// Store this envelope over what is held.
    case store(Envelope)
    /// This version or a newer one is held already.
    case keep(newest: Version)

    /// A write whose version was chosen elsewhere. Versions are compared with each other alone, never with a clock: a
    /// pair that some owner has stamped, whatever its clock said, must be able to move.
    /// - Parameter held: the version that the replica holds; `Version.none` where it holds nothing.
    package static func fixed(_ envelope: Envelope, over held: Version) -> Apply {
        envelope.version <= held ? .keep(newest: held) : .store(envelope)
    }

    /// A write on the condition that nothing newer than `expected` was written; its version is right behind `expected`.
    /// What is held under its own version is another write, which drew the same step.
    package static func replacing(_ envelope: Envelope, over expected: Version, held: Version) -> Apply {
        held <= expected ? .store(envelope) : .keep(newest: held)
    }

    /// A write that the replica stamps itself; never older than what is held, whatever the clocks say.
    /// - Parameter version: newer than `held`.
    package static func stamped(_ envelope: Envelope, with version: Version) -> Apply {
        var envelope = envelope
        envelope.stamp(version)
        return .store(envelope)
    }
}
