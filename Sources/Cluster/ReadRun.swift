// SPDX-License-Identifier: Apache-2.0

private import CoreMetrics
internal import HashRing
internal import KeyValue
internal import NIOCore
internal import RequestTracing

/// One client's read, from its first look at the ring to its answer. It begins again whenever the ring moves on.
struct ReadRun {
    let coordinator: Coordinator
    let slot: Slot
    let key: StoredKey
    let consistency: Consistency
    let deadline: NIODeadline
    let trace: RequestTrace?
    /// How often it may still begin.
    var triesLeft = 1 + Limits.ringRetries
    let completion: (Result<Envelope?, OperationFailure>) -> Void

    func begin() {
        guard let view = coordinator.view else { return waitForRing(seen: nil) }
        guard let table = view.table else { return completion(.failure(.notApplied(.noRing))) }
        if consistency.quorum ?? 1 <= 1, let replica = coordinator.soleReplica(of: slot, in: table) {
            replica.send(
                Leg(.read(key), epoch: table.document.epoch, deadline: deadline, for: trace) { outcome in
                    switch outcome {
                    case .record(let envelope): completion(.success(envelope))
                    case .failed(.staleRing): waitForRing(seen: view)
                    case let other: completion(.failure(Optional(other).asFailure.asNotApplied))
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
        var next = self
        next.triesLeft -= 1
        guard next.triesLeft > 0 else { return completion(.failure(.notApplied(.noRing))) }
        if let now = coordinator.view, now.stamp != seen?.stamp { return next.begin() }
        coordinator.park(until: deadline) { [next] isLate in
            if isLate { next.completion(.failure(.notApplied(.noRing))) } else { next.begin() }
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
