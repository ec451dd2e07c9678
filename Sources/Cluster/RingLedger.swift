// SPDX-License-Identifier: Apache-2.0

package import Etcd
private import FoundationEssentials
package import HashRing

/// The ring in etcd: the newest document under one key, and who drives under another one. Each change to them is one
/// transaction that holds both to what was seen before; docs/ring-authority.md argues why that is enough.
package struct RingLedger: Sendable {
    /// What is there at one moment.
    package struct Page: Hashable, Sendable {
        /// Nil while there is none.
        package let document: RingDocument?
        /// Of the document's key; 0 while there is none.
        package let revision: Int64
        /// Who drives; nil where nobody does.
        package let driver: String?
        /// Of all of etcd: what comes later has a higher one.
        package let storeRevision: Int64

        package init(document: RingDocument?, revision: Int64, driver: String?, storeRevision: Int64) {
            self.document = document
            self.revision = revision
            self.driver = driver
            self.storeRevision = storeRevision
        }
    }

    /// What a driver has of it.
    package struct Entry: Hashable, Sendable {
        package let lease: Int64
        package var document: RingDocument?
        package var revision: Int64

        package init(lease: Int64, document: RingDocument?, revision: Int64) {
            self.lease = lease
            self.document = document
            self.revision = revision
        }
    }

    package enum Acquisition: Hashable, Sendable {
        case granted(Entry)
        case heldBy(String)
    }

    package enum RecordAnswer: Hashable, Sendable {
        case recorded(Entry)
        /// Somebody else drives, or has recorded what this driver does not know.
        case overtaken
    }

    /// How long the driver's lease outlives its last renewal. Long enough for etcd to elect a leader; a takeover waits
    /// for it.
    package static let leaseSeconds: Int64 = 4
    /// How often one document is tried to be recorded, or installed, on what turned up under it.
    private static let tries = 8

    private let etcd: any EtcdCalls
    package let ringKey: String
    private let driverKey: String

    package init(etcd: any EtcdCalls, prefix: String) {
        self.etcd = etcd
        self.ringKey = prefix + "/ring"
        self.driverKey = prefix + "/driver"
    }

    package func read(within time: Duration) async throws(EtcdError) -> Page {
        try page(try await etcd.transact(EtcdTransaction(then: both), within: time))
    }

    // MARK: Drivers

    /// Makes `holder` the driver, if nobody else is.
    package func acquire(_ holder: String, within time: Duration) async throws(EtcdError) -> Acquisition {
        // (A look costs etcd no write, and most who ask find somebody there.)
        if let driver = try await read(within: time).driver { return .heldBy(driver) }
        let lease = try await etcd.grantLease(seconds: RingLedger.leaseSeconds, within: time)
        do {
            let answer = try await etcd.transact(
                EtcdTransaction(
                    if: [.isAbsent(key: driverKey)],
                    then: [.put(key: driverKey, Data(holder.utf8), lease: lease), .get(key: ringKey)], else: both),
                within: time)
            let page = try page(answer)
            // It may have been done by a request whose answer was lost.
            if !answer.succeeded, let driver = page.driver, driver != holder {
                await release(lease)
                return .heldBy(driver)
            }
            return .granted(Entry(lease: lease, document: page.document, revision: page.revision))
        } catch {
            await release(lease)
            throw error
        }
    }

    /// - Returns: false where the lease has run out.
    package func renew(_ entry: Entry, within time: Duration) async throws(EtcdError) -> Bool {
        try await etcd.keepAlive(lease: entry.lease, within: time)
    }

    package func release(_ entry: Entry) async { await release(entry.lease) }

    /// Where it fails, the lease runs out by itself.
    private func release(_ lease: Int64) async { try? await etcd.revoke(lease: lease, within: .milliseconds(1000)) }

    // MARK: Documents

    /// Makes `next` the newest document, if `holder` is still the driver and knows the one before it. Done once,
    /// however often it is asked.
    package func record(
        _ next: RingDocument, by holder: String, on entry: Entry, within time: Duration
    ) async throws(EtcdError) -> RecordAnswer {
        var entry = entry
        let text = RingLedger.text(next)
        for _ in 0..<RingLedger.tries {
            let answer = try await etcd.transact(
                EtcdTransaction(
                    if: [
                        .holds(key: driverKey, Data(holder.utf8)),
                        .wasChangedLast(key: ringKey, at: entry.revision),
                    ],
                    then: [.put(key: ringKey, text, lease: nil)], else: both),
                within: time)
            if answer.succeeded {
                return .recorded(Entry(lease: entry.lease, document: next, revision: answer.revision))
            }
            let page = try page(answer)
            entry.document = page.document
            entry.revision = page.revision
            switch page.standing(of: next, by: holder) {
            case .recorded: return .recorded(entry)
            case .overtaken: return .overtaken
            case .open: break
            }
        }
        throw .refused("\(ringKey) is changed again and again")
    }

    /// Makes `next` the newest document, if nobody drives and the page is still the newest one.
    /// - Returns: false where it is not.
    package func install(
        _ next: RingDocument, on page: Page, within time: Duration
    ) async throws(EtcdError) -> Bool {
        let answer = try await etcd.transact(
            EtcdTransaction(
                if: [.isAbsent(key: driverKey), .wasChangedLast(key: ringKey, at: page.revision)],
                then: [.put(key: ringKey, RingLedger.text(next), lease: nil)], else: both),
            within: time)
        if answer.succeeded { return true }
        // (Perhaps by a request whose answer was lost.)
        return try self.page(answer).document == next
    }

    // MARK: Bytes

    private var both: [EtcdTransaction.Operation] { [.get(key: driverKey), .get(key: ringKey)] }

    private func page(_ answer: EtcdTransactionAnswer) throws(EtcdError) -> Page {
        let ring = answer.pair(ringKey)
        var document: RingDocument?
        if let ring { document = try self.document(ring) }
        return Page(
            document: document, revision: ring?.modRevision ?? 0,
            driver: answer.pair(driverKey).map { String(decoding: $0.value, as: UTF8.self) },
            storeRevision: answer.revision)
    }

    package func document(_ pair: EtcdPair) throws(EtcdError) -> RingDocument {
        do {
            return try JSONDecoder().decode(RingDocument.self, from: pair.value)
        } catch {
            throw .unreadable("\(ringKey) holds no ring document: \(error)")
        }
    }

    private static func text(_ document: RingDocument) -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            return try encoder.encode(document)
        } catch {
            preconditionFailure("a ring document holds nothing that JSON can't say: \(error)")
        }
    }
}

