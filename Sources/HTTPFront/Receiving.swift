// SPDX-License-Identifier: Apache-2.0

internal import AccessControl
private import Cluster
private import KeyValue
internal import NIOCore
internal import NIOHTTP1
private import RequestTracing

/// The request whose head was read and whose end was not.
///
/// (Indirect: most requests never are, and each looks whether one is.)
package indirect enum Receiving {
    case nothing
    /// Its body is kept, in the handler; the limit is in bytes.
    case body(FrontRequest, limit: Int, RequestTrait)
    /// Its body is too large for one item, and is stored as it comes.
    case upload(Upload, FrontRequest, RequestTrait)
    /// Its body is thrown away.
    case dropping(AtTheEnd, RequestTrait)

    /// What is to be done once the body is over.
    package enum AtTheEnd {
        case perform(FrontRequest)
        case answer(Answer)
        /// The answer was given before the body's end.
        case nothing
    }

    /// Whether this request has had its answer before its end.
    var isAnswered: Bool {
        if case .dropping(.nothing, _) = self { true } else { false }
    }

    /// What its answer has to know of it; of a head that can't be read nothing is known.
    var trait: RequestTrait {
        switch self {
        case .nothing: RequestTrait()
        case .body(_, _, let trait), .upload(_, _, let trait), .dropping(_, let trait): trait
        }
    }

    var upload: Upload? {
        if case .upload(let upload, _, _) = self { upload } else { nil }
    }
}

extension HTTPFrontHandler {
    /// A body that is refused, but is short enough, is read to its end before the answer: many clients only then look
    /// for one.
    private static let patientlyDroppedBytes = 64 << 10

    func received(_ head: HTTPRequestHead) {
        let reading = HeadReading(head, at: side)
        var trait = RequestTrait(
            isHead: head.method == .HEAD, isHTTP10: head.version.minor == 0, closes: reading.closes,
            wantsProblems: RouteTable.isForPrograms(head.uri),
            kind: FrontMetrics.Kind(route: reading.route, method: Methods(head.method)), trace: reading.trace)
        if trait.wantsProblems, let origins = front.origins, let origin = reading.origin {
            trait.crossOrigin = CrossOriginGrant(origins, for: origin)
        }
        receivedBytes = 0
        bodyLength = reading.contentLength
        receivingSince = front.roughNow
        if reading.isPreflight, trait.crossOrigin != nil, let route = reading.route {
            // (The browser asks by itself, and sends what it asks for only then.)
            return refuse(.preflight(route.methods), reading, trait)
        }
        switch reading.verdict {
        case .refuse(let answer): refuse(answer, reading, trait)
        case .take(let request):
            if let refusal = refusal(of: request, head, isOfPage: reading.isOfPage) {
                return refuse(refusal, reading, trait)
            }
            guard reading.hasBody else {
                receiving = .dropping(.perform(request), trait)
                return
            }
            guard let limit = bodyLimit(of: request) else { return take(request, reading, trait) }
            if front.isFull { return refuse(ErrorAnswer.overloaded, reading, trait) }
            if let length = reading.contentLength, length > limit {
                switch upload(request, trait, bytes: length, over: limit) {
                case .success(let upload): receiving = .upload(upload, request, trait)
                case .failure(let refusal): return refuse(refusal.answer, reading, trait)
                }
            } else {
                receiving = .body(request, limit: limit, trait)
            }
            if reading.expectsContinue { askForBody() }
        }
    }

    /// A body that the route has no use for.
    private func take(_ request: FrontRequest, _ reading: HeadReading, _ trait: RequestTrait) {
        if let length = reading.contentLength, length > Limits.discardedBodyBytes {
            return refuse(ErrorAnswer.bodyTooLarge(Limits.discardedBodyBytes), reading, trait)
        }
        receiving = .dropping(.perform(request), trait)
        if reading.expectsContinue { askForBody() }
    }

    private func askForBody() {
        owesContinue = true
        advance()
    }

    /// Answers without doing anything. The connection goes on if the body, which has to be read first, is short enough
    /// and is sure to come.
    private func refuse(_ answer: Answer, _ reading: HeadReading, _ trait: RequestTrait) {
        let length = reading.contentLength ?? 0
        if answer.closes || reading.hasBody && reading.expectsContinue || length > Limits.discardedBodyBytes {
            isInputOver = true
            receiving = .nothing
            enqueue(answer.closing, trait)
            advance()
        } else if length <= HTTPFrontHandler.patientlyDroppedBytes, answer.status != .contentTooLarge {
            receiving = .dropping(.answer(answer), trait)
        } else {
            answerEarly(answer, trait)
        }
    }

