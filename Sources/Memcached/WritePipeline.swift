// SPDX-License-Identifier: Apache-2.0

internal import HashRing
internal import KeyValue
internal import NIOCore

/// Many stores in one round trip: the requests first, then the answers. libmemcached sends a store only after the
/// answer to the one before, and each wait costs more than the store itself.
///
/// Of very many some answers are taken before the last request is sent: memcached reads nothing while its answers find
/// no room, and both would wait for each other.
///
/// The text protocol's answers carry no names, so they count only if they came whole: as many lines as there were
/// requests, each of them one that a store may have, and the answer to a no-op behind them. Otherwise nothing is known
/// of any of them, and the connection is dropped.
///
/// The stores are classic `cas` and `add`: a meta store (`ms`) that finds no room takes the old value with it.
struct WritePipeline: ~Copyable {
    struct Store {
        let key: StoredKey
        let value: ByteBuffer
        /// What was read with the item that is overwritten; nil where there is none.
        let token: UInt64?
        /// As memcached takes it; 0 for ever.
        let exptime: UInt32
    }

    enum Answer {
        case answered(MemcachedHandle.StoreAnswer)
        /// Definitely without effect, the old value is still there.
        case refused(MemcachedError)
        /// Sent, and its answer is not known.
        case unknown(MemcachedError)
    }

    private static let bufferBytes = 16 << 10
    /// Requests are sent in pieces of about this many bytes.
    private static let pieceBytes = 64 << 10
    /// How many stores may be unanswered while another piece is sent. Each answer may take a kibibyte of a unix
    /// socket's buffer (208 KiB on Linux), whatever its length.
    private static let unansweredStores = 128
    /// So that the same timeout serves many turns.
    private static let timeoutStepMilliseconds = 50
    /// Control values are padded to no more than this many bytes where they are as short as a stamp.
    private static let longestStamp = 2048

    private let endpoint: MemcachedEndpoint
    private var connection: TextConnection?
    /// Which memory the connection leads to. Tokens say nothing in another.
    private var generation: Generation?
    private var request: [UInt8] = []

    init(_ endpoint: MemcachedEndpoint) { self.endpoint = endpoint }

    /// Performs the stores in their order.
    /// - Parameter generation: of the memory in which the tokens were read; nothing is sent to another.
    /// - Returns: an answer for each, in their order. Throws where nothing was sent.
    mutating func perform(
        _ stores: [Store], in generation: Generation, until deadline: NIODeadline
    ) throws(MemcachedError) -> [Answer] {
        try connect(to: generation, until: deadline)
        guard deadline > .now() else { throw .timedOut }
        do throws(MemcachedError) {
            var replies = StoreReplies(stores.count)
            try send(stores, &replies, until: deadline)
            return try receive(&replies, until: deadline)
        } catch {
            connection = nil
            return stores.map { _ in .unknown(error) }
        }
    }

    // MARK: Connection

    /// The next stores go over a new connection.
    mutating func disconnect() { connection = nil }

    private mutating func connect(to wanted: Generation, until deadline: NIODeadline) throws(MemcachedError) {
        let step = WritePipeline.timeoutStepMilliseconds
        let timeout = (Int(deadline.millisecondsLeft) + step - 1) / step * step
        if connection != nil, generation == wanted {
            connection?.setTimeout(milliseconds: timeout)
            return
        }
        connection = nil
        var made = try TextConnection(endpoint, timeoutMilliseconds: timeout, bufferBytes: WritePipeline.bufferBytes)
        try made.send("get ".utf8 + ControlKey.stamp.bytes + "\r\n".utf8)
        let stamp = try WritePipeline.readStamp(&made, until: deadline)
        guard stamp?.generation == wanted else { throw .unavailable("its memory is another than a moment ago") }
        connection = consume made
        generation = wanted
    }

    /// `VALUE <key> <flags> <length>`, the value, `END`; or `END` alone.
    private static func readStamp(
        _ connection: inout TextConnection, until deadline: NIODeadline
    ) throws(MemcachedError) -> HostStamp? {
        var lines = LineReader(longest: longestStamp)
        while lines.last != "END" {
            guard deadline > .now() else { throw .timedOut }
            guard lines.count < 3, !lines.isOverlong else { throw .protocolViolation(lines.last ?? "") }
            try connection.receive { lines.take($0) }
        }
        guard lines.count == 3, lines.all[0].hasPrefix("VALUE ") else { return nil }
        return HostStamp(bytes: lines.all[1].utf8)
    }

    // MARK: Requests and answers

