// SPDX-License-Identifier: Apache-2.0

import HTTPFront
import KeyValue
import NIOCore
import Testing

@Suite("Values over the item limit")
struct LargeValueTests {
    private static let key = Key(Array("a".utf8))!

    private static func value(_ count: Int) -> String {
        String(decoding: (0..<count).map { _ in UInt8.random(in: 0x61...0x7A) }, as: UTF8.self)
    }

    private static func connection() throws -> TestConnection {
        let connection = try TestConnection()
        connection.data.itemBytes = 8192
        return connection
    }

    private static func head(_ length: Int, _ fields: String = "") -> String {
        "PUT /keys/a HTTP/1.1\r\nHost: kv\r\nContent-Length: \(length)\r\n\(fields)\r\n"
    }

    private static func chunked(_ value: String, by size: Int) -> String {
        var text = "PUT /keys/a HTTP/1.1\r\nHost: kv\r\nTransfer-Encoding: chunked\r\n\r\n"
        var rest = value[...]
        while !rest.isEmpty {
            let piece = rest.prefix(size)
            text += "\(String(piece.count, radix: 16))\r\n\(piece)\r\n"
            rest = rest.dropFirst(piece.count)
        }
        return text + "0\r\n\r\n"
    }

    @Test("a body may come in pieces, with its length or without, and others may follow it at once")
    func pieces() throws {
        for size in [700, 3000, 90_000] {
            let connection = try Self.connection()
            let value = Self.value(60_000)
            var bytes = Array((Self.head(value.utf8.count) + value + getRequest("/keys/a")).utf8)[...]
            while !bytes.isEmpty {
                connection.send(Array(bytes.prefix(size)))
                bytes = bytes.dropFirst(size)
            }
            let answers = connection.answers()
            #expect(answers.map(\.status) == [204, 200] && answers.last?.text == value)
            #expect(answers.first?.headers["etag"] == answers.last?.headers["etag"])
            let other = Self.value(50_001)
            #expect(connection.ask(Self.chunked(other, by: size))?.status == 204)
            #expect(connection.ask(getRequest("/keys/a"))?.text == other)
            #expect(connection.ask(getRequest("/route?key=a"))?.text == other)
            #expect(connection.front.heldBytes == 0)
        }
    }

    @Test("a part of it, its head alone, and conditions")
    func parts() throws {
        let connection = try Self.connection()
        let value = Self.value(60_000)
        let tag = try #require(connection.ask(Self.head(60_000) + value)?.headers["etag"])
        let bytes = Array(value.utf8)
        for _ in 0..<50 {
            let first = Int.random(in: 0..<60_000)
            let last = Int.random(in: first..<60_000)
            let part = connection.ask(getRequest("/keys/a", "Range: bytes=\(first)-\(last)\r\n"))
            #expect(part?.status == 206 && part?.body == Array(bytes[first...last]))
            #expect(part?.headers["content-range"] == "bytes \(first)-\(last)/60000")
        }
        #expect(connection.ask(getRequest("/keys/a", "Range: bytes=60000-\r\n"))?.status == 416)
        #expect(connection.ask(getRequest("/keys/a", "If-None-Match: \(tag)\r\n"))?.status == 304)
        connection.send("HEAD /keys/a HTTP/1.1\r\nHost: kv\r\n\r\n")
        connection.collect()
        let head = connection.parser.next(isHead: true)
        #expect((head?.status, head?.headers["content-length"], head?.headers["etag"]) == (200, "60000", tag))
        #expect(connection.ask(Self.head(60_000, "If-None-Match: *\r\n") + Self.value(60_000))?.status == 412)
        #expect(connection.ask(getRequest("/keys/a"))?.text == value)
        #expect(connection.ask(Self.head(60_000, "If-Match: \(tag)\r\n") + Self.value(60_000))?.status == 204)
        #expect(connection.front.heldBytes == 0)
    }

