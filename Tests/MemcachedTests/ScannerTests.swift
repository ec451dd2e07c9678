// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import Memcached
import TestSupport
import Testing

extension MemcachedTests {
    @Suite struct ScannerAndBulkDelete {
        private func fill(_ memcached: RealMemcached, _ pairs: [Pair]) throws {
            let plain = try memcached.connect()
            for start in stride(from: 0, to: pairs.count, by: 1000) {
                var text = ""
                for pair in pairs[start..<min(start + 1000, pairs.count)] {
                    text += "set \(pair.stored) 0 0 1 noreply\r\nx\r\n"
                }
                try plain.ask(text + "mn", until: "MN\r\n")
            }
        }

        private func scanner(_ memcached: RealMemcached, keys: Int = 1_000_000) -> MetadumpScanner {
            MetadumpScanner(.unixSocket(path: memcached.path), keys: keys)
        }

        private func names(_ scan: MetadumpScanner.Scan) -> [String] {
            (0..<scan.keys.count).map { String(decoding: scan.keys[$0].bytes, as: UTF8.self) }
        }

        @Test func findsAllOfAHundredThousandKeysWhileOthersReadAndWrite() async throws {
            try await Rig.withRealMemcached(megabytes: 128) { memcached, rig in
                let pairs = Pair.numbered(0..<100_000)
                try fill(memcached, pairs)
                let isDone = Flag()
                try await withThrowingTaskGroup(of: Void.self) { group in
                    group.addTask { try await readAndWrite(memcached, pairs, until: isDone) }
                    group.addTask {
                        defer { isDone.raise() }
                        let wanted = Set(pairs.map(\.stored))
                        for _ in 0..<3 {
                            let scan = try await scanner(memcached).scan { _ in true }
                            #expect(scan.coveredThrough == nil)
                            let found = names(scan)
                            let missing = wanted.subtracting(found).count
                            #expect(missing == 0)
                            #expect(!found.contains { !$0.hasPrefix("d") }, "control keys are no pairs")
                            let slots = (0..<scan.keys.count).map { scan.keys[$0].slot }
                            #expect(slots == slots.sorted())
                        }
                    }
                    try await group.waitForAll()
                }
            }
        }

        /// Reads keys at random, which moves them about in memcached's LRU lists, and makes new ones.
        private func readAndWrite(_ memcached: RealMemcached, _ pairs: [Pair], until isDone: Flag) async throws {
            let plain = try memcached.connect()
            var number = 0
            while !isDone.isRaised, number < 1_000_000 {
                let keys = (0..<100).map { _ in pairs.randomElement()?.stored ?? "" }
                try plain.ask("get " + keys.joined(separator: " "), until: "END\r\n")
                try plain.ask("set \(Pair("other-\(number % 20_000)").stored) 0 0 3\r\nnew")
                try plain.ask("set \(keys[0]) 0 0 2\r\nxx")
                number += 1
                await Task.yield()
            }
            #expect(number > 10)
        }

