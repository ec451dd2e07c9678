// SPDX-License-Identifier: Apache-2.0

private import Crypto
package import HashRing
internal import NIOCore

/// What a snapshot says of itself before its records.
package struct SnapshotHeader: Hashable, Sendable {
    /// The node whose pairs these are.
    package let node: NodeID
    /// The memory that they were in.
    package let generation: Generation
    /// The ring document on which the host stood when the snapshot was begun.
    package let epoch: Epoch
    /// What a clock of the host showed then. Whatever was acknowledged before is in the snapshot, unless a ring change
    /// has taken it away since.
    package let clock: UInt64

    package init(node: NodeID, generation: Generation, epoch: Epoch, clock: UInt64) {
        self.node = node
        self.generation = generation
        self.epoch = epoch
        self.clock = clock
    }
}

/// A pair of a snapshot, tombstones included.
package struct SnapshotRecord: Hashable, Sendable {
    package let key: StoredKey
    package let envelope: Envelope

    package init(key: StoredKey, envelope: Envelope) {
        self.key = key
        self.envelope = envelope
    }

    /// Of key and envelope.
    package var bytes: Int { key.bytes.count + envelope.buffer.readableBytes }
}

/// How much a snapshot holds.
package struct SnapshotSum: Hashable, Sendable {
    package var pairs = 0
    /// Of keys and envelopes.
    package var bytes = 0

    package init(pairs: Int = 0, bytes: Int = 0) {
        self.pairs = pairs
        self.bytes = bytes
    }

    mutating func add(_ record: SnapshotRecord) {
        pairs += 1
        bytes += record.bytes
    }
}

/// A snapshot is a chain of sealed parts, integers big-endian:
///
///     header:  "KVPAIRS" format(1)=1 nodeLength(1) node generation(8) epoch(8) clock(8) seal(32)
///     block:   1(1) length(4) records seal(32)       record: keyLength(1) key envelopeLength(4) envelope
///     trailer: 2(1) pairs(8) bytes(8) seal(32)
///
/// A seal is the SHA-256 of the seal before it and of the part's bytes, so that no part can be left out, be doubled, or
/// come from another snapshot (an old page of the disk, say). Only a snapshot with a trailer is whole.
enum SnapshotFormat {
    static let magic = Array("KVPAIRS".utf8)
    static let version: UInt8 = 1
    static let block: UInt8 = 1
    static let trailer: UInt8 = 2

    static let magicBytes = 8
    /// Generation, epoch and clock.
    static let numberBytes = 24
    static let blockHeaderBytes = 5
    static let trailerBytes = 17
    static let sealBytes = 32
    /// A record's two lengths.
    static let recordHeaderBytes = 5

    /// - Parameter seal: of the part before; empty for the header.
    static func seal(_ part: ByteBuffer, after seal: [UInt8]) -> [UInt8] {
        var hash = SHA256()
        hash.update(data: seal)
        part.withUnsafeReadableBytes { hash.update(bufferPointer: $0) }
        return Array(hash.finalize())
    }
}

/// Why bytes are no snapshot, or no further.
package enum SnapshotError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Not one of ours, or of a later format.
    case unknownFormat
    /// A part's seal does not hold, or what is sealed can't be.
    case damaged(String)
    /// A pair too large for any block.
    case tooLarge(bytes: Int)

    package var description: String {
        switch self {
        case .unknownFormat: "no snapshot of a known format"
        case .damaged(let what): "damaged: \(what)"
        case .tooLarge(let bytes): "a pair of \(bytes) bytes is too large for a snapshot"
        }
    }
}
