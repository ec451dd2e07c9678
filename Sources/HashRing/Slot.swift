// SPDX-License-Identifier: Apache-2.0

internal import Crypto

/// One of the ring's 10,000 slots; a key belongs to exactly one, for ever.
package struct Slot: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// How many slots there are. Part of the stored format: it can never change.
    package static let count = 10_000

    /// 0…9999.
    package let value: UInt16

    /// A slot by its number; nil outside 0…9999.
    package init?(_ value: Int) {
        guard (0..<Slot.count).contains(value) else { return nil }
        self.value = UInt16(value)
    }

    /// The slot of a client's key: md5 of its bytes as a 128-bit big-endian integer, mod 10,000.
    package init(ofKey key: UnsafeRawBufferPointer) {
        let remainder = Insecure.MD5.hash(data: key).withUnsafeBytes { digest -> UInt64 in
            let high = UInt64(bigEndian: digest.loadUnaligned(fromByteOffset: 0, as: UInt64.self))
            let low = UInt64(bigEndian: digest.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            // 2^64 mod 10,000 = 1616, so the high word counts 1616 times.
            return ((high % 10_000) * 1616 + low % 10_000) % 10_000
        }
        self.value = UInt16(remainder)
    }

    /// The slot of a client's key given as any bytes.
    package init(ofKey key: some Sequence<UInt8>) {
        self = Array(key).withUnsafeBytes { Slot(ofKey: $0) }
    }

    /// All slots, ascending.
    package static var all: some Sequence<Slot> { (0..<Slot.count).lazy.map { Slot(unchecked: $0) } }

    private init(unchecked value: Int) { self.value = UInt16(value) }

    package static func < (left: Slot, right: Slot) -> Bool { left.value < right.value }

    package var description: String { String(value) }
}
