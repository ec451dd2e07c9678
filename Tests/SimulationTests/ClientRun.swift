// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import NIOCore
import TestSupport

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
    /// Of a conditional write: the version that it is to replace.
    private let condition: Version?
    /// Who has decided that it is done.
    private var decider: NodeID?
    private var contentions = 0
    private var wasSent = false
    private var tries = 0

    /// - Parameter completion: called once; never where the worker dies.
    init(
        _ worker: Worker, _ key: StoredKey, id: Int, envelope: Envelope?, over condition: Version? = nil,
        completion: @escaping () -> Void
    ) {
        self.condition = condition
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
            if let condition, fixedVersion == nil { return decide(condition, placement, view) }
            if let decider, let present = placement.decider, present != decider {
                return fail(.outcomeUnknown(.notOwner))
            }
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
        let isUnknown =
            switch failure {
            case .outcomeUnknown, .tooFewHold: envelope != nil
            case .notApplied, .staleRing, .preconditionFailed: false
            }
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

    // MARK: Deciding on a condition

    private func decide(_ condition: Version, _ placement: Placement, _ view: Worker.View) {
        let either = placement.reads.map { $0.members.first }
        let crossing = world.has(.decidesWhileCrossing) ? either[world.random.pick(0...either.count - 1)] : nil
        guard let decider = placement.decider ?? crossing else {
            world.reached(.noDecider)
            return waitForRing(seen: view)
        }
        var machine = ConditionalWrite(placement.reads, decider: decider)
        let counted = world.now + Limits.countedMilliseconds * World.millisecond
        func send(_ operation: KeyValue.Operation, to node: NodeID, _ next: @escaping (Outcome) -> Void) {
            worker.send(operation, to: node, epoch: view.stamp.epoch, deadline: deadline, completion: next)
        }
        func judge(_ newest: Envelope?) {
            guard worker.view?.stamp == view.stamp else { return waitForRing(seen: view) }
            if world.now > counted { return fail(.notApplied(.deadline)) }
            guard newest?.version ?? .none == condition else { return perform(machine.refuse()) }
            // (Few steps, so that two often draw the same one.)
            let version = newest?.version.successor(by: UInt32(world.random.pick(1...3))) ?? worker.early()
            envelope?.stamp(version)
            perform(machine.decide(on: version))
        }
        func perform(_ action: ConditionalWrite.Action) {
            switch action {
            case .ask(let nodes):
                for node in nodes { send(.read(key), to: node) { perform(machine.received($0, from: node)) } }
            case .judge(let newest): judge(newest)
            case .writeBack(let newest, to: let nodes):
                guard worker.view?.stamp == view.stamp else { return waitForRing(seen: view) }
                for node in nodes {
                    send(.apply(key, newest), to: node) { perform(machine.wroteBack($0, to: node)) }
                }
            case .decide(over: let version, at: let decider):
                guard let envelope else { return }
                send(.replace(key, envelope, over: version), to: decider) { perform(machine.receivedDecision($0)) }
            case .refuse:
                world.reached(.conditionNotMet)
                fail(.notApplied(.contended))
            case .decided(by: let node):
                world.reached(.conditionMet)
                decided(by: node, isAlone: placement.soleOwner != nil, isLate: world.now > counted)
            case .contended:
                world.reached(.conditionContended)
                contentions += 1
                if contentions > Limits.conditionTries { fail(.notApplied(.contended)) } else { begin() }
            case .fail(.staleRing): waitForRing(seen: view)
            case .fail(let failure): fail(failure)
            case .wait: break
            }
        }
        perform(machine.begin())
    }

    private func decided(by node: NodeID, isAlone: Bool, isLate: Bool) {
        guard let version = envelope?.version else { return }
        if isAlone { return isLate ? fail(.outcomeUnknown(.deadline)) : stored(version) }
        decider = node
        fixedVersion = version
        wasSent = true
        begin()
    }

    // MARK: Reading both sides

    private func read(_ machine: QuorumRead, _ view: Worker.View) {
        var machine = machine
        let counted = world.now + Limits.countedMilliseconds * World.millisecond
        func perform(_ action: QuorumRead.Action) {
            switch action {
            case .ask(let nodes):
                for node in nodes {
                    worker.send(.read(key), to: node, epoch: view.stamp.epoch, deadline: deadline) {
                        perform(machine.received($0, from: node))
                    }
                }
            case .writeBack(let envelope, to: let nodes):
                if world.has(.noWriteBack) || world.has(.noQuorumWriteBack) { return answer(envelope) }
                guard worker.view?.stamp == view.stamp else { return waitForRing(seen: view) }
                world.reached(.wroteBack)
                for node in nodes {
                    worker.send(.apply(key, envelope), to: node, epoch: view.stamp.epoch, deadline: deadline) {
                        perform(machine.wroteBack($0, to: node))
                    }
                }
            case .findStandIns, .askForHints: preconditionFailure("strict reads ask their members alone")
            case .answer(let envelope, repairing: _):
                if world.now > counted { fail(.notApplied(.deadline)) } else { answer(envelope) }
            case .fail(.staleRing): waitForRing(seen: view)
            case .fail(let failure): fail(failure)
            case .wait: break
            }
        }
        perform(machine.begin())
        worker.after(50 * World.millisecond) { perform(machine.isLate()) }
    }

    // MARK: Writing both sides

    private func write(_ machine: QuorumWrite, _ view: Worker.View) {
        var machine = machine
        let counted = world.now + Limits.countedMilliseconds * World.millisecond
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
                        perform(machine.receivedVersion($0, from: node))
                    }
                }
            case .choose(let after): choose(after: after)
            case .apply(_, to: let nodes):
                guard let envelope else { return }
                for node in nodes {
                    worker.send(.apply(key, envelope), to: node, epoch: view.stamp.epoch, deadline: deadline) {
                        perform(machine.receivedAcknowledgement($0, from: node))
                    }
                }
            case .done(let version):
                if world.now > counted { fail(.outcomeUnknown(.deadline)) } else { stored(version) }
            case .overtaken, .findStandIns, .hint: preconditionFailure("strict writes have their members alone")
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
