// SPDX-License-Identifier: Apache-2.0

import CoreMetrics
import Glibc
import Telemetry
import Testing

@Suite("What a host's processes count")
struct CellMemoryTests {
    private static let slots = 3

    /// Two processes' views of one file, as two mappings of it are.
    private struct Host {
        let one: CellMemory
        let other: CellMemory

        init() throws {
            let file = try #require(CellMemory.makeFile(workerSlots: slots))
            defer { close(file) }
            one = try #require(CellMemory(file: file, workerSlots: slots))
            other = try #require(CellMemory(file: file, workerSlots: slots))
        }
    }

    private func value(_ metric: String, _ labels: [(String, String)] = [], in memory: CellMemory) -> Series.Value? {
        let name = SeriesName(metric, labels)
        return memory.sum().series.first { $0.name == name }?.value
    }

    @Test("is the sum over all workers and the supervisor, whoever asks")
    func sum() throws {
        let host = try Host()
        for (slot, amount) in [(0, 5), (2, 7), (nil, 100)] as [(Int?, Int)] {
            let factory = PrometheusMetricsFactory(host.one.part(ofSlot: slot))
            Counter(label: "c_total", dimensions: [("a", "x")], factory: factory).increment(by: amount)
            Meter(label: "g", factory: factory).set(Double(amount) / 2)
            Recorder(label: "sizes", factory: factory).record(amount)
            Timer(label: "t_seconds", factory: factory).recordNanoseconds(Int64(amount) * 1_000_000)
        }
        for memory in [host.one, host.other] {
            #expect(value("c_total", [("a", "x")], in: memory) == .counter(112))
            #expect(value("g", in: memory) == .gauge(56))
            guard case .histogram(let sizes) = value("sizes", in: memory) else { throw Missing() }
            #expect(
                sizes
                    == Histogram(
                        bounds: PrometheusMetricsFactory.sizeBounds, counts: [0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0], sum: 112
                    ))
            guard case .histogram(let times) = value("t_seconds", in: memory) else { throw Missing() }
            #expect(times.bounds == PrometheusMetricsFactory.durationBounds)
            #expect(times.counts.reduce(0, +) == 3)
            #expect(abs(times.sum - 0.112) < 1e-9)
        }
    }

    private struct Missing: Error {}

    @Test("a worker's successor counts on, and none of its gauges is left")
    func successor() throws {
        let host = try Host()
        let first = PrometheusMetricsFactory(host.one.part(ofSlot: 1))
        Counter(label: "c_total", factory: first).increment(by: 3)
        Timer(label: "t_seconds", factory: first).recordNanoseconds(10)
        Meter(label: "connections", factory: first).set(9)
        host.other.forgetGauges(ofSlot: 1)
        #expect(value("c_total", in: host.other) == .counter(3))
        #expect(value("connections", in: host.other) == .gauge(0))
        // The order in which it makes them is another one.
        let second = PrometheusMetricsFactory(host.other.part(ofSlot: 1))
        Meter(label: "connections", factory: second).increment()
        Timer(label: "t_seconds", factory: second).recordNanoseconds(20)
        Counter(label: "new_total", factory: second).increment()
        Counter(label: "c_total", factory: second).increment(by: 4)
        #expect(value("c_total", in: host.one) == .counter(7))
        #expect(value("new_total", in: host.one) == .counter(1))
        #expect(value("connections", in: host.one) == .gauge(1))
        guard case .histogram(let times) = value("t_seconds", in: host.one) else { throw Missing() }
        #expect(times.counts.first == 2)
    }

    @Test("two handles of one name and its labels are one series")
    func sameSeries() {
        let memory = CellMemory(workerSlots: 1)
        let factory = PrometheusMetricsFactory(memory.part(ofSlot: 0))
        for _ in 0..<3 { Counter(label: "c_total", dimensions: [("a", "b")], factory: factory).increment() }
        #expect(value("c_total", [("a", "b")], in: memory) == .counter(3))
        let meter = Meter(label: "g", factory: factory)
        meter.increment(by: 2.5)
        meter.decrement()
        #expect(value("g", in: memory) == .gauge(1.5))
        Gauge(label: "h", factory: factory).record(4)
        #expect(value("h", in: memory) == .gauge(4))
    }

    @Test("a value on a bucket's bound belongs to it")
    func bounds() throws {
        let memory = CellMemory(workerSlots: 1)
        let factory = PrometheusMetricsFactory(memory.part(ofSlot: 0)) { $0 == "t_seconds" ? [0.001, 1] : nil }
        let timer = Timer(label: "t_seconds", factory: factory)
        for nanoseconds in [0, 1_000_000, 1_000_001, 1_000_000_000, 1_000_000_001, 1 << 40] as [Int64] {
            timer.recordNanoseconds(nanoseconds)
        }
        guard case .histogram(let times) = value("t_seconds", in: memory) else { throw Missing() }
        #expect(times.bounds == [0.001, 1])
        #expect(times.counts == [2, 2, 2])
    }

    @Test("whoever has no room, or counts something else under a name, counts nothing, and that is counted")
    func refusals() {
        let memory = CellMemory(workerSlots: 1)
        let factory = PrometheusMetricsFactory(memory.part(ofSlot: 0))
        Counter(label: "c", factory: factory).increment()
        Meter(label: "c", factory: factory).set(100)
        Counter(label: "long", dimensions: [("l", String(repeating: "x", count: 2000))], factory: factory).increment()
        #expect(value("c", in: memory) == .counter(1))
        #expect(value("kvserver_metrics_refused_series_total", in: memory) == .counter(2))
        let label = String(repeating: "x", count: 900)
        for number in 0..<2000 {
            Counter(label: "many", dimensions: [("l", "\(label)\(number)")], factory: factory).increment()
        }
        let kept = memory.sum().series.filter { $0.name.metric == "many" }
        #expect((1000..<1200).contains(kept.count))
        #expect(value("kvserver_metrics_refused_series_total", in: memory) == .counter(Double(2 + 2000 - kept.count)))
    }

    @Test("nobody misses an addition that others make at the same time")
    func concurrency() async {
        let memory = CellMemory(workerSlots: 1)
        let factory = PrometheusMetricsFactory(memory.part(ofSlot: 0))
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    let counter = Counter(label: "c_total", factory: factory)
                    let meter = Meter(label: "g", factory: factory)
                    for _ in 0..<10_000 {
                        counter.increment()
                        meter.increment()
                    }
                }
            }
        }
        #expect(value("c_total", in: memory) == .counter(40_000))
        #expect(value("g", in: memory) == .gauge(40_000))
    }

    @Test("a descriptor that is something else is not taken")
    func strangers() throws {
        let pipe = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(pipe) }
        #expect(CellMemory(file: pipe, workerSlots: 3) == nil)
        #expect(CellMemory(file: -1, workerSlots: 3) == nil)
        let smaller = try #require(CellMemory.makeFile(workerSlots: 2))
        defer { close(smaller) }
        #expect(CellMemory(file: smaller, workerSlots: 3) == nil)
    }
}