    @Test("while the store is slow the connection is not read, and what it holds has a bound")
    func backPressure() throws {
        let connection = try Self.connection()
        connection.data.isSlow = true
        let value = Self.value(400_000)
        connection.send(Self.head(400_000) + value)
        #expect(connection.data.waiting.count == Limits.chunkWindow)
        #expect(connection.answers().isEmpty)
        var most = 0
        while !connection.data.waiting.isEmpty {
            connection.data.release([0])
            connection.run()
            most = max(most, connection.data.waiting.count)
        }
        #expect(most == Limits.chunkWindow)
        #expect(connection.answers().map(\.status) == [204])
        connection.send(getRequest("/keys/a"))
        connection.data.release([0])
        #expect(connection.data.waiting.count == Limits.chunkWindow)
        while !connection.data.waiting.isEmpty {
            connection.data.release([connection.data.waiting.count - 1])
            connection.run()
        }
        #expect(connection.answers().first?.text == value)
        #expect(connection.front.heldBytes == 0)
    }

    @Test("a chunk that is refused ends the upload before the body's end, without effect, and the connection goes on")
    func refusedChunk() throws {
        let connection = try Self.connection()
        #expect(connection.ask(Self.head(60_000) + Self.value(60_000))?.status == 204)
        let before = connection.data.pairs
        for failure in [OperationFailure.notApplied(.outOfMemory), .outcomeUnknown(.nodeUnreachable)] {
            connection.data.failure = failure
            connection.send(Self.head(60_000) + Self.value(30_000))
            let answer = connection.answers().first
            #expect(answer?.outcome == "not-applied" && (answer?.status ?? 0) >= 500)
            connection.data.failure = nil
            connection.send(Self.value(30_000))
            #expect(connection.answers().isEmpty && connection.isOpen)
            #expect(connection.data.pairs == before)
        }
        #expect(connection.ask(getRequest("/keys/a"))?.status == 200)
        #expect(connection.front.heldBytes == 0)
    }

    @Test("an upload whose client goes away, or whose request can't be done, has no effect and holds nothing")
    func abandoned() throws {
        for fields in ["", "If-Match: *\r\n"] {
            let connection = try Self.connection()
            connection.send(Self.head(60_000, fields) + Self.value(30_000))
            #expect(connection.front.heldBytes > 0)
            _ = try connection.channel.close().wait()
            connection.run()
            #expect(connection.data.pairs.isEmpty && connection.front.heldBytes == 0)
        }
        let connection = try Self.connection()
        for (target, status) in [("a?ttl=0", 400), ("a?w=x", 400), ("..", 400)] {
            let request =
                "PUT /keys/\(target) HTTP/1.1\r\nHost: kv\r\nContent-Length: 60000\r\n\r\n\(Self.value(60_000))"
            #expect(connection.ask(request)?.status == status, "\(target)")
        }
        connection.data.standing = .none
        #expect(connection.ask(Self.head(60_000) + Self.value(60_000))?.status == 503)
        #expect(connection.data.chunks.isEmpty && connection.front.heldBytes == 0)
    }

    @Test("a value whose chunks are gone is looked for again, and a client that has some of it is cut off")
    func missing() throws {
        let connection = try Self.connection()
        #expect(connection.ask(Self.head(60_000) + Self.value(60_000))?.status == 204)
        let chunks = connection.data.chunks
        let large = try #require(connection.data.pairs[Self.key]?.largeValue)
        connection.data.chunks = [:]
        let before = connection.data.operationCount
        let answer = connection.ask(getRequest("/keys/a"))
        #expect((answer?.status, answer?.headers["retry-after"]) == (503, "1"))
        #expect(connection.data.operationCount - before >= 6, "it is read three times, each chunk twice")
        connection.data.chunks = chunks
        connection.data.chunks[StoredKey(chunk: large.chunkCount, of: large.upload, in: Self.key.slot)] = nil
        connection.send(getRequest("/keys/a"))
        #expect(connection.answers().isEmpty && connection.parser.rest > 1000)
        #expect(!connection.isOpen)
        #expect(connection.front.heldBytes == 0)
    }

