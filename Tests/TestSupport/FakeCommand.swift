// SPDX-License-Identifier: Apache-2.0

/// One command as a `FakeMemcached` received it.
package struct FakeCommand: Sendable {
    /// Which connection it came on, counted from 1.
    package let connection: Int
    /// The first line's words.
    package let words: [String]
    /// What a storage command brings.
    package let value: [UInt8]

    package var name: String { words.first ?? "" }

    /// `get`, `gets`: all of them; else the one that follows the name.
    package var keys: [String] {
        switch name {
        case "get", "gets": Array(words.dropFirst())
        default: words.count > 1 ? [words[1]] : []
        }
    }

    var isNoReply: Bool { words.last == "noreply" }

    /// Takes one command off the front; nil where it is not all there yet.
    static func parse(_ bytes: inout [UInt8], connection: Int) -> FakeCommand? {
        guard let newline = bytes.firstIndex(of: UInt8(ascii: "\n")) else { return nil }
        var line = bytes[..<newline]
        if line.last == UInt8(ascii: "\r") { line = line.dropLast() }
        let words = String(decoding: line, as: UTF8.self).split(separator: " ").map(String.init)
        var end = newline + 1
        var value: [UInt8] = []
        if ["set", "add", "replace", "cas"].contains(words.first), words.count > 4, let length = Int(words[4]) {
            guard bytes.count >= end + length + 2 else { return nil }
            value = Array(bytes[end..<end + length])
            end += length + 2
        }
        bytes.removeFirst(end)
        return FakeCommand(connection: connection, words: words, value: value)
    }
}
