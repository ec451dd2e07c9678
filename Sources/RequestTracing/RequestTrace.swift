// SPDX-License-Identifier: Apache-2.0

package import HashRing
private import KeyValue
package import Tracing

/// What is known of a request beside what it asks for: by which names it is found again, and where it went. Requests
/// without such a name have none. Belongs to the event loop of the request.
package final class RequestTrace {
    /// Nil where none came, or a malformed one.
    package let id: RequestID?
    /// What the client's `traceparent` says.
    package let parent: TraceParent?
    /// What its `tracestate` says, where the trace is sampled: without spans there is nothing to hand it on with.
    package let state: TraceState?
    /// Of another node's batch: which requests it is for, as its field says it.
    package let carried: String?
    /// The first of the nodes that were asked; most requests ask one, which then needs no array.
    private var firstNode: NodeID?
    private var otherNodes: [NodeID] = []
    /// What this node's part in them takes: of a client's request one, of a batch one for each sampled request.
    package private(set) var spans: [any Span] = []

    /// Nil where there is nothing to know.
    package init?(
        id: RequestID?, parent: TraceParent?, state: @autoclosure () -> TraceState? = nil, carried: String? = nil
    ) {
        guard id != nil || parent != nil || carried != nil else { return nil }
        self.id = id
        self.parent = parent
        self.state = parent?.isSampled == true ? state() : nil
        self.carried = carried
    }

    package func asked(_ node: NodeID) {
        guard let firstNode else {
            firstNode = node
            return
        }
        guard node != firstNode, otherNodes.count < Limits.tracedNodes - 1, !otherNodes.contains(node) else { return }
        otherNodes.append(node)
    }

    /// Other nodes that were asked for this request, each once, the first ones.
    package var nodes: [NodeID] { firstNode.map { [$0] + otherNodes } ?? [] }

    /// The requests of a batch.
    package var requests: [CarriedRequest] { carried.map { CarriedRequest.list($0) } ?? [] }

    // MARK: Spans

    /// Whether somebody wants to see spans. (What a batch carries is looked at only where a trace can be in it.)
    private var sampledPlaces: [TraceContext] {
        if let parent { return parent.isSampled ? [TraceContext(parent, state)] : [] }
        guard let carried, carried.utf8.contains(CarriedRequest.traceMark) else { return [] }
        return requests.compactMap { request in
            request.parent.flatMap { $0.isSampled ? TraceContext($0, request.state) : nil }
        }
    }

    package func begin(_ name: String, _ tracer: (any Tracer)?) {
        guard let tracer else { return }
        for place in sampledPlaces {
            spans.append(tracer.startSpan(name, context: tracer.context(of: place), ofKind: .server))
        }
    }

    /// - Parameter name: of what another node is asked for.
    package func beginAsking(_ name: String, _ tracer: (any Tracer)?) -> (any Span)? {
        guard let tracer, let span = spans.first else { return nil }
        return tracer.startSpan(name, context: span.context, ofKind: .client)
    }

    package func end(_ attributes: SpanAttributes, isFailure: Bool) {
        for span in spans { span.end(attributes, isFailure: isFailure) }
        spans = []
    }
}

extension Span {
    package func end(_ attributes: SpanAttributes, isFailure: Bool) {
        guard isRecording else { return end() }
        self.attributes.merge(attributes)
        if isFailure { setStatus(SpanStatus(code: .error)) }
        end()
    }
}

extension RequestTrace: Hashable {
    package static func == (one: RequestTrace, other: RequestTrace) -> Bool { one === other }
    package func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }
}

// MARK: -

/// A request as another node hears of it, with the batch that carries operations of it.
package struct CarriedRequest: Hashable, Sendable {
    package let id: RequestID?
    package let parent: TraceParent?
    package let state: TraceState?

    /// The field's name.
    package static let field = "X-Request-IDs"
    /// Stands before a trace, and before its state: `id`, `id:traceparent`, `:traceparent:state` and so on, between
    /// commas.
    static let traceMark = UInt8(ascii: ":")

    /// What a field says; what is malformed, or too much, is ignored.
    package static func list(_ field: String) -> [CarriedRequest] {
        field.utf8.prefix(Limits.carriedRequestBytes)
            .split(separator: UInt8(ascii: ","), maxSplits: Limits.carriedRequests)
            .prefix(Limits.carriedRequests)
            .compactMap { part in
                let sides = part.split(separator: traceMark, maxSplits: 2, omittingEmptySubsequences: false)
                let id = RequestID(Substring(sides[0]))
                let parent = sides.count > 1 ? TraceParent(Substring(sides[1])) : nil
                let state = sides.count > 2 && parent != nil ? TraceState(carried: Substring(sides[2])) : nil
                return id == nil && parent == nil ? nil : CarriedRequest(id: id, parent: parent, state: state)
            }
    }
}

/// Builds the field of one batch.
package struct CarriedRequestField {
    /// Empty where there is nothing to say.
    package private(set) var text = ""
    private var count = 0
    private var last: RequestTrace?
    /// What the asking takes, for each sampled request.
    package private(set) var spans: [any Span] = []

    package init() {}

    /// One more operation for this request. (Those of one request follow each other.)
    package mutating func add(_ trace: RequestTrace, _ tracer: (any Tracer)?) {
        guard trace !== last, count < Limits.carriedRequests else { return }
        last = trace
        let id = trace.id?.description ?? ""
        var parent = trace.parent
        let length = (text.isEmpty ? 0 : 1) + id.utf8.count + (parent == nil ? 0 : 1 + TraceParent.bytes)
        guard text.utf8.count + length <= Limits.carriedRequestBytes else { return }
        var state: TraceState?
        if let span = trace.beginAsking("POST /peer/batch", tracer) {
            spans.append(span)
            let place = tracer?.place(in: span.context)
            parent = place?.parent ?? parent
            state = place?.state
        }
        if !text.isEmpty { text += "," }
        text += id
        if let parent { text += ":\(parent)" }
        // (Rather than another request's id, this is done without.)
        if let carried = state?.carried, text.utf8.count + 1 + carried.utf8.count <= Limits.carriedRequestBytes {
            text += ":\(carried)"
        }
        count += 1
    }
}
