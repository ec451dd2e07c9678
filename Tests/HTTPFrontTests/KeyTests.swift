// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import HTTPFront
import KeyValue
import NIOCore
import Testing

@Suite("/keys/{key}")
struct KeyTests {
    private struct Problem: Decodable {
        let type: String
        let title: String
        let status: Int
        let detail: String
        let outcome: String?
    }

    private static func put(_ path: String, _ body: String, _ fields: String = "") -> String {
        "PUT \(path) HTTP/1.1\r\nHost: kv\r\n\(fields)Content-Length: \(body.utf8.count)\r\n\r\n\(body)"
    }

    private static func delete(_ path: String, _ fields: String = "") -> String {
        "DELETE \(path) HTTP/1.1\r\nHost: kv\r\n\(fields)\r\n"
    }

    private static func problem(_ answer: ReadAnswer?) throws -> Problem {
        let answer = try #require(answer)
        #expect(answer.headers["content-type"] == "application/problem+json")
        let problem = try JSONDecoder().decode(Problem.self, from: Data(answer.body))
        #expect(problem.status == answer.status && problem.type == "about:blank" && !problem.detail.isEmpty)
        #expect(!problem.detail.hasSuffix("\n") && problem.outcome == answer.outcome)
        return problem
    }

    @Test("a value comes back as it was put, with its type and its version")
    func roundTrip() throws {
        let connection = try TestConnection()
        let stored = try #require(
            connection.ask(Self.put("/keys/a", "{\"n\":1}", "Content-Type: application/json; charset=utf-8\r\n")))
        #expect(stored.status == 204 && stored.body.isEmpty && stored.headers["content-length"] == nil)
        let found = try #require(connection.ask(getRequest("/keys/a")))
        #expect((found.status, found.text) == (200, "{\"n\":1}"))
        #expect(found.headers["content-type"] == "application/json; charset=utf-8")
        #expect(found.headers["x-content-type-options"] == "nosniff")
        #expect(found.headers["content-security-policy"] == "sandbox")
        #expect(found.headers["etag"] == stored.headers["etag"] && found.headers["etag"] != nil)
        #expect(found.headers["accept-ranges"] == "bytes")
        // The older surface shows the same pair, and no type.
        let plain = try #require(connection.ask(getRequest("/route?key=a")))
        #expect((plain.text, plain.headers["content-type"]) == ("{\"n\":1}", "application/octet-stream"))

        #expect(connection.ask(Self.put("/keys/a", ""))?.status == 204)
        let empty = try #require(connection.ask(getRequest("/keys/a")))
        #expect((empty.status, empty.text) == (200, ""))
        #expect(empty.headers["content-type"] == "application/octet-stream", "the type goes with its value")

