// SPDX-License-Identifier: Apache-2.0

package import KeyValue
package import NIOCore

/// One whole answer to one request.
package struct Answer: Hashable, Sendable {
    package enum Status: UInt16, Hashable, Sendable, CaseIterable {
        case ok = 200
        case notModified = 304
        case badRequest = 400
        case notFound = 404
        case methodNotAllowed = 405
        case requestTimeout = 408
        case conflict = 409
        case preconditionFailed = 412
        case contentTooLarge = 413
        case targetTooLong = 414
        case expectationFailed = 417
        case headersTooLarge = 431
        case internalError = 500
        case notImplemented = 501
        case unavailable = 503
        case versionNotSupported = 505
        case insufficientStorage = 507
    }

    package enum ContentType: UInt8, Hashable, Sendable {
        case text
        case binary
        case json
        /// Prometheus' text format.
        case metrics
    }

    /// What became of a request that was not answered with success.
    package enum Outcome: UInt8, Hashable, Sendable {
        /// It had no effect and will have none.
        case notApplied
        /// It may have had its effect, or may still have it.
        case unknown
    }

    package var status: Status
    package var contentType: ContentType
    package var body: ByteBuffer
    /// Shown as the entity tag.
    package var version: Version?
    package var outcome: Outcome?
    /// The methods that would have been taken.
    package var allowed: Methods?
    /// Whether trying again in a second may help.
    package var retryAfter = false
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

    private static let okBody = ByteBuffer(string: "OK")

    /// The original's answer to whatever was done.
    package static let ok = Answer(.ok, .text, okBody)

    package static func stored(_ version: Version) -> Answer { Answer(.ok, .text, okBody, version: version) }

    package static func found(_ envelope: Envelope) -> Answer {
        Answer(.ok, .binary, envelope.value, version: envelope.version)
    }

    /// The client holds this version already.
    package static func notModified(_ version: Version) -> Answer {
        Answer(.notModified, .binary, ByteBuffer(), version: version)
    }

    package static func text(_ text: String) -> Answer { Answer(.ok, .text, ByteBuffer(string: text)) }

    package static func json(_ body: ByteBuffer) -> Answer { Answer(.ok, .json, body) }
}
