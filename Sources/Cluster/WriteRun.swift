// SPDX-License-Identifier: Apache-2.0

internal import HashRing
internal import KeyValue
private import Memcached
internal import NIOCore
internal import RequestTracing

/// One client's write, from its first look at the ring to its answer. When the ring moves on it begins again, with the
/// same version once that is fixed: what may be stored anywhere is never stamped again.
final class WriteRun {
    private let coordinator: Coordinator
    private let key: StoredKey
    private var envelope: Envelope
    private let consistency: Consistency
    private let deadline: NIODeadline
    private let trace: RequestTrace?
    private let completion: (Result<Version, OperationFailure>) -> Void
    /// Chosen by this coordinator in a first phase.
    private var fixedVersion: Version?
    /// Who has decided that a conditional write is done.
    private let decider: NodeID?
    private var wasSent = false
    private var tries = 0
    /// Where newer versions were in the way and no majority answered: the newest of them.
    private var floor: Version?
    private var rounds = 0
    /// A stand-in is asked for whoever has not answered after so many times a read's patience.
    private static let patience = 6

    init(
        _ coordinator: Coordinator, _ key: StoredKey, _ envelope: Envelope, _ consistency: Consistency,
        deadline: NIODeadline, for trace: RequestTrace?,
        completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        self.coordinator = coordinator
        self.key = key
        self.envelope = envelope
        self.consistency = consistency
        self.deadline = deadline
        self.trace = trace
        self.completion = completion
        self.decider = nil
    }

    /// A record that has its version already. A majority of every group is to hold it, or a newer one.
    init(
        _ coordinator: Coordinator, _ key: StoredKey, restoring record: Envelope, deadline: NIODeadline,
        completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        self.coordinator = coordinator
        self.key = key
        self.envelope = record
        self.consistency = Consistency(.strict)
        self.deadline = deadline
        self.trace = nil
        self.completion = completion
        self.decider = nil
        self.fixedVersion = record.version
    }

    /// A conditional write that `decider` has stored: all others are to hold it, too.
    init(
        _ coordinator: Coordinator, _ key: StoredKey, decided envelope: Envelope, by decider: NodeID,
        _ consistency: Consistency, deadline: NIODeadline, for trace: RequestTrace?,
        completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        self.coordinator = coordinator
        self.key = key
        self.envelope = envelope
        self.consistency = consistency
        self.deadline = deadline
        self.trace = trace
        self.completion = completion
        self.decider = decider
        self.fixedVersion = envelope.version
        self.wasSent = true
    }

    func begin() {
        guard let view = coordinator.view else { return waitForRing(seen: nil) }
        guard let table = view.table else { return fail(.noRing) }
        if fixedVersion == nil, !wasSent, consistency.quorum ?? 1 <= 1,
            let replica = coordinator.soleReplica(of: key.slot, in: table)
        {
            replica.send(
                Leg(.stamp(key, envelope), epoch: table.document.epoch, deadline: deadline, for: trace) { outcome in
                    switch outcome {
                    case .stored(let version): self.completion(.success(version))
                    case .failed(.staleRing): self.waitForRing(seen: view)
                    case let other: self.completion(.failure(Optional(other).asFailure))
                    }
                })
            return
        }
        let placement = table[key.slot]
        if let decider, let present = placement.decider, present != decider {
            // Another node decides by now: it may have let another write follow the same version.
            return fail(.notOwner)
        }
        if placement.soleOwner == coordinator.node, view.isRecovering {
            // Its snapshot may hold a newer version than the clock's.
            return fail(.recovering)
        }
        let machine = QuorumWrite(
            placement.writes, consistency, wasSent: wasSent, above: floor,
            mayUseStandIns: placement.mayUseStandIns(in: table))
        let run = QuorumWriteRun(self, machine, view, table, isMoving: placement.isMoving)
        if let fixedVersion { run.apply(fixedVersion) } else { run.begin() }
    }

