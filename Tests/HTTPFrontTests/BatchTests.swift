// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import HTTPFront
import KeyValue
import NIOCore
import Testing

@Suite("POST /keys:batch")
struct BatchTests {
    private struct Results: Decodable {
        struct Result: Decodable, Equatable {
            var status: Int
            var version: String?
            var contentType: String?
            var value: String?
            var valueBase64: Data?
            var detail: String?
            var outcome: String?
        }

        let results: [Result]
    }

    private static func post(_ json: String, query: String = "") -> String {
        postRequest("/keys:batch\(query)", json, "Content-Type: application/json\r\n")
    }

    private static func results(_ json: String, query: String = "", by client: LiveClient) async throws -> [Results
        .Result]
    {
        let answer = try #require(await client.ask(post(json, query: query)))
        #expect((answer.status, answer.headers["content-type"]) == (200, "application/json"), "\(answer)")
        return try JSONDecoder().decode(Results.self, from: Data(answer.body)).results
    }

    @Test("each operation is answered as it would be by itself, in order")
    func operations() async throws {
        let live = try await LiveFront()
        let client = LiveClient(live.port)
        let written = try await Self.results(
            """
            {"operations": [
                {"method": "put", "key": "a", "value": "\\u00e9", "contentType": "text/plain", "ttl": 60},
                {"method": "put", "keyBase64": "/wA=", "valueBase64": "AP8="},
                {"method": "get", "key": "nothing"},
                {"method": "delete", "key": "b"},
                {"method": "put", "key": "c", "value": "", "ifMatch": "*"}
            ]}
            """, by: client)
        #expect(written.map(\.status) == [204, 204, 404, 204, 412])
        #expect(written.map { $0.version != nil } == [true, true, false, true, false])
        #expect(written[2].detail == "There is no such pair." && written[2].outcome == "not-applied")
        let read = try await Self.results(
            """
            {"operations": [{"method": "get", "key": "a"}, {"method": "get", "keyBase64": "/wA="},
                {"method": "get", "key": "b"},
                {"method": "put", "key": "d", "value": "1", "ifNoneMatch": "*"}]}
            """, by: client)
        var first = Results.Result(status: 200)
        (first.version, first.contentType, first.value) = (written[0].version, "text/plain", "\u{e9}")
        var second = Results.Result(status: 200)
        (second.version, second.valueBase64) = (written[1].version, Data([0, 255]))
        #expect(read.prefix(2) == [first, second])
        #expect(read.dropFirst(2).map(\.status) == [404, 204])
        let version = try #require(read[3].version)
        let known = try await Self.results(
            """
            {"operations": [{"method": "get", "key": "d", "ifNoneMatch": "\\"\(version)\\""},
                {"method": "get", "key": "a", "ifMatch": "\\"\(version)\\""}]}
            """, by: client)
        #expect(known.map(\.status) == [304, 412])
        try await live.end()
    }

