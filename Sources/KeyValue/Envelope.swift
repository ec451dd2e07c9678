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
    /// As the buffer has them. (Each request looks at them many times.)
    private var flags: UInt8
    /// How much comes before the value.
    private let headBytes: Int

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
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: Envelope.headerBytes) { header in
            header[0] = Envelope.format
            header[1] = flags
            Envelope.write(version, into: header)
            return Envelope.headerBytes
        }
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
        self.flags = flags
        self.headBytes = buffer.readableBytes
        if !isTombstone { buffer.writeImmutableBuffer(value) }
        self.buffer = buffer
    }

    /// Checks the whole header; nil where these bytes are no envelope of a format that this version knows.
    package init?(_ buffer: ByteBuffer) {
        guard let (flags, headBytes) = buffer.withUnsafeReadableBytes({ Envelope.head(of: $0) }) else { return nil }
        self.buffer = buffer
        self.flags = flags
        self.headBytes = headBytes
        if isTombstone, headBytes != buffer.readableBytes || isManifest { return nil }
        if isManifest, largeValue == nil { return nil }
    }

    private static func head(of bytes: UnsafeRawBufferPointer) -> (flags: UInt8, bytes: Int)? {
        guard bytes.count >= headerBytes, bytes[0] == format else { return nil }
        let flags = bytes[1]
        guard flags & ~Flags.known == 0, version(in: bytes).time <= Version.latestStoredTime else { return nil }
        var end = fixedBytes(flags)
        if flags & Flags.keyInside != 0 {
            guard bytes.count >= end + 2 else { return nil }
            let length = Int(UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: end, as: UInt16.self)))
            guard (1...Limits.keyBytes).contains(length) else { return nil }
            end += 2 + length
        }
        if flags & Flags.contentTypeInside != 0 {
            guard bytes.count > end else { return nil }
            end += 1 + Int(bytes[end])
        }
        return end <= bytes.count ? (flags, end) : nil
    }

    /// Before the key, or what comes in its place.
    private static func fixedBytes(_ flags: UInt8) -> Int {
        headerBytes + (flags & Flags.expires != 0 ? expiryBytes : 0)
            + (flags & Flags.clientFlagsInside != 0 ? clientFlagsBytes : 0)
    }

    private static func version(in bytes: UnsafeRawBufferPointer) -> Version {
        Version(
            time: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt64.self)),
            writer: UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 10, as: UInt32.self)))
    }

    package var version: Version { buffer.withUnsafeReadableBytes { Envelope.version(in: $0) } }

    /// The same pair as another write.
    package mutating func stamp(_ version: Version) {
        buffer.withUnsafeMutableReadableBytes { Envelope.write(version, into: $0) }
    }

    private static func write(_ version: Version, into header: UnsafeMutableRawBufferPointer) {
        header.storeBytes(of: version.time.bigEndian, toByteOffset: 2, as: UInt64.self)
        header.storeBytes(of: version.writer.bigEndian, toByteOffset: 10, as: UInt32.self)
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
        return buffer.getInteger(at: keyStart - Envelope.clientFlagsBytes) ?? 0
    }

    /// Whether the value is in chunks, and this says where (docs/large-values.md).
    package var isManifest: Bool { flags & Flags.manifest != 0 }

    /// What a manifest says; nil where this is none.
    package var largeValue: LargeValue? { isManifest ? LargeValue(value) : nil }

    /// Of the client's value, in bytes, wherever it is.
    package var valueLength: Int { largeValue?.length ?? buffer.readableBytes - headBytes }

    /// Whether the pair counts as missing: deleted, or expired.
    /// - Parameter now: the wall clock, in milliseconds since 1970.
    package func isGone(atMilliseconds now: UInt64) -> Bool {
        isTombstone || expiryMilliseconds.map { $0 <= now } ?? false
    }

    /// The client's bytes, sharing this envelope's storage; of a manifest, what says where they are.
    package var value: ByteBuffer { bytes(headBytes..<buffer.readableBytes) }

    /// All but the value: the same pair with an empty one.
    package var head: Envelope {
        var head = self
        head.flags &= ~Flags.manifest
        head.buffer = ByteBuffer(buffer: bytes(0..<headBytes))
        head.buffer.setInteger(head.flags, at: head.buffer.readerIndex + 1)
        return head
    }

    private func bytes(_ range: Range<Int>) -> ByteBuffer {
        guard let bytes = buffer.getSlice(at: buffer.readerIndex + range.lowerBound, length: range.count) else {
            preconditionFailure("the header was checked")
        }
        return bytes
    }

    /// The client's key, where the stored key does not tell it.
    package var keyInside: ByteBuffer? {
        guard flags & Flags.keyInside != 0 else { return nil }
        guard let length = buffer.getInteger(at: keyStart, as: UInt16.self) else { return nil }
        return buffer.getSlice(at: keyStart + 2, length: Int(length))
    }

    /// The client's key of a pair that is stored under this one; nil where no client's key is stored so.
    package func clientKey(under key: StoredKey) -> Key? {
        key.isChunk ? nil : keyInside.flatMap { Key(Array($0.readableBytesView)) } ?? key.clientKey
    }

    package var contentType: String? {
        guard flags & Flags.contentTypeInside != 0 else { return nil }
        let start = keyStart + (keyInside.map { 2 + $0.readableBytes } ?? 0) + 1
        return buffer.getString(at: start, length: buffer.readerIndex + headBytes - start)
    }

    private var keyStart: Int { buffer.readerIndex + Envelope.fixedBytes(flags) }
}
