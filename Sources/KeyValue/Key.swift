// SPDX-License-Identifier: Apache-2.0

package import HashRing

/// A client's key: 1 to 4,096 bytes of any value, with its slot.
package struct Key: Hashable, Sendable {
    package let bytes: [UInt8]
    package let slot: Slot

    /// Nil where the key is empty or longer than `Limits.keyBytes`.
    package init?(_ bytes: [UInt8]) {
        guard (1...Limits.keyBytes).contains(bytes.count) else { return nil }
        self.bytes = bytes
        self.slot = bytes.withUnsafeBytes { Slot(ofKey: $0) }
    }

    package init?(_ text: String) { self.init(Array(text.utf8)) }

    package static func == (left: Key, right: Key) -> Bool { left.bytes == right.bytes }

    package func hash(into hasher: inout Hasher) { hasher.combine(bytes) }
}
