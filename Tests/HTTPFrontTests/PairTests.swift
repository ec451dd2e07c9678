// SPDX-License-Identifier: Apache-2.0

import Cluster
import HTTPFront
import HashRing
import KeyValue
import NIOCore
import TestSupport
import Testing

@Suite("Pairs over HTTP")
struct PairTests {
    @Test("stored, found with its version, and told to be missing")
    func storedAndFound() throws {
        let connection = try TestConnection()
        let missing = try #require(connection.ask(getRequest("/route?key=a")))
        #expect((missing.status, missing.text, missing.outcome) == (404, "N/A", "not-applied"))
        let stored = try #require(connection.ask(postRequest("/route", "val=b+c&key=a")))
        #expect((stored.status, stored.text, stored.headers["content-type"]) == (200, "OK", "text/plain"))
        let found = try #require(connection.ask(getRequest("/route?x=1&key=a")))
        #expect((found.status, found.text) == (200, "b c"))
        #expect(found.headers["content-type"] == "application/octet-stream")
        let version = try #require(connection.data.pairs[Key("a")!]?.version)
        #expect(found.headers["etag"] == "\"\(version)\"")
        #expect(stored.headers["etag"] == found.headers["etag"])
        #expect(connection.ask(getRequest("/cache?key=a"))?.status == 404)
        #expect(connection.ask(postRequest("/cache", "key=a&val=here"))?.text == "OK")
        #expect(connection.ask(getRequest("/cache?key=a"))?.text == "here")
        #expect(connection.ask(getRequest("/route_test?key=a"))?.text == "127.0.0.11:5000")
        #expect(connection.ask(getRequest("/route_test?key=a&all=1"))?.text == "127.0.0.11:5000\n")
        #expect(connection.ask(getRequest("/route_test?key=a&all=0"))?.text == "127.0.0.11:5000")
        #expect(connection.isOpen)
    }

    @Test("a tombstone is a missing pair")
    func tombstone() throws {
        let connection = try TestConnection()
        let key = Key("a")!
        connection.data.pairs[key] = Envelope(
            key: key, storedKey: StoredKey(key), value: ByteBuffer(), isTombstone: true)
        #expect(connection.ask(getRequest("/route?key=a"))?.text == "N/A")
    }

    @Test("deleted, with a version of its own, and stored again")
    func deleted() throws {
        for path in ["/route", "/cache"] {
            let connection = try TestConnection()
            _ = connection.ask(postRequest(path, "key=a&val=1"))
            for _ in 0..<2 {
                let answer = try #require(connection.ask("DELETE \(path)?key=a HTTP/1.1\r\nHost: kv\r\n\r\n"))
                let held = path == "/route" ? connection.data.pairs[Key("a")!] : connection.data.here[Key("a")!]
                #expect((answer.status, answer.text) == (200, "OK"))
                #expect(held?.isTombstone == true && answer.headers["etag"] == held.map { "\"\($0.version)\"" })
                #expect(connection.ask(getRequest("\(path)?key=a"))?.status == 404)
            }
            _ = connection.ask(postRequest(path, "key=a&val=2"))
            #expect(connection.ask(getRequest("\(path)?key=a"))?.text == "2")
            #expect(connection.ask("DELETE \(path) HTTP/1.1\r\nHost: kv\r\n\r\n")?.status == 400)
        }
    }

    @Test("a pair with a time to live is missing once that is over, unless it was stored again")
    func timeToLive() throws {
        let connection = try TestConnection()
        #expect(connection.ask(postRequest("/route", "key=a&val=1&ttl=60"))?.status == 200)
        #expect(connection.ask(postRequest("/route", "ttl=60&key=b&val=1"))?.status == 200)
        #expect(connection.ask(postRequest("/route", "key=b&val=2"))?.status == 200)
        connection.data.wallMilliseconds += 59_999
        #expect(connection.ask(getRequest("/route?key=a"))?.text == "1")
        connection.data.wallMilliseconds += 1
        #expect(connection.ask(getRequest("/route?key=a"))?.text == "N/A")
        #expect(connection.ask(getRequest("/route?key=b"))?.text == "2")
        for text in ["", "0", "-1", "%2B5", "1.5", "x", "315360001", "99999999999999999", "%zz"] {
            let answer = try #require(connection.ask(postRequest("/route", "key=c&val=1&ttl=\(text)")))
            #expect((answer.status, answer.outcome) == (400, "not-applied"), "ttl=\(text)")
        }
        #expect(connection.data.pairs[Key("c")!] == nil)
    }

