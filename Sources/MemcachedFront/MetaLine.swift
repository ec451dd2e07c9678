// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials
internal import KeyValue
internal import NIOCore

/// The line of a meta command: `mg`, `ms`, `md`, `ma`. Its flags are single letters, some with a token behind them.
///
/// What marks an item as stale, or as about to be made again, is not served, for nothing of it is stored: a client that
/// asks for it has to know.
struct MetaLine {
    private typealias Word = CommandLine.Word

    private let verb: Command.Verb
    private let words: [Word]

    // What the flags say.
    private var reply = MetaReply()
    private var isQuiet = false
    private var isKeyEncoded = false
    private var withValue = false
    private var cas: UInt64?
    private var flags: UInt32 = 0
    private var expiry: ExpirationTime?
    private var creating: ExpirationTime?
    private var initial: UInt64 = 0
    private var delta: UInt64 = 1
    private var mode: UInt8?
    private var failure: String?

    /// Which flags each command takes.
    private static let known: [Command.Verb: String] = [
        .mg: "bcCfkOqstuvTPL", .ms: "bcCFkOqsTMNPL", .md: "bCkOqPL", .ma: "bCNJDTMOqtcvkPL",
    ]

    init(_ verb: Command.Verb, _ words: [CommandLine.Word]) {
        self.verb = verb
        self.words = words
        let first = verb == .ms ? 3 : 2
        guard words.count >= first else { return }
        if words.count - first > Limits.metaFlags { failure = "CLIENT_ERROR options flags are too long" }
        var seen: Set<UInt8> = []
        for word in words[first...].prefix(Limits.metaFlags) {
            guard let letter = word.first else { continue }
            guard seen.insert(letter).inserted else {
                failure = "CLIENT_ERROR duplicate flag"
                continue
            }
            read(letter, word.dropFirst(), word)
        }
        reply.key = ByteBuffer(words[1])
        reply.isKeyEncoded = isKeyEncoded
    }

    private mutating func read(_ letter: UInt8, _ token: Word, _ word: Word) {
        guard (0x21...0x7E).contains(letter),
            MetaLine.known[verb]?.utf8.contains(letter) == true
        else {
            let isOne = "hlEINRx".utf8.contains(letter)
            let name = String(decoding: [letter], as: UTF8.self)
            failure =
                isOne ? "CLIENT_ERROR flag \(name) of \(verb.name) is not served" : "CLIENT_ERROR invalid flag"
            return
        }
        switch letter {
        case UInt8(ascii: "b"): isKeyEncoded = true
        case UInt8(ascii: "c"): reply.items.append(.cas)
        case UInt8(ascii: "f"): reply.items.append(.clientFlags)
        case UInt8(ascii: "k"): reply.items.append(.key)
        case UInt8(ascii: "s"): reply.items.append(.size)
        case UInt8(ascii: "t"): reply.items.append(.timeToLive)
        case UInt8(ascii: "O"):
            if token.count > Limits.opaqueBytes { failure = "CLIENT_ERROR opaque token too long" }
            reply.items.append(.opaque(ByteBuffer(word)))
        case UInt8(ascii: "q"): isQuiet = true
        case UInt8(ascii: "v"): withValue = true
        case UInt8(ascii: "C"): cas = take(CommandLine.number(token))
        case UInt8(ascii: "F"): flags = take(CommandLine.number(token).flatMap { UInt32(exactly: $0) }) ?? 0
        case UInt8(ascii: "T"): expiry = take(CommandLine.expiry(token))
        case UInt8(ascii: "N"): creating = take(CommandLine.expiry(token))
        case UInt8(ascii: "J"): initial = take(CommandLine.number(token), "invalid numeric initial value") ?? 0
        case UInt8(ascii: "D"): delta = take(CommandLine.number(token), "invalid numeric delta value") ?? 0
        case UInt8(ascii: "M"): mode = take(token.first)
        // `u` bumps no item, and none is bumped here. `P` and `L` are for proxies.
        default: break
        }
    }

    private mutating func take<Value>(
        _ value: Value?, _ complaint: String = "bad token in command line format"
    ) -> Value? {
        if value == nil { failure = "CLIENT_ERROR \(complaint)" }
        return value
    }

    func command() -> CommandLine.Reading {
        if verb == .ms { return store() }
        guard words.count > 1 else { return .refused(CommandRefusal(verb, "ERROR")) }
        if let failure { return .refused(CommandRefusal(verb, failure)) }
        guard let key else { return .refused(CommandRefusal(verb, keyComplaint)) }
        switch verb {
        case .mg:
            return command(.metaGet(key, withValue: withValue, unlessCas: cas, touch: expiry))
        case .md: return command(.delete(key, cas: cas))
        default: return count(key)
        }
    }

    private func store() -> CommandLine.Reading {
        guard words.count > 2, let bytes = CommandLine.length(words[2]) else {
            let line = words.count > 2 ? CommandRefusal.badFormat : "ERROR"
            return .refused(CommandRefusal(verb, line, closes: true))
        }
        if let failure { return .discard(bytes: bytes, CommandRefusal(verb, failure)) }
        guard let key else { return .discard(bytes: bytes, CommandRefusal(verb, keyComplaint)) }
        let storeMode: Command.Store.Mode
        switch mode.map({ Character(UnicodeScalar($0)) }) {
        case nil, "S", "s": storeMode = .set
        case "E", "e": storeMode = .add
        case "R", "r": storeMode = .replace
        case "A", "a": storeMode = .append(creating: creating)
        case "P", "p": storeMode = .prepend(creating: creating)
        default: return .discard(bytes: bytes, CommandRefusal(verb, "CLIENT_ERROR invalid mode for ms M token"))
        }
        var store = Command.Store(storeMode, cas: cas)
        store.flags = flags
        store.expiry = expiry ?? .never
        return .value(Command(verb, .store(key, store), isQuiet: isQuiet, meta: reply), bytes: bytes)
    }

    private func count(_ key: Key) -> CommandLine.Reading {
        var count = Command.Count()
        switch mode.map({ Character(UnicodeScalar($0)) }) {
        case nil, "I", "i", "+": break
        case "D", "d", "-": count.isDecrement = true
        default: return .refused(CommandRefusal(verb, "CLIENT_ERROR invalid mode for ma M token"))
        }
        count.delta = delta
        count.cas = cas
        count.touch = expiry
        count.creating = creating.map { (initial, $0) }
        // (Whether there is a value in the answer is said by the answer's first word.)
        return command(.count(key, count), withNumber: withValue)
    }

    private func command(_ action: Command.Action, withNumber: Bool = false) -> CommandLine.Reading {
        var reply = reply
        reply.withNumber = withNumber
        return .command(Command(verb, action, isQuiet: isQuiet, meta: reply))
    }

    private var keyComplaint: String {
        isKeyEncoded ? "CLIENT_ERROR error decoding key" : CommandRefusal.badFormat
    }

    private var key: Key? {
        guard words[1].count <= Limits.commandKeyBytes else { return nil }
        guard isKeyEncoded else { return Key(Array(words[1])) }
        return Data(base64Encoded: Data(words[1])).flatMap { Key(Array($0)) }
    }
}
