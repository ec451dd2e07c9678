// SPDX-License-Identifier: Apache-2.0

private import HashRing

/// How far a ring change is, from what the nodes' statuses say of it.
package struct ChangeProgress: Hashable, Sendable, Encodable {
    package let id: String
    package let change: String
    package let step: String
    package let isAborting: Bool
    /// In this step, of all nodes.
    package let pairsFound: Int
    package let pairsDone: Int
    package let pairsMoved: Int
    package let bytesMoved: Int
    package let pairsPerSecond: Double
    /// Nil before there is any speed.
    package let secondsLeft: Double?

    /// Of the statuses with the newest document: nodes that lag behind would show an older step. Nil where no change
    /// is under way there.
    package init?(_ statuses: [NodeStatus]) {
        guard let epoch = statuses.map(\.epoch).max() else { return nil }
        let changes = statuses.filter { $0.epoch == epoch }.compactMap(\.transition)
        guard let first = changes.first else { return nil }
        // Each node tells of all, as it last heard; of several words on one node the farthest is the newest.
        var parts: [NodeID: NodeStatus.Progress] = [:]
        for part in changes.flatMap(\.progress) where part.pairsDone >= parts[part.node]?.pairsDone ?? 0 {
            parts[part.node] = part
        }
        id = first.id
        change = first.change.sentence
        step = first.step.rawValue
        isAborting = first.abortReason != nil
        pairsFound = parts.values.reduce(0) { $0 + $1.pairsFound }
        pairsDone = parts.values.reduce(0) { $0 + $1.pairsDone }
        pairsMoved = parts.values.reduce(0) { $0 + $1.pairsMoved }
        bytesMoved = parts.values.reduce(0) { $0 + $1.bytesMoved }
        // The nodes work side by side, and the last one tells when all are done.
        let speeds = parts.values.map { part in
            (
                left: part.pairsFound - part.pairsDone,
                speed: part.seconds >= 0.001 ? Double(part.pairsDone) / part.seconds : 0
            )
        }
        pairsPerSecond = speeds.reduce(0) { $0 + $1.speed }
        let times = speeds.filter { $0.left > 0 }.map { $0.speed > 0 ? Double($0.left) / $0.speed : nil }
        secondsLeft = times.contains { $0 == nil } || parts.isEmpty ? nil : times.compactMap(\.self).max() ?? 0
    }

    /// 0…1 of this step.
    package var share: Double { pairsFound > 0 ? min(Double(pairsDone) / Double(pairsFound), 1) : 0 }

    /// One line for a pipe.
    package var line: String {
        var text = "\(isAborting ? "aborting, " : "")\(step): \(pairsDone) of \(pairsFound) pairs"
        if pairsPerSecond > 0 { text += ", \(Figures.short(pairsPerSecond))/s" }
        if let secondsLeft, pairsDone < pairsFound { text += ", \(Figures.duration(seconds: secondsLeft)) left" }
        return text
    }

    /// The same behind a bar.
    package func bar(width: Int) -> String {
        let room = max(min(width - line.count - 10, 40), 5)
        let full = Int((share * Double(room)).rounded())
        let percent = Int((share * 100).rounded(.down))
        return "[" + String(repeating: "#", count: full) + String(repeating: "-", count: room - full) + "] "
            + "\(percent) % " + line
    }
}
