// SPDX-License-Identifier: Apache-2.0

/// Drives one ring change from its first document to its last: says whom to tell what, hears what became of it.
///
/// A value without IO. Whoever performs its actions holds the promises of the nodes that lose slots (their word alone
/// lets a document come into being: it is announced to them first), so a machine that was overtaken stands down. A
/// machine may be lost at any moment; another one goes on from the document (`init(resuming:)`).
package struct RingTransitionStateMachine: Hashable, Sendable {
    /// Work that a node does on its own pairs, in the background.
    package enum Job: String, Hashable, Sendable, Codable {
        /// Stream the pairs of moving slots to those who gain them.
        case copy
        /// The same, but versions first, and only what a gainer lacks.
        case verify
        /// Delete the pairs that the node does not own.
        case clean
    }

    package enum Action: Hashable, Sendable {
        /// Ask the node to accept the document, and to say so once none of its workers acts on an older one.
        case announce(RingDocument, to: NodeID, afterMilliseconds: Int)
        /// Let the node know, without waiting for an answer.
        case tell(RingDocument, NodeID)
        case run(Job, on: NodeID, under: RingDocument, afterMilliseconds: Int)
        case end(End)
    }

    package enum End: Hashable, Sendable {
        /// The change is over; how, is in the document.
        case finished(RingDocument)
        /// Nothing was changed, because this node could not be prepared.
        case notBegun(NodeID, reason: String)
        /// Another driver has taken over.
        case overtaken
    }

    package enum Event: Hashable, Sendable {
        /// The node stands on that epoch, all its workers drained; its memcached is of this generation.
        case adopted(NodeID, Epoch, Generation)
        /// The node stands on that epoch, in which losers delete, but in a memory that never had what was verified.
        case lostWhatWasVerified(NodeID, Epoch)
        /// The node has done the job under that epoch.
        case jobDone(NodeID, Job, Epoch, JobReport)
        /// The node could not be reached, or could not do it now; with its memory's generation, where it said so.
        case failed(NodeID, Epoch, reason: String, Generation? = nil)
        /// The node knows a newer document than the one of that epoch.
        case overtaken(NodeID, Epoch)
        /// Somebody else has the authority now.
        case authorityLost
        case abort(reason: String)
        /// An operator says that this node is gone for good.
        case absent(NodeID)
    }

    /// On which memories a job was done.
    package struct JobReport: Hashable, Sendable, Codable {
        /// Of the node that did it, the same from its beginning to its end.
        package let generation: Generation
        /// Of the nodes that it streamed to, likewise.
        package let gainers: [RingTransition.Fence]

        package init(generation: Generation, gainers: [RingTransition.Fence]) {
            self.generation = generation
            self.gainers = gainers
        }
    }

    /// Waits between two tries at one node.
    package static let retryMilliseconds = 250
    /// A change that can't go on for this long, because of one node, before the new side answers reads, is aborted. (A
    /// loser that is away is waited for: nothing is decided without it.)
    package static let patienceMilliseconds: Int64 = 8000
    /// A node that has not failed for this long is timed afresh. Longer than one failing call and the pause after it.
    package static let forgivenessMilliseconds: Int64 = 4000
    /// A job that takes longer than that until it fails is given up after so many tries.
    package static let patienceTries = 8
    /// How long steps that need only the losers' word wait for everybody else's.
    package static let courtesyMilliseconds: Int64 = 2000

    private enum Phase: Hashable, Sendable {
        /// Gainers drop what an earlier change left behind, before anything new is written there.
        case preparing(RingTransition, waiting: Set<NodeID>)
        case announcing(to: Audience, waiting: Set<NodeID>)
        case working(Job, waiting: Set<NodeID>)
        case ended
    }

    /// A document is announced to one audience after the other.
    private enum Audience: Hashable, Sendable {
        /// Whose word makes it real.
        case losers
        case everybody
        /// Once more to whoever will hold what moves, before losers delete anything: is a gainer's memory still the one
        /// that was verified, and has nobody to be refilled?
        case heirsAgain
    }

    /// The newest document; announced, or about to be.
    package private(set) var document: RingDocument
    private var phase: Phase
    private var plan: MovePlan {
        didSet {
            losers = Set(plan.losers)
            gainers = Set(plan.gainers)
        }
    }
    /// Whose word makes a document real.
    package private(set) var losers: Set<NodeID>
    private var gainers: Set<NodeID>
    /// Whoever holds a moving slot when all is over.
    private var heirs: Set<NodeID> { plan.heirs }
    /// Whoever holds a moving slot on either side: no operation on one gets past all of them with an older document.
    private var holders: Set<NodeID> { plan.holders }
    /// What was noticed to be lost since the document was made; goes with the next one.
    private var newLosses: [String] = []
    /// Since when each node has failed, and when it last did.
    private struct Failing: Hashable, Sendable {
        let since: Int64
        let last: Int64
        let count: Int
    }

    private var failing: [NodeID: Failing] = [:]
    private var phaseBegan: Int64
    /// The document that was in force when this machine took over.
    private var resumedEpoch: Epoch?
    /// Whether the losers have accepted a document of this machine's, so that no other change can come into being.
    package private(set) var isEstablished = false
    /// On which memories of the gainers the losers have done the job that is under way.
    private var gainerMemories: [NodeID: Generation] = [:]
    private var gainersDisagree = false

    // MARK: Begin

    /// Begins a change.
    /// - Parameters:
    ///   - document: the newest that any member knows, without a transition.
    ///   - generations: each member's memcached's, as the promises told them.
    ///   - absent: members that did not promise, for they are gone for good.
    package static func beginning(
        _ change: RingChange, id: String, document: RingDocument, generations: [NodeID: Generation],
        absent: [NodeID] = [], nowMilliseconds: Int64
    ) throws(RingChangeError) -> (machine: RingTransitionStateMachine, actions: [Action]) {
        let target = try change.applied(to: document.ring)
        let plan = MovePlan(from: document.ring, to: target, replicas: document.replicas, absent: absent)
        guard plan.heirlessSlotCount == 0 else { throw .nobodyLeft(slots: plan.heirlessSlotCount) }
        let fences = plan.losers.compactMap { loser in
            generations[loser].map { RingTransition.Fence(node: loser, generation: $0) }
        }
        let transition = RingTransition(
            id: id, change: change, from: document.ring, to: target, step: .copying, fences: fences,
            losses: plan.lostSlotCount > 0 ? [loss(of: plan.lostSlotCount, absent)] : [], absent: absent)
        var machine = RingTransitionStateMachine(
            document: document, plan: plan, phase: .preparing(transition, waiting: Set(plan.gainers)),
            nowMilliseconds: nowMilliseconds)
        if plan.gainers.isEmpty {
            let actions = machine.enter(transition, now: nowMilliseconds)
            return (machine, actions)
        }
        let actions = plan.gainers.map { Action.run(.clean, on: $0, under: document, afterMilliseconds: 0) }
        return (machine, actions)
    }

    /// Goes on with the change that a document describes, after its driver was lost.
    package static func resuming(
        _ document: RingDocument, nowMilliseconds: Int64
    ) -> (machine: RingTransitionStateMachine, actions: [Action]) {
        guard let transition = document.transition else { preconditionFailure("there is no change to resume") }
        var machine = RingTransitionStateMachine(
            document: document, plan: MovePlan(transition, replicas: document.replicas), phase: .ended,
            nowMilliseconds: nowMilliseconds)
        machine.resumedEpoch = document.epoch
        machine.isEstablished = true
        let actions = machine.announce(now: nowMilliseconds)
        return (machine, actions)
    }

    private init(document: RingDocument, plan: MovePlan, phase: Phase, nowMilliseconds: Int64) {
        self.document = document
        self.phase = phase
        self.plan = plan
        self.losers = Set(plan.losers)
        self.gainers = Set(plan.gainers)
        self.phaseBegan = nowMilliseconds
    }

    // MARK: Events

    package mutating func handle(_ event: Event, nowMilliseconds now: Int64) -> [Action] {
        switch event {
        case .adopted(let node, let epoch, let generation):
            guard epoch == document.epoch else { return [] }
            failing[node] = nil
            return adopted(node, generation, now: now)
        case .lostWhatWasVerified(let node, let epoch):
            guard epoch == document.epoch, let transition = document.transition, transition.step == .cleaning,
                transition.abortReason == nil, gainers.contains(node), case .announcing = phase
            else { return [] }
            // The losers have everything still, and nothing was acknowledged on this rung: whoever does that alone is
            // this node, which has refused it. (What has settled stays settled; other gainers may have acknowledged.)
            // A driver that was cut off may have made the last document, which needs nobody's word, out of this one.
            document.epoch = document.epoch.beyondTheUnheard
            return enter(transition.moved(to: .crossing), now: now)
        case .jobDone(let node, let job, let epoch, let report):
            guard epoch == document.epoch else { return [] }
            failing[node] = nil
            return jobDone(node, job, report, now: now)
        case .failed(let node, let epoch, let reason, let generation):
            guard epoch == document.epoch else { return [] }
            if let generation { noteLoss(of: node, generation) }
            return failed(node, reason, now: now)
        case .overtaken(_, let epoch):
            guard epoch == document.epoch else { return [] }
            phase = .ended
            return [.end(.overtaken)]
        case .authorityLost:
            phase = .ended
            return [.end(.overtaken)]
        case .abort(let reason):
            return abort(reason, now: now)
        case .absent(let node):
            return goOn(without: node, now: now)
        }
    }

    private mutating func adopted(_ node: NodeID, _ generation: Generation, now: Int64) -> [Action] {
        noteLoss(of: node, generation)
        guard case .announcing(let audience, var waiting) = phase, waiting.remove(node) != nil else { return [] }
        if let transition = document.transition, transition.step == .settling, gainers.contains(node),
            let fence = transition.fence(of: node), fence != generation
        {
            // Its memory was lost after it had been verified, and the losers still have everything that was
            // acknowledged.
            var next = transition.moved(to: .crossing)
            // What a single gainer alone had shown is gone with its memory, so the old side may answer alone again.
            if gainers.count == 1, document.replicas == 1 { next.hasSettled = false }
            return enter(next, now: now)
        }
        phase = .announcing(to: audience, waiting: waiting)
        return waiting.isEmpty ? announced(now: now) : []
    }

    /// Everybody who had to stands on the document.
    private mutating func announced(now: Int64) -> [Action] {
        guard case .announcing(let audience, _) = phase else { return [] }
        if audience == .losers {
            isEstablished = true
            let others = Set(members).subtracting(losers).subtracting(absent)
            phase = .announcing(to: .everybody, waiting: others)
            phaseBegan = now
            let told = Set(document.standbys + absent).subtracting(losers).subtracting(others).sorted()
                .map { Action.tell(document, $0) }
            if others.isEmpty { return told + announced(now: now) }
            return told + others.sorted().map { .announce(document, to: $0, afterMilliseconds: 0) }
        }
        guard let transition = document.transition else {
            phase = .ended
            return [.end(.finished(document))]
        }
        switch transition.step {
        case .copying, .crossing:
            // Those that hold some slots would delete them, and nobody would have them.
            if plan.heirlessSlotCount > 0, transition.abortReason == nil { return abort(heirlessReason, now: now) }
            return work(transition.step == .copying ? .copy : .verify, on: losers, now: now)
        case .settling:
            if audience == .everybody, !heirs.isEmpty {
                phase = .announcing(to: .heirsAgain, waiting: heirs)
                phaseBegan = now
                return heirs.sorted().map { .announce(document, to: $0, afterMilliseconds: 0) }
            }
            return enter(transition.moved(to: .cleaning), now: now)
        case .retreating: return enter(transition.moved(to: .cleaning), now: now)
        case .cleaning: return work(.clean, on: transition.abortReason == nil ? losers : gainers, now: now)
        }
    }

    private mutating func jobDone(_ node: NodeID, _ job: Job, _ report: JobReport, now: Int64) -> [Action] {
        if case .preparing(let transition, var waiting) = phase, job == .clean {
            waiting.remove(node)
            phase = .preparing(transition, waiting: waiting)
            return waiting.isEmpty ? enter(transition, now: now) : []
        }
        guard case .working(job, var waiting) = phase, waiting.remove(node) != nil, let transition = document.transition
        else { return [] }
        phase = .working(job, waiting: waiting)
        for gainer in report.gainers {
            if let known = gainerMemories.updateValue(gainer.generation, forKey: gainer.node),
                known != gainer.generation
            {
                gainersDisagree = true
            }
        }
        noteLoss(of: node, report.generation)
        guard waiting.isEmpty else { return [] }
        switch job {
        case .copy: return enter(transition.moved(to: .crossing, on: gainerMemories), now: now)
        case .verify:
            // A write may have been acknowledged by a gainer's memory that is gone, and reach its loser only after that
            // one was verified. So what is verified must be the memory that stood when all this began; where it isn't,
            // everybody crosses once more: what was under way is refused then and begins again, on both sides.
            let isSame = !gainersDisagree && gainerMemories.allSatisfy { transition.fence(of: $0.key) == $0.value }
            return enter(transition.moved(to: isSame ? .settling : .crossing, on: gainerMemories), now: now)
        case .clean: return finish(now: now)
        }
    }

    /// A loser whose memory is not the one that the change began with has lost pairs. The change goes on all the same:
    /// the gainer holds all that is left.
    private mutating func noteLoss(of node: NodeID, _ generation: Generation) {
        guard let transition = document.transition, transition.step == .copying || transition.step == .crossing,
            losers.contains(node), let fence = transition.fence(of: node), fence != generation,
            // (Where others hold them too, it is refilled before the change goes on.)
            RefillPlan(document, node: node).isEmpty
        else { return }
        let loss = "the memory of \(node) was lost while its pairs were being moved"
        if !transition.losses.contains(loss), !newLosses.contains(loss) { newLosses.append(loss) }
    }

    private mutating func failed(_ node: NodeID, _ reason: String, now: Int64) -> [Action] {
        let known = failing[node]
        let isRow = known.map { now - $0.last <= RingTransitionStateMachine.forgivenessMilliseconds } ?? false
        let since = isRow ? known?.since ?? now : now
        let count = (known?.count ?? 0) + 1
        failing[node] = Failing(since: since, last: now, count: count)
        // Either for long without a pause, or many times with long pauses, in which each try took its time.
        let isHopeless =
            now - since >= RingTransitionStateMachine.patienceMilliseconds
            || (count >= RingTransitionStateMachine.patienceTries && !isRow)
        switch phase {
        case .preparing:
            phase = .ended
            return [.end(.notBegun(node, reason: reason))]
        case .announcing(let audience, var waiting):
            guard waiting.contains(node) else { return [] }
            if !isNeeded(node), now - phaseBegan >= patience(with: node) {
                waiting.remove(node)
                phase = .announcing(to: audience, waiting: waiting)
                return waiting.isEmpty ? announced(now: now) : []
            }
            if isHopeless, !losers.contains(node), let actions = climbDown(becauseOf: node, reason, now: now) {
                return actions
            }
            return [.announce(document, to: node, afterMilliseconds: RingTransitionStateMachine.retryMilliseconds)]
        case .working(let job, var waiting):
            guard waiting.contains(node) else { return [] }
            if job == .clean {
                // Where it isn't done now, the node does it by itself later; an abort need not wait for that.
                let patience =
                    document.transition?.abortReason == nil
                    ? RingTransitionStateMachine.patienceMilliseconds : RingTransitionStateMachine.courtesyMilliseconds
                if now - since >= patience || isHopeless {
                    waiting.remove(node)
                    phase = .working(job, waiting: waiting)
                    return waiting.isEmpty ? finish(now: now) : []
                }
            } else if isHopeless, let actions = climbDown(becauseOf: node, reason, now: now) {
                // A loser's job fails as well where it is a gainer that is gone, or full.
                return actions
            }
            return [
                .run(job, on: node, under: document, afterMilliseconds: RingTransitionStateMachine.retryMilliseconds)
            ]
        case .ended: return []
        }
    }

    /// Whoever holds a moving slot must stand on a rung before the next one is climbed. The others may lag: whatever
    /// they ask under an older document is refused by those. On the way down, and once the losers have let go, the
    /// losers' word is enough: no operation on a moving slot gets past them with an older document. The last document,
    /// and a clean-up that was in force already, need nobody's word: all that follows is in the document.
    private func isNeeded(_ node: NodeID) -> Bool {
        guard let transition = document.transition else { return false }
        if transition.step == .cleaning, document.epoch == resumedEpoch { return false }
        if transition.abortReason != nil || transition.step == .cleaning { return losers.contains(node) }
        return holders.contains(node)
    }

    /// For how long somebody is waited for whose word is not needed: longest before losers delete what a gainer is then
    /// the only one to have.
    private func patience(with node: NodeID) -> Int64 {
        let isLast = document.transition.map { $0.step == .cleaning && $0.abortReason == nil } ?? false
        return isLast && gainers.contains(node)
            ? RingTransitionStateMachine.patienceMilliseconds : RingTransitionStateMachine.courtesyMilliseconds
    }

    /// An abort, where the rung can't be left upwards. Nil where there is no way down, or where a loser is known to
    /// have lost its memory: what the gainers hold is the last copy then, and only an operator may decide to throw it
    /// away.
    private mutating func climbDown(becauseOf node: NodeID, _ reason: String, now: Int64) -> [Action]? {
        guard canAbort, document.transition?.losses.isEmpty ?? false, newLosses.isEmpty else { return nil }
        return abort("\(node) could not do its part: \(reason)", now: now)
    }

    /// Whether the newest document comes into being by this node's word, so that the node must have promised it. One
    /// that was in force before, and the last one, which is the same whoever makes it, need no promise.
    package func needsPromise(of node: NodeID) -> Bool {
        losers.contains(node) && document.transition != nil && document.epoch != resumedEpoch
    }

    // MARK: Who is gone

    private var absent: [NodeID] { document.transition?.absent ?? lastAbsent }
    private var lastAbsent: [NodeID] = []

    /// Whether it would be heeded that the node is gone for good.
    package func canGoOn(without node: NodeID) -> Bool {
        guard let transition = document.transition, transition.step != .cleaning else { return false }
        return !transition.absent.contains(node) && (transition.from.contains(node) || transition.to.contains(node))
    }

    /// From here on, what the node held comes from the others. Everything is copied or verified anew, for others give
    /// and get than before; where some may have read from the new side alone, all read both.
    private mutating func goOn(without node: NodeID, now: Int64) -> [Action] {
        guard canGoOn(without: node), var transition = document.transition else { return [] }
        transition.absent = (transition.absent + [node]).sorted()
        let known = plan.lostSlotCount
        plan = MovePlan(transition, replicas: document.replicas)
        // (Once the new side has settled, it has what the old one held.)
        if plan.lostSlotCount > known, !transition.hasSettled {
            newLosses.append(RingTransitionStateMachine.loss(of: plan.lostSlotCount, transition.absent))
        }
        // Nobody is left who has shown what those that hold these slots lack.
        if plan.heirlessSlotCount > 0 { transition.hasSettled = false }
        // It may have accepted a document of which nobody else has heard.
        document.epoch = document.epoch.beyondTheUnheard
        switch transition.step {
        case .copying, .retreating: return enter(transition, now: now)
        case .crossing, .settling, .cleaning: return enter(transition.moved(to: .crossing), now: now)
        }
    }

    private var heirlessReason: String {
        let names = absent.map(\.description).joined(separator: ", ")
        return "\(plan.heirlessSlotCount) slots would have been left to \(names), gone for good"
    }

    private static func loss(of slots: Int, _ absent: [NodeID]) -> String {
        "the only copy of \(slots) slots was on \(absent.map(\.description).joined(separator: ", "))"
    }

    // MARK: Steps

    /// Whether an abort would still be heeded.
    package var canAbort: Bool {
        guard let transition = document.transition else { return false }
        return transition.abortReason == nil && !transition.hasSettled
            && (transition.step == .copying || transition.step == .crossing)
    }

    private mutating func abort(_ reason: String, now: Int64) -> [Action] {
        guard canAbort, var transition = document.transition else { return [] }
        transition.abortReason = reason
        return enter(transition.moved(to: transition.step == .crossing ? .retreating : .cleaning), now: now)
    }

    /// Makes the next document and announces it.
    private mutating func enter(_ transition: RingTransition, now: Int64) -> [Action] {
        var transition = transition
        transition.losses += newLosses
        newLosses = []
        // (The first document of a change that goes on without somebody.)
        let isBeginning = document.transition == nil && !transition.absent.isEmpty
        document.epoch = isBeginning ? document.epoch.beyondTheUnheard : document.epoch.next
        document.transition = transition
        document.ring = transition.rule.reads == .to ? transition.to : transition.from
        return announce(now: now)
    }

    private mutating func announce(now: Int64) -> [Action] {
        phaseBegan = now
        failing = [:]
        phase = .announcing(to: .losers, waiting: losers)
        if losers.isEmpty { return announced(now: now) }
        return losers.sorted().map { .announce(document, to: $0, afterMilliseconds: 0) }
    }

    private mutating func work(_ job: Job, on nodes: Set<NodeID>, now: Int64) -> [Action] {
        phaseBegan = now
        failing = [:]
        gainerMemories = [:]
        gainersDisagree = false
        phase = .working(job, waiting: nodes)
        if nodes.isEmpty { return finish(now: now) }
        return nodes.sorted().map { .run(job, on: $0, under: document, afterMilliseconds: 0) }
    }

    private mutating func finish(now: Int64) -> [Action] {
        guard let transition = document.transition else { return [] }
        let aborted = transition.abortReason != nil
        document.epoch = document.epoch.next
        document.ring = aborted ? transition.from : transition.to
        document.lastChange = FinishedChange(
            id: transition.id, change: transition.change, outcome: aborted ? .aborted : .completed,
            reason: ([transition.abortReason].compactMap { $0 } + transition.losses + newLosses).joined(separator: "; ")
        )
        let left = Set(members).subtracting(document.ring.nodes)
        document.standbys = Set(document.standbys).union(left).subtracting(document.ring.nodes).sorted()
        lastMembers = document.members + left
        lastAbsent = transition.absent
        document.transition = nil
        return announce(now: now)
    }

    /// The nodes of both rings, also once the document names only one of them.
    private var members: [NodeID] { lastMembers ?? document.members }
    private var lastMembers: [NodeID]?
}

extension RingTransition {
    /// - Parameter gainers: their memories, where a job has named them; fences for what follows.
    fileprivate func moved(to step: Step, on gainers: [NodeID: Generation] = [:]) -> RingTransition {
        var next = self
        next.step = step
        if step == .settling { next.hasSettled = true }
        next.fences.removeAll { gainers[$0.node] != nil }
        next.fences += gainers.map { Fence(node: $0.key, generation: $0.value) }
        next.fences.sort { $0.node < $1.node }
        return next
    }
}
