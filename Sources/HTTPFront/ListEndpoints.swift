// SPDX-License-Identifier: Apache-2.0

internal import Cluster
private import FoundationEssentials
package import KeyValue
package import NIOCore

/// All pairs of the ring: `GET /keys`, `GET /keys:export`, `POST /keys:import` (docs/listing.md).
extension HTTPFrontHandler {
    /// A page, written as its parts come.
    func listKeys(_ request: FrontRequest, _ id: RequestID) {
        let wanted: PairListing.Query
        switch listQuery(request) {
        case .success(let query): wanted = query
        case .failure(let refusal): return complete(id, refusal.answer)
        }
        if front.data.standing == .none { return complete(id, ErrorAnswer.noRing) }
        let operators = front.operators
        let end = ContinuousClock.now + .seconds(Limits.listPageSeconds)
        stream(id, AnswerStream(.json(opening: "{\"keys\":["))) { push in
            var query = wanted
            repeat {
                let part = try await operators.part(query)
                try await push(JSONText.listed(part.pairs))
                query.after = part.through
                query.limit -= part.pairs.count
            } while query.limit > 0 && query.after != .end && ContinuousClock.now < end
            return query.after == .end ? "]}\n" : "],\"cursor\":\"\(query.after.cursor)\"}\n"
        }
    }

    /// Records as they are, as many as one part has.
    func exportKeys(_ request: FrontRequest, _ id: RequestID) {
        let after: ListingMark
        switch mark(request) {
        case .success(let mark): after = mark
        case .failure(let refusal): return complete(id, refusal.answer)
        }
        if front.data.standing == .none { return complete(id, ErrorAnswer.noRing) }
        let operators = front.operators
        let loop = front.loop
        let data = NIOLoopBound(front.data, eventLoop: loop)
        handOver(id, .stream) {
            do {
                let part = try await operators.part(
                    PairListing.Query(after: after, limit: Limits.listedPairs, isWhole: true))
                let exported = try await ExportedRecords.encode(part) { key in
                    try await loop.flatSubmit {
                        let record = loop.makePromise(of: Envelope?.self)
                        data.value.read(stored: key, .strict) { record.completeWith($0.mapError { $0 as any Error }) }
                        return record.futureResult
                    }.get()
                }
                var answer = Answer(.ok, .binary, exported.records)
                answer.cursor = exported.through == .end ? nil : exported.through.cursor
                return answer
            } catch {
                return ErrorAnswer.unreadablePairs(error)
            }
        }
    }

    /// Stores records with the versions that they have.
    func importKeys(_ request: FrontRequest, _ id: RequestID) {
        if front.data.standing == .none { return complete(id, ErrorAnswer.noRing) }
        let body = request.body
        let loop = front.loop
        let connection = NIOLoopBound(self, eventLoop: loop)
        let latest = front.data.wallMilliseconds + UInt64(Limits.clockAheadMilliseconds)
        let held = 2 * body.readableBytes
        front.hold(held)
        let isTaken = handOver(id, .batch) {
            defer { loop.execute { connection.value.front.hold(-held) } }
            guard let records = ExportedRecords.decode(body) else { return ErrorAnswer.badImport }
            guard records.allSatisfy({ $0.envelope.version.microseconds / 1000 <= latest }) else {
                return ErrorAnswer.importOfTheFuture
            }
            let newest = ExportedRecords.newest(of: records)
            let answer = try? await loop.flatSubmit {
                let answer = loop.makePromise(of: Answer.self)
                ImportRun(connection.value, newest, kept: records.count - newest.count) { answer.succeed($0) }.begin()
                return answer.futureResult
            }.get()
            return answer ?? ErrorAnswer.leaving
        }
        if !isTaken { front.hold(-held) }
    }

    private func listQuery(_ request: FrontRequest) -> Result<PairListing.Query, Refusal> {
        var query = PairListing.Query(limit: Limits.defaultListPagePairs)
        switch request.withQuery({ FormDecoder.bytes("limit", in: $0, limit: 6) }) {
        case .absent: break
        case .value(let text):
            guard text.allSatisfy({ (0x30...0x39).contains($0) }),
                let limit = Int(String(decoding: text, as: UTF8.self)), (1...Limits.listPagePairs).contains(limit)
            else { fallthrough }
            query.limit = limit
        case .malformed, .tooLong: return .failure(Refusal(answer: ErrorAnswer.badListLimit))
        }
        switch request.withQuery({ FormDecoder.bytes("prefix", in: $0, limit: Limits.keyBytes) }) {
        case .absent: break
        case .value(let prefix): query.prefix = prefix
        case .malformed: return .failure(Refusal(answer: ErrorAnswer.malformedField))
        case .tooLong: return .failure(Refusal(answer: ErrorAnswer.keyTooLongInTarget))
        }
        return mark(request).map { mark in
            query.after = mark
            return query
        }
    }

