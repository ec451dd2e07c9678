// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// The answer of `GET /fetch_keys` while it is being written: a JSON object in pieces, each handed over only once the
/// one before it has gone to the channel, so that one piece at most waits here. Belongs to its connection's event loop.
final class PairStream {
    /// The connection ended before the answer did.
    struct Abandoned: Error {}

    private var pending: (piece: ByteBuffer, taken: EventLoopPromise<Void>)?
    private var isChunked = true
    private var hasPairs = false
    private var isAbandoned = false
    private var confirmation: EventLoopPromise<Void>?

    private(set) var hasBegun = false
    private(set) var isLast = false
    private(set) var isFinished = false
    private(set) var failure: (any Error)?

    var hasPending: Bool { pending != nil }

    // MARK: The producer's side

    /// Pairs as JSON text, separated by commas; the promise is kept once the next may come.
    func push(_ piece: ByteBuffer, taken: EventLoopPromise<Void>) {
        guard !isAbandoned, pending == nil else { return taken.fail(Abandoned()) }
        if piece.readableBytes == 0 { return taken.succeed() }
        pending = (piece, taken)
    }

    func finish(_ error: (any Error)?) {
        failure = error
        isFinished = true
    }

    // MARK: The connection's side

    func begin(isChunked: Bool, isLast: Bool) {
        hasBegun = true
        self.isChunked = isChunked
        self.isLast = isLast
    }

    func takePending() -> ByteBuffer? {
        guard let pending else { return nil }
        self.pending = nil
        confirmation = pending.taken
        return pending.piece
    }

    /// What stands before a piece.
    func openFrame(_ piece: ByteBuffer, into out: inout ByteBuffer) {
        if isChunked { AnswerEncoder.beginChunk(piece.readableBytes + 1, into: &out) }
        out.writeStaticString(hasPairs ? "," : "{")
        hasPairs = true
    }

    /// What stands behind a piece.
    func closeFrame(into out: inout ByteBuffer) {
        if isChunked { out.writeStaticString("\r\n") }
    }

    /// Asks for the next piece.
    func confirm() {
        confirmation?.succeed()
        confirmation = nil
    }

    func writeEnd(into out: inout ByteBuffer) {
        let end: StaticString = hasPairs ? "}" : "{}"
        guard isChunked else {
            out.writeStaticString(end)
            return
        }
        AnswerEncoder.beginChunk(end.utf8CodeUnitCount, into: &out)
        out.writeStaticString(end)
        out.writeStaticString("\r\n0\r\n\r\n")
    }

    func abandon() {
        isAbandoned = true
        pending?.taken.fail(Abandoned())
        pending = nil
    }
}
