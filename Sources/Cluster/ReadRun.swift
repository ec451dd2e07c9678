// SPDX-License-Identifier: Apache-2.0

private import CoreMetrics
internal import HashRing
internal import KeyValue
internal import NIOCore
internal import RequestTracing

/// One client's read, from its first look at the ring to its answer. It begins again whenever the ring moves on.
final class ReadRun {
    private let coordinator: Coordinator
    private let slot: Slot
    private let key: StoredKey
    private let consistency: Consistency
    private let deadline: NIODeadline
    private let trace: RequestTrace?
    private let completion: (Result<Envelope?, OperationFailure>) -> Void
    private var tries = 0

    init(
        _ coordinator: Coordinator, _ slot: Slot, _ key: StoredKey, _ consistency: Consistency, deadline: NIODeadline,
        for trace: RequestTrace?, completion: @escaping (Result<Envelope?, OperationFailure>) -> Void
    ) {
        self.coordinator = coordinator
        self.slot = slot
        self.key = key
        self.consistency = consistency
        self.deadline = deadline
        self.trace = trace
        self.completion = completion
    }

    func begin() {
        guard let view = coordinator.view else { return waitForRing(seen: nil) }
        guard let table = view.table else { return completion(.failure(.notApplied(.noRing))) }
        if consistency.quorum ?? 1 <= 1, let replica = coordinator.soleReplica(of: slot, in: table) {
            replica.send(
                Leg(.read(key), epoch: table.document.epoch, deadline: deadline, for: trace) { outcome in
                    switch outcome {
                    case .record(let envelope): self.completion(.success(envelope))
                    case .failed(.staleRing): self.waitForRing(seen: view)
                    case let other: self.completion(.failure(Optional(other).asFailure.asNotApplied))
                    }
                })
        } else {
            let placement = table[slot]
            let machine = QuorumRead(
                placement.reads, consistency, mayUseStandIns: placement.mayUseStandIns(in: table),
                rank: coordinator.rank(of:))
            QuorumReadRun(self, machine, view, table, isMoving: placement.isMoving).begin()
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
    private final class QuorumReadRun: PatientRun {
        private let run: ReadRun
        private var machine: QuorumRead
        private let view: RingView
        private let epoch: Epoch
        private let isMoving: Bool
        private let deadline: NIODeadline
        private(set) var isOver = false
        private var timesLate = 0
        /// Members that have not answered after so many times a read's patience are away.
        private static let patience = 4

        init(_ run: ReadRun, _ machine: QuorumRead, _ view: RingView, _ table: RoutingTable, isMoving: Bool) {
            self.run = run
            self.machine = machine
            self.view = view
            self.epoch = table.document.epoch
            self.isMoving = isMoving
            self.deadline = min(run.deadline, .now() + Coordinator.countedTime)
        }

        func begin() {
            perform(machine.begin())
            if !isOver, machine.mayUseStandIns, let suspects = run.coordinator.suspects(among: machine.members) {
                perform(machine.membersAreAway(suspects.silent.union(suspects.inTrouble)))
            }
            if !isOver { run.coordinator.watch(self) }
        }

        func patienceIsOver() {
            timesLate += 1
            if timesLate == 1 { perform(machine.isLate()) }
            if timesLate >= QuorumReadRun.patience { perform(machine.isVeryLate()) }
            if !isOver, machine.mayUseStandIns { run.coordinator.watch(self) }
        }

        private func perform(_ action: QuorumRead.Action) {
            switch action {
            case .ask(let nodes):
                for node in nodes {
                    send(.read(run.key), to: node) { self.perform(self.machine.received($0, from: node)) }
                }
            case .findStandIns:
                perform(machine.found(run.coordinator.standIns(of: run.slot, view)))
            case .askForHints(let nodes):
                for node in nodes {
                    run.coordinator.sendHint(
                        .read(run.key.hint), to: node, epoch: epoch, deadline: deadline, for: run.trace
                    ) { self.perform(self.machine.receivedHint($0, from: node)) }
                }
            case .writeBack(let envelope, to: let nodes):
                // Under a newer document the pair may belong elsewhere: read again.
                guard run.coordinator.view?.stamp == view.stamp else { return beginAgain() }
                run.coordinator.metrics.writeBacks.increment(by: nodes.count)
                for node in nodes {
                    send(.apply(run.key, envelope), to: node) { self.perform(self.machine.wroteBack($0, to: node)) }
                }
            case .answer(let envelope, repairing: let nodes):
                finish(.success(envelope))
                if let envelope { repair(nodes, envelope) }
            case .fail(.staleRing): beginAgain()
            case .fail(let failure): finish(.failure(failure))
            case .wait: break
            }
        }

        private func finish(_ result: Result<Envelope?, OperationFailure>) {
            guard !isOver else { return }
            isOver = true
            // What was heard in time may be about a memory that has been lost and refilled since.
            if NIODeadline.now() > deadline { return run.completion(.failure(.notApplied(.deadline))) }
            run.completion(result)
        }

        private func beginAgain() {
            guard !isOver else { return }
            isOver = true
            run.waitForRing(seen: view)
        }

        /// Read repair: in the background, for the answer does not depend on it.
        private func repair(_ nodes: [NodeID], _ envelope: Envelope) {
            guard !nodes.isEmpty, run.coordinator.view?.stamp == view.stamp else { return }
            run.coordinator.metrics.readRepairs.increment(by: nodes.count)
            for node in nodes { send(.apply(run.key, envelope), to: node) { _ in } }
        }

        private func send(_ operation: Operation, to node: NodeID, completion: @escaping (Outcome) -> Void) {
            run.coordinator.send(
                operation, to: node, epoch: epoch, deadline: deadline, isMoving: isMoving, for: run.trace,
                completion: completion)
        }
    }
}
