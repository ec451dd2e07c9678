// SPDX-License-Identifier: Apache-2.0

private import KeyValue
package import NIOCore
private import RingPage

/// Writes answers as HTTP/1.1 bytes, without a `String` on the way of the common ones.
package enum AnswerEncoder {
    /// What an answer's head says of the connection.
    package enum Persistence: Hashable, Sendable {
        case keepAlive
        /// An HTTP/1.0 client that asked to keep the connection has to be told that it is kept.
        case keepAliveExplicitly
        case close
    }

    /// A body up to this many bytes is copied behind its head, so that many answers make one write.
    package static let copiedBodyBytes = 16 << 10

    /// Writes the head; returns the body where it is to be written by itself.
    package static func encode(
        _ answer: Answer, isHead: Bool, _ persistence: Persistence, crossOrigin: CrossOriginGrant? = nil,
        into buffer: inout ByteBuffer
    ) -> ByteBuffer? {
        buffer.writeStaticString(answer.status.statusLine)
        // (A 204 has none, and the length that a 304 names is that of what it leaves out.)
        if answer.status != .notModified, answer.status != .noContent {
            writeContentType(answer.contentType, &buffer)
            buffer.writeStaticString("Content-Length: ")
            writeDecimal(answer.bodyLength, &buffer)
            buffer.writeStaticString("\r\n")
        }
        if let version = answer.version { writeTag(version, &buffer) }
        if let part = answer.part { writePart(part, &buffer) }
        if answer.acceptsRanges { buffer.writeStaticString("Accept-Ranges: bytes\r\n") }
        if let outcome = answer.outcome {
            buffer.writeStaticString("X-KV-Outcome: ")
            buffer.writeStaticString(outcome.headerValue)
            buffer.writeStaticString("\r\n")
        }
        if let cursor = answer.cursor { buffer.writeString("X-KV-Cursor: \(cursor)\r\n") }
        if let allowed = answer.allowed {
            buffer.writeStaticString("Allow: ")
            buffer.writeStaticString(allowed.allow)
            buffer.writeStaticString("\r\n")
        }
        crossOrigin?.write(for: answer, into: &buffer)
        // (RFC 9110, section 11.6.1: a 401 says by which scheme.)
        if answer.status == .unauthorized { buffer.writeStaticString("WWW-Authenticate: Bearer\r\n") }
        if answer.retryAfter { buffer.writeStaticString("Retry-After: 1\r\n") }
        endHead(persistence, &buffer)
        guard !isHead, answer.body.readableBytes > 0 else { return nil }
        guard answer.body.readableBytes <= copiedBodyBytes else { return answer.body }
        buffer.writeImmutableBuffer(answer.body)
        return nil
    }

    /// Begins an answer of unknown length: in chunks, or, for HTTP/1.0, up to the connection's end.
    package static func beginStream(
        _ type: Answer.ContentType = .json, isChunked: Bool, _ persistence: Persistence,
        crossOrigin: CrossOriginGrant? = nil, into buffer: inout ByteBuffer
    ) {
        buffer.writeStaticString(Answer.Status.ok.statusLine)
        crossOrigin?.write(for: Answer(.ok, .json, ByteBuffer()), into: &buffer)
        writeContentType(type, &buffer)
        if isChunked { buffer.writeStaticString("Transfer-Encoding: chunked\r\n") }
        endHead(persistence, &buffer)
    }

    package static func beginChunk(_ length: Int, into buffer: inout ByteBuffer) {
        buffer.writeString(String(length, radix: 16))
        buffer.writeStaticString("\r\n")
    }

    package static func writeContinue(into buffer: inout ByteBuffer) {
        buffer.writeStaticString("HTTP/1.1 100 Continue\r\n\r\n")
    }

    private static func endHead(_ persistence: Persistence, _ buffer: inout ByteBuffer) {
        switch persistence {
        case .keepAlive: buffer.writeStaticString("\r\n")
        case .keepAliveExplicitly: buffer.writeStaticString("Connection: keep-alive\r\n\r\n")
        case .close: buffer.writeStaticString("Connection: close\r\n\r\n")
        }
    }

    private static func writeContentType(_ type: Answer.ContentType, _ buffer: inout ByteBuffer) {
        switch type {
        case .text: buffer.writeStaticString("Content-Type: text/plain\r\n")
        case .binary: buffer.writeStaticString("Content-Type: application/octet-stream\r\n")
        case .json: buffer.writeStaticString("Content-Type: application/json\r\n")
        case .metrics:
            buffer.writeStaticString("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n")
        case .problem: buffer.writeStaticString("Content-Type: application/problem+json\r\n")
        case .page(let kind):
            buffer.writeStaticString("Content-Type: ")
            switch kind {
            case .document: buffer.writeStaticString("text/html; charset=utf-8")
            case .style: buffer.writeStaticString("text/css; charset=utf-8")
            case .script: buffer.writeStaticString("text/javascript; charset=utf-8")
            case .icon: buffer.writeStaticString("image/svg+xml")
            }
            buffer.writeStaticString(pageFields)
        case .events:
            // (Nothing between here and the page shall keep it back.)
            buffer.writeStaticString(
                "Content-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\n")
        case .stored(let type):
            buffer.writeStaticString("Content-Type: ")
            buffer.writeString(type)
            // A browser takes it for nothing else, and does nothing in its name.
            buffer.writeStaticString(
                "\r\nX-Content-Type-Options: nosniff\r\nContent-Security-Policy: sandbox\r\n")
        }
    }

    /// What a browser may do with the page: nothing but show this origin's files and ask this origin's nodes. It asks
    /// each time whether a file is still the same.
    private static let pageFields: StaticString = """
        \r\nCache-Control: no-cache\r
        Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
        base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r
        X-Content-Type-Options: nosniff\r
        Referrer-Policy: no-referrer\r
        Cross-Origin-Opener-Policy: same-origin\r
        Cross-Origin-Resource-Policy: same-origin\r\n
        """

    private static func writePart(_ part: Answer.Part, _ buffer: inout ByteBuffer) {
        buffer.writeStaticString("Content-Range: bytes ")
        if let range = part.range {
            writeDecimal(range.lowerBound, &buffer)
            buffer.writeStaticString("-")
            writeDecimal(range.upperBound - 1, &buffer)
        } else {
            buffer.writeStaticString("*")
        }
        buffer.writeStaticString("/")
        writeDecimal(part.length, &buffer)
        buffer.writeStaticString("\r\n")
    }

    private static func writeTag(_ version: Version, _ buffer: inout ByteBuffer) {
        buffer.writeStaticString("ETag: \"")
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: 24) { target in
            for index in 0..<16 { target[index] = hexDigit(version.time >> UInt64(60 - 4 * index)) }
            for index in 0..<8 { target[16 + index] = hexDigit(UInt64(version.writer) >> UInt64(28 - 4 * index)) }
            return 24
        }
        buffer.writeStaticString("\"\r\n")
    }

    private static func hexDigit(_ value: UInt64) -> UInt8 {
        let nibble = UInt8(value & 15)
        return nibble < 10 ? 0x30 + nibble : 0x57 + nibble
    }

    private static func writeDecimal(_ value: Int, _ buffer: inout ByteBuffer) {
        var count = 1
        var power = 10
        while power <= value {
            count += 1
            power *= 10
        }
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { target in
            var rest = value
            for index in stride(from: count - 1, through: 0, by: -1) {
                target[index] = 0x30 + UInt8(rest % 10)
                rest /= 10
            }
            return count
        }
    }
}
