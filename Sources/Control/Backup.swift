// SPDX-License-Identifier: Apache-2.0

private import Crypto
private import KeyValue
package import NIOCore

/// A backup's file is a chain of sealed parts, integers big-endian:
///
///     header:  "KVBACKUP" format(1)=1 begun(8) epoch(8) seal(32)
///     block:   1(1) cursorLength(2) cursor length(4) records seal(32)
///     trailer: 2(1) blocks(8) pairs(8) bytes(8) seal(32)
///     record:  keyLength(1) storedKey envelopeLength(4) envelope, as `GET /keys:export` has them
///
/// A seal is the SHA-256 of the seal before it and of the part's bytes, as in a snapshot: no part can be left out, be
/// doubled, or come from another file. A block's cursor is where the export goes on behind it, so that an interrupted
/// backup is continued behind its last whole block; the last block's is empty. Only a file with a trailer is whole.
package enum BackupFormat {
    static let magic = Array("KVBACKUP".utf8)
    static let version: UInt8 = 1
    static let block: UInt8 = 1
    static let trailer: UInt8 = 2
    static let headerBytes = 25
    static let trailerBytes = 25
    static let sealBytes = 32
    /// The records of one block: a page of the export with much to spare.
    package static let largestBlockBytes = 96 << 20
    package static let largestCursorBytes = 4096

    static func seal(_ part: ByteBuffer, after seal: [UInt8]) -> [UInt8] {
        var hash = SHA256()
        hash.update(data: seal)
        part.withUnsafeReadableBytes { hash.update(bufferPointer: $0) }
        return Array(hash.finalize())
    }
}

/// What a backup says of itself.
package struct BackupHeader: Hashable, Sendable {
    /// Milliseconds since 1970.
    package let begun: UInt64
    /// Of the ring when it was begun.
    package let epoch: UInt64

    package init(begun: UInt64, epoch: UInt64) {
        self.begun = begun
        self.epoch = epoch
    }
}

package struct BackupSum: Hashable, Sendable {
    package var blocks = 0
    package var pairs = 0
    /// Of the records.
    package var bytes = 0

    package init(blocks: Int = 0, pairs: Int = 0, bytes: Int = 0) {
        self.blocks = blocks
        self.pairs = pairs
        self.bytes = bytes
    }
}

package enum BackupError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Not one of ours, or of a later format.
    case unknownFormat
    case damaged(String)

    package var description: String {
        switch self {
        case .unknownFormat: "it is no backup of a known format"
        case .damaged(let what): "it is damaged: \(what)"
        }
    }
}

/// The records of a page of the export, or of a block: cut, and not looked into.
package enum BackupRecords {
    /// The records' lengths; nil where the bytes are no whole records.
    package static func lengths(of records: ByteBuffer) -> [Int]? {
        var rest = records
        var lengths: [Int] = []
        while rest.readableBytes > 0 {
            let before = rest.readableBytes
            guard let key: UInt8 = rest.readInteger(), key > 0, rest.readSlice(length: Int(key)) != nil,
                let envelope: UInt32 = rest.readInteger(), rest.readSlice(length: Int(envelope)) != nil
            else { return nil }
            lengths.append(before - rest.readableBytes)
        }
        return lengths
    }

    /// How many of the records are no pairs, but chunks of one.
    package static func chunkCount(of records: ByteBuffer) -> Int {
        var rest = records
        var count = 0
        while let key = rest.readLengthPrefixedSlice(as: UInt8.self) {
            if key.withUnsafeReadableBytes({ StoredKey.isChunk($0) }) { count += 1 }
            guard rest.readLengthPrefixedSlice(as: UInt32.self) != nil else { break }
        }
        return count
    }

    /// The same records in pieces of at most so many bytes; one that is larger is a piece by itself.
    package static func pieces(of records: ByteBuffer, upTo limit: Int) -> [ByteBuffer] {
        var rest = records
        var pieces: [ByteBuffer] = []
        var size = 0
        for length in lengths(of: records) ?? [] {
            if size > 0, size + length > limit, let piece = rest.readSlice(length: size) {
                pieces.append(piece)
                size = 0
            }
            size += length
        }
        if size > 0, let piece = rest.readSlice(length: size) { pieces.append(piece) }
        return pieces
    }
}

/// Makes a backup's bytes, a part at a time.
package struct BackupEncoder: Sendable {
    package private(set) var sum: BackupSum
    private var seal: [UInt8]

    /// Begins one: its header.
    package init(_ header: BackupHeader, into output: inout ByteBuffer) {
        sum = BackupSum()
        seal = []
        var part = ByteBuffer(bytes: BackupFormat.magic)
        part.writeMultipleIntegers(BackupFormat.version, header.begun, header.epoch)
        write(part, &output)
    }

    /// Goes on behind what was read.
    package init(continuing decoder: BackupDecoder) {
        precondition(!decoder.isWhole && !decoder.seal.isEmpty, "a backup with a header and no end")
        sum = decoder.sum
        seal = decoder.seal
    }

    /// - Parameter cursor: where the export goes on behind it; nil: this is the last one.
    package mutating func append(
        _ records: ByteBuffer, cursor: String?, into output: inout ByteBuffer
    ) throws(BackupError) {
        guard let lengths = BackupRecords.lengths(of: records),
            records.readableBytes <= BackupFormat.largestBlockBytes
        else { throw .damaged("the node's export is no list of records") }
        let cursor = cursor ?? ""
        guard cursor.utf8.count <= BackupFormat.largestCursorBytes else {
            throw .damaged("the export's cursor is over \(BackupFormat.largestCursorBytes) bytes")
        }
        var part = ByteBuffer()
        part.reserveCapacity(records.readableBytes + cursor.utf8.count + 7)
        part.writeMultipleIntegers(BackupFormat.block, UInt16(cursor.utf8.count))
        part.writeString(cursor)
        part.writeInteger(UInt32(records.readableBytes))
        part.writeImmutableBuffer(records)
        sum.blocks += 1
        sum.pairs += lengths.count - BackupRecords.chunkCount(of: records)
        sum.bytes += records.readableBytes
        write(part, &output)
    }

    package mutating func finish(into output: inout ByteBuffer) {
        var part = ByteBuffer()
        part.writeMultipleIntegers(
            BackupFormat.trailer, UInt64(sum.blocks), UInt64(sum.pairs), UInt64(sum.bytes))
        write(part, &output)
    }

    private mutating func write(_ part: ByteBuffer, _ output: inout ByteBuffer) {
        seal = BackupFormat.seal(part, after: seal)
        output.writeImmutableBuffer(part)
        output.writeBytes(seal)
    }
}

