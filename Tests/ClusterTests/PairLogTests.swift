// SPDX-License-Identifier: Apache-2.0

import Cluster
import Glibc
import HashRing
import KeyValue
import Logging
import Memcached
import NIOCore
import Synchronization
import TestSupport
import Testing

@Suite(.serialized, .timeLimit(.minutes(2)))
struct PairLogTests {
    private let directory: TemporaryDirectory
    private let node: NodeID
    private let clock = WorkerClock(writer: 1)

    init() throws {
        directory = try TemporaryDirectory()
        node = try #require(NodeID("127.0.0.1:5000"))
    }

    private var segments: LogSegments { LogSegments(directory: directory.path) }

    private func log(_ disk: LogDisk = .system(), bufferBytes: Int = Limits.logBufferBytes) -> PairLog {
        PairLog(node: node, segments: segments, disk: disk, clock: clock, logger: .silent, bufferBytes: bufferBytes)
    }

    private func record(_ name: String, bytes: Int = 1) throws -> SnapshotRecord {
        let key = try #require(Key(name))
        return SnapshotRecord(
            key: StoredKey(key),
            envelope: Envelope(
                key: key, storedKey: StoredKey(key), value: ByteBuffer(repeating: 1, count: bytes),
                version: clock.tick()))
    }

    /// As a lane does it; false where it is refused.
    private func store(_ records: [SnapshotRecord], in log: PairLog, isRecovering: Bool = false) -> Bool {
        let bytes = records.reduce(0) { $0 + $1.bytes }
        guard log.reserve(bytes) else { return false }
        let stamp = HostStamp(epoch: Epoch(2), generation: Generation(5), isRecovering: isRecovering)
        log.append(records, under: stamp, reserved: bytes)
        return true
    }

    private func onDisk() async throws -> [SnapshotRecord] {
        var records: [SnapshotRecord] = []
        for name in try segments.all() {
            guard let reader = try await SnapshotReader.open(directory.path + "/" + name) else { continue }
            while let part = try? await reader.next() { if case .records(let some) = part { records += some } }
        }
        return records
    }

    private func eventually(
        within time: Duration = .seconds(10), _ holds: () async throws -> Bool
    ) async throws -> Duration {
        let began = ContinuousClock.now
        while ContinuousClock.now - began < time {
            if try await holds() { return ContinuousClock.now - began }
            try await Task.sleep(for: .milliseconds(10))
        }
        Issue.record("not within \(time)")
        return time
    }

    @Test func whatIsAppendedIsSyncedAboutASecondLater() async throws {
        let watched = WatchedDisk()
        let log = log(watched.disk)
        let records = try (0..<100).map { try record("k\($0)") }
        #expect(store(Array(records[..<50]), in: log))
        _ = try await eventually { try await onDisk() == Array(records[..<50]) }
        #expect(store(Array(records[50...]), in: log))
        // Written at once, for a worker that is killed; synced later.
        let written = try await eventually { try await onDisk() == records }
        let name = try #require(watched.uses.keys.first)
        let synced = try await eventually { watched.uses[name]?.syncs == 2 }
        #expect(written < .milliseconds(700) && written + synced > .milliseconds(500), "\(written), \(synced)")
        #expect(log.condition.lastSyncMilliseconds != nil && log.condition.error == nil)
        await log.close(within: .seconds(5))
        #expect(try segments.settled().count == 1 && !segments.hasOrphan)
        #expect(!store([records[0]], in: log))
    }

    @Test func whatWaitsWhenAWorkerLeavesIsOnDisk() async throws {
        let log = log()
        let records = try (0..<10).map { try record("k\($0)") }
        #expect(store(records, in: log))
        await log.close(within: .seconds(5))
        #expect(try await onDisk() == records)
    }

