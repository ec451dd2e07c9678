// SPDX-License-Identifier: Apache-2.0

package import KeyValue
package import NIOCore
private import RequestTracing

/// A change of a pair that rests on what it is: reads the pair and replaces it on condition that it is still the one
/// that was read, so that of all such changes each counts once, whichever nodes they come through. Begins again where
/// another one was quicker, for a bounded time.
package final class PairUpdate<Refusal> {
    package enum Decision {
        /// Store this, without a version, in the place of what was read.
        case replace(StoredKey, Envelope)
        /// Leave the pair as it is.
        case refuse(Refusal)
    }

    package enum End {
        case written(Version, Envelope)
        case refused(Refusal)
        /// `contended` where others were quicker each time.
        case failed(OperationFailure)
    }

    private let store: any PairStore
    private let loop: any EventLoop
    private let key: Key
    private let consistency: Consistency?
    private let decide: (Envelope?) -> Decision
    private let completion: (End) -> Void
    /// For whom all of it is done.
    private let asker: RequestTrace?
    /// After this nothing is tried again.
    private let end: NIODeadline
    private var tries = 0

    /// Well within the time that a request has, so that a try that was begun can end.
    private static var patience: TimeAmount { .milliseconds(500) }
    /// Who was overtaken waits for up to so long, doubled with each try, up to some times as much.
    private static var pause: TimeAmount { .milliseconds(1) }
    private static var mostDoublings: Int { 4 }

    /// - Parameters:
    ///   - consistency: of the write.
    ///   - decide: is given the pair, nil where there is none, or it is gone; may be asked several times.
    package init(
        _ store: any PairStore, on loop: any EventLoop, _ key: Key, _ consistency: Consistency?,
        decide: @escaping (Envelope?) -> Decision, completion: @escaping (End) -> Void
    ) {
        self.store = store
        self.loop = loop
        self.key = key
        self.consistency = consistency
        self.decide = decide
        self.completion = completion
        self.asker = store.asker
        self.end = loop.now + PairUpdate.patience
    }

    package func begin() {
        tries += 1
        // (An older pair would be found out by the condition; a read of the newest saves the try.)
        store.asking(for: asker) {
            store.read(key, Consistency(.strict)) { result in
                switch result {
                case .success(let held): self.replace(held)
                case .failure(let failure): self.completion(.failed(failure))
                }
            }
        }
    }

    private func replace(_ held: Envelope?) {
        let pair = held.flatMap { $0.isGone(atMilliseconds: store.wallMilliseconds) ? nil : $0 }
        switch decide(pair) {
        case .refuse(let refusal): completion(.refused(refusal))
        case .replace(let storedKey, let envelope):
            let precondition =
                pair.map { Precondition(ifMatch: .versions([$0.version])) } ?? Precondition(ifNoneMatch: .any)
            store.asking(for: asker) {
                store.write(storedKey, envelope, if: precondition, consistency) { result in
                    switch result {
                    case .success(let version): self.completion(.written(version, envelope))
                    case .failure(.preconditionFailed), .failure(.notApplied(.contended)): self.tryAgain()
                    case .failure(let failure): self.completion(.failed(failure))
                    }
                }
            }
        }
    }

    /// Another one was quicker.
    private func tryAgain() {
        guard loop.now < end else { return completion(.failed(.notApplied(.contended))) }
        let most = PairUpdate.pause.nanoseconds << min(tries, PairUpdate.mostDoublings)
        loop.assumeIsolated().scheduleTask(in: .nanoseconds(.random(in: 0...most))) { self.begin() }
    }
}
