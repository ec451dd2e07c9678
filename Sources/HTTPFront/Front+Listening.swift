// SPDX-License-Identifier: Apache-2.0

package import Listening
package import NIOCore
package import TransportSecurity

extension Front {
    /// Starts to accept clients on a descriptor that listens already, and serves them on the front's event loop.
    /// - Parameters:
    ///   - side: who connects there.
    ///   - tls: what secures the connections; nil: nothing does.
    package static func listen(
        _ front: NIOLoopBound<Front>, listener: NIOBSDSocket.Handle, for side: ListeningSide = .everybody,
        over tls: ServerTLS? = nil
    ) async throws -> ConnectionServer {
        let room = try await front.eventLoop.submit { NIOLoopBound(front.value.room, eventLoop: front.eventLoop) }.get()
        return try await ConnectionServer.start(listener: listener, room: room, tls: tls) { channel in
            try HTTPFrontHandler.addHandlers(to: channel, front.value, at: side)
        }
    }
}
