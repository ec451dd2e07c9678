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
    /// Its memory was lost, and others are giving it what it held; until then its answers do not count.
    let isRecovering: Bool
    let recovery: Recovery.Progress?
    /// The latest pass; nil before the first, and where this node compares itself with none.
    let antiEntropy: AntiEntropy.Report?
    let hints: Hints
    let clock: Clock
    /// How long other nodes took to answer the latest heartbeat.
    let roundTrips: [Heartbeat.Measurement]
    let replicas: Int
    let ring: [String: NodeID]
    let standbys: [NodeID]
    let transition: Change?
    let lastChange: FinishedChange?
    let workers: [Worker]
    let memcached: Memcached
    let snapshot: Snapshot
    let log: Log

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

    struct Clock: Encodable {
        /// Other nodes' wall clocks less this one's, as the latest heartbeat found them.
        let offsets: [Heartbeat.Measurement]
        /// Too far ahead of the others: writes are refused here.
        let isAhead: Bool
        /// Readings of other clocks that this worker did not follow, for they were too far ahead.
        let refusedReadings: Int
    }

    /// What this host keeps for others, and what became of it, since memcached was started.
    struct Hints: Encodable {
        /// As many as the last pass left, and were taken since, those that were overwritten counted twice.
        let waiting: Int
        let waitingBytes: Int
        let delivered: Int
        /// Too old to be handed on.
        let dropped: Int
        /// There was no room for them.
        let refused: Int
        /// Why the last pass did not end.
        let error: String?

        private enum CodingKeys: String, CodingKey { case waiting, waitingBytes, delivered, dropped, refused, error }

        init(_ entry: HintBoard.Entry?) {
            let entry = entry ?? HintBoard.Entry()
            waiting = entry.waiting.count
            waitingBytes = entry.waiting.bytes
            delivered = entry.delivered
            dropped = entry.dropped
            refused = entry.refused
            error = entry.error
        }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(waiting, forKey: .waiting)
            try container.encode(waitingBytes, forKey: .waitingBytes)
            try container.encode(delivered, forKey: .delivered)
            try container.encode(dropped, forKey: .dropped)
            try container.encode(refused, forKey: .refused)
            try container.encode(error, forKey: .error)
        }
    }

    /// The last one since memcached was started.
    struct Snapshot: Encodable {
        /// 0: none are taken.
        let intervalSeconds: Int
        /// Since 1970; nil where none is finished yet, and then so are the following three.
        let finishedMilliseconds: UInt64?
        let pairs: Int?
        let bytes: Int?
        let seconds: Double?
        /// Why the last attempt failed; the snapshot before it is still there.
        let error: String?

        private enum CodingKeys: String, CodingKey {
            case intervalSeconds, finishedMilliseconds, pairs, bytes, seconds, error
        }

        init(intervalSeconds: Int, _ entry: SnapshotBoard.Entry?) {
            self.intervalSeconds = intervalSeconds
            finishedMilliseconds = entry?.finished?.atMilliseconds
            pairs = entry?.finished?.pairs
            bytes = entry?.finished?.bytes
            seconds = entry?.finished?.seconds
            error = entry?.error
        }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(intervalSeconds, forKey: .intervalSeconds)
            try container.encode(finishedMilliseconds, forKey: .finishedMilliseconds)
            try container.encode(pairs, forKey: .pairs)
            try container.encode(bytes, forKey: .bytes)
            try container.encode(seconds, forKey: .seconds)
            try container.encode(error, forKey: .error)
        }
    }

    /// The append-only logs of all of the host's workers.
    struct Log: Encodable {
        let isOn: Bool
        /// On disk, those of workers that are gone and of an earlier time with a log too.
        let segments: Int
        let bytes: Int
        /// Since 1970, the latest; nil before the first.
        let lastSyncMilliseconds: UInt64?
        /// Turns of lanes whose writes were refused, by the workers that live.
        let refused: Int
        /// Why one of them refuses writes.
        let error: String?

        private enum CodingKeys: String, CodingKey { case isOn, segments, bytes, lastSyncMilliseconds, refused, error }

        init(isOn: Bool, _ sum: (count: Int, bytes: Int), _ conditions: [PairLog.Condition]) {
            self.isOn = isOn
            segments = sum.count
            bytes = sum.bytes
            lastSyncMilliseconds = conditions.compactMap(\.lastSyncMilliseconds).max()
            refused = conditions.reduce(0) { $0 + $1.refused }
            error = conditions.compactMap(\.error).first
        }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(isOn, forKey: .isOn)
            try container.encode(segments, forKey: .segments)
            try container.encode(bytes, forKey: .bytes)
            try container.encode(lastSyncMilliseconds, forKey: .lastSyncMilliseconds)
            try container.encode(refused, forKey: .refused)
            try container.encode(error, forKey: .error)
        }
    }

    private enum CodingKeys: String, CodingKey {
        case version, node, uptimeSeconds, epoch, generation, isRecovering, recovery, antiEntropy, hints, clock,
            snapshot, log
        case replicas, ring, standbys, transition, lastChange, workers, memcached
    }

    /// Spelt out so that what is missing says `null`.
    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(version, forKey: .version)
        try container.encode(node, forKey: .node)
        try container.encode(uptimeSeconds, forKey: .uptimeSeconds)
        try container.encode(epoch, forKey: .epoch)
        try container.encode(generation, forKey: .generation)
        try container.encode(isRecovering, forKey: .isRecovering)
        try container.encode(recovery, forKey: .recovery)
        try container.encode(antiEntropy, forKey: .antiEntropy)
        try container.encode(hints, forKey: .hints)
        try container.encode(clock, forKey: .clock)
        try container.encode(replicas, forKey: .replicas)
        try container.encode(ring, forKey: .ring)
        try container.encode(standbys, forKey: .standbys)
        try container.encode(transition, forKey: .transition)
        try container.encode(lastChange, forKey: .lastChange)
        try container.encode(workers, forKey: .workers)
        try container.encode(memcached, forKey: .memcached)
        try container.encode(snapshot, forKey: .snapshot)
        try container.encode(log, forKey: .log)
    }
}

extension Ring {
    /// By position, as `GET /hash_ring` has it.
    var nodesByPosition: [String: NodeID] {
        Dictionary(uniqueKeysWithValues: seats.map { (String($0.position.value), $0.node) })
    }
}
