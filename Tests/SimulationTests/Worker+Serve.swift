// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue

/// Other nodes' batches, and one's own operations on their way to whoever holds the pair: as `Coordinator` does it.
extension Worker {
    enum Served {
        case answer(PeerBatchAnswer)
        case refused(RingDocument?)
    }

    func placement(of key: StoredKey, in table: RoutingTable, _ document: RingDocument) -> Placement {
        let placement = table[key.slot]
        guard world.has(.noCrossingReads), placement.isMoving, document.transition?.step == .crossing else {
            return placement
        }
        return Placement(reads: Array(placement.writes.prefix(1)), writes: placement.writes, isMoving: true)
    }

    func serve(_ batch: PeerBatch, _ reply: @escaping (Served) -> Void) {
        merge(batch.clock)
        serve(batch, deadline: world.now + 700 * World.millisecond, tries: 0, reply)
    }

    private func serve(_ batch: PeerBatch, deadline: Int, tries: Int, _ reply: @escaping (Served) -> Void) {
        guard let view, let table = view.table, let document = view.document,
            document.epoch == batch.epoch || world.has(.noStampCheck)
        else {
            if let view, view.stamp.epoch > batch.epoch { world.reached(.staleBatch) }
            return reply(.refused(view?.document))
        }
        let refusals = batch.operations.map { refusal(of: $0, view, table) }
        let allowed = zip(batch.operations, refusals).filter { $0.1 == nil }.map(\.0)
        guard !allowed.isEmpty else {
            return reply(.answer(answer(view, refusals.map { .failed($0 ?? .staleRing) })))
        }
        submit(allowed, deadline: deadline) { outcomes in
            if outcomes.allSatisfy({ $0 == .failed(.staleRing) }) {
                guard tries < Limits.ringRetries else { return reply(.refused(self.view?.document)) }
                if self.view?.stamp != view.stamp {
                    return self.serve(batch, deadline: deadline, tries: tries + 1, reply)
                }
                return self.park(until: deadline) { isLate in
                    if isLate { return reply(.refused(self.view?.document)) }
                    self.serve(batch, deadline: deadline, tries: tries + 1, reply)
                }
            }
            var remaining = outcomes[...]
            let all = refusals.map { refusal in refusal.map { .failed($0) } ?? remaining.removeFirst() }
            reply(.answer(self.answer(view, all)))
        }
    }

    private func refusal(of operation: KeyValue.Operation, _ view: View, _ table: RoutingTable) -> OperationFailure? {
        let placement = table[operation.key.slot]
        guard placement.involves(node) else { return .notApplied(.notOwner) }
        if case .replace = operation, !world.has(.decidesWhileCrossing), placement.decider != node {
            return .notApplied(.notOwner)
        }
        return isForgetful(of: operation, view, table) ? .notApplied(.recovering) : nil
    }

    private func isForgetful(of operation: KeyValue.Operation, _ view: View, _ table: RoutingTable) -> Bool {
        if operation.isWrite, view.acknowledgesNothing { return true }
        if case .stamp = operation, view.stamp.isRecovering { return true }
        guard operation.asksWhatIsHeld else { return false }
        if view.stamp.isRecovering, !world.has(.votesWhileRecovering) {
            world.reached(.refusedWhileRecovering)
            return true
        }
        guard table[operation.key.slot].isMoving, view.isFenced else { return false }
        world.reached(.fencedRead)
        return true
    }

    private func answer(_ view: View, _ outcomes: [Outcome]) -> PeerBatchAnswer {
        PeerBatchAnswer(
            epoch: view.stamp.epoch, generation: view.stamp.generation, clock: reading, outcomes: outcomes)
    }

    /// One operation to one replica, chosen under a document of this epoch.
    func send(
        _ operation: KeyValue.Operation, to target: NodeID, epoch: Epoch, deadline: Int,
        completion: @escaping (Outcome) -> Void
    ) {
        if target == node {
            if let view, let table = view.table, isForgetful(of: operation, view, table) {
                return completion(.failed(.notApplied(.recovering)))
            }
            return submit([operation], deadline: deadline) { completion($0[0]) }
        }
        guard view?.document?.epoch == epoch else { return completion(.failed(.staleRing)) }
        guard deadline > world.now else { return completion(.failed(.notApplied(.deadline))) }
        let mayRepeat =
            switch operation {
            case .stamp, .replace: false
            case .read, .readVersion, .heldVersion, .apply: true
            }
        sendBatch(
            PeerBatch(epoch: epoch, clock: reading, operations: [operation]), to: target,
            timeout: deadline - world.now, mayRepeat: mayRepeat
        ) { served, wasSent in
            switch served {
            case .answer(let answer): completion(answer.outcomes[0])
            case .refused: completion(.failed(.staleRing))
            case nil:
                let isUnknown = wasSent && operation.isWrite
                completion(.failed(isUnknown ? .outcomeUnknown(.nodeUnreachable) : .notApplied(.nodeUnreachable)))
            }
        }
    }

    func sendBatch(
        _ batch: PeerBatch, to target: NodeID, timeout: Int, mayRepeat: Bool,
        completion: @escaping (Served?, _ wasSent: Bool) -> Void
    ) {
        call(target, timeout: timeout, mayRepeat: mayRepeat) {
            $0.serve(batch, $1)
        } completion: { served, wasSent in
            switch served {
            case .answer(let answer): self.merge(answer.clock)
            case .refused(let theirs): self.refused(by: target, theirs)
            case nil: break
            }
            completion(served, wasSent)
        }
    }

    private func refused(by target: NodeID, _ theirs: RingDocument?) {
        guard let ours = view?.document else { return ringLooksStale() }
        if let theirs, theirs.epoch > ours.epoch {
            learn(theirs)
        } else if (theirs?.epoch ?? .none) < ours.epoch {
            tell(target)
        }
    }

    /// Lets another node know this host's document.
    func tell(_ target: NodeID) {
        guard let document else { return }
        call(target, timeout: 500 * World.millisecond, mayRepeat: true) {
            $0.exchange(document, $1)
        } completion: { (_: Exchange?, _) in
        }
    }
}
