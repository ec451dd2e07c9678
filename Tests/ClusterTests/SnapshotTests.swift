// SPDX-License-Identifier: Apache-2.0

import Cluster
import Glibc
import HashRing
import KeyValue
import Memcached
import NIOCore
import Synchronization
import TestSupport
import Testing

/// With a real memcached, one after the other.
@Suite(.serialized, .timeLimit(.minutes(3)))
struct SnapshotTests {
    private func expectSame(_ held: [Envelope?], _ records: [SnapshotRecord]) {
        #expect(held.count == records.count)
        let different = zip(held, records).filter { $0.0 != $0.1.envelope }.count
        #expect(different == 0)
    }

    @Test func whatAHostHeldItHoldsAgain() async throws {
        try await SnapshotRig.run { rig in
            let records = rig.samples(1500)
            try await rig.store(records)
            let sum = try await rig.writer().write()
            #expect(sum == SnapshotSum(pairs: 1500, bytes: records.reduce(0) { $0 + $1.bytes }))

            let stamp = try await rig.restartEmpty()
            #expect(try await rig.held(records).allSatisfy { $0 == nil })
            let told = Mutex(0)
            let count = try await rig.loader.load(
                under: stamp, progress: { count in told.withLock { $0 = count.pairs } })
            #expect(count.pairs == 1500 && count.bytes == sum.bytes && count.damage == nil)
            #expect(count.pairsLeftOut == 0 && count.pairsRefused == 0 && count.header?.node == rig.node)
            #expect(told.withLock { $0 } == 1500)
            expectSame(try await rig.held(records), records)
            // memcached still knows which of them are bound to go.
            let plain = try rig.memcached.connect()
            for (record, isBound) in [(records[0], true), (records[1], true), (records[2], false)] {
                let line = try plain.ask("mg \(String(decoding: record.key.bytes, as: UTF8.self)) t")
                #expect(line.contains("t-1") != isBound, "\(line)")
            }
        }
    }

    @Test func severalScansMakeOneSnapshot() async throws {
        try await SnapshotRig.run { rig in
            let records = rig.samples(1000)
            try await rig.store(records)
            #expect(try await rig.writer(scanKeys: 300).write().pairs == 1000)
            let count = try await rig.loader.load(under: try await rig.restartEmpty())
            #expect(count.pairs == 1000)
            expectSame(try await rig.held(records), records)
        }
    }

