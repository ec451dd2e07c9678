// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials
package import HashRing
private import KeyValue
package import Logging
package import Memcached

/// What a host does with its pairs in the background, its part of a ring change and the repair of other replicas: each
/// done by one of its workers, whichever is asked first. The state is a control key in memcached, so that any worker
/// can say how far it is, and go on from there when the one that did it is gone.
package actor JobRunner {
    package struct Dependencies: Sendable {
        package let node: NodeID
        package let control: ControlStore
        package let keeper: RingKeeper
        package let work: JobWork
        package let logger: Logger
        /// Starts something in the background; false where the worker is leaving.
        package let start: @Sendable (_ work: @escaping @Sendable () async -> Void) -> Bool

        package init(
            node: NodeID, control: ControlStore, keeper: RingKeeper, work: JobWork, logger: Logger,
            start: @escaping @Sendable (_ work: @escaping @Sendable () async -> Void) -> Bool
        ) {
            self.node = node
            self.control = control
            self.keeper = keeper
            self.work = work
            self.logger = logger
            self.start = start
        }
    }

    /// What memcached keeps of the job.
    struct Record: Codable, Sendable {
        let changeID: String
        let kind: JobKind
        let epoch: Epoch
        let generation: Generation
        /// Names the run; a run whose record has another one's name is over.
        let run: String
        var state: PeerMessage.JobAnswer.State
        var beatMilliseconds: Int64
        var progress: JobProgress
        var checkpoint: JobWork.Checkpoint?
        /// Of a copy: what it has copied once it is done (noted with the first beat). Of the verifying that follows:
        /// what that copy has copied.
        var copied: JobWork.Copied?
        var report: RingTransitionStateMachine.JobReport?
        var error: String?

        func isSame(_ request: PeerMessage.JobRequest) -> Bool {
            changeID == request.changeID && kind == request.kind && epoch == request.document.epoch
        }
    }

    /// A run that has not written for this long is taken over.
    private static let silenceMilliseconds: Int64 = 1500
    private static let beatInterval = Duration.milliseconds(200)

    private let with: Dependencies

    package init(_ dependencies: Dependencies) { self.with = dependencies }

    /// Starts the job unless it runs, or is done; says how far it is.
    package func request(_ request: PeerMessage.JobRequest) async throws -> PeerMessage.JobAnswer {
        let (document, generation) = try await with.keeper.current()
        guard let document, document.epoch == request.document.epoch else {
            return PeerMessage.JobAnswer(state: .overtaken, progress: JobProgress())
        }
        guard document == request.document else {
            return PeerMessage.JobAnswer(
                state: .failed, progress: JobProgress(),
                error: "it knows another ring of the same epoch; empty its state directory and its memcached first")
        }
        let held = try await read(request.kind.recordKey)
        var checkpoint: JobWork.Checkpoint?
        var copied: JobWork.Copied?
        if let record = held?.record, record.changeID == request.changeID, record.generation == generation,
            request.kind == .change(.verify), record.kind != .change(.clean)
        {
            copied = record.copied
        }
        if let record = held?.record, record.isSame(request), record.generation == generation {
            switch record.state {
            case .done, .overtaken: return answer(record)
            case .running where nowMilliseconds() - record.beatMilliseconds < JobRunner.silenceMilliseconds:
                return answer(record)
            case .failed where nowMilliseconds() - record.beatMilliseconds < request.kind.pauseMilliseconds:
                return answer(record)
            case .running, .failed:
                checkpoint = record.checkpoint
                // Where a copy goes on from a checkpoint, what it copied was listed when it first began.
                if checkpoint != nil { copied = record.copied }
            }
        }
        var record = Record(
            changeID: request.changeID, kind: request.kind, epoch: document.epoch, generation: generation,
            run: String(UInt64.random(in: .min ... .max), radix: 16), state: .running,
            beatMilliseconds: nowMilliseconds(), progress: JobProgress(), checkpoint: checkpoint,
            copied: copied)
        guard try await write(record, replacing: held?.token) else {
            // Another worker was quicker.
            return PeerMessage.JobAnswer(state: .running, progress: JobProgress(), generation: generation)
        }
        if record.kind == .change(.copy), checkpoint == nil,
            case let (mine?, token)? = try await read(record.kind.recordKey), mine.run == record.run
        {
            // Before anything is listed: whatever is stored from now on has a higher one.
            record.copied = JobWork.Copied(through: token.cas)
        }
        let initial = record
        let isStarted = with.start { [self] in await run(initial, document) }
        if !isStarted {
            var abandoned = record
            abandoned.state = .failed
            abandoned.error = "a worker that is leaving was asked"
            _ = try await update(abandoned)
            return PeerMessage.JobAnswer(
                state: .failed, progress: JobProgress(), error: "this worker is leaving", generation: generation)
        }
        return answer(record)
    }

    private func answer(_ record: Record) -> PeerMessage.JobAnswer {
        PeerMessage.JobAnswer(
            state: record.state, progress: record.progress, report: record.report, error: record.error,
            generation: record.generation)
    }

    private func run(_ initial: Record, _ document: RingDocument) async {
        let started = ContinuousClock.now
        let tally = JobWork.Tally(checkpoint: initial.checkpoint)
        let outcome = await withTaskGroup(of: Result<RingTransitionStateMachine.JobReport, any Error>?.self) { group in
            group.addTask { [with] in
                do {
                    return .success(
                        try await with.work.perform(
                            initial.kind, document, generation: initial.generation, copied: initial.copied, tally))
                } catch {
                    return .failure(error)
                }
            }
            group.addTask { [self] in
                while !Task.isCancelled {
                    do {
                        try await Task.sleep(for: JobRunner.beatInterval)
                    } catch {
                        return nil
                    }
                    var record = initial
                    await tally.fill(&record, seconds: Self.seconds(since: started))
                    record.beatMilliseconds = nowMilliseconds()
                    // Whoever took the job over has written its own name.
                    guard (try? await update(record)) ?? true else { return .failure(JobWork.Failure.takenOver) }
                }
                return nil
            }
            var outcome: Result<RingTransitionStateMachine.JobReport, any Error>?
            while outcome == nil, let next = await group.next() { outcome = next }
            group.cancelAll()
            return outcome
        }
        var record = initial
        await tally.fill(&record, seconds: Self.seconds(since: started))
        record.beatMilliseconds = nowMilliseconds()
        switch outcome {
        case .success(let report):
            record.state = .done
            record.report = report
            if record.kind == .change(.copy) { record.copied?.gainers = report.gainers }
            with.logger.info(
                "this node's part is done",
                metadata: [
                    "ring.job": "\(initial.kind.name)", "ring.change": "\(initial.changeID)",
                    "pairs.done": "\(record.progress.pairsDone)", "pairs.moved": "\(record.progress.pairsMoved)",
                    "seconds": "\(record.progress.seconds)",
                ])
        case .failure(JobWork.Failure.takenOver): return
        case .failure(let error):
            record.state = .failed
            record.error = "\(error)"
            with.logger.warning(
                "this node's part failed and will be tried again",
                metadata: ["ring.job": "\(initial.kind.name)", "error": "\(error)"])
        case nil: return
        }
        _ = try? await update(record)
    }

    private static func seconds(since start: ContinuousClock.Instant) -> Double {
        let elapsed = (ContinuousClock.now - start).components
        return Double(elapsed.seconds) + Double(elapsed.attoseconds / 1_000_000_000_000_000) / 1000
    }

    // MARK: The record

    /// A record that can't be read (another version wrote it) is as good as none, but for its token.
    private func read(_ key: String) async throws -> (record: Record?, token: ControlStore.Token)? {
        guard let value = try await with.control.get(key) else { return nil }
        return (try? JSONDecoder().decode(Record.self, from: Data(value.bytes)), value.token)
    }

    private func write(_ record: Record, replacing token: ControlStore.Token?) async throws -> Bool {
        let bytes = Array(try JSONEncoder().encode(record))
        guard let token else { return try await with.control.add(record.kind.recordKey, bytes) }
        if case .stored = try await with.control.compareAndSwap(record.kind.recordKey, bytes, token: token) {
            return true
        }
        return false
    }

    /// - Returns: false once another run has the record.
    private func update(_ record: Record) async throws -> Bool {
        guard case let (held?, token)? = try await read(record.kind.recordKey), held.run == record.run else {
            return false
        }
        return try await write(record, replacing: token)
    }

    /// Monotonic, and the same for all processes of this host.
    private nonisolated func nowMilliseconds() -> Int64 { MonotonicClock.milliseconds() }
}
