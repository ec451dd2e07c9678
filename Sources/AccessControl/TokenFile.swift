// SPDX-License-Identifier: Apache-2.0

private import Glibc

/// A file of tokens: one a line, two while they are being changed; empty lines and lines that begin with `#` say
/// nothing. The one word `none` says that there is none, so that a file which was cut off by mistake opens no door.
package enum TokenFile {
    private static let largestBytes = 4096
    private static let mostTokens = 2

    /// Why a file is not used; one line, which has nothing of what is in it.
    package struct Failure: Error, Sendable, CustomStringConvertible {
        package let description: String
    }

    /// - Parameter isCredential: whether systemd made it for this service alone (systemd.exec(5), CREDENTIALS), in
    ///   whatever way it keeps others out. Any other file must be readable by its owner alone, this user or root.
    /// - Returns: none where the file says `none`.
    package static func read(_ path: String, isCredential: Bool) throws(Failure) -> [Token] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw failure(path, String(cString: strerror(errno))) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw failure(path, "is no file")
        }
        if !isCredential {
            guard status.st_uid == geteuid() || status.st_uid == 0 else {
                throw failure(path, "belongs to neither this user nor root")
            }
            guard status.st_mode & 0o077 == 0 else {
                throw failure(path, "can be read by others than its owner: chmod 400 \(path)")
            }
        }
        var bytes = [UInt8](repeating: 0, count: largestBytes + 1)
        let count = Glibc.read(descriptor, &bytes, bytes.count)
        guard count >= 0 else { throw failure(path, String(cString: strerror(errno))) }
        guard count <= largestBytes else { throw failure(path, "is over \(largestBytes) bytes") }
        return try tokens(in: bytes[..<count], of: path)
    }

    /// - Parameter path: for what is said of it.
    package static func tokens(in bytes: some Collection<UInt8>, of path: String) throws(Failure) -> [Token] {
        let blanks: [UInt8] = [0x20, 0x09, 0x0D]
        let lines = bytes.split(separator: 0x0A)
            .map { line in line.drop(while: blanks.contains).reversed().drop(while: blanks.contains).reversed() }
            .filter { !$0.isEmpty && $0[0] != UInt8(ascii: "#") }
        if lines.count == 1, lines[0].elementsEqual("none".utf8) { return [] }
        guard !lines.isEmpty else { throw failure(path, "has no token, nor the word none") }
        guard lines.count <= mostTokens else {
            throw failure(path, "has \(lines.count) tokens: there may be two at once")
        }
        var tokens: [Token] = []
        for line in lines {
            guard let token = Token(line) else {
                throw failure(
                    path,
                    "has what is no token: \(Token.shortest) to \(Token.longest) letters, digits or - . _ ~ + / =, as made by: openssl rand -hex 32"
                )
            }
            tokens.append(token)
        }
        return tokens
    }

    private static func failure(_ path: String, _ reason: String) -> Failure {
        Failure(description: "the token file \(path) \(reason)")
    }
}
