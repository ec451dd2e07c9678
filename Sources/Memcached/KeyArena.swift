// SPDX-License-Identifier: Apache-2.0

private import Glibc
package import KeyValue

/// Many keys in one piece of memory, one after the other; those that a scan has found with their cas tokens.
package struct KeyArena: Sendable {
    /// All keys' bytes, without anything between them.
    private(set) var bytes: [UInt8] = []
    /// Where each key ends.
    private var ends: [Int] = []
    /// As many as keys, or none.
    private var tokens: [UInt64] = []

    package init() {}

    package var count: Int { ends.count }
    package var isEmpty: Bool { ends.isEmpty }

    mutating func append(_ key: some Collection<UInt8>) {
        bytes.append(contentsOf: key)
        ends.append(bytes.count)
    }

    mutating func append(_ key: some Collection<UInt8>, token: UInt64) {
        append(key)
        tokens.append(token)
    }

    /// What a scan found the key's item to be.
    func token(of index: Int) -> UInt64 { tokens[index] }

    mutating func removeAll() {
        bytes.removeAll(keepingCapacity: true)
        ends.removeAll(keepingCapacity: true)
        tokens.removeAll(keepingCapacity: true)
    }

    mutating func reserve(keys: Int, bytes count: Int) {
        ends.reserveCapacity(keys)
        tokens.reserveCapacity(keys)
        bytes.reserveCapacity(count)
    }

    func range(of index: Int) -> Range<Int> { (index == 0 ? 0 : ends[index - 1])..<ends[index] }

    func isEqual(_ index: Int, _ key: UnsafeRawBufferPointer) -> Bool {
        let range = range(of: index)
        guard range.count == key.count, let other = key.baseAddress else { return false }
        return bytes.withUnsafeBytes { bytes in
            bytes.baseAddress.map { memcmp($0 + range.lowerBound, other, key.count) == 0 } ?? false
        }
    }

    /// The key as a pair's stored key: only for arenas that a scan filled, which took in nothing else.
    package subscript(index: Int) -> StoredKey {
        guard let key = StoredKey(stored: Array(bytes[range(of: index)])) else {
            preconditionFailure("a scan hands on stored keys only")
        }
        return key
    }
}
