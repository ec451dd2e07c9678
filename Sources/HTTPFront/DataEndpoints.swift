// SPDX-License-Identifier: Apache-2.0

private import Cluster
private import HashRing
internal import KeyValue
internal import NIOCore

/// Pairs: `/route`, `/cache`, `/route_test`, and what `/keys` shares with them. On the event loop, without waiting.
extension HTTPFrontHandler {
    func readPair(_ request: FrontRequest, _ id: RequestID, here: Bool) {
        read(queriedKey(request), request, id, here: here)
    }

    func read(_ key: Result<Key, Refusal>, _ request: FrontRequest, _ id: RequestID, here: Bool) {
        switch key {
        case .success(let key):
            queue.note(slot: key.slot, of: id)
            read(key, request, id, here: here, tries: 1)
        case .failure(let refusal): complete(id, refusal.answer)
        }
    }

    /// - Parameter tries: of a large value, how often it is looked for.
    func read(_ key: Key, _ request: FrontRequest, _ id: RequestID, here: Bool, tries: Int) {
        if front.isFull { return complete(id, ErrorAnswer.overloaded) }
        if !here, front.data.standing == .none { return complete(id, ErrorAnswer.noRing) }
        // (A large value that was not there came from a replica that is behind.)
        var consistency: Consistency? = .strict
        if tries == 1, !here {
            switch wantedConsistency(request, isWrite: false) {
            case .success(let wanted): consistency = wanted
            case .failure(let refusal): return complete(id, refusal.answer)
            }
        }
        front.beginRead()
        let completion = { (result: Result<Envelope?, OperationFailure>) in
            let found: Envelope? = if case .success(let found) = result { found } else { nil }
            self.front.endRead(found?.buffer.readableBytes ?? 0)
            let answer = self.answerOfRead(
                result, if: request.precondition,
                missing: request.route == .key ? ErrorAnswer.noPair : ErrorAnswer.missing
            ) { request.route == .key ? .representation(of: $0, request.representation) : .found($0) }
            if answer.large == nil || self.queue.isHead(id) { return self.complete(id, consume answer) }
            self.stream(answer, of: key, request, id, here: here, tries: tries)
        }
        if here { return front.data.readHere(StoredKey(key), completion: completion) }
        front.data.read(key, consistency, completion: completion)
    }

    /// - Parameter found: the answer with a pair that is there, and as the request wants it.
    func answerOfRead(
        _ result: Result<Envelope?, OperationFailure>, if precondition: Precondition,
        missing: Answer = ErrorAnswer.noPair, found: (Envelope) -> Answer
    ) -> Answer {
        switch result {
        case .success(let envelope?):
            // (Most pairs do not expire, and what time it is makes no difference.)
            let now = envelope.expiryMilliseconds == nil ? 0 : front.data.wallMilliseconds
            if envelope.isGone(atMilliseconds: now) { return missing }
            return switch precondition.verdict(on: envelope, atMilliseconds: now) {
            case .met: found(envelope)
            case .ifMatchFailed: ErrorAnswer.preconditionFailed(envelope.version)
            case .ifNoneMatchFailed: .notModified(envelope.version)
            }
        case .success(nil): return missing
        case .failure(let failure): return answer(to: failure)
        }
    }

    func storePair(_ request: FrontRequest, _ id: RequestID, here: Bool) {
        let key: Key
        let field = request.body.withUnsafeReadableBytes { FormDecoder.bytes("key", in: $0, limit: Limits.keyBytes) }
        switch HTTPFrontHandler.key(field, tooLong: ErrorAnswer.keyTooLongInForm) {
        case .success(let found): key = found
        case .failure(let refusal): return complete(id, refusal.answer)
        }
        let value: ByteBuffer
        switch FormDecoder.buffer("val", in: request.body) {
        case .absent: return complete(id, ErrorAnswer.noValue)
        case .malformed: return complete(id, ErrorAnswer.malformedField)
        case .tooLong: return complete(id, ErrorAnswer.valueTooLarge(front.data.itemBytes))
        case .value(let found): value = found
        }
        switch expiry(request.body.withUnsafeReadableBytes { FormDecoder.bytes("ttl", in: $0, limit: 16) }) {
        case .success(let expiry): store(key, value, expiry: expiry, request, id, here: here)
        case .failure(let refusal): complete(id, refusal.answer)
        }
    }

