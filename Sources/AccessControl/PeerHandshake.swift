// SPDX-License-Identifier: Apache-2.0

private import Crypto
private import FoundationEssentials
package import HashRing

/// What the nodes of a cluster prove to each other that they know, without sending it: keys that are derived from the
/// peers' tokens. Each knows one, or two while the token is being changed.
package struct PeerSecrets: Sendable, Codable {
    private let keys: [[UInt8]]

    /// (So that a file that serves for all doors does not make one door's secret of another's.)
    private static let purpose = Array("kvserver peer key 1".utf8)

    init(_ tokens: [Token]) {
        keys = tokens.map {
            Array(HMAC<SHA256>.authenticationCode(for: PeerSecrets.purpose, using: SymmetricKey(data: $0.bytes)))
        }
    }

    fileprivate func proofs(_ message: [UInt8]) -> [PeerProof] {
        keys.map { PeerProof(Array(HMAC<SHA256>.authenticationCode(for: message, using: SymmetricKey(data: $0)))) }
    }

    /// Which of the keys the proof was made with; compared in constant time.
    fileprivate func index(of proof: PeerProof, for message: [UInt8]) -> Int? {
        var found: Int?
        for (index, key) in keys.enumerated()
        where HMAC<SHA256>.isValidAuthenticationCode(
            proof.bytes, authenticating: message, using: SymmetricKey(data: key))
        {
            found = index
        }
        return found
    }
}

/// A random number that is used once.
package struct PeerNonce: Sendable, Codable, Hashable {
    static let count = 32
    let bytes: [UInt8]

    /// From the system's source, unless a test says otherwise.
    package init(using random: inout some RandomNumberGenerator) {
        bytes = (0..<PeerNonce.count).map { _ in UInt8.random(in: 0...255, using: &random) }
    }

    package init() {
        var random = SystemRandomNumberGenerator()
        self.init(using: &random)
    }

    package init(from decoder: any Decoder) throws { bytes = try Hex.decode(decoder, count: PeerNonce.count) }
    package func encode(to encoder: any Encoder) throws { try Hex.encode(bytes, encoder) }
}

/// That its maker knows a key, said of one connection.
package struct PeerProof: Sendable, Codable {
    static let count = 32
    fileprivate let bytes: [UInt8]

    fileprivate init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// As a header field has it.
    package var text: String { Hex.text(bytes) }

    package init?(_ text: String) {
        guard let bytes = Hex.bytes(text, count: PeerProof.count) else { return nil }
        self.bytes = bytes
    }

    package init(from decoder: any Decoder) throws { bytes = try Hex.decode(decoder, count: PeerProof.count) }
    package func encode(to encoder: any Encoder) throws { try Hex.encode(bytes, encoder) }
}

/// `POST /peer/hello`: the first that a node says on a connection.
package struct PeerHello: Sendable, Codable {
    package let caller: NodeID
    /// As the caller knows it, which is where it has connected to.
    package let callee: NodeID
    package let nonce: PeerNonce
}

/// Its answer: the callee proves itself first, with each key that it knows.
package struct PeerHelloAnswer: Sendable, Codable {
    package let nonce: PeerNonce
    package let proofs: [PeerProof]
}

/// Both sides' part in proving, on one connection, that they are nodes of one cluster (docs/security.md says what for).
///
///     caller → callee   hello: both names, the caller's nonce
///     callee → caller   its nonce, and HMAC(key, "callee", both nonces, both names)
///     caller → callee   with its first request: HMAC(key, "caller", both nonces, both names)
///
/// Nothing else is said before the callee has proved itself, and nothing is done before the caller has.
package enum PeerHandshake {
    /// The field that carries the caller's proof.
    package static let field = "X-KV-Peer-Proof"
    package static let path = "/peer/hello"
    /// The most that a hello, or what is answered to it, may take.
    package static let helloBytes = 1024
    /// Of each side: one for each key that it may know.
    static let mostProofs = 2

    fileprivate static func message(_ role: StaticString, _ hello: PeerHello, _ nonce: PeerNonce) -> [UInt8] {
        var bytes = Array("kvserver peer proof 1 \(role)\n\(hello.caller)\n\(hello.callee)\n".utf8)
        bytes += hello.nonce.bytes
        bytes += nonce.bytes
        return bytes
    }
}

