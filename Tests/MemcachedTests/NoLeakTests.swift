// SPDX-License-Identifier: Apache-2.0

import Foundation
import HashRing
import KeyValue
import Memcached
import NIOCore
import TestSupport
import Testing

extension MemcachedTests {
    /// What libmemcached hands out is given back. `KV_LEAK_OPERATIONS=10000000` makes the run as long as one likes.
    @Suite struct NoLeak {
        private static let operations =
            ProcessInfo.processInfo.environment["KV_LEAK_OPERATIONS"].flatMap { Int($0) } ?? 300_000
        private static let batch = 200
        /// The allocator's own ups and downs; a leak of 64 bytes an operation would be 13 MiB in the shortest run.
        private static let allowedGrowthBytes = 8 << 20

        @Test(.timeLimit(.minutes(30))) func memoryStaysFlat() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let pairs = Pair.numbered(0..<5000)
                for start in stride(from: 0, to: 5000, by: NoLeak.batch) {
                    _ = await rig.perform(
                        pairs[start..<start + NoLeak.batch].map {
                            .stamp($0.key, $0.envelope(String(repeating: "v", count: 100)))
                        })
                }
                // What every arena and buffer grows to is there after the first third.
                let third = NoLeak.operations / 3
                try await work(third, rig, pairs)
                let before = try residentBytes()
                try await work(NoLeak.operations - third, rig, pairs)
                #expect(try residentBytes() - before < NoLeak.allowedGrowthBytes)
            }
        }

        /// Reads of pairs that are there and that are not, writes, writes of large values, stale stamps.
        private func work(_ operations: Int, _ rig: Rig, _ pairs: [Pair]) async throws {
            let large = String(repeating: "L", count: 20_000)
            let small = String(repeating: "s", count: 100)
            var done = 0
            while done < operations {
                let first = done
                await withTaskGroup(of: Void.self) { group in
                    for task in 0..<8 {
                        group.addTask {
                            let result = await rig.result(
                                of: (0..<NoLeak.batch).map { number in
                                    let pair = pairs[(first + task * 617 + number) % pairs.count]
                                    return switch (task, number) {
                                    case (0, 0): .stamp(pairs[number % 10].key, pairs[number % 10].envelope(large))
                                    case (0, _), (1, _): .stamp(pair.key, pair.envelope(small))
                                    case (2, _): .read(Pair("missing-\(number)").key)
                                    case (3, _): .readVersion(pair.key)
                                    default: .read(pair.key)
                                    }
                                },
                                expecting: task == 7
                                    ? .init(epoch: .none, generation: Rig.stamp.generation) : Rig.stamp,
                                within: .seconds(10))
                            let expectsFailure = task == 7
                            #expect(result.outcomes.allSatisfy { $0.isFailure == expectsFailure })
                        }
                    }
                }
                done += 8 * NoLeak.batch
            }
        }

        @Test func connectionsThatAreDroppedAreGivenBack() async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pair = Pair("x")
                fake.put(pair.stored, pair.envelope("x", version: rig.clock.tick()).bytes)
                // (A connection that is kept is what may have ended.)
                #expect(await rig.held(pair) != nil)
                fake.forgetCommands()
                func dropConnections(_ count: Int) async throws {
                    for number in 0..<count {
                        let kind: FakeFault.Kind = [.cut, .close, .garbage, .stranger][number % 4]
                        fake.inject(FakeFault(kind, on: "gets"))
                        // (Where the connection merely ended, the read is made again on another one.)
                        #expect(await rig.perform(.read(pair.key)).isFailure == (number % 4 >= 2))
                        #expect(await rig.held(pair) != nil)
                        fake.forgetCommands()
                    }
                }
                try await dropConnections(500)
                let (bytes, descriptors) = (try residentBytes(), try openDescriptors())
                try await dropConnections(1500)
                #expect(try openDescriptors() < descriptors + 10)
                // A connection's buffers alone are 16 KiB and more: as many that leaked would be 24 MiB.
                #expect(try residentBytes() - bytes < NoLeak.allowedGrowthBytes)
            }
        }

        private func residentBytes() throws -> Int {
            let text = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8)
            return try #require(Int(text.split(separator: " ")[1])) * 4096
        }

        private func openDescriptors() throws -> Int {
            try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count
        }
    }
}
