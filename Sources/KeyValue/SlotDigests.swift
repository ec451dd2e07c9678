// SPDX-License-Identifier: Apache-2.0

private import Crypto
private import HashRing

/// What a host holds, in a few bytes a slot: two replicas whose digests of a slot are equal hold the same keys in the
/// same versions there.
///
/// A slot's digest is the sum of its pairs' digests, so that their order doesn't matter; a pair's is the beginning of
/// SHA-256 over its stored key and version, so that no client can make up keys that hide a difference.
package struct SlotDigests: Hashable, Sendable, Codable {
    private var digests: [UInt64]

    package init() { digests = Array(repeating: 0, count: Slot.count) }

    package mutating func add(_ key: StoredKey, _ version: Version) {
        var hash = SHA256()
        hash.update(data: key.bytes)
        withUnsafeBytes(of: (version.time.bigEndian, version.writer.bigEndian)) { hash.update(bufferPointer: $0) }
        let digest = hash.finalize().prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        digests[Int(key.slot.value)] &+= digest
    }

    /// The slots among these whose digests differ, ascending.
    package func differing(from other: SlotDigests, among slots: Set<UInt16>) -> [UInt16] {
        slots.filter { digests[Int($0)] != other.digests[Int($0)] }.sorted()
    }

    // MARK: As text

    package init(from decoder: any Decoder) throws {
        let text = try decoder.singleValueContainer().decode(String.self)
        var digests: [UInt64] = []
        var rest = text.utf8[...]
        while digests.count < Slot.count, let value = UInt64(Substring(rest.prefix(16)), radix: 16), rest.count >= 16 {
            digests.append(value)
            rest = rest.dropFirst(16)
        }
        guard digests.count == Slot.count, rest.isEmpty else {
            throw DecodingError.dataCorrupted(
                .init(codingPath: decoder.codingPath, debugDescription: "not \(Slot.count) digests of 16 digits"))
        }
        self.digests = digests
    }

    /// Sixteen hexadecimal digits a slot, without anything between.
    package func encode(to encoder: any Encoder) throws {
        var text = ""
        text.reserveCapacity(16 * Slot.count)
        for digest in digests {
            let digits = String(digest, radix: 16)
            text += String(repeating: "0", count: 16 - digits.utf8.count) + digits
        }
        var container = encoder.singleValueContainer()
        try container.encode(text)
    }
}
