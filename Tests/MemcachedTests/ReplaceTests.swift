// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import Memcached
import NIOCore
import TestSupport
import Testing

extension MemcachedTests {
    /// The decision on a conditional write, by a real memcached's `add` and `cas`.
    @Suite struct Replace {
        private func replace(_ pair: Pair, _ text: String, over version: Version, by step: UInt32 = 1) -> (
            operation: KeyValue.Operation, version: Version
        ) {
            let next = version.successor(by: step)
            return (.replace(pair.key, pair.envelope(text, version: next), over: version), next)
        }

        @Test func storesOverNothingOverTheSameAndOverWhatIsOlder() async throws {
            try await Rig.withRealMemcached { _, rig in
                let pair = Pair("roof")
                let first = Version(time: 100, writer: 1)
                let create = KeyValue.Operation.replace(pair.key, pair.envelope("one", version: first), over: .none)
                #expect(await rig.perform(create) == .applied(newest: first))
                #expect(await rig.held(pair) == pair.envelope("one", version: first))
                let (second, next) = replace(pair, "two", over: first)
                #expect(await rig.perform(second) == .applied(newest: next))
                // This replica has missed the version that the others hold.
                let (third, newest) = replace(pair, "three", over: Version(time: 200, writer: 9))
                #expect(await rig.perform(third) == .applied(newest: newest))
                #expect(await rig.held(pair) == pair.envelope("three", version: newest))
            }
        }

        @Test func refusesOverWhatIsNewerAndSaysWhatItHolds() async throws {
            try await Rig.withRealMemcached { _, rig in
                let pair = Pair("gate")
                let held = try #require(await rig.perform(.stamp(pair.key, pair.envelope("held"))).storedVersion)
                for version in [.none, Version(time: held.time - 1, writer: .max - 7)] {
                    let (operation, _) = replace(pair, "late", over: version)
                    #expect(await rig.perform(operation) == .failed(.preconditionFailed(held: held)))
                }
                #expect(await rig.held(pair) == pair.envelope("held", version: held))
                // A deletion is newer, too.
                let deleted = try #require(
                    await rig.perform(.stamp(pair.key, pair.envelope(isTombstone: true))).storedVersion)
                let (operation, _) = replace(pair, "late", over: held)
                #expect(await rig.perform(operation) == .failed(.preconditionFailed(held: deleted)))
            }
        }

        /// It has its version already, so it is the same write.
        /// Two writers may draw the same step over the same version.
        @Test func ofTwoWithOneVersionOneIsDone() async throws {
            try await Rig.withRealMemcached { _, rig in
                let pair = Pair("bee")
                let (first, version) = replace(pair, "one's", over: Version(time: 7, writer: 7))
                let (second, _) = replace(pair, "the other's", over: Version(time: 7, writer: 7))
                #expect(
                    await rig.perform([first, second]) == [
                        .applied(newest: version), .failed(.preconditionFailed(held: version)),
                    ])
                #expect(await rig.perform(second) == .failed(.preconditionFailed(held: version)))
                #expect(await rig.held(pair) == pair.envelope("one's", version: version))
            }
        }

        @Test func underAnotherStampNothingIsDecided() async throws {
            try await Rig.withRealMemcached { _, rig in
                let pair = Pair("mist")
                let (operation, _) = replace(pair, "x", over: .none)
                for stamp in [
                    HostStamp(epoch: Epoch(4), generation: Generation(0xfeed)),
                    HostStamp(epoch: Epoch(3), generation: Generation(0xbeef)),
                ] {
                    #expect(await rig.result(of: [operation], expecting: stamp).outcomes == [.failed(.staleRing)])
                }
                #expect(await rig.held(pair) == nil)
            }
        }

        /// Two workers, many writers, all over the same version at the same time, some of them with the same step.
        @Test func exactlyOneWinsEachVersion() async throws {
            try await RealMemcached.run { memcached in
                try await Rig.run(at: memcached.path, writer: 1) { one in
                    try await Rig.run(at: memcached.path, writer: 2) { two in
                        let pair = Pair("hot")
                        var newest = Version.none
                        for round in 0..<200 {
                            let over = newest
                            let winners = await withTaskGroup(of: Version?.self) { group in
                                for writer in 1...8 {
                                    group.addTask {
                                        let (operation, version) = replace(
                                            pair, "\(round):\(writer)", over: over, by: UInt32(1 + writer % 3))
                                        let outcome = await (writer % 2 == 0 ? one : two).perform(operation)
                                        if outcome == .applied(newest: version) { return version }
                                        guard case .failed(.preconditionFailed(let held)) = outcome else {
                                            Issue.record("neither stored nor refused: \(outcome)")
                                            return nil
                                        }
                                        #expect(held > over)
                                        return nil
                                    }
                                }
                                return await group.reduce(into: [Version]()) {
                                    if let version = $1 { $0.append(version) }
                                }
                            }
                            #expect(winners.count == 1)
                            newest = try #require(winners.first)
                        }
                        #expect(await one.held(pair)?.version == newest)
                        #expect(try memcached.connect().statistic("cas_badval") > 0, "no race was lost")
                    }
                }
            }
        }

        /// Plain writes and conditional increments of one counter: no increment is lost but to a plain write, which is
        /// newer than what it has overwritten.
        @Test func countersAddUp() async throws {
            try await RealMemcached.run { memcached in
                try await Rig.run(at: memcached.path, writer: 1) { one in
                    try await Rig.run(at: memcached.path, writer: 2) { two in
                        let pair = Pair("counter")
                        _ = await one.perform(.stamp(pair.key, pair.envelope("0")))
                        let done = await withTaskGroup(of: Int.self) { group in
                            for writer in 0..<6 {
                                group.addTask { await increment(pair, 150, through: writer % 2 == 0 ? one : two) }
                            }
                            return await group.reduce(0, +)
                        }
                        let held = try #require(await one.held(pair))
                        #expect(pair.text(of: held) == "\(done)" && done == 900)
                    }
                }
            }
        }

        private func increment(_ pair: Pair, _ count: Int, through rig: Rig) async -> Int {
            var done = 0
            while done < count {
                guard let held = await rig.held(pair), let number = pair.text(of: held).flatMap({ Int($0) }) else {
                    Issue.record("no number")
                    return done
                }
                let (operation, version) = replace(
                    pair, "\(number + 1)", over: held.version, by: .random(in: 1...Limits.successorSteps))
                switch await rig.perform(operation) {
                case .applied(version): done += 1
                case .failed(.preconditionFailed): continue
                case let outcome:
                    Issue.record("\(outcome)")
                    return done
                }
            }
            return done
        }
    }
}
