// SPDX-License-Identifier: Apache-2.0

internal import HashRing
package import KeyValue

/// The nodes behind a slot's group, clockwise, as far as they take the places of members that are away (Dynamo's sloppy
/// quorum): one for each, the next one where one fails. They are looked up only once they are needed.
struct StandIns: Hashable, Sendable {
    /// What has to be done so that as many places are taken as are to be.
    enum Step: Hashable, Sendable {
        /// Look them up, and call `found`.
        case find
        case ask([NodeID])
        case nothing
    }

    /// In the order in which they are asked; nil until they are looked up.
    private var candidates: [NodeID]?
    private(set) var asked: [NodeID] = []
    private var failed: Set<NodeID> = []

    /// - Parameter areAllowed: otherwise there are none.
    init(areAllowed: Bool) { candidates = areAllowed ? nil : [] }

    mutating func found(_ nodes: [NodeID]) { candidates = nodes }

    mutating func failed(_ node: NodeID) { failed.insert(node) }

    /// Those that were asked and did not fail.
    var working: [NodeID] { asked.filter { !failed.contains($0) } }

    mutating func take(_ places: Int) -> Step {
        let lacking = places - working.count
        guard lacking > 0 else { return .nothing }
        guard let candidates else { return .find }
        let next = Array(candidates.dropFirst(asked.count).prefix(lacking))
        asked += next
        return next.isEmpty ? .nothing : .ask(next)
    }

    /// Whether `take` would not be without effect.
    func canTake(_ places: Int) -> Bool { working.count < places && candidates.map { $0.count > asked.count } ?? true }

    /// How many of so many places they can take, as far as is known.
    func reachable(_ places: Int) -> Int {
        guard let candidates else { return places }
        return min(places, working.count + candidates.count - asked.count)
    }
}

extension OperationFailure {
    /// Whether the node, or its memcached, did not answer. (Who refuses is there.)
    package var isAbsence: Bool {
        switch reason {
        case .memcachedUnavailable, .nodeUnreachable, .deadline: true
        default: false
        }
    }
}
