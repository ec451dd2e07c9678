// SPDX-License-Identifier: Apache-2.0

package import AccessControl
private import HashRing
package import KeyValue
internal import NIOCore
package import NIOHTTP1
private import TransportSecurity

/// Who may ask for a route. Each has exactly one of these; docs/security.md has the table.
package enum Access: Hashable, Sendable, CaseIterable {
    /// Anybody: that a node runs, and whether it can serve.
    case anybody
    /// Who has the data token, where there is one. The admin token opens this door, too.
    case data
    /// As data, and besides whoever is on this machine: what a node is like.
    case watch
    /// Who has the admin token; without one, whoever is on this machine and is no page of somebody else's.
    case admin
    /// Another node, which has proved to be one.
    case peer
    /// Whoever is to prove to be one.
    case hello
}

extension Route {
    /// (Without a default: whoever adds a route says who may ask for it.)
    package func access(_ method: Methods) -> Access {
        switch self {
        // (The page is files alone: what it shows it asks for.)
        case .home, .page, .live, .ready: .anybody
        case .pair, .key, .batch, .list, .export, .import, .owner, .copies, .pairHere, .pairs: .data
        case .status, .metrics, .watch, .plan: .watch
        case .ring: method == .get ? .watch : .admin
        case .addNode, .removeNode, .replaceNode, .abortChange, .clear: .admin
        case .peerBatch, .peerCall: .peer
        case .peerHello: .hello
        }
    }
}

/// The one place where a request is let in or not: by its route, what it carries, and where it comes from. A value
/// without IO.
package struct AccessGate: Sendable {
    package let data: TokenSet?
    package let admin: TokenSet?
    package let door: PeerDoor
    /// Whose pages may change pairs where there is no data token, besides this node's own.
    package let origins: OriginList?
    /// By which clients come.
    private let scheme: StaticString

    /// - Parameters:
    ///   - door: its `isInsecure` also lets anybody change the ring where there is no admin token.
    ///   - isSecured: whether clients come by TLS.
    package init(_ tokens: AccessTokens, _ door: PeerDoor, origins: OriginList? = nil, isSecured: Bool = false) {
        data = tokens.data
        admin = tokens.admin
        self.door = door
        self.origins = origins
        scheme = isSecured ? "https" : "http"
    }

    /// What a request says of who sends it.
    package struct Sender: Sendable {
        /// The values of all `Authorization` fields.
        package var authorizations: [String] = []
        package var hosts: [String] = []
        package var origins: [String] = []
        package var referer: String?
        package var fetchSite: String?
        /// Whether a browser has been led here, as by a link.
        package var isNavigation = false
        /// Whether a browser asks for what its user may want to see next.
        package var isAhead = false
        package var peerProof: String?
        /// Whether a proxy says that it asks for somebody else.
        package var isForwarded = false
        /// The other end of the connection.
        package var address: IPAddress?

        package init() {}

        package init(_ headers: HTTPHeaders, at address: IPAddress?) {
            self.address = address
            for (name, value) in headers {
                let value = String(value.trimmingBlanks)
                switch name.lowercased() {
                case "authorization": authorizations.append(value)
                case "host": hosts.append(value)
                case "origin": origins.append(value)
                case "referer": referer = value
                case "sec-fetch-site": fetchSite = value
                case "sec-fetch-mode": isNavigation = isNavigation || value.lowercased() == "navigate"
                case "sec-purpose", "purpose": isAhead = true
                case "forwarded", "via", "x-real-ip": isForwarded = true
                case "x-kv-peer-proof": peerProof = value
                case let name: isForwarded = isForwarded || name.hasPrefix("x-forwarded-")
                }
            }
        }

        /// Whether a program on this machine asks, by a name of this machine. (A page whose name was made to lead here
        /// asks by its own name.)
        var isLocal: Bool {
            guard let address, address.isLoopback, !isForwarded, hosts.count == 1 else { return false }
            return AccessGate.isLoopbackHost(hosts[0])
        }

        /// Whether a browser may ask in the name of somebody else's page (Fetch Standard; Fetch Metadata, section 2).
        /// One of our own asks with POST, and says so.
        func mayBeForged(_ method: Methods, by scheme: StaticString) -> Bool {
            // (A link may have been anywhere, in a mail too; and nobody may ever look at what is fetched ahead.)
            guard isOfOwnSite, !isAhead, method != .get || !isNavigation else { return true }
            if origins.isEmpty, referer == nil { return false }
            guard method != .get, hosts.count == 1, origins.count <= 1 else { return true }
            let own = "\(scheme)://\(hosts[0])"
            return !(origins.allSatisfy { $0 == own } && referer.map { $0.hasPrefix(own + "/") } ?? true)
        }

        private var isOfOwnSite: Bool { fetchSite.map { $0 == "none" || $0 == "same-origin" } ?? true }

        /// Whether a browser asks in the name of a page of another origin, which is none of these. With each request
        /// that is neither GET nor HEAD it names the page's origin (Fetch Standard, section 3.1).
        func isOfForeignPage(besides allowed: OriginList?) -> Bool {
            if origins.count == 1, let allowed, allowed.contains(origins[0]) { return false }
            if fetchSite != nil || origins.isEmpty { return !isOfOwnSite }
            // (What is in front of the nodes may speak TLS with browsers.)
            return !origins.allSatisfy { origin in
                hosts.contains { origin == "http://\($0)" || origin == "https://\($0)" }
            }
        }
    }

    /// Nil where the request is let in.
    /// - Parameters:
    ///   - isOfPage: whether it has a field that only browsers send (`Origin`, `Sec-Fetch-Site`).
    ///   - peer: the connection's, as far as it has got.
    package func refusal(
        _ route: Route, _ method: Methods, isOfPage: Bool, _ sender: @autoclosure () -> Sender,
        _ peer: inout PeerCalleeHandshake
    ) -> Answer? {
        switch route.access(method) {
        case .anybody: return nil
        case .data:
            if data != nil { return refusal(ofReader: sender()) }
            // (What is read is kept from foreign pages by the browser itself.)
            guard isOfPage, method != .get, sender().isOfForeignPage(besides: origins) else { return nil }
            return ErrorAnswer.foreignPage
        case .watch:
            if data == nil { return nil }
            let sender = sender()
            return sender.isLocal ? nil : refusal(ofReader: sender)
        case .admin: return refusal(ofOperator: sender(), method)
        case .hello: return refusal(ofStranger: sender())
        case .peer:
            // (Batches come by the thousand; who has proved to be a node stays one while the connection lasts.)
            return peer.peer == nil ? refusal(ofPeer: sender(), &peer) : nil
        }
    }

    private func refusal(ofReader sender: Sender) -> Answer? {
        guard let data, !admits(sender, data) else { return nil }
        if let admin, admits(sender, admin) { return nil }
        return ErrorAnswer.noToken("data")
    }

    private func refusal(ofOperator sender: Sender, _ method: Methods) -> Answer? {
        if let admin {
            if admits(sender, admin) { return nil }
            if let data, admits(sender, data) { return ErrorAnswer.dataTokenOnly }
            return ErrorAnswer.noToken("admin")
        }
        if sender.mayBeForged(method, by: scheme) { return ErrorAnswer.maybeForged }
        if sender.isLocal { return nil }
        guard door.isInsecure else { return ErrorAnswer.operatorElsewhere }
        // (Over plain HTTP and beyond loopback a browser sends none of those fields with GET.)
        return method == .get ? ErrorAnswer.changeByGet : nil
    }

    private func refusal(ofStranger sender: Sender) -> Answer? {
        guard let address = sender.address, door.allowed.contains(address.unmapped), !sender.isForwarded,
            sender.origins.isEmpty, sender.referer == nil, sender.fetchSite == nil
        else { return ErrorAnswer.noPeer }
        return nil
    }

    private func refusal(ofPeer sender: Sender, _ peer: inout PeerCalleeHandshake) -> Answer? {
        if let refusal = refusal(ofStranger: sender) { return refusal }
        guard let secrets = door.secrets, !door.isInsecure else { return nil }
        return peer.proved(sender.peerProof.flatMap { PeerProof($0) }, secrets) ? nil : ErrorAnswer.unprovenPeer
    }

    private func admits(_ sender: Sender, _ tokens: TokenSet) -> Bool {
        // (Of two, which one is meant can't be told.)
        guard sender.authorizations.count == 1 else { return false }
        var value = sender.authorizations[0]
        return value.withUTF8 { tokens.admits(UnsafeRawBufferPointer($0)) }
    }

    /// `localhost`, 127.x.x.x or [::1], with a port or without.
    private static func isLoopbackHost(_ text: String) -> Bool {
        var host = text[...]
        if let colon = host.lastIndex(of: ":"),
            host[host.index(after: colon)...].utf8.allSatisfy({ (0x30...0x39).contains($0) })
        {
            host = host[..<colon]
        }
        if host.lowercased() == "localhost" { return true }
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        return IPAddress(host)?.isLoopback ?? false
    }
}

