// SPDX-License-Identifier: Apache-2.0

private import Cluster
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
        stream(id, JSONStream(opening: "{\"keys\":[")) { push in
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
        handOver(id, .stream) {
            do {
                let part = try await operators.part(
                    PairListing.Query(after: after, limit: Limits.listedPairs, isWhole: true))
                var answer = Answer(.ok, .binary, ExportedRecords.encode(part.pairs))
                answer.cursor = part.through == .end ? nil : part.through.cursor
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
            let answer = try? await loop.flatSubmit {
                let answer = loop.makePromise(of: Answer.self)
                ImportRun(connection.value, records) { answer.succeed($0) }.begin()
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
    static func encode(_ pairs: [ListedPair]) -> ByteBuffer {
        var buffer = ByteBuffer()
        for pair in pairs { SnapshotBlock.write(SnapshotRecord(key: pair.key, envelope: pair.record), into: &buffer) }
        return buffer
    }

    /// Nil where they are none, or where a record is no pair of a client's.
    package static func decode(_ bytes: ByteBuffer) -> [SnapshotRecord]? {
        guard let records = SnapshotBlock.records(in: bytes) else { return nil }
        let areClients = records.allSatisfy { record in
            !record.envelope.isTombstone && record.envelope.version.time > 0
                && record.envelope.clientKey(under: record.key).map { StoredKey($0) } == record.key
                && (record.envelope.keyInside != nil) == record.key.isDigest
                && record.envelope.contentType.map { RepresentationFields.isType($0) } ?? true
        }
        return areClients ? records : nil
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
    private var kept = 0
    /// After it nothing more is begun.
    private var failure: OperationFailure?

    /// - Parameter completion: called once.
    init(_ connection: HTTPFrontHandler, _ records: [SnapshotRecord], completion: @escaping (Answer) -> Void) {
        self.connection = connection
        self.records = records
        self.completion = completion
    }

    func begin() {
        // (What completes at once comes back here.)
        guard !isBeginning else { return }
        isBeginning = true
        while failure == nil, next < records.count, underWay < Limits.importWindow {
            let record = records[next]
            next += 1
            underWay += 1
            connection.front.data.restore(record.key, record.envelope) { self.done($0) }
        }
        isBeginning = false
        guard underWay == 0, failure != nil || next == records.count else { return }
        completion(answer)
    }

    private func done(_ result: Result<Bool, OperationFailure>) {
        underWay -= 1
        switch result {
        case .success(true): stored += 1
        case .success(false): kept += 1
        case .failure(let reason): failure = reason
        }
        begin()
    }

    private var answer: Answer {
        guard let failure else { return .json(ByteBuffer(string: "{\"stored\":\(stored),\"kept\":\(kept)}\n")) }
        var answer = connection.answer(to: failure)
        // Some of them are there.
        if stored > 0 { answer.outcome = .unknown }
        return answer
    }
}
