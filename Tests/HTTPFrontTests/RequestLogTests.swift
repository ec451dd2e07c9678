// SPDX-License-Identifier: Apache-2.0

import HTTPFront
import HashRing
import KeyValue
import Logging
import NIOCore
import RequestTracing
import Synchronization
import Testing

@Suite("Slow and failed requests have lines")
struct RequestLogTests {
    /// Keeps what is logged.
    private final class Lines: Sendable {
        private let lines = Mutex<[LogEvent]>([])

        func add(_ event: LogEvent) { lines.withLock { $0.append(event) } }

        /// Their messages and what they say.
        var all: [(message: String, fields: [String: String])] {
            lines.withLock { $0 }.map { line in
                ("\(line.message)", (line.metadata ?? [:]).mapValues { "\($0)" })
            }
        }
        var text: String { lines.withLock { $0 }.map { "\($0.message) \($0.metadata ?? [:])" }.joined(separator: "\n") }
    }

    private struct Handler: LogHandler {
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.info
        let lines: Lines

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }
        func log(event: LogEvent) { lines.add(event) }
    }

    private let lines = Lines()
    private let data = FakeData()

    /// - Parameter slow: nil: nothing is.
    private func connection(slow: TimeAmount?) throws -> TestConnection {
        let lines = lines
        return try TestConnection(
            data: data,
            log: { loop in
                RequestLog(Logger(label: "test") { _ in Handler(lines: lines) }, slow: slow, loop: loop)
            })
    }

    private static let trace = "0af7651916cd43dd8448eb211c80319c"
    private static let names = "X-Request-ID: request-1\r\ntraceparent: 00-\(trace)-00f067aa0ba902b7-01\r\n"
    /// Keeps a request from the fast path.
    private static let odd = "Proxy-Connection: keep-alive\r\n"

    @Test("a failed request has one line, however it was read", arguments: ["", odd])
    func failed(odd: String) throws {
        data.failure = .notApplied(.memcachedUnavailable)
        let connection = try connection(slow: nil)
        connection.send(getRequest("/route?key=secret", RequestLogTests.names + odd))
        #expect(connection.answers().map(\.status) == [503])
        let line = try #require(lines.all.first)
        #expect(lines.all.count == 1 && line.message == "a request failed")
        var fields = line.fields
        #expect(fields.removeValue(forKey: LogKey.requestMilliseconds).flatMap(Double.init) != nil)
        #expect(
            fields == [
                LogKey.requestRoute: "/route", LogKey.requestMethod: "GET", LogKey.requestStatus: "503",
                LogKey.requestOutcome: "not-applied", LogKey.requestSlot: "\(Key("secret")!.slot.value)",
                LogKey.requestID: "request-1", LogKey.traceID: RequestLogTests.trace,
            ])
    }

    @Test("what went well, or was the client's fault, has none")
    func quick() throws {
        let connection = try connection(slow: .hours(1))
        connection.send(postRequest("/route", "key=a&val=1") + getRequest("/route?key=b") + getRequest("/nothing"))
        connection.send(getRequest("/route") + getRequest("/cache?key=a", RequestLogTests.names))
        #expect(connection.answers().map(\.status) == [200, 404, 404, 400, 404])
        #expect(lines.all.isEmpty)
    }

    @Test("a slow one has one, but for what takes its time and what others ask all the time")
    func slow() throws {
        let connection = try connection(slow: .zero)
        connection.send(postRequest("/route", "key=secret&val=hidden", RequestLogTests.names))
        connection.send(putRequest("/keys/secret", "hidden") + deleteRequest("/keys/secret"))
        connection.send(getRequest("/health/live") + getRequest("/health/ready") + postRequest("/peer/ring", "{}"))
        connection.send(getRequest("/"))
        connection.collect()
        let all = lines.all
        #expect(all.map(\.message) == Array(repeating: "a request was slow", count: 4))
        #expect(
            all.map { $0.fields[LogKey.requestRoute] } == ["/route", "/keys/", "/keys/", "/"], "\(lines.text)")
        #expect(all.map { $0.fields[LogKey.requestID] } == ["request-1", nil, nil, nil])
        #expect(!lines.text.contains("secret") && !lines.text.contains("hidden"))
    }

    @Test("an id that is malformed, or one of two, is not taken", arguments: ["", odd])
    func malformed(odd: String) throws {
        let connection = try connection(slow: .zero)
        for names in [
            "X-Request-ID: short\r\n", "X-Request-ID: with blanks\r\n",
            "X-Request-ID: request-1\r\nX-Request-ID: request-2\r\n", "traceparent: x\r\n",
        ] {
            connection.send(getRequest("/route?key=a", names + odd))
        }
        let fields = lines.all.map(\.fields)
        #expect(fields.count == 4)
        #expect(fields.allSatisfy { $0[LogKey.requestID] == nil && $0[LogKey.traceID] == nil })
    }

    @Test("a batch of another node names its requests")
    func batch() throws {
        let connection = try connection(slow: .zero)
        var body = ByteBuffer()
        PeerBatchCodec.encode(
            PeerBatch(epoch: Epoch(3), clock: 1, operations: [.read(StoredKey(Key("secret")!))]), into: &body)
        let carried = "request-1,short,request-2:00-\(RequestLogTests.trace)-00f067aa0ba902b7-00"
        let head = "POST /peer/batch HTTP/1.1\r\nHost: kv\r\n\(CarriedRequest.field): \(carried)\r\n"
        connection.send(
            Array("\(head)Content-Length: \(body.readableBytes)\r\n\r\n".utf8) + Array(body.readableBytesView))
        #expect(connection.answers().map(\.status) == [200])
        let line = try #require(lines.all.first)
        #expect(lines.all.count == 1 && line.message == "a batch of another node was slow")
        #expect(line.fields[LogKey.batchRequests] == "request-1,request-2")
        #expect(line.fields[LogKey.batchTraces] == RequestLogTests.trace)
        #expect(line.fields[LogKey.batchStatus] == "200" && !lines.text.contains("secret"))
        // A client can't name others' requests.
        connection.send(getRequest("/keys/a", "\(CarriedRequest.field): request-3\r\n"))
        #expect(lines.all.count == 2 && !lines.text.contains("request-3"))
    }

    @Test("a flood of failures stays within the bound, and one line says how many were left out")
    func flood() throws {
        data.failure = .notApplied(.overloaded)
        let connection = try connection(slow: nil)
        let count = 3 * Limits.requestLinesPerSecond
        for _ in 0..<count { connection.send(getRequest("/route?key=a")) }
        connection.collect()
        #expect(lines.all.count == Limits.requestLinesPerSecond)
        connection.advance(.seconds(1))
        #expect(lines.all.count == Limits.requestLinesPerSecond + 1)
        #expect(lines.all.last?.fields == [LogKey.leftOut: "\(count - Limits.requestLinesPerSecond)"])
        connection.advance(.seconds(2))
        #expect(lines.all.count == Limits.requestLinesPerSecond + 1)
    }
}

private func putRequest(_ target: String, _ body: String) -> String {
    "PUT \(target) HTTP/1.1\r\nHost: kv\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
}

private func deleteRequest(_ target: String) -> String { "DELETE \(target) HTTP/1.1\r\nHost: kv\r\n\r\n" }
