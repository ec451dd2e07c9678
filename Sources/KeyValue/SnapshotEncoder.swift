// SPDX-License-Identifier: Apache-2.0

private import HashRing
package import NIOCore

/// Records as they stand in a block of a snapshot, before it is sealed.
package struct SnapshotBlock: Sendable {
    package private(set) var sum = SnapshotSum()
    fileprivate private(set) var records = ByteBuffer()

    package init() {}

    /// Of the records, encoded.
    package var size: Int { records.readableBytes }

    /// What a record takes in a block.
    package static func size(of record: SnapshotRecord) -> Int { record.bytes + SnapshotFormat.recordHeaderBytes }

    /// Whether it has room for a record; the first one may be as large as the largest block.
    package func hasRoom(for record: SnapshotRecord) -> Bool {
        let size = SnapshotBlock.size(of: record)
        return self.size + size <= (self.size == 0 ? Limits.snapshotLargestBlockBytes : Limits.snapshotBlockBytes)
    }

    /// Copies the record, which has to find room.
    package mutating func append(_ record: SnapshotRecord) {
        precondition(hasRoom(for: record), "whoever appends has asked")
        SnapshotBlock.write(record, into: &records)
        sum.add(record)
    }

    /// One record, as it stands in a block.
    package static func write(_ record: SnapshotRecord, into buffer: inout ByteBuffer) {
        buffer.writeInteger(UInt8(record.key.bytes.count))
        buffer.writeBytes(record.key.bytes)
        buffer.writeInteger(UInt32(record.envelope.buffer.readableBytes))
        buffer.writeImmutableBuffer(record.envelope.buffer)
    }

    /// The records that stand in a block; nil where they are none.
    package static func records(in block: ByteBuffer) -> [SnapshotRecord]? {
        var block = block
        var records: [SnapshotRecord] = []
        while block.readableBytes > 0 {
            guard let key = block.readLengthPrefixedSlice(as: UInt8.self),
                let storedKey = StoredKey(stored: Array(key.readableBytesView)),
                let bytes = block.readLengthPrefixedSlice(as: UInt32.self), let envelope = Envelope(bytes)
            else { return nil }
            records.append(SnapshotRecord(key: storedKey, envelope: envelope))
        }
        return records
    }

    /// Keeps its memory.
    fileprivate mutating func clear() {
        records.clear()
        sum = SnapshotSum()
    }
}

/// Makes a snapshot's bytes out of its records, a block at a time.
package struct SnapshotEncoder: Sendable {
    /// What was taken in so far.
    package private(set) var sum = SnapshotSum()
    private var seal: [UInt8] = []
    /// The one that is being filled.
    private var block = SnapshotBlock()

    /// Begins a snapshot: its header.
    package init(_ header: SnapshotHeader, into output: inout ByteBuffer) {
        let node = Array(header.node.description.utf8)
        var part = ByteBuffer(bytes: SnapshotFormat.magic)
        part.writeMultipleIntegers(SnapshotFormat.version, UInt8(node.count))
        part.writeBytes(node)
        part.writeMultipleIntegers(header.generation.value, header.epoch.value, header.clock)
        write(part, &output)
    }

    /// Takes a record in; where a block is full, it goes to the output.
    package mutating func append(_ record: SnapshotRecord, into output: inout ByteBuffer) throws(SnapshotError) {
        if !block.hasRoom(for: record) { closeBlock(&output) }
        guard block.hasRoom(for: record) else { throw .tooLarge(bytes: record.bytes) }
        block.append(record)
        sum.add(record)
    }

    /// Takes a whole block in, which goes to the output.
    package mutating func append(_ block: SnapshotBlock, into output: inout ByteBuffer) {
        closeBlock(&output)
        write(block, &output)
        sum.pairs += block.sum.pairs
        sum.bytes += block.sum.bytes
    }

    /// What is left, and the trailer.
    package mutating func finish(into output: inout ByteBuffer) {
        closeBlock(&output)
        var part = ByteBuffer()
        part.writeMultipleIntegers(SnapshotFormat.trailer, UInt64(sum.pairs), UInt64(sum.bytes))
        write(part, &output)
    }

    private mutating func closeBlock(_ output: inout ByteBuffer) {
        write(block, &output)
        block.clear()
    }

    private mutating func write(_ block: SnapshotBlock, _ output: inout ByteBuffer) {
        guard block.size > 0 else { return }
        var part = ByteBuffer()
        part.reserveCapacity(SnapshotFormat.blockHeaderBytes + block.size)
        part.writeMultipleIntegers(SnapshotFormat.block, UInt32(block.size))
        part.writeImmutableBuffer(block.records)
        write(part, &output)
    }

    private mutating func write(_ part: ByteBuffer, _ output: inout ByteBuffer) {
        seal = SnapshotFormat.seal(part, after: seal)
        output.writeImmutableBuffer(part)
        output.writeBytes(seal)
    }
}
