// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import KeyValue

/// One read over the groups of nodes that its slot's placement names: done when every group has its quorum of answers
/// and a quorum of each holds what is answered (the write-back of ABD).
package struct QuorumRead: Hashable, Sendable {
    package enum Action: Hashable, Sendable {
        case ask([NodeID])
        /// Let these nodes hold the newest pair before it is answered.
        case writeBack(Envelope, to: [NodeID])
        case answer(Envelope?)
        case fail(OperationFailure)
        case wait
    }

    private let groups: [ReplicaGroup]
    private var answers: [NodeID: Envelope?] = [:]
    private var failures: [NodeID: OperationFailure] = [:]
    private var holders: Set<NodeID> = []
    /// What will be answered once it is held.
    private var chosen: Envelope?
    private var isDone = false

    package init(_ groups: [ReplicaGroup]) { self.groups = groups }

    package func begin() -> Action { .ask(members) }

    package mutating func received(_ outcome: Outcome, from node: NodeID) -> Action {
        guard !isDone else { return .wait }
        if chosen != nil { return receivedLate(outcome, from: node) }
        switch outcome {
        case .record(let record): answers[node] = .some(record)
        case .failed(let failure): failures[node] = failure
        case .version, .stored, .applied: failures[node] = .notApplied(.protocolViolation)
        }
        if let failure = hopeless(failures) { return fail(failure) }
        guard groups.allSatisfy({ group in group.members.count { answers[$0] != nil } >= group.quorum }) else {
            return .wait
        }
        return decide()
    }

    package mutating func wroteBack(_ outcome: Outcome, to node: NodeID) -> Action {
        guard !isDone, chosen != nil else { return .wait }
        switch outcome {
        case .applied: holders.insert(node)
        case .failed(let failure): failures[node] = failure
        case .record, .version, .stored: failures[node] = .notApplied(.protocolViolation)
        }
        if let failure = hopeless(failures) { return fail(failure) }
        return answerOnceHeld()
    }

    /// An answer that was not needed for the decision: its node may hold the pair, or take it.
    private mutating func receivedLate(_ outcome: Outcome, from node: NodeID) -> Action {
        guard let chosen, answers[node] == nil else { return .wait }
        switch outcome {
        case .record(let record?) where record.version >= chosen.version: holders.insert(node)
        case .record: return .writeBack(chosen, to: [node])
        case .failed(let failure): failures[node] = failure
        case .version, .stored, .applied: failures[node] = .notApplied(.protocolViolation)
        }
        if let failure = hopeless(failures) { return fail(failure) }
        return answerOnceHeld()
    }

    /// A read changes nothing, so whatever went wrong, it may be tried again.
    private mutating func fail(_ failure: OperationFailure) -> Action {
        isDone = true
        if case .outcomeUnknown(let reason) = failure { return .fail(.notApplied(reason)) }
        return .fail(failure)
    }

    private var members: [NodeID] {
        var members: [NodeID] = []
        for group in groups { for node in group.members where !members.contains(node) { members.append(node) } }
        return members
    }

    private var newest: Envelope? {
        answers.values.compactMap { $0 }.max { $0.version < $1.version }
    }

    private mutating func decide() -> Action {
        guard let newest else {
            isDone = true
            return .answer(nil)
        }
        holders = Set(answers.filter { $0.value?.version == newest.version }.keys)
        chosen = newest
        let lacking = members.filter { answers[$0] != nil && !holders.contains($0) }
        if isHeld {
            isDone = true
            return .answer(newest)
        }
        return .writeBack(newest, to: lacking)
    }

    private var isHeld: Bool {
        groups.allSatisfy { group in group.members.count { holders.contains($0) } >= group.quorum }
    }

    private mutating func answerOnceHeld() -> Action {
        guard isHeld else { return .wait }
        isDone = true
        return .answer(chosen)
    }

    /// Why some group can't reach its quorum any more.
    private func hopeless(_ failures: [NodeID: OperationFailure]) -> OperationFailure? {
        groups.firstUnreachableQuorum(failures)
    }
}

extension [ReplicaGroup] {
    /// The failure that put some group's quorum out of reach; `staleRing` before any other, for it can be mended.
    func firstUnreachableQuorum(_ failures: [NodeID: OperationFailure]) -> OperationFailure? {
        for group in self {
            let failed = group.members.compactMap { failures[$0] }
            guard group.members.count - failed.count < group.quorum else { continue }
            return failed.contains(.staleRing) ? .staleRing : failed.first
        }
        return nil
    }
}
