// SPDX-License-Identifier: Apache-2.0

import Glibc
import HTTPFront
import KeyValue
import NIOCore
import NIOEmbedded
import TestSupport
import Testing

@Suite("One connection")
struct ConnectionTests {
    private static func pipeline() -> (bytes: String, statuses: [Int]) {
        var bytes = ""
        var statuses: [Int] = []
        for number in 0..<40 {
            bytes += postRequest("/route", "key=k\(number)&val=v\(number)") + getRequest("/route?key=k\(number)")
            bytes += getRequest("/route?key=missing") + getRequest("/route") + getRequest("/no_such")
            bytes += "PUT /route?key=a HTTP/1.1\r\nHost: kv\r\n\r\n"
            bytes +=
                "POST /route HTTP/1.1\r\nHost: kv\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nkey=a\r\n6\r\n&val=b\r\n0\r\n\r\n"
            statuses += [200, 200, 404, 400, 404, 405, 200]
        }
        return (bytes, statuses)
    }

    @Test("behind a decoder alone, without the gate, it answers as well")
    func withoutGate() throws {
        let connection = try TestConnection(hasGate: false)
        #expect(connection.ask(getRequest("/route?key=a"))?.status == 404)
        #expect(connection.ask(postRequest("/route", "key=a&val=1"))?.text == "OK")
        #expect(connection.ask(getRequest("/route?key=a"))?.text == "1")
    }

    @Test("requests in one piece, byte by byte, and in odd pieces, with a store that is quick or slow")
    func pieces() throws {
        var random = SeededGenerator(seed: 31)
        let (text, statuses) = ConnectionTests.pipeline()
        let bytes = Array(text.utf8)
        for isSlow in [false, true] {
            for largest in [bytes.count, 1, 700] {
                let connection = try TestConnection()
                connection.data.isSlow = isSlow
                var answers: [ReadAnswer] = []
                var position = 0
                while position < bytes.count {
                    let length = min(
                        bytes.count - position, largest == 700 ? Int.random(in: 1...700, using: &random) : largest)
                    connection.send(Array(bytes[position..<position + length]))
                    position += length
                    if Int.random(in: 0..<5, using: &random) == 0 { release(connection, &random) }
                    answers += connection.answers()
                }
                while !connection.data.waiting.isEmpty {
                    release(connection, &random)
                    answers += connection.answers()
                }
                #expect(answers.map(\.status) == statuses)
                let values = answers.enumerated().filter { $0.offset % 7 == 1 }.map(\.element.text)
                #expect(values == (0..<40).map { "v\($0)" }, "a read sees the write before it")
                #expect(connection.front.heldBytes == 0)
            }
        }
    }

    private func release(_ connection: TestConnection, _ random: inout SeededGenerator) {
        connection.data.release(Array(connection.data.waiting.indices).shuffled(using: &random))
        connection.run()
    }

    @Test("reads answered out of order go out in order")
    func outOfOrder() throws {
        let connection = try TestConnection()
        for number in 0..<10 { _ = connection.ask(postRequest("/route", "key=\(number)&val=v\(number)")) }
        connection.data.isSlow = true
        connection.send((0..<10).map { getRequest("/route?key=\($0)") }.joined())
        #expect(connection.data.waiting.count == 10)
        connection.data.release([9, 3, 4, 8, 7, 1, 2, 6, 5])
        connection.run()
        #expect(connection.answers().isEmpty)
        connection.data.release([0])
        connection.run()
        #expect(connection.answers().map(\.text) == (0..<10).map { "v\($0)" })
    }

    @Test("no more are under way than may be, and the rest is done afterwards")
    func bound() throws {
        let connection = try TestConnection()
        connection.data.isSlow = true
        let count = 2000
        connection.send(String(repeating: getRequest("/route?key=a"), count: count))
        let pieceRequests = 2048 / getRequest("/route?key=a").utf8.count + 1
        #expect(connection.data.waiting.count >= Limits.pipelinedRequests)
        #expect(connection.data.waiting.count <= Limits.pipelinedRequests + pieceRequests)
        var answered = 0
        while !connection.data.waiting.isEmpty {
            connection.data.release(Array(connection.data.waiting.indices))
            connection.run()
            answered += connection.answers().count
        }
        #expect(answered == count)
        #expect(connection.data.mostAtOnce <= Limits.pipelinedRequests + pieceRequests)
    }

