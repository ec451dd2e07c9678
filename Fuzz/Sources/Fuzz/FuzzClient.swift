// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOEmbedded

/// A client's connection without a network, to a store of its own.
final class FuzzClient {
    let store = FuzzStore()
    let channel = EmbeddedChannel()
    private(set) var answers = ByteBuffer()

    /// - Parameter serve: adds what answers to the channel.
    init(_ serve: (EmbeddedChannel, FuzzStore) throws -> Void) {
        channel.allowRemoteHalfClosure = true
        do {
            try serve(channel, store)
            try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        } catch {
            fatalError("\(error)")
        }
    }

    deinit { _ = try? channel.finish(acceptAlreadyClosed: true) }

    func send(_ bytes: UnsafeRawBufferPointer) {
        guard channel.isActive else { return }
        _ = try? channel.writeInbound(ByteBuffer(bytes: bytes))
        channel.embeddedEventLoop.run()
        while var sent = try? channel.readOutbound(as: ByteBuffer.self) { answers.writeBuffer(&sent) }
    }
}
