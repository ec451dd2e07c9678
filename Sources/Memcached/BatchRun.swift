// SPDX-License-Identifier: Apache-2.0

internal import KeyValue
private import NIOCore

/// One turn of a lane: several batches that ask for the same stamp, in one request for all their keys and the stamp.
/// Their writes follow all together, each by `cas` or `add` with the token that this request brought; those that lose a
/// race read again, one by one.
///
/// The stamp is asked for last. That it came proves that the answer is whole (libmemcached reports some broken answers
/// as missing keys), and that what was read before it was read under this stamp, for stamps only grow.
struct BatchRun {
    private let clock: WorkerClock
    private let settings: MemcachedSettingsCell
    private let log: (any StoredLog)?
    private var keys = KeyArena()
    private var found: [Found?] = []

    /// How often a write that lost its race reads again.
    private static let races = 64
    /// Values up to this size share one piece of memory a turn; larger ones get their own, so that none keeps the
    /// others.
    private static let sharedValueBytes = 8 << 10

    /// One key's record, in memory of ours.
    private struct Found {
        var record: ByteBuffer?
        /// In the turn's shared memory, where `record` is nil.
        var range: Range<Int>
        var token: UInt64
    }

    private struct Reading {
        var shared = ByteBuffer()
        var stamp: HostStamp?
    }

    /// A write that is to be sent, with what it overwrites.
    fileprivate struct Write {
        /// Its operation's place among those of the turn.
        let index: Int
        let operation: Operation
        let stored: Envelope
        let token: UInt64?
        let isLogged: Bool

        var bytes: Int { operation.key.bytes.count + stored.buffer.readableBytes }
    }

    init(clock: WorkerClock, settings: MemcachedSettingsCell, log: (any StoredLog)?) {
        self.clock = clock
        self.settings = settings
        self.log = log
    }

    /// - Parameter batches: at least one; all expect the same stamp.
    /// - Returns: one result for each, in their order.
    mutating func perform(
        _ batches: [LaneBatch], on handle: inout MemcachedHandle, _ pipeline: inout WritePipeline
    ) -> [LaneBatchResult] {
        let expected = batches[0].expected
        // Whoever waits shortest bounds the wait.
        let deadline = batches.reduce(batches[0].deadline) { min($0, $1.deadline) }
        keys.removeAll()
        for batch in batches { for operation in batch.operations { keys.append(operation.key.bytes) } }
        keys.append(ControlKey.stamp.bytes)
        let reading: Reading
        do {
            reading = try read(until: deadline, onKept: &handle, &pipeline)
        } catch {
            return batches.map { .failing($0, .notApplied(error.reason)) }
        }
        guard reading.stamp == expected else {
            return batches.map { .failing($0, .staleRing, host: reading.stamp) }
        }
        var outcomes: [Outcome] = []
        outcomes.reserveCapacity(found.count)
        var writes: [Write] = []
        for batch in batches {
            for operation in batch.operations {
                outcomes.append(
                    outcome(of: operation, outcomes.count, reading, isFromDisk: batch.isFromDisk, &writes))
            }
        }
        perform(writes, expected, deadline, on: &handle, &pipeline, &outcomes)
        if batches.count == 1 { return [LaneBatchResult(outcomes: outcomes, host: reading.stamp)] }
        var rest = outcomes[...]
        return batches.map { batch in
            defer { rest = rest.dropFirst(batch.operations.count) }
            return LaneBatchResult(outcomes: Array(rest.prefix(batch.operations.count)), host: reading.stamp)
        }
    }

    // MARK: Reading

    /// Reads once more where the connection broke: memcached may have been started again since it was made, and then
    /// the pipeline's is broken too.
    private mutating func read(
        until deadline: NIODeadline, onKept handle: inout MemcachedHandle, _ pipeline: inout WritePipeline
    ) throws(MemcachedError) -> Reading {
        let isKept = handle.isConnected
        do {
            return try read(until: deadline, on: &handle)
        } catch .unavailable where isKept && deadline > .now() {
            pipeline.disconnect()
            return try read(until: deadline, on: &handle)
        }
    }

