// SPDX-License-Identifier: Apache-2.0

package import AccessControl
private import DequeModule
package import HashRing
package import KeyValue
package import Memcached
package import NIOCore
package import RequestTracing
package import Tracing
package import TransportSecurity

/// One operation over its replicas: finds out who holds the key, asks them, and follows the ring when it moves on.
/// Belongs to one event loop; nothing here waits, locks or spawns.
package final class Coordinator {
    /// What the coordinator needs done away from the event loop.
    package struct Hooks {
        /// This host's memcached speaks of another ring, or of none: look again.
        package var ringLooksStale: () -> Void = {}
        /// Another node knows a newer ring.
        package var heardOf: (RingDocument) -> Void = { _ in }
        /// Another node knows an older ring, or none: tell it ours.
        package var isBehind: (NodeID) -> Void = { _ in }
        /// Nothing that began under an older ring is under way any more.
        package var drained: () -> Void = {}
    }

    package let node: NodeID
    /// Whom it calls its peers.
    private let door: PeerDoor
    private let tls: PeerTLS?
    package let loop: any EventLoop
    package let clock: WorkerClock
    package let local: LocalReplica
    package var hooks = Hooks()
    /// The ring that this worker acts on; nil while its host can't vouch for one.
    @exclusivity(unchecked) package private(set) var view: RingView?

    /// memcached's limit for an item with its key and header, in bytes.
    package var itemBytes: Int { settings.itemBytes }

    /// This host's wall clock, in milliseconds since 1970.
    package var wallMilliseconds: UInt64 { clock.wallMilliseconds }

    let metrics = CoordinatorMetrics()
    private let settings: MemcachedSettingsCell
    let requestTime: TimeAmount
    private var remotes: [NodeID: RemoteReplica] = [:]
    /// The replica of each placement that one node holds alone, by the table's placement index.
    @exclusivity(unchecked) private var soleReplicas: [(any Replica)?] = []
    private var parked: [Parked] = []
    private var isSweepScheduled = false
    /// Oldest first: all have the same patience.
    private var watched = Deque<(run: any PatientRun, end: NIODeadline)>()
    private var isWatching = false
    package let defaults: ConsistencyDefaults
    /// What this worker takes for nodes that are away.
    package let hints = HintIntake()
    package var heartbeat = HeartbeatNews()
    /// Whether this host's clock is too far ahead to stamp writes.
    @exclusivity(unchecked) package var isClockAhead = false

    /// For whom the operations are that begin now: the front sets it around each request that it begins.
    @exclusivity(unchecked) package var asker: RequestTrace?
    /// For requests of sampled traces; nil: nobody wants spans.
    package var tracer: (any Tracer)?

    /// What a request gets that does not say what it wants.
    package struct ConsistencyDefaults: Sendable {
        package let reads: Consistency
        package let writes: Consistency

        package init(reads: Consistency = .sloppy, writes: Consistency = .sloppy) {
            self.reads = reads
            self.writes = writes
        }
    }

    /// How long the answers of several replicas count together. A host whose memory was lost waits for longer than this
    /// before it asks others for what it held: an acknowledgement of the lost memory counts nowhere any more by then.
    static let countedTime = TimeAmount.milliseconds(Int64(Limits.countedMilliseconds))
    /// After this much silence of those asked, a read asks the other replicas too.
    private static let patience = TimeAmount.milliseconds(50)

    /// An operation that waits for the ring to be looked up.
    private struct Parked {
        let deadline: NIODeadline
        /// Told whether the time is up.
        let wake: (_ isLate: Bool) -> Void
    }

    /// What a replica keeps of the request's time for whoever asked it.
    private static let answerTime = TimeAmount.milliseconds(60)
    private static let parkedSweepInterval = TimeAmount.milliseconds(25)

    /// - Parameter requestTime: after this a request has its answer, whatever it is.
    package init(
        node: NodeID, door: PeerDoor? = nil, tls: PeerTLS? = nil, loop: any EventLoop, lanes: LaneGroup,
        clock: WorkerClock,
        requestTime: TimeAmount, defaults: ConsistencyDefaults = ConsistencyDefaults()
    ) {
        self.door = door ?? PeerDoor(node: node)
        self.tls = tls
        self.defaults = defaults
        self.node = node
        self.loop = loop
        self.clock = clock
        self.requestTime = requestTime
        self.settings = lanes.settings
        self.local = LocalReplica(loop: loop, lanes: lanes)
        local.onDrained = { [unowned self] in hooks.drained() }
        local.onStale = { [unowned self] _ in hooks.ringLooksStale() }
    }

    // MARK: The ring

    /// From now on acts on this view; nil serves nothing until there is another one.
    package func adopt(_ view: RingView?) {
        self.view = view
        local.expect(view?.stamp)
        soleReplicas =
            view?.table?.placements.map { placement in
                // (A recovering owner is asked the long way, where it refuses.)
                guard let owner = placement.soleOwner, owner != node || view?.isRecovering == false else { return nil }
                return replica(for: owner)
            } ?? []
        let current = Set(view?.document.map { $0.members + $0.standbys } ?? [])
        for (node, remote) in remotes where !current.contains(node) {
            remote.close()
            remotes[node] = nil
        }
        retryParked()
        if local.oldestUnderway.map({ $0 >= (view?.stamp.epoch ?? .none) }) ?? true { hooks.drained() }
    }

    /// Lets every operation that waits for news of the ring try again.
    package func retryParked() {
        let ready = parked
        parked = []
        for operation in ready { operation.wake(false) }
    }

    private func replica(for node: NodeID) -> any Replica {
        if node == self.node { return local }
        if let remote = remotes[node] { return remote }
        let remote = RemoteReplica(
            node: node, door: door, tls: tls, loop: loop, metrics: metrics,
            hooks: RemoteReplica.Hooks(
                epoch: { [unowned self] in view?.table?.document.epoch },
                clock: { [unowned self] in clock.reading },
                merge: { [unowned self] in clock.merge($0) },
                refused: { [unowned self] in refused(by: $0, $1) },
                tracer: { [unowned self] in tracer }))
        remotes[node] = remote
        return remote
    }

    private func refused(by node: NodeID, _ document: RingDocument?) {
        guard let ours = view?.document else { return hooks.ringLooksStale() }
        if let document, document.epoch > ours.epoch {
            hooks.heardOf(document)
        } else if (document?.epoch ?? .none) < ours.epoch {
            hooks.isBehind(node)
        }
    }

    /// Operations that wait for a connection to another node.
    package var waitingPeerOperations: Int { remotes.values.reduce(0) { $0 + $1.waitingOperations } }

    // MARK: Operations

    package func read(
        _ key: Key, _ consistency: Consistency?, completion: @escaping (Result<Envelope?, OperationFailure>) -> Void
    ) {
        read(stored: StoredKey(key), key.slot, consistency, completion: completion)
    }

    package func read(
        stored key: StoredKey, _ consistency: Consistency?,
        completion: @escaping (Result<Envelope?, OperationFailure>) -> Void
    ) {
        read(stored: key, key.slot, consistency, completion: completion)
    }

    private func read(
        stored key: StoredKey, _ slot: Slot, _ consistency: Consistency?,
        completion: @escaping (Result<Envelope?, OperationFailure>) -> Void
    ) {
        ReadRun(
            coordinator: self, slot: slot, key: key, consistency: consistency ?? defaults.reads,
            deadline: .now() + requestTime - Coordinator.answerTime, trace: asker, completion: completion
        ).begin()
    }

    package func write(
        _ key: StoredKey, _ envelope: Envelope, _ consistency: Consistency?,
        completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        if isClockAhead { return completion(.failure(.notApplied(.clockAhead))) }
        WriteRun(
            self, key, envelope, consistency ?? defaults.writes,
            deadline: .now() + requestTime - Coordinator.answerTime, for: asker, completion: completion
        ).begin()
    }

    /// Writes where the pair is as the condition wants it: `preconditionFailed` where it is not.
    package func write(
        _ key: StoredKey, _ envelope: Envelope, if precondition: Precondition, _ consistency: Consistency?,
        completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        if isClockAhead { return completion(.failure(.notApplied(.clockAhead))) }
        ConditionalWriteRun(
            self, key, envelope, precondition, Consistency(.strict, quorum: (consistency ?? defaults.writes).quorum),
            deadline: .now() + requestTime - Coordinator.answerTime, for: asker, completion: completion
        ).begin()
    }

    /// The pair in this node's memcached, whatever the ring says.
    package func readHere(_ key: StoredKey, completion: @escaping (Result<Envelope?, OperationFailure>) -> Void) {
        local.submit([.read(key)], deadline: hereDeadline) { outcomes, _ in
            switch outcomes.first {
            case .record(let envelope): completion(.success(envelope))
            case let outcome: completion(.failure(outcome.asFailure.asNotApplied))
            }
        }
    }

    /// Stores in this node's memcached, whatever the ring says.
    package func writeHere(
        _ key: StoredKey, _ envelope: Envelope, completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        if isClockAhead { return completion(.failure(.notApplied(.clockAhead))) }
        local.submit([.stamp(key, envelope)], deadline: hereDeadline) { outcomes, _ in
            switch outcomes.first {
            case .stored(let version): completion(.success(version))
            case let outcome: completion(.failure(outcome.asFailure))
            }
        }
    }

    private var hereDeadline: NIODeadline { .now() + requestTime - Coordinator.answerTime }

    // MARK: For the runs

    /// The replica that holds the slot alone; nil where more than one is to be asked.
    func soleReplica(of slot: Slot, in table: RoutingTable) -> (any Replica)? {
        soleReplicas[table.placementIndex(of: slot)]
    }

    func send(
        _ operation: Operation, to node: NodeID, epoch: Epoch, deadline: NIODeadline, isMoving: Bool,
        for trace: RequestTrace?, completion: @escaping (Outcome) -> Void
    ) {
        if node == self.node, operation.asksWhatIsHeld, let view, view.isForgetful(isMoving: isMoving) {
            return completion(.failed(.notApplied(.recovering)))
        }
        replica(for: node).send(
            Leg(operation, epoch: epoch, deadline: deadline, for: trace, completion: completion))
    }

    /// In which order a read asks: this host first, others by how quickly they answer, and last whoever did not a
    /// moment ago.
    package func rank(of node: NodeID) -> Int {
        if node == self.node { return view?.isRecovering == true ? .max : 0 }
        if isInTrouble(node) || heartbeat.isSilent(node) { return .max - 1 }
        return 1 + max(heartbeat.slowness(of: node), remotes[node]?.slowness ?? .quick).doublings
    }

    /// Whether this worker's own requests to the node stayed without an answer a moment ago.
    func isInTrouble(_ node: NodeID) -> Bool { remotes[node]?.isInTrouble == true }

    /// Tells the run when its patience is over, unless it is over itself by then.
    func watch(_ run: any PatientRun) {
        watched.append((run, .now() + Coordinator.patience))
        if !isWatching { scheduleWatch() }
    }

    private func scheduleWatch() {
        while let first = watched.first, first.run.isOver { watched.removeFirst() }
        isWatching = !watched.isEmpty
        guard let first = watched.first else { return }
        loop.assumeIsolated().scheduleTask(deadline: first.end) {
            let now = NIODeadline.now()
            while let (run, end) = self.watched.first, end <= now || run.isOver {
                self.watched.removeFirst()
                if !run.isOver { run.patienceIsOver() }
            }
            self.scheduleWatch()
        }
    }

    /// Calls back once there is news of the ring, or when the time is up.
    func park(until deadline: NIODeadline, wake: @escaping (_ isLate: Bool) -> Void) {
        guard parked.count < Limits.waitingOperations else { return wake(true) }
        parked.append(Parked(deadline: deadline, wake: wake))
        scheduleSweep()
    }

    private func scheduleSweep() {
        guard !isSweepScheduled, !parked.isEmpty else { return }
        isSweepScheduled = true
        loop.assumeIsolated().scheduleTask(in: Coordinator.parkedSweepInterval) {
            self.isSweepScheduled = false
            let now = NIODeadline.now()
            let late = self.parked.filter { $0.deadline <= now }
            self.parked.removeAll { $0.deadline <= now }
            for operation in late { operation.wake(true) }
            self.scheduleSweep()
        }
    }
}

/// Something that asks for more once it has waited for long.
protocol PatientRun: AnyObject {
    var isOver: Bool { get }
    func patienceIsOver()
}

extension Outcome? {
    /// What to say of an outcome that is not the one that was asked for.
    var asFailure: OperationFailure {
        switch self {
        case .failed(.staleRing): .notApplied(.noRing)
        case .failed(let failure): failure
        default: .outcomeUnknown(.protocolViolation)
        }
    }
}