    @Test func loadingNeverReplacesWhatIsNewer() async throws {
        try await SnapshotRig.run { rig in
            let records = rig.samples(100)
            try await rig.store(records)
            _ = try await rig.writer().write()
            let newer = rig.samples(50)
            let stamp = try await rig.restartEmpty()
            try await rig.store(newer)
            // Twice: nothing is lost by it.
            for _ in 0..<2 { #expect(try await rig.loader.load(under: stamp).pairs == 100) }
            expectSame(try await rig.held(records), newer + records[50...])
        }
    }

    @Test func onlyTheSlotsThatAreWantedAreLoaded() async throws {
        try await SnapshotRig.run { rig in
            let records = rig.samples(200)
            try await rig.store(records)
            _ = try await rig.writer().write()
            let stamp = try await rig.restartEmpty()
            let count = try await rig.loader.load(under: stamp, where: { $0.value < 5000 })
            let wanted = records.filter { $0.key.slot.value < 5000 }
            #expect(count.pairs == wanted.count && count.pairsLeftOut == 200 - wanted.count)
            let held = try await rig.held(records)
            #expect(zip(held, records).allSatisfy { ($0 != nil) == ($1.key.slot.value < 5000) })
        }
    }

    @Test func withoutAFileNothingIsLoaded() async throws {
        try await SnapshotRig.run { rig in
            let stamp = try #require(try await rig.pairs().stamp())
            #expect(try await rig.loader.load(under: stamp) == SnapshotLoader.LoadedCount())
        }
    }

    @Test func ofATornFileTheSoundPartIsLoaded() async throws {
        try await SnapshotRig.run { rig in
            let records = rig.samples(300)
            try await rig.store(records)
            _ = try await rig.writer().write()
            // In its trailer: all blocks are sound.
            var status = stat()
            try #require(stat(rig.path, &status) == 0 && truncate(rig.path, status.st_size - 1) == 0)
            let count = try await rig.loader.load(under: try await rig.restartEmpty())
            #expect(count.pairs == 300)
            #expect(count.damage?.hasSuffix("is cut off") == true)
            // In its only block: no pair.
            try #require(truncate(rig.path, status.st_size / 2) == 0)
            let stamp = try await rig.restartEmpty()
            let less = try await rig.loader.load(under: stamp)
            #expect(less.pairs == 0 && less.damage != nil && less.header != nil)
            #expect(try await rig.held(records).allSatisfy { $0 == nil })
            try #require(truncate(rig.path, 3) == 0)
            #expect(try await rig.loader.load(under: stamp).header == nil)
        }
    }

    @Test func loadingStopsWhereTheMemoryIsAnother() async throws {
        try await SnapshotRig.run { rig in
            try await rig.store(rig.samples(20))
            let old = try #require(try await rig.pairs().stamp())
            _ = try await rig.writer().write()
            _ = try await rig.restartEmpty()
            await #expect(throws: HostPairs.Failure.self) { _ = try await rig.loader.load(under: old) }
        }
    }

    // MARK: What must not become a snapshot

    @Test func aMemoryThatIsLostInTheMiddleReplacesNothing() async throws {
        try await SnapshotRig.run { rig in
            let records = rig.samples(1000)
            try await rig.store(records)
            _ = try await rig.writer().write()
            let hold = rig.directory.path + "/hold"
            close(open(hold, O_CREAT | O_WRONLY, 0o600))
            let writer = rig.writer(failpoints: "snapshot.batch=hold:\(hold)")
            async let second = writer.write()
            // The first batch is written.
            var status = stat()
            while stat(rig.path + ".new", &status) != 0 || status.st_size == 0 {
                try await Task.sleep(for: .milliseconds(5))
            }
            let stamp = try await rig.restartEmpty()
            unlink(hold)
            do {
                _ = try await second
                Issue.record("a snapshot of two memories")
            } catch {}
            #expect(access(rig.path + ".new", F_OK) != 0)
            #expect(try await rig.loader.load(under: stamp).pairs == 1000)
        }
    }

    /// The scans may have seen the new memory alone; the worker does not know of it yet.
    @Test func aMemoryThatIsLostUnnoticedReplacesNothing() async throws {
        try await SnapshotRig.run { rig in
            try await rig.store(rig.samples(10))
            _ = try await rig.writer().write()
            let old = try #require(try await rig.pairs().stamp())
            let stamp = try await rig.restartEmpty()
            try await rig.stand(on: old)
            let failure = await #expect(throws: SnapshotWriter.Failure.self) { _ = try await rig.writer().write() }
            #expect(failure?.description == "\(SnapshotWriter.Failure.memoryLost)")
            try await rig.stand(on: stamp)
            #expect(try await rig.loader.load(under: stamp).pairs == 10)
        }
    }

    @Test func anEmptyMemoryReplacesNotAnothersPairsButItsOwn() async throws {
        try await SnapshotRig.run { rig in
            let records = rig.samples(10)
            try await rig.store(records)
            _ = try await rig.writer().write()
            let stamp = try await rig.restartEmpty()
            let failure = await #expect(throws: SnapshotWriter.Failure.self) { _ = try await rig.writer().write() }
            #expect(failure?.description == "\(SnapshotWriter.Failure.nothingToKeep)")
            _ = try await rig.loader.load(under: stamp)
            #expect(try await rig.writer().write().pairs == 10)
            let plain = try rig.memcached.connect()
            for record in records { _ = try plain.ask("delete \(String(decoding: record.key.bytes, as: UTF8.self))") }
            #expect(try await rig.writer().write().pairs == 0)
            #expect(try await rig.loader.load(under: stamp).pairs == 0)
        }
    }

    @Test func aHostThatIsNotCompleteWritesNone() async throws {
        try await SnapshotRig.run { rig in
            try await rig.store(rig.samples(10))
            let writer = rig.writer(maySnapshot: { false })
            #expect(await writer.generation() == nil)
            await #expect(throws: SnapshotWriter.Failure.self) { _ = try await writer.write() }
            // And where it is found out at the end.
            let asked = Mutex(0)
            let later = rig.writer(maySnapshot: {
                asked.withLock {
                    $0 += 1; return $0 == 1
                }
            })
            await #expect(throws: SnapshotWriter.Failure.self) { _ = try await later.write() }
            #expect(try await rig.file.reader() == nil)
            #expect(access(rig.path + ".new", F_OK) != 0)
        }
    }

    @Test func anErrorInTheMiddleLeavesTheOneBefore() async throws {
        try await SnapshotRig.run { rig in
            try await rig.store(rig.samples(10))
            _ = try await rig.writer().write()
            try await rig.store(rig.samples(600))
            for failpoint in ["snapshot.publish=error", "snapshot.batch=error after 1"] {
                await #expect(throws: Failpoints.Injected.self) {
                    _ = try await rig.writer(failpoints: failpoint).write()
                }
                #expect(access(rig.path + ".new", F_OK) != 0)
            }
            let stamp = try #require(try await rig.pairs().stamp())
            #expect(try await rig.loader.load(under: stamp).pairs == 10)
            #expect(try await rig.writer().write().pairs == 600)
        }
    }

    // MARK: The chore

    @Test func oneWorkerAtATimeTakesSnapshotsAndSaysSo() async throws {
        try await SnapshotRig.run { rig in
            try await rig.store(rig.samples(10))
            let board = SnapshotBoard(control: rig.control)
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<2 {
                    let chore = SnapshotChore(
                        interval: .seconds(1), writer: rig.writer(), board: board,
                        leases: LeaseStore(control: rig.control), clock: rig.clock, logger: .silent)
                    group.addTask { await chore.run() }
                }
                for _ in 0..<500 where await board.entry()?.finished == nil {
                    try? await Task.sleep(for: .milliseconds(20))
                }
                group.cancelAll()
            }
            let entry = await board.entry()
            #expect(entry?.finished?.pairs == 10 && entry?.error == nil)
            #expect(try await rig.file.reader() != nil)
        }
    }

    @Test func whyAnAttemptFailedIsShownBesideTheLastSnapshot() async throws {
        try await SnapshotRig.run { rig in
            try await rig.store(rig.samples(10))
            let board = SnapshotBoard(control: rig.control)
            let chore = SnapshotChore(
                interval: .seconds(1), writer: rig.writer(failpoints: "snapshot.publish=error after 1"), board: board,
                leases: LeaseStore(control: rig.control), clock: rig.clock, logger: .silent)
            await withTaskGroup(of: Void.self) { group in
                group.addTask { await chore.run() }
                for _ in 0..<500 where await board.entry()?.error == nil {
                    try? await Task.sleep(for: .milliseconds(20))
                }
                group.cancelAll()
            }
            let entry = await board.entry()
            #expect(entry?.finished?.pairs == 10 && entry?.error?.contains("snapshot.publish") == true)
        }
    }
}
