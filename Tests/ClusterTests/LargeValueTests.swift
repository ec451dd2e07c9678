// SPDX-License-Identifier: Apache-2.0

import Cluster
import HashRing
import KeyValue
import NIOCore
import NIOEmbedded
import RequestTracing
import TestSupport
import Testing

/// A store of one process's dictionary that answers when it is told to, in any order.
private final class ChunkStore: DictionaryStore {
    var asker: RequestTrace?
    var wallMilliseconds: UInt64 = 1_000_000
    var itemBytes = 2000
    var held: [StoredKey: Envelope] = [:]
    /// What does not take effect, and how it ends.
    var refuses: (StoredKey) -> OperationFailure? = { _ in nil }
    private(set) var writes: [(key: StoredKey, consistency: Consistency?)] = []
    private var waiting: [() -> Void] = []
    private var clock = HybridClock(writer: 7)

    var waitingCount: Int { waiting.count }

    func valueLimit(for storedKey: StoredKey, of key: Key) -> Int { itemBytes - 1000 }

    func read(
        _ key: Key, _ consistency: Consistency?, completion: @escaping (Result<Envelope?, OperationFailure>) -> Void
    ) {
        read(stored: StoredKey(key), consistency, completion: completion)
    }

    func read(
        stored key: StoredKey, _ consistency: Consistency?,
        completion: @escaping (Result<Envelope?, OperationFailure>) -> Void
    ) {
        waiting.append { completion(self.refuses(key).map { .failure($0) } ?? .success(self.held[key])) }
    }

    func write(
        _ key: StoredKey, _ envelope: Envelope, _ consistency: Consistency?,
        completion: @escaping (Result<Version, OperationFailure>) -> Void
    ) {
        writes.append((key, consistency))
        waiting.append {
            if let failure = self.refuses(key) { return completion(.failure(failure)) }
            var envelope = envelope
            envelope.stamp(self.clock.tick(wallMicroseconds: 1_000_000))
            self.held[key] = envelope
            completion(.success(envelope.version))
        }
    }

    func held(_ key: StoredKey) -> Envelope? { held[key] }

    func runOne() { waiting.remove(at: Int.random(in: waiting.indices))() }

    /// Answers all that waits and comes to wait, in any order.
    func run(_ step: () -> Void = {}) {
        while !waiting.isEmpty {
            runOne()
            step()
        }
    }
}

@Suite("Large values: writing, reading, collecting")
struct LargeValueTests {
    private static let key = Key(Array("user/17".utf8))!
    private static let pair = LargeWrite.Pair(
        key: key, contentType: "image/png", expiry: nil, consistency: Consistency(.strict, quorum: 2))

    private static func write(_ store: ChunkStore, within time: TimeAmount = .seconds(60)) -> LargeWrite {
        LargeWrite(store, on: EmbeddedEventLoop(), pair, within: time, for: nil)
    }

    private static func value(_ count: Int) -> [UInt8] { (0..<count).map { _ in .random(in: 0...255) } }

    /// Hands the value over in pieces, as room is.
    private static func fill(_ write: LargeWrite, _ value: [UInt8], _ store: ChunkStore) {
        var rest = value[...]
        while !rest.isEmpty {
            if write.isFull {
                let before = store.waitingCount
                #expect(before > 0, "it is full, and nothing is under way")
                store.run()
                continue
            }
            let piece = rest.prefix(.random(in: 1...3000))
            rest = rest.dropFirst(piece.count)
            write.append(ByteBuffer(bytes: piece))
            #expect(store.waitingCount <= Limits.chunkWindow)
        }
    }

