// SPDX-License-Identifier: Apache-2.0

internal import FoundationEssentials
package import KeyValue
package import NIOCore

/// `POST /keys:batch`: what is asked for, as JSON says it.
package struct BatchRequest: Decodable, Sendable {
    package let operations: [Operation]

    package struct Operation: Decodable, Sendable {
        package enum Method: String, Decodable, Sendable {
            case get
            case put
            case delete
        }

        let method: Method
        let key: Binary
        let value: Binary
        let contentType: String?
        let ttl: Int?
        let ifMatch: String?
        let ifNoneMatch: String?
    }

    /// Bytes as JSON carries them: text, or base64; nil where neither is there, or both are.
    struct Binary: Sendable {
        let bytes: [UInt8]?
    }

    package struct Malformed: Error {
        /// What is wrong, and where.
        package let reason: String
    }

    package init(json: ByteBuffer) throws(Malformed) {
        do {
            self = try JSONDecoder().decode(Self.self, from: Data(json.readableBytesView))
        } catch {
            throw Malformed(reason: (error as? DecodingError)?.line ?? "it is not JSON")
        }
    }

    private enum CodingKeys: String, CodingKey, CaseIterable {
        case operations
    }

    package init(from decoder: any Decoder) throws {
        try decoder.refuseFields(beyond: CodingKeys.allCases.map(\.rawValue))
        operations = try decoder.container(keyedBy: CodingKeys.self).decode([Operation].self, forKey: .operations)
    }
}

extension BatchRequest.Operation {
    private enum CodingKeys: String, CodingKey, CaseIterable {
        case method
        case key
        case keyBase64
        case value
        case valueBase64
        case contentType
        case ttl
        case ifMatch
        case ifNoneMatch
    }

    package init(from decoder: any Decoder) throws {
        // (What is misspelt would be done without.)
        try decoder.refuseFields(beyond: CodingKeys.allCases.map(\.rawValue))
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        method = try fields.decode(Method.self, forKey: .method)
        func binary(_ text: CodingKeys, _ base64: CodingKeys) throws -> BatchRequest.Binary {
            let plain = try fields.decodeIfPresent(String.self, forKey: text).map { Array($0.utf8) }
            let encoded = try fields.decodeIfPresent(Data.self, forKey: base64).map { Array($0) }
            return BatchRequest.Binary(bytes: plain == nil || encoded == nil ? plain ?? encoded : nil)
        }
        key = try binary(.key, .keyBase64)
        value = try binary(.value, .valueBase64)
        contentType = try fields.decodeIfPresent(String.self, forKey: .contentType)
        ttl = try fields.decodeIfPresent(Int.self, forKey: .ttl)
        ifMatch = try fields.decodeIfPresent(String.self, forKey: .ifMatch)
        ifNoneMatch = try fields.decodeIfPresent(String.self, forKey: .ifNoneMatch)
    }

    /// The operation, or what is wrong with it.
    package var checked: Result<CheckedOperation, Refusal> {
        guard let bytes = key.bytes, bytes.count <= Limits.keyBytes, let key = Key(bytes) else {
            return .failure(Refusal(answer: ErrorAnswer.noKeyInBatch))
        }
        guard
            let precondition = EntityTagParser.precondition(
                ifMatch: ifMatch.map { [$0] } ?? [], ifNoneMatch: ifNoneMatch.map { [$0] } ?? [])
        else { return .failure(Refusal(answer: ErrorAnswer.badPrecondition)) }
        let isPut = method == .put
        guard (value.bytes != nil) == isPut, isPut || contentType == nil && ttl == nil else {
            return .failure(Refusal(answer: ErrorAnswer.badBatchValue))
        }
        if let ttl, !(1...Limits.timeToLiveSeconds).contains(ttl) {
            return .failure(Refusal(answer: ErrorAnswer.badTimeToLive))
        }
        var representation = RepresentationFields()
        representation.contentType = contentType
        if let refusal = representation.refusal(of: .put) { return .failure(Refusal(answer: refusal)) }
        let action: CheckedOperation.Action =
            switch method {
            case .get: .get
            case .delete: .delete
            case .put:
                .put(
                    ByteBuffer(bytes: value.bytes ?? []), contentType: representation.storedContentType,
                    timeToLiveSeconds: ttl)
            }
        return .success(CheckedOperation(key: key, action: action, precondition: precondition))
    }
}

/// One operation of a batch that can be done.
package struct CheckedOperation: Sendable {
    package enum Action: Sendable {
        case get
        case put(ByteBuffer, contentType: String?, timeToLiveSeconds: Int?)
        case delete
    }

    package let key: Key
    package let action: Action
    package let precondition: Precondition
}

extension Decoder {
    fileprivate func refuseFields(beyond known: [String]) throws {
        let fields = try container(keyedBy: AnyField.self)
        for field in fields.allKeys where !known.contains(field.stringValue) {
            throw DecodingError.dataCorrupted(
                DecodingError.Context(
                    codingPath: codingPath, debugDescription: "there is no field \(field.stringValue)"))
        }
    }
}

extension DecodingError {
    fileprivate var line: String {
        switch self {
        case .keyNotFound(let key, let context): "\(key.stringValue) is missing\(context.place)"
        case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context):
            context.debugDescription.prefix { $0 != "." } + context.place
        @unknown default: "it is not JSON of this form"
        }
    }
}

extension DecodingError.Context {
    fileprivate var place: String {
        codingPath.isEmpty
            ? "" : " at " + codingPath.map { $0.intValue.map(String.init) ?? $0.stringValue }.joined(separator: ".")
    }
}

/// Any name of a field.
private struct AnyField: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }

    init?(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
}
