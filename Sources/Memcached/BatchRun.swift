// SPDX-License-Identifier: Apache-2.0

internal import KeyValue
private import NIOCore

/// One turn of a lane: several batches that ask for the same stamp, in one request for all their keys and the stamp, and then
/// their writes, each by `cas` or `add` with the token that this request brought.
///
/// The stamp is asked for last. That it came proves that the answer is whole (libmemcached reports some broken answers as
/// missing keys), and that what was read before it was read under this stamp, for stamps only grow.
struct BatchRun {
    private let clock: WorkerClock
    private let settings: MemcachedSettingsCell
    private var keys = KeyArena()
    private var found: [Found?] = []

    /// How often a write that lost its race reads again.
    private static let races = 64
    /// Values up to this size share one piece of memory a turn; larger ones get their own, so that none keeps the others.
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
        /// Tokens and stamp are good for this connection only.
        var connectionNumber = 0
    }

    init(clock: WorkerClock, settings: MemcachedSettingsCell) {
        self.clock = clock
        self.settings = settings
    }

    /// - Parameter batches: at least one; all expect the same stamp.
    /// - Returns: one result for each, in their order.
    mutating func perform(_ batches: [LaneBatch], on handle: inout MemcachedHandle) -> [LaneBatchResult] {
        let expected = batches[0].expected
        // Whoever waits shortest bounds the wait.
        let deadline = batches.reduce(batches[0].deadline) { min($0, $1.deadline) }
        keys.removeAll()
        for batch in batches { for operation in batch.operations { keys.append(operation.key.bytes) } }
        keys.append(ControlKey.stamp.bytes)
        let reading: Reading
        do {
            reading = try read(until: deadline, on: &handle)
        } catch {
            return batches.map { .failing($0, .notApplied(error.reason)) }
        }
        guard reading.stamp == expected else {
            return batches.map { .failing($0, .staleRing, host: reading.stamp) }
        }
        var results: [LaneBatchResult] = []
        results.reserveCapacity(batches.count)
        var index = 0
        /// Set once a call went wrong: the connection, or the ring, is no longer the one that was checked, so the writes that
        /// follow are not sent.
        var broken: OperationFailure?
        for batch in batches {
            var outcomes: [Outcome] = []
            outcomes.reserveCapacity(batch.operations.count)
            for operation in batch.operations {
                outcomes.append(
                    outcome(of: operation, index, reading, batch, &broken, on: &handle))
                index += 1
            }
            results.append(LaneBatchResult(outcomes: outcomes, host: reading.stamp))
        }
        return results
    }

    // MARK: Reading

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
        reading.connectionNumber = handle.connectionNumber
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

    private mutating func outcome(
        of operation: Operation, _ index: Int, _ reading: Reading, _ batch: LaneBatch,
        _ broken: inout OperationFailure?, on handle: inout MemcachedHandle
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
        case .readVersion: return .version(envelope?.version ?? .none)
        case .stamp, .apply:
            if let broken { return .failed(broken) }
            guard handle.connectionNumber == reading.connectionNumber else {
                return .failed(.notApplied(.memcachedUnavailable))
            }
            let outcome = write(operation, held: envelope?.version ?? .none, token: held?.token, batch, on: &handle)
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

    /// Writes one item, and reads it again as long as others are quicker.
    private mutating func write(
        _ operation: Operation, held: Version, token: UInt64?, _ batch: LaneBatch, on handle: inout MemcachedHandle
    ) -> Outcome {
        var (held, token) = (held, token)
        for _ in 0..<BatchRun.races {
            let answer: MemcachedHandle.StoreAnswer
            let stored: Envelope
            switch decide(operation, over: held) {
            case .keep(let newest): return .applied(newest: newest)
            case .store(let envelope): stored = envelope
            }
            let itemBytes = operation.key.bytes.count + stored.buffer.readableBytes + Limits.itemHeaderBytes
            if itemBytes > settings.itemBytes { return .failed(.notApplied(.tooLarge)) }
            guard batch.deadline > .now() else { return .failed(.notApplied(.deadline)) }
            do {
                answer = try store(stored, under: operation.key, token: token, batch.deadline, on: &handle)
            } catch .outOfMemory {
                return .failed(.notApplied(.outOfMemory))
            } catch .tooLarge {
                return .failed(.notApplied(.tooLarge))
            } catch {
                return .failed(.outcomeUnknown(error.reason))
            }
            if case .stored = answer {
                if case .stamp = operation { return .stored(stored.version) }
                return .applied(newest: stored.version)
            }
            do {
                guard let again = try readAgain(operation.key, batch, on: &handle) else { return .failed(.staleRing) }
                (held, token) = again
            } catch {
                // The write that lost its race is known to have had no effect.
                return .failed(.notApplied(error.reason))
            }
        }
        return .failed(.notApplied(.overloaded))
    }

    private func decide(_ operation: Operation, over held: Version) -> Apply {
        switch operation {
        case .stamp(_, let envelope): .stamped(envelope, with: clock.tick(after: held))
        case .apply(_, let envelope): .fixed(envelope, over: held)
        case .read, .readVersion: preconditionFailure("only writes are decided on")
        }
    }

    private func store(
        _ envelope: Envelope, under key: StoredKey, token: UInt64?, _ deadline: NIODeadline,
        on handle: inout MemcachedHandle
    ) throws(MemcachedError) -> MemcachedHandle.StoreAnswer {
        let timeout = deadline.millisecondsLeft
        // (A closure that throws a typed error can't borrow the handle, so the result comes out by way of a variable.)
        var result: Result<MemcachedHandle.StoreAnswer, MemcachedError> = .failure(.timedOut)
        envelope.buffer.withUnsafeReadableBytes { value in
            do throws(MemcachedError) {
                if let token {
                    result = .success(
                        try handle.compareAndSwap(key.bytes, value, token: token, timeoutMilliseconds: timeout))
                } else {
                    result = .success(try handle.add(key.bytes, value, timeoutMilliseconds: timeout))
                }
            } catch {
                result = .failure(error)
            }
        }
        return try result.get()
    }

    /// What the replica holds now; nil where it no longer stands on the stamp.
    private mutating func readAgain(
        _ key: StoredKey, _ batch: LaneBatch, on handle: inout MemcachedHandle
    ) throws(MemcachedError) -> (held: Version, token: UInt64?)? {
        var two = KeyArena()
        two.append(key.bytes)
        two.append(ControlKey.stamp.bytes)
        var held: (version: Version, token: UInt64)?
        var stamp: HostStamp?
        var isOurs = true
        try handle.fetch(two, timeoutMilliseconds: batch.deadline.millisecondsLeft) { index, value, token in
            if index == 1 {
                stamp = HostStamp(bytes: value)
            } else if let envelope = Envelope(ByteBuffer(bytes: value)) {
                held = (envelope.version, token)
            } else {
                isOurs = false
            }
        }
        if !isOurs { throw .protocolViolation("not one of our records") }
        guard stamp == batch.expected else { return nil }
        return (held?.version ?? .none, held?.token)
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
