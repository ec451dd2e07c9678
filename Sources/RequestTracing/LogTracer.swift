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

    fileprivate enum PlaceKey: ServiceContextKey { typealias Value = TraceContext }

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
        guard let parent = extractor.extract(key: TraceContext.parentField, from: carrier).flatMap({ TraceParent($0) })
        else { return }
        // (A state alone says nothing.)
        let state = extractor.extract(key: TraceContext.stateField, from: carrier).flatMap { TraceState($0) }
        context[PlaceKey.self] = TraceContext(parent, state)
    }

    package func inject<Carrier, Inject: Injector>(
        _ context: ServiceContext, into carrier: inout Carrier, using injector: Inject
    ) where Inject.Carrier == Carrier {
        guard let place = context[PlaceKey.self] else { return }
        injector.inject(place.parent.description, forKey: TraceContext.parentField, into: &carrier)
        if let state = place.state { injector.inject(state.text, forKey: TraceContext.stateField, into: &carrier) }
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

    private struct Place {
        /// The trace, and this span in it.
        let own: TraceParent
        /// Of which span it is a part.
        let parent: UInt64
        let state: TraceState?
    }

    package let context: ServiceContext
    private let kind: SpanKind
    private let startedNanoseconds: UInt64
    /// Nil where nobody wants to see it.
    private let place: Place?
    private let sink: LogTracer.Sink
    private let state: Mutex<State>

    fileprivate init(
        _ name: String, _ kind: SpanKind, _ context: ServiceContext, startedNanoseconds: UInt64, _ sink: LogTracer.Sink
    ) {
        var context = context
        if let place = context[LogTracer.PlaceKey.self], place.parent.isSampled {
            let own = place.parent.passed(on: .random(in: 1 ... .max))
            self.place = Place(own: own, parent: place.parent.span, state: place.state)
            context[LogTracer.PlaceKey.self] = TraceContext(own, place.state)
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

    private func line(_ place: Place, _ state: State, endedNanoseconds: UInt64) -> Logger.Metadata {
        var line: Logger.Metadata = [
            LogKey.traceID: "\(place.own.trace)", LogKey.spanID: "\(TraceParent.digits(ofSpan: place.own.span))",
            LogKey.spanParent: "\(TraceParent.digits(ofSpan: place.parent))", LogKey.spanName: "\(state.name)",
            LogKey.spanKind: "\(kind)", LogKey.spanStart: "\(startedNanoseconds)",
            LogKey.spanMilliseconds:
                "\(Milliseconds(nanoseconds: Int64(endedNanoseconds) - Int64(startedNanoseconds)))",
        ]
        if let state = place.state { line[LogKey.traceState] = "\(state.text)" }
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
