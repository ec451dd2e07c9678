// SPDX-License-Identifier: Apache-2.0

private import KeyValue
package import NIOCore
private import NIOPosix

/// The worker's listening side: accepts clients on a socket that it was given, and serves them on the front's event
/// loop.
///
/// The socket is shared with the other workers of the host, so a worker that has its fill leaves new clients to them.
package final class FrontServer: Sendable {
    /// So few that clients who come all at once spread over the workers.
    private static let acceptsAtOnce: UInt = 2

    /// Linux's TCP_NOTSENT_LOWAT, which has no name in the packages: the socket takes no more while this much is not on
    /// its way, so that a slow reader costs little memory and can be told from one that does not read (tcp(7)).
    private static let unsentLowWater = NIOBSDSocket.Option(rawValue: 25)
    private static let unsentBytes: SocketOptionValue = 128 << 10

    private let listener: any Channel

    private init(_ listener: any Channel) { self.listener = listener }

    /// Starts to accept.
    /// - Parameters:
    ///   - listener: a descriptor that listens already. It is closed with `stopAccepting`, which leaves the socket to
    ///     its other owners.
    ///   - connections: how many there may be at once; by default `Limits.connectionsPerWorker`.
    package static func start(
        _ front: NIOLoopBound<Front>, listener: NIOBSDSocket.Handle, connections: Int? = nil
    ) async throws -> FrontServer {
        let limit = connections ?? Limits.connectionsPerWorker
        let channel = try await ServerBootstrap(group: front.eventLoop, childGroup: front.eventLoop)
            .serverChannelOption(.maxMessagesPerRead, value: acceptsAtOnce)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptCap(front.value, limit))
                }
            }
            .childChannelOption(.socketOption(.tcp_nodelay), value: 1)
            .childChannelOption(
                ChannelOptions.Types.SocketOption(level: .tcp, name: unsentLowWater), value: unsentBytes
            )
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try HTTPFrontHandler.addHandlers(to: channel, front.value) }
            }
            .withBoundSocket(listener)
            .get()
        return FrontServer(channel)
    }

    /// Accepts nobody any more; returns once the listening descriptor is closed. (That it was closed before is as
    /// good.)
    package func stopAccepting() async { try? await listener.close().get() }

    /// Waits with accepting while there are as many connections as there may be.
    private final class AcceptCap: ChannelDuplexHandler {
        typealias InboundIn = any Channel
        typealias OutboundIn = any Channel

        private let front: Front
        private let limit: Int
        private var isWaiting = false

        init(_ front: Front, _ limit: Int) {
            self.front = front
            self.limit = limit
        }

        func handlerAdded(context: ChannelHandlerContext) {
            front.onRoom = {
                guard self.isWaiting, self.front.connectionCount < self.limit else { return }
                self.isWaiting = false
                context.read()
            }
        }

        func handlerRemoved(context: ChannelHandlerContext) { front.onRoom = {} }

        func read(context: ChannelHandlerContext) {
            if front.connectionCount < limit { context.read() } else { isWaiting = true }
        }
    }
}
