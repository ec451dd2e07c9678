// SPDX-License-Identifier: Apache-2.0

/// Which node sits at which positions; a value that never changes once made.
///
/// A slot belongs to the first position at or after it, wrapping at the end. Positions are unique and sorted; a
/// node may sit at several.
package struct Ring: Hashable, Sendable {
    /// One place on the ring and who sits there.
    package struct Seat: Hashable, Sendable {
        package let position: Position
        package let node: NodeID

        package init(position: Position, node: NodeID) {
            self.position = position
            self.node = node
        }
    }

    /// Ascending by position.
    package let seats: [Seat]

    /// The most nodes that a ring is made for, its standbys among them.
    package static let nodeLimit = 1000

    package static let empty = Ring(sorted: [])

    private init(sorted seats: [Seat]) { self.seats = seats }

    /// A ring of these seats in any order; nil where two share a position.
    package init?(seats: [Seat]) {
        let sorted = seats.sorted { $0.position < $1.position }
        for (left, right) in zip(sorted, sorted.dropFirst()) where left.position == right.position { return nil }
        self.seats = sorted
    }

    package var isEmpty: Bool { seats.isEmpty }

    /// Every node, once, in `NodeID` order.
    package var nodes: [NodeID] { Set(seats.map(\.node)).sorted() }

    package func contains(_ node: NodeID) -> Bool { seats.contains { $0.node == node } }

    package func node(at position: Position) -> NodeID? { seats.first { $0.position == position }?.node }

    package func positions(of node: NodeID) -> [Position] { seats.filter { $0.node == node }.map(\.position) }

    /// The node that the slot belongs to; nil on an empty ring only.
    package func owner(of slot: Slot) -> NodeID? {
        guard !isEmpty else { return nil }
        return seats[firstSeatIndex(for: slot)].node
    }

    /// The first `count` distinct nodes clockwise from the slot (Dynamo §4.2), the owner first; fewer where the ring
    /// has fewer.
    package func preferenceList(of slot: Slot, count: Int) -> [NodeID] {
        guard !isEmpty, count > 0 else { return [] }
        let start = firstSeatIndex(for: slot)
        var list: [NodeID] = []
        for step in 0..<seats.count {
            let node = seats[(start + step) % seats.count].node
            guard !list.contains(node) else { continue }
            list.append(node)
            if list.count == count { break }
        }
        return list
    }

    /// This ring with the node at one more position; nil where the position is taken.
    package func adding(_ node: NodeID, at position: Position) -> Ring? {
        Ring(seats: seats + [Seat(position: position, node: node)])
    }

    /// This ring without the node.
    package func removing(_ node: NodeID) -> Ring { Ring(sorted: seats.filter { $0.node != node }) }

    /// This ring with one node in the place of another.
    package func replacing(_ old: NodeID, by new: NodeID) -> Ring {
        Ring(sorted: seats.map { $0.node == old ? Seat(position: $0.position, node: new) : $0 })
    }

    /// The runs of slots in which none of these rings changes hands: from one seat of any of them to the next.
    /// Ascending; together they are all slots.
    package static func segments(of rings: [Ring]) -> [ClosedRange<UInt16>] {
        let last = UInt16(Slot.count - 1)
        var segments: [ClosedRange<UInt16>] = []
        var start: UInt16 = 0
        for end in Set(rings.flatMap { $0.seats.map(\.position.value) } + [last]).sorted() {
            segments.append(start...end)
            start = end + 1
        }
        return segments
    }

    /// Index of the first seat at or after the slot, wrapping: binary search.
    private func firstSeatIndex(for slot: Slot) -> Int {
        var low = 0
        var high = seats.count
        while low < high {
            let middle = (low + high) / 2
            if seats[middle].position.value < slot.value { low = middle + 1 } else { high = middle }
        }
        return low == seats.count ? 0 : low
    }
}

extension Ring: Codable {
    /// As a JSON object from node to its positions, `{"ip:port":[100,3000]}`: with many positions a node, a third of
    /// what it would take from position to node. That is what earlier versions wrote, `{"3000":"ip:port"}`, and it is
    /// read as well, for it is what they leave in memcached and on disk.
    package init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        var seats: [Seat] = []
        for (name, place) in try container.decode([String: Place].self) {
            switch place {
            case .positions(let numbers):
                guard let node = NodeID(name) else {
                    throw DecodingError.dataCorruptedError(in: container, debugDescription: "not an ip:port: \(name)")
                }
                for number in numbers {
                    guard let position = Position(number) else {
                        throw DecodingError.dataCorruptedError(
                            in: container, debugDescription: "not a position: \(number)")
                    }
                    seats.append(Seat(position: position, node: node))
                }
            case .node(let node):
                guard let position = Position(name) else {
                    throw DecodingError.dataCorruptedError(in: container, debugDescription: "not a position: \(name)")
                }
                seats.append(Seat(position: position, node: node))
            }
        }
        guard let ring = Ring(seats: seats) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "a position is named twice")
        }
        self = ring
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(
            Dictionary(seats.map { ($0.node.description, [Int($0.position.value)]) }, uniquingKeysWith: +))
    }

    private enum Place: Decodable {
        case positions([Int])
        case node(NodeID)

        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            if let numbers = try? container.decode([Int].self) {
                self = .positions(numbers)
            } else {
                self = .node(try container.decode(NodeID.self))
            }
        }
    }
}