    @Test func theBufferIsBounded() async throws {
        let watched = WatchedDisk()
        watched.failSyncs(EIO)
        let log = log(watched.disk, bufferBytes: 10_000)
        let records = try (0..<4).map { try record("k\($0)", bytes: 4000) }
        let bytes = records[0].bytes
        // What is reserved counts, too.
        #expect(log.reserve(bytes) && log.reserve(bytes) && !log.reserve(bytes))
        log.append([], under: HostStamp(epoch: Epoch(2), generation: Generation(5)), reserved: bytes)
        #expect(log.reserve(bytes) && !log.reserve(bytes))
        log.append([records[0]], under: HostStamp(epoch: Epoch(2), generation: Generation(5)), reserved: bytes)
        log.append([records[1]], under: HostStamp(epoch: Epoch(2), generation: Generation(5)), reserved: bytes)
        #expect(!log.reserve(bytes) && log.condition.refused == 3)
        _ = try await eventually { log.condition.error != nil }
        watched.failSyncs(nil)
        _ = try await eventually { log.condition.error == nil }
        #expect(try await onDisk() == Array(records[..<2]))
        #expect(log.reserve(bytes), "there is room again")
        log.append([], under: HostStamp(epoch: Epoch(2), generation: Generation(5)), reserved: bytes)
        // One that is larger than the buffer finds room in an empty one.
        let large = try record("large", bytes: 20_000)
        #expect(store([large], in: log))
        #expect(!store([records[3]], in: log))
        #expect(!log.reserve(Limits.snapshotLargestBlockBytes), "larger than any block")
        await log.close(within: .seconds(5))
        #expect(try await onDisk().last == large)
    }

    @Test(arguments: [true, false])
    func aDiskThatFailsRefusesWritesUntilANewSegmentWorks(isSync: Bool) async throws {
        let watched = WatchedDisk()
        let log = log(watched.disk)
        var records = [try record("before")]
        #expect(store(records, in: log))
        _ = try await eventually { try await onDisk().count == 1 }
        if isSync { watched.failSyncs(EIO) } else { watched.failWrites(ENOSPC) }
        records.append(try record("meanwhile"))
        #expect(store([records[1]], in: log))
        _ = try await eventually { log.condition.error != nil }
        #expect(!store([try record("refused")], in: log))
        // Room that was kept before is good: what is stored already has to be logged.
        let old = watched.uses
        try await Task.sleep(for: .milliseconds(1200))
        #expect(log.condition.error != nil)
        watched.failSyncs(nil)
        watched.failWrites(nil)
        _ = try await eventually { log.condition.error == nil }
        records.append(try record("after"))
        #expect(store([records[2]], in: log))
        await log.close(within: .seconds(5))
        #expect(Set(try await onDisk()) == Set(records))
        let first = try #require(try segments.all().first)
        #expect(watched.uses[first] == old[first], "the first one was not touched again")
    }

    /// Otherwise nothing could ever cut it off again.
    @Test func theLogLeavesRoomForASnapshot() async throws {
        let free = Mutex(1_000_000)
        let segments = LogSegments(
            directory: directory.path,
            room: { _ in
                LogSegments.Room(free: free.withLock { $0 }, total: 1600)
            })
        let log = PairLog(
            node: node, segments: segments, disk: .system(), clock: clock, logger: .silent)
        var records = [try record("a", bytes: 100_000)]
        #expect(store(records, in: log))
        _ = try await eventually { try await onDisk() == records }
        #expect(segments.hasRoomForSnapshot && log.condition.error == nil)
        free.withLock { $0 = 150_000 }
        records.append(try record("b", bytes: 100_000))
        #expect(store([records[1]], in: log))
        _ = try await eventually { log.condition.error?.contains("snapshot") == true }
        #expect(!segments.hasRoomForSnapshot)
        #expect(!store([try record("refused")], in: log))
        #expect(try await onDisk() == records && segments.all().count == segments.settled().count)
        try await Task.sleep(for: .milliseconds(1200))
        #expect(log.condition.error != nil && segments.sum().count == 1)
        // As where a snapshot has deleted them.
        segments.remove(try segments.settled())
        _ = try await eventually { log.condition.error == nil }
        records = [try record("c")]
        #expect(store(records, in: log))
        await log.close(within: .seconds(5))
        #expect(try await onDisk() == records)
    }

    /// Or it would wait for a snapshot that is not taken before it is whole.
    @Test func aMemoryThatIsRefilledTakesTheRoomThatThereIs() async throws {
        let segments = LogSegments(directory: directory.path, room: { _ in LogSegments.Room(free: 0, total: 1600) })
        let log = PairLog(node: node, segments: segments, disk: .system(), clock: clock, logger: .silent)
        let records = try (0..<3).map { try record("k\($0)", bytes: 1000) }
        #expect(store(records, in: log, isRecovering: true))
        _ = try await eventually { try await onDisk() == records && log.condition.lastSyncMilliseconds != nil }
        #expect(!segments.hasRoomForSnapshot && log.condition.error == nil)
        // Once it is whole, the rule holds.
        #expect(store([try record("last")], in: log))
        _ = try await eventually { log.condition.error != nil }
        await log.close(within: .seconds(5))
    }