    private static func read(_ store: ChunkStore, _ range: Range<Int>) throws -> Result<[UInt8], LargeRead.Failure> {
        let large = try #require(store.held[StoredKey(key)]?.largeValue)
        let read = LargeRead(large, range, of: key) { store.read(stored: $0, $1 ? .strict : nil, completion: $2) }
        var bytes: [UInt8] = []
        var end: Result<[UInt8], LargeRead.Failure>?
        func next() {
            read.take { result in
                switch result {
                case .success(let piece?):
                    bytes += piece.readableBytesView
                    next()
                case .success(nil): end = .success(bytes)
                case .failure(let failure): end = .failure(failure)
                }
            }
        }
        next()
        store.run { #expect(store.waitingCount <= Limits.chunkWindow) }
        return try #require(end)
    }

    @Test("what was written in pieces is read whole, and in parts, in whatever order its chunks are answered")
    func roundTrip() throws {
        for size in [1, 991, 992, 993, 5000, 20_000] + (0..<20).map({ _ in Int.random(in: 1...30_000) }) {
            let store = ChunkStore()
            let write = Self.write(store)
            let value = Self.value(size)
            Self.fill(write, value, store)
            var end: Result<Version, OperationFailure>?
            write.finish(if: Precondition()) { end = $0 }
            #expect(end == nil && store.held[StoredKey(Self.key)] == nil, "a manifest before its chunks")
            store.run()
            let manifest = try #require(store.held[StoredKey(Self.key)])
            #expect(try end?.get() == manifest.version && manifest.contentType == "image/png")
            #expect(store.writes.last?.key == StoredKey(Self.key), "the manifest is written last")
            #expect(store.writes.allSatisfy { $0.consistency == Consistency(.strict, quorum: 2) })
            #expect(store.held.count == 2 + (manifest.largeValue?.chunkCount ?? 0))
            #expect(try Self.read(store, 0..<size).get() == value)
            for _ in 0..<20 {
                let first = Int.random(in: 0..<size)
                let range = first..<Int.random(in: first + 1...size)
                #expect(try Self.read(store, range).get() == Array(value[range]))
            }
        }
    }

    @Test("where a chunk fails there is no manifest, and the write has not been applied, whatever became of the chunk")
    func failingChunk() throws {
        for failing in 0...5 {
            for failure in [
                OperationFailure.notApplied(.outOfMemory), .outcomeUnknown(.nodeUnreachable),
                .tooFewHold(1, of: 2, .deadline),
            ] {
                let store = ChunkStore()
                store.refuses = { $0.chunk?.number == failing ? failure : nil }
                let write = Self.write(store)
                var news = 0
                write.onNews = { news += 1 }
                write.append(ByteBuffer(bytes: Self.value(3000)))
                store.run()
                write.append(ByteBuffer(bytes: Self.value(2000)))
                var end: Result<Version, OperationFailure>?
                write.finish(if: Precondition()) { end = $0 }
                store.run()
                #expect(end == .failure(failure.asNotApplied) && write.failure == failure.asNotApplied)
                #expect(news > 0 && store.held[StoredKey(Self.key)] == nil)
            }
        }
    }

    @Test("a manifest that is refused leaves what was there, and the write's outcome is the manifest's")
    func manifestFails() throws {
        let store = ChunkStore()
        let write = Self.write(store)
        Self.fill(write, Self.value(3000), store)
        let manifestKey = StoredKey(Self.key)
        store.refuses = { $0 == manifestKey ? .outcomeUnknown(.deadline) : nil }
        var end: Result<Version, OperationFailure>?
        write.finish(if: Precondition()) { end = $0 }
        store.run()
        #expect(end == .failure(.outcomeUnknown(.deadline)))
        store.refuses = { _ in nil }
        let conditional = Self.write(store)
        conditional.append(ByteBuffer(bytes: Self.value(3000)))
        conditional.finish(if: Precondition(ifMatch: .any)) { end = $0 }
        store.run()
        #expect(end == .failure(.preconditionFailed(held: .none)))
    }

    @Test("once its time is over nothing is acknowledged, and what is abandoned writes nothing more")
    func time() throws {
        let store = ChunkStore()
        let late = Self.write(store, within: .nanoseconds(1))
        late.append(ByteBuffer(bytes: Self.value(3000)))
        var end: Result<Version, OperationFailure>?
        late.finish(if: Precondition()) { end = $0 }
        store.run()
        #expect(end == .failure(.notApplied(.deadline)) && late.isLate(.now()))
        #expect(store.held[StoredKey(Self.key)] == nil)
        let abandoned = Self.write(store)
        abandoned.append(ByteBuffer(bytes: Self.value(9000)))
        let before = store.writes.count
        abandoned.abandon()
        store.run()
        #expect(store.writes.count == before)
    }

    @Test("a manifest that is acknowledged too late is of unknown outcome")
    func lateManifest() throws {
        let store = ChunkStore()
        let write = Self.write(store, within: .milliseconds(150))
        write.append(ByteBuffer(bytes: Self.value(100)))
        var end: Result<Version, OperationFailure>?
        write.finish(if: Precondition()) { end = $0 }
        var isManifestUnderWay: Bool { store.writes.last?.key == StoredKey(Self.key) }
        while !isManifestUnderWay, store.waitingCount > 0 { store.runOne() }
        try #require(isManifestUnderWay, "the test's machine is too slow")
        let over = NIODeadline.now() + .milliseconds(200)
        while NIODeadline.now() < over {}
        store.run()
        #expect(end == .failure(.outcomeUnknown(.deadline)))
    }

    @Test("a chunk that is not there is asked for once more, strictly, and then the value is missing")
    func missingChunk() throws {
        let store = ChunkStore()
        let write = Self.write(store)
        let value = Self.value(9000)
        Self.fill(write, value, store)
        write.finish(if: Precondition()) { _ in }
        store.run()
        let large = try #require(store.held[StoredKey(Self.key)]?.largeValue)
        let chunk = StoredKey(chunk: 3, of: large.upload, in: Self.key.slot)
        var asked: [Bool] = []
        let read = LargeRead(large, 0..<large.length, of: Self.key) { key, isStrict, completion in
            if key == chunk { asked.append(isStrict) }
            completion(.success(key == chunk && !isStrict ? nil : store.held[key]))
        }
        var pieces: [Int] = []
        for _ in 0..<large.chunkCount { read.take { pieces.append((try? $0.get()?.readableBytes) ?? -1) } }
        #expect(asked == [false, true] && pieces.reduce(0, +) == value.count)
        store.held[chunk] = nil
        #expect(try Self.read(store, 0..<value.count) == .failure(.missing))
        #expect(try Self.read(store, 0..<500).get() == Array(value[..<500]), "a part that does not need it")
        store.held[chunk] = Envelope(key: Self.key, storedKey: chunk, value: ByteBuffer(string: "too short"))
        #expect(try Self.read(store, 0..<value.count) == .failure(.missing))
        store.refuses = { $0 == chunk ? .notApplied(.deadline) : nil }
        #expect(try Self.read(store, 0..<value.count) == .failure(.failed(.notApplied(.deadline))))
    }

    @Test("an upload is collected only after its whole time without a manifest, and anew once it is stored again")
    func watch() {
        var watch = UploadWatch(graceMilliseconds: 100)
        let (one, two) = (UploadID.random(), UploadID.random())
        let (first, second) = (Version(time: 1, writer: 1), Version(time: 2, writer: 1))
        func pass(_ now: Int64, _ found: [(UploadID, Version)]) -> [UploadID] {
            watch.beginPass()
            defer { watch.endPass() }
            return found.filter { watch.isDue($0.0, label: $0.1, atMilliseconds: now) }.map(\.0)
        }
        #expect(pass(0, [(one, first)]) == [])
        #expect(pass(60, [(one, first), (two, first)]) == [])
        #expect(pass(99, [(one, first), (two, first)]) == [])
        #expect(pass(100, [(one, first), (two, first)]) == [one])
        // It is being imported once more.
        #expect(pass(120, [(one, second), (two, first)]) == [])
        #expect(pass(219, [(one, second)]) == [])
        #expect(pass(220, [(one, second)]) == [one])
        // It was in use, or gone, for a pass.
        #expect(pass(230, [(two, first)]) == [])
        #expect(pass(240, [(one, second)]) == [])
        watch.forget(one)
        #expect(pass(400, [(one, second)]) == [])
        #expect(watch.count == 1)
    }
}