        @Test func findsKeysOfAnyBytesAsTheyAreStored() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let keys: [[UInt8]] = [
                    [0], [13, 10], Array("a b%c".utf8), Array("%41".utf8), Array("ключ".utf8), [255, 254],
                    Array("key=x exp=1".utf8), [UInt8](repeating: 0x61, count: 234),
                    [UInt8](repeating: 0x20, count: 4096),
                ]
                let pairs = keys.map { Pair(bytes: $0) }
                let outcomes = await rig.perform(pairs.map { .stamp($0.key, $0.envelope()) })
                #expect(outcomes.allSatisfy { $0.storedVersion != nil })
                let scan = try await scanner(memcached).scan { _ in true }
                #expect(Set((0..<scan.keys.count).map { scan.keys[$0] }) == Set(pairs.map(\.key)))
            }
        }

        @Test func pairsAndHintsAreListedApart() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let pairs = (0..<20).map { Pair("pair \($0)") }
                let hints = pairs.prefix(7).map(\.key.hint)
                _ = await rig.perform(pairs.map { .stamp($0.key, $0.envelope()) })
                _ = await rig.perform(zip(hints, pairs).map { .stamp($0, $1.envelope()) })
                let listed = try await scanner(memcached).scan { _ in true }.keys
                #expect(Set((0..<listed.count).map { listed[$0] }) == Set(pairs.map(\.key)))
                let kept = try await scanner(memcached).scan(.hint) { _ in true }.keys
                #expect(Set((0..<kept.count).map { kept[$0] }) == Set(hints) && kept.itemBytes > 0)
            }
        }

        @Test func listsThePairsBehindAMarkInTheirOrder() async throws {
            try await RealMemcached.run { memcached in
                let pairs = Pair.numbered(0..<5000)
                try fill(memcached, pairs)
                let names = pairs.map(\.stored).sorted()
                let mark = try #require(ListingMark(Array(names[1999].utf8)))
                let keys = try await scanner(memcached).scan { _ in true }.keys
                #expect((0..<keys.count).map { String(decoding: keys[$0].bytes, as: UTF8.self) } != names)
                let found = keys.inOrder(after: mark, prefix: [])
                #expect(
                    (0..<found.count).map { String(decoding: found[$0].bytes, as: UTF8.self) } == Array(names[2000...]))
                let prefix = Array(names[3000].utf8.dropFirst(6).prefix(4))
                let some = keys.inOrder(after: .start, prefix: prefix)
                #expect(
                    (0..<some.count).map { String(decoding: some[$0].bytes, as: UTF8.self) }
                        == names.filter { $0.utf8.dropFirst(6).starts(with: prefix) })
                // As many as are enough are those of the lowest slots, and it says how far they go.
                let part = try await scanner(memcached).scan(keys: 400) { _ in true }
                let last = try #require(part.coveredThrough)
                let first = part.keys.inOrder(after: .start, prefix: [])
                #expect(first.count <= 400 && first.count > 50)
                #expect(
                    (0..<first.count).map { String(decoding: first[$0].bytes, as: UTF8.self) }
                        == names.filter { ListingMark(Array($0.utf8))! <= ListingMark(through: last) })
            }
        }

        @Test func takesTheSlotsThatAreWantedAndNoOthers() async throws {
            try await RealMemcached.run { memcached in
                let pairs = Pair.numbered(0..<20_000)
                try fill(memcached, pairs)
                let scan = try await scanner(memcached).scan { $0.value >= 3000 && $0.value < 3100 }
                let wanted = pairs.filter { (3000..<3100).contains($0.client.slot.value) }.map(\.stored)
                #expect(wanted.count > 100)
                #expect(names(scan).sorted() == wanted.sorted())
                #expect(scan.coveredThrough == nil)
            }
        }

        @Test func goesOnFromTheSlotThatItReached() async throws {
            try await RealMemcached.run { memcached in
                let pairs = Pair.numbered(0..<20_000)
                try fill(memcached, pairs)
                var found: [String] = []
                var lowest: UInt16 = 0
                var scans = 0
                while scans < 100 {
                    scans += 1
                    let from = lowest
                    let scan = try await scanner(memcached, keys: 3000).scan { $0.value >= from }
                    #expect(scan.keys.count <= 3000)
                    found += names(scan)
                    guard let last = scan.coveredThrough else { break }
                    #expect(last.value >= from, "each scan gets ahead")
                    lowest = last.value + 1
                }
                #expect(scans > 5)
                #expect(found.count == pairs.count)
                #expect(Set(found) == Set(pairs.map(\.stored)))
            }
        }

        @Test func severalScansAtOnceWaitForEachOther() async throws {
            try await RealMemcached.run { memcached in
                let pairs = Pair.numbered(0..<30_000)
                try fill(memcached, pairs)
                try await withThrowingTaskGroup(of: Int.self) { group in
                    for _ in 0..<6 { group.addTask { try await scanner(memcached).scan { _ in true }.keys.count } }
                    for try await count in group { #expect(count == pairs.count) }
                }
            }
        }

        @Test func busyIsAskedAgain() async throws {
            try await Rig.withFakeMemcached { fake, _ in
                fake.put("d0001:a", [1])
                let busy = FakeFault.Kind.line("BUSY currently processing crawler request")
                fake.inject(FakeFault(busy, on: "lru_crawler", isPerformed: false, times: 3))
                let scan = try await MetadumpScanner(.unixSocket(path: fake.path)).scan { _ in true }
                #expect(names(scan) == ["d0001:a"])
                #expect(
                    fake.commands.map(\.words) == [[String]](repeating: ["lru_crawler", "metadump", "hash"], count: 4))
            }
        }

        /// Half a dump must never be taken for a whole one: what it lacks would not be copied, and then be deleted.
        @Test(arguments: [
            FakeFault.Kind.cut, .close, .silence, .garbage, .line("ERROR"), .line("SERVER_ERROR out of memory"),
            .late(milliseconds: 3000),
        ])
        func brokenDumpFails(kind: FakeFault.Kind) async throws {
            try await Rig.withFakeMemcached { fake, _ async throws in
                for pair in Pair.numbered(0..<100) { fake.put(pair.stored, [1]) }
                fake.inject(FakeFault(kind, on: "lru_crawler"))
                let scanner = MetadumpScanner(.unixSocket(path: fake.path), silenceSeconds: 1)
                let start = ContinuousClock.now
                await #expect(throws: MemcachedError.self) { try await scanner.scan { _ in true } }
                #expect(ContinuousClock.now - start < .milliseconds(2500))
                #expect(try await scanner.scan { _ in true }.keys.count == 100)
            }
        }

        /// A large hash table that is nearly empty is walked for a while before there is anything to say.
        @Test func dumpMayBeSilentForAWhile() async throws {
            try await Rig.withFakeMemcached { fake, _ async throws in
                for pair in Pair.numbered(0..<100) { fake.put(pair.stored, [1]) }
                fake.inject(FakeFault(.late(milliseconds: 1300), on: "lru_crawler"))
                let scan = try await MetadumpScanner(.unixSocket(path: fake.path)).scan { _ in true }
                #expect(scan.keys.count == 100)
            }
        }

        @Test func dumpOfAHangingMemcachedFailsSoon() async throws {
            try await Rig.withRealMemcached { memcached, _ in
                try fill(memcached, Pair.numbered(0..<100))
                memcached.hang()
                defer { memcached.wake() }
                let start = ContinuousClock.now
                await #expect(throws: MemcachedError.self) { try await scanner(memcached).scan { _ in true } }
                #expect(ContinuousClock.now - start < .milliseconds(2500))
            }
        }

        @Test func dumpMayComeInPieces() async throws {
            try await Rig.withFakeMemcached { fake, _ in
                let pairs = Pair.numbered(0..<50)
                for pair in pairs { fake.put(pair.stored, [1]) }
                fake.inject(FakeFault(.drip, on: "lru_crawler"))
                let scan = try await MetadumpScanner(.unixSocket(path: fake.path)).scan { _ in true }
                #expect(Set(names(scan)) == Set(pairs.map(\.stored)))
            }
        }

        @Test func deletesTheseKeysAndNoOthers() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let pairs = Pair.numbered(0..<5000)
                try fill(memcached, pairs)
                let endpoint = MemcachedEndpoint.unixSocket(path: memcached.path)
                let scan = try await scanner(memcached).scan { $0.value < 5000 }
                #expect((2000..<3000).contains(scan.keys.count))
                try await BulkDelete(endpoint).delete(scan.keys, in: 0..<100)
                // The first hundred are gone already, which is no failure.
                try await BulkDelete(endpoint).delete(scan.keys, in: 0..<scan.keys.count)
                let rest = try await scanner(memcached).scan { _ in true }
                let expected = pairs.filter { $0.client.slot.value >= 5000 }.map(\.stored)
                #expect(names(rest).sorted() == expected.sorted())
                #expect(try await rig.control.hostStamp() == Rig.stamp)
            }
        }

        /// Whoever overwrites a pair after the scan, such as a change of the ring that gives it back, keeps it.
        @Test func whatWasOverwrittenSinceTheScanStays() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let pairs = Pair.numbered(0..<100)
                _ = await rig.perform(pairs.map { .stamp($0.key, $0.envelope("before")) })
                let scan = try await scanner(memcached).scan { _ in true }
                _ = await rig.perform(pairs[..<50].map { .stamp($0.key, $0.envelope("after")) })
                try await BulkDelete(.unixSocket(path: memcached.path)).delete(scan.keys, in: 0..<100)
                for (index, pair) in pairs.enumerated() {
                    #expect(await rig.held(pair).flatMap { pair.text(of: $0) } == (index < 50 ? "after" : nil))
                }
            }
        }

        @Test func onlyWhatWasStoredSince() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let pairs = Pair.numbered(0..<100)
                _ = await rig.perform(pairs.map { .stamp($0.key, $0.envelope("before")) })
                #expect(try await rig.control.add("mark", [1]))
                let mark = try #require(try await rig.control.get("mark")).token.cas
                #expect(try await scanner(memcached).scan(newerThan: mark) { _ in true }.keys.count == 0)
                _ = await rig.perform(pairs[..<30].map { .stamp($0.key, $0.envelope("after")) })
                let since = try await scanner(memcached).scan(newerThan: mark) { _ in true }
                #expect(names(since).sorted() == pairs[..<30].map(\.stored).sorted())
            }
        }

        @Test func batchesAreCutByTheItemsSizes() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let pairs = Pair.numbered(0..<20)
                _ = await rig.perform(
                    pairs.map { .stamp($0.key, $0.envelope(String(repeating: "v", count: 10_000))) })
                let keys = try await scanner(memcached).scan { _ in true }.keys
                #expect(keys.endOfBatch(from: 0, keys: 5, bytes: 1 << 20) == 5)
                #expect(keys.endOfBatch(from: 18, keys: 5, bytes: 1 << 20) == 20)
                #expect(keys.endOfBatch(from: 3, keys: 20, bytes: 35_000) == 6)
                #expect(keys.endOfBatch(from: 3, keys: 20, bytes: 1) == 4, "one at least")
            }
        }

        @Test(arguments: [FakeFault.Kind.cut, .close, .silence, .line("ERROR"), .line("SERVER_ERROR x")])
        func brokenDeleteFails(kind: FakeFault.Kind) async throws {
            try await Rig.withFakeMemcached { fake, _ in
                for pair in Pair.numbered(0..<100) { fake.put(pair.stored, [1]) }
                let endpoint = MemcachedEndpoint.unixSocket(path: fake.path)
                let keys = try await MetadumpScanner(endpoint).scan { _ in true }.keys
                fake.inject(FakeFault(kind, on: "md", isPerformed: false, skip: 50))
                await #expect(throws: MemcachedError.self) { try await BulkDelete(endpoint).delete(keys, in: 0..<100) }
                try await BulkDelete(endpoint).delete(keys, in: 0..<100)
                #expect(fake.keys == ["kv:stamp"])
            }
        }
    }
}
