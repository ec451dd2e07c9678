// SPDX-License-Identifier: Apache-2.0

package import AccessControl
internal import NIOCore
internal import NIOSSL

/// A certificate, those that lead from it to an authority, and its key, all in PEM: what one side of a connection
/// proves itself by.
package struct TLSIdentity: Sendable, Codable, Hashable {
    let chain: String
    let key: String
    /// Where they came from, for what is said of them.
    let chainPath: String
    let keyPath: String

    private static let largestBytes = 64 << 10

    /// Reads both, and sees that they are what they should be and belong together.
    /// - Parameter isCredential: whether the key's file is one that systemd made for this service alone; any other one
    ///   must be readable by its owner alone, this user or root.
    package static func read(
        chain chainPath: String, key keyPath: String, isCredential: Bool
    ) throws(SecretFile.Failure) -> TLSIdentity {
        let chain = try SecretFile.read(chainPath, as: "certificate", isForOwnerAlone: false, limit: largestBytes)
        let key = try SecretFile.read(keyPath, as: "key", isForOwnerAlone: !isCredential, limit: largestBytes)
        let identity = TLSIdentity(
            chain: String(decoding: chain, as: UTF8.self), key: String(decoding: key, as: UTF8.self),
            chainPath: chainPath, keyPath: keyPath)
        _ = try identity.configuration()
        return identity
    }

    init(chain: String, key: String, chainPath: String, keyPath: String) {
        self.chain = chain
        self.key = key
        self.chainPath = chainPath
        self.keyPath = keyPath
    }

    /// What a server needs to show it; a client needs a little more.
    func configuration() throws(SecretFile.Failure) -> TLSConfiguration {
        let certificates = try PEM.certificates(chain, of: chainPath, as: "certificate")
        let privateKey: NIOSSLPrivateKey
        do {
            privateKey = try NIOSSLPrivateKey(bytes: Array(key.utf8), format: .pem)
        } catch {
            throw SecretFile.Failure(
                description: "the key file \(keyPath) has no key in PEM that can be used (one with a passphrase can't)")
        }
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: certificates.map { .certificate($0) }, privateKey: .privateKey(privateKey))
        configuration.minimumTLSVersion = .tlsv12
        configuration.applicationProtocols = ["http/1.1"]
        configuration.shutdownTimeout = TLSIdentity.farewell
        do {
            _ = try NIOSSLContext(configuration: configuration)
        } catch {
            throw SecretFile.Failure(
                description: "the key in \(keyPath) is not that of the certificate in \(chainPath)")
        }
        return configuration
    }

    /// How long the other side may take for its last word.
    private static let farewell = TimeAmount.seconds(1)

    /// What is true of the certificate at this time that whoever runs the node should know.
    /// - Parameter seconds: since 1970.
    func warnings(at seconds: Int) -> [String] {
        guard let leaf = try? PEM.certificates(chain, of: chainPath, as: "certificate").first else { return [] }
        if leaf.notValidAfter < seconds { return ["the certificate in \(chainPath) has expired: nobody will trust it"] }
        if leaf.notValidBefore > seconds {
            return ["the certificate in \(chainPath) is not valid yet: is the clock right?"]
        }
        let days = (leaf.notValidAfter - seconds) / 86_400
        return days < TLSIdentity.noticeDays ? ["the certificate in \(chainPath) expires in \(days) days"] : []
    }

    private static let noticeDays = 14

    /// Whether it was made for this address.
    func isFor(_ address: IPAddress) -> Bool {
        guard let leaf = try? PEM.certificates(chain, of: chainPath, as: "certificate").first else { return false }
        return leaf.isFor(address)
    }
}

/// The certificates that a text has.
enum PEM {
    static func certificates(
        _ text: String, of path: String, as name: String
    ) throws(SecretFile.Failure) -> [NIOSSLCertificate] {
        let found = try? NIOSSLCertificate.fromPEMBytes(Array(text.utf8))
        guard let found, !found.isEmpty else {
            throw SecretFile.Failure(description: "the \(name) file \(path) has no certificate in PEM")
        }
        return found
    }
}

extension NIOSSLCertificate {
    /// Whether one of its subject's alternative names is this address (RFC 5280, section 4.2.1.6).
    func isFor(_ address: IPAddress) -> Bool {
        _subjectAlternativeNames().contains { $0.nameType == .ipAddress && address.isEqual(to: $0.contents) }
    }
}