        let deleted = try #require(connection.ask(Self.delete("/keys/a")))
        #expect(deleted.status == 204 && deleted.headers["etag"] != nil)
        let missing = try Self.problem(connection.ask(getRequest("/keys/a")))
        #expect((missing.status, missing.title, missing.outcome) == (404, "Not Found", "not-applied"))
    }

    @Test("a head has everything but the body, and no part of it")
    func head() throws {
        let connection = try TestConnection()
        _ = connection.ask(Self.put("/keys/a", "12345", "Content-Type: text/plain\r\n"))
        connection.send("HEAD /keys/a HTTP/1.1\r\nHost: kv\r\nRange: bytes=1-2\r\n\r\n")
        connection.collect()
        let head = connection.parser.next(isHead: true)
        let answer = try #require(head)
        #expect((answer.status, answer.headers["content-length"]) == (200, "5"))
        #expect(answer.headers["content-type"] == "text/plain" && answer.headers["content-range"] == nil)
    }

    @Test(
        "the rest of the path is the key, percent-decoded once",
        arguments: [
            ("a", "a"), ("a/b", "a/b"), ("a%2Fb", "a/b"), ("a+b", "a+b"), ("a%20b", "a b"), ("%00%ff", "\u{0}\u{ff}"),
            ("a%252Fb", "a%2Fb"), ("/", "/"), ("a/", "a/"), ("%2E%2e", ".."), ("...", "..."), ("a?b=c", "a"),
            ("%3F", "?"),
        ])
    func keys(_ path: String, _ key: String) throws {
        let connection = try TestConnection()
        #expect(connection.ask(Self.put("/keys/\(path)", "v"))?.status == 204)
        let bytes = key.unicodeScalars.map { UInt8($0.value) }
        #expect(connection.data.pairs.keys.map(\.bytes) == [bytes])
    }

    @Test(
        "what names no key is refused", arguments: ["", "%", "%4", "%zz", ".", "..", "a/../b", "a/./b", "a/.."])
    func noKeys(_ path: String) throws {
        let connection = try TestConnection()
        for request in [getRequest("/keys/\(path)"), Self.put("/keys/\(path)", "v"), Self.delete("/keys/\(path)")] {
            #expect(try Self.problem(connection.ask(request)).status == 400)
        }
        #expect(connection.data.pairs.isEmpty)
    }

    @Test("a key may be as long as keys may be")
    func longKeys() throws {
        let connection = try TestConnection()
        let most = String(repeating: "k", count: Limits.keyBytes)
        #expect(connection.ask(Self.put("/keys/\(most)", "v"))?.status == 204)
        #expect(try Self.problem(connection.ask(Self.put("/keys/\(most)k", "v"))).status == 414)
    }

    @Test(
        "a part of a value",
        arguments: [
            ("bytes=0-0", "0", "bytes 0-0/10"), ("bytes=2-5", "2345", "bytes 2-5/10"),
            ("bytes=7-", "789", "bytes 7-9/10"), ("bytes=-3", "789", "bytes 7-9/10"),
            ("bytes=-30", "0123456789", "bytes 0-9/10"), ("bytes=5-99999999999999999999", "56789", "bytes 5-9/10"),
            ("Bytes=9-9", "9", "bytes 9-9/10"),
        ])
    func parts(_ range: String, _ text: String, _ shown: String) throws {
        let connection = try TestConnection()
        _ = connection.ask(Self.put("/keys/a", "0123456789", "Content-Type: text/plain\r\n"))
        let answer = try #require(connection.ask(getRequest("/keys/a", "Range: \(range)\r\n")))
        #expect((answer.status, answer.text, answer.headers["content-range"]) == (206, text, shown))
        #expect(answer.headers["content-type"] == "text/plain" && answer.headers["etag"] != nil)
    }

    @Test(
        "parts that do not exist", arguments: ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=99999999999999999999-"])
    func missingParts(_ range: String) throws {
        let connection = try TestConnection()
        _ = connection.ask(Self.put("/keys/a", "0123456789"))
        let answer = connection.ask(getRequest("/keys/a", "Range: \(range)\r\n"))
        #expect(try Self.problem(answer).status == 416)
        #expect(answer?.headers["content-range"] == "bytes */10")
    }

    @Test(
        "a range that is none is left alone",
        arguments: [
            "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "bytes=1-2,4-5", "items=0-1", "bytes 0-1", "bytes=+1-2",
            "bytes=0-1\r\nRange: bytes=2-3",
        ])
    func noParts(_ range: String) throws {
        let connection = try TestConnection()
        _ = connection.ask(Self.put("/keys/a", "0123456789"))
        let answer = try #require(connection.ask(getRequest("/keys/a", "Range: \(range)\r\n")))
        #expect((answer.status, answer.text) == (200, "0123456789"))
    }

    @Test("a part of the version that is known, or the whole of another; conditions come first")
    func conditionalParts() throws {
        let connection = try TestConnection()
        let stored = try #require(connection.ask(Self.put("/keys/a", "0123456789")))
        let tag = try #require(stored.headers["etag"])
        let range = "Range: bytes=0-1\r\n"
        #expect(connection.ask(getRequest("/keys/a", range + "If-Range: \(tag)\r\n"))?.status == 206)
        for other in ["\"other\"", "\"other\", \(tag)", "W/\(tag)", "Wed, 21 Oct 2015 07:28:00 GMT", "*"] {
            #expect(connection.ask(getRequest("/keys/a", range + "If-Range: \(other)\r\n"))?.status == 200, "\(other)")
        }
        #expect(connection.ask(getRequest("/keys/a", range + "If-None-Match: \(tag)\r\n"))?.status == 304)
        #expect(connection.ask(getRequest("/keys/a", range + "If-Match: \"other\"\r\n"))?.status == 412)
    }

    @Test("conditional writes")
    func conditions() throws {
        let connection = try TestConnection()
        let first = try #require(connection.ask(Self.put("/keys/a", "1", "If-None-Match: *\r\n")))
        #expect(first.status == 204)
        let again = connection.ask(Self.put("/keys/a", "2", "If-None-Match: *\r\n"))
        #expect(try Self.problem(again).status == 412)
        #expect(again?.headers["etag"] == first.headers["etag"])
        let tag = try #require(first.headers["etag"])
        #expect(connection.ask(Self.put("/keys/a", "3", "If-Match: \(tag)\r\n"))?.status == 204)
        #expect(try Self.problem(connection.ask(Self.delete("/keys/a", "If-Match: \(tag)\r\n"))).status == 412)
        #expect(try Self.problem(connection.ask(Self.put("/keys/a", "4", "If-Match: a\r\n"))).status == 400)
        #expect(connection.ask(getRequest("/keys/a"))?.text == "3")
    }

    @Test("what a PUT says that can't be kept refuses it")
    func refusedFields() throws {
        let connection = try TestConnection()
        let long = String(repeating: "t", count: Limits.contentTypeBytes)
        for (fields, status) in [
            ("Content-Range: bytes 0-0/2\r\n", 400), ("Content-Encoding: gzip\r\n", 415),
            ("Content-Type:\r\n", 400), ("Content-Type: \(long)t\r\n", 400), ("Content-Type: caf\u{E9}\r\n", 400),
        ] {
            #expect(try Self.problem(connection.ask(Self.put("/keys/a", "v", fields))).status == status, "\(fields)")
        }
        #expect(connection.data.pairs.isEmpty)
        for fields in ["Content-Encoding: Identity\r\n", "Content-Type: \(long)\r\n"] {
            #expect(connection.ask(Self.put("/keys/a", "v", fields))?.status == 204, "\(fields)")
        }
        #expect(connection.ask(getRequest("/keys/a"))?.headers["content-type"] == long)
    }

    @Test("a value of any size up to the largest comes back, in one item or in chunks")
    func sizes() throws {
        let connection = try TestConnection()
        connection.data.itemBytes = 8192
        let limit = 8192 - Limits.itemOverheadBytes
        for size in [1, 2000, 2048, 2049, limit - 5000, limit - 1, limit, limit + 1, 10_000, 100_000] {
            let value = String(repeating: "v", count: size)
            #expect(connection.ask(Self.put("/keys/a", value, "Content-Type: text/plain\r\n"))?.status == 204)
            let found = connection.ask(getRequest("/keys/a"))
            #expect(found?.text == value && found?.headers["content-type"] == "text/plain", "\(size) bytes")
        }
        #expect(connection.data.pairs[Key(Array("a".utf8))!]?.largeValue?.length == 100_000)
        connection.send("PUT /keys/a HTTP/1.1\r\nHost: kv\r\nContent-Length: \(Limits.valueBytes + 1)\r\n\r\n")
        #expect(try Self.problem(connection.answers().first).status == 413)
    }

    @Test("time to live and consistency are in the query")
    func query() throws {
        let connection = try TestConnection()
        #expect(connection.ask(Self.put("/keys/a?ttl=10&consistency=strict&w=2", "v"))?.status == 204)
        #expect(connection.data.wanted == Consistency(.strict, quorum: 2))
        #expect(connection.ask(getRequest("/keys/a?consistency=strict"))?.status == 200)
        #expect(connection.data.wanted == Consistency(.strict))
        #expect(connection.ask(getRequest("/keys/a"))?.status == 200)
        #expect(connection.data.wanted == nil)
        connection.data.wallMilliseconds += 10_000
        #expect(connection.ask(getRequest("/keys/a"))?.status == 404)
        for query in ["ttl=0", "ttl=x", "w=0", "consistency=so"] {
            #expect(try Self.problem(connection.ask(Self.put("/keys/a?\(query)", "v"))).status == 400, "\(query)")
        }
    }

    @Test("a page of another origin may use it where the node lets it, and nothing is said of origins otherwise")
    func crossOrigin() throws {
        func preflight(_ target: String, _ origin: String, method: String = "PUT") -> String {
            "OPTIONS \(target) HTTP/1.1\r\nHost: kv\r\nOrigin: \(origin)\r\nAccess-Control-Request-Method: \(method)\r\n\r\n"
        }
        let page = "https://example.com"
        let connection = try TestConnection()
        let withOrigin = getRequest("/keys/a", "Origin: \(page)\r\n")
        #expect(connection.ask(preflight("/keys/a", page))?.status == 405)
        #expect(connection.ask(withOrigin)?.headers.keys.contains { $0.hasPrefix("access-control") } == false)

        connection.front.origins = OriginList("https://example.com,http://localhost:8080")
        let allowed = connection.ask(preflight("/keys/a", page))
        #expect(allowed?.status == 204)
        #expect(allowed?.headers["access-control-allow-origin"] == page)
        #expect(allowed?.headers["access-control-allow-methods"] == "GET, HEAD, POST, PUT, DELETE")
        #expect(allowed?.headers["access-control-allow-headers"]?.contains("If-Match") == true)
        #expect(allowed?.headers["vary"] == "Origin")
        #expect(connection.ask(preflight("/keys:batch", page))?.headers["access-control-allow-methods"] == "POST")
        #expect(connection.ask(preflight("/keys/a", "https://example.org"))?.status == 405)
        #expect(connection.ask(preflight("/route", page))?.status == 405)
        let missing = connection.ask(withOrigin)
        #expect((missing?.status, missing?.headers["access-control-allow-origin"]) == (404, page))
        #expect(missing?.headers["access-control-expose-headers"]?.contains("X-KV-Outcome") == true)
        #expect(connection.ask(getRequest("/keys/a"))?.headers["access-control-allow-origin"] == nil)
        #expect(connection.ask(getRequest("/route?key=a", "Origin: \(page)\r\n"))?.headers["vary"] == nil)

        connection.front.origins = OriginList("*")
        #expect(
            connection.ask(getRequest("/keys/a", "Origin: null\r\n"))?.headers["access-control-allow-origin"] == "*")
        for text in [
            "", "example.com", "https://", "https://a/", "https://a,", "https://a b", "https://A", "*,https://a",
        ] {
            #expect(OriginList(text) == nil, "\(text)")
        }
    }

    @Test("errors are problem details, also those of the request itself and of the store")
    func problems() throws {
        let connection = try TestConnection()
        let wrong = connection.ask(postRequest("/keys/a:incr", "v"))
        #expect(try Self.problem(wrong).status == 405)
        #expect(wrong?.headers["allow"] == "GET, HEAD, PUT, DELETE")
        let unknownMethod = connection.ask("PATCH /keys/a HTTP/1.1\r\nHost: kv\r\n\r\n")
        #expect(try Self.problem(unknownMethod).status == 405)
        #expect(unknownMethod?.headers["allow"] == "GET, HEAD, POST, PUT, DELETE")
        #expect(try Self.problem(connection.ask(getRequest("/keys:none"))).status == 404)
        connection.data.failure = .outcomeUnknown(.nodeUnreachable)
        let unknown = connection.ask(Self.put("/keys/a", "v"))
        #expect(try Self.problem(unknown).outcome == "unknown")
        #expect(unknown?.headers["retry-after"] == "1")
        let slow = try TestConnection()
        slow.send("PUT /keys/a HTTP/1.1\r\nHost: kv\r\nContent-Length: 10\r\n\r\nv")
        for _ in 0..<30 { slow.advance(.milliseconds(500)) }
        #expect(try Self.problem(slow.answers().first).status == 408)
        let spoilt = connection.ask(
            "PUT /keys/a HTTP/1.1\r\nHost: kv\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")
        #expect(try Self.problem(spoilt).status == 400)
        connection.data.failure = nil
    }

    @Test("an error elsewhere is a line of text, as ever")
    func lines() throws {
        let connection = try TestConnection()
        #expect(connection.ask(getRequest("/route"))?.headers["content-type"] == "text/plain")
    }
}