    // MARK: With snapshots

    @Test func aSnapshotDeletesWhatWasClosedBeforeIt() async throws {
        try await SnapshotRig.run { rig in
            let segments = LogSegments(directory: rig.directory.path)
            let header = SnapshotHeader(node: rig.node, generation: Generation(1), epoch: .none, clock: 0)
            var closed = LogWriter(segments, disk: .system(), number: 1)
            let open = LogWriter.beginning(segments, number: 2, header)
            try closed.write([], header, at: 0, isTrial: true)
            try closed.close()
            #expect(try segments.all().count == 2)
            // One that has no pairs may be of another memory.
            _ = try await rig.writer().write()
            #expect(try segments.all().count == 2)
            try await rig.store(rig.samples(5))
            await #expect(throws: Failpoints.Injected.self) {
                _ = try await rig.writer(failpoints: "snapshot.publish=error").write()
            }
            #expect(try segments.all().count == 2)
            _ = try await rig.writer().write()
            #expect(try segments.all() == ["log.0000000000000002.0.open"])
            _ = consume open
            #expect(await rig.writer().isLogWanting())
            _ = try await rig.writer().write()
            #expect(try segments.all() == [])
            #expect(await !rig.writer().isLogWanting())
        }
    }

    @Test func aLostMemoryIsLoadedFromSnapshotAndLog() async throws {
        try await SnapshotRig.run { rig in
            let records = rig.samples(400)
            try await rig.store(Array(records[..<200]))
            _ = try await rig.writer().write()
            // Newer versions of some, and others, in two segments, not in the order in which they came; one is torn.
            let newer = rig.samples(100)
            let log = PairLog(
                node: rig.node, segments: LogSegments(directory: rig.directory.path), disk: .system(),
                clock: rig.clock, logger: .silent)
            #expect(store(newer + records[200...] + records[..<100], in: log))
            await log.close(within: .seconds(5))
            let other = PairLog(
                node: rig.node, segments: LogSegments(directory: rig.directory.path), disk: .system(),
                clock: rig.clock, logger: .silent)
            #expect(store(Array(records[100..<300]), in: other))
            await other.close(within: .seconds(5))
            for name in try LogSegments(directory: rig.directory.path).all() {
                var status = stat()
                let path = rig.directory.path + "/" + name
                try #require(stat(path, &status) == 0 && truncate(path, status.st_size - 1) == 0)
            }
            let stamp = try await rig.restartEmpty()
            for _ in 0..<2 {
                let count = try await rig.loader.load(under: stamp)
                #expect(count.pairs == 200 && count.damage == nil)
                #expect(count.segments == 2 && count.records == 100 + 200 + 100 + 200)
            }
            let held = try await rig.held(newer + records[100...])
            #expect(held == newer.map(\.envelope) + records[100...].map(\.envelope))
        }
    }

    /// A worker that lives closes its segment, which gives it another name.
    @Test func whatIsClosedWhileOthersAreLoadedIsLoadedToo() async throws {
        try await SnapshotRig.run { rig in
            let records = rig.samples(20)
            let segments = LogSegments(directory: rig.directory.path)
            for part in [records[..<10], records[10...]] {
                let log = PairLog(
                    node: rig.node, segments: segments, disk: .system(), clock: rig.clock, logger: .silent)
                #expect(store(Array(part), in: log))
                await log.close(within: .seconds(5))
            }
            // The last by name is loaded last.
            let last = rig.directory.path + "/" + (try #require(try segments.all().last))
            try #require(rename(last, last + ".open") == 0)
            let hold = rig.directory.path + "/hold"
            close(open(hold, O_CREAT | O_WRONLY, 0o600))
            let stamp = try await rig.restartEmpty()
            async let loaded = rig.loader(failpoints: "snapshot.load.block=hold:\(hold)").load(under: stamp)
            try await Task.sleep(for: .milliseconds(Limits.logSettleMilliseconds + 500))
            try #require(rename(last + ".open", last) == 0)
            unlink(hold)
            let count = try await loaded
            #expect(count.segments == 2 && count.records == 20)
            #expect(try await rig.held(records) == records.map(\.envelope))
        }
    }
}

extension LogWriter {
    fileprivate static func beginning(_ segments: LogSegments, number: UInt64, _ header: SnapshotHeader) -> LogWriter {
        var writer = LogWriter(segments, disk: .system(), number: number)
        do { try writer.write([], header, at: 0, isTrial: true) } catch { Issue.record("\(error)") }
        return writer
    }
}
