// SPDX-License-Identifier: Apache-2.0

package import HashRing
package import NIOCore
package import RequestTracing

/// What a connection has to know of a request when its answer goes out. (Not within `AnswerQueue`: a type within a
/// generic one is looked up at run time whenever it is copied.)
package struct RequestTrait: Hashable {
    /// Answered without a body.
    package var isHead = false
    package var isHTTP10 = false
    /// The client has asked to end the connection after it.
    package var closes = false
    /// Told of errors in JSON, not in a line of text.
    package var wantsProblems = false
    /// What a page of another origin may see of it.
    package var crossOrigin: CrossOriginGrant?
    /// As what it is counted.
    package var kind = FrontMetrics.Kind.unknown
    /// When all of it was here, or it was clear that it is refused.
    package var since = NIODeadline.uptimeNanoseconds(0)
    /// By which names it is found again.
    package var trace: RequestTrace?
    /// Of its key, once that is known.
    package var slot: Slot?
    /// Of another node's batch: how many of its operations failed here.
    package var failures = 0

    package init(
        isHead: Bool = false, isHTTP10: Bool = false, closes: Bool = false, wantsProblems: Bool = false,
        kind: FrontMetrics.Kind = .unknown, trace: RequestTrace? = nil
    ) {
        self.isHead = isHead
        self.isHTTP10 = isHTTP10
        self.closes = closes
        self.wantsProblems = wantsProblems
        self.kind = kind
        self.trace = trace
    }
}
