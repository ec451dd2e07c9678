// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// Stands before the decoder and hands it the connection's bytes in small pieces, as long as the front takes requests.
/// What it does not take waits here, at most what one read brought, and then in the socket.
///
/// Between two requests it looks for one that `FastPath` knows, which the decoder then never sees. For that it has to
/// know whether the decoder holds the beginning of a request: its pieces end where requests may end.
final class InputGate: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer

    /// A piece holds no more requests than this many bytes can.
    static let pieceBytes = 2048

    private let front: HTTPFrontHandler
    /// Nil once it has left the pipeline.
    @exclusivity(unchecked) private(set) var context: ChannelHandlerContext?
    @exclusivity(unchecked) private var held: ByteBuffer?
    @exclusivity(unchecked) private var heldEvent: Any?
    @exclusivity(unchecked) private var isFeeding = false
    @exclusivity(unchecked) private var wantsRead = false
    /// Whether all that the decoder was given has ended with a request's end.
    @exclusivity(unchecked) private var isDecoderIdle = true
    /// Whether what comes next may be one that `FastPath` knows: where the decoder is idle, but for the peers' own
    /// port.
    @exclusivity(unchecked) private var mayBeShort: Bool
    /// Whether the decoder was given something since it was told that this was all for now.
    @exclusivity(unchecked) private var hasDecoded = false

    init(_ front: HTTPFrontHandler) {
        self.front = front
        mayBeShort = front.side != .peers
    }

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

    /// Of a turn that brought nothing for the decoder, the front alone is told.
    func channelReadComplete(context: ChannelHandlerContext) {
        if hasDecoded {
            hasDecoded = false
            context.fireChannelReadComplete()
        } else {
            front.readIsComplete()
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
            channelReadComplete(context: context)
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
            if mayBeShort,
                let found = FastPath.request(in: bytes, bodyLimit: front.fastBodyLimit, tokens: front.dataTokens)
            {
                bytes.moveReaderIndex(forwardBy: found.length)
                front.received(whole: found.request, found.trace)
            } else {
                decode(&bytes, context)
            }
        }
        isFeeding = false
        if front.isEnding {
            front.discarded(bytes.readableBytes)
        } else if bytes.readableBytes > 0 {
            held = bytes
        }
    }

    /// Hands one piece to the decoder.
    private func decode(_ bytes: inout ByteBuffer, _ context: ChannelHandlerContext) {
        let cut = nextCut(bytes.readableBytesView)
        guard let piece = bytes.readSlice(length: cut.length) else { return }
        let ends = front.endCount
        hasDecoded = true
        context.fireChannelRead(wrapInboundOut(piece))
        let hasEnded = front.endCount != ends
        isDecoderIdle = hasEnded && cut.mayBeEnd
        mayBeShort = isDecoderIdle && front.side != .peers
        front.wasFed(hadEnd: hasEnded)
    }

    /// Where the next piece ends, and whether a request that ends in it ends with its last byte.
    private func nextCut(_ bytes: ByteBufferView) -> (length: Int, mayBeEnd: Bool) {
        // Of a body's bytes all at once: they are no requests.
        if let body = front.bodyBytesToCome, body > 0 { return (min(bytes.count, body), true) }
        let piece = bytes.prefix(InputGate.pieceBytes)
        // A body in chunks says its end in the decoder's language alone; what comes after it is found again below.
        guard front.isBetweenRequests else { return (piece.count, false) }
        var position = piece.startIndex
        while let end = piece[position...].firstIndex(of: UInt8(ascii: "\n")) {
            position = end + 1
            // A head ends with the first empty line; of one that began in an earlier piece, any line may be that.
            let rest = piece[position...]
            let emptyLine = rest.starts(with: "\r\n".utf8) ? 2 : rest.starts(with: "\n".utf8) ? 1 : 0
            if emptyLine > 0 || !isDecoderIdle {
                return (position + (isDecoderIdle ? emptyLine : 0) - piece.startIndex, true)
            }
        }
        return (piece.count, false)
    }
}
