// SPDX-License-Identifier: Apache-2.0

private import Etcd
package import HashRing

/// The authority of fleets: etcd says who drives, and keeps the newest document, so that nobody has to be up for a
/// change but those who hold what moves. Their promises are asked for all the same, and every announcement is checked
/// against them.
package struct EtcdRingAuthority: RingAuthority {
    /// While etcd elects a leader it answers nobody; an operator's request waits for that.
    private static let patience = Duration.milliseconds(4000)
    /// What is asked again and again anyway. A renewal that takes longer would let the promises run out.
    private static let chorePatience = Duration.milliseconds(1500)
    private static let recordTime = Duration.milliseconds(2500)
    private static let tries = 8

    private let ledger: RingLedger
    private let promises: EmbeddedRingAuthority
    private let keeper: RingKeeper

    package init(ledger: RingLedger, promises: EmbeddedRingAuthority, keeper: RingKeeper) {
        self.ledger = ledger
        self.promises = promises
        self.keeper = keeper
    }

    package func acquire(_ claim: RingClaim) async throws(RingAuthorityError) -> RingMandate {
        let entry: RingLedger.Entry
        do {
            let time = claim.isPatient ? EtcdRingAuthority.patience : EtcdRingAuthority.chorePatience
            switch try await ledger.acquire(claim.holder, within: time) {
            case .granted(let granted): entry = granted
            case .heldBy(let other): throw RingAuthorityError.held(at: nil, by: other)
            }
        } catch let error as RingAuthorityError {
            throw error
        } catch {
            throw .unavailable(reason: "etcd: \(error)")
        }
        var mandate: RingMandate?
        do throws(RingAuthorityError) {
            var found = try await promises.acquire(
                RingClaim(
                    holder: claim.holder, required: claim.required, members: [], others: claim.members + claim.others))
            mandate = found
            if found.newest?.epoch ?? .none > entry.document?.epoch ?? .none {
                // etcd does not know the newest document, so perhaps it is none of those that were heard of either.
                found = try await promises.acquire(claim)
            }
            found.entry = entry
            return found
        } catch {
            await ledger.release(entry)
            if let mandate { await promises.release(claim.holder, mandate) }
            throw error
        }
    }

    package func renew(
        _ holder: String, _ mandate: RingMandate, _ nodes: [NodeID], mayAskAnew: Bool
    ) async -> Bool {
        async let isPromised = promises.renew(holder, mandate, nodes, mayAskAnew: mayAskAnew)
        var isKept = true
        if let entry = mandate.entry {
            // Where etcd does not answer, what it says to the next document decides.
            isKept = (try? await ledger.renew(entry, within: EtcdRingAuthority.chorePatience)) ?? true
        }
        return await isPromised && isKept
    }

    package func record(
        _ document: RingDocument, by holder: String, _ mandate: RingMandate
    ) async throws(RingAuthorityError) -> RingMandate? {
        guard let entry = mandate.entry else { return nil }
        do {
            switch try await ledger.record(document, by: holder, on: entry, within: EtcdRingAuthority.recordTime) {
            case .overtaken: return nil
            case .recorded(let entry):
                var mandate = mandate
                mandate.entry = entry
                return mandate
            }
        } catch {
            throw .unavailable(reason: "etcd: \(error)")
        }
    }

    package func release(_ holder: String, _ mandate: RingMandate) async {
        if let entry = mandate.entry { await ledger.release(entry) }
        await promises.release(holder, mandate)
    }

    package func install(_ ring: Ring, replicas: Int, standbys: [NodeID]) async throws -> HostRingRecord.InstallAnswer {
        for _ in 0..<EtcdRingAuthority.tries {
            let page: RingLedger.Page
            do {
                page = try await ledger.read(within: EtcdRingAuthority.patience)
            } catch {
                throw RingAuthorityError.unavailable(reason: "etcd: \(error)")
            }
            let own = try await keeper.current().document
            switch page.installation(of: ring, replicas: replicas, standbys: standbys, own: own) {
            case .busy: return .busy
            case .foreign: throw RingAuthorityError.foreign(key: ledger.ringKey)
            case .follow(let document):
                try await keeper.learn(document)
                return .unchanged
            case .put(let document):
                if try await keeper.promiseHolder() != nil { return .busy }
                try await keeper.rehearse(document)
                let isFounding = own == nil && page.document == nil
                // (If so, what it has learned now is to be looked at.)
                if isFounding, try await keeper.isKnown(to: ring.nodes + standbys) { continue }
                if try await put(document, on: page) {
                    do {
                        try await keeper.learn(document, isFounding: isFounding)
                    } catch {
                        throw RingKeeper.Failure.unsettled(error)
                    }
                    if isFounding { await keeper.tellOthers(ofFounding: document) }
                    return .installed
                }
            }
        }
        throw RingAuthorityError.unavailable(reason: "etcd: \(ledger.ringKey) is changed again and again")
    }

    private func put(_ document: RingDocument, on page: RingLedger.Page) async throws -> Bool {
        do {
            return try await ledger.install(document, on: page, within: EtcdRingAuthority.recordTime)
        } catch  where error.mayBeDone {
            throw RingKeeper.Failure.unsettled(error)
        } catch {
            throw RingAuthorityError.unavailable(reason: "etcd: \(error)")
        }
    }
}