extension HTTPFrontHandler {
    /// Nil where the request is let in.
    func refusal(of request: FrontRequest, _ head: HTTPRequestHead, isOfPage: Bool) -> Answer? {
        front.gate?.refusal(
            request.route, request.method, isOfPage: isOfPage,
            AccessGate.Sender(head.headers, at: remoteAddress), &peerHandshake)
    }

    /// Tells a caller what this node proves itself by.
    func greetPeer(_ request: FrontRequest, _ id: RequestID) {
        guard let door = front.gate?.door, let secrets = door.secrets else {
            return complete(id, ErrorAnswer.noSecret)
        }
        guard request.body.readableBytes <= PeerHandshake.helloBytes,
            let hello = PeerHello(request.body.readableBytesView)
        else { return complete(id, ErrorAnswer.noHello.closing) }
        guard isCertified(hello.caller) else { return complete(id, ErrorAnswer.uncertifiedPeer.closing) }
        guard let answer = peerHandshake.greeted(hello, at: door.node, secrets, nonce: PeerNonce()) else {
            return complete(id, ErrorAnswer.noHello.closing)
        }
        complete(id, .json(ByteBuffer(bytes: answer.encoded)))
    }

    /// Whether the node that a caller says it is, is one that its certificate is for. (Without TLS between the nodes
    /// there are none, and its proof alone counts.)
    private func isCertified(_ caller: NodeID) -> Bool {
        guard front.hasPeerCertificates else { return true }
        guard let channel = context?.channel, let address = IPAddress(caller.host) else { return false }
        return PeerTLS.isCaller(at: address, on: channel)
    }
}
