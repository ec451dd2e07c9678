// SPDX-License-Identifier: Apache-2.0

import KeyValue
import Logging
import RequestTracing
import Synchronization
import Testing
import Tracing

@Suite("Lines have a bound")
struct LineLimiterTests {
    private static let second: UInt64 = 1_000_000_000

    @Test("so many a second are written, the others counted, and one asks for the report")
    func bound() {
        var limiter = LineLimiter(linesPerSecond: 3)
        let start: UInt64 = 5_000_000_000
        let verdicts = (0..<6).map { limiter.admit(atNanoseconds: start + $0) }
        let end = start + LineLimiterTests.second
        #expect(
            verdicts == [.write, .write, .write, .leaveOutAndReport(atNanoseconds: end), .leaveOut, .leaveOut])
        #expect(limiter.report() == 3)
        #expect(limiter.report() == 0)
        #expect(limiter.admit(atNanoseconds: end) == .write)
    }

    @Test("a second without lines is not saved up")
    func idle() {
        var limiter = LineLimiter(linesPerSecond: 2)
        var written = 0
        for second in [1, 2, 10] as [UInt64] {
            for index in 0..<10 {
                if limiter.admit(atNanoseconds: second * LineLimiterTests.second + UInt64(index)) == .write {
                    written += 1
                }
            }
        }
        #expect(written == 6 && limiter.report() == 24)
    }
}

@Suite("Spans are log lines")
struct LogTracerTests {
    /// Keeps what is logged.
    private final class Lines: Sendable {
        private let lines = Mutex<[(message: String, metadata: Logger.Metadata)]>([])

        var all: [(message: String, metadata: Logger.Metadata)] { lines.withLock { $0 } }
        func add(_ event: LogEvent) {
            lines.withLock { $0.append(("\(event.message)", event.metadata ?? [:])) }
        }
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

    private var tracer: LogTracer {
        let lines = lines
        return LogTracer(Logger(label: "test") { _ in Handler(lines: lines) }, clock: { 1 })
    }

    private static func parent(_ flags: String) throws -> TraceParent {
        try #require(TraceParent("00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-\(flags)"))
    }

    @Test("a request's span has the client's as its parent, and what it asks of a node has the request's")
    func family() throws {
        let parent = try LogTracerTests.parent("01")
        let state = try #require(TraceState("a=1,b@c=x:y"))
        let trace = try #require(RequestTrace(id: RequestID("request-1"), parent: parent, state: state))
        let tracer = tracer
        trace.begin("/route", tracer)
        var field = CarriedRequestField()
        field.add(trace, tracer)
        let carried = try #require(CarriedRequest.list(field.text).first?.parent)
        for span in field.spans { span.end(["peer.node": "10.0.0.1:5000"], isFailure: true) }
        // The other node's part.
        let batch = try #require(RequestTrace(id: nil, parent: nil, carried: field.text))
        batch.begin("/peer/batch", tracer)
        batch.end(["status": 200], isFailure: false)
        trace.end(["status": 503], isFailure: true)
        trace.end([:], isFailure: false)

        let lines = lines.all
        #expect(lines.map(\.message) == ["span", "span", "span"])
        let spans = lines.map(\.metadata)
        try #require(spans.count == 3)
        #expect(spans.allSatisfy { $0[LogKey.traceID] == "\(parent.trace)" })
        #expect(spans.allSatisfy { $0[LogKey.traceState] == "a=1,b@c=x:y" })
        #expect(spans.map { $0[LogKey.spanKind] } == ["client", "server", "server"])
        #expect(spans[2][LogKey.spanParent] == "00f067aa0ba902b7" && spans[2][LogKey.spanName] == "/route")
        #expect(spans[0][LogKey.spanParent] == spans[2][LogKey.spanID])
        #expect(spans[1][LogKey.spanParent] == spans[0][LogKey.spanID])
        #expect(spans[0][LogKey.spanID] == "\(TraceParent.digits(ofSpan: carried.span))" && carried.isSampled)
        #expect(spans[0]["span.attribute.peer.node"] == "10.0.0.1:5000" && spans[0][LogKey.spanFailed] == "true")
        #expect(spans[2]["span.attribute.status"] == "503" && spans[1][LogKey.spanFailed] == nil)
        #expect(Set(spans.map { $0[LogKey.spanID].map { "\($0)" } }).count == 3)
    }

    @Test("a trace that is not sampled has no spans, and is passed on as it came")
    func unsampled() throws {
        let parent = try LogTracerTests.parent("00")
        let trace = try #require(RequestTrace(id: nil, parent: parent))
        trace.begin("/route", tracer)
        #expect(trace.spans.isEmpty)
        var field = CarriedRequestField()
        field.add(trace, tracer)
        #expect(field.text == ":\(parent)" && field.spans.isEmpty)
        let span = tracer.startSpan("other", context: tracer.context(of: TraceContext(parent)))
        #expect(!span.isRecording)
        span.end()
        tracer.startSpan("of nothing", context: .topLevel).end()
        #expect(lines.all.isEmpty)
    }

    @Test("a state for which a batch has no room is left out, and no request for it")
    func noRoomForStates() throws {
        let state = try #require(
            TraceState((0..<4).map { "k\($0)=" + String(repeating: "v", count: 120) }.joined(separator: ",")))
        var field = CarriedRequestField()
        let tracer = tracer
        for number in 0..<6 {
            let trace = try #require(
                RequestTrace(id: RequestID("request-\(number)"), parent: LogTracerTests.parent("01"), state: state))
            trace.begin("/route", tracer)
            field.add(trace, tracer)
        }
        #expect(field.text.utf8.count <= Limits.carriedRequestBytes)
        let requests = CarriedRequest.list(field.text)
        #expect(requests.map(\.id) == (0..<6).map { RequestID("request-\($0)") })
        #expect(requests.map { $0.state != nil } == [true] + Array(repeating: false, count: 5))
    }

    @Test("a flood of spans stays within the bound")
    func flood() throws {
        let tracer = tracer
        let context = tracer.context(of: TraceContext(try LogTracerTests.parent("01")))
        for _ in 0..<(3 * Limits.spanLinesPerSecond) { tracer.startSpan("many", context: context).end() }
        #expect(lines.all.count == Limits.spanLinesPerSecond)
    }

    @Test("what is wrong with a request is not told in an error's words")
    func errors() throws {
        struct Telling: Error {}
        let tracer = tracer
        let context = tracer.context(of: TraceContext(try LogTracerTests.parent("01")))
        let span = tracer.startSpan("x", context: context)
        span.recordError(Telling())
        span.end()
        span.end()
        let metadata = try #require(lines.all.first?.metadata)
        #expect(lines.all.count == 1 && metadata[LogKey.spanFailed] == "true")
        #expect(!metadata.values.contains { "\($0)".contains("Telling") })
    }

    @Test(
        "milliseconds have three digits behind the point",
        arguments: [(0, "0.000"), (999, "0.000"), (1_234_567, "1.234"), (250_007_000, "250.007"), (-5, "0.000")])
    func milliseconds(nanoseconds: Int64, text: String) {
        #expect(Milliseconds(nanoseconds: nanoseconds).description == text)
    }
}
