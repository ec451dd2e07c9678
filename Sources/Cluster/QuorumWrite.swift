// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import KeyValue

/// One write in two phases (multi-writer ABD): a quorum of every group says which version it holds, the coordinator
/// picks one above all of them, and from then on the version is fixed: whoever holds an older one stores it, and all
/// acknowledge.
///
/// Where a single node holds the slot, `Operation.stamp` does the same in one phase and this machine isn't used.
package struct QuorumWrite: Hashable, Sendable {
    package enum Action: Hashable, Sendable {
        case askVersions([NodeID])
        /// Choose a version newer than this one, and call `begin(applying:)`.
        case choose(after: Version)
        case apply(Version, to: [NodeID])
        case done(Version)
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
    private var phase = Phase.asking
    private var versions: [NodeID: Version] = [:]
    private var acknowledged: Set<NodeID> = []
    private var failures: [NodeID: OperationFailure] = [:]
    /// Whether some node may hold this version, through this run or an earlier one.
    private var mayBeHeld: Bool

    /// - Parameter wasSent: whether this write, with its version fixed, was sent under an older ring already.
    package init(_ groups: [ReplicaGroup], wasSent: Bool = false) {
        self.groups = groups
        self.mayBeHeld = wasSent
    }

    package func begin() -> Action { .askVersions(members) }

    /// Begins with the second phase: the version was chosen, here or under an older ring.
    package mutating func begin(applying version: Version) -> Action {
        phase = .applying(version)
        failures = [:]
        return .apply(version, to: members)
    }

    package mutating func received(_ outcome: Outcome, from node: NodeID) -> Action {
        switch phase {
        case .asking: receivedVersion(outcome, from: node)
        case .applying(let version): receivedAcknowledgement(outcome, of: version, from: node)
        case .choosing, .done: .wait
        }
    }

    private mutating func receivedVersion(_ outcome: Outcome, from node: NodeID) -> Action {
        switch outcome {
        case .version(let version): versions[node] = version
        case .failed(.outcomeUnknown(let reason)): failures[node] = .notApplied(reason)
        case .failed(let failure): failures[node] = failure
        case .record, .stored, .applied: failures[node] = .notApplied(.protocolViolation)
        }
        if let failure = groups.firstUnreachableQuorum(failures) { return fail(failure) }
        guard groups.allSatisfy({ group in group.members.count { versions[$0] != nil } >= group.quorum }) else {
            return .wait
        }
        phase = .choosing
        return .choose(after: versions.values.max() ?? .none)
    }

    private mutating func receivedAcknowledgement(_ outcome: Outcome, of version: Version, from node: NodeID) -> Action
    {
        switch outcome {
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
        if let failure = groups.firstUnreachableQuorum(failures) { return fail(failure) }
        guard groups.allSatisfy({ group in group.members.count { acknowledged.contains($0) } >= group.quorum }) else {
            return .wait
        }
        phase = .done
        return .done(version)
    }

    /// Not applied only where nobody can hold it, also not through an answer that is still to come.
    private mutating func fail(_ failure: OperationFailure) -> Action {
        let isStale = failure == .staleRing
        var isUnknown = mayBeHeld
        if case .applying = phase {
            isUnknown = isUnknown || members.contains { !acknowledged.contains($0) && failures[$0] == nil }
        }
        phase = .done
        if isStale { return .fail(.staleRing) }
        guard isUnknown else { return .fail(failure) }
        switch failure {
        case .notApplied(let reason), .outcomeUnknown(let reason): return .fail(.outcomeUnknown(reason))
        case .staleRing: return .fail(.staleRing)
        }
    }

    /// Whether some node may hold the version that was chosen.
    package var wasSent: Bool {
        if case .asking = phase { return mayBeHeld }
        return true
    }

    private var members: [NodeID] {
        var members: [NodeID] = []
        for group in groups { for node in group.members where !members.contains(node) { members.append(node) } }
        return members
    }
}
