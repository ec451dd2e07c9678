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
            case .success(let envelope?) where !envelope.isTombstone: self.complete(id, .found(envelope))
            case .success: self.complete(id, ErrorAnswer.missing)
            case .failure(let failure): self.complete(id, self.answer(to: failure))
            }
        }
        if here { return front.data.readHere(key, completion: completion) }
        if front.data.standing == .none { return complete(id, ErrorAnswer.noRing) }
        front.data.read(key, completion: completion)
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
        let storedKey = StoredKey(key)
        let limit = front.data.valueLimit(for: storedKey, of: key)
        guard value.readableBytes <= limit else { return complete(id, ErrorAnswer.valueTooLarge(limit)) }
        if !here, front.data.standing == .none { return complete(id, ErrorAnswer.noRing) }
        store(storedKey, Envelope(key: key, storedKey: storedKey, value: value), id, here: here)
    }

    private func store(_ key: StoredKey, _ envelope: Envelope, _ id: RequestID, here: Bool) {
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
        } else {
            front.data.write(key, envelope, completion: completion)
        }
    }

    func tellOwner(_ request: FrontRequest, _ id: RequestID) {
        switch queriedKey(request) {
        case .failure(let refusal): complete(id, refusal.answer)
        case .success(let key):
            guard let owner = front.data.holders(of: key)?.first else { return complete(id, withoutRing) }
            complete(id, .text(owner.description))
        }
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
