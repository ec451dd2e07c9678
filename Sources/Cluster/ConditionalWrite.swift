// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import KeyValue

/// One conditional write up to its decision: a strict read in which the decider takes part, then, where the condition
/// holds, one `cas` at the decider. docs/replication.md argues why that is enough.
///
/// What is decided is spread as any write whose version is fixed (`QuorumWrite`). A refusal rests on a pair that a
/// quorum holds, as the answer of a strict read does.
package struct ConditionalWrite: Hashable, Sendable {
    package enum Action: Hashable, Sendable {
        case ask([NodeID])
        /// Look whether the condition holds for this pair, and call `refuse()` or `decide(on:)`.
        case judge(Envelope?)
        /// Let these nodes hold the pair on which the refusal rests.
        case writeBack(Envelope, to: [NodeID])
        /// Send the decider the write, to be stored if it holds nothing newer than this version.
        case decide(over: Version, at: NodeID)
        /// The condition does not hold.
        case refuse
        /// It is done: the decider holds it.
        case decided(by: NodeID)
        /// Another write came between: begin again.
        case contended
        case fail(OperationFailure)
        case wait
    }

    private enum Phase: Hashable, Sendable {
        case reading
        case judging(Envelope?)
        /// A refusal waits until a quorum holds what it rests on.
        case proving(Envelope)
        case deciding(Version)
        case done
    }

    private let groups: [ReplicaGroup]
    private let decider: NodeID
    private var phase = Phase.reading
    private var answers: [NodeID: Envelope?] = [:]
    private var failures: [NodeID: OperationFailure] = [:]
    private var holders: Set<NodeID> = []

    /// - Parameter groups: who answers reads, the decider among them.
    package init(_ groups: [ReplicaGroup], decider: NodeID) {
        precondition(groups.uniqueMembers.contains(decider), "the decider holds the slot")
        self.groups = groups
        self.decider = decider
    }

    package mutating func begin() -> Action { .ask(groups.uniqueMembers) }

    package mutating func received(_ outcome: Outcome, from node: NodeID) -> Action {
        switch outcome {
        case .record(let record): answers[node] = .some(record)
        case .failed(let failure): failures[node] = failure.asNotApplied
        case .version, .stored, .applied: failures[node] = .notApplied(.protocolViolation)
        }
        switch phase {
        case .reading: return decideOrWait()
        case .proving(let envelope): return prove(envelope, late: node)
        case .judging, .deciding, .done: return .wait
        }
    }

    /// The condition does not hold.
    package mutating func refuse() -> Action {
        guard case .judging(let newest) = phase else { preconditionFailure("only what was to be judged") }
        guard let newest else {
            phase = .done
            return .refuse
        }
        phase = .proving(newest)
        holders = Set(answers.filter { $0.value?.version == newest.version }.keys)
        if isHeld { return end(.refuse) }
        return .writeBack(newest, to: groups.uniqueMembers.filter { answers[$0] != nil && !holders.contains($0) })
    }

    /// The condition holds; `version` is right behind that of the pair that was judged.
    package mutating func decide(on version: Version) -> Action {
        guard case .judging(let newest) = phase else { preconditionFailure("only what was to be judged") }
        phase = .deciding(version)
        return .decide(over: newest?.version ?? .none, at: decider)
    }

    package mutating func wroteBack(_ outcome: Outcome, to node: NodeID) -> Action {
        guard case .proving(let envelope) = phase else { return .wait }
        switch outcome {
        case .applied: holders.insert(node)
        case .failed(let failure): failures[node] = failure.asNotApplied
        case .record, .version, .stored: failures[node] = .notApplied(.protocolViolation)
        }
        return prove(envelope, late: nil)
    }

    /// The decider's answer.
    package mutating func receivedDecision(_ outcome: Outcome) -> Action {
        guard case .deciding(let version) = phase else { return .wait }
        switch outcome {
        case .applied(version): return end(.decided(by: decider))
        case .failed(.preconditionFailed): return end(.contended)
        case .failed(let failure): return end(.fail(failure))
        case .applied, .record, .version, .stored: return end(.fail(.outcomeUnknown(.protocolViolation)))
        }
    }

    private mutating func end(_ action: Action) -> Action {
        phase = .done
        return action
    }

    private mutating func decideOrWait() -> Action {
        if let failure = hopeless { return end(.fail(failure)) }
        guard answers[decider] != nil,
            groups.allSatisfy({ group in group.members.count { answers[$0] != nil } >= group.quorum })
        else { return .wait }
        let newest = answers.values.compactMap { $0 }.max { $0.version < $1.version }
        phase = .judging(newest)
        return .judge(newest)
    }

    /// - Parameter node: whose answer to the read has just come; it may hold the pair, or take it.
    private mutating func prove(_ envelope: Envelope, late node: NodeID?) -> Action {
        if let node, let answer = answers[node] {
            if let answer, answer.version >= envelope.version {
                holders.insert(node)
            } else {
                return .writeBack(envelope, to: [node])
            }
        }
        if isHeld { return end(.refuse) }
        if let failure = unreachableQuorum { return end(.fail(failure)) }
        return .wait
    }

    private var isHeld: Bool {
        groups.allSatisfy { group in group.members.count { holders.contains($0) } >= group.quorum }
    }

    private var unreachableQuorum: OperationFailure? { groups.firstUnreachableQuorum(failures) }

    /// Without the decider nobody can say.
    private var hopeless: OperationFailure? { failures[decider] ?? unreachableQuorum }
}
