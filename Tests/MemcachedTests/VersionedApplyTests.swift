// SPDX-License-Identifier: Apache-2.0

import Foundation
import HashRing
import KeyValue
import Memcached
import NIOCore
import TestSupport
import Testing

extension MemcachedTests {
    /// What the four operations do with a real memcached.
    @Suite struct VersionedApply {
        @Test func missingPairHasNoRecordAndTheVersionNone() async throws {
            try await Rig.withRealMemcached { _, rig in
                let pair = Pair("nobody")
                #expect(await rig.perform(.read(pair.key)) == .record(nil))
                #expect(await rig.perform(.readVersion(pair.key)) == .version(.none))
            }
        }

        @Test func stampStoresWithAVersionThatReadsBack() async throws {
            try await Rig.withRealMemcached { _, rig in
                let pair = Pair("roof")
                let first = try #require(await rig.perform(.stamp(pair.key, pair.envelope("one"))).storedVersion)
                let second = try #require(await rig.perform(.stamp(pair.key, pair.envelope("two"))).storedVersion)
                #expect(second > first)
                #expect(await rig.perform(.readVersion(pair.key)) == .version(second))
                #expect(await rig.perform(.read(pair.key)) == .record(pair.envelope("two", version: second)))
            }
        }

        /// memcached stops reading while its answers find no room: whoever sends all before it takes any waits for
        /// ever.
        @Test(arguments: [(800, 16_000), (6000, 100)]) func manyStoresInOneTurnDoNotWaitForEachOther(
            count: Int, bytes: Int
        ) async throws {
            try await Rig.withRealMemcached { _, rig in
                let value = String(repeating: "v", count: bytes)
                // (The second time they overwrite.)
                for _ in 0..<2 {
                    let stores = Pair.numbered(0..<count).map { Operation.stamp($0.key, $0.envelope(value)) }
                    let outcomes = await rig.perform(stores, within: .seconds(5))
                    #expect(outcomes.allSatisfy { $0.storedVersion != nil })
                }
            }
        }

        @Test func applyStoresWhatIsNewerAndKeepsWhatIsNot() async throws {
            try await Rig.withRealMemcached { _, rig in
                let pair = Pair("gate")
                let now = rig.clock.reading
                let (older, middle, newer) = (
                    Version(time: now - 1, writer: 9), Version(time: now, writer: 2), Version(time: now, writer: 3)
                )
                let steps: [(version: Version, text: String, heldText: String, newest: Version)] = [
                    (middle, "middle", "middle", middle),
                    (older, "older", "middle", middle),
                    (middle, "again", "middle", middle),
                    (newer, "newer", "newer", newer),
                    (middle, "late", "newer", newer),
                ]
                for step in steps {
                    let outcome = await rig.perform(.apply(pair.key, pair.envelope(step.text, version: step.version)))
                    #expect(outcome == .applied(newest: step.newest))
                    #expect(await rig.held(pair) == pair.envelope(step.heldText, version: step.newest))
                }
            }
        }

        @Test func stampIsAboveWhatIsHeldWhateverTheClockSays() async throws {
            try await Rig.withRealMemcached { _, rig in
                let pair = Pair("finger")
                let ahead = Version(time: rig.clock.reading + (5_000_000 << 12), writer: .max)
                #expect(
                    await rig.perform(.apply(pair.key, pair.envelope("ahead", version: ahead)))
                        == .applied(newest: ahead))
                let version = try #require(await rig.perform(.stamp(pair.key, pair.envelope("mine"))).storedVersion)
                #expect(version > ahead)
                #expect(await rig.held(pair) == pair.envelope("mine", version: version))
            }
        }

        /// A pair that some owner has stamped with a clock that was wrong must be able to move, and to be overwritten;
        /// another host's clock alone is not believed.
        @Test func versionFarAheadIsStoredAndOverwritten() async throws {
            try await Rig.withRealMemcached { _, rig in
                let pair = Pair("gas")
                let wrong = Version(time: rig.clock.reading + (3_600_000_000 << 12), writer: 1)
                #expect(!rig.clock.merge(wrong.time))
                #expect(rig.clock.refusedCount == 1)
                #expect(rig.clock.reading < wrong.time)
                let outcome = await rig.perform(.apply(pair.key, pair.envelope("wrong", version: wrong)))
                #expect(outcome == .applied(newest: wrong))
                let version = try #require(await rig.perform(.stamp(pair.key, pair.envelope("right"))).storedVersion)
                #expect(version > wrong)
                #expect(await rig.held(pair) == pair.envelope("right", version: version))
            }
        }