    @Test("an operation that can't be done leaves the others alone")
    func badOperations() async throws {
        let live = try await LiveFront()
        let client = LiveClient(live.port)
        let bad = [
            #"{"method": "get"}"#, #"{"method": "get", "key": ""}"#,
            #"{"method": "get", "key": "a", "keyBase64": "YQ=="}"#,
            #"{"method": "get", "key": "\#(String(repeating: "k", count: Limits.keyBytes + 1))"}"#,
            #"{"method": "get", "key": "b", "value": "v"}"#, #"{"method": "delete", "key": "c", "ttl": 1}"#,
            #"{"method": "put", "key": "d"}"#, #"{"method": "put", "key": "e", "value": "v", "valueBase64": "YQ=="}"#,
            #"{"method": "put", "key": "f", "value": "v", "ttl": 0}"#,
            #"{"method": "put", "key": "g", "value": "v", "contentType": ""}"#,
            #"{"method": "put", "key": "h", "value": "v", "ifMatch": "x"}"#,
            #"{"method": "get", "key": "i", "ifNoneMatch": ""}"#,
        ]
        let good = #"{"method": "put", "key": "good", "value": "v"}"#
        let results = try await Self.results(
            #"{"operations": [\#((bad + [good]).joined(separator: ","))]}"#, by: client)
        #expect(results.map(\.status) == bad.map { _ in 400 } + [204])
        #expect(results.dropLast().allSatisfy { $0.outcome == "not-applied" && $0.detail?.isEmpty == false })
        try await live.end()
    }

    @Test("what is no batch is refused as a whole")
    func noBatches() async throws {
        let live = try await LiveFront()
        let client = LiveClient(live.port)
        let get = #"{"method": "get", "key": "a"}"#
        for text in [
            "", "[]", "{}", #"{"operations": []}"#, #"{"operations": [{}]}"#, #"{"operations": [{"method": "GET"}]}"#,
            #"{"operations": [{"method": "get", "key": 1}]}"#, #"{"operations": [\#(get), \#(get)]}"#,
            #"{"operations": [{"method": "get", "key": "a", "tll": 1}]}"#, #"{"operations": [\#(get)], "more": 1}"#,
            #"{"operations": [{"method": "get", "keyBase64": "%"}]}"#,
            #"{"operations": [\#((0...Limits.clientBatchOperations).map { #"{"method":"get","key":"\#($0)"}"# }.joined(separator: ","))]}"#,
        ] {
            let answer = try #require(await client.ask(Self.post(text)), "\(text.prefix(80))")
            #expect((answer.status, answer.headers["content-type"]) == (400, "application/problem+json"))
            #expect(answer.outcome == "not-applied" && !answer.text.contains("\\n"))
        }
        #expect(await client.ask(getRequest("/keys:batch"))?.status == 405)
        #expect(await client.ask(Self.post("{\"operations\":[\(get)]}", query: "?r=x"))?.status == 400)
        try await live.end()
    }

    @Test("as many as there may be; values that have no room in the answer are said to be left out")
    func largest() async throws {
        var pairs: [Key: Int] = [:]
        for number in 0..<20 { pairs[try #require(Key("large\(number)"))] = 1 << 20 }
        let live = try await LiveFront(pairs: pairs)
        let client = LiveClient(live.port)
        let most = (0..<Limits.clientBatchOperations).map { #"{"method":"put","key":"\#($0)","value":"v"}"# }
        let stored = try await Self.results(#"{"operations": [\#(most.joined(separator: ","))]}"#, by: client)
        #expect(stored.count == Limits.clientBatchOperations && stored.allSatisfy { $0.status == 204 })
        let reads = (0..<20).map { #"{"method":"get","key":"large\#($0)"}"# }
        let read = try await Self.results(#"{"operations": [\#(reads.joined(separator: ","))]}"#, by: client)
        #expect(read.count { $0.status == 200 } == Limits.clientBatchBytes >> 20)
        #expect(read.count { $0.status == 413 } == 20 - Limits.clientBatchBytes >> 20)
        try await live.end()
    }

    @Test("some operations at a time; what is not begun in time is not done, and said not to be")
    func window() async throws {
        let live = try await LiveFront()
        let client = LiveClient(live.port)
        func onLoop<Value: Sendable>(_ body: @escaping @Sendable (FakeData) -> Value) async throws -> Value {
            try await live.loop.submit { body(live.front.value.data as! FakeData) }.get()
        }
        try await onLoop { $0.isSlow = true }
        let puts = (0..<40).map { #"{"method":"put","key":"\#($0)","value":"v"}"# }
        let asked = Self.post(#"{"operations": [\#(puts.joined(separator: ","))]}"#)
        await client.send(asked)
        while try await onLoop({ $0.waiting.count }) < 16 { try await Task.sleep(for: .milliseconds(5)) }
        // One by one, so that each makes room for the next.
        for _ in 0..<8 { try await onLoop { $0.release([0]) } }
        #expect(try await onLoop { ($0.mostAtOnce, $0.operationCount) } == (16, 24))
        try await Task.sleep(for: .seconds(1))
        try await onLoop { data in while !data.waiting.isEmpty { data.release([0]) } }
        let answer = try #require(await client.answer())
        let results = try JSONDecoder().decode(Results.self, from: Data(answer.body)).results
        #expect(results.map(\.status) == Array(repeating: 204, count: 24) + Array(repeating: 503, count: 16))
        #expect(results.suffix(16).allSatisfy { $0.outcome == "not-applied" })
        #expect(try await onLoop { ($0.operationCount, $0.pairs.count) } == (24, 24))
        try await live.end()
    }
}
