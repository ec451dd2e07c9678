// SPDX-License-Identifier: Apache-2.0

/// The largest count that is taken from somebody else: those of a ring's nodes, `Ring.nodeLimit`, add up to a number.
private let largestCount = 1 << 50

extension KeyedDecodingContainer {
    /// How many pairs or bytes there are, as another node tells it.
    /// - Throws: `DecodingError`, also for a number that would not add up with others'.
    package func decodeCount(forKey key: Key) throws -> Int {
        let count = try decode(Int.self, forKey: key)
        guard (0...largestCount).contains(count) else {
            throw DecodingError.dataCorruptedError(
                forKey: key, in: self, debugDescription: "more than there can be, or fewer")
        }
        return count
    }
}
