// SPDX-License-Identifier: Apache-2.0

package import KeyValue
package import NIOCore
package import NIOHTTP1
package import RequestTracing

/// A request that has a route and a method that the route takes.
package struct FrontRequest: Sendable {
    package let route: Route
    /// GET also stands for HEAD.
    package let method: Methods
    /// (One object: a request is copied many times on its way.)
    private var contents: Contents

    package init(route: Route, method: Methods, target: String, pathLength: Int, body: ByteBuffer = ByteBuffer()) {
        self.route = route
        self.method = method
        self.contents = Contents(Parts(target: target, pathLength: pathLength, body: body))
    }

    /// ASCII alone.
    package var target: String { contents.parts.target }

    /// Of the target's path, in bytes; the query begins behind the question mark that follows it.
    package var pathLength: Int { contents.parts.pathLength }

    /// Whether the query has any byte.
    package var hasQuery: Bool { target.utf8.count > pathLength + 1 }

    package var body: ByteBuffer {
        get { contents.parts.body }
        set { change { $0.body = newValue } }
    }

    /// What has become of a body that is too large for one item.
    package var upload: NIOLoopBound<Upload>? {
        get { contents.parts.upload }
        set { change { $0.upload = newValue } }
    }

    /// What the request wants to be so of the pair; empty on routes that have none.
    package var precondition: Precondition {
        get { contents.parts.precondition ?? Precondition() }
        set { change { $0.precondition = newValue } }
    }

    /// Of the value that is sent or wanted; only `.key` looks at them.
    package var representation: RepresentationFields {
        get { contents.parts.representation ?? RepresentationFields() }
        set { change { $0.representation = newValue } }
    }

    private mutating func change(_ body: (inout Parts) -> Void) {
        var parts = contents.parts
        body(&parts)
        contents = Contents(parts)
    }

    private struct Parts: Sendable {
        let target: String
        let pathLength: Int
        var body: ByteBuffer
        var upload: NIOLoopBound<Upload>?
        var precondition: Precondition?
        var representation: RepresentationFields?
    }

    private final class Contents: Sendable {
        let parts: Parts

        init(_ parts: Parts) { self.parts = parts }
    }

    /// The rest of the path behind a route's prefix, undecoded.
    package func pathRest(after prefix: StaticString) -> Substring {
        // ASCII: characters, code units and bytes are the same.
        let utf8 = target.utf8
        let start = utf8.index(utf8.startIndex, offsetBy: prefix.utf8CodeUnitCount)
        return target[start..<utf8.index(utf8.startIndex, offsetBy: pathLength)]
    }

    /// The query's bytes, without the question mark.
    package func withQuery<Value>(_ body: (UnsafeRawBufferPointer) -> Value) -> Value {
        let start = pathLength + 1
        func query(_ bytes: UnsafeBufferPointer<UInt8>) -> Value {
            body(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[min(start, bytes.count)...]))
        }
        return target.utf8.withContiguousStorageIfAvailable(query) ?? Array(target.utf8).withUnsafeBufferPointer(query)
    }
}

