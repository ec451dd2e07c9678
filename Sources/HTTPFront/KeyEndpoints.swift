// SPDX-License-Identifier: Apache-2.0

internal import KeyValue
private import NIOCore

/// `/keys/{key}`: pairs for programs. A value is the body, as it is, with the type that it came with.
extension HTTPFrontHandler {
    func readKey(_ request: FrontRequest, _ id: RequestID) { read(namedKey(request), request, id, here: false) }

    func deleteKey(_ request: FrontRequest, _ id: RequestID) { delete(namedKey(request), request, id, here: false) }

    func storeKey(_ request: FrontRequest, _ id: RequestID) {
        if let upload = request.upload?.value { return finish(upload, request, id) }
        let key: Key
        switch namedKey(request) {
        case .success(let found): key = found
        case .failure(let refusal): return complete(id, refusal.answer)
        }
        switch expiry(request.withQuery { FormDecoder.bytes("ttl", in: $0, limit: 16) }) {
        case .success(let expiry):
            store(
                key, request.body, contentType: request.representation.storedContentType, expiry: expiry, request, id,
                here: false)
        case .failure(let refusal): complete(id, refusal.answer)
        }
    }

    func namedKey(_ request: FrontRequest) -> Result<Key, Refusal> {
        HTTPFrontHandler.key(named: request.pathRest(after: RouteTable.keyPrefix))
    }

    /// All of the path's rest, percent-decoded: a slash is one more byte, sent as it is or as %2F. Parts that are a dot
    /// or two are refused, for what is in front of a node may have meant another path by them.
    static func key(named rest: Substring) -> Result<Key, Refusal> {
        let hasDotSegment = rest.split(separator: "/", omittingEmptySubsequences: false).contains { part in
            part == "." || part == ".."
        }
        if hasDotSegment { return .failure(Refusal(answer: ErrorAnswer.dotSegment)) }
        var rest = rest
        return key(
            rest.withUTF8 { FormDecoder.pathPart(UnsafeRawBufferPointer($0), limit: Limits.keyBytes) },
            absent: ErrorAnswer.noKeyInPath, tooLong: ErrorAnswer.keyTooLongInTarget)
    }
}
