// SPDX-License-Identifier: Apache-2.0

import Foundation
import HashRing
import Testing

/// docs/pictures/positions.svg: how even the shares are while nodes join one by one. The test draws it and holds the
/// file against that, so that the picture shows what the picker does; `KVSERVER_DRAW=1` writes it anew.
struct PositionPictureTests {
    private static let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("../../docs/pictures/positions.svg").standardizedFileURL

    @Test func thePictureShowsWhatThePickerDoes() throws {
        let picture = try PositionPictureTests.drawing()
        if ProcessInfo.processInfo.environment["KVSERVER_DRAW"] != nil {
            try FileManager.default.createDirectory(
                at: PositionPictureTests.path.deletingLastPathComponent(), withIntermediateDirectories: true)
            try picture.write(to: PositionPictureTests.path, atomically: true, encoding: .utf8)
        }
        let kept = try String(contentsOf: PositionPictureTests.path, encoding: .utf8)
        #expect(kept == picture, "drawn anew by KVSERVER_DRAW=1 swift test --filter PositionPictureTests")
    }

    private static let (left, right, top, bottom) = (70.0, 690.0, 50.0, 350.0)
    private static func x(_ nodes: Int) -> String { tenths(left + Double(nodes - 3) / 97 * (right - left)) }
    private static func y(_ ratio: Double) -> String { tenths(bottom - (ratio - 1) / 0.7 * (bottom - top)) }

    /// One digit behind the point, the same in every locale.
    private static func tenths(_ number: Double) -> String {
        let tenths = Int((number * 10).rounded())
        return "\(tenths / 10).\(tenths % 10)"
    }

    private static func drawing() throws -> String {
        var lines = [
            """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 820 420" role="img" font-family="sans-serif" font-size="14">
            <title>The largest share of the slots over the mean share, for 3 to 100 nodes that join one by one</title>
            <style>
            .ground { fill: #ffffff } .text { fill: #24292f } .grid { stroke: #d0d7de } .bound { stroke: #57606a }
            polyline.few { stroke: #b35900 } polyline.some { stroke: #8250df } polyline.many { stroke: #0969da }
            text.few { fill: #b35900 } text.some { fill: #8250df } text.many { fill: #0969da }
            polyline { fill: none; stroke-width: 2; stroke-linejoin: round }
            @media (prefers-color-scheme: dark) {
            .ground { fill: #0d1117 } .text { fill: #e6edf3 } .grid { stroke: #30363d } .bound { stroke: #9198a1 }
            polyline.few { stroke: #f0883e } polyline.some { stroke: #bc8cff } polyline.many { stroke: #58a6ff }
            text.few { fill: #f0883e } text.some { fill: #bc8cff } text.many { fill: #58a6ff }
            }
            </style>
            <rect class="ground" width="820" height="420"/>
            <text class="text" x="70" y="28" font-size="16">Largest share of the slots, over the mean share</text>
            """
        ]
        for tenth in 10...17 {
            let (height, ratio) = (y(Double(tenth) / 10), "\(tenth / 10).\(tenth % 10)")
            lines.append("<line class=\"grid\" x1=\"\(left)\" y1=\"\(height)\" x2=\"\(right)\" y2=\"\(height)\"/>")
            lines.append(
                "<text class=\"text\" x=\"62\" y=\"\(height)\" dy=\"5\" text-anchor=\"end\">\(ratio)</text>")
        }
        for nodes in [3, 20, 40, 60, 80, 100] {
            lines.append("<text class=\"text\" x=\"\(x(nodes))\" y=\"372\" text-anchor=\"middle\">\(nodes)</text>")
        }
        lines.append(
            "<text class=\"text\" x=\"380\" y=\"402\" text-anchor=\"middle\">nodes, each added by /add_node/auto</text>"
        )
        lines.append(
            "<line class=\"bound\" stroke-dasharray=\"6 4\" x1=\"\(left)\" y1=\"\(y(1.25))\" x2=\"\(right)\" y2=\"\(y(1.25))\"/>"
        )
        lines.append("<text class=\"text\" x=\"698\" y=\"\(y(1.25))\" dy=\"5\">1.25</text>")
        for (name, positions, label) in [
            ("few", 1, "1 position"), ("some", 8, "8 positions"), ("many", 64, "64 positions"),
        ] {
            let shares = try Growth.largestShares(positions: positions, upTo: 100)
            let points = shares.enumerated().map { "\(x($0 + 3)),\(y($1))" }.joined(separator: " ")
            lines.append("<polyline class=\"\(name)\" points=\"\(points)\"/>")
            // Of the last ten, so that the label stands where the line ends; apart from each other.
            let end = shares.suffix(10).reduce(0, +) / 10 + (positions == 8 ? 0.02 : positions == 64 ? -0.01 : 0)
            lines.append("<text class=\"\(name)\" x=\"698\" y=\"\(y(end))\" dy=\"5\">\(label)</text>")
        }
        return (lines + ["</svg>", ""]).joined(separator: "\n")
    }
}
