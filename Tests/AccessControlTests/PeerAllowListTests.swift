// SPDX-License-Identifier: Apache-2.0

import AccessControl
import HashRing
import Testing

@Suite("Where nodes may be")
struct PeerAllowListTests {
    @Test(
        "loopback and private networks, unless something else is said",
        arguments: [
            "127.0.0.1:5000", "127.255.255.254:1", "10.0.0.5:5000", "172.16.0.1:5000", "172.31.255.1:5000",
            "192.168.1.1:5000", "[::1]:5000", "[fd00::7]:5000", "[fc00:1::7]:5000", "[0:0:0:0:0:0:0:1]:5000",
        ])
    func usual(_ name: String) throws {
        #expect(PeerAllowList.usual.contains(try #require(NodeID(name))))
    }

    @Test(
        "nowhere else",
        arguments: [
            "8.8.8.8:80", "172.15.255.255:1", "172.32.0.1:1", "11.0.0.1:1", "192.169.0.1:1", "100.64.0.1:1",
            "168.63.129.16:80", "[2001:db8::1]:80", "[2606:4700::1111]:80", "[fe00::1]:80",
        ])
    func elsewhere(_ name: String) throws {
        #expect(!PeerAllowList.usual.contains(try #require(NodeID(name))))
    }

    @Test(
        "some addresses are no node's, whatever is allowed",
        arguments: [
            "169.254.169.254:80", "169.254.0.1:1", "0.0.0.0:5000", "0.1.2.3:1", "224.0.0.1:1", "239.255.255.255:1",
            "240.0.0.1:1", "255.255.255.255:1", "[fe80::1]:80", "[febf::1]:80", "[fec0::1]:80", "[ff02::1]:80",
            "[::]:5000", "[::ffff:169.254.169.254]:80", "[::ffff:10.0.0.5]:5000", "[::10.0.0.5]:5000", "[::2]:5000",
            "[64:ff9b::a9fe:a9fe]:80", "[64:ff9b:1::1]:80", "[2002:a9fe:a9fe::1]:80", "[2001::1]:80",
            "[fd00:ec2::254]:80",
        ])
    func never(_ name: String) throws {
        let everything = try #require(PeerAllowList("0.0.0.0/0,::/0"))
        #expect(!everything.contains(try #require(NodeID(name))))
    }

    @Test(
        "a name is a literal address in one spelling",
        arguments: [
            "0177.0.0.1:5000", "0x7f.0.0.1:5000", "127.1:5000", "2130706433:5000", "127.0.0.1.:5000", "127.0.0.01:5000",
            "10.0.0:5000", "localhost:5000", "[fe80::1%eth0]:5000", "::1:5000", "127.0.0.1\u{0}:5000", " 10.0.0.1:5000",
            "10.0.0.1:05000", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1", "①0.0.0.1:5000", "[127.0.0.1]:5000",
        ])
    func literal(_ name: String) {
        #expect(NodeID(name) == nil)
    }

    @Test("a list says exactly what it says")
    func blocks() throws {
        let list = try #require(PeerAllowList("10.1.0.0/16,192.0.2.7/32,203.0.113.128/25,fd12:3456::/33"))
        for name in ["10.1.0.1:1", "10.1.255.255:1", "192.0.2.7:1", "203.0.113.128:1", "[fd12:3456:7fff::1]:1"] {
            #expect(list.contains(try #require(NodeID(name))), "\(name)")
        }
        for name in [
            "10.0.255.255:1", "10.2.0.0:1", "192.0.2.6:1", "203.0.113.127:1", "[fd12:3456:8000::1]:1", "127.0.0.1:1",
        ] {
            #expect(!list.contains(try #require(NodeID(name))), "\(name)")
        }
        #expect(try #require(PeerAllowList("0.0.0.0/0")).contains(try #require(NodeID("8.8.8.8:1"))))
    }

    @Test(
        "what is no list is none",
        arguments: [
            "", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/+8", "10.0.0.1/8", "010.0.0.0/8",
            "10.0/8", "10.0.0.0/8,", ",10.0.0.0/8", "10.0.0.0/8 ,::/0", "fd00::/129", "fd00::1/64", "10.0.0.0/8/8",
            "example.com/8", "10.0.0.0/-1",
        ])
    func malformed(_ text: String) {
        #expect(PeerAllowList(text) == nil)
    }

    @Test("an IPv4 address on a socket of both families is the IPv4 address")
    func unmapped() throws {
        #expect(try #require(IPAddress("::ffff:10.0.0.5")).unmapped == IPAddress("10.0.0.5"))
        #expect(try #require(IPAddress("::ffff:127.0.0.1")).isLoopback)
        #expect(try #require(IPAddress("::1")).isLoopback)
        #expect(try !#require(IPAddress("10.0.0.5")).isLoopback)
        #expect(try !#require(IPAddress("::ffff:10.0.0.5")).isLoopback)
    }
}
