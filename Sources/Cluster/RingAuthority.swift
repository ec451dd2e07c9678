// SPDX-License-Identifier: Apache-2.0

package import HashRing
private import KeyValue
private import NIOCore

/// Who decides on the next ring document. One driver at a time gets the authority; it is told the newest document that
/// there is, and may then announce the next one.
package protocol RingAuthority: Sendable {
    func acquire(_ claim: RingClaim) async throws(RingAuthorityError) -> RingMandate
    /// Makes `document` the newest that there is, before anybody is told of it.
    /// - Returns: the mandate to go on with; nil where another driver has taken over.
    func record(
        _ document: RingDocument, by holder: String, _ mandate: RingMandate
    ) async throws(RingAuthorityError) -> RingMandate?
    /// Prolongs it; false once somebody else has it.
    /// - Parameters:
    ///   - nodes: whose word is needed from now on.
    ///   - mayAskAnew: whether a node that never promised, or whose memory has forgotten it, may do so now. Only once
    ///     the losers have accepted a document of this driver's. (A promise that ran out is never asked for anew: it
    ///     may have been another driver's in the meantime.)
    func renew(_ holder: String, _ mandate: RingMandate, _ nodes: [NodeID], mayAskAnew: Bool) async -> Bool
    func release(_ holder: String, _ mandate: RingMandate) async
    /// Installs an operator's ring at this node, whatever was known before.
    func install(_ ring: Ring, replicas: Int, standbys: [NodeID]) async throws -> HostRingRecord.InstallAnswer
}

/// What a driver asks for.
package struct RingClaim: Sendable {
    /// Names the driver, never used twice.
    package let holder: String
    /// Nodes without whose word there is no authority, whichever it is.
    package let required: [NodeID]
    /// Nodes whose word is needed as well, unless the authority is sure of the newest document without them.
    package let members: [NodeID]
    /// Asked too, and may be silent.
    package let others: [NodeID]
    /// Whether somebody waits for it, so that an authority that is away for a moment is waited for.
    package let isPatient: Bool

    package init(
        holder: String, required: [NodeID], members: [NodeID], others: [NodeID], isPatient: Bool = false
    ) {
        self.holder = holder
        self.required = required
        self.members = members
        self.others = others
        self.isPatient = isPatient
    }
}

/// What a driver learns with the authority.
package struct RingMandate: Sendable {
    /// Whose word it rests on.
    package let required: [NodeID]
    package let others: [NodeID]
    /// What each of them knows.
    package let documents: [NodeID: RingDocument]
    package let generations: [NodeID: Generation]
    /// What the authority's own store knows, where it has one.
    package var entry: RingLedger.Entry?

    package init(
        required: [NodeID], others: [NodeID], documents: [NodeID: RingDocument], generations: [NodeID: Generation]
    ) {
        self.required = required
        self.others = others
        self.documents = documents
        self.generations = generations
    }

    /// The newest document that any of them knows, or the authority's store.
    package var newest: RingDocument? { newest(among: required + others) }

    package func newest(among nodes: [NodeID]) -> RingDocument? {
        // (Of two of one epoch, the first.)
        ([entry?.document] + nodes.map { documents[$0] }).compactMap { $0 }.max { $0.epoch < $1.epoch }
    }
}

package enum RingAuthorityError: Error, Sendable {
    /// Another driver has it; nil: by the authority's own store.
    case held(at: NodeID?, by: String)
    case unreachable(NodeID, reason: String)
    /// The authority's own store does not answer.
    case unavailable(reason: String)
    /// The ring in the authority's own store is another cluster's.
    case foreign(key: String)
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

    package func acquire(_ claim: RingClaim) async throws(RingAuthorityError) -> RingMandate {
        let (holder, required, others) = (claim.holder, claim.required + claim.members, claim.others)
        var documents: [NodeID: RingDocument] = [:]
        var generations: [NodeID: Generation] = [:]
        var asked: [NodeID] = []
        do throws(RingAuthorityError) {
            // Those that decide come first, so that nobody holds others' promises without hope.
            for node in Set(required).sorted() {
                let answer = try await promise(of: node, to: holder, isRenewal: false)
                asked.append(node)
                generations[node] = answer.generation
                documents[node] = answer.document
                if let other = answer.heldBy { throw .held(at: node, by: other) }
            }
        } catch {
            await release(holder, asked)
            throw error
        }
        // All at once: however many are silent, the promises that count must not run out meanwhile.
        await withTaskGroup(of: (node: NodeID, answer: PeerMessage.PromiseAnswer?).self) { group in
            for node in Set(others).subtracting(required) {
                group.addTask { (node, try? await promise(of: node, to: holder, isRenewal: false)) }
            }
            for await (node, answer) in group {
                generations[node] = answer?.generation
                documents[node] = answer?.document
            }
        }
        return RingMandate(required: required, others: others, documents: documents, generations: generations)
    }

    /// What the losers accept is real; nobody else has to know before.
    package func record(
        _ document: RingDocument, by holder: String, _ mandate: RingMandate
    ) async throws(RingAuthorityError) -> RingMandate? { mandate }

    package func install(_ ring: Ring, replicas: Int, standbys: [NodeID]) async throws -> HostRingRecord.InstallAnswer {
        try await keeper.install(ring, replicas: replicas, standbys: standbys)
    }

    package func renew(
        _ holder: String, _ mandate: RingMandate, _ nodes: [NodeID], mayAskAnew: Bool
    ) async -> Bool {
        await withTaskGroup(of: Bool.self) { group in
            for node in Set(nodes) {
                group.addTask {
                    // A node that does not answer is asked again next time; what it says to a document decides.
                    guard var answer = try? await promise(of: node, to: holder, isRenewal: true) else { return true }
                    if answer.heldBy != nil, mayAskAnew, answer.generation != mandate.generations[node] {
                        guard let again = try? await promise(of: node, to: holder, isRenewal: false) else {
                            return true
                        }
                        answer = again
                    }
                    return answer.heldBy == nil
                }
            }
            return await group.allSatisfy { $0 }
        }
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

    private func promise(
        of node: NodeID, to holder: String, isRenewal: Bool
    ) async throws(RingAuthorityError) -> PeerMessage.PromiseAnswer {
        let request = PeerMessage.PromiseRequest(
            holder: holder, lifeMilliseconds: EmbeddedRingAuthority.promiseLifeMilliseconds, isRenewal: isRenewal)
        do {
            if node == self.node { return try await keeper.promise(request) }
            return try await peers.call(node, "promise", request, timeout: EmbeddedRingAuthority.timeout)
        } catch {
            throw .unreachable(node, reason: "\(error)")
        }
    }
}

/// An answer that says nothing more than that it was done.
package struct Done: Codable, Sendable {
    package init() {}
}
