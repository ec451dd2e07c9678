// SPDX-License-Identifier: Apache-2.0

internal import AccessControl
private import Etcd
private import Glibc
private import HashRing
private import Memcached

/// Files of tokens, and what clients present.
@Sendable func fuzzTokens(_ bytes: UnsafeRawBufferPointer) {
    if let shown = BearerToken.token(in: bytes) {
        hold(shown.count < bytes.count && bytes.suffix(shown.count).elementsEqual(shown), "a token that was not sent")
    }
    let isKnown = bytes.count == 64 && bytes.allSatisfy { $0 == UInt8(ascii: "a") }
    hold(someTokens.contains(bytes) == isKnown, "a token that nobody has")
    if let sent = AccessTokens(encoded: Array(bytes)) {
        hold(AccessTokens(encoded: sent.encoded) != nil, "tokens that a worker can't read")
        _ = sent.data?.admits(bytes)
    }
    let tokens: [Token]
    do {
        tokens = try TokenFile.tokens(in: bytes, of: "file")
    } catch {
        hold(error.description.starts(with: "the token file file "), "it is said otherwise")
        return
    }
    hold(tokens.count <= 2, "more tokens than may be at once")
    let access = AccessTokens(data: tokens, peer: tokens)
    hold((access.data != nil) == !tokens.isEmpty && (access.peer != nil) == !tokens.isEmpty, "a door without a key")
    guard let passed = AccessTokens(encoded: access.encoded) else { fatalError("a worker can't read them") }
    // Blanks around it, comments and empty lines say nothing.
    let lines = tokens.map { " \($0.authorization.dropFirst("Bearer ".count))\t\r\n" }
    let text = tokens.isEmpty ? "none" : "# of a test\r\n\r\n" + lines.joined()
    guard let again = try? TokenFile.tokens(in: text.utf8, of: "file") else { fatalError("it is not read again") }
    hold(again.map(\.authorization) == tokens.map(\.authorization), "other tokens")
    for token in tokens {
        var field = token.authorization
        field.withUTF8 { field in
            let field = UnsafeRawBufferPointer(field)
            hold(access.data?.admits(field) == true && passed.data?.admits(field) == true, "a token that opens nothing")
            // (Of two, one may be the beginning of the other.)
            guard tokens.count == 1 else { return }
            hold(access.data?.admits(UnsafeRawBufferPointer(rebasing: field.dropLast())) == false, "a part that opens")
        }
    }
}

/// Of one token, 64 letters a.
let someTokens: TokenSet = {
    let text = String(repeating: "a", count: 64)
    guard let tokens = try? TokenFile.tokens(in: text.utf8, of: "file"), let set = AccessTokens(data: tokens).data
    else { fatalError("a token") }
    return set
}()

/// Where nodes, etcd and memcached may be: addresses, blocks of them, lists.
@Sendable func fuzzAddresses(_ bytes: UnsafeRawBufferPointer) {
    let text = String(decoding: bytes, as: UTF8.self)
    if let address = IPAddress(text) {
        hold(inetBytes(text) != nil, "an address to nobody else")
        let block = AddressBlock(text + (text.utf8.contains(UInt8(ascii: ":")) ? "/128" : "/32"))
        hold(block?.contains(address) == true, "a block of one that lacks it")
        hold(address.unmapped.unmapped == address.unmapped, "a name behind a name")
        hold(PeerAllowList(text + "/0") == nil || text.utf8.allSatisfy { "0.:".utf8.contains($0) }, "bits too many")
    }
    if let node = NodeID(text) {
        hold(NodeID(node.description) == node && IPAddress(node.host) != nil, "a node that is nowhere")
    }
    if let endpoint = MemcachedEndpoint(text) {
        hold(MemcachedEndpoint(endpoint.description) == endpoint, "another memcached")
    }
    if let members = EtcdEndpoint.list(text) {
        hold(!members.isEmpty && Set(members).count == members.count, "no members, or one twice")
        hold(members.allSatisfy { EtcdEndpoint($0.description) == $0 }, "another member")
    }
    guard let list = PeerAllowList(text) else { return }
    for never in neverAllowed { hold(!list.contains(never), "an address where no node may be") }
    // (Some of them: each takes as long as all else.)
    for part in text.split(separator: ",").prefix(2) {
        let sides = part.split(separator: "/")
        guard let block = AddressBlock(part), let address = IPAddress(sides[0]), let length = Int(sides[1]),
            let number = inetBytes(String(sides[0])), length <= 8 * number.count
        else { fatalError("a list of what is no block") }
        hold(block.contains(address), "a block without its own address")
        // Each bit within the length counts, and none behind it.
        for bit in 0..<8 * number.count {
            var other = number
            other[bit / 8] ^= 0x80 >> UInt8(bit % 8)
            guard let other = inetText(other).flatMap({ IPAddress($0) }) else { fatalError("no address") }
            hold(block.contains(other) == (bit >= length), "a bit that counts otherwise")
        }
    }
}

