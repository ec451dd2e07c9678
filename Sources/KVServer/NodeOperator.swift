// SPDX-License-Identifier: Apache-2.0

internal import Cluster
private import FoundationEssentials
internal import HTTPFront
internal import HashRing
internal import KeyValue
internal import Memcached
internal import NIOCore
private import Supervision
internal import Telemetry

/// What the front may ask of this node beside reads and writes, put together from the cluster's parts.
struct NodeOperator: OperatorService {
    private static let adoptionTime = Duration.milliseconds(1000)
    private static let adoptionPollInterval = Duration.milliseconds(10)

    let node: NodeID
    let memcachedAddress: String
    let keeper: RingKeeper
    let ringOperator: RingOperator
    let peerService: PeerService
    let jobWork: JobWork
    let pairs: HostPairs
    let listing: PairListing
    let clock: WorkerClock
    let recovery: Recovery
    let antiEntropy: AntiEntropy
    let hintBoard: HintBoard
    let heartbeats: HeartbeatBoard
    let board: ChangeBoard
    /// 0: none are taken.
    let snapshotSeconds: Int
    let snapshotBoard: SnapshotBoard
    let hasLog: Bool
    let segments: LogSegments
    let logBoard: LogBoard
    /// On `control`, as what is asked first.
    let registry: WorkerRegistry
    let settings: MemcachedSettingsCell
    /// The operator's own: while memcached hangs, each call takes its time to fail, and the chores' calls queue up.
    let control: ControlStore
    let cells: CellMemory
    let peers: PeerCaller
    let ringWatch: RingWatch
    /// Lets the cells know how this worker is.
    let sample: @Sendable () async -> Void
    /// On the monotonic clock.
    let startedMilliseconds: Int64

    func install(_ ring: Ring, replicas: Int, standbys: [NodeID]) async throws(OperatorError) {
        try await ringOperator.install(ring, replicas: replicas, standbys: standbys)
        await waitUntilAdopted()
    }

    /// Lets the other workers of this host take up a ring that was just installed, so that whoever comes next finds it
    /// whichever worker answers. One that is slow only says a moment longer that there is none.
    private func waitUntilAdopted() async {
        guard let epoch = await keeper.document?.epoch else { return }
        let end = ContinuousClock.now + NodeOperator.adoptionTime
        while ContinuousClock.now < end {
            guard let workers = try? await registry.living() else { return }
            if workers.values.allSatisfy({ $0.drained >= epoch }) { return }
            guard (try? await Task.sleep(for: NodeOperator.adoptionPollInterval)) != nil else { return }
        }
    }

    func change(
        _ request: ChangeRequest, isForced: Bool, without gone: Set<NodeID>
    ) async throws(OperatorError) -> String? {
        try await ringOperator.change(request, isForced: isForced, without: gone)
    }

    func abortChange() async throws(OperatorError) { try await ringOperator.abortChange() }

    func clear() async throws(OperatorError) -> Int {
        do {
            return try await jobWork.clear()
        } catch JobWork.Failure.ringChanges {
            throw .busy("a ring change is under way")
        } catch {
            throw .unknown("some of the pairs may be dropped: \(error)")
        }
    }

    func forEachPair(_ body: @Sendable ([(key: Key, value: ByteBuffer?)]) async throws -> Void) async throws {
        try await pairs.forEachPair(wallMilliseconds: { clock.wallMilliseconds }, body)
    }

    func part(_ query: PairListing.Query) async throws -> ListingMerge {
        try await listing.part(query)
    }

    func peerCall(_ name: String, _ body: ByteBuffer) async throws(PeerCallError) -> ByteBuffer {
        let answer: ByteBuffer?
        do {
            // (Of what the cluster's parts don't know: they are asked about.)
            if name == "status" { return ByteBuffer(bytes: try JSONEncoder().encode(await nodeSample())) }
            answer = try await peerService.answer(name, body)
        } catch let error as DecodingError {
            throw .unreadable("\(error)")
        } catch {
            throw .failed("\(error)")
        }
        guard let answer else { throw .unknownCall }
        return answer
    }

