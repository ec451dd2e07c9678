// SPDX-License-Identifier: Apache-2.0

/// A file of tokens: one a line, two while they are being changed; empty lines and lines that begin with `#` say
/// nothing. The one word `none` says that there is none, so that a file which was cut off by mistake opens no door.
package enum TokenFile {
    private static let largestBytes = 4096
    private static let mostTokens = 2

    package typealias Failure = SecretFile.Failure

    /// - Parameter isCredential: whether systemd made it for this service alone (systemd.exec(5), CREDENTIALS), in
    ///   whatever way it keeps others out. Any other file must be readable by its owner alone, this user or root.
    /// - Returns: none where the file says `none`.
    package static func read(_ path: String, isCredential: Bool) throws(Failure) -> [Token] {
        let bytes = try SecretFile.read(path, as: "token", isForOwnerAlone: !isCredential, limit: largestBytes)
        return try tokens(in: bytes, of: path)
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
