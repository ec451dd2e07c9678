// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import KeyValue

/// One read over the groups of nodes that its slot's placement names. It asks as many of each group as it needs, and
/// others where those fail or are late.
///
/// Strict: done when every group has its quorum of answers and a quorum of each holds what is answered (the write-back
/// of ABD). Sloppy: answers the newest of what the quorum says at once, and names whoever lacks it. Where too many
/// members are away for that, nodes behind the group say what hints they have, if that is allowed
/// (docs/replication.md).
package struct QuorumRead: Hashable, Sendable {
    package enum Action: Hashable, Sendable {
        case ask([NodeID])
        /// Call `found` with the nodes behind the group.
        case findStandIns
        case askForHints([NodeID])
        /// Let these nodes hold the newest pair before it is answered.
        case writeBack(Envelope, to: [NodeID])
        /// Answer this; then let these nodes, which hold an older one, have it.
        case answer(Envelope?, repairing: [NodeID])
        case fail(OperationFailure)
        case wait
    }

    private let groups: [ReplicaGroup]
    private let consistency: Consistency
    /// Every member, in the order in which they are asked.
    package let members: [NodeID]
    package let mayUseStandIns: Bool
    private var asked: Set<NodeID> = []
    private var answers: [NodeID: Envelope?] = [:]
    private var failures: [NodeID: OperationFailure] = [:]
    private var holders: Set<NodeID> = []
    private var standIns: StandIns
    private var hints: [NodeID: Envelope?] = [:]
    /// Members that are not waited for.
    private var away: Set<NodeID> = []
    /// Whether answers that are not needed are waited for.
    private var waitsForAll = true
    /// What will be answered once it is held.
    private var chosen: Envelope?
    private var isDone = false

    /// - Parameters:
    ///   - mayUseStandIns: of a sloppy read where nothing moves.
    ///   - rank: whom to ask first, the least first; members of one rank are asked in their groups' order.
    package init(
        _ groups: [ReplicaGroup], _ consistency: Consistency = .strict, mayUseStandIns: Bool = false,
        rank: (NodeID) -> Int = { _ in 0 }
    ) {
        self.groups = groups
        self.consistency = consistency
        self.mayUseStandIns = mayUseStandIns && consistency.level == .sloppy && groups.count == 1
        self.standIns = StandIns(areAllowed: self.mayUseStandIns)
        let ranked = groups.uniqueMembers.enumerated().map { (rank: rank($0.element), index: $0.offset, $0.element) }
        self.members = ranked.sorted { ($0.rank, $0.index) < ($1.rank, $1.index) }.map(\.2)
    }

    package mutating func begin() -> Action {
        if groups.contains(where: { quorum(of: $0) > $0.members.count }) {
            return fail(.notApplied(.tooFewReplicas))
        }
        // Both sides of a ring change are asked as a whole: what the one lacks the other has to give.
        let first = groups.count > 1 ? members : Array(members.prefix(quorum(of: groups[0])))
        return ask(first)
    }

    /// Some of those asked have not answered for a while: asks the others too.
    package mutating func isLate() -> Action {
        guard !isDone else { return .wait }
        return ask(members.filter { !asked.contains($0) })
    }

    package mutating func received(_ outcome: Outcome, from node: NodeID) -> Action {
        guard !isDone else { return .wait }
        if chosen != nil { return receivedLate(outcome, from: node) }
        switch outcome {
        case .record(let record): answers[node] = .some(record)
        case .failed(let failure): failures[node] = failure
        case .version, .stored, .applied: failures[node] = .notApplied(.protocolViolation)
        }
        if let failure = hopeless { return fail(failure) }
        if isAnswerable { return decide() }
        if failures[node] != nil, let next = members.first(where: { !asked.contains($0) }) { return ask([next]) }
        return takePlaces()
    }

    /// The nodes behind the group, the first one first.
    package mutating func found(_ nodes: [NodeID]) -> Action {
        standIns.found(nodes)
        return conclude()
    }

    /// Members that are known not to answer, or suspected of it.
    package mutating func membersAreAway(_ nodes: Set<NodeID>) -> Action {
        away.formUnion(nodes)
        return conclude()
    }

    /// Long after `isLate`: those who have not answered by now are away, and no hint is waited for that is not needed.
    package mutating func isVeryLate() -> Action {
        waitsForAll = standIns.asked.isEmpty
        away.formUnion(members.filter { asked.contains($0) && !isHeard($0) })
        return conclude()
    }

    /// What a stand-in keeps for the group.
    package mutating func receivedHint(_ outcome: Outcome, from node: NodeID) -> Action {
        if case .record(let record) = outcome { hints[node] = .some(record) } else { standIns.failed(node) }
        return conclude()
    }

    private mutating func conclude() -> Action {
        guard !isDone, chosen == nil else { return .wait }
        if let failure = hopeless { return fail(failure) }
        return isAnswerable ? decide() : takePlaces()
    }

    /// Has hints asked for where members can't make up the quorum.
    private mutating func takePlaces() -> Action {
        guard
            groups.contains(where: { group in
                group.members.count { failures[$0] == nil && !isMissing($0) } < quorum(of: group)
            })
        else { return .wait }
        switch standIns.take(places) {
        case .find: return .findStandIns
        case .ask(let nodes): return .askForHints(nodes)
        case .nothing: return .wait
        }
    }

    private func isHeard(_ node: NodeID) -> Bool { answers[node] != nil || failures[node] != nil }

    private func isMissing(_ node: NodeID) -> Bool {
        failures[node]?.isAbsence ?? (away.contains(node) && !isHeard(node))
    }

    /// Of members that are away: somebody may stand in for each. (One that is recovering will answer soon.)
    private var places: Int { members.count(where: isMissing) }

    private var isAnswerable: Bool {
        if groups.allSatisfy({ group in group.members.count { answers[$0] != nil } >= quorum(of: group) }) {
            return true
        }
        guard !hints.isEmpty, answers.count + hints.count >= quorum(of: groups[0]), knowsThePair else { return false }
        let isEveryoneHeard =
            members.allSatisfy { isHeard($0) || away.contains($0) }
            && standIns.working.allSatisfy { hints[$0] != nil }
        return isEveryoneHeard || !waitsForAll
    }

    /// That there is none has to be said by a member.
    private var knowsThePair: Bool { !answers.isEmpty || hints.values.contains { $0 != nil } }

    package mutating func wroteBack(_ outcome: Outcome, to node: NodeID) -> Action {
        guard !isDone, chosen != nil else { return .wait }
        switch outcome {
        case .applied: holders.insert(node)
        case .failed(let failure): failures[node] = failure
        case .record, .version, .stored: failures[node] = .notApplied(.protocolViolation)
        }
        return answerOnceHeld()
    }

    private mutating func ask(_ nodes: [NodeID]) -> Action {
        asked.formUnion(nodes)
        return nodes.isEmpty ? .wait : .ask(nodes)
    }

    private func quorum(of group: ReplicaGroup) -> Int { consistency.quorum(of: group) }

    /// An answer that was not needed for the decision: its node may hold the pair, or take it.
    private mutating func receivedLate(_ outcome: Outcome, from node: NodeID) -> Action {
        guard let chosen, answers[node] == nil else { return .wait }
        switch outcome {
        case .record(let record?) where record.version >= chosen.version: holders.insert(node)
        case .record(let record):
            answers[node] = .some(record)
            return .writeBack(chosen, to: [node])
        case .failed(let failure): failures[node] = failure
        case .version, .stored, .applied: failures[node] = .notApplied(.protocolViolation)
        }
        return answerOnceHeld()
    }

    /// A read changes nothing, so whatever went wrong, it may be tried again.
    private mutating func fail(_ failure: OperationFailure) -> Action {
        isDone = true
        return .fail(failure.asNotApplied)
    }

    private var newest: Envelope? {
        (Array(answers.values) + hints.values).compactMap { $0 }.max { $0.version < $1.version }
    }

    private mutating func decide() -> Action {
        guard let newest else {
            isDone = true
            return .answer(nil, repairing: [])
        }
        holders = Set(answers.filter { $0.value?.version == newest.version }.keys)
        let lacking = members.filter { answers[$0] != nil && !holders.contains($0) }
        // (What moves is read strictly whatever was asked: the next reader may ask one side alone.)
        if consistency.level == .sloppy, groups.count == 1 {
            isDone = true
            return .answer(newest, repairing: lacking)
        }
        chosen = newest
        if isHeld {
            isDone = true
            return .answer(newest, repairing: [])
        }
        return .writeBack(newest, to: lacking)
    }

    private var isHeld: Bool {
        groups.allSatisfy { group in group.members.count { holders.contains($0) } >= quorum(of: group) }
    }

    private mutating func answerOnceHeld() -> Action {
        if isHeld {
            isDone = true
            return .answer(chosen, repairing: [])
        }
        if let failure = hopeless { return fail(failure) }
        // Whoever was not asked may hold it, or take it.
        let outstanding = members.contains { asked.contains($0) && !holders.contains($0) && failures[$0] == nil }
        guard !outstanding, let next = members.first(where: { !asked.contains($0) }) else { return .wait }
        return ask([next])
    }

    /// Why some group can't reach its quorum any more.
    private var hopeless: OperationFailure? {
        let taken = standIns.reachable(places)
        if let failure = groups.firstUnreachableQuorum(failures, quorum: { quorum(of: $0) - taken }) { return failure }
        // All members have failed, and no stand-in has a hint.
        let isUnknown =
            taken > 0 && members.allSatisfy { failures[$0] != nil } && !knowsThePair && !standIns.canTake(places)
            && standIns.working.allSatisfy { hints[$0] != nil }
        return isUnknown ? failures[members[0]] : nil
    }
}

extension Consistency {
    /// How many of the group must answer.
    func quorum(of group: ReplicaGroup) -> Int {
        guard let quorum else { return group.quorum }
        return level == .strict ? max(quorum, group.quorum) : quorum
    }
}

extension [ReplicaGroup] {
    /// Every member once, in the groups' order.
    var uniqueMembers: [NodeID] {
        var members: [NodeID] = []
        for group in self { for node in group.members where !members.contains(node) { members.append(node) } }
        return members
    }

    /// The failure that put some group's quorum out of reach; `staleRing` before any other, for it can be mended.
    func firstUnreachableQuorum(
        _ failures: [NodeID: OperationFailure], quorum: (ReplicaGroup) -> Int = { $0.quorum }
    ) -> OperationFailure? {
        for group in self {
            let failed = group.members.compactMap { failures[$0] }
            guard group.members.count - failed.count < quorum(group) else { continue }
            return failed.contains(.staleRing) ? .staleRing : failed.first
        }
        return nil
    }
}
