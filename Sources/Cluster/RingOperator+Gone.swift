// SPDX-License-Identifier: Apache-2.0

internal import HashRing
private import NIOCore

/// Nodes that do not answer: when a change begins without them, and when one that is under way goes on without them.
extension RingOperator {
    /// How long a node has to be silent until pairs are given up that it alone held, or more nodes than one.
    private static let silenceBeforeLoss = Duration.seconds(3)
    /// How long whoever drives a change, or takes it over, has to take up a wish.
    private static let wishTime = Duration.seconds(10)

    /// The word of all whose word it takes; where it may be, without that of nodes that are silent.
    func mandateOf(
        _ members: Set<NodeID>, _ change: RingChange, isForced: Bool, without gone: Set<NodeID>, _ holder: String,
        _ document: RingDocument
    ) async throws(RingAuthorityError) -> (RingMandate, absent: [NodeID]) {
        // (What the ring does not allow is refused by whoever makes the first document.)
        let target = (try? change.applied(to: document.ring)) ?? document.ring
        func plan(without absent: [NodeID]) -> MovePlan {
            MovePlan(from: document.ring, to: target, replicas: document.replicas, absent: absent)
        }
        var absent: [NodeID] = []
        while true {
            let movers = plan(without: absent).holders.union([change.node]).subtracting(absent)
            let claim = RingClaim(
                holder: holder, required: movers.sorted(),
                members: members.subtracting(movers).subtracting(absent).sorted(), others: absent, isPatient: true)
            do throws(RingAuthorityError) {
                return (try await with.authority.acquire(claim), absent)
            } catch .unreachable(let node, let reason) {
                let mayBeAbsent =
                    gone.contains(node)
                    || node == change.leaver && (isForced || hasSpareCopies(of: node, change, document))
                guard mayBeAbsent, !absent.contains(node) else { throw .unreachable(node, reason: reason) }
                // Neither the last copy of something, nor a second node, is given up for a moment's silence: two that
                // are cut off together might be a majority.
                let losesPairs = plan(without: absent + [node]).lostSlotCount > plan(without: absent).lostSlotCount
                if losesPairs || !absent.isEmpty || gone.contains(node),
                    await isAnswering(node, within: RingOperator.silenceBeforeLoss)
                {
                    throw .unreachable(node, reason: "\(reason); but it answers")
                }
                absent = (absent + [node]).sorted()
            }
        }
    }

    /// Whether a node that is to be replaced can be done without: others hold all that it held. (To replace a node is
    /// what one does with a dead one; that it is to be removed though it is dead has to be said.)
    private func hasSpareCopies(of node: NodeID, _ change: RingChange, _ document: RingDocument) -> Bool {
        guard case .replace = change, let target = try? change.applied(to: document.ring) else { return false }
        return MovePlan(from: document.ring, to: target, replicas: document.replicas, absent: [node])
            .lostSlotCount == 0
    }

    /// Has a change that is under way go on without a node that it may be waiting for.
    /// - Returns: whether it does, or is over; false where it does not need the node, or the node answers.
    func goOn(_ transition: RingTransition, without node: NodeID) async throws(OperatorError) -> Bool {
        if transition.absent.contains(node) { return true }
        guard transition.step != .cleaning, transition.from.contains(node) || transition.to.contains(node),
            await !isAnswering(node)
        else { return false }
        guard let document = await with.keeper.document else { throw .noRing }
        try await leave(.goOn(without: node), for: transition, with: document.members + document.standbys)
        let giveUp = ContinuousClock.now + RingOperator.wishTime
        while ContinuousClock.now < giveUp {
            guard (try? await Task.sleep(for: RingOperator.pollInterval)) != nil else { break }
            try? await with.keeper.refresh()
            let now = await with.keeper.document?.transition
            if now?.id != transition.id || now?.absent.contains(node) == true { return true }
        }
        throw .unknown("nobody has taken up yet that \(node) is gone; see /status")
    }

    private func isAnswering(_ node: NodeID, within time: Duration) async -> Bool {
        let end = ContinuousClock.now + time
        while ContinuousClock.now < end {
            if await isAnswering(node) { return true }
            guard (try? await Task.sleep(for: .milliseconds(250))) != nil else { break }
        }
        return false
    }

    private func isAnswering(_ node: NodeID) async -> Bool {
        let question = PeerMessage.RingExchange(document: nil, generation: nil, clock: 0)
        let answer: PeerMessage.RingExchange? = try? await with.peers.call(
            node, "ring", question, timeout: RingOperator.callTimeout)
        return answer?.generation != nil
    }
}
