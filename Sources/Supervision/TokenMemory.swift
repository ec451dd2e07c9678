// SPDX-License-Identifier: Apache-2.0

package import AccessControl
private import CLinux
private import Glibc

/// What a supervisor has read of the token files, as each of its workers inherits it: in memory without a name, so that
/// workers which are started later have the same, whatever has become of the files, and no secret is in an argument or
/// in the environment.
package final class TokenMemory: Sendable {
    let descriptor: Int32

    /// So much that what it holds is never cut off: six keys of 32 bytes, in JSON.
    private static let largestBytes = 16 << 10

    package init(_ tokens: AccessTokens) throws(SystemError) {
        let made = memfd_create("kvserver-tokens", UInt32(KV_MFD_CLOEXEC))
        guard made >= 0 else { throw SystemError("can't keep the tokens") }
        defer { close(made) }
        let bytes = tokens.encoded
        guard write(made, bytes, bytes.count) == bytes.count else { throw SystemError("can't keep the tokens") }
        // (Its number must not be one under which a worker finds something.)
        let kept = fcntl(made, F_DUPFD_CLOEXEC, ListeningSocket.lowestDescriptor)
        guard kept >= 0 else { throw SystemError("can't keep the tokens") }
        descriptor = kept
    }

    deinit { close(descriptor) }

    /// Reads what a worker has inherited, and gives it up.
    static func tokens(in descriptor: Int32) -> AccessTokens? {
        var bytes = [UInt8](repeating: 0, count: largestBytes)
        // (All workers share one position in it.)
        let count = pread(descriptor, &bytes, bytes.count, 0)
        close(descriptor)
        guard count > 0 else { return nil }
        return AccessTokens(encoded: Array(bytes[..<count]))
    }
}
