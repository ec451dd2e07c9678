// SPDX-License-Identifier: Apache-2.0

internal import Cluster
internal import Control
internal import HashRing

/// What `GET /ui/events` tells, as JSON (docs/ring-page.md has it field by field).
enum RingPicture {
    /// Why a node says nothing of itself.
    struct Trouble: Encodable, Sendable {
        /// Nothing came back. Else it answers, but not this.
        let isUnreachable: Bool
        /// It answers, and does not know the peer token.
        let isUnproven: Bool
        let reason: String

        init(_ error: any Error) {
            switch error {
            case PeerCaller.Failure.unreachable(_, let reason):
                (isUnreachable, isUnproven, self.reason) = (true, false, reason)
            case PeerCaller.Failure.unproven:
                (isUnreachable, isUnproven, reason) = (false, true, "\(error)")
            default: (isUnreachable, isUnproven, reason) = (false, false, "\(error)")
            }
        }
    }

    /// `event: ring`: who sits where, and what change is under way. Sent first, and whenever it changes.
    struct Layout: Encodable {
        /// Who tells.
        let node: NodeID
        let epoch: Epoch
        let replicas: Int
        let positions: [String: [Int]]
        let standbys: [NodeID]
        let change: Change?
        let last: Finished?

        struct Change: Encodable {
            let id: String
            let sentence: String
            let step: String
            let abortReason: String?
            let from: [String: [Int]]
            let to: [String: [Int]]
        }

        struct Finished: Encodable {
            let id: String
            let sentence: String
            let outcome: String
            let reason: String
        }

        init(_ document: RingDocument?, seenBy node: NodeID) {
            self.node = node
            epoch = document?.epoch ?? .none
            replicas = document?.replicas ?? 0
            positions = document?.ring.positionsByNode ?? [:]
            standbys = document?.standbys ?? []
            change = document?.transition.map { transition in
                Change(
                    id: transition.id, sentence: transition.change.sentence, step: transition.step.rawValue,
                    abortReason: transition.abortReason,
                    from: transition.from.positionsByNode, to: transition.to.positionsByNode)
            }
            last = document?.lastChange.map {
                Finished(
                    id: $0.id, sentence: $0.change.sentence, outcome: $0.outcome.rawValue, reason: $0.reason)
            }
        }
    }

    /// `event: nodes`: how each of them is. Sent once a second.
    struct State: Encodable {
        let nodes: [Node]
        /// Nil where no change is under way.
        let progress: [Part]?
    }

    struct Node: Encodable {
        let node: NodeID
        let trouble: Trouble?
        /// Of what follows, in seconds; nil where the node has never answered.
        let age: Double?
        let version: String?
        let epoch: Epoch?
        let uptimeSeconds: Int?
        let workers: Int?
        let isRecovering: Bool?
        let recoveryFound: Int?
        let recoveryDone: Int?
        let memcachedError: String?
        let items: Int?
        let bytes: Int?
        let limitBytes: Int?
        let hints: Int?
        let slotsDiffering: Int?
        let isClockAhead: Bool?
        let connections: Int?
        let troubles: [String]?
        /// Nil where it has answered only once.
        let requestsPerSecond: Double?
        let errorsPerSecond: Double?
        let p50Milliseconds: Double?
        let p99Milliseconds: Double?

        init(node: NodeID, first: NodeSample?, last: NodeSample?, trouble: Trouble?, age: Double?) {
            self.node = node
            self.trouble = trouble
            self.age = age
            version = last?.version
            epoch = last?.epoch
            uptimeSeconds = last?.uptimeSeconds
            workers = last?.workers
            isRecovering = last?.isRecovering
            recoveryFound = last?.recoveryFound
            recoveryDone = last?.recoveryDone
            memcachedError = last?.memcachedError
            items = last?.items
            bytes = last?.bytes
            limitBytes = last?.limitBytes
            hints = last?.hints
            slotsDiffering = last?.slotsDiffering
            isClockAhead = last?.isClockAhead
            connections = last?.connections
            troubles = last?.troubles
            var rates: NodeRates?
            if let first, let last, last.atMilliseconds > first.atMilliseconds {
                rates = NodeRates(
                    from: first.tally, to: last.tally,
                    // (As numbers with a point, whose difference is one, whatever a node says.)
                    seconds: (Double(last.atMilliseconds) - Double(first.atMilliseconds)) / 1000)
            }
            requestsPerSecond = rates?.requestsPerSecond
            errorsPerSecond = rates?.errorsPerSecond
            p50Milliseconds = rates?.medianMilliseconds
            p99Milliseconds = rates?.p99Milliseconds
        }
    }

    /// One node's part of the step that a change is at.
    struct Part: Encodable {
        let node: NodeID
        let pairsFound: Int
        let pairsDone: Int
        let pairsMoved: Int
        let bytesMoved: Int
        let seconds: Double

        /// Each node tells of all, as it last heard; of several words on one node the farthest is the newest.
        static func latest(_ told: [[ChangeBoard.Entry.Job]]) -> [Part] {
            var parts: [NodeID: Part] = [:]
            for entry in told.joined() where entry.job.pairsDone >= parts[entry.node]?.pairsDone ?? 0 {
                let job = entry.job
                parts[entry.node] = Part(
                    node: entry.node, pairsFound: job.pairsFound, pairsDone: job.pairsDone,
                    pairsMoved: job.pairsMoved, bytesMoved: job.bytesMoved, seconds: job.seconds)
            }
            return parts.values.sorted { $0.node < $1.node }
        }
    }
}

extension Ring {
    /// Each node's positions, ascending.
    fileprivate var positionsByNode: [String: [Int]] {
        var positions: [String: [Int]] = [:]
        for seat in seats { positions[seat.node.description, default: []].append(Int(seat.position.value)) }
        return positions
    }
}
