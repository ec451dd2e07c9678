// SPDX-License-Identifier: Apache-2.0

private import AccessControl
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
        if let refusal = refusal(ofCalling: wanted.ring.nodes + wanted.standbys) { return complete(id, refusal) }
        let operators = front.operators
        handOver(id) {
            do throws(OperatorError) {
                try await operators.install(
                    wanted.ring, replicas: wanted.replicas, standbys: wanted.standbys)
                return .ok
            } catch {
                return ErrorAnswer.operation(error)
            }
        }
    }

    func addNode(_ request: FrontRequest, _ id: RequestID) {
        switch added(request, request.pathRest(after: RouteTable.addNodePrefix)) {
        case .success(let wanted): change(wanted, id)
        case .failure(let refusal): complete(id, refusal.answer)
        }
    }

    func removeNode(_ request: FrontRequest, _ id: RequestID) {
        switch removed(request.pathRest(after: RouteTable.removeNodePrefix)) {
        case .success(let wanted): change(wanted, forcedBy: request, id)
        case .failure(let refusal): complete(id, refusal.answer)
        }
    }

    func replaceNode(_ request: FrontRequest, _ id: RequestID) {
        switch replaced(request.pathRest(after: RouteTable.replaceNodePrefix)) {
        case .success(let wanted): change(wanted, forcedBy: request, id)
        case .failure(let refusal): complete(id, refusal.answer)
        }
    }

    /// - Parameter rest: of the path, `<position>/<ip:port>` or `auto/<ip:port>`.
    func added(_ request: FrontRequest, _ rest: Substring) -> Result<ChangeRequest, Refusal> {
        let parts = rest.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        if parts.first == "auto" { return addedAnywhere(request, parts.last) }
        guard let position = parts.first.flatMap({ Position($0) }) else {
            return .failure(Refusal(answer: ErrorAnswer.badPosition))
        }
        guard parts.count == 2, let node = NodeID(parts[1]) else {
            return .failure(Refusal(answer: ErrorAnswer.badNode))
        }
        return .success(.exactly(.add(node: node, positions: [position])))
    }

    private func addedAnywhere(_ request: FrontRequest, _ name: Substring?) -> Result<ChangeRequest, Refusal> {
        guard let node = name.flatMap({ NodeID($0) }) else { return .failure(Refusal(answer: ErrorAnswer.badNode)) }
        switch request.withQuery({ FormDecoder.bytes("positions", in: $0, limit: 3) }) {
        case .absent: return .success(.addAnywhere(node, count: nil))
        case .malformed: return .failure(Refusal(answer: ErrorAnswer.malformedField))
        case .tooLong: return .failure(Refusal(answer: ErrorAnswer.badPositionCount))
        case .value(let digits):
            // As a position is read: digits alone.
            guard let count = Position(String(decoding: digits, as: UTF8.self)).map({ Int($0.value) }),
                (1...PositionPicker.countLimit).contains(count)
            else { return .failure(Refusal(answer: ErrorAnswer.badPositionCount)) }
            return .success(.addAnywhere(node, count: count))
        }
    }

    func removed(_ rest: Substring) -> Result<ChangeRequest, Refusal> {
        guard let node = NodeID(rest) else { return .failure(Refusal(answer: ErrorAnswer.badNode)) }
        return .success(.exactly(.remove(node: node)))
    }

    /// - Parameter rest: of the path, `<old>/<new>`.
    func replaced(_ rest: Substring) -> Result<ChangeRequest, Refusal> {
        let names = rest.split(separator: "/", omittingEmptySubsequences: false)
        guard names.count == 2, let old = NodeID(names[0]), let new = NodeID(names[1]) else {
            return .failure(Refusal(answer: ErrorAnswer.badNode))
        }
        return .success(.exactly(.replace(old: old, new: new)))
    }

    private static let withoutBytes = 1024

    /// A change that `?force=1` has go on without the node that leaves, and `&without=ip:port,…` without others, too.
    private func change(_ wanted: ChangeRequest, forcedBy request: FrontRequest, _ id: RequestID) {
        let isForced: Bool
        switch request.withQuery({ FormDecoder.bytes("force", in: $0, limit: 1) }) {
        case .absent, .value([UInt8(ascii: "0")]): isForced = false
        case .value([UInt8(ascii: "1")]): isForced = true
        case .malformed: return complete(id, ErrorAnswer.malformedField)
        case .tooLong, .value: return complete(id, ErrorAnswer.badForce)
        }
        switch request.withQuery({ FormDecoder.bytes("without", in: $0, limit: HTTPFrontHandler.withoutBytes) }) {
        case .absent: change(wanted, isForced: isForced, id)
        case .value(let text) where isForced:
            let names = String(decoding: text, as: UTF8.self).split(separator: ",", omittingEmptySubsequences: false)
            let nodes = names.compactMap { NodeID($0) }
            guard nodes.count == names.count else { return complete(id, ErrorAnswer.badNode) }
            change(wanted, isForced: true, without: Set(nodes), id)
        case .malformed: complete(id, ErrorAnswer.malformedField)
        case .tooLong, .value: complete(id, ErrorAnswer.badWithout)
        }
    }

    private func change(
        _ request: ChangeRequest, isForced: Bool = false, without gone: Set<NodeID> = [], _ id: RequestID
    ) {
        if let refusal = refusal(ofCalling: request.joiner.map { [$0] } ?? []) { return complete(id, refusal) }
        let operators = front.operators
        handOver(id) {
            do throws(OperatorError) {
                let loss = try await operators.change(request, isForced: isForced, without: gone)
                // (Whoever does not force anything is promised these two letters.)
                guard isForced, let loss else { return .ok }
                return .text("OK; \(loss)\n")
            } catch {
                return ErrorAnswer.operation(error)
            }
        }
    }

    /// What a client names is not called unless a node may be there.
    private func refusal(ofCalling nodes: [NodeID]) -> Answer? {
        guard let door = front.gate?.door else { return nil }
        if let foreign = nodes.first(where: { !door.allowed.contains($0) }) {
            return ErrorAnswer.foreignAddress(foreign)
        }
        return nodes.first { door.entrance(of: $0) == nil }.map { ErrorAnswer.noPeerPort($0, door.portOffset) }
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

/// The ring that an operator posts:
/// `{"nodes":[{"ip":"ip:port","key":3000},…],"standbys":["ip:port",…],"replicas":3}`.
package struct RingRequest: Sendable {
    package let ring: Ring
    package let replicas: Int
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
        let replicas: Int?
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
        // One that is at several positions is listed at each of them.
        guard Set(message.nodes.map(\.ip)).count + standbys.count <= Ring.nodeLimit else {
            throw Malformed(reason: "The ring has over \(Ring.nodeLimit) nodes")
        }
        let replicas = message.replicas ?? Limits.defaultReplicas
        guard (1...Limits.replicas).contains(replicas) else {
            throw Malformed(reason: "The replicas are not a number from 1 to \(Limits.replicas)")
        }
        self.replicas = replicas
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
