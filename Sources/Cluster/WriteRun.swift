// SPDX-License-Identifier: Apache-2.0

private import HashRing
internal import KeyValue
private import Memcached
internal import NIOCore

/// One client's write, from its first look at the ring to its answer. When the ring moves on it begins again, with the
/// same version once that is fixed: what may be stored anywhere is never stamped again.
final class WriteRun {
    private let coordinator: Coordinator
    private let key: StoredKey
    private var envelope: Envelope
    private let deadline: NIODeadline
    private let completion: (Result<Version, OperationFailure>) -> Void
    /// Chosen by this coordinator in a first phase.
    private var fixedVersion: Version?
    private var wasSent = false
    private var tries = 0

    init(
        _ coordinator: Coordinator, _ key: StoredKey, _ envelope: Envelope, deadline: NIODeadline,
        completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        self.coordinator = coordinator
        self.key = key
        self.envelope = envelope
        self.deadline = deadline
        self.completion = completion
    }

    func begin() {
        guard let view = coordinator.view else { return waitForRing(seen: nil) }
        guard let table = view.table else { return fail(.noRing) }
        if fixedVersion == nil, let replica = coordinator.soleReplica(of: key.slot, in: table) {
            replica.send(
                Leg(.stamp(key, envelope), epoch: table.document.epoch, deadline: deadline) { outcome in
                    switch outcome {
                    case .stored(let version): self.completion(.success(version))
                    case .failed(.staleRing): self.waitForRing(seen: view)
                    case let other: self.completion(.failure(Optional(other).asFailure))
                    }
                })
            return
        }
        let run = QuorumWriteRun(
            self, QuorumWrite(table[key.slot].writes, wasSent: wasSent), view, table)
        if let fixedVersion { run.apply(fixedVersion) } else { run.askVersions() }
    }

    private func waitForRing(seen: RingView?) {
        tries += 1
        guard tries <= Limits.ringRetries else { return fail(.noRing) }
        if let now = coordinator.view, now.stamp != seen?.stamp { return begin() }
        coordinator.park(until: deadline) { isLate in
            if isLate { self.fail(.noRing) } else { self.begin() }
        }
    }

    private func fail(_ reason: OperationFailure.Reason) {
        completion(.failure(wasSent ? .outcomeUnknown(reason) : .notApplied(reason)))
    }

    /// The same under one document, in two phases.
    private final class QuorumWriteRun {
        private let run: WriteRun
        private var machine: QuorumWrite
        private let view: RingView
        private let epoch: Epoch

        init(_ run: WriteRun, _ machine: QuorumWrite, _ view: RingView, _ table: RoutingTable) {
            self.run = run
            self.machine = machine
            self.view = view
            self.epoch = table.document.epoch
        }

        func askVersions() { perform(machine.begin()) }

        func apply(_ version: Version) {
            run.wasSent = true
            perform(machine.begin(applying: version))
        }

        private func perform(_ action: QuorumWrite.Action) {
            switch action {
            case .askVersions(let nodes):
                for node in nodes {
                    send(.readVersion(run.key), to: node) { self.perform(self.machine.received($0, from: node)) }
                }
            case .choose(let after):
                // Under a newer document others may hold newer versions: ask again.
                guard run.coordinator.view?.stamp == view.stamp else { return run.waitForRing(seen: view) }
                let version = run.coordinator.clock.tick(after: after)
                run.fixedVersion = version
                run.envelope.stamp(version)
                apply(version)
            case .apply(_, to: let nodes):
                for node in nodes {
                    send(.apply(run.key, run.envelope), to: node) {
                        self.perform(self.machine.received($0, from: node))
                    }
                }
            case .done(let version): run.completion(.success(version))
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
