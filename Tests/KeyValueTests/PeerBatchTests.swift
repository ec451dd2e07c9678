// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import NIOCore
import Testing

struct PeerBatchTests {
    private static func batch(_ random: inout SeededBytes) -> PeerBatch {
        let operations = (0..<Int.random(in: 0...12, using: &random)).compactMap { _ -> KeyValue.Operation? in
            guard let (key, envelope) = EnvelopeTests.random(&random, largest: 60) else { return nil }
            let stored = Bool.random(using: &random) ? StoredKey(key) : StoredKey(key).hint
            switch Int.random(in: 0..<6, using: &random) {
            case 0: return .read(stored)
            case 1: return .readVersion(stored)
            case 2: return .stamp(stored, envelope)
            case 4: return .heldVersion(stored)
            case 3: return .replace(stored, envelope, over: EnvelopeTests.version(&random))
            default: return .apply(stored, envelope)
            }
        }
        return PeerBatch(epoch: Epoch(random.next()), clock: random.next(), operations: operations)
    }

    private static func answer(_ random: inout SeededBytes) -> PeerBatchAnswer {
        let outcomes = (0..<Int.random(in: 0...12, using: &random)).map { _ -> Outcome in
            let version = Version(time: random.next(), writer: UInt32(truncatingIfNeeded: random.next()))
            let reason = OperationFailure.Reason.allCases.randomElement(using: &random) ?? .deadline
            switch Int.random(in: 0..<9, using: &random) {
            case 0: return .record(EnvelopeTests.random(&random, largest: 60)?.envelope)
            case 1: return .record(nil)
            case 2: return .version(version)
            case 3: return .stored(version)
            case 4: return .applied(newest: version)
            case 5: return .failed(.notApplied(reason))
            case 6: return .failed(.outcomeUnknown(reason))
            case 7: return .failed(.preconditionFailed(held: version))
            default: return .failed(.staleRing)
            }
        }
        return PeerBatchAnswer(
            epoch: Epoch(random.next()), generation: Generation(random.next()), clock: random.next(), outcomes: outcomes
        )
    }

    @Test(arguments: 0..<40)
    func roundTrips(seed: UInt64) throws {
        var random = SeededBytes(seed)
        for _ in 0..<20 {
            let batch = PeerBatchTests.batch(&random)
            var buffer = ByteBuffer()
            PeerBatchCodec.encode(batch, into: &buffer)
            #expect(batch.operations.isEmpty == (buffer.readableBytes == PeerBatchCodec.requestHeaderBytes))
            #expect(try PeerBatchCodec.decodeRequest(&buffer) == batch)
            let answer = PeerBatchTests.answer(&random)
            buffer.clear()
            PeerBatchCodec.encode(answer, into: &buffer)
            #expect(try PeerBatchCodec.decodeAnswer(&buffer) == answer)
        }
    }

    @Test(arguments: 0..<6)
    func whatIsCutOffIsRefused(seed: UInt64) throws {
        var random = SeededBytes(seed)
        var request = ByteBuffer()
        PeerBatchCodec.encode(PeerBatchTests.batch(&random), into: &request)
        for count in 0..<request.readableBytes {
            var part = try #require(request.getSlice(at: 0, length: count))
            #expect(throws: PeerBatchError.self) { try PeerBatchCodec.decodeRequest(&part) }
        }
        var answer = ByteBuffer()
        PeerBatchCodec.encode(PeerBatchTests.answer(&random), into: &answer)
        for count in 0..<answer.readableBytes {
            var part = try #require(answer.getSlice(at: 0, length: count))
            #expect(throws: PeerBatchError.self) { try PeerBatchCodec.decodeAnswer(&part) }
        }
        request.writeInteger(UInt8(0))
        #expect(throws: PeerBatchError.self) { try PeerBatchCodec.decodeRequest(&request) }
        answer.writeInteger(UInt8(0))
        #expect(throws: PeerBatchError.self) { try PeerBatchCodec.decodeAnswer(&answer) }
    }

    /// A damaged message is refused, or reads as another one that encodes to the very same bytes.
    @Test(arguments: 0..<20)
    func damageIsNeverMisread(seed: UInt64) throws {
        var random = SeededBytes(seed)
        for _ in 0..<300 {
            var buffer = ByteBuffer()
            PeerBatchCodec.encode(PeerBatchTests.batch(&random), into: &buffer)
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                buffer.setInteger(
                    UInt8.random(in: .min ... .max, using: &random),
                    at: Int.random(in: 0..<buffer.writerIndex, using: &random))
            }
            var copy = buffer
            guard let decoded = try? PeerBatchCodec.decodeRequest(&copy) else { continue }
            var again = ByteBuffer()
            PeerBatchCodec.encode(decoded, into: &again)
            #expect(again == buffer)
        }
    }

    @Test(arguments: 0..<10)
    func garbageIsHarmless(seed: UInt64) {
        var random = SeededBytes(seed)
        for _ in 0..<3000 {
            var buffer = random.buffer(Int.random(in: 0...80, using: &random))
            if buffer.readableBytes > 0 { buffer.setInteger(PeerBatchCodec.format, at: 0) }
            // What can be read is what would have been written.
            var (request, answer) = (buffer, buffer)
            if let decoded = try? PeerBatchCodec.decodeRequest(&request) {
                var again = ByteBuffer()
                PeerBatchCodec.encode(decoded, into: &again)
                #expect(again == buffer)
            }
            if let decoded = try? PeerBatchCodec.decodeAnswer(&answer) {
                var again = ByteBuffer()
                PeerBatchCodec.encode(decoded, into: &again)
                #expect(again == buffer)
            }
        }
    }

    /// A version at the end of time would leave no room for newer ones.
    @Test func versionsOutOfTimeAreRefused() throws {
        let key = try #require(Key("x"))
        for (time, isTaken) in [(Version.latestTime, true), (Version.latestTime + 1, false), (.max, false)] {
            let version = Version(time: time, writer: 1)
            let envelope = Envelope(
                key: key, storedKey: StoredKey(key), value: ByteBuffer(string: "y"), version: version)
            var request = ByteBuffer()
            PeerBatchCodec.encode(
                PeerBatch(epoch: Epoch(1), clock: 1, operations: [.apply(StoredKey(key), envelope)]), into: &request)
            #expect(((try? PeerBatchCodec.decodeRequest(&request)) != nil) == isTaken)
            var plain = envelope
            plain.stamp(.none)
            request.clear()
            PeerBatchCodec.encode(
                PeerBatch(epoch: Epoch(1), clock: 1, operations: [.replace(StoredKey(key), plain, over: version)]),
                into: &request)
            #expect(((try? PeerBatchCodec.decodeRequest(&request)) != nil) == isTaken)
            for outcome in [
                Outcome.record(envelope), .version(version), .stored(version), .applied(newest: version),
                .failed(.preconditionFailed(held: version)),
            ] {
                var answer = ByteBuffer()
                PeerBatchCodec.encode(
                    PeerBatchAnswer(epoch: Epoch(1), generation: Generation(1), clock: 1, outcomes: [outcome]),
                    into: &answer)
                #expect(((try? PeerBatchCodec.decodeAnswer(&answer)) != nil) == isTaken)
            }
        }
    }

    /// Four billion operations that aren't there reserve nothing.
    @Test func aCountWithoutOperationsIsRefused() {
        var buffer = ByteBuffer()
        buffer.writeMultipleIntegers(PeerBatchCodec.format, UInt64(1), UInt64(1), UInt32.max)
        #expect(throws: PeerBatchError.self) { try PeerBatchCodec.decodeRequest(&buffer) }
    }
}
