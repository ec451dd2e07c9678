// SPDX-License-Identifier: Apache-2.0

private import Cluster
private import Control
private import Etcd
private import FoundationEssentials
private import HTTPFront
private import HashRing
private import KeyValue
private import NIOCore

/// A pair as it is stored.
@Sendable func fuzzEnvelope(_ bytes: UnsafeRawBufferPointer) {
    guard var envelope = Envelope(ByteBuffer(bytes: bytes)) else { return }
    let value = envelope.value
    hold(value.readableBytes <= bytes.count - Envelope.headerBytes, "more value than bytes")
    hold(!envelope.isTombstone || value.readableBytes == 0, "a tombstone with a value")
    hold(!(envelope.isTombstone && UploadLabel.isWanted(envelope)), "chunks of which the label is gone are wanted")
    hold(Envelope(envelope.head.buffer)?.value.readableBytes == 0, "a head that is none")
    let version = Version(time: 1 << 40, writer: 9)
    let type = envelope.contentType
    envelope.stamp(version)
    hold(envelope.version == version && envelope.value == value && envelope.contentType == type, "a stamp changes it")
    // What an encoder makes of it says the same.
    let key = envelope.keyInside.flatMap { Key(Array($0.readableBytesView)) } ?? Key([1])!
    let label = StoredKey(key)
    let isWanted = [UploadLabel.envelope(of: key, under: label), UploadLabel.condemned(of: key, under: label)].map {
        Envelope($0.buffer).map(UploadLabel.isWanted)
    }
    hold(isWanted == [true, false], "a label that says something else")
    let again = Envelope(
        key: key, storedKey: StoredKey(key), value: value, version: version, isTombstone: envelope.isTombstone,
        contentType: type, expiryMilliseconds: envelope.expiryMilliseconds, clientFlags: envelope.clientFlags)
    guard let read = Envelope(again.buffer) else { fatalError("what was encoded can't be read") }
    hold(
        read.value == value && read.version == version && read.isTombstone == envelope.isTombstone
            && read.expiryMilliseconds == envelope.expiryMilliseconds, "it says something else")
    hold(envelope.isTombstone || read.clientFlags == envelope.clientFlags, "other client flags")
    // (Bytes that are no UTF-8 are repaired, and may then be too long.)
    if let type, type.utf8.count <= Limits.contentTypeBytes { hold(read.contentType == type, "another content type") }
}

/// Keys as memcached knows them.
@Sendable func fuzzStoredKey(_ bytes: UnsafeRawBufferPointer) {
    if let key = Key(Array(bytes)) {
        let stored = StoredKey(key)
        hold(stored.bytes.allSatisfy { (33...126).contains($0) }, "a byte that memcached would see")
        hold(stored.bytes.count <= Limits.plainStoredKeyBytes, "too long")
        hold(StoredKey(stored: stored.bytes) == stored && stored.slot == key.slot, "not read again")
        hold(stored.isDigest || stored.clientKey == key, "another client's key")
        hold(stored.hint.pair == stored && StoredKey(stored: stored.hint.bytes) == stored.hint, "another pair's hint")
        let prefix = Array(key.bytes.prefix(key.bytes.count / 2))
        stored.bytes.withUnsafeBytes {
            hold(StoredKey.mayHavePrefix(StoredKey.rest(ofPrefix: prefix), $0), "it lacks its own prefix")
        }
    }
    if let stored = StoredKey(stored: Array(bytes)) {
        _ = stored.clientKey
        hold((0..<Slot.count).contains(Int(stored.slot.value)), "no slot")
        let mark = ListingMark(through: stored)
        hold(ListingMark(mark.bytes) == mark || stored.isHint, "no mark")
    }
}

/// What names the chunks of a large value, and their keys.
@Sendable func fuzzManifest(_ bytes: UnsafeRawBufferPointer) {
    if let stored = StoredKey(stored: Array(bytes)), let chunk = stored.chunk {
        // (A hint's chunk is its pair's.)
        hold(StoredKey(chunk: chunk.number, of: chunk.upload, in: stored.slot) == stored.pair, "another chunk's key")
        hold(stored.isChunk && !stored.isDigest && stored.clientKey == nil, "a chunk that is a client's")
    }
    guard let large = LargeValue(ByteBuffer(bytes: bytes)) else { return }
    hold(large.encoded.readableBytesView.elementsEqual(bytes), "it is encoded otherwise")
    let count = large.chunkCount
    hold(large.bytes(ofChunk: 1).lowerBound == 0 && large.bytes(ofChunk: count).upperBound == large.length, "a gap")
    for number in Set([1, 2, count / 2, count - 1, count]) where (1...count).contains(number) {
        let range = large.bytes(ofChunk: number)
        hold(!range.isEmpty && range.count <= large.chunkBytes, "a chunk of no size")
        hold(large.chunks(of: range) == number...number, "another chunk has it")
        hold(number == count || large.bytes(ofChunk: number + 1).lowerBound == range.upperBound, "a gap behind it")
        let key = StoredKey(chunk: number, of: large.upload, in: Slot(number % Slot.count)!)
        guard let read = StoredKey(stored: key.bytes)?.chunk else { fatalError("a key that is none") }
        hold(read.upload == large.upload && read.number == number, "another chunk's key")
    }
    hold(large.chunks(of: 0..<large.length) == 1...count, "some are of no use")
}

