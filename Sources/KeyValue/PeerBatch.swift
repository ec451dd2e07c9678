// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import NIOCore

/// What one node asks of another in one `POST /peer/batch`.
package struct PeerBatch: Hashable, Sendable {
    /// The ring document under which the sender chose this receiver.
    package var epoch: Epoch
    /// The sender's clock, for the receiver to merge.
    package var clock: UInt64
    package var operations: [Operation]

    package init(epoch: Epoch, clock: UInt64, operations: [Operation]) {
        self.epoch = epoch
        self.clock = clock
        self.operations = operations
    }
}

/// The answer to a `PeerBatch` that was not refused as a whole.
package struct PeerBatchAnswer: Hashable, Sendable {
    package var epoch: Epoch
    /// Of the receiver's memcached: whoever streams pairs to it must see it stay the same.
    package var generation: Generation
    package var clock: UInt64
    /// One for each operation, in their order.
    package var outcomes: [Outcome]

    package init(epoch: Epoch, generation: Generation, clock: UInt64, outcomes: [Outcome]) {
        self.epoch = epoch
        self.generation = generation
        self.clock = clock
        self.outcomes = outcomes
    }
}

/// A message that is cut off, or is none of ours.
package struct PeerBatchError: Error, Hashable, Sendable {
    package let description: String
}

