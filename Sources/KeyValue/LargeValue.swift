// SPDX-License-Identifier: Apache-2.0

package import NIOCore

/// Names the chunks of one value, for good: another value of the same key has another one.
package struct UploadID: Hashable, Sendable {
    package static let byteCount = 16

    package let bytes: [UInt8]

    package static func random() -> UploadID {
        var generator = SystemRandomNumberGenerator()
        return UploadID(drawn: (0..<byteCount).map { _ in generator.next() })
    }

    /// Nil where there are more bytes or fewer.
    package init?(_ bytes: [UInt8]) {
        guard bytes.count == UploadID.byteCount else { return nil }
        self.bytes = bytes
    }

    private init(drawn bytes: [UInt8]) { self.bytes = bytes }
}

/// What a manifest says of a value that is stored in chunks (docs/large-values.md).
///
/// Layout, integers big-endian: form (1 byte, = 1), upload (16), length of the value (8), of a chunk (4).
package struct LargeValue: Hashable, Sendable {
    private static let form: UInt8 = 1

    package let upload: UploadID
    /// Of the whole value, in bytes.
    package let length: Int
    /// Of each chunk but the last.
    package let chunkBytes: Int

    package init(upload: UploadID, length: Int, chunkBytes: Int) {
        self.upload = upload
        self.length = length
        self.chunkBytes = chunkBytes
    }

    /// Nil where these bytes say nothing of the kind.
    package init?(_ bytes: ByteBuffer) {
        var buffer = bytes
        guard buffer.readInteger(as: UInt8.self) == LargeValue.form,
            let upload = buffer.readBytes(length: UploadID.byteCount).flatMap({ UploadID($0) }),
            let length = buffer.readInteger(as: UInt64.self), (1...UInt64(Limits.valueBytes)).contains(length),
            let chunkBytes = buffer.readInteger(as: UInt32.self), (1...UInt32(Limits.valueBytes)).contains(chunkBytes),
            buffer.readableBytes == 0
        else { return nil }
        self.init(upload: upload, length: Int(length), chunkBytes: Int(chunkBytes))
        guard chunkCount <= LargeValue.mostChunks else { return nil }
    }

    package var encoded: ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeInteger(LargeValue.form)
        buffer.writeBytes(upload.bytes)
        buffer.writeMultipleIntegers(UInt64(length), UInt32(chunkBytes))
        return buffer
    }

    /// More chunks than this have no numbers.
    private static let mostChunks = 999_999

    /// How many chunks it has; their numbers begin with 1.
    package var chunkCount: Int { (length + chunkBytes - 1) / chunkBytes }

    /// Which of the value's bytes a chunk has.
    package func bytes(ofChunk number: Int) -> Range<Int> {
        let start = (number - 1) * chunkBytes
        return start..<min(start + chunkBytes, length)
    }

    /// The chunks that have some of these bytes of the value.
    /// - Parameter range: not empty.
    package func chunks(of range: Range<Int>) -> ClosedRange<Int> {
        range.lowerBound / chunkBytes + 1...(range.upperBound - 1) / chunkBytes + 1
    }
}
