// SPDX-License-Identifier: Apache-2.0

private import HashRing
private import KeyValue
package import Logging
package import NIOCore
internal import RequestTracing
private import Tracing

/// Writes a line for each request that was slow or failed, up to a bound a second; never a key or a value. Belongs to
/// the front's event loop.
package final class RequestLog {
    private let logger: Logger
    private let loop: any EventLoop
    /// Nothing is slow where this is nil.
    private let slow: TimeAmount?
    private var limiter = LineLimiter(linesPerSecond: Limits.requestLinesPerSecond)

    /// - Parameter slow: a request that takes so long is logged; nil: only those that fail.
    package init(_ logger: Logger, slow: TimeAmount?, loop: any EventLoop) {
        self.logger = logger
        self.slow = slow
        self.loop = loop
    }

    /// A request has its answer.
    /// - Parameter isBroken: the answer could not be sent to its end.
    func answered(
        _ trait: RequestTrait, _ status: Answer.Status, _ outcome: Answer.Outcome?,
        after time: TimeAmount, isBroken: Bool = false
    ) {
        let isFailure = status.rawValue >= 500 || trait.failures > 0 || isBroken
        let isSlow = slow.map { time >= $0 } ?? false
        if !isFailure, !isSlow, trait.trace?.spans.isEmpty ?? true { return }
        end(trait, status, isFailure: isFailure)
        guard trait.kind.isLogged, isFailure || trait.kind.isQuick else { return }
        guard isFailure || isSlow else { return }
        switch limiter.admit(atNanoseconds: loop.now.uptimeNanoseconds) {
        case .write: write(trait, status, outcome, time, isFailure: isFailure)
        case .leaveOut: break
        case .leaveOutAndReport(let end):
            loop.assumeIsolated().scheduleTask(deadline: .uptimeNanoseconds(end)) {
                self.logger.warning(
                    "lines of slow or failed requests were left out",
                    metadata: [LogKey.leftOut: "\(self.limiter.report())"])
            }
        }
    }

    private func end(_ trait: RequestTrait, _ status: Answer.Status, isFailure: Bool) {
        guard let trace = trait.trace, !trace.spans.isEmpty else { return }
        var attributes: SpanAttributes = ["status": .int64(Int64(status.rawValue))]
        if let slot = trait.slot { attributes.set("slot", value: .int64(Int64(slot.value))) }
        trace.end(attributes, isFailure: isFailure)
    }

    private func write(
        _ trait: RequestTrait, _ status: Answer.Status, _ outcome: Answer.Outcome?,
        _ time: TimeAmount, isFailure: Bool
    ) {
        let level: Logger.Level = isFailure ? .warning : .notice
        let milliseconds = Milliseconds(nanoseconds: time.nanoseconds)
        var line: Logger.Metadata
        if trait.kind.route == .peerBatch {
            line = [LogKey.batchStatus: "\(status.rawValue)", LogKey.batchMilliseconds: "\(milliseconds)"]
            if trait.failures > 0 { line[LogKey.batchFailures] = "\(trait.failures)" }
            let requests = trait.trace?.requests ?? []
            let names = requests.compactMap(\.id).map(\.description)
            if !names.isEmpty { line[LogKey.batchRequests] = "\(names.joined(separator: ","))" }
            let traces = requests.compactMap(\.parent).map(\.trace)
            if !traces.isEmpty { line[LogKey.batchTraces] = "\(traces.joined(separator: ","))" }
            logger.log(
                level: level, isFailure ? "a batch of another node failed" : "a batch of another node was slow",
                metadata: line)
            return
        }
        line = [
            LogKey.requestRoute: "\(trait.kind.route?.label ?? "none")",
            LogKey.requestMethod: "\(trait.kind.method?.label ?? "none")",
            LogKey.requestStatus: "\(status.rawValue)", LogKey.requestMilliseconds: "\(milliseconds)",
        ]
        if let outcome { line[LogKey.requestOutcome] = "\(outcome.headerValue)" }
        if let slot = trait.slot { line[LogKey.requestSlot] = "\(slot.value)" }
        if let trace = trait.trace {
            if let id = trace.id { line[LogKey.requestID] = "\(id)" }
            if let parent = trace.parent { line[LogKey.traceID] = "\(parent.trace)" }
            if !trace.nodes.isEmpty {
                line[LogKey.requestNodes] = "\(trace.nodes.map(\.description).joined(separator: ","))"
            }
        }
        logger.log(level: level, isFailure ? "a request failed" : "a request was slow", metadata: line)
    }
}

extension FrontMetrics.Kind {
    /// Not what others ask all the time to see if this node is well, nor what drivers of ring changes say of
    /// themselves.
    fileprivate var isLogged: Bool {
        switch route {
        case .live, .ready, .peerCall: false
        default: true
        }
    }

    /// Whether it is expected to be: ring changes and listings of all pairs take as long as they take.
    fileprivate var isQuick: Bool {
        switch route {
        case .list, .export, .import, .pairs, .clear, .addNode, .removeNode, .replaceNode, .abortChange, .plan, .copies:
            false
        case .ring: method == .get
        default: true
        }
    }
}
