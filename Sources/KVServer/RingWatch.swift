// SPDX-License-Identifier: Apache-2.0

internal import Cluster
internal import Control
private import FoundationEssentials
internal import HashRing
private import KeyValue
internal import NIOCore

/// How the ring and its nodes are, for whoever looks at `/ui` by way of this worker: asked once a second of each node,
/// however many look, and not at all while nobody does.
///
/// Each node has at most one question open, and what it answers waits for no other node's answer.
actor RingWatch {
    struct Dependencies: Sendable {
        let node: NodeID
        let document: @Sendable () async -> RingDocument?
        /// How a node is, this one or another; takes at most some seconds.
        let ask: @Sendable (NodeID) async throws -> NodeSample
        /// A test ends all streams as if they were old.
        let isCut: @Sendable () -> Bool
        /// Starts something in the background; false where the worker is leaving.
        let start: @Sendable (_ work: @escaping @Sendable () async -> Void) -> Bool
    }

    /// This worker takes nothing more.
    struct Leaving: Error {}

    /// What a page is told.
    private struct Picture {
        let number: Int
        /// Of the ring, which changes seldom and is large.
        let ringNumber: Int
        let ring: ByteBuffer
        let nodes: ByteBuffer
    }

    /// What is known of one node.
    private struct Entry {
        /// The latest ones, oldest first.
        var samples: [NodeSample] = []
        var trouble: RingPicture.Trouble?
        var answeredAt: ContinuousClock.Instant?
    }

    private static let interval = Duration.milliseconds(1000)
    /// The first answers come soon, and are shown soon.
    private static let firstInterval = Duration.milliseconds(150)
    /// Rates are of the time between the first and the last of so many samples.
    private static let samples = 6

    private let with: Dependencies
    private var entries: [NodeID: Entry] = [:]
    private var asked: Set<NodeID> = []
    private var watchers = 0
    private var isRunning = false
    private var shown: RingDocument?
    private var picture: Picture?
    private var waiting: [CheckedContinuation<Void, Never>] = []

    init(_ dependencies: Dependencies) { self.with = dependencies }

    /// Hands events over until `tell` has enough, this worker leaves, or it has gone on for long enough. Who takes them
    /// slowly misses some: the next is always about the latest state.
    func watch(_ tell: @Sendable (ByteBuffer) async throws -> Bool) async throws {
        watchers += 1
        defer { watchers -= 1 }
        if !isRunning {
            isRunning = true
            guard with.start({ await self.run() }) else {
                isRunning = false
                throw Leaving()
            }
        }
        let end = ContinuousClock.now + .seconds(Limits.ringWatchSeconds)
        var last = 0
        var lastRing = 0
        while ContinuousClock.now < end, !with.isCut() {
            while (picture?.number ?? 0) == last, isRunning {
                await withCheckedContinuation { waiting.append($0) }
            }
            guard let picture, picture.number != last, isRunning else { return }
            if picture.ringNumber != lastRing, try await !tell(picture.ring) { return }
            if try await !tell(picture.nodes) { return }
            (last, lastRing) = (picture.number, picture.ringNumber)
        }
    }

    // MARK: Asking

    private func run() async {
        while watchers > 0, !Task.isCancelled { await askWhileWatched() }
        isRunning = false
        // What is known grows old now.
        entries = [:]
        shown = nil
        picture = nil
        wake()
    }

    private func askWhileWatched() async {
        await withDiscardingTaskGroup { group in
            var rounds = 0
            while watchers > 0, !Task.isCancelled {
                let document = await with.document()
                let nodes = document.map { Set($0.members + $0.standbys) } ?? [with.node]
                entries = entries.filter { nodes.contains($0.key) }
                for node in nodes.union([with.node]) where asked.insert(node).inserted {
                    group.addTask { await self.ask(node) }
                }
                if rounds == 0 { try? await Task.sleep(for: RingWatch.firstInterval) }
                show(document)
                rounds += 1
                try? await Task.sleep(for: rounds == 1 ? RingWatch.firstInterval * 3 : RingWatch.interval)
            }
            group.cancelAll()
        }
    }

    private func ask(_ node: NodeID) async {
        var entry = entries[node] ?? Entry()
        do {
            let sample = try await with.ask(node)
            entry.trouble = nil
            entry.answeredAt = .now
            // (Before its restart it counted other requests.)
            if let last = entry.samples.last, last.tally.requests > sample.tally.requests { entry.samples = [] }
            entry.samples = entry.samples.suffix(RingWatch.samples - 1) + [sample]
        } catch {
            entry.trouble = RingPicture.Trouble(error)
        }
        entries[node] = entry
        asked.remove(node)
    }

    /// How many items these nodes hold, as they said last; nil for one that does not say now. Those that are not in it
    /// nobody has asked, or they have not answered yet.
    func items() -> [NodeID: Int?] {
        entries.filter { $0.value.trouble != nil || !$0.value.samples.isEmpty }
            .mapValues { $0.trouble == nil ? $0.samples.last?.items : nil }
    }

    // MARK: Telling

    private func show(_ document: RingDocument?) {
        let number = (picture?.number ?? 0) + 1
        var ringNumber = picture?.ringNumber ?? 0
        var ring = picture?.ring ?? ByteBuffer()
        if ringNumber == 0 || document != shown {
            ringNumber = number
            ring = RingWatch.event("ring", RingPicture.Layout(document, seenBy: with.node))
            shown = document
        }
        let nodes = entries.sorted { $0.key < $1.key }.map { node, entry in
            RingPicture.Node(
                node: node, first: entry.samples.first, last: entry.samples.last, trouble: entry.trouble,
                age: entry.answeredAt.map { (ContinuousClock.now - $0) / .seconds(1) })
        }
        let progress = document?.transition.map { transition in
            entries.values.compactMap { entry in
                entry.samples.last.flatMap { $0.changeID == transition.id ? $0.progress : nil }
            }
        }
        picture = Picture(
            number: number, ringNumber: ringNumber, ring: ring,
            nodes: RingWatch.event(
                "nodes", RingPicture.State(nodes: nodes, progress: progress.map(RingPicture.Part.latest))))
        wake()
    }

    private func wake() {
        let waiting = waiting
        self.waiting = []
        for continuation in waiting { continuation.resume() }
    }

    /// A whole server-sent event (HTML Standard, section 9.2.6): its data is one line, as JSON without blanks is.
    private static func event(_ name: String, _ data: some Encodable) -> ByteBuffer {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // (Where another node tells of numbers whose difference is none.)
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "0", negativeInfinity: "0", nan: "0")
        guard let text = try? encoder.encode(data) else {
            preconditionFailure("what is told is finite numbers and text")
        }
        var buffer = ByteBuffer()
        buffer.writeString("event: \(name)\ndata: ")
        buffer.writeBytes(text)
        buffer.writeStaticString("\n\n")
        return buffer
    }
}