    @Test("a client that goes away while it is being answered leaves nothing held")
    func answerAbandoned() throws {
        let connection = try Self.connection()
        #expect(connection.ask(Self.head(60_000) + Self.value(60_000))?.status == 204)
        connection.data.isSlow = true
        connection.send(getRequest("/keys/a"))
        connection.data.release([0])
        #expect(connection.front.heldBytes > 0)
        _ = try connection.channel.close().wait()
        while !connection.data.waiting.isEmpty { connection.data.release([0]) }
        connection.run()
        #expect(connection.front.heldBytes == 0)
    }

    @Test("of many that are asked for at once no more are read than there is room for")
    func pipelined() throws {
        let connection = try TestConnection()
        let large = LargeValue(upload: .random(), length: Limits.valueBytes, chunkBytes: Limits.chunkBytes)
        connection.data.pairs[Self.key] = Envelope(key: Self.key, storedKey: StoredKey(Self.key), manifest: large)
        connection.data.isSlow = true
        connection.front.heldElsewhere = { Limits.frontBytes - 4 * Limits.chunkWindow * Limits.chunkBytes }
        connection.send(String(repeating: getRequest("/keys/a"), count: 20))
        #expect(connection.data.waiting.count == 20)
        connection.data.release(Array(0..<20))
        #expect(connection.front.heldBytes <= 6 * Limits.chunkWindow * Limits.chunkBytes)
    }

    @Test("while many read, what was sent behind it begins once it is sent")
    func pipelinedInACrowd() throws {
        let connection = try Self.connection()
        let value = Self.value(60_000)
        #expect(connection.ask(Self.head(60_000) + value)?.status == 204)
        #expect(connection.ask(postRequest("/route", "key=b&val=1"))?.status == 200)
        connection.data.isSlow = true
        let crowd = try (0..<128).map { _ in try TestConnection(beside: connection) }
        for other in crowd { other.send(getRequest("/route?key=b")) }
        let others = connection.data.waiting.count
        #expect(others == 128)
        connection.send(getRequest("/keys/a") + getRequest("/route?key=b"))
        #expect(connection.data.waiting.count == others + 1, "one read a connection")
        var answers: [ReadAnswer] = []
        while connection.data.waiting.count > others {
            connection.data.release([others])
            connection.run()
            answers += connection.answers()
        }
        #expect(answers.map(\.text) == [value, "1"] && crowd.allSatisfy { $0.answers().isEmpty })
    }

    /// How a connection comes to its end.
    enum Ending: CaseIterable { case lastRequest, halfClosed, leavingWorker }

    @Test("what was sent behind it is done and answered where nothing more is to come", arguments: Ending.allCases)
    func pipelinedAtTheEnd(_ ending: Ending) throws {
        let connection = try Self.connection()
        let value = Self.value(60_000)
        #expect(connection.ask(Self.head(60_000) + value)?.status == 204)
        connection.data.isSlow = true
        connection.send(
            getRequest("/keys/a") + postRequest("/route", "key=b&val=2")
                + getRequest("/route?key=b", ending == .lastRequest ? "Connection: close\r\n" : ""))
        if ending == .halfClosed { connection.closeInput() }
        if ending == .leavingWorker { connection.front.leave() }
        var answers: [ReadAnswer] = []
        while !connection.data.waiting.isEmpty {
            connection.data.release([0])
            connection.run()
            answers += connection.answers()
        }
        #expect(answers.map(\.text) == [value, "OK", "2"])
        #expect(answers.map(\.closes) == [false, false, true] && !connection.isOpen)
        #expect(connection.front.heldBytes == 0)
    }

    @Test("it is no number, and no part of a batch's answer is missing without a word")
    func elsewhere() throws {
        let connection = try Self.connection()
        #expect(connection.ask(Self.head(60_000) + Self.value(60_000))?.status == 204)
        #expect(connection.ask(postRequest("/keys/a:increment", ""))?.status == 409)
        #expect(connection.ask(postRequest("/route", "key=a&val=\(Self.value(60_000))"))?.status == 413)
    }
}
