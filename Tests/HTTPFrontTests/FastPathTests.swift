// SPDX-License-Identifier: Apache-2.0

import AccessControl
import HTTPFront
import KeyValue
import NIOCore
import NIOEmbedded
import NIOHTTP1
import RequestTracing
import TestSupport
import Testing

@Suite("The fast path reads what the decoder reads")
struct FastPathTests {
    private static let fields = [
        "Host: kv", "host:kv", "HOST:   kv:5000 ", "User-Agent: wrk/4.1 (x; y)", "Accept: */*", "accept-encoding:gzip",
        "X-Forwarded-For: 10.0.0.1", "Connection: keep-alive", "connection:  Keep-Alive ", "Connection: close",
        "Connection: upgrade", "Content-Length: 0", "Content-Length: 3", "Transfer-Encoding: chunked",
        "Expect: 100-continue", "If-Match: *", "if-none-match:*", "If-Mat-ch: *", "Upgrade: websocket",
        "Proxy-Connection: close", "X_Odd: 1", "Empty:", " folded: 1",
        "X-Tab:\ta", "X-Request-ID: request-1", "x-request-id:  request.2 ", "X-Request-ID: bad one",
        "X-Request-ID:short",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01", "Traceparent: none",
        "tracestate: a=1, b=2 ", "Tracestate: c=3", "tracestate: bad",
        "X-Request-IDs: request-3", "Space : 1", "X-High: \u{E9}", ": nameless", "Connection: keep-alive, close",
    ]

    /// A request that is almost always well-formed, or was.
    private static func request(_ random: inout SeededGenerator) -> [UInt8] {
        let isPost = Int.random(in: 0..<3, using: &random) == 0
        let targets = isPost ? ["/route", "/route", "/route?", "/cache"] : readTargets
        var verb = isPost ? "POST" : "GET"
        if chance(12, &random) { verb = ["HEAD", "POST", "GET", "get", "G"].randomElement(using: &random)! }
        let version = chance(12, &random) ? "HTTP/1.0" : "HTTP/1.1"
        let body = isPost ? ["key=a&val=1", "", "key=b&val=\n\n", "key=a"].randomElement(using: &random)! : ""
        var lines = ["\(verb) \(targets.randomElement(using: &random)!) \(version)", "Host: kv"]
        if isPost {
            let zeros = chance(8, &random) ? "00" : ""
            let length = body.utf8.count + (chance(8, &random) ? Int.random(in: -1...1, using: &random) : 0)
            lines.append("Content-Length: \(zeros)\(max(length, 0))")
        }
        for _ in 0..<Int.random(in: 0...3, using: &random) { lines.append(fields.randomElement(using: &random)!) }
        var bytes = Array((lines.joined(separator: "\r\n") + "\r\n\r\n" + body).utf8)
        if chance(3, &random) {
            let place = bytes.indices.randomElement(using: &random)!
            let odd: [UInt8] = [
                0, 9, 10, 13, 32, 35, 37, 43, 45, 58, 63, 127, 128, 255, UInt8.random(in: 0...255, using: &random),
            ]
            switch Int.random(in: 0..<3, using: &random) {
            case 0: bytes[place] = odd.randomElement(using: &random)!
            case 1: bytes.insert(odd.randomElement(using: &random)!, at: place)
            default: bytes.remove(at: place)
            }
        }
        return bytes
    }

    private static let readTargets = [
        "/route?key=a", "/route?", "/route?key=%41&x=1", "/route", "/cache?key=a", "/route?key=a#b",
    ]

    private static func chance(_ of: Int, _ random: inout SeededGenerator) -> Bool {
        Int.random(in: 0..<of, using: &random) == 0
    }