/// The side that has connected.
package struct PeerCallerHandshake: Sendable {
    package let hello: PeerHello
    private let secrets: PeerSecrets

    package init(_ secrets: PeerSecrets, caller: NodeID, callee: NodeID, nonce: PeerNonce) {
        self.secrets = secrets
        self.hello = PeerHello(caller: caller, callee: callee, nonce: nonce)
    }

    /// What to prove oneself by; nil where the other side has not, and nothing may be sent to it.
    package func proof(after answer: PeerHelloAnswer) -> PeerProof? {
        let theirs = PeerHandshake.message("callee", hello, answer.nonce)
        // With the key that both know.
        for proof in answer.proofs {
            if let index = secrets.index(of: proof, for: theirs) {
                return secrets.proofs(PeerHandshake.message("caller", hello, answer.nonce))[index]
            }
        }
        return nil
    }
}

/// The side that is called: one for each connection.
package struct PeerCalleeHandshake: Sendable {
    private enum State {
        case stranger
        case greeted(PeerHello, PeerNonce)
        case proven(NodeID)
    }

    private var state = State.stranger

    package init() {}

    /// Who is at the other end, once that is proven.
    package var peer: NodeID? {
        if case .proven(let node) = state { node } else { nil }
    }

    /// - Returns: nil where the hello is meant for another node, or is not the connection's first.
    package mutating func greeted(
        _ hello: PeerHello, at node: NodeID, _ secrets: PeerSecrets, nonce: PeerNonce
    ) -> PeerHelloAnswer? {
        guard case .stranger = state, hello.callee == node else { return nil }
        state = .greeted(hello, nonce)
        return PeerHelloAnswer(nonce: nonce, proofs: secrets.proofs(PeerHandshake.message("callee", hello, nonce)))
    }

    /// Whether the caller has proved itself, now or before. There is one try.
    package mutating func proved(_ proof: PeerProof?, _ secrets: PeerSecrets) -> Bool {
        switch state {
        case .proven: return true
        case .stranger: return false
        case .greeted(let hello, let nonce):
            state = .stranger
            guard let proof, secrets.index(of: proof, for: PeerHandshake.message("caller", hello, nonce)) != nil else {
                return false
            }
            state = .proven(hello.caller)
            return true
        }
    }
}

private enum Hex {
    static func text(_ bytes: [UInt8]) -> String {
        bytes.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
    }

    static func bytes(_ text: String, count: Int) -> [UInt8]? {
        let digits = Array(text.utf8)
        guard digits.count == 2 * count else { return nil }
        var bytes: [UInt8] = []
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let high = value(digits[index]), let low = value(digits[index + 1]) else { return nil }
            bytes.append(high << 4 | low)
        }
        return bytes
    }

    private static func value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case 0x30...0x39: digit - 0x30
        case 0x61...0x66: digit - 0x57
        default: nil
        }
    }

    static func decode(_ decoder: any Decoder, count: Int) throws -> [UInt8] {
        let container = try decoder.singleValueContainer()
        guard let bytes = Hex.bytes(try container.decode(String.self), count: count) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "not \(count) bytes in hexadecimal")
        }
        return bytes
    }

    static func encode(_ bytes: [UInt8], _ encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(text(bytes))
    }
}

extension PeerHello {
    package init?(_ bytes: some Sequence<UInt8>) {
        guard let hello = try? JSONDecoder().decode(PeerHello.self, from: Data(bytes)) else { return nil }
        self = hello
    }

    package var encoded: [UInt8] { Array((try? JSONEncoder().encode(self)) ?? Data()) }
}

extension PeerHelloAnswer {
    /// Of whoever answers where a node should be: no more of it is looked at than a node would say.
    package init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count <= PeerHandshake.helloBytes,
            let answer = try? JSONDecoder().decode(PeerHelloAnswer.self, from: Data(bytes))
        else { return nil }
        self = answer
    }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        nonce = try container.decode(PeerNonce.self, forKey: .nonce)
        var list = try container.nestedUnkeyedContainer(forKey: .proofs)
        guard list.count.map({ $0 <= PeerHandshake.mostProofs }) ?? false else {
            throw DecodingError.dataCorruptedError(in: list, debugDescription: "more proofs than a node has keys")
        }
        var proofs: [PeerProof] = []
        while !list.isAtEnd { proofs.append(try list.decode(PeerProof.self)) }
        self.proofs = proofs
    }

    package var encoded: [UInt8] { Array((try? JSONEncoder().encode(self)) ?? Data()) }
}