/// The batches' wire form: integers big-endian, a byte of format first, so that nodes of two versions refuse each other
/// instead of misreading.
///
///     request: format(1)=2 epoch(8) clock(8) count(4) then count × [ code(1) keyLength(1) key envelope? version? ]
///     answer:  format(1)=2 epoch(8) generation(8) clock(8) count(4) then count × [ code(1) … ]
///     envelope: length(4) bytes      version: time(8) writer(4)      failure: class(1) reason(1)
package enum PeerBatchCodec {
    package static let format: UInt8 = 2
    /// Of a batch without operations.
    package static let requestHeaderBytes = 21
    private static let answerHeaderBytes = 29
    /// Of an operation, and of an outcome, beside key and envelope, at most.
    private static let operationBytes = 18
    private static let outcomeBytes = 13

    private enum Code {
        static let read: UInt8 = 1
        static let readVersion: UInt8 = 2
        static let stamp: UInt8 = 3
        static let apply: UInt8 = 4
        static let replace: UInt8 = 5
        static let heldVersion: UInt8 = 6

        static let record: UInt8 = 1
        static let noRecord: UInt8 = 2
        static let version: UInt8 = 3
        static let stored: UInt8 = 4
        static let applied: UInt8 = 5
        static let notApplied: UInt8 = 6
        static let outcomeUnknown: UInt8 = 7
        static let staleRing: UInt8 = 8
        static let preconditionFailed: UInt8 = 9
    }

    // MARK: Requests

    package static func encode(_ batch: PeerBatch, into buffer: inout ByteBuffer) {
        // (Room for all of it at once: a buffer that grows is copied each time.)
        buffer.reserveCapacity(
            minimumWritableBytes: batch.operations.reduce(requestHeaderBytes) { $0 + $1.weight + operationBytes })
        buffer.writeMultipleIntegers(format, batch.epoch.value, batch.clock, UInt32(batch.operations.count))
        for operation in batch.operations {
            switch operation {
            case .read(let key): write(Code.read, key, &buffer)
            case .readVersion(let key): write(Code.readVersion, key, &buffer)
            case .heldVersion(let key): write(Code.heldVersion, key, &buffer)
            case .stamp(let key, let envelope):
                write(Code.stamp, key, &buffer)
                write(envelope, &buffer)
            case .apply(let key, let envelope):
                write(Code.apply, key, &buffer)
                write(envelope, &buffer)
            case .replace(let key, let envelope, over: let version):
                write(Code.replace, key, &buffer)
                write(envelope, &buffer)
                write(version, &buffer)
            }
        }
    }

    package static func decodeRequest(_ buffer: inout ByteBuffer) throws(PeerBatchError) -> PeerBatch {
        let (epoch, clock) = (try header(&buffer), try integer(&buffer, as: UInt64.self))
        let count = try count(&buffer, smallest: 8)
        var operations: [Operation] = []
        operations.reserveCapacity(count)
        for _ in 0..<count {
            let code = try integer(&buffer, as: UInt8.self)
            let length = try integer(&buffer, as: UInt8.self)
            guard let bytes = buffer.readBytes(length: Int(length)), let key = StoredKey(stored: bytes) else {
                throw PeerBatchError(description: "not a stored key")
            }
            switch code {
            case Code.read: operations.append(.read(key))
            case Code.readVersion: operations.append(.readVersion(key))
            case Code.heldVersion: operations.append(.heldVersion(key))
            case Code.stamp: operations.append(.stamp(key, try envelope(&buffer)))
            case Code.apply: operations.append(.apply(key, try envelope(&buffer)))
            case Code.replace:
                let envelope = try envelope(&buffer)
                operations.append(.replace(key, envelope, over: try version(&buffer)))
            default: throw PeerBatchError(description: "unknown operation \(code)")
            }
        }
        try end(buffer)
        return PeerBatch(epoch: Epoch(epoch), clock: clock, operations: operations)
    }

    // MARK: Answers

    package static func encode(_ answer: PeerBatchAnswer, into buffer: inout ByteBuffer) {
        buffer.reserveCapacity(
            minimumWritableBytes: answer.outcomes.reduce(answerHeaderBytes) { sum, outcome in
                if case .record(let record?) = outcome {
                    sum + outcomeBytes + record.buffer.readableBytes
                } else {
                    sum + outcomeBytes
                }
            })
        buffer.writeMultipleIntegers(
            format, answer.epoch.value, answer.generation.value, answer.clock, UInt32(answer.outcomes.count))
        for outcome in answer.outcomes {
            switch outcome {
            case .record(let record?):
                buffer.writeInteger(Code.record)
                write(record, &buffer)
            case .record(nil): buffer.writeInteger(Code.noRecord)
            case .version(let version): write(Code.version, version, &buffer)
            case .stored(let version): write(Code.stored, version, &buffer)
            case .applied(let version): write(Code.applied, version, &buffer)
            case .failed(.notApplied(let reason)): buffer.writeMultipleIntegers(Code.notApplied, reason.rawValue)
            case .failed(.outcomeUnknown(let reason)), .failed(.tooFewHold(_, of: _, let reason)):
                buffer.writeMultipleIntegers(Code.outcomeUnknown, reason.rawValue)
            case .failed(.staleRing): buffer.writeInteger(Code.staleRing)
            case .failed(.preconditionFailed(let held)): write(Code.preconditionFailed, held, &buffer)
            }
        }
    }

    package static func decodeAnswer(_ buffer: inout ByteBuffer) throws(PeerBatchError) -> PeerBatchAnswer {
        let epoch = try header(&buffer)
        let generation = try integer(&buffer, as: UInt64.self)
        let clock = try integer(&buffer, as: UInt64.self)
        let count = try count(&buffer, smallest: 1)
        var outcomes: [Outcome] = []
        outcomes.reserveCapacity(count)
        for _ in 0..<count {
            switch try integer(&buffer, as: UInt8.self) {
            case Code.record: outcomes.append(.record(try envelope(&buffer)))
            case Code.noRecord: outcomes.append(.record(nil))
            case Code.version: outcomes.append(.version(try version(&buffer)))
            case Code.stored: outcomes.append(.stored(try version(&buffer)))
            case Code.applied: outcomes.append(.applied(newest: try version(&buffer)))
            case Code.notApplied: outcomes.append(.failed(.notApplied(try reason(&buffer))))
            case Code.outcomeUnknown: outcomes.append(.failed(.outcomeUnknown(try reason(&buffer))))
            case Code.staleRing: outcomes.append(.failed(.staleRing))
            case Code.preconditionFailed: outcomes.append(.failed(.preconditionFailed(held: try version(&buffer))))
            case let code: throw PeerBatchError(description: "unknown outcome \(code)")
            }
        }
        try end(buffer)
        return PeerBatchAnswer(
            epoch: Epoch(epoch), generation: Generation(generation), clock: clock, outcomes: outcomes)
    }

    // MARK: Parts

    private static func write(_ code: UInt8, _ key: StoredKey, _ buffer: inout ByteBuffer) {
        let count = key.bytes.count
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: 2 + count) { target in
            target[0] = code
            target[1] = UInt8(count)
            UnsafeMutableRawBufferPointer(rebasing: target[2..<2 + count]).copyBytes(from: key.bytes)
            return 2 + count
        }
    }

    private static func write(_ envelope: Envelope, _ buffer: inout ByteBuffer) {
        buffer.writeInteger(UInt32(envelope.buffer.readableBytes))
        buffer.writeImmutableBuffer(envelope.buffer)
    }

    private static func write(_ code: UInt8, _ version: Version, _ buffer: inout ByteBuffer) {
        buffer.writeInteger(code)
        write(version, &buffer)
    }

    private static func write(_ version: Version, _ buffer: inout ByteBuffer) {
        buffer.writeMultipleIntegers(version.time, version.writer)
    }

    private static func header(_ buffer: inout ByteBuffer) throws(PeerBatchError) -> UInt64 {
        let format = try integer(&buffer, as: UInt8.self)
        guard format == PeerBatchCodec.format else { throw PeerBatchError(description: "format \(format)") }
        return try integer(&buffer, as: UInt64.self)
    }

    private static func integer<Integer: FixedWidthInteger>(
        _ buffer: inout ByteBuffer, as type: Integer.Type
    ) throws(PeerBatchError) -> Integer {
        guard let value = buffer.readInteger(as: type) else { throw PeerBatchError(description: "cut off") }
        return value
    }

    /// A count that nobody sends, or that the bytes at hand can't hold, is refused before anything is reserved for it.
    private static func count(_ buffer: inout ByteBuffer, smallest: Int) throws(PeerBatchError) -> Int {
        let count = Int(try integer(&buffer, as: UInt32.self))
        guard count <= Limits.peerBatchOperations else { throw PeerBatchError(description: "\(count) operations") }
        guard count <= buffer.readableBytes / smallest else { throw PeerBatchError(description: "cut off") }
        return count
    }

    private static func version(_ buffer: inout ByteBuffer) throws(PeerBatchError) -> Version {
        let version = Version(
            time: try integer(&buffer, as: UInt64.self), writer: try integer(&buffer, as: UInt32.self))
        guard version.time <= Version.latestTime else { throw PeerBatchError(description: "a version out of time") }
        return version
    }

    private static func reason(_ buffer: inout ByteBuffer) throws(PeerBatchError) -> OperationFailure.Reason {
        let code = try integer(&buffer, as: UInt8.self)
        guard let reason = OperationFailure.Reason(rawValue: code) else {
            throw PeerBatchError(description: "unknown reason \(code)")
        }
        return reason
    }

    private static func envelope(_ buffer: inout ByteBuffer) throws(PeerBatchError) -> Envelope {
        let length = try integer(&buffer, as: UInt32.self)
        guard let bytes = buffer.readSlice(length: Int(length)), let envelope = Envelope(bytes) else {
            throw PeerBatchError(description: "not an envelope")
        }
        guard envelope.version.time <= Version.latestTime else {
            throw PeerBatchError(description: "a version out of time")
        }
        return envelope
    }

    private static func end(_ buffer: ByteBuffer) throws(PeerBatchError) {
        guard buffer.readableBytes == 0 else { throw PeerBatchError(description: "more bytes than operations") }
    }
}
