// SPDX-License-Identifier: Apache-2.0

/// What one host knows of the ring and to whom it has promised its next document: one value under one memcached key, so
/// that accepting a document and promising it to another driver can never both succeed (each is one `cas`).
package struct HostRingRecord: Hashable, Sendable, Codable {
    package private(set) var document: RingDocument?
    package private(set) var promise: Promise?
    /// Since which document this memory has been known to be wanting. Whoever raises the host's stamp to it marks it.
    package private(set) var wantingSince: Epoch?

    /// To accept ring documents from this driver only, until another one asks after it has expired.
    package struct Promise: Hashable, Sendable, Codable {
        package let holder: String
        /// By this host's monotonic clock, in milliseconds; made and read on this host only.
        package var expiresAtMilliseconds: Int64
    }

    package init(document: RingDocument? = nil) {
        self.document = document
    }

    package var epoch: Epoch { document?.epoch ?? .none }

    /// To be called with each new document: notes whether this memory is wanting from there on.
    /// - Parameters:
    ///   - previous: the document before it.
    ///   - isFounding: whether no node had a ring before, so that nothing can have been lost but what is on disk.
    package mutating func examine(_ memory: HostMemory, after previous: RingDocument?, isFounding: Bool = false) {
        guard let document, document != previous else { return }
        let isWanting =
            previous == nil && isFounding
            ? memory.hasSnapshot && document.members.contains(memory.node)
            : memory.isWanting(under: document, after: previous)
        if isWanting { wantingSince = document.epoch }
    }

    /// Whether the memory that was verified to have what moves was lost before this host stood on the document that
    /// lets the losers delete it, and they alone have it still: the change has to go back.
    package func isWithoutWhatWasVerified(_ memory: HostMemory) -> Bool {
        guard let document, wantingSince == document.epoch else { return false }
        return memory.isToWaitEmpty(under: document)
    }

    package enum PromiseAnswer: Hashable, Sendable {
        case granted
        case heldBy(String)
    }

    /// Prolongs a promise, but makes none anew: one that has expired and gone elsewhere meanwhile may not come back.
    package mutating func renew(
        _ holder: String, nowMilliseconds: Int64, lifeMilliseconds: Int64
    ) -> PromiseAnswer {
        guard let promise, promise.holder == holder else { return .heldBy(promise?.holder ?? "nobody") }
        return self.promise(to: holder, nowMilliseconds: nowMilliseconds, lifeMilliseconds: lifeMilliseconds)
    }

    /// Promises the next document to `holder`, or prolongs that promise.
    package mutating func promise(
        to holder: String, nowMilliseconds: Int64, lifeMilliseconds: Int64
    ) -> PromiseAnswer {
        if let promise, promise.holder != holder, promise.expiresAtMilliseconds > nowMilliseconds {
            return .heldBy(promise.holder)
        }
        promise = Promise(holder: holder, expiresAtMilliseconds: nowMilliseconds + lifeMilliseconds)
        return .granted
    }

    package mutating func release(_ holder: String) {
        if promise?.holder == holder { promise = nil }
    }

    package enum AnnouncementAnswer: Hashable, Sendable {
        /// It is this host's document now, or was already.
        case accepted
        /// This host knows a newer one, another one of the same epoch, or another cluster's.
        case overtaken
        /// Another driver took over since this one asked.
        case notPromised
    }

    /// A driver's next document, at a host whose promise it needs.
    package mutating func announce(_ next: RingDocument, by holder: String) -> AnnouncementAnswer {
        if next == document { return .accepted }
        guard next.epoch > epoch, !isForeign(next) else { return .overtaken }
        guard promise?.holder == holder else { return .notPromised }
        document = next
        return .accepted
    }

    /// Whether a document is another cluster's: this node may have been that one's before, and it may not know better.
    package func isForeign(_ other: RingDocument) -> Bool {
        document.map { !$0.isOfOneCluster(with: other) } ?? false
    }

    /// A document that another host has accepted already.
    /// - Returns: whether it was news.
    package mutating func learn(_ other: RingDocument) -> Bool {
        guard other.epoch > epoch, !isForeign(other) else { return false }
        document = other
        return true
    }

    package enum InstallAnswer: Hashable, Sendable {
        case installed
        case unchanged
        /// A ring change is under way, or about to begin.
        case busy
    }

    /// An operator's ring, which replaces whatever was known. Every host makes the same document of it, whichever is
    /// asked first.
    package mutating func install(
        _ ring: Ring, replicas: Int, standbys: [NodeID], nowMilliseconds: Int64
    ) -> InstallAnswer {
        if let promise, promise.expiresAtMilliseconds > nowMilliseconds { return .busy }
        if let document {
            if document.transition != nil { return .busy }
            if document.ring == ring, document.replicas == replicas, document.standbys == standbys { return .unchanged }
        }
        document = RingDocument(
            epoch: epoch.next,
            cluster: RingDocument.clusterName(after: document, installing: ring),
            ring: ring, replicas: replicas, standbys: standbys)
        return .installed
    }
}
