// SPDX-License-Identifier: Apache-2.0

import Control
import Testing

@Suite("Latencies") struct LatencyHistogramTests {
    @Test func percentilesAreWithinAPercent() {
        var histogram = LatencyHistogram()
        for value in 1...100_000 { histogram.record(UInt64(value) * 1000) }
        for percentile in [1.0, 50, 90, 99, 99.9, 100] {
            let wanted = percentile * 1_000_000
            let found = Double(histogram.value(atPercentile: percentile))
            #expect(found >= wanted * 0.999 && found <= wanted * 1.01, "p\(percentile): \(found)")
        }
        #expect((histogram.smallest, histogram.greatest, histogram.count) == (1000, 100_000_000, 100_000))
        #expect(abs(histogram.mean - 50_000_500) < 1)
    }

    @Test func everyValueFallsIntoABucketThatIsNoLessAndHardlyMore() {
        var values: [UInt64] = Array(0...1000)
        for bit in 10..<42 { values += [1 << bit - 1, 1 << bit, 1 << bit + 1, 1 << bit + (1 << (bit - 3)) + 7] }
        for value in values {
            var histogram = LatencyHistogram()
            histogram.record(value)
            histogram.record(LatencyHistogram.largest)
            let found = histogram.value(atPercentile: 50)
            #expect(found >= value && Double(found) <= Double(value) * 1.01, "\(value): \(found)")
        }
    }

    @Test func whatIsTooLongCountsAsTheLongest() {
        var histogram = LatencyHistogram()
        histogram.record(.max)
        #expect(histogram.value(atPercentile: 50) == LatencyHistogram.largest)
        #expect(LatencyHistogram().value(atPercentile: 99) == 0 && LatencyHistogram().mean == 0)
    }

    @Test func twoAddUp() {
        var (low, high, both) = (LatencyHistogram(), LatencyHistogram(), LatencyHistogram())
        for value in 0..<5000 as Range<UInt64> {
            if value < 2000 { low.record(value) } else { high.record(value) }
            both.record(value)
        }
        low.add(high)
        #expect(low == both)
    }
}

@Suite("A benchmark's load") struct BenchLoadTests {
    @Test func isTheSameForTheSameSeedAndAsWasAskedFor() {
        func drawn(_ seed: UInt64) -> [BenchLoad.Request] {
            var load = BenchLoad(seed: seed, keys: 50, gets: 80)
            return (0..<10_000).map { _ in load.next() }
        }
        #expect(drawn(1) == drawn(1) && drawn(1) != drawn(2))
        let gets = drawn(3).count { if case .get = $0 { true } else { false } }
        #expect((7800...8200).contains(gets))
        #expect(Set(drawn(4)).count == 100)
    }

    @Test func requestsAreDueEvenly() {
        let schedule = BenchSchedule(perSecond: 4000)
        #expect([0, 1, 4, 4000].map(schedule.due) == [0, 250_000, 1_000_000, 1_000_000_000])
    }

    @Test func aMissingKeyIsNoFailure() {
        var result = BenchResult()
        result.record(.get(key: 1), .notFound, nanoseconds: 5)
        result.record(.get(key: 1), .done, nanoseconds: 5)
        result.record(.put(key: 1), .unknown, nanoseconds: 5)
        #expect((result.requests, result.failures, result.gets.count, result.puts.count) == (3, 1, 2, 1))
    }
}

@Suite("Prometheus' text") struct MetricsTextTests {
    @Test func samples() {
        let text = """
            # HELP a What a "is" {really}.
            # TYPE a counter
            a 3
            b{x="1",y="a\\"b\\\\c\\nd, }"} 0.5 1700000000
            c_bucket{le="+Inf"} +Inf

            broken{x="1 2
            {x="1"} 2
            nothing
            word x
            """
        #expect(
            MetricsText.samples(text) == [
                MetricSample(name: "a", value: 3),
                MetricSample(name: "b", labels: ["x": "1", "y": "a\"b\\c\nd, }"], value: 0.5),
                MetricSample(name: "c_bucket", labels: ["le": "+Inf"], value: .infinity),
            ])
    }

    private func look(_ count: Double, _ errors: Double, _ peers: Double, _ hops: Double) -> [MetricSample] {
        let name = "kvserver_request_duration_seconds"
        func requests(_ route: String, _ code: String, _ count: Double) -> [MetricSample] {
            let labels = ["route": route, "code": code]
            return [
                MetricSample(name: name + "_bucket", labels: labels.merging(["le": "0.001"]) { $1 }, value: count / 2),
                MetricSample(name: name + "_bucket", labels: labels.merging(["le": "0.003"]) { $1 }, value: count),
                MetricSample(name: name + "_bucket", labels: labels.merging(["le": "+Inf"]) { $1 }, value: count),
                MetricSample(name: name + "_count", labels: labels, value: count),
            ]
        }
        return requests("/keys/", "200", count) + requests("/route", "503", errors)
            + requests("/peer/batch", "200", peers)
            + [
                MetricSample(name: "kvserver_peer_operations_total", labels: ["peer": "a"], value: hops),
                MetricSample(name: "kvserver_connections", value: 4),
                MetricSample(name: "kvserver_ring_epoch", value: 6),
                MetricSample(name: "kvserver_memcached_stored_bytes", value: 25),
                MetricSample(name: "kvserver_memcached_limit_bytes", value: 100),
            ]
    }

    @Test func ratesAreOfClientsRequestsAlone() {
        let rates = NodeRates(from: look(100, 10, 5, 7), to: look(300, 14, 900, 17), seconds: 2)
        #expect((rates.requestsPerSecond, rates.errorsPerSecond, rates.hopsPerSecond) == (102, 2, 5))
        #expect((rates.connections, rates.memoryUsed, rates.epoch) == (4, 0.25, 6))
        // Half are below 1 ms, half between 1 and 3.
        #expect(abs((rates.medianMilliseconds ?? 0) - 1) < 1e-9)
        #expect(abs((rates.p99Milliseconds ?? 0) - 2.96) < 1e-9)
    }

    @Test(arguments: [.nan, .infinity, -.infinity, 1e300] as [Double])
    func whatIsNoNumberOfConnectionsIsNone(_ value: Double) {
        let gauges = ["kvserver_connections", "kvserver_ring_epoch"].map { MetricSample(name: $0, value: value) }
        let rates = NodeRates(from: gauges, to: gauges, seconds: 1)
        #expect((rates.connections, rates.epoch) == (0, 0))
    }

    @Test func oneThatWasStartedAgainCountsFromItsBeginning() {
        let rates = NodeRates(from: look(1000, 0, 0, 0), to: look(50, 0, 0, 0), seconds: 1)
        #expect(rates.requestsPerSecond == 50)
        let idle = NodeRates(from: look(5, 0, 0, 0), to: look(5, 0, 0, 0), seconds: 1)
        #expect(idle.requestsPerSecond == 0 && idle.medianMilliseconds == nil)
    }
}
