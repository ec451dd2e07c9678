// SPDX-License-Identifier: Apache-2.0

import HTTPFront
import KeyValue
import NIOCore
import Testing

@Suite("Counters")
struct CounterTests {
    private static func increment(_ connection: TestConnection, _ target: String, _ fields: String = "") -> ReadAnswer?
    {
        connection.ask(postRequest("/keys/\(target)", "", fields))
    }

    private static func put(_ connection: TestConnection, _ value: String, _ fields: String = "", query: String = "") {
        let length = value.utf8.count
        let request = "PUT /keys/n\(query) HTTP/1.1\r\nHost: kv\r\n\(fields)Content-Length: \(length)\r\n\r\n\(value)"
        #expect(connection.ask(request)?.status == 204)
    }

    @Test("counts from nothing, up and down, and says where it is")
    func counts() throws {
        let connection = try TestConnection()
        let steps = [
            ("", "1"), ("?by=5", "6"), ("?by=-10", "-4"), ("?by=0", "-4"), ("?by=+5", nil),
            ("?by=9223372036854775807", "9223372036854775803"), ("?by=-9223372036854775808", "-5"),
        ]
        for (query, number) in steps {
            let answer = try #require(Self.increment(connection, "n:increment\(query)"))
            guard let number else {
                #expect(answer.status == 400, "a plus sign is a space")
                continue
            }
            #expect((answer.status, answer.text) == (200, number))
            #expect(answer.headers["content-type"] == "text/plain")
            let read = try #require(connection.ask(getRequest("/keys/n")))
            #expect(read.text == number && read.headers["etag"] == answer.headers["etag"])
        }
    }

    @Test("type and time to live are those of the pair")
    func keeps() throws {
        let connection = try TestConnection()
        Self.put(connection, "41", "Content-Type: application/json\r\n", query: "?ttl=10")
        #expect(Self.increment(connection, "n:increment")?.text == "42")
        #expect(connection.ask(getRequest("/keys/n"))?.headers["content-type"] == "application/json")
        connection.data.wallMilliseconds += 10_000
        #expect(connection.ask(getRequest("/keys/n"))?.status == 404)
        #expect(Self.increment(connection, "n:increment")?.text == "1", "what has expired counts as 0")
    }

    @Test("what is no number stays", arguments: ["", "a", "1.0", " 1", "+1", "-", "0x1", "99999999999999999999"])
    func noNumbers(_ value: String) throws {
        let connection = try TestConnection()
        Self.put(connection, value)
        let answer = try #require(Self.increment(connection, "n:increment"))
        #expect((answer.status, answer.outcome) == (409, "not-applied"))
        #expect(connection.ask(getRequest("/keys/n"))?.text == value)
    }

    @Test("a number does not wrap around")
    func overflow() throws {
        let connection = try TestConnection()
        Self.put(connection, "\(Int64.max)")
        #expect(Self.increment(connection, "n:increment")?.status == 409)
        #expect(Self.increment(connection, "n:increment?by=-1")?.text == "\(Int64.max - 1)")
    }

    @Test(
        "what can't be asked for",
        arguments: ["n:increment?by=", "n:increment?by=x", "n:increment?by=1e3", ":increment", "../n:increment"])
    func refused(_ target: String) throws {
        let connection = try TestConnection()
        #expect(Self.increment(connection, target)?.status == 400)
        #expect(Self.increment(connection, "n:increment", "If-Match: *\r\n")?.status == 400)
        #expect(Self.increment(connection, "n")?.status == 405)
        #expect(connection.data.pairs.isEmpty)
    }

    @Test("a key may end like a counter's path")
    func oddKey() throws {
        let connection = try TestConnection()
        #expect(Self.increment(connection, "n:increment:increment")?.text == "1")
        #expect(connection.ask(getRequest("/keys/n:increment"))?.text == "1")
    }

    @Test("whoever is overtaken tries again, for a while")
    func contended() throws {
        let connection = try TestConnection()
        connection.data.overtakes = 3
        #expect(Self.increment(connection, "n:increment") == nil)
        connection.advance(.milliseconds(100))
        #expect(connection.answers().map(\.text) == ["1"])

        connection.data.overtakes = .max
        #expect(Self.increment(connection, "n:increment") == nil)
        for _ in 0..<200 { connection.advance(.milliseconds(5)) }
        let answers = connection.answers()
        #expect(answers.map(\.status) == [503] && answers.first?.outcome == "not-applied")
    }

    @Test("an increment that may have counted says so, and is not tried again")
    func unknown() throws {
        let connection = try TestConnection()
        connection.data.conditionalFailure = .outcomeUnknown(.deadline)
        let answer = try #require(Self.increment(connection, "n:increment"))
        #expect((answer.status, answer.outcome) == (503, "unknown"))
        #expect(connection.data.operationCount == 2, "one read, one write")
    }
}
