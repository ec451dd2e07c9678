// SPDX-License-Identifier: Apache-2.0

internal import Cluster
internal import KeyValue
internal import NIOCore

/// A value that is stored in chunks, while it is given out: they are read as the connection takes them, so that some of
/// them are held and never all of it. Belongs to the connection's event loop.
final class ValueStream {
    enum Next {
        /// Not here yet.
        case wait
        case piece(ByteBuffer)
        case end
        case failure(OperationFailure)
    }

    /// What stands before the value; goes out with the first piece.
    let lines: Reply
    /// Whether some of it has gone out.
    private(set) var hasBegun = false

    private let front: CommandFront
    private let large: LargeValue
    private let key: Key
    private var read: LargeRead?
    private var heldBytes = 0
    private var arrived: Result<ByteBuffer?, LargeRead.Failure>?
    private var isAsking = false

    init(_ large: LargeValue, of key: Key, behind lines: Reply, _ front: CommandFront) {
        self.large = large
        self.key = key
        self.lines = lines
        self.front = front
    }

    deinit {
        read?.abandon()
        front.hold(-heldBytes)
    }

    /// Takes the next piece. It is the turn of this value: nothing is read before.
    /// - Parameter news: called once more is here, where it was told to wait.
    func next(_ news: @escaping () -> Void) -> Next {
        if read == nil, front.isFull { return .failure(.notApplied(.overloaded)) }
        if arrived == nil, !isAsking { ask(news) }
        guard let result = arrived else { return .wait }
        arrived = nil
        switch result {
        case .success(let piece?):
            hasBegun = true
            return .piece(piece)
        case .success(nil): return .end
        // (It was overwritten meanwhile; the next get finds what is there now.)
        case .failure(.missing): return .failure(.notApplied(.contended))
        case .failure(.failed(let failure)): return .failure(failure)
        }
    }

    private func ask(_ news: @escaping () -> Void) {
        let read = read ?? begin()
        isAsking = true
        read.take { [weak self] result in
            guard let self else { return }
            arrived = result
            isAsking = false
            news()
        }
    }

    private func begin() -> LargeRead {
        let store = front.store
        let read = LargeRead(large, 0..<large.length, of: key) { chunk, isStrict, completion in
            store.read(stored: chunk, isStrict ? .strict : nil, completion: completion)
        }
        self.read = read
        heldBytes = read.heldBytes
        front.hold(heldBytes)
        return read
    }
}
