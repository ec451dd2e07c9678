// SPDX-License-Identifier: Apache-2.0

import KeyValue
import MemcachedFront
import NIOCore
import Testing

struct ParserTests {
    static let room = CommandParser.Room(valueBytes: 1000, isFull: false)

    /// All that the bytes say, handed over in pieces of so many.
    static func events(_ text: String, by piece: Int = .max, _ room: CommandParser.Room = room) -> [CommandParser.Event]
    {
        var parser = CommandParser()
        var input = ByteBuffer()
        var rest = ByteBuffer(string: text)
        var events: [CommandParser.Event] = []
        while let bytes = rest.readSlice(length: min(piece, rest.readableBytes)), bytes.readableBytes > 0 {
            input.writeImmutableBuffer(bytes)
            while let event = parser.next(in: &input, room) { events.append(event) }
        }
        return events
    }

    static func lines(_ events: [CommandParser.Event]) -> [String] {
        events.compactMap { if case .refused(let refusal) = $0 { refusal.line } else { nil } }
    }

    static let conversation = """
        set a 5 0 3\r\nx\ny\r\nget a b  c\r\ncas a 4294967295 -1 0 18446744073709551615 noreply\r\n\r\n\
        gat 2592001 a\ntouch a 60\r\nincr a 5 noreply\r\ndelete a\r\nversion\r\nmn\r\n\
        mg a v c k Oxyz t q\r\nms YWI= 2 b T30 F7 MA N5 C9\r\nhi\r\nmd a C7 q\r\nma n D5 MD N0 J3 v\r\nstats\r\nquit\r\n
        """

