// SPDX-License-Identifier: Apache-2.0

private import Glibc
package import HashRing

/// A literal IP address, as bytes: two spellings of one address are equal.
package struct IPAddress: Hashable, Sendable {
    /// 4 or 16.
    let bytes: [UInt8]

    /// Reads what `inet_pton` reads: four decimal numbers without leading zeros, or IPv6; nothing short, octal,
    /// hexadecimal, and no zone.
    package init?(_ text: some StringProtocol) {
        // A NUL would end the text for `inet_pton`, and hide what comes after it.
        guard text.utf8.count <= 45, !text.utf8.contains(0) else { return nil }
        let text = String(text)
        var address = in6_addr()
        let family = text.utf8.contains(UInt8(ascii: ":")) ? AF_INET6 : AF_INET
        guard inet_pton(family, text, &address) == 1 else { return nil }
        bytes = withUnsafeBytes(of: address) { Array($0.prefix(family == AF_INET6 ? 16 : 4)) }
    }

    private init(_ bytes: some Sequence<UInt8>) { self.bytes = Array(bytes) }

    /// What an IPv4 address is called on a socket of both families, by its own name.
    package var unmapped: IPAddress {
        AddressBlock.mapped.contains(self) ? IPAddress(bytes.suffix(4)) : self
    }

    /// Whether these are its bytes, as certificates hold them.
    package func isEqual(to other: some Sequence<UInt8>) -> Bool { bytes.elementsEqual(other) }

    package var isLoopback: Bool {
        let address = unmapped
        return AddressBlock.loopback.contains { $0.contains(address) }
    }
}

/// A block of addresses as CIDR writes it: `10.0.0.0/8`.
package struct AddressBlock: Hashable, Sendable {
    private let first: [UInt8]
    private let prefixLength: Int

    /// Nil where the text is no address and length, or the address has bits behind the length.
    package init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, let address = IPAddress(parts[0]), let length = AddressBlock.number(parts[1]),
            length <= 8 * address.bytes.count
        else { return nil }
        first = address.bytes
        prefixLength = length
        guard (length..<8 * first.count).allSatisfy({ first[$0 / 8] & (0x80 >> UInt8($0 % 8)) == 0 }) else {
            return nil
        }
    }

    /// Of our own, which are well-formed.
    private init(known text: StaticString) {
        guard let block = AddressBlock("\(text)") else { preconditionFailure("a block: \(text)") }
        self = block
    }

    package func contains(_ address: IPAddress) -> Bool {
        guard address.bytes.count == first.count else { return false }
        let whole = prefixLength / 8
        guard address.bytes[..<whole] == first[..<whole] else { return false }
        let rest = prefixLength % 8
        return rest == 0 || (address.bytes[whole] ^ first[whole]) >> UInt8(8 - rest) == 0
    }

    private static func number(_ digits: some StringProtocol) -> Int? {
        guard (1...3).contains(digits.utf8.count), digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            digits == "0" || digits.first != "0"
        else { return nil }
        return Int(digits)
    }

    static let loopback = ["127.0.0.0/8", "::1/128"].map(AddressBlock.init(known:))
    /// RFC 1918 and RFC 4193.
    static let `private` = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"].map(AddressBlock.init(known:))
    static let mapped = AddressBlock(known: "::ffff:0:0/96")

    /// No node of ours is there, whatever is allowed: "this host", link-local addresses (clouds' metadata among them),
    /// EC2's metadata in IPv6, groups, what is reserved, broadcast, and IPv6 that stands for an IPv4 address, which has
    /// a name of its own (compatible, mapped, NAT64, Teredo, 6to4).
    static let never = [
        "0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "::/96", "::ffff:0:0/96",
        "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fd00:ec2::/32", "fe80::/10", "fec0::/10",
        "ff00::/8",
    ].map(AddressBlock.init(known:))
}

/// Where nodes may be: what a client names (`/add_node`, `/replace_node`, a ring that is posted) is called only there,
/// and only from there is a node listened to.
package struct PeerAllowList: Hashable, Sendable {
    private let blocks: [AddressBlock]

    private static let limit = 64

    /// Loopback and private networks.
    package static let usual = PeerAllowList(AddressBlock.loopback + AddressBlock.private)

    private init(_ blocks: [AddressBlock]) { self.blocks = blocks }

    /// From a list between commas: `10.0.0.0/8,fd12:3456::/32`.
    /// - Returns: nil where it is none.
    package init?(_ text: String) {
        let parts = text.split(separator: ",", omittingEmptySubsequences: false)
        let blocks = parts.compactMap { AddressBlock($0) }
        guard blocks.count == parts.count, blocks.count <= PeerAllowList.limit else { return nil }
        self.init(blocks)
    }

    package func contains(_ address: IPAddress) -> Bool {
        // (The one address of `::/96` that is something else.)
        if AddressBlock.loopback[1].contains(address) { return blocks.contains { $0.contains(address) } }
        return blocks.contains { $0.contains(address) } && !AddressBlock.never.contains { $0.contains(address) }
    }

    package func contains(_ node: NodeID) -> Bool {
        guard let address = IPAddress(node.host) else { return false }
        return contains(address)
    }
}