    // MARK: Status

    func status() async -> ByteBuffer {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            return ByteBuffer(bytes: try encoder.encode(await look().report))
        } catch {
            preconditionFailure("a status holds nothing that JSON can't say: \(error)")
        }
    }

    func metrics() async -> ByteBuffer {
        await sample()
        let seen = await look()
        let statistics = seen.isShared ? try? await control.statistics() : nil
        let series = StatusMetrics(
            report: seen.report, heartbeat: seen.heartbeat, isShared: seen.isShared, statistics: statistics,
            wallMilliseconds: clock.wallMilliseconds, monotonicMilliseconds: MonotonicClock.milliseconds()
        ).series
        return ByteBuffer(string: PrometheusText.encode(cells.sum().series + series, help: MetricCatalogue.help))
    }

    /// Asks all parts how they are.
    /// - Returns: whether memcached has told what the host's workers share, too; where it has not, that is left out.
    func look() async -> (report: StatusReport, heartbeat: Heartbeat, isShared: Bool) {
        let document = await keeper.document
        var living: [Int: WorkerRegistry.Entry] = [:]
        var lastError: String?
        var isShared = true
        do {
            living = try await registry.living()
            lastError = await keeper.lastError
        } catch {
            lastError = "\(error)"
            // (Whatever else is asked of it now would take as long to fail, or longer: the chores ask, too.)
            isShared = false
        }
        let heartbeat = isShared ? await heartbeats.latest().heartbeat : Heartbeat()
        let report = StatusReport(
            version: programVersion, node: node,
            uptimeSeconds: Int((MonotonicClock.milliseconds() - startedMilliseconds) / 1000),
            epoch: document?.epoch ?? .none, generation: await keeper.view?.stamp.generation,
            isRecovering: await keeper.view?.isRecovering ?? false,
            recovery: isShared ? await recovery.progress() : nil,
            antiEntropy: isShared ? await antiEntropy.report() : nil,
            hints: StatusReport.Hints(isShared ? await hintBoard.entry() : nil),
            clock: StatusReport.Clock(
                offsets: heartbeat.offsets, isAhead: heartbeat.isClockAhead, refusedReadings: clock.refusedCount),
            roundTrips: heartbeat.roundTrips,
            replicas: document?.replicas ?? 0, ring: document?.ring.nodesByPosition ?? [:],
            standbys: document?.standbys ?? [],
            transition: await change(document?.transition, isShared: isShared), lastChange: document?.lastChange,
            workers: living.sorted { $0.key < $1.key }.map { slot, entry in
                StatusReport.Worker(slot: slot, pid: entry.pid, drainedEpoch: entry.drained)
            },
            memcached: StatusReport.Memcached(
                address: memcachedAddress, isAnswering: lastError == nil, lastError: lastError,
                itemBytes: settings.itemBytes),
            snapshot: StatusReport.Snapshot(
                intervalSeconds: snapshotSeconds, isShared ? await snapshotBoard.entry() : nil),
            log: StatusReport.Log(
                isOn: hasLog, segments.sum(),
                hasLog && isShared ? await logBoard.conditions(of: living.keys) : []))
        return (report, heartbeat, isShared)
    }

    private func change(_ transition: RingTransition?, isShared: Bool) async -> StatusReport.Change? {
        guard let transition else { return nil }
        // What the board shows may be of the change before this one.
        let entry = isShared ? await board.entry() : nil
        let progress = entry?.changeID == transition.id ? entry?.progress ?? [] : []
        return StatusReport.Change(
            id: transition.id, change: transition.change, step: transition.step, abortReason: transition.abortReason,
            from: transition.from.nodesByPosition, to: transition.to.nodesByPosition,
            progress: progress.sorted { $0.node < $1.node }.map { StatusReport.Progress($0.node, $0.job) })
    }
}
