// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
private import KeyValue
internal import NIOCore

/// What became of one operation of a batch, as JSON.
struct BatchResult: Encodable, Sendable {
    /// As the same request by itself would be answered.
    let status: UInt16
    /// As in `ETag`.
    var version: String?
    var contentType: String?
    /// Where the value is text.
    var value: String?
    /// Where it is not.
    var valueBase64: Data?
    /// Of an error: one sentence.
    var detail: String?
    var outcome: String?

    private init(status: UInt16) { self.status = status }

    init(_ answer: Answer) {
        status = answer.status.rawValue
        version = answer.version?.description
        outcome = answer.outcome?.headerValue.description
        guard status < 400 else {
            detail = answer.line
            return
        }
        guard answer.status == .ok else { return }
        contentType =
            if case .stored(let type) = answer.contentType { type } else { nil }
        if let text = String(validating: answer.body.readableBytesView, as: UTF8.self) {
            value = text
        } else {
            valueBase64 = Data(answer.body.readableBytesView)
        }
    }

    /// `{"results":[…]}`, in the order of what was asked for.
    static func json(_ results: [BatchResult]) -> ByteBuffer {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // (Numbers, strings and bytes: there is nothing in it that JSON can't say.)
        return ByteBuffer(bytes: (try? encoder.encode(["results": results])) ?? Data())
    }
}
