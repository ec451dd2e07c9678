// SPDX-License-Identifier: Apache-2.0

import Cluster
import FoundationEssentials
import HTTPFront
import HashRing
import KeyValue
import NIOCore
import Testing

@Suite("GET /keys, /keys:export and POST /keys:import")
struct ListTests {
    private struct Page: Decodable {
        struct Entry: Decodable, Equatable {
            var key: String?
            var keyBase64: Data?
            var version: String
            var bytes: Int
            var contentType: String?
            var expires: UInt64?
        }

        let keys: [Entry]
        let cursor: String?
    }

    private static let node = NodeID("127.0.0.11:5000")!

    private static func record(
        _ key: Key, _ time: UInt64, value: String = "red", type: String? = nil, expiry: UInt64? = nil
    ) -> Envelope {
        Envelope(
            key: key, storedKey: StoredKey(key), value: ByteBuffer(string: value),
            version: Version(time: time, writer: 7), contentType: type, expiryMilliseconds: expiry)
    }

    /// A part with these pairs, complete through the last of them, or to the end.
    private static func part(_ pairs: [(Key, Envelope)], isLast: Bool, isWhole: Bool = false) -> ListingMerge {
        let listed = pairs.map { key, record in
            ListedPair(
                key: StoredKey(key), record: isWhole ? record : record.head, valueBytes: record.value.readableBytes)
        }.sorted { $0.key < $1.key }
        let ring = Ring(seats: [Ring.Seat(position: Position(1)!, node: node)])!
        let mark = isLast ? .end : listed.last.map { ListingMark(through: $0.key) } ?? ListingMark(through: Slot(4)!)
        return ListingMerge(
            [node: HostListing(pairs: listed, through: mark)],
            under: RoutingTable(RingDocument(epoch: Epoch(1), ring: ring)), limit: 100, atMilliseconds: 0)!
    }

    private static func page(_ answer: ReadAnswer?) throws -> Page {
        let answer = try #require(answer)
        #expect((answer.status, answer.headers["content-type"]) == (200, "application/json"), "\(answer)")
        return try JSONDecoder().decode(Page.self, from: Data(answer.body))
    }