/// What other nodes ask in a batch.
@Sendable func fuzzPeerBatch(_ bytes: UnsafeRawBufferPointer) {
    var buffer = ByteBuffer(bytes: bytes)
    guard let batch = try? PeerBatchCodec.decodeRequest(&buffer) else { return }
    var again = ByteBuffer()
    PeerBatchCodec.encode(batch, into: &again)
    hold(again.readableBytesView.elementsEqual(bytes), "it is encoded otherwise")
}

/// What they answer.
@Sendable func fuzzPeerAnswer(_ bytes: UnsafeRawBufferPointer) {
    var buffer = ByteBuffer(bytes: bytes)
    guard let answer = try? PeerBatchCodec.decodeAnswer(&buffer) else { return }
    var again = ByteBuffer()
    PeerBatchCodec.encode(answer, into: &again)
    hold(again.readableBytesView.elementsEqual(bytes), "it is encoded otherwise")
}

/// Of what a host lists.
@Sendable func fuzzListing(_ bytes: UnsafeRawBufferPointer) {
    guard let answer = HostListingCodec.decode(ByteBuffer(bytes: bytes)) else { return }
    hold(HostListingCodec.encode(answer).readableBytesView.elementsEqual(bytes), "it is encoded otherwise")
    if case .listed(let listing) = answer { for pair in listing.pairs { _ = pair.clientKey } }
}

/// Encoded and decoded again it is the same.
private func roundTrip<Value: Codable & Equatable>(_ type: Value.Type, _ bytes: UnsafeRawBufferPointer) -> Value? {
    guard let value = try? JSONDecoder().decode(type, from: Data(bytes)) else { return nil }
    guard let json = try? JSONEncoder().encode(value) else { fatalError("it can't be encoded") }
    hold((try? JSONDecoder().decode(type, from: json)) == value, "another one comes back")
    return value
}

/// The ring document, and what is done with one that comes from elsewhere.
@Sendable func fuzzRingJSON(_ bytes: UnsafeRawBufferPointer) {
    guard let document = roundTrip(RingDocument.self, bytes) else { return }
    // (Of ten thousand slots, in each input, it would be slow.)
    let table = RoutingTable(document)
    for slot in stride(from: 0, to: Slot.count, by: 997) { _ = table[Slot(slot)!] }
    _ = document.members
    _ = document.isOfOneCluster(with: document)
    hold(document.transition == nil || !document.members.isEmpty, "a change without members")
}

/// What a host keeps of the ring in memcached.
@Sendable func fuzzHostRecord(_ bytes: UnsafeRawBufferPointer) {
    guard var record = roundTrip(HostRingRecord.self, bytes) else { return }
    _ = record.promise(to: "a", nowMilliseconds: 1000, lifeMilliseconds: 1000)
    _ = record.renew("a", nowMilliseconds: 1500, lifeMilliseconds: 1000)
    if let document = record.document {
        hold(record.announce(document, by: "b") == .accepted, "its own document is another one's")
        var next = document
        next.epoch = Epoch(document.epoch.value | 1)
        _ = record.announce(next, by: "a")
    }
    record.release("a")
}

/// What drivers and chores of other nodes say.
@Sendable func fuzzPeerJSON(_ bytes: UnsafeRawBufferPointer) {
    let data = Data(bytes)
    let decoder = JSONDecoder()
    // (What is no JSON at all is so for each of them.)
    guard (try? decoder.decode(AnyJSON.self, from: data)) != nil else { return }
    let types: [any Codable.Type] = [
        PeerMessage.RingExchange.self, PeerMessage.PromiseRequest.self, PeerMessage.PromiseAnswer.self,
        PeerMessage.Release.self, PeerMessage.Announcement.self, PeerMessage.AnnouncementAnswer.self,
        PeerMessage.JobRequest.self, PeerMessage.RepairRequest.self, PeerMessage.DigestRequest.self,
        PeerMessage.DigestAnswer.self, PeerMessage.ListRequest.self, PeerMessage.RepairAnswer.self,
        PeerMessage.JobAnswer.self, PeerMessage.ChangeWish.self, HintBoard.Entry.self,
        Heartbeat.self,
    ]
    for type in types {
        if let value = try? decoder.decode(type, from: data) {
            hold((try? JSONEncoder().encode(value)) != nil, "it can't be encoded")
        }
    }
}

