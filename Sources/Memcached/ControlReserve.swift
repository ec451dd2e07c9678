// SPDX-License-Identifier: Apache-2.0

/// A control value as it is stored: with blanks behind it, so that key and value together have one of few sizes.
struct PaddedValue: Sendable {
    let key: ControlKey
    let bytes: [UInt8]
    /// Of key and value together.
    let size: Int

    /// Few, for memcached gives each size (by its slab classes) a page of its own. The largest holds any ring's
    /// change: 1,000 nodes of the longest names, and all 10,000 positions taken.
    static let sizes = [1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 512 << 10]

    init(_ key: ControlKey, _ value: [UInt8]) throws(ControlStore.Failure) {
        guard let size = PaddedValue.sizes.first(where: { $0 >= key.bytes.count + value.count }) else {
            throw .valueTooLong(bytes: value.count)
        }
        self.key = key
        self.size = size
        self.bytes = value + [UInt8](repeating: UInt8(ascii: " "), count: size - key.bytes.count - value.count)
    }

    static func unpadded(_ bytes: UnsafeRawBufferPointer) -> [UInt8] {
        var count = bytes.count
        while count > 0, bytes[count - 1] == UInt8(ascii: " ") { count -= 1 }
        return Array(bytes[..<count])
    }
}

/// Items of the control values' sizes that stand in for room: memcached evicts nothing, so a value that finds no room
/// takes the place of one of them, and once the old value is gone it is put back.
enum ControlReserve {
    /// Of each size; a worker or two may be storing at the same moment.
    private static let itemsPerSize = 2
    /// Sizes above this have no reserve: a ring so large is an operator's to make room for.
    private static let largestReservedBytes = 64 << 10
    private static let timeoutMilliseconds: Int32 = 500

    private static func name(_ size: Int, _ number: Int) -> ControlKey { ControlKey("reserve.\(size).\(number)") }

    /// Puts the reserve in place where it is missing and there is room.
    static func fill(on handle: inout MemcachedHandle) throws(MemcachedError) {
        for size in PaddedValue.sizes where size <= largestReservedBytes {
            try fill(size, on: &handle)
        }
    }

    private static func fill(_ size: Int, on handle: inout MemcachedHandle) throws(MemcachedError) {
        for number in 0..<itemsPerSize {
            guard
                let padded = try? PaddedValue(
                    name(size, number), [UInt8](repeating: UInt8(ascii: " "), count: size / 2))
            else { continue }
            do throws(MemcachedError) {
                _ = try withBytes(padded, on: &handle) { (value, handle) throws(MemcachedError) in
                    try handle.add(padded.key.bytes, value, timeoutMilliseconds: timeoutMilliseconds)
                }
            } catch .outOfMemory {
                return
            }
        }
    }

    /// Stores by the given call; where there is no room, gives up reserve of the same size and tries again.
    static func storing(
        _ padded: PaddedValue, on handle: inout MemcachedHandle,
        _ store: (UnsafeRawBufferPointer, inout MemcachedHandle) throws(MemcachedError) -> MemcachedHandle.StoreAnswer
    ) throws(MemcachedError) -> MemcachedHandle.StoreAnswer {
        var number = 0
        while true {
            do throws(MemcachedError) {
                let answer = try withBytes(padded, on: &handle, store)
                // What the old value took is free now.
                if number > 0 { try fill(padded.size, on: &handle) }
                return answer
            } catch .outOfMemory {
                guard number < itemsPerSize else { throw .outOfMemory }
                try handle.delete(name(padded.size, number).bytes, timeoutMilliseconds: timeoutMilliseconds)
                number += 1
            }
        }
    }

    private static func withBytes(
        _ padded: PaddedValue, on handle: inout MemcachedHandle,
        _ store: (UnsafeRawBufferPointer, inout MemcachedHandle) throws(MemcachedError) -> MemcachedHandle.StoreAnswer
    ) throws(MemcachedError) -> MemcachedHandle.StoreAnswer {
        var result: Result<MemcachedHandle.StoreAnswer, MemcachedError> = .failure(.timedOut)
        padded.bytes.withUnsafeBytes { value in
            do throws(MemcachedError) {
                result = .success(try store(value, &handle))
            } catch {
                result = .failure(error)
            }
        }
        return try result.get()
    }
}
