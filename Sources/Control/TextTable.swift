// SPDX-License-Identifier: Apache-2.0

/// Rows in columns as wide as what stands in them.
package struct TextTable: Sendable {
    private var rows: [[String]]
    /// Columns of figures, which end at the same place.
    private let figures: Set<Int>

    package init(_ titles: [String], figures: Set<Int> = []) {
        self.rows = [titles]
        self.figures = figures
    }

    package mutating func append(_ row: [String]) { rows.append(row) }

    /// A line a row, without blanks at its end.
    package var lines: [String] {
        let columns = rows.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in
            rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
        }
        return rows.map { row in
            var line = ""
            for (column, text) in row.enumerated() {
                let blanks = String(repeating: " ", count: widths[column] - text.count)
                line += (column == 0 ? "" : "  ") + (figures.contains(column) ? blanks + text : text + blanks)
            }
            while line.last == " " { line.removeLast() }
            return line
        }
    }
}

/// Numbers as people read them.
package enum Figures {
    /// With one decimal from a thousand on: `950`, `1.2k`, `3.4M`.
    package static func short(_ number: Double) -> String {
        for (size, letter) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] where number >= size {
            return decimal(number / size, places: 1) + letter
        }
        return number == number.rounded() ? decimal(number, places: 0) : decimal(number, places: 1)
    }

    package static func bytes(_ number: Double) -> String {
        for (size, unit) in [(1024.0 * 1024 * 1024, "GiB"), (1024.0 * 1024, "MiB"), (1024.0, "KiB")]
        where number >= size {
            return decimal(number / size, places: 1) + " " + unit
        }
        return decimal(number, places: 0) + " B"
    }

    /// `45 s`, `3 min 20 s`, `2 h 5 min`.
    package static func duration(seconds: Double) -> String {
        guard abs(seconds) < 1e9 else { return "long" }
        let whole = Int(seconds.rounded())
        if whole < 60 { return "\(whole) s" }
        if whole < 3600 { return "\(whole / 60) min \(whole % 60) s" }
        return "\(whole / 3600) h \(whole / 60 % 60) min"
    }

    /// Rounded to so many places behind the point. (Foundation's formats cost megabytes of program.)
    package static func decimal(_ number: Double, places: Int) -> String {
        guard number.isFinite, abs(number) < 1e15 else { return "-" }
        var scale = 1.0
        for _ in 0..<places { scale *= 10 }
        let scaled = Int((abs(number) * scale).rounded())
        let sign = number < 0 && scaled != 0 ? "-" : ""
        guard places > 0 else { return sign + String(scaled) }
        let rest = String(scaled % Int(scale))
        return sign + String(scaled / Int(scale)) + "." + String(repeating: "0", count: places - rest.count) + rest
    }

    package static func percent(_ part: Int, of whole: Int) -> String {
        whole == 0 ? "-" : decimal(Double(part) * 100 / Double(whole), places: 1) + " %"
    }
}
