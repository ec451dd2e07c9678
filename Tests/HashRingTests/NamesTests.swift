// SPDX-License-Identifier: Apache-2.0

import HashRing
import Testing

/// What is a position, a node and a generation, and what is none.
struct NamesTests {
    @Test(arguments: [("0", 0), ("9999", 9999), ("3000", 3000), ("0042", 42)])
    func position(_ text: String, _ value: UInt16) { #expect(Position(text)?.value == value) }

    @Test(arguments: [
        "", " ", "-1", "+1", "10000", "00001", "1.0", "0x10", "1e3", "12 ", " 12", "１２", "a", "1\n", "99999999999",
    ])
    func noPosition(_ text: String) { #expect(Position(text) == nil) }

    @Test(arguments: [-1, 10_000, .max, .min])
    func noPositionNumber(_ value: Int) { #expect(Position(value) == nil) }

    @Test("a node's other port is at the same address, as long as there is one")
    func shifted() throws {
        for (text, offset, other) in [
            ("127.0.0.1:5000", 10_000, "127.0.0.1:15000"), ("[fd00::7]:5000", 0, "[fd00::7]:5000"),
            ("10.0.0.7:55535", 10_000, "10.0.0.7:65535"),
        ] {
            #expect(try #require(NodeID(text)).shifted(by: offset) == NodeID(other))
        }
        #expect(try #require(NodeID("10.0.0.7:55536")).shifted(by: 10_000) == nil)
    }

    @Test(
        arguments: [
            ("127.0.0.1:5000", "127.0.0.1", 5000), ("10.0.0.7:1", "10.0.0.7", 1),
            ("255.255.255.255:65535", "255.255.255.255", 65535),
            ("[fd00::7]:5000", "fd00::7", 5000), ("[::1]:80", "::1", 80),
        ] as [(String, String, UInt16)])
    func node(_ text: String, _ host: String, _ port: UInt16) throws {
        let node = try #require(NodeID(text))
        #expect(node.host == host && node.port == port && node.description == text)
    }

    @Test(arguments: [
        "", ":", ":5000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:+5",
        "127.0.0.1:05000", "127.0.0.1:5000 ", " 127.0.0.1:5000", "127.0.0.1:5a", "127.0.0:5000", "127.1:5000",
        "2130706433:5000", "0177.0.0.1:5000", "0x7f.0.0.1:5000", "127.0.0.256:5000", "127.0.0.1.2:5000",
        "localhost:5000",
        "example.com:80", "[::1]", "::1:5000", "[::1:5000", "::1]:5000", "[127.0.0.1]:5000", "[fe80::1%eth0]:5000",
        "[]:5000", "127.0.0.1:5000:5000", "127.0.0.1\0:5000", "127.0.0.1:50\n00", "１27.0.0.1:5000",
        "[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0001]:5000",
    ])
    func noNode(_ text: String) { #expect(NodeID(text) == nil) }

    @Test(arguments: [(UInt64(0), "0000000000000000"), (255, "00000000000000ff"), (.max, "ffffffffffffffff")])
    func generation(_ value: UInt64, _ text: String) {
        #expect(Generation(value).description == text)
        #expect(Generation(hex: text) == Generation(value))
    }

    @Test(arguments: ["", "0", "00000000000000ff0", "+0000000000000ff", "000000000000000g", "0x000000000000ff"])
    func noGeneration(_ text: String) { #expect(Generation(hex: text) == nil) }
}
