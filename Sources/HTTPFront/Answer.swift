// SPDX-License-Identifier: Apache-2.0

package import KeyValue
package import NIOCore
package import RingPage

/// One whole answer to one request.
package struct Answer: Hashable, Sendable {
    package enum Status: UInt16, Hashable, Sendable, CaseIterable {
        case ok = 200
        case noContent = 204
        case partialContent = 206
        case notModified = 304
        case badRequest = 400
        case unauthorized = 401
        case forbidden = 403
        case notFound = 404
        case methodNotAllowed = 405
        case requestTimeout = 408
        case conflict = 409
        case preconditionFailed = 412
        case contentTooLarge = 413
        case targetTooLong = 414
        case unsupportedMediaType = 415
        case rangeNotSatisfiable = 416
        case expectationFailed = 417
        case headersTooLarge = 431
        case internalError = 500
        case notImplemented = 501
        case unavailable = 503
        case versionNotSupported = 505
        case insufficientStorage = 507

        /// How an answer begins.
        package var statusLine: StaticString {
            switch self {
            case .ok: "HTTP/1.1 200 OK\r\n"
            case .noContent: "HTTP/1.1 204 No Content\r\n"
            case .partialContent: "HTTP/1.1 206 Partial Content\r\n"
            case .notModified: "HTTP/1.1 304 Not Modified\r\n"
            case .badRequest: "HTTP/1.1 400 Bad Request\r\n"
            case .unauthorized: "HTTP/1.1 401 Unauthorized\r\n"
            case .forbidden: "HTTP/1.1 403 Forbidden\r\n"
            case .notFound: "HTTP/1.1 404 Not Found\r\n"
            case .methodNotAllowed: "HTTP/1.1 405 Method Not Allowed\r\n"
            case .requestTimeout: "HTTP/1.1 408 Request Timeout\r\n"
            case .conflict: "HTTP/1.1 409 Conflict\r\n"
            case .preconditionFailed: "HTTP/1.1 412 Precondition Failed\r\n"
            case .contentTooLarge: "HTTP/1.1 413 Content Too Large\r\n"
            case .targetTooLong: "HTTP/1.1 414 URI Too Long\r\n"
            case .unsupportedMediaType: "HTTP/1.1 415 Unsupported Media Type\r\n"
            case .rangeNotSatisfiable: "HTTP/1.1 416 Range Not Satisfiable\r\n"
            case .expectationFailed: "HTTP/1.1 417 Expectation Failed\r\n"
            case .headersTooLarge: "HTTP/1.1 431 Request Header Fields Too Large\r\n"
            case .internalError: "HTTP/1.1 500 Internal Server Error\r\n"
            case .notImplemented: "HTTP/1.1 501 Not Implemented\r\n"
            case .unavailable: "HTTP/1.1 503 Service Unavailable\r\n"
            case .versionNotSupported: "HTTP/1.1 505 HTTP Version Not Supported\r\n"
            case .insufficientStorage: "HTTP/1.1 507 Insufficient Storage\r\n"
            }
        }

        package var reasonPhrase: Substring {
            // (A line's end is one character.)
            statusLine.description.dropFirst("HTTP/1.1 200 ".count).dropLast()
        }
    }

    package enum ContentType: Hashable, Sendable {
        case text
        case binary
        case json
        /// Prometheus' text format.
        case metrics
        /// RFC 9457.
        case problem
        /// A file of the page at `/ui`.
        case page(RingPage.Kind)
        /// Server-sent events.
        case events
        /// A client's own, as it came with the value.
        case stored(String)
    }

    /// As `Content-Range` says it: which bytes of how many these are; no range where none of the wanted ones exist.
    package struct Part: Hashable, Sendable {
        package let range: Range<Int>?
        package let length: Int
    }

    /// Some bytes of a value that is stored in chunks.
    package struct LargeBody: Hashable, Sendable {
        package let value: LargeValue
        package let range: Range<Int>
    }

    /// What became of a request that was not answered with success.
    package enum Outcome: UInt8, Hashable, Sendable {
        /// It had no effect and will have none.
        case notApplied
        /// It may have had its effect, or may still have it.
        case unknown

        /// As `X-KV-Outcome` says it.
        package var headerValue: StaticString {
            switch self {
            case .notApplied: "not-applied"
            case .unknown: "unknown"
            }
        }
    }

    package var status: Status
    package var contentType: ContentType
    package var body: ByteBuffer
    /// What comes instead of a body, from elsewhere.
    package var large: LargeBody?
    /// Shown as the entity tag.
    package var version: Version?
    package var part: Part?
    /// Whether parts may be asked for.
    package var acceptsRanges = false
    package var outcome: Outcome?
    /// Where the next page begins; shown as `X-KV-Cursor`.
    package var cursor: String?
    /// The methods that would have been taken.
    package var allowed: Methods?
    /// Whether trying again in a second may help.
    package var retryAfter = false
    /// Whether it is refused for a token that is good, and for another door.
    package var wantsOtherToken = false
    /// Whether the connection ends with this answer.
    package var closes = false

    package init(
        _ status: Status, _ contentType: ContentType, _ body: ByteBuffer, version: Version? = nil,
        outcome: Outcome? = nil
    ) {
        self.status = status
        self.contentType = contentType
        self.body = body
        self.version = version
        self.outcome = outcome
    }

    /// Of the body, in bytes, wherever it is.
    package var bodyLength: Int { large?.range.count ?? body.readableBytes }

    private static let okBody = ByteBuffer(string: "OK")

    /// The original's answer to whatever was done.
    package static let ok = Answer(.ok, .text, okBody)

    package static func stored(_ version: Version) -> Answer { Answer(.ok, .text, okBody, version: version) }

    package static func found(_ envelope: Envelope) -> Answer {
        var answer = Answer(.ok, .binary, ByteBuffer(), version: envelope.version)
        answer.give(nil, of: envelope)
        return answer
    }

    /// Makes some of the value's bytes the body, or all of them.
    private mutating func give(_ range: Range<Int>?, of envelope: Envelope) {
        if let value = envelope.largeValue {
            large = LargeBody(value: value, range: range ?? 0..<value.length)
        } else if let range {
            let value = envelope.value
            body = value.getSlice(at: value.readerIndex + range.lowerBound, length: range.count) ?? ByteBuffer()
        } else {
            body = envelope.value
        }
    }

    /// Done, and nothing to be said of it but the version.
    package static func done(_ version: Version) -> Answer {
        Answer(.noContent, .binary, ByteBuffer(), version: version)
    }

    /// The value as it was stored, or the part of it that is wanted (RFC 9110, section 14).
    package static func representation(of envelope: Envelope, _ wanted: RepresentationFields = RepresentationFields())
        -> Answer
    {
        let length = envelope.valueLength
        // (Whatever came into the store, a line's end in it must not end the head.)
        let type =
            envelope.contentType.flatMap { RepresentationFields.isType($0) ? ContentType.stored($0) : nil } ?? .binary
        var answer = Answer(.ok, type, ByteBuffer(), version: envelope.version)
        answer.acceptsRanges = true
        switch wanted.part(of: length, version: envelope.version) {
        case .whole: answer.give(nil, of: envelope)
        case .range(let range):
            answer.status = .partialContent
            answer.give(range, of: envelope)
            answer.part = Part(range: range, length: length)
        case .unsatisfiable:
            answer = ErrorAnswer.rangeNotSatisfiable
            answer.version = envelope.version
            answer.part = Part(range: nil, length: length)
        }
        return answer
    }

    /// What may be asked for there.
    package static func preflight(_ methods: Methods) -> Answer {
        var answer = Answer(.noContent, .binary, ByteBuffer())
        answer.allowed = methods
        return answer
    }

    /// The client holds this version already.
    package static func notModified(_ version: Version) -> Answer {
        Answer(.notModified, .binary, ByteBuffer(), version: version)
    }

    package static func text(_ text: String) -> Answer { Answer(.ok, .text, ByteBuffer(string: text)) }

    package static func json(_ body: ByteBuffer) -> Answer { Answer(.ok, .json, body) }
}
