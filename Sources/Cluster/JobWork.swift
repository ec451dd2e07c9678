// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import KeyValue
package import Memcached
private import NIOCore

/// What the jobs of a ring change do: copy, verify, clean. All of it may be done twice without harm.
package struct JobWork: Sendable {
    package enum Failure: Error, Sendable, CustomStringConvertible {
        case takenOver
        /// This host's memory was lost, and what it is to give is not all here again.
        case recovering
        /// The ring is being changed.
        case ringChanges
        /// A gaining node's memory was lost on the way.
        case gainerForgot(NodeID)
        case remote(NodeID, OperationFailure)
        case unexpected(String)

        package var description: String {
            switch self {
            case .takenOver: "another worker has taken the job over"
            case .recovering: "this memory is being refilled"
            case .ringChanges: "the ring is being changed"
            case .gainerForgot(let node): "\(node) has lost its memory meanwhile"
            case .remote(let node, let failure): "\(node): \(failure)"
            case .unexpected(let text): text
            }
        }
    }

    /// Up to where a run had come, for the one that takes over: all pairs of the slots up to this one are done, on
    /// these memories.
    package struct Checkpoint: Codable, Sendable, Hashable {
        package let slot: UInt16
        package let gainers: [RingTransition.Fence]
    }

    /// What has been copied, as it was: this host's pairs of moving slots whose cas token is not above this number.
    package struct Copied: Codable, Sendable, Hashable {
        package let through: UInt64
        /// The memories that hold it; none while it is being copied.
        package var gainers: [RingTransition.Fence] = []
    }

    /// Counts while the work goes on.
    actor Tally {
        private var progress = JobProgress()
        private(set) var checkpoint: Checkpoint?

        init(checkpoint: Checkpoint?) { self.checkpoint = checkpoint }

        func found(_ pairs: Int) { progress.pairsFound += pairs }

        func done(pairs: Int, moved: Int, bytes: Int) {
            progress.pairsDone += pairs
            progress.pairsMoved += moved
            progress.bytesMoved += bytes
        }

        func reached(_ checkpoint: Checkpoint) { self.checkpoint = checkpoint }

        func fill(_ record: inout JobRunner.Record, seconds: Double) {
            record.progress = progress
            record.progress.seconds = seconds
            record.checkpoint = checkpoint
        }
    }

    private static let remoteTime = TimeAmount.seconds(2)

    let node: NodeID
    let pairs: HostPairs
    let bulkDelete: BulkDelete
    private let peers: PeerCaller
    private let clock: WorkerClock
    let failpoints: Failpoints

    package init(
        pairs: HostPairs, node: NodeID, bulkDelete: BulkDelete, peers: PeerCaller, clock: WorkerClock,
        failpoints: Failpoints
    ) {
        self.node = node
        self.pairs = pairs
        self.bulkDelete = bulkDelete
        self.peers = peers
        self.clock = clock
        self.failpoints = failpoints
    }

    /// - Parameter copied: what need not be verified, in these memories.
    func perform(
        _ kind: JobKind, _ document: RingDocument, generation: Generation, copied: Copied?, _ tally: Tally
    ) async throws -> RingTransitionStateMachine.JobReport {
        guard let stamp = try await pairs.stamp(), stamp.epoch == document.epoch, stamp.generation == generation else {
            throw HostPairs.Failure.overtaken
        }
        switch kind {
        case .change(.clean):
            try await clean(document, stamp, tally)
            return .init(generation: generation, gainers: [])
        case .change(let job):
            guard let transition = document.transition else { throw HostPairs.Failure.overtaken }
            if stamp.isRecovering { throw Failure.recovering }
            let delivery = Delivery(MovePlan(transition, replicas: document.replicas), from: node, job)
            let memories = try await generations(of: delivery.gainers, stamp)
            // What was not stored again since it was copied is where it was copied to.
            let known = job == .verify && copied?.gainers == memories ? copied?.through : nil
            try await stream(delivery, stamp, memories, newerThan: known, tally)
            return .init(generation: generation, gainers: memories)
        case .repair(let repair):
            // Also out of a memory that is recovering itself: it may hold what nobody else does.
            let delivery = Delivery(repair, document, from: node)
            try await stream(delivery, stamp, [repair.target], newerThan: nil, tally)
            return .init(generation: generation, gainers: [repair.target])
        }
    }

    // MARK: Copy, verify and repair

    /// What goes from this host to whom.
    private struct Delivery: Sendable {
        let slots: Set<UInt16>
        let gainers: [NodeID]
        /// The slots whose pairs are sent without asking what the gainers hold; of all others versions are sent first,
        /// and pairs only where they are lacking.
        let blindSlots: Set<UInt16>
        /// For the failpoint at each batch.
        let name: String
        /// Leaves out what is bound to go: where one replica has dropped it already, it would be given back for ever.
        let leavesOutWhatGoes: Bool
        /// How gainers are asked for a version, who may be recovering.
        let question: @Sendable (StoredKey) -> Operation
        let gainersOfSlot: @Sendable (Slot) -> [NodeID]

        init(_ plan: MovePlan, from node: NodeID, _ job: RingTransitionStateMachine.Job) {
            let moves = plan.moves.filter { $0.losers.contains(node) && $0.gainers.contains { $0 != node } }
            slots = Set(moves.flatMap { $0.slots })
            gainers = Set(moves.flatMap(\.gainers)).subtracting([node]).sorted()
            let comparesFirst = job == .verify || moves.contains(where: \.isCatchUp)
            blindSlots = comparesFirst ? [] : slots
            leavesOutWhatGoes = false
            question = { .readVersion($0) }
            name = job.rawValue
            gainersOfSlot = { plan.gainers(of: $0, from: node) }
        }

        init(_ repair: RepairJob, _ document: RingDocument, from node: NodeID) {
            let target = repair.target.node
            let wanted = repair.slots
            let shared = RefillPlan.slots(in: document) { $0.members.contains(node) && $0.members.contains(target) }
            slots = wanted.map { shared.intersection($0) } ?? shared
            gainers = [target]
            // A memory that was lost gets each slot blindly from one of those who hold it; from the others, what that
            // one lacked.
            let isFirst = { (slot: UInt16) in
                Slot(Int(slot)).map { RefillPlan.firstSource(of: $0, for: target, in: document) } == node
            }
            blindSlots = wanted == nil ? shared.filter(isFirst) : []
            leavesOutWhatGoes = wanted != nil
            name = "repair"
            question = { .heldVersion($0) }
            gainersOfSlot = { _ in [target] }
        }
    }

    /// Who is to have a pair.
    private struct Wanting {
        let key: StoredKey
        var gainers: [NodeID]
        /// Those of them that hold nothing under the key, as far as they were asked.
        var without: Set<NodeID> = []
    }

    /// Sends what gainers lack, who must be on these memories all the while.
    private func stream(
        _ delivery: Delivery, _ stamp: HostStamp, _ memories: [RingTransition.Fence], newerThan known: UInt64?,
        _ tally: Tally
    ) async throws {
        var lowest = 0
        if let checkpoint = await tally.checkpoint, checkpoint.gainers == memories { lowest = Int(checkpoint.slot) + 1 }
        while lowest < Slot.count {
            let from = UInt16(lowest)
            let slots = delivery.slots
            let scan = try await pairs.scanner.scan(newerThan: known) { $0.value >= from && slots.contains($0.value) }
            await tally.found(scan.keys.count)
            // What is sent blindly goes first: by the time that the rest is compared, most of it has come from others.
            let isBlind = (0..<scan.keys.count).map { delivery.blindSlots.contains(scan.keys[$0].slot.value) }
            let blind = scan.keys.picking(isBlind.indices.filter { isBlind[$0] })
            let rest = scan.keys.picking(isBlind.indices.filter { !isBlind[$0] })
            try await stream(delivery, blind, comparingFirst: false, isLast: rest.count == 0, stamp, memories, tally)
            try await stream(delivery, rest, comparingFirst: true, isLast: true, stamp, memories, tally)
            guard let last = scan.coveredThrough else { break }
            lowest = Int(last.value) + 1
        }
        guard try await generations(of: delivery.gainers, stamp) == memories else { throw HostPairs.Failure.overtaken }
    }

    /// One pass over scanned keys, a window of batches at a time.
    /// - Parameter isLast: whether nothing else of these slots is left to be done.
    private func stream(
        _ delivery: Delivery, _ keys: ScannedKeys, comparingFirst: Bool, isLast: Bool, _ stamp: HostStamp,
        _ memories: [RingTransition.Fence], _ tally: Tally
    ) async throws {
        try await withThrowingTaskGroup(of: Int.self) { group in
            var next = 0
            var underway: Set<Int> = []
            func fillWindow() {
                while next < keys.count, underway.count < Limits.handoffWindow {
                    let batch = next..<keys.endOfHandoffBatch(from: next)
                    underway.insert(batch.lowerBound)
                    group.addTask {
                        try await self.stream(
                            delivery, batch.map { keys[$0] }, comparingFirst: comparingFirst, stamp, memories, tally)
                        return batch.lowerBound
                    }
                    next = batch.upperBound
                }
            }
            fillWindow()
            while let finished = try await group.next() {
                underway.remove(finished)
                // All before the oldest batch under way is done; its first slot may be half done.
                let oldest = underway.min() ?? next
                if isLast, oldest > 0 {
                    let reached =
                        oldest < keys.count ? Int(keys[oldest].slot.value) - 1 : Int(keys[oldest - 1].slot.value)
                    if reached >= 0 { await tally.reached(Checkpoint(slot: UInt16(reached), gainers: memories)) }
                }
                fillWindow()
            }
        }
    }

    private func stream(
        _ delivery: Delivery, _ keys: [StoredKey], comparingFirst: Bool, _ stamp: HostStamp,
        _ memories: [RingTransition.Fence], _ tally: Tally
    ) async throws {
        try Task.checkCancellation()
        var wanting = keys.map { Wanting(key: $0, gainers: delivery.gainersOfSlot($0.slot)) }
        if comparingFirst { wanting = try await lacking(delivery, wanting, stamp, memories) }
        let now = clock.wallMilliseconds
        var bytes = 0
        var batches: [NodeID: [Operation]] = [:]
        for (wanting, record) in zip(wanting, try await records(of: wanting.map(\.key), stamp)) {
            guard let record else { continue }
            // Nobody who has dropped it already gets it again; but who holds an older one must not keep that.
            let isLeftOut = delivery.leavesOutWhatGoes && Retention.isBoundToGo(record, atMilliseconds: now)
            bytes += record.buffer.readableBytes
            for gainer in wanting.gainers where !isLeftOut || !wanting.without.contains(gainer) {
                batches[gainer, default: []].append(.apply(wanting.key, record))
            }
        }
        for (gainer, operations) in batches {
            for outcome in try await send(operations, to: gainer, stamp, memories) {
                guard case .applied = outcome else { throw Failure.remote(gainer, Optional(outcome).asFailure) }
            }
        }
        try await failpoints.hit("ring.job.\(delivery.name).batch")
        await tally.done(pairs: keys.count, moved: wanting.count, bytes: bytes)
    }

    /// Those of which some gainer has an older version, or none, with these gainers alone, and who has none.
    private func lacking(
        _ delivery: Delivery, _ entries: [Wanting], _ stamp: HostStamp, _ memories: [RingTransition.Fence]
    ) async throws -> [Wanting] {
        var versions: [Version] = []
        for outcome in try await pairs.perform(entries.map { .readVersion($0.key) }, under: stamp) {
            guard case .version(let version) = outcome else {
                throw HostPairs.Failure.local(Optional(outcome).asFailure)
            }
            versions.append(version)
        }
        var lacking = entries.map { Wanting(key: $0.key, gainers: []) }
        for gainer in Set(entries.flatMap(\.gainers)) {
            let asked = entries.indices.filter { entries[$0].gainers.contains(gainer) }
            let answers = try await send(asked.map { delivery.question(entries[$0].key) }, to: gainer, stamp, memories)
            for (index, answer) in zip(asked, answers) {
                guard case .version(let theirs) = answer else {
                    throw Failure.remote(gainer, Optional(answer).asFailure)
                }
                if theirs < versions[index] { lacking[index].gainers.append(gainer) }
                if theirs == .none { lacking[index].without.insert(gainer) }
            }
        }
        return lacking.filter { !$0.gainers.isEmpty }
    }

    /// As the gainers' workers know them. Whether they still hold by the time that it matters, the announcements that
    /// follow find out.
    private func generations(of gainers: [NodeID], _ stamp: HostStamp) async throws -> [RingTransition.Fence] {
        var memories: [RingTransition.Fence] = []
        for gainer in gainers {
            let answer = try await peers.batch(
                gainer, PeerBatch(epoch: stamp.epoch, clock: clock.reading, operations: []),
                timeout: JobWork.remoteTime)
            memories.append(RingTransition.Fence(node: gainer, generation: answer.generation))
        }
        return memories
    }

    private func send(
        _ operations: [Operation], to gainer: NodeID, _ stamp: HostStamp, _ memories: [RingTransition.Fence]
    ) async throws -> [Outcome] {
        guard !operations.isEmpty else { return [] }
        let answer = try await peers.batch(
            gainer, PeerBatch(epoch: stamp.epoch, clock: clock.reading, operations: operations),
            timeout: JobWork.remoteTime)
        guard memories.contains(.init(node: gainer, generation: answer.generation)) else {
            throw Failure.gainerForgot(gainer)
        }
        guard answer.outcomes.count == operations.count else { throw Failure.unexpected("answers are missing") }
        return answer.outcomes
    }

    // MARK: This host's pairs

    /// A record for each key; nil for those that are gone since the scan.
    private func records(of keys: [StoredKey], _ stamp: HostStamp) async throws -> [Envelope?] {
        try await pairs.perform(keys.map { .read($0) }, under: stamp).map { try $0.read() }
    }
}
