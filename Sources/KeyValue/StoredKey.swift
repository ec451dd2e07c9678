// SPDX-License-Identifier: Apache-2.0

private import Crypto
package import HashRing

/// A pair's key as memcached knows it: `d`, four digits of its slot, `:` and the client's key, percent-encoded where a
/// byte is outside 33…126 or is `%`. Where that is longer than 240 bytes, the rest is `%%` (which no encoding produces)
/// and the SHA-256 of the client's key in hexadecimal digits, and the key itself is in the envelope.
///
/// A chunk of a large value has its key's slot, and `%~` (which no encoding produces either), its upload in hexadecimal
/// digits, a dot and the chunk's number instead.
///
/// A hint, which is a pair that a node keeps for others, has the same key with an `h` in front instead.
///
/// Every byte is in 33…126, so that nothing a client sends reaches memcached's protocol unescaped.
package struct StoredKey: Hashable, Sendable {
    /// Its first byte.
    package enum Kind: UInt8, Hashable, Sendable, CaseIterable {
        case pair = 0x64
        case hint = 0x68
    }

    package let bytes: [UInt8]

    private static let prefixBytes = 6

    package init(_ key: Key) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(StoredKey.prefixBytes + key.bytes.count)
        StoredKey.appendPrefix(of: key.slot, to: &bytes)
        // Most keys are as they are.
        if bytes.count + key.bytes.count <= Limits.plainStoredKeyBytes, key.bytes.allSatisfy(StoredKey.isPlain) {
            bytes.append(contentsOf: key.bytes)
            self.bytes = bytes
            return
        }
        for byte in key.bytes {
            StoredKey.appendEncoded(byte, to: &bytes)
            if bytes.count > Limits.plainStoredKeyBytes {
                self.bytes = StoredKey.digested(key)
                return
            }
        }
        self.bytes = bytes
    }

    /// A stored key as it came from memcached or from a peer; nil where it isn't one.
    package init?(stored bytes: [UInt8]) {
        guard (StoredKey.prefixBytes + 1...Limits.storedKeyBytes).contains(bytes.count),
            bytes.allSatisfy({ (33...126).contains($0) }), StoredKey.slot(of: bytes) != nil
        else { return nil }
        self.bytes = bytes
    }

    package var isHint: Bool { bytes[0] == Kind.hint.rawValue }

    /// Where a node keeps the pair for others.
    package var hint: StoredKey { StoredKey(self, as: .hint) }

    /// Of what a hint is to become.
    package var pair: StoredKey { StoredKey(self, as: .pair) }

    /// A chunk of a large value; the number 0 is its label's.
    package init(chunk number: Int, of upload: UploadID, in slot: Slot) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(StoredKey.prefixBytes + 40)
        StoredKey.appendPrefix(of: slot, to: &bytes)
        bytes += StoredKey.chunkMark
        for byte in upload.bytes {
            bytes.append(StoredKey.hexDigit(byte >> 4))
            bytes.append(StoredKey.hexDigit(byte & 15))
        }
        bytes.append(UInt8(ascii: "."))
        bytes += "\(number)".utf8
        self.bytes = bytes
    }

    /// Whether it is of a chunk, or of a label.
    package var isChunk: Bool { bytes.withUnsafeBytes { StoredKey.isChunk($0) } }

    /// Of which upload, and which one of its chunks; nil where it is no chunk's.
    package var chunk: (upload: UploadID, number: Int)? {
        let rest = bytes.dropFirst(StoredKey.prefixBytes + StoredKey.chunkMark.count)
        guard isChunk, let dot = rest.firstIndex(of: UInt8(ascii: ".")), dot - rest.startIndex == 2 * UploadID.byteCount
        else { return nil }
        var id: [UInt8] = []
        for index in stride(from: rest.startIndex, to: dot, by: 2) {
            guard let high = StoredKey.hexValue(rest[index]), let low = StoredKey.hexValue(rest[index + 1]) else {
                return nil
            }
            id.append(high << 4 | low)
        }
        let digits = rest[(dot + 1)...]
        guard let upload = UploadID(id), digits.allSatisfy({ (0x30...0x39).contains($0) }), digits.count <= 6,
            let number = Int(String(decoding: digits, as: UTF8.self))
        else { return nil }
        // (One chunk has one key.)
        return StoredKey(chunk: number, of: upload, in: slot).bytes == bytes ? (upload, number) : nil
    }

    private static let chunkMark = Array("%~".utf8)

    /// Whether a stored key with these bytes is of a chunk, or of a label.
    package static func isChunk(_ bytes: UnsafeRawBufferPointer) -> Bool {
        bytes.count > prefixBytes + 2 && bytes[prefixBytes] == UInt8(ascii: "%")
            && bytes[prefixBytes + 1] == UInt8(ascii: "~")
    }

    private init(_ other: StoredKey, as kind: Kind) {
        var bytes = other.bytes
        bytes[0] = kind.rawValue
        self.bytes = bytes
    }

    package var slot: Slot {
        guard let slot = StoredKey.slot(of: bytes) else { preconditionFailure("checked by each initialiser") }
        return slot
    }

    /// How the stored keys of all clients' keys with this prefix go on behind their slot, digests apart: each byte is
    /// encoded by itself.
    package static func rest(ofPrefix prefix: [UInt8]) -> [UInt8] {
        var bytes: [UInt8] = []
        for byte in prefix { appendEncoded(byte, to: &bytes) }
        return bytes
    }

    /// Whether a stored key with these bytes may be of a client's key with such a prefix: of a digest only its envelope
    /// can tell.
    package static func mayHavePrefix(_ rest: [UInt8], _ stored: UnsafeRawBufferPointer) -> Bool {
        isDigest(stored) || stored.dropFirst(prefixBytes).starts(with: rest)
    }

    /// Whether the client's key is in the envelope, for this one is only its digest.
    package var isDigest: Bool { bytes.withUnsafeBytes { StoredKey.isDigest($0) } }

    private static func isDigest(_ bytes: UnsafeRawBufferPointer) -> Bool {
        bytes.count == prefixBytes + 66 && bytes[prefixBytes] == UInt8(ascii: "%")
            && bytes[prefixBytes + 1] == UInt8(ascii: "%")
    }

    /// The client's key; nil for a digest, or a chunk.
    package var clientKey: Key? {
        guard !isDigest, !isChunk else { return nil }
        var key: [UInt8] = []
        var index = StoredKey.prefixBytes
        while index < bytes.count {
            if bytes[index] == UInt8(ascii: "%") {
                guard index + 2 < bytes.count, let high = StoredKey.hexValue(bytes[index + 1]),
                    let low = StoredKey.hexValue(bytes[index + 2])
                else { return nil }
                key.append(high << 4 | low)
                index += 3
            } else {
                key.append(bytes[index])
                index += 1
            }
        }
        return Key(key)
    }

    /// The slot that the first bytes name; nil where they name none.
    package static func slot(of bytes: some RandomAccessCollection<UInt8>) -> Slot? {
        guard bytes.count > prefixBytes else { return nil }
        var index = bytes.startIndex
        guard Kind(rawValue: bytes[index]) != nil else { return nil }
        var value = 0
        for _ in 0..<4 {
            index = bytes.index(after: index)
            guard (0x30...0x39).contains(bytes[index]) else { return nil }
            value = value * 10 + Int(bytes[index] - 0x30)
        }
        guard bytes[bytes.index(after: index)] == UInt8(ascii: ":") else { return nil }
        return Slot(value)
    }

    private static func appendPrefix(of slot: Slot, to bytes: inout [UInt8]) {
        let value = slot.value
        bytes.append(Kind.pair.rawValue)
        bytes.append(0x30 + UInt8(value / 1000))
        bytes.append(0x30 + UInt8(value / 100 % 10))
        bytes.append(0x30 + UInt8(value / 10 % 10))
        bytes.append(0x30 + UInt8(value % 10))
        bytes.append(UInt8(ascii: ":"))
    }

    /// `%%` can't come from percent-encoding, so no plain key is ever taken for a digest.
    private static func digested(_ key: Key) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(prefixBytes + 66)
        appendPrefix(of: key.slot, to: &bytes)
        bytes.append(UInt8(ascii: "%"))
        bytes.append(UInt8(ascii: "%"))
        for byte in SHA256.hash(data: key.bytes) {
            bytes.append(hexDigit(byte >> 4))
            bytes.append(hexDigit(byte & 15))
        }
        return bytes
    }

    private static func isPlain(_ byte: UInt8) -> Bool { (33...126).contains(byte) && byte != UInt8(ascii: "%") }

    private static func appendEncoded(_ byte: UInt8, to bytes: inout [UInt8]) {
        if isPlain(byte) {
            bytes.append(byte)
        } else {
            bytes.append(UInt8(ascii: "%"))
            bytes.append(hexDigit(byte >> 4))
            bytes.append(hexDigit(byte & 15))
        }
    }

    private static func hexDigit(_ nibble: UInt8) -> UInt8 { nibble < 10 ? 0x30 + nibble : 0x37 + nibble }

    private static func hexValue(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x37
        default: nil
        }
    }
}
