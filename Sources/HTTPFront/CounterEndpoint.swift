// SPDX-License-Identifier: Apache-2.0

private import Cluster
internal import KeyValue
internal import NIOCore

/// `POST /keys/{key}:increment`: a pair whose value is a whole number in decimal digits, as a counter.
extension HTTPFrontHandler {
    private static let suffix = ":increment"

    func incrementKey(_ request: FrontRequest, _ id: RequestID) {
        var rest = request.pathRest(after: RouteTable.keyPrefix)
        guard rest.hasSuffix(HTTPFrontHandler.suffix) else {
            return complete(id, ErrorAnswer.wrongMethod(Route.key.methods.subtracting(.post)))
        }
        rest.removeLast(HTTPFrontHandler.suffix.count)
        let key: Key
        switch HTTPFrontHandler.key(named: rest) {
        case .success(let found): key = found
        case .failure(let refusal): return complete(id, refusal.answer)
        }
        queue.note(slot: key.slot, of: id)
        guard request.precondition.isEmpty else { return complete(id, ErrorAnswer.preconditionOnCounter) }
        let step: Int64
        switch request.withQuery({ FormDecoder.bytes("by", in: $0, limit: CounterRun.mostDigits) }) {
        case .absent: step = 1
        case .value(let text):
            guard let number = CounterRun.number(text) else { fallthrough }
            step = number
        case .malformed, .tooLong: return complete(id, ErrorAnswer.badStep)
        }
        let consistency: Consistency?
        switch wantedConsistency(request, isWrite: true) {
        case .success(let found): consistency = found
        case .failure(let refusal): return complete(id, refusal.answer)
        }
        if front.data.standing == .none { return complete(id, ErrorAnswer.noRing) }
        CounterRun(connection: self, key: key, step: step, consistency: consistency).begin { self.complete(id, $0) }
    }
}

/// One increment: each counts once, whichever nodes it comes through (`PairUpdate`).
struct CounterRun {
    /// Of a number, with its sign.
    static let mostDigits = 20

    let connection: HTTPFrontHandler
    let key: Key
    let step: Int64
    /// Of the write.
    let consistency: Consistency?

    /// Nil for anything but decimal digits, with a minus sign before them or without.
    static func number(_ text: some Collection<UInt8>) -> Int64? {
        let digits = text.first == UInt8(ascii: "-") ? text.dropFirst() : text[...]
        guard !digits.isEmpty, text.count <= mostDigits, digits.allSatisfy({ (0x30...0x39).contains($0) }) else {
            return nil
        }
        return Int64(String(decoding: text, as: UTF8.self))
    }

    func begin(completion: @escaping (Answer) -> Void) {
        let front = connection.front
        PairUpdate<Answer>(front.data, on: front.loop, key, consistency, decide: decide) { end in
            switch end {
            case .written(let version, let pair): completion(Answer(.ok, .text, pair.value, version: version))
            case .refused(let answer): completion(answer)
            case .failed(let failure): completion(connection.answer(to: failure))
            }
        }.begin()
    }

    private func decide(_ pair: Envelope?) -> PairUpdate<Answer>.Decision {
        var number: Int64 = 0
        if let pair {
            guard let found = CounterRun.number(pair.value.readableBytesView) else {
                return .refuse(ErrorAnswer.noNumber(pair.version))
            }
            number = found
        }
        let (sum, isTooLarge) = number.addingReportingOverflow(step)
        guard !isTooLarge else { return .refuse(ErrorAnswer.numberTooLarge(pair?.version)) }
        switch connection.newPair(
            key, ByteBuffer(string: String(sum)), contentType: pair?.contentType ?? "text/plain",
            expiry: pair?.expiryMilliseconds, clientFlags: pair?.clientFlags ?? 0)
        {
        case .success(let (storedKey, envelope)): return .replace(storedKey, envelope)
        case .failure(let refusal): return .refuse(refusal.answer)
        }
    }
}
