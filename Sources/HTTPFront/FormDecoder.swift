// SPDX-License-Identifier: Apache-2.0

private import Glibc
package import NIOCore

/// Reads `name=value&name=value` (a query, or a form's body) without copying what is not asked for.
///
/// A name is compared as it stands, without decoding; of a name that comes twice, the first counts. In a value `%XX` is
/// a byte and `+` a space.
package enum FormDecoder {
    /// What a field holds.
    package enum Field<Value> {
        case absent
        /// A percent sign without two hexadecimal digits behind it.
        case malformed
        /// Longer than was allowed for.
        case tooLong
        case value(Value)
    }

    /// Whether there may be another field behind the first one.
    static func mayHaveSeveralFields(_ bytes: UnsafeRawBufferPointer) -> Bool {
        index(of: UInt8(ascii: "&"), in: bytes) != nil
    }

    /// Where the field's value stands, still encoded; nil where there is no such field.
    package static func range(of name: StaticString, in bytes: UnsafeRawBufferPointer) -> Range<Int>? {
        let length = name.utf8CodeUnitCount
        var start = 0
        while start < bytes.count {
            let end = index(of: UInt8(ascii: "&"), in: bytes, from: start) ?? bytes.count
            if end - start >= length, isEqual(bytes, start, name) {
                if end - start == length { return end..<end }
                if bytes[start + length] == UInt8(ascii: "=") { return start + length + 1..<end }
            }
            start = end + 1
        }
        return nil
    }

    /// The field as bytes.
    /// - Parameter limit: of the decoded value, in bytes.
    package static func bytes(_ name: StaticString, in bytes: UnsafeRawBufferPointer, limit: Int) -> Field<[UInt8]> {
        guard let range = range(of: name, in: bytes) else { return .absent }
        return decoded(UnsafeRawBufferPointer(rebasing: bytes[range]), limit: limit, takesPlusForSpace: true)
    }

    /// What stands in a path, where a plus sign is one.
    package static func pathPart(_ encoded: UnsafeRawBufferPointer, limit: Int) -> Field<[UInt8]> {
        encoded.isEmpty ? .absent : decoded(encoded, limit: limit, takesPlusForSpace: false)
    }

    private static func decoded(
        _ encoded: UnsafeRawBufferPointer, limit: Int, takesPlusForSpace: Bool
    ) -> Field<[UInt8]> {
        guard encoded.count <= 3 * limit else { return .tooLong }
        // (Most keys say nothing in codes.)
        if isPlain(encoded) {
            return encoded.count <= limit ? .value(Array(encoded)) : .tooLong
        }
        var isWellFormed = true
        let decoded = [UInt8](unsafeUninitializedCapacity: encoded.count) { target, count in
            count =
                decode(encoded, into: UnsafeMutableRawBufferPointer(target), takesPlusForSpace: takesPlusForSpace) ?? 0
            isWellFormed = count > 0 || encoded.isEmpty
        }
        guard isWellFormed else { return .malformed }
        return decoded.count <= limit ? .value(decoded) : .tooLong
    }

    /// The field of a form's body as a buffer, which shares the body's storage where nothing is encoded.
    package static func buffer(_ name: StaticString, in body: ByteBuffer) -> Field<ByteBuffer> {
        var range: Range<Int>?
        var isPlain = true
        body.withUnsafeReadableBytes { bytes in
            range = FormDecoder.range(of: name, in: bytes)
            guard let range else { return }
            isPlain = FormDecoder.isPlain(UnsafeRawBufferPointer(rebasing: bytes[range]))
        }
        guard let range, let encoded = body.getSlice(at: body.readerIndex + range.lowerBound, length: range.count)
        else {
            return .absent
        }
        if isPlain { return .value(encoded) }
        var decoded = ByteBuffer()
        var isWellFormed = true
        decoded.writeWithUnsafeMutableBytes(minimumWritableBytes: range.count) { target in
            encoded.withUnsafeReadableBytes { bytes in
                let count = decode(bytes, into: target, takesPlusForSpace: true)
                isWellFormed = count != nil
                return count ?? 0
            }
        }
        return isWellFormed ? .value(decoded) : .malformed
    }

    /// Decodes into a target at least as large; returns how many bytes it wrote, nil for a broken percent code.
    private static func decode(
        _ encoded: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer, takesPlusForSpace: Bool
    ) -> Int? {
        var count = 0
        var index = 0
        while index < encoded.count {
            let byte = encoded[index]
            switch byte {
            case UInt8(ascii: "%"):
                guard index + 2 < encoded.count, let high = hexValue(encoded[index + 1]),
                    let low = hexValue(encoded[index + 2])
                else { return nil }
                target[count] = high << 4 | low
                index += 3
            case UInt8(ascii: "+") where takesPlusForSpace:
                target[count] = UInt8(ascii: " ")
                index += 1
            default:
                target[count] = byte
                index += 1
            }
            count += 1
        }
        return count
    }

    private static func hexValue(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x37
        case 0x61...0x66: byte - 0x57
        default: nil
        }
    }

    private static func index(of byte: UInt8, in bytes: UnsafeRawBufferPointer, from start: Int = 0) -> Int? {
        guard start < bytes.count, let first = bytes.baseAddress,
            let found = memchr(first + start, CInt(byte), bytes.count - start)
        else { return nil }
        return UnsafeRawPointer(found) - first
    }

    /// Whether its bytes stand for themselves.
    private static func isPlain(_ encoded: UnsafeRawBufferPointer) -> Bool {
        index(of: UInt8(ascii: "%"), in: encoded) == nil && index(of: UInt8(ascii: "+"), in: encoded) == nil
    }

    private static func isEqual(_ bytes: UnsafeRawBufferPointer, _ start: Int, _ name: StaticString) -> Bool {
        name.withUTF8Buffer { name in
            for offset in 0..<name.count where bytes[start + offset] != name[offset] { return false }
            return true
        }
    }
}