    private func mark(_ request: FrontRequest) -> Result<ListingMark, Refusal> {
        switch request.withQuery({ FormDecoder.bytes("cursor", in: $0, limit: 2 * Limits.storedKeyBytes) }) {
        case .absent: return .success(.start)
        case .value(let text):
            guard let mark = ListingMark(cursor: text) else { fallthrough }
            return .success(mark)
        case .malformed, .tooLong: return .failure(Refusal(answer: ErrorAnswer.badCursor))
        }
    }
}

extension ListingMark {
    /// As clients carry it: hexadecimal digits, which no URL has to encode.
    package var cursor: String {
        var text = ""
        for byte in bytes { text += (byte < 16 ? "0" : "") + String(byte, radix: 16) }
        return text
    }

    /// Nil where it is no cursor.
    package init?(cursor: [UInt8]) {
        guard !cursor.isEmpty, cursor.count.isMultiple(of: 2) else { return nil }
        var bytes: [UInt8] = []
        for index in stride(from: 0, to: cursor.count, by: 2) {
            let digits = cursor[index..<index + 2]
            guard !digits.contains(UInt8(ascii: "+")), !digits.contains(UInt8(ascii: "-")),
                let byte = UInt8(String(decoding: digits, as: UTF8.self), radix: 16)
            else { return nil }
            bytes.append(byte)
        }
        self.init(bytes)
    }
}

/// Pairs as `/keys:export` gives them and `/keys:import` takes them: records as in a block of a snapshot.
package enum ExportedRecords {
    /// A chunk that a manifest names was not found: it has been overwritten meanwhile.
    struct ChunkMissing: Error, CustomStringConvertible {
        var description: String { "a large value was overwritten meanwhile" }
    }

    /// Up to the first large value, or that alone, with its chunks before it.
    /// - Parameter read: what is stored under a key.
    static func encode(
        _ part: ListingMerge, read: (StoredKey) async throws -> Envelope?
    ) async throws -> (records: ByteBuffer, through: ListingMark) {
        var buffer = ByteBuffer()
        var through = ListingMark.start
        for pair in part.pairs {
            if pair.record.isManifest, buffer.readableBytes > 0 { return (buffer, through) }
            if let large = pair.record.largeValue {
                for number in 0...large.chunkCount {
                    let key = StoredKey(chunk: number, of: large.upload, in: pair.key.slot)
                    guard let chunk = try await read(key), !chunk.isTombstone else { throw ChunkMissing() }
                    SnapshotBlock.write(SnapshotRecord(key: key, envelope: chunk), into: &buffer)
                }
            }
            SnapshotBlock.write(SnapshotRecord(key: pair.key, envelope: pair.record), into: &buffer)
            through = ListingMark(through: pair.key)
            if pair.record.isManifest { return (buffer, through) }
        }
        return (buffer, part.through)
    }

    /// Nil where they are none, or where a record is no pair of a client's.
    package static func decode(_ bytes: ByteBuffer) -> [SnapshotRecord]? {
        guard let records = SnapshotBlock.records(in: bytes) else { return nil }
        let areClients = records.allSatisfy { record in
            !record.envelope.isTombstone && record.envelope.version.time > 0
                && (record.key.isChunk ? isChunk(record) : isPair(record))
        }
        return areClients ? records : nil
    }

    private static func isPair(_ record: SnapshotRecord) -> Bool {
        record.envelope.clientKey(under: record.key).map { StoredKey($0) } == record.key
            && (record.envelope.keyInside != nil) == record.key.isDigest
            && record.envelope.contentType.map { RepresentationFields.isType($0) } ?? true
    }

    private static func isChunk(_ record: SnapshotRecord) -> Bool {
        guard record.key.chunk != nil, !record.envelope.isManifest, record.envelope.expiryMilliseconds == nil,
            let key = record.envelope.keyInside.flatMap({ Key(Array($0.readableBytesView)) })
        else { return false }
        return key.slot == record.key.slot
    }

    /// Of each key the newest record, and of those of one version the first, in the order in which they came. (Two that
    /// are being stored at once would each be found to be newer than what is held.)
    static func newest(of records: [SnapshotRecord]) -> [SnapshotRecord] {
        var places: [StoredKey: Int] = [:]
        places.reserveCapacity(records.count)
        for (place, record) in records.enumerated() {
            if let other = places[record.key], record.envelope.version <= records[other].envelope.version { continue }
            places[record.key] = place
        }
        return records.enumerated().filter { places[$1.key] == $0 }.map(\.element)
    }
}