    func answerEarly(_ answer: Answer, _ trait: RequestTrait) {
        receiving = .dropping(.nothing, trait)
        enqueue(answer, trait)
        advance()
    }

    func received(_ part: ByteBuffer) {
        receivedBytes += part.readableBytes
        switch receiving {
        case .nothing: break
        case .body(let request, let limit, let trait):
            let bytes = body.readableBytes + part.readableBytes
            guard bytes <= limit else {
                let begun = body
                dropBody()
                switch upload(request, trait, bytes: bytes, over: limit) {
                case .success(let upload):
                    receiving = .upload(upload, request, trait)
                    upload.write.append(begun)
                    return received(into: upload, part, trait)
                case .failure(let refusal): return answerEarly(refusal.answer, trait)
                }
            }
            if body.readableBytes == 0 { body = part } else { body.writeImmutableBuffer(part) }
            hold(part.readableBytes)
        case .upload(let upload, _, let trait): received(into: upload, part, trait)
        case .dropping(let atTheEnd, let trait):
            guard receivedBytes > Limits.discardedBodyBytes else { return }
            isInputOver = true
            receiving = .nothing
            switch atTheEnd {
            case .perform: enqueue(ErrorAnswer.bodyTooLarge(Limits.discardedBodyBytes).closing, trait)
            case .answer(let answer): enqueue(answer.closing, trait)
            case .nothing: break
            }
            advance()
        }
    }

    func receivedEnd() {
        let ended = receiving
        receiving = .nothing
        owesContinue = false
        switch ended {
        case .nothing: return
        case .body(var request, _, let trait):
            request.body = body
            body = ByteBuffer()
            append(request, trait)
        case .upload(let upload, var request, let trait):
            request.upload = NIOLoopBound(upload, eventLoop: front.loop)
            append(request, trait)
        case .dropping(.perform(let request), let trait): append(request, trait)
        case .dropping(.answer(let answer), let trait): enqueue(answer, trait)
        case .dropping(.nothing, _): break
        }
        if ended.trait.closes { isInputOver = true }
        advance()
    }

    func append(_ request: FrontRequest, _ trait: consuming RequestTrait) {
        trait.since = .now()
        if let trace = trait.trace { trace.begin(request.route.label, front.tracer) }
        queue.append(request, isSafe: request.route.isSafe(request.method), trait)
    }

    /// Bytes of the present body that are sure to come: they hold no further request. Nil where no body's length is
    /// known.
    var bodyBytesToCome: Int? {
        isBetweenRequests ? nil : bodyLength.map { $0 - receivedBytes }
    }

    /// The largest body that needs no refusal where it comes with its head.
    var fastBodyLimit: Int { front.isFull ? 0 : pairBodyLimit }

    /// One of which a request for a pair has to carry; nil: none.
    var dataTokens: TokenSet? { front.gate?.data }

    /// Percent-encoded, everything may be three times as long.
    private var pairBodyLimit: Int { 3 * (front.data.itemBytes + Limits.keyBytes) + 1024 }

    /// A value of so many bytes fits an item, whatever stands beside it.
    private var itemValueBytes: Int {
        let beside =
            Limits.itemOverheadBytes + Envelope.longestHeaderBytes + 2 + Limits.keyBytes + 1 + Limits.contentTypeBytes
        return max(front.data.itemBytes - beside, front.data.itemBytes / 4)
    }

    /// The largest body that the route takes at once; nil where it reads none.
    private func bodyLimit(of request: FrontRequest) -> Int? {
        guard request.method == .post || request.method == .put else { return nil }
        switch request.route {
        case .key: return request.method == .put ? itemValueBytes : nil
        case .batch: return Limits.clientBatchBytes
        case .import: return Limits.importBytes
        case .pair, .pairHere: return pairBodyLimit
        case .ring: return 3 * Limits.ringDocumentBytes
        case .peerHello: return PeerHandshake.helloBytes
        case .peerBatch: return Limits.peerBodyBytes
        case .peerCall: return 4 * Limits.ringDocumentBytes
        default: return nil
        }
    }
}
