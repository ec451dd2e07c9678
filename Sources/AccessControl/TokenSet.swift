// SPDX-License-Identifier: Apache-2.0

private import Crypto
private import FoundationEssentials

/// The tokens that open one door: one, or two while they are being changed. What is kept of them are their SHA-256
/// digests, which swift-crypto compares in constant time; there is no other way to compare a token, and none to show
/// it.
package struct TokenSet: Sendable, Codable {
    private let digests: [[UInt8]]

    init(_ tokens: [Token]) {
        digests = tokens.map { Array(SHA256.hash(data: $0.bytes)) }
    }

    /// Whether a client has sent one of them.
    package func contains(_ presented: UnsafeRawBufferPointer) -> Bool {
        // (What is longer is none, and is not worth the hashing.)
        guard presented.count <= Token.longest else { return false }
        var function = SHA256()
        function.update(bufferPointer: presented)
        let digest = function.finalize()
        // All are compared, whichever it is.
        var isKnown = false
        for known in digests where digest == known { isKnown = true }
        return isKnown
    }

    /// Whether the value of an `Authorization` field is `Bearer` and one of them (RFC 6750, section 2.1).
    package func admits(_ authorization: UnsafeRawBufferPointer) -> Bool {
        guard let token = BearerToken.token(in: authorization) else { return false }
        return contains(token)
    }
}

/// `Authorization: Bearer <token>`.
package enum BearerToken {
    /// Lower case, as the scheme is compared without regard to case (RFC 9110, section 11.1).
    private static let scheme: StaticString = "bearer "

    /// What follows the scheme and its blanks; nil where it is another scheme.
    package static func token(in value: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        let length = scheme.utf8CodeUnitCount
        guard value.count > length else { return nil }
        for index in 0..<length {
            let byte = value[index]
            let lower = (0x41...0x5A).contains(byte) ? byte | 0x20 : byte
            guard lower == scheme.utf8Start[index] else { return nil }
        }
        var start = length
        while start < value.count, value[start] == 0x20 { start += 1 }
        return UnsafeRawBufferPointer(rebasing: value[start...])
    }
}

/// A secret as it stands in its file. Lives for as long as it takes to make a `TokenSet` or `PeerSecrets` of it.
package struct Token: Sendable {
    /// Shorter ones could be guessed: `/peer/hello` proves the peers' one to whoever asks.
    package static let shortest = 32
    package static let longest = 256

    let bytes: [UInt8]

    /// Nil where it is too short or too long, or has other bytes than a bearer token may have (RFC 6750, section 2.1).
    init?(_ bytes: some Collection<UInt8>) {
        guard (Token.shortest...Token.longest).contains(bytes.count), bytes.allSatisfy(Token.isOfToken) else {
            return nil
        }
        self.bytes = Array(bytes)
    }

    private static func isOfToken(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: "-._~+/=".utf8.contains(byte)
        }
    }

    /// The value of an `Authorization` field. For whoever asks, not for whoever is asked.
    package var authorization: String { "Bearer " + String(decoding: bytes, as: UTF8.self) }
}
