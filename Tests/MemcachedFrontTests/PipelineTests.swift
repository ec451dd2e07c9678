// SPDX-License-Identifier: Apache-2.0

import KeyValue
import MemcachedFront
import NIOCore
import NIOEmbedded
import Testing

/// What runs beside what, how much is begun, and how a connection ends.
struct PipelineTests {
    @Test func writesOfDifferentKeysRunBesideEachOther() throws {
        let client = try TestConnection()
        client.store.isSlow = true
        client.send("set a 0 0 1\r\n1\r\nset b 0 0 1\r\n2\r\nset a 0 0 1\r\n3\r\nget a b\r\n")
        #expect(client.store.waiting.map(\.name) == ["write a", "write b"])
        client.store.release("write b")
        #expect(client.said() == "")
        client.store.release("write a")
        #expect(client.said() == "STORED\r\nSTORED\r\n")
        client.store.release("write a")
        #expect(client.store.waiting.map(\.name) == ["read a", "read b"])
        client.store.release("read b", "read a")
        #expect(client.said() == "STORED\r\nVALUE a 0 1\r\n3\r\nVALUE b 0 1\r\n2\r\nEND\r\n")
    }

    @Test func nothingOvertakesAWrite() throws {
        let client = try TestConnection()
        client.store.isSlow = true
        client.send("get a\r\nset a 0 0 1\r\n1\r\nget b\r\nmn\r\n")
        #expect(client.store.waiting.map(\.name) == ["read a"])
        client.store.release("read a")
        #expect(client.store.waiting.map(\.name) == ["write a"] && client.said() == "END\r\n")
        client.store.release("write a")
        #expect(client.store.waiting.map(\.name) == ["read b"] && client.said() == "STORED\r\n")
        client.store.release("read b")
        #expect(client.said() == "END\r\nMN\r\n")
    }

    @Test func noMoreThanSoManyCommandsAreBegun() throws {
        let client = try TestConnection()
        client.store.isSlow = true
        let count = 3 * Limits.pipelinedCommands
        client.send((0..<count).map { "get \($0)\r\n" }.joined())
        #expect(client.store.waiting.count == Limits.pipelinedCommands)
        var answers = ""
        while !client.store.waiting.isEmpty {
            client.store.release(client.store.waiting[0].name)
            answers += client.said()
        }
        #expect(answers == String(repeating: "END\r\n", count: count))
        #expect(client.store.mostAtOnce == Limits.pipelinedCommands)
        #expect(client.ask("mn\r\n") == "MN\r\n")
    }

    @Test func manyCommandsAtOnce() throws {
        let client = try TestConnection()
        let count = 5 * Limits.pipelinedCommands + 3
        #expect(client.ask(String(repeating: "mn\r\n", count: count)) == String(repeating: "MN\r\n", count: count))
    }

    @Test func aGetAsksForAWindowOfItsKeys() throws {
        let client = try TestConnection()
        let keys = (0..<1000).map { "k\($0)" }
        for key in keys { _ = client.ask("set \(key) 0 0 1\r\nx\r\n") }
        client.store.isSlow = true
        client.send("get \(keys.joined(separator: " "))\r\n")
        #expect(client.store.waiting.count == Limits.getWindow)
        // The first one's answer is late: nothing can be said before it, and no more is asked for.
        while client.store.waiting.count > 1 { client.store.release(client.store.waiting[1].name) }
        #expect(client.said() == "" && client.store.mostAtOnce == Limits.getWindow)
        client.store.release("read k0")
        var answers = client.said()
        while !client.store.waiting.isEmpty {
            client.store.release(client.store.waiting[0].name)
            answers += client.said()
        }
        #expect(answers == keys.map { "VALUE \($0) 0 1\r\nx\r\n" }.joined() + "END\r\n")
        #expect(client.front.heldBytes == 0)
    }

