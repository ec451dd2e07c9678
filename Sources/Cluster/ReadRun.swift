// SPDX-License-Identifier: Apache-2.0

internal import HashRing
internal import KeyValue
internal import NIOCore

/// One client's read, from its first look at the ring to its answer. It begins again whenever the ring moves on.
final class ReadRun {
    private let coordinator: Coordinator
    private let slot: Slot
    private let key: StoredKey
    private let deadline: NIODeadline
    private let completion: (Result<Envelope?, OperationFailure>) -> Void
    private var tries = 0

    init(
        _ coordinator: Coordinator, _ slot: Slot, _ key: StoredKey, deadline: NIODeadline,
        completion: @escaping (Result<Envelope?, OperationFailure>) -> Void
    ) {
        self.coordinator = coordinator
        self.slot = slot
        self.key = key
        self.deadline = deadline
        self.completion = completion
    }

    func begin() {
        guard let view = coordinator.view else { return waitForRing(seen: nil) }
        guard let table = view.table else { return completion(.failure(.notApplied(.noRing))) }
        if let replica = coordinator.soleReplica(of: slot, in: table) {
            replica.send(
                Leg(.read(key), epoch: table.document.epoch, deadline: deadline) { outcome in
                    switch outcome {
                    case .record(let envelope): self.completion(.success(envelope))
                    case .failed(.staleRing): self.waitForRing(seen: view)
                    case let other: self.completion(.failure(Optional(other).asFailure.asNotApplied))
                    }
                })
        } else {
            let machine = QuorumRead(table[slot].reads)
            let first = machine.begin()
            QuorumReadRun(self, machine, view, table).perform(first)
        }
    }

    private func waitForRing(seen: RingView?) {
        tries += 1
        guard tries <= Limits.ringRetries else { return completion(.failure(.notApplied(.noRing))) }
        if let now = coordinator.view, now.stamp != seen?.stamp { return begin() }
        coordinator.park(until: deadline) { isLate in
            if isLate { self.completion(.failure(.notApplied(.noRing))) } else { self.begin() }
        }
    }

    /// The same under one document, where more than one node is to be asked.
    private final class QuorumReadRun {
        private let run: ReadRun
        private var machine: QuorumRead
        private let view: RingView
        private let epoch: Epoch

        init(_ run: ReadRun, _ machine: QuorumRead, _ view: RingView, _ table: RoutingTable) {
            self.run = run
            self.machine = machine
            self.view = view
            self.epoch = table.document.epoch
        }

        func perform(_ action: QuorumRead.Action) {
            switch action {
            case .ask(let nodes):
                for node in nodes {
                    send(.read(run.key), to: node) { self.perform(self.machine.received($0, from: node)) }
                }
            case .writeBack(let envelope, to: let nodes):
                // Under a newer document the pair may belong elsewhere: read again.
                guard run.coordinator.view?.stamp == view.stamp else { return run.waitForRing(seen: view) }
                for node in nodes {
                    send(.apply(run.key, envelope), to: node) { self.perform(self.machine.wroteBack($0, to: node)) }
                }
            case .answer(let envelope): run.completion(.success(envelope))
            case .fail(.staleRing): run.waitForRing(seen: view)
            case .fail(let failure): run.completion(.failure(failure))
            case .wait: break
            }
        }

        private func send(_ operation: Operation, to node: NodeID, completion: @escaping (Outcome) -> Void) {
            run.coordinator.send(
                operation, to: node, epoch: epoch, deadline: run.deadline, isMoving: true, completion: completion)
        }
    }
}
