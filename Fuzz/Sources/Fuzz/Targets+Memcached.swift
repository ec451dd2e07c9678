// SPDX-License-Identifier: Apache-2.0

private import HashRing
private import KeyValue
private import Memcached
private import MemcachedFront
private import NIOCore
private import NIOEmbedded

private let allSlots = [Bool](repeating: true, count: Slot.count)

/// `lru_crawler metadump hash`, cut anywhere.
@Sendable func fuzzMetadump(_ bytes: UnsafeRawBufferPointer) {
    let (pieces, stream) = bytes.cut
    func read(_ pieces: [Int]) -> MetadumpReader {
        var reader = MetadumpReader(wanted: allSlots, maximumKeys: 16, maximumBytes: 1024)
        stream.inPieces(pieces) { reader.take($0) }
        return reader
    }
    let whole = read([])
    let cut = read(pieces)
    hold(whole.state == cut.state, "it ends otherwise in pieces")
    // (Sorting goes through all slots: not where there is nothing to sort.)
    guard stream.starts(with: "key=d".utf8) else { return }
    let scan = whole.sorted()
    let again = cut.sorted()
    hold(scan.keys.count == again.keys.count && scan.coveredThrough == again.coveredThrough, "other keys in pieces")
    for index in 0..<scan.keys.count { hold(scan.keys[index] == again.keys[index], "another key in pieces") }
}

/// What memcached answers to stores, cut anywhere.
@Sendable func fuzzReplies(_ bytes: UnsafeRawBufferPointer) {
    guard let first = bytes.first else { return }
    let (pieces, stream) = UnsafeRawBufferPointer(rebasing: bytes[1...]).cut
    func read(_ pieces: [Int]) -> Int? {
        var replies = StoreReplies(Int(first % 5))
        stream.inPieces(pieces) { replies.take($0) }
        return try? replies.answeredCount()
    }
    let count = read([])
    hold(count == read(pieces), "other answers in pieces")
    hold(count == nil || count == Int(first % 5), "an answer too few, or too many")
}

/// The host's stamp, which every batch brings.
@Sendable func fuzzStamp(_ bytes: UnsafeRawBufferPointer) {
    guard let stamp = HostStamp(bytes: bytes) else { return }
    hold(HostStamp(bytes: stamp.bytes) == stamp, "another one comes back")
    hold(HostStamp(bytes: stamp.bytes + Array("   ".utf8)) == stamp, "padding changes it")
}

/// memcached's protocol as clients speak it: alike however it is cut.
@Sendable func fuzzCommands(_ bytes: UnsafeRawBufferPointer) {
    let (pieces, stream) = bytes.cut
    // (What it tells of itself is never twice the same.)
    guard !String(decoding: stream, as: UTF8.self).contains("stats") else { return }
    let whole = client()
    let cut = client()
    whole.send(stream)
    stream.inPieces(pieces) { cut.send($0) }
    hold(whole.answers == cut.answers, "other answers in pieces")
    hold(whole.store.visiblePairs == cut.store.visiblePairs, "other pairs")
    hold(whole.channel.isActive == cut.channel.isActive, "it is open in one case only")
}

/// (To make one takes longer than an input does. There is one thread.)
private nonisolated(unsafe) let metrics = CommandMetrics()

private func client() -> FuzzClient {
    FuzzClient { channel, store in
        let front = CommandFront(loop: channel.embeddedEventLoop, store: store, version: "0", metrics: metrics)
        try channel.pipeline.syncOperations.addHandler(CommandHandler(front))
    }
}