    @Test("while the client does not read, nothing more is done for it")
    func unwritable() throws {
        let connection = try TestConnection()
        connection.channel.isWritable = false
        connection.channel.pipeline.fireChannelWritabilityChanged()
        connection.send(String(repeating: getRequest("/route?key=a"), count: 500))
        #expect(connection.data.operationCount == 0)
        #expect(connection.answers().isEmpty)
        connection.channel.isWritable = true
        connection.channel.pipeline.fireChannelWritabilityChanged()
        connection.run()
        #expect(connection.answers().count == 500)
    }

    @Test("answers to requests of one read travel in one write")
    func oneWrite() throws {
        let connection = try TestConnection()
        connection.send(String(repeating: getRequest("/route?key=a"), count: 20))
        var writes = 0
        while try connection.channel.readOutbound(as: ByteBuffer.self) != nil { writes += 1 }
        #expect(writes == 1)
    }

    @Test("a large value is not copied behind its head, and arrives")
    func largeValue() throws {
        let connection = try TestConnection()
        let value = String(repeating: "x", count: 900_000)
        #expect(connection.ask(postRequest("/route", "key=a&val=\(value)"))?.status == 200)
        #expect(connection.ask(getRequest("/route?key=a"))?.text == value)
    }

    @Test("the connection ends when the client says so, after the answer")
    func close() throws {
        for request in [
            getRequest("/health/live", "Connection: close\r\n"), "GET /health/live HTTP/1.0\r\n\r\n",
            getRequest("/health/live", "Connection: upgrade\r\nUpgrade: h2c\r\n"),
        ] {
            let connection = try TestConnection()
            let answer = connection.ask(request + getRequest("/route?key=a"))
            #expect(answer?.text == "alive\n" && answer?.closes == true)
            #expect(connection.answers().isEmpty)
            #expect(connection.data.operationCount == 0)
            #expect(!connection.isOpen)
        }
        let kept = try TestConnection()
        let answer = kept.ask("GET /health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        #expect(answer?.headers["connection"] == "keep-alive")
        #expect(kept.isOpen)
    }

    @Test("100-continue is said when the body is wanted, and not when it is refused")
    func expectContinue() throws {
        let connection = try TestConnection()
        let head = "POST /route HTTP/1.1\r\nHost: kv\r\nExpect: 100-continue\r\nContent-Length: "
        #expect(connection.ask(head + "11\r\n\r\n")?.status == 100)
        #expect(connection.ask("key=a&val=b")?.status == 200)
        connection.data.isSlow = true
        connection.send(getRequest("/route?key=a") + head + "11\r\n\r\n")
        #expect(connection.answers().isEmpty)
        connection.data.release([0])
        connection.run()
        #expect(connection.answers().map(\.status) == [200, 100])
        connection.data.isSlow = false
        #expect(connection.ask("key=a&val=c")?.status == 200)
        let refused = try #require(connection.ask(head + "99999999\r\n\r\n"))
        #expect(refused.status == 413 && refused.closes)
    }

    @Test("a refused body is thrown away up to a bound, then the connection ends")
    func discarding() throws {
        let connection = try TestConnection()
        connection.send("POST /route HTTP/1.1\r\nHost: kv\r\nTransfer-Encoding: chunked\r\n\r\n")
        let chunk = "100000\r\n" + String(repeating: "x", count: 1 << 20) + "\r\n"
        var sent = 0
        while connection.isOpen, sent < 40 {
            connection.send(chunk)
            sent += 1
        }
        let answers = connection.answers()
        #expect(answers.first?.status == 413)
        #expect(sent <= 18)
        #expect(connection.front.heldBytes == 0)
        let declared = try TestConnection()
        let answer = declared.ask("POST /route HTTP/1.1\r\nHost: kv\r\nContent-Length: 99999999999\r\n\r\n")
        #expect(answer?.status == 413 && answer?.closes == true)
    }

    @Test("half a request at the end of the client's bytes is dropped, what came before is answered")
    func halfClosed() throws {
        let connection = try TestConnection()
        connection.data.isSlow = true
        connection.send(getRequest("/route?key=a") + "GET /rou")
        connection.closeInput()
        connection.data.release([0])
        connection.run()
        #expect(connection.answers().first?.status == 404)
        #expect(!connection.isOpen)
    }

    @Test("a client that goes away leaves nothing behind")
    func goneAway() throws {
        let connection = try TestConnection()
        connection.data.isSlow = true
        connection.send(
            String(repeating: getRequest("/route?key=a"), count: 5)
                + "POST /route HTTP/1.1\r\nHost: a\r\nContent-Length: 90\r\n\r\nkey=")
        #expect(connection.front.heldBytes == 4)
        _ = try connection.channel.finish(acceptAlreadyClosed: true)
        connection.data.release([0, 1, 2, 3, 4])
        connection.run()
        #expect((connection.front.heldBytes, connection.front.connectionCount) == (0, 0))
    }
}

@Suite("Bodies in chunks")
struct ChunkedBodyTests {
    @Test("one that is kept takes as long as it is large, not more")
    func growing() throws {
        // (Copied as it grows, a body of eight times the length would take some fifty times as long.)
        let (short, long) = (try processorTime(1 << 20), try processorTime(8 << 20))
        #expect(long < 25 * short)
    }

