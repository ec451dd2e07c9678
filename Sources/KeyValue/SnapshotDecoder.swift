// SPDX-License-Identifier: Apache-2.0

private import HashRing
package import NIOCore

/// A part of a snapshot whose seal holds.
package enum SnapshotPart: Hashable, Sendable {
    case header(SnapshotHeader)
    case records([SnapshotRecord])
    /// The snapshot is whole.
    case end(SnapshotSum)
}

/// Reads a snapshot, cut into pieces anywhere. Nothing of a part is handed on before its seal was found to hold, and
/// after an error there is nothing more to be had.
package struct SnapshotDecoder: Sendable {
    private var seal: [UInt8] = []
    private var sum = SnapshotSum()
    /// The trailer was there.
    package private(set) var isWhole = false

    package init() {}

    /// - Parameter buffer: what has come and was not read yet; at most one part and what was read with it has to be
    /// held.
    /// - Returns: the next part; nil where more bytes are needed, and at the end.
    package mutating func next(_ buffer: inout ByteBuffer) throws(SnapshotError) -> SnapshotPart? {
        if isWhole {
            guard buffer.readableBytes == 0 else { throw .damaged("bytes behind its end") }
            return nil
        }
        if seal.isEmpty { return try header(&buffer) }
        switch buffer.getInteger(at: buffer.readerIndex, as: UInt8.self) {
        case SnapshotFormat.block: return try block(&buffer)
        case SnapshotFormat.trailer: return try trailer(&buffer)
        case nil: return nil
        default: throw .damaged("neither a block nor an end")
        }
    }

    private mutating func header(_ buffer: inout ByteBuffer) throws(SnapshotError) -> SnapshotPart? {
        let start = buffer.readerIndex
        guard let magic = buffer.getBytes(at: start, length: SnapshotFormat.magicBytes) else { return nil }
        guard magic == SnapshotFormat.magic + [SnapshotFormat.version] else { throw .unknownFormat }
        let nodeStart = SnapshotFormat.magicBytes + 1
        guard let nodeBytes = buffer.getInteger(at: start + nodeStart - 1, as: UInt8.self),
            var part = try sealed(nodeStart + Int(nodeBytes) + SnapshotFormat.numberBytes, &buffer)
        else { return nil }
        part.moveReaderIndex(forwardBy: nodeStart)
        guard let name = part.readString(length: Int(nodeBytes)), let node = NodeID(name),
            let (generation, epoch, clock) = part.readMultipleIntegers(as: (UInt64, UInt64, UInt64).self)
        else { throw .damaged("no node's header") }
        return .header(
            SnapshotHeader(node: node, generation: Generation(generation), epoch: Epoch(epoch), clock: clock))
    }

    private mutating func block(_ buffer: inout ByteBuffer) throws(SnapshotError) -> SnapshotPart? {
        guard let length = buffer.getInteger(at: buffer.readerIndex + 1, as: UInt32.self) else { return nil }
        guard length <= Limits.snapshotLargestBlockBytes else { throw .damaged("a block of \(length) bytes") }
        guard var part = try sealed(SnapshotFormat.blockHeaderBytes + Int(length), &buffer) else { return nil }
        part.moveReaderIndex(forwardBy: SnapshotFormat.blockHeaderBytes)
        guard let records = SnapshotBlock.records(in: part) else { throw .damaged("a record that is none") }
        for record in records { sum.add(record) }
        return .records(records)
    }

    private mutating func trailer(_ buffer: inout ByteBuffer) throws(SnapshotError) -> SnapshotPart? {
        guard var part = try sealed(SnapshotFormat.trailerBytes, &buffer) else { return nil }
        part.moveReaderIndex(forwardBy: 1)
        guard let (pairs, bytes) = part.readMultipleIntegers(as: (UInt64, UInt64).self),
            pairs == UInt64(sum.pairs), bytes == UInt64(sum.bytes)
        else { throw .damaged("a wrong count") }
        isWhole = true
        return .end(sum)
    }

    /// So many bytes, once they and their seal are there.
    private mutating func sealed(_ length: Int, _ buffer: inout ByteBuffer) throws(SnapshotError) -> ByteBuffer? {
        guard buffer.readableBytes >= length + SnapshotFormat.sealBytes, let part = buffer.readSlice(length: length),
            let found = buffer.readBytes(length: SnapshotFormat.sealBytes)
        else { return nil }
        let expected = SnapshotFormat.seal(part, after: seal)
        guard found == expected else { throw .damaged("a seal does not hold") }
        seal = expected
        return part
    }
}