    /// - Parameter expiry: in milliseconds since 1970.
    func store(
        _ key: Key, _ value: ByteBuffer, contentType: String? = nil, expiry: UInt64?, _ request: FrontRequest,
        _ id: RequestID, here: Bool
    ) {
        queue.note(slot: key.slot, of: id)
        switch newPair(key, value, contentType: contentType, expiry: expiry) {
        case .success(let (storedKey, envelope)):
            if !here, front.data.standing == .none { return complete(id, ErrorAnswer.noRing) }
            store(storedKey, envelope, request, id, here: here)
        case .failure(let refusal): complete(id, refusal.answer)
        }
    }

    /// The pair as it is stored; refused where no item takes it.
    func newPair(
        _ key: Key, _ value: ByteBuffer, contentType: String?, expiry: UInt64?, clientFlags: UInt32 = 0
    ) -> Result<(StoredKey, Envelope), Refusal> {
        let storedKey = StoredKey(key)
        let beside =
            (contentType.map { 1 + $0.utf8.count } ?? 0) + (clientFlags == 0 ? 0 : Envelope.clientFlagsBytes)
        let limit = front.data.valueLimit(for: storedKey, of: key) - beside
        guard value.readableBytes <= limit else {
            return .failure(Refusal(answer: ErrorAnswer.valueTooLarge(max(0, limit))))
        }
        let envelope = Envelope(
            key: key, storedKey: storedKey, value: value, contentType: contentType, expiryMilliseconds: expiry,
            clientFlags: clientFlags)
        return .success((storedKey, envelope))
    }

    /// When a pair expires that is to live for so many seconds, in milliseconds since 1970.
    func expiry(_ timeToLive: FormDecoder.Field<[UInt8]>) -> Result<UInt64?, Refusal> {
        switch timeToLive {
        case .absent: return .success(nil)
        case .value(let text):
            guard let seconds = HTTPFrontHandler.timeToLive(text) else { fallthrough }
            return .success(front.data.wallMilliseconds + seconds * 1000)
        case .malformed, .tooLong: return .failure(Refusal(answer: ErrorAnswer.badTimeToLive))
        }
    }

    /// Stores that the pair is gone, whether there was one or not: an older copy may be anywhere.
    func deletePair(_ request: FrontRequest, _ id: RequestID, here: Bool) {
        delete(queriedKey(request), request, id, here: here)
    }

    func delete(_ named: Result<Key, Refusal>, _ request: FrontRequest, _ id: RequestID, here: Bool) {
        let key: Key
        switch named {
        case .success(let found): key = found
        case .failure(let refusal): return complete(id, refusal.answer)
        }
        queue.note(slot: key.slot, of: id)
        if !here, front.data.standing == .none { return complete(id, ErrorAnswer.noRing) }
        let (storedKey, tombstone) = deletion(of: key, isConditional: !request.precondition.isEmpty)
        store(storedKey, tombstone, request, id, here: here)
    }

    /// What says that the pair is gone.
    func deletion(of key: Key, isConditional: Bool) -> (StoredKey, Envelope) {
        let storedKey = StoredKey(key)
        // A conditional write's version may be of long ago, and does not tell how long its tombstone is needed.
        let keptUntil =
            isConditional ? front.data.wallMilliseconds + UInt64(Limits.tombstoneSeconds) * 1000 : nil
        let tombstone = Envelope(
            key: key, storedKey: storedKey, value: ByteBuffer(), isTombstone: true, expiryMilliseconds: keptUntil)
        return (storedKey, tombstone)
    }

    /// Whole seconds, in digits alone.
    private static func timeToLive(_ text: [UInt8]) -> UInt64? {
        guard text.allSatisfy({ (0x30...0x39).contains($0) }), let seconds = Int(String(decoding: text, as: UTF8.self)),
            (1...Limits.timeToLiveSeconds).contains(seconds)
        else { return nil }
        return UInt64(seconds)
    }

    private func store(
        _ key: StoredKey, _ envelope: Envelope, _ request: FrontRequest, _ id: RequestID, here: Bool
    ) {
        let consistency: Consistency?
        switch wantedConsistency(request, isWrite: true) {
        case .success(let found): consistency = found
        case .failure(let refusal): return complete(id, refusal.answer)
        }
        performing(request, id) { completion in
            if here {
                self.front.data.writeHere(key, envelope, completion: completion)
            } else {
                self.write(key, envelope, if: request.precondition, consistency, completion: completion)
            }
        }
    }

