// SPDX-License-Identifier: Apache-2.0

import HTTPFront
import KeyValue
import NIOCore
import TestSupport
import Testing

@Suite("If-Match and If-None-Match")
struct ConditionTests {
    private static let (one, two) = (Version(time: 0x1234, writer: 0xab), Version(time: 7, writer: 8))

    @Test(
        "well-formed",
        arguments: [
            ("*", .any, .any), (" * ", .any, .any),
            ("\"\(one)\"", .versions([one]), .versions([one])),
            ("\"\(one)\", \"\(two)\"", .versions([one, two]), .versions([one, two])),
            (",\t\"\(one)\" ,, W/\"\(two)\" ,", .versions([one]), .versions([one, two])),
            ("\"\"", .versions([]), .versions([])), ("\"*\"", .versions([]), .versions([])),
            ("\"a,b\",\"\(two)\"", .versions([two]), .versions([two])),
            ("\"0000000000001234000000AB\"", .versions([]), .versions([])),
        ] as [(String, Precondition.Tags, Precondition.Tags)])
    func wellFormed(_ text: String, _ strong: Precondition.Tags, _ weak: Precondition.Tags) {
        #expect(EntityTagParser.tags(in: [text], takesWeak: false) == strong)
        #expect(EntityTagParser.tags(in: [text], takesWeak: true) == weak)
    }

    @Test(
        "malformed",
        arguments: [
            "", " ", ",", "a", "\"", "\"a", "a\"", "**", "*, \"a\"", "\"a\", *", "\"a\" \"b\"", "w/\"a\"", "W/a",
            "W /\"a\"",
            "\"a b\"", "\"a\"b", "'a'", "\"a\";q=1", "\u{7F}",
        ])
    func malformed(_ text: String) {
        #expect(EntityTagParser.tags(in: [text], takesWeak: true) == nil)
        #expect(EntityTagParser.tags(in: [text], takesWeak: false) == nil)
    }

    @Test("fields of one name are one list, which is bounded")
    func manyFields() {
        let tags = ["\"\(ConditionTests.one)\"", "\"x\", \"\(ConditionTests.two)\""]
        #expect(EntityTagParser.tags(in: tags, takesWeak: true) == .versions([ConditionTests.one, ConditionTests.two]))
        #expect(EntityTagParser.tags(in: ["*", "\"a\""], takesWeak: true) == nil)
        let most = [String](repeating: "\"a\"", count: Limits.entityTags).joined(separator: ",")
        #expect(EntityTagParser.tags(in: [most], takesWeak: true) == .versions([]))
        #expect(EntityTagParser.tags(in: [most, "\"a\""], takesWeak: true) == nil)
    }

    @Test("any bytes are read or refused", arguments: [1, 2, 3] as [UInt64])
    func garbage(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let parts = ["\"", "*", ",", "W/", " ", "\t", "a", "\(ConditionTests.one)", "\u{E9}", "\u{0}"]
        for _ in 0..<20_000 {
            let text = (0..<Int.random(in: 0...8, using: &random)).map { _ in parts.randomElement(using: &random)! }
                .joined()
            let tags = EntityTagParser.tags(in: [text], takesWeak: true)
            if case .versions(let versions)? = tags { #expect(versions.allSatisfy { $0 == ConditionTests.one }) }
        }
    }

    @Test("a pair is created once")
    func create() throws {
        let connection = try TestConnection()
        let created = try #require(connection.ask(postRequest("/route", "key=a&val=1", "If-None-Match: *\r\n")))
        #expect((created.status, created.text) == (200, "OK"))
        let again = try #require(connection.ask(postRequest("/route", "key=a&val=2", "if-none-match:*\r\n")))
        #expect((again.status, again.outcome) == (412, "not-applied"))
        #expect(again.headers["etag"] == created.headers["etag"])
        #expect(connection.ask(getRequest("/route?key=a"))?.text == "1")
        // What is gone may be created again.
        #expect(connection.ask("DELETE /route?key=a HTTP/1.1\r\nHost: kv\r\n\r\n")?.status == 200)
        #expect(connection.ask(postRequest("/route", "key=a&val=3", "If-None-Match: *\r\n"))?.status == 200)
    }

    @Test("a pair is replaced in the version that is known")
    func replace() throws {
        let connection = try TestConnection()
        let missing = try #require(connection.ask(postRequest("/route", "key=a&val=1", "If-Match: *\r\n")))
        #expect((missing.status, missing.outcome, missing.headers["etag"]) == (412, "not-applied", nil))
        let first = try #require(connection.ask(postRequest("/route", "key=a&val=1"))?.headers["etag"])
        let second = try #require(
            connection.ask(postRequest("/route", "key=a&val=2", "If-Match: \"other\", \(first)\r\n")))
        #expect(second.status == 200)
        for tag in [first, "W/" + (second.headers["etag"] ?? ""), "\"other\""] {
            #expect(connection.ask(postRequest("/route", "key=a&val=3", "If-Match: \(tag)\r\n"))?.status == 412)
        }
        #expect(connection.ask(getRequest("/route?key=a"))?.text == "2")
    }