    @Test("keys and values of any bytes come back")
    func anyBytes() throws {
        var random = SeededGenerator(seed: 21)
        let connection = try TestConnection()
        var keys = (UInt8.min...UInt8.max).map { [$0] }
        keys += (0..<200).map { _ in random.bytes(Int.random(in: 1...300, using: &random)) }
        keys += [[UInt8](repeating: 10, count: 4096), Array("k".utf8)]
        for key in keys {
            let value = random.bytes(Int.random(in: 0...500, using: &random))
            let form = "key=\(percentEncoded(key))&val=\(percentEncoded(value))"
            #expect(connection.ask(postRequest("/route", form))?.status == 200)
            #expect(connection.ask(getRequest("/route?key=\(percentEncoded(key))"))?.body == value)
        }
    }

    @Test("HEAD is GET without the body")
    func head() throws {
        let connection = try TestConnection()
        _ = connection.ask(postRequest("/route", "key=a&val=12345"))
        connection.send("HEAD /route?key=a HTTP/1.1\r\nHost: kv\r\n\r\n" + getRequest("/health/live"))
        connection.collect()
        let answer = connection.parser.next(isHead: true)
        let head = try #require(answer)
        #expect((head.status, head.headers["content-length"]) == (200, "5"))
        let following = connection.parser.next()
        #expect(following?.text == "alive\n")
    }

    @Test(
        "a request says how much it relies on",
        arguments: [
            ("", nil), ("&consistency=strict", Consistency.strict),
            ("&consistency=sloppy&r=2&w=1", .init(.sloppy, quorum: 2)),
            ("&r=9", .init(.sloppy, quorum: 9)),
        ])
    func consistencyOfAReading(_ query: String, _ wanted: Consistency?) throws {
        let connection = try TestConnection()
        #expect(connection.ask(getRequest("/route?key=a" + query))?.status == 404)
        #expect(connection.data.wanted == wanted)
    }

    @Test("a write says it in its query, not in its form")
    func consistencyOfAWrite() throws {
        let connection = try TestConnection()
        #expect(connection.ask(postRequest("/route?w=3&r=1", "key=a&val=1&w=2"))?.status == 200)
        #expect(connection.data.wanted == Consistency(.sloppy, quorum: 3))
        #expect(connection.ask(postRequest("/route", "key=a&val=1&w=2"))?.status == 200)
        #expect(connection.data.wanted == nil)
    }

    @Test(
        "what it can't rely on is refused",
        arguments: ["consistency=much", "consistency=", "consistency=%", "r=0", "r=10", "r=two", "r=%zz", "r="])
    func badConsistency(_ field: String) throws {
        let connection = try TestConnection()
        let answer = try #require(connection.ask(getRequest("/route?key=a&" + field)))
        #expect((answer.status, answer.outcome) == (400, "not-applied"))
    }

    /// HTTP lets them stand there; the decoder leaves them in the value, and the body was taken for endless (413).
    @Test("blanks behind a length are no part of it", arguments: ["5 ", " 005  "])
    func blanksBehindALength(_ length: String) throws {
        let connection = try TestConnection()
        // The first byte by itself, so that the decoder reads it.
        connection.send("P")
        connection.collect()
        connection.send("OST /route HTTP/1.1\r\nHost: kv\r\nContent-Length: \(length)\r\n\r\nkey=a")
        connection.collect()
        let next = connection.parser.next()
        let answer = try #require(next)
        #expect(answer.status == 400 && answer.text.hasPrefix("The form needs a value"))
    }

    @Test("a write that too few hold says how many do")
    func tooFew() throws {
        let connection = try TestConnection()
        connection.data.failure = .tooFewHold(1, of: 2, .nodeUnreachable)
        let answer = try #require(connection.ask(postRequest("/route", "key=a&val=1")))
        #expect((answer.status, answer.outcome, answer.headers["retry-after"]) == (503, "unknown", "1"))
        #expect(answer.text.hasPrefix("Stored by 1 of the 2 replicas"))
    }

