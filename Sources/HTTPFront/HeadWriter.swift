// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// Writes an answer's head straight into a buffer's memory: the room is made once for all of it, where each of
/// `ByteBuffer`'s own writes makes sure of it anew.
struct HeadWriter {
    private let target: UnsafeMutableRawBufferPointer
    fileprivate var count = 0

    fileprivate init(_ target: UnsafeMutableRawBufferPointer) { self.target = target }

    mutating func write(_ text: StaticString) {
        write(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    mutating func write(text: String) {
        var text = text
        text.withUTF8 { write(UnsafeRawBufferPointer($0)) }
    }

    mutating func write(_ bytes: UnsafeRawBufferPointer) {
        room(for: bytes.count).copyMemory(from: bytes)
    }

    /// In decimal digits.
    mutating func write(_ number: Int) {
        var digits = 1
        var power = 10
        while power <= number {
            digits += 1
            power *= 10
        }
        let place = room(for: digits)
        var rest = number
        for index in stride(from: digits - 1, through: 0, by: -1) {
            place[index] = 0x30 + UInt8(rest % 10)
            rest /= 10
        }
    }

    /// In hexadecimal digits, with all zeros.
    mutating func writeHexadecimal<Number: FixedWidthInteger & UnsignedInteger>(_ number: Number) {
        let place = room(for: Number.bitWidth / 4)
        for index in 0..<place.count {
            let digit = UInt8(truncatingIfNeeded: number >> (Number.bitWidth - 4 * (index + 1)) & 15)
            place[index] = digit < 10 ? 0x30 + digit : 0x57 + digit
        }
    }

    private mutating func room(for bytes: Int) -> UnsafeMutableRawBufferPointer {
        precondition(bytes <= target.count - count, "a head is longer than it was said to be")
        defer { count += bytes }
        return UnsafeMutableRawBufferPointer(rebasing: target[count..<count + bytes])
    }
}

extension ByteBuffer {
    /// - Parameter limit: the most bytes that are written.
    mutating func writeHead(upTo limit: Int, _ body: (inout HeadWriter) -> Void) {
        writeWithUnsafeMutableBytes(minimumWritableBytes: limit) { target in
            var writer = HeadWriter(target)
            body(&writer)
            return writer.count
        }
    }
}