    @Test func aConversation() throws {
        let key = try #require(Key("a"))
        var set = Command.Store(.set)
        set.flags = 5
        set.value = ByteBuffer(string: "x\ny")
        var cas = Command.Store(.set, cas: .max)
        cas.flags = .max
        cas.expiry = .past
        var append = Command.Store(.append(creating: .inSeconds(5)), cas: 9)
        append.flags = 7
        append.expiry = .inSeconds(30)
        append.value = ByteBuffer(string: "hi")
        var increment = Command.Count()
        increment.delta = 5
        var decrement = increment
        decrement.isDecrement = true
        decrement.creating = (3, .never)
        var got = MetaReply()
        got.items = [.cas, .key, .opaque(ByteBuffer(string: "Oxyz")), .timeToLive]
        got.key = ByteBuffer(string: "a")
        var stored = MetaReply()
        stored.key = ByteBuffer(string: "YWI=")
        stored.isKeyEncoded = true
        var deleted = MetaReply()
        deleted.key = ByteBuffer(string: "a")
        var counted = MetaReply()
        counted.key = ByteBuffer(string: "n")
        counted.withNumber = true
        let wanted: [Command] = [
            Command(.set, .store(key, set)),
            Command(.get, .get([key, Key("b")!, Key("c")!], withCas: false, touch: nil)),
            Command(.cas, .store(key, cas), isQuiet: true),
            Command(.gat, .get([key], withCas: false, touch: .atSecond(2_592_001))),
            Command(.touch, .touch(key, .inSeconds(60))),
            Command(.incr, .count(key, increment), isQuiet: true),
            Command(.delete, .delete(key, cas: nil)),
            Command(.version, .say("VERSION")),
            Command(.mn, .say("MN")),
            Command(.mg, .metaGet(key, withValue: true, unlessCas: nil, touch: nil), isQuiet: true, meta: got),
            Command(.ms, .store(Key("ab")!, append), meta: stored),
            Command(.md, .delete(key, cas: 7), isQuiet: true, meta: deleted),
            Command(.ma, .count(Key("n")!, decrement), meta: counted),
            Command(.stats, .stats),
            Command(.quit, .quit),
        ]
        let events = ParserTests.events(ParserTests.conversation)
        #expect(events.count == wanted.count)
        for (event, command) in zip(events, wanted) { #expect(event == .command(command)) }
    }

    /// However the bytes arrive, they say the same.
    @Test(arguments: [1, 2, 3, 5, 7, 64])
    func inPieces(of piece: Int) {
        let garbage = "set a 0 0 2000\r\n\(String(repeating: "z", count: 2000))\r\nfoo\r\nget \r\n"
        for text in [ParserTests.conversation, garbage] {
            #expect(ParserTests.events(text, by: piece) == ParserTests.events(text))
        }
    }

    static let longKey = String(repeating: "k", count: 251)

    /// What is refused with a line, and the connection goes on.
    @Test(arguments: [
        ("foo\r\n", "ERROR"), ("\r\n", "ERROR"), ("get\r\n", "ERROR"), ("GET a\r\n", "ERROR"), ("none\r\n", "ERROR"),
        ("get \(longKey)\r\n", "CLIENT_ERROR bad command line format"),
        ("gat x a\r\n", "CLIENT_ERROR invalid exptime argument"), ("gat 1\r\n", "ERROR"),
        ("set \(longKey) 0 0 3\r\nabc\r\n", "CLIENT_ERROR bad command line format"),
        ("set a -1 0 3\r\nabc\r\n", "CLIENT_ERROR bad command line format"),
        ("set a 4294967296 0 3\r\nabc\r\n", "CLIENT_ERROR bad command line format"),
        ("set a 0 4294967296 3\r\nabc\r\n", "CLIENT_ERROR bad command line format"),
        ("set a 0 0 3 1 2\r\nabc\r\n", "CLIENT_ERROR bad command line format"),
        ("cas a 0 0 3 x\r\nabc\r\n", "CLIENT_ERROR bad command line format"),
        ("set a 0 0 1001\r\n\(String(repeating: "x", count: 1001))\r\n", "SERVER_ERROR object too large for cache"),
        ("incr a\r\n", "ERROR"), ("incr a x\r\n", "CLIENT_ERROR invalid numeric delta argument"),
        ("incr a -1\r\n", "CLIENT_ERROR invalid numeric delta argument"),
        ("incr a 18446744073709551616\r\n", "CLIENT_ERROR invalid numeric delta argument"),
        ("touch a x\r\n", "CLIENT_ERROR invalid exptime argument"), ("delete\r\n", "ERROR"),
        ("delete a 5\r\n", "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]"),
        ("verbosity\r\n", "ERROR"), ("quit now\r\n", "ERROR"),
        ("stats slabs\r\n", "CLIENT_ERROR only stats alone is served; GET /metrics over HTTP says more"),
        ("me a\r\n", "SERVER_ERROR me is not served: it is about one memcached, and this is many"),
        (
            "flush_all 0\r\n",
            "SERVER_ERROR flush_all is not served: this store forgets nothing by accident; delete the keys"
        ),
        ("mg a N5\r\n", "CLIENT_ERROR flag N of mg is not served"),
        ("mg a v v\r\n", "CLIENT_ERROR duplicate flag"), ("mg a !\r\n", "CLIENT_ERROR invalid flag"),
        ("mg a C\r\n", "CLIENT_ERROR bad token in command line format"),
        ("mg a O\(String(repeating: "o", count: 33))\r\n", "CLIENT_ERROR opaque token too long"),
        ("mg *** b\r\n", "CLIENT_ERROR error decoding key"), ("mg\r\n", "ERROR"),
        ("ms a 2 I\r\nhi\r\n", "CLIENT_ERROR flag I of ms is not served"),
        ("ms a 2 MX\r\nhi\r\n", "CLIENT_ERROR invalid mode for ms M token"),
        ("ma a Dx\r\n", "CLIENT_ERROR invalid numeric delta value"),
        // What only looks like a verb.
        ("\0get a\r\n", "ERROR"), ("\(String(repeating: "\0", count: 12))\u{1}get a\r\n", "ERROR"),
        ("GET a\r\n", "ERROR"),
        ("verbosityverbosity 1\r\n", "ERROR"), ("none a\r\n", "ERROR"), (" \r\n", "ERROR"), ("\r\n", "ERROR"),
        // The longest line.
        (
            "delete \(String(repeating: "y", count: 2040))\r\n",
            "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]"
        ),
    ])
    func refused(_ text: String, _ line: String) throws {
        let events = ParserTests.events(text + "mn\r\n")
        #expect(ParserTests.lines(events) == [line])
        #expect(events.last == .command(Command(.mn, .say("MN"))))
    }

    /// Where the next command begins can't be told any more: nothing behind it is taken for one.
    @Test(arguments: [
        ("set a 0 0\r\n", "ERROR"), ("set a 0 0 x\r\n", "CLIENT_ERROR bad command line format"),
        ("set a 0 0 -1\r\n", "CLIENT_ERROR bad command line format"),
        ("set a 0 0 2147483648\r\n", "CLIENT_ERROR bad command line format"), ("ms a\r\n", "ERROR"),
        ("set a 0 0 3\r\nabcd\r\n", "CLIENT_ERROR bad data chunk"),
        ("set a 0 0 3\r\nab\r\nx", "CLIENT_ERROR bad data chunk"),
        ("x\(String(repeating: "y", count: 2100))", "CLIENT_ERROR line too long: 2048 bytes, and 262144 of a get"),
        (
            "delete \(String(repeating: "y", count: 2041))\r\n",
            "CLIENT_ERROR line too long: 2048 bytes, and 262144 of a get"
        ),
    ])
    func ends(_ text: String, _ line: String) {
        let events = ParserTests.events(text + "\r\ndelete a\r\n")
        #expect(events.count == 1 && ParserTests.lines(events) == [line])
        if case .refused(let refusal)? = events.first { #expect(refusal.closes) }
    }

    @Test(arguments: ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\u{80}"])
    func otherProtocols(_ text: String) {
        // (The second is what memcached's binary protocol begins with, of which the text's first byte is only like it.)
        let first: UInt8 = 0x80
        var parser = CommandParser()
        var input = text.utf8.count < 4 ? ByteBuffer(bytes: [first, 0, 0]) : ByteBuffer(string: text)
        #expect(parser.next(in: &input, ParserTests.room) == .hangUp)
        #expect(parser.next(in: &input, ParserTests.room) == nil)
    }

    @Test func manyKeysInOneLine() throws {
        let keys = (0..<10_000).map { "key\($0)" }
        let events = ParserTests.events("get \(keys.joined(separator: " "))\r\n", by: 4096)
        guard case .command(let command)? = events.first,
            case .get(let found, withCas: false, touch: nil) = command.action
        else {
            Issue.record("\(events.count)")
            return
        }
        #expect(found.map { String(decoding: $0.bytes, as: UTF8.self) } == keys)
        let tooLong = "get \(String(repeating: "k ", count: Limits.getLineBytes / 2))\r\n"
        #expect(ParserTests.lines(ParserTests.events(tooLong, by: 4096)).count == 1)
    }

    @Test func quietCommandsAreRefusedInSilence() {
        let big = String(repeating: "x", count: 2000)
        for (text, isSilent) in [
            ("set a 0 0 2000 noreply\r\n\(big)\r\n", true), ("ms a 2000 q\r\n\(big)\r\n", false),
            ("flush_all noreply\r\n", true), ("incr a x noreply\r\n", true), ("set a x 0 1 noreply\r\na\r\n", true),
        ] {
            guard case .refused(let refusal)? = ParserTests.events(text).first else {
                Issue.record("\(text.prefix(30))")
                continue
            }
            #expect(refusal.isSilent == isSilent, "\(text.prefix(30))")
        }
    }

    @Test func nothingMoreMayBeHeld() {
        let full = CommandParser.Room(valueBytes: 1000, isFull: true)
        let events = ParserTests.events("set a 0 0 3\r\nabc\r\nmn\r\n", full)
        #expect(ParserTests.lines(events).map { $0.prefix(13) } == ["SERVER_ERROR "] && events.count == 2)
    }

    /// Any bytes in any pieces: events, in the end or none, and never a trap; and a line's bound holds.
    @Test(arguments: 0..<40)
    func garbage(seed: UInt64) {
        var state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        let words = [
            "set", "get", "a", "0", "-1", "5", " ", "\r\n", "\n", "noreply", "ms", "mg", "ma", "b", "MA", "N0", "\u{0}",
            "gat",
        ]
        for _ in 0..<200 {
            var parser = CommandParser()
            var input = ByteBuffer()
            for _ in 0..<random(60) {
                if random(4) == 0 {
                    input.writeInteger(UInt8(random(256)))
                } else {
                    input.writeString(words[random(words.count)] + (random(2) == 0 ? " " : ""))
                }
                while parser.next(in: &input, ParserTests.room) != nil {}
                #expect(input.readableBytes <= 1000 + 2 || parser.next(in: &input, ParserTests.room) == nil)
            }
        }
    }

    @Test func expirationTimes() {
        let now: UInt64 = 1_700_000_000_000
        #expect(ExpirationTime(0)?.resolved(atMilliseconds: now) == .never)
        #expect(ExpirationTime(-5)?.resolved(atMilliseconds: now) == .gone)
        #expect(ExpirationTime(30 * 86_400)?.resolved(atMilliseconds: now) == .at(now + 30 * 86_400_000))
        #expect(ExpirationTime(30 * 86_400 + 1)?.resolved(atMilliseconds: now) == .gone)
        #expect(ExpirationTime(1_700_000_001)?.resolved(atMilliseconds: now) == .at(1_700_000_001_000))
        #expect(ExpirationTime(1_700_000_000)?.resolved(atMilliseconds: now) == .gone)
        #expect(ExpirationTime(1 << 32) == nil)
    }
}