    @Test("each failure of the store has its status and outcome", arguments: OperationFailure.Reason.allCases)
    func failures(_ reason: OperationFailure.Reason) throws {
        for (failure, outcome) in [
            (OperationFailure.notApplied(reason), "not-applied"), (.outcomeUnknown(reason), "unknown"),
        ] {
            let connection = try TestConnection()
            connection.data.failure = failure
            let answer = try #require(connection.ask(postRequest("/route", "key=a&val=1")))
            let wanted =
                [
                    OperationFailure.Reason.outOfMemory: 507, .logFailed: 507, .tooLarge: 413, .tooFewReplicas: 400,
                ][reason] ?? 503
            #expect((answer.status, answer.outcome) == (wanted, outcome))
            #expect(answer.headers["retry-after"] == (wanted == 503 ? "1" : nil))
            #expect(answer.text.hasSuffix("\n") && answer.text.split(separator: "\n").count == 1)
            #expect(!answer.closes)
        }
    }

    @Test("failpoints around a write say what became of it")
    func failpoints() throws {
        for (name, outcome, isStored) in [
            ("http.beforeApply", "not-applied", false), ("http.afterApply.beforeReply", "unknown", true),
        ] {
            let connection = try TestConnection(
                failpoints: Failpoints(isAllowed: true, text: "\(name)=error", file: nil))
            let answer = try #require(connection.ask(postRequest("/route", "key=a&val=1")))
            #expect((answer.status, answer.outcome) == (503, outcome))
            #expect((connection.data.pairs[Key("a")!] != nil) == isStored)
        }
    }

    @Test("another node's batch is served, refused with this node's ring, or malformed")
    func batches() throws {
        let connection = try TestConnection()
        var body = ByteBuffer()
        let key = StoredKey(Key("a")!)
        PeerBatchCodec.encode(PeerBatch(epoch: Epoch(3), clock: 1, operations: [.read(key), .read(key)]), into: &body)
        let head = "POST /peer/batch HTTP/1.1\r\nHost: kv\r\nContent-Length: \(body.readableBytes)\r\n\r\n"
        let served = try #require(connection.ask(Array(head.utf8) + Array(body.readableBytesView)))
        var bytes = ByteBuffer(bytes: served.body)
        #expect(served.status == 200)
        #expect(try PeerBatchCodec.decodeAnswer(&bytes).outcomes.count == 2)
        connection.data.document?.epoch = Epoch(4)
        let refused = try #require(connection.ask(Array(head.utf8) + Array(body.readableBytesView)))
        #expect((refused.status, refused.outcome) == (409, "not-applied"))
        #expect(refused.text.contains("\"epoch\":4"))
        connection.data.document = nil
        #expect(connection.ask(Array(head.utf8) + Array(body.readableBytesView))?.text == "null")
        #expect(connection.ask(postRequest("/peer/batch", "garbage"))?.status == 400)
    }
}

