// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials
package import HashRing
internal import KeyValue
package import Logging
package import Memcached
private import NIOCore

/// The ring as this host knows it, seen from one worker: reads and changes the host's record in memcached (always by
/// `cas`), keeps the copy on disk, brings the ring back when memcached has forgotten it, and hands each new view to the
/// worker's coordinator.
///
/// Two control keys: `ring`, the `HostRingRecord` as JSON, which is what counts; and the stamp, its epoch and this
/// memory's generation, which every batch asks for. The record is written first, so whoever sees a stamp finds a record
/// at least as new.
package actor RingKeeper {
    package enum Failure: Error, Sendable, CustomStringConvertible {
        /// Others changed the same key again and again.
        case contended
        /// memcached holds something under our key that is none of ours.
        case damaged(String)
        /// memcached has forgotten the ring, and it is not back yet.
        case forgotten
        /// The record may have been changed, or may be yet; the next look at it will tell.
        case unsettled(any Error)
        /// The ring is another cluster's.
        case foreign(RingDocument)
        /// This host stands by for another cluster, whose ring it would replace.
        case standsByForAnother(RingDocument?)

        package var description: String {
            switch self {
            case .contended: "others changed the same key again and again"
            case .damaged(let text): "this is no ring of ours: \(text)"
            case .forgotten: "memcached has no ring (yet)"
            case .unsettled(let error): "it may have been done, or may be yet: \(error)"
            case .foreign(let other): "a node has another cluster's ring, that of \(Failure.names(other))"
            case .standsByForAnother(let other): "this node stands by for the ring of \(Failure.names(other))"
            }
        }

        package var isOfAnotherCluster: Bool {
            switch self {
            case .foreign, .standsByForAnother: true
            case .contended, .damaged, .forgotten, .unsettled: false
            }
        }

        private static func names(_ document: RingDocument?) -> String {
            document?.members.map(\.description).joined(separator: ", ") ?? "nobody"
        }
    }

    package struct Dependencies: Sendable {
        package let node: NodeID
        package let control: ControlStore
        package let registry: WorkerRegistry
        package let file: RingFile
        package let peers: PeerCaller
        package let clock: WorkerClock
        package let logger: Logger
        /// What the authority's own store knows, where it has one and answers.
        package let recorded: @Sendable () async -> RingDocument?
        /// Whether the disk has pairs that a lost memory held.
        package let hasSnapshot: @Sendable () -> Bool
        /// Hands a view to the coordinator, on its event loop; nil: serve nothing.
        package let adopt: @Sendable (RingView?) async -> Void

        package init(
            node: NodeID, control: ControlStore, registry: WorkerRegistry, file: RingFile, peers: PeerCaller,
            clock: WorkerClock, logger: Logger, recorded: @escaping @Sendable () async -> RingDocument? = { nil },
            hasSnapshot: @escaping @Sendable () -> Bool,
            adopt: @escaping @Sendable (RingView?) async -> Void
        ) {
            self.node = node
            self.control = control
            self.registry = registry
            self.file = file
            self.peers = peers
            self.clock = clock
            self.logger = logger
            self.recorded = recorded
            self.hasSnapshot = hasSnapshot
            self.adopt = adopt
        }
    }

    private static let recordKey = "ring"
    private static let casTries = 32
    private static let peerTimeout = TimeAmount.milliseconds(500)

    private let with: Dependencies
    /// The newest document that this worker has seen; outlives memcached.
    package private(set) var document: RingDocument?
    /// What was handed to the coordinator last.
    package private(set) var view: RingView?
    /// The newest document on which this host has stood with all that it takes to act on it: see `restore`.
    private var stood: RingDocument?
    package private(set) var lastError: String?
    /// Up to which epoch an operator has confirmed the ring on disk.
    private var confirmedEpoch = Epoch.none

    package init(_ dependencies: Dependencies) { self.with = dependencies }

    /// The newest document that this host can show, also while its memcached has none.
    package var known: RingDocument? { document ?? (try? with.file.load()) }

    // MARK: Reading

    /// Looks at memcached and adopts what it says; brings the ring back where it has been forgotten.
    package func refresh() async throws {
        do {
            guard let stamp = try await with.control.hostStamp(), let (record, _) = try await readRecord() else {
                try await restore()
                return
            }
            if record.epoch > stamp.epoch {
                // A worker died between the record and the stamp.
                try await settle(record)
                return try await refresh()
            }
            try await adopt(record.document, stamp)
            lastError = nil
        } catch {
            lastError = "\(error)"
            throw error
        }
    }

    /// The same, cheaply: looks at the stamp alone while nothing has changed.
    package func poll() async throws {
        if let view, (try? await with.control.hostStamp()) == view.stamp {
            lastError = nil
            return
        }
        try await refresh()
    }

    private func adopt(_ newest: RingDocument?, _ stamp: HostStamp) async throws {
        if let newest, newest.epoch >= (document?.epoch ?? .none) { document = newest }
        // The stamp can be newer than the record that was read before it, never the document older than the stamp says.
        guard (newest?.epoch ?? .none) == stamp.epoch else { return }
        guard view?.stamp != stamp || view?.document != newest else { return }
        // Two looks at memcached may come back in the wrong order.
        if let view, view.stamp.generation == stamp.generation, view.stamp.epoch > stamp.epoch { return }
        if view?.stamp.isRecovering == true, !stamp.isRecovering { with.logger.info("this memory is whole again") }
        if view?.stamp.generation != stamp.generation { try await with.registry.post(drained: .none) }
        let next = RingView(stamp: stamp, document: newest, node: with.node)
        view = next
        if !next.acknowledgesNothing { stood = newest }
        with.logger.debug("standing on a ring document", metadata: ["ring.epoch": "\(stamp.epoch)"])
        await with.adopt(next)
    }

    private func readRecord() async throws -> (record: HostRingRecord, token: ControlStore.Token)? {
        guard let value = try await with.control.get(RingKeeper.recordKey) else { return nil }
        do {
            return (try JSONDecoder().decode(HostRingRecord.self, from: Data(value.bytes)), value.token)
        } catch {
            throw Failure.damaged("\(error)")
        }
    }

    /// This memory's generation and the newest document of the host.
    package func current() async throws -> (document: RingDocument?, generation: Generation) {
        guard let stamp = try await with.control.hostStamp(), let (record, _) = try await readRecord() else {
            throw Failure.forgotten
        }
        return (record.document, stamp.generation)
    }

    /// Whether a ring change has to go back for the sake of this memory.
    package func isWithoutWhatWasVerified() async throws -> Bool {
        guard let stamp = try await with.control.hostStamp(), let (record, _) = try await readRecord() else {
            throw Failure.forgotten
        }
        return record.isWithoutWhatWasVerified(memory(stamp.generation))
    }

    /// What memcached says of itself at this moment.
    package func currentStamp() async throws -> HostStamp {
        guard let stamp = try await with.control.hostStamp() else { throw Failure.forgotten }
        return stamp
    }

    /// This life of the memory has again what was lost: its answers count from now on, where it stands on this stamp
    /// still.
    package func endRecovery(of stamp: HostStamp) async throws {
        for _ in 0..<RingKeeper.casTries where try await with.control.endRecovery(of: stamp) {
            return try await refresh()
        }
        throw Failure.contended
    }

    /// Whom this host has promised its next document to; nil where nobody, or no longer.
    package func promiseHolder() async throws -> String? {
        guard let (record, _) = try await readRecord() else { throw Failure.forgotten }
        guard let promise = record.promise, promise.expiresAtMilliseconds >= now else { return nil }
        return promise.holder
    }

    // MARK: Changing

    package func promise(_ request: PeerMessage.PromiseRequest) async throws -> PeerMessage.PromiseAnswer {
        // No change begins that this disk could not keep. One that is under way has to end, whatever the disk says.
        if !request.isRenewal, let document = try await readRecord()?.record.document, document.transition == nil {
            try with.file.rehearse(document)
        }
        let (answer, record, generation) = try await update { record in
            let life = min(max(request.lifeMilliseconds, 0), EmbeddedRingAuthority.promiseLifeMilliseconds)
            return request.isRenewal
                ? record.renew(request.holder, nowMilliseconds: self.now, lifeMilliseconds: life)
                : record.promise(to: request.holder, nowMilliseconds: self.now, lifeMilliseconds: life)
        }
        var heldBy: String?
        if case .heldBy(let other) = answer { heldBy = other }
        return PeerMessage.PromiseAnswer(heldBy: heldBy, document: record.document, generation: generation)
    }

    package func release(_ holder: String) async throws {
        _ = try await update { $0.release(holder) }
    }

    /// Takes over a document that some other host has accepted already.
    /// - Parameter isFounding: whether no node had a ring before this one.
    package func learn(_ other: RingDocument, isFounding: Bool = false) async throws {
        guard other.epoch > (view?.stamp.epoch ?? .none), !other.ring.isEmpty else { return }
        let (_, record, _) = try await update(isFounding: isFounding) { $0.learn(other) }
        if record.isForeign(other) { throw Failure.foreign(other) }
        try await settle()
    }

    /// Accepts a driver's document; where that makes it real, only from whoever holds this host's promise.
    package func announce(_ announcement: PeerMessage.Announcement) async throws -> HostRingRecord.AnnouncementAnswer {
        let next = announcement.document
        // What was accepted before is followed whatever the disk says.
        if try await readRecord()?.record.document != next { try with.file.rehearse(next) }
        let (answer, _, _) = try await update { record in
            if !announcement.needsPromise, record.learn(next) { return HostRingRecord.AnnouncementAnswer.accepted }
            return record.announce(next, by: announcement.holder)
        }
        if answer == .accepted { try await settle() }
        return answer
    }

    /// Finds out whether the disk would take the document.
    package func rehearse(_ document: RingDocument) throws { try with.file.rehearse(document) }

    /// An operator's ring. Where this host has none, it asks those that the ring names first: if none of them has one
    /// either, a cluster is founded, and all are told so at once; otherwise this is a new machine in an old place.
    package func install(
        _ ring: Ring, replicas: Int, standbys: [NodeID]
    ) async throws -> HostRingRecord.InstallAnswer {
        try rehearse(
            RingDocument(epoch: document?.epoch.next ?? .none, ring: ring, replicas: replicas, standbys: standbys))
        // (Another worker of this host may have heard of a ring a moment ago.)
        try? await refresh()
        await takeForConfirmation(ring)
        var isFounding = false
        if document == nil { isFounding = try await !isKnown(to: ring.nodes + standbys) }
        let (answer, record, _) = try await update(isFounding: isFounding) { [with] record in
            record.document?.hasAsStandbyOnly(with.node, besides: ring) == true
                ? nil : record.install(ring, replicas: replicas, standbys: standbys, nowMilliseconds: self.now)
        }
        guard let answer else { throw Failure.standsByForAnother(record.document) }
        do {
            try await settle()
        } catch {
            throw Failure.unsettled(error)
        }
        if isFounding, answer == .installed, let document = record.document { await tellOthers(ofFounding: document) }
        return answer
    }

    /// Where memcached is empty and no other node confirms the ring on disk, an operator's word does that names no
    /// other nodes: those that are left of it, say.
    private func takeForConfirmation(_ ring: Ring) async {
        guard view == nil, let kept = try? with.file.load(),
            Set(ring.nodes).isSubset(of: kept.members + kept.standbys)
        else { return }
        confirmedEpoch = kept.epoch
        try? await refresh()
    }

    /// Whether another of these nodes has a ring; then this node learns it.
    package func isKnown(to nodes: [NodeID]) async throws -> Bool {
        let answers = await ask(Set(nodes).subtracting([with.node]))
        guard let newest = answers.compactMap(\.document).max(by: { $0.epoch < $1.epoch }) else { return false }
        // (One of them may stand by for another cluster.)
        if Set(newest.members).isDisjoint(with: nodes) { throw Failure.foreign(newest) }
        try await learn(newest)
        return true
    }

    /// So that none of them takes itself for a new machine in an old place.
    package func tellOthers(ofFounding document: RingDocument) async {
        _ = await ask(Set(document.members + document.standbys).subtracting([with.node]), telling: document)
    }

    /// Makes the record's document this host's: on disk, in the stamp, and in this worker.
    private func settle() async throws {
        guard let (record, _) = try await readRecord() else { throw Failure.forgotten }
        try await settle(record)
        try await refresh()
    }

    private func settle(_ record: HostRingRecord) async throws {
        let memory = memory(try await currentStamp().generation)
        do {
            // (The disk names what this host has stood on: should this memory be lost, too, the next one lacks the
            // same.)
            if let document = record.document, !record.isWithoutWhatWasVerified(memory) {
                try with.file.save(document)
            }
        } catch {
            // What the record says counts already: a host that did not follow would serve nobody. Its memcached and the
            // other nodes have the ring.
            with.logger.error("the ring is not on disk", metadata: ["error": "\(error)"])
        }
        try await raiseStamp(to: record)
    }

    /// Changes the record by `cas` until it holds.
    private func update<Answer: Sendable>(
        isFounding: Bool = false, _ change: (inout HostRingRecord) -> Answer
    ) async throws -> (answer: Answer, record: HostRingRecord, generation: Generation) {
        for _ in 0..<RingKeeper.casTries {
            guard let stamp = try await with.control.hostStamp(), let (held, token) = try await readRecord() else {
                throw Failure.forgotten
            }
            var record = held
            let answer = change(&record)
            record.examine(memory(stamp.generation), after: held.document, isFounding: isFounding)
            if record == held { return (answer, record, stamp.generation) }
            let bytes = Array(try JSONEncoder().encode(record))
            let swapped: ControlStore.SwapAnswer
            do {
                swapped = try await with.control.compareAndSwap(RingKeeper.recordKey, bytes, token: token)
            } catch {
                throw Failure.unsettled(error)
            }
            if swapped == .stored { return (answer, record, stamp.generation) }
        }
        throw Failure.contended
    }

    private func raiseStamp(to record: HostRingRecord) async throws {
        for _ in 0..<RingKeeper.casTries {
            if try await with.control.raiseHostStamp(to: record.epoch, wantingSince: record.wantingSince) { return }
        }
        throw Failure.contended
    }

    // MARK: Bringing the ring back

    /// memcached is empty: a new generation begins. What this worker or the disk knows is confirmed with another member
    /// first, unless this worker has stood on it all the while (should a change have gone past it, others refuse its
    /// epoch), or an operator has confirmed it.
    private func restore() async throws {
        if view != nil {
            with.logger.error("memcached has come back empty: its pairs are lost, the ring is brought back")
            view = nil
            await with.adopt(nil)
        }
        try await with.registry.post(drained: .none)
        var newest = document
        var isConfirmed = newest != nil
        var previous = stood
        do {
            if let kept = try with.file.load() {
                if kept.epoch > (newest?.epoch ?? .none) { newest = kept }
                if kept.epoch > (previous?.epoch ?? .none) { previous = kept }
            }
        } catch {
            with.logger.error("the ring on disk can't be used", metadata: ["error": "\(error)"])
        }
        let others = newest.map { Set($0.members + $0.standbys).subtracting([with.node]) } ?? []
        let answers = await ask(others)
        for case let heard? in answers.map(\.document) + [await recorded(atOneWith: newest)] {
            guard newest?.isOfOneCluster(with: heard) ?? true else { continue }
            isConfirmed = true
            if heard.epoch > (newest?.epoch ?? .none) { newest = heard }
        }
        // All nodes were started anew, and none knows more than its disk.
        if answers.count == others.count { isConfirmed = true }
        if let newest, newest.epoch <= confirmedEpoch { isConfirmed = true }
        let isAlone = newest.map { Set($0.members).subtracting([with.node]).isEmpty } ?? true
        guard isConfirmed || isAlone else {
            with.logger.warning("the ring on disk waits until another of its nodes confirms it")
            throw Failure.forgotten
        }
        let memory = memory(Generation(.random(in: 1 ... .max)))
        var record = HostRingRecord(document: newest)
        // (What others have gone on to while this host came back counts as if it heard of it afterwards.)
        record.examine(memory, after: previous)
        _ = try await with.control.add(RingKeeper.recordKey, Array(try JSONEncoder().encode(record)))
        guard let (held, _) = try await readRecord() else { throw Failure.forgotten }
        let stamp = HostStamp(
            epoch: held.epoch, generation: memory.generation,
            isRecovering: held.wantingSince != nil || memory.isWantingEmpty(under: held.document))
        _ = try await with.control.addHostStamp(stamp)
        guard let written = try await with.control.hostStamp() else { throw Failure.forgotten }
        if let newest, newest.epoch > held.epoch { return try await learn(newest) }
        try await adopt(held.document, written)
    }

    private func memory(_ generation: Generation) -> HostMemory {
        HostMemory(node: with.node, generation: generation, hasSnapshot: with.hasSnapshot())
    }

    /// What the authority's store knows, unless that is another cluster's.
    private func recorded(atOneWith known: RingDocument?) async -> RingDocument? {
        guard let recorded = await with.recorded() else { return nil }
        return known?.isOfOneCluster(with: recorded) ?? true ? recorded : nil
    }

    /// What other nodes know, from those that answer.
    /// - Parameter founding: the ring of a cluster that had none.
    private func ask(_ nodes: Set<NodeID>, telling founding: RingDocument? = nil) async -> [PeerMessage.RingExchange] {
        let question = PeerMessage.RingExchange(
            document: founding, generation: nil, clock: with.clock.reading, isFounding: founding != nil)
        let peers = with.peers
        return await withTaskGroup(of: PeerMessage.RingExchange?.self) { group in
            for node in nodes {
                group.addTask {
                    try? await peers.call(node, "ring", question, timeout: RingKeeper.peerTimeout)
                }
            }
            var answers: [PeerMessage.RingExchange] = []
            for await answer in group { if let answer { answers.append(answer) } }
            return answers
        }
    }

    private var now: Int64 { MonotonicClock.milliseconds() }
}
