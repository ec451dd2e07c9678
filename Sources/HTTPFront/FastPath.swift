// SPDX-License-Identifier: Apache-2.0

package import AccessControl
private import Glibc
private import KeyValue
package import NIOCore
package import RequestTracing

/// Reads the commonest requests straight from the connection's bytes: a whole `GET /route?…` or `POST /route` of
/// HTTP/1.1 whose header fields say nothing else that matters here. Whatever is anything else, or incomplete, is left
/// to NIOHTTP1's decoder.
///
/// The decoder decides what a request is; this knows a subset of its language, in which it finds the same requests with
/// the same ends (the tests compare the two).
package enum FastPath {
    private static let path: StaticString = "/route"
    private static let versionEnd: StaticString = " HTTP/1.1\r\n"
    /// Of a body's length: so many never overflow.
    private static let lengthDigits = 1...9

    /// - Parameters:
    ///   - buffer: what follows a request's end, or the connection's beginning.
    ///   - bodyLimit: a longer body is left to the decoder's side, in bytes.
    ///   - tokens: one of which the request has to carry; whoever has none is refused on the decoder's side. Nil: any
    ///     request will do.
    /// - Returns: the request at its beginning, its names, if it has some, and its length in bytes; nil where there is
    ///   none of this kind.
    package static func request(
        in buffer: ByteBuffer, bodyLimit: Int, tokens: TokenSet? = nil
    ) -> (request: FrontRequest, trace: RequestTrace?, length: Int)? {
        let head = buffer.withUnsafeReadableBytes { Reader(bytes: $0).readHead(tokens) }
        guard let head, head.bodyLength <= min(bodyLimit, buffer.readableBytes - head.length) else { return nil }
        var body = ByteBuffer()
        if head.bodyLength > 0 {
            guard let sent = buffer.getSlice(at: buffer.readerIndex + head.length, length: head.bodyLength) else {
                return nil
            }
            body = sent
        }
        let request = FrontRequest(
            route: .pair, method: head.method, target: head.target, pathLength: path.utf8CodeUnitCount, body: body)
        return (request, head.trace, head.length + head.bodyLength)
    }

    /// The first bytes of a request, up to its body.
    private struct Head {
        let method: Methods
        let target: String
        let trace: RequestTrace?
        let length: Int
        let bodyLength: Int
    }

    private struct Reader {
        let bytes: UnsafeRawBufferPointer
        private var position = 0
        /// Where the request's names lie; empty where there is none, or more than one.
        private var id = 0..<0
        private var traceParent = 0..<0
        private var traceState = 0..<0
        private var ids = 0
        private var traceParents = 0
        private var traceStates = 0
        private var authorization = 0..<0
        private var authorizations = 0

        init(bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

        consuming func readHead(_ tokens: TokenSet?) -> Head? {
            let method: Methods
            if skip("GET ") { method = .get } else if skip("POST ") { method = .post } else { return nil }
            let targetStart = position
            guard skip(path) else { return nil }
            if method == .get {
                guard skip("?") else { return nil }
                _ = skip(while: Reader.isOfTarget)
            }
            let target = targetStart..<position
            guard target.count <= Limits.requestTargetBytes, skip(versionEnd), let bodyLength = readFields(of: method)
            else { return nil }
            if let tokens {
                guard authorizations == 1, tokens.admits(UnsafeRawBufferPointer(rebasing: bytes[authorization])) else {
                    return nil
                }
            }
            return Head(
                method: method, target: String(decoding: bytes[target], as: UTF8.self), trace: trace, length: position,
                bodyLength: bodyLength)
        }

        private var trace: RequestTrace? {
            guard ids + traceParents > 0 else { return nil }
            return RequestTrace(
                id: ids == 1 ? RequestID(UnsafeRawBufferPointer(rebasing: bytes[id])) : nil,
                parent: traceParents == 1 ? TraceParent(UnsafeRawBufferPointer(rebasing: bytes[traceParent])) : nil,
                state: traceStates == 1 ? TraceState(String(decoding: bytes[traceState], as: UTF8.self)) : nil)
        }

        /// - Returns: the body's length in bytes; nil where a field says what is to be thought about.
        private mutating func readFields(of method: Methods) -> Int? {
            let start = position
            var count = 0
            var hosts = 0
            var bodyLength: Int?
            while !skip("\r\n") {
                count += 1
                let name = skip(while: Reader.isOfName)
                guard !name.isEmpty, count <= Limits.requestHeaderFields, skip(":") else { return nil }
                let value = trimmed(skip(while: Reader.isOfValue))
                guard skip("\r\n") else { return nil }
                switch name.count {
                case 4 where holds("host", in: name): hosts += 1
                case 10 where holds("connection", in: name):
                    guard holds("keep-alive", in: value) else { return nil }
                case 14 where holds("content-length", in: name):
                    guard method == .post, bodyLength == nil, let length = number(in: value) else { return nil }
                    bodyLength = length
                case 11 where holds("traceparent", in: name):
                    traceParent = value
                    traceParents += 1
                case 10 where holds("tracestate", in: name):
                    // (Of several one list is made, which takes thinking about.)
                    guard traceStates == 0 else { return nil }
                    traceState = value
                    traceStates += 1
                case 12 where holds("x-request-id", in: name):
                    id = value
                    ids += 1
                case 13 where holds("authorization", in: name):
                    authorization = value
                    authorizations += 1
                // (Of a page's requests some are refused.)
                case 6 where holds("origin", in: name), 14 where holds("sec-fetch-site", in: name): return nil
                case 6 where holds("expect", in: name), 8 where holds("if-match", in: name),
                    13 where holds("if-none-match", in: name), 7 where holds("upgrade", in: name),
                    16 where holds("proxy-connection", in: name), 17 where holds("transfer-encoding", in: name):
                    return nil
                default: break
                }
            }
            guard hosts == 1, position - start <= Limits.requestHeaderBytes else { return nil }
            return method == .get ? 0 : bodyLength
        }

        private static func isOfTarget(_ byte: UInt8) -> Bool {
            byte > 0x20 && byte < 0x7F && byte != UInt8(ascii: "#")
        }

        private static func isOfValue(_ byte: UInt8) -> Bool { byte >= 0x20 && byte < 0x7F }

        /// Letters, digits and the hyphen, of all that a name may be made of.
        private static func isOfName(_ byte: UInt8) -> Bool {
            let lower = byte | 0x20
            return lower >= UInt8(ascii: "a") && lower <= UInt8(ascii: "z")
                || byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") || byte == UInt8(ascii: "-")
        }

        private mutating func skip(while isTaken: (UInt8) -> Bool) -> Range<Int> {
            let start = position
            while position < bytes.count, isTaken(bytes[position]) { position += 1 }
            return start..<position
        }

        /// Passes over this text; false where something else stands there, or too little.
        /// (Inlined, the comparison of a few known bytes is an instruction or two.)
        @inline(__always)
        private mutating func skip(_ text: StaticString) -> Bool {
            let length = text.utf8CodeUnitCount
            guard bytes.count - position >= length, let start = bytes.baseAddress,
                memcmp(start + position, text.utf8Start, length) == 0
            else { return false }
            position += length
            return true
        }

        private func trimmed(_ range: Range<Int>) -> Range<Int> {
            var (start, end) = (range.lowerBound, range.upperBound)
            while start < end, bytes[start] == UInt8(ascii: " ") { start += 1 }
            while start < end, bytes[end - 1] == UInt8(ascii: " ") { end -= 1 }
            return start..<end
        }

        /// Whether the range holds this text of lower-case letters, in whatever case.
        private func holds(_ text: StaticString, in range: Range<Int>) -> Bool {
            guard range.count == text.utf8CodeUnitCount else { return false }
            for index in 0..<range.count
            where bytes[range.lowerBound + index] | 0x20 != text.utf8Start[index] { return false }
            return true
        }

        private func number(in range: Range<Int>) -> Int? {
            guard lengthDigits.contains(range.count) else { return nil }
            var number = 0
            for index in range {
                let digit = Int(bytes[index]) - 0x30
                guard (0...9).contains(digit) else { return nil }
                number = 10 * number + digit
            }
            return number
        }
    }
}
