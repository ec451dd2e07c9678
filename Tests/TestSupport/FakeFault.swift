// SPDX-License-Identifier: Apache-2.0

/// What a `FakeMemcached` does wrong, once or several times, when it is asked a certain command.
package struct FakeFault: Sendable {
    package enum Kind: Hashable, Sendable, CustomStringConvertible {
        /// The right answer, too late.
        case late(milliseconds: Int)
        /// Half of the right answer; then the connection is closed.
        case cut
        /// Bytes that are no answer.
        case garbage
        /// In place of the first value, the value of a key that nobody asked for. Any other answer: as `duplicate`.
        case stranger
        /// The right answer, twice.
        case duplicate
        /// This line alone, such as `SERVER_ERROR`.
        case line(String)
        /// The right answer, one byte at a time.
        case drip
        /// Nothing, and nothing to what follows on this connection.
        case silence
        /// The connection is closed without an answer.
        case close
        /// A value that is longer than its header says.
        case overlong

        /// Nothing wrong, but just before, another client stores these.
        case overtaken([String: [UInt8]])
        /// Nothing wrong, but just before, another client deletes this.
        case vanished(String)

        package var description: String {
            switch self {
            case .late(let milliseconds): "late by \(milliseconds) ms"
            case .cut: "cut"
            case .garbage: "garbage"
            case .stranger: "stranger"
            case .duplicate: "duplicate"
            case .line(let line): line
            case .drip: "drip"
            case .silence: "silence"
            case .close: "close"
            case .overlong: "overlong"
            case .overtaken: "overtaken"
            case .vanished: "vanished"
            }
        }
    }

    package let kind: Kind
    /// The command's first word.
    package let command: String
    /// Whether the command has its effect all the same.
    package let isPerformed: Bool
    /// How many such commands go well before.
    var skip: Int
    /// How many go wrong then.
    var times: Int

    package init(_ kind: Kind, on command: String, isPerformed: Bool = true, skip: Int = 0, times: Int = 1) {
        self.kind = kind
        self.command = command
        self.isPerformed = isPerformed
        self.skip = skip
        self.times = times
    }
}
