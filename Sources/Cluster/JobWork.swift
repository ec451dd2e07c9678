// SPDX-License-Identifier: Apache-2.0

private import Glibc
package import HashRing
package import KeyValue
package import Memcached
package import NIOCore

/// What the jobs of a ring change do: copy, verify, clean. All of it may be done twice without harm.
package struct JobWork: Sendable {
    package enum Failure: Error, Sendable, CustomStringConvertible {
        case takenOver
        /// The ring, or this host's memory, is no longer the one that the job began with.
        case overtaken
        /// The ring is being changed.
        case ringChanges
        /// A gaining node's memory was lost on the way.
        case gainerForgot(NodeID)
        case local(OperationFailure)
        case remote(NodeID, OperationFailure)
        case unexpected(String)

        package var description: String {
            switch self {
            case .takenOver: "another worker has taken the job over"
            case .overtaken: "the ring, or this host's memory, has changed meanwhile"
            case .ringChanges: "the ring is being changed"
            case .gainerForgot(let node): "\(node) has lost its memory meanwhile"
            case .local(let failure): "this host: \(failure)"
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

    private static let localTime = TimeAmount.seconds(2)
    private static let remoteTime = TimeAmount.seconds(2)
    /// memcached gives an item that it moves to another page a new token, as if it were overwritten: what a deletion
    /// left is looked for again, so many times.
    private static let scansAgain = 8
    private static let ringPause = Duration.milliseconds(100)

    private let node: NodeID
    private let loop: any EventLoop
    private let coordinator: NIOLoopBound<Coordinator>
    private let scanner: MetadumpScanner
    private let bulkDelete: BulkDelete
    private let peers: PeerCaller
    private let clock: WorkerClock
    private let failpoints: Failpoints

    package init(
        coordinator: NIOLoopBound<Coordinator>, node: NodeID, loop: any EventLoop, scanner: MetadumpScanner,
        bulkDelete: BulkDelete, peers: PeerCaller, clock: WorkerClock, failpoints: Failpoints
    ) {
        self.node = node
        self.loop = loop
        self.coordinator = coordinator
        self.scanner = scanner
        self.bulkDelete = bulkDelete
        self.peers = peers
        self.clock = clock
        self.failpoints = failpoints
    }

    static func monotonicMilliseconds() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }

    /// - Parameter copied: what need not be verified, in these memories.
    func perform(
        _ job: RingTransitionStateMachine.Job, _ document: RingDocument, generation: Generation, copied: Copied?,
        _ tally: Tally
    ) async throws -> RingTransitionStateMachine.JobReport {
        let stamp = HostStamp(epoch: document.epoch, generation: generation)
        switch job {
        case .clean:
            try await clean(document, stamp, tally)
            return .init(generation: generation, gainers: [])
        case .copy, .verify:
            guard let transition = document.transition else { throw Failure.overtaken }
            let plan = MovePlan(transition, replicas: document.replicas)
            let gainers = try await stream(job, plan, stamp, copied, tally)
            return .init(generation: generation, gainers: gainers)
        }
    }

    // MARK: Copy and verify

    /// Sends what gainers lack; returns the memories on which they hold it now.
    private func stream(
        _ job: RingTransitionStateMachine.Job, _ plan: MovePlan, _ stamp: HostStamp, _ copied: Copied?,
        _ tally: Tally
    ) async throws -> [RingTransition.Fence] {
        let gainers = Set(plan.moves.filter { $0.losers.contains(node) }.flatMap(\.gainers)).sorted()
        let memories = try await generations(of: gainers, stamp)
        var lowest = 0
        if let checkpoint = await tally.checkpoint, checkpoint.gainers == memories { lowest = Int(checkpoint.slot) + 1 }
        let moving = Set(plan.moves.filter { $0.losers.contains(node) }.flatMap { $0.slots })
        // What was not stored again since it was copied is where it was copied to.
        let known = job == .verify && copied?.gainers == memories ? copied?.through : nil
        while lowest < Slot.count {
            let from = UInt16(lowest)
            let scan = try await scanner.scan(newerThan: known) { $0.value >= from && moving.contains($0.value) }
            await tally.found(scan.keys.count)
            try await stream(job, scan.keys, plan, stamp, memories, tally)
            guard let last = scan.coveredThrough else { break }
            lowest = Int(last.value) + 1
        }
        guard try await generations(of: gainers, stamp) == memories else { throw Failure.overtaken }
        return memories
    }

    /// One pass over scanned keys, a window of batches at a time.
    private func stream(
        _ job: RingTransitionStateMachine.Job, _ keys: ScannedKeys, _ plan: MovePlan, _ stamp: HostStamp,
        _ memories: [RingTransition.Fence], _ tally: Tally
    ) async throws {
        try await withThrowingTaskGroup(of: Int.self) { group in
            var next = 0
            var underway: Set<Int> = []
            func fillWindow() {
                while next < keys.count, underway.count < Limits.handoffWindow {
                    let batch = next..<JobWork.endOfBatch(keys, from: next)
                    underway.insert(batch.lowerBound)
                    group.addTask {
                        try await self.stream(job, batch.map { keys[$0] }, plan, stamp, memories, tally)
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
                if oldest > 0 {
                    let reached =
                        oldest < keys.count ? Int(keys[oldest].slot.value) - 1 : Int(keys[oldest - 1].slot.value)
                    if reached >= 0 { await tally.reached(Checkpoint(slot: UInt16(reached), gainers: memories)) }
                }
                fillWindow()
            }
        }
    }

    private static func endOfBatch(_ keys: ScannedKeys, from start: Int) -> Int {
        keys.endOfBatch(from: start, keys: Limits.handoffBatchPairs, bytes: Limits.handoffBatchBytes)
    }

    private func stream(
        _ job: RingTransitionStateMachine.Job, _ keys: [StoredKey], _ plan: MovePlan, _ stamp: HostStamp,
        _ memories: [RingTransition.Fence], _ tally: Tally
    ) async throws {
        try Task.checkCancellation()
        var wanting = keys.map { (key: $0, gainers: plan.gainers(of: $0.slot, from: node)) }
        if job == .verify { wanting = try await lacking(wanting, stamp, memories) }
        var bytes = 0
        var batches: [NodeID: [Operation]] = [:]
        for (wanting, record) in zip(wanting, try await records(of: wanting.map(\.key), stamp)) {
            guard let record else { continue }
            bytes += record.buffer.readableBytes
            for gainer in wanting.gainers { batches[gainer, default: []].append(.apply(wanting.key, record)) }
        }
        for (gainer, operations) in batches {
            for outcome in try await send(operations, to: gainer, stamp, memories) {
                guard case .applied = outcome else { throw Failure.remote(gainer, Optional(outcome).asFailure) }
            }
        }
        try await failpoints.hit("ring.job.\(job.rawValue).batch")
        await tally.done(pairs: keys.count, moved: wanting.count, bytes: bytes)
    }

    /// Those of which some gainer has an older version, or none, with these gainers alone.
    private func lacking(
        _ entries: [(key: StoredKey, gainers: [NodeID])], _ stamp: HostStamp, _ memories: [RingTransition.Fence]
    ) async throws -> [(key: StoredKey, gainers: [NodeID])] {
        var versions: [Version] = []
        for outcome in try await here(entries.map { .readVersion($0.key) }, stamp) {
            guard case .version(let version) = outcome else { throw Failure.local(Optional(outcome).asFailure) }
            versions.append(version)
        }
        var lacking = entries.map { (key: $0.key, gainers: [NodeID]()) }
        for gainer in Set(entries.flatMap(\.gainers)) {
            let asked = entries.indices.filter { entries[$0].gainers.contains(gainer) }
            let answers = try await send(asked.map { .readVersion(entries[$0].key) }, to: gainer, stamp, memories)
            for (index, answer) in zip(asked, answers) {
                guard case .version(let theirs) = answer else {
                    throw Failure.remote(gainer, Optional(answer).asFailure)
                }
                if theirs < versions[index] { lacking[index].gainers.append(gainer) }
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

    // MARK: Clean

    private func clean(_ document: RingDocument, _ stamp: HostStamp, _ tally: Tally) async throws {
        let table = RoutingTable(document)
        let foreign = Set(Slot.all.filter { !table[$0].involves(node) }.map(\.value))
        var lowest = 0
        var scansAgain = JobWork.scansAgain
        while lowest < Slot.count, !foreign.isEmpty {
            let from = UInt16(lowest)
            let scan = try await scanner.scan { $0.value >= from && foreign.contains($0.value) }
            await tally.found(scan.keys.count)
            let left = try await delete(scan.keys, stamp, tally)
            if left > 0, scansAgain > 0 {
                scansAgain -= 1
                continue
            }
            guard let last = scan.coveredThrough else { break }
            lowest = Int(last.value) + 1
        }
    }

    /// Deletes while this host stands on the stamp: each chunk counts as an operation of its epoch, so that no newer
    /// document is adopted in the middle of it.
    /// - Returns: how many were not deleted, because they are no longer what was found.
    private func delete(_ keys: ScannedKeys, _ stamp: HostStamp, _ tally: Tally) async throws -> Int {
        var start = 0
        var left = 0
        while start < keys.count {
            try Task.checkCancellation()
            let end = min(start + Limits.deletedAtOnce, keys.count)
            left += try await whileStanding(on: stamp) { try await bulkDelete.delete(keys, in: start..<end) }
            try await failpoints.hit("ring.job.clean.batch")
            await tally.done(pairs: end - start, moved: end - start, bytes: 0)
            start = end
        }
        return left
    }

    /// Drops every pair of this host; returns how many. Not during a ring change: what it has brought here is nowhere
    /// else soon, and what it takes from here would come back.
    package func clear() async throws -> Int {
        guard let view = try await view() else { throw Failure.overtaken }
        if view.document?.transition != nil { throw Failure.ringChanges }
        let stamp = view.stamp
        let tally = Tally(checkpoint: nil)
        var count = 0
        var lowest = 0
        var scansAgain = JobWork.scansAgain
        while lowest < Slot.count {
            let from = UInt16(lowest)
            let scan = try await scanner.scan { $0.value >= from }
            if scan.keys.count > 0 {
                // This worker may be the last to hear of a change; what the others wrote since then is not in this
                // scan.
                _ = try await records(of: [scan.keys[0]], stamp)
            }
            let left = try await delete(scan.keys, stamp, tally)
            count += scan.keys.count - left
            if left > 0, scansAgain > 0 {
                scansAgain -= 1
                continue
            }
            guard let last = scan.coveredThrough else { break }
            lowest = Int(last.value) + 1
        }
        return count
    }

    /// Hands on every pair of this host, in batches; not those that are deleted or expired.
    package func forEachPair(
        _ body: @Sendable ([(key: Key, value: ByteBuffer)]) async throws -> Void
    ) async throws {
        guard let generation = try await view()?.stamp.generation else { throw Failure.overtaken }
        var lowest = 0
        while lowest < Slot.count {
            let from = UInt16(lowest)
            let scan = try await scanner.scan { $0.value >= from }
            var start = 0
            while start < scan.keys.count {
                try Task.checkCancellation()
                let end = JobWork.endOfBatch(scan.keys, from: start)
                let keys = (start..<end).map { scan.keys[$0] }
                let now = clock.wallMilliseconds
                try await body(
                    zip(keys, try await records(of: keys, in: generation)).compactMap { key, record in
                        guard let record, !record.isGone(atMilliseconds: now),
                            let name = record.keyInside.flatMap({ Key(Array($0.readableBytesView)) }) ?? key.clientKey
                        else { return nil }
                        return (name, record.value)
                    })
                start = end
            }
            guard let last = scan.coveredThrough else { break }
            lowest = Int(last.value) + 1
        }
    }

    // MARK: This host's pairs

    /// A record for each key; nil for those that are gone since the scan.
    private func records(of keys: [StoredKey], _ stamp: HostStamp) async throws -> [Envelope?] {
        try await here(keys.map { .read($0) }, stamp).map { outcome in
            guard case .record(let record) = outcome else { throw Failure.local(Optional(outcome).asFailure) }
            return record
        }
    }

    /// The same under whatever ring this host stands on, in this memory.
    private func records(of keys: [StoredKey], in generation: Generation) async throws -> [Envelope?] {
        var tries = 0
        while true {
            guard let stamp = try await view()?.stamp, stamp.generation == generation else { throw Failure.overtaken }
            do {
                return try await records(of: keys, stamp)
            } catch Failure.overtaken where tries < Limits.ringRetries {
                tries += 1
            } catch Failure.local(.notApplied(.noRing)) where tries < Limits.ringRetries {
                // The host has moved on, and this worker is about to.
                tries += 1
            }
            try await Task.sleep(for: JobWork.ringPause)
        }
    }

    private func view() async throws -> RingView? { try await loop.submit { coordinator.value.view }.get() }

    private func here(_ operations: [Operation], _ stamp: HostStamp) async throws -> [Outcome] {
        guard !operations.isEmpty else { return [] }
        return try await loop.flatSubmit {
            let promise = loop.makePromise(of: [Outcome].self)
            let coordinator = coordinator.value
            if coordinator.view?.stamp == stamp {
                coordinator.local.submit(operations, deadline: .now() + JobWork.localTime) { outcomes, _ in
                    promise.succeed(outcomes)
                }
            } else {
                promise.fail(Failure.overtaken)
            }
            return promise.futureResult
        }.get()
    }

    private func whileStanding<Result: Sendable>(
        on stamp: HostStamp, _ body: () async throws -> Result
    ) async throws -> Result {
        let isStanding = try await loop.submit {
            guard coordinator.value.view?.stamp == stamp else { return false }
            coordinator.value.local.begin(stamp.epoch)
            return true
        }.get()
        guard isStanding else { throw Failure.overtaken }
        let result: Swift.Result<Result, any Error>
        do {
            result = .success(try await body())
        } catch {
            result = .failure(error)
        }
        try await loop.submit { coordinator.value.local.end(stamp.epoch) }.get()
        return try result.get()
    }
}
