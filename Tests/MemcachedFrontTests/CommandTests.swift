// SPDX-License-Identifier: Apache-2.0

import Cluster
import KeyValue
import MemcachedFront
import NIOCore
import Testing

/// What a client sees, over a store that keeps its promises.
struct CommandTests {
    @Test func storingAndReading() throws {
        let client = try TestConnection()
        #expect(client.ask("get a\r\n") == "END\r\n")
        #expect(client.ask("set a 7 0 3\r\nx\ny\r\n") == "STORED\r\n")
        #expect(client.ask("get a\r\n") == "VALUE a 7 3\r\nx\ny\r\nEND\r\n")
        #expect(client.ask("get b a b a\r\n") == "VALUE a 7 3\r\nx\ny\r\nVALUE a 7 3\r\nx\ny\r\nEND\r\n")
        #expect(client.ask("add a 0 0 1\r\nz\r\n") == "NOT_STORED\r\n")
        #expect(client.ask("replace b 0 0 1\r\nz\r\n") == "NOT_STORED\r\n")
        #expect(client.ask("add b 0 0 0\r\n\r\n") == "STORED\r\n")
        #expect(client.ask("replace b 4294967295 0 1\r\nz\r\n") == "STORED\r\n")
        #expect(client.ask("get b\r\n") == "VALUE b 4294967295 1\r\nz\r\nEND\r\n")
        #expect(
            client.ask("append a 99 0 2\r\n!!\r\nprepend a 99 0 1\r\n>\r\nget a\r\n")
                == "STORED\r\nSTORED\r\nVALUE a 7 6\r\n>x\ny!!\r\nEND\r\n")
        #expect(client.ask("append c 0 0 1\r\nx\r\nprepend c 0 0 1\r\nx\r\n") == "NOT_STORED\r\nNOT_STORED\r\n")
        #expect(client.ask("delete a\r\ndelete a\r\nget a\r\n") == "DELETED\r\nNOT_FOUND\r\nEND\r\n")
    }

    @Test func whatWantsNoAnswerGetsNone() throws {
        let client = try TestConnection()
        let quiet = """
            set a 0 0 1 noreply\r\n1\r\nadd a 0 0 1 noreply\r\nx\r\nincr a 4 noreply\r\nappend a 0 0 1 noreply\r\n0\r\n\
            touch a 0 noreply\r\ndelete b noreply\r\nflush_all noreply\r\nverbosity 1 noreply\r\nincr b 1 noreply\r\n
            """
        #expect(client.ask(quiet) == "")
        #expect(client.ask("get a\r\n") == "VALUE a 0 2\r\n50\r\nEND\r\n")
        client.store.failure = .notApplied(.deadline)
        #expect(client.ask("set a 0 0 1 noreply\r\nx\r\nmn\r\n") == "MN\r\n")
    }

    @Test func casUniques() throws {
        let client = try TestConnection()
        #expect(client.ask("cas a 0 0 1 5\r\nx\r\n") == "NOT_FOUND\r\n")
        _ = client.ask("set a 1 0 1\r\nx\r\n")
        let version = try #require(client.store.pairs[Key("a")!]?.version)
        #expect(client.ask("gets a\r\n") == "VALUE a 1 1 \(version.casUnique)\r\nx\r\nEND\r\n")
        #expect(client.ask("cas a 2 0 1 \(version.casUnique &+ 1)\r\ny\r\n") == "EXISTS\r\n")
        #expect(client.ask("cas a 2 0 1 \(version.casUnique)\r\ny\r\n") == "STORED\r\n")
        #expect(client.ask("cas a 2 0 1 \(version.casUnique)\r\nz\r\n") == "EXISTS\r\n")
        #expect(client.ask("get a\r\n") == "VALUE a 2 1\r\ny\r\nEND\r\n")
        // Somebody else writes between the look and the write.
        let now = try #require(client.store.pairs[Key("a")!]?.version)
        client.store.overtakes = 1
        client.send("cas a 2 0 1 \(now.casUnique)\r\nz\r\n")
        client.advance(.milliseconds(20))
        #expect(client.said() == "EXISTS\r\n")
    }

    @Test(arguments: [
        ("10", "incr a 5", "15"), ("9", "incr a 1", "10"), ("10", "decr a 1", "9"), ("5", "decr a 6", "0"),
        ("18446744073709551615", "incr a 1", "0"),
        ("18446744073709551615", "incr a 18446744073709551615", "18446744073709551614"),
        ("18446744073709551615", "decr a 1", "18446744073709551614"), ("7  ", "incr a 1", "8"),
        ("007", "incr a 1", "8"),
        ("x", "incr a 1", nil), ("", "incr a 1", nil), ("-1", "incr a 1", nil), ("1 2", "incr a 1", nil),
        (" 1", "incr a 1", nil), ("18446744073709551616", "incr a 1", nil), ("000000000000000000001", "incr a 1", nil),
    ])
    func counting(_ value: String, _ line: String, _ wanted: String?) throws {
        let client = try TestConnection()
        #expect(client.ask("\(line)\r\n") == "NOT_FOUND\r\n")
        _ = client.ask("set a 3 0 \(value.utf8.count)\r\n\(value)\r\n")
        let answer = client.ask("\(line)\r\n")
        if let wanted {
            #expect(answer == "\(wanted)\r\n")
            #expect(client.ask("get a\r\n") == "VALUE a 3 \(wanted.utf8.count)\r\n\(wanted)\r\nEND\r\n")
        } else {
            #expect(answer == "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n")
        }
    }

    /// Each counts once, also where others are quicker again and again.
    @Test func anOvertakenIncrementBeginsAgain() throws {
        let client = try TestConnection()
        _ = client.ask("set a 0 0 1\r\n1\r\n")
        client.store.overtakes = 5
        client.send("incr a 1\r\n")
        client.advance(.milliseconds(200))
        #expect(client.said() == "2\r\n")
        client.store.overtakes = .max
        client.send("incr a 1\r\n")
        for _ in 0..<100 { client.advance(.milliseconds(20)) }
        #expect(
            client.said()
                == "SERVER_ERROR Others kept overwriting the pair while its condition was looked at. Try again.\r\n")
    }

    @Test func expiry() throws {
        let client = try TestConnection()
        let store = client.store
        #expect(
            client.ask("set a 9 100 1\r\nx\r\nset b 0 -1 1\r\nx\r\nset c 0 1 1\r\nx\r\n")
                == "STORED\r\nSTORED\r\nSTORED\r\n")
        #expect(store.pairs[Key("a")!]?.expiryMilliseconds == store.wallMilliseconds + 100_000)
        #expect(store.pairs[Key("b")!]?.isTombstone == true)
        store.wallMilliseconds += 1000
        #expect(client.ask("get b c\r\nincr c 1\r\ntouch c 5\r\n") == "END\r\nNOT_FOUND\r\nNOT_FOUND\r\n")
        #expect(client.ask("append a 0 5 1\r\ny\r\nmg a t s f v\r\n") == "STORED\r\nVA 2 t99 s2 f9\r\nxy\r\n")
        #expect(client.ask("touch a 0\r\nmg a t\r\n") == "TOUCHED\r\nHD t-1\r\n")
        #expect(client.ask("gat 50 a nobody\r\nmg a t\r\n") == "VALUE a 9 2\r\nxy\r\nEND\r\nHD t50\r\n")
        let found = client.ask("gats 60 a\r\n")
        let version = try #require(store.pairs[Key("a")!]?.version)
        #expect(found == "VALUE a 9 2 \(version.casUnique)\r\nxy\r\nEND\r\n")
        #expect(client.ask("gat -1 a\r\nget a\r\n") == "VALUE a 9 2\r\nxy\r\nEND\r\nEND\r\n")
        #expect(client.ask("set a 0 \(store.wallMilliseconds / 1000 - 1) 1\r\nx\r\nget a\r\n") == "STORED\r\nEND\r\n")
    }

    /// What HTTP stored beside the value stays where the value is changed.
    @Test func pairsOfHTTP() throws {
        let client = try TestConnection()
        let key = try #require(Key("a"))
        _ = client.store.put(
            Envelope(
                key: key, storedKey: StoredKey(key), value: ByteBuffer(string: "41"), contentType: "text/plain",
                expiryMilliseconds: client.store.wallMilliseconds + 5000), at: key)
        #expect(client.ask("get a\r\nincr a 1\r\n") == "VALUE a 0 2\r\n41\r\nEND\r\n42\r\n")
        let held = try #require(client.store.pairs[key])
        #expect(held.contentType == "text/plain" && held.expiryMilliseconds == client.store.wallMilliseconds + 5000)
    }

    @Test func metaCommands() throws {
        let client = try TestConnection()
        #expect(client.ask("mg a v k Oab\r\nmg a v q\r\nmn\r\n") == "EN ka Oab\r\nMN\r\n")
        #expect(client.ask("ms a 2 F5 T0 s k O1\r\nhi\r\n") == "HD s2 ka O1\r\n")
        #expect(client.ask("ms a 2 q\r\nho\r\nmg a v f\r\n") == "VA 2 f0\r\nho\r\n")
        #expect(client.ask("ms a 1 ME q k\r\nx\r\nms b 1 MR\r\nx\r\nms b 1 MA\r\nx\r\n") == "NS ka\r\nNS\r\nNS\r\n")
        #expect(
            client.ask("ms b 1 MA N100\r\nx\r\nms b 1 MA s\r\ny\r\nms b 1 MP\r\nz\r\nmg b v t\r\n")
                == "HD\r\nHD s2\r\nHD\r\nVA 3 t100\r\nzxy\r\n")
        let cas = try #require(client.store.pairs[Key("a")!]?.version.casUnique)
        #expect(client.ask("mg a v c C\(cas)\r\nmg a v C1\r\n") == "HD c\(cas)\r\nVA 2\r\nho\r\n")
        #expect(
            client.ask("ms a 1 C1\r\nx\r\nms c 1 C1\r\nx\r\nms a 1 MA C1\r\nx\r\nmd a C1 q\r\n")
                == "EX\r\nNF\r\nEX\r\nEX\r\n")
        let stored = client.ask("ms a 2 C\(cas) c\r\n10\r\n")
        let next = try #require(client.store.pairs[Key("a")!]?.version.casUnique)
        #expect(stored == "HD c\(next)\r\n" && next != cas)
        #expect(
            client.ask("ma a v D5\r\nma a MD v\r\nma a q\r\nma a C1\r\nma n\r\nma n N30 J7 v t\r\nma n v\r\n")
                == "VA 2\r\n15\r\nVA 2\r\n14\r\nEX\r\nNF\r\nVA 1 t30\r\n7\r\nVA 1\r\n8\r\n")
        #expect(client.ask("ma b\r\n") == "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n")
        #expect(
            client.ask("md a C\(next) O9\r\nmd a O9\r\nmd a O9\r\nmd b q\r\nmd b q\r\n")
                == "EX O9\r\nHD O9\r\nNF O9\r\nNF\r\n")
        // A key that no line could hold as it is.
        #expect(client.ask("ms AAEgCg== 1 b\r\nx\r\nmg AAEgCg== b v k\r\n") == "HD\r\nVA 1 kAAEgCg== b\r\nx\r\n")
        #expect(client.store.pairs[Key([0, 1, 32, 10])!] != nil)
        #expect(client.ask("mg b t T20\r\nms d 1\r\nx\r\nmg d t v T20\r\n") == "EN\r\nHD\r\nVA 1 t20\r\nx\r\n")
    }

    @Test func theRest() throws {
        let client = try TestConnection()
        #expect(
            client.ask("version\r\nversion noreply\r\n") == "VERSION 1.6.45-kvserver-0\r\nVERSION 1.6.45-kvserver-0\r\n"
        )
        #expect(client.ask("verbosity 1\r\n") == "OK\r\n")
        _ = client.ask("set a 0 0 1\r\nx\r\nget a\r\nget b\r\n")
        let stats = client.ask("stats\r\n")
        #expect(
            stats.hasSuffix("END\r\n") && stats.contains("STAT get_hits 1\r\n")
                && stats.contains("STAT get_misses 1\r\n"))
        #expect(client.ask("flush_all\r\nget a\r\n").hasSuffix("VALUE a 0 1\r\nx\r\nEND\r\n"))
        #expect(client.ask("quit\r\nget a\r\n") == "")
        #expect(client.ask("get a\r\n") == "")
    }

    @Test(arguments: [
        (OperationFailure.notApplied(.nodeUnreachable), "SERVER_ERROR A node that holds the key"),
        (.outcomeUnknown(.deadline), "SERVER_ERROR outcome unknown: The request's time"),
        (.tooFewHold(1, of: 2, .nodeUnreachable), "SERVER_ERROR outcome unknown: stored by 1 of the 2"),
        (.notApplied(.outOfMemory), "SERVER_ERROR out of memory storing object: "),
        (.notApplied(.tooLarge), "SERVER_ERROR object too large for cache"),
        (.staleRing, "SERVER_ERROR The ring is changing"),
    ])
    func failures(_ failure: OperationFailure, _ line: String) throws {
        let client = try TestConnection()
        client.store.failure = failure
        for command in [
            "set a 0 0 1\r\nx\r\n", "get a\r\n", "get a b c\r\n", "incr a 1\r\n", "delete a\r\n", "touch a 1\r\n",
            "mg a v q\r\n", "ms a 1 q\r\nx\r\n",
        ] {
            let answer = client.ask(command)
            #expect(
                answer.hasPrefix(line) && answer.split(separator: "\r\n").count == 1 && answer.hasSuffix("\r\n"),
                "\(command)")
        }
        client.store.failure = nil
        #expect(client.ask("get a\r\n") == "END\r\n" && client.front.heldBytes == 0)
    }

    @Test func tooLarge() throws {
        let client = try TestConnection()
        let half = String(repeating: "x", count: client.store.itemBytes / 2)
        #expect(client.ask("set a 0 0 \(half.utf8.count)\r\n\(half)\r\n") == "STORED\r\n")
        #expect(
            client.ask("append a 0 0 \(half.utf8.count)\r\n\(half)\r\n")
                == "SERVER_ERROR object too large for cache\r\n")
        let over = String(repeating: "x", count: 2 * client.store.itemBytes)
        #expect(
            client.ask("set a 0 0 \(over.utf8.count)\r\n\(over)\r\nmn\r\n")
                == "SERVER_ERROR object too large for cache\r\nMN\r\n")
        // Larger than what is left beside the key and the header.
        let nearly = String(repeating: "x", count: client.store.itemBytes - 10)
        #expect(
            client.ask("set a 0 0 \(nearly.utf8.count)\r\n\(nearly)\r\n")
                == "SERVER_ERROR object too large for cache\r\n")
        #expect(client.ask("get a\r\n") == "VALUE a 0 \(half.utf8.count)\r\n\(half)\r\nEND\r\n")
        #expect(client.front.heldBytes == 0)
    }

    @Test func aMultiplicationThatKeepsVersionsApart() {
        // No multiple by less than a convergent's denominator is nearer to a multiple of 2^64 than the multiple by the
        // convergent before it: Lagrange's law of best approximations. (The first quotient is 0.)
        let factor = Version.casFactor
        var (dividend, divisor) = (factor, 0 &- factor)
        var (before, denominator): (UInt64, UInt64) = (1, 1)
        while denominator < 1 << 32 {
            let multiple = denominator &* factor
            #expect(min(multiple, 0 &- multiple) >= 1 << 31, "\(denominator)")
            let (quotient, rest) = dividend.quotientAndRemainder(dividingBy: divisor)
            (dividend, divisor) = (divisor, rest)
            (before, denominator) = (denominator, quotient * denominator + before)
        }
        #expect(denominator > 1 << 32)
        var random = SystemRandomNumberGenerator()
        for _ in 0..<1000 {
            let version = Version(time: random.next() >> 1, writer: UInt32.random(in: 0...(.max / 2)))
            let next = version.successor(by: .random(in: 1...Limits.successorSteps))
            #expect(version.casUnique != next.casUnique)
            #expect(version.casUnique != Version(time: version.time + 1, writer: next.writer).casUnique)
        }
    }
}
