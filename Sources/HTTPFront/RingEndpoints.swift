// SPDX-License-Identifier: Apache-2.0

private import Cluster
private import FoundationEssentials
package import HashRing
private import KeyValue
package import NIOCore

/// The ring: shown, installed, changed.
extension HTTPFrontHandler {
    func showRing(_ id: RequestID) {
        switch front.data.standing {
        case .unconfirmed: complete(id, ErrorAnswer.unconfirmedRing)
        case .none, .present: complete(id, .json(JSONText.ring(front.data.document)))
        }
    }

    func installRing(_ request: FrontRequest, _ id: RequestID) {
        let text: ByteBuffer
        switch FormDecoder.buffer("data", in: request.body) {
        case .absent, .tooLong: return complete(id, ErrorAnswer.badRing("The form has no data"))
        case .malformed: return complete(id, ErrorAnswer.malformedField)
        case .value(let found): text = found
        }
        let wanted: RingRequest
        do {
            wanted = try RingRequest(text)
        } catch {
            return complete(id, ErrorAnswer.badRing(error.reason))
        }
        let operators = front.operators
        handOver(id) {
            do throws(OperatorError) {
                try await operators.install(wanted.ring, standbys: wanted.standbys)
                return .ok
            } catch {
                return ErrorAnswer.operation(error)
            }
        }
    }

    func addNode(_ request: FrontRequest, _ id: RequestID) {
        let parts = request.pathRest(after: RouteTable.addNodePrefix)
            .split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let position = parts.first.flatMap({ Position($0) }) else {
            return complete(id, ErrorAnswer.badPosition)
        }
        guard parts.count == 2, let node = NodeID(parts[1]) else { return complete(id, ErrorAnswer.badNode) }
        change(.add(node: node, position: position), id)
    }

    func removeNode(_ request: FrontRequest, _ id: RequestID) {
        guard let node = NodeID(request.pathRest(after: RouteTable.removeNodePrefix)) else {
            return complete(id, ErrorAnswer.badNode)
        }
        change(.remove(node: node), id)
    }

    private func change(_ change: RingChange, _ id: RequestID) {
        let operators = front.operators
        handOver(id) {
            do throws(OperatorError) {
                try await operators.change(change)
                return .ok
            } catch {
                return ErrorAnswer.operation(error)
            }
        }
    }

    func abortChange(_ id: RequestID) {
        let operators = front.operators
        handOver(id) {
            do throws(OperatorError) {
                try await operators.abortChange()
                return .ok
            } catch {
                return ErrorAnswer.operation(error)
            }
        }
    }
}

/// The ring that an operator posts: `{"nodes":[{"ip":"ip:port","key":3000},…],"standbys":["ip:port",…]}`.
package struct RingRequest: Sendable {
    package let ring: Ring
    package let standbys: [NodeID]

    /// What is wrong with it, as the beginning of a sentence.
    package struct Malformed: Error {
        package let reason: String
    }

    private struct Message: Decodable {
        struct Node: Decodable {
            let ip: String
            let key: Int
        }

        let nodes: [Node]
        let standbys: [String]?
    }

    package init(_ text: ByteBuffer) throws(Malformed) {
        guard text.readableBytes <= Limits.ringDocumentBytes else {
            throw Malformed(reason: "The ring is over \(Limits.ringDocumentBytes) bytes")
        }
        let message: Message
        do {
            message = try JSONDecoder().decode(Message.self, from: Data(text.readableBytesView))
        } catch {
            throw Malformed(reason: "The data is no ring in JSON")
        }
        let standbys = message.standbys ?? []
        guard !message.nodes.isEmpty else { throw Malformed(reason: "The ring has no nodes") }
        guard message.nodes.count + standbys.count <= Ring.nodeLimit else {
            throw Malformed(reason: "The ring has over \(Ring.nodeLimit) nodes")
        }
        var seats: [Ring.Seat] = []
        for place in message.nodes {
            guard let node = NodeID(place.ip) else { throw Malformed(reason: "A node's ip is not its ip:port") }
            guard let position = Position(place.key) else {
                throw Malformed(reason: "The position \(place.key) of \(node) is outside 0…9999")
            }
            seats.append(Ring.Seat(position: position, node: node))
        }
        guard let ring = Ring(seats: seats) else { throw Malformed(reason: "Two nodes have one position") }
        self.ring = ring
        var others: [NodeID] = []
        for text in standbys {
            guard let node = NodeID(text) else { throw Malformed(reason: "A standby is not an ip:port") }
            if !ring.contains(node), !others.contains(node) { others.append(node) }
        }
        self.standbys = others
    }
}
