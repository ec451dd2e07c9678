// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import TestSupport

/// A simulated cluster: hosts with their memories and workers, the network between them, the clients, and one agenda
/// that makes everything happen in an order that the seed fixes. Times are microseconds.
final class World {
    static let millisecond = 1000
    static let second = 1_000_000

    let options: Options
    let routes: Routes
    private(set) var now = 0
    private var agenda = Agenda()
    var random: SeededGenerator
    var history = History()
    private(set) var hosts: [Host] = []
    private(set) var reached: [RareEvent: Int] = [:]
    /// Set once no more faults are to happen.
    var isHealing = false
    private var newestEpoch = Epoch.none
    /// With the time at which the first host had it on record.
    private var documents: [Epoch: (document: RingDocument, since: Int)] = [:]
    /// Two of one epoch.
    private(set) var differingDocuments: (RingDocument, RingDocument)?
    /// Losses that are excused only if their change is aborted: what the memory held is still on the other side.
    private var lossesAtRisk: [(change: String, key: Int)] = []
    /// Losses that are excused only if the losers delete what the gainer lost while that one stays away: longer than
    /// anybody waits for it.
    private var lossesUnheard: [(change: String, key: Int, gainer: NodeID)] = []
    /// Pairs of nodes between which nothing gets through, until then.
    var cuts: [Set<NodeID>: Int] = [:]
    var lossPercent = 0.0
    private var processes = 0
    private var names = 0
    var living: Set<Int> = []
    var trace: [String] = []

    init(_ options: Options, _ routes: Routes) {
        self.options = options
        self.routes = routes
        self.random = SeededGenerator(seed: options.seed)
        for (index, node) in options.nodes.enumerated() {
            hosts.append(Host(self, node, skewMicroseconds: options.skews[index], workers: options.workers))
        }
    }

    func host(_ node: NodeID) -> Host? { hosts.first { $0.node == node } }

    func has(_ mutant: Mutant) -> Bool { options.mutant == mutant }

    func reached(_ event: RareEvent) {
        reached[event, default: 0] += 1
        note("*** \(event.rawValue)")
    }

    func note(_ text: @autoclosure () -> String) {
        if options.isTraced { trace.append("\(now) \(text())") }
    }

    func nextProcess() -> Int {
        processes += 1
        return processes
    }

    func nextName() -> String {
        names += 1
        return "n\(names)"
    }

    // MARK: Time

    func after(_ delay: Int, _ body: @escaping () -> Void) { agenda.enter(at: now + max(delay, 0), body) }

    /// - Returns: false once nothing is left to do, or time is up.
    func run(until end: Int, while condition: () -> Bool = { true }) {
        while now < end, condition(), let next = agenda.popFirst() {
            now = max(now, next.time)
            next.body()
        }
    }

    /// Breaks the cycles between what waits and what it waits for.
    func dismantle() {
        agenda.removeAll()
        for host in hosts { host.dismantle() }
    }

    // MARK: Network

    /// Most messages take a fraction of a millisecond, some take long.
    func networkDelay() -> Int {
        random.chance(options.slowMessagePercent) && !isHealing ? random.pick(1...400_000) : random.pick(80...900)
    }

    func passes(_ from: NodeID, _ to: NodeID) -> Bool {
        guard from != to else { return true }
        if let until = cuts[[from, to]], until > now { return false }
        return !random.chance(lossPercent)
    }

    /// Whether no member of the ring has yet to get back what it lost, or is gone.
    var isWhole: Bool {
        hosts.allSatisfy { host in
            host.isGone
                ? newest.map { !$0.members.contains(host.node) } ?? false
                : host.memory.record?.document != nil && host.memory.stamp.map { !$0.isRecovering } ?? false
        }
    }

    /// Whether each pair is held twice at least.
    var hasSpares: Bool {
        guard let newest else { return false }
        return [newest.ring, newest.transition?.from, newest.transition?.to].compactMap { $0 }
            .allSatisfy { $0.nodes.count > 1 }
    }

    // MARK: Documents and losses

    /// The newest document that any host has on record. (One that only a memory knew which is lost has never been.)
    var newest: RingDocument? {
        hosts.compactMap { $0.memory.record?.document }.max { $0.epoch < $1.epoch }
    }

    func recorded(_ document: RingDocument) {
        if let (other, _) = documents[document.epoch] {
            if other != document { differingDocuments = (other, document) }
        } else {
            documents[document.epoch] = (document, now)
        }
        if let transition = document.transition, transition.step == .crossing {
            lossesUnheard.removeAll { $0.change == transition.id }
        }
        guard document.epoch > newestEpoch || document.transition?.abortReason != nil else { return }
        newestEpoch = max(newestEpoch, document.epoch)
        note("document \(document.epoch) \(document.transition?.step.rawValue ?? "stable")")
        if let transition = document.transition, transition.abortReason != nil {
            for loss in lossesAtRisk where loss.change == transition.id { history.lost(loss.key, at: now) }
            lossesAtRisk.removeAll { $0.change == transition.id }
        }
    }

    /// The losers are about to delete what moved, under this document.
    func cleans(under document: RingDocument) {
        guard let transition = document.transition, transition.abortReason == nil,
            let known = documents[document.epoch],
            now - known.since >= Int(RingTransitionStateMachine.patienceMilliseconds) * World.millisecond
        else { return }
        for loss in lossesUnheard where loss.change == transition.id {
            guard let gainer = host(loss.gainer), gainer.heardEpoch < document.epoch else { continue }
            history.lost(loss.key, at: now)
        }
    }

    /// A memory is about to be lost: notes which keys lose what nobody else holds. Counts as excused where
    /// - no other node that takes part in the key's writes has as new a copy, or
    /// - it is the gainer's, which stays away until the losers have deleted theirs, or
    /// - the change is aborted later: the old side, which lost its memory, answers again, and the new one is thrown
    ///   away.
    func isLosing(_ memory: Memory, of host: Host) {
        guard let newest, !newest.ring.isEmpty else { return }
        // One memory at a time may be lost where there are others: no excuses.
        guard options.replicas == 1 else { return reached(.replicaEmptied) }
        let table = routes.table(newest)
        for (key, stored) in options.keys.enumerated() {
            guard let item = memory.pairs[stored] else { continue }
            let placement = table[stored.slot]
            guard placement.involves(host.node) else { continue }
            // (The document under which both sides are written to is the one that this host stands on.)
            let isUnheard =
                newest.transition?.step == .cleaning && newest.transition?.abortReason == nil
                && memory.record?.document?.transition?.step == .settling
            let writes =
                isUnheard
                ? memory.record?.document.map { routes.table($0)[stored.slot].writes } ?? [] : placement.writes
            let isElsewhere = hosts.contains { other in
                other !== host && writes.contains { $0.members.contains(other.node) }
                    && (other.memory.pairs[stored]?.envelope.version ?? .none) >= item.envelope.version
            }
            let transition = newest.transition
            let isGainer = transition.map { $0.to.owner(of: stored.slot) == host.node } ?? false
            if !isElsewhere {
                history.lost(key, at: now)
                reached(.excusedLoss)
            } else if isGainer, let transition, transition.step == .settling || isUnheard {
                lossesUnheard.append((transition.id, key, host.node))
            } else if placement.isMoving, !isGainer, let transition {
                if transition.abortReason != nil {
                    history.lost(key, at: now)
                } else {
                    lossesAtRisk.append((transition.id, key))
                }
            }
        }
    }
}
