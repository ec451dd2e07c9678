// SPDX-License-Identifier: Apache-2.0

import Cluster
import HTTPFront
import HashRing
import KeyValue
import Listening
import NIOCore
import NIOPosix
import Testing

#if canImport(Glibc)
    import Glibc
#endif

/// A front on a real socket, for what goes through other threads.
final class LiveFront: Sendable {
    let loop: any EventLoop
    let operators: FakeOperators
    let front: NIOLoopBound<Front>
    let server: ConnectionServer
    let port: UInt16
    let gone: EventLoopPromise<Void>
    private let group: MultiThreadedEventLoopGroup

    init(connections: Int? = nil, pairs: [Key: Int] = [:], patience: Front.Patience = Front.Patience()) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let loop = group.next()
        let operators = FakeOperators()
        let gone = loop.makePromise(of: Void.self)
        self.group = group
        self.loop = loop
        self.operators = operators
        self.gone = gone
        front = try await loop.submit {
            let data = FakeData()
            for (key, size) in pairs {
                data.pairs[key] = Envelope(
                    key: key, storedKey: StoredKey(key), value: ByteBuffer(repeating: 0x78, count: size))
            }
            let front = Front(
                node: NodeID("127.0.0.11:5000")!, loop: loop, data: data, operators: operators, tasks: FakeTasks(),
                patience: patience, room: ConnectionRoom(limit: connections ?? Limits.connectionsPerWorker))
            front.onGone = { gone.succeed() }
            return NIOLoopBound(front, eventLoop: loop)
        }.get()
        let (listener, port) = try Self.listen()
        self.port = port
        server = try await Front.listen(front, listener: listener)
    }

    func end() async throws {
        await server.stopAccepting()
        try await loop.submit { self.front.value.leave() }.get()
        try await group.shutdownGracefully()
    }

    private static func listen() throws -> (descriptor: CInt, port: UInt16) {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = loopback(0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let failed = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) | Glibc.listen(descriptor, 128) | getsockname(descriptor, $0, &length)
            }
        }
        precondition(failed == 0, "no loopback socket")
        return (descriptor, UInt16(bigEndian: address.sin_port))
    }

    static func loopback(_ port: UInt16) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return address
    }
}

/// A client's blocking socket, on a thread of its own. Every wait ends, but not before other tests may have computed on
/// all threads of the pool.
actor LiveClient {
    private static let patienceSeconds = 30

    private let descriptor: CInt
    private var parser = AnswerParser()
    private let thread = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    nonisolated var unownedExecutor: UnownedSerialExecutor { thread.next().executor.asUnownedSerialExecutor() }

    init(_ port: UInt16, receiveBytes: Int32? = nil) {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var time = timeval(tv_sec: LiveClient.patienceSeconds, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
        if var receiveBytes {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &receiveBytes, socklen_t(MemoryLayout<Int32>.size))
        }
        var address = LiveFront.loopback(port)
        let failed = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        precondition(failed == 0, "can't connect")
    }

    deinit {
        close(descriptor)
        thread.shutdownGracefully { _ in }
    }

    func send(_ text: String) { send(Array(text.utf8)) }

    func send(_ bytes: [UInt8]) {
        var bytes = bytes[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes {
                Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { return }
            bytes = bytes.dropFirst(count)
        }
    }

    func endSending() { shutdown(descriptor, Int32(SHUT_WR)) }

    /// The next answer; nil at the connection's end, or when patience is over.
    func answer() -> ReadAnswer? {
        while true {
            if let answer = parser.next() { return answer }
            guard let bytes = read(), !bytes.isEmpty else { return nil }
            parser.append(bytes)
        }
    }

    func ask(_ request: String) -> ReadAnswer? { ask(Array(request.utf8)) }

    func ask(_ request: [UInt8]) -> ReadAnswer? {
        send(request)
        return answer()
    }

    /// Empty at the connection's end, nil when patience is over, or for a broken connection.
    func read() -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: 65_536)
        let count = recv(descriptor, &bytes, bytes.count, 0)
        return count < 0 ? nil : Array(bytes[..<count])
    }

    /// Whether the other side ends the connection, in whatever way.
    func isEnded() -> Bool {
        var byte: UInt8 = 0
        let count = recv(descriptor, &byte, 1, 0)
        return count == 0 || count < 0 && errno == ECONNRESET
    }
}

