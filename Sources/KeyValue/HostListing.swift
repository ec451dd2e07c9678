// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import NIOCore

/// A place in the order of stored keys, up to which a listing is complete (docs/listing.md). Stored keys begin with
/// their slot, so it is also a place in the order of slots.
package struct ListingMark: Hashable, Sendable, Comparable {
    package let bytes: [UInt8]

    /// Before all keys.
    package static let start = ListingMark(unchecked: [])
    /// Behind all keys.
    package static let end = ListingMark(unchecked: [StoredKey.Kind.pair.rawValue + 1])

    /// Behind this key.
    package init(through key: StoredKey) { bytes = key.bytes }

    /// Behind all keys of this slot.
    package init(through slot: Slot) {
        let digits = "\(slot.value)"
        let name = String(repeating: "0", count: 4 - digits.utf8.count) + digits
        // (The sign behind the colon.)
        bytes = [StoredKey.Kind.pair.rawValue] + Array(name.utf8) + [UInt8(ascii: ";")]
    }

    /// As it came from somebody else; nil where it is none.
    package init?(_ bytes: [UInt8]) {
        guard bytes.count <= Limits.storedKeyBytes,
            bytes.isEmpty || bytes == ListingMark.end.bytes || ListingMark.slot(of: bytes) != nil
        else { return nil }
        self.bytes = bytes
    }

    private init(unchecked bytes: [UInt8]) { self.bytes = bytes }

    /// The first slot that may have keys behind it; nil where none has.
    package var firstSlot: Slot? {
        if self == .start { return Slot(0) }
        guard let slot = ListingMark.slot(of: bytes) else { return nil }
        return bytes.count == ListingMark.slotBytes && bytes.last == UInt8(ascii: ";")
            ? Slot(Int(slot.value) + 1) : slot
    }

    package static func < (left: ListingMark, right: ListingMark) -> Bool { left.bytes.precedes(right.bytes) }

    private static let slotBytes = 6

    private static func slot(of bytes: [UInt8]) -> Slot? {
        guard bytes.count >= slotBytes, bytes[0] == StoredKey.Kind.pair.rawValue else { return nil }
        let isWholeSlot = bytes.count == slotBytes && bytes[5] == UInt8(ascii: ";")
        guard isWholeSlot || bytes[5] == UInt8(ascii: ":") else { return nil }
        var value = 0
        for digit in bytes[1...4] {
            guard (0x30...0x39).contains(digit) else { return nil }
            value = value * 10 + Int(digit - 0x30)
        }
        return Slot(value)
    }
}

/// A pair as it is listed.
package struct ListedPair: Hashable, Sendable {
    package let key: StoredKey
    /// Without its value, where only the pair was asked for.
    package let record: Envelope
    package let valueBytes: Int

    package init(key: StoredKey, record: Envelope, valueBytes: Int) {
        self.key = key
        self.record = record
        self.valueBytes = valueBytes
    }

    /// The client's key; nil for what no client has stored.
    package var clientKey: Key? { record.clientKey(under: key) }
}

/// What one host has to list: its records in the keys' order, tombstones included.
package struct HostListing: Hashable, Sendable {
    package let pairs: [ListedPair]
    /// There is nothing else up to here.
    package let through: ListingMark

    package init(pairs: [ListedPair], through: ListingMark) {
        self.pairs = pairs
        self.through = through
    }
}

/// A host's answer to "what have you from there on?"
package enum HostListingAnswer: Hashable, Sendable {
    case listed(HostListing)
    /// It stands on another document, or came to while it looked.
    case staleRing
    /// Its memory was lost, or does not count for what is moving.
    case recovering
}

/// Its bytes, integers big-endian: a state (1), and where it is 1, the mark (1-byte length, bytes) and the records up
/// to the end: key (1-byte length, bytes), the value's length (4), envelope (4-byte length, bytes).
package enum HostListingCodec {
    private enum Code {
        static let listed: UInt8 = 1
        static let staleRing: UInt8 = 2
        static let recovering: UInt8 = 3
    }

    package static func encode(_ answer: HostListingAnswer) -> ByteBuffer {
        var buffer = ByteBuffer()
        switch answer {
        case .staleRing: buffer.writeInteger(Code.staleRing)
        case .recovering: buffer.writeInteger(Code.recovering)
        case .listed(let listing):
            buffer.writeMultipleIntegers(Code.listed, UInt8(listing.through.bytes.count))
            buffer.writeBytes(listing.through.bytes)
            for pair in listing.pairs {
                buffer.writeInteger(UInt8(pair.key.bytes.count))
                buffer.writeBytes(pair.key.bytes)
                buffer.writeMultipleIntegers(UInt32(pair.valueBytes), UInt32(pair.record.buffer.readableBytes))
                buffer.writeImmutableBuffer(pair.record.buffer)
            }
        }
        return buffer
    }

    /// Nil where these bytes are no answer, or one whose records are in no order.
    package static func decode(_ bytes: ByteBuffer) -> HostListingAnswer? {
        var buffer = bytes
        switch buffer.readInteger(as: UInt8.self) {
        case Code.staleRing: return buffer.readableBytes == 0 ? .staleRing : nil
        case Code.recovering: return buffer.readableBytes == 0 ? .recovering : nil
        case Code.listed: break
        default: return nil
        }
        guard let mark = buffer.readLengthPrefixedSlice(as: UInt8.self),
            let through = ListingMark(Array(mark.readableBytesView))
        else { return nil }
        var pairs: [ListedPair] = []
        while buffer.readableBytes > 0 {
            guard let name = buffer.readLengthPrefixedSlice(as: UInt8.self),
                let key = StoredKey(stored: Array(name.readableBytesView)),
                let valueBytes = buffer.readInteger(as: UInt32.self),
                let record = buffer.readLengthPrefixedSlice(as: UInt32.self).flatMap({ Envelope($0) })
            else { return nil }
            if let last = pairs.last, !(last.key < key) { return nil }
            pairs.append(ListedPair(key: key, record: record, valueBytes: Int(valueBytes)))
        }
        if let last = pairs.last, through < ListingMark(through: last.key) { return nil }
        return .listed(HostListing(pairs: pairs, through: through))
    }
}

extension StoredKey: Comparable {
    /// The order of their bytes: by slot, then by what is stored of the client's key.
    package static func < (left: StoredKey, right: StoredKey) -> Bool { left.bytes.precedes(right.bytes) }
}

extension [UInt8] {
    fileprivate func precedes(_ other: [UInt8]) -> Bool {
        withUnsafeBytes { left in other.withUnsafeBytes { left.precedes($0) } }
    }
}

extension UnsafeRawBufferPointer {
    /// Whether these bytes come before those, as unsigned numbers.
    package func precedes(_ other: UnsafeRawBufferPointer) -> Bool {
        for (left, right) in zip(self, other) where left != right { return left < right }
        return count < other.count
    }
}
