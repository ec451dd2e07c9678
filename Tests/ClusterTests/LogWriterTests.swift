// SPDX-License-Identifier: Apache-2.0

import Cluster
import Glibc
import HashRing
import KeyValue
import NIOCore
import Synchronization
import TestSupport
import Testing

/// A disk that says what was asked of it, by segment, and fails when it is told to.
final class WatchedDisk: Sendable {
    struct Use: Hashable, Sendable {
        var writes = 0
        var syncs = 0
        /// Bytes that a sync, one that succeeded, has covered.
        var syncedBytes = 0
    }

    private struct State {
        var uses: [String: Use] = [:]
        var failingWrite: CInt?
        var failingSync: CInt?
    }

    private let state = Mutex(State())

    /// By the segment's name, without its stage.
    var uses: [String: Use] { state.withLock { $0.uses } }

    /// An error's number; nil: none.
    func failWrites(_ number: CInt?) { state.withLock { $0.failingWrite = number } }
    func failSyncs(_ number: CInt?) { state.withLock { $0.failingSync = number } }

    var disk: LogDisk {
        let system = LogDisk.system()
        return LogDisk(
            write: { [self] file, bytes in
                let failure = state.withLock { state in
                    state.uses[WatchedDisk.name(of: file), default: Use()].writes += 1
                    return state.failingWrite
                }
                // (Half of it is written, as where a disk gets full.)
                guard let failure else { return system.write(file, bytes) }
                _ = system.write(file, UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count / 2)]))
                return -Int(failure)
            },
            sync: { [self] file in
                var status = stat()
                fstat(file, &status)
                return state.withLock { state in
                    let name = WatchedDisk.name(of: file)
                    state.uses[name, default: Use()].syncs += 1
                    if let failure = state.failingSync { return failure }
                    state.uses[name, default: Use()].syncedBytes = Int(status.st_size)
                    return system.sync(file)
                }
            })
    }

    private static func name(of file: CInt) -> String {
        var bytes = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/fd/\(file)", &bytes, bytes.count)
        let path = String(decoding: bytes[..<max(count, 0)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return path.split(separator: "/").last.map(LogWriterTests.unstaged) ?? ""
    }
}

struct LogWriterTests {
    private let directory: TemporaryDirectory
    private let header: SnapshotHeader

    init() throws {
        directory = try TemporaryDirectory()
        header = SnapshotHeader(
            node: try #require(NodeID("127.0.0.1:5000")), generation: Generation(7), epoch: Epoch(2), clock: 99)
    }

    static func unstaged(_ name: some StringProtocol) -> String {
        name.split(separator: ".").filter { $0 != "new" && $0 != "open" }.joined(separator: ".")
    }

    private var segments: LogSegments { LogSegments(directory: directory.path) }

    private func record(_ name: String, _ value: String = "") throws -> SnapshotRecord {
        let key = try #require(Key(name))
        return SnapshotRecord(
            key: StoredKey(key),
            envelope: Envelope(key: key, storedKey: StoredKey(key), value: ByteBuffer(string: value)))
    }

    private func block(_ records: SnapshotRecord...) -> SnapshotBlock {
        var block = SnapshotBlock()
        for record in records { block.append(record) }
        return block
    }

    /// Up to where it is sound; and whether it ends with a trailer.
    private func read(_ name: String) async throws -> (records: [SnapshotRecord], isWhole: Bool) {
        var records: [SnapshotRecord] = []
        let reader = try #require(try await SnapshotReader.open(directory.path + "/" + name))
        do {
            while let part = try await reader.next() { if case .records(let some) = part { records += some } }
            return (records, true)
        } catch {
            return (records, false)
        }
    }

    @Test func whatIsWrittenIsReadBack() async throws {
        let (a, b, c) = (try record("a", "1"), try record("b", "2"), try record("c"))
        do {
            var writer = LogWriter(segments, disk: .system(), number: 0xab)
            try writer.write([block(a)], header, at: 0)
            #expect(try segments.all() == ["log.00000000000000ab.0.open"] && writer.unsyncedBytes == 0)
            try writer.write([block(b, c), block(a)], header, at: 1)
            #expect(writer.unsyncedBytes == a.bytes + b.bytes + c.bytes)
            try writer.sync()
            #expect(writer.unsyncedBytes == 0)
            #expect(try await read("log.00000000000000ab.0.open") == (records: [a, b, c, a], isWhole: false))
            try writer.close()
            #expect(try segments.all() == ["log.00000000000000ab.0"] && writer.closingMilliseconds == nil)
            #expect(try await read("log.00000000000000ab.0") == (records: [a, b, c, a], isWhole: true))
            try writer.write([block(b)], header, at: 5)
            #expect(writer.closingMilliseconds == 5 + Limits.logSegmentMilliseconds)
            #expect(try segments.all() == ["log.00000000000000ab.0", "log.00000000000000ab.1.open"])
        }
    }

    @Test func tornAtEveryByte() async throws {
        let blocks = [[try record("a", "1")], [try record("b", "2"), try record("c", "3")], [try record("d", "4")]]
        var ends: [Int] = []
        let path = directory.path + "/log.0000000000000001.0.open"
        var writer = LogWriter(segments, disk: .system(), number: 1)
        var status = stat()
        for records in blocks {
            var block = SnapshotBlock()
            for record in records { block.append(record) }
            try writer.write([block], header, at: 0)
            try #require(stat(path, &status) == 0)
            ends.append(Int(status.st_size))
        }
        for length in stride(from: ends[2], through: 0, by: -1) {
            try #require(truncate(path, length) == 0)
            let sound = zip(blocks, ends).filter { $0.1 <= length }.flatMap(\.0)
            #expect(try await read("log.0000000000000001.0.open").records == sound, "\(length)")
            // What was never synced may also come back as zeros.
            try #require(truncate(path, ends[2] + 100) == 0)
            let wiped = try await read("log.0000000000000001.0.open")
            #expect(wiped.records == sound && !wiped.isWhole, "\(length)")
        }
    }

    @Test func aSegmentWhoseSyncFailedIsNeverTouchedAgain() async throws {
        let watched = WatchedDisk()
        let (a, b, c) = (try record("a", "1"), try record("b", "2"), try record("c"))
        var writer = LogWriter(segments, disk: watched.disk, number: 1)
        try writer.write([block(a)], header, at: 0)
        try writer.write([block(b)], header, at: 0)
        watched.failSyncs(EIO)
        var failure: LogWriter.Failure?
        do { try writer.sync() } catch { failure = error }
        #expect(failure?.description.contains("can't sync") == true)
        #expect(try segments.all() == ["log.0000000000000001.0"], "its name says that nobody writes to it")
        let old = try #require(watched.uses["log.0000000000000001.0"])
        // Not even a retry where it would succeed.
        watched.failSyncs(nil)
        try writer.sync()
        try writer.close()
        #expect(writer.unsyncedBytes == b.bytes)
        try writer.write([block(c)], header, at: 1)
        #expect(writer.unsyncedBytes == 0)
        #expect(watched.uses["log.0000000000000001.0"] == old)
        #expect(try await read("log.0000000000000001.1.open").records == [b, c], "what that sync may have lost")
        try writer.close()
        #expect(watched.uses["log.0000000000000001.0"] == old)
    }

    @Test func aSegmentThatCantBeWrittenIsNeverTouchedAgain() async throws {
        let watched = WatchedDisk()
        let (a, b) = (try record("a", "1"), try record("b", "2"))
        var writer = LogWriter(segments, disk: watched.disk, number: 1)
        try writer.write([block(a)], header, at: 0)
        watched.failWrites(ENOSPC)
        for time in 1...3 {
            var failure: LogWriter.Failure?
            do { try writer.write(time == 1 ? [block(b)] : [], header, at: Int64(time)) } catch { failure = error }
            #expect(failure?.description.contains("No space left") == true)
        }
        #expect(try segments.all() == ["log.0000000000000001.0"], "attempts that fail leave nothing")
        watched.failWrites(nil)
        try writer.write([], header, at: 4)
        #expect(try await read("log.0000000000000001.3.open").records == [b])
        #expect(try await read("log.0000000000000001.0").records == [a])
        #expect(watched.uses["log.0000000000000001.0"]?.writes == 2)
    }

    @Test func aTrialBeginsASegmentThoughThereIsNothingToWrite() throws {
        let watched = WatchedDisk()
        var writer = LogWriter(segments, disk: watched.disk, number: 1)
        try writer.write([], header, at: 0)
        #expect(try segments.all() == [])
        watched.failSyncs(EIO)
        #expect(throws: LogWriter.Failure.self) { try LogWriterTests.trial(&writer, header) }
        watched.failSyncs(nil)
        try writer.write([], header, at: 0, isTrial: true)
        #expect(try segments.all().count == 1)
    }

    private static func trial(_ writer: inout LogWriter, _ header: SnapshotHeader) throws {
        try writer.write([], header, at: 0, isTrial: true)
    }

    /// Whatever fails in whatever order: what the writer no longer keeps is in what was synced.
    @Test(arguments: 0..<60)
    func afterALossOfPowerNothingIsLostThatWasSynced(seed: UInt64) async throws {
        var random = SeededGenerator(seed: seed)
        let watched = WatchedDisk()
        var written: [SnapshotRecord] = []
        var unsynced = 0
        do {
            var writer = LogWriter(segments, disk: watched.disk, number: seed)
            for step in 0..<40 {
                watched.failWrites(Int.random(in: 0..<6, using: &random) == 0 ? ENOSPC : nil)
                watched.failSyncs(Int.random(in: 0..<4, using: &random) == 0 ? EIO : nil)
                do throws(LogWriter.Failure) {
                    switch Int.random(in: 0..<6, using: &random) {
                    case 0: try writer.close()
                    case 1, 2: try writer.sync()
                    default:
                        let record = try? record("k\(step)", String(repeating: "v", count: step))
                        guard let record else { continue }
                        written.append(record)
                        try writer.write([block(record)], header, at: 0)
                    }
                } catch {}
            }
            unsynced = writer.unsyncedBytes
        }
        var found: [SnapshotRecord] = []
        for name in try segments.all() {
            let synced = watched.uses[LogWriterTests.unstaged(name)]?.syncedBytes ?? 0
            try #require(truncate(directory.path + "/" + name, synced) == 0)
            found += try await read(name).records
        }
        while unsynced > 0, let last = written.popLast() { unsynced -= last.bytes }
        #expect(unsynced == 0)
        #expect(Set(written).isSubset(of: Set(found)))
    }

    // MARK: Stages

    @Test func onlyWhatNobodyWritesToIsSettled() throws {
        #expect(!segments.exist && !segments.hasOrphan)
        var closed = LogWriter(segments, disk: .system(), number: 1)
        try closed.write([block(try record("a"))], header, at: 0)
        #expect(segments.exist && !segments.hasOrphan)
        #expect(try segments.settled() == [])
        try closed.close()
        #expect(try segments.settled() == ["log.0000000000000001.0"] && !segments.hasOrphan)
        try closed.write([block(try record("b"))], header, at: 0)
        try leaveOrphan()
        #expect(segments.hasOrphan)
        #expect(try segments.settled() == ["log.0000000000000001.0", "log.0000000000000002.0.open"])
        #expect(segments.sum().count == 3 && segments.sum().bytes > 0)
        segments.remove(try segments.settled() + ["log.0000000000000009.9"])
        #expect(try segments.all() == ["log.0000000000000001.1.open"] && !segments.hasOrphan)
        try closed.sync()
    }

    private func leaveOrphan() throws {
        var killed = LogWriter(segments, disk: .system(), number: 2)
        try killed.write([block(try record("c"))], header, at: 0)
    }

    @Test func otherFilesAreNoSegments() throws {
        for name in ["log.1.0", "log.0000000000000001.0.old", "pairs.snapshot", "log.0000000000000001.x", "log."] {
            close(open(directory.path + "/" + name, O_CREAT | O_WRONLY, 0o600))
        }
        #expect(try segments.all() == [] && !segments.exist)
        #expect(throws: SnapshotFile.Failure.self) { try LogSegments(directory: "/nowhere").all() }
    }
}
