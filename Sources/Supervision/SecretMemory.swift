// SPDX-License-Identifier: Apache-2.0

package import AccessControl
private import CLinux
private import FoundationEssentials
private import Glibc
package import TransportSecurity

/// All that a node's processes know and nobody else may.
package struct NodeSecrets: Sendable, Codable {
    package let tokens: AccessTokens
    package let tls: TLSSecrets

    package init(tokens: AccessTokens, tls: TLSSecrets) {
        self.tokens = tokens
        self.tls = tls
    }
}

/// What a supervisor has read of the files of tokens and keys, as each of its workers inherits it: in memory without a
/// name, so that workers which are started later have the same, whatever has become of the files, and no secret is in
/// an argument or in the environment.
package final class SecretMemory: Sendable {
    let descriptor: Int32
    /// What is to be known of them, a line each.
    let warnings: [String]

    /// So much that what it holds is never cut off: six keys of 32 bytes and the files of certificates, in JSON.
    private static let largestBytes = 2 << 20

    package init(_ secrets: NodeSecrets) throws(SystemError) {
        let made = memfd_create("kvserver-secrets", UInt32(KV_MFD_CLOEXEC))
        guard made >= 0 else { throw SystemError("can't keep the secrets") }
        defer { close(made) }
        guard let bytes = try? Array(JSONEncoder().encode(secrets)), bytes.count <= SecretMemory.largestBytes,
            write(made, bytes, bytes.count) == bytes.count
        else { throw SystemError("can't keep the secrets") }
        // (Its number must not be one under which a worker finds something.)
        let kept = fcntl(made, F_DUPFD_CLOEXEC, ListeningSocket.lowestDescriptor)
        guard kept >= 0 else { throw SystemError("can't keep the secrets") }
        descriptor = kept
        warnings = secrets.tls.warnings(at: time(nil))
    }

    deinit { close(descriptor) }

    /// Reads what a worker has inherited, and gives it up.
    static func secrets(in descriptor: Int32) -> NodeSecrets? {
        var bytes = [UInt8](repeating: 0, count: largestBytes)
        // (All workers share one position in it.)
        let count = pread(descriptor, &bytes, bytes.count, 0)
        close(descriptor)
        guard count > 0 else { return nil }
        return try? JSONDecoder().decode(NodeSecrets.self, from: Data(bytes[..<count]))
    }
}
