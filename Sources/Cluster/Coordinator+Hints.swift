// SPDX-License-Identifier: Apache-2.0

internal import HashRing
internal import KeyValue
private import Memcached
internal import NIOCore
internal import RequestTracing

/// Hinted hand-off as the coordinator and as the stand-in see it (docs/replication.md).
extension Coordinator {
    /// How many nodes of the walk may stand in for members of a group, as a multiple of it: enough to step over some
    /// that are away as well.
    private static let standInsPerMember = 2

    /// Those behind the slot's group, clockwise, the ones that are known to be silent last.
    func standIns(of slot: Slot, _ view: RingView) -> [NodeID] {
        guard let table = view.table, let members = table[slot].writes.first?.members else { return [] }
        let walk = table.document.ring.preferenceList(
            of: slot, count: members.count * (1 + Coordinator.standInsPerMember))
        let others = walk.filter { !members.contains($0) }
        return others.filter { !heartbeat.isSilent($0) } + others.filter { heartbeat.isSilent($0) }
    }

    /// Members that do not answer: known by the host to be silent, or in trouble as this worker sees it. Nil where
    /// there are none.
    func suspects(among members: [NodeID]) -> (silent: Set<NodeID>, inTrouble: Set<NodeID>)? {
        var silent: Set<NodeID> = []
        var inTrouble: Set<NodeID> = []
        for member in members where member != node {
            if heartbeat.isSilent(member) {
                silent.insert(member)
            } else if isInTrouble(member) {
                inTrouble.insert(member)
            }
        }
        return silent.isEmpty && inTrouble.isEmpty ? nil : (silent, inTrouble)
    }

    /// Sends an operation on a hint; this host may be the stand-in itself.
    func sendHint(
        _ operation: Operation, to node: NodeID, epoch: Epoch, deadline: NIODeadline, for trace: RequestTrace?,
        completion: @escaping (Outcome) -> Void
    ) {
        guard node == self.node, operation.isWrite else {
            return send(
                operation, to: node, epoch: epoch, deadline: deadline, isMoving: false, for: trace,
                completion: completion)
        }
        hints.prepare {
            guard let view = self.view, view.stamp.epoch == epoch else { return completion(.failed(.staleRing)) }
            if let failure = self.hints.refusal(of: operation) { return completion(.failed(failure)) }
            self.send(
                operation, to: node, epoch: epoch, deadline: deadline, isMoving: false, for: trace,
                completion: completion)
        }
    }

    /// Why this node does not stand in, though both sides stand on the same document.
    func refusal(ofHint operation: Operation, _ view: RingView, _ placement: Placement) -> OperationFailure? {
        guard !placement.isMoving, !placement.involves(node) else { return .notApplied(.notOwner) }
        switch operation {
        case .read: return view.isRecovering ? .notApplied(.recovering) : nil
        case .apply: return hints.refusal(of: operation)
        case .readVersion, .heldVersion, .stamp, .replace: return .notApplied(.protocolViolation)
        }
    }
}

extension Placement {
    /// Whether nodes behind the group may stand in for members: where there are some, and not for a lone owner, which
    /// stamps its writes, and promises more.
    func mayUseStandIns(in table: RoutingTable) -> Bool {
        guard !isMoving, writes.count == 1 else { return false }
        let replicas = writes[0].members.count
        return replicas > 1 && replicas < table.nodeCount
    }
}