private struct AnyJSON: Decodable {
    init(from decoder: any Decoder) {}
}

/// All that a decoder finds in a stream that comes in such pieces, until it finds an error.
private func parts<Part>(
    of stream: UnsafeRawBufferPointer, in pieces: [Int], _ next: (inout ByteBuffer) throws -> Part?
) -> [Part] {
    var parts: [Part] = []
    var buffer = ByteBuffer()
    var isOver = false
    stream.inPieces(pieces) { piece in
        guard !isOver else { return }
        buffer.writeBytes(piece)
        do {
            while let part = try next(&buffer) { parts.append(part) }
        } catch {
            isOver = true
        }
    }
    return parts
}

/// Snapshots and the log's segments, cut anywhere: nothing that is handed on is handed on otherwise in one piece.
@Sendable func fuzzSnapshot(_ bytes: UnsafeRawBufferPointer) {
    let (pieces, stream) = bytes.cut
    func read(_ pieces: [Int], _ stream: UnsafeRawBufferPointer) -> [SnapshotPart] {
        var decoder = SnapshotDecoder()
        return parts(of: stream, in: pieces) { buffer in try decoder.next(&buffer) }
    }
    hold(read(pieces, stream) == read([], stream), "in pieces it is another one")
    // The seals keep a fuzzer out: so it writes the records, and the encoder seals them.
    guard let records = SnapshotBlock.records(in: ByteBuffer(bytes: stream)) else { return }
    var output = ByteBuffer()
    let header = SnapshotHeader(
        node: NodeID("127.0.0.1:5000")!, generation: Generation(5), epoch: Epoch(3), clock: 1 << 40)
    var encoder = SnapshotEncoder(header, into: &output)
    for record in records { try? encoder.append(record, into: &output) }
    encoder.finish(into: &output)
    output.withUnsafeReadableBytes { whole in
        let parts = read(pieces, whole)
        var found: [SnapshotRecord] = []
        for case .records(let some) in parts { found += some }
        hold(parts.first == .header(header) && found == records, "other records come back")
        hold(parts.last == .end(encoder.sum), "it is not whole")
    }
}

/// kvctl's backups.
@Sendable func fuzzBackup(_ bytes: UnsafeRawBufferPointer) {
    let (pieces, stream) = bytes.cut
    func read(_ pieces: [Int], _ stream: UnsafeRawBufferPointer) -> [BackupPart] {
        var decoder = BackupDecoder()
        return parts(of: stream, in: pieces) { buffer in try decoder.next(&buffer) }
    }
    let inPieces = read(pieces, stream)
    if !inPieces.isEmpty { hold(inPieces == read([], stream), "in pieces it is another one") }
    let records = ByteBuffer(bytes: stream)
    guard let lengths = BackupRecords.lengths(of: records) else { return }
    hold(lengths.reduce(0, +) == stream.count, "lengths that do not add up")
    let cut = BackupRecords.pieces(of: records, upTo: 64)
    hold(cut.reduce(0) { $0 + $1.readableBytes } == stream.count, "pieces that do not add up")
    var output = ByteBuffer()
    var encoder = BackupEncoder(BackupHeader(begun: 1, epoch: 2), into: &output)
    try? encoder.append(records, cursor: "ab", into: &output)
    try? encoder.append(ByteBuffer(), cursor: nil, into: &output)
    encoder.finish(into: &output)
    output.withUnsafeReadableBytes { whole in
        let parts = read(pieces, whole)
        hold(parts.count == 4 && parts[1] == .block(records, cursor: "ab"), "other records come back")
        hold(parts.last == .end(encoder.sum), "it is not whole")
    }
}

/// `POST /keys:import`.
@Sendable func fuzzImport(_ bytes: UnsafeRawBufferPointer) {
    guard let records = ExportedRecords.decode(ByteBuffer(bytes: bytes)) else { return }
    for record in records {
        let isPair = record.envelope.clientKey(under: record.key) != nil
        hold(isPair || record.key.isChunk && record.envelope.keyInside != nil, "neither a pair nor a chunk of one")
        hold(!record.key.isHint, "a hint")
    }
}

/// What etcd says.
@Sendable func fuzzEtcd(_ bytes: UnsafeRawBufferPointer) {
    if let answer = try? JSONDecoder().decode(EtcdTransactionAnswer.self, from: Data(bytes)) {
        _ = answer.pair("/kvserver/ring")
    }
    let (pieces, stream) = bytes.cut
    func read(_ pieces: [Int]) -> [EtcdPair] {
        var changes: [EtcdPair] = []
        var watch = EtcdWatchStream(lineLimit: 4096)
        var isOver = false
        stream.inPieces(pieces) { piece in
            guard !isOver else { return }
            do {
                changes += try watch.received(ByteBuffer(bytes: piece))
            } catch {
                isOver = true
            }
        }
        return changes
    }
    _ = read([])
    _ = read(pieces)
}
