// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import NIOCore

/// The coordinators' side of the small model: as `ReadRun` and `WriteRun` drive the quorum machines.
extension SmallModel {
    mutating func begin(_ index: Int, _ routes: Routes, _ mutant: Mutant?) {
        guard let key = SmallModel.key, let document = hosts[clients[index].coordinator].record.document else { return }
        var placement = routes.table(document)[key.slot]
        if mutant == .noCrossingReads, document.transition?.step == .crossing {
            placement = Placement(reads: [placement.writes[0]], writes: placement.writes, isMoving: true)
        }
        clients[index].state = .running
        clients[index].epoch = document.epoch
        clients[index].read = nil
        clients[index].write = nil
        if let owner = placement.soleOwner, clients[index].fixed == nil {
            let request = clients[index].isWrite ? Message.Request.stamp(envelope(index, .none)) : .read
            return send(request, index, to: [owner])
        }
        if clients[index].isWrite {
            var machine = QuorumWrite(placement.writes, wasSent: clients[index].wasSent)
            if let fixed = clients[index].fixed {
                let action = machine.begin(applying: fixed)
                clients[index].write = machine
                clients[index].wasSent = true
                perform(action, index, mutant)
            } else if mutant == .noFirstPhase {
                clients[index].write = machine
                choose(.none, index, mutant)
            } else {
                let first = machine.begin()
                clients[index].write = machine
                perform(first, index, mutant)
            }
        } else {
            var machine = QuorumRead(placement.reads)
            let first = machine.begin()
            clients[index].read = machine
            perform(first, index, mutant)
        }
    }

    private func envelope(_ index: Int, _ version: Version) -> Envelope {
        guard let key = Key("small"), let stored = SmallModel.key else { preconditionFailure("the key is a constant") }
        return Envelope(
            key: key, storedKey: stored, value: ByteBuffer(integer: UInt8(clients[index].value)), version: version)
    }

    private mutating func send(_ request: Message.Request, _ index: Int, to nodes: [NodeID]) {
        for node in nodes {
            messages.insert(
                .operation(
                    request, client: index, to: SmallModel.nodes.firstIndex(of: node) ?? 0,
                    epoch: clients[index].epoch))
        }
    }

    mutating func received(
        _ outcome: Outcome, _ index: Int, from node: NodeID, isWriteBack: Bool, _ mutant: Mutant?
    ) {
        if var machine = clients[index].read {
            let action = isWriteBack ? machine.wroteBack(outcome, to: node) : machine.received(outcome, from: node)
            clients[index].read = machine
            perform(action, index, mutant)
        } else if var machine = clients[index].write {
            let action = machine.received(outcome, from: node)
            clients[index].write = machine
            perform(action, index, mutant)
        } else {
            switch outcome {
            case .record(let envelope): answer(index, envelope)
            case .stored: finish(index, .answered)
            case .failed(.staleRing): clients[index].state = .waiting
            default: finish(index, .dead)
            }
        }
    }

    private mutating func finish(_ index: Int, _ state: Client.State) {
        clients[index].finish(state)
    }

    private mutating func answer(_ index: Int, _ envelope: Envelope?) {
        var value = envelope?.value
        clients[index].result = Int(value?.readInteger(as: UInt8.self) ?? 0)
        finish(index, .answered)
    }

    private mutating func perform(_ action: QuorumRead.Action, _ index: Int, _ mutant: Mutant?) {
        switch action {
        case .ask(let nodes): send(.read, index, to: nodes)
        case .writeBack(let envelope, to: let nodes):
            if mutant == .noWriteBack { return answer(index, envelope) }
            guard hosts[clients[index].coordinator].record.epoch == clients[index].epoch else {
                clients[index].state = .waiting
                return
            }
            send(.writeBack(envelope), index, to: nodes)
        case .findStandIns, .askForHints: preconditionFailure("strict reads ask their members alone")
        case .answer(let envelope, repairing: _): answer(index, envelope)
        case .fail(.staleRing): clients[index].state = .waiting
        case .fail: finish(index, .dead)
        case .wait: break
        }
    }