    /// Of this thread, in nanoseconds, for a body of so many bytes.
    private func processorTime(_ bytes: Int) throws -> UInt64 {
        let body = String(repeating: " ", count: bytes)
        let request = Array(
            ("POST /keys:batch HTTP/1.1\r\nHost: kv\r\nTransfer-Encoding: chunked\r\n\r\n"
                + "\(String(bytes, radix: 16))\r\n\(body)\r\n0\r\n\r\n").utf8)
        return try (0..<3).map { _ in
            let connection = try TestConnection()
            let began = processorNanoseconds()
            // (Nobody takes its work.)
            #expect(connection.ask(request)?.status == 503)
            return processorNanoseconds() - began
        }.min()!
    }

    private func processorNanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}

@Suite("Deadlines and leaving")
struct DeadlineTests {
    @Test("a head that does not come to its end")
    func head() throws {
        let connection = try TestConnection()
        connection.send("GET / HTTP/1.1\r\nHost: ")
        for _ in 0..<4 {
            connection.advance(.seconds(1))
            connection.send("X")
        }
        #expect(connection.isOpen)
        connection.advance(.seconds(2))
        let answer = connection.answers().first
        #expect(answer?.status == 408 && answer?.closes == true)
        #expect(!connection.isOpen)
    }

    @Test("a body that does not come to its end, and one that is slow but not too slow")
    func body() throws {
        let head = "POST /route HTTP/1.1\r\nHost: kv\r\nContent-Length: 1000000\r\n\r\n"
        let stalled = try TestConnection()
        stalled.send(head + "key=a")
        stalled.advance(.seconds(6))
        #expect(stalled.answers().first?.status == 408)
        let slow = try TestConnection()
        slow.send(head)
        for _ in 0..<8 {
            slow.advance(.seconds(1))
            slow.send(String(repeating: "x", count: 70_000))
        }
        #expect(slow.isOpen && slow.answers().isEmpty)
    }

    @Test("an idle connection ends, one that waits for the store does not")
    func idle() throws {
        let connection = try TestConnection()
        _ = connection.ask(getRequest("/"))
        connection.advance(.seconds(9))
        #expect(connection.isOpen)
        _ = connection.ask(getRequest("/"))
        connection.advance(.seconds(9))
        #expect(connection.isOpen)
        connection.data.isSlow = true
        connection.send(getRequest("/route?key=a"))
        connection.advance(.seconds(30))
        #expect(connection.isOpen)
        connection.data.release([0])
        connection.run()
        #expect(connection.answers().last?.status == 404)
        connection.advance(.seconds(11))
        #expect(!connection.isOpen)
    }

