// SPDX-License-Identifier: Apache-2.0

private import Cluster
private import HashRing
private import KeyValue
private import NIOCore

/// Pairs: `/route`, `/cache`, `/route_test`. On the event loop, without waiting.
extension HTTPFrontHandler {
    func readPair(_ request: FrontRequest, _ id: RequestID, here: Bool) {
        let key: Key
        switch queriedKey(request) {
        case .success(let found): key = found
        case .failure(let refusal): return complete(id, refusal.answer)
        }
        if front.isFull { return complete(id, ErrorAnswer.overloaded) }
        let completion = { (result: Result<Envelope?, OperationFailure>) in
            switch result {
            case .success(let envelope?) where !envelope.isGone(atMilliseconds: self.front.data.wallMilliseconds):
                self.complete(id, self.answer(with: envelope, if: request.precondition))
            case .success: self.complete(id, ErrorAnswer.missing)
            case .failure(let failure): self.complete(id, self.answer(to: failure))
            }
        }
        if here { return front.data.readHere(key, completion: completion) }
        if front.data.standing == .none { return complete(id, ErrorAnswer.noRing) }
        switch wantedConsistency(request, isWrite: false) {
        case .success(let consistency): front.data.read(key, consistency, completion: completion)
        case .failure(let refusal): complete(id, refusal.answer)
        }
    }

    private func answer(with envelope: Envelope, if precondition: Precondition) -> Answer {
        switch precondition.verdict(on: envelope, atMilliseconds: front.data.wallMilliseconds) {
        case .met: .found(envelope)
        case .ifMatchFailed: ErrorAnswer.preconditionFailed(envelope.version)
        case .ifNoneMatchFailed: .notModified(envelope.version)
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
        let expiry: UInt64?
        switch request.body.withUnsafeReadableBytes({ FormDecoder.bytes("ttl", in: $0, limit: 16) }) {
        case .absent: expiry = nil
        case .value(let text):
            guard let seconds = HTTPFrontHandler.timeToLive(text) else {
                return complete(id, ErrorAnswer.badTimeToLive)
            }
            expiry = front.data.wallMilliseconds + seconds * 1000
        case .malformed, .tooLong: return complete(id, ErrorAnswer.badTimeToLive)
        }
        let storedKey = StoredKey(key)
        let limit = front.data.valueLimit(for: storedKey, of: key)
        guard value.readableBytes <= limit else { return complete(id, ErrorAnswer.valueTooLarge(limit)) }
        if !here, front.data.standing == .none { return complete(id, ErrorAnswer.noRing) }
        let envelope = Envelope(key: key, storedKey: storedKey, value: value, expiryMilliseconds: expiry)
        store(storedKey, envelope, request, id, here: here)
    }

    /// Stores that the pair is gone, whether there was one or not: an older copy may be anywhere.
    func deletePair(_ request: FrontRequest, _ id: RequestID, here: Bool) {
        let key: Key
        switch queriedKey(request) {
        case .success(let found): key = found
        case .failure(let refusal): return complete(id, refusal.answer)
        }
        if !here, front.data.standing == .none { return complete(id, ErrorAnswer.noRing) }
        let storedKey = StoredKey(key)
        // A conditional write's version may be of long ago, and does not tell how long its tombstone is needed.
        let keptUntil =
            request.precondition.isEmpty
            ? nil : front.data.wallMilliseconds + UInt64(Limits.tombstoneSeconds) * 1000
        let tombstone = Envelope(
            key: key, storedKey: storedKey, value: ByteBuffer(), isTombstone: true, expiryMilliseconds: keptUntil)
        store(storedKey, tombstone, request, id, here: here)
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
        if case .fail = front.failpoints.hitNow("http.beforeApply") {
            return complete(id, ErrorAnswer.injected(.notApplied))
        }
        let completion = { (result: Result<Version, OperationFailure>) in
            if case .fail = self.front.failpoints.hitNow("http.afterApply.beforeReply") {
                return self.complete(id, ErrorAnswer.injected(.unknown))
            }
            switch result {
            case .success(let version): self.complete(id, .stored(version))
            case .failure(let failure): self.complete(id, self.answer(to: failure))
            }
        }
        if here {
            front.data.writeHere(key, envelope, completion: completion)
        } else if !request.precondition.isEmpty {
            front.data.write(key, envelope, if: request.precondition, consistency, completion: completion)
        } else {
            front.data.write(key, envelope, consistency, completion: completion)
        }
    }

    /// What the query says of it: `consistency=strict`, `r=2`, `w=2`. Nil where it says nothing.
    private func wantedConsistency(_ request: FrontRequest, isWrite: Bool) -> Result<Consistency?, Refusal> {
        request.withQuery { query in
            // (The commonest query has one field, the key.)
            guard isWrite ? !query.isEmpty : query.contains(UInt8(ascii: "&")) else { return .success(nil) }
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

    private func answer(to failure: OperationFailure) -> Answer {
        if failure == .notApplied(.noRing) { return withoutRing }
        return ErrorAnswer.failure(failure)
    }

    private func queriedKey(_ request: FrontRequest) -> Result<Key, Refusal> {
        HTTPFrontHandler.key(
            request.withQuery { FormDecoder.bytes("key", in: $0, limit: Limits.keyBytes) },
            tooLong: ErrorAnswer.keyTooLongInTarget)
    }

    /// Why a request names no key that can be used.
    private struct Refusal: Error {
        let answer: Answer
    }

    private static func key(_ field: FormDecoder.Field<[UInt8]>, tooLong: Answer) -> Result<Key, Refusal> {
        switch field {
        case .absent: return .failure(Refusal(answer: ErrorAnswer.noKey))
        case .malformed: return .failure(Refusal(answer: ErrorAnswer.malformedField))
        case .tooLong: return .failure(Refusal(answer: tooLong))
        case .value(let bytes): return Key(bytes).map(Result.success) ?? .failure(Refusal(answer: ErrorAnswer.noKey))
        }
    }
}
