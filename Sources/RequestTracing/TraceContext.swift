// SPDX-License-Identifier: Apache-2.0

package import Tracing

/// `traceparent` as tracers read and write it: the tracer that is in use decides what a context is.
enum TraceContext {
    static let field = "traceparent"

    struct Reader: Extractor {
        func extract(key: String, from carrier: TraceParent) -> String? {
            key == TraceContext.field ? carrier.description : nil
        }
    }

    struct Writer: Injector {
        func inject(_ value: String, forKey key: String, into carrier: inout TraceParent?) {
            if key == TraceContext.field { carrier = TraceParent(value) }
        }
    }
}

extension Instrument {
    package func context(of parent: TraceParent) -> ServiceContext {
        var context = ServiceContext.topLevel
        extract(parent, into: &context, using: TraceContext.Reader())
        return context
    }

    package func parent(in context: ServiceContext) -> TraceParent? {
        var parent: TraceParent?
        inject(context, into: &parent, using: TraceContext.Writer())
        return parent
    }
}
