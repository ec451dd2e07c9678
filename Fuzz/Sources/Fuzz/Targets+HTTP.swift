// SPDX-License-Identifier: Apache-2.0

private import AccessControl
private import Cluster
private import FoundationEssentials
private import HTTPFront
private import HashRing
private import KeyValue
private import NIOCore
private import NIOEmbedded
private import NIOHTTP1
private import RequestTracing
private import TestSupport

private let bodyLimit = 4096

/// What `FastPath` takes for a request is one for NIOHTTP1, with the same meaning and the same end.
@Sendable func fuzzHead(_ bytes: UnsafeRawBufferPointer) {
    guard let (request, trace, length) = FastPath.request(in: ByteBuffer(bytes: bytes), bodyLimit: bodyLimit) else {
        return
    }
    hold(length <= bytes.count, "it ends behind the bytes")
    guard let parts = decodedRequests(in: bytes[..<length]), case .head(let head)? = parts.first,
        case .end(nil)? = parts.last
    else {
        fatalError("the decoder finds no request")
    }
    var body = ByteBuffer()
    for case .body(var part) in parts { body.writeBuffer(&part) }
    let shorter = decodedRequests(in: bytes[..<(length - 1)]) ?? []
    hold(!shorter.contains { if case .end = $0 { true } else { false } }, "the decoder ends it sooner")
    let reading = HeadReading(head)
    hold(
        trace?.id == reading.trace?.id && trace?.parent == reading.trace?.parent
            && trace?.state == reading.trace?.state, "other names")
    // Where a token is asked for, it takes only what carries that one.
    if let admitted = FastPath.request(in: ByteBuffer(bytes: bytes), bodyLimit: bodyLimit, tokens: someTokens) {
        hold(admitted.length == length, "another end for who has a token")
        var shown = AccessGate.Sender(head.headers, at: nil).authorizations
        hold(shown.count == 1 && shown[0].withUTF8 { someTokens.admits(UnsafeRawBufferPointer($0)) }, "no token")
    }
    guard case .take(let wanted) = reading.verdict else { fatalError("refused") }
    hold(head.method == (request.method == .get ? .GET : .POST) && head.version == .http1_1, "another method")
    hold(
        !reading.closes && !reading.expectsContinue && wanted.precondition.isEmpty
            && wanted.representation.range == nil,
        "it says more than was read")
    hold(reading.contentLength == request.body.readableBytes && request.body == body, "another body")
    hold(
        request.route == wanted.route && request.method == wanted.method && request.target == wanted.target
            && request.pathLength == wanted.pathLength, "another target")
}

/// A connection's bytes are answered alike however they are cut, and whether or not the gate and `FastPath` are there.
@Sendable func fuzzConnection(_ bytes: UnsafeRawBufferPointer) {
    let (pieces, stream) = bytes.cut
    let whole = client(isPlain: false)
    whole.send(stream)
    let plain = client(isPlain: true)
    plain.send(stream)
    let cut = client(isPlain: false)
    stream.inPieces(pieces) { cut.send($0) }
    hold(whole.answers == cut.answers, "other answers in pieces")
    hold(whole.answers == plain.answers, "other answers than NIOHTTP1's decoder alone brings")
    let pairs = whole.store.visiblePairs
    hold(pairs == plain.store.visiblePairs && pairs == cut.store.visiblePairs, "other pairs")
    hold(whole.channel.isActive == cut.channel.isActive, "it is open in one case only")
}

/// (To make one takes longer than an input does. There is one thread.)
private nonisolated(unsafe) let metrics = FrontMetrics()

/// - Parameter isPlain: NIOHTTP1's decoder has all the bytes.
private func client(isPlain: Bool) -> FuzzClient {
    FuzzClient { channel, store in
        let front = Front(
            node: FuzzStore.node, loop: channel.embeddedEventLoop, data: store, operators: NoOperators(),
            tasks: NoTasks(), metrics: metrics)
        guard isPlain else { return try HTTPFrontHandler.addHandlers(to: channel, front) }
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderFieldSize = 3 * Limits.requestTargetBytes
        limits.maxHeaderListSize = 3 * Limits.requestTargetBytes + Limits.requestHeaderBytes
        limits.maxHeaderFieldCount = 2 * Limits.requestHeaderFields
        let decoder = HTTPRequestDecoder(leftOverBytesStrategy: .dropBytes, limitConfiguration: limits)
        try channel.pipeline.syncOperations.addHandler(ByteToMessageHandler(decoder))
        try channel.pipeline.syncOperations.addHandler(HTTPFrontHandler(front))
    }
}

