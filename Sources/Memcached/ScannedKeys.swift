// SPDX-License-Identifier: Apache-2.0

package import KeyValue

/// The stored keys that a scan has found, with what it found each item to be.
package struct ScannedKeys: Sendable {
    private var arena = KeyArena()
    private var tokens: [UInt64] = []
    private var sizes: [UInt32] = []

    package init() {}

    package var count: Int { arena.count }

    /// Bytes of the keys alone.
    var keyBytes: Int { arena.bytes.count }

    package subscript(index: Int) -> StoredKey {
        guard let key = StoredKey(stored: Array(name(of: index))) else {
            preconditionFailure("a scan hands on stored keys only")
        }
        return key
    }

    func name(of index: Int) -> ArraySlice<UInt8> { arena.bytes[arena.range(of: index)] }

    /// The item's cas token.
    func token(of index: Int) -> UInt64 { tokens[index] }

    /// Bytes of the items, as the scan found them.
    package var itemBytes: Int { sizes.reduce(0) { $0 + Int($1) } }

    /// Where a batch ends that begins with this key: after so many keys, or once their items have so many bytes, but
    /// not before the first.
    package func endOfBatch(from start: Int, keys: Int, bytes: Int) -> Int {
        var end = start
        var sum = 0
        while end < count, end - start < keys {
            sum += Int(sizes[end])
            if sum > bytes, end > start { break }
            end += 1
        }
        return end
    }

    /// The same for batches that are handed on to others, or to disk.
    package func endOfHandoffBatch(from start: Int) -> Int {
        endOfBatch(from: start, keys: Limits.handoffBatchPairs, bytes: Limits.handoffBatchBytes)
    }

    /// - Parameter size: of the whole item, in bytes.
    mutating func append(_ key: some Collection<UInt8>, token: UInt64, size: UInt32) {
        arena.append(key)
        tokens.append(token)
        sizes.append(size)
    }

    /// Those behind a mark that may be of clients' keys with a prefix, in the order of their bytes; no chunks.
    /// - Parameter rest: as `StoredKey.rest(ofPrefix:)` has it.
    package func inOrder(after mark: ListingMark, prefix rest: [UInt8]) -> ScannedKeys {
        let order = arena.bytes.withUnsafeBytes { bytes in
            func name(_ index: Int) -> UnsafeRawBufferPointer {
                UnsafeRawBufferPointer(rebasing: bytes[arena.range(of: index)])
            }
            let wanted = mark.bytes.withUnsafeBytes { mark in
                (0..<count).filter {
                    mark.precedes(name($0)) && StoredKey.mayHavePrefix(rest, name($0)) && !StoredKey.isChunk(name($0))
                }
            }
            return wanted.sorted { name($0).precedes(name($1)) }
        }
        return picking(order)
    }

    /// These keys, in this order.
    package func picking(_ indices: some Collection<Int>) -> ScannedKeys {
        var picked = ScannedKeys()
        picked.arena.reserve(keys: indices.count, bytes: keyBytes)
        picked.tokens.reserveCapacity(indices.count)
        picked.sizes.reserveCapacity(indices.count)
        for index in indices { picked.append(name(of: index), token: tokens[index], size: sizes[index]) }
        return picked
    }
}
