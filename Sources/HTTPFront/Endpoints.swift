// SPDX-License-Identifier: Apache-2.0

private import NIOCore

/// From a request's route to what does it.
extension HTTPFrontHandler {
    func perform(_ request: FrontRequest, _ id: RequestID) {
        switch (request.route, request.method) {
        case (.pair, .get): readPair(request, id, here: false)
        case (.pair, .delete): deletePair(request, id, here: false)
        case (.pair, _): storePair(request, id, here: false)
        case (.peerBatch, _): serveBatch(request, id)
        case (.pairHere, .get): readPair(request, id, here: true)
        case (.pairHere, .delete): deletePair(request, id, here: true)
        case (.pairHere, _): storePair(request, id, here: true)
        case (.key, .get): readKey(request, id)
        case (.key, .delete): deleteKey(request, id)
        case (.key, .post): incrementKey(request, id)
        case (.key, _): storeKey(request, id)
        case (.batch, _): performBatch(request, id)
        case (.list, _): listKeys(request, id)
        case (.export, _): exportKeys(request, id)
        case (.import, _): importKeys(request, id)
        case (.owner, _): tellOwner(request, id)
        case (.home, _): complete(id, .text("The key-value node \(front.node) runs.\n"))
        case (.ring, .get): showRing(id)
        case (.ring, _): installRing(request, id)
        case (.addNode, _): addNode(request, id)
        case (.removeNode, _): removeNode(request, id)
        case (.replaceNode, _): replaceNode(request, id)
        case (.abortChange, _): abortChange(id)
        case (.pairs, _): streamPairs(id)
        case (.clear, _): clear(id)
        case (.status, _): tellStatus(id)
        case (.metrics, _): tellMetrics(id)
        case (.page, _): showPage(request, id)
        case (.watch, _): watchRing(id)
        case (.plan, _): planChange(request, id)
        case (.copies, _): tellCopies(request, id)
        case (.live, _): complete(id, .text("alive\n"))
        case (.ready, _): tellReadiness(id)
        case (.peerHello, _): greetPeer(request, id)
        case (.peerCall, _): servePeerCall(request, id)
        }
    }

    /// Has work done away from the event loop; its answer comes back to it.
    /// - Returns: whether it is done; where too much is, the request has been answered so.
    @discardableResult
    func handOver(
        _ id: RequestID, _ kind: OperatorTaskKind = .request, _ work: @escaping @Sendable () async -> Answer
    ) -> Bool {
        let connection = NIOLoopBound(self, eventLoop: front.loop)
        let loop = front.loop
        let isTaken = front.tasks.run(kind) {
            let answer = await work()
            loop.execute { connection.value.complete(id, answer) }
        }
        if !isTaken { complete(id, busy) }
        return isTaken
    }

    /// Why no work is taken.
    var busy: Answer { front.isLeaving ? ErrorAnswer.leaving : ErrorAnswer.overloaded }
}