    @Test("a pair is deleted in the version that is known, and its tombstone says how long it is needed")
    func delete() throws {
        let connection = try TestConnection()
        let tag = try #require(connection.ask(postRequest("/route", "key=a&val=1"))?.headers["etag"])
        func delete(_ tag: String) -> Int? {
            connection.ask("DELETE /route?key=a HTTP/1.1\r\nHost: kv\r\nIf-Match: \(tag)\r\n\r\n")?.status
        }
        #expect(delete("\"other\"") == 412)
        #expect(connection.ask(getRequest("/route?key=a"))?.text == "1")
        #expect(delete(tag) == 200)
        let held = try #require(connection.data.pairs[Key("a")!])
        #expect(held.isTombstone)
        #expect(held.expiryMilliseconds == connection.data.wallMilliseconds + UInt64(Limits.tombstoneSeconds) * 1000)
        #expect(delete(tag) == 412)
    }

    @Test("a read is spared where the client holds the version")
    func read() throws {
        let connection = try TestConnection()
        #expect(connection.ask(getRequest("/route?key=a", "If-None-Match: *\r\n"))?.status == 404)
        let tag = try #require(connection.ask(postRequest("/route", "key=a&val=1"))?.headers["etag"])
        for condition in [tag, "W/\(tag)", "*", "\"x\", \(tag)"] {
            let answer = try #require(
                connection.ask(getRequest("/route?key=a", "If-None-Match: \(condition)\r\n")), "\(condition)")
            #expect((answer.status, answer.text, answer.headers["etag"]) == (304, "", tag))
            #expect(answer.headers["content-length"] == nil)
        }
        #expect(connection.ask(getRequest("/route?key=a", "If-None-Match: \"x\"\r\n"))?.text == "1")
        #expect(connection.ask(getRequest("/route?key=a", "If-Match: \(tag)\r\n"))?.text == "1")
        #expect(connection.ask(getRequest("/route?key=a", "If-Match: \"x\"\r\n"))?.status == 412)
        #expect(connection.isOpen)
    }

    @Test("a condition that can't be read, or that nobody would look at, is refused")
    func refused() throws {
        let connection = try TestConnection()
        for field in ["If-Match: x", "If-None-Match: \"", "If-Match:", "If-Match: *\r\nIf-Match: *"] {
            let answer = try #require(connection.ask(postRequest("/route", "key=a&val=1", field + "\r\n")))
            #expect((answer.status, answer.outcome) == (400, "not-applied"), "\(field)")
        }
        for request in [
            postRequest("/cache", "key=a&val=1", "If-Match: *\r\n"), getRequest("/cache?key=a", "If-None-Match: *\r\n"),
        ] {
            #expect(connection.ask(request)?.status == 400)
        }
        #expect(connection.data.pairs.isEmpty && connection.data.here.isEmpty)
        // (Elsewhere there is no representation to compare.)
        #expect(connection.ask(getRequest("/health/live", "If-Match: x\r\n"))?.status == 200)
    }

    @Test(
        "the store's verdict reaches the client",
        arguments: [
            (OperationFailure.notApplied(.changingOwner), 503, "not-applied"),
            (.notApplied(.contended), 503, "not-applied"), (.notApplied(.nodeUnreachable), 503, "not-applied"),
            (.outcomeUnknown(.notOwner), 503, "unknown"), (.tooFewHold(1, of: 2, .nodeUnreachable), 503, "unknown"),
        ])
    func failures(_ failure: OperationFailure, _ status: Int, _ outcome: String) throws {
        let connection = try TestConnection()
        connection.data.failure = failure
        let answer = try #require(connection.ask(postRequest("/route", "key=a&val=1", "If-Match: *\r\n")))
        #expect((answer.status, answer.outcome) == (status, outcome))
    }
}
