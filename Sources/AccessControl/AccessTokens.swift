// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials

/// All that a node knows of secrets: what opens which door, and what its peers prove to each other. Made by the
/// supervisor of the token files, and handed to each worker in memory without a name: no process has any of it in its
/// arguments or its environment.
package struct AccessTokens: Sendable, Codable {
    /// Nil: whoever reaches the node may read and write pairs.
    package let data: TokenSet?
    /// Nil: see `AccessGate` for who may change the ring then.
    package let admin: TokenSet?
    /// Nil: whoever reaches the node may call it a peer.
    package let peer: PeerSecrets?

    package init(data: [Token] = [], admin: [Token] = [], peer: [Token] = []) {
        self.data = data.isEmpty ? nil : TokenSet(data)
        self.admin = admin.isEmpty ? nil : TokenSet(admin)
        self.peer = peer.isEmpty ? nil : PeerSecrets(peer)
    }

    /// The tokens that a file has, for each door; nil: there is no such file.
    /// - Parameter credentials: systemd's directory of this service's secrets.
    package static func read(
        data: String?, admin: String?, peer: String?, credentials: String?
    ) throws(TokenFile.Failure) -> AccessTokens {
        func read(_ path: String?) throws(TokenFile.Failure) -> [Token] {
            guard let path else { return [] }
            return try TokenFile.read(path, isCredential: SecretFile.isCredential(path, of: credentials))
        }
        return AccessTokens(data: try read(data), admin: try read(admin), peer: try read(peer))
    }

    // MARK: From the supervisor to its workers

    package var encoded: [UInt8] {
        do {
            return Array(try JSONEncoder().encode(self))
        } catch {
            preconditionFailure("bytes can always be said in JSON: \(error)")
        }
    }

    package init?(encoded bytes: [UInt8]) {
        guard let tokens = try? JSONDecoder().decode(AccessTokens.self, from: Data(bytes)) else { return nil }
        self = tokens
    }
}
