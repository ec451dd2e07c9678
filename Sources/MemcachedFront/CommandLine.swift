// SPDX-License-Identifier: Apache-2.0

internal import KeyValue
internal import NIOCore

/// One line of memcached's protocol, in words between spaces.
struct CommandLine {
    typealias Word = ByteBufferView

    enum Reading {
        case command(Command)
        case refused(CommandRefusal)
        /// A value of so many bytes comes next.
        case value(Command, bytes: Int)
        /// A value comes next that can't be stored.
        case discard(bytes: Int, CommandRefusal)
    }

    private let words: [Word]
    private let verb: Command.Verb

    init(_ line: ByteBuffer) {
        // (In the buffer's own memory: a view looks at each byte through the buffer.)
        (words, verb) = line.withUnsafeReadableBytes { bytes in
            var words: [Word] = []
            var verb = Command.Verb.none
            var start = 0
            for end in 0...bytes.count where end == bytes.count || bytes[end] == UInt8(ascii: " ") {
                if end > start, let word = line.viewBytes(at: line.readerIndex + start, length: end - start) {
                    if words.isEmpty {
                        verb = Command.Verb(named: UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
                    }
                    words.append(word)
                }
                start = end + 1
            }
            return (words, verb)
        }
    }

    /// Whether a line that begins so may be a long one, which asks for many keys.
    static func mayBeLong(_ bytes: UnsafeRawBufferPointer) -> Bool {
        let word = bytes.prefix(5).prefix { $0 != UInt8(ascii: " ") }
        return word.count < 5 && Command.Verb(named: UnsafeRawBufferPointer(rebasing: word)).isRetrieval
    }

    /// A request of HTTP's, which a browser was talked into: memcached hangs up on it, too.
    var isHTTP: Bool { words.count > 1 && words[words.count - 1].starts(with: "HTTP/".utf8) }

    func command() -> Reading {
        switch verb {
        case .get, .gets: return get(from: 1, touch: nil)
        case .gat, .gats:
            guard words.count > 2 else { return error }
            guard let touch = CommandLine.expiry(words[1]) else {
                return refused("CLIENT_ERROR invalid exptime argument")
            }
            return get(from: 2, touch: touch)
        case .set: return store(.set)
        case .add: return store(.add)
        case .replace: return store(.replace)
        case .append: return store(.append(creating: nil))
        case .prepend: return store(.prepend(creating: nil))
        case .cas: return store(.set, hasCas: true)
        case .delete: return delete()
        case .incr, .decr: return count()
        case .touch: return touch()
        case .mg, .ms, .md, .ma: return MetaLine(verb, words).command()
        case .mn: return say("MN")
        case .version: return .command(Command(.version, .say("VERSION")))
        case .verbosity: return words.count > 1 && words.count < 4 ? say("OK") : error
        case .stats:
            return words.count == 1
                ? .command(Command(.stats, .stats))
                : refused("CLIENT_ERROR only stats alone is served; GET /metrics over HTTP says more")
        case .quit: return words.count == 1 ? .command(Command(.quit, .quit)) : error
        case .none: return unknown()
        }
    }

    // MARK: Commands

    private func get(from first: Int, touch: ExpirationTime?) -> Reading {
        guard words.count > first else { return error }
        var keys: [Key] = []
        keys.reserveCapacity(words.count - first)
        for word in words[first...] {
            guard let key = CommandLine.key(word) else { return refused(CommandRefusal.badFormat) }
            keys.append(key)
        }
        return .command(Command(verb, .get(keys, withCas: verb == .gets || verb == .gats, touch: touch)))
    }

    private func store(_ mode: Command.Store.Mode, hasCas: Bool = false) -> Reading {
        let expected = hasCas ? 6 : 5
        // Without its length nobody can tell where the value ends.
        guard words.count >= expected, let bytes = CommandLine.length(words[4]) else {
            return .refused(
                CommandRefusal(verb, words.count < expected ? "ERROR" : CommandRefusal.badFormat, closes: true))
        }
        let isQuiet = isQuiet(after: expected)
        let bad = CommandRefusal(verb, CommandRefusal.badFormat, isSilent: isQuiet)
        guard words.count <= expected + 1, let key = CommandLine.key(words[1]),
            let flags = CommandLine.number(words[2]).flatMap({ UInt32(exactly: $0) }),
            let expiry = CommandLine.expiry(words[3])
        else { return .discard(bytes: bytes, bad) }
        var store = Command.Store(mode)
        if hasCas {
            guard let cas = CommandLine.number(words[5]) else { return .discard(bytes: bytes, bad) }
            store.cas = cas
        }
        store.flags = flags
        store.expiry = expiry
        return .value(Command(verb, .store(key, store), isQuiet: isQuiet), bytes: bytes)
    }

    private func delete() -> Reading {
        guard words.count > 1 else { return error }
        // (Clients of old send a time, which has to be 0.)
        let hasTime = words.count > 2 && words[2].elementsEqual("0".utf8)
        let expected = hasTime ? 3 : 2
        let isQuiet = isQuiet(after: expected)
        guard words.count == expected + (isQuiet ? 1 : 0), let key = CommandLine.key(words[1]) else {
            return refused("\(CommandRefusal.badFormat).  Usage: delete <key> [noreply]")
        }
        return .command(Command(.delete, .delete(key, cas: nil), isQuiet: isQuiet))
    }

    private func count() -> Reading {
        guard words.count > 2 else { return error }
        let isQuiet = isQuiet(after: 3)
        guard words.count <= 4, let key = CommandLine.key(words[1]) else {
            return refused(CommandRefusal.badFormat, isSilent: isQuiet)
        }
        guard let delta = CommandLine.number(words[2]) else {
            return refused("CLIENT_ERROR invalid numeric delta argument", isSilent: isQuiet)
        }
        var count = Command.Count()
        count.isDecrement = verb == .decr
        count.delta = delta
        return .command(Command(verb, .count(key, count), isQuiet: isQuiet))
    }

    private func touch() -> Reading {
        guard words.count > 2 else { return error }
        let isQuiet = isQuiet(after: 3)
        guard words.count <= 4, let key = CommandLine.key(words[1]) else {
            return refused(CommandRefusal.badFormat, isSilent: isQuiet)
        }
        guard let expiry = CommandLine.expiry(words[2]) else {
            return refused("CLIENT_ERROR invalid exptime argument", isSilent: isQuiet)
        }
        return .command(Command(.touch, .touch(key, expiry), isQuiet: isQuiet))
    }

    /// Commands that work on one memcached and its memory alone, which nobody sees here.
    private func unknown() -> Reading {
        guard let name = words.first.map({ String(decoding: $0.prefix(32), as: UTF8.self) }) else { return error }
        let isSilent = isQuiet(after: 1)
        switch name {
        case "flush_all":
            return refused(
                "SERVER_ERROR flush_all is not served: this store forgets nothing by accident; delete the keys",
                isSilent: isSilent)
        case "me", "slabs", "lru", "lru_crawler", "cache_memlimit", "shutdown", "watch", "extstore", "refresh_certs",
            "debugtime", "debugitem", "misbehave", "debug":
            return refused(
                "SERVER_ERROR \(name) is not served: it is about one memcached, and this is many", isSilent: isSilent)
        default: return error
        }
    }

    private func say(_ line: String) -> Reading {
        .command(Command(verb, .say(line), isQuiet: verb != .mn && isQuiet(after: 1)))
    }

    private var error: Reading { .refused(CommandRefusal(verb, "ERROR")) }

    private func refused(_ line: String, isSilent: Bool = false) -> Reading {
        .refused(CommandRefusal(verb, line, isSilent: isSilent))
    }

    /// Whether the last word, behind so many others, is `noreply`.
    private func isQuiet(after count: Int) -> Bool {
        words.count > count && words[words.count - 1].elementsEqual("noreply".utf8)
    }

    // MARK: Words

    static func key(_ word: Word) -> Key? {
        // (A control byte is nothing that a client should send, and harmless here: no key goes into a line as it is.)
        word.count <= Limits.commandKeyBytes ? Key(Array(word)) : nil
    }

    /// Digits alone.
    static func number(_ word: some Collection<UInt8>) -> UInt64? {
        guard !word.isEmpty, word.count <= 20 else { return nil }
        var value: UInt64 = 0
        for byte in word {
            guard (0x30...0x39).contains(byte) else { return nil }
            let (product, isOver) = value.multipliedReportingOverflow(by: 10)
            let (sum, isTooLarge) = product.addingReportingOverflow(UInt64(byte - 0x30))
            guard !isOver, !isTooLarge else { return nil }
            value = sum
        }
        return value
    }

    /// Of a value: what memcached takes for one.
    static func length(_ word: Word) -> Int? {
        number(word).flatMap { $0 <= UInt64(Int32.max - 2) ? Int($0) : nil }
    }

    static func expiry(_ word: some Collection<UInt8>) -> ExpirationTime? {
        let isNegative = word.first == UInt8(ascii: "-")
        guard let size = number(isNegative ? word.dropFirst() : word[...]), let number = Int64(exactly: size) else {
            return nil
        }
        return ExpirationTime(isNegative ? -number : number)
    }
}
