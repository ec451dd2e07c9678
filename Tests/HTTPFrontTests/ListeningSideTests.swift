// SPDX-License-Identifier: Apache-2.0

import AccessControl
import HTTPFront
import HashRing
import Testing

/// What depends on the port that a connection came in at.
struct ListeningSideTests {
    @Test("where peers have a port of their own, each route is served at one of the two", arguments: Route.allCases)
    func routes(_ route: Route) {
        #expect(ListeningSide.peers.serves(route) == route.label.hasPrefix("/peer/"))
        #expect(ListeningSide.clients.serves(route) != ListeningSide.peers.serves(route))
        #expect(ListeningSide.everybody.serves(route))
    }

    @Test("a page of this port's own is known by its scheme as well", arguments: [true, false])
    func origins(_ isSecured: Bool) throws {
        let node = try #require(NodeID("127.0.0.1:5000"))
        let gate = AccessGate(AccessTokens(), PeerDoor(node: node), isSecured: isSecured)
        for scheme in ["http", "https"] {
            var sender = AccessGate.Sender()
            sender.address = IPAddress("127.0.0.1")
            sender.hosts = ["127.0.0.1:5000"]
            sender.origins = ["\(scheme)://127.0.0.1:5000"]
            var peer = PeerCalleeHandshake()
            let isRefused = gate.refusal(.clear, .post, isOfPage: true, sender, &peer) != nil
            #expect(isRefused == ((scheme == "https") != isSecured), "\(scheme)")
        }
    }
}