extension RingLedger.Page {
    package enum Standing: Hashable, Sendable { case recorded, overtaken, open }

    /// What a page says to a driver that could not record its document on the page that it knew.
    package func standing(of next: RingDocument, by holder: String) -> Standing {
        guard driver == holder else { return .overtaken }
        if document == next { return .recorded }
        // An earlier one of its own, whose answer was lost, is what it goes on from.
        return document.map { $0.epoch >= next.epoch } ?? false ? .overtaken : .open
    }

    package enum Installation: Hashable, Sendable {
        /// Somebody drives a change, or is about to; nil: it is not known who.
        case busy(driver: String?)
        /// What is in etcd is another cluster's.
        case foreign
        /// It is in etcd; this node has to follow.
        case follow(RingDocument)
        case put(RingDocument)
    }

    /// What an operator's ring is to become, at a node that knows `own`.
    package func installation(
        of ring: Ring, replicas: Int, standbys: [NodeID], own: RingDocument?
    ) -> Installation {
        if let driver { return .busy(driver: driver) }
        let newest = [document, own].compactMap { $0 }.max { $0.epoch < $1.epoch }
        if newest?.transition != nil { return .busy(driver: nil) }
        let wanted = RingDocument(
            epoch: (newest?.epoch ?? .none).next,
            cluster: RingDocument.clusterName(after: newest, installing: ring), ring: ring,
            replicas: replicas, standbys: standbys)
        // (A ring of other nodes alone is another cluster's, which keeps its ring under the same key by mistake.)
        if let document, !document.sharesNodes(with: wanted) || own.map({ !$0.isOfOneCluster(with: document) }) ?? false
        {
            return .foreign
        }
        guard let newest, newest.ring == ring, newest.replicas == replicas, newest.standbys == standbys else {
            return .put(wanted)
        }
        // etcd is behind, or was never told.
        if newest != document { return .put(newest) }
        // Two rings of one epoch: a node follows a newer one only.
        if let own, own != newest, own.epoch == newest.epoch { return .put(wanted) }
        return .follow(newest)
    }
}
