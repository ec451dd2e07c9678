// SPDX-License-Identifier: Apache-2.0

private import Glibc

/// Reads files that somebody has put there for this service: small ones, and, where they hold secrets, such as nobody
/// else can read.
package enum SecretFile {
    /// Why a file is not used; one line, which has nothing of what is in it.
    package struct Failure: Error, Sendable, CustomStringConvertible {
        package let description: String

        package init(description: String) { self.description = description }
    }

    /// Whether a file is right in systemd's directory of this service's secrets, which is for this service alone.
    package static func isCredential(_ path: String, of credentials: String?) -> Bool {
        guard let credentials, !credentials.isEmpty, path.hasPrefix(credentials + "/") else { return false }
        return !path.dropFirst(credentials.count + 1).contains("/")
    }

    /// - Parameters:
    ///   - name: what it is, for what is said of it.
    ///   - isForOwnerAlone: whether it must be readable by its owner alone, this user or root.
    ///   - limit: in bytes.
    package static func read(
        _ path: String, as name: String, isForOwnerAlone: Bool, limit: Int
    ) throws(Failure) -> [UInt8] {
        func failure(_ reason: String) -> Failure { Failure(description: "the \(name) file \(path) \(reason)") }
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw failure("can't be read: \(String(cString: strerror(errno)))") }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { throw failure("is no file") }
        if isForOwnerAlone {
            guard status.st_uid == geteuid() || status.st_uid == 0 else {
                throw failure("belongs to neither this user nor root")
            }
            guard status.st_mode & 0o077 == 0 else {
                throw failure("can be read by others than its owner: chmod 400 \(path)")
            }
        }
        var bytes = [UInt8](repeating: 0, count: limit + 1)
        let count = Glibc.read(descriptor, &bytes, bytes.count)
        guard count >= 0 else { throw failure("can't be read: \(String(cString: strerror(errno)))") }
        guard count <= limit else { throw failure("is over \(limit) bytes") }
        return Array(bytes[..<count])
    }
}