/// Fields of forms and parts of paths: what was encoded comes back.
@Sendable func fuzzForm(_ bytes: UnsafeRawBufferPointer) {
    _ = FormDecoder.pathPart(bytes, limit: Limits.keyBytes)
    _ = RouteTable.route(of: bytes)
    let body = ByteBuffer(bytes: bytes)
    switch (FormDecoder.bytes("key", in: bytes, limit: bytes.count), FormDecoder.buffer("key", in: body)) {
    case (.absent, .absent), (.malformed, .malformed): break
    case (.value(let field), .value(let buffer)): hold(field == Array(buffer.readableBytesView), "two readings")
    case (let field, let buffer): fatalError("\(field), but \(buffer)")
    }
    let digits = Array("0123456789abcdefABCDEF".utf8)
    var encoded = Array("x=1&key=".utf8)
    for byte in bytes {
        let isUpper = byte & 1 == 0
        encoded.append(UInt8(ascii: "%"))
        for nibble in [byte >> 4, byte & 15] { encoded.append(digits[Int(nibble) + (isUpper && nibble > 9 ? 6 : 0)]) }
    }
    encoded += "&key=other".utf8
    encoded.withUnsafeBytes { encoded in
        guard case .value(let decoded) = FormDecoder.bytes("key", in: encoded, limit: bytes.count) else {
            fatalError("what was encoded is not read")
        }
        hold(decoded.elementsEqual(bytes), "it is read as something else")
    }
}

/// Header fields of which parts are read by ourselves: entity tags, ranges, traces, ids.
@Sendable func fuzzFields(_ bytes: UnsafeRawBufferPointer) {
    if let parent = TraceParent(bytes) {
        // (A later version goes on as 00, with what 00 has.)
        let isOurs = bytes.starts(with: "00-".utf8)
        let same = isOurs ? bytes[...] : bytes[3..<53]
        hold(
            parent.description.utf8.dropFirst(same.startIndex).prefix(same.count).elementsEqual(same),
            "a traceparent that is written otherwise")
        hold(TraceParent(parent.passed(on: 7).description) != nil, "one that is passed on can't be read")
    }
    fuzzTraceState(bytes)
    if let id = RequestID(bytes) { hold(id.description.utf8.elementsEqual(bytes), "an id that is written otherwise") }
    let text = String(decoding: bytes, as: UTF8.self)
    for takesWeak in [false, true] {
        if case .versions(let versions)? = EntityTagParser.tags(in: [text], takesWeak: takesWeak) {
            hold(versions.count <= Limits.entityTags, "more tags than may be")
            let again = versions.map { "\"\($0)\"" }.joined(separator: ", ")
            if !versions.isEmpty {
                hold(
                    EntityTagParser.tags(in: [again], takesWeak: takesWeak) == .versions(versions),
                    "tags that are written otherwise")
            }
        }
    }
    for length in [0, 1, 10, 1 << 20] {
        var fields = RepresentationFields()
        fields.contentType = text
        fields.range = text
        _ = fields.refusal(of: .put)
        if case .range(let range) = fields.part(of: length, version: .none) {
            hold(!range.isEmpty && range.lowerBound >= 0 && range.upperBound <= length, "a range outside of the value")
        }
        fields.ifRange = text
        _ = fields.part(of: length, version: .none)
    }
    _ = OriginList(text)
    if let node = NodeID(text) { hold(NodeID(node.description) == node, "a node that is written otherwise") }
    if let version = Version(bytes) { hold(version.description.utf8.elementsEqual(bytes), "a version, likewise") }
}

/// `tracestate`, from a client and within a batch of another node's.
private func fuzzTraceState(_ bytes: UnsafeRawBufferPointer) {
    let text = String(decoding: bytes, as: UTF8.self)
    if let state = TraceState(text) {
        hold(TraceState(state.text) == state && TraceState(carried: state.carried) == state, "another trace state")
        hold(state.text.utf8.count <= Limits.traceStateBytes, "a longer one than may be")
        hold(!state.text.utf8.contains { $0 < 0x20 || $0 > 0x7E }, "one that could end a head")
    }
    let requests = CarriedRequest.list(text)
    hold(requests.count <= Limits.carriedRequests, "more requests than a batch may name")
    hold(requests.allSatisfy { $0.id != nil || $0.parent != nil }, "a request without a name")
}

/// `POST /keys:batch`.
@Sendable func fuzzBatchJSON(_ bytes: UnsafeRawBufferPointer) {
    guard let batch = try? BatchRequest(json: ByteBuffer(bytes: bytes)) else { return }
    for operation in batch.operations {
        guard case .success(let checked) = operation.checked else { continue }
        hold((1...Limits.keyBytes).contains(checked.key.bytes.count), "a key that is none")
        if case .put(_, contentType: let type?, _) = checked.action {
            hold(type.utf8.allSatisfy { (0x20...0x7E).contains($0) }, "a content type that could end a head")
        }
    }
}

/// Where a listing goes on.
@Sendable func fuzzCursor(_ bytes: UnsafeRawBufferPointer) {
    if let mark = ListingMark(cursor: Array(bytes)) {
        hold(ListingMark(cursor: Array(mark.cursor.utf8)) == mark, "a cursor that is written otherwise")
        _ = mark.firstSlot
    }
    if let mark = ListingMark(Array(bytes)) {
        hold(mark == .start || ListingMark(cursor: Array(mark.cursor.utf8)) == mark, "a mark without a cursor")
        hold(mark <= .end, "a mark behind the end")
    }
}
