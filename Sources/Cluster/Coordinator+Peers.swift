// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import KeyValue
private import Memcached
private import NIOCore

extension Coordinator {
    /// What becomes of another node's batch.
    package enum Served: Sendable {
        case answer(PeerBatchAnswer)
        /// The two nodes' rings differ; nothing was done. This node's own document, if it has one.
        case refused(RingDocument?)
    }

    /// Below the deadline of the node that asks, if it is configured as this one, so that it hears why.
    private var serviceTime: TimeAmount { .nanoseconds(requestTime.nanoseconds / 10 * 7) }

    /// Does another node's operations on this host's pairs, if both stand on the same document.
    package func serve(_ batch: PeerBatch, completion: @escaping (Served) -> Void) {
        clock.merge(batch.clock)
        let deadline = NIODeadline.now() + serviceTime
        guard batch.operations.contains(where: \.isHintWrite) else {
            return serve(batch, deadline: deadline, tries: 0, completion: completion)
        }
        // (A hint is stored soon after its mark, or never.)
        let hintDeadline = min(deadline, .now() + Coordinator.countedTime)
        hints.prepare { self.serve(batch, deadline: hintDeadline, tries: 0, completion: completion) }
    }

    private func serve(
        _ batch: PeerBatch, deadline: NIODeadline, tries: Int, completion: @escaping (Served) -> Void
    ) {
        guard let view, let table = view.table, table.document.epoch == batch.epoch else {
            return completion(.refused(self.view?.document))
        }
        let refusals = batch.operations.map { refusal(of: $0, view, table) }
        let allowed = zip(batch.operations, refusals).filter { $0.1 == nil }.map(\.0)
        guard !allowed.isEmpty else {
            return completion(.answer(answer(view, refusals.map { .failed($0 ?? .staleRing) })))
        }
        local.submit(allowed, deadline: deadline) { outcomes, _ in
            if outcomes.allSatisfy({ $0 == .failed(.staleRing) }) {
                // This host has moved on since; once this worker has too, it can say what to.
                guard tries < Limits.ringRetries else { return completion(.refused(self.view?.document)) }
                if self.view?.stamp != view.stamp {
                    return self.serve(batch, deadline: deadline, tries: tries + 1, completion: completion)
                }
                return self.park(until: deadline) { isLate in
                    if isLate { return completion(.refused(self.view?.document)) }
                    self.serve(batch, deadline: deadline, tries: tries + 1, completion: completion)
                }
            }
            var remaining = outcomes[...]
            let all = refusals.map { refusal in refusal.map { .failed($0) } ?? remaining.removeFirst() }
            completion(.answer(self.answer(view, all)))
        }
    }

    /// Why this node can't do the operation, though both sides stand on the same document.
    private func refusal(of operation: Operation, _ view: RingView, _ table: RoutingTable) -> OperationFailure? {
        let placement = table[operation.key.slot]
        if operation.key.isHint { return refusal(ofHint: operation, view, placement) }
        guard placement.involves(node) else { return .notApplied(.notOwner) }
        if operation.asksWhatIsHeld, view.isForgetful(isMoving: placement.isMoving) { return .notApplied(.recovering) }
        if case .replace = operation, placement.decider != node { return .notApplied(.notOwner) }
        // A version above what is held can't be told before it is known what was held.
        if case .stamp = operation, view.isRecovering { return .notApplied(.recovering) }
        if operation.isWrite, view.acknowledgesNothing { return .notApplied(.recovering) }
        if case .stamp = operation, isClockAhead { return .notApplied(.clockAhead) }
        return nil
    }

    private func answer(_ view: RingView, _ outcomes: [Outcome]) -> PeerBatchAnswer {
        PeerBatchAnswer(
            epoch: view.stamp.epoch, generation: view.stamp.generation, clock: clock.reading, outcomes: outcomes)
    }
}
