// SPDX-License-Identifier: Apache-2.0

internal import Cluster
internal import HashRing

/// The JSON object of `GET /status`.
struct StatusReport: Encodable {
    let version: String
    let node: NodeID
    let uptimeSeconds: Int
    /// 0 where the node has no ring.
    let epoch: Epoch
    let generation: Generation?
    let ring: [String: NodeID]
    let standbys: [NodeID]
    let transition: Change?
    let lastChange: FinishedChange?
    let workers: [Worker]
    let memcached: Memcached

    struct Change: Encodable {
        let id: String
        let change: RingChange
        let step: RingTransition.Step
        let abortReason: String?
        let from: [String: NodeID]
        let to: [String: NodeID]
        let progress: [Progress]
    }

    /// One node's part of the change.
    struct Progress: Encodable {
        let node: NodeID
        let pairsFound: Int
        let pairsDone: Int
        let pairsMoved: Int
        let bytesMoved: Int
        let seconds: Double
        let pairsPerSecond: Double
        /// By its speed so far; nil before it has any.
        let secondsLeft: Double?

        init(_ node: NodeID, _ job: JobProgress) {
            self.node = node
            pairsFound = job.pairsFound
            pairsDone = job.pairsDone
            pairsMoved = job.pairsMoved
            bytesMoved = job.bytesMoved
            seconds = job.seconds
            let speed = job.seconds > 0 ? Double(job.pairsDone) / job.seconds : 0
            pairsPerSecond = speed.rounded()
            secondsLeft = speed > 0 ? (Double(max(job.pairsFound - job.pairsDone, 0)) / speed).rounded() : nil
        }
    }

    struct Worker: Encodable {
        let slot: Int
        let pid: Int32
        /// The worker has let go of all older documents.
        let drainedEpoch: Epoch
    }

    struct Memcached: Encodable {
        let address: String
        let isAnswering: Bool
        let lastError: String?
        let itemBytes: Int
    }

    private enum CodingKeys: String, CodingKey {
        case version, node, uptimeSeconds, epoch, generation, ring, standbys, transition, lastChange, workers, memcached
    }

    /// Spelt out so that what is missing says `null`.
    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(version, forKey: .version)
        try container.encode(node, forKey: .node)
        try container.encode(uptimeSeconds, forKey: .uptimeSeconds)
        try container.encode(epoch, forKey: .epoch)
        try container.encode(generation, forKey: .generation)
        try container.encode(ring, forKey: .ring)
        try container.encode(standbys, forKey: .standbys)
        try container.encode(transition, forKey: .transition)
        try container.encode(lastChange, forKey: .lastChange)
        try container.encode(workers, forKey: .workers)
        try container.encode(memcached, forKey: .memcached)
    }
}

extension Ring {
    /// By position, as `GET /hash_ring` has it.
    var nodesByPosition: [String: NodeID] {
        Dictionary(uniqueKeysWithValues: seats.map { (String($0.position.value), $0.node) })
    }
}
