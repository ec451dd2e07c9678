// SPDX-License-Identifier: Apache-2.0

internal import AccessControl
internal import Cluster
internal import Etcd
internal import HTTPFront
internal import HashRing
internal import KeyValue
private import Listening
internal import Logging
internal import Memcached
internal import MemcachedFront
internal import NIOCore
private import RequestTracing
internal import Supervision
internal import Telemetry
internal import TransportSecurity

/// Everything that a worker consists of, made and wired once, on its event loop.
struct WorkerParts: Sendable {
    let lanes: LaneGroup
    /// Nil where none is wanted.
    let log: PairLog?
    let logBoard: LogBoard
    let control: ControlStore
    /// Of `/status` and `/metrics`: while memcached hangs, they must not wait behind what all the chores ask.
    let statusControl: ControlStore
    let settings: MemcachedSettingsCell
    let registry: WorkerRegistry
    let keeper: RingKeeper
    let housekeeping: Housekeeping
    let background: BackgroundWork
    let front: NIOLoopBound<Front>
    /// Of clients that speak memcached's protocol, where there are to be any.
    let commandFront: NIOLoopBound<CommandFront>?
    let retryParked: @Sendable () async -> Void
    let signals: Signals
    /// Nil where the nodes agree on the ring among themselves.
    let etcd: EtcdClient?
    let follower: RingFollower?
    let sampler: NIOLoopBound<GaugeSampler>

    /// What the event loop has to tell the control plane, which listens when it has time.
    struct Signals: Sendable {
        /// The ring, or what is under way, may have changed.
        let wakeUps = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
        /// A newer ring that was heard of.
        let news = AsyncStream<RingDocument>.makeStream(bufferingPolicy: .bufferingNewest(1))
        /// Nodes that stand on an older one.
        let laggards = AsyncStream<NodeID>.makeStream(bufferingPolicy: .bufferingNewest(16))
    }

    /// How long a host that has forgotten the ring waits for etcd's word.
    private static let recordedTime = Duration.milliseconds(1000)

