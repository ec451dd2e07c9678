// SPDX-License-Identifier: Apache-2.0

/// The number of a ring document; it only grows. `none` stands for "this node has no ring yet".
package struct Epoch: Hashable, Comparable, Sendable, CustomStringConvertible, Codable {
    package let value: UInt64

    package static let none = Epoch(0)

    package init(_ value: UInt64) { self.value = value }

    package var next: Epoch { Epoch(value + 1) }

    /// Above whatever a node that can't be asked may have heard of: a change goes no rung further while a node that it
    /// needs has not heard of the one before.
    package var beyondTheUnheard: Epoch { Epoch(value + 1000) }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        self.value = try container.decode(UInt64.self)
        // So that there is always a next one.
        guard value <= UInt64.max / 2 else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "no ring changes so often")
        }
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(value)
    }

    package static func < (left: Epoch, right: Epoch) -> Bool { left.value < right.value }

    package var description: String { String(value) }
}

/// Names one life of a host's memcached: drawn at random when a worker finds the memory empty, gone with it.
package struct Generation: Hashable, Sendable, CustomStringConvertible, Codable {
    package let value: UInt64

    package init(_ value: UInt64) { self.value = value }

    /// Sixteen hexadecimal digits, as it is written to memcached.
    package init?(hex: some StringProtocol) {
        guard hex.utf8.count == 16, hex.allSatisfy(\.isHexDigit), let value = UInt64(hex, radix: 16) else { return nil }
        self.value = value
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard let generation = Generation(hex: try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "not a generation")
        }
        self = generation
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }

    package var description: String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