    private mutating func read(
        until deadline: NIODeadline, on handle: inout MemcachedHandle
    ) throws(MemcachedError) -> Reading {
        var reading = Reading()
        let last = keys.count - 1
        var found = self.found
        self.found = []
        found.removeAll(keepingCapacity: true)
        found.append(contentsOf: repeatElement(nil, count: last))
        defer { self.found = found }
        try handle.fetch(keys, timeoutMilliseconds: deadline.millisecondsLeft) { index, value, token in
            if index == last {
                reading.stamp = HostStamp(bytes: value)
            } else if value.count <= BatchRun.sharedValueBytes {
                let start = reading.shared.writerIndex
                reading.shared.writeBytes(value)
                found[index] = Found(record: nil, range: start..<reading.shared.writerIndex, token: token)
            } else {
                found[index] = Found(record: ByteBuffer(bytes: value), range: 0..<0, token: token)
            }
        }
        return reading
    }

    private func record(_ index: Int, _ reading: Reading) -> (record: ByteBuffer, token: UInt64)? {
        guard let found = found[index] else { return nil }
        if let record = found.record { return (record, found.token) }
        guard let slice = reading.shared.getSlice(at: found.range.lowerBound, length: found.range.count) else {
            return nil
        }
        return (slice, found.token)
    }

    // MARK: Outcomes

    /// What the reading alone decides; a write that is to be sent joins the others, and its outcome is still open.
    private func outcome(
        of operation: Operation, _ index: Int, _ reading: Reading, isFromDisk: Bool, _ writes: inout [Write]
    ) -> Outcome {
        let held = record(index, reading)
        var envelope: Envelope?
        if let held {
            envelope = Envelope(held.record)
            // Not ours, or of a later format: never to be taken for a missing pair, nor to be overwritten.
            if envelope == nil { return .failed(.notApplied(.protocolViolation)) }
        }
        switch operation {
        case .read: return .record(envelope)
        case .readVersion, .heldVersion: return .version(envelope?.version ?? .none)
        case .stamp, .apply, .replace:
            switch decide(operation, over: envelope?.version ?? .none) {
            case .keep(let newest): return operation.outcome(keeping: newest)
            case .store(let stored):
                if isTooLarge(stored, operation.key) { return .failed(.notApplied(.tooLarge)) }
                // (Hints are in no snapshot either.)
                let isLogged = log != nil && !isFromDisk && !operation.key.isHint
                writes.append(
                    Write(
                        index: index, operation: operation, stored: stored, token: held?.token, isLogged: isLogged))
                return .failed(.notApplied(.memcachedUnavailable))
            }
        }
    }

    /// Stores, and logs what was stored; those that can't be logged are not stored.
    private func perform(
        _ writes: [Write], _ expected: HostStamp, _ deadline: NIODeadline, on handle: inout MemcachedHandle,
        _ pipeline: inout WritePipeline, _ outcomes: inout [Outcome]
    ) {
        var writes = writes
        let reserved = writes.reduce(0) { $0 + ($1.isLogged ? $1.bytes : 0) }
        if reserved > 0, log?.reserve(reserved) == false {
            for write in writes where write.isLogged { outcomes[write.index] = .failed(.notApplied(.logFailed)) }
            writes.removeAll(where: \.isLogged)
        }
        guard !writes.isEmpty else { return }
        var stored: [SnapshotRecord] = []
        let answers = perform(writes, expected, deadline, on: &handle, &pipeline, &stored)
        for (write, outcome) in zip(writes, answers) { outcomes[write.index] = outcome }
        if writes.contains(where: \.isLogged) {
            log?.append(stored, under: expected, reserved: reserved)
        }
    }

