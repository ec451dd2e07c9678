// SPDX-License-Identifier: Apache-2.0

private import Cluster
internal import KeyValue
internal import NIOCore
private import RequestTracing

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
        CounterRun(self, key, step, consistency) { self.complete(id, $0) }.begin()
    }
}

/// One increment: reads the number and replaces it on condition that it is still the one that was read, so that of all
/// increments each counts once, whichever nodes they come through. Begins again where another one was quicker.
final class CounterRun {
    /// Of a number, with its sign.
    static let mostDigits = 20

    private let connection: HTTPFrontHandler
    private let key: Key
    private let step: Int64
    private let consistency: Consistency?
    private let completion: (Answer) -> Void
    /// For whom all of it is done.
    private let asker: RequestTrace?
    /// After this nothing is tried again.
    private let end: NIODeadline
    private var tries = 0

    /// Well within the time that a request has, so that a try that was begun can end.
    private static let patience = TimeAmount.milliseconds(500)
    /// Who was overtaken waits for up to so long, doubled with each try, up to some times as much.
    private static let pause = TimeAmount.milliseconds(1)
    private static let mostDoublings = 4

    /// - Parameter consistency: of the write.
    init(
        _ connection: HTTPFrontHandler, _ key: Key, _ step: Int64, _ consistency: Consistency?,
        completion: @escaping (Answer) -> Void
    ) {
        self.connection = connection
        self.key = key
        self.step = step
        self.consistency = consistency
        self.completion = completion
        self.asker = connection.front.data.asker
        self.end = connection.front.loop.now + CounterRun.patience
    }

    /// Nil for anything but decimal digits, with a minus sign before them or without.
    static func number(_ text: some Collection<UInt8>) -> Int64? {
        let digits = text.first == UInt8(ascii: "-") ? text.dropFirst() : text[...]
        guard !digits.isEmpty, text.count <= mostDigits, digits.allSatisfy({ (0x30...0x39).contains($0) }) else {
            return nil
        }
        return Int64(String(decoding: text, as: UTF8.self))
    }

    func begin() {
        tries += 1
        // (An older number would be found out by the condition; a read of the newest saves the try.)
        let data = connection.front.data
        data.asking(for: asker) {
            data.read(key, Consistency(.strict)) { result in
                switch result {
                case .success(let held): self.replace(held)
                case .failure(let failure): self.completion(self.connection.answer(to: failure))
                }
            }
        }
    }

    private func replace(_ held: Envelope?) {
        let data = connection.front.data
        let pair = held.flatMap { $0.isGone(atMilliseconds: data.wallMilliseconds) ? nil : $0 }
        var number: Int64 = 0
        if let pair {
            guard let found = CounterRun.number(pair.value.readableBytesView) else {
                return completion(ErrorAnswer.noNumber(pair.version))
            }
            number = found
        }
        let (sum, isTooLarge) = number.addingReportingOverflow(step)
        guard !isTooLarge else { return completion(ErrorAnswer.numberTooLarge(pair?.version)) }
        let text = ByteBuffer(string: String(sum))
        let precondition =
            pair.map { Precondition(ifMatch: .versions([$0.version])) } ?? Precondition(ifNoneMatch: .any)
        switch connection.newPair(
            key, text, contentType: pair?.contentType ?? "text/plain", expiry: pair?.expiryMilliseconds)
        {
        case .failure(let refusal): completion(refusal.answer)
        case .success(let (storedKey, envelope)):
            data.asking(for: asker) {
                data.write(storedKey, envelope, if: precondition, consistency) { result in
                    switch result {
                    case .success(let version): self.completion(Answer(.ok, .text, text, version: version))
                    case .failure(.preconditionFailed), .failure(.notApplied(.contended)): self.tryAgain()
                    case .failure(let failure): self.completion(self.connection.answer(to: failure))
                    }
                }
            }
        }
    }

    /// Another one was quicker.
    private func tryAgain() {
        let loop = connection.front.loop
        guard loop.now < end else { return completion(connection.answer(to: .notApplied(.contended))) }
        let most = CounterRun.pause.nanoseconds << min(tries, CounterRun.mostDoublings)
        loop.assumeIsolated().scheduleTask(in: .nanoseconds(.random(in: 0...most))) { self.begin() }
    }
}
