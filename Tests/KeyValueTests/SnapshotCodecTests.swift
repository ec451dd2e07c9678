// SPDX-License-Identifier: Apache-2.0

import HashRing
import KeyValue
import NIOCore
import Testing

struct SnapshotCodecTests {
    /// A snapshot and what is in it.
    struct Sample {
        let header: SnapshotHeader
        var records: [SnapshotRecord] = []
        var bytes: [UInt8] = []

        /// - Parameter large: bytes of one value more, in a block of its own.
        init(_ random: inout SeededBytes, records count: Int, largest: Int = 60, large: Int? = nil) throws {
            header = SnapshotHeader(
                node: try #require(NodeID("10.0.0.7:5000")), generation: Generation(random.next()),
                epoch: Epoch(random.next()), clock: random.next())
            while records.count < count {
                guard let (key, envelope) = EnvelopeTests.random(&random, largest: largest),
                    envelope.version.time <= Version.latestStoredTime
                else { continue }
                records.append(SnapshotRecord(key: StoredKey(key), envelope: envelope))
            }
            if let large {
                let key = try #require(Key("large"))
                let envelope = Envelope(key: key, storedKey: StoredKey(key), value: random.buffer(large))
                records.append(SnapshotRecord(key: StoredKey(key), envelope: envelope))
            }
            var output = ByteBuffer()
            var encoder = SnapshotEncoder(header, into: &output)
            for record in records { try encoder.append(record, into: &output) }
            encoder.finish(into: &output)
            bytes = Array(output.readableBytesView)
        }

        var sum: SnapshotSum {
            SnapshotSum(pairs: records.count, bytes: records.reduce(0) { $0 + $1.bytes })
        }

        var parts: [SnapshotPart] { [.header(header), .records(records), .end(sum)] }
    }

    /// What a reader makes of these bytes: the parts that it was given, and the error that ended it.
    private func read(_ bytes: [UInt8], chunk: Int = .max) -> (parts: [SnapshotPart], isWhole: Bool, SnapshotError?) {
        var decoder = SnapshotDecoder()
        var buffer = ByteBuffer()
        var parts: [SnapshotPart] = []
        var rest = bytes[...]
        do throws(SnapshotError) {
            while !rest.isEmpty {
                buffer.writeBytes(rest.prefix(chunk))
                rest = rest.dropFirst(chunk)
                while let part = try decoder.next(&buffer) { parts.append(part) }
                // Also once there is nothing more.
                if decoder.isWhole { _ = try decoder.next(&buffer) }
            }
            return (parts, decoder.isWhole, nil)
        } catch {
            return (parts, decoder.isWhole, error)
        }
    }

    private func records(in parts: [SnapshotPart]) -> [SnapshotRecord] {
        parts.flatMap { part -> [SnapshotRecord] in
            if case .records(let records) = part { records } else { [] }
        }
    }

    @Test(arguments: 0..<20)
    func roundTrips(seed: UInt64) throws {
        var random = SeededBytes(seed)
        let sample = try Sample(&random, records: Int.random(in: 1...50, using: &random), largest: 500)
        let (parts, isWhole, error) = read(sample.bytes)
        #expect(parts == sample.parts && isWhole && error == nil)
    }

    @Test(arguments: [1, 2, 3, 7, 100])
    func readsItInPiecesOfAnySize(chunk: Int) throws {
        var random = SeededBytes(7)
        let sample = try Sample(&random, records: 20)
        let (parts, isWhole, error) = read(sample.bytes, chunk: chunk)
        #expect(parts == sample.parts && isWhole && error == nil)
    }

    @Test func anEmptyOneIsWhole() throws {
        var random = SeededBytes(1)
        let sample = try Sample(&random, records: 0)
        let (parts, isWhole, error) = read(sample.bytes)
        #expect(parts == [.header(sample.header), .end(SnapshotSum())] && isWhole && error == nil)
    }

    @Test func blocksAreBoundedAndALargePairHasItsOwn() throws {
        var random = SeededBytes(2)
        let large = Limits.snapshotBlockBytes * 2
        let sample = try Sample(&random, records: 600, largest: 8000, large: large)
        let (parts, isWhole, error) = read(sample.bytes, chunk: 64 << 10)
        #expect(isWhole && error == nil)
        #expect(records(in: parts) == sample.records)
        var blocks = parts.map { records(in: [$0]) }.filter { !$0.isEmpty }
        #expect(blocks.popLast()?.count == 1)
        #expect(blocks.count > 1)
        for block in blocks { #expect(block.reduce(0) { $0 + $1.bytes } <= Limits.snapshotBlockBytes) }
    }

    @Test func aPairThatNoBlockTakesIsRefused() throws {
        let key = try #require(Key("k"))
        let value = ByteBuffer(repeating: 0, count: Limits.snapshotLargestBlockBytes)
        var output = ByteBuffer()
        var random = SeededBytes(3)
        var encoder = SnapshotEncoder(try Sample(&random, records: 0).header, into: &output)
        #expect(throws: SnapshotError.self) {
            try encoder.append(
                SnapshotRecord(
                    key: StoredKey(key), envelope: Envelope(key: key, storedKey: StoredKey(key), value: value)),
                into: &output)
        }
    }

