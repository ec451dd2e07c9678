// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import Memcached
import NIOCore
import TestSupport
import Testing

extension MemcachedTests {
    /// A scripted memcached goes wrong in every way at every command. Whatever it does, no answer reaches the wrong
    /// request, and nothing is said about a write that is not so.
    @Suite struct Faults {
        /// What leaves the connection in doubt, so that it is dropped.
        static let doubtful: [FakeFault.Kind] = [
            .late(milliseconds: 400), .cut, .garbage, .silence, .close, .line("SERVER_ERROR"),
            .line("SERVER_ERROR out of order"), .line("ERROR"), .line("CLIENT_ERROR bad data chunk"),
            .line("VALUE"), .line("VALUE d0000:x 0"), .line("VALUE d0000:x 0 99999999999999999999 1"),
        ]
        /// What is none, only odd.
        static let harmless: [FakeFault.Kind] = [.late(milliseconds: 20), .drip]

        private static let deadline = TimeAmount.milliseconds(250)

        private func envelope(_ pair: Pair, _ text: String, _ rig: Rig) -> Envelope {
            pair.envelope(text, version: rig.clock.tick())
        }

        /// What was read for each of the pairs; nil where it was nothing, a failure, or another pair's.
        private func texts(_ outcomes: [Outcome], _ pairs: [Pair]) -> [String?] {
            zip(pairs, outcomes).map { pair, outcome in outcome.record.flatMap { pair.text(of: $0) } }
        }

        // MARK: Reads

