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
    private static let leaseLife = Duration.milliseconds(3000)
    private static let heartbeatTimeout = TimeAmount.milliseconds(500)

    private let node: NodeID
    private let keeper: RingKeeper
    private let registry: WorkerRegistry
    private let leases: LeaseStore
    private let ringOperator: RingOperator
    private let jobs: JobRunner
    private let peers: PeerCaller
    private let clock: WorkerClock
    private let logger: Logger
    /// Up to which epoch this worker has let go; asked on its event loop.
    private let drained: @Sendable () async -> Epoch
    private let holder: String

    package init(
        node: NodeID, keeper: RingKeeper, registry: WorkerRegistry, leases: LeaseStore, ringOperator: RingOperator,
        jobs: JobRunner, peers: PeerCaller, clock: WorkerClock, logger: Logger,
        drained: @escaping @Sendable () async -> Epoch
    ) {
        self.node = node
        self.keeper = keeper
        self.registry = registry
        self.leases = leases
        self.ringOperator = ringOperator
        self.jobs = jobs
        self.peers = peers
        self.clock = clock
        self.logger = logger
        self.drained = drained
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
        await withDiscardingTaskGroup { group in
            for other in others { group.addTask { await exchange(question, document, with: other) } }
        }
    }

    private func exchange(_ question: PeerMessage.RingExchange, _ document: RingDocument, with other: NodeID) async {
        do {
            let answer: PeerMessage.RingExchange = try await peers.call(
                other, "ring", question, timeout: Housekeeping.heartbeatTimeout)
            clock.merge(answer.clock)
            let theirs = answer.document?.epoch ?? .none
            if theirs > document.epoch, let newer = answer.document {
                try await keeper.learn(newer)
            } else if theirs < document.epoch {
                await tell(other)
            } else if let same = answer.document, same != document {
                logger.error(
                    "two rings of one epoch: install the ring again on every node",
                    metadata: ["peer.node": "\(other)", "ring.epoch": "\(document.epoch)"])
            }
        } catch {
            logger.debug("no heartbeat", metadata: ["peer.node": "\(other)", "error": "\(error)"])
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
        let request = PeerMessage.JobRequest(document: document, changeID: "sweep after \(last.id)", job: .clean)
        _ = try? await jobs.request(request)
    }
}
