// SPDX-License-Identifier: Apache-2.0

import Control
import NIOCore
import Testing

private func record(_ key: String, _ value: Int) -> ByteBuffer {
    var buffer = ByteBuffer()
    buffer.writeInteger(UInt8(key.utf8.count))
    buffer.writeString(key)
    buffer.writeInteger(UInt32(value))
    buffer.writeRepeatingByte(7, count: value)
    return buffer
}

private func records(_ numbers: Range<Int>) -> ByteBuffer {
    var buffer = ByteBuffer()
    for number in numbers { buffer.writeImmutableBuffer(record("d0042:key\(number)", number * 3)) }
    return buffer
}

private let header = BackupHeader(begun: 1_750_000_000_000, epoch: 7)
private let pages: [(ByteBuffer, String?)] = [(records(0..<5), "12:a"), (ByteBuffer(), "40:b"), (records(5..<9), nil)]

/// The whole file, and where each of its parts ends.
private func file() throws -> (bytes: [UInt8], ends: [Int]) {
    var output = ByteBuffer()
    var encoder = BackupEncoder(header, into: &output)
    var ends = [output.readableBytes]
    for (records, cursor) in pages {
        try encoder.append(records, cursor: cursor, into: &output)
        ends.append(output.readableBytes)
    }
    encoder.finish(into: &output)
    return (Array(output.readableBytesView), ends + [output.readableBytes])
}

private func read(_ bytes: some Sequence<UInt8>) throws -> (parts: [BackupPart], decoder: BackupDecoder) {
    var buffer = ByteBuffer(bytes: bytes)
    var decoder = BackupDecoder()
    var parts: [BackupPart] = []
    while let part = try decoder.next(&buffer) { parts.append(part) }
    return (parts, decoder)
}

private let wanted: [BackupPart] =
    [.header(header)] + pages.map { .block($0.0, cursor: $0.1) } + [.end(BackupSum(blocks: 3, pairs: 9, bytes: 243))]

@Suite("Backup's file") struct BackupTests {
    @Test func isReadAsItWasWritten() throws {
        let (parts, decoder) = try read(try file().bytes)
        #expect(parts == wanted)
        #expect(decoder.isWhole)
    }

    @Test func isReadByteByByte() throws {
        var buffer = ByteBuffer()
        var decoder = BackupDecoder()
        var parts: [BackupPart] = []
        for byte in try file().bytes {
            buffer.writeInteger(byte)
            while let part = try decoder.next(&buffer) { parts.append(part) }
        }
        #expect(parts == wanted)
    }

    @Test func oneThatIsCutOffAnywhereIsNotWhole() throws {
        let (bytes, ends) = try file()
        for length in 0..<bytes.count {
            let (parts, decoder) = try read(bytes.prefix(length))
            #expect(!decoder.isWhole)
            #expect(parts.count == ends.count { $0 <= length }, "of \(length) bytes")
            #expect(decoder.wholeBytes == ends.last { $0 <= length } ?? 0)
        }
    }

    @Test func everyFlippedBitIsFound() throws {
        let bytes = try file().bytes
        for index in bytes.indices {
            var damaged = bytes
            damaged[index] ^= 1 << UInt8(index % 8)
            // An error, or a length that wants more bytes than there are: never a whole file.
            let isWhole = (try? read(damaged))?.decoder.isWhole ?? false
            #expect(!isWhole, "byte \(index)")
        }
    }

    @Test func partsCannotBeLeftOutDoubledOrSwapped() throws {
        let (bytes, ends) = try file()
        let parts = zip([0] + ends, ends).map { Array(bytes[$0..<$1]) }
        for order in [[0, 2, 3, 4], [0, 1, 1, 2, 3, 4], [0, 2, 1, 3, 4], [0, 1, 2, 4], [1, 2, 3, 4], [0, 4]] {
            #expect(throws: BackupError.self, "\(order)") { try read(order.flatMap { parts[$0] }) }
        }
        #expect(throws: BackupError.damaged("there are bytes behind its end")) { try read(bytes + [1]) }
        #expect(throws: BackupError.unknownFormat) { try read(Array("something else".utf8)) }
    }

    @Test(arguments: 0..<4) func anInterruptedOneGoesOnBehindItsLastWholeBlock(_ whole: Int) throws {
        let (bytes, ends) = try file()
        let (_, decoder) = try read(bytes.prefix(ends[whole] + 20))
        #expect(decoder.wholeBytes == ends[whole])
        var output = ByteBuffer(bytes: bytes.prefix(decoder.wholeBytes))
        var encoder = BackupEncoder(continuing: decoder)
        for (records, cursor) in pages.dropFirst(whole) { try encoder.append(records, cursor: cursor, into: &output) }
        encoder.finish(into: &output)
        #expect(Array(output.readableBytesView) == bytes)
    }

    @Test func whatIsNoListOfRecordsIsNotWritten() {
        var output = ByteBuffer()
        var encoder = BackupEncoder(header, into: &output)
        let before = output
        for bytes in [[1], [0, 0, 0, 0, 0], [1, 65, 0, 0, 0, 2, 9], [1, 65, 0, 0, 0, 0, 3]] as [[UInt8]] {
            #expect(throws: BackupError.self) {
                try encoder.append(ByteBuffer(bytes: bytes), cursor: nil, into: &output)
            }
        }
        #expect(output == before && encoder.sum == BackupSum())
    }

    @Test func recordsAreCutIntoPiecesBetweenThem() throws {
        let all = records(0..<40)
        for limit in [1, 50, 300, 100_000] {
            let pieces = BackupRecords.pieces(of: all, upTo: limit)
            #expect(pieces.reduce(into: ByteBuffer()) { $0.writeImmutableBuffer($1) } == all)
            for piece in pieces {
                let lengths = try #require(BackupRecords.lengths(of: piece))
                #expect(piece.readableBytes <= limit || lengths.count == 1)
            }
        }
        #expect(BackupRecords.pieces(of: ByteBuffer(), upTo: 10).isEmpty)
    }
}
