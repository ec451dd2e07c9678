// SPDX-License-Identifier: Apache-2.0

package import NIOCore
private import NIOPosix
package import TransportSecurity

/// A worker's listening side: accepts clients on a socket that it was given, on one event loop.
///
/// The socket is shared with the other workers of the host, so a worker that has its fill leaves new clients to them.
package final class ConnectionServer: Sendable {
    /// So few that clients who come all at once spread over the workers.
    private static let acceptsAtOnce: UInt = 2

    /// Linux's TCP_NOTSENT_LOWAT, which has no name in the packages: the socket takes no more while this much is not on
    /// its way, so that a slow reader costs little memory and can be told from one that does not read (tcp(7)).
    private static let unsentLowWater = NIOBSDSocket.Option(rawValue: 25)
    private static let unsentBytes: SocketOptionValue = 128 << 10

    /// From now on the socket of this connection takes nothing before all that it has is on its way: whatever its
    /// client does not read waits in the channel as soon as the client's own buffer is full. To be called on its loop.
    package static func sendAtOnce(_ channel: any Channel) {
        // (A connection that is closing already has no such option.)
        try? channel.syncOptions?.setOption(
            ChannelOptions.Types.SocketOption(level: .tcp, name: unsentLowWater), value: 1)
    }

    private let listener: any Channel

    private init(_ listener: any Channel) { self.listener = listener }

    /// Starts to accept.
    /// - Parameters:
    ///   - listener: a descriptor that listens already. It is closed with `stopAccepting`, which leaves the socket to
    ///     its other owners.
    ///   - tls: what secures the connections; nil: they are of plain text, and have no handler for it.
    ///   - initialize: makes the connection's pipeline.
    package static func start(
        listener: NIOBSDSocket.Handle, room: NIOLoopBound<ConnectionRoom>, tls: ServerTLS?,
        initialize: @escaping @Sendable (any Channel) throws -> Void
    ) async throws -> ConnectionServer {
        let channel = try await ServerBootstrap(group: room.eventLoop, childGroup: room.eventLoop)
            .serverChannelOption(.maxMessagesPerRead, value: acceptsAtOnce)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptCap(room.value))
                }
            }
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(
                ChannelOptions.Types.SocketOption(level: .tcp, name: unsentLowWater), value: unsentBytes
            )
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try tls?.addHandlers(to: channel)
                    try initialize(channel)
                }
            }
            .withBoundSocket(listener)
            .get()
        return ConnectionServer(channel)
    }

    /// Accepts nobody any more; returns once the listening descriptor is closed. (That it was closed before is as
    /// good.)
    package func stopAccepting() async { try? await listener.close().get() }

    /// Waits with accepting while there are as many connections as there may be, and for a moment after an accept that
    /// failed. Who is not accepted waits in the socket, where another worker may take it.
    private final class AcceptCap: ChannelDuplexHandler {
        typealias InboundIn = any Channel
        typealias OutboundIn = any Channel

        /// How soon room is looked for that nobody has told of: descriptors that another part has closed, or a limit
        /// that was raised (`prlimit`).
        private static let pause = TimeAmount.milliseconds(100)

        private let room: ConnectionRoom
        private var waiting: Scheduled<Void>?

        init(_ room: ConnectionRoom) { self.room = room }

        func handlerAdded(context: ChannelHandlerContext) {
            room.onRoom(for: self) {
                guard let waiting = self.waiting, self.room.hasRoom else { return }
                waiting.cancel()
                self.waiting = nil
                context.read()
            }
        }

        func handlerRemoved(context: ChannelHandlerContext) {
            room.onRoom(for: self, nil)
            waiting?.cancel()
        }

        func read(context: ChannelHandlerContext) {
            if room.hasRoom { return context.read() }
            guard waiting == nil else { return }
            waiting = context.eventLoop.assumeIsolated().scheduleTask(in: AcceptCap.pause) {
                self.waiting = nil
                self.read(context: context)
            }
        }

        /// Most likely the machine has no descriptor left. The client is still there, and the read that failed is still
        /// wanted: NIO would try again at once, over and over. (Its AcceptBackoffHandler holds back the next one only.)
        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            let options = context.channel.syncOptions
            try? options?.setOption(.autoRead, value: false)
            context.eventLoop.assumeIsolated().scheduleTask(in: AcceptCap.pause) {
                try? options?.setOption(.autoRead, value: true)
            }
            context.fireErrorCaught(error)
        }
    }
}