@Suite("Refusals")
struct RefusalTests {
    /// Name, request, status; all leave the connection in order.
    private static func requests() -> [(String, String, Int)] {
        let form = { (body: String) in postRequest("/route", body) }
        let ring = { (json: String) in postRequest("/hash_ring", "data=" + percentEncoded(json.utf8)) }
        let long = String(repeating: "k", count: 4097)
        return [
            ("no key", getRequest("/route"), 400), ("empty key", getRequest("/route?key="), 400),
            ("no key in a form", form("val=1"), 400), ("empty form", form(""), 400), ("no value", form("key=a"), 400),
            ("broken code", getRequest("/route?key=%zz"), 400), ("broken code in a form", form("key=a%2&val=1"), 400),
            ("broken code in a value", form("key=a&val=%"), 400), ("long key", getRequest("/route?key=\(long)"), 414),
            ("long key in a form", form("key=\(long)&val=1"), 413),
            ("long target", getRequest("/route?key=a&x=\(String(repeating: "x", count: 16 << 10))"), 414),
            ("value over the limit", form("key=a&val=" + String(repeating: "x", count: 1 << 20)), 413),
            ("body over the limit", form("key=a&val=" + String(repeating: "x", count: 4 << 20)), 413),
            ("unknown path", getRequest("/no_such"), 404),
            ("unknown path, POST", postRequest("/no_such", "key=1"), 404),
            ("encoded path", getRequest("/%61dd_node/1/127.0.0.1:1"), 404),
            ("doubled slash", getRequest("//add_node/1/127.0.0.1:1"), 404),
            ("trailing slash", getRequest("/route/"), 404),
            ("dots", getRequest("/route/../status"), 404), ("absolute form", getRequest("http://x/status"), 400),
            ("asterisk", "OPTIONS * HTTP/1.1\r\nHost: kv\r\n\r\n", 400),
            ("fragment", getRequest("/route?key=a#b"), 400),
            ("PUT", "PUT /route?key=a HTTP/1.1\r\nHost: kv\r\n\r\n", 405),
            ("PUT", "PUT / HTTP/1.1\r\nHost: kv\r\nContent-Length: 1\r\n\r\nx", 405),
            ("GET of a batch", getRequest("/peer/batch"), 405),
            ("large headers", getRequest("/", "X: \(String(repeating: "x", count: 33 << 10))\r\n"), 431),
            ("many headers", getRequest("/", String(repeating: "X: y\r\n", count: 64)), 431),
            ("unknown expectation", getRequest("/", "Expect: wonders\r\n"), 417),
            ("ring without data", postRequest("/hash_ring", ""), 400), ("ring that is no JSON", ring("{nodes"), 400),
            ("ring without nodes", ring("{}"), 400), ("ring of no nodes", ring("{\"nodes\":[]}"), 400),
            ("ring with a fraction", ring("{\"nodes\":[{\"ip\":\"127.0.0.1:1\",\"key\":1.5}]}"), 400),
            ("ring with 10000", ring("{\"nodes\":[{\"ip\":\"127.0.0.1:1\",\"key\":10000}]}"), 400),
            ("ring with -1", ring("{\"nodes\":[{\"ip\":\"127.0.0.1:1\",\"key\":-1}]}"), 400),
            ("ring with a name", ring("{\"nodes\":[{\"ip\":\"localhost:1\",\"key\":1}]}"), 400),
            ("ring without a port", ring("{\"nodes\":[{\"ip\":\"127.0.0.1\",\"key\":1}]}"), 400),
            (
                "ring with one position twice",
                ring("{\"nodes\":[{\"ip\":\"127.0.0.1:1\",\"key\":1},{\"ip\":\"127.0.0.1:2\",\"key\":1}]}"), 400
            ),
            (
                "ring with a bad standby",
                ring("{\"nodes\":[{\"ip\":\"127.0.0.1:1\",\"key\":1}],\"standbys\":[\"x\"]}"), 400
            ),
            (
                "ring without replicas",
                ring("{\"nodes\":[{\"ip\":\"127.0.0.1:1\",\"key\":1}],\"replicas\":0}"), 400
            ),
            (
                "ring of too many replicas",
                ring("{\"nodes\":[{\"ip\":\"127.0.0.1:1\",\"key\":1}],\"replicas\":10}"), 400
            ),
            ("ring of deep arrays", ring(String(repeating: "[", count: 10_000)), 400),
            ("bad position", getRequest("/add_node/10000/127.0.0.1:1"), 400),
            ("no position", getRequest("/add_node//127.0.0.1:1"), 400), ("no node", getRequest("/add_node/5000"), 400),
            ("bad node", getRequest("/add_node/5000/localhost:1"), 400),
            ("bad node for auto", getRequest("/add_node/auto/localhost:1"), 400),
            ("auto alone", getRequest("/add_node/auto"), 400),
            ("auto for two", getRequest("/add_node/auto/1/1.1.1.1:1"), 400),
            ("auto in capitals", getRequest("/add_node/AUTO/127.0.0.1:1"), 400),
            ("no positions", getRequest("/add_node/auto/127.0.0.1:1?positions=0"), 400),
            ("empty positions", getRequest("/add_node/auto/127.0.0.1:1?positions="), 400),
            ("257 positions", getRequest("/add_node/auto/127.0.0.1:1?positions=257"), 400),
            ("1000 positions", getRequest("/add_node/auto/127.0.0.1:1?positions=1000"), 400),
            ("signed positions", getRequest("/add_node/auto/127.0.0.1:1?positions=-8"), 400),
            ("positions in words", getRequest("/add_node/auto/127.0.0.1:1?positions=ten"), 400),
            ("broken positions", getRequest("/add_node/auto/127.0.0.1:1?positions=%8"), 400),
            ("encoded node", getRequest("/add_node/5000/127.0.0.1%3A1"), 400),
            ("without others, not forced", getRequest("/remove_node/127.0.0.1:9?without=127.0.0.1:8"), 400),
            ("without what is no node", getRequest("/remove_node/127.0.0.1:9?force=1&without=127.0.0.1:8,x"), 400),
            ("bad node to remove", getRequest("/remove_node/everything"), 400),
            ("peer call of an odd name", postRequest("/peer/Odd", ""), 404),
        ]
    }

