// SPDX-License-Identifier: Apache-2.0

/// Prometheus' text format, version 0.0.4: `# HELP`, `# TYPE`, and a line a value.
package enum PrometheusText {
    /// - Parameter help: what a metric counts, by its name.
    package static func encode(_ series: [Series], help: (_ metric: String) -> String) -> String {
        // All lines of a metric stand together, in the order in which its first one came.
        var metrics: [String] = []
        var byMetric: [String: [Series]] = [:]
        for one in series {
            if byMetric[one.name.metric] == nil { metrics.append(one.name.metric) }
            byMetric[one.name.metric, default: []].append(one)
        }
        var text = ""
        for metric in metrics {
            guard let series = byMetric[metric], let first = series.first else { continue }
            text += "# HELP \(metric) \(escapedHelp(help(metric)))\n"
            text += "# TYPE \(metric) \(type(of: first.value))\n"
            for one in series where type(of: one.value) == type(of: first.value) { write(one, &text) }
        }
        return text
    }

    private static func type(of value: Series.Value) -> String {
        switch value {
        case .counter: "counter"
        case .gauge: "gauge"
        case .histogram: "histogram"
        }
    }

    private static func write(_ series: Series, _ text: inout String) {
        let (metric, labels) = (series.name.metric, series.name.labels)
        switch series.value {
        case .counter(let value), .gauge(let value): text += "\(line(metric, labels)) \(number(value))\n"
        case .histogram(let histogram):
            var count = 0
            for (index, more) in histogram.counts.enumerated() {
                count += more
                let bound = index < histogram.bounds.count ? number(histogram.bounds[index]) : "+Inf"
                let bucket = labels.isEmpty ? "le=\"\(bound)\"" : "\(labels),le=\"\(bound)\""
                text += "\(line(metric + "_bucket", bucket)) \(count)\n"
            }
            text += "\(line(metric + "_sum", labels)) \(number(histogram.sum))\n"
            text += "\(line(metric + "_count", labels)) \(count)\n"
        }
    }

    private static func line(_ name: String, _ labels: String) -> String {
        labels.isEmpty ? name : "\(name){\(labels)}"
    }

    /// As Go reads it: what is whole has no point.
    static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        if let whole = Int(exactly: value), abs(whole) < 1 << 53 { return "\(whole)" }
        return "\(value)"
    }

    /// With an underscore in the place of what a name can't hold.
    static func name(_ text: String) -> String { identifier(text, mayHaveColon: true) }

    static func labels(_ labels: [(String, String)]) -> String {
        labels.map { "\(identifier($0, mayHaveColon: false))=\"\(escapedLabel($1))\"" }.joined(separator: ",")
    }

    private static func identifier(_ text: String, mayHaveColon: Bool) -> String {
        var name = ""
        for character in text.unicodeScalars {
            let isTaken =
                ("a"..."z").contains(character) || ("A"..."Z").contains(character) || character == "_"
                || mayHaveColon && character == ":" || ("0"..."9").contains(character) && !name.isEmpty
            name.unicodeScalars.append(isTaken ? character : "_")
        }
        return name.isEmpty ? "_" : name
    }

    /// (By scalars: a line feed behind a carriage return is a line feed, too.)
    private static func escapedLabel(_ text: String) -> String {
        var escaped = ""
        for character in text.unicodeScalars {
            switch character {
            case "\\": escaped += "\\\\"
            case "\"": escaped += "\\\""
            case "\n": escaped += "\\n"
            default: escaped.unicodeScalars.append(character)
            }
        }
        return escaped
    }

    private static func escapedHelp(_ text: String) -> String {
        var escaped = ""
        for character in text.unicodeScalars {
            switch character {
            case "\\": escaped += "\\\\"
            case "\n": escaped += "\\n"
            default: escaped.unicodeScalars.append(character)
            }
        }
        return escaped
    }
}
