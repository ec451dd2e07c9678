// SPDX-License-Identifier: Apache-2.0

package import HashRing
internal import KeyValue
package import Logging
package import Memcached
package import NIOCore

/// Deletes the chunks that no manifest names any more, or never did (docs/large-values.md). One worker of a host does
/// it, the one that does the chores, for the slots whose first holder the host is. It may be cut off anywhere.
package actor ChunkSweep {
    private static let restPause = Duration.milliseconds(1)
    /// A pass takes at most this part of the time.
    private static let share: Int64 = 50

    private let node: NodeID
    private let pairs: HostPairs
    private let store: NIOLoopBound<Coordinator>
    private let loop: any EventLoop
    private let clock: WorkerClock
    private let logger: Logger
    private let metrics = ChunkSweepMetrics()
    private let intervalMilliseconds: Int64
    private var watch: UploadWatch
    private var dueMilliseconds: Int64?

    /// - Parameter uploadSeconds: how long a large value may take to arrive and be stored, at any node.
    package init(
        node: NodeID, pairs: HostPairs, store: NIOLoopBound<Coordinator>, loop: any EventLoop, clock: WorkerClock,
        logger: Logger, uploadSeconds: Int
    ) {
        self.node = node
        self.pairs = pairs
        self.store = store
        self.loop = loop
        self.clock = clock
        self.logger = logger
        self.intervalMilliseconds = Int64(uploadSeconds) * 1000 / 2
        self.watch = UploadWatch(graceMilliseconds: 2 * Int64(uploadSeconds) * 1000)
    }

    /// A pass, if it is time for one. To be called again and again by the worker that does the chores.
    func runIfDue() async {
        let began = MonotonicClock.milliseconds()
        guard let due = dueMilliseconds else {
            dueMilliseconds = began + intervalMilliseconds
            return
        }
        guard began >= due else { return }
        do {
            let deleted = try await pass()
            if deleted > 0 {
                metrics.deleted(deleted)
                logger.info("chunks that no value needs were deleted", metadata: ["chunks": "\(deleted)"])
            }
        } catch {
            logger.debug("a sweep over chunks was given up", metadata: ["error": "\(error)"])
        }
        let ended = MonotonicClock.milliseconds()
        dueMilliseconds = ended + max(intervalMilliseconds, ChunkSweep.share * (ended - began))
    }

    /// Chunks of one upload, among the scanned ones, label first.
    private struct Upload {
        let id: UploadID
        var indices: [Int] = []
    }

    private func pass() async throws -> Int {
        guard let view = try await pairs.view(), let table = view.table, !view.isRecovering else { return 0 }
        let mine = Set(
            Slot.all.filter { slot in
                let placement = table[slot]
                return !placement.isMoving && placement.writes[0].members.first == node
            }.map(\.value))
        watch.beginPass()
        var deleted = 0
        var lowest = 0
        while lowest < Slot.count {
            let from = UInt16(lowest)
            let scan = try await pairs.scanner.scan(onlyChunks: true) { $0.value >= from && mine.contains($0.value) }
            for upload in ChunkSweep.uploads(among: scan.keys) {
                try Task.checkCancellation()
                deleted += try await sweep(upload, scan.keys, table, view.stamp)
                // Clients come first.
                try await Task.sleep(for: ChunkSweep.restPause)
            }
            guard let last = scan.coveredThrough else { break }
            lowest = Int(last.value) + 1
        }
        watch.endPass()
        return deleted
    }

    private static func uploads(among keys: ScannedKeys) -> [Upload] {
        var uploads: [UploadID: Upload] = [:]
        for index in 0..<keys.count {
            guard let (id, number) = keys[index].chunk else { continue }
            if number == 0 {
                uploads[id, default: Upload(id: id)].indices.insert(index, at: 0)
            } else {
                uploads[id, default: Upload(id: id)].indices.append(index)
            }
        }
        return Array(uploads.values)
    }

    /// - Returns: how many chunks were deleted.
    private func sweep(
        _ upload: Upload, _ keys: ScannedKeys, _ table: RoutingTable, _ stamp: HostStamp
    ) async throws -> Int {
        let stored = upload.indices.map { keys[$0] }
        // (Where the label is lost, any chunk tells as much.)
        guard let label = try await pairs.records(of: [stored[0]], in: stamp.generation)[0], !label.isTombstone,
            let key = label.keyInside.flatMap({ Key(Array($0.readableBytesView)) })
        else { return 0 }
        let manifest = try await pairs.records(of: [StoredKey(key)], in: stamp.generation)[0]
        if manifest?.largeValue?.upload == upload.id { return 0 }
        guard watch.isDue(upload.id, label: label.version, atMilliseconds: MonotonicClock.milliseconds()) else {
            return 0
        }
        let versions = try await pairs.perform(stored.map { .heldVersion($0) }, under: stamp)
        let again = try await pairs.records(of: [stored[0]], in: stamp.generation)[0]
        let everyone = Consistency(.strict, quorum: table[key.slot].reads[0].members.count)
        guard again?.version == label.version,
            case .success(let pair) = await read(StoredKey(key), everyone), pair?.largeValue?.upload != upload.id
        else {
            watch.forget(upload.id)
            return 0
        }
        let name = StoredKey(chunk: 0, of: upload.id, in: key.slot)
        guard
            case .success(let condemned) = await write(
                name, UploadLabel.condemned(of: key, under: name),
                if: stored[0] == name
                    ? Precondition(ifMatch: .versions([label.version])) : Precondition(ifNoneMatch: .any))
        else {
            watch.forget(upload.id)
            return 0
        }
        var deleted = 0
        // (The label last, and only behind all others: what is left of an upload is found again by it.)
        var leftOver = zip(stored, versions).filter { $0.0 != name }
        leftOver.insert((name, .version(condemned)), at: 0)
        for (chunk, outcome) in leftOver.reversed() {
            guard case .version(let version) = outcome else { return deleted }
            switch await delete(chunk, of: key, if: version) {
            case .success: deleted += 1
            case .failure(.preconditionFailed): break
            case .failure: return deleted
            }
        }
        return deleted
    }

    private func read(
        _ key: StoredKey, _ consistency: Consistency
    ) async -> Result<Envelope?, OperationFailure> {
        let result = try? await loop.flatSubmit { [store, loop] in
            let promise = loop.makePromise(of: Result<Envelope?, OperationFailure>.self)
            store.value.read(stored: key, consistency) { promise.succeed($0) }
            return promise.futureResult
        }.get()
        return result ?? .failure(.notApplied(.deadline))
    }

    private func delete(
        _ chunk: StoredKey, of key: Key, if version: Version
    ) async -> Result<Version, OperationFailure> {
        let keptUntil = clock.wallMilliseconds + UInt64(Limits.chunkTombstoneSeconds) * 1000
        let tombstone = Envelope(
            key: key, storedKey: chunk, value: ByteBuffer(), isTombstone: true, expiryMilliseconds: keptUntil)
        return await write(chunk, tombstone, if: Precondition(ifMatch: .versions([version])))
    }

    private func write(
        _ key: StoredKey, _ envelope: Envelope, if condition: Precondition
    ) async -> Result<Version, OperationFailure> {
        let result = try? await loop.flatSubmit { [store, loop] in
            let promise = loop.makePromise(of: Result<Version, OperationFailure>.self)
            store.value.write(key, envelope, if: condition, .strict) { promise.succeed($0) }
            return promise.futureResult
        }.get()
        return result ?? .failure(.notApplied(.deadline))
    }
}