    @Test("a worker that leaves answers what it has read, says so on the last answer, and is not ready")
    func leaving() throws {
        let connection = try TestConnection()
        connection.data.isSlow = true
        connection.send(getRequest("/route?key=a") + getRequest("/route?key=b"))
        var isGone = false
        connection.front.onGone = { isGone = true }
        connection.front.leave()
        connection.data.release([0, 1])
        connection.run()
        let answers = connection.answers()
        #expect(answers.map(\.closes) == [false, true])
        #expect(!connection.isOpen && isGone)
    }

    @Test("a new request on an idle connection of a leaving worker is answered still")
    func leavingIdle() throws {
        let connection = try TestConnection()
        _ = connection.ask(getRequest("/"))
        connection.front.leave()
        connection.advance(.seconds(2))
        let answer = try #require(connection.ask(getRequest("/health/ready")))
        #expect(answer.status == 503 && answer.closes)
        let idle = try TestConnection()
        _ = idle.ask(getRequest("/"))
        idle.front.leave()
        idle.advance(.seconds(4))
        #expect(!idle.isOpen)
    }
}

@Suite("Garbage")
struct GarbageTests {
    private static let seed = UInt64.random(in: 1 ... .max)

    @Test("mutated, cut and mixed requests never crash a worker, and no answer is out of place")
    func mutations() throws {
        let seed = GarbageTests.seed
        var random = SeededGenerator(seed: seed)
        let parts = [
            getRequest("/route?key=a"), postRequest("/route", "key=a&val=b"), getRequest("/"),
            getRequest("/route_test?key=%41"),
            "POST /route HTTP/1.1\r\nHost: kv\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nkey=a\r\n0\r\n\r\n",
            "HEAD / HTTP/1.0\r\n\r\n", getRequest("/", "Connection: upgrade\r\nUpgrade: x\r\n"),
            postRequest("/hash_ring", "data=%7B"), postRequest("/peer/batch", "\u{1}\0\0"),
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        ]
        for round in 0..<2000 {
            var bytes = (0..<Int.random(in: 1...6, using: &random)).flatMap { _ in
                Array(parts.randomElement(using: &random)!.utf8)
            }
            for _ in 0..<Int.random(in: 0...6, using: &random) where !bytes.isEmpty {
                let place = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes.remove(at: place)
                case 2: bytes.insert(contentsOf: random.bytes(Int.random(in: 1...8, using: &random)), at: place)
                default: bytes.removeSubrange(place..<min(bytes.count, place + Int.random(in: 0...40, using: &random)))
                }
            }
            let sent = String(decoding: bytes, as: UTF8.self)
            let connection = try TestConnection()
            connection.data.isSlow = Bool.random(using: &random)
            while !bytes.isEmpty {
                let length = Int.random(in: 1...bytes.count, using: &random)
                connection.send(Array(bytes.prefix(length)))
                bytes.removeFirst(length)
                if Bool.random(using: &random) { release(connection, &random) }
            }
            // What waits is answered, and so is one more request, or the connection has ended in order.
            while !connection.data.waiting.isEmpty { release(connection, &random) }
            connection.advance(.seconds(30))
            connection.collect()
            let closed = !connection.isOpen
            #expect(closed, "seed \(seed), round \(round): open after 30 s of silence, sent \(sent.debugDescription)")
            #expect(connection.front.heldBytes == 0, "seed \(seed), round \(round)")
        }
    }

    @Test("the request behind garbage in a header's value or a body is answered as ever")
    func contained() throws {
        let seed = GarbageTests.seed
        var random = SeededGenerator(seed: seed)
        for round in 0..<500 {
            let connection = try TestConnection()
            let body = random.bytes(Int.random(in: 0...200, using: &random))
            let target = ["/route", "/hash_ring", "/peer/batch", "/cache", "/no_such"].randomElement(using: &random)!
            let head = "POST \(target) HTTP/1.1\r\nHost: kv\r\nContent-Length: \(body.count)\r\n\r\n"
            connection.send(Array(head.utf8) + body + Array(getRequest("/health/live").utf8))
            let answers = connection.answers()
            #expect(answers.count == 2 && answers.last?.text == "alive\n", "seed \(seed), round \(round): \(answers)")
        }
    }

    private func release(_ connection: TestConnection, _ random: inout SeededGenerator) {
        connection.data.release(Array(connection.data.waiting.indices).shuffled(using: &random))
        connection.run()
    }
}
