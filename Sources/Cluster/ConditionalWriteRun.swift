// SPDX-License-Identifier: Apache-2.0

private import HashRing
internal import KeyValue
private import Memcached
internal import NIOCore
internal import RequestTracing

/// One client's conditional write, from its first look at the ring to its answer. Until it is sent to the decider it
/// begins again as often as the ring moves on, or another write comes between.
final class ConditionalWriteRun {
    private let coordinator: Coordinator
    private let key: StoredKey
    private var envelope: Envelope
    private let precondition: Precondition
    private let consistency: Consistency
    private let deadline: NIODeadline
    private let trace: RequestTrace?
    private let completion: (Result<Version, OperationFailure>) -> Void
    private var tries = 0
    private var contentions = 0

    init(
        _ coordinator: Coordinator, _ key: StoredKey, _ envelope: Envelope, _ precondition: Precondition,
        _ consistency: Consistency, deadline: NIODeadline, for trace: RequestTrace?,
        completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        self.coordinator = coordinator
        self.key = key
        self.envelope = envelope
        self.precondition = precondition
        self.consistency = consistency
        self.deadline = deadline
        self.trace = trace
        self.completion = completion
    }

    func begin() {
        guard let view = coordinator.view else { return waitForRing(seen: nil, .noRing) }
        guard let table = view.table else { return fail(.noRing) }
        let placement = table[key.slot]
        guard placement.writes.allSatisfy({ consistency.quorum(of: $0) <= $0.members.count }) else {
            return fail(.tooFewReplicas)
        }
        guard let decider = placement.decider else { return waitForRing(seen: view, .changingOwner) }
        Attempt(self, ConditionalWrite(placement.reads, decider: decider), placement, view, table).begin()
    }

    /// - Parameter reason: what to say where there is no news of it in time.
    private func waitForRing(seen: RingView?, _ reason: OperationFailure.Reason) {
        tries += 1
        guard tries <= Limits.ringRetries else { return fail(reason) }
        if let now = coordinator.view, now.stamp != seen?.stamp { return begin() }
        coordinator.park(until: deadline) { isLate in
            if isLate { self.fail(reason) } else { self.begin() }
        }
    }

    private func beginAfterContention() {
        contentions += 1
        guard contentions <= Limits.conditionTries else { return fail(.contended) }
        begin()
    }

    private func fail(_ reason: OperationFailure.Reason) { completion(.failure(.notApplied(reason))) }

    /// The same under one document.
    private final class Attempt {
        private let run: ConditionalWriteRun
        private var machine: ConditionalWrite
        private let placement: Placement
        private let view: RingView
        private let epoch: Epoch
        private let deadline: NIODeadline
        private var newest: Envelope?
        private var isOver = false

        init(
            _ run: ConditionalWriteRun, _ machine: ConditionalWrite, _ placement: Placement, _ view: RingView,
            _ table: RoutingTable
        ) {
            self.run = run
            self.machine = machine
            self.placement = placement
            self.view = view
            self.epoch = table.document.epoch
            self.deadline = min(run.deadline, .now() + Coordinator.countedTime)
        }

        func begin() { perform(machine.begin()) }

        private func perform(_ action: ConditionalWrite.Action) {
            guard !isOver else { return }
            switch action {
            case .ask(let nodes):
                for node in nodes {
                    send(.read(run.key), to: node) { self.perform(self.machine.received($0, from: node)) }
                }
            case .judge(let newest): judge(newest)
            case .writeBack(let envelope, to: let nodes):
                guard isCurrent else { return beginAgain() }
                for node in nodes {
                    send(.apply(run.key, envelope), to: node) { self.perform(self.machine.wroteBack($0, to: node)) }
                }
            case .decide(over: let version, at: let decider):
                send(.replace(run.key, run.envelope, over: version), to: decider) {
                    self.perform(self.machine.receivedDecision($0))
                }
            case .refuse: refuse()
            case .decided(by: let decider): spread(decider)
            case .contended: run.beginAfterContention()
            case .fail(.staleRing): beginAgain()
            case .fail(let failure): finish(failure)
            case .wait: break
            }
        }

        private func judge(_ newest: Envelope?) {
            // Under a newer document another node may decide.
            guard isCurrent else { return beginAgain() }
            if NIODeadline.now() > deadline { return finish(.notApplied(.deadline)) }
            self.newest = newest
            guard verdict == .met else { return perform(machine.refuse()) }
            let version =
                newest?.version.successor(by: .random(in: 1...Limits.successorSteps))
                ?? run.coordinator.clock.early()
            run.envelope.stamp(version)
            perform(machine.decide(on: version))
        }

        private var isCurrent: Bool { run.coordinator.view?.stamp == view.stamp }

        /// What is still under way for this attempt says nothing to the next one.
        private func beginAgain() {
            isOver = true
            run.waitForRing(seen: view, .noRing)
        }

        private func finish(_ failure: OperationFailure) {
            isOver = true
            run.completion(.failure(failure))
        }

        private var verdict: Precondition.Verdict {
            run.precondition.verdict(on: newest, atMilliseconds: run.coordinator.wallMilliseconds)
        }

        private func refuse() {
            // What was heard in time may be about a memory that has been lost and refilled since.
            if NIODeadline.now() > deadline { return finish(.notApplied(.deadline)) }
            let isGone = newest?.isGone(atMilliseconds: run.coordinator.wallMilliseconds) ?? true
            finish(.preconditionFailed(held: isGone ? .none : newest?.version ?? .none))
        }

        private func spread(_ decider: NodeID) {
            if placement.soleOwner != nil {
                if NIODeadline.now() > deadline { return run.completion(.failure(.outcomeUnknown(.deadline))) }
                return run.completion(.success(run.envelope.version))
            }
            WriteRun(
                run.coordinator, run.key, decided: run.envelope, by: decider, run.consistency, deadline: run.deadline,
                for: run.trace, completion: run.completion
            ).begin()
        }

        private func send(_ operation: Operation, to node: NodeID, completion: @escaping (Outcome) -> Void) {
            run.coordinator.send(
                operation, to: node, epoch: epoch, deadline: deadline, isMoving: placement.isMoving,
                for: run.trace, completion: completion)
        }
    }
}
