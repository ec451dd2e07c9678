// SPDX-License-Identifier: Apache-2.0

package import AccessControl
package import NIOCore
internal import NIOSSL
internal import NIOTLS

/// What a worker makes of `TLSSecrets`, once: how it is on each of its connections.
package struct TLSContexts: Sendable {
    /// Towards clients; nil: plain text.
    package let clients: ServerTLS?
    /// Towards other nodes; nil: plain text.
    package let peers: PeerTLS?

    package static let plain = TLSContexts(clients: nil, peers: nil)

    private init(clients: ServerTLS?, peers: PeerTLS?) {
        self.clients = clients
        self.peers = peers
    }

    package init(_ secrets: TLSSecrets) throws {
        clients = try secrets.clients.map { try ServerTLS(NIOSSLContext(configuration: $0.configuration())) }
        peers = try secrets.peers.map { try PeerTLS($0) }
    }
}

/// The side that is called.
package struct ServerTLS: Sendable {
    /// From a connection's first moment to the end of the handshake; an absolute time, not a pause between bytes.
    package static let handshakeTime = TimeAmount.seconds(5)

    private let context: NIOSSLContext

    fileprivate init(_ context: NIOSSLContext) { self.context = context }

    /// Must come before all other handlers of the connection.
    package func addHandlers(to channel: any Channel) throws {
        let pipeline = channel.pipeline.syncOperations
        try pipeline.addHandler(NIOSSLServerHandler(context: context))
        try pipeline.addHandler(HandshakeDeadline())
    }
}

/// Between nodes: both sides show a certificate that the cluster's authority has signed. The caller finds the address
/// that it has called among the names of the callee's; the callee finds the address that the caller's hello claims
/// among the caller's (`isCaller(at:on:)`, for the claim comes later).
package struct PeerTLS: Sendable {
    /// For connections that come in.
    package let server: ServerTLS
    private let client: NIOSSLContext

    fileprivate init(_ secrets: TLSSecrets.Peers) throws {
        let roots = try PEM.certificates(secrets.authority, of: secrets.authorityPath, as: "authority")
        var callee = try secrets.identity.configuration()
        callee.trustRoots = .certificates(roots)
        // (A server that verifies at all asks for a certificate, and takes none that comes without one. Which names it
        // has to have can't be told before the hello.)
        callee.certificateVerification = .noHostnameVerification
        server = ServerTLS(try NIOSSLContext(configuration: callee))

        var caller = TLSConfiguration.makeClientConfiguration()
        caller.minimumTLSVersion = .tlsv12
        caller.trustRoots = .certificates(roots)
        caller.certificateChain = callee.certificateChain
        caller.privateKey = callee.privateKey
        caller.shutdownTimeout = callee.shutdownTimeout
        client = try NIOSSLContext(configuration: caller)
    }

    /// Must come before all other handlers of a connection to another node.
    package func addCallerHandler(to channel: any Channel) throws {
        // Without a name it is the address that has to be among the certificate's.
        try channel.pipeline.syncOperations.addHandler(NIOSSLClientHandler(context: client, serverHostname: nil))
    }

    /// Whether the other side of a connection that came in has shown a certificate for this address.
    package static func isCaller(at address: IPAddress, on channel: any Channel) -> Bool {
        let handler = try? channel.pipeline.syncOperations.handler(type: NIOSSLServerHandler.self)
        return handler?.peerCertificate?.isFor(address) ?? false
    }
}

/// Ends a connection whose handshake takes too long, and leaves once it is done.
private final class HandshakeDeadline: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer

    private var end: Scheduled<Void>?

    func handlerAdded(context: ChannelHandlerContext) {
        end = context.eventLoop.assumeIsolated().scheduleTask(in: ServerTLS.handshakeTime) {
            context.close(promise: nil)
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) { end?.cancel() }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard case .handshakeCompleted? = event as? TLSUserEvent else {
            return context.fireUserInboundEventTriggered(event)
        }
        context.pipeline.syncOperations.removeHandler(self, promise: nil)
    }
}