        @Test func tombstoneIsARecordLikeAnyOther() async throws {
            try await Rig.withRealMemcached { _, rig in
                let pair = Pair("ship")
                let first = try #require(await rig.perform(.stamp(pair.key, pair.envelope("x"))).storedVersion)
                let version = try #require(
                    await rig.perform(.stamp(pair.key, pair.envelope(isTombstone: true))).storedVersion)
                #expect(await rig.held(pair)?.isTombstone == true)
                let late = await rig.perform(.apply(pair.key, pair.envelope("resurrected", version: first)))
                #expect(late == .applied(newest: version))
                #expect(await rig.held(pair)?.isTombstone == true)
            }
        }

        /// memcached frees the memory by itself some time later.
        @Test func whatIsBoundToGoIsNotKeptForGood() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let (plain, deleted, expiring) = (Pair("plain"), Pair("deleted"), Pair("expiring"))
                let now = UInt64(Date().timeIntervalSince1970 * 1000)
                let short = Envelope(
                    key: expiring.client, storedKey: expiring.key, value: ByteBuffer(string: "x"),
                    expiryMilliseconds: now + 100_000)
                // Both ways of storing: in a turn with others, and with a token that another write takes away.
                for _ in 0..<2 {
                    _ = await rig.perform([
                        .stamp(plain.key, plain.envelope("x")),
                        .stamp(deleted.key, deleted.envelope(isTombstone: true)),
                        .stamp(expiring.key, short), .stamp(deleted.key, deleted.envelope(isTombstone: true)),
                        .stamp(expiring.key, short),
                    ])
                }
                let connection = try memcached.connect()
                func seconds(_ pair: Pair) throws -> Int? {
                    Int(try connection.ask("mg \(pair.stored) t").dropFirst(4).prefix { $0.isNumber || $0 == "-" })
                }
                #expect(try seconds(plain) == -1)
                #expect((86_300...86_400).contains(try #require(try seconds(deleted))))
                #expect((690...700).contains(try #require(try seconds(expiring))))
            }
        }

        @Test func batchIsAnsweredInItsOrder() async throws {
            try await Rig.withRealMemcached { _, rig in
                let pairs = Pair.numbered(0..<300)
                let stored = await rig.perform(pairs.map { .stamp($0.key, $0.envelope("first")) })
                #expect(stored.allSatisfy { $0.storedVersion != nil })
                // Reads and writes, of pairs that are there and of others, mixed.
                let more = Pair.numbered(200..<500)
                let operations = more.enumerated().map { index, pair in
                    index % 3 == 0 ? Operation.stamp(pair.key, pair.envelope("second")) : .read(pair.key)
                }
                let outcomes = await rig.perform(operations)
                try #require(outcomes.count == operations.count)
                for (index, (pair, outcome)) in zip(more, outcomes).enumerated() {
                    if index % 3 == 0 {
                        #expect(outcome.storedVersion != nil)
                    } else if index < 100 {
                        #expect(outcome.record.map { pair.text(of: $0) } == "first")
                    } else {
                        #expect(outcome == .record(nil))
                    }
                }
            }
        }

        @Test(arguments: [false, true])
        func oneKeyManyTimesInOneBatch(isThereBefore: Bool) async throws {
            try await Rig.withRealMemcached { _, rig in
                let pair = Pair("echo")
                if isThereBefore { _ = await rig.perform(.stamp(pair.key, pair.envelope("before"))) }
                let outcomes = await rig.perform((0..<50).map { .stamp(pair.key, pair.envelope("\($0)")) })
                let versions = outcomes.compactMap(\.storedVersion)
                #expect(versions.count == 50)
                #expect(versions == Array(Set(versions)).sorted())
                #expect(await rig.held(pair) == pair.envelope("49", version: versions[49]))
                let reads = await rig.perform((0..<50).map { _ in .read(pair.key) })
                #expect(reads.allSatisfy { $0 == .record(pair.envelope("49", version: versions[49])) })
            }
        }

        @Test func valuesMayHoldAnyBytes() async throws {
            try await Rig.withRealMemcached { _, rig in
                for bytes in [Array(0...255), Array("\r\nEND\r\nVALUE kv:stamp 0 1\r\nx\r\nEND\r\n".utf8), []]
                    as [[UInt8]]
                {
                    let pair = Pair("bytes")
                    let envelope = Envelope(key: pair.client, storedKey: pair.key, value: ByteBuffer(bytes: bytes))
                    #expect(await rig.perform(.stamp(pair.key, envelope)).storedVersion != nil)
                    #expect(await rig.held(pair).map { Array($0.value.readableBytesView) } == bytes)
                }
            }
        }

        @Test func valueOverTheItemLimitIsRefusedBeforeItIsSent() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let pair = Pair("big")
                let version = try #require(await rig.perform(.stamp(pair.key, pair.envelope("small"))).storedVersion)
                let plain = try memcached.connect()
                let before = try plain.statistic("bytes_read")
                for size in [1 << 20, (1 << 20) - 60, 5 << 20] {
                    let value = String(repeating: "x", count: size)
                    let outcome = await rig.perform(.stamp(pair.key, pair.envelope(value)))
                    #expect(outcome == .failed(.notApplied(.tooLarge)))
                }
                // A memcached that has to read a value first deletes the old one.
                #expect(try plain.statistic("bytes_read") - before < 10_000)
                #expect(await rig.held(pair) == pair.envelope("small", version: version))
                let largest = String(repeating: "x", count: (1 << 20) - Limits.itemOverheadBytes)
                #expect(await rig.perform(.stamp(pair.key, pair.envelope(largest))).storedVersion != nil)
                #expect(await rig.held(pair).flatMap { pair.text(of: $0) } == largest)
            }
        }

        @Test func whatIsNotOursIsNeitherReadNorOverwritten() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let (foreign, pair) = (Pair("foreign"), Pair("neighbour"))
                let plain = try memcached.connect()
                try plain.ask("set \(foreign.stored) 0 0 5\r\nhello")
                let outcomes = await rig.perform([
                    .stamp(pair.key, pair.envelope("x")), .stamp(foreign.key, foreign.envelope("x")),
                    .apply(foreign.key, foreign.envelope("x", version: Version(time: rig.clock.reading, writer: 1))),
                    .read(foreign.key), .readVersion(foreign.key),
                ])
                #expect(outcomes[0].storedVersion != nil)
                #expect(outcomes[1...].allSatisfy { $0 == .failed(.notApplied(.protocolViolation)) })
                #expect(try plain.ask("get \(foreign.stored)", until: "END\r\n").contains("hello"))
            }
        }

        @Test(arguments: [
            HostStamp(epoch: Epoch(2), generation: Rig.stamp.generation),
            HostStamp(epoch: Epoch(4), generation: Rig.stamp.generation),
            HostStamp(epoch: Rig.stamp.epoch, generation: Generation(0xdead)),
        ])
        func anotherStampMeansStaleRingAndNothingIsDone(expected: HostStamp) async throws {
            try await Rig.withRealMemcached { _, rig in
                let (held, new) = (Pair("held"), Pair("new"))
                let version = try #require(await rig.perform(.stamp(held.key, held.envelope("x"))).storedVersion)
                let result = await rig.result(
                    of: [
                        .read(held.key), .readVersion(held.key), .stamp(held.key, held.envelope("y")),
                        .apply(new.key, new.envelope("y", version: Version(time: rig.clock.reading, writer: 1))),
                    ], expecting: expected)
                #expect(result.outcomes == [Outcome](repeating: .failed(.staleRing), count: 4))
                #expect(result.host == Rig.stamp)
                #expect(await rig.perform(.read(held.key)) == .record(held.envelope("x", version: version)))
                #expect(await rig.perform(.read(new.key)) == .record(nil))
            }
        }

        @Test func memoryWithoutAStampServesNothing() async throws {
            try await RealMemcached.run { memcached in
                try await Rig.run(at: memcached.path, isStamped: false) { rig async throws in
                    let pair = Pair("x")
                    let result = await rig.result(of: [.read(pair.key), .stamp(pair.key, pair.envelope())])
                    #expect(result.outcomes == [.failed(.staleRing), .failed(.staleRing)])
                    #expect(result.host == nil)
                    #expect(try memcached.connect().statistic("curr_items") == 0)
                }
            }
        }

        @Test func nothingIsBegunAfterItsDeadline() async throws {
            try await Rig.withRealMemcached { _, rig in
                let pair = Pair("late")
                let outcome = await rig.perform(.stamp(pair.key, pair.envelope()), within: .nanoseconds(0))
                #expect(outcome.isNotApplied)
                #expect(await rig.perform(.read(pair.key)) == .record(nil))
            }
        }
    }
}

extension PlainConnection {
    /// A number of `stats`.
    func statistic(_ name: String) throws -> Int {
        let line = try ask("stats", until: "END\r\n").split(separator: "\r\n").first { $0.hasPrefix("STAT \(name) ") }
        return try #require(line.flatMap { Int($0.split(separator: " ")[2]) })
    }
}
