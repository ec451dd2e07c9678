// SPDX-License-Identifier: Apache-2.0

private import Cluster
private import Etcd
private import HTTPFront
private import HashRing
private import Listening
internal import Logging
private import Memcached
private import MemcachedFront
private import NIOCore
private import NIOPosix
internal import Supervision
private import TransportSecurity

/// One worker process from its first beat to its leaving: one event loop for the data plane, one task group for the
/// control plane.
struct Worker: Sendable {
    let configuration: ServerConfiguration
    let slot: Int
    let lifeline: Lifeline
    /// `KV_FAILPOINTS`.
    let failpoints: String?
    let logger: Logger

    /// How long a worker waits for its host's ring before it serves without one.
    private static let preparation = Duration.milliseconds(2000)
    private static let retryInterval = Duration.milliseconds(50)
    /// A node that was told of a newer ring is not told again for so long.
    private static let tellInterval = Duration.milliseconds(100)
    /// Before the end of a drain, long works are cancelled, so that who waits for them still gets an answer.
    private static let cancellation = Duration.milliseconds(1000)
    /// How long a leaving worker's log may take for its last sync.
    private static let logTime = Duration.milliseconds(2000)

    /// - Returns: the process's exit status.
    func run(_ orders: AsyncStream<Lifeline.Order>) async -> Int32 {
        guard let endpoint = MemcachedEndpoint(configuration.memcached) else { return ExitStatus.configuration }
        let loop = MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
        loop.scheduleRepeatedTask(initialDelay: .zero, delay: .milliseconds(Lifeline.beatMilliseconds)) {
            [lifeline] _ in
            lifeline.sendBeat()
        }
        do {
            // (As the supervisor has seen already that it can be made.)
            let tls = try TLSContexts(lifeline.secrets.tls)
            let parts = try await loop.submit {
                WorkerParts(
                    configuration, endpoint, slot: slot, cells: lifeline.cells, tokens: lifeline.secrets.tokens,
                    tls: tls, failpoints: failpoints, loop: loop,
                    logger: logger)
            }.get()
            try await serve(parts, tls, loop, orders)
            await parts.etcd?.shutDown()
            parts.lanes.close()
            await parts.log?.close(within: Worker.logTime)
            parts.control.close()
            parts.statusControl.close()
            return 0
        } catch {
            logger.critical("a worker could not start", metadata: ["error": "\(error)"])
            return 1
        }
    }

    private func serve(
        _ parts: WorkerParts, _ tls: TLSContexts, _ loop: any EventLoop, _ orders: AsyncStream<Lifeline.Order>
    ) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            let (background, backgroundEnd) = AsyncStream<Void>.makeStream()
            group.addTask {
                await parts.background.run()
                backgroundEnd.finish()
            }
            await prepare(parts)
            group.addTask {
                await parts.housekeeping.run(wakeUps: parts.signals.wakeUps.stream) {
                    parts.signals.wakeUps.continuation.yield()
                }
            }
            if let log = parts.log { group.addTask { await parts.logBoard.follow(log) } }
            if let follower = parts.follower { group.addTask { await follower.run() } }
            group.addTask {
                for await document in parts.signals.news.stream { try? await parts.keeper.learn(document) }
            }
            group.addTask {
                for await node in parts.signals.laggards.stream {
                    await parts.housekeeping.tell(node)
                    // What the node refused meanwhile has a chance now.
                    await parts.retryParked()
                    try? await Task.sleep(for: Worker.tellInterval)
                }
            }
            let peerListener = lifeline.peerListener
            var servers = [
                try await Front.listen(
                    parts.front, listener: lifeline.listener, for: peerListener == nil ? .everybody : .clients,
                    over: tls.clients)
            ]
            if let peerListener {
                servers.append(
                    try await Front.listen(parts.front, listener: peerListener, for: .peers, over: tls.peers?.server))
            }
            if let front = parts.commandFront, let listener = lifeline.memcachedListener {
                servers.append(try await CommandFront.listen(front, listener: listener, over: tls.clients))
            }
            loop.execute { parts.sampler.value.begin() }
            lifeline.sendReady()
            logger.debug("serving")
            let time = await waitForDrain(parts, loop, orders)
            await drain(parts, loop, servers, within: time)
            // As long as anything runs, this worker counts as living, and has to say how far it is.
            for await _ in background {}
            group.cancelAll()
        }
    }

    /// Registers this worker, and only then looks at the ring, so that it serves from its first connection on. A
    /// memcached that does not answer is waited for a little; without it, all answers are 503 until it does.
    private func prepare(_ parts: WorkerParts) async {
        let end = ContinuousClock.now + Worker.preparation
        while true {
            do {
                try await parts.registry.post(drained: .none)
                return try await parts.keeper.refresh()
            } catch {
                guard ContinuousClock.now < end else {
                    logger.error("serving without a ring for now", metadata: ["error": "\(error)"])
                    return
                }
            }
            try? await Task.sleep(for: Worker.retryInterval)
        }
    }

    // MARK: Leaving

    /// - Returns: how long the drain may take.
    private func waitForDrain(
        _ parts: WorkerParts, _ loop: any EventLoop, _ orders: AsyncStream<Lifeline.Order>
    ) async -> Duration {
        var end: ContinuousClock.Instant?
        let whole = Duration.seconds(configuration.drainSeconds)
        for await order in orders {
            switch order {
            case .announceLeave:
                end = ContinuousClock.now + whole
                loop.execute { parts.front.value.obstacle = { "This node is about to leave." } }
            case .drain: return end.map { max($0 - ContinuousClock.now, .zero) } ?? whole
            case .orphaned:
                logger.error("the supervisor is gone; this worker leaves")
                return min(whole, .milliseconds(WorkerCommand.orphanMilliseconds))
            }
        }
        return whole
    }

    private func drain(
        _ parts: WorkerParts, _ loop: any EventLoop, _ servers: [ConnectionServer], within time: Duration
    ) async {
        logger.debug("leaving", metadata: ["drain.time": "\(time)"])
        let (connections, lastConnection) = AsyncStream<Void>.makeStream()
        let (commandConnections, lastCommandConnection) = AsyncStream<Void>.makeStream()
        for server in servers { await server.stopAccepting() }
        loop.execute {
            parts.front.value.onGone = { lastConnection.finish() }
            parts.front.value.leave()
            guard let front = parts.commandFront?.value else { return lastCommandConnection.finish() }
            front.onGone = { lastCommandConnection.finish() }
            front.leave()
        }
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                for await _ in connections {}
                for await _ in commandConnections {}
            }
            group.addTask { try? await Task.sleep(for: time) }
            group.addTask {
                guard (try? await Task.sleep(for: max(time - Worker.cancellation, .zero))) != nil else { return }
                parts.background.cancel()
                // (The first of these tasks to end ends them all.)
                try? await Task.sleep(for: time)
            }
            await group.next()
            group.cancelAll()
        }
        parts.background.cancel()
    }
}