        @Test(arguments: doubtful + [.stranger, .overlong], [0, 1, 2])
        func faultyAnswerToReadsReachesNobody(kind: FakeFault.Kind, skip: Int) async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pairs = Pair.numbered(0..<20)
                for pair in pairs { fake.put(pair.stored, envelope(pair, "old", rig).bytes) }
                fake.inject(FakeFault(kind, on: "gets", skip: skip))
                var isFailed = false
                for turn in 0...skip {
                    let outcomes = await rig.perform(pairs.map { .read($0.key) }, within: Faults.deadline)
                    if turn < skip {
                        #expect(texts(outcomes, pairs) == [String?](repeating: "old", count: 20))
                    } else {
                        // In particular not `.record(nil)`: a missing answer is no missing pair. (Some are asked
                        // again.)
                        isFailed = outcomes.allSatisfy { $0.isNotApplied }
                        #expect(isFailed || texts(outcomes, pairs) == [String?](repeating: "old", count: 20))
                    }
                }
                try await nextBatchesAreRight(fake, rig, pairs, newConnection: isFailed)
            }
        }

        @Test(arguments: harmless)
        func slowAnswerIsAnAnswer(kind: FakeFault.Kind) async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pairs = Pair.numbered(0..<20)
                for pair in pairs { fake.put(pair.stored, envelope(pair, "old", rig).bytes) }
                fake.inject(FakeFault(kind, on: "gets"))
                let outcomes = await rig.perform(pairs.map { .read($0.key) })
                #expect(texts(outcomes, pairs) == [String?](repeating: "old", count: 20))
                try await nextBatchesAreRight(fake, rig, pairs, newConnection: false)
            }
        }

        /// The second copy of an answer must not be taken for the next one's.
        @Test func secondCopyOfAnAnswerReachesNobody() async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pairs = Pair.numbered(0..<20)
                for pair in pairs { fake.put(pair.stored, envelope(pair, "old", rig).bytes) }
                fake.inject(FakeFault(.duplicate, on: "gets"))
                let first = await rig.perform(pairs.map { .read($0.key) }, within: Faults.deadline)
                for (outcome, text) in zip(first, texts(first, pairs)) {
                    #expect(outcome.isNotApplied || text == "old")
                }
                for pair in pairs { fake.put(pair.stored, envelope(pair, "new", rig).bytes) }
                for _ in 0..<3 {
                    let outcomes = await rig.perform(pairs.map { .read($0.key) }, within: Faults.deadline)
                    for (outcome, text) in zip(outcomes, texts(outcomes, pairs)) {
                        #expect(outcome.isNotApplied || text == "new")
                    }
                }
                let last = await rig.perform(pairs.map { .read($0.key) })
                #expect(texts(last, pairs) == [String?](repeating: "new", count: 20))
            }
        }

        /// All values change behind the lanes' back; then they are read in another order. An answer to an earlier
        /// request would show as an old text or another key's.
        private func nextBatchesAreRight(
            _ fake: FakeMemcached, _ rig: Rig, _ pairs: [Pair], newConnection: Bool
        ) async throws {
            let connections = Set(fake.commands.map(\.connection))
            for round in 0..<5 {
                for pair in pairs { fake.put(pair.stored, envelope(pair, "round \(round)", rig).bytes) }
                fake.forgetCommands()
                let shuffled = pairs.shuffled()
                let outcomes = await rig.perform(shuffled.map { .read($0.key) })
                #expect(texts(outcomes, shuffled) == [String?](repeating: "round \(round)", count: pairs.count))
                if newConnection {
                    let answering = Set(fake.commands.filter { $0.name == "gets" }.map(\.connection))
                    #expect(answering.isDisjoint(with: connections))
                }
                // Longer in all than the latest answer is late.
                try await Task.sleep(for: .milliseconds(60))
            }
        }

        // MARK: Writes

        /// All writes of a batch are sent before any answer is read, so one that is in doubt leaves all in doubt.
        @Test(
            arguments: doubtful, [(command: "cas", isPerformed: true), ("cas", false), ("add", true), ("add", false)])
        func faultyAnswerToAWriteMeansUnknown(
            kind: FakeFault.Kind, to write: (command: String, isPerformed: Bool)
        ) async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pairs = Pair.numbered(0..<6)
                if write.command == "cas" {
                    for pair in pairs { fake.put(pair.stored, envelope(pair, "old", rig).bytes) }
                }
                fake.inject(FakeFault(kind, on: write.command, isPerformed: write.isPerformed, skip: 2))
                let outcomes = await rig.perform(
                    pairs.map { .stamp($0.key, $0.envelope("new")) }, within: Faults.deadline)
                #expect(outcomes.allSatisfy { $0.isUnknown }, "\(outcomes)")
                // A late one may have come in between.
                if case .late = kind { try await Task.sleep(for: .milliseconds(400)) }
                expectTruth(outcomes, pairs, fake)
                // The next batch goes to a new connection, and its answers are its own.
                let writers = Set(fake.commands.filter { $0.name == write.command }.map(\.connection))
                fake.forgetCommands()
                let again = await rig.perform(pairs.map { .stamp($0.key, $0.envelope("again")) })
                #expect(again.allSatisfy { $0.storedVersion != nil })
                expectTruth(again, pairs, fake)
                #expect(writers.count == 1)
            }
        }

        @Test(arguments: harmless, ["cas", "add", "get", "mn"])
        func slowAnswerToAWriteIsAnAnswer(kind: FakeFault.Kind, to command: String) async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pairs = Pair.numbered(0..<6)
                if command == "cas" { for pair in pairs { fake.put(pair.stored, envelope(pair, "old", rig).bytes) } }
                fake.inject(FakeFault(kind, on: command, skip: ["cas", "add"].contains(command) ? 2 : 0))
                let outcomes = await rig.perform(pairs.map { .stamp($0.key, $0.envelope("new")) })
                #expect(outcomes.allSatisfy { $0.storedVersion != nil })
                expectTruth(outcomes, pairs, fake)
            }
        }

        /// A refusal is an answer: nothing has happened, the connection is good, and the others' writes go on.
        @Test(arguments: ["cas", "add"])
        func fullMemoryIsADefiniteRefusal(to command: String) async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pairs = Pair.numbered(0..<6)
                if command == "cas" { for pair in pairs { fake.put(pair.stored, envelope(pair, "old", rig).bytes) } }
                let line = FakeFault.Kind.line("SERVER_ERROR out of memory storing object")
                fake.inject(FakeFault(line, on: command, isPerformed: false, skip: 2, times: 2))
                let outcomes = await rig.perform(pairs.map { .stamp($0.key, $0.envelope("new")) })
                #expect(outcomes[2...3] == [.failed(.notApplied(.outOfMemory)), .failed(.notApplied(.outOfMemory))])
                for index in [0, 1, 4, 5] { #expect(outcomes[index].storedVersion != nil) }
                expectTruth(outcomes, pairs, fake)
            }
        }

        /// The second copy of `STORED` must not be taken for the next write's answer, nor for one to the next batch.
        @Test(arguments: ["cas", "add"], [0, 2, 5])
        func secondCopyOfAnAcknowledgementReachesNobody(to command: String, skip: Int) async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pairs = Pair.numbered(0..<6)
                if command == "cas" { for pair in pairs { fake.put(pair.stored, envelope(pair, "old", rig).bytes) } }
                // Were it taken for the next one's, the refusal of that one would be lost.
                fake.inject(FakeFault(.duplicate, on: command, skip: skip))
                let line = FakeFault.Kind.line("SERVER_ERROR out of memory storing object")
                if skip < 5 { fake.inject(FakeFault(line, on: command, isPerformed: false, skip: skip)) }
                let outcomes = await rig.perform(pairs.map { .stamp($0.key, $0.envelope("new")) })
                #expect(outcomes.allSatisfy { $0.isUnknown })
                expectTruth(outcomes, pairs, fake)
                for round in 0..<4 {
                    let again = await rig.perform(pairs.map { .stamp($0.key, $0.envelope("\(round)")) })
                    for (pair, outcome) in zip(pairs, again) where outcome.storedVersion != nil {
                        #expect(
                            fake.value(pair.stored).flatMap { Envelope(stored: $0) }?.version == outcome.storedVersion)
                    }
                    if round > 0 { #expect(again.allSatisfy { $0.storedVersion != nil }) }
                }
            }
        }

        /// What was said to be stored is; what was said to have had no effect had none.
        private func expectTruth(_ outcomes: [Outcome], _ pairs: [Pair], _ fake: FakeMemcached) {
            for (pair, outcome) in zip(pairs, outcomes) {
                let held = fake.value(pair.stored).flatMap { Envelope(stored: $0) }
                switch outcome {
                case .stored(let version): #expect(held?.version == version)
                case .failed(.notApplied): #expect(held.map { pair.text(of: $0) == "old" } ?? true)
                default: #expect(outcome.isUnknown)
                }
            }
        }

        // MARK: The connection's first words

        @Test(arguments: doubtful + [.line("END")])
        func faultyAnswerToTheFirstQuestionFails(kind: FakeFault.Kind) async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pair = Pair("x")
                fake.inject(FakeFault(kind == .late(milliseconds: 400) ? .late(milliseconds: 700) : kind, on: "stats"))
                let outcome = await rig.perform(.stamp(pair.key, pair.envelope()), within: Faults.deadline)
                #expect(outcome.isNotApplied)
                #expect(!fake.commands.contains { $0.name == "gets" })
                #expect(await rig.perform(.stamp(pair.key, pair.envelope())).storedVersion != nil)
            }
        }

        /// Writes have a connection of their own, which asks first whose memory it has reached.
        @Test(arguments: doubtful + [.line("END"), .stranger, .overlong])
        func faultyAnswerToTheWritesFirstQuestionFails(kind: FakeFault.Kind) async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pair = Pair("x")
                fake.inject(FakeFault(kind, on: "get"))
                let outcome = await rig.perform(.stamp(pair.key, pair.envelope()), within: Faults.deadline)
                #expect(outcome.isNotApplied)
                #expect(!fake.commands.contains { $0.name == "add" })
                #expect(await rig.perform(.stamp(pair.key, pair.envelope())).storedVersion != nil)
            }
        }

        /// The writes' connection leads to another memory than the one whose tokens were read.
        @Test func nothingIsWrittenToAnotherMemory() async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pair = Pair("x")
                let other = HostStamp(epoch: Rig.stamp.epoch, generation: Generation(0xdead)).description
                let lines = "VALUE kv:stamp 0 \(other.utf8.count)\r\n\(other)\r\nEND"
                fake.inject(FakeFault(.line(lines), on: "get"))
                #expect(await rig.perform(.stamp(pair.key, pair.envelope())).isNotApplied)
                #expect(!fake.commands.contains { $0.name == "add" })
            }
        }

        /// The end of the answers is an answer, too: without it none counts.
        @Test(arguments: doubtful + [.duplicate, .line("STORED")])
        func faultyEndOfAnswersMeansUnknown(kind: FakeFault.Kind) async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pairs = Pair.numbered(0..<6)
                fake.inject(FakeFault(kind, on: "mn"))
                let outcomes = await rig.perform(
                    pairs.map { .stamp($0.key, $0.envelope("new")) }, within: Faults.deadline)
                // (The second copy of the end may come when the first has been taken.)
                #expect(outcomes.allSatisfy { $0.isUnknown || kind == .duplicate && $0.storedVersion != nil })
                expectTruth(outcomes, pairs, fake)
                for round in 0..<3 {
                    let again = await rig.perform(pairs.map { .stamp($0.key, $0.envelope("\(round)")) })
                    expectTruth(again, pairs, fake)
                    if round > 0 { #expect(again.allSatisfy { $0.storedVersion != nil }) }
                }
            }
        }

        /// A stamp as it is really stored, padded, that comes in pieces.
        @Test func paddedStampMayComeInPieces() async throws {
            try await Rig.withFakeMemcached { fake, rig in
                fake.put("kv:stamp", Rig.stamp.bytes + [UInt8](repeating: UInt8(ascii: " "), count: 900))
                fake.inject(FakeFault(.drip, on: "get"))
                let pair = Pair("x")
                #expect(await rig.perform(.stamp(pair.key, pair.envelope())).storedVersion != nil)
            }
        }

        // MARK: Under load

        /// Faults come at random among many requests; every answer is about its own key and no older than what its
        /// client has seen acknowledged.
        @Test func randomFaultsUnderLoad() async throws {
            try await Rig.withFakeMemcached { fake, rig in
                await withTaskGroup(of: Void.self) { group in
                    for client in 0..<8 {
                        group.addTask { await aClientsLife(Pair("client-\(client)"), rig) }
                    }
                    group.addTask {
                        for round in 0..<60 {
                            let kind = Faults.doubtful[round % Faults.doubtful.count]
                            let command = ["gets", "cas", "gets", "cas", "add"][round % 5]
                            fake.inject(FakeFault(kind, on: command, isPerformed: round % 2 == 0))
                            try? await Task.sleep(for: .milliseconds(30))
                        }
                    }
                }
                #expect(fake.connectionCount > 30)
            }
        }

        private func aClientsLife(_ pair: Pair, _ rig: Rig) async {
            let start = ContinuousClock.now
            var (sent, acknowledged) = (0, 0)
            while ContinuousClock.now - start < .seconds(2) {
                sent += 1
                let outcome = await rig.perform(.stamp(pair.key, pair.envelope("\(sent)")), within: .milliseconds(100))
                if outcome.storedVersion != nil { acknowledged = sent }
                if case .record(let envelope) = await rig.perform(.read(pair.key), within: .milliseconds(100)) {
                    let number = envelope.map { pair.text(of: $0).flatMap { Int($0) } ?? -1 } ?? 0
                    #expect((acknowledged...sent).contains(number))
                }
            }
            #expect(acknowledged > 10)
        }
    }
}
