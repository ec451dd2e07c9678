// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import KeyValue

/// One write in two phases (multi-writer ABD): a quorum of every group says which version it holds, the coordinator
/// picks one above all of them, and from then on the version is fixed: whoever holds an older one stores it, and all
/// acknowledge.
///
/// Sloppy, where nothing moves, it is tried in one phase first: the version comes from the clock, and only whoever
/// holds it as the newest acknowledges. Where a newer one is in the way, the write is `overtaken`, and begins again in
/// two. Nodes behind the group stand in for members that are away, where that is allowed (docs/replication.md).
///
/// Where a single node holds the slot, `Operation.stamp` does the same in one phase and this machine isn't used.
package struct QuorumWrite: Hashable, Sendable {
    package enum Action: Hashable, Sendable {
        case askVersions([NodeID])
        /// Choose a version newer than this one, and call `begin(applying:)`.
        case choose(after: Version)
        case apply(Version, to: [NodeID])
        /// Call `found` with the nodes behind the group.
        case findStandIns
        /// Have these keep it as a hint.
        case hint(to: [NodeID])
        case done(Version)
        /// Too many hold a newer version than the clock's: begin again with a version above theirs, strictly where
        /// `canBeStrict`.
        case overtaken
        case fail(OperationFailure)
        case wait
    }

    private enum Phase: Hashable, Sendable {
        case asking
        case choosing
        case applying(Version)
        case done
    }

    private let groups: [ReplicaGroup]
    package let members: [NodeID]
    private let consistency: Consistency
    /// Whether it is tried in one phase.
    package let isOptimistic: Bool
    private var phase = Phase.asking
    private var versions: [NodeID: Version] = [:]
    private var acknowledged: Set<NodeID> = []
    /// Who holds a newer one, in the one phase of an optimistic write.
    private var overtaking: Set<NodeID> = []
    private var failures: [NodeID: OperationFailure] = [:]
    private var standIns: StandIns
    private var hinted: Set<NodeID> = []
    /// Members that are not waited for.
    private var away: Set<NodeID> = []
    /// Of an optimistic write: the version to be above, and the newest that was heard of.
    private let floor: Version
    package private(set) var newestSeen: Version
    /// Whether some node may hold this write, through this run or an earlier one.
    private var mayBeHeld: Bool

    /// - Parameters:
    ///   - wasSent: whether this write was sent by an earlier run already.
    ///   - floor: where it is to be tried in one phase again all the same, the version to be above.
    ///   - mayUseStandIns: of a write in one phase.
    package init(
        _ groups: [ReplicaGroup], _ consistency: Consistency = .strict, wasSent: Bool = false,
        above floor: Version? = nil,
        mayUseStandIns: Bool = false
    ) {
        self.groups = groups
        self.members = groups.uniqueMembers
        self.consistency = consistency
        self.isOptimistic = consistency.level == .sloppy && groups.count == 1 && (!wasSent || floor != nil)
        self.mayBeHeld = wasSent
        self.floor = floor ?? .none
        self.newestSeen = floor ?? .none
        self.mayUseStandIns = mayUseStandIns && isOptimistic
        self.standIns = StandIns(areAllowed: self.mayUseStandIns)
    }

    package var isOver: Bool { phase == .done }

    package let mayUseStandIns: Bool

    /// Whether a majority of each group may answer.
    package var canBeStrict: Bool {
        groups.allSatisfy { group in
            group.members.count { failures[$0] == nil && !away.contains($0) } >= group.quorum
        }
    }

    package mutating func begin() -> Action {
        if groups.contains(where: { quorum(of: $0) > $0.members.count }) {
            return fail(.notApplied(.tooFewReplicas))
        }
        guard isOptimistic else { return .askVersions(members) }
        phase = .choosing
        return .choose(after: floor)
    }

    /// Begins with the second phase: the version was chosen, here or under an older ring.
    package mutating func begin(applying version: Version) -> Action {
        phase = .applying(version)
        failures = [:]
        return .apply(version, to: members)
    }

    /// An answer to the first phase's question. One that comes when the second has begun says nothing of that.
    package mutating func receivedVersion(_ outcome: Outcome, from node: NodeID) -> Action {
        guard case .asking = phase else { return .wait }
        return tookVersion(outcome, from: node)
    }

    /// An answer to the second phase.
    package mutating func receivedAcknowledgement(_ outcome: Outcome, from node: NodeID) -> Action {
        guard case .applying(let version) = phase else { return .wait }
        return tookAcknowledgement(outcome, of: version, from: node)
    }

    /// The nodes behind the group, the first one first.
    package mutating func found(_ nodes: [NodeID]) -> Action {
        standIns.found(nodes)
        return conclude()
    }

    /// - Parameters:
    ///   - silent: members that are known not to answer.
    ///   - inTrouble: members that may not; they count as away where the others are too few.
    package mutating func membersAreAway(silent: Set<NodeID>, inTrouble: Set<NodeID>) -> Action {
        away.formUnion(silent)
        if groups.contains(where: { group in
            group.members.count { !away.contains($0) && !inTrouble.contains($0) } < quorum(of: group)
        }) {
            away.formUnion(inTrouble)
        }
        return conclude()
    }

    /// Those who have not answered by now are away.
    package mutating func isLate() -> Action {
        away.formUnion(members.filter { !isHeard($0) })
        return conclude()
    }

    /// A stand-in's answer.
    package mutating func receivedHint(_ outcome: Outcome, from node: NodeID) -> Action {
        guard case .applying(let version) = phase else { return .wait }
        switch outcome {
        case .applied(let newest) where newest > version:
            overtaking.insert(node)
            newestSeen = max(newestSeen, newest)
        case .applied:
            hinted.insert(node)
            mayBeHeld = true
        case .failed(let failure):
            if case .outcomeUnknown = failure { mayBeHeld = true }
            standIns.failed(node)
        case .record, .version, .stored:
            mayBeHeld = true
            standIns.failed(node)
        }
        return conclude()
    }

    private func quorum(of group: ReplicaGroup) -> Int { consistency.quorum(of: group) }

    private mutating func tookVersion(_ outcome: Outcome, from node: NodeID) -> Action {
        switch outcome {
        case .version(let version): versions[node] = version
        case .failed(let failure): failures[node] = failure.asNotApplied
        case .record, .stored, .applied: failures[node] = .notApplied(.protocolViolation)
        }
        if let failure = groups.firstUnreachableQuorum(failures) { return fail(failure) }
        // (Versions are asked of majorities whatever was wanted: two writers must meet.)
        guard groups.allSatisfy({ group in group.members.count { versions[$0] != nil } >= group.quorum }) else {
            return .wait
        }
        phase = .choosing
        return .choose(after: versions.values.max() ?? .none)
    }

    private mutating func tookAcknowledgement(_ outcome: Outcome, of version: Version, from node: NodeID) -> Action {
        switch outcome {
        case .applied(let newest) where isOptimistic && newest > version:
            overtaking.insert(node)
            newestSeen = max(newestSeen, newest)
        case .applied:
            acknowledged.insert(node)
            mayBeHeld = true
        case .failed(let failure):
            if case .outcomeUnknown = failure { mayBeHeld = true }
            failures[node] = failure
        case .record, .version, .stored:
            mayBeHeld = true
            failures[node] = .outcomeUnknown(.protocolViolation)
        }
        return conclude()
    }

    private mutating func conclude() -> Action {
        guard case .applying(let version) = phase else { return .wait }
        if isAcknowledged {
            phase = .done
            return .done(version)
        }
        let places = members.count { failures[$0]?.isAbsence ?? (away.contains($0) && !isHeard($0)) }
        let taken = standIns.reachable(places)
        if let failure = groups.firstUnreachableQuorum(failures, quorum: { quorum(of: $0) - taken }) {
            // Who is heard to the end can be told how many hold it, or that nobody does.
            return isHeardToTheEnd || failure == .staleRing ? fail(failure) : .wait
        }
        if isOvertaken {
            phase = .done
            return .overtaken
        }
        switch standIns.take(places) {
        case .find: return .findStandIns
        case .ask(let nodes): return .hint(to: nodes)
        case .nothing: return .wait
        }
    }

    private func isHeard(_ node: NodeID) -> Bool {
        acknowledged.contains(node) || overtaking.contains(node) || failures[node] != nil
    }

    private var isHeardToTheEnd: Bool {
        members.allSatisfy(isHeard)
            && standIns.working.allSatisfy { hinted.contains($0) || overtaking.contains($0) }
    }

    /// By members alone; or, with stand-ins, once every member has been heard or is away, and nobody holds a newer one.
    private var isAcknowledged: Bool {
        if groups.allSatisfy({ group in group.members.count { acknowledged.contains($0) } >= quorum(of: group) }) {
            return true
        }
        guard !hinted.isEmpty, overtaking.isEmpty else { return false }
        return acknowledged.count + hinted.count >= quorum(of: groups[0])
            && members.allSatisfy { isHeard($0) || away.contains($0) }
    }

    /// Whether those members that may still acknowledge are too few, and newer versions are there.
    private var isOvertaken: Bool {
        !overtaking.isEmpty
            && groups.contains { group in
                group.members.count {
                    !overtaking.contains($0) && failures[$0] == nil
                        && (acknowledged.contains($0) || !away.contains($0))
                } < quorum(of: group)
            }
    }

    /// Not applied only where nobody can hold it.
    private mutating func fail(_ failure: OperationFailure) -> Action {
        phase = .done
        if failure == .staleRing { return .fail(.staleRing) }
        guard mayBeHeld else { return .fail(failure) }
        let wanted = groups.map(quorum(of:)).max() ?? 0
        return .fail(.tooFewHold(acknowledged.count + hinted.count, of: wanted, failure.reason ?? .noRing))
    }

}
