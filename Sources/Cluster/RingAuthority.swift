// SPDX-License-Identifier: Apache-2.0

package import HashRing
private import KeyValue
private import NIOCore

/// Who decides on the next ring document. One driver at a time gets the authority; it is told the newest document that
/// there is, and may then announce the next one.
package protocol RingAuthority: Sendable {
    /// Asks for the authority over these nodes.
    /// - Parameters:
    ///   - holder: names the driver, never used twice.
    ///   - required: nodes without whose word there is no authority; `others` are asked too, and may be silent.
    func acquire(
        _ holder: String, required: [NodeID], others: [NodeID]
    ) async throws(RingAuthorityError) -> RingMandate
    /// Prolongs it; false once somebody else has it.
    func renew(_ holder: String, _ mandate: RingMandate) async -> Bool
    func release(_ holder: String, _ mandate: RingMandate) async
}

/// What a driver learns with the authority.
package struct RingMandate: Sendable {
    /// Whose word it rests on.
    package let required: [NodeID]
    package let others: [NodeID]
    /// The newest document that any of them knows.
    package let newest: RingDocument?
    package let generations: [NodeID: Generation]
}

package enum RingAuthorityError: Error, Sendable {
    /// Another driver has it.
    case held(at: NodeID, by: String)
    case unreachable(NodeID, reason: String)
}

/// The default authority: a promise in each member's memcached, asked for in `NodeID` order, so that of two drivers one
/// gets the first and with it all. Every member has to answer; no further server is needed.
package struct EmbeddedRingAuthority: RingAuthority {
    /// How long a promise outlives its last renewal.
    package static let promiseLifeMilliseconds: Int64 = 3000
    private static let timeout = TimeAmount.milliseconds(1000)

    private let node: NodeID
    private let keeper: RingKeeper
    private let peers: PeerCaller

    package init(node: NodeID, keeper: RingKeeper, peers: PeerCaller) {
        self.node = node
        self.keeper = keeper
        self.peers = peers
    }

    package func acquire(
        _ holder: String, required: [NodeID], others: [NodeID]
    ) async throws(RingAuthorityError) -> RingMandate {
        var newest: RingDocument?
        var generations: [NodeID: Generation] = [:]
        var asked: [NodeID] = []
        do {
            for node in Set(required + others).sorted() {
                let isRequired = required.contains(node)
                do throws(RingAuthorityError) {
                    let answer = try await promise(of: node, to: holder)
                    asked.append(node)
                    generations[node] = answer.generation
                    if let document = answer.document, document.epoch > (newest?.epoch ?? .none) { newest = document }
                    if let other = answer.heldBy, isRequired { throw .held(at: node, by: other) }
                } catch .unreachable where !isRequired {
                    continue
                }
            }
        } catch {
            await release(holder, asked)
            throw error
        }
        return RingMandate(required: required, others: others, newest: newest, generations: generations)
    }

    package func renew(_ holder: String, _ mandate: RingMandate) async -> Bool {
        for node in mandate.required {
            // A node that is silent has not given its promise away: it can't be given while it is silent.
            guard let answer = try? await promise(of: node, to: holder) else { continue }
            if answer.heldBy != nil { return false }
        }
        return true
    }

    package func release(_ holder: String, _ mandate: RingMandate) async {
        await release(holder, mandate.required + mandate.others)
    }

    private func release(_ holder: String, _ nodes: [NodeID]) async {
        for node in Set(nodes) {
            if node == self.node {
                try? await keeper.release(holder)
            } else {
                let _: Done? = try? await peers.call(
                    node, "release", PeerMessage.Release(holder: holder), timeout: EmbeddedRingAuthority.timeout)
            }
        }
    }

    private func promise(of node: NodeID, to holder: String) async throws(RingAuthorityError)
        -> PeerMessage.PromiseAnswer
    {
        do {
            let life = EmbeddedRingAuthority.promiseLifeMilliseconds
            if node == self.node { return try await keeper.promise(to: holder, lifeMilliseconds: life) }
            return try await peers.call(
                node, "promise", PeerMessage.PromiseRequest(holder: holder, lifeMilliseconds: life),
                timeout: EmbeddedRingAuthority.timeout)
        } catch {
            throw .unreachable(node, reason: "\(error)")
        }
    }
}

/// An answer that says nothing more than that it was done.
package struct Done: Codable, Sendable {
    package init() {}
}
