// SPDX-License-Identifier: Apache-2.0

private import KeyValue
package import NIOCore

/// Cuts a connection's bytes into commands, however they arrive. A value without IO; it takes from the buffer what it
/// has understood and leaves the rest.
///
/// After bytes in which the next command's beginning can't be told any more it says that the connection ends: whoever
/// read on there might take a value's bytes for a command.
package struct CommandParser: Sendable {
    /// What the connection can take now, for a value that is about to come.
    package struct Room: Hashable, Sendable {
        /// The longest value.
        package var valueBytes: Int
        /// Nothing more may be held.
        package var isFull: Bool

        package init(valueBytes: Int, isFull: Bool) {
            self.valueBytes = valueBytes
            self.isFull = isFull
        }
    }

    package enum Event: Hashable, Sendable {
        case command(Command)
        /// It is not done; this line says why.
        case refused(CommandRefusal)
        /// The connection ends without a word.
        case hangUp
    }

    private enum Phase: Sendable {
        case line
        /// Its value comes, and a line end.
        case value(Command, bytes: Int)
        /// A value that nobody wants.
        case discarding(bytes: Int, CommandRefusal)
        case over
    }

    private var phase = Phase.line
    /// Bytes of the line that hold no line end.
    private var searched = 0

    package init() {}

    /// Whether the next byte begins a command.
    package var isBetweenCommands: Bool {
        if case .line = phase { searched == 0 } else { false }
    }

    /// The next thing that the bytes say; nil until there are more of them, and after an end.
    package mutating func next(in input: inout ByteBuffer, _ room: Room) -> Event? {
        while true {
            switch phase {
            case .over: return nil
            case .line:
                guard let line = takeLine(&input) else { return nil }
                switch line {
                case .failure(let event): return end(event)
                case .success(let line):
                    if let event = read(line, room) { return event }
                }
            case .value(var command, let bytes):
                guard input.readableBytes >= bytes + 2 else { return nil }
                guard let value = input.readSlice(length: bytes), input.readInteger(as: UInt16.self) == 0x0D0A else {
                    return end(.refused(.badDataChunk(command)))
                }
                phase = .line
                guard case .store(let key, var store) = command.action else { preconditionFailure("only these wait") }
                store.value = value
                command.action = .store(key, store)
                return .command(command)
            case .discarding(let bytes, let refusal):
                let count = min(bytes, input.readableBytes)
                input.moveReaderIndex(forwardBy: count)
                guard count == bytes else {
                    phase = .discarding(bytes: bytes - count, refusal)
                    return nil
                }
                phase = .line
                return .refused(refusal)
            }
        }
    }

    private mutating func end(_ event: Event) -> Event {
        phase = .over
        return event
    }

    // MARK: Lines

    private enum Line {
        case success(CommandLine)
        case failure(Event)
    }

    /// The next line, without its end; nil until it is whole.
    private mutating func takeLine(_ input: inout ByteBuffer) -> Line? {
        // Where memcached's binary protocol begins; nobody would understand what follows.
        if input.getInteger(at: input.readerIndex, as: UInt8.self) == 0x80 { return .failure(.hangUp) }
        // (In the buffer's own memory: a view looks at each byte through the buffer.)
        let (length, limit) = input.withUnsafeReadableBytes { bytes in
            let isLong = bytes.count > Limits.commandLineBytes && CommandLine.mayBeLong(bytes)
            let limit = isLong ? Limits.getLineBytes : Limits.commandLineBytes
            let end = min(bytes.count, limit + 1)
            return (bytes[min(searched, end)..<end].firstIndex(of: UInt8(ascii: "\n")), limit)
        }
        guard let length else {
            searched = min(input.readableBytes, limit + 1)
            return searched > limit ? .failure(.refused(.lineTooLong)) : nil
        }
        searched = 0
        guard var line = input.readSlice(length: length + 1) else { return nil }
        let hasReturn = length > 0 && line.getInteger(at: line.writerIndex - 2) == UInt8(ascii: "\r")
        line.moveWriterIndex(to: line.writerIndex - (hasReturn ? 2 : 1))
        return .success(CommandLine(line))
    }

    /// Nil where a value follows.
    private mutating func read(_ line: CommandLine, _ room: Room) -> Event? {
        if line.isHTTP { return end(.hangUp) }
        switch line.command() {
        case .command(let command): return .command(command)
        case .refused(let refusal): return refusal.closes ? end(.refused(refusal)) : .refused(refusal)
        case .value(let command, let bytes):
            if bytes > room.valueBytes {
                phase = .discarding(bytes: bytes + 2, .tooLarge(command))
            } else if room.isFull {
                phase = .discarding(bytes: bytes + 2, .overloaded(command))
            } else {
                phase = .value(command, bytes: bytes)
            }
            return nil
        case .discard(let bytes, let refusal):
            phase = .discarding(bytes: bytes + 2, refusal)
            return nil
        }
    }
}

/// Why a command is not done, in the words of the protocol.
package struct CommandRefusal: Hashable, Sendable {
    package var verb: Command.Verb
    package var line: String
    /// Nothing is said of it, for the command wanted no answer.
    package var isSilent = false
    /// The connection ends after it.
    package var closes = false

    package init(_ verb: Command.Verb, _ line: String, isSilent: Bool = false, closes: Bool = false) {
        self.verb = verb
        self.line = line
        self.isSilent = isSilent
        self.closes = closes
    }

    static let badFormat = "CLIENT_ERROR bad command line format"

    static let lineTooLong = CommandRefusal(
        .none, "CLIENT_ERROR line too long: \(Limits.commandLineBytes) bytes, and \(Limits.getLineBytes) of a get",
        closes: true)

    static func badDataChunk(_ command: Command) -> CommandRefusal {
        CommandRefusal(command.verb, "CLIENT_ERROR bad data chunk", closes: true)
    }

    static func tooLarge(_ command: Command) -> CommandRefusal {
        refusal(of: command, "SERVER_ERROR object too large for cache")
    }

    static func overloaded(_ command: Command) -> CommandRefusal {
        refusal(of: command, "SERVER_ERROR too much waits to be done already; try again in a second")
    }

    /// (A meta command is told of each error, quiet or not.)
    private static func refusal(of command: Command, _ line: String) -> CommandRefusal {
        CommandRefusal(command.verb, line, isSilent: command.isQuiet && command.meta == nil)
    }
}
