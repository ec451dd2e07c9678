// SPDX-License-Identifier: Apache-2.0

/// Where a node sits on the ring (Dynamo's token): 0…9999. It owns the slots from the position before it,
/// exclusive, up to its own, inclusive.
package struct Position: Hashable, Comparable, Sendable, CustomStringConvertible {
    package let value: UInt16

    /// Nil outside 0…9999.
    package init?(_ value: Int) {
        guard (0..<Slot.count).contains(value) else { return nil }
        self.value = UInt16(value)
    }

    /// Reads plain decimal digits only: no sign, no blanks. Nil for anything else.
    package init?(_ text: some StringProtocol) {
        guard !text.isEmpty, text.utf8.count <= 4, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let value = Int(text)
        else { return nil }
        self.init(value)
    }

    package static func < (left: Position, right: Position) -> Bool { left.value < right.value }

    package var description: String { String(value) }
}