    /// - Parameter stored: gets what is to be logged.
    /// - Returns: an outcome for each write, in their order.
    private func perform(
        _ writes: [Write], _ expected: HostStamp, _ deadline: NIODeadline, on handle: inout MemcachedHandle,
        _ pipeline: inout WritePipeline, _ stored: inout [SnapshotRecord]
    ) -> [Outcome] {
        let now = clock.wallMilliseconds
        let stores = writes.map {
            WritePipeline.Store(
                key: $0.operation.key, value: $0.stored.buffer, token: $0.token,
                exptime: Retention.exptime(
                    of: $0.stored, isHint: $0.operation.key.isHint, atMilliseconds: now))
        }
        let answers: [WritePipeline.Answer]
        do {
            answers = try pipeline.perform(stores, in: expected.generation, until: deadline)
        } catch {
            return writes.map { _ in .failed(.notApplied(error.reason)) }
        }
        // Once the ring turned out to have moved on, or memcached fails, the others need not try.
        var broken: OperationFailure?
        return zip(writes, answers).map { write, answer in
            switch answer {
            case .answered(.stored):
                if write.isLogged { stored.append(write.record) }
                return write.operation.outcome(storing: write.stored)
            case .refused(let error): return .failed(.notApplied(error.reason))
            case .unknown(let error):
                if write.isLogged, write.operation.isLoggedUnanswered { stored.append(write.record) }
                return .failed(.outcomeUnknown(error.reason))
            case .answered(.lost), .answered(.missing):
                if let broken { return .failed(broken) }
                let (outcome, envelope) = writeAgain(write.operation, expected, deadline, on: &handle)
                if write.isLogged, let envelope {
                    stored.append(SnapshotRecord(key: write.operation.key, envelope: envelope))
                }
                switch outcome {
                case .failed(.outcomeUnknown(let reason)): broken = .notApplied(reason)
                case .failed(.staleRing): broken = .staleRing
                case .failed(.notApplied(let reason)) where reason != .outOfMemory && reason != .tooLarge:
                    broken = .notApplied(reason)
                default: break
                }
                return outcome
            }
        }
    }

    /// A write that has lost a race: reads the item again and writes, as long as others are quicker.
    /// - Returns: its outcome, and what it has stored, or may have.
    private func writeAgain(
        _ operation: Operation, _ expected: HostStamp, _ deadline: NIODeadline, on handle: inout MemcachedHandle
    ) -> (Outcome, stored: Envelope?) {
        for _ in 0..<BatchRun.races {
            guard deadline > .now() else { return (.failed(.notApplied(.deadline)), nil) }
            let held: Version
            let token: UInt64?
            do {
                guard let again = try readAgain(operation.key, expected, deadline, on: &handle) else {
                    return (.failed(.staleRing), nil)
                }
                (held, token) = again
            } catch {
                // The write that lost its race is known to have had no effect.
                return (.failed(.notApplied(error.reason)), nil)
            }
            let stored: Envelope
            switch decide(operation, over: held) {
            case .keep(let newest): return (operation.outcome(keeping: newest), nil)
            case .store(let envelope): stored = envelope
            }
            do {
                switch try store(stored, under: operation.key, token: token, deadline, on: &handle) {
                case .stored: return (operation.outcome(storing: stored), stored)
                case .lost, .missing: continue
                }
            } catch .outOfMemory {
                return (.failed(.notApplied(.outOfMemory)), nil)
            } catch .tooLarge {
                return (.failed(.notApplied(.tooLarge)), nil)
            } catch {
                return (.failed(.outcomeUnknown(error.reason)), operation.isLoggedUnanswered ? stored : nil)
            }
        }
        return (.failed(.notApplied(.overloaded)), nil)
    }

    private func isTooLarge(_ stored: Envelope, _ key: StoredKey) -> Bool {
        key.bytes.count + stored.buffer.readableBytes + Limits.itemHeaderBytes > settings.itemBytes
    }