    private func waitForRing(seen: RingView?) {
        tries += 1
        guard tries <= Limits.ringRetries else { return fail(.noRing) }
        if let now = coordinator.view, now.stamp != seen?.stamp { return begin() }
        coordinator.park(until: deadline) { isLate in
            if isLate { self.fail(.noRing) } else { self.begin() }
        }
    }

    private func overtaken(_ machine: QuorumWrite) {
        rounds += 1
        guard rounds <= Limits.sloppyRounds else { return fail(.overloaded) }
        floor = machine.canBeStrict ? nil : machine.newestSeen
        begin()
    }

    private func fail(_ reason: OperationFailure.Reason) {
        completion(.failure(wasSent ? .outcomeUnknown(reason) : .notApplied(reason)))
    }

    /// The same under one document, where more than one node is to hold it.
    private final class QuorumWriteRun: PatientRun {
        private let run: WriteRun
        private var machine: QuorumWrite
        private let view: RingView
        private let epoch: Epoch
        private let isMoving: Bool
        private let deadline: NIODeadline
        private var patienceLeft = WriteRun.patience

        init(_ run: WriteRun, _ machine: QuorumWrite, _ view: RingView, _ table: RoutingTable, isMoving: Bool) {
            self.run = run
            self.machine = machine
            self.view = view
            self.epoch = table.document.epoch
            self.isMoving = isMoving
            self.deadline = min(run.deadline, .now() + Coordinator.countedTime)
        }

        func begin() { perform(machine.begin()) }

        func apply(_ version: Version) {
            run.wasSent = true
            perform(machine.begin(applying: version))
            guard machine.mayUseStandIns, !machine.isOver else { return }
            if let suspects = run.coordinator.suspects(among: machine.members) {
                perform(machine.membersAreAway(silent: suspects.silent, inTrouble: suspects.inTrouble))
            }
            run.coordinator.watch(self)
        }

        var isOver: Bool { machine.isOver }

        func patienceIsOver() {
            patienceLeft -= 1
            if patienceLeft > 0 { run.coordinator.watch(self) } else { perform(machine.isLate()) }
        }

        private func perform(_ action: QuorumWrite.Action) {
            switch action {
            case .askVersions(let nodes):
                for node in nodes {
                    send(.readVersion(run.key), to: node) {
                        self.perform(self.machine.receivedVersion($0, from: node))
                    }
                }
            case .choose(let after):
                // Under a newer document others may hold newer versions: ask again.
                guard run.coordinator.view?.stamp == view.stamp else { return run.waitForRing(seen: view) }
                let version = run.coordinator.clock.tick(after: after)
                // The clock's alone may be older than what is acknowledged already: never to be insisted upon.
                if !machine.isOptimistic { run.fixedVersion = version }
                run.envelope.stamp(version)
                apply(version)
            case .apply(_, to: let nodes):
                for node in nodes {
                    send(.apply(run.key, run.envelope), to: node) {
                        self.perform(self.machine.receivedAcknowledgement($0, from: node))
                    }
                }
            case .findStandIns:
                perform(machine.found(run.coordinator.standIns(of: run.key.slot, view)))
            case .hint(to: let nodes):
                for node in nodes {
                    run.coordinator.sendHint(
                        .apply(run.key.hint, run.envelope), to: node, epoch: epoch, deadline: deadline, for: run.trace
                    ) { self.perform(self.machine.receivedHint($0, from: node)) }
                }
            case .done(let version):
                // What was heard in time may be about a memory that has been lost and refilled since.
                if NIODeadline.now() > deadline {
                    run.completion(.failure(.outcomeUnknown(.deadline)))
                } else {
                    run.completion(.success(version))
                }
            case .overtaken: run.overtaken(machine)
            case .fail(.staleRing): run.waitForRing(seen: view)
            case .fail(let failure): run.completion(.failure(failure))
            case .wait: break
            }
        }

        private func send(_ operation: Operation, to node: NodeID, completion: @escaping (Outcome) -> Void) {
            run.coordinator.send(
                operation, to: node, epoch: epoch, deadline: deadline, isMoving: isMoving, for: run.trace,
                completion: completion)
        }
    }
}
