// SPDX-License-Identifier: Apache-2.0

import Telemetry
import Testing

@Suite("Prometheus' text format")
struct PrometheusTextTests {
    private func text(_ series: Series...) -> String { PrometheusText.encode(series) { "Counts \($0)." } }

    @Test("says what a metric is before its values, once")
    func headers() {
        #expect(
            text(.counter("a_total", [("of", "x")], 3), .gauge("b", 1), .counter("a_total", [("of", "y")], 4)) == """
                # HELP a_total Counts a_total.
                # TYPE a_total counter
                a_total{of="x"} 3
                a_total{of="y"} 4
                # HELP b Counts b.
                # TYPE b gauge
                b 1

                """)
    }

    @Test("writes no line for nothing")
    func empty() { #expect(PrometheusText.encode([]) { _ in "" } == "") }

    @Test(
        "escapes what a label may not hold",
        arguments: [
            ("plain", "plain"), ("a\"b", "a\\\"b"), ("a\\b", "a\\\\b"), ("a\nb", "a\\nb"), ("\\n", "\\\\n"),
            ("a\r\nb", "a\r\\nb"), ("é{},=", "é{},="), ("", ""),
        ])
    func labels(value: String, written: String) {
        #expect(text(.gauge("a", [("l", value)], 1)).contains("\na{l=\"\(written)\"} 1\n"))
    }

    @Test("escapes what a help may not hold, and no more")
    func help() {
        let text = PrometheusText.encode([.gauge("a", 1)]) { _ in "back\\slash, \"quotes\",\nline" }
        #expect(text.hasPrefix("# HELP a back\\\\slash, \"quotes\",\\nline\n# TYPE a gauge\n"))
    }

    @Test(
        "puts an underscore in the place of what a name can't hold",
        arguments: [
            ("http.server-time", "http_server_time"), ("9lives", "_lives"), ("a:b9", "a:b9"), ("é", "_"), ("", "_"),
            ("a\nb", "a_b"),
        ])
    func names(label: String, written: String) {
        #expect(text(.gauge(label, 1)).hasSuffix("\n\(written) 1\n"))
        #expect(text(.gauge("x", [(label, "v")], 1)).contains("{\(written.replacing(":", with: "_"))=\"v\"}"))
    }

    @Test(
        "writes numbers as Go reads them",
        arguments: [
            (0, "0"), (-0.5, "-0.5"), (3, "3"), (1e15, "1000000000000000"), (1e300, "1e+300"), (0.00025, "0.00025"),
            (.infinity, "+Inf"), (-.infinity, "-Inf"), (.nan, "NaN"), (1.0 / 3, "0.3333333333333333"),
        ] as [(Double, String)])
    func numbers(value: Double, written: String) {
        #expect(text(.gauge("a", value)).hasSuffix("\na \(written)\n"))
    }

    @Test("adds a histogram's buckets up, ends with one for all, and says their sum and count")
    func histogram() {
        let histogram = Histogram(bounds: [0.001, 0.5, 1], counts: [2, 0, 3, 1], sum: 4.25)
        let named = Series(name: SeriesName("a_seconds", [("of", "x")]), value: .histogram(histogram))
        #expect(
            text(named) == """
                # HELP a_seconds Counts a_seconds.
                # TYPE a_seconds histogram
                a_seconds_bucket{of="x",le="0.001"} 2
                a_seconds_bucket{of="x",le="0.5"} 2
                a_seconds_bucket{of="x",le="1"} 5
                a_seconds_bucket{of="x",le="+Inf"} 6
                a_seconds_sum{of="x"} 4.25
                a_seconds_count{of="x"} 6

                """)
        let bare = Series(name: SeriesName("b"), value: .histogram(Histogram(bounds: [], counts: [7], sum: 9)))
        #expect(text(bare).hasSuffix("b_bucket{le=\"+Inf\"} 7\nb_sum 9\nb_count 7\n"))
    }
}
