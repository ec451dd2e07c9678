// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// Stands before the decoder and hands it the connection's bytes in small pieces, as long as the front takes requests.
/// What it does not take waits here, at most what one read brought, and then in the socket.
final class InputGate: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer

    /// A piece holds no more requests than this many bytes can.
    static let pieceBytes = 2048

    private let front: HTTPFrontHandler
    private var context: ChannelHandlerContext?
    private var held: ByteBuffer?
    private var heldEvent: Any?
    private var isFeeding = false
    private var wantsRead = false

    init(_ front: HTTPFrontHandler) { self.front = front }

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        held = nil
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        if front.isEnding { return front.discarded(bytes.readableBytes) }
        if held != nil {
            held?.writeBuffer(&bytes)
        } else {
            feed(bytes, context)
        }
    }

    /// The end of the other side's bytes comes after the bytes.
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if held != nil, !front.isEnding {
            heldEvent = event
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }

    func read(context: ChannelHandlerContext) {
        if front.isEnding || held == nil && front.takesInput {
            context.read()
        } else {
            wantsRead = true
        }
    }

    /// The front may take more than before.
    func resume() {
        guard let context, !isFeeding else { return }
        if let bytes = held {
            guard front.takesInput || front.isEnding else { return }
            held = nil
            feed(bytes, context)
            context.fireChannelReadComplete()
        }
        if held == nil, let event = heldEvent {
            heldEvent = nil
            context.fireUserInboundEventTriggered(event)
        }
        if wantsRead, front.isEnding || held == nil && front.takesInput {
            wantsRead = false
            context.read()
        }
    }

    private func feed(_ bytes: ByteBuffer, _ context: ChannelHandlerContext) {
        var bytes = bytes
        isFeeding = true
        while bytes.readableBytes > 0, front.takesInput {
            // Of a body's bytes all at once: they are no requests.
            let length = min(bytes.readableBytes, max(InputGate.pieceBytes, front.bodyBytesToCome))
            guard let piece = bytes.readSlice(length: length) else { break }
            let heads = front.headCount
            context.fireChannelRead(wrapInboundOut(piece))
            front.wasFed(hadNewHead: front.headCount != heads)
        }
        isFeeding = false
        if front.isEnding {
            front.discarded(bytes.readableBytes)
        } else if bytes.readableBytes > 0 {
            held = bytes
        }
    }
}
