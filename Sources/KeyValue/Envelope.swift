// SPDX-License-Identifier: Apache-2.0

package import NIOCore

/// A pair as it is stored and as it travels: a small header and the client's bytes in one buffer.
///
/// Layout, integers big-endian: format (1 byte, = 1), flags (1 byte: 1 tombstone, 2 key inside, 4 content type inside,
/// 8 expires, 16 client flags inside, 32 manifest), version time (8 bytes), version writer (4 bytes); then, where
/// flagged, the time of its expiry (8 bytes, milliseconds since 1970), the client flags (4 bytes), the key (2-byte
/// length, bytes) and the content type (1-byte length, bytes); then the value, or a manifest's (`LargeValue`). The
/// version sits at a fixed place, so that an owner can stamp a buffer that is already encoded.
package struct Envelope: Hashable, Sendable {
    package static let format: UInt8 = 1
    package static let headerBytes = 14
    private static let expiryBytes = 8
    /// What client flags take where there are any.
    package static let clientFlagsBytes = 4
    /// What comes before client flags, key, content type and value, at most.
    package static let longestHeaderBytes = headerBytes + expiryBytes

    private struct Flags {
        static let tombstone: UInt8 = 1
        static let keyInside: UInt8 = 2
        static let contentTypeInside: UInt8 = 4
        static let expires: UInt8 = 8
        static let clientFlagsInside: UInt8 = 16
        static let manifest: UInt8 = 32
        static let known: UInt8 = 63
    }

    /// The encoded form; always decodable.
    package private(set) var buffer: ByteBuffer

    /// - Parameters:
    ///   - key: kept inside only where its stored form does not tell it.
    ///   - value: the client's bytes; ignored for a tombstone.
    ///   - expiryMilliseconds: from this time on, since 1970, the pair counts as deleted; a tombstone is kept until
    ///     then (where its version does not say when it was made).
    ///   - clientFlags: a number of memcached's clients, who tell by it what the value's bytes are.
    package init(
        key: Key, storedKey: StoredKey, value: ByteBuffer, version: Version = .none, isTombstone: Bool = false,
        contentType: String? = nil, expiryMilliseconds: UInt64? = nil, clientFlags: UInt32 = 0
    ) {
        self.init(
            key: key, storedKey: storedKey, value: value, version: version, isTombstone: isTombstone,
            contentType: contentType, expiryMilliseconds: expiryMilliseconds, clientFlags: clientFlags, otherFlags: 0)
    }

    /// The manifest of a value that is stored in chunks.
    package init(
        key: Key, storedKey: StoredKey, manifest: LargeValue, contentType: String? = nil,
        expiryMilliseconds: UInt64? = nil, clientFlags: UInt32 = 0
    ) {
        self.init(
            key: key, storedKey: storedKey, value: manifest.encoded, version: .none, isTombstone: false,
            contentType: contentType, expiryMilliseconds: expiryMilliseconds, clientFlags: clientFlags,
            otherFlags: Flags.manifest)
    }

    private init(
        key: Key, storedKey: StoredKey, value: ByteBuffer, version: Version, isTombstone: Bool, contentType: String?,
        expiryMilliseconds: UInt64?, clientFlags: UInt32, otherFlags: UInt8
    ) {
        let expiry = expiryMilliseconds
        let isKeyInside = storedKey.isDigest || storedKey.isChunk
        var flags = otherFlags
        if isTombstone { flags |= Flags.tombstone }
        if isKeyInside { flags |= Flags.keyInside }
        let type = contentType.flatMap { $0.utf8.count <= Limits.contentTypeBytes ? $0 : nil }
        if type != nil { flags |= Flags.contentTypeInside }
        if expiry != nil { flags |= Flags.expires }
        // (Those that are none cost nothing.)
        let hasClientFlags = clientFlags != 0 && !isTombstone
        if hasClientFlags { flags |= Flags.clientFlagsInside }
        var buffer = ByteBuffer()
        buffer.reserveCapacity(
            Envelope.longestHeaderBytes + Envelope.clientFlagsBytes + value.readableBytes
                + (isKeyInside ? key.bytes.count + 2 : 0))
        buffer.writeMultipleIntegers(Envelope.format, flags, version.time, version.writer)
        if let expiry { buffer.writeInteger(expiry) }
        if hasClientFlags { buffer.writeInteger(clientFlags) }
        if isKeyInside {
            buffer.writeInteger(UInt16(key.bytes.count))
            buffer.writeBytes(key.bytes)
        }
        if let type {
            buffer.writeInteger(UInt8(type.utf8.count))
            buffer.writeString(type)
        }
        if !isTombstone { buffer.writeImmutableBuffer(value) }
        self.buffer = buffer
    }

    /// Checks the whole header; nil where these bytes are no envelope of a format that this version knows.
    package init?(_ buffer: ByteBuffer) {
        self.buffer = buffer
        guard buffer.readableBytes >= Envelope.headerBytes,
            buffer.getInteger(at: buffer.readerIndex, as: UInt8.self) == Envelope.format,
            flags & ~Flags.known == 0, valueStart <= buffer.writerIndex, version.time <= Version.latestStoredTime
        else { return nil }
        if isTombstone, valueStart != buffer.writerIndex || isManifest { return nil }
        if isManifest, largeValue == nil { return nil }
        if let key = keyInside, !(1...Limits.keyBytes).contains(key.readableBytes) { return nil }
    }

    package var version: Version {
        let start = buffer.readerIndex + 2
        guard let time = buffer.getInteger(at: start, as: UInt64.self),
            let writer = buffer.getInteger(at: start + 8, as: UInt32.self)
        else { preconditionFailure("the header was checked") }
        return Version(time: time, writer: writer)
    }

    /// The same pair as another write.
    package mutating func stamp(_ version: Version) {
        buffer.setInteger(version.time, at: buffer.readerIndex + 2)
        buffer.setInteger(version.writer, at: buffer.readerIndex + 10)
    }

    package var isTombstone: Bool { flags & Flags.tombstone != 0 }

    /// Since 1970; nil where the pair does not expire. Of a tombstone, the time up to which it is to be kept.
    package var expiryMilliseconds: UInt64? {
        guard flags & Flags.expires != 0 else { return nil }
        return buffer.getInteger(at: buffer.readerIndex + Envelope.headerBytes)
    }

    /// What a client of memcached's stored beside the value; 0 where there is nothing.
    package var clientFlags: UInt32 {
        guard flags & Flags.clientFlagsInside != 0 else { return 0 }
        return buffer.getInteger(at: headerEnd - Envelope.clientFlagsBytes) ?? 0
    }

    /// Whether the value is in chunks, and this says where (docs/large-values.md).
    package var isManifest: Bool { flags & Flags.manifest != 0 }

    /// What a manifest says; nil where this is none.
    package var largeValue: LargeValue? { isManifest ? LargeValue(value) : nil }

    /// Of the client's value, in bytes, wherever it is.
    package var valueLength: Int { largeValue?.length ?? buffer.writerIndex - valueStart }

    /// Whether the pair counts as missing: deleted, or expired.
    /// - Parameter now: the wall clock, in milliseconds since 1970.
    package func isGone(atMilliseconds now: UInt64) -> Bool {
        isTombstone || expiryMilliseconds.map { $0 <= now } ?? false
    }

    /// The client's bytes, sharing this envelope's storage; of a manifest, what says where they are.
    package var value: ByteBuffer {
        guard let value = buffer.getSlice(at: valueStart, length: buffer.writerIndex - valueStart) else {
            preconditionFailure("the header was checked")
        }
        return value
    }

    /// All but the value: the same pair with an empty one.
    package var head: Envelope {
        guard let bytes = buffer.getBytes(at: buffer.readerIndex, length: valueStart - buffer.readerIndex) else {
            preconditionFailure("the header was checked")
        }
        var head = self
        head.buffer = ByteBuffer(bytes: bytes)
        head.buffer.setInteger(flags & ~Flags.manifest, at: head.buffer.readerIndex + 1)
        return head
    }

    /// The client's key, where the stored key does not tell it.
    package var keyInside: ByteBuffer? {
        guard flags & Flags.keyInside != 0 else { return nil }
        let start = headerEnd
        guard let length = buffer.getInteger(at: start, as: UInt16.self) else { return nil }
        return buffer.getSlice(at: start + 2, length: Int(length))
    }

    /// The client's key of a pair that is stored under this one; nil where no client's key is stored so.
    package func clientKey(under key: StoredKey) -> Key? {
        key.isChunk ? nil : keyInside.flatMap { Key(Array($0.readableBytesView)) } ?? key.clientKey
    }

    package var contentType: String? {
        guard flags & Flags.contentTypeInside != 0, let length = buffer.getInteger(at: contentTypeStart, as: UInt8.self)
        else { return nil }
        return buffer.getString(at: contentTypeStart + 1, length: Int(length))
    }

    private var flags: UInt8 { buffer.getInteger(at: buffer.readerIndex + 1) ?? 0 }

    private var headerEnd: Int {
        buffer.readerIndex + Envelope.headerBytes + (flags & Flags.expires != 0 ? Envelope.expiryBytes : 0)
            + (flags & Flags.clientFlagsInside != 0 ? Envelope.clientFlagsBytes : 0)
    }

    private var contentTypeStart: Int {
        let start = headerEnd
        guard flags & Flags.keyInside != 0 else { return start }
        // A length that is cut off counts as endless, which the initialiser refuses.
        return buffer.getInteger(at: start, as: UInt16.self).map { start + 2 + Int($0) } ?? .max / 2
    }

    private var valueStart: Int {
        let start = contentTypeStart
        guard flags & Flags.contentTypeInside != 0 else { return start }
        guard start < buffer.writerIndex, let length = buffer.getInteger(at: start, as: UInt8.self) else {
            return .max / 2
        }
        return start + 1 + Int(length)
    }
}
