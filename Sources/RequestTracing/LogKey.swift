// SPDX-License-Identifier: Apache-2.0

/// By what names log lines say things of requests; docs/logs.md explains them.
package enum LogKey {
    package static let requestID = "request.id"
    package static let requestRoute = "request.route"
    package static let requestMethod = "request.method"
    package static let requestStatus = "request.status"
    package static let requestOutcome = "request.outcome"
    package static let requestMilliseconds = "request.milliseconds"
    package static let requestSlot = "request.slot"
    package static let requestNodes = "request.nodes"

    package static let batchRequests = "batch.requests"
    package static let batchTraces = "batch.traces"
    package static let batchStatus = "batch.status"
    package static let batchFailures = "batch.failures"
    package static let batchMilliseconds = "batch.milliseconds"

    package static let traceID = "trace.id"
    package static let traceState = "trace.state"
    package static let spanID = "span.id"
    package static let spanParent = "span.parent"
    package static let spanName = "span.name"
    package static let spanKind = "span.kind"
    package static let spanStart = "span.start"
    package static let spanMilliseconds = "span.milliseconds"
    package static let spanFailed = "span.failed"
    /// Before each attribute of a span.
    package static let spanAttribute = "span.attribute."

    package static let leftOut = "lines"
}