    /// Must be called on the loop.
    init(
        _ configuration: ServerConfiguration, _ endpoint: MemcachedEndpoint, slot: Int, cells: CellMemory,
        tokens: AccessTokens, tls: TLSContexts, failpoints rules: String?, loop: any EventLoop, logger: Logger
    ) {
        let node = configuration.node
        let gate = AccessGate(
            tokens,
            PeerDoor(
                node: node, secrets: tokens.peer,
                allowed: configuration.allowedPeers, isInsecure: configuration.insecure,
                portOffset: configuration.peerPortOffset),
            origins: configuration.corsOrigins.flatMap { OriginList($0) }, isSecured: tls.clients != nil)
        let clock = WorkerClock(
            writer: .random(in: 1 ... .max), offsetMilliseconds: configuration.clockOffsetMilliseconds)
        let failpoints = Failpoints(
            isAllowed: configuration.allowFailpoints, text: rules, file: configuration.failpointsFile)
        let settings = MemcachedSettingsCell()
        let signals = Signals()
        let background = BackgroundWork()
        let segments = LogSegments(directory: configuration.stateDirectory)
        let log =
            configuration.appendLog
            ? PairLog(node: node, segments: segments, disk: .system(failpoints), clock: clock, logger: logger) : nil
        let lanes = LaneGroup(endpoint, clock: clock, settings: settings, log: log)
        let control = ControlStore(endpoint, settings: settings)
        let statusControl = ControlStore(endpoint, settings: settings)
        let registry = WorkerRegistry(control: control, slot: slot)
        let logBoard = LogBoard(control: control, slot: slot)

        // The data plane.
        let coordinator = Coordinator(
            node: node, door: gate.door, tls: tls.peers, loop: loop, lanes: lanes, clock: clock,
            requestTime: .milliseconds(Int64(configuration.requestDeadlineMilliseconds)),
            defaults: Coordinator.ConsistencyDefaults(
                reads: Consistency(configuration.consistency, quorum: configuration.readQuorum),
                writes: Consistency(configuration.consistency, quorum: configuration.writeQuorum)))
        coordinator.hooks.ringLooksStale = { signals.wakeUps.continuation.yield() }
        coordinator.hooks.heardOf = { signals.news.continuation.yield($0) }
        coordinator.hooks.isBehind = { signals.laggards.continuation.yield($0) }
        coordinator.hooks.drained = { signals.wakeUps.continuation.yield() }
        coordinator.tracer = configuration.traceSpans ? LogTracer(logger) : nil
        let bound = NIOLoopBound(coordinator, eventLoop: loop)

        // The control plane.
        let peers = PeerCaller(loop: loop, door: gate.door, tls: tls.peers)
        let etcd = configuration.etcd.flatMap { EtcdEndpoint.list($0) }.map { EtcdClient($0, loop: loop) }
        let ledger = etcd.map { RingLedger(etcd: $0, prefix: configuration.etcdPrefix) }
        // (What a worker is writing just now is not old.)
        let giveUpDisk: @Sendable () throws -> Void = {
            try SnapshotFile(directory: configuration.stateDirectory).remove()
            segments.remove(try segments.settled())
        }
        let keeper = RingKeeper(
            RingKeeper.Dependencies(
                node: node, control: control, registry: registry,
                file: RingFile(directory: configuration.stateDirectory), peers: peers, clock: clock, logger: logger,
                recorded: { try? await ledger?.read(within: WorkerParts.recordedTime).document },
                hasSnapshot: { SnapshotFile(directory: configuration.stateDirectory).exists || segments.exist },
                adopt: { view in
                    // (Fails only where the loop has ended, and the process with it.)
                    try? await loop.submit { bound.value.adopt(view) }.get()
                }))
        let pairs = HostPairs(coordinator: bound, loop: loop, scanner: MetadumpScanner(endpoint))
        let work = JobWork(
            pairs: pairs, node: node, bulkDelete: BulkDelete(endpoint), peers: peers, clock: clock,
            failpoints: failpoints)
        let jobs = JobRunner(
            JobRunner.Dependencies(
                node: node, control: control, keeper: keeper, work: work, logger: logger,
                start: { background.runOwn($0) }))
        let board = ChangeBoard(control: control)
        let snapshotFile = SnapshotFile(directory: configuration.stateDirectory)
        let recovery = Recovery(
            node: node, keeper: keeper, control: control, peers: peers,
            loader: SnapshotLoader(pairs: pairs, file: snapshotFile, clock: clock, failpoints: failpoints),
            logger: logger)
        let snapshotBoard = SnapshotBoard(control: control)
        let snapshots = WorkerParts.snapshotChore(
            every: configuration.snapshotSeconds,
            SnapshotWriter(
                SnapshotWriter.Dependencies(
                    node: node, pairs: pairs, control: control, file: snapshotFile, clock: clock,
                    failpoints: failpoints,
                    maySnapshot: { await keeper.view.map { !$0.isRecovering } ?? false })),
            snapshotBoard, control, clock, logger)
        let service = PeerService(
            node: node, keeper: keeper, registry: registry, jobs: jobs, pairs: pairs, recovery: recovery, board: board,
            clock: clock)
        let embedded = EmbeddedRingAuthority(node: node, keeper: keeper, peers: peers)
        let authority: any RingAuthority =
            ledger.map { EtcdRingAuthority(ledger: $0, promises: embedded, keeper: keeper) } ?? embedded
        let ringOperator = RingOperator(
            RingOperator.Dependencies(
                node: node, keeper: keeper, authority: authority, peers: peers,
                driver: TransitionDriver.Dependencies(
                    node: node, authority: authority, local: service, peers: peers, board: board,
                    failpoints: failpoints, logger: logger, milliseconds: { MonotonicClock.milliseconds() }),
                logger: logger, start: { background.runOwn($0) }))

        let antiEntropy = AntiEntropy(
            node: node, keeper: keeper, control: control, jobs: jobs, pairs: pairs, peers: peers, clock: clock,
            logger: logger, interval: configuration.repairSeconds)

        let hintBoard = HintBoard(control: control)
        coordinator.hints.mark = { report, done in
            let done = NIOLoopBound(done, eventLoop: loop)
            let isTaken = background.runOwn {
                let room = try? await hintBoard.update { $0.marked(report, at: MonotonicClock.milliseconds()) }?.room
                loop.execute { done.value(room) }
            }
            if !isTaken { loop.execute { done.value(nil) } }
        }
        let heartbeats = HeartbeatBoard(control: control)
        let hints = HintChore(
            HintPass.Dependencies(
                node: node, pairs: pairs, bulkDelete: BulkDelete(endpoint), clock: clock, failpoints: failpoints,
                send: { other, operations, stamp in
                    let batch = PeerBatch(epoch: stamp.epoch, clock: clock.reading, operations: operations)
                    return try await peers.batch(other, batch, timeout: .seconds(2)).outcomes
                }),
            board: hintBoard, heartbeats: heartbeats, keeper: keeper, leases: LeaseStore(control: control),
            logger: logger)

        self.retryParked = { try? await loop.submit { bound.value.retryParked() }.get() }
        self.lanes = lanes
        self.log = log
        self.logBoard = logBoard
        self.control = control
        self.statusControl = statusControl
        self.settings = settings
        self.registry = registry
        self.keeper = keeper
        self.background = background
        self.signals = signals
        self.etcd = etcd
        self.follower = etcd.flatMap { etcd in
            ledger.map {
                RingFollower(
                    etcd: etcd, ledger: $0, keeper: keeper, leases: LeaseStore(control: control), logger: logger)
            }
        }
        self.housekeeping = Housekeeping(
            node: node, keeper: keeper, registry: registry, leases: LeaseStore(control: control),
            ringOperator: ringOperator, jobs: jobs, recovery: recovery, antiEntropy: antiEntropy,
            chunkSweep: ChunkSweep(
                node: node, pairs: pairs, store: bound, loop: loop, clock: clock, logger: logger,
                uploadSeconds: configuration.uploadSeconds),
            peers: peers, clock: clock, logger: logger,
            drained: { (try? await loop.submit { bound.value.drainedEpoch }.get()) ?? .none }, snapshots: snapshots,
            hints: hints, heartbeats: heartbeats, giveUpDisk: giveUpDisk,
            heard: { heartbeat, milliseconds in
                try? await loop.submit {
                    bound.value.heartbeat.heard(heartbeat, until: .now() + .milliseconds(milliseconds))
                    bound.value.isClockAhead = heartbeat.isClockAhead
                    bound.value.hints.tell()
                }.get()
            })

        // The fronts. (The first is asked by way of the operator for what the sampler knows of it.)
        let sampler = NIOLoopBoundBox<GaugeSampler?>(nil, eventLoop: loop)
        let room = ConnectionRoom()
        let operators = NIOLoopBoundBox<NodeOperator?>(nil, eventLoop: loop)
        let ringWatch = RingWatch(
            RingWatch.Dependencies(
                node: node, document: { await keeper.document },
                ask: { other in
                    guard other == node, let own = try await loop.submit({ operators.value }).get() else {
                        return try await NodeOperator.askNode(other, peers)
                    }
                    return await own.nodeSample()
                }, isCut: { failpoints.hitNow("ring.watch") == .fail }, start: { background.runOwn($0) }))
        let nodeOperator = NodeOperator(
            node: node, memcachedAddress: configuration.memcached, keeper: keeper, ringOperator: ringOperator,
            peerService: service, jobWork: work, pairs: pairs,
            listing: PairListing(node: node, pairs: pairs, service: service, peers: peers, clock: clock),
            clock: clock, recovery: recovery,
            antiEntropy: antiEntropy, hintBoard: hintBoard, heartbeats: heartbeats, board: board,
            snapshotSeconds: configuration.snapshotSeconds, snapshotBoard: snapshotBoard,
            hasLog: log != nil, segments: segments, logBoard: logBoard,
            registry: WorkerRegistry(control: statusControl, slot: slot), settings: settings,
            control: statusControl, cells: cells, peers: peers, ringWatch: ringWatch,
            sample: { try? await loop.submit { sampler.value?.sample() }.get() },
            startedMilliseconds: MonotonicClock.milliseconds())
        operators.value = nodeOperator
        let front = Front(
            node: node, loop: loop, data: coordinator, operators: nodeOperator,
            tasks: background, failpoints: failpoints, room: room,
            log: RequestLog(
                logger,
                slow: configuration.slowRequestMilliseconds > 0
                    ? .milliseconds(Int64(configuration.slowRequestMilliseconds)) : nil, loop: loop))
        front.gate = gate
        front.hasPeerCertificates = tls.peers != nil
        front.tracer = coordinator.tracer
        front.uploadTime = .seconds(Int64(configuration.uploadSeconds))
        front.obstacle = { settings.settings?.evicts == true ? "\(MemcachedError.evicts)" : nil }
        front.origins = gate.origins
        front.recovery = { recovery.note }
        self.front = NIOLoopBound(front, eventLoop: loop)
        let commandFront = configuration.memcachedPort.map { _ in
            CommandFront(
                loop: loop, store: coordinator, version: programVersion, tokens: tokens.data, room: room)
        }
        commandFront?.heldElsewhere = { [unowned front] in front.heldBytes }
        if let commandFront { front.heldElsewhere = { [unowned commandFront] in commandFront.heldBytes } }
        self.commandFront = commandFront.map { NIOLoopBound($0, eventLoop: loop) }
        let made = GaugeSampler(
            loop: loop, front: front, commandFront: commandFront, coordinator: coordinator, lanes: lanes, clock: clock,
            log: log)
        sampler.value = made
        self.sampler = NIOLoopBound(made, eventLoop: loop)
    }

    /// Nil where no snapshots are wanted.
    private static func snapshotChore(
        every seconds: Int, _ writer: SnapshotWriter, _ board: SnapshotBoard, _ control: ControlStore,
        _ clock: WorkerClock, _ logger: Logger
    ) -> SnapshotChore? {
        guard seconds > 0 else { return nil }
        return SnapshotChore(
            interval: .seconds(seconds), writer: writer, board: board, leases: LeaseStore(control: control),
            clock: clock, logger: logger)
    }
}

extension Coordinator {
    /// Nothing that this worker does began under an older epoch.
    fileprivate var drainedEpoch: Epoch {
        let current = view?.stamp.epoch ?? .none
        return min(local.oldestUnderway ?? current, current)
    }
}