    @Test("status, outcome, one line, and the connection goes on")
    func refusals() throws {
        for (name, request, status) in RefusalTests.requests() {
            let connection = try TestConnection()
            let answer = try #require(connection.ask(request), "\(name)")
            #expect(answer.status == status, "\(name)")
            #expect(answer.outcome == "not-applied", "\(name)")
            #expect(answer.text.hasSuffix("\n") && answer.text.split(separator: "\n").count == 1, "\(name)")
            #expect(!answer.closes, "\(name)")
            #expect(connection.ask(getRequest("/health/live"))?.text == "alive\n", "after: \(name)")
            #expect(connection.data.operationCount == 0, "\(name)")
            #expect(connection.front.heldBytes == 0, "\(name)")
        }
    }

    @Test("what can't be read is refused, after what came before it, and the connection ends")
    func unreadable() throws {
        for (name, bytes, status) in [
            ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
            ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            ("garbage", "garbage\r\n\r\n", 400), ("no version", "GET /\r\n\r\n", 505),
            ("bad version", "GET / HTTP/3.0\r\n\r\n", 505),
            (
                "length and chunks",
                "POST /route HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400
            ),
            ("two lengths", "POST /route HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400),
            ("signed length", "POST /route HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", 400),
            ("odd coding", "POST /route HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            ("chunks in 1.0", "POST /route HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
            ("bad chunk", "POST /route HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
            ("endless header", "GET / HTTP/1.1\r\nX: " + String(repeating: "x", count: 200 << 10), 431),
            ("endless target", "GET /" + String(repeating: "x", count: 200 << 10), 431),
            ("space in a name", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ] {
            let connection = try TestConnection()
            connection.send(getRequest("/health/live") + bytes + getRequest("/health/live"))
            let answers = connection.answers()
            #expect(answers.map(\.status) == [200, status], "\(name)")
            #expect(answers.last?.closes == true && answers.last?.outcome == "not-applied", "\(name)")
            connection.advance(.seconds(5))
            #expect(!connection.isOpen, "\(name)")
        }
    }

    @Test("a wrong method is told the right ones")
    func allow() throws {
        for (path, allow) in [
            ("/route?key=a", "GET, HEAD, POST, DELETE"), ("/hash_ring", "GET, HEAD, POST"), ("/", "GET, HEAD"),
            ("/peer/batch", "POST"),
        ] {
            let connection = try TestConnection()
            let answer = connection.ask("PUT \(path) HTTP/1.1\r\nHost: kv\r\n\r\n")
            #expect(answer?.headers["allow"] == allow, "\(path)")
        }
    }

    @Test("a node without a ring says what to do, and one that can't confirm it says so")
    func withoutRing() throws {
        for (standing, text) in [(RingStanding.none, "/hash_ring"), (.unconfirmed, "memcached")] {
            let connection = try TestConnection()
            connection.data.standing = standing
            connection.data.failure = .notApplied(.noRing)
            for request in [
                getRequest("/route?key=a"), postRequest("/route", "key=a&val=1"), getRequest("/route_test?key=a"),
                getRequest("/health/ready"),
            ] {
                let answer = try #require(connection.ask(request))
                #expect((answer.status, answer.outcome) == (503, "not-applied"))
                #expect(answer.text.contains(text))
            }
            #expect(connection.ask(getRequest("/"))?.status == 200)
        }
    }

    @Test("too much to do is refused at once")
    func overloaded() throws {
        let connection = try TestConnection()
        for target in ["/add_node/5000/127.0.0.1:1", "/fetch_keys", "/status", "/clear_cache"] {
            let answer = try #require(connection.ask(getRequest(target)))
            #expect((answer.status, answer.outcome, answer.headers["retry-after"]) == (503, "not-applied", "1"))
        }
        #expect(connection.isOpen)
    }
}
