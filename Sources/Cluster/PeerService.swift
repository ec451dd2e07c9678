// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials
package import HashRing
package import KeyValue
package import Memcached
package import NIOCore

/// What this host does when another node, or a driver on this one, calls: ring exchanges, promises, announcements,
/// jobs.
package struct PeerService: Sendable {
    /// How long an announcement waits for the workers to let go of the older ring, before it answers "not yet".
    private static let drainTime = Duration.milliseconds(1500)
    private static let drainPollInterval = Duration.milliseconds(10)

    private let node: NodeID
    private let keeper: RingKeeper
    private let registry: WorkerRegistry
    private let jobs: JobRunner
    private let pairs: HostPairs
    private let recovery: Recovery
    private let board: ChangeBoard
    private let clock: WorkerClock

    package init(
        node: NodeID, keeper: RingKeeper, registry: WorkerRegistry, jobs: JobRunner, pairs: HostPairs,
        recovery: Recovery,
        board: ChangeBoard, clock: WorkerClock
    ) {
        self.node = node
        self.keeper = keeper
        self.registry = registry
        self.jobs = jobs
        self.pairs = pairs
        self.recovery = recovery
        self.board = board
        self.clock = clock
    }

    /// One answer for each call by name; nil where there is no such call.
    package func answer(_ name: String, _ body: ByteBuffer) async throws -> ByteBuffer? {
        switch name {
        case "ring": try encode(await exchange(try decode(body)))
        case "promise":
            try encode(
                await { (request: PeerMessage.PromiseRequest) in try await keeper.promise(request) }(try decode(body)))
        case "release":
            try encode(
                await { (request: PeerMessage.Release) in
                    try await keeper.release(request.holder)
                    return Done()
                }(try decode(body)))
        case "announce": try encode(await announce(try decode(body)))
        case "job": try encode(await job(try decode(body)))
        case "digests": try encode(await digests(try decode(body)))
        case "list": HostListingCodec.encode(try await list(try decode(body)))
        case "repair": try encode(await repair(try decode(body)))
        case "wish":
            try encode(
                await { (wish: PeerMessage.ChangeWish) in
                    try await leave(wish)
                    return Done()
                }(try decode(body)))
        default: nil
        }
    }

    private func decode<Message: Decodable>(_ body: ByteBuffer) throws -> Message {
        try JSONDecoder().decode(Message.self, from: Data(body.readableBytesView))
    }

    private func encode(_ message: some Encodable) throws -> ByteBuffer {
        ByteBuffer(bytes: try JSONEncoder().encode(message))
    }

    private func exchange(_ question: PeerMessage.RingExchange) async throws -> PeerMessage.RingExchange {
        clock.merge(question.clock)
        if let document = question.document {
            try await keeper.learn(document, isFounding: question.isFounding ?? false)
        }
        return PeerMessage.RingExchange(
            document: await keeper.known, generation: try? await keeper.currentStamp().generation, clock: clock.reading,
            wallMilliseconds: clock.wallMilliseconds)
    }

    package func announce(_ announcement: PeerMessage.Announcement) async throws -> PeerMessage.AnnouncementAnswer {
        let answer = try await keeper.announce(announcement)
        let generation = try await keeper.current().generation
        switch answer {
        case .overtaken: return .init(state: .overtaken, generation: generation)
        case .notPromised: return .init(state: .notPromised, generation: generation)
        case .accepted: break
        }
        let isDrained = try await waitUntilDrained(to: announcement.document.epoch)
        // Only if this memory is still the one in which the workers have registered does their word count.
        let after = try await keeper.currentStamp()
        guard isDrained, after.generation == generation else {
            return .init(state: .draining, generation: after.generation)
        }
        let needsWhole = announcement.document.transition?.step.needsWholeMemories ?? false
        if needsWhole, after.isRecovering { return .init(state: .recovering, generation: generation) }
        let isWithout = try await keeper.isWithoutWhatWasVerified()
        return .init(state: isWithout ? .lostWhatWasVerified : .adopted, generation: generation)
    }

    /// Whether every worker of this host has let go of all older epochs.
    private func waitUntilDrained(to epoch: Epoch) async throws -> Bool {
        let deadline = ContinuousClock.now + PeerService.drainTime
        while true {
            let workers = try await registry.living()
            if !workers.isEmpty, workers.values.allSatisfy({ $0.drained >= epoch }) { return true }
            guard ContinuousClock.now < deadline else { return false }
            try await Task.sleep(for: PeerService.drainPollInterval)
        }
    }

    package func leave(_ wish: PeerMessage.ChangeWish) async throws { try await board.leave(wish) }

    package func job(_ request: PeerMessage.JobRequest) async throws -> PeerMessage.JobAnswer {
        try await keeper.learn(request.document)
        return try await jobs.request(request)
    }

    private func digests(_ request: PeerMessage.DigestRequest) async throws -> PeerMessage.DigestAnswer {
        let stamp = try await keeper.currentStamp()
        guard let document = await keeper.view?.document, document.epoch == request.epoch, !stamp.isRecovering else {
            return PeerMessage.DigestAnswer(generation: stamp.generation, digests: nil)
        }
        return PeerMessage.DigestAnswer(
            generation: stamp.generation,
            digests: try await pairs.digests(
                document, in: stamp.generation, of: node, wallMilliseconds: { clock.wallMilliseconds }))
    }

    package func list(_ request: PeerMessage.ListRequest) async throws -> HostListingAnswer {
        let stamp = try await keeper.currentStamp()
        guard let view = try await pairs.view(), let table = view.table, view.stamp == stamp,
            table.document.epoch == request.epoch
        else { return .staleRing }
        guard !view.isForgetful(isMoving: true) else { return .recovering }
        guard let after = ListingMark(request.after) else { throw JobWork.Failure.unexpected("no mark of a listing") }
        let listing: HostListing
        do {
            listing = try await pairs.list(
                table, of: node, under: stamp, after: after, prefix: request.prefix,
                limit: min(max(request.limit, 1), Limits.listedPairs),
                bytes: request.bytes.map { min($0, Limits.listedBytes) })
        } catch HostPairs.Failure.overtaken {
            return .staleRing
        }
        // (It may have found nothing to read, or have looked in a memory that was gone by then.)
        return try await keeper.currentStamp() == stamp ? .listed(listing) : .staleRing
    }

    private func repair(_ request: PeerMessage.RepairRequest) async throws -> PeerMessage.RepairAnswer {
        try await keeper.learn(request.document)
        let stamp = try await keeper.currentStamp()
        if stamp.isRecovering, await !recovery.hasLoadedSnapshot(in: stamp.generation) {
            // What it lost itself may be on its disk.
            let job = PeerMessage.JobAnswer(
                state: .failed, progress: JobProgress(), error: "its own snapshot is not loaded yet",
                generation: stamp.generation)
            return PeerMessage.RepairAnswer(job: job, isWhole: false, isRecovering: true)
        }
        let target = request.repair.target
        // Its name says of what memory it gives, so that one that is whole by now begins again.
        let name =
            request.pass ?? "\(stamp.isRecovering ? "the remains" : "all") for \(target.node) in \(target.generation)"
        let job = try await jobs.request(
            PeerMessage.JobRequest(document: request.document, changeID: name, kind: .repair(request.repair)))
        return PeerMessage.RepairAnswer(
            job: job, isWhole: !stamp.isRecovering && job.generation == stamp.generation,
            isRecovering: stamp.isRecovering)
    }
}
