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

    /// Writes the head, and behind it the body, or returns that where it is to be written by itself.
    package static func encode(
        _ answer: Answer, isHead: Bool, _ persistence: Persistence, crossOrigin: CrossOriginGrant? = nil,
        into buffer: inout ByteBuffer
    ) -> ByteBuffer? {
        let bodyBytes = isHead ? 0 : answer.body.readableBytes
        let copied = bodyBytes <= copiedBodyBytes ? bodyBytes : 0
        buffer.writeHead(upTo: longestHead(of: answer, crossOrigin) + copied) { head in
            head.write(answer.status.statusLine)
            // (A 204 has none, and the length that a 304 names is that of what it leaves out.)
            if answer.status != .notModified, answer.status != .noContent {
                write(answer.contentType, &head)
                head.write("Content-Length: ")
                head.write(answer.bodyLength)
                head.write("\r\n")
            }
            if let version = answer.version { write(tag: version, &head) }
            if let part = answer.part { write(part, &head) }
            if answer.acceptsRanges { head.write("Accept-Ranges: bytes\r\n") }
            if let outcome = answer.outcome {
                head.write("X-KV-Outcome: ")
                head.write(outcome.headerValue)
                head.write("\r\n")
            }
            if let cursor = answer.cursor {
                head.write("X-KV-Cursor: ")
                head.write(text: cursor)
                head.write("\r\n")
            }
            if let allowed = answer.allowed {
                head.write("Allow: ")
                head.write(allowed.allow)
                head.write("\r\n")
            }
            crossOrigin?.write(for: answer, &head)
            // (RFC 9110, section 11.6.1: a 401 says by which scheme. RFC 6750, section 3.1: a 403, that another token
            // is wanted.)
            if answer.status == .unauthorized { head.write("WWW-Authenticate: Bearer\r\n") }
            if answer.wantsOtherToken { head.write("WWW-Authenticate: Bearer error=\"insufficient_scope\"\r\n") }
            if answer.retryAfter { head.write("Retry-After: 1\r\n") }
            end(&head, persistence)
            if copied > 0 { answer.body.withUnsafeReadableBytes { head.write($0) } }
        }
        return copied < bodyBytes ? answer.body : nil
    }

    /// No head takes more bytes than this.
    private static func longestHead(of answer: Answer, _ crossOrigin: CrossOriginGrant?) -> Int {
        var bytes = 384
        switch answer.contentType {
        case .page: bytes += 640
        case .stored(let type): bytes += type.utf8.count
        case .text, .binary, .json, .metrics, .problem, .events: break
        }
        if answer.part != nil || answer.allowed != nil { bytes += 256 }
        if let cursor = answer.cursor { bytes += cursor.utf8.count }
        return bytes + (crossOrigin?.longestFields ?? 0)
    }

    /// Begins an answer of unknown length: in chunks, or, for HTTP/1.0, up to the connection's end.
    package static func beginStream(
        _ type: Answer.ContentType = .json, isChunked: Bool, _ persistence: Persistence,
        crossOrigin: CrossOriginGrant? = nil, into buffer: inout ByteBuffer
    ) {
        let answer = Answer(.ok, type, ByteBuffer())
        buffer.writeHead(upTo: longestHead(of: answer, crossOrigin)) { head in
            head.write(answer.status.statusLine)
            crossOrigin?.write(for: answer, &head)
            write(type, &head)
            if isChunked { head.write("Transfer-Encoding: chunked\r\n") }
            end(&head, persistence)
        }
    }

    package static func beginChunk(_ length: Int, into buffer: inout ByteBuffer) {
        buffer.writeString(String(length, radix: 16))
        buffer.writeStaticString("\r\n")
    }

    package static func writeContinue(into buffer: inout ByteBuffer) {
        buffer.writeStaticString("HTTP/1.1 100 Continue\r\n\r\n")
    }

    private static func end(_ head: inout HeadWriter, _ persistence: Persistence) {
        switch persistence {
        case .keepAlive: head.write("\r\n")
        case .keepAliveExplicitly: head.write("Connection: keep-alive\r\n\r\n")
        case .close: head.write("Connection: close\r\n\r\n")
        }
    }

    private static func write(_ type: Answer.ContentType, _ head: inout HeadWriter) {
        switch type {
        case .text: head.write("Content-Type: text/plain\r\n")
        case .binary: head.write("Content-Type: application/octet-stream\r\n")
        case .json: head.write("Content-Type: application/json\r\n")
        case .metrics:
            head.write("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n")
        case .problem: head.write("Content-Type: application/problem+json\r\n")
        case .page(let kind):
            head.write("Content-Type: ")
            switch kind {
            case .document: head.write("text/html; charset=utf-8")
            case .style: head.write("text/css; charset=utf-8")
            case .script: head.write("text/javascript; charset=utf-8")
            case .icon: head.write("image/svg+xml")
            }
            head.write(pageFields)
        case .events:
            // (Nothing between here and the page shall keep it back.)
            head.write(
                "Content-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\n")
        case .stored(let type):
            head.write("Content-Type: ")
            head.write(text: type)
            // A browser takes it for nothing else, and does nothing in its name.
            head.write(
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

    private static func write(_ part: Answer.Part, _ head: inout HeadWriter) {
        head.write("Content-Range: bytes ")
        if let range = part.range {
            head.write(range.lowerBound)
            head.write("-")
            head.write(range.upperBound - 1)
        } else {
            head.write("*")
        }
        head.write("/")
        head.write(part.length)
        head.write("\r\n")
    }

    private static func write(tag version: Version, _ head: inout HeadWriter) {
        head.write("ETag: \"")
        head.writeHexadecimal(version.time)
        head.writeHexadecimal(version.writer)
        head.write("\"\r\n")
    }
}