    private mutating func perform(_ action: QuorumWrite.Action, _ index: Int, _ mutant: Mutant?) {
        switch action {
        case .askVersions(let nodes): send(.readVersion, index, to: nodes)
        case .choose(let after): choose(after, index, mutant)
        case .apply(let version, to: let nodes): send(.apply(envelope(index, version)), index, to: nodes)
        case .done: finish(index, .answered)
        case .overtaken, .findStandIns, .hint: preconditionFailure("strict writes have their members alone")
        case .fail(.staleRing): clients[index].state = .waiting
        case .fail: finish(index, .dead)
        case .wait: break
        }
    }

    private mutating func choose(_ after: Version, _ index: Int, _ mutant: Mutant?) {
        guard hosts[clients[index].coordinator].record.epoch == clients[index].epoch else {
            clients[index].state = .waiting
            return
        }
        let version = hosts[clients[index].coordinator].clock.tick(wallMicroseconds: 0, after: after)
        clients[index].fixed = version
        clients[index].wasSent = true
        guard var machine = clients[index].write else { return }
        let action = machine.begin(applying: version)
        clients[index].write = machine
        perform(action, index, mutant)
    }

    /// Whether what clients heard could have come from a single register. Times are made from who had ended before
    /// whom.
    var isLinearizable: Bool {
        // A client's call comes after the ends of those in `after`; ends come in an order that fits.
        let order = clients.indices.sorted { clients[$0].after.count < clients[$1].after.count }
        var calls: [Call] = []
        for index in order {
            let client = clients[index]
            if client.state == .idle || (!client.isWrite && client.state != .answered) { continue }
            // At time 10 × (how many had ended before); a client ends just before the first call that knows of its end.
            let call = client.after.count * 10 + 1
            let knowing = clients.filter { $0.after.contains(index) }.map(\.after.count).min()
            let isAnswered = client.state == .answered
            calls.append(
                Call(
                    isWrite: client.isWrite, value: client.isWrite ? client.value : client.result, call: call,
                    end: isAnswered ? (knowing.map { $0 * 10 } ?? 1000) : nil))
        }
        return Linearizability.search(calls)
    }

    /// Whether everything that was answered as stored is where reads will look for it.
    var isAtRest: Bool { messages.isEmpty && clients.allSatisfy { $0.state != .idle && $0.state != .running } }
}

extension SmallModel.Message: CustomStringConvertible {
    var description: String {
        switch self {
        case .operation(let request, let client, let to, let epoch):
            let what =
                switch request {
                case .read: "read"
                case .readVersion: "readVersion"
                case .stamp: "stamp"
                case .apply(let envelope): "apply \(envelope.version)"
                case .writeBack(let envelope): "writeBack \(envelope.version)"
                }
            return "client \(client)'s \(what) reaches host \(to) under \(epoch)"
        case .announce(let known, let to, let driver): return "driver \(driver) announces \(known) to host \(to)"
        case .job(let job, let on, let known, let driver):
            return "driver \(driver) lets host \(on) \(job) under \(known)"
        case .copy(let envelope, let job, let known, let driver, let generation):
            let what = envelope.map { "\($0.version)" } ?? "nothing"
            return "the \(job) for driver \(driver) brings \(what) under \(known) to generation \(generation)"
        case .lateStore(let envelope, let at, _, _): return "a late store of \(envelope.version) lands at host \(at)"
        }
    }
}

extension SmallModel.Known: CustomStringConvertible {
    var description: String { "\(document.epoch) \(document.transition?.step.rawValue ?? "stable")" }
}

extension QuorumWrite {
    /// An answer to whichever phase runs.
    fileprivate mutating func received(_ outcome: Outcome, from node: NodeID) -> Action {
        let action = receivedVersion(outcome, from: node)
        return action == .wait ? receivedAcknowledgement(outcome, from: node) : action
    }
}
