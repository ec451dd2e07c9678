// SPDX-License-Identifier: Apache-2.0

private import KeyValue

/// Reads the commonest request straight from the connection's bytes: a whole `GET /route?…` of HTTP/1.1 whose header
/// fields say nothing that matters here. Whatever is anything else, or incomplete, is left to NIOHTTP1's decoder.
///
/// The decoder decides what a request is; this knows a subset of its language, in which it finds the same requests with
/// the same ends (the tests compare the two).
package enum FastPath {
    private static let start: StaticString = "GET /route?"
    private static let version: StaticString = " HTTP/1.1\r\n"
    private static let pathLength = start.utf8CodeUnitCount - "GET ?".utf8.count

    /// - Parameter bytes: what follows a request's end, or the connection's beginning.
    /// - Returns: the request at their beginning and its length in bytes; nil where there is none of this kind.
    package static func request(
        in bytes: UnsafeRawBufferPointer
    ) -> (request: FrontRequest, length: Int)? {
        var reader = Reader(bytes: bytes)
        guard reader.skip(start) else { return nil }
        let target = reader.skip(while: isOfTarget)
        guard target.upperBound - "GET ".utf8.count <= Limits.requestTargetBytes, reader.skip(version) else {
            return nil
        }
        var fields = 0
        var hosts = 0
        while !reader.skip("\r\n") {
            fields += 1
            let name = reader.skip(while: isOfName)
            guard !name.isEmpty, fields <= Limits.requestHeaderFields, reader.skip(":") else { return nil }
            let value = reader.skip(while: isOfValue)
            guard reader.skip("\r\n") else { return nil }
            switch name.count {
            case 4 where reader.holds("host", in: name): hosts += 1
            case 10 where reader.holds("connection", in: name):
                guard reader.holds("keep-alive", in: reader.trimmed(value)) else { return nil }
            case 6 where reader.holds("expect", in: name), 7 where reader.holds("upgrade", in: name),
                14 where reader.holds("content-length", in: name),
                16 where reader.holds("proxy-connection", in: name),
                17 where reader.holds("transfer-encoding", in: name):
                return nil
            default: break
            }
        }
        guard hosts == 1, reader.position <= Limits.requestHeaderBytes else { return nil }
        let path = "GET ".utf8.count..<target.upperBound
        let request = FrontRequest(
            route: .pair, method: .get, target: String(decoding: bytes[path], as: UTF8.self), pathLength: pathLength)
        return (request, reader.position)
    }

    private static func isOfTarget(_ byte: UInt8) -> Bool { byte > 0x20 && byte < 0x7F && byte != UInt8(ascii: "#") }

    private static func isOfValue(_ byte: UInt8) -> Bool { byte >= 0x20 && byte < 0x7F }

    /// Letters, digits and the hyphen, of all that a name may be made of.
    private static func isOfName(_ byte: UInt8) -> Bool {
        let lower = byte | 0x20
        return lower >= UInt8(ascii: "a") && lower <= UInt8(ascii: "z")
            || byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") || byte == UInt8(ascii: "-")
    }

    private struct Reader {
        let bytes: UnsafeRawBufferPointer
        var position = 0

        mutating func skip(while isTaken: (UInt8) -> Bool) -> Range<Int> {
            let start = position
            while position < bytes.count, isTaken(bytes[position]) { position += 1 }
            return start..<position
        }

        /// Passes over this text; false where something else stands there, or too little.
        mutating func skip(_ text: StaticString) -> Bool {
            let length = text.utf8CodeUnitCount
            guard bytes.count - position >= length else { return false }
            for index in 0..<length where bytes[position + index] != text.utf8Start[index] { return false }
            position += length
            return true
        }

        func trimmed(_ range: Range<Int>) -> Range<Int> {
            var range = range
            while let first = range.first, bytes[first] == UInt8(ascii: " ") { range.removeFirst() }
            while let last = range.last, bytes[last] == UInt8(ascii: " ") { range.removeLast() }
            return range
        }

        /// Whether the range holds this text of lower-case letters, in whatever case.
        func holds(_ text: StaticString, in range: Range<Int>) -> Bool {
            guard range.count == text.utf8CodeUnitCount else { return false }
            for (index, place) in range.enumerated() where bytes[place] | 0x20 != text.utf8Start[index] { return false }
            return true
        }
    }
}
