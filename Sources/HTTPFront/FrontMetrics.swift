// SPDX-License-Identifier: Apache-2.0

package import CoreMetrics
internal import NIOCore

/// What the front counts, by way of swift-metrics: each request once, when its answer goes out. Belongs to the front's
/// event loop.
///
/// What is counted under which labels is looked up in a table, and made when it first happens.
package final class FrontMetrics {
    /// As labels tell requests apart.
    package struct Kind: Hashable, Sendable {
        /// Nil: a path that nobody knows, or a request that can't be read.
        package let route: Route?
        /// GET also stands for HEAD.
        package let method: Methods?

        package static let unknown = Kind(route: nil, method: nil)

        package init(route: Route?, method: Methods?) {
            self.route = route
            self.method = method
        }
    }

    private let factory: any MetricsFactory
    // (`unchecked`: see `HTTPFrontHandler`.)
    @exclusivity(unchecked) private var timers: [Timer?]
    private let accepted: Counter

    /// Each status that there is has a place; its number less the least is where that stands.
    private static let places: [UInt8] = {
        let numbers = Answer.Status.allCases.map { Int($0.rawValue) - leastStatus }
        precondition(numbers.allSatisfy { $0 >= 0 }, "no answer is an interim one")
        var places = [UInt8](repeating: 0, count: (numbers.max() ?? 0) + 1)
        for (place, number) in numbers.enumerated() { places[number] = UInt8(place) }
        return places
    }()
    private static let leastStatus = 200
    private static let statuses = Answer.Status.allCases.count
    private static let outcomes = 3
    private static let methods = 5

    /// - Parameter factory: nil: the process's.
    package init(factory: (any MetricsFactory)? = nil) {
        let factory = factory ?? MetricsSystem.factory
        self.factory = factory
        self.timers = Array(
            repeating: nil,
            count: (Route.allCases.count + 1) * FrontMetrics.methods * FrontMetrics.statuses * FrontMetrics.outcomes)
        self.accepted = Counter(label: "kvserver_connections_accepted_total", factory: factory)
        // (So that a rate shows the first of them.)
        for method in [Methods.get, .post] {
            timers[index(Kind(route: .pair, method: method), .ok, nil)] = timer(
                Kind(route: .pair, method: method), .ok, nil)
        }
    }

    func accept() { accepted.increment() }

    /// - Parameter since: when all of the request was here.
    /// - Returns: how long ago that is.
    func answered(
        _ kind: Kind, _ status: Answer.Status, _ outcome: Answer.Outcome?, since: NIODeadline
    ) -> TimeAmount {
        let index = index(kind, status, outcome)
        let timer: Timer
        if let made = timers[index] {
            timer = made
        } else {
            timer = self.timer(kind, status, outcome)
            timers[index] = timer
        }
        let time = NIODeadline.now() - since
        timer.recordNanoseconds(time.nanoseconds)
        return time
    }

    private func index(_ kind: Kind, _ status: Answer.Status, _ outcome: Answer.Outcome?) -> Int {
        let route = kind.route.map { Int($0.rawValue) + 1 } ?? 0
        // (A request has one method, which is one bit.)
        let method = kind.method.map { $0.rawValue.trailingZeroBitCount + 1 } ?? 0
        let outcome = outcome.map { Int($0.rawValue) + 1 } ?? 0
        let place = Int(FrontMetrics.places[Int(status.rawValue) - FrontMetrics.leastStatus])
        return ((route * FrontMetrics.methods + method) * FrontMetrics.statuses + place) * FrontMetrics.outcomes
            + outcome
    }

    private func timer(_ kind: Kind, _ status: Answer.Status, _ outcome: Answer.Outcome?) -> Timer {
        let outcome =
            switch outcome {
            case nil: "done"
            case .notApplied: "not-applied"
            case .unknown: "unknown"
            }
        return Timer(
            label: "kvserver_request_duration_seconds",
            dimensions: [
                ("route", kind.route?.label ?? "none"), ("method", kind.method?.label ?? "none"),
                ("code", "\(status.rawValue)"), ("outcome", outcome),
            ], factory: factory)
    }
}

extension Methods {
    /// How metrics and log lines name it.
    var label: String {
        switch self {
        case .get: "GET"
        case .post: "POST"
        case .delete: "DELETE"
        case .put: "PUT"
        default: "none"
        }
    }
}
