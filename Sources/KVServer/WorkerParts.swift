// SPDX-License-Identifier: Apache-2.0

internal import Cluster
internal import HTTPFront
internal import HashRing
internal import KeyValue
internal import Logging
internal import Memcached
internal import NIOCore
internal import Supervision

/// Everything that a worker consists of, made and wired once, on its event loop.
struct WorkerParts: Sendable {
    let lanes: LaneGroup
    let control: ControlStore
    let settings: MemcachedSettingsCell
    let registry: WorkerRegistry
    let keeper: RingKeeper
    let housekeeping: Housekeeping
    let background: BackgroundWork
    let front: NIOLoopBound<Front>
    let retryParked: @Sendable () async -> Void
    let signals: Signals

    /// What the event loop has to tell the control plane, which listens when it has time.
    struct Signals: Sendable {
        /// The ring, or what is under way, may have changed.
        let wakeUps = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
        /// A newer ring that was heard of.
        let news = AsyncStream<RingDocument>.makeStream(bufferingPolicy: .bufferingNewest(1))
        /// Nodes that stand on an older one.
        let laggards = AsyncStream<NodeID>.makeStream(bufferingPolicy: .bufferingNewest(16))
    }

    /// Must be called on the loop.
    init(
        _ configuration: ServerConfiguration, _ endpoint: MemcachedEndpoint, slot: Int, failpoints rules: String?,
        loop: any EventLoop, logger: Logger
    ) {
        let node = configuration.node
        let clock = WorkerClock(
            writer: .random(in: 1 ... .max), offsetMilliseconds: configuration.clockOffsetMilliseconds)
        let failpoints = Failpoints(
            isAllowed: configuration.allowFailpoints, text: rules, file: configuration.failpointsFile)
        let settings = MemcachedSettingsCell()
        let signals = Signals()
        let background = BackgroundWork()
        let lanes = LaneGroup(endpoint, clock: clock, settings: settings)
        let control = ControlStore(endpoint, settings: settings)
        let registry = WorkerRegistry(control: control, slot: slot)

        // The data plane.
        let coordinator = Coordinator(
            node: node, loop: loop, lanes: lanes, clock: clock,
            requestTime: .milliseconds(Int64(configuration.requestDeadlineMilliseconds)))
        coordinator.hooks.ringLooksStale = { signals.wakeUps.continuation.yield() }
        coordinator.hooks.heardOf = { signals.news.continuation.yield($0) }
        coordinator.hooks.isBehind = { signals.laggards.continuation.yield($0) }
        coordinator.hooks.drained = { signals.wakeUps.continuation.yield() }
        let bound = NIOLoopBound(coordinator, eventLoop: loop)

        // The control plane.
        let peers = PeerCaller(loop: loop)
        let keeper = RingKeeper(
            RingKeeper.Dependencies(
                node: node, control: control, registry: registry,
                file: RingFile(directory: configuration.stateDirectory), peers: peers, clock: clock, logger: logger,
                adopt: { view in
                    // (Fails only where the loop has ended, and the process with it.)
                    try? await loop.submit { bound.value.adopt(view) }.get()
                }))
        let work = JobWork(
            coordinator: bound, node: node, loop: loop, scanner: MetadumpScanner(endpoint),
            bulkDelete: BulkDelete(endpoint), peers: peers, clock: clock, failpoints: failpoints)
        let jobs = JobRunner(
            JobRunner.Dependencies(
                node: node, control: control, keeper: keeper, work: work, logger: logger,
                start: { background.runOwn($0) }))
        let board = ChangeBoard(control: control)
        let service = PeerService(keeper: keeper, registry: registry, jobs: jobs, board: board, clock: clock)
        let authority = EmbeddedRingAuthority(node: node, keeper: keeper, peers: peers)
        let ringOperator = RingOperator(
            RingOperator.Dependencies(
                node: node, keeper: keeper, authority: authority, peers: peers,
                driver: TransitionDriver.Dependencies(
                    node: node, authority: authority, local: service, peers: peers, board: board,
                    failpoints: failpoints, logger: logger, milliseconds: { MonotonicClock.milliseconds() }),
                logger: logger, start: { background.runOwn($0) }))

        self.retryParked = { try? await loop.submit { bound.value.retryParked() }.get() }
        self.lanes = lanes
        self.control = control
        self.settings = settings
        self.registry = registry
        self.keeper = keeper
        self.background = background
        self.signals = signals
        self.housekeeping = Housekeeping(
            node: node, keeper: keeper, registry: registry, leases: LeaseStore(control: control),
            ringOperator: ringOperator, jobs: jobs, peers: peers, clock: clock, logger: logger,
            drained: { (try? await loop.submit { bound.value.drainedEpoch }.get()) ?? .none })

        // The front.
        let front = Front(
            node: node, loop: loop, data: coordinator,
            operators: NodeOperator(
                node: node, memcachedAddress: configuration.memcached, keeper: keeper, ringOperator: ringOperator,
                peerService: service, jobWork: work, board: board, registry: registry, settings: settings,
                startedMilliseconds: MonotonicClock.milliseconds()),
            tasks: background, failpoints: failpoints)
        front.obstacle = { settings.settings?.evicts == true ? "\(MemcachedError.evicts)" : nil }
        self.front = NIOLoopBound(front, eventLoop: loop)
    }
}

extension Coordinator {
    /// Nothing that this worker does began under an older epoch.
    fileprivate var drainedEpoch: Epoch {
        let current = view?.stamp.epoch ?? .none
        return min(local.oldestUnderway ?? current, current)
    }
}
