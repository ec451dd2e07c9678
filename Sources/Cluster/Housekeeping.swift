// SPDX-License-Identifier: Apache-2.0

package import HashRing
private import KeyValue
package import Logging
package import Memcached
private import NIOCore

/// What each worker does in the background, besides clients' requests: follow the ring, and (one worker of a host at a
/// time, by a lease) keep in touch with the other nodes and finish what others left undone.
package struct Housekeeping: Sendable {
    private static let pollInterval = Duration.milliseconds(100)
    private static let choreInterval = Duration.milliseconds(1000)
    private static let heartbeatLookInterval = Duration.milliseconds(500)
    private static let recoveryInterval = Duration.milliseconds(200)
    private static let leaseLife = Duration.milliseconds(3000)
    private static let heartbeatTimeout = TimeAmount.milliseconds(500)

    private let node: NodeID
    private let keeper: RingKeeper
    private let registry: WorkerRegistry
    private let leases: LeaseStore
    private let ringOperator: RingOperator
    private let jobs: JobRunner
    private let recovery: Recovery
    private let antiEntropy: AntiEntropy
    private let chunkSweep: ChunkSweep
    private let peers: PeerCaller
    private let clock: WorkerClock
    private let logger: Logger
    /// Up to which epoch this worker has let go; asked on its event loop.
    private let drained: @Sendable () async -> Epoch
    /// Nil where pairs are not written to disk.
    private let snapshots: SnapshotChore?
    private let hints: HintChore
    private let heartbeats: HeartbeatBoard
    /// Removes the pairs that are on disk.
    private let giveUpDisk: @Sendable () throws -> Void
    /// Lets this worker know, again and again, what the latest heartbeat found, and for how many milliseconds that
    /// holds.
    private let heard: @Sendable (Heartbeat, Int64) async -> Void
    private let holder: String

    package init(
        node: NodeID, keeper: RingKeeper, registry: WorkerRegistry, leases: LeaseStore, ringOperator: RingOperator,
        jobs: JobRunner, recovery: Recovery, antiEntropy: AntiEntropy, chunkSweep: ChunkSweep,
        peers: PeerCaller, clock: WorkerClock, logger: Logger, drained: @escaping @Sendable () async -> Epoch,
        snapshots: SnapshotChore?, hints: HintChore,
        heartbeats: HeartbeatBoard, giveUpDisk: @escaping @Sendable () throws -> Void,
        heard: @escaping @Sendable (Heartbeat, Int64) async -> Void
    ) {
        self.node = node
        self.keeper = keeper
        self.registry = registry
        self.leases = leases
        self.ringOperator = ringOperator
        self.jobs = jobs
        self.recovery = recovery
        self.antiEntropy = antiEntropy
        self.chunkSweep = chunkSweep
        self.peers = peers
        self.clock = clock
        self.logger = logger
        self.drained = drained
        self.snapshots = snapshots
        self.hints = hints
        self.heartbeats = heartbeats
        self.giveUpDisk = giveUpDisk
        self.heard = heard
        self.holder = String(UInt64.random(in: .min ... .max), radix: 16)
    }

    /// Runs until it is cancelled.
    /// - Parameter wakeUps: each means that the ring, or what is under way, may have changed.
    package func run(wakeUps: AsyncStream<Void>, wake: @escaping @Sendable () -> Void) async {
        await withDiscardingTaskGroup { group in
            group.addTask { await followRing(wakeUps) }
            group.addTask {
                while (try? await Task.sleep(for: Housekeeping.pollInterval)) != nil { wake() }
            }
            group.addTask {
                while (try? await Task.sleep(for: Housekeeping.choreInterval)) != nil { await chores() }
            }
            group.addTask {
                while (try? await Task.sleep(for: Housekeeping.choreInterval)) != nil { await mend() }
            }
            group.addTask {
                while (try? await Task.sleep(for: Housekeeping.recoveryInterval)) != nil { await recover() }
            }
            group.addTask {
                while (try? await Task.sleep(for: Housekeeping.heartbeatLookInterval)) != nil {
                    let latest = await heartbeats.latest()
                    await heard(latest.heartbeat, latest.millisecondsLeft)
                }
            }
            group.addTask { await hints.run() }
            if let snapshots { group.addTask { await snapshots.run() } }
        }
    }

    private func followRing(_ wakeUps: AsyncStream<Void>) async {
        var posted: (stamp: HostStamp, drained: Epoch)?
        var lastError = ""
        for await _ in wakeUps {
            do {
                try await keeper.poll()
                guard let stamp = await keeper.view?.stamp else { continue }
                let drained = await drained()
                // A memory that came back empty has forgotten what was posted.
                if posted?.drained != drained || posted?.stamp.generation != stamp.generation {
                    try await registry.post(drained: drained)
                    posted = (stamp, drained)
                }
                lastError = ""
            } catch {
                let text = "\(error)"
                if text != lastError {
                    logger.warning("can't follow the ring", metadata: ["error": "\(text)"])
                    lastError = text
                }
            }
        }
    }

    private func recover() async {
        let isRecovering = await keeper.view?.isRecovering == true
        if recovery.note != nil || isRecovering { await recovery.look() }
        guard isRecovering,
            (try? await leases.acquire("recovery", holder: holder, timeToLive: Housekeeping.leaseLife)) == true
        else { return }
        do {
            try await leases.holding("recovery", holder: holder, timeToLive: Housekeeping.leaseLife) {
                try await recovery.step()
            }
        } catch {
            logger.warning("this memory can't be refilled yet", metadata: ["error": "\(error)"])
        }
    }

    /// May take long, so it is no part of the chores, but done by whoever does those.
    private func mend() async {
        guard (try? await leases.acquire("chores", holder: holder, timeToLive: Housekeeping.leaseLife)) == true else {
            return
        }
        await antiEntropy.runIfDue()
        await chunkSweep.runIfDue()
    }

    private func chores() async {
        guard (try? await leases.acquire("chores", holder: holder, timeToLive: Housekeeping.leaseLife)) == true else {
            return
        }
        await exchangeRings()
        await ringOperator.takeOverIfOrphaned()
        await sweep()
    }

    /// The heartbeat: clocks both ways, and whichever ring is newer.
    private func exchangeRings() async {
        guard let document = await keeper.document else { return }
        let others = Set(document.members + document.standbys).subtracting([node])
        let question = PeerMessage.RingExchange(
            document: nil, generation: await keeper.view?.stamp.generation, clock: clock.reading)
        var silent: [NodeID] = []
        var offsets: [Heartbeat.Measurement] = []
        var roundTrips: [Heartbeat.Measurement] = []
        await withTaskGroup(of: (NodeID, Exchanged?).self) { group in
            for other in others { group.addTask { (other, await exchange(question, document, with: other)) } }
            for await (node, exchanged) in group {
                guard let exchanged else {
                    silent.append(node)
                    continue
                }
                roundTrips.append(.init(node: node, milliseconds: exchanged.roundTripMilliseconds))
                if let offset = exchanged.offsetMilliseconds { offsets.append(.init(node: node, milliseconds: offset)) }
            }
        }
        let heartbeat = Heartbeat(
            silent: silent.sorted(), offsets: offsets.sorted { $0.node < $1.node },
            roundTrips: roundTrips.sorted { $0.node < $1.node })
        tellOfClock(heartbeat, after: await heartbeats.latest().heartbeat)
        await heartbeats.show(heartbeat)
    }

    private func tellOfClock(_ heartbeat: Heartbeat, after previous: Heartbeat) {
        guard heartbeat.isClockAhead != previous.isClockAhead else { return }
        let offsets = heartbeat.offsets.map { "\($0.node) \($0.milliseconds) ms" }.joined(separator: ", ")
        if heartbeat.isClockAhead {
            logger.error(
                "this host's clock is too far ahead of the others': writes are refused here until it is right",
                metadata: ["clock.offsets": "\(offsets)"])
        } else {
            logger.notice("this host's clock agrees with the others' again", metadata: ["clock.offsets": "\(offsets)"])
        }
    }

    /// What one node's answer to a heartbeat tells.
    private struct Exchanged {
        let roundTripMilliseconds: Int64
        /// By how much its wall clock differs from this one.
        let offsetMilliseconds: Int64?
    }

    /// - Returns: nil where it did not answer.
    private func exchange(
        _ question: PeerMessage.RingExchange, _ document: RingDocument, with other: NodeID
    ) async -> Exchanged? {
        do {
            let before = Int64(clock.wallMilliseconds)
            let began = MonotonicClock.milliseconds()
            let answer: PeerMessage.RingExchange = try await peers.call(
                other, "ring", question, timeout: Housekeeping.heartbeatTimeout)
            let roundTrip = MonotonicClock.milliseconds() - began
            // (As if the way there took as long as the way back.)
            let middle = (before + Int64(clock.wallMilliseconds)) / 2
            let offset = answer.wallMilliseconds.map { Int64(clamping: $0) - middle }
            clock.merge(answer.clock)
            await antiEntropy.heard(from: other, isAnswering: true)
            let theirs = answer.document?.epoch ?? .none
            if theirs > document.epoch, let newer = answer.document {
                // (Whatever keeps this host from following it says nothing of the other one.)
                do {
                    try await keeper.learn(newer)
                } catch {
                    logger.warning(
                        "another node's ring is not followed",
                        metadata: ["peer.node": "\(other)", "error": "\(error)"])
                }
            } else if theirs < document.epoch {
                await tell(other)
            } else if let same = answer.document, same != document {
                logger.error(
                    "two rings of one epoch: install the ring again on every node",
                    metadata: ["peer.node": "\(other)", "ring.epoch": "\(document.epoch)"])
            }
            return Exchanged(roundTripMilliseconds: roundTrip, offsetMilliseconds: offset)
        } catch {
            await antiEntropy.heard(from: other, isAnswering: false)
            logger.debug("no heartbeat", metadata: ["peer.node": "\(other)", "error": "\(error)"])
            return nil
        }
    }

    /// Lets a node that is behind know this host's document.
    package func tell(_ other: NodeID) async {
        let message = PeerMessage.RingExchange(
            document: await keeper.document, generation: nil, clock: clock.reading)
        let _: PeerMessage.RingExchange? = try? await peers.call(
            other, "ring", message, timeout: Housekeeping.heartbeatTimeout)
    }

    /// After each change, deletes what this node does not own: it may have been away while the others cleaned up.
    private func sweep() async {
        guard let document = await keeper.document, document.transition == nil, let last = document.lastChange,
            case .some(.none) = try? await keeper.promiseHolder()
        else { return }
        let request = PeerMessage.JobRequest(
            document: document, changeID: "sweep after \(last.id)", kind: .change(.clean))
        let answer = try? await jobs.request(request)
        // Should it hold slots again some day, what was deleted until then must not come back from its disk.
        guard answer?.state == .done, !document.ring.contains(node) else { return }
        do {
            try giveUpDisk()
        } catch {
            logger.warning("the pairs on disk could not be removed", metadata: ["error": "\(error)"])
        }
    }
}
