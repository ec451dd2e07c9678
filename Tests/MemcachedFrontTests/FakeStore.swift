// SPDX-License-Identifier: Apache-2.0

import AccessControl
import Cluster
import KeyValue
import MemcachedFront
import NIOCore
import RequestTracing
import NIOEmbedded
import Testing

/// A store of one process's dictionary. It answers at once, or, while `isSlow`, only when told to.
final class FakeStore: PairStore {
    var asker: RequestTrace?
    var itemBytes = 1 << 20
    var wallMilliseconds: UInt64 = 1_700_000_000_000
    var pairs: [Key: Envelope] = [:]
    /// What the next operations fail with.
    var failure: OperationFailure?
    /// Somebody else writes before each of so many conditional writes.
    var overtakes = 0
    var isSlow = false
    /// What waits while the store is slow, by what it is.
    var waiting: [(name: String, answer: () -> Void)] = []
    private(set) var mostAtOnce = 0
    private var clock = HybridClock(writer: 7)

    func valueLimit(for storedKey: StoredKey, of key: Key) -> Int { itemBytes - Limits.itemOverheadBytes }

    func read(
        _ key: Key, _ consistency: Consistency?, completion: @escaping (Result<Envelope?, OperationFailure>) -> Void
    ) {
        perform("read \(String(decoding: key.bytes, as: UTF8.self))") {
            completion($0.map { self.pairs[key].flatMap { $0.isTombstone ? nil : $0 } })
        }
    }

    /// Chunks of large values.
    var chunks: [StoredKey: Envelope] = [:]

    func read(
        stored key: StoredKey, _ consistency: Consistency?,
        completion: @escaping (Result<Envelope?, OperationFailure>) -> Void
    ) {
        perform("chunk \(key.chunk?.number ?? -1)") { completion($0.map { self.chunks[key] }) }
    }

    func write(
        _ key: StoredKey, _ envelope: Envelope, _ consistency: Consistency?,
        completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        let name = key.clientKey!
        perform("write \(String(decoding: name.bytes, as: UTF8.self))") {
            completion($0.map { self.put(envelope, at: name) })
        }
    }

    func write(
        _ key: StoredKey, _ envelope: Envelope, if precondition: Precondition, _ consistency: Consistency?,
        completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        let name = key.clientKey!
        if overtakes > 0, let held = pairs[name] {
            overtakes -= 1
            _ = put(held, at: name)
        }
        perform("write \(String(decoding: name.bytes, as: UTF8.self))") { result in
            guard case .success = result else { return completion(result.map { .none }) }
            let held = self.pairs[name]
            guard precondition.verdict(on: held, atMilliseconds: self.wallMilliseconds) == .met else {
                return completion(.failure(.preconditionFailed(held: held?.version ?? .none)))
            }
            completion(.success(self.put(envelope, at: name)))
        }
    }

    /// Answers what waits, whose names are given, in that order.
    func release(_ names: String...) {
        for name in names {
            guard let index = waiting.firstIndex(where: { $0.name == name }) else {
                Issue.record("\(name) does not wait; \(waiting.map(\.name)) do")
                continue
            }
            waiting.remove(at: index).answer()
        }
    }

    func put(_ envelope: Envelope, at key: Key) -> Version {
        var envelope = envelope
        envelope.stamp(clock.tick(wallMicroseconds: wallMilliseconds * 1000))
        pairs[key] = envelope
        return envelope.version
    }

    private func perform(_ name: String, _ operation: @escaping (Result<Void, OperationFailure>) -> Void) {
        let result: Result<Void, OperationFailure> = failure.map { .failure($0) } ?? .success(())
        guard isSlow else { return operation(result) }
        waiting.append((name, { operation(result) }))
        mostAtOnce = max(mostAtOnce, waiting.count)
    }
}

/// A client's connection without a network, on a loop whose time stands still unless it is told to go on.
final class TestConnection {
    let store: FakeStore
    let front: CommandFront
    let channel: EmbeddedChannel

    init(_ store: FakeStore = FakeStore(), tokens: TokenSet? = nil) throws {
        let channel = EmbeddedChannel()
        self.store = store
        self.channel = channel
        channel.allowRemoteHalfClosure = true
        front = CommandFront(loop: channel.embeddedEventLoop, store: store, version: "0", tokens: tokens)
        try channel.pipeline.syncOperations.addHandler(CommandHandler(front))
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
    }

    deinit { _ = try? channel.finish(acceptAlreadyClosed: true) }

    func send(_ text: String) {
        guard channel.isActive else { return }
        _ = try? channel.writeInbound(ByteBuffer(string: text))
        channel.embeddedEventLoop.run()
    }

    /// What has been sent since the last call.
    func said() -> String {
        channel.embeddedEventLoop.run()
        var text = ""
        while let bytes = try? channel.readOutbound(as: ByteBuffer.self) { text += String(buffer: bytes) }
        return text
    }

    func ask(_ text: String) -> String {
        send(text)
        return said()
    }

    /// Retries wait for a moment.
    func advance(_ time: TimeAmount) { channel.embeddedEventLoop.advanceTime(by: time) }
}
