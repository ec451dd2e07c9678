// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import Memcached
import NIOCore
import TestSupport
import Testing

extension MemcachedTests {
    /// A real memcached that hangs, dies, or is full.
    @Suite struct Trouble {
        /// When everybody has an answer, at the latest: its deadline, and the time for asking a new connection for its
        /// settings, on one lane after the other.
        private static let slack = Duration.milliseconds(700)

        @Test func hangingMemcachedCostsNobodyMoreThanHisDeadline() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let pairs = Pair.numbered(0..<100)
                _ = await rig.perform(pairs.map { .stamp($0.key, $0.envelope("before")) })
                memcached.hang()
                let start = ContinuousClock.now
                let outcomes = await withTaskGroup(of: [Outcome].self) { group in
                    for pair in pairs {
                        group.addTask {
                            await rig.perform([.read(pair.key), .readVersion(pair.key)], within: .milliseconds(500))
                        }
                        group.addTask {
                            await rig.perform([.stamp(pair.key, pair.envelope("after"))], within: .milliseconds(500))
                        }
                    }
                    return await group.reduce(into: []) { $0 += $1 }
                }
                #expect(ContinuousClock.now - start < .milliseconds(500) + Trouble.slack)
                #expect(outcomes.count == 300)
                // No write had been sent yet: each would have been read first.
                #expect(outcomes.allSatisfy { $0 == .failed(.notApplied(.memcachedUnavailable)) })
                memcached.wake()
                #expect(await rig.timeUntilWell(pairs[0]) < .seconds(2))
                for pair in pairs { #expect(await rig.held(pair).flatMap { pair.text(of: $0) } == "before") }
                let stored = await rig.perform(pairs.map { .stamp($0.key, $0.envelope("again")) })
                #expect(stored.allSatisfy { $0.storedVersion != nil })
            }
        }

