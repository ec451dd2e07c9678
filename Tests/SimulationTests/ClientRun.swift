// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import NIOCore

/// One client's operation at the worker that coordinates it: `ReadRun` and `WriteRun` around the real quorum machines.
final class ClientRun {
    private let worker: Worker
    private let world: World
    private let key: StoredKey
    private let id: Int
    private let deadline: Int
    private let completion: () -> Void
    /// What to write; nil for a read.
    private var envelope: Envelope?
    private var fixedVersion: Version?
    private var wasSent = false
    private var tries = 0

    /// - Parameter completion: called once; never where the worker dies.
    init(_ worker: Worker, _ key: StoredKey, id: Int, envelope: Envelope?, completion: @escaping () -> Void) {
        self.worker = worker
        self.world = worker.world
        self.key = key
        self.id = id
        self.envelope = envelope
        self.deadline = worker.world.now + 940 * World.millisecond
        self.completion = completion
    }

    func begin() {
        guard let view = worker.view else { return waitForRing(seen: nil) }
        guard let table = view.table, let document = view.document else { return fail(.notApplied(.noRing)) }
        let placement = worker.placement(of: key, in: table, document)
        if let envelope {
            if fixedVersion == nil, let owner = placement.soleOwner {
                return stamp(envelope, at: owner, view)
            }
            write(QuorumWrite(placement.writes, wasSent: wasSent), view)
        } else if let owner = placement.soleOwner {
            worker.send(.read(key), to: owner, epoch: document.epoch, deadline: deadline) { outcome in
                switch outcome {
                case .record(let envelope): self.answer(envelope)
                case .failed(.staleRing): self.waitForRing(seen: view)
                default: self.fail(.notApplied(.deadline))
                }
            }
        } else {
            read(QuorumRead(placement.reads), view)
        }
    }

    private func waitForRing(seen: Worker.View?) {
        tries += 1
        guard tries <= Limits.ringRetries else { return failWaiting() }
        if let now = worker.view, now.stamp != seen?.stamp { return begin() }
        worker.park(until: deadline) { isLate in
            if isLate { self.failWaiting() } else { self.begin() }
        }
    }

    private func failWaiting() { fail(wasSent ? .outcomeUnknown(.noRing) : .notApplied(.noRing)) }

    private func fail(_ failure: OperationFailure) {
        let isUnknown = if case .outcomeUnknown = failure { envelope != nil } else { false }
        world.history.ended(id, at: world.now, isUnknown ? .unknown : .notApplied)
        completion()
    }

    private func stored(_ version: Version) {
        world.history.ended(id, at: world.now, .ok, version: version)
        completion()
    }

    private func answer(_ envelope: Envelope?) {
        let value = envelope.flatMap { self.value(of: $0) } ?? 0
        world.history.ended(id, at: world.now, .ok, value: value, version: envelope?.version ?? Version.none)
        completion()
    }

    /// Values travel as content types, which tombstones have too.
    private func value(of envelope: Envelope) -> Int? { envelope.contentType.flatMap { Int($0) } }

    private func stamp(_ envelope: Envelope, at owner: NodeID, _ view: Worker.View) {
        worker.send(.stamp(key, envelope), to: owner, epoch: view.stamp.epoch, deadline: deadline) { outcome in
            switch outcome {
            case .stored(let version): self.stored(version)
            case .failed(.staleRing): self.waitForRing(seen: view)
            case .failed(.outcomeUnknown) where self.world.has(.resendsStamps) && self.tries < 3:
                self.tries += 1
                self.begin()
            case .failed(let failure): self.fail(failure)
            default: self.fail(.outcomeUnknown(.protocolViolation))
            }
        }
    }

    // MARK: Reading both sides

    private func read(_ machine: QuorumRead, _ view: Worker.View) {
        var machine = machine
        func perform(_ action: QuorumRead.Action) {
            switch action {
            case .ask(let nodes):
                for node in nodes {
                    worker.send(.read(key), to: node, epoch: view.stamp.epoch, deadline: deadline) {
                        perform(machine.received($0, from: node))
                    }
                }
            case .writeBack(let envelope, to: let nodes):
                if world.has(.noWriteBack) { return answer(envelope) }
                guard worker.view?.stamp == view.stamp else { return waitForRing(seen: view) }
                world.reached(.wroteBack)
                for node in nodes {
                    worker.send(.apply(key, envelope), to: node, epoch: view.stamp.epoch, deadline: deadline) {
                        perform(machine.wroteBack($0, to: node))
                    }
                }
            case .answer(let envelope): answer(envelope)
            case .fail(.staleRing): waitForRing(seen: view)
            case .fail(let failure): fail(failure)
            case .wait: break
            }
        }
        perform(machine.begin())
    }

    // MARK: Writing both sides

    private func write(_ machine: QuorumWrite, _ view: Worker.View) {
        var machine = machine
        func apply(_ version: Version) {
            wasSent = true
            perform(machine.begin(applying: version))
        }
        func choose(after: Version) {
            guard worker.view?.stamp == view.stamp else { return waitForRing(seen: view) }
            let version = worker.tick(after: after)
            fixedVersion = version
            envelope?.stamp(version)
            apply(version)
        }
        func perform(_ action: QuorumWrite.Action) {
            switch action {
            case .askVersions(let nodes):
                for node in nodes {
                    worker.send(.readVersion(key), to: node, epoch: view.stamp.epoch, deadline: deadline) {
                        perform(machine.received($0, from: node))
                    }
                }
            case .choose(let after): choose(after: after)
            case .apply(_, to: let nodes):
                guard let envelope else { return }
                for node in nodes {
                    worker.send(.apply(key, envelope), to: node, epoch: view.stamp.epoch, deadline: deadline) {
                        perform(machine.received($0, from: node))
                    }
                }
            case .done(let version): stored(version)
            case .fail(.staleRing):
                if world.has(.stampsTwice) {
                    fixedVersion = nil
                } else if fixedVersion != nil {
                    world.reached(.keptVersion)
                }
                waitForRing(seen: view)
            case .fail(let failure): fail(failure)
            case .wait: break
            }
        }
        if let fixedVersion {
            apply(fixedVersion)
        } else if world.has(.noFirstPhase) {
            choose(after: .none)
        } else {
            perform(machine.begin())
        }
    }
}