    private mutating func send(
        _ stores: [Store], _ replies: inout StoreReplies, until deadline: NIODeadline
    ) throws(MemcachedError) {
        request.removeAll(keepingCapacity: request.capacity <= 4 * WritePipeline.pieceBytes)
        var pieceStart = 0
        for (index, store) in stores.enumerated() {
            append(store.token == nil ? "add " : "cas ")
            request.append(contentsOf: store.key.bytes)
            append(" 0 ")
            append(UInt64(store.exptime))
            request.append(UInt8(ascii: " "))
            append(UInt64(store.value.readableBytes))
            if let token = store.token {
                request.append(UInt8(ascii: " "))
                append(token)
            }
            append("\r\n")
            store.value.withUnsafeReadableBytes { request.append(contentsOf: $0) }
            append("\r\n")
            let next = index + 1
            if request.count >= WritePipeline.pieceBytes || next - pieceStart == WritePipeline.unansweredStores {
                try takeAnswers(&replies, upTo: next - WritePipeline.unansweredStores, deadline)
                try sendRequest()
                pieceStart = next
            }
        }
        append("mn\r\n")
        try takeAnswers(&replies, upTo: stores.count - WritePipeline.unansweredStores, deadline)
        try sendRequest()
    }

    /// Until there are so many of them.
    private mutating func takeAnswers(
        _ replies: inout StoreReplies, upTo count: Int, _ deadline: NIODeadline
    ) throws(MemcachedError) {
        guard deadline > .now() else { throw .timedOut }
        while replies.count < count {
            try connection?.receive { replies.take($0) }
            guard deadline > .now() else { throw .timedOut }
        }
    }

    private mutating func sendRequest() throws(MemcachedError) {
        guard connection != nil else { throw .unavailable("no connection") }
        try connection?.send(request)
        request.removeAll(keepingCapacity: true)
    }

    private mutating func append(_ text: StaticString) {
        text.withUTF8Buffer { request.append(contentsOf: $0) }
    }

    private mutating func append(_ number: UInt64) {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 20) { digits in
            var start = digits.count
            var rest = number
            repeat {
                start -= 1
                digits[start] = 0x30 + UInt8(rest % 10)
                rest /= 10
            } while rest > 0
            request.append(contentsOf: UnsafeBufferPointer(rebasing: digits[start...]))
        }
    }

    private mutating func receive(
        _ replies: inout StoreReplies, until deadline: NIODeadline
    ) throws(MemcachedError) -> [Answer] {
        while true {
            try connection?.receive { replies.take($0) }
            if let answers = try replies.answers() { return answers }
            guard deadline > .now() else { throw .timedOut }
        }
    }
}

/// What memcached says to the stores of one round trip and to the no-op behind them, cut anywhere.
package struct StoreReplies {
    private static let longestLine = 128

    private let wanted: Int
    private var lines = LineReader(longest: longestLine)
    private var read: [WritePipeline.Answer] = []

    /// - Parameter count: of the stores.
    package init(_ count: Int) {
        wanted = count
        read.reserveCapacity(count)
    }

    /// How many answers have come.
    var count: Int { lines.count }

    package mutating func take(_ bytes: UnsafeRawBufferPointer) { lines.take(bytes) }

    /// An answer for each store, in their order, once all are there; nil until then. Throws where what came is not
    /// what so many stores are answered.
    mutating func answers() throws(MemcachedError) -> [WritePipeline.Answer]? {
        guard !lines.isOverlong else { throw .protocolViolation(lines.last ?? "") }
        for line in lines.all[read.count..<min(lines.count, wanted)] { read.append(try StoreReplies.answer(line)) }
        guard lines.count > wanted else { return nil }
        guard lines.count == wanted + 1, lines.isAtLineEnd, lines.last == "MN" else {
            throw .protocolViolation("more answers than requests")
        }
        return read
    }

    /// How many stores are answered; nil until all are.
    package mutating func answeredCount() throws(MemcachedError) -> Int? { try answers()?.count }

    private static func answer(_ line: String) throws(MemcachedError) -> WritePipeline.Answer {
        switch line {
        case "STORED": return .answered(.stored)
        case "EXISTS", "NOT_STORED": return .answered(.lost)
        case "NOT_FOUND": return .answered(.missing)
        // The second one where the room for a large value ran out while it was read.
        case "SERVER_ERROR out of memory storing object", "SERVER_ERROR Out of memory during read":
            return .refused(.outOfMemory)
        case "SERVER_ERROR object too large for cache": return .refused(.tooLarge)
        default: throw .protocolViolation(line)
        }
    }
}