    @Test("a page is put together from parts, and its cursor leads on")
    func pages() async throws {
        let live = try await LiveFront()
        let client = LiveClient(live.port)
        let odd = Key([0xFF, 0x22])!
        let first = [
            (Key("a")!, Self.record(Key("a")!, 5, type: "text/\"x")), (odd, Self.record(odd, 6, expiry: 9_999_999_999)),
        ]
        await live.operators.set(parts: [
            Self.part(first, isLast: false), Self.part([], isLast: false),
            Self.part([(Key("b")!, Self.record(Key("b")!, 7, value: ""))], isLast: false),
        ])
        let page = try Self.page(await client.ask(getRequest("/keys?limit=3&prefix=%41+b")))
        #expect(Set(page.keys.map { $0.key ?? $0.keyBase64!.base64EncodedString() }) == ["a", "b", "/yI="])
        let entry = try #require(page.keys.first { $0.key == "a" })
        #expect(
            entry
                == Page.Entry(
                    key: "a", version: "\(Version(time: 5, writer: 7))", bytes: 3, contentType: "text/\"x"))
        #expect(page.keys.first { $0.key == nil }?.expires == 9_999_999_999)
        let queries = await live.operators.queries
        #expect(queries.map(\.limit) == [3, 1, 1])
        #expect(queries.allSatisfy { $0.prefix == Array("A b".utf8) && !$0.isWhole })
        #expect(
            queries.map(\.after)[1...] == [Self.part(first, isLast: false).through, ListingMark(through: Slot(4)!)])

        await live.operators.set(parts: [Self.part([], isLast: true)])
        let last = await client.ask(getRequest("/keys?cursor=\(try #require(page.cursor))"))
        #expect(last?.text == "{\"keys\":[]}\n")
        let next = try #require(await live.operators.queries.last)
        #expect((next.after, next.limit) == (ListingMark(through: StoredKey(Key("b")!)), 1000))
        try await live.end()
    }

    @Test("what can't be listed is refused, in problem details")
    func refusals() async throws {
        let live = try await LiveFront()
        let client = LiveClient(live.port)
        for query in [
            "limit=0", "limit=100001", "limit=-1", "limit=", "cursor=", "cursor=6", "cursor=zz", "cursor=+164",
            "prefix=%4",
        ] {
            let answer = await client.ask(getRequest("/keys?\(query)"))
            #expect((answer?.status, answer?.headers["content-type"]) == (400, "application/problem+json"), "\(query)")
        }
        for target in ["/keys", "/keys:export"] {
            let answer = await client.ask(getRequest(target))
            #expect((answer?.status, answer?.outcome, answer?.headers["retry-after"]) == (503, "not-applied", "1"))
        }
        #expect(await client.ask(getRequest("/keys:import"))?.status == 405)
        try await live.end()
    }

    @Test("a page that breaks off is not taken for a whole one")
    func broken() async throws {
        let live = try await LiveFront()
        let client = LiveClient(live.port)
        await live.operators.set(parts: [Self.part([(Key("a")!, Self.record(Key("a")!, 5))], isLast: false)])
        await client.send(getRequest("/keys"))
        #expect(await client.answer() == nil)
        #expect(await client.isEnded())
        try await live.end()
    }

    @Test("what is exported can be imported, where nothing newer is held")
    func transfer() async throws {
        let live = try await LiveFront()
        let client = LiveClient(live.port)
        let keys = ["a", "b", String(repeating: "c", count: 300)].map { Key($0)! }
        let part = Self.part(keys.map { ($0, Self.record($0, 5 << 12, type: "text/x")) }, isLast: false, isWhole: true)
        await live.operators.set(parts: [part])
        let exported = try #require(await client.ask(getRequest("/keys:export?cursor=65")))
        #expect((exported.status, exported.headers["x-kv-cursor"]) == (200, part.through.cursor))
        let query = try #require(await live.operators.queries.last)
        #expect(query.isWhole && query.after == .end)

        func send(_ body: [UInt8]) async -> ReadAnswer? {
            let head = "POST /keys:import HTTP/1.1\r\nHost: kv\r\nContent-Length: \(body.count)\r\n\r\n"
            return await client.ask(Array(head.utf8) + body)
        }
        #expect(await send(exported.body)?.text == "{\"stored\":3,\"kept\":0}\n")
        let read = await client.ask(getRequest("/keys/a"))
        #expect((read?.text, read?.headers["etag"]) == ("red", "\"\(Version(time: 5 << 12, writer: 7))\""))
        #expect(await send(exported.body)?.text == "{\"stored\":0,\"kept\":3}\n")
        #expect(await client.ask(getRequest("/keys/b", "If-None-Match: \"1\"\r\n"))?.status == 200)

        // (While they are being stored, neither is held yet.)
        func alone(_ key: StoredKey, _ record: Envelope) -> [UInt8] {
            [UInt8(key.bytes.count)] + key.bytes + [0, 0, 0, UInt8(record.buffer.readableBytes)]
                + Array(record.buffer.readableBytesView)
        }
        let twice = [6, 8, 8, 7].flatMap { alone(StoredKey(keys[0]), Self.record(keys[0], $0 << 12)) }
        #expect(
            await send(twice + alone(StoredKey(keys[1]), Self.record(keys[1], 9 << 12)))?.text
                == "{\"stored\":2,\"kept\":3}\n")
        #expect(await client.ask(getRequest("/keys/a"))?.headers["etag"] == "\"\(Version(time: 8 << 12, writer: 7))\"")

        for length in [1, 10, exported.body.count - 1] {
            #expect(await send(Array(exported.body.prefix(length)))?.status == 400)
        }
        let stranger = alone(StoredKey(keys[0]), Self.record(keys[0], 1 << 60))
        #expect(await send(stranger)?.text.contains("ahead") == true)
        #expect(await send(alone(StoredKey(keys[2]), Self.record(keys[0], 1)))?.status == 400)
        #expect(await send(alone(StoredKey(keys[0]).hint, Self.record(keys[0], 1)))?.status == 400)
        #expect(await send(alone(StoredKey(keys[0]), Self.record(keys[0], 0)))?.status == 400)
        let split = Self.record(keys[0], 1, type: "a/b\r\nX-Evil: 1")
        #expect(await send(alone(StoredKey(keys[0]), split))?.status == 400)
        #expect(
            Answer.representation(of: split).contentType == .binary,
            "one that is there already is not written into a head")
        let tombstone = Envelope(
            key: keys[0], storedKey: StoredKey(keys[0]), value: ByteBuffer(), version: Version(time: 9, writer: 1),
            isTombstone: true)
        #expect(await send(alone(StoredKey(keys[0]), tombstone))?.status == 400)
        try await live.end()
    }

    @Test("a large value is exported with its chunks before it, by itself, and imported in that order")
    func largeValue() async throws {
        let live = try await LiveFront()
        let client = LiveClient(live.port)
        let key = Key("a")!
        let others = (0..<100).map { Key("\($0)")! }
        let small = try #require(others.first { StoredKey($0) < StoredKey(key) })
        let last = try #require(others.first { StoredKey(key) < StoredKey($0) })
        let large = LargeValue(upload: .random(), length: 25, chunkBytes: 10)
        var manifest = Envelope(key: key, storedKey: StoredKey(key), manifest: large)
        manifest.stamp(Version(time: 5 << 12, writer: 7))
        let chunks = (0...3).map { number -> (StoredKey, Envelope) in
            let name = StoredKey(chunk: number, of: large.upload, in: key.slot)
            let value = ByteBuffer(string: number == 0 ? "" : number == 3 ? "12345" : "1234567890")
            return (
                name, Envelope(key: key, storedKey: name, value: value, version: Version(time: 4 << 12, writer: 7))
            )
        }
        let pairs = [(small, Self.record(small, 5 << 12)), (key, manifest), (last, Self.record(last, 5 << 12))]
        await live.operators.set(parts: [
            Self.part(pairs, isLast: true, isWhole: true),
            Self.part(Array(pairs.dropFirst()), isLast: true, isWhole: true),
            Self.part(Array(pairs.dropFirst()), isLast: true, isWhole: true),
        ])
        let before = try #require(await client.ask(getRequest("/keys:export")))
        #expect(before.headers["x-kv-cursor"] == ListingMark(through: StoredKey(small)).cursor)
        #expect(await client.ask(getRequest("/keys:export"))?.status == 503, "its chunks are not there")
        try await live.loop.submit {
            (live.front.value.data as? FakeData)?.chunks = Dictionary(uniqueKeysWithValues: chunks)
        }.get()
        let alone = try #require(await client.ask(getRequest("/keys:export")))
        #expect(alone.headers["x-kv-cursor"] == ListingMark(through: StoredKey(key)).cursor)
        try await live.loop.submit { (live.front.value.data as? FakeData)?.chunks = [:] }.get()

        let head = "POST /keys:import HTTP/1.1\r\nHost: kv\r\nContent-Length: \(alone.body.count)\r\n\r\n"
        #expect(await client.ask(Array(head.utf8) + alone.body)?.text == "{\"stored\":1,\"kept\":0}\n")
        let read = await client.ask(getRequest("/keys/a"))
        #expect((read?.text, read?.headers["etag"]) == ("1234567890123456789012345", "\"\(manifest.version)\""))
        let isFresh = try await live.loop.submit {
            (live.front.value.data as? FakeData)?.chunks.values.allSatisfy { $0.version.time != 4 << 12 }
        }.get()
        #expect(isFresh == true, "chunks come back under new versions")

        // A manifest whose chunks have been deleted since they were imported, or are about to be, names nothing.
        let label = chunks[0].0
        for held in [nil, UploadLabel.condemned(of: key, under: label)] {
            try await live.loop.submit {
                let data = live.front.value.data as? FakeData
                data?.pairs = [:]
                data?.chunks[label] = held
            }.get()
            var record = ByteBuffer()
            SnapshotBlock.write(SnapshotRecord(key: StoredKey(key), envelope: manifest), into: &record)
            let head = "POST /keys:import HTTP/1.1\r\nHost: kv\r\nContent-Length: \(record.readableBytes)\r\n\r\n"
            let answer = await client.ask(Array(head.utf8) + Array(record.readableBytesView))
            #expect((answer?.status, answer?.outcome) == (409, "not-applied"))
            #expect(await client.ask(getRequest("/keys/a"))?.status == 404)
        }
        try await live.end()
    }

    @Test("an import that fails says so, and may be sent again")
    func failing() async throws {
        let live = try await LiveFront()
        let client = LiveClient(live.port)
        await live.operators.set(parts: [
            Self.part([(Key("a")!, Self.record(Key("a")!, 5))], isLast: true, isWhole: true)
        ])
        let body = try #require(await client.ask(getRequest("/keys:export"))?.body)
        try await live.loop.submit {
            (live.front.value.data as? FakeData)?.failure = .outcomeUnknown(.nodeUnreachable)
        }.get()
        let head = "POST /keys:import HTTP/1.1\r\nHost: kv\r\nContent-Length: \(body.count)\r\n\r\n"
        let answer = await client.ask(Array(head.utf8) + body)
        #expect((answer?.status, answer?.outcome) == (503, "unknown"))
        try await live.end()
    }
}