    @Test("each request that it finds is the decoder's, to the byte", arguments: [1, 2, 3, 4] as [UInt64])
    func sameRequests(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var reads = 0
        var writes = 0
        var ids = 0
        var parents = 0
        var states = 0
        let next = Array("GET /route?key=next HTTP/1.1\r\nHost: kv\r\n\r\n".utf8)
        for _ in 0..<20_000 {
            let bytes = FastPathTests.request(&random) + next
            guard let (request, trace, length) = FastPath.request(in: ByteBuffer(bytes: bytes), bodyLimit: 100) else {
                continue
            }
            if request.method == .get { reads += 1 } else { writes += 1 }
            let text = String(decoding: bytes, as: UTF8.self).debugDescription
            let parts = try #require(decodedRequests(in: bytes[..<length]), "\(text)")
            guard case .head(let head)? = parts.first, case .end(nil)? = parts.last else {
                Issue.record("the decoder finds \(parts) in \(text)")
                continue
            }
            var body = ByteBuffer()
            for case .body(var part) in parts { body.writeBuffer(&part) }
            let shorter = decodedRequests(in: bytes[..<(length - 1)]) ?? []
            #expect(!shorter.contains { if case .end = $0 { true } else { false } }, "it ends no sooner: \(text)")
            let reading = HeadReading(head)
            #expect(trace?.id == reading.trace?.id && trace?.parent == reading.trace?.parent, "\(text)")
            #expect(trace?.state == reading.trace?.state, "\(text)")
            if trace?.state != nil { states += 1 }
            if trace?.id != nil { ids += 1 }
            if trace?.parent != nil { parents += 1 }
            guard case .take(let wanted) = reading.verdict else {
                Issue.record("refused: \(text)")
                continue
            }
            #expect(head.method == (request.method == .get ? .GET : .POST) && head.version == .http1_1)
            #expect(!reading.closes && !reading.expectsContinue && wanted.precondition.isEmpty, "\(text)")
            #expect(reading.contentLength == request.body.readableBytes && request.body == body, "\(text)")
            #expect(
                request.route == wanted.route && request.method == wanted.method && request.target == wanted.target
                    && request.pathLength == wanted.pathLength, "\(text)")
        }
        #expect(reads > 500 && writes > 500, "\(reads) reads, \(writes) writes")
        #expect(ids > 50 && parents > 20 && states > 5, "\(ids) ids, \(parents) traces, \(states) states")
    }

    @Test("where a token is asked for, it reads the request that carries it, and no other")
    func tokens() throws {
        let good = String(repeating: "a", count: 32)
        let tokens = try #require(AccessTokens(data: try TokenFile.tokens(in: good.utf8, of: "f")).data)
        let bad = String(repeating: "b", count: 32)
        let cases: [([String], Bool)] = [
            (["Bearer \(good)"], true), (["bearer  \(good) "], true), ([], false), (["Bearer \(bad)"], false),
            (["Bearer \(good)", "Bearer \(good)"], false), (["Bearer \(bad)", "Bearer \(good)"], false),
            (["Bearer \(good)b"], false), (["Basic \(good)"], false), ([good], false), (["Bearer"], false),
        ]
        for (values, isRead) in cases {
            let fields = values.map { "Authorization: \($0)\r\n" }.joined()
            for text in [getRequest("/route?key=a", fields), postRequest("/route", "key=a&val=1", fields)] {
                let bytes = ByteBuffer(string: text)
                #expect((FastPath.request(in: bytes, bodyLimit: 100, tokens: tokens) != nil) == isRead, "\(values)")
                #expect(FastPath.request(in: bytes, bodyLimit: 100) != nil, "without tokens: \(values)")
                // (A tab is for the decoder, which leaves the blanks behind a token.)
                let slow = text.replacing("Host:", with: "X: a\tb\r\nHost:", maxReplacements: 1)
                #expect(FastPath.request(in: ByteBuffer(string: slow), bodyLimit: 100) == nil, "\(slow)")
                for text in [text, slow] {
                    let connection = try TestConnection()
                    connection.front.gate = AccessGate(
                        AccessTokens(data: try TokenFile.tokens(in: good.utf8, of: "f")),
                        PeerDoor(node: connection.front.node))
                    #expect(connection.ask(text)?.status == 401 ? !isRead : isRead, "\(text)")
                }
            }
        }
    }

    @Test("what a browser says of its page is for the decoder's side, which refuses some", arguments: [true, false])
    func pages(isForeign: Bool) throws {
        for field in isForeign
            ? ["Origin: http://evil", "origin:null", "Sec-Fetch-Site: cross-site"] : ["Origin: http://kv"]
        {
            for text in [
                getRequest("/route?key=a", field + "\r\n"), postRequest("/route", "key=a&val=1", field + "\r\n"),
            ] {
                #expect(FastPath.request(in: ByteBuffer(string: text), bodyLimit: 100) == nil, "\(text)")
                let connection = try TestConnection()
                connection.front.gate = AccessGate(AccessTokens(), PeerDoor(node: connection.front.node))
                #expect((connection.ask(text)?.status == 403) == (isForeign && text.hasPrefix("POST")), "\(text)")
            }
        }
    }

    @Test("the same answers to the same bytes, whether it sees whole requests or single bytes")
    func sameAnswers() throws {
        var random = SeededGenerator(seed: 5)
        for _ in 0..<1500 {
            var bytes: [UInt8] = []
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                switch Int.random(in: 0..<6, using: &random) {
                case 0:
                    bytes += Array(postRequest("/route", "key=a&val=\(Int.random(in: 0..<100, using: &random))").utf8)
                case 1:
                    let head = "POST /route HTTP/1.1\r\nHost: kv\r\nTransfer-Encoding: chunked\r\n\r\n"
                    bytes += Array((head + "5\r\nkey=a\r\n7\r\n&val=\n\n\r\n0\r\n\r\n").utf8)
                case 2: bytes += Array(getRequest("/route?key=a").utf8)
                default: bytes += FastPathTests.request(&random)
                }
            }
            let whole = try TestConnection()
            let single = try TestConnection()
            whole.send(bytes)
            for byte in bytes { single.send([byte]) }
            let answers = (sent(by: whole), sent(by: single))
            let text = String(decoding: bytes, as: UTF8.self).debugDescription
            #expect(answers.0 == answers.1, "\(text)")
            #expect(whole.isOpen == single.isOpen, "\(text)")
        }
    }

    private func sent(by connection: TestConnection) -> String {
        var text = ""
        while let bytes = try? connection.channel.readOutbound(as: ByteBuffer.self) { text += String(buffer: bytes) }
        return text
    }

    @Test("nothing of a request that is not whole, or too large")
    func incomplete() {
        let form = "key=a&val=b"
        let head = "POST /route HTTP/1.1\r\nHost: kv\r\nContent-Length: \(form.utf8.count)\r\n\r\n"
        for text in ["GET /route?key=a HTTP/1.1\r\nHost: kv\r\n\r\n", head + form] {
            for count in 0..<text.utf8.count {
                #expect(FastPath.request(in: ByteBuffer(bytes: text.utf8.prefix(count)), bodyLimit: 100) == nil)
            }
            #expect(FastPath.request(in: ByteBuffer(string: text), bodyLimit: 100)?.length == text.utf8.count)
        }
        #expect(FastPath.request(in: ByteBuffer(string: head + form), bodyLimit: form.utf8.count - 1) == nil)
    }

    @Test("a request after a body is not taken for late")
    func idleAfterABody() throws {
        let connection = try TestConnection()
        connection.send("POST /route HTTP/1.1\r\nHost: kv\r\nContent-Length: 11\r\n\r\n")
        connection.send("key=a&val=b")
        #expect(connection.answers().map(\.status) == [200])
        connection.advance(.seconds(7))
        #expect(connection.ask(getRequest("/route?key=a"))?.text == "b")
        #expect(connection.answers().isEmpty)
    }
}
