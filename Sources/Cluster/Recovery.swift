// SPDX-License-Identifier: Apache-2.0

package import HashRing
private import KeyValue
package import Logging
package import Memcached
private import NIOCore
private import Synchronization

/// The way back of a host whose memory was lost: the other replicas give it what it held (see docs/replication.md), and
/// only then its answers count again. Where there are none, or they lost theirs too, its snapshot is loaded first.
///
/// What has been reached is a control key in memcached, so that any worker of the host can go on, and show it.
package final class Recovery: Sendable {
    /// How far it is, for `/status` and `/health/ready`.
    package struct Progress: Codable, Sendable, Hashable {
        package let generation: Generation
        /// On this host's monotonic clock.
        package let beganMilliseconds: Int64
        package var sources: [Source]
        /// With the records of the log. Nil: it was not needed so far. 0 where there is none.
        package var snapshotPairs: Int?

        package struct Source: Codable, Sendable, Hashable {
            package let node: NodeID
            package var state: String
            package var pairsFound: Int
            package var pairsDone: Int
            /// Why it failed, where it did; it is tried again.
            package var error: String?
        }

        package var pairsFound: Int { sources.reduce(0) { $0 + $1.pairsFound } }
        package var pairsDone: Int { sources.reduce(0) { $0 + $1.pairsDone } }
    }

    private static let key = "recovery"
    /// From the beginning of this memory's life until anybody is asked for pairs: longer than any operation counts the
    /// answers of the memory before it.
    private static let pauseMilliseconds = Int64(Limits.countedMilliseconds + 500)
    private static let callTimeout = TimeAmount.milliseconds(1000)

    private let node: NodeID
    private let keeper: RingKeeper
    private let control: ControlStore
    private let peers: PeerCaller
    private let loader: SnapshotLoader
    private let logger: Logger
    private let heard = Mutex<String?>(nil)

    package init(
        node: NodeID, keeper: RingKeeper, control: ControlStore, peers: PeerCaller, loader: SnapshotLoader,
        logger: Logger
    ) {
        self.node = node
        self.keeper = keeper
        self.control = control
        self.peers = peers
        self.loader = loader
        self.logger = logger
    }

    /// The same as one line, as far as this worker has heard.
    package var note: String? { heard.withLock { $0 } }

    /// Hears how far it is.
    func look() async {
        let isRecovering = await keeper.view?.isRecovering == true
        let progress = await progress()
        heard.withLock { heard in
            heard = isRecovering ? "\(progress?.pairsDone ?? 0) of \(progress?.pairsFound ?? 0) pairs" : nil
        }
    }

    /// Nil where this host's memory is whole, or nothing has begun.
    package func progress() async -> Progress? {
        guard let view = await keeper.view, view.isRecovering,
            let progress: Progress = await control.shown(Recovery.key), progress.generation == view.stamp.generation
        else { return nil }
        return progress
    }

    /// Whether all that the disk has is in this memory: only then what it gives to others is all that is left.
    func hasLoadedSnapshot(in generation: Generation) async -> Bool {
        guard let progress = await progress(), progress.generation == generation else { return false }
        return progress.snapshotPairs != nil
    }

    /// Asks each source how far it is, which makes it begin, and ends the recovery once enough have given all. To be
    /// called again and again while the memory is recovering.
    func step() async throws {
        guard let view = await keeper.view, view.isRecovering, let document = view.document else { return }
        let generation = view.stamp.generation
        let now = MonotonicClock.milliseconds()
        var progress = await progress() ?? Progress(generation: generation, beganMilliseconds: now, sources: [])
        // The losers have it, and the change goes back to where they give it; else it ends, and it is lost.
        if try await keeper.isWithoutWhatWasVerified() { return }
        let plan = RefillPlan(document, node: node)
        var whole: Set<NodeID> = []
        var recovering: Set<NodeID> = []
        var needsSnapshot = plan.isEmpty
        if now - progress.beganMilliseconds >= Recovery.pauseMilliseconds {
            let request = PeerMessage.RepairRequest(
                document: document,
                repair: RepairJob(target: RingTransition.Fence(node: node, generation: generation)))
            progress.sources = []
            for (source, answer) in await ask(plan.sources, request) {
                progress.sources.append(
                    Progress.Source(
                        node: source, state: answer?.job.state.rawValue ?? "silent",
                        pairsFound: answer?.job.progress.pairsFound ?? 0,
                        pairsDone: answer?.job.progress.pairsDone ?? 0, error: answer?.job.error))
                // (Where the others have all, an old snapshot would only bring back what they have forgotten.)
                if answer?.isRecovering == true { needsSnapshot = true }
                guard let answer, answer.job.state == .done else { continue }
                if answer.isWhole { whole.insert(source) } else { recovering.insert(source) }
            }
            progress.sources.sort { $0.node < $1.node }
        }
        if needsSnapshot, progress.snapshotPairs == nil {
            progress.snapshotPairs = try await loadSnapshot(document, view.stamp)
        }
        _ = try await control.show(Recovery.key, progress)
        switch plan.verdict(whole: whole, recovering: recovering) {
        case .incomplete: return
        case .refilled:
            logger.notice(
                "this memory is refilled",
                metadata: [
                    "pairs": "\(progress.pairsDone + (progress.snapshotPairs ?? 0))",
                    "seconds": "\((now - progress.beganMilliseconds) / 1000)",
                ])
        case .refilledFromRemains:
            logger.error(
                "this memory has all that is left; more memories were lost at once than the replicas cover",
                metadata: ["pairs": "\(progress.pairsDone)"])
        }
        try await keeper.endRecovery(of: view.stamp)
    }

    private func loadSnapshot(_ document: RingDocument, _ stamp: HostStamp) async throws -> Int {
        let table = RoutingTable(document)
        let node = node
        let count = try await loader.load(under: stamp, where: { table[$0].involves(node) })
        if let damage = count.damage {
            logger.error(
                "the snapshot is damaged; what is before that place is loaded",
                metadata: ["error": "\(damage)", "pairs": "\(count.pairs)"])
        } else {
            logger.notice("the snapshot is loaded", metadata: ["pairs": "\(count.pairs)"])
        }
        if count.segments > 0 {
            logger.notice(
                "the log is loaded", metadata: ["segments": "\(count.segments)", "records": "\(count.records)"])
        }
        if count.pairsRefused > 0 {
            logger.error(
                "memcached has no room for all that is on disk", metadata: ["records": "\(count.pairsRefused)"])
        }
        return count.pairs + count.records
    }

    private func ask(
        _ sources: Set<NodeID>, _ request: PeerMessage.RepairRequest
    ) async -> [(NodeID, PeerMessage.RepairAnswer?)] {
        await withTaskGroup(of: (NodeID, PeerMessage.RepairAnswer?).self) { [peers] group in
            for source in sources {
                group.addTask {
                    (source, try? await peers.call(source, "repair", request, timeout: Recovery.callTimeout))
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
    }
}