/// A part of a backup whose seal holds.
package enum BackupPart: Hashable, Sendable {
    case header(BackupHeader)
    /// - cursor: where the export went on behind it; nil: it was the last one.
    case block(ByteBuffer, cursor: String?)
    /// The backup is whole.
    case end(BackupSum)
}

/// Reads a backup, cut into pieces anywhere. Nothing of a part is handed on before its seal was found to hold.
package struct BackupDecoder: Sendable {
    package private(set) var sum = BackupSum()
    package private(set) var isWhole = false
    /// How many bytes the parts took that were handed on.
    package private(set) var wholeBytes = 0
    fileprivate var seal: [UInt8] = []
    private var isLastBlockThere = false

    package init() {}

    /// - Returns: the next part; nil where more bytes are needed, and at the end.
    package mutating func next(_ buffer: inout ByteBuffer) throws(BackupError) -> BackupPart? {
        if isWhole {
            guard buffer.readableBytes == 0 else { throw .damaged("there are bytes behind its end") }
            return nil
        }
        if seal.isEmpty { return try header(&buffer) }
        switch buffer.getInteger(at: buffer.readerIndex, as: UInt8.self) {
        case BackupFormat.block: return try block(&buffer)
        case BackupFormat.trailer: return try trailer(&buffer)
        case nil: return nil
        default: throw .damaged("there is neither a block nor an end at byte \(wholeBytes)")
        }
    }

    private mutating func header(_ buffer: inout ByteBuffer) throws(BackupError) -> BackupPart? {
        let length = min(buffer.readableBytes, BackupFormat.magic.count + 1)
        guard let start = buffer.getBytes(at: buffer.readerIndex, length: length),
            start == Array((BackupFormat.magic + [BackupFormat.version]).prefix(length))
        else { throw .unknownFormat }
        guard var part = try sealed(BackupFormat.headerBytes, &buffer) else { return nil }
        part.moveReaderIndex(forwardBy: BackupFormat.magic.count + 1)
        guard let (begun, epoch) = part.readMultipleIntegers(as: (UInt64, UInt64).self) else {
            preconditionFailure("its length was checked")
        }
        return .header(BackupHeader(begun: begun, epoch: epoch))
    }

    private mutating func block(_ buffer: inout ByteBuffer) throws(BackupError) -> BackupPart? {
        let start = buffer.readerIndex
        guard let cursorBytes = buffer.getInteger(at: start + 1, as: UInt16.self) else { return nil }
        guard Int(cursorBytes) <= BackupFormat.largestCursorBytes else {
            throw .damaged("a cursor of \(cursorBytes) bytes")
        }
        guard let length = buffer.getInteger(at: start + 3 + Int(cursorBytes), as: UInt32.self) else { return nil }
        guard Int(length) <= BackupFormat.largestBlockBytes else { throw .damaged("a block of \(length) bytes") }
        guard var part = try sealed(7 + Int(cursorBytes) + Int(length), &buffer) else { return nil }
        part.moveReaderIndex(forwardBy: 3)
        guard let cursor = part.readString(length: Int(cursorBytes)), part.readInteger(as: UInt32.self) != nil,
            let lengths = BackupRecords.lengths(of: part), !isLastBlockThere
        else { throw .damaged("a block that can't be, at byte \(wholeBytes)") }
        isLastBlockThere = cursor.isEmpty
        sum.blocks += 1
        sum.pairs += lengths.count - BackupRecords.chunkCount(of: part)
        sum.bytes += part.readableBytes
        return .block(part, cursor: cursor.isEmpty ? nil : cursor)
    }

    private mutating func trailer(_ buffer: inout ByteBuffer) throws(BackupError) -> BackupPart? {
        guard var part = try sealed(BackupFormat.trailerBytes, &buffer) else { return nil }
        part.moveReaderIndex(forwardBy: 1)
        guard let (blocks, pairs, bytes) = part.readMultipleIntegers(as: (UInt64, UInt64, UInt64).self),
            isLastBlockThere,
            blocks == UInt64(sum.blocks), pairs == UInt64(sum.pairs), bytes == UInt64(sum.bytes)
        else { throw .damaged("its counts are wrong") }
        isWhole = true
        return .end(sum)
    }

    private mutating func sealed(_ length: Int, _ buffer: inout ByteBuffer) throws(BackupError) -> ByteBuffer? {
        guard buffer.readableBytes >= length + BackupFormat.sealBytes, let part = buffer.readSlice(length: length),
            let found = buffer.readBytes(length: BackupFormat.sealBytes)
        else { return nil }
        let expected = BackupFormat.seal(part, after: seal)
        guard found == expected else { throw .damaged("a seal does not hold behind byte \(wholeBytes)") }
        seal = expected
        wholeBytes += length + BackupFormat.sealBytes
        return part
    }
}