/// Records that are being stored, some at a time. Belongs to the front's event loop. All of it may be done again.
private final class ImportRun {
    private let connection: HTTPFrontHandler
    private let records: [SnapshotRecord]
    private let completion: (Answer) -> Void
    private var next = 0
    private var underWay = 0
    private var isBeginning = false
    private var stored = 0
    private var kept: Int
    /// After it nothing more is begun.
    private var failure: Failure?

    private enum Failure: Error {
        case operation(OperationFailure)
        /// A manifest came too long after its chunks.
        case chunksCollected
    }

    /// - Parameters:
    ///   - records: one of each key.
    ///   - kept: how many others came, which these are as new as, or newer.
    ///   - completion: called once.
    init(
        _ connection: HTTPFrontHandler, _ records: [SnapshotRecord], kept: Int, completion: @escaping (Answer) -> Void
    ) {
        self.connection = connection
        self.records = records
        self.kept = kept
        self.completion = completion
    }

    func begin() {
        // (What completes at once comes back here.)
        guard !isBeginning else { return }
        isBeginning = true
        while failure == nil, next < records.count, underWay < Limits.importWindow {
            let record = records[next]
            // (What names chunks comes after them.)
            if record.envelope.isManifest, underWay > 0 { break }
            next += 1
            underWay += 1
            if record.key.isChunk {
                store(chunk: record)
            } else if let large = record.envelope.largeValue {
                renewLabel(of: large, record) { self.restore(record) }
            } else {
                restore(record)
            }
        }
        isBeginning = false
        guard underWay == 0, failure != nil || next == records.count else { return }
        completion(answer)
    }

    private func restore(_ record: SnapshotRecord) {
        connection.front.data.restore(record.key, record.envelope) {
            self.done($0.map(Optional.some).mapError(Failure.operation))
        }
    }

    /// Gives the chunks that came before a manifest their time anew, so that they stay until it is stored. Where they
    /// are being deleted already, or are gone, it would name what is not there.
    private func renewLabel(of large: LargeValue, _ record: SnapshotRecord, then store: @escaping () -> Void) {
        guard let key = record.envelope.clientKey(under: record.key) else { return done(.failure(.chunksCollected)) }
        let label = StoredKey(chunk: 0, of: large.upload, in: record.key.slot)
        let data = connection.front.data
        data.read(stored: label, .strict) { result in
            switch result {
            case .failure(let failure): return self.done(.failure(.operation(failure)))
            case .success(let held):
                guard let held, UploadLabel.isWanted(held) else { return self.done(.failure(.chunksCollected)) }
                data.write(
                    label, UploadLabel.envelope(of: key, under: label),
                    if: Precondition(ifMatch: .versions([held.version])), .strict
                ) { result in
                    switch result {
                    case .success: store()
                    case .failure(.preconditionFailed): self.done(.failure(.operation(.notApplied(.contended))))
                    case .failure(let failure): self.done(.failure(.operation(failure)))
                    }
                }
            }
        }
    }

    /// Under a new version: whoever deletes chunks that nothing names has to know that it is wanted once more.
    private func store(chunk record: SnapshotRecord) {
        guard let key = record.envelope.keyInside.flatMap({ Key(Array($0.readableBytesView)) }) else { return }
        let chunk = Envelope(key: key, storedKey: record.key, value: record.envelope.value)
        connection.front.data.write(record.key, chunk, .strict) {
            self.done($0.map { _ in nil }.mapError(Failure.operation))
        }
    }

    /// - Parameter result: whether a pair was stored, or another one kept; nil: it is none.
    private func done(_ result: Result<Bool?, Failure>) {
        underWay -= 1
        switch result {
        case .success(true): stored += 1
        case .success(false): kept += 1
        case .success(nil): break
        case .failure(let reason): failure = reason
        }
        begin()
    }

    private var answer: Answer {
        guard let failure else { return .json(ByteBuffer(string: "{\"stored\":\(stored),\"kept\":\(kept)}\n")) }
        var answer =
            switch failure {
            case .operation(let failure): connection.answer(to: failure)
            case .chunksCollected: ErrorAnswer.chunksCollected
            }
        // Some of them are there.
        if stored > 0 { answer.outcome = .unknown }
        return answer
    }
}
