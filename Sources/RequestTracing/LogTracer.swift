// SPDX-License-Identifier: Apache-2.0

private import KeyValue
package import Logging
private import Synchronization
package import Tracing

/// Writes each finished span of a sampled trace as one log line, for whatever ships logs to carry on; no more than some
/// hundreds a second. Spans of other traces record nothing.
package struct LogTracer: Tracer {
    private let sink: Sink

    /// What all spans of this process share.
    fileprivate final class Sink: Sendable {
        let logger: Logger
        private let limiter = Mutex(LineLimiter(linesPerSecond: Limits.spanLinesPerSecond))
        private let clock: @Sendable () -> UInt64

        init(_ logger: Logger, _ clock: @escaping @Sendable () -> UInt64) {
            self.logger = logger
            self.clock = clock
        }

        func write(_ line: @autoclosure () -> Logger.Metadata) {
            let now = clock()
            // (What was left out is told with the next span.)
            let (verdict, leftOut) = limiter.withLock { limiter in
                let verdict = limiter.admit(atNanoseconds: now)
                return (verdict, verdict == .write ? limiter.report() : 0)
            }
            if leftOut > 0 { logger.info("spans were left out", metadata: [LogKey.leftOut: "\(leftOut)"]) }
            if verdict == .write { logger.info("span", metadata: line()) }
        }
    }

    fileprivate enum ParentKey: ServiceContextKey { typealias Value = TraceParent }

    /// - Parameter clock: in nanoseconds, for the bound on lines.
    package init(
        _ logger: Logger, clock: @escaping @Sendable () -> UInt64 = { DefaultTracerClock.now.nanosecondsSinceEpoch }
    ) {
        self.sink = Sink(logger, clock)
    }

    package func startSpan<Instant: TracerInstant>(
        _ operationName: String, context: @autoclosure () -> ServiceContext, ofKind kind: SpanKind,
        at instant: @autoclosure () -> Instant, function: String, file fileID: String, line: UInt
    ) -> LogSpan {
        LogSpan(operationName, kind, context(), startedNanoseconds: instant().nanosecondsSinceEpoch, sink)
    }

    package func forceFlush() {}

    package func extract<Carrier, Extract: Extractor>(
        _ carrier: Carrier, into context: inout ServiceContext, using extractor: Extract
    ) where Extract.Carrier == Carrier {
        guard let text = extractor.extract(key: TraceContext.field, from: carrier) else { return }
        context[ParentKey.self] = TraceParent(text)
    }

    package func inject<Carrier, Inject: Injector>(
        _ context: ServiceContext, into carrier: inout Carrier, using injector: Inject
    ) where Inject.Carrier == Carrier {
        guard let parent = context[ParentKey.self] else { return }
        injector.inject(parent.description, forKey: TraceContext.field, into: &carrier)
    }
}

/// One span of `LogTracer`.
package final class LogSpan: Span {
    private struct State {
        var name: String
        var attributes = SpanAttributes()
        var isFailed = false
        var isOver = false
    }

    package let context: ServiceContext
    private let kind: SpanKind
    private let startedNanoseconds: UInt64
    /// Nil where nobody wants to see it.
    private let place: (trace: String, span: UInt64, parent: UInt64)?
    private let sink: LogTracer.Sink
    private let state: Mutex<State>

    fileprivate init(
        _ name: String, _ kind: SpanKind, _ context: ServiceContext, startedNanoseconds: UInt64, _ sink: LogTracer.Sink
    ) {
        var context = context
        if let parent = context[LogTracer.ParentKey.self], parent.isSampled {
            let own = parent.passed(on: .random(in: 1 ... .max))
            self.place = (parent.trace, own.span, parent.span)
            context[LogTracer.ParentKey.self] = own
        } else {
            self.place = nil
        }
        self.context = context
        self.kind = kind
        self.startedNanoseconds = startedNanoseconds
        self.sink = sink
        self.state = Mutex(State(name: name))
    }

    package var isRecording: Bool { place != nil && !state.withLock(\.isOver) }

    package var operationName: String {
        get { state.withLock(\.name) }
        set { state.withLock { $0.name = newValue } }
    }

    package var attributes: SpanAttributes {
        get { state.withLock(\.attributes) }
        set { state.withLock { $0.attributes = newValue } }
    }

    package func setStatus(_ status: SpanStatus) { state.withLock { $0.isFailed = status.code == .error } }

    /// An error's text may hold anything, so only that there was one is kept.
    package func recordError<Instant: TracerInstant>(
        _ error: any Error, attributes: SpanAttributes, at instant: @autoclosure () -> Instant
    ) {
        state.withLock { $0.isFailed = true }
    }

    /// A line has no room for events of their own, nor for links.
    package func addEvent(_ event: SpanEvent) {}
    package func addLink(_ link: SpanLink) {}

    package func end<Instant: TracerInstant>(at instant: @autoclosure () -> Instant) {
        let ended = state.withLock { state -> State? in
            guard !state.isOver else { return nil }
            state.isOver = true
            return state
        }
        guard let place, let ended else { return }
        let nanoseconds = instant().nanosecondsSinceEpoch
        sink.write(line(place, ended, endedNanoseconds: nanoseconds))
    }

    private func line(
        _ place: (trace: String, span: UInt64, parent: UInt64), _ state: State, endedNanoseconds: UInt64
    ) -> Logger.Metadata {
        var line: Logger.Metadata = [
            LogKey.traceID: "\(place.trace)", LogKey.spanID: "\(TraceParent.digits(ofSpan: place.span))",
            LogKey.spanParent: "\(TraceParent.digits(ofSpan: place.parent))", LogKey.spanName: "\(state.name)",
            LogKey.spanKind: "\(kind)", LogKey.spanStart: "\(startedNanoseconds)",
            LogKey.spanMilliseconds:
                "\(Milliseconds(nanoseconds: Int64(endedNanoseconds) - Int64(startedNanoseconds)))",
        ]
        if state.isFailed { line[LogKey.spanFailed] = "true" }
        state.attributes.forEach { name, value in
            switch value {
            case .int32(let number): line[LogKey.spanAttribute + name] = "\(number)"
            case .int64(let number): line[LogKey.spanAttribute + name] = "\(number)"
            case .string(let text): line[LogKey.spanAttribute + name] = "\(text)"
            default: break
            }
        }
        return line
    }
}

/// A duration with three digits behind the point.
package struct Milliseconds: CustomStringConvertible {
    private let microseconds: Int64

    package init(nanoseconds: Int64) { self.microseconds = max(nanoseconds, 0) / 1000 }

    package var description: String {
        let rest = String(microseconds % 1000)
        return "\(microseconds / 1000).\(String(repeating: "0", count: 3 - rest.utf8.count))\(rest)"
    }
}
