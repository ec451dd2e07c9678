// SPDX-License-Identifier: Apache-2.0

import KeyValue
import MemcachedFront
import NIOCore
import NIOEmbedded
import Testing

@Suite("Values in chunks, by memcached's protocol")
struct LargeValueTests {
    private static func chunk(_ number: Int) -> String { String(repeating: "\(number % 10)", count: 1000) }

    /// Stores a value of so many chunks.
    private static func put(_ name: String, chunks: Int, in store: FakeStore) -> LargeValue {
        let key = Key(Array(name.utf8))!
        let large = LargeValue(upload: .random(), length: 1000 * chunks, chunkBytes: 1000)
        for number in 1...chunks {
            let name = StoredKey(chunk: number, of: large.upload, in: key.slot)
            store.chunks[name] = Envelope(key: key, storedKey: name, value: ByteBuffer(string: chunk(number)))
        }
        _ = store.put(Envelope(key: key, storedKey: StoredKey(key), manifest: large, clientFlags: 5), at: key)
        return large
    }

    private static func value(_ chunks: Int) -> String { (1...chunks).map(chunk).joined() }

    @Test("they are given out among others, in the order of the keys")
    func whole() throws {
        let client = try TestConnection()
        _ = Self.put("a", chunks: 30, in: client.store)
        _ = Self.put("c", chunks: 7, in: client.store)
        #expect(client.ask("set b 0 0 1\r\nx\r\n") == "STORED\r\n")
        let (a, c) = (Self.value(30), Self.value(7))
        let all = "VALUE a 5 30000\r\n\(a)\r\nVALUE b 0 1\r\nx\r\nVALUE c 5 7000\r\n\(c)\r\nEND\r\n"
        #expect(client.ask("get a b c\r\nmn\r\n") == all + "MN\r\n")
        #expect(
            client.ask("mg c v s f k\r\nmg a v\r\nmn\r\n")
                == "VA 7000 s7000 f5 kc\r\n\(c)\r\nVA 30000\r\n\(a)\r\nMN\r\n")
        #expect(client.ask("gat 100 c\r\n") == "VALUE c 5 7000\r\n\(c)\r\nEND\r\n")
        #expect(client.front.heldBytes == 0)
    }

    @Test("what one connection holds of them has a bound, however many it asks for")
    func bounded() throws {
        let client = try TestConnection()
        let names = (0..<40).map { "k\($0)" }
        for name in names { _ = Self.put(name, chunks: 50, in: client.store) }
        client.store.isSlow = true
        client.send("get \(names.joined(separator: " "))\r\nmg k0 v\r\n")
        var text = ""
        var most = 0
        while !client.store.waiting.isEmpty {
            client.store.release(client.store.waiting[0].name)
            text += client.said()
            most = max(most, client.front.heldBytes)
        }
        #expect(text.utf8.count > 41 * 50_000 && text.hasSuffix("\r\nEND\r\nVA 50000\r\n\(Self.value(50))\r\n"))
        #expect(most < 20_000, "of two million bytes")
        #expect(client.front.heldBytes == 0)
    }

    @Test("no chunk is read where the value is not wanted")
    func headAlone() throws {
        let client = try TestConnection()
        _ = Self.put("a", chunks: 3, in: client.store)
        client.store.chunks = [:]
        #expect(client.ask("touch a 100\r\n") == "TOUCHED\r\n")
        #expect(client.ask("mg a s t\r\n") == "HD s3000 t100\r\n")
    }

    @Test("before the first byte a chunk that is missing is an error, behind it the connection ends")
    func missing() throws {
        for (number, isCut) in [(1, false), (9, true)] {
            for command in ["get a b", "mg a v"] {
                let client = try TestConnection()
                let large = Self.put("a", chunks: 9, in: client.store)
                client.store.chunks[StoredKey(chunk: number, of: large.upload, in: Key("a")!.slot)] = nil
                let said = client.ask("\(command)\r\n")
                #expect(client.channel.isActive != isCut && said.contains("SERVER_ERROR") != isCut)
                #expect(!said.contains("END") && said.utf8.count < 9000)
                if !isCut { #expect(client.ask("mn\r\n") == "MN\r\n") }
                #expect(client.front.heldBytes == 0)
            }
        }
    }

    @Test("nothing is joined to one, also where it would fit an item")
    func joined() throws {
        let client = try TestConnection()
        _ = Self.put("a", chunks: 3, in: client.store)
        for command in ["append", "prepend"] {
            #expect(client.ask("\(command) a 0 0 1\r\nx\r\n").hasPrefix("SERVER_ERROR object too large"))
        }
        #expect(client.ask("get a\r\n") == "VALUE a 5 3000\r\n\(Self.value(3))\r\nEND\r\n")
    }

    @Test("a client that goes away in the middle leaves nothing held")
    func abandoned() throws {
        let client = try TestConnection()
        _ = Self.put("a", chunks: 9, in: client.store)
        client.store.isSlow = true
        client.send("get a\r\n")
        client.store.release("read a")
        #expect(client.front.heldBytes > 0)
        _ = try client.channel.close().wait()
        while !client.store.waiting.isEmpty { client.store.release(client.store.waiting[0].name) }
        #expect(client.front.heldBytes == 0)
    }
}