@Suite("Over a real socket", .timeLimit(.minutes(1)))
struct LiveTests {
    private func node(_ text: String) -> NodeID { NodeID(text)! }

    @Test("rings are shown and installed, nodes added and removed")
    func rings() async throws {
        let live = try await LiveFront()
        let client = LiveClient(live.port)
        let shown = try #require(await client.ask(getRequest("/hash_ring")))
        #expect(shown.text.hasPrefix("{\"ring\":{\"3000\":\"127.0.0.11:5000\"},\"_sorted_keys\":[3000],\"epoch\":3,"))
        let json =
            "{\"nodes\":[{\"ip\":\"127.0.0.1:2\",\"key\":8000},{\"ip\":\"127.0.0.1:1\",\"key\":1}],\"standbys\":[\"127.0.0.1:3\"]}"
        let installed = await client.ask(postRequest("/hash_ring", "data=" + percentEncoded(json.utf8)))
        #expect(installed?.text == "OK")
        #expect(await live.operators.installed.first?.nodes == [node("127.0.0.1:1"), node("127.0.0.1:2")])
        #expect(await live.operators.standbys == [node("127.0.0.1:3")])
        #expect(await client.ask(getRequest("/add_node/5000/127.0.0.1:9"))?.text == "OK")
        #expect(await client.ask(postRequest("/remove_node/127.0.0.1:9", "x=y"))?.text == "OK")
        let forced = getRequest("/remove_node/127.0.0.1:9?force=1&without=127.0.0.1:7,127.0.0.1:8")
        #expect(await client.ask(forced)?.text == "OK; forced without 127.0.0.1:7 without 127.0.0.1:8\n")
        #expect(await client.ask(getRequest("/add_node/auto/127.0.0.1:9"))?.text == "OK")
        #expect(await client.ask(postRequest("/add_node/auto/[::1]:9?positions=64", ""))?.text == "OK")
        #expect(await client.ask(postRequest("/abort_change", ""))?.text == "OK")
        #expect(await client.ask(getRequest("/clear_cache"))?.text == "OK")
        #expect(await client.ask(getRequest("/status"))?.text == "{\"epoch\":3}")
        let metrics = await client.ask(getRequest("/metrics"))
        #expect(metrics?.text == "a 1\n")
        #expect(metrics?.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8")
        #expect(await client.ask(postRequest("/peer/echo", "hello"))?.text == "hello")
        #expect(await client.ask(postRequest("/peer/other", "hello"))?.status == 404)
        let changes = await live.operators.changes
        let other = node("127.0.0.1:9")
        #expect(
            changes == [
                .exactly(.add(node: other, positions: [Position(5000)!])), .exactly(.remove(node: other)),
                .exactly(.remove(node: other)),
                .addAnywhere(other, count: nil), .addAnywhere(node("[::1]:9"), count: 64),
            ])
        try await live.end()
    }

    @Test("each failure of a change has its status and outcome, and names what is in the way")
    func failures() async throws {
        let live = try await LiveFront()
        let client = LiveClient(live.port)
        let other = node("127.0.0.1:9")
        for (error, status, outcome, text) in [
            (OperatorError.refused(.alreadyMember(other, at: [Position(7)!])), 409, "not-applied", "\(other)"),
            (.refused(.positionTaken(Position(7)!, by: other)), 409, "not-applied", "\(other)"),
            (
                .refused(.alreadyMember(other, at: [Position(7)!, Position(9)!])), 409, "not-applied",
                "2 positions: 7, 9"
            ),
            (.refused(.notEnoughPositions(free: 3)), 409, "not-applied", "3 of"),
            (.refused(.unknownNode(other)), 404, "not-applied", "\(other)"),
            (.refused(.lastNode(other)), 409, "not-applied", "\(other)"),
            (.busy("adding \(other)\nis under way"), 409, "not-applied", "\(other)"),
            (.nothingToAbort("none runs"), 409, "not-applied", "None runs"),
            (.ringsDisagree("\(other) knows another"), 409, "not-applied", "knows another.\n"),
            (.aborted("why"), 409, "not-applied", "why"),
            (.noRing, 503, "not-applied", "/hash_ring"), (.unreachable("\(other)"), 503, "not-applied", "\(other)"),
            (.unknown("lost"), 503, "unknown", "lost"),
        ] {
            await live.operators.set(error: error)
            let answer = try #require(await client.ask(getRequest("/add_node/5000/127.0.0.1:9")))
            #expect((answer.status, answer.outcome) == (status, outcome), "\(error)")
            #expect(answer.text.contains(text) && answer.text.split(separator: "\n").count == 1, "\(answer)")
        }
        try await live.end()
    }

    @Test("all pairs as one JSON object, in bounded pieces, also for HTTP/1.0 and a slow reader")
    func pairs() async throws {
        let live = try await LiveFront()
        let client = LiveClient(live.port)
        #expect(await client.ask(getRequest("/fetch_keys"))?.text == "{}")
        await live.operators.set(batches: [
            [(Key("a")!, ByteBuffer(string: "1\n"))], [], [(Key([0xFF])!, ByteBuffer(string: "2"))],
        ])
        #expect(await client.ask(getRequest("/fetch_keys"))?.text == "{\"a\":\"1\\u000a\",\"\\udcff\":\"2\"}")
        await client.send("GET /fetch_keys HTTP/1.0\r\n\r\n")
        var bytes: [UInt8] = []
        while let more = await client.read(), !more.isEmpty { bytes += more }
        #expect(String(decoding: bytes, as: UTF8.self).hasSuffix("\r\n\r\n{\"a\":\"1\\u000a\",\"\\udcff\":\"2\"}"))
        let large = ByteBuffer(repeating: 0x78, count: 1 << 20)
        await live.operators.set(batches: (0..<40).map { [(Key("\($0)")!, large)] })
        let slow = LiveClient(live.port, receiveBytes: 4096)
        await slow.send(getRequest("/fetch_keys") + getRequest("/health/live"))
        try await Task.sleep(for: .milliseconds(300))
        var length = 0
        var tail: [UInt8] = []
        while !tail.suffix(6).elementsEqual("alive\n".utf8), let more = await slow.read(), !more.isEmpty {
            length += more.count
            tail = Array((tail + more).suffix(6))
        }
        #expect(length > 40 << 20)
        try await live.end()
    }

    @Test("a listing that breaks off is not taken for a whole one")
    func brokenPairs() async throws {
        let live = try await LiveFront()
        await live.operators.set(batches: [], breaksOff: true)
        #expect(await LiveClient(live.port).ask(getRequest("/fetch_keys"))?.status == 503)
        await live.operators.set(batches: [[(Key("a")!, ByteBuffer(string: "1"))]], breaksOff: true)
        let client = LiveClient(live.port)
        await client.send(getRequest("/fetch_keys"))
        #expect(await client.answer() == nil)
        #expect(await client.isEnded())
        try await live.end()
    }

    @Test("a client that ends its side gets its answers, large ones too")
    func halfClosed() async throws {
        let live = try await LiveFront(pairs: [Key("large")!: 900_000])
        let client = LiveClient(live.port, receiveBytes: 4096)
        await client.send(String(repeating: getRequest("/route?key=large"), count: 20))
        await client.endSending()
        try await Task.sleep(for: .milliseconds(200))
        for _ in 0..<20 { #expect(await client.answer()?.body.count == 900_000) }
        #expect(await client.read() == [])
        try await live.end()
    }

    @Test("a refusal arrives though the client goes on sending")
    func refusalWhileSending() async throws {
        let live = try await LiveFront()
        for _ in 0..<20 {
            let client = LiveClient(live.port)
            await client.send("GET / HTTP/1.1\r\nHost : a\r\n\r\n" + String(repeating: "x", count: 300_000))
            let answer = await client.answer()
            #expect(answer?.status == 400 && answer?.closes == true)
        }
        try await live.end()
    }

    @Test("a client that takes nothing is cut off, one that takes little is not")
    func stuckReader() async throws {
        var patience = Front.Patience()
        patience.write = .milliseconds(700)
        let live = try await LiveFront(pairs: [Key("large")!: 900_000], patience: patience)
        let stuck = LiveClient(live.port, receiveBytes: 4096)
        await stuck.send(String(repeating: getRequest("/route?key=large"), count: 30))
        let slow = LiveClient(live.port)
        await slow.send(String(repeating: getRequest("/route?key=large"), count: 30))
        var length = 0
        for _ in 0..<20 {
            try await Task.sleep(for: .milliseconds(100))
            length += await slow.read()?.count ?? 0
        }
        #expect(try await live.loop.submit { live.front.value.connectionCount }.get() == 1)
        while length < 30 * 900_000, let more = await slow.read(), !more.isEmpty { length += more.count }
        #expect(length > 30 * 900_000)
        try await live.end()
    }

    @Test("what a client has not taken yet is held, and one that takes little goes where others are refused for it")
    func slowReader() async throws {
        var patience = Front.Patience()
        patience.body = .milliseconds(600)
        patience.bodyBytesPerSecond = 1 << 20
        let live = try await LiveFront(pairs: [Key("large")!: 900_000], patience: patience)
        let front = live.front
        let slow = LiveClient(live.port, receiveBytes: 4096)
        await slow.send(String(repeating: getRequest("/route?key=large"), count: 30))
        try await Task.sleep(for: .milliseconds(1500))
        #expect(try await live.loop.submit { front.value.heldBytes }.get() >= 900_000)
        #expect(try await live.loop.submit { front.value.connectionCount }.get() == 1, "there is room for it")
        try await live.loop.submit { front.value.heldElsewhere = { Limits.frontBytes } }.get()
        try await Task.sleep(for: .milliseconds(700))
        #expect(try await live.loop.submit { front.value.connectionCount }.get() == 0)
        #expect(try await live.loop.submit { front.value.heldBytes }.get() == 0)
        _ = slow
        try await live.end()
    }

    @Test("beyond the cap nobody is accepted until somebody goes")
    func cap() async throws {
        let live = try await LiveFront(connections: 3)
        var clients = (0..<3).map { _ in LiveClient(live.port) }
        for client in clients { #expect(await client.ask(getRequest("/health/live"))?.status == 200) }
        let waiting = LiveClient(live.port)
        await waiting.send(getRequest("/health/live"))
        try await Task.sleep(for: .milliseconds(200))
        #expect(try await live.loop.submit { live.front.value.connectionCount }.get() <= 4)
        clients.removeAll()
        #expect(await waiting.answer()?.status == 200)
        try await live.end()
    }

    @Test("a worker that leaves accepts nobody, answers with the connection's end, and knows when all are gone")
    func leaving() async throws {
        let live = try await LiveFront()
        let client = LiveClient(live.port)
        #expect(await client.ask(getRequest("/"))?.closes == false)
        await live.server.stopAccepting()
        try await live.loop.submit { live.front.value.leave() }.get()
        #expect(await client.ask(getRequest("/route?key=a"))?.closes == true)
        #expect(await client.read() == [])
        try await live.gone.futureResult.get()
        try await live.end()
    }
}
