// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import Memcached
import TestSupport
import Testing

extension MemcachedTests {
    /// What a host's workers share besides pairs.
    @Suite struct ControlStoreAndLeases {
        @Test func tokensLetOneOfTwoWritersThrough() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let control = rig.control
                let nothing = try await control.get("ring")
                #expect(nothing == nil)
                #expect(try await control.add("ring", [1]))
                #expect(try await !control.add("ring", [2]))
                let value = try #require(try await control.get("ring"))
                #expect(value.bytes == [1])
                #expect(try await control.compareAndSwap("ring", [3], token: value.token) == .stored)
                #expect(try await control.compareAndSwap("ring", [4], token: value.token) == .lost)
                let third = try #require(try await control.get("ring"))
                #expect(third.bytes == [3])
                try memcached.connect().ask("delete kv:ring")
                #expect(try await control.compareAndSwap("ring", [4], token: third.token) == .missing)
            }
        }

        /// memcached counts its tokens from the beginning again; a token of an earlier life must not fit by chance.
        @Test func tokenOfAnotherLifeOfTheMemoryIsWorthNothing() async throws {
            try await Rig.withFakeMemcached { fake, rig in
                #expect(try await rig.control.add("ring", [1]))
                let value = try #require(try await rig.control.get("ring"))
                fake.restartEmpty()
                fake.put("kv:stamp", Rig.stamp.bytes)
                fake.put("kv:ring", Array("another".utf8))
                // The connection's end may show in the first call after it.
                let answer = try? await rig.control.compareAndSwap("ring", [2], token: value.token)
                #expect(answer != .stored)
                #expect(try await rig.control.compareAndSwap("ring", [2], token: value.token) == .lost)
                #expect(fake.value("kv:ring") == Array("another".utf8))
            }
        }

        /// An error in place of an answer must not look like a memory that has come back empty: the ring would be
        /// restored.
        @Test(arguments: MemcachedTests.Faults.doubtful)
        func faultyAnswerIsNotAMissingValue(kind: FakeFault.Kind) async throws {
            try await Rig.withFakeMemcached { fake, rig async throws in
                #expect(try await rig.control.hostStamp() == Rig.stamp)
                let isLate = kind == .late(milliseconds: 400)
                fake.inject(FakeFault(isLate ? .late(milliseconds: 800) : kind, on: "gets"))
                do {
                    // Some errors make it ask again.
                    #expect(try await rig.control.hostStamp() == Rig.stamp)
                } catch {
                    guard case .memcached = error as? ControlStore.Failure else { throw error }
                }
                #expect(try await rig.control.hostStamp() == Rig.stamp)
            }
        }

        @Test func manyCountersAtOnceLoseNoCount() async throws {
            try await Rig.withRealMemcached { memcached, one in
                try await Rig.run(at: memcached.path, writer: 2) { two in
                    #expect(try await one.control.add("counter", Array("0".utf8)))
                    try await withThrowingTaskGroup(of: Void.self) { group in
                        for task in 0..<8 {
                            let control = task % 2 == 0 ? one.control : two.control
                            group.addTask {
                                for _ in 0..<50 { try await count(control) }
                            }
                        }
                        try await group.waitForAll()
                    }
                    #expect(try await one.control.get("counter")?.bytes == Array("400".utf8))
                }
            }
        }

        private func count(_ control: ControlStore) async throws {
            while true {
                let value = try #require(try await control.get("counter"))
                let number = try #require(Int(String(decoding: value.bytes, as: UTF8.self)))
                let bytes = Array("\(number + 1)".utf8)
                if try await control.compareAndSwap("counter", bytes, token: value.token) == .stored { return }
            }
        }

        @Test func getManyReturnsThoseThatAreThere() async throws {
            try await Rig.withRealMemcached { _, rig in
                for number in [1, 5, 9] { #expect(try await rig.control.add("worker.\(number)", [UInt8(number)])) }
                let values = try await rig.control.getMany((0..<64).map { "worker.\($0)" })
                #expect(values.mapValues(\.bytes) == ["worker.1": [1], "worker.5": [5], "worker.9": [9]])
            }
        }

        @Test func valuesOfAllSizesComeBack() async throws {
            try await Rig.withRealMemcached { _, rig async throws in
                for size in [0, 1, 1000, 1020, 1030, 5000, 16_384, 65_500, 65_536, 200_000, 500_000] {
                    let bytes = (0..<size).map { UInt8(33 + $0 % 90) }
                    #expect(try await rig.control.add("size.\(size)", bytes))
                    #expect(try await rig.control.get("size.\(size)")?.bytes == bytes)
                }
                await #expect(throws: ControlStore.Failure.valueTooLong(bytes: 600_000)) {
                    try await rig.control.add("large", [UInt8](repeating: 1, count: 600_000))
                }
            }
        }

        @Test func stampsOnlyGrow() async throws {
            try await RealMemcached.run { memcached in
                try await Rig.run(at: memcached.path, isStamped: false) { rig async throws in
                    let control = rig.control
                    #expect(try await control.hostStamp() == nil)
                    await #expect(throws: ControlStore.Failure.noStamp) {
                        try await control.raiseHostStamp(to: Epoch(1))
                    }
                    #expect(try await control.addHostStamp(Rig.stamp))
                    let other = HostStamp(epoch: Epoch(99), generation: Generation(1))
                    #expect(try await !control.addHostStamp(other), "a life begins once")
                    #expect(try await control.raiseHostStamp(to: Epoch(2)))
                    #expect(try await control.hostStamp() == Rig.stamp)
                    await withTaskGroup(of: Void.self) { group in
                        for epoch in (4...40).shuffled() {
                            group.addTask {
                                while (try? await control.raiseHostStamp(to: Epoch(UInt64(epoch)))) == false {}
                            }
                        }
                    }
                    #expect(
                        try await control.hostStamp() == HostStamp(epoch: Epoch(40), generation: Rig.stamp.generation))
                }
            }
        }

        /// A document that came while a memory was refilled may find something else wanting.
        @Test func aRefillEndsOnlyWhatItBeganFor() async throws {
            try await Rig.withRealMemcached { _, rig in
                let epoch = Rig.stamp.epoch.next
                #expect(try await rig.control.raiseHostStamp(to: epoch, wantingSince: epoch))
                let before = try #require(try await rig.control.hostStamp())
                #expect(before.isRecovering)
                #expect(try await rig.control.raiseHostStamp(to: epoch.next, wantingSince: epoch.next))
                #expect(try await rig.control.endRecovery(of: before))
                let now = try #require(try await rig.control.hostStamp())
                #expect(now.isRecovering && now.epoch == epoch.next)
                #expect(try await rig.control.endRecovery(of: now))
                #expect(try await rig.control.hostStamp()?.isRecovering == false)
            }
        }

        @Test func leaseHasOneHolderUntilItRunsOut() async throws {
            try await Rig.withRealMemcached { _, rig in
                let leases = LeaseStore(control: rig.control)
                #expect(try await leases.acquire("chores", holder: "a", timeToLive: .seconds(2)))
                #expect(try await !leases.acquire("chores", holder: "b", timeToLive: .seconds(2)))
                #expect(try await leases.acquire("other", holder: "b", timeToLive: .seconds(2)))
                // Prolonged for longer than it would have lived.
                for _ in 0..<3 {
                    try await Task.sleep(for: .milliseconds(900))
                    #expect(try await leases.acquire("chores", holder: "a", timeToLive: .seconds(2)))
                    #expect(try await !leases.acquire("chores", holder: "b", timeToLive: .seconds(2)))
                }
                var tries = 0
                while try await !leases.acquire("chores", holder: "b", timeToLive: .seconds(30)), tries < 50 {
                    try await Task.sleep(for: .milliseconds(100))
                    tries += 1
                }
                #expect(tries > 0)
                #expect(try await !leases.acquire("chores", holder: "a", timeToLive: .seconds(2)))
            }
        }

        /// Two chores of one worker take its lease at the same moment, again and again: neither may be kept from its
        /// work by the other. (Heartbeats began seconds late.)
        @Test func aHolderDoesNotRaceWithItself() async throws {
            try await Rig.withRealMemcached { _, rig in
                let leases = LeaseStore(control: rig.control)
                for round in 0..<100 {
                    let name = "chores\(round / 2)"
                    try await withThrowingTaskGroup(of: Bool.self) { group in
                        for holder in ["a", "a", "a", "b"] {
                            group.addTask {
                                try await leases.acquire(name, holder: holder, timeToLive: .seconds(30))
                            }
                        }
                        let taken = try await group.reduce(into: 0) { $0 += $1 ? 1 : 0 }
                        #expect(taken == 3 || taken == 1, "one holder, for all that it asked")
                    }
                }
            }
        }

        @Test func memcachedThatEvictsIsNotServed() async throws {
            try await Rig.withFakeMemcached { fake, rig in
                fake.setEvicts(true)
                let pair = Pair("x")
                #expect(
                    await rig.perform(.stamp(pair.key, pair.envelope())) == .failed(.notApplied(.memcachedUnavailable)))
                await #expect(throws: ControlStore.Failure.memcached(.evicts)) { try await rig.control.hostStamp() }
                #expect(fake.keys == ["kv:stamp"])
                fake.setEvicts(false)
                #expect(await rig.perform(.stamp(pair.key, pair.envelope())).storedVersion != nil)
            }
        }
    }
}
