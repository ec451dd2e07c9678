// SPDX-License-Identifier: Apache-2.0

package import Tracing

/// Where a request stands in a trace, as tracers read and write it (`traceparent` and `tracestate`): the tracer that is
/// in use decides what a context is.
package struct TraceContext: Hashable, Sendable {
    package let parent: TraceParent
    package let state: TraceState?

    static let parentField = "traceparent"
    static let stateField = "tracestate"

    package init(_ parent: TraceParent, _ state: TraceState? = nil) {
        self.parent = parent
        self.state = state
    }

    struct Reader: Extractor {
        func extract(key: String, from carrier: TraceContext) -> String? {
            switch key {
            case TraceContext.parentField: carrier.parent.description
            case TraceContext.stateField: carrier.state?.text
            default: nil
            }
        }
    }

    struct Writer: Injector {
        func inject(_ value: String, forKey key: String, into carrier: inout [String: String]) { carrier[key] = value }
    }
}

extension Instrument {
    package func context(of place: TraceContext) -> ServiceContext {
        var context = ServiceContext.topLevel
        extract(place, into: &context, using: TraceContext.Reader())
        return context
    }

    package func place(in context: ServiceContext) -> TraceContext? {
        var fields: [String: String] = [:]
        inject(context, into: &fields, using: TraceContext.Writer())
        guard let parent = fields[TraceContext.parentField].flatMap({ TraceParent($0) }) else { return nil }
        return TraceContext(parent, fields[TraceContext.stateField].flatMap { TraceState($0) })
    }
}
