// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import Memcached
import NIOCore
import TestSupport
import Testing

extension MemcachedTests {
    /// Two workers write the same pairs at the same time: `cas` and `add` are lost all the time, and nothing else is.
    @Suite struct LostRaces {
        private static let writers = 8
        private static let rounds = 250

        private func withTwoWorkers(
            _ body: (_ memcached: RealMemcached, _ one: Rig, _ two: Rig) async throws -> Void
        ) async throws {
            try await RealMemcached.run { memcached in
                try await Rig.run(at: memcached.path, writer: 1) { one in
                    try await Rig.run(at: memcached.path, writer: 2) { two in try await body(memcached, one, two) }
                }
            }
        }

        /// One client, whose writes follow each other; those that were acknowledged.
        private func write(
            _ pair: Pair, by writer: Int, through rig: Rig
        ) async -> [(version: Version, text: String)] {
            var stored: [(version: Version, text: String)] = []
            for round in 0..<LostRaces.rounds {
                let text = "\(writer):\(round)"
                let outcome = await rig.perform(.stamp(pair.key, pair.envelope(text)), within: .seconds(10))
                if let version = outcome.storedVersion {
                    #expect(stored.last.map { $0.version < version } ?? true)
                    stored.append((version, text))
                } else {
                    // Too many races lost in a row, and known to have had no effect.
                    #expect(outcome == .failed(.notApplied(.overloaded)))
                }
            }
            return stored
        }

        @Test func everyVersionOfAHotPairIsUniqueAndTheGreatestStays() async throws {
            try await withTwoWorkers { memcached, one, two in
                let pair = Pair("hot")
                let stored = await withTaskGroup(of: [(version: Version, text: String)].self) { group in
                    for writer in 0..<LostRaces.writers {
                        group.addTask { await write(pair, by: writer, through: writer % 2 == 0 ? one : two) }
                    }
                    return await group.reduce(into: []) { $0 += $1 }
                }
                #expect(stored.count > LostRaces.writers * LostRaces.rounds * 9 / 10)
                #expect(Set(stored.map(\.version)).count == stored.count)
                let greatest = try #require(stored.max { $0.version < $1.version })
                #expect(await one.held(pair) == pair.envelope(greatest.text, version: greatest.version))
                #expect(try memcached.connect().statistic("cas_badval") > 0, "no race was lost: this shows nothing")
            }
        }

        @Test func newestOfManyAppliesStaysInWhateverOrderTheyCome() async throws {
            try await withTwoWorkers { _, one, two in
                let pairs = Pair.numbered(0..<20)
                let start = one.clock.reading
                let versions = (0..<50).map { Version(time: start + UInt64($0), writer: 7) }
                await withTaskGroup(of: Void.self) { group in
                    for rig in [one, two] {
                        for version in versions.shuffled() {
                            group.addTask {
                                let outcomes = await rig.perform(
                                    pairs.shuffled().map {
                                        .apply($0.key, $0.envelope("\(version)", version: version))
                                    },
                                    within: .seconds(10))
                                for case .applied(let newest) in outcomes { #expect(newest >= version) }
                                #expect(!outcomes.contains { $0.isFailure })
                            }
                        }
                    }
                }
                for pair in pairs {
                    #expect(await one.held(pair) == pair.envelope("\(versions[49])", version: versions[49]))
                }
            }
        }

        @Test func newPairIsMadeByOneAndOverwrittenByTheOther() async throws {
            try await withTwoWorkers { _, one, two in
                for round in 0..<200 {
                    let pair = Pair("new-\(round)")
                    async let first = one.perform(.stamp(pair.key, pair.envelope("one")))
                    async let second = two.perform(.stamp(pair.key, pair.envelope("two")))
                    let outcomes = await (first, second)
                    let (versionOne, versionTwo) = (
                        try #require(outcomes.0.storedVersion), try #require(outcomes.1.storedVersion)
                    )
                    #expect(versionOne != versionTwo)
                    let newest = max(versionOne, versionTwo)
                    #expect(
                        await one.held(pair)
                            == pair.envelope(versionOne > versionTwo ? "one" : "two", version: newest))
                }
            }
        }

        @Test func writeThatLosesItsRaceReadsAgain() async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pair = Pair("overtaken")
                let version = try #require(await rig.perform(.stamp(pair.key, pair.envelope("before"))).storedVersion)
                let other = Version(time: version.time + 1_000_000, writer: 9)
                fake.inject(
                    FakeFault(.overtaken([pair.stored: pair.envelope("theirs", version: other).bytes]), on: "cas"))
                let stored = await rig.perform(.stamp(pair.key, pair.envelope("mine"))).storedVersion
                #expect(try #require(stored) > other)
                #expect(await rig.held(pair).flatMap { pair.text(of: $0) } == "mine")
            }
        }

        /// A stamp that has been raised in the meantime fences a write that has to read again.
        @Test func writeThatLosesItsRaceStopsAtANewerStamp() async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pair = Pair("fenced")
                let version = try #require(await rig.perform(.stamp(pair.key, pair.envelope("before"))).storedVersion)
                let theirs = pair.envelope("theirs", version: Version(time: version.time + 1, writer: 9)).bytes
                let raised = HostStamp(epoch: Rig.stamp.epoch.next, generation: Rig.stamp.generation)
                fake.inject(FakeFault(.overtaken([pair.stored: theirs, "kv:stamp": raised.bytes]), on: "cas"))
                #expect(await rig.perform(.stamp(pair.key, pair.envelope("mine"))) == .failed(.staleRing))
                #expect(fake.value(pair.stored) == theirs)
            }
        }

        /// The pair is deleted between reading and writing, so `cas` finds nothing: it is made anew.
        @Test func writeToAPairThatHasGoneMakesIt() async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pair = Pair("gone")
                _ = await rig.perform(.stamp(pair.key, pair.envelope("before")))
                fake.inject(FakeFault(.vanished(pair.stored), on: "cas"))
                #expect(await rig.perform(.stamp(pair.key, pair.envelope("mine"))).storedVersion != nil)
                #expect(await rig.held(pair).flatMap { pair.text(of: $0) } == "mine")
                let writes = fake.commands.map(\.name).filter { $0 == "add" || $0 == "cas" }
                #expect(writes == ["add", "cas", "add"])
            }
        }
    }
}