    /// Has a write done, and answers.
    func performing(
        _ request: FrontRequest, _ id: RequestID,
        _ write: (_ completion: @escaping (Result<Version, OperationFailure>) -> Void) -> Void
    ) {
        if case .fail = front.failpoints.hitNow("http.beforeApply") {
            return complete(id, ErrorAnswer.injected(.notApplied))
        }
        write { result in
            if case .fail = self.front.failpoints.hitNow("http.afterApply.beforeReply") {
                return self.complete(id, ErrorAnswer.injected(.unknown))
            }
            switch result {
            case .success(let version):
                self.complete(id, request.route == .key ? .done(version) : .stored(version))
            case .failure(let failure): self.complete(id, self.answer(to: failure))
            }
        }
    }

    func write(
        _ key: StoredKey, _ envelope: Envelope, if precondition: Precondition, _ consistency: Consistency?,
        completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        if precondition.isEmpty {
            front.data.write(key, envelope, consistency, completion: completion)
        } else {
            front.data.write(key, envelope, if: precondition, consistency, completion: completion)
        }
    }

    /// What the query says of it: `consistency=strict`, `r=2`, `w=2`. Nil where it says nothing.
    func wantedConsistency(_ request: FrontRequest, isWrite: Bool) -> Result<Consistency?, Refusal> {
        // (The commonest query has one field, the key.)
        let saysMore =
            isWrite || request.route != .pair
            ? request.hasQuery : request.withQuery { FormDecoder.mayHaveSeveralFields($0) }
        if !saysMore { return .success(nil) }
        return request.withQuery { query in
            var level: Consistency.Level?
            switch FormDecoder.bytes("consistency", in: query, limit: 16) {
            case .absent: break
            case .value(let text):
                level = Consistency.Level(rawValue: String(decoding: text, as: UTF8.self))
                if level == nil { fallthrough }
            case .malformed, .tooLong: return .failure(Refusal(answer: ErrorAnswer.badConsistency))
            }
            var quorum: Int?
            switch FormDecoder.bytes(isWrite ? "w" : "r", in: query, limit: 4) {
            case .absent: break
            case .value(let text):
                quorum = Int(String(decoding: text, as: UTF8.self))
                guard let quorum, (1...Limits.replicas).contains(quorum) else { fallthrough }
            case .malformed, .tooLong: return .failure(Refusal(answer: ErrorAnswer.badQuorum))
            }
            if level == nil, quorum == nil { return .success(nil) }
            return .success(front.data.consistency(level, quorum: quorum, isWrite: isWrite))
        }
    }

    func tellOwner(_ request: FrontRequest, _ id: RequestID) {
        switch queriedKey(request) {
        case .failure(let refusal): complete(id, refusal.answer)
        case .success(let key):
            guard let holders = front.data.holders(of: key), let owner = holders.first else {
                return complete(id, withoutRing)
            }
            guard wantsAll(request) else { return complete(id, .text(owner.description)) }
            complete(id, .text(holders.map { "\($0)\n" }.joined()))
        }
    }

    private func wantsAll(_ request: FrontRequest) -> Bool {
        if case .value(let text) = request.withQuery({ FormDecoder.bytes("all", in: $0, limit: 1) }) {
            return text == [UInt8(ascii: "1")]
        }
        return false
    }

    /// What to say where the ring is needed and is not known.
    var withoutRing: Answer {
        front.data.standing == .unconfirmed ? ErrorAnswer.unconfirmedRing : ErrorAnswer.noRing
    }

    func answer(to failure: OperationFailure) -> Answer {
        if failure == .notApplied(.noRing) { return withoutRing }
        return ErrorAnswer.failure(failure)
    }

    func queriedKey(_ request: FrontRequest) -> Result<Key, Refusal> {
        HTTPFrontHandler.key(
            request.withQuery { FormDecoder.bytes("key", in: $0, limit: Limits.keyBytes) },
            tooLong: ErrorAnswer.keyTooLongInTarget)
    }

    static func key(_ field: FormDecoder.Field<[UInt8]>, absent: Answer = ErrorAnswer.noKey, tooLong: Answer)
        -> Result<Key, Refusal>
    {
        switch field {
        case .absent: return .failure(Refusal(answer: absent))
        case .malformed: return .failure(Refusal(answer: ErrorAnswer.malformedField))
        case .tooLong: return .failure(Refusal(answer: tooLong))
        case .value(let bytes): return Key(bytes).map(Result.success) ?? .failure(Refusal(answer: absent))
        }
    }
}

/// Why a request, or one operation of a batch, is not done.
package struct Refusal: Error {
    let answer: Answer
}