    /// The values before the one that failed stay, and the client hears that the rest is not known.
    @Test func aGetThatBreaksOff() throws {
        let client = try TestConnection()
        for key in ["a", "b", "c"] { _ = client.ask("set \(key) 0 0 1\r\nx\r\n") }
        client.store.isSlow = true
        client.send("get a\r\n")
        client.store.failure = .notApplied(.deadline)
        client.send("get b c\r\nmn\r\n")
        client.store.failure = nil
        client.store.release("read c", "read b", "read a")
        #expect(
            client.said()
                == "VALUE a 0 1\r\nx\r\nEND\r\nSERVER_ERROR The request's time was up before it was done.\r\nMN\r\n")
        #expect(client.front.heldBytes == 0)
    }

    /// A client that does not read has nothing more read for it, and gets all of it once it does.
    @Test func aSlowReader() throws {
        let client = try TestConnection()
        let keys = (0..<1000).map { "k\($0)" }
        for key in keys { _ = client.ask("set \(key) 0 0 1\r\nx\r\n") }
        client.store.isSlow = true
        client.channel.isWritable = false
        client.channel.pipeline.fireChannelWritabilityChanged()
        client.send("get \(keys.joined(separator: " "))\r\nget k1\r\n")
        while !client.store.waiting.isEmpty { client.store.release(client.store.waiting[0].name) }
        #expect(client.said() == "" && client.store.mostAtOnce <= Limits.getWindow + 1)
        #expect(client.front.heldBytes > 0)
        client.channel.isWritable = true
        client.channel.pipeline.fireChannelWritabilityChanged()
        var answers = client.said()
        while !client.store.waiting.isEmpty {
            client.store.release(client.store.waiting[0].name)
            answers += client.said()
        }
        #expect(answers == keys.map { "VALUE \($0) 0 1\r\nx\r\n" }.joined() + "END\r\nVALUE k1 0 1\r\nx\r\nEND\r\n")
        #expect(client.front.heldBytes == 0)
    }

    /// While the worker holds as much as it may, values are refused before they come, and a get goes on key by key.
    @Test func aFullWorker() throws {
        let client = try TestConnection()
        for key in ["a", "b", "c"] { _ = client.ask("set \(key) 0 0 1\r\nx\r\n") }
        client.front.heldElsewhere = { Limits.frontBytes + 1 }
        let refusal = "SERVER_ERROR too much waits to be done already; try again in a second\r\n"
        #expect(
            client.ask("set a 0 0 1\r\ny\r\nms a 1 q\r\ny\r\nset a 0 0 1 noreply\r\ny\r\nmn\r\n") == refusal + refusal
                + "MN\r\n")
        client.store.isSlow = true
        client.send("get a b c\r\n")
        var answers = ""
        while !client.store.waiting.isEmpty {
            client.store.release(client.store.waiting[0].name)
            answers += client.said()
        }
        #expect(client.store.mostAtOnce == 1)
        #expect(answers == "VALUE a 0 1\r\nx\r\nVALUE b 0 1\r\nx\r\nVALUE c 0 1\r\nx\r\nEND\r\n")
        client.front.heldElsewhere = { 0 }
        client.store.isSlow = false
        #expect(client.ask("set a 0 0 1\r\ny\r\n") == "STORED\r\n")
    }

    /// Large values that wait for each other are not read without bound: the socket is left alone until one is stored.
    @Test func noMoreThanSoManyBytesAreRead() throws {
        final class ReadCounter: ChannelOutboundHandler {
            typealias OutboundIn = ByteBuffer
            var count = 0
            func read(context: ChannelHandlerContext) { count += 1 }
        }
        let client = try TestConnection()
        let reads = ReadCounter()
        try client.channel.pipeline.syncOperations.addHandler(reads, position: .first)
        client.store.isSlow = true
        let value = String(repeating: "x", count: 1_000_000)
        var sent = 0
        while true {
            let before = reads.count
            client.channel.read()
            guard reads.count > before, sent < 100 else { break }
            client.send("set a 0 0 1000000\r\n\(value)\r\n")
            sent += 1
        }
        #expect(sent == Limits.clientBatchBytes / 1_000_000 + 1 && client.front.heldBytes == sent * 1_000_000)
        #expect(client.store.waiting.count == 1)
        let before = reads.count
        client.store.release("write a")
        #expect(client.said() == "STORED\r\n" && reads.count == before + 1)
        for _ in 1..<sent { client.store.release("write a") }
        #expect(client.said() == String(repeating: "STORED\r\n", count: sent - 1))
        #expect(client.store.waiting.isEmpty && client.front.heldBytes == 0)
    }

    @Test func bytesAreCounted() throws {
        let client = try TestConnection()
        client.store.isSlow = true
        client.send("set a 0 0 10\r\nabc")
        #expect(client.front.heldBytes == 3)
        client.send("defghij\r\n")
        #expect(client.front.heldBytes == 10)
        client.store.release("write a")
        #expect(client.said() == "STORED\r\n" && client.front.heldBytes == 0)
        client.send("set a 0 0 10\r\nabc")
        _ = try? client.channel.finish()
        #expect((client.front.heldBytes, client.front.connectionCount) == (0, 0))
    }

    @Test func aWorkerThatLeavesAnswersWhatHasBegun() throws {
        let client = try TestConnection()
        client.store.isSlow = true
        client.send("set a 0 0 1\r\nx\r\nset b 0 0 1\r\n")
        var isGone = false
        client.front.onGone = { isGone = true }
        client.front.leave()
        #expect(!isGone && client.said() == "")
        client.store.release("write a")
        #expect(client.said() == "STORED\r\n")
        // What comes now is not done any more.
        client.send("x\r\nset c 0 0 1\r\nx\r\n")
        #expect(client.store.waiting.isEmpty && client.said() == "")
        client.advance(.seconds(3))
        #expect(isGone && client.front.connectionCount == 0)
    }

    @Test func anIdleConnectionOfAWorkerThatLeavesEndsAtOnce() throws {
        let client = try TestConnection()
        var isGone = false
        client.front.onGone = { isGone = true }
        client.front.leave()
        client.advance(.seconds(3))
        #expect(isGone)
    }

    /// `printf … | nc`: the client sends all it has, ends its side, and reads.
    @Test func aClientThatSaysNothingMoreGetsItsAnswers() throws {
        let client = try TestConnection()
        client.store.isSlow = true
        client.send("set a 0 0 1\r\nx\r\nget a\r\nget")
        client.channel.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
        client.store.release("write a")
        client.store.release("read a")
        #expect(client.said() == "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n")
        client.channel.embeddedEventLoop.run()
        #expect(!client.channel.isActive)
    }

    @Test func halfACommandIsNotWaitedForWithoutEnd() throws {
        let client = try TestConnection()
        client.send("set a 0 0 5\r\nx")
        client.advance(.seconds(59))
        #expect(client.channel.isActive && client.said() == "")
        client.advance(.seconds(2))
        #expect(client.said() == "CLIENT_ERROR the command took too long to arrive\r\n")
        client.advance(.seconds(3))
        #expect(!client.channel.isActive)
        // Between commands a client may be silent.
        let idle = try TestConnection()
        #expect(idle.ask("mn\r\n") == "MN\r\n")
        idle.advance(.hours(10))
        #expect(idle.ask("mn\r\n") == "MN\r\n")
    }
}
