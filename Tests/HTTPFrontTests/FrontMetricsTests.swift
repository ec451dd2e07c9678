// SPDX-License-Identifier: Apache-2.0

import Cluster
import HTTPFront
import KeyValue
import NIOCore
import Telemetry
import Testing

@Suite("What the front counts")
struct FrontMetricsTests {
    private let memory = CellMemory(workerSlots: 1)
    private let data = FakeData()

    private func connection() throws -> TestConnection {
        try TestConnection(
            data: data, metrics: FrontMetrics(factory: PrometheusMetricsFactory(memory.part(ofSlot: 0))))
    }

    /// How many of each kind were counted; those of which there were none are left out.
    private var counts: [String: Int] {
        var counts: [String: Int] = [:]
        for series in memory.sum().series where series.name.metric == "kvserver_request_duration_seconds" {
            guard case .histogram(let histogram) = series.value else { continue }
            let count = histogram.counts.reduce(0, +)
            if count > 0 { counts[series.name.labels] = count }
        }
        return counts
    }

    private func labels(_ route: String, _ method: String, _ code: Int, _ outcome: String) -> String {
        "route=\"\(route)\",method=\"\(method)\",code=\"\(code)\",outcome=\"\(outcome)\""
    }

    @Test("each request is counted once, however it is read, by its route, its method and its answer")
    func routes() throws {
        let connection = try connection()
        connection.send(postRequest("/route", "key=a&val=1") + getRequest("/route?key=a") + getRequest("/route?key=b"))
        // These need the decoder.
        connection.send(getRequest("/route?key=a", "Proxy-Connection: keep-alive\r\n"))
        connection.send(getRequest("/") + getRequest("/nothing") + getRequest("/peer/batch"))
        #expect(connection.answers().map(\.status) == [200, 200, 404, 200, 200, 404, 405])
        connection.send("HEAD /route?key=a HTTP/1.1\r\nHost: kv\r\n\r\n")
        connection.collect()
        #expect(connection.parser.next(isHead: true)?.status == 200)
        #expect(
            counts == [
                labels("/route", "POST", 200, "done"): 1, labels("/route", "GET", 200, "done"): 3,
                labels("/route", "GET", 404, "not-applied"): 1, labels("/", "GET", 200, "done"): 1,
                labels("none", "GET", 404, "not-applied"): 1, labels("/peer/batch", "GET", 405, "not-applied"): 1,
            ])
    }

    @Test("what became of it is told apart")
    func outcomes() throws {
        let connection = try connection()
        for failure in [OperationFailure.outcomeUnknown(.deadline), .notApplied(.overloaded)] {
            data.failure = failure
            connection.send(postRequest("/route", "key=a&val=1"))
        }
        let answers = connection.answers()
        #expect(answers.map(\.status) == [503, 503])
        #expect(
            counts == [
                labels("/route", "POST", 503, "unknown"): 1, labels("/route", "POST", 503, "not-applied"): 1,
            ])
    }

    @Test("what can't be read is counted under no route")
    func unreadable() throws {
        let connection = try connection()
        connection.send("NONSENSE\r\n\r\n")
        #expect(connection.answers().map(\.status) == [400])
        #expect(counts == [labels("none", "none", 400, "not-applied"): 1])
    }

    @Test("nothing is counted before its answer goes out")
    func slow() throws {
        data.isSlow = true
        let connection = try connection()
        connection.send(getRequest("/route?key=a") + getRequest("/route?key=b"))
        data.release([1])
        connection.run()
        #expect(counts.isEmpty)
        data.release([0])
        connection.run()
        #expect(counts == [labels("/route", "GET", 404, "not-applied"): 2])
    }

    @Test("a connection is counted when it is accepted")
    func connections() throws {
        let one = try connection()
        #expect(one.isOpen)
        let accepted = memory.sum().series.first { $0.name.metric == "kvserver_connections_accepted_total" }
        #expect(accepted?.value == .counter(1))
    }

    @Test("each route has a name of its own")
    func names() {
        let labels = Route.allCases.map(\.label)
        #expect(Set(labels).count == labels.count)
        #expect(labels.allSatisfy { $0.hasPrefix("/") })
    }
}
