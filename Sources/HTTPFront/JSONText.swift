// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials
package import HashRing
package import KeyValue
package import NIOCore

/// The JSON that is written often, or in large amounts, straight into buffers.
package enum JSONText {
    /// `"key":"value",…` without braces; `null` where the value is elsewhere.
    package static func pairs(_ pairs: [(key: Key, value: ByteBuffer?)]) -> ByteBuffer {
        var buffer = ByteBuffer()
        for (index, pair) in pairs.enumerated() {
            if index > 0 { buffer.writeStaticString(",") }
            pair.key.bytes.withUnsafeBytes { string($0, into: &buffer) }
            buffer.writeStaticString(":")
            if let value = pair.value {
                value.withUnsafeReadableBytes { string($0, into: &buffer) }
            } else {
                buffer.writeStaticString("null")
            }
        }
        return buffer
    }

    /// `{"key":…,"version":…,…},…` without brackets.
    package static func listed(_ pairs: [ListedPair]) -> ByteBuffer {
        var buffer = ByteBuffer()
        for pair in pairs {
            guard let key = pair.clientKey else { continue }
            buffer.writeStaticString(buffer.readableBytes > 0 ? ",{" : "{")
            if String(validating: key.bytes, as: UTF8.self) != nil {
                buffer.writeStaticString("\"key\":")
                key.bytes.withUnsafeBytes { string($0, into: &buffer) }
            } else {
                buffer.writeString("\"keyBase64\":\"\(Data(key.bytes).base64EncodedString())\"")
            }
            buffer.writeString(",\"version\":\"\(pair.record.version)\",\"bytes\":\(pair.valueBytes)")
            if let type = pair.record.contentType {
                buffer.writeStaticString(",\"contentType\":")
                Array(type.utf8).withUnsafeBytes { string($0, into: &buffer) }
            }
            if pair.record.clientFlags != 0 { buffer.writeString(",\"flags\":\(pair.record.clientFlags)") }
            if let expiry = pair.record.expiryMilliseconds { buffer.writeString(",\"expires\":\(expiry)") }
            buffer.writeStaticString("}")
        }
        return buffer
    }

    /// Any bytes as a JSON string, so that different bytes give different strings: a byte that is no part of UTF-8
    /// becomes the low surrogate `\udc80`…`\udcff`, which no UTF-8 text holds (as Python's `surrogateescape` reads it).
    package static func string(_ bytes: UnsafeRawBufferPointer, into buffer: inout ByteBuffer) {
        buffer.reserveCapacity(minimumWritableBytes: bytes.count + 2)
        buffer.writeStaticString("\"")
        var plainStart = 0
        var index = 0
        func writePlain() {
            if plainStart < index { buffer.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[plainStart..<index])) }
        }
        while index < bytes.count {
            let byte = bytes[index]
            if byte < 0x80, byte >= 0x20, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte != 0x7F {
                index += 1
                continue
            }
            let length = byte < 0x80 ? 0 : scalarLength(bytes, index)
            if length > 0 {
                index += length
                continue
            }
            writePlain()
            escape(byte, into: &buffer)
            index += 1
            plainStart = index
        }
        writePlain()
        buffer.writeStaticString("\"")
    }

    private static func escape(_ byte: UInt8, into buffer: inout ByteBuffer) {
        switch byte {
        case UInt8(ascii: "\""): buffer.writeStaticString("\\\"")
        case UInt8(ascii: "\\"): buffer.writeStaticString("\\\\")
        default:
            buffer.writeStaticString(byte < 0x80 ? "\\u00" : "\\udc")
            buffer.writeInteger(hexDigit(byte >> 4))
            buffer.writeInteger(hexDigit(byte & 15))
        }
    }

    private static func hexDigit(_ nibble: UInt8) -> UInt8 { nibble < 10 ? 0x30 + nibble : 0x57 + nibble }

    /// The length of the well-formed UTF-8 sequence of two to four bytes that begins there; 0 where there is none
    /// (Unicode 15, table 3-7).
    private static func scalarLength(_ bytes: UnsafeRawBufferPointer, _ index: Int) -> Int {
        func isContinuation(_ offset: Int, _ range: ClosedRange<UInt8> = 0x80...0xBF) -> Bool {
            index + offset < bytes.count && range.contains(bytes[index + offset])
        }
        switch bytes[index] {
        case 0xC2...0xDF: return isContinuation(1) ? 2 : 0
        case 0xE0: return isContinuation(1, 0xA0...0xBF) && isContinuation(2) ? 3 : 0
        case 0xED: return isContinuation(1, 0x80...0x9F) && isContinuation(2) ? 3 : 0
        case 0xE1...0xEF: return isContinuation(1) && isContinuation(2) ? 3 : 0
        case 0xF0: return isContinuation(1, 0x90...0xBF) && isContinuation(2) && isContinuation(3) ? 4 : 0
        case 0xF4: return isContinuation(1, 0x80...0x8F) && isContinuation(2) && isContinuation(3) ? 4 : 0
        case 0xF1...0xF3: return isContinuation(1) && isContinuation(2) && isContinuation(3) ? 4 : 0
        default: return 0
        }
    }

    /// What `GET /hash_ring` answers: the original's fields first.
    package static func ring(_ document: RingDocument?) -> ByteBuffer {
        let seats = document?.ring.seats ?? []
        let ring = seats.map { "\"\($0.position)\":\"\($0.node)\"" }.joined(separator: ",")
        let positions = seats.map(\.position.description).joined(separator: ",")
        let standbys = (document?.standbys ?? []).map { "\"\($0)\"" }.joined(separator: ",")
        return ByteBuffer(
            string: "{\"ring\":{\(ring)},\"_sorted_keys\":[\(positions)],\"epoch\":\(document?.epoch ?? .none),"
                + "\"replicas\":\(document?.replicas ?? 1),\"standbys\":[\(standbys)]}\n")
    }
}