/// What a request's head says before anything of its body has come: what to do with it, or why not.
package struct HeadReading {
    package enum Verdict {
        case take(FrontRequest)
        case refuse(Answer)
    }

    package let verdict: Verdict
    /// What its path asks for; nil where that can't be told, or nobody knows such a path.
    package let route: Route?
    /// Bytes of the body; nil for one in chunks, which says its length as it goes.
    package let contentLength: Int?
    package let expectsContinue: Bool
    /// Whether nothing can follow on the connection.
    package let closes: Bool
    /// The page that a browser asks for.
    package let origin: String?
    /// Whether it has a field that only browsers send.
    package let isOfPage: Bool
    /// Whether a browser asks what that page may do, before it does it.
    package let isPreflight: Bool
    /// By which names the request is found again.
    package let trace: RequestTrace?

    package var hasBody: Bool { contentLength != 0 }

    package init(_ head: HTTPRequestHead, at side: ListeningSide = .everybody) {
        let fields = Fields(head.headers)
        // The decoder stops where another protocol was asked for; we go on with none.
        self.closes = !head.isKeepAlive || fields.asksForUpgrade || head.method == .CONNECT
        self.contentLength = fields.isChunked ? nil : fields.contentLength
        self.expectsContinue = fields.expectsContinue && head.version.minor >= 1
        self.origin = fields.origin
        self.isOfPage = fields.origin != nil || fields.hasFetchSite
        self.isPreflight = head.method == .OPTIONS && fields.asksForMethod
        var route: Route?
        self.verdict = HeadReading.verdict(head, fields, side, &route)
        self.route = route
        self.trace = fields.trace(ofBatch: route == .peerBatch)
    }

    private static func verdict(
        _ head: HTTPRequestHead, _ fields: Fields, _ side: ListeningSide, _ asked: inout Route?
    ) -> Verdict {
        if fields.isChunked, fields.hasUnknownCoding || head.version.minor == 0 {
            return .refuse(ErrorAnswer.unknownCoding)
        }
        if head.uri.utf8.count > Limits.requestTargetBytes { return .refuse(ErrorAnswer.targetTooLong) }
        if fields.bytes > Limits.requestHeaderBytes || fields.count > Limits.requestHeaderFields {
            return .refuse(ErrorAnswer.headersTooLarge)
        }
        if fields.hosts > 1 || fields.hosts == 0 && head.version.minor >= 1 { return .refuse(ErrorAnswer.noHost) }
        var uri = head.uri
        let place = uri.withUTF8 { bytes -> (isPath: Bool, route: (route: Route, pathLength: Int)?) in
            // The decoder repairs what is no UTF-8: anything but ASCII may not be what was sent.
            guard bytes.first == UInt8(ascii: "/"), bytes.allSatisfy({ (0x21...0x7E).contains($0) && $0 != 0x23 })
            else {
                return (false, nil)
            }
            return (true, RouteTable.route(of: UnsafeRawBufferPointer(bytes)))
        }
        guard place.isPath else { return .refuse(ErrorAnswer.malformedTarget) }
        guard let (route, pathLength) = place.route, side.serves(route) else {
            return .refuse(ErrorAnswer.unknownPath)
        }
        asked = route
        guard let method = Methods(head.method), route.methods.contains(method) else {
            return .refuse(ErrorAnswer.wrongMethod(route.methods))
        }
        if fields.hasUnknownExpectation { return .refuse(ErrorAnswer.unknownExpectation) }
        var request = FrontRequest(route: route, method: method, target: uri, pathLength: pathLength)
        if route == .key {
            if let refusal = fields.representation.refusal(of: method) { return .refuse(refusal) }
            var representation = fields.representation
            // (Of the head alone there are no parts.)
            if head.method != .GET { representation.range = nil }
            if representation != RepresentationFields() { request.representation = representation }
        }
        if !fields.ifMatch.isEmpty || !fields.ifNoneMatch.isEmpty,
            route == .pair || route == .key || route == .pairHere || route == .page
        {
            guard let precondition = fields.precondition else { return .refuse(ErrorAnswer.badPrecondition) }
            if route == .pairHere { return .refuse(ErrorAnswer.preconditionHere) }
            request.precondition = precondition
        }
        return .take(request)
    }

    /// The few header fields that matter here, found in one pass.
    private struct Fields {
        var count = 0
        var bytes = 0
        var hosts = 0
        var contentLength = 0
        var isChunked = false
        var hasUnknownCoding = false
        var expectsContinue = false
        var hasUnknownExpectation = false
        var asksForUpgrade = false
        var origin: String?
        var hasFetchSite = false
        var asksForMethod = false
        /// The values of all fields of these names.
        var ifMatch: [String] = []
        var ifNoneMatch: [String] = []
        var representation = RepresentationFields()
        var requestIDs: [String] = []
        var traceParents: [String] = []
        var traceStates: [String] = []
        var carried: String?

        /// (Of two, which one is meant can't be told.)
        /// - Parameter ofBatch: whether another node may say for whom it asks.
        func trace(ofBatch: Bool) -> RequestTrace? {
            RequestTrace(
                id: requestIDs.count == 1 ? RequestID(requestIDs[0]) : nil,
                parent: traceParents.count == 1 ? TraceParent(traceParents[0]) : nil,
                state: traceStates.isEmpty ? nil : TraceState(traceStates.joined(separator: ",")),
                carried: ofBatch ? carried : nil)
        }

        /// Nil where a field is malformed.
        var precondition: Precondition? {
            EntityTagParser.precondition(ifMatch: ifMatch, ifNoneMatch: ifNoneMatch)
        }

        init(_ headers: HTTPHeaders) {
            for (name, value) in headers {
                count += 1
                bytes += name.utf8.count + value.utf8.count
                switch name.utf8.count {
                case 4 where name.isSameField(as: "host"): hosts += 1
                case 5 where name.isSameField(as: "range"):
                    // (Two are none: which of them is meant can't be told.)
                    representation.range = representation.range == nil ? String(value.trimmingBlanks) : ""
                case 6 where name.isSameField(as: "expect"):
                    let isContinue = String(value.trimmingBlanks).isSameField(as: "100-continue")
                    expectsContinue = expectsContinue || isContinue
                    hasUnknownExpectation = hasUnknownExpectation || !isContinue
                case 6 where name.isSameField(as: "origin"): origin = String(value.trimmingBlanks)
                case 7 where name.isSameField(as: "upgrade"): asksForUpgrade = true
                case 8 where name.isSameField(as: "if-match"): ifMatch.append(value)
                case 8 where name.isSameField(as: "if-range"):
                    representation.ifRange = String(value.trimmingBlanks)
                case 10 where name.isSameField(as: "tracestate"): traceStates.append(value)
                case 11 where name.isSameField(as: "traceparent"): traceParents.append(String(value.trimmingBlanks))
                case 12 where name.isSameField(as: "x-request-id"): requestIDs.append(String(value.trimmingBlanks))
                case 13 where name.isSameField(as: "x-request-ids"): carried = value
                case 12 where name.isSameField(as: "content-type"):
                    representation.contentType = String(value.trimmingBlanks)
                case 13 where name.isSameField(as: "if-none-match"): ifNoneMatch.append(value)
                case 13 where name.isSameField(as: "content-range"): representation.isPartial = true
                case 16 where name.isSameField(as: "content-encoding"):
                    representation.isEncoded =
                        representation.isEncoded || !String(value.trimmingBlanks).isSameField(as: "identity")
                // The decoder has checked that it is a number, and the only one; blanks may follow it.
                case 14 where name.isSameField(as: "content-length"): contentLength = Int(value.trimmingBlanks) ?? .max
                case 14 where name.isSameField(as: "sec-fetch-site"): hasFetchSite = true
                case 17 where name.isSameField(as: "transfer-encoding"):
                    hasUnknownCoding = hasUnknownCoding || isChunked || !value.isSameField(as: "chunked")
                    isChunked = true
                case 29 where name.isSameField(as: "access-control-request-method"): asksForMethod = true
                default: break
                }
            }
        }
    }
}

extension String {
    /// Without the blanks that may stand behind a field's value, and are no part of it (RFC 9110, section 5.5). The
    /// decoder leaves them.
    var trimmingBlanks: Substring {
        var rest = self[...]
        while rest.last == " " || rest.last == "\t" { rest.removeLast() }
        return rest
    }

    /// Whether it is this text of lower-case ASCII, in whatever case.
    fileprivate func isSameField(as text: StaticString) -> Bool {
        guard utf8.count == text.utf8CodeUnitCount else { return false }
        return text.withUTF8Buffer { text in
            var index = 0
            for byte in utf8 {
                let lower = (0x41...0x5A).contains(byte) ? byte | 0x20 : byte
                if lower != text[index] { return false }
                index += 1
            }
            return true
        }
    }
}