        @Test func hangThatBeginsUnderLoadLosesNoAcknowledgedWrite() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let pairs = Pair.numbered(0..<16)
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for pair in pairs { group.addTask { try await writeAndCheck(pair, through: rig) } }
                    group.addTask {
                        for _ in 0..<3 {
                            try await Task.sleep(for: .milliseconds(200))
                            memcached.hang()
                            try await Task.sleep(for: .milliseconds(400))
                            memcached.wake()
                        }
                    }
                    try await group.waitForAll()
                }
            }
        }

        /// For two seconds, alternately writes the next number and reads: never one below the last acknowledged, never
        /// one that was not sent.
        private func writeAndCheck(_ pair: Pair, through rig: Rig) async throws {
            let start = ContinuousClock.now
            var (sent, acknowledged) = (0, 0)
            while ContinuousClock.now - start < .seconds(2) {
                sent += 1
                let outcome = await rig.perform(.stamp(pair.key, pair.envelope("\(sent)")), within: .milliseconds(150))
                if outcome.storedVersion != nil { acknowledged = sent }
                if case .record(let envelope) = await rig.perform(.read(pair.key), within: .milliseconds(150)) {
                    let number = envelope.flatMap { pair.text(of: $0) }.flatMap { Int($0) } ?? 0
                    #expect((acknowledged...sent).contains(number))
                }
            }
            _ = await rig.timeUntilWell(pair)
            let envelope = try #require(await rig.held(pair))
            let number = try #require(pair.text(of: envelope).flatMap { Int($0) })
            #expect((acknowledged...sent).contains(number))
            #expect(acknowledged > 100)
        }

        @Test func whatWaitsIsBounded() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let pair = Pair("x")
                #expect(await rig.perform(.read(pair.key)) == .record(nil))
                memcached.hang()
                let start = ContinuousClock.now
                let outcomes = await withTaskGroup(of: (outcome: Outcome, time: Duration).self) { group in
                    for _ in 0..<(Limits.waitingOperations + 1000) {
                        group.addTask {
                            let outcome = await rig.perform(.read(pair.key), within: .milliseconds(800))
                            return (outcome, ContinuousClock.now - start)
                        }
                    }
                    return await group.reduce(into: []) { $0.append($1) }
                }
                let refused = outcomes.filter { $0.outcome == .failed(.notApplied(.overloaded)) }
                // The lane may have taken a batch or two out of the queue before it got stuck.
                #expect((1000 - 2 * Limits.laneBatchOperations...1000).contains(refused.count))
                #expect(refused.allSatisfy { $0.time < .milliseconds(700) }, "who is refused is told at once")
                #expect(outcomes.allSatisfy { $0.outcome.isNotApplied })
                memcached.wake()
                #expect(await rig.timeUntilWell(pair) < .seconds(2))
            }
        }

        @Test func batchThatWasGivenUpHasNoEffect() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let pairs = Pair.numbered(0..<12)
                _ = await rig.perform(pairs.map { .stamp($0.key, $0.envelope("before")) })
                memcached.hang()
                // More than there are lanes, one after the other (a lane takes all that waits), so that some wait.
                let results = await withTaskGroup(of: (Int, Bool, Outcome).self) { group in
                    for (index, pair) in pairs.enumerated() {
                        group.addTask {
                            let done = rig.loop.makePromise(of: Outcome.self)
                            try? await Task.sleep(for: .milliseconds(20 * index))
                            let batch = LaneBatch(
                                operations: [.stamp(pair.key, pair.envelope("after"))], expected: Rig.stamp,
                                deadline: .now() + .seconds(2))
                            let ticket = rig.lanes.submit(batch, on: rig.loop) { done.succeed($0.outcomes[0]) }
                            try? await Task.sleep(for: .milliseconds(400 - 20 * index))
                            let isUntouched = rig.lanes.cancel(ticket)
                            if isUntouched { #expect(!rig.lanes.cancel(ticket), "given up twice") }
                            // All are given up before any goes on.
                            try? await Task.sleep(for: .milliseconds(100))
                            memcached.wake()
                            let outcome = (try? await done.futureResult.get()) ?? .failed(.staleRing)
                            return (index, isUntouched, outcome)
                        }
                    }
                    return await group.reduce(into: []) { $0.append($1) }
                }
                for (index, isUntouched, outcome) in results {
                    let text = await rig.held(pairs[index]).flatMap { pairs[index].text(of: $0) }
                    // What a lane had begun with may have failed as well: a lane that had no connection yet asks
                    // memcached for its settings first, and does not wait long.
                    #expect(text == (outcome.isNotApplied ? "before" : "after"))
                    #expect(!isUntouched || outcome.isNotApplied)
                }
                #expect(results.contains { $0.1 })
                #expect(results.contains { !$0.1 })
            }
        }

        @Test func deadMemcachedIsSaidToBeAndItsSuccessorIsFound() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let pair = Pair("phoenix")
                _ = await rig.perform(.stamp(pair.key, pair.envelope("before")))
                memcached.kill()
                for _ in 0..<3 {
                    let outcomes = await rig.perform([.read(pair.key), .stamp(pair.key, pair.envelope("after"))])
                    #expect(outcomes == [Outcome](repeating: .failed(.notApplied(.memcachedUnavailable)), count: 2))
                }
                await #expect(throws: ControlStore.Failure.self) { try await rig.control.hostStamp() }
                try memcached.restartEmpty()
                let start = ContinuousClock.now
                var result = await rig.result(of: [.read(pair.key)])
                while result.outcomes != [.failed(.staleRing)], ContinuousClock.now - start < .seconds(5) {
                    result = await rig.result(of: [.read(pair.key)])
                }
                #expect(result.outcomes == [.failed(.staleRing)], "an empty memory has no say")
                #expect(result.host == nil)
                let next = HostStamp(epoch: Rig.stamp.epoch, generation: Generation(2))
                #expect(try await rig.control.addHostStamp(next))
                #expect(await rig.result(of: [.read(pair.key)]).outcomes == [.failed(.staleRing)])
                let outcome = await rig.result(of: [.stamp(pair.key, pair.envelope("new"))], expecting: next)
                #expect(outcome.outcomes[0].storedVersion != nil)
                #expect(ContinuousClock.now - start < .seconds(2))
            }
        }

        @Test func lanesFindByThemselvesThatMemcachedWasStartedAgain() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let pairs = Pair.numbered(0..<16)
                for pair in pairs { _ = await rig.perform(.stamp(pair.key, pair.envelope("before"))) }
                memcached.kill()
                try memcached.restartEmpty()
                // (As after a warm restart: the same memory, as far as a stamp tells.)
                var tries = 0
                while (try? await rig.control.addHostStamp(Rig.stamp)) != true, tries < 10 { tries += 1 }
                for pair in pairs {
                    let outcome = await rig.perform(.stamp(pair.key, pair.envelope("after")))
                    #expect(outcome.storedVersion != nil, "\(outcome)")
                }
            }
        }

        @Test func fullMemoryRefusesAndKeepsTheOldValues() async throws {
            try await Rig.withRealMemcached(megabytes: 16) { memcached, rig in
                var held: [(pair: Pair, text: String)] = []
                var isFull = false
                for start in stride(from: 0, to: 10_000, by: 100) where !isFull {
                    let pairs = Pair.numbered(start..<start + 100)
                    let text = String(repeating: "a", count: 8000)
                    let outcomes = await rig.perform(pairs.map { .stamp($0.key, $0.envelope(text)) })
                    for (pair, outcome) in zip(pairs, outcomes) {
                        if outcome.storedVersion != nil {
                            held.append((pair, text))
                        } else {
                            #expect(outcome == .failed(.notApplied(.outOfMemory)))
                            isFull = true
                        }
                    }
                }
                #expect(isFull)
                #expect(held.count > 1000)
                // Overwriting each, some with values of other sizes.
                var refused = 0
                for index in held.indices {
                    let pair = held[index].pair
                    let text = String(repeating: "b", count: index % 2 == 0 ? 8000 : 12_000)
                    let outcome = await rig.perform(.stamp(pair.key, pair.envelope(text)))
                    if outcome.storedVersion != nil {
                        held[index].text = text
                    } else {
                        #expect(outcome == .failed(.notApplied(.outOfMemory)))
                        refused += 1
                    }
                }
                #expect(refused > 0)
                for (pair, text) in held { #expect(await rig.held(pair).flatMap { pair.text(of: $0) } == text) }
                try await controlStoreWorks(rig)
                try await deletingMakesRoom(memcached, rig)
            }
        }

        /// For a value of several pages, memcached notices while it reads.
        @Test func fullMemoryRefusesLargeValuesAndKeepsTheOldOnes() async throws {
            try await Rig.withRealMemcached(megabytes: 16) { _, rig in
                let small = Pair("small")
                var held: [(pair: Pair, text: String)] = []
                var refused = 0
                for round in 0..<2 {
                    for (index, pair) in Pair.numbered(0..<40).enumerated() {
                        let text = String(repeating: "\(round)", count: 600_000 + 100_000 * (index % 3))
                        let outcomes = await rig.perform([
                            .stamp(pair.key, pair.envelope(text)), .stamp(small.key, small.envelope("\(index)")),
                        ])
                        if outcomes[0].storedVersion != nil {
                            held.removeAll { $0.pair.stored == pair.stored }
                            held.append((pair, text))
                        } else {
                            #expect(outcomes[0] == .failed(.notApplied(.outOfMemory)))
                            refused += 1
                        }
                        // Whose writes are with it in one turn is none of its business.
                        let isRefused = outcomes[1] == .failed(.notApplied(.outOfMemory))
                        #expect(outcomes[1].storedVersion != nil || isRefused, "\(outcomes[1])")
                    }
                }
                #expect(refused > 20)
                #expect(held.count > 5)
                for (pair, text) in held { #expect(await rig.held(pair).flatMap { pair.text(of: $0) } == text) }
            }
        }

        /// The ring, leases and jobs of a host whose memory is full of pairs.
        private func controlStoreWorks(_ rig: Rig) async throws {
            for (number, size) in [100, 3000, 15_000, 60_000].enumerated() {
                let name = "job.\(number)"
                #expect(try await rig.control.add(name, [UInt8](repeating: 1, count: size)))
                for round in 0..<20 {
                    let value = try #require(try await rig.control.get(name))
                    let next = [UInt8](repeating: UInt8(round), count: size)
                    #expect(try await rig.control.compareAndSwap(name, next, token: value.token) == .stored)
                    #expect(try await rig.control.get(name)?.bytes == next)
                }
            }
            #expect(try await rig.control.raiseHostStamp(to: Rig.stamp.epoch.next))
            let leases = LeaseStore(control: rig.control)
            #expect(try await leases.acquire("chores", holder: "a", timeToLive: .seconds(3)))
        }

        private func deletingMakesRoom(_ memcached: RealMemcached, _ rig: Rig) async throws {
            let endpoint = MemcachedEndpoint.unixSocket(path: memcached.path)
            let scan = try await MetadumpScanner(endpoint).scan { _ in true }
            try await BulkDelete(endpoint).delete(scan.keys, in: 0..<scan.keys.count / 2)
            let stamp = try #require(try await rig.control.hostStamp())
            let pair = Pair("roomy")
            let result = await rig.result(
                of: [.stamp(pair.key, pair.envelope(String(repeating: "c", count: 8000)))], expecting: stamp)
            #expect(result.outcomes[0].storedVersion != nil)
        }
    }
}
