// SPDX-License-Identifier: Apache-2.0

internal import AccessControl
private import NIOCore

/// How clients of memcached's show a token: as `memcached -Y` has it (doc/protocol.txt, "Authentication"), the first
/// command of a connection is a `set` of any key whose value is `<user> <password>`. The password is the token; the
/// user may be anybody.
enum Admission {
    /// - Returns: whether that is what the command is, with one of the tokens.
    static func isGranted(_ command: Command, by tokens: TokenSet) -> Bool {
        guard command.verb == .set, case .store(_, let store) = command.action else { return false }
        let value = Array(store.value.readableBytesView)
        guard let blank = value.firstIndex(of: UInt8(ascii: " ")) else { return false }
        return value[(blank + 1)...].withUnsafeBytes { tokens.contains($0) }
    }

    static let granted = CommandAnswer(.done, Reply("STORED"))

    /// (By these words clients know it.)
    static func refusal(_ verb: Command.Verb) -> CommandAnswer {
        let line = verb == .set ? "CLIENT_ERROR authentication failure" : "CLIENT_ERROR unauthenticated"
        return CommandAnswer(.clientError, Reply(line), closes: true)
    }
}