private let neverAllowed = [
    "0.0.0.0", "169.254.169.254", "224.0.0.1", "255.255.255.255", "::", "::ffff:10.0.0.1", "64:ff9b::a00:1",
    "2002:a00:1::", "fe80::1", "fd00:ec2::254", "ff02::1",
].map { IPAddress($0)! }

/// As the C library reads it.
private func inetBytes(_ text: String) -> [UInt8]? {
    var address = [UInt8](repeating: 0, count: 16)
    let isLong = text.utf8.contains(UInt8(ascii: ":"))
    guard inet_pton(isLong ? AF_INET6 : AF_INET, text, &address) == 1 else { return nil }
    return Array(address.prefix(isLong ? 16 : 4))
}

private func inetText(_ bytes: [UInt8]) -> String? {
    var text = [CChar](repeating: 0, count: 64)
    guard inet_ntop(bytes.count == 16 ? AF_INET6 : AF_INET, bytes, &text, socklen_t(text.count)) != nil else {
        return nil
    }
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// What nodes say before they know each other: nobody proves anything by chance, nor with what was said to others.
@Sendable func fuzzHandshake(_ bytes: UnsafeRawBufferPointer) {
    let text = String(decoding: bytes, as: UTF8.self)
    let nonce = PeerNonce(using: &fixedNumbers)
    let ours = PeerCallerHandshake(someSecrets, caller: someNode, callee: otherNode, nonce: nonce)
    if let answer = PeerHelloAnswer(bytes) {
        hold(PeerHelloAnswer(answer.encoded)?.proofs.map(\.text) == answer.proofs.map(\.text), "another answer")
        hold(ours.proof(after: answer) == nil, "a callee that knows no key")
    }
    let proof = PeerProof(text)
    if let proof { hold(proof.text.utf8.elementsEqual(bytes), "a proof that is written otherwise") }
    guard let hello = PeerHello(bytes) else { return }
    guard let again = PeerHello(hello.encoded), again.nonce == hello.nonce, again.caller == hello.caller,
        again.callee == hello.callee
    else { fatalError("another hello") }
    var stranger = PeerCalleeHandshake()
    let elsewhere = hello.callee == someNode ? otherNode : someNode
    hold(stranger.greeted(hello, at: elsewhere, someSecrets, nonce: nonce) == nil, "a hello to another node")
    guard let answer = stranger.greeted(hello, at: hello.callee, someSecrets, nonce: nonce) else {
        fatalError("a hello without an answer")
    }
    var friend = stranger
    hold(!stranger.proved(answer.proofs.first, someSecrets), "its own proof, sent back")
    let known = PeerCallerHandshake(someSecrets, caller: hello.caller, callee: hello.callee, nonce: hello.nonce)
    guard let sent = PeerHelloAnswer(answer.encoded), let good = known.proof(after: sent) else {
        fatalError("a node of the cluster that is none")
    }
    hold(!stranger.proved(good, someSecrets) && stranger.peer == nil, "a second try")
    hold(friend.proved(PeerProof(good.text), someSecrets) && friend.peer == hello.caller, "a good proof")
}

private let someNode = NodeID("127.0.0.11:5000")!
private let otherNode = NodeID("127.0.0.12:5000")!

private let someSecrets: PeerSecrets = {
    let text = String(repeating: "a", count: 64) + "\n" + String(repeating: "b", count: 64)
    guard let tokens = try? TokenFile.tokens(in: text.utf8, of: "file"), let secrets = AccessTokens(peer: tokens).peer
    else { fatalError("a token") }
    return secrets
}()

/// The same in each run.
private struct FixedNumbers: RandomNumberGenerator {
    func next() -> UInt64 { 0x0123_4567_89AB_CDEF }
}
private nonisolated(unsafe) var fixedNumbers = FixedNumbers()