    private func decide(_ operation: Operation, over held: Version) -> Apply {
        switch operation {
        case .stamp(_, let envelope): .stamped(envelope, with: clock.tick(after: held))
        case .apply(_, let envelope): .fixed(envelope, over: held)
        case .replace(_, let envelope, over: let expected): .replacing(envelope, over: expected, held: held)
        case .read, .readVersion, .heldVersion: preconditionFailure("only writes are decided on")
        }
    }

    private func store(
        _ envelope: Envelope, under key: StoredKey, token: UInt64?, _ deadline: NIODeadline,
        on handle: inout MemcachedHandle
    ) throws(MemcachedError) -> MemcachedHandle.StoreAnswer {
        let timeout = deadline.millisecondsLeft
        let exptime = Int(
            Retention.exptime(of: envelope, isHint: key.isHint, atMilliseconds: clock.wallMilliseconds))
        // (A closure that throws a typed error can't borrow the handle, so the result comes out by way of a variable.)
        var result: Result<MemcachedHandle.StoreAnswer, MemcachedError> = .failure(.timedOut)
        envelope.buffer.withUnsafeReadableBytes { value in
            do throws(MemcachedError) {
                if let token {
                    result = .success(
                        try handle.compareAndSwap(
                            key.bytes, value, token: token, timeToLiveSeconds: exptime, timeoutMilliseconds: timeout))
                } else {
                    result = .success(
                        try handle.add(key.bytes, value, timeToLiveSeconds: exptime, timeoutMilliseconds: timeout))
                }
            } catch {
                result = .failure(error)
            }
        }
        return try result.get()
    }

    /// What the replica holds now; nil where it no longer stands on the stamp.
    private func readAgain(
        _ key: StoredKey, _ expected: HostStamp, _ deadline: NIODeadline, on handle: inout MemcachedHandle
    ) throws(MemcachedError) -> (held: Version, token: UInt64?)? {
        var two = KeyArena()
        two.append(key.bytes)
        two.append(ControlKey.stamp.bytes)
        var held: (version: Version, token: UInt64)?
        var stamp: HostStamp?
        var isOurs = true
        try handle.fetch(two, timeoutMilliseconds: deadline.millisecondsLeft) { index, value, token in
            if index == 1 {
                stamp = HostStamp(bytes: value)
            } else if let envelope = Envelope(ByteBuffer(bytes: value)) {
                held = (envelope.version, token)
            } else {
                isOurs = false
            }
        }
        if !isOurs { throw .protocolViolation("not one of our records") }
        guard stamp == expected else { return nil }
        return (held?.version ?? .none, held?.token)
    }
}

extension BatchRun.Write {
    fileprivate var record: SnapshotRecord { SnapshotRecord(key: operation.key, envelope: stored) }
}

extension Operation {
    /// Whether it goes to the log where memcached's answer did not come, for it may be stored. Not where it rests on a
    /// condition: another one may have been decided in its place, and must not be replaced by it.
    fileprivate var isLoggedUnanswered: Bool { if case .replace = self { false } else { true } }

    /// What a write has come to that found this version, and left it.
    fileprivate func outcome(keeping newest: Version) -> Outcome {
        // (Another writer's, also where it has the same version: this one was never stored, nor is it sent twice.)
        if case .replace = self { return .failed(.preconditionFailed(held: newest)) }
        return .applied(newest: newest)
    }

    /// What a write has come to that stored this envelope.
    fileprivate func outcome(storing stored: Envelope) -> Outcome {
        if case .stamp = self { return .stored(stored.version) }
        return .applied(newest: stored.version)
    }
}

extension NIODeadline {
    /// At least 1.
    var millisecondsLeft: Int32 {
        Int32(clamping: max((self - .now()).nanoseconds / 1_000_000, 1))
    }
}

extension MemcachedError {
    /// How whoever asked for an operation is told.
    var reason: OperationFailure.Reason {
        switch self {
        case .unavailable, .timedOut, .evicts: .memcachedUnavailable
        case .outOfMemory: .outOfMemory
        case .tooLarge: .tooLarge
        case .protocolViolation: .protocolViolation
        }
    }
}
