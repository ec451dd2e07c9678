// SPDX-License-Identifier: Apache-2.0

package import HashRing
internal import KeyValue
package import Logging
package import Memcached
private import NIOCore

/// Finds and mends what replicas differ in, whatever the reason: each two nodes that hold slots together compare a
/// digest of each slot now and then, and soon after one of them has been away; where they differ each gives the other
/// what it lacks. One worker of a host does it, the one that does the chores.
///
/// All of it may be cut off at any point, and be done twice: a pair is applied where it is newer.
package actor AntiEntropy {
    /// How the latest pass went, for `/status`.
    package struct Report: Codable, Sendable, Hashable {
        /// On this host's monotonic clock.
        package var endedMilliseconds: Int64 = 0
        package var seconds = 0.0
        /// Slots in which this node and those that it compared itself with differed.
        package var slotsDiffering = 0
        package var pairsRepaired = 0
        package var error: String?
    }

    private static let key = "repair"
    private static let digestTimeout = TimeAmount.seconds(120)
    private static let callTimeout = TimeAmount.seconds(1)
    private static let pollInterval = Duration.milliseconds(200)
    /// After this a repair is left to the next pass.
    private static let repairMilliseconds: Int64 = 600_000
    /// After another node's return, for what is under way to arrive.
    private static let returnMilliseconds: Int64 = 1500

    private let node: NodeID
    private let keeper: RingKeeper
    private let control: ControlStore
    private let jobs: JobRunner
    private let pairs: HostPairs
    private let peers: PeerCaller
    private let clock: WorkerClock
    private let logger: Logger
    private let metrics = AntiEntropyMetrics()
    /// Nil: only after a node's return.
    private let intervalMilliseconds: Int64?
    private var silent: Set<NodeID> = []
    private var dueMilliseconds: Int64?
    private var comparedEpoch: Epoch?

    /// - Parameter interval: between two passes, in seconds; 0: only after a node's return.
    package init(
        node: NodeID, keeper: RingKeeper, control: ControlStore, jobs: JobRunner, pairs: HostPairs, peers: PeerCaller,
        clock: WorkerClock, logger: Logger, interval: Int
    ) {
        self.node = node
        self.keeper = keeper
        self.control = control
        self.jobs = jobs
        self.pairs = pairs
        self.peers = peers
        self.clock = clock
        self.logger = logger
        self.intervalMilliseconds = interval > 0 ? Int64(interval) * 1000 : nil
    }

    package func report() async -> Report? { await control.shown(AntiEntropy.key) }

    /// What the heartbeat found out. Who was away has missed writes.
    func heard(from other: NodeID, isAnswering: Bool) {
        guard isAnswering else {
            silent.insert(other)
            return
        }
        guard silent.remove(other) != nil else { return }
        becomeDueSoon()
    }

    private func becomeDueSoon() {
        let soon = MonotonicClock.milliseconds() + AntiEntropy.returnMilliseconds
        dueMilliseconds = min(dueMilliseconds ?? soon, soon)
    }

    /// A pass, if it is time for one. To be called again and again by the worker that does the chores.
    func runIfDue() async {
        let now = MonotonicClock.milliseconds()
        if let epoch = await keeper.view?.document?.epoch, epoch != comparedEpoch {
            // After a ring change: what only a bare majority held may be held by fewer than that of a new group.
            if comparedEpoch != nil { becomeDueSoon() }
            comparedEpoch = epoch
        }
        guard let due = dueMilliseconds else {
            // (A worker that has just taken the chores over waits for a whole interval.)
            dueMilliseconds = intervalMilliseconds.map { now + $0 }
            return
        }
        guard now >= due else { return }
        dueMilliseconds = intervalMilliseconds.map { now + $0 }
        guard let view = await keeper.view, let document = view.document, document.transition == nil,
            !view.isRecovering
        else {
            // A ring change, or a refill, does the same and more.
            dueMilliseconds = now + 2 * AntiEntropy.returnMilliseconds
            return
        }
        // Each two nodes are compared by the one whose name comes first.
        let partners = RefillPlan(document, node: node).sources.filter { node < $0 }.sorted()
        guard !partners.isEmpty else { return }
        var report = Report()
        do {
            let mine = try await pairs.digests(
                document, in: view.stamp.generation, of: node, wallMilliseconds: { [clock] in clock.wallMilliseconds })
            for partner in partners { try await mend(partner, mine, document, view.stamp, &report) }
        } catch {
            report.error = "\(error)"
            logger.warning("replicas could not be compared", metadata: ["error": "\(error)"])
            dueMilliseconds = MonotonicClock.milliseconds() + 10 * AntiEntropy.returnMilliseconds
        }
        report.endedMilliseconds = MonotonicClock.milliseconds()
        report.seconds = Double(report.endedMilliseconds - now) / 1000
        if report.slotsDiffering > 0 {
            logger.info(
                "replicas differed and were mended",
                metadata: ["slots": "\(report.slotsDiffering)", "pairs": "\(report.pairsRepaired)"])
        }
        metrics.ended(report)
        _ = try? await control.show(AntiEntropy.key, report)
    }

    private func mend(
        _ partner: NodeID, _ mine: SlotDigests, _ document: RingDocument, _ stamp: HostStamp, _ report: inout Report
    ) async throws {
        let question = PeerMessage.DigestRequest(epoch: document.epoch)
        let theirs: PeerMessage.DigestAnswer = try await peers.call(
            partner, "digests", question, timeout: AntiEntropy.digestTimeout)
        guard let digests = theirs.digests else { return }
        let shared = RefillPlan.slots(in: document) { $0.members.contains(node) && $0.members.contains(partner) }
        let slots = mine.differing(from: digests, among: shared)
        guard !slots.isEmpty else { return }
        report.slotsDiffering += slots.count
        let name = "\(document.epoch) \(MonotonicClock.milliseconds())"
        let there = PeerMessage.JobRequest(
            document: document, changeID: name,
            kind: .repair(RepairJob(target: .init(node: partner, generation: theirs.generation), slots: slots)))
        let here = PeerMessage.RepairRequest(
            document: document,
            repair: RepairJob(target: .init(node: node, generation: stamp.generation), slots: slots), pass: name)
        report.pairsRepaired += try await wait { try await self.jobs.request(there) }
        report.pairsRepaired += try await wait {
            let answer: PeerMessage.RepairAnswer = try await self.peers.call(
                partner, "repair", here, timeout: AntiEntropy.callTimeout)
            return answer.job
        }
    }

    /// - Returns: how many pairs were given.
    private func wait(for job: () async throws -> PeerMessage.JobAnswer) async throws -> Int {
        let end = MonotonicClock.milliseconds() + AntiEntropy.repairMilliseconds
        while MonotonicClock.milliseconds() < end {
            let answer = try await job()
            switch answer.state {
            case .done: return answer.progress.pairsMoved
            case .running: try await Task.sleep(for: AntiEntropy.pollInterval)
            case .failed: throw JobWork.Failure.unexpected(answer.error ?? "a repair failed")
            case .overtaken: throw HostPairs.Failure.overtaken
            }
        }
        throw JobWork.Failure.unexpected("a repair takes too long")
    }
}
