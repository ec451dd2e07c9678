// SPDX-License-Identifier: Apache-2.0

private import Glibc

/// Many keys in one piece of memory, one after the other.
struct KeyArena: Sendable {
    /// All keys' bytes, without anything between them.
    private(set) var bytes: [UInt8] = []
    /// Where each key ends.
    private var ends: [Int] = []

    var count: Int { ends.count }
    var isEmpty: Bool { ends.isEmpty }

    mutating func append(_ key: some Collection<UInt8>) {
        bytes.append(contentsOf: key)
        ends.append(bytes.count)
    }

    mutating func removeAll() {
        bytes.removeAll(keepingCapacity: true)
        ends.removeAll(keepingCapacity: true)
    }

    mutating func reserve(keys: Int, bytes count: Int) {
        ends.reserveCapacity(keys)
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
}
