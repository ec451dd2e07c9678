// SPDX-License-Identifier: Apache-2.0

import KeyValue
import Memcached
import NIOCore
import TestSupport
import Testing

extension MemcachedTests {
    /// No byte that a client sends becomes a command.
    @Suite struct Injection {
        static let keys: [[UInt8]] = [
            Array("a\r\nset x 0 0 1\r\ny".utf8), Array("a\r\nflush_all\r\n".utf8), Array("flush_all".utf8),
            Array("a b c".utf8), Array("a noreply".utf8), Array("\r\n".utf8), Array("\n".utf8), [0],
            Array("a\u{0}b".utf8),
            Array("kv:stamp".utf8), Array("../kv:stamp".utf8), Array("%0d%0aquit%0d%0a".utf8), Array("%".utf8),
            Array("%%".utf8),
            [UInt8](repeating: 0xff, count: 300), [UInt8](repeating: 0x20, count: 4096),
            [UInt8](repeating: 0x61, count: 251), Array("\u{7f}".utf8), Array("ключ 鍵".utf8), Array(1...255),
        ]

        @Test(arguments: keys)
        func oneRequestIsOneCommand(key: [UInt8]) async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pair = Pair(bytes: key)
                #expect(pair.key.bytes.count <= 250)
                #expect(await rig.perform(.read(Pair("warm").key)) == .record(nil))
                #expect(await rig.perform(.stamp(Pair("warm").key, Pair("warm").envelope())).storedVersion != nil)
                for (held, command) in [("first", "add"), ("second", "cas")] {
                    // (A lane that connects asks for version and settings first. A no-op ends the answers to writes.)
                    fake.forgetCommands()
                    #expect(await rig.perform(.stamp(pair.key, pair.envelope(held))).storedVersion != nil)
                    #expect(await rig.held(pair).flatMap { pair.text(of: $0) } == held)
                    let commands = fake.commands.filter { $0.name != "stats" && $0.name != "version" }
                    #expect(commands.map(\.name) == ["gets", command, "mn", "gets"])
                    let asked = [pair.stored, "kv:stamp"]
                    #expect(commands.map(\.keys) == [asked, [pair.stored], [], asked])
                }
                #expect(fake.keys == [pair.stored, Pair("warm").stored, "kv:stamp"])
                #expect(fake.value("kv:stamp") == Rig.stamp.bytes)
            }
        }

        @Test func allOfThemAtOnceInARealMemcached() async throws {
            try await Rig.withRealMemcached { memcached, rig in
                let pairs = Injection.keys.map { Pair(bytes: $0) }
                #expect(Set(pairs.map(\.key)).count == pairs.count)
                let plain = try memcached.connect()
                let before = try plain.statistic("curr_items")
                let outcomes = await rig.perform(pairs.map { .stamp($0.key, $0.envelope("\($0.client.bytes.count)")) })
                #expect(outcomes.allSatisfy { $0.storedVersion != nil })
                for pair in pairs {
                    #expect(await rig.held(pair).flatMap { pair.text(of: $0) } == "\(pair.client.bytes.count)")
                }
                #expect(try plain.statistic("curr_items") == before + pairs.count)
                #expect(try plain.statistic("cmd_flush") == 0)
                #expect(try await rig.control.hostStamp() == Rig.stamp)
            }
        }

        /// Values are as foreign as keys: what looks like a command in one stays in it.
        @Test func valuesAreNoCommands() async throws {
            try await Rig.withFakeMemcached { fake, rig in
                let pair = Pair("x")
                let text = "\r\nflush_all\r\nset y 0 0 1\r\nz\r\nEND\r\nSTORED\r\n"
                #expect(await rig.perform(.stamp(pair.key, pair.envelope(text))).storedVersion != nil)
                #expect(await rig.held(pair).flatMap { pair.text(of: $0) } == text)
                let commands = fake.commands.map(\.name).filter { $0 != "stats" && $0 != "version" }
                // (The `get` is the writes' connection asking for its memory's stamp.)
                #expect(commands == ["gets", "get", "add", "mn", "gets"])
                #expect(fake.keys == [pair.stored, "kv:stamp"])
            }
        }
    }
}
