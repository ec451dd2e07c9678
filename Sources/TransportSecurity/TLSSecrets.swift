// SPDX-License-Identifier: Apache-2.0

package import AccessControl
package import HashRing

/// What a node's connections are secured by, as the supervisor has read it and each worker gets it: workers that are
/// started later have the same, whatever has become of the files.
package struct TLSSecrets: Sendable, Codable, Hashable {
    /// What clients are shown; nil: they speak plain text.
    package let clients: TLSIdentity?
    /// What nodes show to each other, and by which authority they know each other; nil: they speak plain text.
    package let peers: Peers?

    package struct Peers: Sendable, Codable, Hashable {
        let identity: TLSIdentity
        let authority: String
        let authorityPath: String

        private static let largestBytes = 256 << 10

        /// - Parameter node: whom the certificate has to be for.
        package static func read(
            chain: String, key: String, authority: String, of node: NodeID, isCredential: Bool
        ) throws(SecretFile.Failure) -> Peers {
            let identity = try TLSIdentity.read(chain: chain, key: key, isCredential: isCredential)
            guard let address = IPAddress(node.host), identity.isFor(address) else {
                throw SecretFile.Failure(
                    description:
                        "the certificate file \(chain) is not for \(node.host): its subjectAltName has to have that IP address (deploy/make-certs.sh \(node.host))"
                )
            }
            let bytes = try SecretFile.read(authority, as: "authority", isForOwnerAlone: false, limit: largestBytes)
            let text = String(decoding: bytes, as: UTF8.self)
            _ = try PEM.certificates(text, of: authority, as: "authority")
            return Peers(identity: identity, authority: text, authorityPath: authority)
        }
    }

    package init(clients: TLSIdentity? = nil, peers: Peers? = nil) {
        self.clients = clients
        self.peers = peers
    }

    /// Lines for the log.
    /// - Parameter seconds: since 1970.
    package func warnings(at seconds: Int) -> [String] {
        (clients?.warnings(at: seconds) ?? [])
            + (peers?.identity == clients ? [] : peers?.identity.warnings(at: seconds) ?? [])
    }
}
