// SPDX-License-Identifier: Apache-2.0

import Cluster
import HTTPFront
import HashRing
import NIOCore
import NIOEmbedded
import NIOHTTP1

/// One answer as a client reads it.
struct ReadAnswer: Equatable, CustomStringConvertible {
    var status: Int
    var headers: [String: String]
    var body: [UInt8]

    var text: String { String(decoding: body, as: UTF8.self) }
    var outcome: String? { headers["x-kv-outcome"] }
    var closes: Bool { headers["connection"] == "close" }
    var description: String { "\(status) \(headers) \(text.prefix(200).debugDescription)" }
}

/// Cuts bytes into answers.
struct AnswerParser {
    private var bytes: [UInt8] = []

    mutating func append(_ more: some Sequence<UInt8>) { bytes += more }

    var rest: Int { bytes.count }

    /// The next whole answer; an interim one counts as an answer.
    /// - Parameter isHead: that it answers a HEAD request and has no body.
    mutating func next(isHead: Bool = false) -> ReadAnswer? {
        guard let end = range(of: "\r\n\r\n", from: 0) else { return nil }
        let lines = String(decoding: bytes[..<end], as: UTF8.self).split(
            separator: "\r\n", omittingEmptySubsequences: false)
        let words = lines[0].split(separator: " ", maxSplits: 2)
        guard words.count == 3, words[0] == "HTTP/1.1", let status = Int(words[1]) else {
            fatalError("not a status line: \(lines[0])")
        }
        var headers: [String: String] = [:]
        for line in lines.dropFirst() {
            let parts = line.split(separator: ":", maxSplits: 1)
            headers[parts[0].lowercased()] = parts[1].drop { $0 == " " }.description
        }
        var position = end + 4
        var body: [UInt8] = []
        if isHead {
            // No body, whatever the headers say.
        } else if headers["transfer-encoding"] == "chunked" {
            while true {
                guard let lineEnd = range(of: "\r\n", from: position),
                    let size = Int(String(decoding: bytes[position..<lineEnd], as: UTF8.self), radix: 16),
                    bytes.count >= lineEnd + 2 + size + 2
                else { return nil }
                body += bytes[lineEnd + 2..<lineEnd + 2 + size]
                position = lineEnd + 4 + size
                if size == 0 { break }
            }
        } else if let length = headers["content-length"].flatMap({ Int($0) }) {
            guard bytes.count >= position + length else { return nil }
            body = Array(bytes[position..<position + length])
            position += length
        }
        bytes.removeFirst(position)
        return ReadAnswer(status: status, headers: headers, body: body)
    }

    private func range(of text: String, from start: Int) -> Int? {
        let wanted = Array(text.utf8)
        guard bytes.count >= wanted.count, start <= bytes.count - wanted.count else { return nil }
        return (start...bytes.count - wanted.count).first {
            bytes[$0] == wanted[0] && bytes[$0...].starts(with: wanted)
        }
    }
}

/// A client's connection without a network, on a loop whose time stands still unless it is told to go on.
final class TestConnection {
    let data: FakeData
    let front: Front
    let channel: EmbeddedChannel
    var parser = AnswerParser()

    /// (Work away from the loop would come back to one whose time stands still: LiveTests have a real one.)
    /// - Parameter hasGate: false: all bytes go to NIOHTTP1's decoder, as in the fuzzer that compares the two ways.
    init(
        data: FakeData = FakeData(), failpoints: Failpoints = .disabled, metrics: FrontMetrics = FrontMetrics(),
        hasGate: Bool = true, log: ((any EventLoop) -> RequestLog)? = nil
    ) throws {
        let channel = EmbeddedChannel()
        self.data = data
        self.channel = channel
        channel.allowRemoteHalfClosure = true
        front = Front(
            node: NodeID("127.0.0.11:5000")!, loop: channel.embeddedEventLoop, data: data, operators: FakeOperators(),
            tasks: FakeTasks(takesWork: false), failpoints: failpoints, metrics: metrics,
            log: log?(channel.embeddedEventLoop))
        try begin(hasGate: hasGate)
    }

    /// Another client's, to the same front.
    init(beside other: TestConnection) throws {
        (data, front) = (other.data, other.front)
        channel = EmbeddedChannel(loop: other.channel.embeddedEventLoop)
        channel.allowRemoteHalfClosure = true
        try begin()
    }

    private func begin(hasGate: Bool = true) throws {
        if hasGate {
            try HTTPFrontHandler.addHandlers(to: channel, front)
        } else {
            try channel.pipeline.syncOperations.addHandlers(
                ByteToMessageHandler(HTTPRequestDecoder(leftOverBytesStrategy: .dropBytes)), HTTPFrontHandler(front))
        }
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
    }

    deinit { _ = try? channel.finish(acceptAlreadyClosed: true) }

    var isOpen: Bool { channel.isActive }

    func send(_ text: String) { send(Array(text.utf8)) }

    func send(_ bytes: [UInt8]) {
        guard channel.isActive else { return }
        _ = try? channel.writeInbound(ByteBuffer(bytes: bytes))
        run()
    }

    /// The client sends nothing more.
    func closeInput() {
        channel.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
        run()
    }

    func run() { channel.embeddedEventLoop.run() }

    func advance(_ time: TimeAmount) { channel.embeddedEventLoop.advanceTime(by: time) }

    /// The answers that have come since the last call.
    func answers() -> [ReadAnswer] {
        collect()
        var answers: [ReadAnswer] = []
        while let answer = parser.next() { answers.append(answer) }
        return answers
    }

    func collect() {
        while let bytes = try? channel.readOutbound(as: ByteBuffer.self) { parser.append(bytes.readableBytesView) }
    }

    /// One request, one answer.
    func ask(_ request: String) -> ReadAnswer? {
        send(request)
        return answers().first
    }

    func ask(_ request: [UInt8]) -> ReadAnswer? {
        send(request)
        return answers().first
    }
}

func percentEncoded(_ bytes: some Sequence<UInt8>) -> String {
    bytes.map { byte in
        let hex = String(byte, radix: 16)
        return hex.count == 1 ? "%0\(hex)" : "%\(hex)"
    }.joined()
}

func getRequest(_ target: String, _ headers: String = "") -> String {
    "GET \(target) HTTP/1.1\r\nHost: kv\r\n\(headers)\r\n"
}

func postRequest(_ target: String, _ body: String, _ headers: String = "") -> String {
    "POST \(target) HTTP/1.1\r\nHost: kv\r\nContent-Length: \(body.utf8.count)\r\n\(headers)\r\n\(body)"
}
