// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials
private import HashRing
private import KeyValue
package import Memcached
package import NIOCore

/// What this host does when another node, or a driver on this one, calls: ring exchanges, promises, announcements,
/// jobs.
package struct PeerService: Sendable {
    /// How long an announcement waits for the workers to let go of the older ring, before it answers "not yet".
    private static let drainTime = Duration.milliseconds(1500)
    private static let drainPollInterval = Duration.milliseconds(10)

    private let keeper: RingKeeper
    private let registry: WorkerRegistry
    private let jobs: JobRunner
    private let board: ChangeBoard
    private let clock: WorkerClock

    package init(
        keeper: RingKeeper, registry: WorkerRegistry, jobs: JobRunner, board: ChangeBoard, clock: WorkerClock
    ) {
        self.keeper = keeper
        self.registry = registry
        self.jobs = jobs
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
        case "abort":
            try encode(
                await { (request: PeerMessage.AbortRequest) in
                    try await abort(request)
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
        if let document = question.document { try await keeper.learn(document) }
        let view = await keeper.view
        return PeerMessage.RingExchange(
            document: await keeper.known, generation: view?.stamp.generation, clock: clock.reading)
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
        let after = try await keeper.current().generation
        return .init(state: isDrained && after == generation ? .adopted : .draining, generation: after)
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

    package func abort(_ request: PeerMessage.AbortRequest) async throws { try await board.wish(request) }

    package func job(_ request: PeerMessage.JobRequest) async throws -> PeerMessage.JobAnswer {
        try await keeper.learn(request.document)
        return try await jobs.request(request)
    }
}
