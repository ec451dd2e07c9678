// SPDX-License-Identifier: Apache-2.0

private import Dispatch
package import HashRing
internal import NIOCore
private import Synchronization

/// What the workers of a host tell each other through memcached: the ring, the registry, leases, jobs. A thread and a
/// connection of its own, so that it never waits behind clients' requests, nor they behind it.
///
/// Every value is padded with blanks to one of few sizes, and for each of these sizes memcached holds some items in
/// reserve which are given up when a value finds no room: a host whose memory is full of pairs can still change its
/// ring.
package final class ControlStore: Sendable {
    package enum Failure: Error, Hashable, Sendable, CustomStringConvertible {
        case memcached(MemcachedError)
        /// memcached holds no stamp: it has come back empty.
        case noStamp
        /// Longer than the largest of the sizes.
        case valueTooLong(bytes: Int)
        /// Too many calls wait already, or the store was closed.
        case overloaded

        package var description: String {
            switch self {
            case .memcached(let error): "\(error)"
            case .noStamp: "memcached has come back empty"
            case .valueTooLong(let bytes): "\(bytes) bytes are too many for a control value"
            case .overloaded: "too much waits for memcached"
            }
        }
    }

    /// Which state of a value was read, for `compareAndSwap`. Good as long as the connection on which it was read.
    package struct Token: Hashable, Sendable {
        let connectionNumber: Int
        /// memcached's number for the state: above those of all items that were stored before it in this memory.
        package let cas: UInt64
    }

    package struct Value: Sendable {
        package let bytes: [UInt8]
        package let token: Token
    }

    package enum SwapAnswer: Hashable, Sendable {
        case stored
        /// It was changed since it was read.
        case lost
        case missing
    }

    private typealias Call = @Sendable (inout MemcachedHandle) -> Void

    private struct State {
        var calls: [Call] = []
        var isClosed = false
    }

    private let state = Mutex(State())
    private let available = DispatchSemaphore(value: 0)

    /// Of one call to memcached.
    private static let timeoutMilliseconds: Int32 = 500
    private static let waitingCalls = 256

    package init(_ endpoint: MemcachedEndpoint, settings: MemcachedSettingsCell) {
        OwnThread.start(named: "control") { [self] in
            var handle = MemcachedHandle(endpoint, settings: settings)
            while let calls = next() {
                for call in calls { call(&handle) }
            }
        }
    }

    /// No call is taken any more; the thread ends.
    package func close() {
        state.withLock { $0.isClosed = true }
        available.signal()
    }

    private func next() -> [Call]? {
        while true {
            available.wait()
            let (calls, isClosed) = state.withLock { state in
                defer { state.calls = [] }
                return (state.calls, state.isClosed)
            }
            if !calls.isEmpty { return calls }
            if isClosed { return nil }
        }
    }

    /// Runs the body on the store's thread.
    private func perform<Answer: Sendable>(
        _ body: @escaping @Sendable (inout MemcachedHandle) throws(MemcachedError) -> Answer
    ) async throws(Failure) -> Answer {
        let result = await withCheckedContinuation {
            (continuation: CheckedContinuation<Result<Answer, Failure>, Never>) in
            let isTaken = state.withLock { state in
                guard !state.isClosed, state.calls.count < ControlStore.waitingCalls else { return false }
                state.calls.append { handle in
                    do throws(MemcachedError) {
                        continuation.resume(returning: .success(try body(&handle)))
                    } catch {
                        continuation.resume(returning: .failure(.memcached(error)))
                    }
                }
                return true
            }
            if isTaken { available.signal() } else { continuation.resume(returning: .failure(.overloaded)) }
        }
        return try result.get()
    }

    // MARK: Values

    package func get(_ name: String) async throws(Failure) -> Value? {
        try await getMany([name])[name]
    }

    /// Those that are there, by name.
    package func getMany(_ names: [String]) async throws(Failure) -> [String: Value] {
        try await perform { (handle) throws(MemcachedError) in
            var keys = KeyArena()
            for name in names { keys.append(ControlKey(name).bytes) }
            var values: [String: Value] = [:]
            var found: [(index: Int, bytes: [UInt8], cas: UInt64)] = []
            try handle.fetch(keys, timeoutMilliseconds: ControlStore.timeoutMilliseconds) { index, bytes, cas in
                found.append((index, PaddedValue.unpadded(bytes), cas))
            }
            for (index, bytes, cas) in found {
                let token = Token(connectionNumber: handle.connectionNumber, cas: cas)
                values[names[index]] = Value(bytes: bytes, token: token)
            }
            return values
        }
    }

    /// Stores a value where there is none; false where there is one.
    /// - Parameter timeToLive: whole seconds, at least one; forgotten after that. Nil: kept.
    package func add(_ name: String, _ bytes: [UInt8], timeToLive: Duration? = nil) async throws(Failure) -> Bool {
        let padded = try PaddedValue(ControlKey(name), bytes)
        return try await perform { (handle) throws(MemcachedError) in
            try ControlReserve.storing(padded, on: &handle) { (value, handle) throws(MemcachedError) in
                try handle.add(
                    padded.key.bytes, value, timeToLiveSeconds: ControlStore.seconds(timeToLive),
                    timeoutMilliseconds: ControlStore.timeoutMilliseconds)
            } == .stored
        }
    }

    /// Overwrites a value if it is still the one that the token was read with.
    package func compareAndSwap(
        _ name: String, _ bytes: [UInt8], token: Token, timeToLive: Duration? = nil
    ) async throws(Failure) -> SwapAnswer {
        let padded = try PaddedValue(ControlKey(name), bytes)
        return try await perform { (handle) throws(MemcachedError) in
            guard handle.connectionNumber == token.connectionNumber else { return .lost }
            let answer = try ControlReserve.storing(padded, on: &handle) { (value, handle) throws(MemcachedError) in
                try handle.compareAndSwap(
                    padded.key.bytes, value, token: token.cas, timeToLiveSeconds: ControlStore.seconds(timeToLive),
                    timeoutMilliseconds: ControlStore.timeoutMilliseconds)
            }
            switch answer {
            case .stored: return .stored
            case .lost: return .lost
            case .missing: return .missing
            }
        }
    }

    /// The numbers among what memcached says of itself (`stats`), by its names for them.
    package func statistics() async throws(Failure) -> [String: Double] {
        try await perform { (handle) throws(MemcachedError) in
            try handle.statistics(timeoutMilliseconds: ControlStore.timeoutMilliseconds)
        }
    }

    private static func seconds(_ duration: Duration?) -> Int {
        duration.map { max(Int($0.components.seconds), 1) } ?? 0
    }

    // MARK: The stamp

    /// What memcached says of itself; nil where it has come back empty.
    package func hostStamp() async throws(Failure) -> HostStamp? {
        try await get("stamp").flatMap { HostStamp(bytes: $0.bytes) }
    }

    /// Begins a new life of the memory, unless somebody else has; false then.
    package func addHostStamp(_ stamp: HostStamp) async throws(Failure) -> Bool {
        guard try await add("stamp", stamp.bytes) else { return false }
        try await perform { (handle) throws(MemcachedError) in try ControlReserve.fill(on: &handle) }
        return true
    }

    /// Raises the stamp's epoch, never lowers it; false where another worker was quicker, and it is worth another look.
    /// - Parameter wantingSince: the epoch from which on this memory has to be refilled.
    package func raiseHostStamp(to epoch: Epoch, wantingSince: Epoch? = nil) async throws(Failure) -> Bool {
        guard let held = try await get("stamp"), let stamp = HostStamp(bytes: held.bytes) else { throw .noStamp }
        if stamp.epoch >= epoch { return true }
        let isWanting = wantingSince.map { stamp.epoch < $0 && $0 <= epoch } ?? false
        let raised = HostStamp(
            epoch: epoch, generation: stamp.generation, isRecovering: stamp.isRecovering || isWanting)
        return try await compareAndSwap("stamp", raised.bytes, token: held.token) == .stored
    }

    /// From now on this life of the memory has what the one before it held; false where it is worth another try.
    /// - Parameter stamp: as it was when the last of it was asked for. Where the host stands on another document by
    ///   now, something else may be wanting, and nothing is done.
    package func endRecovery(of stamp: HostStamp) async throws(Failure) -> Bool {
        guard let held = try await get("stamp"), let present = HostStamp(bytes: held.bytes),
            present.generation == stamp.generation
        else { throw .noStamp }
        guard present == stamp, present.isRecovering else { return true }
        let recovered = HostStamp(epoch: stamp.epoch, generation: stamp.generation)
        return try await compareAndSwap("stamp", recovered.bytes, token: held.token) == .stored
    }
}
