// SPDX-License-Identifier: Apache-2.0

import AccessControl
import HashRing
import TestSupport
import Testing

@Suite("Nodes prove to each other that they are of one cluster")
struct PeerHandshakeTests {
    private let caller = NodeID("10.0.0.1:5000")!
    private let callee = NodeID("10.0.0.2:5000")!
    private let stranger = NodeID("10.0.0.9:5000")!

    private func secrets(_ letters: Character...) throws -> PeerSecrets {
        let text = letters.map { String(repeating: $0, count: 32) }.joined(separator: "\n")
        return try #require(AccessTokens(peer: try TokenFile.tokens(in: text.utf8, of: "f")).peer)
    }

    private func handshake(_ secrets: PeerSecrets, _ callee: NodeID? = nil) -> PeerCallerHandshake {
        PeerCallerHandshake(secrets, caller: caller, callee: callee ?? self.callee, nonce: PeerNonce())
    }

    /// As it travels.
    private func sent(_ hello: PeerHello) throws -> PeerHello { try #require(PeerHello(hello.encoded)) }
    private func sent(_ answer: PeerHelloAnswer) throws -> PeerHelloAnswer {
        try #require(PeerHelloAnswer(answer.encoded))
    }

    /// The side that is called, as a reference.
    private final class Callee {
        private var side = PeerCalleeHandshake()

        var peer: NodeID? { side.peer }

        func greeted(_ hello: PeerHello, at node: NodeID, _ secrets: PeerSecrets, nonce: PeerNonce) -> PeerHelloAnswer?
        {
            side.greeted(hello, at: node, secrets, nonce: nonce)
        }

        func proved(_ proof: PeerProof?, _ secrets: PeerSecrets) -> Bool { side.proved(proof, secrets) }
    }

    @Test("who knows the token is let in, under its name, and stays in")
    func good() throws {
        let known = try secrets("a")
        let caller = handshake(known)
        let side = Callee()
        #expect(!side.proved(nil, known) && side.peer == nil)
        let answer = try #require(side.greeted(try sent(caller.hello), at: callee, known, nonce: PeerNonce()))
        let proof = try #require(caller.proof(after: try sent(answer)))
        #expect(side.proved(PeerProof(proof.text), known))
        #expect(side.peer == self.caller && side.proved(nil, known))
    }

    @Test("while the token is changed, old and new nodes know each other", arguments: [true, false])
    func rotation(callerIsNewer: Bool) throws {
        let (older, newer) = (try secrets("a", "b"), try secrets("b"))
        let (ours, theirs) = callerIsNewer ? (newer, older) : (older, newer)
        let caller = handshake(ours)
        let side = Callee()
        let answer = try #require(side.greeted(caller.hello, at: callee, theirs, nonce: PeerNonce()))
        #expect(side.proved(caller.proof(after: answer), theirs))
    }

    @Test("nothing is sent to who does not know the token")
    func foreignCallee() throws {
        let caller = handshake(try secrets("a"))
        let side = Callee()
        let answer = try #require(side.greeted(caller.hello, at: callee, try secrets("b"), nonce: PeerNonce()))
        #expect(caller.proof(after: answer) == nil)
    }

    @Test("nor is one let in who does not")
    func foreignCaller() throws {
        let ours = try secrets("a")
        let caller = handshake(try secrets("b", "a"))
        let side = Callee()
        _ = side.greeted(caller.hello, at: callee, ours, nonce: PeerNonce())
        let other = Callee()
        let answer = try #require(other.greeted(caller.hello, at: callee, try secrets("b"), nonce: PeerNonce()))
        #expect(!side.proved(caller.proof(after: answer), ours))
    }

    @Test("what was said on one connection proves nothing on another one")
    func replay() throws {
        let known = try secrets("a")
        let caller = handshake(known)
        let first = Callee()
        let answer = try #require(first.greeted(caller.hello, at: callee, known, nonce: PeerNonce()))
        let proof = try #require(caller.proof(after: answer))
        #expect(first.proved(proof, known))
        let second = Callee()
        #expect(!second.proved(proof, known))
        _ = second.greeted(caller.hello, at: callee, known, nonce: PeerNonce())
        #expect(!second.proved(proof, known) && second.peer == nil)
    }

    @Test("a right proof after a wrong one is none")
    func oneTry() throws {
        let known = try secrets("a")
        let caller = handshake(known)
        let wrong = try #require(PeerProof(String(repeating: "0", count: 64)))
        for first in [wrong, nil] {
            let side = Callee()
            let answer = try #require(side.greeted(caller.hello, at: callee, known, nonce: PeerNonce()))
            let proof = caller.proof(after: answer)
            #expect(!side.proved(first, known))
            #expect(!side.proved(proof, known) && side.peer == nil)
        }
    }

    @Test("an answer has as many proofs as a node may have keys, and no more is looked at")
    func tooManyProofs() throws {
        let hex = String(repeating: "0", count: 64)
        func answer(_ count: Int, behind blanks: Int = 0) -> PeerHelloAnswer? {
            let proofs = [String](repeating: #""\#(hex)""#, count: count).joined(separator: ",")
            let text = #"{"nonce":"\#(hex)","proofs":[\#(proofs)]}"# + String(repeating: " ", count: blanks)
            return PeerHelloAnswer(Array(text.utf8))
        }
        #expect(answer(0)?.proofs.count == 0 && answer(1)?.proofs.count == 1 && answer(2)?.proofs.count == 2)
        #expect(answer(3) == nil && answer(2000) == nil)
        #expect(answer(2, behind: 600) != nil && answer(2, behind: 1024) == nil)
    }

    @Test("a node's answer can't be passed on as another one's, nor thrown back")
    func relay() throws {
        let known = try secrets("a")
        // Told to call the stranger, who asks a real node to answer.
        let caller = handshake(known, stranger)
        let real = Callee()
        #expect(real.greeted(caller.hello, at: callee, known, nonce: PeerNonce()) == nil)
        // The stranger changes the name, so that the real node answers.
        let changed = PeerCallerHandshake(
            known, caller: self.caller, callee: callee, nonce: caller.hello.nonce)
        let answer = try #require(real.greeted(changed.hello, at: callee, known, nonce: PeerNonce()))
        #expect(caller.proof(after: answer) == nil)
        // What the callee says is nothing that a caller could say.
        let side = Callee()
        let echo = try #require(side.greeted(changed.hello, at: callee, known, nonce: PeerNonce()))
        #expect(!side.proved(echo.proofs[0], known))
    }

    @Test("a connection has one hello")
    func twice() throws {
        let known = try secrets("a")
        let caller = handshake(known)
        let side = Callee()
        let answer = try #require(side.greeted(caller.hello, at: callee, known, nonce: PeerNonce()))
        #expect(side.greeted(caller.hello, at: callee, known, nonce: PeerNonce()) == nil)
        #expect(side.proved(caller.proof(after: answer), known))
        #expect(side.greeted(caller.hello, at: callee, known, nonce: PeerNonce()) == nil)
    }

    @Test(
        "what is malformed is none",
        arguments: [
            "", "{}", #"{"caller":"10.0.0.1:5000","callee":"10.0.0.2:5000","nonce":"00"}"#,
            #"{"caller":"host:1","callee":"10.0.0.2:5000","nonce":"\#(String(repeating: "0", count: 64))"}"#,
            #"{"caller":"10.0.0.1:5000","callee":"10.0.0.2:5000","nonce":"\#(String(repeating: "Z", count: 64))"}"#,
        ])
    func malformed(_ text: String) {
        #expect(PeerHello(text.utf8) == nil)
        #expect(PeerProof(text) == nil)
    }
}