    /// Three blocks, for what a torn or changed file is to be found out in.
    private func threeBlocks() throws -> Sample {
        var random = SeededBytes(11)
        var sample = try Sample(&random, records: 0)
        var output = ByteBuffer()
        var encoder = SnapshotEncoder(sample.header, into: &output)
        // Each too large to share a block with the next; then small ones.
        for name in ["a", "b"] {
            let key = try #require(Key(name))
            let value = random.buffer(Limits.snapshotBlockBytes * 2 / 3)
            sample.records.append(
                SnapshotRecord(
                    key: StoredKey(key), envelope: Envelope(key: key, storedKey: StoredKey(key), value: value)))
        }
        sample.records += try Sample(&random, records: 3, largest: 600_000).records
        for record in sample.records { try encoder.append(record, into: &output) }
        encoder.finish(into: &output)
        sample.bytes = Array(output.readableBytesView)
        return sample
    }

    @Test(arguments: 0..<3)
    func tornAtEveryByte(seed: UInt64) throws {
        var random = SeededBytes(seed)
        let sample = try Sample(&random, records: 12)
        for length in 0..<sample.bytes.count {
            let (parts, isWhole, error) = read(Array(sample.bytes.prefix(length)))
            #expect(!isWhole && error == nil, "\(length)")
            #expect(sample.parts.starts(with: parts), "\(length)")
        }
        #expect(read(sample.bytes + [0]).2 != nil)
    }

    @Test(arguments: 0..<3)
    func aFlippedBitAnywhereIsFound(seed: UInt64) throws {
        var random = SeededBytes(seed)
        let sample = try Sample(&random, records: 6)
        for index in sample.bytes.indices {
            var bytes = sample.bytes
            bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            let (parts, isWhole, _) = read(bytes)
            #expect(!isWhole, "\(index)")
            #expect(sample.parts.starts(with: parts) && parts.count < sample.parts.count, "\(index)")
        }
    }

    @Test func ofATornOneOnlyTheTailIsLost() throws {
        let sample = try threeBlocks()
        let (parts, isWhole, error) = read(Array(sample.bytes.prefix(Limits.snapshotBlockBytes)))
        #expect(!isWhole && error == nil)
        #expect(records(in: parts) == [sample.records[0]])
    }

    @Test func partsCantBeLeftOutOrDoubledOrBeAnothers() throws {
        let sample = try threeBlocks()
        var random = SeededBytes(12)
        let other = try Sample(&random, records: 4)
        let header = SnapshotCodecTests.headerBytes
        let block = 5 + 5 + sample.records[0].bytes + 32
        let start = Array(sample.bytes[..<header])
        let first = Array(sample.bytes[header..<header + block])
        let rest = Array(sample.bytes[(header + block)...])
        let others = Array(other.bytes[header...])
        let end = Array(sample.bytes.suffix(17 + 32))
        let cases: [(String, [[UInt8]])] = [
            ("left out", [start, rest]), ("doubled", [start, first, first, rest]), ("another's", [start, others]),
            ("another's behind it", [start, first, others]), ("the end alone", [start, end]),
        ]
        for (name, pieces) in cases {
            let bytes = Array(pieces.joined())
            let (parts, isWhole, error) = read(bytes)
            #expect(!isWhole && error != nil, "\(name)")
            #expect(records(in: parts) == Array(sample.records.prefix(records(in: parts).count)), "\(name)")
        }
    }

    private static let headerBytes = 8 + 1 + "10.0.0.7:5000".utf8.count + 24 + 32

    @Test(arguments: 0..<20)
    func garbageIsHarmless(seed: UInt64) throws {
        var random = SeededBytes(seed)
        for _ in 0..<200 {
            var bytes = random.bytes(Int.random(in: 0...300, using: &random))
            if Bool.random(using: &random) { bytes = Array("KVPAIRS".utf8) + [1] + bytes }
            let (parts, isWhole, _) = read(bytes, chunk: Int.random(in: 1...50, using: &random))
            #expect(parts.isEmpty && !isWhole)
        }
    }

    @Test func aLaterFormatIsNotGuessedAt() throws {
        var random = SeededBytes(5)
        var bytes = try Sample(&random, records: 1).bytes
        bytes[7] = 2
        #expect(read(bytes).2 == .unknownFormat)
    }
}
