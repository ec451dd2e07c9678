// SPDX-License-Identifier: Apache-2.0

private import FoundationEssentials
private import Glibc
private import HTTPFront
private import HashRing
private import KeyValue
private import NIOCore

/// Does one thing of a request's as often as it is told to, for `Tests/bench/instructions.py` to count what it takes:
/// `Microbenchmarks NAME COUNT`.
@main
enum Microbenchmarks {
    static func main() {
        let arguments = ProcessInfo.processInfo.arguments
        guard arguments.count == 3, let benchmark = benchmarks[arguments[1]], let count = Int(arguments[2]) else {
            print("usage: Microbenchmarks \(benchmarks.keys.sorted().joined(separator: "|")) COUNT")
            exit(64)
        }
        let body = benchmark()
        var sum = 0
        for number in 0..<count { sum &+= body(number) }
        // (So that none of it is done for nothing.)
        print(sum)
    }

    /// What each prepares, and then does again and again, with a number that says which time it is.
    private static var benchmarks: [String: () -> (Int) -> Int] {
        [
            "slot": {
                let names = (0..<64).map { Array("bench-\($0)".utf8) }
                return { number in names[number & 63].withUnsafeBytes { Int(Slot(ofKey: $0).value) } }
            },
            "envelope-write": {
                let (key, value) = (keys[0], ByteBuffer(repeating: 0x76, count: 100))
                let storedKey = StoredKey(key)
                return { number in
                    var envelope = Envelope(key: key, storedKey: storedKey, value: value)
                    envelope.stamp(Version(time: UInt64(number), writer: 1))
                    return envelope.buffer.readableBytes
                }
            },
            "envelope-read": {
                let bytes = envelope.buffer
                return { _ in
                    guard let envelope = Envelope(bytes) else { preconditionFailure("its own bytes") }
                    return Int(truncatingIfNeeded: envelope.version.time) &+ envelope.value.readableBytes
                }
            },
            "batch-write": {
                let batch = PeerBatch(epoch: Epoch(3), clock: 1 << 40, operations: keys.map { .read(StoredKey($0)) })
                return { _ in
                    var buffer = ByteBuffer()
                    PeerBatchCodec.encode(batch, into: &buffer)
                    return buffer.readableBytes
                }
            },
            "batch-read": {
                var bytes = ByteBuffer()
                let outcomes = keys.map { _ in Outcome.record(envelope) }
                let answer = PeerBatchAnswer(
                    epoch: Epoch(3), generation: Generation(9), clock: 1 << 40, outcomes: outcomes)
                PeerBatchCodec.encode(answer, into: &bytes)
                return { [bytes] _ in
                    var bytes = bytes
                    return (try? PeerBatchCodec.decodeAnswer(&bytes))?.outcomes.count ?? 0
                }
            },
            "request-read": {
                let bytes = ByteBuffer(string: "GET /route?key=bench-4711 HTTP/1.1\r\nHost: 127.0.0.1:5000\r\n\r\n")
                return { _ in FastPath.request(in: bytes, bodyLimit: 1 << 20)?.length ?? 0 }
            },
            "form-read": {
                let body = ByteBuffer(string: "key=bench-4711&val=" + String(repeating: "v", count: 100))
                return { _ in
                    let key = body.withUnsafeReadableBytes { FormDecoder.bytes("key", in: $0, limit: Limits.keyBytes) }
                    guard case .value(let key) = key, case .value(let value) = FormDecoder.buffer("val", in: body)
                    else {
                        preconditionFailure("they are there")
                    }
                    return key.count + value.readableBytes
                }
            },
            "answer-write": {
                let answer = Answer.found(envelope)
                return { _ in
                    var buffer = ByteBuffer()
                    _ = AnswerEncoder.encode(answer, isHead: false, .keepAlive, into: &buffer)
                    return buffer.readableBytes
                }
            },
        ]
    }

    /// As many as may come in one tick.
    private static let keys = (0..<32).map { Key(Array("bench-\($0)".utf8))! }

    private static let envelope = {
        var envelope = Envelope(
            key: keys[0], storedKey: StoredKey(keys[0]), value: ByteBuffer(repeating: 0x76, count: 100))
        envelope.stamp(Version(time: 1 << 40, writer: 1))
        return envelope
    }()
}
